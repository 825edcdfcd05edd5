package ledger_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/canon"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
)

// memLog is a log in memory, honest unless a test makes it lie.
type memLog struct {
	t      *testing.T
	f      *ledgertest.Fixture
	state  *ledger.State
	leaves [][]byte
	hashes []tlog.Hash
	now    time.Time
}

var start = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func newLog(t *testing.T) *memLog {
	t.Helper()
	l := &memLog{t: t, f: ledgertest.New(t), now: start}
	l.f.At(func() time.Time { return l.now })
	l.state = ledger.NewState(l.f.Origin)
	l.must(ledger.LedgerCreated, ledger.Data{Fields: ledger.Fields{Trust: l.f.Trust.Digest}})
	return l
}

// ReadHashes makes a memLog a tlog.HashReader.
func (l *memLog) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, 0, len(indexes))
	for _, i := range indexes {
		out = append(out, l.hashes[i])
	}
	return out, nil
}

// event frames the next change of a kind.
func (l *memLog) event(kind ledger.Kind, d ledger.Data) *ledger.Event {
	l.now = l.now.Add(time.Second)
	id, at := ledgertest.NewID(l.now), l.now
	if d.Statement != nil && kind != ledger.OperatorsChanged && kind != ledger.StatementLate {
		st, err := ledger.ParseStatement(d.Statement)
		if err != nil {
			l.t.Fatal(err)
		}
		id, at = st.ID, st.At()
	}
	d.Lane = kind.Lane()
	l.state.Next(&d)
	return ledger.NewEvent(l.f.Origin, kind, id, at, l.now, d)
}

func (l *memLog) sign(e *ledger.Event) *ledger.Change {
	l.t.Helper()
	leaf, err := e.Leaf(ledger.NodeSigner{Signer: l.f.Node})
	if err != nil {
		l.t.Fatal(err)
	}
	c, err := ledger.ParseLeaf(leaf)
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// forge signs an event as a thief of the node's key does: without asking whether
// its form is right.
func (l *memLog) forge(e *ledger.Event) []byte {
	l.t.Helper()
	payload, err := canon.Marshal(e)
	if err != nil {
		l.t.Fatal(err)
	}
	env, err := ledger.Seal(ledger.TypeChange, payload, ledger.NodeSigner{Signer: l.f.Node})
	if err != nil {
		l.t.Fatal(err)
	}
	leaf, err := env.Encode()
	if err != nil {
		l.t.Fatal(err)
	}
	return leaf
}

// force records a change that the fold would refuse, and lets the head cite it
// in the place of a chain's newest.
func (l *memLog) force(e *ledger.Event) (index int64, head string) {
	l.t.Helper()
	c := l.sign(e)
	index = l.store(c.Leaf)
	l.state.Size++
	line := ledger.Line{Lane: c.Data.Lane, Scope: c.Data.Scope, Ref: ledger.Ref{Index: index, Hash: c.Hash}}
	return index, l.headOf(func(h *ledger.Head) {
		h.Lines = append(slices.DeleteFunc(h.Lines, func(o ledger.Line) bool { return o.Lane == line.Lane && o.Scope == line.Scope }), line)
	})
}

// must appends a change that is right.
func (l *memLog) must(kind ledger.Kind, d ledger.Data) int64 {
	l.t.Helper()
	c := l.sign(l.event(kind, d))
	if err := l.state.Apply(c, l.f.Trust); err != nil {
		l.t.Fatal(err)
	}
	return l.store(c.Leaf)
}

// store puts a leaf into the tree, whatever it says.
func (l *memLog) store(leaf []byte) int64 {
	l.t.Helper()
	index := int64(len(l.leaves))
	hashes, err := tlog.StoredHashes(index, leaf, l)
	if err != nil {
		l.t.Fatal(err)
	}
	l.leaves, l.hashes = append(l.leaves, leaf), append(l.hashes, hashes...)
	return index
}

func (l *memLog) operators() int64 {
	return l.must(ledger.OperatorsChanged, ledger.Data{Statement: l.f.OperatorsSig, Fields: ledger.Fields{Version: "1", Commit: fmt.Sprintf("%040x", 1)}})
}

func (l *memLog) activate(scope api.Scope, n int) int64 {
	set := &ledger.SetRef{Digest: api.DigestOf(fmt.Append(nil, "set", n)), Size: 10}
	d := ledger.Data{Service: "checkout", Scope: scope, Fields: ledger.Fields{Release: ledgertest.Release(n), Set: set, Contract: 1}}
	if c, ok := l.state.Chain(ledger.ChainKey{Lane: ledger.LaneMain, Service: "checkout", Scope: scope}); ok && c.Set != nil {
		d.Replaces = c.Set.Digest
	}
	return l.must(ledger.BundleActivated, d)
}

// safeMode signs and appends a safe-mode statement.
func (l *memLog) safeMode(kind ledger.Kind, scope api.Scope) int64 {
	c, _ := l.state.Chain(ledger.ChainKey{Lane: ledger.LaneOverride, Service: "checkout", Scope: scope})
	st := l.f.SafeMode(kind, "checkout", scope, "degraded", c.Generation)
	return l.must(kind, l.override(st))
}

func (l *memLog) override(st *ledger.Signed) ledger.Data {
	d := ledger.Data{Service: st.Service, Scope: st.Scope, Statement: st.Raw, Detail: st.Detail, Fields: st.Fields}
	d.Resolved = []ledger.Resolved{{Scope: st.Scope, Bundle: api.DigestOf([]byte("bundle"))}}
	return d
}

func (l *memLog) tree() ledger.Tree { return l.treeAt(int64(len(l.leaves))) }

func (l *memLog) treeAt(size int64) ledger.Tree {
	l.t.Helper()
	root, err := tlog.TreeHash(size, l)
	if err != nil {
		l.t.Fatal(err)
	}
	return ledger.Tree{Size: size, Root: root}
}

func (l *memLog) checkpoint() string {
	l.t.Helper()
	b, err := ledger.SignCheckpoint(l.f.Origin, l.tree(), l.f.Log)
	if err != nil {
		l.t.Fatal(err)
	}
	return string(b)
}

func (l *memLog) headOf(edit func(*ledger.Head)) string {
	l.t.Helper()
	h := &ledger.Head{Origin: l.f.Origin, Service: "checkout", Tree: l.tree(), Issued: l.now, Lines: l.state.HeadLines("checkout")}
	if o := l.state.Operators; o != nil {
		h.Operators = ledger.Ref{Index: o.Index, Hash: o.Hash}
	}
	if edit != nil {
		edit(h)
	}
	b, err := h.Sign(l.f.Node)
	if err != nil {
		l.t.Fatal(err)
	}
	return string(b)
}

func (l *memLog) change(i int64) ledger.EvidenceChange {
	l.t.Helper()
	p, err := tlog.ProveRecord(int64(len(l.leaves)), i, l)
	if err != nil {
		l.t.Fatal(err)
	}
	return ledger.EvidenceChange{Index: i, Leaf: l.leaves[i], Proof: ledger.EncodeHashes(p)}
}

// evidence is a cold answer with every change of the log in it.
func (l *memLog) evidence(from int64) *ledger.Evidence {
	l.t.Helper()
	e := &ledger.Evidence{Head: l.headOf(nil), Checkpoint: l.checkpoint(), Consistency: []string{}}
	if size := int64(len(l.leaves)); from > 0 && from < size {
		p, err := tlog.ProveTree(size, from, l)
		if err != nil {
			l.t.Fatal(err)
		}
		e.Consistency = ledger.EncodeHashes(p)
	}
	for i := range int64(len(l.leaves)) {
		e.Changes = append(e.Changes, l.change(i))
	}
	return e
}

// clone copies evidence the way it travels.
func clone(t *testing.T, e *ledger.Evidence) *ledger.Evidence {
	t.Helper()
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var c ledger.Evidence
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	return &c
}
