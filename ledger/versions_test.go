package ledger_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/mod/sumdb/note"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
)

// rotation is a log whose keys were all replaced, at entry 10: root by version 2,
// log and node by version 3, at entry 20.
type rotation struct {
	t         testing.TB
	f         *ledgertest.Fixture
	root      ledger.KeySigner
	log, node note.Signer
	v2, v3    *ledger.Trust
}

func rotated(t testing.TB) *rotation {
	f := ledgertest.New(t)
	r := &rotation{t: t, f: f, root: ledger.KeySigner{Private: f.Key("root 2")}}
	st := f.Trust.Successor(10)
	st.Roots = []string{ledgertest.SSHLine(r.root.Private)}
	r.v2 = r.next(f.Trust, st, f.Root, r.root)
	var logKey, nodeKey string
	r.log, logKey = r.noteKey(f.Origin, "log 2")
	r.node, nodeKey = r.noteKey(ledger.NodeName(f.Origin), "node 2")
	st = r.v2.Successor(20)
	st.Log = []string{logKey}
	st.RotateNode(nodeKey)
	r.v3 = r.next(r.v2, st, r.root)
	return r
}

func (r *rotation) noteKey(name, role string) (note.Signer, string) {
	r.t.Helper()
	skey, vkey, err := ledger.NewNoteKey(name, r.f.Key(role).Seed())
	if err != nil {
		r.t.Fatal(err)
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		r.t.Fatal(err)
	}
	return s, vkey
}

func (r *rotation) sign(st ledger.TrustStatement, by ...ledger.Signer) []byte {
	r.t.Helper()
	b, err := ledger.SignTrust(st, by...)
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

func (r *rotation) next(t *ledger.Trust, st ledger.TrustStatement, by ...ledger.Signer) *ledger.Trust {
	r.t.Helper()
	n, err := t.Next(r.sign(st, by...))
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// A key that is stolen while a rotation waits is replaced at the same entry: the
// one that was to begin there never signs an entry or a head.
func TestRotateNodeWhileARotationWaits(t *testing.T) {
	r := rotated(t)
	third, vkey := r.noteKey(ledger.NodeName(r.f.Origin), "node 3")
	st := r.v3.Successor(20)
	st.RotateNode(vkey)
	v4 := r.next(r.v3, st, r.root)
	for _, c := range []struct {
		index int64
		by    note.Signer
		ok    bool
	}{{19, r.f.Node, true}, {19, r.node, false}, {20, r.f.Node, false}, {20, r.node, false}, {20, third, true}} {
		e, err := ledger.Seal(ledger.TypeChange, []byte("{}"), ledger.NodeSigner{Signer: c.by})
		if err != nil {
			t.Fatal(err)
		}
		if err := v4.CheckNode(c.index, e); (err == nil) != c.ok {
			t.Errorf("entry %d by %08x: %v", c.index, c.by.KeyHash(), err)
		}
	}
	if n := len(v4.Node); n != 2 {
		t.Errorf("%d node keys", n)
	}
}

func (r *rotation) setBy(keys ...ledger.Signer) []byte {
	r.t.Helper()
	e, err := ledger.ParseEnvelope(r.f.OperatorsSig, ledger.TypeStatement)
	if err != nil {
		r.t.Fatal(err)
	}
	e.Signatures = nil
	for _, k := range keys {
		if err := e.AddSignature(k); err != nil {
			r.t.Fatal(err)
		}
	}
	b, err := e.Encode()
	if err != nil {
		r.t.Fatal(err)
	}
	return b
}

func TestTrustFileHasEveryVersion(t *testing.T) {
	r := rotated(t)
	whole, err := ledger.ParseTrust(r.v3.File())
	if err != nil || whole.Version != 3 || len(whole.Versions()) != 3 || !bytes.Equal(whole.File(), r.v3.File()) {
		t.Fatalf("%v", err)
	}
	for _, from := range []*ledger.Trust{r.f.Trust, r.v2, r.v3} {
		if got, err := from.Follow(r.v3.File()); err != nil || got.Version != 3 {
			t.Errorf("from version %d: %v", from.Version, err)
		}
	}
	if got, err := r.v3.Follow(r.f.Trust.File()); err != nil || got != r.v3 {
		t.Errorf("an older file moves nothing: %v", err)
	}
	stranger := r.v2.Successor(20)
	for name, file := range map[string][]byte{
		"a version left out":        append(append(bytes.Clone(r.f.Trust.Raw), '\n'), r.v3.Raw...),
		"only the newest":           r.v3.Raw,
		"signed by a stranger":      append(r.v2.File(), r.sign(stranger, r.f.Stranger)...),
		"signed by the old root":    append(r.v2.File(), r.sign(stranger, r.f.Root)...),
		"an empty line":             append(r.v2.File(), "\n\n"...),
		"longer than a file may be": bytes.Repeat(r.v2.File(), ledger.MaxTrustFile/len(r.v2.File())+1),
	} {
		if got, err := r.f.Trust.Follow(file); !errors.Is(err, ledger.ErrTrust) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := ledger.ParseTrust(append(append(bytes.Clone(r.f.Trust.Raw), '\n'), r.v3.Raw...)); !errors.Is(err, ledger.ErrTrust) {
		t.Errorf("a file with a gap: %v", err)
	}
}

func TestOldRootsCountBelowTheNextVersionOnly(t *testing.T) {
	r := rotated(t)
	for _, c := range []struct {
		trust *ledger.Trust
		index int64
		by    ledger.Signer
		ok    bool
	}{
		{r.f.Trust, 1, r.f.Root, true},
		{r.f.Trust, 1, r.root, false},
		{r.v3, 1, r.f.Root, true},
		{r.v3, 9, r.f.Root, true},
		{r.v3, 10, r.f.Root, false}, // stolen later, it makes nothing new
		{r.v3, 5, r.root, true},     // handed around before the log was there
		{r.v3, 30, r.root, true},
		{r.v3, 5, r.f.Stranger, false},
	} {
		if _, err := c.trust.OperatorsAt(c.index, r.setBy(c.by)); (err == nil) != c.ok {
			t.Errorf("version %d, entry %d, key %s: %v", c.trust.Version, c.index, c.by.KeyID(), err)
		}
	}
	alone, err := ledger.ParseTrust(r.v3.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := alone.OperatorsAt(1, r.setBy(r.f.Root)); !errors.Is(err, ledger.ErrSignature) {
		t.Errorf("without its history a version knows no older roots: %v", err)
	}
}

// A set counts when as many roots signed it as the trust file asks for.
func TestOperatorsNeedTheThresholdOfRoots(t *testing.T) {
	r := rotated(t)
	second := ledger.KeySigner{Private: r.f.Key("second")}
	st := r.f.Trust.TrustStatement
	st.Roots, st.Threshold = append(st.Roots, ledgertest.SSHLine(second.Private)), 2
	trust, err := ledger.ParseTrust(r.sign(st, r.f.Root, second))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := trust.OperatorsAt(1, r.setBy(r.f.Root)); !errors.Is(err, ledger.ErrSignature) {
		t.Errorf("one of two roots: %v", err)
	}
	if _, err := trust.OperatorsAt(1, r.setBy(r.f.Root, r.f.Root)); !errors.Is(err, ledger.ErrSignature) {
		t.Errorf("one root twice: %v", err)
	}
	if _, err := trust.OperatorsAt(1, r.setBy(r.f.Root, second)); err != nil {
		t.Error(err)
	}
}

func TestOldLogAndNodeKeysCountForThePastOnly(t *testing.T) {
	r := rotated(t)
	head := func(size int64, key note.Signer) []byte {
		h := &ledger.Head{Origin: r.f.Origin, Service: "checkout", Tree: ledger.Tree{Size: size}, Issued: start}
		b, err := h.Sign(key)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	checkpoint := func(size int64, keys ...note.Signer) []byte {
		b, err := ledger.SignCheckpoint(r.f.Origin, ledger.Tree{Size: size}, keys...)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for _, c := range []struct {
		size       int64
		live, past bool
		log, node  note.Signer
	}{
		{20, false, true, r.f.Log, r.f.Node},
		{21, false, false, r.f.Log, r.f.Node},
		{20, true, true, r.log, r.node},
		{21, true, true, r.log, r.node},
	} {
		for view, want := range map[*ledger.Trust]bool{r.v3: c.live, r.v3.Past(): c.past} {
			if _, err := view.OpenHead(head(c.size, c.node)); (err == nil) != want {
				t.Errorf("head of %d entries, by %s: %v, want %v", c.size, c.node.Name(), err, want)
			}
			if _, err := view.OpenCheckpoint(checkpoint(c.size, c.log)); (err == nil) != want {
				t.Errorf("checkpoint of %d entries: %v, want %v", c.size, err, want)
			}
		}
	}
	both := checkpoint(30, r.f.Log, r.log)
	for _, v := range []*ledger.Trust{r.f.Trust, r.v3} {
		if _, err := v.OpenCheckpoint(both); err != nil {
			t.Errorf("signed by both log keys, version %d: %v", v.Version, err)
		}
	}
	for index, key := range map[int64]note.Signer{19: r.f.Node, 20: r.node} {
		e, err := ledger.Seal(ledger.TypeChange, []byte("{}"), ledger.NodeSigner{Signer: key})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.v3.CheckNode(index, e); err != nil {
			t.Errorf("entry %d: %v", index, err)
		}
		if err := r.v3.CheckNode(39-index, e); err == nil {
			t.Errorf("entry %d passes with the other key", 39-index)
		}
	}
}

func TestProposalsCountSignatures(t *testing.T) {
	r := rotated(t)
	second := ledger.KeySigner{Private: r.f.Key("second")}
	st := r.f.Trust.Successor(5)
	st.Roots, st.Threshold = append(st.Roots, ledgertest.SSHLine(second.Private)), 2
	for _, c := range []struct {
		by            []ledger.Signer
		own, previous int
	}{
		{[]ledger.Signer{r.f.Stranger}, 2, 1},
		{[]ledger.Signer{second}, 1, 1},
		{[]ledger.Signer{r.f.Root}, 1, 0},
		{[]ledger.Signer{r.f.Root, second}, 0, 0},
	} {
		p, err := r.f.Trust.Propose(r.sign(st, c.by...))
		if err != nil || p.OwnMissing != c.own || p.PreviousMissing != c.previous {
			t.Errorf("%d signatures: %+v, %v", len(c.by), p, err)
		}
		if _, err := r.f.Trust.Next(r.sign(st, c.by...)); (err == nil) != (c.own+c.previous == 0) {
			t.Errorf("%d signatures: %v", len(c.by), err)
		}
	}
	other := ledgertest.For(t, "elsewhere.example")
	moved := func(st *ledger.TrustStatement) {
		st.Origin, st.Log, st.Node = other.Origin, []string{other.LogVKey}, []ledger.NodeKey{{VKey: other.NodeVKey}}
	}
	for name, edit := range map[string]func(*ledger.TrustStatement){
		"no from":               func(st *ledger.TrustStatement) { st.From = 0 },
		"from going back":       func(st *ledger.TrustStatement) { st.From, st.Version = 9, 3 },
		"a log succeeds itself": func(st *ledger.TrustStatement) { st.Succeeds, st.From = &ledger.Succeeds{Origin: st.Origin}, 0 },
		"another origin":        func(st *ledger.TrustStatement) { moved(st) },
		"another one's successor": func(st *ledger.TrustStatement) {
			moved(st)
			st.From, st.Succeeds = 0, &ledger.Succeeds{Origin: "third.example", Size: 1, Root: ledger.EncodeRoot(ledger.Tree{})}
		},
	} {
		bad := r.v2.Successor(30)
		edit(&bad)
		if _, err := r.v2.Propose(r.sign(bad, r.root)); !errors.Is(err, ledger.ErrTrust) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestASuccessorNamesWhatItSucceeds(t *testing.T) {
	r := rotated(t)
	next := ledgertest.For(t, "log.example.com/second")
	last := ledger.Tree{Size: 33, Root: ledger.EmptyRoot()}
	st := r.v3.Successor(0)
	st.Succeed(next.Origin, next.LogVKey, next.NodeVKey, last)
	v4 := r.next(r.v3, st, r.root)
	if v4.Origin != next.Origin || v4.Succeeds.Origin != r.f.Origin || v4.Succeeds.Size != 33 || v4.From != 0 {
		t.Errorf("%+v", v4.TrustStatement)
	}
	if _, err := v4.OperatorsAt(1, r.setBy(r.root)); err == nil {
		t.Error("a set of the old log counts in the new one")
	}
	created := func(d api.Digest) error {
		s := ledger.NewState(next.Origin)
		data := ledger.Data{Lane: ledger.LaneTrust, Fields: ledger.Fields{Trust: d}}
		s.Next(&data)
		e := ledger.NewEvent(next.Origin, ledger.LedgerCreated, ledgertest.NewID(start), start, start, data)
		c, err := e.Seal(ledger.NodeSigner{Signer: next.Node}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return s.Apply(c, v4)
	}
	if err := errors.Join(created(v4.Digest)); err != nil {
		t.Error(err)
	}
	if err := created(r.v3.Digest); !errors.Is(err, ledger.ErrFold) {
		t.Errorf("created under another trust file: %v", err)
	}
	if _, err := ledger.ParseTrust(fmt.Appendf(r.v3.File(), "%s\n", v4.Raw)); err != nil {
		t.Error(err)
	}
}

// Whatever lines somebody shows, in whatever order: what is accepted is a chain
// of versions that the roots signed, in steps of one, and is printed as it was
// read. Without the version in between nobody gets to the last one.
func FuzzTrustFile(f *testing.F) {
	r := rotated(f)
	v1 := r.f.Trust
	signed := map[api.Digest]int{v1.Digest: 1, r.v2.Digest: 2, r.v3.Digest: 3}
	whole := r.v3.File()
	lines := bytes.SplitAfter(whole, []byte("\n"))
	unsigned := r.v2.Successor(30)
	for _, seed := range [][]byte{whole, r.v2.File(), bytes.Join([][]byte{lines[0], lines[2]}, nil), bytes.Join([][]byte{lines[1], lines[0]}, nil),
		bytes.Join([][]byte{lines[1], lines[2]}, nil), append(bytes.Clone(whole), lines[2]...), append(bytes.Clone(r.v2.File()), r.sign(unsigned, r.f.Stranger)...), whole[:len(whole)/2], nil} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		if got, err := ledger.ParseTrust(file); err == nil {
			steps(t, signed, got)
			if again := got.File(); !bytes.Equal(again, append(bytes.TrimSuffix(file, []byte("\n")), '\n')) {
				t.Errorf("read %q, prints %q", file, again)
			}
		}
		if got, err := v1.Follow(file); err == nil {
			steps(t, signed, got)
			if got.Versions()[0] != v1 || got.Version == 3 && !bytes.Contains(file, lines[1]) {
				t.Errorf("version %d out of %q", got.Version, file)
			}
		}
	})
}

func steps(t *testing.T, signed map[api.Digest]int, got *ledger.Trust) {
	t.Helper()
	list := got.Versions()
	for i, v := range list {
		if signed[v.Digest] != v.Version || i > 0 && v.Version != list[i-1].Version+1 {
			t.Errorf("version %d, %s, after %d others was never signed", v.Version, v.Digest, i)
		}
	}
}
