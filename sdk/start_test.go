package sdk_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/kv"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
	"github.com/sealstone/sealstone/sdk"
)

func TestRestartsFromItsCacheOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		cfg.Cache = t.TempDir()
		first := open(t, cfg)
		was := first.Live()
		first.Close()

		l.locked(func() { l.down = true })
		began := time.Now()
		c := open(t, cfg)
		if d := time.Since(began); d > 50*time.Millisecond {
			t.Errorf("start took %v although no server answers", d)
		}
		runs(t, c, 1)
		now := c.Live()
		if now.State != api.StateStale || now.Bundle != was.Bundle || now.Index != was.Index || now.LogRoot != was.LogRoot {
			t.Errorf("Live = %+v", now)
		}

		l.activate("prod", 2, release(2))
		l.locked(func() { l.down = false })
		settled(time.Minute)
		runs(t, c, 2)
		if c.State() != api.StateReady {
			t.Errorf("state %s", why(c))
		}
	})
}

func TestServerThatHangsCostsStartWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		cfg.Cache = t.TempDir()
		open(t, cfg).Close()
		l.locked(func() { l.hang = true })
		began := time.Now()
		c := open(t, cfg)
		if d := time.Since(began); d < time.Second || d > 1100*time.Millisecond {
			t.Errorf("start took %v, want StartWait of 1s", d)
		}
		runs(t, c, 1)
	})
}

func TestCacheRemembersWhatMustNotGoBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		l.activate("prod", 2, release(2))
		cfg.Cache = t.TempDir()
		open(t, cfg).Close()
		time.Sleep(time.Minute)
		l.locked(func() { l.size = 3 }) // release 1 again
		c := open(t, cfg)
		settled(5 * time.Second)
		runs(t, c, 2)
		if r := c.Live().Refusal; r == nil || r.Check != ledger.CheckHeadRollback {
			t.Errorf("refused %+v", r)
		}
		c.Close()
		l.locked(func() { l.down = true })
		if n := len(open(t, cfg).Refusals()); n == 0 {
			t.Error("the refusal is not in the cache")
		}
	})
}

// A kill between two writes leaves an older memory beside newer evidence.
func TestOlderMemoryBesideNewerEvidenceDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		cfg.Cache = t.TempDir()
		open(t, cfg).Close()
		key := func(record string) string { return l.Origin + " " + cfg.Target + " " + record }
		file := func(f func(db *kv.DB)) {
			db, err := kv.Open(filepath.Join(cfg.Cache, "0.db"), kv.Options{MustExist: true})
			must(t, err)
			f(db)
			must(t, db.Close())
		}
		var old []byte
		file(func(db *kv.DB) {
			must(t, db.View(func(tx *kv.Tx) (err error) { old, err = tx.Get("evidence", key("served")); return err }))
		})
		time.Sleep(time.Minute)
		l.activate("prod", 2, release(2))
		open(t, cfg).Close()
		file(func(db *kv.DB) { must(t, db.Put("evidence", key("seen"), old)) })
		l.locked(func() { l.size = 3 }) // release 1 again
		c := open(t, cfg)
		settled(5 * time.Second)
		runs(t, c, 2)
		if r := c.Live().Refusal; r == nil || r.Check != ledger.CheckHeadRollback {
			t.Errorf("refused %+v", r)
		}
	})
}

func TestSetThatCouldNotBeStagedIsRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		cfg.Cache = t.TempDir()
		c := open(t, cfg)
		settled(time.Second)
		l.activate("prod", 2, release(2))
		l.locked(func() { l.serve = damage("/v2/", nil) })
		l.tell("head")
		settled(time.Second)
		c.Close()

		l.locked(func() { l.honest(); l.size = 3 })
		c = open(t, cfg)
		settled(time.Second)
		runs(t, c, 1) // from the cache
		if r := c.Live().Refusal; r == nil || r.Check != ledger.CheckHeadRollback {
			t.Errorf("refused %+v: the newer head was forgotten", r)
		}
		l.locked(l.honest)
		settled(time.Minute)
		runs(t, c, 2)
	})
}

// A relay that answers with a true head and none of its changes makes a process
// lean on its own memory. That must not take the place of what stands alone: the
// next start would know nothing, and believe an old head.
func TestAnswerThatLeansOnMemoryIsRefused(t *testing.T) {
	bare := func(e *ledger.Evidence) { e.Changes = nil }
	for name, meets := range map[string]func(l *fakeLog, cfg sdk.Config){
		"while it runs": func(l *fakeLog, cfg sdk.Config) {
			c := open(l.t, cfg)
			defer c.Close()
			settled(time.Second)
			l.locked(func() { l.evidence = bare })
			l.tell("head")
			settled(time.Second)
			wantRefused(l.t, c)
		},
		"at a start": func(l *fakeLog, cfg sdk.Config) {
			c := open(l.t, cfg)
			settled(time.Second)
			c.Close()
			l.locked(func() { l.evidence = bare })
			c = open(l.t, cfg)
			defer c.Close()
			settled(time.Second)
			wantRefused(l.t, c)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, cfg := released(t)
				l.activate("prod", 2, release(2))
				cfg.Cache = t.TempDir()
				meets(l, cfg)

				l.locked(func() { l.down = true })
				c := open(t, cfg)
				runs(t, c, 2)
				if live := c.Live(); live.CacheNote != "" || live.State != api.StateStale {
					t.Errorf("offline: %q, %s", live.CacheNote, why(c))
				}
				c.Close()

				l.locked(func() { l.honest(); l.down, l.size = false, 3 }) // release 1 again
				c = open(t, cfg)
				settled(5 * time.Second)
				runs(t, c, 2)
				if r := c.Live().Refusal; r == nil || r.Check != ledger.CheckHeadRollback {
					t.Errorf("after a rollback: refused %+v", r)
				}
				l.locked(l.honest)
				settled(time.Minute)
				if runs(t, c, 2); c.State() != api.StateReady {
					t.Errorf("the log is honest again: %s", why(c))
				}
			})
		})
	}
}

func wantRefused(t *testing.T, c *sdk.Client) {
	t.Helper()
	runs(t, c, 2)
	if r := c.Live().Refusal; r == nil || r.Check != ledger.CheckIncluded || c.State() != api.StateError {
		t.Errorf("refused %+v; %s", r, why(c))
	}
}

func TestDamagedCacheIsPassedOver(t *testing.T) {
	for name, harm := range map[string]func(*testing.T, string){
		"cut off": func(t *testing.T, path string) { must(t, os.Truncate(path, 4096)) },
		"foreign": func(t *testing.T, path string) { must(t, os.WriteFile(path, bytes.Repeat([]byte("x"), 64<<10), 0o600)) },
		"bytes of objects": func(t *testing.T, path string) {
			b, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, bytes.ReplaceAll(b, []byte(`"state":"ENABLED"`), []byte(`"state":"DISABLE"`)), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, cfg := released(t)
				cfg.Cache = t.TempDir()
				open(t, cfg).Close()
				harm(t, filepath.Join(cfg.Cache, "0.db"))
				c := open(t, cfg)
				runs(t, c, 1)
				c.Close()
				l.locked(func() { l.down = true })
				c = open(t, cfg) // healed
				runs(t, c, 1)
			})
		})
	}
}

func TestSecondProcessTakesTheNextSlot(t *testing.T) {
	_, cfg := released(t)
	cfg.Cache = t.TempDir()
	a, b := open(t, cfg), open(t, cfg)
	if x, y := a.Live().Cache, b.Live().Cache; filepath.Base(x) != "0.db" || filepath.Base(y) != "1.db" {
		t.Errorf("slots %s and %s", x, y)
	}
}

func TestFallbackWhenThereIsNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		c := open(t, cfg)
		var b bytes.Buffer
		must(t, c.Export(&b))
		c.Close()
		path := filepath.Join(t.TempDir(), "export.json")
		must(t, os.WriteFile(path, b.Bytes(), 0o600))

		l.locked(func() { l.down = true })
		cfg.Fallback = path
		c = open(t, cfg)
		runs(t, c, 1)
		if live := c.Live(); live.State != api.StateStale || !strings.Contains(live.Why, "fallback") || len(live.SafeModes) != 1 {
			t.Errorf("Live = %+v", live)
		}
		var again bytes.Buffer
		must(t, c.Export(&again))
		if again.String() != b.String() {
			t.Error("the export of an export differs")
		}
		c.Close()

		must(t, os.WriteFile(path, bytes.Replace(b.Bytes(), []byte(`"leaf":"e`), []byte(`"leaf":"f`), 1), 0o600))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := sdk.Open(ctx, cfg); err == nil {
			t.Error("a tampered export was believed")
		}
	})
}

func TestOpenWaitsAndSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFake(t)
		l.activate("staging", 1, release(1)) // nothing covers prod
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := sdk.Open(ctx, l.config())
		if !errors.Is(err, context.DeadlineExceeded) || api.CodeOf(err) != api.CodeNotActivated {
			t.Errorf("err = %v", err)
		}
		time.AfterFunc(5*time.Second, func() { l.activate("prod", 2, release(2)) })
		runs(t, open(t, l.config()), 2)
	})
}

func TestOpenRefusesBadConfig(t *testing.T) {
	_, err := sdk.Open(t.Context(), sdk.Config{Target: "checkout", Servers: []string{"config.example.com"}, Token: "x", TokenFile: "y"})
	for _, want := range []string{"service@scope", "base URL", "no trust file", "TokenFile"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: does not say %q", err, want)
		}
	}
}

func TestFirstUseIsAskedForAndShownForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, cfg := released(t)
		cfg.TrustData, cfg.TrustOnFirstUse, cfg.Cache = nil, true, t.TempDir()
		c := open(t, cfg)
		if !c.Live().FirstUse {
			t.Error("first use is not shown")
		}
		c.Close()

		// Whoever answers now doesn't matter: the first one is remembered.
		other := fakeFor(t, "other.example.com/log")
		other.activate("prod", 1, release(66))
		cfg.HTTPClient = &http.Client{Transport: other}
		c = open(t, cfg)
		settled(5 * time.Second)
		runs(t, c, 1)
		if live := c.Live(); !live.FirstUse || live.Origin != ledgertest.Origin || live.State != api.StateError {
			t.Errorf("Live = %+v", live)
		}
	})
}

// moved is a client with a cache, given trust version 1, whose log was succeeded
// by one whose newest release there is newest; 0 is none.
func moved(t *testing.T, newest int) (*fakeLog, sdk.Config, *sdk.Client) {
	t.Helper()
	l, cfg := released(t)
	h := hosts{"log": l}
	cfg.Cache, cfg.HTTPClient.Transport = t.TempDir(), h
	c := open(t, cfg)
	settled(time.Second)
	next := l.succeed("next.example.com/log")
	for n := range newest {
		next.activate("prod", n+1, release(n+1))
	}
	l.locked(func() { h["log"] = next })
	l.tell("drop")
	settled(time.Minute)
	if live := c.Live(); live.Origin != next.Origin || live.TrustVersion != 2 {
		t.Fatalf("Live = %+v", live)
	}
	return next, cfg, c
}

func TestSucceededLogIsRememberedOverARestart(t *testing.T) {
	anew := func(t *testing.T, _ *fakeLog, cfg sdk.Config) { // as from a cache that filed it elsewhere
		db, err := kv.Open(filepath.Join(cfg.Cache, "0.db"), kv.Options{})
		must(t, err)
		must(t, db.Put("trust", ledgertest.Origin+" 00000002", nil))
		must(t, db.Close())
	}
	for name, forget := range map[string]func(*testing.T, *fakeLog, sdk.Config){
		"with its trust file": func(*testing.T, *fakeLog, sdk.Config) {},
		"told of it anew":     anew,
		"told of it anew, with an older memory": func(t *testing.T, next *fakeLog, cfg sdk.Config) {
			anew(t, next, cfg)
			next.size = 3
			old, err := json.Marshal(next.answer("checkout", 0, nil))
			must(t, err)
			db, err := kv.Open(filepath.Join(cfg.Cache, "0.db"), kv.Options{})
			must(t, err)
			must(t, db.Put("evidence", next.Origin+" "+cfg.Target+" seen", old))
			must(t, db.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				next, cfg, c := moved(t, 3)
				runs(t, c, 3)
				c.Close()
				forget(t, next, cfg)
				time.Sleep(time.Second)
				next.locked(func() { next.size = 3 }) // release 1 of the new log
				c = open(t, cfg)
				settled(5 * time.Second)
				if r := c.Live().Refusal; r == nil || r.Check != ledger.CheckHeadRollback || c.Live().Origin != next.Origin {
					t.Errorf("refused %+v, %s", r, why(c))
				}
				next.locked(next.honest)
				settled(time.Minute)
				runs(t, c, 3)
				c.Close()
				next.locked(func() { next.down = true })
				c = open(t, cfg)
				runs(t, c, 3)
				if live := c.Live(); live.Origin != next.Origin || live.TrustVersion != 2 || live.State != api.StateStale {
					t.Errorf("Live = %+v", live)
				}
			})
		})
	}
}

// A safe mode ends with its log, and says so: when the new log has something, not
// before, and not where it was entered anew before a client looked.
func TestSafeModeAndSuccession(t *testing.T) {
	for name, again := range map[string]bool{"it ends": false, "entered anew first": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var said bytes.Buffer
				l, cfg := released(t)
				l.accept(l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
				h := hosts{"log": l}
				cfg.Cache, cfg.HTTPClient.Transport, cfg.Logger = t.TempDir(), h, slog.New(slog.NewTextHandler(&said, nil))
				c := open(t, cfg)
				settled(time.Second)
				runs(t, c, 1001)
				next := l.succeed("next.example.com/log")
				l.locked(func() { h["log"] = next })
				l.tell("drop")
				settled(time.Minute)
				runs(t, c, 1001)
				c.Close()
				c = open(t, cfg)
				settled(time.Minute)
				runs(t, c, 1001)
				if live := c.Live(); live.Origin != next.Origin || live.State != api.StateStale {
					t.Errorf("with an empty successor: %s, %s", live.Origin, why(c))
				}
				next.activate("prod", 2, release(2))
				want := "mode degraded ended with its log"
				if again {
					want = ""
					next.accept(next.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
				}
				next.tell("head")
				settled(time.Minute)
				runs(t, c, map[bool]int64{false: 2, true: 1002}[again])
				if live := c.Live(); live.State != api.StateReady || !strings.Contains(live.Why, want) || again && live.Why != "" {
					t.Errorf("state %s", why(c))
				}
				if ended := strings.Contains(said.String(), "a safe mode ended with its log"); ended == again || again && strings.Contains(said.String(), "mode=normal") {
					t.Errorf("it said:\n%s", said.String())
				}
			})
		})
	}
}

func TestSuccessorThatHasNothingYetLeavesWhatRan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next, cfg, c := moved(t, 0)
		runs(t, c, 1)
		c.Close()
		c = open(t, cfg)
		settled(5 * time.Second)
		runs(t, c, 1)
		if live := c.Live(); live.State != api.StateStale || live.TrustVersion != 2 || live.Refusal != nil && live.Refusal.Check != ledger.CheckHead {
			t.Errorf("Live = %+v", live)
		}
		next.activate("prod", 5, release(5))
		settled(time.Minute)
		runs(t, c, 5)
		if c.State() != api.StateReady {
			t.Errorf("state %s", why(c))
		}
	})
}

func TestSlowServerIsOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		slow := newFake(t)
		slow.hang = true
		cfg.Servers = []string{"http://slow", "http://log"}
		cfg.HTTPClient.Transport = hosts{"slow": slow, "log": l}
		began := time.Now()
		c := open(t, cfg)
		if d := time.Since(began); d != 300*time.Millisecond {
			t.Errorf("the next server was asked after %v", d)
		}
		runs(t, c, 1)
	})
}

func TestHeadsThatGrowOldAreStale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, c := running(t)
		settled(time.Second)
		l.locked(func() { l.down = true })
		l.tell("drop")
		settled(4 * time.Minute)
		if c.State() != api.StateReady {
			t.Errorf("after 4m: %s", why(c))
		}
		settled(2 * time.Minute)
		if c.State() != api.StateStale {
			t.Errorf("after 6m: %s", why(c))
		}
		settled(3 * time.Hour)
		runs(t, c, 1)
		l.locked(func() { l.down = false })
		settled(time.Minute)
		if c.State() != api.StateReady {
			t.Errorf("back again: %s", why(c))
		}
	})
}

func TestWithdrawnTargetKeepsWhatItHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFake(t)
		set := l.activate("prod", 1, release(1))
		c := open(t, l.config())
		settled(time.Second)
		l.append(ledger.BundleWithdrawn, ledger.Data{Service: "checkout", Scope: "prod",
			Fields: ledger.Fields{Release: ledgertest.Release(2), Replaces: set.Digest}})
		l.tell("head")
		settled(time.Second)
		runs(t, c, 1)
		if c.State() != api.StateStale || c.Live().Refusal != nil {
			t.Errorf("state %s", why(c))
		}
	})
}

func TestRedirectsDontLeadElsewhere(t *testing.T) {
	_, cfg := released(t)
	cfg.Token = "secret"
	seen := ""
	cfg.HTTPClient = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		if r.URL.Host != "log" {
			seen = r.URL.Host
		}
		return &http.Response{StatusCode: http.StatusFound, Header: http.Header{"Location": {"http://evil/v1/evidence"}}, Body: http.NoBody, Request: r}, nil
	})}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := sdk.Open(ctx, cfg); err == nil || seen != "" || !strings.Contains(err.Error(), "redirect") {
		t.Errorf("err %v, went to %q", err, seen)
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
