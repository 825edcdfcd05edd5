package sdk_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
	"github.com/sealstone/sealstone/sdk"
)

func TestPendingStatementByServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		cfg.Poll, cfg.ReportEvery = time.Hour, -1 // a day passes below
		c := open(t, cfg)
		settled(time.Second)
		s := l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0)
		l.locked(func() { l.pending = []json.RawMessage{s.Raw} })
		l.tell("pending")
		settled(time.Second)
		runs(t, c, 1001)
		live := c.Live()
		if live.Index != -1 || len(live.Pending) != 1 || live.Pending[0].Operator != ledgertest.OperatorID || live.LogSize != 3 {
			t.Errorf("Live = %+v", live)
		}

		l.locked(func() { l.pending = nil }) // silence doesn't end it
		settled(25 * time.Hour)              // nor does time
		runs(t, c, 1001)

		exit := l.SafeMode(ledger.SafeModeExited, "checkout", "prod", "degraded", 0)
		l.locked(func() { l.pending = []json.RawMessage{exit.Raw} })
		l.tell("pending")
		settled(time.Second)
		runs(t, c, 1) // of two with one after, the later one counts
		if live := c.Live(); len(live.Pending) != 2 || live.LogSize != 3 {
			t.Errorf("Live = %+v", live)
		}

		l.accept(l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0)) // the log goes beyond both
		l.tell("head")
		settled(time.Second)
		runs(t, c, 1001)
		if live := c.Live(); live.Index != 3 || len(live.Pending) != 0 {
			t.Errorf("Live = %+v", live)
		}
	})
}

func TestOverrideFileWorksOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		cfg.Cache, cfg.OverrideDir = t.TempDir(), t.TempDir()
		c := open(t, cfg)
		settled(time.Second)
		l.locked(func() { l.hang = true }) // the network says nothing at all
		l.tell("drop")
		s := l.SafeMode(ledger.SafeModeEntered, "checkout", "prod/eu", "degraded", 0)
		path := filepath.Join(cfg.OverrideDir, "incident.dsse")
		must(t, os.WriteFile(path, append(s.Raw, '\n'), 0o600))
		settled(1100 * time.Millisecond)
		runs(t, c, 1001)

		must(t, os.Remove(path)) // doesn't end it, here and over a restart
		settled(time.Minute)
		runs(t, c, 1001)
		c.Close()
		settled(48 * time.Hour)
		c = open(t, cfg)
		runs(t, c, 1001)

		l.locked(func() { l.hang = false })
		l.accept(l.SafeMode(ledger.SafeModeEntered, "checkout", "prod/eu", "degraded", 0))
		l.accept(l.SafeMode(ledger.SafeModeExited, "checkout", "prod/eu", "degraded", 1))
		settled(time.Minute)
		runs(t, c, 1)
		must(t, os.WriteFile(path, s.Raw, 0o600)) // spent
		settled(2 * time.Second)
		runs(t, c, 1)
	})
}

func TestPendingExitOfAModeInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		l.accept(l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
		cfg.OverrideDir = t.TempDir()
		c := open(t, cfg)
		runs(t, c, 1001)
		exit := l.SafeMode(ledger.SafeModeExited, "checkout", "prod", "degraded", 1)
		must(t, os.WriteFile(filepath.Join(cfg.OverrideDir, "x.dsse"), exit.Raw, 0o600))
		settled(2 * time.Second)
		runs(t, c, 1)
		if live := c.Live(); live.Index != -1 || live.Since != exit.Time || live.Mode != api.ModeNormal {
			t.Errorf("Live = %+v", live)
		}
		l.accept(exit)
		l.tell("head")
		settled(time.Second)
		if live := c.Live(); live.Index != 2 || len(live.Pending) != 0 {
			t.Errorf("Live = %+v", live)
		}
	})
}

func TestStatementsThatAreNotObeyed(t *testing.T) {
	zero := int64(0)
	for _, tt := range []struct {
		name  string
		check ledger.Check // "" when it is passed over without a word
		make  func(l *fakeLog) []byte
	}{
		{"by a stranger", ledger.CheckStatementSignature, func(l *fakeLog) []byte {
			return l.StatementBy(l.Stranger, ledger.SafeModeEntered, "checkout", "prod", func(st *ledger.Statement) {
				st.Mode, st.After, st.TTL, st.OnExpiry = "degraded", &zero, 3600, "hold"
			}).Raw
		}},
		{"for another log", ledger.CheckLog, func(l *fakeLog) []byte {
			return l.Statement(ledger.SafeModeEntered, "checkout", "prod", func(st *ledger.Statement) {
				st.Mode, st.After, st.TTL, st.OnExpiry, st.Log = "degraded", &zero, 3600, "hold", "other.example.com/log"
			}).Raw
		}},
		{"of the day before yesterday", ledger.CheckChange, func(l *fakeLog) []byte {
			return l.Statement(ledger.SafeModeEntered, "checkout", "prod", func(st *ledger.Statement) {
				st.Mode, st.After, st.TTL, st.OnExpiry = "degraded", &zero, 3600, "hold"
				st.Time = api.FormatTime(time.Now().Add(-49 * time.Hour))
			}).Raw
		}},
		{"that is damaged", ledger.CheckChange, func(*fakeLog) []byte { return []byte(`{"payload":""}`) }},
		{"for another scope", "", func(l *fakeLog) []byte {
			return l.SafeMode(ledger.SafeModeEntered, "checkout", "prod/us", "degraded", 0).Raw
		}},
		{"for another service", "", func(l *fakeLog) []byte {
			return l.SafeMode(ledger.SafeModeEntered, "payments", "prod", "degraded", 0).Raw
		}},
		{"of a mode that isn't staged", "", func(l *fakeLog) []byte {
			return l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "readonly", 0).Raw
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, cfg := released(t)
				cfg.OverrideDir = t.TempDir()
				c := open(t, cfg)
				must(t, os.WriteFile(filepath.Join(cfg.OverrideDir, "x.dsse.json"), tt.make(l), 0o600))
				settled(3 * time.Second)
				runs(t, c, 1)
				switch r := c.Live().Refusal; {
				case tt.check == "" && r != nil, tt.check != "" && (r == nil || r.Check != tt.check):
					t.Errorf("refused %+v, want %q", r, tt.check)
				}
				if c.State() != api.StateReady {
					t.Errorf("state %s: a bad file is no trouble of the servers'", why(c))
				}
				if held := c.Live().Pending; len(held) != 0 && tt.name != "of a mode that isn't staged" { // that one waits for a set that has it
					t.Errorf("held: %+v", held)
				}
			})
		})
	}
}

func TestModeThatTheSetLacksStaysNormalAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFake(t)
		l.activate("prod", 1, contents{api.ModeNormal: files(1)})
		l.accept(l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
		c := open(t, l.config())
		runs(t, c, 1)
		if live := c.Live(); live.Mode != api.ModeNormal || live.Why == "" || len(live.SafeModes) != 0 {
			t.Errorf("Live = %+v", live)
		}
	})
}

func TestSafeModeIsEnteredAlthoughTheNewSetIsBad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, c := running(t)
		settled(time.Second)
		l.activate("prod", 2, release(2))
		l.accept(l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
		l.locked(func() { l.serve = damage("/v2/", nil) })
		l.tell("head")
		settled(time.Second)
		runs(t, c, 1001) // of the set that is there
		l.locked(l.honest)
		settled(time.Minute)
		runs(t, c, 1002)
	})
}

func TestNearestScopeWins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		l.activate("prod/eu", 2, release(2))
		l.activate("prod/eu/canary", 3, release(3))
		for target, want := range map[string]int64{"checkout@prod/us": 1, "checkout@prod/eu": 2, "checkout@prod/eu/canary": 3, "checkout@prod/eu/other": 2} {
			cfg.Target = target
			runs(t, open(t, cfg), want)
		}
	})
}

func TestStatementIsObeyedOnceTheClockIsRight(t *testing.T) {
	for _, ahead := range []time.Duration{25 * time.Hour, -25 * time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			l, cfg := released(t)
			cfg.OverrideDir = t.TempDir()
			c := open(t, cfg)
			zero := int64(0)
			s := l.Statement(ledger.SafeModeEntered, "checkout", "prod", func(st *ledger.Statement) {
				st.Mode, st.After, st.TTL, st.OnExpiry = "degraded", &zero, 3600, "hold"
				st.Time = api.FormatTime(time.Now().Add(ahead))
			})
			must(t, os.WriteFile(filepath.Join(cfg.OverrideDir, "x.dsse"), s.Raw, 0o600))
			settled(time.Minute)
			runs(t, c, 1)
			if n := len(c.Refusals()); n != 1 {
				t.Errorf("%d refusals of one statement", n)
			}
			settled(time.Hour)
			if ahead < 0 {
				runs(t, c, 1) // older still
			} else {
				runs(t, c, 1001)
			}
		})
	}
}

func TestStatementIsObeyedOnceThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		cfg.OverrideDir = t.TempDir()
		c := open(t, cfg)
		settled(time.Second)
		l.locked(func() {
			for range 64 {
				l.pending = append(l.pending, l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0).Raw)
			}
		})
		l.tell("pending")
		settled(time.Second)
		exit := l.SafeMode(ledger.SafeModeExited, "checkout", "prod", "degraded", 1)
		must(t, os.WriteFile(filepath.Join(cfg.OverrideDir, "x.dsse"), exit.Raw, 0o600))
		settled(3 * time.Second)
		runs(t, c, 1001)
		if r := c.Live().Refusal; r == nil || r.Check != ledger.CheckChange {
			t.Errorf("refused %+v", r)
		}
		l.accept(l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0)) // goes beyond the 64
		l.tell("head")
		settled(3 * time.Second)
		runs(t, c, 1)
	})
}

func TestPendingStatementEndsWithItsLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		h := hosts{"log": l}
		cfg.Cache, cfg.OverrideDir, cfg.HTTPClient.Transport = t.TempDir(), t.TempDir(), h
		c := open(t, cfg)
		settled(time.Second)
		s := l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 9) // a chain that the new log begins anew
		must(t, os.WriteFile(filepath.Join(cfg.OverrideDir, "x.dsse"), s.Raw, 0o600))
		settled(2 * time.Second)
		runs(t, c, 1001)

		next := l.succeed("next.example.com/log")
		next.activate("prod", 2, release(2))
		l.locked(func() { h["log"] = next })
		l.tell("drop")
		settled(time.Minute)
		runs(t, c, 2)
		if live := c.Live(); len(live.Pending) != 0 {
			t.Errorf("Live = %+v", live)
		}
	})
}

// A statement of somebody whose key was dropped is dropped with it: it doesn't
// come back when the key does.
func TestHeldStatementEndsWithItsOperator(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, c := running(t)
		settled(time.Second)
		s := l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 1e9) // the log can never pass it
		l.locked(func() { l.pending = []json.RawMessage{s.Raw} })
		l.tell("pending")
		settled(time.Second)
		runs(t, c, 1001)
		l.locked(func() { l.pending = nil })
		may := []ledger.Grant{ledgertest.Everything()}
		for version, key := range []ledger.Signer{l.Stranger, l.Operator} {
			op := ledger.Operator{ID: ledgertest.OperatorID, Keys: []string{ledgertest.SSHLine(key.(ledger.KeySigner).Private)}, May: may}
			l.operators(l.SignOperators(2+version, l.OperatorsYAML, op), 2+version)
			l.tell("head")
			settled(time.Minute)
			runs(t, c, 1)
		}
		if live := c.Live(); len(live.Pending) != 0 || live.Operators != 3 {
			t.Errorf("Live = %+v", live)
		}
	})
}

func TestFileThatIsPassedOverSaysWhyOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		l.accept(l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
		l.accept(l.SafeMode(ledger.SafeModeExited, "checkout", "prod", "degraded", 1))
		var said bytes.Buffer
		cfg.OverrideDir, cfg.Logger = t.TempDir(), slog.New(slog.NewTextHandler(&said, nil))
		c := open(t, cfg)
		late := l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0)
		elsewhere := l.SafeMode(ledger.SafeModeEntered, "checkout", "prod/us", "degraded", 0)
		must(t, os.WriteFile(filepath.Join(cfg.OverrideDir, "late.dsse"), late.Raw, 0o600))
		must(t, os.WriteFile(filepath.Join(cfg.OverrideDir, "elsewhere.dsse"), elsewhere.Raw, 0o600))
		settled(10 * time.Second)
		runs(t, c, 1)
		want := []sdk.OverrideChain{{Scope: "prod", Generation: 2, Kind: ledger.SafeModeExited}}
		if live := c.Live(); live.Override != nil || !slices.Equal(live.Overrides, want) {
			t.Errorf("overrides %+v, want %+v", live.Overrides, want)
		}
		c.Close()
		for _, text := range []string{"the override chain at prod is at 2: sign it anew with --after 2", "it is for checkout@prod/us, this process is checkout@prod/eu"} {
			if n := strings.Count(said.String(), text); n != 1 {
				t.Errorf("%q was said %d times in\n%s", text, n, said.String())
			}
		}
	})
}

// A server that was put back from an old copy doesn't know how far a chain is:
// whoever signed by its number reads in the log of a client why nothing happens.
func TestAServedStatementThatIsPassedOverSaysWhyOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		l.accept(l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
		l.accept(l.SafeMode(ledger.SafeModeExited, "checkout", "prod", "degraded", 1))
		var said bytes.Buffer
		cfg.Logger = slog.New(slog.NewTextHandler(&said, nil))
		c := open(t, cfg)
		low, elsewhere := l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0), l.SafeMode(ledger.SafeModeEntered, "checkout", "prod/us", "degraded", 0)
		l.locked(func() { l.pending = []json.RawMessage{low.Raw, elsewhere.Raw} })
		for range 2 {
			l.tell("pending")
			settled(time.Minute)
		}
		runs(t, c, 1)
		c.Close()
		if n := strings.Count(said.String(), "the override chain at prod is at 2: sign it anew with --after 2"); n != 1 || strings.Contains(said.String(), "prod/us") {
			t.Errorf("said\n%s", said.String())
		}
	})
}

func TestFileWithAModeThatIsNotStagedSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		var said bytes.Buffer
		cfg.OverrideDir, cfg.Logger = t.TempDir(), slog.New(slog.NewTextHandler(&said, nil))
		c := open(t, cfg)
		must(t, os.WriteFile(filepath.Join(cfg.OverrideDir, "x.dsse"), l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degarded", 0).Raw, 0o600))
		settled(3 * time.Second)
		runs(t, c, 1)
		if live := c.Live(); live.State != api.StateReady || !strings.Contains(live.Why, "names mode degarded, for which the set has no bundle") {
			t.Errorf("Live = %+v", live)
		}
		c.Close()
		if text := said.String(); strings.Contains(text, "obeying") || !strings.Contains(text, "mode that the set lacks") {
			t.Errorf("said %s", text)
		}
	})
}

// A process that starts while a statement waits has no set yet when it hears of
// it: that is no fault of the set.
func TestColdStartUnderAPendingModeSaysNothingOfASetThatLacksIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		l.pending = []json.RawMessage{l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0).Raw}
		var said bytes.Buffer
		cfg.Logger = slog.New(slog.NewTextHandler(&said, nil))
		c := open(t, cfg)
		settled(10 * time.Second)
		if mode := c.Live().Mode; mode != "degraded" {
			t.Errorf("mode %s", mode)
		}
		c.Close()
		if text := said.String(); strings.Contains(text, "the set lacks") || strings.Count(text, "it is obeyed from the first set on") != 1 {
			t.Errorf("said %s", text)
		}
	})
}

func TestStreamIsBackSoonAfterALongOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		cfg.Poll = time.Hour
		c := open(t, cfg)
		settled(time.Second)
		l.locked(func() { l.down = true })
		l.tell("drop")
		settled(10 * time.Minute)
		l.activate("prod", 2, release(2))
		l.locked(func() { l.down = false })
		settled(7 * time.Second)
		runs(t, c, 2)
	})
}

func TestOpenSaysWhatIsActivated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, cfg := released(t)
		cfg.Target = "checkout@prood/eu"
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := sdk.Open(ctx, cfg)
		if err == nil || !strings.Contains(err.Error(), "no activation covers checkout@prood/eu; checkout is activated at [prod]") {
			t.Errorf("Open: %v", err)
		}
	})
}
