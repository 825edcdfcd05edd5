package telemetry

import (
	"context"
	"net/http"
	"strings"

	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/sealstone/sealstone/api"
)

// Baggage that is ours. The one member says which service called, and by which
// bundle: "checkout:9f3b12ab34cd". Each hop replaces it by its own.
const (
	ownMembers   = "sealstone."
	callerMember = ownMembers + "b"
	callerSep    = ":"
)

// Inject puts the trace context, the baggage and the running bundle into the
// headers of a request or a message to a service of our own.
func (t *Telemetry) Inject(ctx context.Context, to propagation.TextMapCarrier) {
	if b, err := baggage.FromContext(ctx).SetMember(t.now().member); err == nil {
		ctx = baggage.ContextWithBaggage(ctx, b)
	}
	t.cfg.Propagator.Inject(ctx, to)
}

// Extract reads what Inject wrote. It believes the sender: see [Telemetry.Edge]
// for those who can't be believed.
func (t *Telemetry) Extract(ctx context.Context, from propagation.TextMapCarrier) context.Context {
	return t.cfg.Propagator.Extract(ctx, from)
}

// Fields are the headers that Inject writes.
func (t *Telemetry) Fields() []string { return t.cfg.Propagator.Fields() }

// tellCaller puts who called on a span. What isn't spelled as Inject spells it
// is nobody.
func tellCaller(ctx context.Context, span trace.Span) {
	if !span.IsRecording() {
		return
	}
	service, bundle, ok := strings.Cut(baggage.FromContext(ctx).Member(callerMember).Value(), callerSep)
	if ok && api.CheckName(service) == nil && isLabel(bundle) {
		span.SetAttributes(CallerKey.String(service), CallerBundleKey.String(bundle))
	}
}

func isLabel(s string) bool {
	return len(s) == bundleDigits && strings.Trim(s, "0123456789abcdef") == ""
}

// withoutOurs drops the members that only services of our own may set.
func withoutOurs(b baggage.Baggage) (_ baggage.Baggage, dropped bool) {
	for _, m := range b.Members() {
		if strings.HasPrefix(m.Key(), ownMembers) {
			b, dropped = b.DeleteMember(m.Key()), true
		}
	}
	return b, dropped
}

// strip drops them from a request's headers, where a proxy would pass them on,
// and from its context, where an instrumentation around ours has put them.
func strip(r *http.Request) *http.Request {
	carrier := propagation.HeaderCarrier(r.Header)
	sent := baggage.FromContext(propagation.Baggage{}.Extract(context.Background(), carrier))
	if b, dropped := withoutOurs(sent); dropped {
		r.Header.Del("Baggage")
		propagation.Baggage{}.Inject(baggage.ContextWithBaggage(context.Background(), b), carrier)
	}
	if b, dropped := withoutOurs(baggage.FromContext(r.Context())); dropped {
		return r.WithContext(baggage.ContextWithBaggage(r.Context(), b))
	}
	return r
}
