package sdk_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/open-feature/go-sdk/openfeature"
	"golang.org/x/mod/sumdb/note"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
)

// force records what the fold would never accept, as a bad node could.
func (l *fakeLog) force(e *ledger.Event, node note.Signer) int64 {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	leaf, err := e.Leaf(ledger.NodeSigner{Signer: node})
	must(l.t, err)
	c, err := ledger.ParseLeaf(leaf)
	must(l.t, err)
	i := l.push(leaf)
	next := ledger.Chain{Lane: c.Data.Lane, Scope: c.Data.Scope, Index: i, Hash: c.Hash, Generation: c.Data.Generation, Kind: c.Kind()}
	svc := &ledger.Service{}
	for _, old := range l.state.ServiceChains(c.Data.Service) {
		if old.Lane != next.Lane || old.Scope != next.Scope {
			svc.Chains = append(svc.Chains, old)
		}
	}
	svc.Chains = append(svc.Chains, next)
	l.state.Services[c.Data.Service] = svc
	l.state.Size++
	return i
}

// entered frames a statement as the next change of its chain.
func (l *fakeLog) entered(s *ledger.Signed) *ledger.Event {
	d := ledger.Data{Lane: ledger.LaneOverride, Service: s.Service, Scope: s.Scope, Statement: s.Raw, Fields: s.Fields}
	now := time.Now()
	d.Expires = expires(s, now)
	l.state.Next(&d)
	return ledger.NewEvent(l.Origin, s.Kind, s.ID, s.At(), now, d)
}

// damage flips the last byte of bodies under a path.
func damage(part string, digest func() api.Digest) func(string, []byte) []byte {
	return func(path string, b []byte) []byte {
		if !strings.Contains(path, part) || digest != nil && !strings.HasSuffix(path, string(digest())) {
			return b
		}
		b = bytes.Clone(b)
		b[len(b)-1] ^= 1
		return b
	}
}

func swap64(s string) string { // another character in the last line of a note
	lines := strings.Split(strings.TrimSuffix(s, "\n"), "\n")
	last := lines[len(lines)-1]
	i := strings.LastIndexByte(last, ' ') + 1
	raw, _ := base64.StdEncoding.DecodeString(last[i:])
	raw[len(raw)-1] ^= 1
	lines[len(lines)-1] = last[:i] + base64.StdEncoding.EncodeToString(raw)
	return strings.Join(lines, "\n") + "\n"
}

// attacks each make the log lie about release 2. Those that can be mended show
// release 2 afterwards.
var attacks = []struct {
	name   string
	check  ledger.Check
	attack func(t *testing.T, l *fakeLog)
	final  bool // the log itself is bad: nothing to mend
}{
	{name: "object tampered", check: ledger.CheckObject, attack: func(_ *testing.T, l *fakeLog) {
		l.activate("prod", 2, release(2))
		l.serve = damage("/blobs/", nil)
	}},
	{name: "manifest tampered", check: ledger.CheckManifest, attack: func(_ *testing.T, l *fakeLog) {
		set := l.activate("prod", 2, release(2))
		l.serve = func(path string, b []byte) []byte {
			if strings.HasSuffix(path, string(set.Digest)) {
				return b
			}
			return damage("/manifests/", nil)(path, b)
		}
	}},
	{name: "set tampered", check: ledger.CheckSet, attack: func(_ *testing.T, l *fakeLog) {
		set := l.activate("prod", 2, release(2))
		l.serve = damage("/manifests/", func() api.Digest { return set.Digest })
	}},
	{name: "set swapped for the one before", check: ledger.CheckSet, attack: func(_ *testing.T, l *fakeLog) {
		was, _ := l.state.Chain(ledger.ChainKey{Lane: ledger.LaneMain, Service: "checkout", Scope: "prod"})
		set := l.activate("prod", 2, release(2))
		l.serve = func(path string, b []byte) []byte {
			if strings.HasSuffix(path, string(set.Digest)) {
				return l.objects[was.Set.Digest]
			}
			return b
		}
	}},
	{name: "object without end", check: ledger.CheckObject, attack: func(_ *testing.T, l *fakeLog) {
		l.activate("prod", 2, release(2))
		l.serve = func(path string, b []byte) []byte {
			if strings.Contains(path, "/blobs/") {
				return append(bytes.Clone(b), make([]byte, 1<<20)...)
			}
			return b
		}
	}},
	{name: "evidence without end", check: ledger.CheckHead, attack: func(_ *testing.T, l *fakeLog) {
		l.activate("prod", 2, release(2))
		l.serve = func(path string, b []byte) []byte {
			if path == "/v1/evidence" {
				return append(bytes.Clone(b), bytes.Repeat([]byte(" "), 17<<20)...)
			}
			return b
		}
	}},
	{name: "leaf tampered", check: ledger.CheckIncluded, attack: func(_ *testing.T, l *fakeLog) {
		l.activate("prod", 2, release(2))
		l.evidence = func(e *ledger.Evidence) {
			for i := range e.Changes {
				e.Changes[i].Leaf = bytes.Replace(e.Changes[i].Leaf, []byte("keyid"), []byte("keyie"), 1)
			}
		}
	}},
	{name: "change kept back", check: ledger.CheckIncluded, attack: func(_ *testing.T, l *fakeLog) {
		l.activate("prod", 2, release(2))
		l.evidence = func(e *ledger.Evidence) {
			e.Changes = slices.DeleteFunc(e.Changes, func(c ledger.EvidenceChange) bool { return c.Index == 3 })
		}
	}},
	{name: "head tampered", check: ledger.CheckHead, attack: func(_ *testing.T, l *fakeLog) {
		l.activate("prod", 2, release(2))
		l.evidence = func(e *ledger.Evidence) { e.Head = swap64(e.Head) }
	}},
	{name: "head by another key", check: ledger.CheckHead, attack: func(t *testing.T, l *fakeLog) {
		l.activate("prod", 2, release(2))
		l.headKey = ledgertest.For(t, "other.example.com/log").Node
	}},
	{name: "head of another service", check: ledger.CheckHead, attack: func(_ *testing.T, l *fakeLog) {
		l.activate("prod", 2, release(2))
		l.head = func(h *ledger.Head) { h.Service = "payments" }
	}},
	{name: "log shrunk", check: ledger.CheckHeadRollback, attack: func(_ *testing.T, l *fakeLog) {
		l.activate("prod", 2, release(2))
		l.size = 2
	}},
	{name: "checkpoint tampered", check: ledger.CheckCheckpoint, attack: func(_ *testing.T, l *fakeLog) {
		l.activate("prod", 2, release(2))
		l.evidence = func(e *ledger.Evidence) { e.Checkpoint = swap64(e.Checkpoint) }
	}},
	{name: "checkpoint of another tree", check: ledger.CheckCheckpoint, attack: func(t *testing.T, l *fakeLog) {
		l.activate("prod", 2, release(2))
		l.evidence = func(e *ledger.Evidence) {
			cp, err := ledger.SignCheckpoint(l.Origin, l.tree(2), l.Log)
			must(t, err)
			e.Checkpoint = string(cp)
		}
	}},
	{name: "consistency tampered", check: ledger.CheckConsistent, attack: func(_ *testing.T, l *fakeLog) {
		l.activate("prod", 2, release(2))
		l.evidence = func(e *ledger.Evidence) { e.Consistency = nil }
	}},
	{name: "chain gone", check: ledger.CheckChains, attack: func(_ *testing.T, l *fakeLog) {
		l.activate("prod", 2, release(2))
		l.head = func(h *ledger.Head) { h.Lines = nil }
	}},
	{name: "line of another chain", check: ledger.CheckScope, attack: func(_ *testing.T, l *fakeLog) {
		l.activate("staging", 2, release(2))
		l.activate("prod", 2, release(2))
		l.head = func(h *ledger.Head) {
			for i := range h.Lines {
				h.Lines[i].Ref = h.Lines[len(h.Lines)-1].Ref
			}
		}
	}},
	{name: "flags that don't compile", check: ledger.CheckDryRun, final: true, attack: func(_ *testing.T, l *fakeLog) {
		bad := release(2)
		bad["degraded"]["flags.json"] = []byte(`{"flags":{"x":{"defaultVariant":"gone","state":"ENABLED","variants":{"on":true}}}}`)
		l.activate("prod", 2, bad)
	}},
	{name: "set without a normal mode", check: ledger.CheckSet, final: true, attack: func(_ *testing.T, l *fakeLog) {
		l.activate("prod", 2, contents{"degraded": files(2)})
	}},
	{name: "set of too many modes", check: ledger.CheckSet, final: true, attack: func(_ *testing.T, l *fakeLog) {
		many := release(2)
		for n := range 64 {
			many[api.Mode(fmt.Sprintf("mode-%d", n))] = files(2)
		}
		l.activate("prod", 2, many)
	}},
	{name: "bundle of another mode", check: ledger.CheckManifest, final: true, attack: func(t *testing.T, l *fakeLog) {
		b, err := bundle.Build(bundle.Config{Contract: 1, Mode: "degraded", Service: "checkout"}, files(2))
		must(t, err)
		l.passOff(b)
	}},
	{name: "bundle of another service", check: ledger.CheckManifest, final: true, attack: func(t *testing.T, l *fakeLog) {
		b, err := bundle.Build(bundle.Config{Contract: 1, Mode: "normal", Service: "payments"}, files(2))
		must(t, err)
		l.passOff(b)
	}},
	{name: "statement by a stranger", check: ledger.CheckStatementSignature, final: true, attack: func(_ *testing.T, l *fakeLog) {
		after := int64(0)
		s := l.StatementBy(l.Stranger, ledger.SafeModeEntered, "checkout", "prod", func(st *ledger.Statement) {
			st.Mode, st.After, st.TTL, st.OnExpiry = "degraded", &after, 3600, "hold"
		})
		l.force(l.entered(s), l.Node)
	}},
	{name: "statement without permission", check: ledger.CheckPermission, final: true, attack: func(_ *testing.T, l *fakeLog) {
		g := ledgertest.Everything()
		g.Scopes = []api.Scope{"staging"}
		l.operators(l.SignOperators(2, []byte("x"), l.operator(g)), 2)
		l.force(l.entered(l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0)), l.Node)
	}},
	{name: "statement by a revoked operators set", check: ledger.CheckPermission, final: true, attack: func(_ *testing.T, l *fakeLog) {
		l.operators(l.SignOperators(2, []byte("x")), 2)
		e := l.entered(l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
		e.Data.Operators = 1
		l.force(e, l.Node)
	}},
	{name: "operators set recorded again", check: ledger.CheckChains, final: true, attack: func(_ *testing.T, l *fakeLog) {
		e := ledger.NewEvent(l.Origin, ledger.OperatorsChanged, ledgertest.NewID(time.Now()), time.Now(), time.Now(),
			ledger.Data{Statement: l.OperatorsSig, Fields: ledger.Fields{Version: "1", Commit: ledgertest.Release(1).Commit}})
		e.Data.Lane = ledger.LaneTrust
		l.state.Next(&e.Data)
		i := l.force(e, l.Node)
		l.head = func(h *ledger.Head) { h.Operators = ledger.Ref{Index: i, Hash: ledger.LeafHash(l.leaves[i])} }
	}},
	{name: "operators gone", check: ledger.CheckChains, attack: func(_ *testing.T, l *fakeLog) {
		l.activate("prod", 2, release(2))
		l.head = func(h *ledger.Head) { h.Operators = ledger.Ref{} }
	}},
	{name: "operators' successor kept back", check: ledger.CheckPermission, attack: func(_ *testing.T, l *fakeLog) {
		l.activate("prod", 2, release(2))
		second := int64(len(l.leaves))
		l.operators(l.SignOperators(2, []byte("x"), l.operator(ledgertest.Everything())), 2)
		l.operators(l.SignOperators(3, []byte("y"), l.operator(ledgertest.Everything())), 3)
		l.evidence = func(e *ledger.Evidence) {
			e.Changes = slices.DeleteFunc(e.Changes, func(c ledger.EvidenceChange) bool { return c.Index == second })
		}
	}},
	{name: "change by another node", check: ledger.CheckNodeSignature, final: true, attack: func(t *testing.T, l *fakeLog) {
		l.force(l.activation(l.Origin), ledgertest.For(t, "other.example.com/log").Node)
	}},
	{name: "change of another log", check: ledger.CheckLog, final: true, attack: func(_ *testing.T, l *fakeLog) {
		l.force(l.activation("other.example.com/log"), l.Node)
	}},
	{name: "evidence that is no JSON", check: ledger.CheckHead, attack: func(_ *testing.T, l *fakeLog) {
		l.activate("prod", 2, release(2))
		l.serve = func(path string, b []byte) []byte {
			if path == "/v1/evidence" {
				return b[1:]
			}
			return b
		}
	}},
}

func (l *fakeLog) operator(g ledger.Grant) ledger.Operator {
	return ledger.Operator{ID: ledgertest.OperatorID, Keys: []string{ledgertest.SSHLine(l.OperatorKey)}, May: []ledger.Grant{g}}
}

// activation frames release 2 as the next change of checkout@prod.
func (l *fakeLog) activation(origin string) *ledger.Event {
	ref := l.publish("prod", release(2))
	d := ledger.Data{Lane: ledger.LaneMain, Service: "checkout", Scope: "prod",
		Fields: ledger.Fields{Release: ledgertest.Release(2), Set: &ref, Contract: 1}}
	l.state.Next(&d)
	return ledger.NewEvent(origin, ledger.BundleActivated, ledgertest.NewID(time.Now()), time.Now(), time.Now(), d)
}

// passOff activates a set that gives a bundle out as checkout's normal one.
func (l *fakeLog) passOff(b *bundle.Bundle) {
	l.put(b.Manifest)
	for _, blob := range b.Blobs {
		l.put(blob)
	}
	ref := l.publishSet([]bundle.Entry{{Scope: "prod", Mode: "normal", Digest: b.Digest, Size: int64(len(b.Manifest))}})
	l.append(ledger.BundleActivated, ledger.Data{Service: "checkout", Scope: "prod",
		Fields: ledger.Fields{Release: ledgertest.Release(2), Set: &ref, Contract: 1}})
}

func (l *fakeLog) honest() {
	l.evidence, l.serve, l.head, l.headKey, l.size = nil, nil, nil, l.Node, 0
}

func TestRefusesAndGoesOn(t *testing.T) {
	for _, a := range attacks {
		for _, cache := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/cache=%v", a.name, cache), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l, cfg := released(t)
					if cache {
						cfg.Cache = t.TempDir()
					}
					c := open(t, cfg)
					of := client(t, c)
					settled(time.Second)

					a.attack(t, l)
					l.tell("head")
					settled(5 * time.Second)
					runs(t, c, 1)
					refused := c.Live().Refusal
					if refused == nil || refused.Check != a.check {
						t.Fatalf("refused %+v, want check %q", refused, a.check)
					}
					if c.State() != api.StateError || of.State() != openfeature.ErrorState {
						t.Errorf("state %s, the provider's %s", why(c), of.State())
					}
					if len(refused.Evidence) == 0 || len(refused.Evidence) > 256<<10 || refused.Checkpoint == "" {
						t.Errorf("%d bytes of evidence and checkpoint %q are kept", len(refused.Evidence), refused.Checkpoint)
					}
					if a.final {
						return
					}
					l.locked(l.honest)
					settled(time.Minute)
					runs(t, c, 2)
					if c.State() != api.StateReady || of.State() != openfeature.ReadyState {
						t.Errorf("after mending: state %s, the provider's %s", why(c), of.State())
					}
				})
			})
		}
	}
}

// Sizes come from the log: a set of more bytes than a set may have is not even
// asked for.
func TestASetBeyondAllSizesIsNotFetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, c := running(t)
		settled(time.Second)
		huge := l.publish("prod", release(2))
		huge.Size = bundle.MaxManifest + 1
		l.append(ledger.BundleActivated, ledger.Data{Service: "checkout", Scope: "prod",
			Fields: ledger.Fields{Release: ledgertest.Release(2), Set: &huge, Contract: 1}})
		l.tell("head")
		settled(5 * time.Second)
		runs(t, c, 1)
		if r := c.Live().Refusal; r == nil || r.Check != ledger.CheckSet {
			t.Errorf("refused %+v", r)
		}
		l.locked(func() {
			if slices.ContainsFunc(l.requests, func(r string) bool { return strings.Contains(r, string(huge.Digest)) }) {
				t.Error("it was asked for")
			}
		})
		l.activate("prod", 3, release(3))
		settled(time.Minute)
		runs(t, c, 3)
	})
}

// A flood of refusals fills neither memory nor cache.
func TestOnlyTheNewestRefusalsAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, cfg := released(t)
		cfg.OverrideDir = t.TempDir()
		c := open(t, cfg)
		for n := range 20 {
			must(t, os.WriteFile(filepath.Join(cfg.OverrideDir, fmt.Sprint(n, ".dsse")), fmt.Appendf(nil, `{"payload":%d}`, n), 0o600))
		}
		settled(time.Minute)
		if n := len(c.Refusals()); n != 8 {
			t.Errorf("%d refusals are kept", n)
		}
		runs(t, c, 1)
	})
}

func TestForkIsFoundAndBothHalvesAreKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := newFake(t), newFake(t)
		h := hosts{"log": a}
		a.activate("prod", 1, release(1))
		b.activate("prod", 1, release(7)) // same keys, same size, another history
		cfg := a.config()
		cfg.HTTPClient.Transport = h
		c := open(t, cfg)
		settled(time.Second)
		a.locked(func() { h["log"] = b })
		a.tell("drop")
		settled(time.Minute)
		runs(t, c, 1)
		r := c.Live().Refusal
		if r == nil || r.Check != ledger.CheckConsistent || !strings.Contains(r.Message, "forked") {
			t.Fatalf("refused %+v", r)
		}
		if r.Checkpoint == "" || !bytes.Contains(r.Evidence, []byte("checkpoint")) {
			t.Error("the two checkpoints are not kept")
		}
		if n := len(c.Refusals()); n != 1 {
			t.Errorf("%d refusals for one fork that is seen again and again", n)
		}
	})
}

func TestRefusalsThatComeAgainAreKeptOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, c := running(t)
		settled(time.Second)
		l.activate("prod", 2, release(2))
		settled(time.Minute)
		l.locked(func() { l.size = 3 })
		settled(10 * time.Minute)
		list := c.Refusals()
		if len(list) != 1 || list[0].Time < api.FormatTime(time.Now().Add(-time.Minute)) {
			t.Errorf("%d refusals, %+v", len(list), list)
		}
	})
}

func TestAnotherLogIsNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		other := fakeFor(t, "other.example.com/log")
		other.activate("prod", 1, release(66))
		cfg.Servers = []string{"http://bad", "http://log"}
		cfg.HTTPClient.Transport = hosts{"bad": other, "log": l}
		c := open(t, cfg)
		runs(t, c, 1)
		if r := c.Live().Refusal; r == nil || r.Check != ledger.CheckHead || r.Server != "http://bad" {
			t.Errorf("refused %+v", r)
		}
		if c.State() != api.StateReady {
			t.Errorf("state %s: a good server answered", why(c))
		}
	})
}

// fork gives the log another history, of these releases.
func (l *fakeLog) fork(releases ...int) {
	other := newFake(l.t)
	for _, n := range releases {
		other.activate("prod", n, release(n))
	}
	l.leaves, l.hashes, l.state, l.objects = other.leaves, other.hashes, other.state, other.objects
}

// TestServerThatIsBehind: a relay that lags is refused, which is no alarm while
// the server before it is away.
func TestServerThatIsBehind(t *testing.T) {
	for name, tt := range map[string]struct {
		relay func(relay *fakeLog)
		away  bool
		want  api.State
	}{
		"in entries":                  {func(r *fakeLog) { r.size = 3 }, true, api.StateStale},
		"in entries, and nobody away": {func(r *fakeLog) { r.size = 3 }, false, api.StateError},
		"by a bad signature": {func(r *fakeLog) {
			r.size = 3
			r.evidence = func(e *ledger.Evidence) { e.Checkpoint = swap64(e.Checkpoint) }
		}, true, api.StateError},
		"with a history of its own": {func(r *fakeLog) { r.fork(7) }, true, api.StateError},
		"at the same size, forked":  {func(r *fakeLog) { r.fork(7, 2) }, true, api.StateError},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l, cfg := released(t)
				l.activate("prod", 2, release(2))
				relay := newFake(t)
				relay.leaves, relay.hashes, relay.state, relay.objects = l.leaves, l.hashes, l.state, l.objects
				cfg.Servers = []string{"http://log", "http://relay"}
				cfg.HTTPClient.Transport = hosts{"log": l, "relay": relay}
				c := open(t, cfg)
				settled(time.Second)
				tt.relay(relay)
				l.locked(func() {
					if l.down = tt.away; !tt.away {
						l.size = 3
					}
				})
				l.tell("drop")
				settled(2 * time.Minute)
				runs(t, c, 2)
				if c.State() != tt.want || strings.Contains(c.Live().Why, "behind") != (tt.want == api.StateStale) {
					t.Errorf("state %s", why(c))
				}
				if r := c.Live().Refusal; r == nil || r.Server != "http://relay" && tt.away {
					t.Errorf("refused %+v", r)
				}
				l.locked(func() { l.down = false; l.honest() })
				settled(time.Minute)
				if c.State() != api.StateReady {
					t.Errorf("after mending: state %s", why(c))
				}
			})
		})
	}
}

func TestObjectsComeFromWhoeverHasThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		bad, _ := released(t)
		bad.leaves, bad.hashes, bad.state = l.leaves, l.hashes, l.state // the same log
		bad.serve = damage("/v2/", nil)
		cfg.Servers = []string{"http://bad", "http://log"}
		cfg.HTTPClient.Transport = hosts{"bad": bad, "log": l}
		c := open(t, cfg)
		runs(t, c, 1)
		if r := c.Live().Refusal; r == nil || r.Server != "http://bad" || c.State() != api.StateReady {
			t.Errorf("refused %+v, %s", r, why(c))
		}
	})
}
