package ledger_test

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
)

// story is a log with operators, two activations and a safe mode.
func story(t *testing.T) *memLog {
	l := newLog(t)
	l.operators()
	l.activate("prod", 1)
	l.activate("staging", 1)
	l.safeMode(ledger.SafeModeEntered, "prod/eu-west-1")
	l.activate("prod", 2)
	return l
}

func prove(t *testing.T, l *memLog, e *ledger.Evidence, known *ledger.Known) *ledger.Proven {
	t.Helper()
	p, err := l.f.Trust.Prove(e, "checkout", known)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func wantCheck(t *testing.T, err error, want ledger.Check) {
	t.Helper()
	ce, ok := errors.AsType[*ledger.CheckError](err)
	if !ok || ce.Check != want {
		t.Errorf("got %v, want a refusal by check %q", err, want)
	}
}

func TestHonestEvidenceIsBelieved(t *testing.T) {
	l := story(t)
	p := prove(t, l, clone(t, l.evidence(0)), nil)
	eu, ok := ledger.InEffect(p.Chains, "prod/eu-west-1/canary")
	if !ok || eu.Mode != "degraded" || eu.Main.Scope != "prod" || eu.Main.Generation != 2 {
		t.Errorf("%+v", eu)
	}
	l.safeMode(ledger.SafeModeExited, "prod/eu-west-1")
	l.must(ledger.NoteAdded, noteData(l, l.f.Operator))
	next := prove(t, l, l.evidence(p.Tree.Size), p.Known())
	if eu, _ := ledger.InEffect(next.Chains, "prod/eu-west-1"); eu.Mode != api.ModeNormal {
		t.Errorf("%+v", eu)
	}
}

func noteData(l *memLog, key ledger.Signer) ledger.Data {
	st := l.f.StatementBy(key, ledger.NoteAdded, "checkout", "", nil)
	return ledger.Data{Service: "checkout", Statement: st.Raw}
}

func TestOnlyWhatTheHeadNeedsHasToComeAlong(t *testing.T) {
	l := story(t)
	e := l.evidence(0)
	e.Changes = slices.DeleteFunc(e.Changes, func(c ledger.EvidenceChange) bool { return c.Index == 0 || c.Index == 2 })
	p := prove(t, l, e, nil)
	l.activate("staging", 5)
	warm := l.evidence(p.Tree.Size)
	warm.Changes = warm.Changes[6:]
	prove(t, l, warm, p.Known())
}

// Whatever is left out of evidence that leans on what is known: it stands alone
// exactly when somebody who knows nothing believes it.
func TestEvidenceStandsAloneWhenAStrangerBelievesIt(t *testing.T) {
	l := story(t)
	known := prove(t, l, l.evidence(0), nil).Known()
	l.must(ledger.NoteAdded, noteData(l, l.f.Operator))
	whole, alone := l.evidence(known.Tree.Size), 0
	for kept := range 1 << len(whole.Changes) {
		e := *whole
		e.Changes = nil
		for i, c := range whole.Changes {
			if kept>>i&1 == 1 {
				e.Changes = append(e.Changes, c)
			}
		}
		err := prove(t, l, &e, known).StandsAlone(&e)
		_, stranger := l.f.Trust.Prove(&e, "checkout", nil)
		if (err == nil) != (stranger == nil) {
			t.Errorf("kept %b: StandsAlone says %v, a stranger %v", kept, err, stranger)
		}
		if err != nil {
			wantCheck(t, err, ledger.CheckIncluded)
		} else {
			alone++
		}
	}
	if alone == 0 || alone == 1<<len(whole.Changes) {
		t.Errorf("%d of %d stand alone: nothing was told apart", alone, 1<<len(whole.Changes))
	}
}

// Each attack of docs/attacks.md on evidence: the honest log passes, the
// attacked one is refused by the check that is there for it.
func TestEvidenceAttacks(t *testing.T) {
	cases := map[string]struct {
		want   ledger.Check
		attack func(l *memLog, e *ledger.Evidence, known *ledger.Known)
	}{
		"head signed by another key": {ledger.CheckHead, func(l *memLog, e *ledger.Evidence, _ *ledger.Known) {
			h := &ledger.Head{Origin: l.f.Origin, Service: "checkout", Tree: l.tree(), Issued: l.now}
			b, _ := h.Sign(l.f.Log)
			e.Head = string(b)
		}},
		"head of another log, by our node": {ledger.CheckHead, func(l *memLog, e *ledger.Evidence, _ *ledger.Known) {
			e.Head = l.headOf(func(h *ledger.Head) { h.Origin = "other.example/log" })
		}},
		"head of another service": {ledger.CheckHead, func(l *memLog, e *ledger.Evidence, _ *ledger.Known) {
			e.Head = l.headOf(func(h *ledger.Head) { h.Service = "payments" })
		}},
		"edited head": {ledger.CheckHead, func(_ *memLog, e *ledger.Evidence, _ *ledger.Known) {
			e.Head = strings.Replace(e.Head, "main prod", "main proc", 1)
		}},
		"a chain that moved in a log that did not": {ledger.CheckChains, func(l *memLog, e *ledger.Evidence, k *ledger.Known) {
			*k = *prove(l.t, l, l.evidence(0), nil).Known()
			k.Chains[0].Generation, k.Chains[0].Hash = 1, ledger.LeafHash(l.leaves[2])
		}},
		"a chain more in a log that did not grow": {ledger.CheckChains, func(l *memLog, e *ledger.Evidence, k *ledger.Known) {
			*k = *prove(l.t, l, l.evidence(0), nil).Known()
			k.Chains = k.Chains[1:]
		}},
		"younger head of a shorter log": {ledger.CheckHeadRollback, func(l *memLog, e *ledger.Evidence, _ *ledger.Known) {
			e.Head = l.headOf(func(h *ledger.Head) { h.Tree = l.treeAt(3) })
		}},
		"edited checkpoint": {ledger.CheckCheckpoint, func(_ *memLog, e *ledger.Evidence, _ *ledger.Known) {
			e.Checkpoint = strings.Replace(e.Checkpoint, "\n6\n", "\n7\n", 1)
		}},
		"checkpoint of another log, by our key": {ledger.CheckCheckpoint, func(l *memLog, e *ledger.Evidence, _ *ledger.Known) {
			b, _ := ledger.SignCheckpoint("other.example/log", l.tree(), l.f.Log)
			e.Checkpoint = string(b)
		}},
		"checkpoint by the node": {ledger.CheckCheckpoint, func(l *memLog, e *ledger.Evidence, _ *ledger.Known) {
			b, _ := ledger.SignCheckpoint(l.f.Origin, l.tree(), l.f.Node)
			e.Checkpoint = string(b)
		}},
		"checkpoint of another size": {ledger.CheckCheckpoint, func(l *memLog, e *ledger.Evidence, _ *ledger.Known) {
			e.Head = l.headOf(func(h *ledger.Head) { h.Tree = l.treeAt(5) })
		}},
		"fork at equal size": {ledger.CheckConsistent, func(l *memLog, _ *ledger.Evidence, k *ledger.Known) {
			k.Tree = l.tree()
			k.Tree.Root[0] ^= 1
		}},
		"fork at a larger size": {ledger.CheckConsistent, func(l *memLog, _ *ledger.Evidence, k *ledger.Known) {
			k.Tree = l.treeAt(4)
			k.Tree.Root[0] ^= 1
		}},
		"no consistency proof": {ledger.CheckConsistent, func(_ *memLog, e *ledger.Evidence, _ *ledger.Known) { e.Consistency = nil }},
		"endless proof": {ledger.CheckConsistent, func(_ *memLog, e *ledger.Evidence, _ *ledger.Known) {
			e.Consistency = slices.Repeat([]string{e.Changes[0].Proof[0]}, 1000)
		}},
		"tampered leaf": {ledger.CheckIncluded, func(_ *memLog, e *ledger.Evidence, _ *ledger.Known) { e.Changes[2].Leaf[20] ^= 1 }},
		"true proof, wrong index": {ledger.CheckIncluded, func(_ *memLog, e *ledger.Evidence, _ *ledger.Known) {
			e.Changes[2].Index = 3
		}},
		"empty leaf": {ledger.CheckIncluded, func(_ *memLog, e *ledger.Evidence, _ *ledger.Known) { e.Changes[2].Leaf = nil }},
		"odd UTF-8 in a checkpoint": {ledger.CheckCheckpoint, func(_ *memLog, e *ledger.Evidence, _ *ledger.Known) {
			e.Checkpoint = strings.Replace(e.Checkpoint, "\n6\n", "\n6\xff\xfe\n", 1)
		}},
		"tampered proof": {ledger.CheckIncluded, func(_ *memLog, e *ledger.Evidence, _ *ledger.Known) {
			e.Changes[2].Proof[0] = e.Changes[3].Proof[0]
		}},
		"a change is held back": {ledger.CheckIncluded, func(_ *memLog, e *ledger.Evidence, _ *ledger.Known) {
			e.Changes = slices.DeleteFunc(e.Changes, func(c ledger.EvidenceChange) bool { return c.Index == 5 })
		}},
		"the operators are held back": {ledger.CheckPermission, func(_ *memLog, e *ledger.Evidence, _ *ledger.Known) {
			e.Changes = slices.DeleteFunc(e.Changes, func(c ledger.EvidenceChange) bool { return c.Index == 1 })
		}},
		"another set's hash for the operators": {ledger.CheckPermission, func(l *memLog, e *ledger.Evidence, _ *ledger.Known) {
			e.Head = l.headOf(func(h *ledger.Head) { h.Operators.Hash = h.Lines[0].Hash })
		}},
		"another hash than the change's": {ledger.CheckIncluded, func(l *memLog, e *ledger.Evidence, _ *ledger.Known) {
			e.Head = l.headOf(func(h *ledger.Head) { h.Lines[0].Hash = h.Lines[1].Hash })
		}},
		"a hidden chain": {ledger.CheckChains, func(l *memLog, e *ledger.Evidence, _ *ledger.Known) {
			e.Head = l.headOf(func(h *ledger.Head) { h.Lines = h.Lines[1:] })
		}},
		"an old change of a chain": {ledger.CheckChains, func(l *memLog, e *ledger.Evidence, k *ledger.Known) {
			*k = *prove(l.t, l, l.evidence(0), nil).Known()
			e.Head = l.headOf(func(h *ledger.Head) { h.Lines[0].Ref = ledger.Ref{Index: 2, Hash: ledger.LeafHash(l.leaves[2])} })
		}},
		"another chain's change": {ledger.CheckScope, func(l *memLog, e *ledger.Evidence, _ *ledger.Known) {
			e.Head = l.headOf(func(h *ledger.Head) { h.Lines[0].Ref = h.Lines[1].Ref })
		}},
		"another lane's change": {ledger.CheckScope, func(l *memLog, e *ledger.Evidence, _ *ledger.Known) {
			e.Head = l.headOf(func(h *ledger.Head) { h.Lines[2].Lane = ledger.LaneMain })
		}},
		"another service's change": {ledger.CheckScope, func(l *memLog, e *ledger.Evidence, _ *ledger.Known) {
			d := activation("prod")
			d.Service = "payments"
			i := l.must(ledger.BundleActivated, d)
			*e = *l.evidence(4)
			e.Head = l.headOf(func(h *ledger.Head) { h.Lines[0].Ref = ledger.Ref{Index: i, Hash: ledger.LeafHash(l.leaves[i])} })
		}},
		"a change in the place of one that was seen": {ledger.CheckChains, func(l *memLog, e *ledger.Evidence, k *ledger.Known) {
			*k = *prove(l.t, l, l.evidence(0), nil).Known()
			seen, _ := l.state.Chain(ledger.ChainKey{Lane: ledger.LaneMain, Service: "checkout", Scope: "prod"})
			other := l.event(ledger.BundleActivated, activation("prod"))
			other.Data.Generation, other.Data.Prev = seen.Generation, ledger.LeafHash(l.leaves[2])
			_, head := l.force(other)
			*e = *l.evidence(k.Tree.Size)
			e.Head = head
		}},
		"a change of another log": {ledger.CheckLog, func(l *memLog, e *ledger.Evidence, _ *ledger.Known) {
			other := l.event(ledger.BundleActivated, activation("prod"))
			other.Source = "other.example/log"
			_, head := l.force(other)
			*e = *l.evidence(4)
			e.Head = head
		}},
		"a change by another node": {ledger.CheckNodeSignature, func(l *memLog, e *ledger.Evidence, _ *ledger.Known) {
			ours := l.f.Node
			l.f.Node = ledgertest.For(l.t, "other.example/log").Node
			other := l.sign(l.event(ledger.BundleActivated, activation("prod")))
			l.f.Node = ours
			l.store(other.Leaf)
			*e = *l.evidence(4)
		}},
		"a detail that was not there": {ledger.CheckChange, func(_ *memLog, e *ledger.Evidence, _ *ledger.Known) {
			d, _, _ := ledger.NewDetail(map[string]any{"reason": "made up"})
			e.Changes[2].Salt, e.Changes[2].Detail = d.Salt, d.Text
		}},
		"a flood of changes": {ledger.CheckIncluded, func(_ *memLog, e *ledger.Evidence, _ *ledger.Known) {
			e.Changes = slices.Repeat(e.Changes, 500)
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			l := story(t)
			known := &ledger.Known{Tree: l.treeAt(4)}
			for _, i := range []int64{2, 3} {
				ch, err := ledger.ParseLeaf(l.leaves[i])
				if err != nil {
					t.Fatal(err)
				}
				known.Chains = append(known.Chains, ledger.Chain{Lane: ch.Data.Lane, Scope: ch.Data.Scope, Generation: 1, Hash: ch.Hash, Index: i})
			}
			honest := l.evidence(4)
			prove(t, l, clone(t, honest), known)
			e := clone(t, honest)
			c.attack(l, e, known)
			_, err := l.f.Trust.Prove(e, "checkout", known)
			wantCheck(t, err, c.want)
		})
	}
}

// The log orders heads, clocks don't: a node whose clock went back, or was ahead
// before, is believed.
func TestHeadsAreOrderedByTheLogAlone(t *testing.T) {
	l := story(t)
	first := prove(t, l, l.evidence(0), nil).Known()
	for _, d := range []time.Duration{-time.Hour, time.Hour, -24 * time.Hour} {
		e := l.evidence(first.Tree.Size)
		e.Head = l.headOf(func(h *ledger.Head) { h.Issued = h.Issued.Add(d) })
		prove(t, l, e, first)
	}
	l.activate("staging", 5)
	e := l.evidence(first.Tree.Size)
	e.Head = l.headOf(func(h *ledger.Head) { h.Issued = h.Issued.Add(-time.Hour) })
	prove(t, l, e, first)
}

// What a stolen node key could put into the log, and clients refuse.
func TestAStolenNodeKeyEntersNoMode(t *testing.T) {
	enter := func(l *memLog, by ledger.Signer) *ledger.Signed {
		after := int64(0)
		return l.f.StatementBy(by, ledger.SafeModeEntered, "checkout", "prod", func(s *ledger.Statement) {
			s.Mode, s.TTL, s.OnExpiry, s.After = "degraded", 3600, "hold", &after
		})
	}
	cases := map[string]struct {
		want ledger.Check
		make func(l *memLog) *ledger.Event
	}{
		"a stranger's statement": {ledger.CheckStatementSignature, func(l *memLog) *ledger.Event {
			return l.event(ledger.SafeModeEntered, l.override(enter(l, l.f.Stranger)))
		}},
		"cites no operators": {ledger.CheckPermission, func(l *memLog) *ledger.Event {
			e := l.event(ledger.SafeModeEntered, l.override(enter(l, l.f.Operator)))
			e.Data.Operators = 0
			return e
		}},
		"cites a change that isn't there": {ledger.CheckPermission, func(l *memLog) *ledger.Event {
			e := l.event(ledger.SafeModeEntered, l.override(enter(l, l.f.Operator)))
			e.Data.Operators = 99
			return e
		}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			l.operators()
			l.activate("prod", 1)
			change := l.sign(c.make(l))
			index := l.store(change.Leaf)
			if err := l.state.Clone().Apply(change, l.f.Trust); !errors.Is(err, ledger.ErrFold) {
				t.Errorf("the fold took it: %v", err)
			}
			e := l.evidence(0)
			e.Head = l.headOf(func(h *ledger.Head) {
				h.Lines = append(h.Lines, ledger.Line{Lane: ledger.LaneOverride, Scope: "prod", Ref: ledger.Ref{Index: index, Hash: change.Hash}})
			})
			_, err := l.f.Trust.Prove(e, "checkout", nil)
			wantCheck(t, err, c.want)
		})
	}
}

// A revoked operator's earlier change stays right; a later one by the same key
// is wrong, also when it cites the old set.
func TestRevocationIsNotRetroactive(t *testing.T) {
	l := newLog(t)
	l.operators()
	l.activate("prod", 1)
	l.safeMode(ledger.SafeModeEntered, "prod")
	other := ledgertest.SSHLine(l.f.Key("other"))
	sig := l.f.SignOperators(2, []byte("v2"), ledger.Operator{ID: "other", Keys: []string{other}, May: []ledger.Grant{ledgertest.Everything()}})
	l.must(ledger.OperatorsChanged, ledger.Data{Statement: sig, Fields: ledger.Fields{Version: "2", Commit: fmt.Sprintf("%040x", 2)}})
	prove(t, l, l.evidence(0), nil)

	e := l.event(ledger.SafeModeExited, l.override(l.f.SafeMode(ledger.SafeModeExited, "checkout", "prod", "degraded", 1)))
	e.Data.Operators = 1
	exit, head := l.force(e)
	ev := l.evidence(0)
	ev.Head = head
	_, err := l.f.Trust.Prove(ev, "checkout", nil)
	wantCheck(t, err, ledger.CheckPermission)

	// A third set ends the second one's time, not once more the first one's.
	sig = l.f.SignOperators(3, []byte("v3"), ledger.Operator{ID: "other", Keys: []string{other}, May: []ledger.Grant{ledgertest.Everything()}})
	l.must(ledger.OperatorsChanged, ledger.Data{Statement: sig, Fields: ledger.Fields{Version: "3", Commit: fmt.Sprintf("%040x", 3)}})
	prove(t, l, l.evidence(0), nil)
	ev = l.evidence(0)
	ev.Head = l.headOf(func(h *ledger.Head) { h.Lines[1].Ref = ledger.Ref{Index: exit, Hash: ledger.LeafHash(l.leaves[exit])} })
	_, err = l.f.Trust.Prove(ev, "checkout", nil)
	wantCheck(t, err, ledger.CheckPermission)
}

// A set that came after a change can't have allowed it.
func TestAChangeCitesNoLaterOperators(t *testing.T) {
	l := newLog(t)
	l.operators()
	l.activate("prod", 1)
	e := l.event(ledger.SafeModeEntered, l.override(l.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0)))
	e.Data.Operators = 4
	i, _ := l.force(e)
	op := ledger.Operator{ID: ledgertest.OperatorID, Keys: []string{ledgertest.SSHLine(l.f.OperatorKey)}, May: []ledger.Grant{ledgertest.Everything()}}
	sig := l.f.SignOperators(2, []byte("v2"), op)
	l.must(ledger.OperatorsChanged, ledger.Data{Statement: sig, Fields: ledger.Fields{Version: "2", Commit: fmt.Sprintf("%040x", 2)}})
	prove(t, l, l.evidence(0), nil)
	ev := l.evidence(0)
	ev.Head = l.headOf(func(h *ledger.Head) {
		h.Lines = append(h.Lines, ledger.Line{Lane: ledger.LaneOverride, Scope: "prod", Ref: ledger.Ref{Index: i, Hash: ledger.LeafHash(l.leaves[i])}})
	})
	_, err := l.f.Trust.Prove(ev, "checkout", nil)
	wantCheck(t, err, ledger.CheckPermission)
	alone := &ledger.Evidence{Changes: []ledger.EvidenceChange{l.change(i), l.change(4)}}
	_, err = l.f.Trust.ProveAlone(alone, l.tree())
	wantCheck(t, err, ledger.CheckPermission)
}

// The node alone ends a mode that restores, and only once it has run out.
func TestAStolenNodeKeyLeavesNoModeThatHolds(t *testing.T) {
	for name, c := range map[string]struct {
		onExpiry string
		later    time.Duration
		ok       bool
	}{
		"holds, in its time":     {"hold", time.Minute, false},
		"holds, and has run out": {"hold", 2 * time.Hour, false},
		"restores, in its time":  {"restore", time.Minute, false},
		"restores, and ran out":  {"restore", 2 * time.Hour, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			l.operators()
			l.activate("prod", 1)
			after := int64(0)
			l.must(ledger.SafeModeEntered, l.override(l.f.Statement(ledger.SafeModeEntered, "checkout", "prod", func(s *ledger.Statement) {
				s.Mode, s.TTL, s.OnExpiry, s.After = "degraded", 3600, c.onExpiry, &after
			})))
			known := prove(t, l, l.evidence(0), nil).Known()
			l.now = l.now.Add(c.later)
			e := l.event(ledger.SafeModeExited, ledger.Data{Service: "checkout", Scope: "prod", Fields: ledger.Fields{Mode: "degraded"}})
			if err := l.state.Clone().Apply(l.sign(e), l.f.Trust); (err == nil) != c.ok {
				t.Errorf("the fold: %v", err)
			}
			_, head := l.force(e)
			ev := l.evidence(known.Tree.Size)
			ev.Head = head
			_, err := l.f.Trust.Prove(ev, "checkout", known)
			if c.ok && err != nil {
				t.Error(err)
			} else if !c.ok {
				wantCheck(t, err, ledger.CheckPermission)
			}
		})
	}
}

func TestAStolenNodeKeyReplaysAndShortensNoMode(t *testing.T) {
	cases := map[string]func(l *memLog, first *ledger.Signed) *ledger.Event{
		"an old statement again": func(l *memLog, first *ledger.Signed) *ledger.Event {
			l.safeMode(ledger.SafeModeExited, "prod")
			return l.event(ledger.SafeModeEntered, l.override(first))
		},
		"a mode that ends early": func(l *memLog, _ *ledger.Signed) *ledger.Event {
			e := l.event(ledger.SafeModeRenewed, l.override(l.f.SafeMode(ledger.SafeModeRenewed, "checkout", "prod", "degraded", 1)))
			e.Data.Expires = api.FormatTime(l.now.Add(2e9))
			return e
		},
	}
	for name, make := range cases {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			l.operators()
			l.activate("prod", 1)
			l.safeMode(ledger.SafeModeEntered, "prod")
			c, err := ledger.ParseLeaf(l.leaves[3])
			if err != nil {
				t.Fatal(err)
			}
			change := l.sign(make(l, c.Statement))
			index := l.store(change.Leaf)
			if err := l.state.Clone().Apply(change, l.f.Trust); !errors.Is(err, ledger.ErrFold) {
				t.Errorf("the fold took it: %v", err)
			}
			e := l.evidence(0)
			e.Head = l.headOf(func(h *ledger.Head) { h.Lines[1].Ref = ledger.Ref{Index: index, Hash: change.Hash} })
			_, err = l.f.Trust.Prove(e, "checkout", nil)
			wantCheck(t, err, ledger.CheckPermission)
		})
	}
}

func TestAProofAloneNeedsWhoAllowedIt(t *testing.T) {
	l := story(t)
	alone := func(indexes ...int64) error {
		e := &ledger.Evidence{Checkpoint: l.checkpoint()}
		for _, i := range indexes {
			e.Changes = append(e.Changes, l.change(i))
		}
		_, err := l.f.Trust.ProveAlone(e, l.tree())
		return err
	}
	if err := alone(4, 1); err != nil {
		t.Error(err)
	}
	wantCheck(t, alone(4), ledger.CheckPermission)
	e := &ledger.Evidence{Changes: []ledger.EvidenceChange{l.change(4), l.change(1)}}
	e.Changes[0].Proof = e.Changes[1].Proof
	_, err := l.f.Trust.ProveAlone(e, l.tree())
	wantCheck(t, err, ledger.CheckIncluded)
	replayed, _ := l.force(l.event(ledger.SafeModeRenewed, l.override(l.f.SafeMode(ledger.SafeModeRenewed, "checkout", "prod/eu-west-1", "degraded", 0))))
	wantCheck(t, alone(replayed, 1), ledger.CheckPermission)
	stranger := l.f.StatementBy(l.f.Stranger, ledger.NoteAdded, "checkout", "", nil)
	c := l.sign(l.event(ledger.NoteAdded, ledger.Data{Service: "checkout", Statement: stranger.Raw}))
	wantCheck(t, alone(l.store(c.Leaf), 1), ledger.CheckStatementSignature)
	c = l.sign(l.event(ledger.StatementLate, ledger.Data{Service: "checkout", Statement: stranger.Raw, Fields: ledger.Fields{Late: "pending"}}))
	if err := alone(l.store(c.Leaf), 1); err != nil {
		t.Errorf("a late statement, whose signer may be gone: %v", err)
	}
}

// One key is one operator's, or nobody could tell who acted.
func TestOperatorsAreToldApart(t *testing.T) {
	f := ledgertest.New(t)
	op := func(id string, key ed25519.PrivateKey) ledger.Operator {
		return ledger.Operator{ID: id, Keys: []string{ledgertest.SSHLine(key)}, May: []ledger.Grant{ledgertest.Everything()}}
	}
	other := f.Key("other")
	for name, sig := range map[string][]byte{
		"one key of two operators": f.SignOperators(1, []byte("x"), op("ops", f.OperatorKey), op("sre", f.OperatorKey)),
		"one id of two operators":  f.SignOperators(1, []byte("x"), op("ops", f.OperatorKey), op("ops", other)),
		"version 0":                f.SignOperators(0, []byte("x"), op("ops", f.OperatorKey)),
	} {
		if _, err := f.Trust.OperatorsAt(1, sig); !errors.Is(err, ledger.ErrOperators) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := f.Trust.OperatorsAt(1, f.SignOperators(1, []byte("x"), op("ops", f.OperatorKey), op("sre", other))); err != nil {
		t.Error(err)
	}
}

func TestGrantsCoverTheirPlaces(t *testing.T) {
	f := ledgertest.New(t)
	grant := func(do, service string, scope api.Scope) *ledger.Operators {
		op := ledger.Operator{ID: "ops", Keys: []string{ledgertest.SSHLine(f.OperatorKey)}, May: []ledger.Grant{{Do: []string{do}, Services: []string{service}, Scopes: []api.Scope{scope}}}}
		o, err := f.Trust.OperatorsAt(1, f.SignOperators(1, []byte("x"), op))
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	object := func(service string, scope api.Scope) *ledger.Signed {
		return f.Statement(ledger.ObjectErased, service, scope, func(s *ledger.Statement) { s.Object = api.DigestOf(nil) })
	}
	source := f.Statement(ledger.SourceAccepted, "", "", func(s *ledger.Statement) { s.From, s.To = "a", "b" })
	note := func(service string, scope api.Scope) *ledger.Signed {
		return f.Statement(ledger.NoteAdded, service, scope, nil)
	}
	elsewhere := f.Statement(ledger.NoteAdded, "checkout", "prod", func(s *ledger.Statement) { s.Log = "other.example/log" })
	for name, c := range map[string]struct {
		ops *ledger.Operators
		st  *ledger.Signed
		ok  bool
	}{
		"erase of the service":     {grant("erase", "checkout", "prod"), object("checkout", "prod/eu"), true},
		"erase of another service": {grant("erase", "other", "prod"), object("checkout", "prod"), false},
		"erase without a place":    {grant("erase", "other", "*"), object("", ""), false},
		"erase without a scope":    {grant("erase", "checkout", "prod"), object("checkout", ""), false},
		"erase everywhere":         {grant("erase", "*", "*"), object("", ""), true},
		"record for the service":   {grant("record", "checkout", "prod"), note("checkout", ""), true},
		"record for nobody":        {grant("record", "checkout", "prod"), note("", ""), false},
		"record in another scope":  {grant("record", "checkout", "prod"), note("checkout", "staging"), false},
		"record in a like-named":   {grant("record", "checkout", "prod"), note("checkout", "prod-2"), false},
		"source by all services":   {grant("source", "*", "prod"), source, true},
		"source by one service":    {grant("source", "checkout", "*"), source, false},
		"safe-mode doesn't record": {grant("safe-mode", "*", "*"), note("checkout", "prod"), false},
		"meant for another log":    {grant("record", "*", "*"), elsewhere, false},
	} {
		_, err := c.ops.Judge(c.st)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && (strings.Contains(err.Error(), "  ") || strings.Contains(err.Error(), "@ ")) {
			t.Errorf("%s: an empty place: %v", name, err)
		}
	}
}

// What has no end is cut off by a bound that counts before it looks: a server
// that sends it costs a client no more than the bound.
func TestWhatIsReadIsBounded(t *testing.T) {
	l := story(t)
	proof := slices.Repeat([]string{ledger.EncodeRoot(l.tree())}, 65)
	huge, err := ledger.Seal(ledger.TypeStatement, make([]byte, ledger.MaxEnvelope), l.f.Operator)
	if err != nil {
		t.Fatal(err)
	}
	envelope, err := huge.Encode()
	if err != nil {
		t.Fatal(err)
	}
	leaf := l.event(ledger.BundleActivated, activation("prod"))
	leaf.Data.Release.Repository = strings.Repeat("x", ledger.MaxLeaf)
	chains := &ledger.Head{Origin: l.f.Origin, Service: "checkout", Tree: l.tree(), Issued: l.now}
	for n := range api.MaxChains + 1 {
		chains.Lines = append(chains.Lines, ledger.Line{Lane: ledger.LaneMain, Scope: api.Scope(fmt.Sprintf("p%03d", n)), Ref: ledger.Ref{Index: 2, Hash: api.DigestOf(nil)}})
	}
	for name, read := range map[string]func() error{
		"an inclusion proof":        func() error { return ledger.CheckInclusion(l.tree(), 2, nil, proof) },
		"a consistency proof":       func() error { return ledger.CheckConsistency(l.treeAt(2), l.tree(), proof) },
		"an envelope":               func() error { _, err := ledger.ParseEnvelope(envelope, ledger.TypeStatement); return err },
		"a leaf":                    func() error { _, err := ledger.ParseLeaf(l.forge(leaf)); return err },
		"chains of a head":          func() error { _, err := ledger.ParseHeadBody(chains.Body()); return err },
		"a head":                    func() error { _, err := l.f.Trust.OpenHead(make([]byte, ledger.MaxEnvelope+1)); return err },
		"a trust file":              func() error { _, err := ledger.ParseTrust(make([]byte, ledger.MaxTrustFile+1)); return err },
		"what a trust file follows": func() error { _, err := l.f.Trust.Follow(make([]byte, ledger.MaxTrustFile+1)); return err },
	} {
		if err := read(); err == nil || !strings.Contains(err.Error(), "limit") && !strings.Contains(err.Error(), "no log is that deep") {
			t.Errorf("%s: %v", name, err)
		}
	}
	prove(t, l, l.evidence(0), nil)
}

// A leaf has one spelling in JSON: stray bits and line ends, which Go's own
// reading of bytes passes over, are refused.
func TestALeafHasOneSpelling(t *testing.T) {
	for text, ok := range map[string]bool{`"YQ=="`: true, `"YR=="`: false, `"YQ"`: false, `"Y\nQ=="`: false, `7`: false} {
		var c ledger.EvidenceChange
		if err := json.Unmarshal([]byte(`{"leaf":`+text+`}`), &c); (err == nil) != ok || ok && string(c.Leaf) != "a" {
			t.Errorf("%s: %q, %v", text, c.Leaf, err)
		}
	}
	if b, err := json.Marshal(ledger.EvidenceChange{Leaf: []byte("a")}); err != nil || !strings.Contains(string(b), `"leaf":"YQ=="`) {
		t.Errorf("%s, %v", b, err)
	}
}
