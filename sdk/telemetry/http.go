package telemetry

import (
	"net/http"
	"time"

	"github.com/felixge/httpsnoop"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/trace"
)

// Middleware serves with a span that names what runs and who called, and counts
// the request by what runs. A span that an instrumentation around it has begun
// is taken; otherwise it begins one. Put it around routes that answer and end:
// a stream would be one very slow request.
func (t *Telemetry) Middleware(next http.Handler) http.Handler { return t.serve(next) }

// Edge is Middleware where strangers call: baggage in our name is dropped, and
// their trace is linked to, not continued.
func (t *Telemetry) Edge(next http.Handler) http.Handler {
	served := t.serve(next, otelhttp.WithPublicEndpointFn(func(*http.Request) bool { return true }))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		clean := strip(r)
		defer func() { r.MultipartForm = clean.MultipartForm }() // net/http removes its files
		served.ServeHTTP(w, clean)
	})
}

func (t *Telemetry) serve(next http.Handler, opts ...otelhttp.Option) http.Handler {
	counted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { t.count(next, w, r) })
	traced := otelhttp.NewHandler(counted, "", append(t.options(), opts...)...)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if sc := trace.SpanContextFromContext(r.Context()); sc.IsValid() && !sc.IsRemote() {
			counted.ServeHTTP(w, r)
			return
		}
		traced.ServeHTTP(w, r)
	})
}

func (t *Telemetry) options() []otelhttp.Option {
	return []otelhttp.Option{otelhttp.WithTracerProvider(t.cfg.Tracer), otelhttp.WithPropagators(t)}
}

// count serves under the current span. What runs when a request begins is what
// it is counted by.
func (t *Telemetry) count(next http.Handler, w http.ResponseWriter, r *http.Request) {
	s, span := t.now(), trace.SpanFromContext(r.Context())
	if span.IsRecording() {
		span.SetAttributes(s.attrs...)
		tellCaller(r.Context(), span)
	}
	m := httpsnoop.Metrics{Code: http.StatusOK}
	panicked := true
	defer func() {
		if panicked {
			m.Code = 0 // net/http cuts the connection
		}
		t.requests.server.observe(s.label, m.Code, m.Duration)
	}()
	m.CaptureMetrics(w, func(w http.ResponseWriter) { next.ServeHTTP(w, r) })
	panicked = false
}

// Transport calls services of our own: with a span that names what runs, the
// running bundle in the headers, and the call counted by what runs. Don't wrap
// clients of strangers with it. Nil is http.DefaultTransport.
func (t *Telemetry) Transport(next http.RoundTripper) http.RoundTripper {
	if next == nil {
		next = http.DefaultTransport
	}
	return otelhttp.NewTransport(roundTripper(func(r *http.Request) (*http.Response, error) { return t.call(next, r) }), t.options()...)
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (t *Telemetry) call(next http.RoundTripper, r *http.Request) (*http.Response, error) {
	s, start := t.now(), time.Now()
	trace.SpanFromContext(r.Context()).SetAttributes(s.attrs...)
	res, err := next.RoundTrip(r)
	code := 0
	if err == nil {
		code = res.StatusCode
	}
	t.requests.client.observe(s.label, code, time.Since(start))
	return res, err
}
