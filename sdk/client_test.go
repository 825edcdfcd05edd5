package sdk_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/flags"
	"github.com/sealstone/sealstone/ledger"
	"github.com/sealstone/sealstone/sdk"
)

// settled lets everything that is under way finish, without time passing.
func settled(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func runs(t *testing.T, c *sdk.Client, want int64) {
	t.Helper()
	if got := c.Int("release").Get(nil, -1); got != want {
		t.Errorf("runs release %d, want %d; %s", got, want, why(c))
	}
}

func why(c *sdk.Client) string {
	l := c.Live()
	return string(l.State) + ": " + l.Why + " / " + l.LastError
}

func TestClientServesAndFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFake(t)
		set := l.activate("prod", 1, release(1))
		c := open(t, l.config())
		if c.State() != api.StateReady {
			t.Errorf("state %s", why(c))
		}
		on := c.Bool("new-checkout")
		if on.Get(flags.Context{"country": "fr"}, true) || !on.Get(flags.Context{"country": "de"}, false) {
			t.Error("the rule was not followed")
		}
		runs(t, c, 1)
		live := c.Live()
		if live.Set != set.Digest || live.Index != 2 || live.Mode != api.ModeNormal || live.LogSize != 3 || len(live.SafeModes) != 1 {
			t.Errorf("Live = %+v", live)
		}

		settled(time.Second)
		l.activate("prod", 2, release(2))
		l.tell("head")
		settled(100 * time.Millisecond)
		runs(t, c, 2)

		l.activate("prod", 3, release(3)) // nobody is told: the poll finds it
		settled(40 * time.Second)
		runs(t, c, 3)
		all := l.reported()
		if last := all[len(all)-1]; len(all) < 4 || last.Index != 4 || last.State != api.StateReady {
			t.Errorf("%d reports, last %+v", len(all), last)
		}
	})
}

func TestSafeModeIsEnteredAndLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, c := running(t)
		settled(time.Second)
		l.accept(l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
		l.locked(func() { l.objects = nil }) // nothing is fetched to enter a mode
		l.tell("head")
		settled(time.Second)
		runs(t, c, 1001)
		if live := c.Live(); live.Mode != "degraded" || live.Override == nil || live.Index != 3 {
			t.Errorf("Live = %+v", live)
		}
		l.accept(l.SafeMode(ledger.SafeModeExited, "checkout", "prod", "degraded", 1))
		l.tell("head")
		settled(time.Second)
		runs(t, c, 1)
	})
}
