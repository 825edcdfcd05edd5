package sdk_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
	"github.com/sealstone/sealstone/sdk"
)

// turn makes the log go on under a next version of the trust file, which the
// roots before it and those in it sign.
func (l *fakeLog) turn(edit func(*ledger.TrustStatement), roots ...ledger.Signer) {
	l.t.Helper()
	st := l.Trust.Successor(int64(len(l.leaves)))
	edit(&st)
	raw, err := ledger.SignTrust(st, append([]ledger.Signer{l.Root}, roots...)...)
	must(l.t, err)
	next, err := l.Trust.Next(raw)
	must(l.t, err)
	l.locked(func() { l.Trust, l.trust = next, next.File() })
}

func (l *fakeLog) newKey(name, role string) (note.Signer, string) {
	l.t.Helper()
	skey, vkey, err := ledger.NewNoteKey(name, l.Key(role).Seed())
	must(l.t, err)
	s, err := note.NewSigner(skey)
	must(l.t, err)
	return s, vkey
}

func (l *fakeLog) turnRoot(n string) {
	l.t.Helper()
	root := ledger.KeySigner{Private: l.Key("root " + n)}
	l.turn(func(st *ledger.TrustStatement) { st.Roots = []string{ledgertest.SSHLine(root.Private)} }, root)
	l.locked(func() { l.Root, l.RootKey = root, root.Private })
	op := ledger.Operator{ID: ledgertest.OperatorID, Keys: []string{ledgertest.SSHLine(l.OperatorKey)}, May: []ledger.Grant{ledgertest.Everything()}}
	l.operators(l.SignOperators(2, l.OperatorsYAML, op), 2)
}

func (l *fakeLog) turnNode() {
	l.t.Helper()
	key, vkey := l.newKey(ledger.NodeName(l.Origin), "node 2")
	l.turn(func(st *ledger.TrustStatement) { st.RotateNode(vkey) })
	l.locked(func() { l.Node, l.headKey = key, key })
}

func (l *fakeLog) turnLog() {
	l.t.Helper()
	key, vkey := l.newKey(l.Origin, "log 2")
	l.turn(func(st *ledger.TrustStatement) { st.Log = []string{vkey} })
	l.locked(func() { l.Log = key })
}

// Each key is replaced while a client runs, and while it is off.
func TestReplacedKeysAreFollowed(t *testing.T) {
	for name, turns := range map[string][]func(*fakeLog){
		"root": {func(l *fakeLog) { l.turnRoot("2") }},
		"node": {(*fakeLog).turnNode},
		"log":  {(*fakeLog).turnLog},
		"all":  {func(l *fakeLog) { l.turnRoot("2") }, (*fakeLog).turnNode, (*fakeLog).turnLog},
	} {
		for _, off := range []bool{false, true} {
			t.Run(name+map[bool]string{false: ", running", true: ", off meanwhile"}[off], func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l, cfg := released(t)
					cfg.Cache = t.TempDir()
					c := open(t, cfg)
					settled(time.Second)
					if off {
						c.Close()
					}
					for _, turn := range turns {
						turn(l)
					}
					l.activate("prod", 2, release(2))
					if off {
						c = open(t, cfg)
					}
					l.tell("head")
					settled(15 * time.Minute) // at the latest when newer versions are looked for
					runs(t, c, 2)
					want := 1 + len(turns)
					if len(c.Refusals()) != 0 {
						t.Errorf("refused %+v", c.Refusals())
					}
					if live := c.Live(); live.TrustVersion != want || live.State != api.StateReady {
						t.Errorf("version %d, %s", live.TrustVersion, why(c))
					}
					c.Close()
					l.locked(func() { l.down = true })
					c = open(t, cfg)
					runs(t, c, 2)
					if v := c.Live().TrustVersion; v != want {
						t.Errorf("from the cache: version %d", v)
					}
				})
			})
		}
	}
}

// A client whose trust file was replaced while it was off starts from evidence
// under the keys before, with no server there.
func TestCacheOfBeforeIsProvenByTheNewTrustFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		cfg.Cache = t.TempDir()
		c := open(t, cfg)
		settled(time.Second)
		c.Close()
		l.turnNode()
		l.turnLog()
		l.locked(func() { l.down = true })
		cfg.TrustData = l.Trust.File()
		c = open(t, cfg)
		runs(t, c, 1)
		if v := c.Live().TrustVersion; v != 3 {
			t.Errorf("version %d", v)
		}
	})
}

// A version whose forerunner isn't shown, or that the roots didn't sign, leads
// nowhere; what ran goes on.
func TestAJumpOverAVersionIsRefused(t *testing.T) {
	for name, shown := range map[string]func(l *fakeLog) []byte{
		"a version left out":   func(l *fakeLog) []byte { return l.Trust.Raw },
		"signed by a stranger": func(l *fakeLog) []byte { return forged(l) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, cfg := released(t)
				cfg.Cache = t.TempDir()
				c := open(t, cfg)
				settled(time.Second)
				l.turnNode()
				l.turnLog()
				l.activate("prod", 2, release(2))
				l.locked(func() { l.trust = shown(l) })
				l.tell("head")
				settled(time.Minute)
				runs(t, c, 1)
				ok := slices.ContainsFunc(c.Refusals(), func(r sdk.Refusal) bool { return r.Check == ledger.CheckTrust && len(r.Evidence) > 0 })
				if !ok || c.Live().TrustVersion != 1 {
					t.Errorf("refused %+v", c.Refusals())
				}
				l.locked(func() { l.trust = l.Trust.File() })
				settled(time.Minute)
				runs(t, c, 2)
			})
		})
	}
}

func forged(l *fakeLog) []byte {
	st := l.Trust.Versions()[0].Successor(1)
	raw, err := ledger.SignTrust(st, l.Stranger)
	must(l.t, err)
	return raw
}

// An object that was withheld: who has it keeps it, who comes new is told so.
func TestWithheldObjectIsKeptByThoseWhoHaveIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		cfg.Cache = t.TempDir()
		c := open(t, cfg)
		settled(time.Second)
		runs(t, c, 1)
		c.Close()
		cfg.HTTPClient = &http.Client{Transport: gone{l}}
		c = open(t, cfg)
		settled(5 * time.Second)
		runs(t, c, 1)
		if c.State() != api.StateReady {
			t.Errorf("with its cache: %s", why(c))
		}
		c.Close()
		cfg.Cache = t.TempDir()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := sdk.Open(ctx, cfg)
		if err == nil || !strings.Contains(err.Error(), "410") || !strings.Contains(err.Error(), "erased by an operator") {
			t.Errorf("a new client is told %v", err)
		}
	})
}

// gone answers 410 for every object, as a registry does.
type gone struct{ http.RoundTripper }

func (g gone) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := g.RoundTripper.RoundTrip(r)
	if err == nil && strings.HasPrefix(r.URL.Path, "/v2/") {
		res.StatusCode, res.Status = http.StatusGone, "410 Gone"
	}
	return res, err
}

// late is a server that answers slowly, and gives evidence no more than some times.
type late struct {
	*fakeLog
	mu       sync.Mutex
	delay    time.Duration
	evidence int
	trust    []byte // instead of the log's own
}

func (s *late) RoundTrip(r *http.Request) (*http.Response, error) {
	var delay time.Duration
	s.change(func() { delay = s.delay })
	time.Sleep(delay)
	var trust []byte
	refused := false
	s.change(func() {
		if trust = s.trust; r.URL.Path == "/v1/evidence" {
			refused = s.evidence == 0
			s.evidence = max(0, s.evidence-1)
		}
	})
	switch {
	case refused:
		return nil, errors.New("connection refused")
	case r.URL.Path == "/v1/trust" && trust != nil:
		return &http.Response{StatusCode: http.StatusOK, Body: io.NopCloser(bytes.NewReader(trust)), Request: r}, nil
	}
	return s.fakeLog.RoundTrip(r)
}

func (s *late) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// While a slow server answers, the next one moves trust on.
func TestWhatASlowServerShowsIsOvertaken(t *testing.T) {
	beside := func(cfg *sdk.Config, slow, fast *late) {
		cfg.Servers = []string{"http://slow", "http://fast"}
		cfg.HTTPClient.Transport = roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "slow" {
				return slow.RoundTrip(r)
			}
			return fast.RoundTrip(r)
		})
	}
	t.Run("a head of the log before", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l, cfg := released(t)
			next := l.succeed("next.example.com/log")
			next.activate("prod", 1, release(3))
			slow, fast := &late{fakeLog: l, evidence: 100}, &late{fakeLog: next}
			beside(&cfg, slow, fast)
			c := open(t, cfg)
			runs(t, c, 1)
			slow.change(func() { slow.delay = time.Second })
			fast.change(func() { fast.evidence = 1 }) // which has the client ask for trust
			l.tell("head")
			for n := 0; c.Live().LastError == "" && n < 500; n++ {
				settled(10 * time.Millisecond)
			}
			if live := c.Live(); live.Origin != next.Origin || !strings.Contains(live.LastError, "but trust moved to") {
				t.Errorf("%s: %s", live.Origin, live.LastError)
			}
			fast.change(func() { fast.evidence = 100 })
			settled(time.Minute)
			runs(t, c, 3)
		})
	})
	t.Run("an older trust file", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			l, cfg := released(t)
			slow, fast := &late{fakeLog: l, evidence: 100}, &late{fakeLog: l, evidence: 1}
			beside(&cfg, slow, fast)
			c := open(t, cfg)
			l.turnNode()
			slow.change(func() { slow.delay, slow.trust = time.Second, l.Trust.File() })
			l.turnRoot("2")
			l.tell("head")
			settled(10 * time.Second)
			if live := c.Live(); live.TrustVersion != 3 || live.State != api.StateReady {
				t.Errorf("version %d, %s", live.TrustVersion, why(c))
			}
		})
	})
}
