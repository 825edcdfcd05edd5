package sdk_test

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
	"github.com/sealstone/sealstone/sdk"
)

// wantStanding holds what stands, and what is reported, to a check; "" is none.
func wantStanding(t *testing.T, name string, l *fakeLog, c *sdk.Client, want ledger.Check) {
	t.Helper()
	settled(20 * time.Second) // a report has gone out
	if r := c.Live().Refusal; (r == nil) != (want == "") || r != nil && r.Check != want {
		t.Errorf("%s: stands %+v, want %q", name, r, want)
	}
	all := l.reported()
	if r := all[len(all)-1].Refusal; (r == nil) != (want == "") || r != nil && r.Check != string(want) {
		t.Errorf("%s: reported %+v, want %q", name, r, want)
	}
}

// A bad file is a refusal while it lies there, also over a restart, and none when
// it is gone, replaced, or put back and gone again. What it was is kept.
func TestRefusalOfAFileEndsWithTheFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		cfg.OverrideDir, cfg.Cache = t.TempDir(), t.TempDir()
		file := filepath.Join(cfg.OverrideDir, "x.dsse")
		put := func(s *ledger.Signed) { must(t, os.WriteFile(file, s.Raw, 0o600)) }
		c := open(t, cfg)
		zero := int64(0)
		bad := l.StatementBy(l.Stranger, ledger.SafeModeEntered, "checkout", "prod", func(st *ledger.Statement) {
			st.Mode, st.After, st.TTL, st.OnExpiry = "degraded", &zero, 3600, "hold"
		})

		put(bad)
		wantStanding(t, "a stranger's", l, c, ledger.CheckStatementSignature)
		settled(time.Hour)
		wantStanding(t, "an hour later", l, c, ledger.CheckStatementSignature)
		c.Close()
		c = open(t, cfg)
		wantStanding(t, "after a restart", l, c, ledger.CheckStatementSignature)
		must(t, os.Remove(file))
		wantStanding(t, "removed", l, c, "")
		put(bad)
		wantStanding(t, "back again", l, c, ledger.CheckStatementSignature)
		c.Close()
		must(t, os.Remove(file))
		c = open(t, cfg)
		wantStanding(t, "removed while it was off", l, c, "")
		put(bad)
		wantStanding(t, "once more", l, c, ledger.CheckStatementSignature)
		put(l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
		wantStanding(t, "replaced by a good one", l, c, "")
		runs(t, c, 1001)
		for _, r := range c.Refusals() {
			if r.Ended == "" || len(r.Evidence) == 0 || r.Server != file {
				t.Errorf("kept %+v", r)
			}
		}
		if len(c.Refusals()) != 3 {
			t.Errorf("%d refusals are kept", len(c.Refusals()))
		}
	})
}

// A file that couldn't be obeyed and can now is none any more.
func TestRefusalOfAFileEndsWhenItIsObeyed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		cfg.OverrideDir = t.TempDir()
		c := open(t, cfg)
		zero := int64(0)
		s := l.Statement(ledger.SafeModeEntered, "checkout", "prod", func(st *ledger.Statement) {
			st.Mode, st.After, st.TTL, st.OnExpiry = "degraded", &zero, 3600, "hold"
			st.Time = api.FormatTime(time.Now().Add(24*time.Hour + 30*time.Minute))
		})
		must(t, os.WriteFile(filepath.Join(cfg.OverrideDir, "x.dsse"), s.Raw, 0o600))
		wantStanding(t, "too early", l, c, ledger.CheckChange)
		settled(time.Hour)
		wantStanding(t, "in time", l, c, "")
		runs(t, c, 1001)
	})
}

// What a server said is refused for as long as it says so and five minutes more,
// so that somebody can see it; good answers end it, and the evidence is kept.
func TestRefusalOfAnAnswerEndsWithGoodOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		cfg.Cache = t.TempDir()
		c := open(t, cfg)
		l.activate("prod", 2, release(2))
		settled(time.Minute)
		l.locked(func() { l.size = 3 })
		l.tell("head")
		settled(time.Minute)
		wantStanding(t, "set back", l, c, ledger.CheckHeadRollback)
		l.locked(l.honest)
		settled(2 * time.Minute)
		wantStanding(t, "just mended", l, c, ledger.CheckHeadRollback)
		settled(5 * time.Minute)
		wantStanding(t, "mended", l, c, "")
		if list := c.Refusals(); len(list) != 1 || list[0].Ended == "" || len(list[0].Evidence) == 0 {
			t.Errorf("kept %+v", list)
		}
		l.locked(func() { l.size = 3 })
		settled(2 * time.Minute)
		wantStanding(t, "set back again", l, c, ledger.CheckHeadRollback)
	})
}

// A bad statement that a server goes on giving is refused for as long.
func TestRefusalOfAPendingStatementEndsWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		c := open(t, cfg)
		zero := int64(0)
		bad := l.StatementBy(l.Stranger, ledger.SafeModeEntered, "checkout", "prod", func(st *ledger.Statement) {
			st.Mode, st.After, st.TTL, st.OnExpiry = "degraded", &zero, 3600, "hold"
		})
		l.locked(func() { l.pending = append(l.pending, bad.Raw) })
		settled(time.Hour)
		wantStanding(t, "given for an hour", l, c, ledger.CheckStatementSignature)
		l.locked(func() { l.pending = nil })
		settled(10 * time.Minute)
		wantStanding(t, "given no more", l, c, "")
	})
}
