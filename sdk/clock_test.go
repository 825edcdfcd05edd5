package sdk_test

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// clock shifts the times of the heads that the log signs.
func (l *fakeLog) clock(by time.Duration) {
	l.locked(func() { l.head = func(h *ledger.Head) { h.Issued = h.Issued.Add(by) } })
}

func wantState(t *testing.T, name string, got interface{ State() api.State }, want api.State) {
	t.Helper()
	if got.State() != want {
		t.Errorf("%s: state %s, want %s", name, got.State(), want)
	}
}

// A server's clock that is wrong for a while, and set right, costs no client
// anything: it hears safe modes before and after, and refuses nothing.
func TestServersClockThatIsWrongAndSetRight(t *testing.T) {
	for name, shifts := range map[string]struct {
		by    time.Duration
		lasts time.Duration
		wrong api.State
		words string
	}{
		"an hour ahead for 8 s":     {time.Hour, 8 * time.Second, api.StateReady, ""},
		"an hour ahead for 20 m":    {time.Hour, 20 * time.Minute, api.StateStale, "has not reached"},
		"an hour behind for 8 s":    {-time.Hour, 8 * time.Second, api.StateReady, ""},
		"an hour behind for 20 m":   {-time.Hour, 20 * time.Minute, api.StateStale, "a clock is wrong"},
		"four minutes ahead":        {4 * time.Minute, 20 * time.Minute, api.StateReady, ""},
		"four minutes behind":       {-4 * time.Minute, 20 * time.Minute, api.StateReady, ""},
		"ahead by a year and a day": {366 * 24 * time.Hour, time.Hour, api.StateStale, "has not reached"},
	} {
		for _, cached := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l, cfg := released(t)
					if cached {
						cfg.Cache = t.TempDir()
					}
					c := open(t, cfg)
					settled(time.Second)
					l.clock(shifts.by)
					l.tell("head") // so that a head of the wrong time is believed
					settled(shifts.lasts)
					if wantState(t, "wrong", c, shifts.wrong); !strings.Contains(c.Live().Why, shifts.words) {
						t.Errorf("says %q", c.Live().Why)
					}
					l.accept(l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
					l.tell("head")
					settled(2 * time.Second)
					runs(t, c, 1001)
					if cached { // what was believed then is remembered
						c.Close()
						c = open(t, cfg)
					}
					l.locked(l.honest)
					l.accept(l.SafeMode(ledger.SafeModeExited, "checkout", "prod", "degraded", 1))
					l.tell("head")
					settled(time.Minute)
					runs(t, c, 1)
					wantState(t, "set right", c, api.StateReady)
					if len(c.Refusals()) != 0 {
						t.Errorf("refused %+v", c.Refusals())
					}
				})
			})
		}
	}
}

// A client that knows a head of the future only has nothing that is news.
func TestFirstHeadOfTheFutureIsStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		l.clock(time.Hour)
		c := open(t, cfg)
		if wantState(t, "at the start", c, api.StateStale); !strings.Contains(c.Live().Why, "clock") || c.Live().HeadAge > -59*time.Minute {
			t.Errorf("says %q, age %v", c.Live().Why, c.Live().HeadAge)
		}
		l.locked(l.honest)
		l.tell("head")
		settled(2 * time.Second)
		wantState(t, "set right", c, api.StateReady)
	})
}

// Who replays an old head of the newest size gains nothing: what is fresh stays
// so for its own five minutes, and no longer.
func TestReplayOfAHeadOfTheSameSize(t *testing.T) {
	for name, issued := range map[string]time.Duration{"an old one": -4 * time.Minute, "a very old one": -24 * time.Hour, "one that was signed ahead": 20 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, c := running(t)
				settled(time.Second)
				replayed := time.Now().Add(issued)
				l.locked(func() { l.head = func(h *ledger.Head) { h.Issued = replayed.Truncate(time.Millisecond) } })
				l.tell("head")
				settled(4 * time.Minute)
				wantState(t, "while the true one is news", c, api.StateReady)
				settled(2 * time.Minute)
				wantState(t, "when it no longer is", c, api.StateStale)
				if len(c.Refusals()) != 0 {
					t.Errorf("refused %+v", c.Refusals())
				}
			})
		})
	}
}

// Heads of the future are forgotten as news: when their time has come, and
// nothing else has, the client doesn't take them for new.
func TestHeadOfTheFutureHidesNoFreeze(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, c := running(t)
		settled(time.Second)
		l.clock(time.Hour)
		l.tell("head")
		settled(2 * time.Second)
		l.locked(func() { l.down = true })
		l.tell("drop")
		settled(time.Hour)
		wantState(t, "an hour later", c, api.StateStale)
	})
}

// A second server whose clock is behind takes no news away.
func TestServersWithClocksOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		relay := fakeOf(t, l.Fixture)
		relay.leaves, relay.hashes, relay.state, relay.objects = l.leaves, l.hashes, l.state, l.objects
		relay.clock(-10 * time.Minute)
		cfg.Servers = []string{"http://log", "http://relay"}
		cfg.HTTPClient = &http.Client{Transport: hosts{"log": l, "relay": relay}}
		c := open(t, cfg)
		settled(time.Second)
		l.locked(func() { l.down = true })
		l.tell("drop")
		settled(3 * time.Minute)
		wantState(t, "by the second server", c, api.StateReady)
		settled(3 * time.Minute)
		wantState(t, "for longer than a head is news", c, api.StateStale)
		l.locked(func() { l.down = false })
		settled(time.Minute)
		wantState(t, "by the first again", c, api.StateReady)
		if len(c.Refusals()) != 0 {
			t.Errorf("refused %+v", c.Refusals())
		}
	})
}
