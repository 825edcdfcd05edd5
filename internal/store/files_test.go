package store

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/kv"
	"github.com/sealstone/sealstone/ledger"
)

func TestLogFilesAreServedAtOneSpellingUpToTheSize(t *testing.T) {
	f := attacked(t, 600) // two full tiles and some
	size := f.Snapshot().Tree.Size
	part := size % 256
	for _, path := range []string{
		"checkpoint", "tile/0/000", "tile/0/001", "tile/0/001.p/7", fmt.Sprintf("tile/0/002.p/%d", part), "tile/1/000.p/1", "tile/1/000.p/2",
		"tile/entries/000", "tile/entries/002.p/1", fmt.Sprintf("tile/entries/002.p/%d", part), "proof/0", fmt.Sprint("proof/", size-1),
	} {
		body, kind, immutable, err := f.LogFile(path)
		if err != nil || len(body) == 0 {
			t.Errorf("%s: %v", path, err)
		}
		tile := strings.HasPrefix(path, "tile/")
		if immutable != tile || strings.HasPrefix(kind, "text/") == tile {
			t.Errorf("%s: immutable %v, type %s", path, immutable, kind)
		}
	}
	for _, path := range []string{
		"", "/checkpoint", "checkpoint/", "tile", "tile/", "tile/0/0", "tile/0/0000", "tile/00/000", "tile/+0/000", "tile/0/000.p/256", "tile/0/000.p/0",
		"tile/0/000.p/01", "tile/0/x000/000", "tile/0/002", fmt.Sprintf("tile/0/002.p/%d", part+1), "tile/0/003.p/1", "tile/1/000", "tile/1/000.p/3",
		"tile/2/000.p/1", "tile/-1/000", "tile/64/000", "tile/8/0/000", "tile/data/000", "tile/8/data/000", "tile/entries/003", "tile/entries/0",
		fmt.Sprintf("tile/entries/002.p/%d", part+1), "tile/entries/-01", "tile/0/999999999999999999999", "tile/0/x999/x999/x999/x999/x999/x999/999",
		"proof/", "proof/-1", "proof/00", "proof/+1", fmt.Sprint("proof/", size), "proof/99999999999999999999", "tile/0/000/../001", "tile/0/000?x",
	} {
		if _, _, _, err := f.LogFile(path); api.CodeOf(err) != api.CodeNotFound {
			t.Errorf("%q: %v", path, err)
		}
	}
}

func TestEntriesAreTheLeaves(t *testing.T) {
	f := attacked(t, 600)
	b, err := f.Entries(1, 256)
	if err != nil {
		t.Fatal(err)
	}
	for i := int64(256); i < 512; i++ {
		n := int(binary.BigEndian.Uint16(b))
		leaf, err := f.Leaf(i)
		if err != nil || !bytes.Equal(leaf, b[2:2+n]) {
			t.Fatalf("entry %d differs: %v", i, err)
		}
		b = b[2+n:]
	}
	if len(b) != 0 {
		t.Fatalf("%d bytes behind the last entry", len(b))
	}
}

// A proof is read here by the words of the specification alone.
func TestTlogProofReadsAsSpecified(t *testing.T) {
	f := attacked(t, 600)
	for _, index := range []int64{0, 255, 256, 300, f.Snapshot().Tree.Size - 1} {
		b, err := f.TlogProof(index)
		if err != nil {
			t.Fatal(err)
		}
		head, checkpoint, ok := strings.Cut(string(b), "\n\n")
		lines := strings.Split(head, "\n")
		if !ok || lines[0] != "c2sp.org/tlog-proof@v1" || lines[1] != fmt.Sprintf("index %d", index) {
			t.Fatalf("proof %q", b)
		}
		var proof tlog.RecordProof
		for _, line := range lines[2:] {
			h, err := base64.StdEncoding.DecodeString(line)
			if err != nil || len(h) != tlog.HashSize {
				t.Fatalf("line %q", line)
			}
			proof = append(proof, tlog.Hash(h))
		}
		tree, err := f.Trust.OpenCheckpoint([]byte(checkpoint))
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := f.Leaf(index)
		if err != nil {
			t.Fatal(err)
		}
		if err := tlog.CheckRecord(proof, tree.Size, tree.Root, index, tlog.RecordHash(leaf)); err != nil {
			t.Fatal(err)
		}
	}
}

// Every size from 1 to past two levels has the root and the proofs of x/mod's
// own arithmetic.
func TestTreeAgreesWithTlog(t *testing.T) {
	sizes := int64(66_000)
	if testing.Short() {
		sizes = 1000
	}
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(at []int64) (out []tlog.Hash, err error) {
		for _, i := range at {
			out = append(out, stored[i])
		}
		return out, nil
	})
	edge, rows := &tree{}, map[tileKey][]byte{}
	for n := range sizes {
		h := tlog.RecordHash(be64(n))
		hashes, err := tlog.StoredHashesForRecordHash(n, h, reader)
		if err != nil {
			t.Fatal(err)
		}
		stored = append(stored, hashes...)
		edge.add(h, rows)
		if n > 600 && n%997 != 0 && n < 65_500 {
			continue
		}
		want, err := tlog.TreeHash(n+1, reader)
		if err != nil {
			t.Fatal(err)
		}
		if got := edge.root(); got != want {
			t.Fatalf("root of %d: %v, want %v", n+1, got, want)
		}
	}
	for k, row := range rows {
		want, err := tlog.ReadTileData(tlog.Tile{H: tileHeight, L: k.level, N: k.n, W: len(row) / tlog.HashSize}, reader)
		if err != nil || !bytes.Equal(row, want) {
			t.Fatalf("tile %v differs: %v", k, err)
		}
	}
}

func TestErasedDetailIsGoneAndTheProofStays(t *testing.T) {
	f := newFixture(t)
	secret := "jane.doe@example.com was here"
	f.put(f.operators(1, f.OperatorsSig), f.note(secret), f.note("stays"))
	if d, err := f.Detail(2); err != nil || d.Text["text"] != secret {
		t.Fatalf("Detail = %v, %v", d, err)
	}
	if _, err := f.Detail(1); !errors.Is(err, ErrNotFound) {
		t.Fatalf("an entry without a detail: %v", err)
	}
	erase := DraftOf(f.Statement(ledger.DetailErased, "", "", func(st *ledger.Statement) { st.Index = 2 }), nil)
	f.put(erase)
	if _, err := f.Detail(2); !errors.Is(err, ErrErased) || api.CodeOf(err) != api.CodeGone {
		t.Fatalf("erased detail: %v", err)
	}
	if !f.holds(fileDetails, secret) {
		t.Fatal("the words left the file by themselves, so this shows nothing")
	}
	f.reopen() // the debt outlives the process
	if err := f.Scrub(t.Context()); err != nil || f.holds(fileDetails, secret) {
		t.Fatalf("the words are still in the file after a scrub (%v)", err)
	}
	if d, err := f.Detail(3); err != nil || d.Text["text"] != "stays" {
		t.Fatalf("another detail after compaction: %v, %v", d, err)
	}
	e, err := f.ProofEvidence(t.Context(), 0, 0, 2)
	if err != nil || e.Changes[0].Detail != nil {
		t.Fatalf("proof of an erased change: %v, %v", e, err)
	}
	if _, err := f.Trust.ProveChange(&e.Changes[0], f.Snapshot().Tree); err != nil {
		t.Fatal(err)
	}
	if r := f.check(); r.Erased != 1 || r.Details != 1 {
		t.Fatalf("report %+v", r)
	}
	f.put(f.note("after"))
	f.reopen()
	f.check()
}

// holds tells whether a file of the store has some bytes anywhere.
func (f *fixture) holds(name, text string) bool {
	f.t.Helper()
	b, err := os.ReadFile(f.cfg.path(name))
	if err != nil {
		f.t.Fatal(err)
	}
	return bytes.Contains(b, []byte(text))
}

func TestErasedObjectLeavesTheFile(t *testing.T) {
	f := newFixture(t)
	secret := "leaked password"
	name, other := api.DigestOf([]byte(secret)), api.DigestOf(nil)
	f.put(f.operators(1, f.OperatorsSig))
	if err := f.PutObjects(t.Context(), maps.All(map[api.Digest][]byte{name: []byte(secret), other: {}})); err != nil {
		t.Fatal(err)
	}
	f.put(DraftOf(f.Statement(ledger.ObjectErased, "", "", func(st *ledger.Statement) { st.Object = name }), nil))
	if err := f.Scrub(t.Context()); err != nil || f.holds(fileObjects, secret) {
		t.Fatalf("the object is still in the file after a scrub (%v)", err)
	}
	if b, err := f.Object(other); err != nil || len(b) != 0 {
		t.Fatalf("an empty object after compaction: %q, %v", b, err)
	}
	f.reopen()
	f.check()
	if err := f.objects.PutObjects(maps.All(map[api.Digest][]byte{name: []byte(secret)})); err != nil {
		t.Fatal(err)
	}
	if r, err := f.Verify(t.Context(), nil); err != nil || len(r.Findings) != 1 || r.Findings[0].String() != "object "+string(name)+": is erased by the log, and still there" {
		t.Errorf("%v, %v", r.Findings, err)
	}
}

// A detail that nothing erased, and that is gone or another one, is found by
// whoever reads it and by the scrub, until it is right again or erased.
func TestLostDetailsAreCounted(t *testing.T) {
	f := newFixture(t)
	f.put(f.operators(1, f.OperatorsSig), f.note("stays"), f.note("goes"), f.note("is another"))
	good, err := f.details.get(3)
	if err != nil {
		t.Fatal(err)
	}
	write := func(i int64, row []byte) {
		t.Helper()
		err := f.details.Write(func(tx *bbolt.Tx) error {
			if row == nil {
				return tx.Bucket(bucketDetails).Delete(be64(i))
			}
			return tx.Bucket(bucketDetails).Put(be64(i), row)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(n int, first int64) {
		t.Helper()
		if have, at := f.LostDetails(); have != n || at != first || f.Writes() != nil {
			t.Errorf("%d lost, the first of entry %d; want %d, %d; %v", have, at, n, first, f.Writes())
		}
	}
	row, err := encodeDetail(good)
	if err != nil {
		t.Fatal(err)
	}
	write(3, nil)
	write(4, row)
	want(0, 0)
	if _, err := f.Detail(4); !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
	want(1, 4)
	if err := f.Scrub(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(2, 3)
	write(3, row)
	f.put(DraftOf(f.Statement(ledger.DetailErased, "", "", func(st *ledger.Statement) { st.Index = 4 }), nil))
	if err := f.Scrub(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(0, 0)
}

// Appends and reads of details go on while erasures rewrite the file under them.
func TestCompactionWhileOthersReadAndAppend(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.noSync = true })
	f.put(f.operators(1, f.OperatorsSig), f.note("stays"))
	const rounds = 30
	notes, erasures := make([]Draft, rounds), make([]Draft, rounds)
	for n := range notes {
		notes[n] = f.note("goes")
	}
	at := f.put(notes...)
	for n := range erasures {
		notes[n] = f.note("stays as well")
		erasures[n] = DraftOf(f.Statement(ledger.DetailErased, "", "", func(st *ledger.Statement) { st.Index = at[n].Index }), nil)
	}
	ctx, stop := context.WithCancel(t.Context())
	var readers, writers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for ctx.Err() == nil {
				if d, err := f.Detail(2); err != nil || d.Text["text"] != "stays" {
					t.Errorf("Detail = %v, %v", d, err)
					return
				}
			}
		})
	}
	for _, drafts := range [][]Draft{notes, erasures} {
		writers.Go(func() {
			for _, d := range drafts {
				_, err := f.try(d)
				if err = errors.Join(err, f.Scrub(t.Context())); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	stop()
	readers.Wait()
	if h := f.Health(); len(h) != 0 || f.holds(fileDetails, "goes") {
		t.Errorf("Health = %q; an erased detail in the file: %v", h, f.holds(fileDetails, "goes"))
	}
	if r := f.check(); r.Erased != rounds || r.Details != rounds+1 {
		t.Errorf("report %+v", r)
	}
}

// A file that can't be rewritten is as good as before; Health tells, until it can.
func TestCompactionThatFailsIsToldAndTriedAgain(t *testing.T) {
	f := newFixture(t)
	f.put(f.operators(1, f.OperatorsSig), f.note("goes"), f.note("stays"))
	f.put(DraftOf(f.Statement(ledger.DetailErased, "", "", func(st *ledger.Statement) { st.Index = 2 }), nil))
	inTheWay := f.cfg.path(fileDetails) + ".compact"
	if err := os.MkdirAll(filepath.Join(inTheWay, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := f.Scrub(t.Context()); err != nil {
		t.Fatalf("no finding, but the scrub said %v", err)
	}
	if h := f.Health(); len(h) != 1 || !strings.Contains(h[0], taskCompact) || f.Writes() != nil {
		t.Fatalf("Health = %q, Writes = %v", h, f.Writes())
	}
	f.put(f.note("taken meanwhile"))
	if err := os.RemoveAll(inTheWay); err != nil {
		t.Fatal(err)
	}
	if err := f.Scrub(t.Context()); err != nil || len(f.Health()) != 0 || f.holds(fileDetails, "goes") {
		t.Fatalf("scrub: %v; Health = %q", err, f.Health())
	}
	f.check()
}

// An erasure that fails is told, and done by a scrub when it can be.
func TestErasureThatFailsIsToldAndTriedAgain(t *testing.T) {
	x := &faults{step: stepErase}
	f := newFixture(t, func(c *Config) { c.fault = x.hook })
	f.put(f.operators(1, f.OperatorsSig), f.note("words"))
	x.armed.Store(true)
	f.put(DraftOf(f.Statement(ledger.DetailErased, "", "", func(st *ledger.Statement) { st.Index = 2 }), nil))
	for range 2 {
		if h := f.Health(); len(h) != 1 || !strings.Contains(h[0], taskErase) || !strings.Contains(h[0], errFault.Error()) || f.Writes() != nil {
			t.Fatalf("Health = %q, Writes = %v", h, f.Writes())
		}
		if err := f.Scrub(t.Context()); err != nil {
			t.Fatalf("no finding, but the scrub said %v", err)
		}
	}
	x.armed.Store(false)
	if err := f.Scrub(t.Context()); err != nil || len(f.Health()) != 0 {
		t.Fatalf("scrub: %v; Health = %q", err, f.Health())
	}
	if d, err := f.details.get(2); d != nil || err != nil || f.holds(fileDetails, "words") {
		t.Fatalf("the detail stays: %v, %v", d, err)
	}
	f.check()
}

// A crash between the commit of an erasure and the erasing is made good.
func TestErasureIsFinishedAfterACrash(t *testing.T) {
	x := &faults{step: stepErase}
	f := newFixture(t, func(c *Config) { c.fault = x.hook })
	object := []byte("leaked password")
	name := api.DigestOf(object)
	f.put(f.operators(1, f.OperatorsSig), f.note("words"))
	if err := f.PutObjects(t.Context(), maps.All(map[api.Digest][]byte{name: object})); err != nil {
		t.Fatal(err)
	}
	x.armed.Store(true)
	f.put(DraftOf(f.Statement(ledger.DetailErased, "", "", func(st *ledger.Statement) { st.Index = 2 }), nil),
		DraftOf(f.Statement(ledger.ObjectErased, "", "", func(st *ledger.Statement) { st.Object = name }), nil))
	if d, _ := f.details.get(2); d == nil {
		t.Fatal("the fault did not hold the erasure back")
	}
	if _, err := f.Object(name); !errors.Is(err, ErrErased) {
		t.Fatalf("withheld object: %v", err)
	}
	x.armed.Store(false)
	f.reopen()
	if d, err := f.details.get(2); d != nil || err != nil {
		t.Fatalf("the row stays: %v, %v", d, err)
	}
	if has, err := f.objects.HasObject(name); has || err != nil {
		t.Fatalf("the object stays: %v", err)
	}
	if _, err := f.Object(name); api.CodeOf(err) != api.CodeGone {
		t.Fatalf("erased object after a restart: %v", err)
	}
	if err := f.PutObjects(t.Context(), maps.All(map[api.Digest][]byte{name: object})); err != nil {
		t.Fatal(err)
	}
	if has, _ := f.objects.HasObject(name); has {
		t.Fatal("an erased object came back")
	}
	f.check()
}

// A commit that failed, and a disk that can't be asked whether it is there: when
// it can be asked again, what the commit erases is erased.
func TestErasureOfACommitThatNobodyKnowsOfIsDone(t *testing.T) {
	var f *fixture
	var away *kv.DB
	broken, err := kv.Open(filepath.Join(t.TempDir(), "closed.db"), kv.Options{})
	must(t, errors.Join(err, broken.Close()))
	armed := false
	f = newFixture(t, func(c *Config) {
		c.fault = func(step string, after bool) error {
			if !armed || step != stepCommit || !after {
				return nil
			}
			armed, away, f.ledger = false, f.ledger, broken
			return errFault
		}
	})
	object := []byte("leaked password")
	name := api.DigestOf(object)
	f.put(f.operators(1, f.OperatorsSig), f.note("words"))
	must(t, f.PutObjects(t.Context(), maps.All(map[api.Digest][]byte{name: object})))
	armed = true
	_, err = f.try(DraftOf(f.Statement(ledger.DetailErased, "", "", func(st *ledger.Statement) { st.Index = 2 }), nil),
		DraftOf(f.Statement(ledger.ObjectErased, "", "", func(st *ledger.Statement) { st.Object = name }), nil))
	if api.CodeOf(err) != api.CodeStorage || f.Snapshot().Tree.Size != 3 {
		t.Fatalf("%v; %d entries are published", err, f.Snapshot().Tree.Size)
	}
	if _, err := f.try(f.activate("checkout", "prod", 1)); api.CodeOf(err) != api.CodeStorage {
		t.Fatalf("appended to a log that nobody knows: %v", err)
	}
	f.ledger = away
	if r := f.put(f.activate("checkout", "prod", 1)); r[0].Index != 5 {
		t.Fatalf("receipt %+v", r[0])
	}
	if d, err := f.details.get(2); d != nil || err != nil {
		t.Errorf("the detail stays: %v, %v", d, err)
	}
	if _, err := f.Object(name); !errors.Is(err, ErrErased) {
		t.Errorf("the object is served: %v", err)
	}
	f.check()
}

func TestLateStatementIsKeptOnce(t *testing.T) {
	f := newFixture(t)
	f.put(f.operators(1, f.OperatorsSig), f.activate("checkout", "prod", 1), f.enter("checkout", "prod", "degraded", 0))
	st := f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0)
	late := Draft{Kind: ledger.StatementLate, Data: ledger.Data{Service: "checkout", Scope: "prod", Statement: st.Raw, Fields: ledger.Fields{Late: "superseded"}}}
	if _, err := f.try(DraftOf(st, nil)); err == nil {
		t.Fatal("a statement without expires was taken")
	}
	r := f.put(late)[0]
	if at, ok := f.ByID(st.ID); !ok || at != r.Index {
		t.Fatalf("ByID of the statement = %d, %v", at, ok)
	}
	again := f.put(DraftOf(st, nil))[0]
	if !again.Repeated || again.Index != r.Index || again.Change.Kind() != ledger.StatementLate {
		t.Fatalf("sent again: %+v", again)
	}
	f.check()
}

func TestRecordedBySuccessorsOfOperators(t *testing.T) {
	f := newFixture(t)
	one := f.Key("one")
	f.put(f.activate("search", "prod", 1)) // before any set
	f.put(f.operators(1, f.OperatorsSig), f.activate("checkout", "prod", 1), f.enter("checkout", "prod", "degraded", 0))
	sig := f.SignOperators(2, f.OperatorsYAML, ledger.Operator{ID: "one", Keys: []string{sshLine(one)}, May: []ledger.Grant{everything()}})
	f.put(f.operators(2, sig), f.activate("search", "staging", 2))
	if _, err := f.try(f.note("by the old operator")); api.CodeOf(err) != api.CodeForbidden {
		t.Fatalf("a dropped operator: %v", err)
	}
	if _, err := f.try(f.operators(1, f.OperatorsSig)); api.CodeOf(err) != api.CodeConflict {
		t.Fatalf("an older set: %v", err)
	}
	known := f.prove("checkout", nil)
	f.prove("search", nil)
	sig = f.SignOperators(3, f.OperatorsYAML, ledger.Operator{ID: "one", Keys: []string{sshLine(one)}, May: []ledger.Grant{everything()}})
	f.put(f.operators(3, sig), f.activate("checkout", "prod", 5))
	f.prove("checkout", known)
	f.prove("checkout", nil)
	f.reopen()
	f.prove("search", nil)
	f.check()
}

func TestEvidenceForAClientThatKnowsMore(t *testing.T) {
	f := newFixture(t)
	f.put(f.activate("checkout", "prod", 1))
	if _, err := f.Evidence("checkout", 3, nil, false, time.Now()); api.CodeOf(err) != api.CodeConflict {
		t.Fatalf("err = %v", err)
	}
	e, err := f.Evidence("checkout", 2, []int64{1}, false, time.Now())
	if err != nil || len(e.Changes) != 0 || len(e.Consistency) != 0 {
		t.Fatalf("evidence for a client that has all: %+v, %v", e, err)
	}
}

func TestReadOnlyVerifiesAndWritesNothing(t *testing.T) {
	f := newFixture(t)
	f.put(f.operators(1, f.OperatorsSig), f.note("x"), f.activate("checkout", "prod", 1))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Dir: f.cfg.Dir, Trust: f.Trust, ReadOnly: true}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	second, err := Open(cfg)
	if err != nil {
		t.Fatalf("two readers: %v", err)
	}
	defer func() { _ = errors.Join(second.Close(), s.Close()) }()
	r, err := s.Verify(t.Context(), nil)
	if err != nil || len(r.Findings) != 0 || r.Details != 1 || r.Tree.Size != 4 {
		t.Fatalf("Verify = %+v, %v", r, err)
	}
	if _, err := s.Append(t.Context(), nil); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("append: %v", err)
	}
	if err := s.PutObjects(t.Context(), nil); !errors.Is(err, ErrReadOnly) {
		t.Fatalf("put objects: %v", err)
	}
	if s.Snapshot().Checkpoint == nil {
		t.Fatal("the anchor's checkpoint is not shown")
	}
	if _, _, err := s.Head("checkout", start); api.CodeOf(err) != api.CodeUnavailable {
		t.Fatalf("head without a node key: %v", err)
	}
}

func TestLimits(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.noSync = true })
	ref := f.content("checkout", "prod", 1)
	var drafts []Draft
	for n := range api.MaxChains {
		d := activation("checkout", api.Scope(fmt.Sprintf("prod/p%d", n)), 1)
		d.Data.Set = ref
		drafts = append(drafts, d)
	}
	f.put(drafts...)
	if _, err := f.try(f.activate("checkout", "staging", 1)); api.CodeOf(err) != api.CodeUnprocessable {
		t.Fatalf("chain 257: %v", err)
	}
	f.put(drafts[7])
	f.prove("checkout", nil)
	big := activation("search", "prod", 1)
	big.Data.Release.Repository = strings.Repeat("x", ledger.MaxLeaf)
	if _, err := f.try(big); api.CodeOf(err) != api.CodeTooLarge {
		t.Fatalf("a huge leaf: %v", err)
	}
	detail, _, err := ledger.NewDetail(map[string]any{"text": "one"})
	if err != nil {
		t.Fatal(err)
	}
	wrong := f.note("two")
	wrong.Detail = detail
	if _, err := f.try(wrong); api.CodeOf(err) != api.CodeUnprocessable {
		t.Fatalf("another detail: %v", err)
	}
	f.check()
}
