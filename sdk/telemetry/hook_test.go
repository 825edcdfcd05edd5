package telemetry

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/open-feature/go-sdk/openfeature"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/log/embedded"
	logs "go.opentelemetry.io/otel/log/noop"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// logged keeps the records it gets; off, it wants none.
type logged struct {
	embedded.Logger
	off  bool
	list []log.Record
	ctx  context.Context
}

func (l *logged) Enabled(context.Context, log.EnabledParameters) bool { return !l.off }
func (l *logged) Emit(ctx context.Context, r log.Record)              { l.ctx, l.list = ctx, append(l.list, r) }

type loggers struct {
	embedded.LoggerProvider
	one *logged
}

func (p loggers) Logger(string, ...log.LoggerOption) log.Logger { return p.one }

// told is a record's attributes in one line.
func told(r log.Record) string {
	var b strings.Builder
	r.WalkAttributes(func(kv attribute.KeyValue) bool {
		fmt.Fprintf(&b, "%s=%s ", strings.TrimPrefix(string(kv.Key), "feature_flag."), kv.Value.String())
		return true
	})
	return strings.TrimSpace(b.String())
}

func evaluation(value any, d openfeature.ResolutionDetail) (openfeature.HookContext, openfeature.InterfaceEvaluationDetails) {
	hc := openfeature.NewHookContext("express", openfeature.Boolean, false, openfeature.NewClientMetadata(""), openfeature.Metadata{Name: "sealstone"},
		openfeature.NewEvaluationContext("buyer-7", nil))
	return hc, openfeature.InterfaceEvaluationDetails{Value: value, EvaluationDetails: openfeature.EvaluationDetails{FlagKey: "express", ResolutionDetail: d}}
}

func TestEvaluationEvents(t *testing.T) {
	md := openfeature.FlagMetadata{"flagSetId": "checkout", "version": "sha256:9f3b", "owner": "team"}
	redact := func(string) string { return "" }
	for name, c := range map[string]struct {
		value     any
		detail    openfeature.ResolutionDetail
		contextID func(string) string
		want      string
	}{
		"a variant": {true, openfeature.ResolutionDetail{Variant: "on", Reason: openfeature.TargetingMatchReason, FlagMetadata: md}, nil,
			"context.id=buyer-7 key=express provider.name=sealstone result.reason=targeting_match result.variant=on set.id=checkout version=sha256:9f3b"},
		"an error": {false, openfeature.ResolutionDetail{Reason: openfeature.ErrorReason, ErrorCode: openfeature.FlagNotFoundCode, ErrorMessage: "flag not found", FlagMetadata: md}, nil,
			"error.type=flag_not_found context.id=buyer-7 error.message=flag not found key=express provider.name=sealstone result.reason=error result.value=false set.id=checkout version=sha256:9f3b"},
		"an object without a variant": {map[string]any{"big": 1}, openfeature.ResolutionDetail{Reason: openfeature.StaticReason}, redact,
			"key=express provider.name=sealstone result.reason=static"},
		"long text": {strings.Repeat("é", 200), openfeature.ResolutionDetail{}, redact,
			"key=express provider.name=sealstone result.reason=unknown result.value=" + strings.Repeat("é", 126) + "..."},
		"a hashed context": {int64(3), openfeature.ResolutionDetail{Reason: openfeature.StaticReason}, func(k string) string { return "h(" + k + ")" },
			"context.id=h(buyer-7) key=express provider.name=sealstone result.reason=static result.value=3"},
	} {
		t.Run(name, func(t *testing.T) {
			l := &logged{}
			p := newProcess(t, "checkout@prod", Config{Logger: loggers{one: l}, ContextID: c.contextID, Events: LogRecords | SpanEvents})
			ctx, span := p.Start(t.Context(), "request")
			hc, d := evaluation(c.value, c.detail)
			p.Hook().Finally(ctx, hc, d, openfeature.HookHints{})
			span.End()
			if len(l.list) != 1 || l.list[0].EventName() != "feature_flag.evaluation" || told(l.list[0]) != c.want {
				t.Errorf("records %d: %s\nwant %s", len(l.list), told(l.list[0]), c.want)
			}
			if l.ctx != ctx {
				t.Error("the record isn't of the span's context")
			}
			events := p.spans.GetSpans()[0].Events
			if len(events) != 1 || events[0].Name != "feature_flag.evaluation" || len(events[0].Attributes) != l.list[0].AttributesLen() {
				t.Errorf("span events %v", events)
			}
		})
	}
}

// Which forms are told is configured, and each only where somebody listens.
func TestEventsGoWhereTheyAreWanted(t *testing.T) {
	for _, c := range []struct {
		events      Events
		off         bool
		logs, spans int
	}{{0, false, 1, 0}, {SpanEvents, false, 0, 1}, {LogRecords | SpanEvents, true, 0, 1}} {
		l := &logged{off: c.off}
		p := newProcess(t, "checkout@prod", Config{Logger: loggers{one: l}, Events: c.events})
		ctx, span := p.Start(t.Context(), "request")
		hc, d := evaluation(true, openfeature.ResolutionDetail{Variant: "on"})
		p.Hook().Finally(ctx, hc, d, openfeature.HookHints{})
		span.End()
		if got := len(p.spans.GetSpans()[0].Events); len(l.list) != c.logs || got != c.spans {
			t.Errorf("%+v: %d records, %d span events", c, len(l.list), got)
		}
	}
}

// Through OpenFeature, with its own provider: the hook fits.
func TestHookOfOpenFeature(t *testing.T) {
	l := &logged{}
	p := newProcess(t, "checkout@prod", Config{Logger: loggers{one: l}})
	of := openfeature.NewClient("telemetry-test")
	of.AddHooks(p.Hook())
	if v, err := of.BooleanValue(t.Context(), "express", true, openfeature.EvaluationContext{}); err != nil || !v {
		t.Fatal(v, err)
	}
	if len(l.list) != 1 || !strings.Contains(told(l.list[0]), "key=express") {
		t.Errorf("records %v", l.list)
	}
}

func TestAHookThatNobodyHearsAllocatesNothing(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no logger":             {Logger: logs.NewLoggerProvider(), Events: LogRecords | SpanEvents},
		"a logger that is off":  {Logger: loggers{one: &logged{off: true}}, Events: LogRecords | SpanEvents},
		"an unsampled span":     {Events: SpanEvents, Tracer: sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.NeverSample()))},
		"the global, unset log": {},
	} {
		p := newProcess(t, "checkout@prod", cfg)
		ctx, span := p.tracer.Start(t.Context(), "request")
		if name != "an unsampled span" {
			ctx = t.Context()
		}
		h := p.Hook()
		hc, d := evaluation(true, openfeature.ResolutionDetail{Variant: "on", Reason: openfeature.StaticReason, FlagMetadata: openfeature.FlagMetadata{"version": "x"}})
		if n := testing.AllocsPerRun(100, func() { h.Finally(ctx, hc, d, openfeature.HookHints{}) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		span.End()
	}
}
