package sdk_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/open-feature/go-sdk/openfeature"
	"github.com/open-feature/go-sdk/openfeature/isolated"

	"github.com/sealstone/sealstone/flags"
	"github.com/sealstone/sealstone/ledger"
	"github.com/sealstone/sealstone/sdk"
)

// client binds the provider in an API of its own: the global one outlives a test.
func client(t *testing.T, c *sdk.Client) *openfeature.Client {
	t.Helper()
	of := isolated.NewAPI()
	must(t, of.SetProviderAndWait(t.Context(), c.Provider()))
	t.Cleanup(func() { _ = of.Shutdown(context.Background()) })
	return of.NewClient()
}

func TestProviderSpeaksOpenFeature(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, c := running(t)
		of := client(t, c)
		ctx := openfeature.NewEvaluationContext("user-1", map[string]any{"country": "de"})

		d, err := of.BooleanValueDetails(t.Context(), "new-checkout", false, ctx)
		if err != nil || !d.Value || d.Variant != "on" || d.Reason != openfeature.TargetingMatchReason {
			t.Errorf("details %+v, %v", d, err)
		}
		version, _ := d.FlagMetadata.GetString("version")
		set, _ := d.FlagMetadata.GetString("flagSetId")
		if version != string(c.Live().Bundle) || set != "checkout" {
			t.Errorf("metadata %v", d.FlagMetadata)
		}
		if n, err := of.IntValueDetails(t.Context(), "release", 0, ctx); err != nil || n.Value != 1 || n.Reason != openfeature.StaticReason {
			t.Errorf("details %+v, %v", n, err)
		}
		if s, err := of.StringValueDetails(t.Context(), "release", "x", ctx); err == nil || s.ErrorCode != openfeature.TypeMismatchCode || s.Value != "x" {
			t.Errorf("details %+v, %v", s, err)
		}
		if f, err := of.FloatValueDetails(t.Context(), "nope", 1.5, ctx); err == nil || f.ErrorCode != openfeature.FlagNotFoundCode || f.Value != 1.5 {
			t.Errorf("details %+v, %v", f, err)
		}
		if o, err := of.ObjectValueDetails(t.Context(), "nope", 1, ctx); err == nil || o.Value != 1 {
			t.Errorf("details %+v, %v", o, err)
		}
	})
}

// recorder notes events; the SDK calls each handler on a goroutine of its own.
type recorder struct {
	mu   sync.Mutex
	list []string
}

func (r *recorder) on(name string) openfeature.EventCallback {
	f := func(d openfeature.EventDetails) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.list = append(r.list, fmt.Sprint(name, d.FlagChanges))
	}
	return &f
}

func (r *recorder) take() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := r.list
	r.list = nil
	return list
}

func TestProviderEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, c := running(t)
		of := client(t, c)
		var r recorder
		for name, ev := range map[string]openfeature.EventType{"ready": openfeature.ProviderReady, "stale": openfeature.ProviderStale,
			"error": openfeature.ProviderError, "changed": openfeature.ProviderConfigChange} {
			of.AddHandler(ev, r.on(name))
		}
		settled(2 * time.Second)
		r.take() // ready, on registration
		expect := func(state openfeature.State, want ...string) {
			t.Helper()
			synctest.Wait()
			if got := r.take(); !slices.Equal(got, want) {
				t.Errorf("events %q, want %q", got, want)
			}
			if of.State() != state {
				t.Errorf("state %s, want %s", of.State(), state)
			}
		}

		l.activate("prod", 2, release(2))
		l.tell("head")
		settled(time.Second)
		expect(openfeature.ReadyState, "changed[release]")

		l.accept(l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
		l.tell("head")
		settled(time.Second)
		expect(openfeature.ReadyState, "changed[release]")

		l.locked(func() { l.evidence = func(e *ledger.Evidence) { e.Head = swap64(e.Head) } })
		l.tell("head")
		settled(time.Second)
		expect(openfeature.ErrorState, "error[]")

		l.locked(l.honest)
		settled(time.Minute)
		expect(openfeature.ReadyState, "ready[]")

		l.locked(func() { l.down = true })
		settled(6 * time.Minute)
		expect(openfeature.StaleState, "stale[]")

		l.locked(func() { l.down = false })
		settled(time.Minute)
		expect(openfeature.ReadyState, "ready[]")
	})
}

func TestProviderThatStartsStaleSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		cfg.Cache = t.TempDir()
		open(t, cfg).Close()
		l.locked(func() { l.down = true })
		c := open(t, cfg)
		of := client(t, c)
		settled(2 * time.Second)
		if s := of.State(); s != openfeature.StaleState {
			t.Errorf("state %s", s)
		}
	})
}

func TestEventsNobodyReadsAreMelted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFake(t)
		l.activate("prod", 0, release(0))
		c := open(t, l.config())
		for n := range 30 {
			l.activate("prod", n+1, release(n+1))
			l.tell("head")
			settled(time.Second)
		}
		runs(t, c, 30)
		last := openfeature.Event{}
		for len(c.Provider().EventChannel()) > 0 {
			last = <-c.Provider().EventChannel()
		}
		if !slices.Equal(last.FlagChanges, []string{"release"}) {
			t.Errorf("last event %+v", last)
		}
	})
}

// sink keeps the compiler from dropping what benchmarks and allocation tests do.
var sink bool

func TestReadsAllocateNothing(t *testing.T) {
	_, c := running(t)
	settle := c.Bool("new-checkout")
	ctx := flags.Context{"country": "de"}
	fc := openfeature.FlattenedContext(ctx)
	n, s, gone := c.Int("release"), c.String("release"), c.Float("gone")
	doc, err := sdk.Document[struct{ Timeout int }](c, "config/http")
	must(t, err)
	p := c.Provider()
	for name, f := range map[string]func(){
		"Bool":      func() { sink = settle.Get(ctx, false) },
		"Details":   func() { sink, _ = settle.Details(ctx, false) },
		"Int":       func() { sink = n.Get(ctx, 0) == 1 },
		"missing":   func() { sink = gone.Get(ctx, 1) == 1 },
		"Document":  func() { sink = doc.Get().Timeout == 1 },
		"provider":  func() { sink = p.BooleanEvaluation(t.Context(), "new-checkout", false, fc).Value },
		"not found": func() { sink = p.BooleanEvaluation(t.Context(), "gone", false, fc).Value },
	} {
		if got := testing.AllocsPerRun(100, f); got != 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
	if s.Get(ctx, "x") != "x" {
		t.Error("a number was read as a string")
	}
}

func BenchmarkBool(b *testing.B) {
	_, cfg := released(&testing.T{})
	cfg.Logger = nil
	c, err := sdk.Open(b.Context(), cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	h := c.Bool("new-checkout")
	f := c.Flags().Flag("new-checkout")
	ctx := flags.Context{"country": "de"}
	b.Run("handle", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			sink = h.Get(ctx, false)
		}
	})
	b.Run("flag", func(b *testing.B) {
		for b.Loop() {
			sink, _ = f.Boolean(ctx, false, time.Time{})
		}
	})
	b.Run("provider", func(b *testing.B) {
		b.ReportAllocs()
		fc := openfeature.FlattenedContext(ctx)
		for b.Loop() {
			sink = c.Provider().BooleanEvaluation(b.Context(), "new-checkout", false, fc).Value
		}
	})
}
