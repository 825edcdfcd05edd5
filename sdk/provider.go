package sdk

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/open-feature/go-sdk/openfeature"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/flags"
)

// Provider is the OpenFeature provider of a client. Its own part of an
// evaluation allocates nothing. Shutting it down doesn't close the client,
// which may serve documents and other domains.
type Provider struct {
	client *Client
	events chan openfeature.Event

	mu          sync.Mutex    // orders emits, so that coalescing loses none
	initialized chan struct{} // Init was called
}

var (
	_ openfeature.FeatureProvider          = (*Provider)(nil)
	_ openfeature.ContextAwareStateHandler = (*Provider)(nil)
	_ openfeature.EventHandler             = (*Provider)(nil)
	_ openfeature.Tracker                  = (*Provider)(nil)
)

// ProviderName is what the provider calls itself.
const ProviderName = "sealstone"

// Provider returns the client's one provider.
func (c *Client) Provider() *Provider { return c.provider }

func newProvider(c *Client) *Provider {
	return &Provider{client: c, events: make(chan openfeature.Event, 8), initialized: make(chan struct{}, 1)}
}

// Metadata names the provider.
func (p *Provider) Metadata() openfeature.Metadata { return openfeature.Metadata{Name: ProviderName} }

// Hooks are none.
func (p *Provider) Hooks() []openfeature.Hook { return nil }

// Init has nothing to wait for: an open client has something to serve.
func (p *Provider) Init(openfeature.EvaluationContext) error {
	p.client.poke(p.initialized)
	return nil
}

// InitWithContext is Init.
func (p *Provider) InitWithContext(context.Context, openfeature.EvaluationContext) error {
	return p.Init(openfeature.EvaluationContext{})
}

// Shutdown leaves the client open; see [Client.Close].
func (p *Provider) Shutdown() {}

// ShutdownWithContext is Shutdown.
func (p *Provider) ShutdownWithContext(context.Context) error { return nil }

// Track does nothing: what users do is not configuration.
func (p *Provider) Track(context.Context, string, openfeature.EvaluationContext, openfeature.TrackingEventDetails) {
}

// EventChannel is where the SDK hears of changes.
func (p *Provider) EventChannel() <-chan openfeature.Event { return p.events }

// BooleanEvaluation resolves a boolean flag.
func (p *Provider) BooleanEvaluation(_ context.Context, key string, def bool, fc openfeature.FlattenedContext) openfeature.BoolResolutionDetail {
	return resolve(p, key, def, fc, (*flags.Flag).Boolean)
}

// StringEvaluation resolves a string flag.
func (p *Provider) StringEvaluation(_ context.Context, key, def string, fc openfeature.FlattenedContext) openfeature.StringResolutionDetail {
	return resolve(p, key, def, fc, (*flags.Flag).String)
}

// FloatEvaluation resolves a number flag.
func (p *Provider) FloatEvaluation(_ context.Context, key string, def float64, fc openfeature.FlattenedContext) openfeature.FloatResolutionDetail {
	return resolve(p, key, def, fc, (*flags.Flag).Float)
}

// IntEvaluation resolves a number flag of whole numbers.
func (p *Provider) IntEvaluation(_ context.Context, key string, def int64, fc openfeature.FlattenedContext) openfeature.IntResolutionDetail {
	return resolve(p, key, def, fc, (*flags.Flag).Int)
}

// ObjectEvaluation resolves an object flag. The value is shared: read it only.
func (p *Provider) ObjectEvaluation(_ context.Context, key string, def any, fc openfeature.FlattenedContext) openfeature.InterfaceResolutionDetail {
	return resolve(p, key, def, fc, (*flags.Flag).Object)
}

// resolve evaluates by one snapshot and spells the outcome in OpenFeature's
// words, with metadata that was made when the bundle was compiled.
func resolve[T any](p *Provider, key string, def T, fc openfeature.FlattenedContext,
	by func(*flags.Flag, flags.Context, T, time.Time) (T, flags.Resolution),
) (d openfeature.GenericResolutionDetail[T]) {
	v := p.client.view.Load()
	e := v.entries[key]
	if e == nil {
		d.Value, d.FlagMetadata, d.Reason = def, v.missing, openfeature.ErrorReason
		d.ResolutionError = openfeature.NewFlagNotFoundResolutionError("flag not found")
		return d
	}
	value, r := by(e.flag, flags.Context(fc), def, e.now())
	d.Value, d.FlagMetadata, d.Reason, d.Variant = value, e.metadata, openfeature.Reason(r.Reason), r.Variant
	if r.ErrorCode != "" {
		d.ResolutionError = resolutionError(r.ErrorCode, r.ErrorDetail)
	}
	return d
}

func resolutionError(code flags.ErrorCode, detail string) openfeature.ResolutionError {
	switch code {
	case flags.FlagNotFound:
		return openfeature.NewFlagNotFoundResolutionError(detail)
	case flags.TypeMismatch:
		return openfeature.NewTypeMismatchResolutionError(detail)
	case flags.ParseError:
		return openfeature.NewParseErrorResolutionError(detail)
	}
	return openfeature.NewGeneralResolutionError(detail)
}

// announce says that the client's state changed.
func (p *Provider) announce(state api.State, why string) {
	d := openfeature.ProviderEventDetails{Message: why}
	switch state {
	case api.StateReady:
		p.emit(openfeature.ProviderReady, d)
	case api.StateStale:
		p.emit(openfeature.ProviderStale, d)
	case api.StateError:
		d.ErrorCode = openfeature.GeneralCode
		p.emit(openfeature.ProviderError, d)
	}
}

// reannounce repeats a state other than READY after Init: the SDK itself says
// READY when Init returns, over anything said before.
func (p *Provider) reannounce() {
	p.client.mu.Lock()
	state, why := p.client.state, p.client.why
	p.client.mu.Unlock()
	if state != api.StateReady {
		p.announce(state, why)
	}
}

// emit never blocks: nobody may be listening. When the channel is full, what
// waits in it is melted into one change of configuration and one, the newest,
// state.
func (p *Provider) emit(t openfeature.EventType, d openfeature.ProviderEventDetails) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ev := openfeature.Event{ProviderName: ProviderName, EventType: t, ProviderEventDetails: d}
	select {
	case p.events <- ev:
		return
	default:
	}
	for _, ev := range melt(append(p.drain(), ev)) {
		p.events <- ev // there is room: nobody else sends
	}
}

func (p *Provider) drain() (list []openfeature.Event) {
	for {
		select {
		case ev := <-p.events:
			list = append(list, ev)
		default:
			return list
		}
	}
}

func melt(list []openfeature.Event) []openfeature.Event {
	var state, change *openfeature.Event
	for i := range list {
		ev := &list[i]
		switch {
		case ev.EventType != openfeature.ProviderConfigChange:
			state = ev
		case change == nil:
			change = ev
		default:
			keys := append(slices.Clone(change.FlagChanges), ev.FlagChanges...)
			slices.Sort(keys)
			change = ev
			change.FlagChanges = slices.Compact(keys)
		}
	}
	var out []openfeature.Event
	for _, ev := range []*openfeature.Event{state, change} {
		if ev != nil {
			out = append(out, *ev)
		}
	}
	return out
}
