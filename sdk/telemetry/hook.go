package telemetry

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/open-feature/go-sdk/openfeature"
	semconv "github.com/open-feature/go-sdk/openfeature/telemetry"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/trace"

	"github.com/sealstone/sealstone/api"
)

// maxText bounds texts of events in bytes: values and messages may be anybody's.
const maxText = 256

// Hook is an OpenFeature hook that tells every evaluation as an event
// feature_flag.evaluation. Where nobody listens, no logger and no recording
// span, it allocates nothing. Handles of the SDK run no hooks.
func (t *Telemetry) Hook() openfeature.Hook {
	provider := t.cfg.Logger
	if provider == nil {
		provider = otel.GetLoggerProvider()
	}
	return &hook{t: t, logger: provider.Logger(scope)}
}

type hook struct {
	openfeature.UnimplementedHook
	t      *Telemetry
	logger log.Logger
}

// Finally is the stage at which the outcome is known.
func (h *hook) Finally(ctx context.Context, hc openfeature.HookContext, d openfeature.InterfaceEvaluationDetails, _ openfeature.HookHints) {
	span := trace.SpanFromContext(ctx)
	toLog := h.t.cfg.Events&LogRecords != 0 && h.logger.Enabled(ctx, log.EnabledParameters{Severity: log.SeverityInfo, EventName: semconv.FlagEvaluationKey})
	toSpan := h.t.cfg.Events&SpanEvents != 0 && span.IsRecording()
	if !toLog && !toSpan {
		return
	}
	attrs := h.attributes(semconv.CreateEvaluationEvent(hc, d))
	if toSpan {
		span.AddEvent(semconv.FlagEvaluationKey, trace.WithAttributes(attrs...))
	}
	if toLog {
		var r log.Record
		r.SetEventName(semconv.FlagEvaluationKey)
		r.SetSeverity(log.SeverityInfo)
		r.AddAttributes(attrs...)
		h.logger.Emit(ctx, r)
	}
}

// errorMessageKey is OpenTelemetry's name for why an evaluation failed.
const errorMessageKey = "feature_flag.error.message"

// attributes are an event's, in order. Values that are no scalars are left out:
// they can be of any size.
func (h *hook) attributes(e semconv.EvaluationEvent) []attribute.KeyValue {
	out := make([]attribute.KeyValue, 0, len(e.Attributes))
	for name, v := range e.Attributes {
		if id, isText := v.(string); isText && name == semconv.ContextIDKey {
			v = h.contextID(id)
		}
		if name == semconv.ErrorMessageKey { // as OpenFeature still names it
			name = errorMessageKey
		}
		if kv, ok := scalar(attribute.Key(name), v); ok {
			out = append(out, kv)
		}
	}
	slices.SortFunc(out, func(a, b attribute.KeyValue) int { return cmp.Compare(a.Key, b.Key) })
	return out
}

func (h *hook) contextID(targetingKey string) any {
	if f := h.t.cfg.ContextID; f != nil {
		targetingKey = f(targetingKey)
	}
	if targetingKey == "" {
		return nil
	}
	return targetingKey
}

func scalar(key attribute.Key, v any) (attribute.KeyValue, bool) {
	switch v := v.(type) {
	case string:
		return key.String(api.Clip(strings.ToValidUTF8(v, ""), maxText)), true
	case bool:
		return key.Bool(v), true
	case int64:
		return key.Int64(v), true
	case float64:
		return key.Float64(v), true
	}
	return attribute.KeyValue{}, false
}
