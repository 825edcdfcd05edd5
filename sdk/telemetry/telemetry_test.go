package telemetry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/sdk"
)

// process is a service without a client: it runs what the test says.
type process struct {
	*Telemetry
	runs     atomic.Pointer[sdk.Running]
	registry *prometheus.Registry
	spans    *tracetest.InMemoryExporter
}

var artifact = string(api.DigestOf([]byte("artifact")))

// runs makes up what change n brought.
func runs(n int) *sdk.Running {
	name := strconv.Itoa(n)
	return &sdk.Running{Bundle: api.DigestOf([]byte("bundle " + name)), Set: api.DigestOf([]byte("set " + name)), Mode: api.ModeNormal, Index: int64(n)}
}

func newProcess(t testing.TB, target string, cfg Config) *process {
	t.Helper()
	at, err := api.ParseTarget(target)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{registry: prometheus.NewRegistry(), spans: tracetest.NewInMemoryExporter()}
	p.runs.Store(runs(1))
	cfg.Registerer = p.registry
	if cfg.Tracer == nil {
		cfg.Tracer = sdktrace.NewTracerProvider(sdktrace.WithSyncer(p.spans))
	}
	p.Telemetry, err = newTelemetry(func() sdk.Running { return *p.runs.Load() }, api.Instance{Target: at, Artifact: artifact}, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// scrape is the metrics as Prometheus reads them, those of a name only.
func (p *process) scrape(t *testing.T, name string) (lines []string) {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(p.registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, name+"{") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func answer(code int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) })
}

func get(h http.Handler, header ...string) {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	h.ServeHTTP(httptest.NewRecorder(), r)
}

// attr is a span's attribute as text.
func attr(s tracetest.SpanStub, key attribute.Key) string {
	for _, kv := range s.Attributes {
		if kv.Key == key {
			return kv.Value.String()
		}
	}
	return ""
}

func TestRequestsAreCutByBundleAndOutcome(t *testing.T) {
	p := newProcess(t, "checkout@prod/eu-west-1/canary", Config{})
	get(p.Middleware(answer(200)))
	get(p.Middleware(answer(404)))
	p.runs.Store(runs(2))
	get(p.Middleware(answer(503)))
	get(p.Middleware(answer(302)))

	const rest = `env="prod",outcome="`
	line := func(n int, outcome string) string {
		return `sealstone_requests_total{artifact="` + api.Digest(artifact).Hex()[:12] + `",bundle="` + runs(n).Bundle.Hex()[:12] + `",` + rest + outcome +
			`",pool="canary",region="eu-west-1",service="checkout"} 1`
	}
	want := []string{line(1, "client_error"), line(1, "success"), line(2, "server_error"), line(2, "success")}
	slices.Sort(want)
	if got := p.scrape(t, "sealstone_requests_total"); !slices.Equal(got, want) {
		t.Errorf("scraped\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := p.scrape(t, "sealstone_requests_seconds_count"); len(got) != len(want) {
		t.Errorf("durations\n%s", strings.Join(got, "\n"))
	}
	families, err := p.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if problems, err := promlint.NewWithMetricFamilies(families).Lint(); err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v, %v", problems, err)
	}
}

// A scope without region and pool has none, and a deeper one keeps its names.
func TestLabelsOfPlaces(t *testing.T) {
	for target, want := range map[string]string{
		"a@prod":            `env="prod" region="" pool=""`,
		"a@prod/eu/canary":  `env="prod" region="eu" pool="canary"`,
		"a@prod/eu/x/y":     `env="prod" region="eu" pool="x/y"`,
		"a@staging/us-east": `env="staging" region="us-east" pool=""`,
	} {
		at, err := api.ParseTarget(target)
		if err != nil {
			t.Fatal(err)
		}
		l := constLabels(api.Instance{Target: at})
		if got := `env="` + l["env"] + `" region="` + l["region"] + `" pool="` + l["pool"] + `"`; got != want || l["artifact"] != "" {
			t.Errorf("%s: %s, want %s", target, got, want)
		}
	}
}

func TestAPanicIsNoAnswer(t *testing.T) {
	p := newProcess(t, "checkout@prod", Config{})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		get(p.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("bug") })))
	}()
	if got := p.scrape(t, "sealstone_requests_total"); len(got) != 1 || !strings.Contains(got[0], `outcome="no_answer"`) {
		t.Errorf("scraped %q", got)
	}
}

// Whatever happens, there are at most MaxBundles labels and "other".
func TestLabelsAreBounded(t *testing.T) {
	const most, flips = 4, 200
	p := newProcess(t, "checkout@prod", Config{MaxBundles: most})
	started, finish := make(chan struct{}), make(chan struct{})
	slow := p.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { close(started); <-finish }))
	var wg sync.WaitGroup
	wg.Go(func() { get(slow) })
	<-started
	for n := range flips {
		p.runs.Store(runs(2 + n))
		get(p.Middleware(answer(200)))
		wg.Go(func() { get(p.Middleware(answer(200))) })
		if n%50 == 0 {
			wg.Go(func() { _, _ = p.Transport(failing{}).RoundTrip(httptest.NewRequest(http.MethodGet, "http://x", nil)) })
		}
	}
	p.runs.Store(runs(flips + 1))
	get(p.Middleware(answer(200)))
	close(finish)
	wg.Wait()
	for _, name := range []string{"sealstone_requests_total", "sealstone_requests_seconds_count", "sealstone_client_requests_total", "sealstone_client_requests_seconds_count"} {
		seen := map[string]bool{}
		for _, line := range p.scrape(t, name) {
			_, rest, _ := strings.Cut(line, `bundle="`)
			label, _, _ := strings.Cut(rest, `"`)
			seen[label] = true
		}
		if delete(seen, Other); len(seen) > most {
			t.Errorf("%s has %d bundles, at most %d", name, len(seen), most)
		}
	}
	all := strings.Join(p.scrape(t, "sealstone_requests_total"), "\n")
	if !strings.Contains(all, short(runs(flips+1).Bundle)) {
		t.Errorf("the newest bundle has no label:\n%s", all)
	}
	if !strings.Contains(all, `bundle="other"`) {
		t.Errorf("what began under a forgotten bundle isn't counted:\n%s", all)
	}
}

type failing struct{}

func (failing) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("no route to host")
}

func TestCallsAreCounted(t *testing.T) {
	p := newProcess(t, "checkout@prod", Config{})
	s := httptest.NewServer(answer(500))
	defer s.Close()
	for _, rt := range []http.RoundTripper{nil, failing{}} {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, nil)
		if res, err := p.Transport(rt).RoundTrip(r); err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
	}
	got := strings.Join(p.scrape(t, "sealstone_client_requests_total"), "\n")
	if !strings.Contains(got, `outcome="server_error"`) || !strings.Contains(got, `outcome="no_answer"`) {
		t.Errorf("scraped\n%s", got)
	}
	for _, s := range p.spans.GetSpans() {
		if s.SpanKind != trace.SpanKindClient || attr(s, BundleKey) != string(runs(1).Bundle) {
			t.Errorf("span %s %s %v", s.SpanKind, s.Name, s.Attributes)
		}
	}
}

func TestAHopTellsItsOwnBundle(t *testing.T) {
	caller, callee := newProcess(t, "checkout@prod", Config{}), newProcess(t, "catalog@prod", Config{})
	callee.runs.Store(runs(7))
	var next http.Header
	served := callee.Middleware(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		next = http.Header{}
		callee.Inject(r.Context(), propagation.HeaderCarrier(next))
	}))
	ctx, span := caller.Start(t.Context(), "buy")
	ctx = baggage.ContextWithBaggage(ctx, mustBaggage(t, "tenant=blue"))
	sent := http.Header{}
	caller.Inject(ctx, propagation.HeaderCarrier(sent))
	span.End()
	get(served, "Traceparent", sent.Get("Traceparent"), "Baggage", sent.Get("Baggage"))

	s := callee.spans.GetSpans()[0]
	if s.SpanContext.TraceID() != span.SpanContext().TraceID() {
		t.Error("the trace isn't continued")
	}
	for key, want := range map[attribute.Key]string{BundleKey: string(runs(7).Bundle), SetKey: string(runs(7).Set), ModeKey: "normal", IndexKey: "7",
		ArtifactKey: artifact, CallerKey: "checkout", CallerBundleKey: short(runs(1).Bundle)} {
		if got := attr(s, key); got != want {
			t.Errorf("%s = %q, want %q", key, got, want)
		}
	}
	b := mustBaggage(t, next.Get("Baggage"))
	if own, tenant := b.Member(callerMember).Value(), b.Member("tenant").Value(); own != "catalog:"+short(runs(7).Bundle) || tenant != "blue" || b.Len() != 2 {
		t.Errorf("the next hop gets baggage %q", next.Get("Baggage"))
	}
}

func mustBaggage(t *testing.T, s string) baggage.Baggage {
	t.Helper()
	b, err := baggage.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	foreignParent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	foreignTrace  = "0af7651916cd43dd8448eb211c80319c"
	forged        = "sealstone.b=payments:aaaaaaaaaaaa,tenant=blue, sealstone.x=1"
)

func TestTheEdgeBelievesNobody(t *testing.T) {
	p := newProcess(t, "checkout@prod", Config{})
	var header, ctx string
	get(p.Edge(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		header, ctx = r.Header.Get("Baggage"), baggage.FromContext(r.Context()).String()
	})), "Traceparent", foreignParent, "Baggage", forged)
	if header != "tenant=blue" || ctx != "tenant=blue" {
		t.Errorf("header %q, context %q", header, ctx)
	}
	s := p.spans.GetSpans()[0]
	if attr(s, CallerKey) != "" || s.SpanContext.TraceID().String() == foreignTrace || len(s.Links) != 1 || s.Links[0].SpanContext.TraceID().String() != foreignTrace {
		t.Errorf("trace %s, links %v, attributes %v", s.SpanContext.TraceID(), s.Links, s.Attributes)
	}
}

// An instrumentation around ours has the span, and the baggage in the context.
func TestTheSpanOfAnOuterInstrumentationIsTaken(t *testing.T) {
	p := newProcess(t, "checkout@prod", Config{})
	var ctx string
	inner := p.Edge(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { ctx = baggage.FromContext(r.Context()).String() }))
	get(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, span := p.tracer.Start(p.Extract(r.Context(), propagation.HeaderCarrier(r.Header)), "outer")
		defer span.End()
		inner.ServeHTTP(w, r.WithContext(ctx))
	}), "Traceparent", foreignParent, "Baggage", forged)
	spans := p.spans.GetSpans()
	if len(spans) != 1 || spans[0].Name != "outer" || attr(spans[0], BundleKey) == "" || attr(spans[0], CallerKey) != "" || ctx != "tenant=blue" {
		t.Errorf("context %q, spans %v", ctx, spans)
	}
}

func TestCallersThatAreNoneAreIgnored(t *testing.T) {
	p := newProcess(t, "checkout@prod", Config{})
	for _, value := range []string{"", "checkout", ":aaaaaaaaaaaa", "checkout:", "checkout:AAAAAAAAAAAA", "checkout:aaaaaaaaaaaaa", "a%20b:aaaaaaaaaaaa",
		"checkout:zzzzzzzzzzzz", strings.Repeat("a", 41) + ":aaaaaaaaaaaa"} {
		p.spans.Reset()
		get(p.Middleware(answer(200)), "Baggage", callerMember+"="+value)
		if s := p.spans.GetSpans()[0]; attr(s, CallerKey) != "" || attr(s, CallerBundleKey) != "" {
			t.Errorf("%q became %q %q", value, attr(s, CallerKey), attr(s, CallerBundleKey))
		}
	}
}

func TestConfigFaults(t *testing.T) {
	p := newProcess(t, "checkout@prod", Config{})
	if _, err := newTelemetry(p.running, api.Instance{Target: api.Target{Service: "checkout", Scope: "prod"}, Artifact: artifact}, Config{Registerer: p.registry}); err == nil || !strings.Contains(err.Error(), "registry of its own") {
		t.Errorf("twice in a registry: %v", err)
	}
	if _, err := newTelemetry(p.running, api.Instance{}, Config{MaxBundles: 1}); err == nil || !strings.Contains(err.Error(), "MaxBundles") {
		t.Errorf("one label: %v", err)
	}
}

func TestAsTheGlobalPropagator(t *testing.T) {
	p := newProcess(t, "checkout@prod", Config{})
	if got := p.Fields(); !slices.Contains(got, "traceparent") || !slices.Contains(got, "baggage") {
		t.Errorf("fields %q", got)
	}
	to := propagation.MapCarrier{}
	p.Inject(context.Background(), to)
	if to["baggage"] != "sealstone.b=checkout:"+short(runs(1).Bundle) {
		t.Errorf("message headers %v", to)
	}
}
