package telemetry

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/sdk"
)

// Config says where telemetry goes. The zero value uses OpenTelemetry's global
// providers and Prometheus' default registry.
type Config struct {
	Tracer     trace.TracerProvider          // nil is the global one
	Logger     log.LoggerProvider            // of evaluation events; nil is the global one
	Propagator propagation.TextMapPropagator // nil is W3C trace context and baggage. Another one must carry baggage

	Registerer prometheus.Registerer // of request metrics; nil is prometheus.DefaultRegisterer
	Buckets    []float64             // of durations, in seconds; nil is prometheus.DefBuckets
	MaxBundles int                   // the newest so many have a label of their own; 0 is 16, at least 2

	Events Events // how evaluations are told; 0 is LogRecords

	// ContextID makes feature_flag.context.id of the targeting key, which may
	// be personal: hash it, or return "" to leave it out. Nil takes it as it is.
	ContextID func(targetingKey string) string
}

// Events are the forms an evaluation event has. They can be added up.
type Events int

// The forms of events.
const (
	LogRecords Events = 1 << iota // log records with an event name, as the semantic conventions say
	SpanEvents                    // events of the current span, for backends without logs
)

// scope names this package to OpenTelemetry.
const scope = "github.com/sealstone/sealstone/sdk/telemetry"

// Names of attributes. Those of instance reports are the same.
const (
	BundleKey       = attribute.Key("sealstone.bundle.digest")
	SetKey          = attribute.Key("sealstone.set.digest")
	ModeKey         = attribute.Key("sealstone.mode")
	IndexKey        = attribute.Key("sealstone.change.index") // of the change that put the bundle into effect; -1 for a pending statement
	ArtifactKey     = attribute.Key("sealstone.artifact.digest")
	CallerKey       = attribute.Key("sealstone.caller.service")
	CallerBundleKey = attribute.Key("sealstone.caller.bundle") // 12 hex digits
	ImageKey        = attribute.Key("oci.manifest.digest")
)

const (
	bundleDigits     = 12
	defaultMaxLabels = 16
)

// Telemetry is one client's telemetry. Its methods are safe for concurrent use.
// It is a propagator as well: installed by otel.SetTextMapPropagator, it makes
// every other instrumentation of the process carry the bundle, too.
type Telemetry struct {
	running  func() sdk.Running
	cfg      Config
	tracer   trace.Tracer
	service  string
	artifact []attribute.KeyValue
	requests *requests
	current  atomic.Pointer[state]
}

var _ propagation.TextMapPropagator = (*Telemetry)(nil)

// state is what is said of one running bundle, made once and never changed.
type state struct {
	running sdk.Running
	label   string
	attrs   []attribute.KeyValue
	member  baggage.Member
}

// New makes the telemetry of a client and registers its metrics.
func New(client *sdk.Client, cfg Config) (*Telemetry, error) {
	return newTelemetry(client.Running, client.Identity(), cfg)
}

func newTelemetry(running func() sdk.Running, me api.Instance, cfg Config) (*Telemetry, error) {
	if cfg.MaxBundles == 0 {
		cfg.MaxBundles = defaultMaxLabels
	}
	if cfg.MaxBundles < 2 {
		return nil, errors.New("telemetry config: MaxBundles must be 2 or more, for the bundle before a change and the one after it")
	}
	if cfg.Tracer == nil {
		cfg.Tracer = otel.GetTracerProvider()
	}
	if cfg.Propagator == nil {
		cfg.Propagator = propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
	}
	if cfg.Events == 0 {
		cfg.Events = LogRecords
	}
	requests, err := newRequests(&cfg, me)
	if err != nil {
		return nil, err
	}
	t := &Telemetry{running: running, cfg: cfg, tracer: cfg.Tracer.Tracer(scope), service: me.Target.Service, requests: requests}
	if me.Artifact != "" {
		t.artifact = append(t.artifact, ArtifactKey.String(me.Artifact))
	}
	if me.Image != "" {
		t.artifact = append(t.artifact, ImageKey.String(me.Image))
	}
	return t, nil
}

// now is the state of what runs now.
func (t *Telemetry) now() *state {
	r := t.running()
	if s := t.current.Load(); s != nil && s.running == r {
		return s
	}
	s := t.describe(r)
	t.requests.admit(s.label)
	t.current.Store(s)
	return s
}

func (t *Telemetry) describe(r sdk.Running) *state {
	s := &state{running: r, label: short(r.Bundle)}
	s.attrs = append([]attribute.KeyValue{
		BundleKey.String(string(r.Bundle)), SetKey.String(string(r.Set)), ModeKey.String(string(r.Mode)), IndexKey.Int64(r.Index),
	}, t.artifact...)
	s.member, _ = baggage.NewMemberRaw(callerMember, t.service+callerSep+s.label) // a service's name and hex digits fit
	return s
}

// short is a digest as labels have it: 12 hex digits.
func short(d api.Digest) string {
	hex := d.Hex()
	return hex[:min(bundleDigits, len(hex))]
}

// Attributes are what spans get here, for spans that others start. Read them
// only.
func (t *Telemetry) Attributes() []attribute.KeyValue { return t.now().attrs }

// Start starts a span that names what runs and who called: for the consumer of
// a queue, or a job. End it.
func (t *Telemetry) Start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	opts = append([]trace.SpanStartOption{trace.WithAttributes(t.now().attrs...)}, opts...)
	ctx, span := t.tracer.Start(ctx, name, opts...)
	tellCaller(ctx, span)
	return ctx, span
}
