package sdk_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
	"github.com/sealstone/sealstone/sdk"
)

// A client that starts from its cache while the server lies runs what it ran,
// and says what it refused; when the server is straight again it goes on.
func TestRefusesAtARestartFromItsCache(t *testing.T) {
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, cfg := released(t)
				cfg.Cache = t.TempDir()
				first := open(t, cfg)
				settled(time.Second)
				first.Close()
				a.attack(t, l)
				c := open(t, cfg)
				settled(5 * time.Second)
				runs(t, c, 1)
				if refused := c.Live().Refusal; refused == nil || refused.Check != a.check || c.State() != api.StateError {
					t.Fatalf("refused %+v, want check %q; state %s", refused, a.check, why(c))
				}
				c.Close()
				c = open(t, cfg) // what was refused outlives the process
				if kept := c.Refusals(); len(kept) == 0 || kept[len(kept)-1].Check != a.check || len(kept[len(kept)-1].Evidence) == 0 {
					t.Errorf("kept %+v", kept)
				}
				runs(t, c, 1)
				if !a.final {
					l.locked(l.honest)
					settled(time.Minute)
					runs(t, c, 2)
				}
			})
		})
	}
}

// A client that knows nothing yet takes nothing from a server that lies. Lies
// about what was before need a memory to be seen.
func TestRefusesAtTheFirstStart(t *testing.T) {
	memory := []ledger.Check{ledger.CheckHeadRollback, ledger.CheckConsistent, ledger.CheckChains}
	for _, a := range attacks {
		if slices.Contains(memory, a.check) {
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, cfg := released(t)
				a.attack(t, l)
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				c, err := sdk.Open(ctx, cfg)
				if err == nil {
					c.Close()
				}
				if refused, ok := errors.AsType[*ledger.CheckError](err); !ok || refused.Check != a.check {
					t.Fatalf("Open: %v, want check %q", err, a.check)
				}
			})
		})
	}
}
