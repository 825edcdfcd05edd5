package telemetry

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// tracers are none at all, and one whose spans record.
var tracers = map[string]trace.TracerProvider{"untraced": noop.NewTracerProvider(), "traced": sdktrace.NewTracerProvider()}

// instrumented are a handler under otelhttp alone, and under the middleware,
// which is otelhttp and what we add.
func instrumented(tb testing.TB, tracer trace.TracerProvider) (alone, ours http.Handler) {
	p := newProcess(tb, "checkout@prod", Config{Tracer: tracer})
	return otelhttp.NewHandler(answer(200), "", p.options()...), p.Middleware(answer(200))
}

// What the middleware costs a request over loopback: compare the rows of one
// run.
func BenchmarkMiddleware(b *testing.B) {
	run := func(name string, h http.Handler) {
		b.Run(name, func(b *testing.B) {
			s := httptest.NewServer(h)
			defer s.Close()
			b.ReportAllocs()
			for b.Loop() {
				res, err := s.Client().Get(s.URL)
				if err != nil {
					b.Fatal(err)
				}
				res.Body.Close()
			}
		})
	}
	run("bare", answer(200))
	for name, tracer := range tracers {
		alone, ours := instrumented(b, tracer)
		run(name+"/otelhttp", alone)
		run(name+"/middleware", ours)
	}
}

// Metrics and attributes are prepared: a request pays for reading its status.
func TestWhatTheMiddlewareAddsToOtelhttp(t *testing.T) {
	const wrapper = 14 // httpsnoop's closures, and the one that calls on
	for name, tracer := range tracers {
		r, w := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder()
		alone, ours := instrumented(t, tracer)
		allocs := func(h http.Handler) float64 { return testing.AllocsPerRun(200, func() { h.ServeHTTP(w, r) }) }
		if more := allocs(ours) - allocs(alone); more > wrapper {
			t.Errorf("%s: %v allocations more, want at most %d", name, more, wrapper)
		}
	}
}
