package integration_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/open-feature/go-sdk/openfeature"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/integration/proctest"
	"github.com/sealstone/sealstone/ledger"
	"github.com/sealstone/sealstone/sdk"
	"github.com/sealstone/sealstone/sdk/telemetry"
)

// message is what a queue carries: nothing passes it but text.
type message struct {
	headers map[string]string
	body    string
}

// shopTrace is the shop as three services that would be three processes: a
// customer calls checkout, checkout calls catalog, and puts an order into a
// queue that payments reads.
type shopTrace struct {
	t       *testing.T
	spans   *tracetest.InMemoryExporter
	clients map[string]*sdk.Client
	front   *httptest.Server
	metrics *httptest.Server
	queue   chan message
	paid    chan error
}

func newShopTrace(t *testing.T, r *proctest.Rig, server string) *shopTrace {
	s := &shopTrace{t: t, spans: tracetest.NewInMemoryExporter(), clients: map[string]*sdk.Client{}, queue: make(chan message), paid: make(chan error)}
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSyncer(s.spans))
	registry := prometheus.NewRegistry()
	tels := map[string]*telemetry.Telemetry{}
	for _, name := range []string{"checkout", "catalog", "payments"} {
		cfg := sdkConfig(t, r, name+"@prod/eu-west-1", server)
		cfg.Instance.Artifact = string(artifactOf(name))
		s.clients[name] = openSDK(t, cfg)
		tel, err := telemetry.New(s.clients[name], telemetry.Config{Tracer: tracer, Registerer: registry, Events: telemetry.SpanEvents})
		if err != nil {
			t.Fatal(err)
		}
		tels[name] = tel
	}
	catalog := httptest.NewServer(tels["catalog"].Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "in stock") })))
	t.Cleanup(catalog.Close)
	s.front = httptest.NewServer(tels["checkout"].Edge(s.checkout(tels["checkout"], catalog.URL)))
	t.Cleanup(s.front.Close)
	s.metrics = httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	t.Cleanup(s.metrics.Close)
	go s.payments(tels["payments"])
	t.Cleanup(func() { close(s.queue); <-s.paid })
	return s
}

func artifactOf(service string) api.Digest { return api.DigestOf([]byte("binary of " + service)) }

// checkout evaluates a flag through OpenFeature, asks catalog and orders; with
// express checkout turned on it fails.
func (s *shopTrace) checkout(tel *telemetry.Telemetry, catalog string) http.Handler {
	of := openfeature.NewClient("checkout-of-" + s.t.Name())
	if err := openfeature.SetNamedProviderAndWait("checkout-of-"+s.t.Name(), s.clients["checkout"].Provider()); err != nil {
		s.t.Fatal(err)
	}
	of.AddHooks(tel.Hook())
	calls := &http.Client{Transport: tel.Transport(nil)}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, _ := http.NewRequestWithContext(r.Context(), http.MethodGet, catalog, nil)
		res, err := calls.Do(req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		m := message{headers: map[string]string{}, body: "order"}
		tel.Inject(r.Context(), propagation.MapCarrier(m.headers))
		s.queue <- m
		if on, _ := of.BooleanValue(r.Context(), "express-checkout", false, openfeature.NewEvaluationContext("buyer-7", nil)); on {
			http.Error(w, "a bug that a flag let out", http.StatusInternalServerError)
		}
	})
}

// payments reads the queue until it is closed.
func (s *shopTrace) payments(tel *telemetry.Telemetry) {
	for m := range s.queue {
		ctx := tel.Extract(context.Background(), propagation.MapCarrier(m.headers))
		_, span := tel.Start(ctx, "settle "+m.body, trace.WithSpanKind(trace.SpanKindConsumer))
		span.End()
		s.paid <- nil
	}
	close(s.paid)
}

// buy is one customer's request; it returns the spans of its trace by service.
func (s *shopTrace) buy(status int) map[string]tracetest.SpanStub {
	s.t.Helper()
	s.spans.Reset()
	req, _ := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.front.URL, nil)
	req.Header.Set("Baggage", "sealstone.b=payments:000000000000") // a stranger's lie
	done := make(chan struct{})
	go func() { <-s.paid; close(done) }()
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	res.Body.Close()
	proctest.Await(s.t, "the payment", done)
	if res.StatusCode != status {
		s.t.Fatalf("checkout answered %s", res.Status)
	}
	out := map[string]tracetest.SpanStub{}
	proctest.Until(s.t, "four spans", func() bool { return len(s.spans.GetSpans()) == 4 })
	for _, span := range s.spans.GetSpans() {
		if span.SpanContext.TraceID() != s.spans.GetSpans()[0].SpanContext.TraceID() {
			s.t.Errorf("span %s is of another trace", span.Name)
		}
		for name := range s.clients {
			if spanText(span, telemetry.ArtifactKey) == string(artifactOf(name)) && span.SpanKind != trace.SpanKindClient {
				out[name] = span
			}
		}
	}
	return out
}

func spanText(s tracetest.SpanStub, key attribute.Key) string {
	for _, kv := range s.Attributes {
		if kv.Key == key {
			return kv.Value.String()
		}
	}
	return ""
}

// broughtBy asks the server which changes brought the bundle on a span.
func broughtBy(t *testing.T, server *proctest.Server, span tracetest.SpanStub) []ledger.Event {
	t.Helper()
	digest := spanText(span, telemetry.BundleKey)
	if !api.Digest(digest).Valid() {
		t.Fatalf("span %s has bundle %q", span.Name, digest)
	}
	var answer api.Changes
	server.JSON("/v1/changes?digest="+digest, &answer)
	var out []ledger.Event
	for _, c := range answer.Changes {
		out = append(out, decode[ledger.Event](t, string(c.Event)))
	}
	return out
}

// total is a sum of sealstone_requests_total over the lines with all labels.
func (s *shopTrace) total(labels ...string) (n int) {
	s.t.Helper()
	res, err := http.Get(s.metrics.URL)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
next:
	for _, m := range regexp.MustCompile(`(?m)^sealstone_requests_total(\{.*\}) (\d+)$`).FindAllStringSubmatch(string(text), -1) {
		for _, l := range labels {
			if !strings.Contains(m[1], l) {
				continue next
			}
		}
		var one int
		_, _ = fmt.Sscan(m[2], &one)
		n += one
	}
	return n
}

// One trace crosses HTTP and a queue; every span of it leads to the change that
// brought what ran there, and the request metrics fall apart into before and
// after a flip.
func TestATraceJoinsToTheChange(t *testing.T) {
	t.Parallel()
	r := proctest.New(t, examples.Shop())
	server := r.Serve()
	first := r.Git("rev-parse", "HEAD")
	server.UntilTip(first)
	s := newShopTrace(t, r, server.URL)

	spans := s.buy(http.StatusOK)
	for name, caller := range map[string]string{"checkout": "", "catalog": "checkout", "payments": "checkout"} {
		span := spans[name]
		if got := spanText(span, telemetry.CallerKey); got != caller {
			t.Errorf("%s was called by %q, want %q", name, got, caller)
		}
		changes := broughtBy(t, server, span)
		if len(changes) == 0 {
			t.Fatalf("no change brought the bundle of %s", name)
		}
		for _, e := range changes {
			if e.Data.Service != name || e.Data.Release == nil || e.Data.Release.Commit != first {
				t.Errorf("bundle of %s: change %+v", name, e.Data)
			}
		}
	}
	before := spanText(spans["checkout"], telemetry.BundleKey)

	expressOn(r, true)
	flip := r.Push("Turn express checkout on")
	untilExpress(t, s.clients["checkout"], true)
	spans = s.buy(http.StatusInternalServerError)
	after := spanText(spans["checkout"], telemetry.BundleKey)
	changes := broughtBy(t, server, spans["checkout"])
	if len(changes) == 0 || changes[0].Data.Release.Commit != flip || after == before {
		t.Errorf("the bundle after the flip: %+v", changes)
	}
	var entry api.Record
	server.JSON("/v1/changes/"+spanText(spans["checkout"], telemetry.IndexKey), &entry)
	if e := decode[ledger.Event](t, string(entry.Event)); e.Data.Release.Commit != flip || string(e.Data.Set.Digest) != spanText(spans["checkout"], telemetry.SetKey) {
		t.Errorf("the change on the span: %s", entry.Event)
	}
	event := spans["checkout"].Events[0]
	if e := fmt.Sprint(event.Attributes); event.Name != "feature_flag.evaluation" || !strings.Contains(e, after) || !strings.Contains(e, "express-checkout") {
		t.Errorf("event %s %s", event.Name, e)
	}
	for _, c := range []struct {
		bundle, outcome string
		want            int
	}{{before, "success", 1}, {before, "server_error", 0}, {after, "success", 0}, {after, "server_error", 1}} {
		labels := []string{`service="checkout"`, `artifact="` + artifactOf("checkout").Hex()[:12] + `"`, `bundle="` + api.Digest(c.bundle).Hex()[:12] + `"`, `outcome="` + c.outcome + `"`}
		if got := s.total(labels...); got != c.want {
			t.Errorf("%v: %d, want %d", labels, got, c.want)
		}
	}
	if got := s.total(`service="catalog"`, `region="eu-west-1"`, `env="prod"`); got != 2 {
		t.Errorf("catalog served %d", got)
	}
}
