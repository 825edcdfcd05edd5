package store

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
)

// next is version 2 of the trust file, with a node key of its own from an index
// on; the signers are all that there are.
func (f *fixture) next(from int64) (*ledger.Trust, []note.Signer) {
	f.t.Helper()
	skey, vkey, err := ledger.NewNoteKey(ledger.NodeName(f.Origin), f.Key("node 2").Seed())
	if err != nil {
		f.t.Fatal(err)
	}
	node, err := note.NewSigner(skey)
	if err != nil {
		f.t.Fatal(err)
	}
	st := f.Fixture.Trust.Successor(from)
	st.RotateNode(vkey)
	raw, err := ledger.SignTrust(st, f.Root)
	if err != nil {
		f.t.Fatal(err)
	}
	t, err := f.Fixture.Trust.Next(raw)
	if err != nil {
		f.t.Fatal(err)
	}
	return t, []note.Signer{f.Log, f.Node, node}
}

func TestRotateHandsOverAtItsIndex(t *testing.T) {
	f := newFixture(t)
	f.put(f.operators(1, f.OperatorsSig))
	low, signers := f.next(1)
	if err := f.Rotate(t.Context(), low, signers); err == nil || !strings.Contains(err.Error(), "counts from entry 1, but the log has 2 entries") {
		t.Errorf("a from that is past: %v", err)
	}
	next, signers := f.next(4)
	if err := f.Rotate(t.Context(), next, signers[:2]); err == nil {
		t.Error("taken without the new node key")
	}
	if err := f.Rotate(t.Context(), next, signers); err != nil {
		t.Fatal(err)
	}
	if err := f.Rotate(t.Context(), next, signers); err == nil {
		t.Error("taken twice")
	}
	for range 4 {
		f.put(DraftOf(f.Statement(ledger.NoteAdded, "checkout", "prod", nil), nil))
	}
	for i := range f.Snapshot().Tree.Size {
		c, err := f.Change(i)
		if err != nil {
			t.Fatal(err)
		}
		if err := next.CheckNode(i, c.Envelope); err != nil {
			t.Error(err)
		}
		if old := f.Fixture.Trust.CheckNode(i, c.Envelope) == nil; old != (i < 4) {
			t.Errorf("entry %d by the old key: %v", i, old)
		}
	}
	if r, err := f.Verify(t.Context(), nil); err != nil || len(r.Findings) > 0 {
		t.Errorf("%v, %v", r.Findings, err)
	}
	if _, err := f.Evidence("checkout", 0, nil, false, time.Now()); err != nil {
		t.Error(err)
	}
	cfg := f.cfg
	if err := f.Store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(cfg); err == nil || !strings.Contains(err.Error(), "version 2 of the trust file was in use here") {
		t.Errorf("opened with the version before: %v", err)
	}
	cfg.Trust, cfg.More = next, signers
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// A rotation that fails before or after any step is gone on with by the next
// append or the next start. Nothing is signed in between that a start refuses.
func TestRotateFailingSteps(t *testing.T) {
	for _, step := range []string{stepCommit, stepTrust, stepSign, stepAnchor} {
		for _, after := range []bool{false, true} {
			for _, atOnce := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/after=%v/restart at once=%v", step, after, atOnce), func(t *testing.T) {
					x := &faults{step: step, after: after}
					if step == stepCommit {
						x.passes.Store(2) // the probe
					}
					f := newFixture(t, func(c *Config) { c.fault = x.hook })
					f.put(f.operators(1, f.OperatorsSig))
					next, signers := f.next(3)
					x.armed.Store(true)
					if err := f.Rotate(t.Context(), next, signers); err == nil {
						t.Fatal("nothing failed")
					}
					if _, err := f.try(f.note("meanwhile")); err == nil && step != stepAnchor && (step != stepCommit || !after) { // a commit that is there after all is answered so
						t.Fatal("taken before what is owed is paid")
					}
					x.armed.Store(false)
					if !atOnce {
						f.put(f.note("a"), f.note("b"), f.note("c"), f.note("d"))
					}
					must(t, f.Close())
					f.cfg.Trust, f.cfg.More, f.Fixture.Trust = next, signers, next
					f.open()
					f.put(f.note("e"), f.note("f"))
					if _, err := next.OpenCheckpoint(f.Snapshot().Checkpoint); err != nil {
						t.Error(err)
					}
					f.check()
				})
			}
		}
	}
}

// On a disk that takes nothing the old keys stay: the checkpoint is theirs.
func TestRotateWaitsForADiskThatTakesWrites(t *testing.T) {
	x := &faults{step: stepCommit}
	f := newFixture(t, func(c *Config) { c.fault = x.hook })
	f.put(f.operators(1, f.OperatorsSig))
	next, signers := f.next(3)
	x.armed.Store(true)
	if err := f.Rotate(t.Context(), next, signers); err == nil || f.Trusted().Version != 1 {
		t.Fatalf("%v; version %d is in use", err, f.Trusted().Version)
	}
	x.armed.Store(false)
	must(t, f.Rotate(t.Context(), next, signers))
	if _, err := next.OpenCheckpoint(f.Snapshot().Checkpoint); err != nil || f.Trusted().Version != 2 {
		t.Error(err)
	}
}

// A full disk keeps no server from starting with the new keys: reads go on, and
// nothing is appended before the version is noted.
func TestAStartThatCannotNoteTheVersionOwesIt(t *testing.T) {
	x := &faults{step: stepTrust}
	f := newFixture(t, func(c *Config) { c.fault = x.hook })
	f.put(f.operators(1, f.OperatorsSig))
	next, signers := f.next(3)
	must(t, f.Close())
	f.cfg.Trust, f.cfg.More = next, signers
	x.armed.Store(true)
	f.open()
	if f.Trusted() != next || api.CodeOf(f.Writes()) != api.CodeStorage {
		t.Fatalf("version %d, Writes = %v", f.Trusted().Version, f.Writes())
	}
	if _, err := f.try(f.note("meanwhile")); err == nil {
		t.Fatal("taken before what is owed is paid")
	}
	x.armed.Store(false)
	f.Probe(t.Context())
	if row, err := f.Row(rowTrust); err != nil || string(row) != string(trustRow(next)) || f.Writes() != nil {
		t.Fatalf("%q, %v; Writes = %v", row, err, f.Writes())
	}
}

// A log whose keys were replaced is recovered from a mirror whatever is left of
// the directory, and only under the version that its entries are signed by.
func TestRecoverAfterARotation(t *testing.T) {
	for _, lost := range []string{"", fileLedger} {
		t.Run("lost "+lost, func(t *testing.T) {
			f := newFixture(t, func(c *Config) { c.Anchor = filepath.Join(filepath.Dir(c.Dir), "anchor"); c.noSync = true })
			f.put(f.operators(1, f.OperatorsSig))
			next, signers := f.next(4)
			must(t, f.Rotate(t.Context(), next, signers))
			for range 6 {
				f.put(DraftOf(f.Statement(ledger.NoteAdded, "checkout", "prod", nil), nil))
			}
			from := f.mirrored(true)
			must(t, f.Close())
			must(t, os.RemoveAll(filepath.Join(f.cfg.Dir, lost)))
			if _, err := Recover(t.Context(), f.cfg, from, RecoverOptions{}); err == nil {
				t.Error("recovered under the version before")
			}
			f.cfg.Trust, f.cfg.More, f.Fixture.Trust = next, signers, next
			_, err := Recover(t.Context(), f.cfg, from, RecoverOptions{})
			must(t, err)
			f.open()
			f.put(DraftOf(f.Statement(ledger.NoteAdded, "checkout", "prod", nil), nil))
			f.check()
		})
	}
}

// A ledger opens under the trust file that it was made with, and what goes on
// from that one.
func TestAnotherTrustFileOpensNothing(t *testing.T) {
	f := newFixture(t)
	must(t, f.Close())
	other := ledgertest.For(t, "other.example/log")
	second := f.Key("second root")
	for want, cfg := range map[string]Config{
		"the ledger is of log": {Log: other.Log, Node: other.Node, Trust: other.Trust},
		"the ledger was created under trust file": {Log: f.Log, Node: f.Node, Trust: f.TrustFile(1, func(st *ledger.TrustStatement) {
			st.Roots = append(st.Roots, ledgertest.SSHLine(second))
		})},
	} {
		cfg.Dir = f.cfg.Dir
		if s, err := Open(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
			if s != nil {
				must(t, s.Close())
			}
		}
	}
	f.open()
	f.check()
}

func TestADetailIsTheOneThatItsChangeNames(t *testing.T) {
	f := newFixture(t)
	f.put(f.operators(1, f.OperatorsSig))
	d := f.note("words")
	other, _, err := ledger.NewDetail(map[string]any{"text": "other words"})
	must(t, err)
	d.Detail = other
	if _, err := f.try(d); api.CodeOf(err) != api.CodeUnprocessable {
		t.Errorf("taken: %v", err)
	}
	f.check()
}
