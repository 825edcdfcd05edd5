package ledger_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
)

func TestReplayComesToTheSameTreeAndState(t *testing.T) {
	l := story(t)
	for n := range 40 { // through every shape of a small tree
		l.activate("staging", n+10)
		r := ledger.NewReplay(l.f.Trust)
		seen := 0
		r.Each = func(index int64, _ *ledger.Change) {
			if index != int64(seen) {
				t.Fatalf("entry %d after %d", index, seen-1)
			}
			seen++
		}
		for _, leaf := range l.leaves {
			if err := r.Add(leaf); err != nil {
				t.Fatal(err)
			}
		}
		if r.Tree() != l.tree() || seen != len(l.leaves) {
			t.Fatalf("size %d: another root", len(l.leaves))
		}
	}
	if empty := ledger.NewReplay(l.f.Trust).Tree(); empty.Size != 0 || empty.Root != ledger.EmptyRoot() {
		t.Errorf("%+v", empty)
	}
}

// What the fold refuses although the node signed it: the log's own rules.
func TestTheFoldHoldsTheNodeToTheRules(t *testing.T) {
	cases := map[string]func(l *memLog) *ledger.Event{
		"a generation left out": func(l *memLog) *ledger.Event {
			e := l.event(ledger.BundleActivated, activation("prod"))
			e.Data.Generation++
			return e
		},
		"another prev": func(l *memLog) *ledger.Event {
			e := l.event(ledger.BundleActivated, activation("prod"))
			e.Data.Prev = api.DigestOf(nil)
			return e
		},
		"another log": func(l *memLog) *ledger.Event {
			e := l.event(ledger.BundleActivated, activation("prod"))
			e.Source = "other.example/log"
			return e
		},
		"an older operators set": func(l *memLog) *ledger.Event {
			e := l.event(ledger.BundleActivated, activation("prod"))
			e.Data.Operators = 0
			return e
		},
		"a second beginning": func(l *memLog) *ledger.Event {
			return l.event(ledger.LedgerCreated, ledger.Data{Fields: ledger.Fields{Trust: l.f.Trust.Digest}})
		},
		"operators of a version that was": func(l *memLog) *ledger.Event {
			return l.event(ledger.OperatorsChanged, ledger.Data{Statement: l.f.OperatorsSig, Fields: ledger.Fields{Version: "1", Commit: ledgertest.Release(1).Commit}})
		},
		"operators that no root signed": func(l *memLog) *ledger.Event {
			sig := ledgertest.For(l.t, "evil.example/log").OperatorsSig
			return l.event(ledger.OperatorsChanged, ledger.Data{Statement: sig, Fields: ledger.Fields{Version: "2", Commit: ledgertest.Release(1).Commit}})
		},
		"operators under another version": func(l *memLog) *ledger.Event {
			sig := l.f.SignOperators(2, []byte("x"), ledger.Operator{ID: "ops", Keys: []string{ledgertest.SSHLine(l.f.OperatorKey)}})
			return l.event(ledger.OperatorsChanged, ledger.Data{Statement: sig, Fields: ledger.Fields{Version: "3", Commit: ledgertest.Release(1).Commit}})
		},
		"a replayed statement": func(l *memLog) *ledger.Event {
			st := l.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod/eu-west-1", "degraded", 0)
			return l.event(ledger.SafeModeEntered, l.override(st))
		},
		"an exit from a mode that is not in force": func(l *memLog) *ledger.Event {
			st := l.f.SafeMode(ledger.SafeModeExited, "checkout", "prod", "degraded", 0)
			return l.event(ledger.SafeModeExited, l.override(st))
		},
		"an exit by the node before the time": func(l *memLog) *ledger.Event {
			return l.event(ledger.SafeModeExited, ledger.Data{Service: "checkout", Scope: "prod/eu-west-1", Fields: ledger.Fields{Mode: "degraded"}})
		},
		"overdue before the time": func(l *memLog) *ledger.Event {
			c, _ := l.state.Chain(ledger.ChainKey{Lane: ledger.LaneOverride, Service: "checkout", Scope: "prod/eu-west-1"})
			return l.event(ledger.SafeModeOverdue, ledger.Data{Service: "checkout", Scope: "prod/eu-west-1", Fields: ledger.Fields{Mode: "degraded", Expires: c.Expires}})
		},
	}
	for name, make := range cases {
		t.Run(name, func(t *testing.T) {
			l := story(t)
			c := l.sign(make(l))
			before := l.state.Size
			if err := l.state.Apply(c, l.f.Trust); !errors.Is(err, ledger.ErrFold) {
				t.Errorf("taken: %v", err)
			}
			if l.state.Size != before {
				t.Error("a refused change moved the state")
			}
		})
	}
}

func activation(scope api.Scope) ledger.Data {
	return ledger.Data{Service: "checkout", Scope: scope, Fields: ledger.Fields{Release: ledgertest.Release(9), Contract: 1,
		Set: &ledger.SetRef{Digest: api.DigestOf([]byte("nine")), Size: 1}}}
}

// A node's own kinds carry nobody's words, and a late statement stays what it was.
func TestAChangeIsNotPassedOffAsAnother(t *testing.T) {
	l := story(t)
	st := l.f.Statement(ledger.NoteAdded, "checkout", "prod", nil)
	late := l.event(ledger.StatementLate, ledger.Data{Service: "checkout", Scope: "prod", Statement: st.Raw, Detail: st.Detail, Fields: ledger.Fields{Late: "refused"}})
	if _, err := ledger.ParseLeaf(l.forge(late)); err != nil {
		t.Fatal(err)
	}
	late.ID = st.ID
	words := l.event(ledger.BundleActivated, activation("prod"))
	words.Data.Statement = st.Raw
	for name, e := range map[string]*ledger.Event{"a late statement under its own id": late, "an activation with a statement": words} {
		if _, err := ledger.ParseLeaf(l.forge(e)); !errors.Is(err, ledger.ErrChange) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A change may add to its statement what the node knows, and change nothing.
func TestAChangeSaysWhatItsStatementSays(t *testing.T) {
	for name, edit := range map[string]func(*ledger.Event){
		"mode":     func(e *ledger.Event) { e.Data.Mode = "other" },
		"ttl":      func(e *ledger.Event) { e.Data.TTL = 60 },
		"scope":    func(e *ledger.Event) { e.Data.Scope, e.Subject = "staging", "checkout@staging" },
		"service":  func(e *ledger.Event) { e.Data.Service, e.Subject = "payments", "payments@prod" },
		"id":       func(e *ledger.Event) { e.ID = ledgertest.NewID(time.Now()) },
		"time":     func(e *ledger.Event) { e.Time = api.FormatTime(start) },
		"kind":     func(e *ledger.Event) { e.Type = ledger.TypePrefix + string(ledger.SafeModeRenewed) },
		"detail":   func(e *ledger.Event) { e.Data.Detail = api.DigestOf(nil) },
		"no words": func(e *ledger.Event) { e.Data.Statement = nil },
		"log":      func(e *ledger.Event) { e.Source = "other.example/log" },
	} {
		l := story(t)
		e := l.event(ledger.SafeModeEntered, l.override(l.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0)))
		if _, err := ledger.ParseLeaf(l.forge(e)); err != nil {
			t.Fatal(err)
		}
		edit(e)
		if _, err := ledger.ParseLeaf(l.forge(e)); !errors.Is(err, ledger.ErrChange) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := e.Leaf(ledger.NodeSigner{Signer: l.f.Node}); !errors.Is(err, ledger.ErrChange) {
			t.Errorf("%s: signed, %v", name, err)
		}
	}
}

// What a fold keeps no memory of is refused by who reads a log from its start.
func TestAnAuditRemembersWhatAFoldForgets(t *testing.T) {
	late := func(st *ledger.Signed) ledger.Data {
		return ledger.Data{Service: st.Service, Scope: st.Scope, Statement: st.Raw, Fields: ledger.Fields{Late: "superseded"}}
	}
	note := func(l *memLog) *ledger.Signed { return l.f.Statement(ledger.NoteAdded, "checkout", "prod", nil) }
	fact := func(st *ledger.Signed) ledger.Data {
		return ledger.Data{Service: st.Service, Scope: st.Scope, Statement: st.Raw}
	}
	for name, c := range map[string]struct {
		forge func(l *memLog) *ledger.Event
		want  string // "" is honest
	}{
		"a fact twice": {func(l *memLog) *ledger.Event {
			st := note(l)
			l.must(ledger.NoteAdded, fact(st))
			return l.event(ledger.NoteAdded, fact(st))
		}, "is that of an earlier change"},
		"a fact, and late again": {func(l *memLog) *ledger.Event {
			st := note(l)
			l.must(ledger.NoteAdded, fact(st))
			return l.event(ledger.StatementLate, late(st))
		}, "is in the log already"},
		"late, and then a fact": {func(l *memLog) *ledger.Event {
			st := note(l)
			l.must(ledger.StatementLate, late(st))
			return l.event(ledger.NoteAdded, fact(st))
		}, "is that of an earlier change"},
		"late twice": {func(l *memLog) *ledger.Event {
			st := note(l)
			l.must(ledger.StatementLate, late(st))
			return l.event(ledger.StatementLate, late(st))
		}, ""},
		"late under another's id": {func(l *memLog) *ledger.Event {
			st := note(l)
			l.must(ledger.NoteAdded, fact(st))
			return l.event(ledger.StatementLate, late(l.f.Statement(ledger.NoteAdded, "checkout", "prod", func(s *ledger.Statement) { s.ID = st.ID })))
		}, ""},
		"late, of a stranger": {func(l *memLog) *ledger.Event {
			return l.event(ledger.StatementLate, late(l.f.StatementBy(l.f.Stranger, ledger.NoteAdded, "checkout", "prod", nil)))
		}, "signature"},
		"an erasure of what is to come": {func(l *memLog) *ledger.Event {
			st := l.f.Statement(ledger.DetailErased, "checkout", "prod", func(s *ledger.Statement) { s.Index = 99 })
			d := fact(st)
			d.Fields = st.Fields
			return l.event(ledger.DetailErased, d)
		}, "which isn't before it"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLog(t)
			l.operators()
			leaf := l.sign(c.forge(l)).Leaf
			r := ledger.NewReplay(l.f.Trust)
			if err := r.Add(l.leaves...); err != nil {
				t.Fatal(err)
			}
			err := r.Add(leaf)
			if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ledger.ErrFold) || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
