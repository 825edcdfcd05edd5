package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
)

var errFault = errors.New("injected fault")

// faults fails one step of an append when it is armed.
type faults struct {
	step   string
	after  bool
	armed  atomic.Bool
	passes atomic.Int32 // how often the step works before
}

func (x *faults) hook(step string, after bool) error {
	if x.armed.Load() && step == x.step && after == x.after && x.passes.Add(-1) < 0 {
		return errFault
	}
	return nil
}

// note is a draft with a statement and a detail: it takes every step of an append.
func (f *fixture) note(text string) Draft {
	f.t.Helper()
	d, name, err := ledger.NewDetail(map[string]any{"text": text})
	if err != nil {
		f.t.Fatal(err)
	}
	return DraftOf(f.Statement(ledger.NoteAdded, "checkout", "prod", func(st *ledger.Statement) { st.Detail = name }), d)
}

// Each step of an append fails before and after it is done. Whatever the caller
// is told, sending the change again must leave it in the log exactly once, with
// and without a restart between.
func TestFailingSteps(t *testing.T) {
	for _, step := range []string{stepDetails, stepCommit, stepSign, stepAnchor} {
		for _, after := range []bool{false, true} {
			for _, restart := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/after=%v/restart=%v", step, after, restart), func(t *testing.T) {
					testFailingStep(t, &faults{step: step, after: after}, restart)
				})
			}
		}
	}
}

func testFailingStep(t *testing.T, x *faults, restart bool) {
	f := newFixture(t, func(c *Config) { c.fault = x.hook })
	f.put(f.operators(1, f.OperatorsSig))
	before := f.Snapshot()
	draft := f.note("first")
	x.armed.Store(true)
	_, err := f.try(draft)
	told := err == nil
	if told != (x.step == stepAnchor || x.step == stepCommit && x.after) {
		t.Fatalf("the append said %v", err)
	}
	if err != nil && (api.CodeOf(err) != api.CodeStorage || !errors.Is(err, errFault)) {
		t.Fatalf("error %v", err)
	}
	if x.step != stepCommit || !x.after {
		if api.CodeOf(f.Writes()) != api.CodeStorage {
			t.Fatalf("Writes = %v, want trouble", f.Writes())
		}
	}
	if !told && f.Snapshot() != before {
		t.Fatal("a change that was refused is published")
	}
	if _, err := f.Leaf(0); err != nil {
		t.Fatalf("reads stopped: %v", err)
	}
	if restart {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		x.armed.Store(false)
		f.open()
	}
	x.armed.Store(false)
	r := f.put(draft)[0]
	if r.Index != 2 || told != (told && r.Repeated) {
		t.Fatalf("receipt %+v", r)
	}
	if f.Writes() != nil {
		t.Fatalf("Writes = %v after a good append", f.Writes())
	}
	if r := f.put(draft)[0]; r.Index != 2 || !r.Repeated {
		t.Fatalf("sent a third time: %+v", r)
	}
	f.put(activationWithout(f))
	if got := f.Snapshot().Tree.Size; got != 4 {
		t.Fatalf("size %d, want 4", got)
	}
	if anchor, _, err := f.readAnchor(); err != nil || anchor != f.Snapshot().Tree {
		t.Fatalf("anchor %v, %v; published %v", anchor, err, f.Snapshot().Tree)
	}
	f.check()
	f.reopen()
	f.check()
}

// Storage that works again is found by the next scrub, or probe, without anybody's
// append.
func TestScrubEndsTheTroubleOfStorage(t *testing.T) {
	scrub := func(s *Store) error { return s.Scrub(t.Context()) }
	probe := func(s *Store) error { s.Probe(t.Context()); return nil }
	for _, step := range []string{stepDetails, stepCommit, stepSign, stepAnchor} {
		t.Run(step, func(t *testing.T) { endsTrouble(t, step, scrub) })
		t.Run("probe "+step, func(t *testing.T) { endsTrouble(t, step, probe) })
	}
}

func endsTrouble(t *testing.T, step string, look func(*Store) error) {
	x := &faults{step: step}
	f := newFixture(t, func(c *Config) { c.fault = x.hook })
	f.put(f.operators(1, f.OperatorsSig))
	draft := f.note("words")
	x.armed.Store(true)
	_, _ = f.try(draft) // TestFailingSteps has what it says
	if err := look(f.Store); err != nil || api.CodeOf(f.Writes()) != api.CodeStorage || len(f.Health()) != 1 {
		t.Fatalf("still broken: %v; Writes = %v, Health = %q", err, f.Writes(), f.Health())
	}
	x.armed.Store(false)
	if err := look(f.Store); err != nil || f.Writes() != nil || len(f.Health()) != 0 {
		t.Fatalf("%v; Writes = %v, Health = %q", err, f.Writes(), f.Health())
	}
	if r := f.put(draft)[0]; r.Index != 2 {
		t.Fatalf("receipt %+v", r)
	}
	f.check()
}

func activationWithout(f *fixture) Draft { return f.activate("checkout", "prod", 9) }

// A batch that fails must not leave its details under entries of a later one.
func TestDetailsOfAFailedAppendDoNotStay(t *testing.T) {
	for _, x := range []*faults{{step: stepDetails, after: true}, {step: stepCommit}} {
		t.Run(x.step, func(t *testing.T) {
			f := newFixture(t, func(c *Config) { c.fault = x.hook })
			f.put(f.operators(1, f.OperatorsSig))
			x.armed.Store(true)
			if _, err := f.try(f.note("never recorded")); err == nil {
				t.Fatal("the append did not fail")
			}
			x.armed.Store(false)
			f.put(f.activate("checkout", "prod", 1))
			if d, err := f.details.get(2); d != nil || err != nil {
				t.Fatalf("detail of an entry that has none: %v, %v", d, err)
			}
			f.check()
		})
	}
}

// A caller who is refused leaves neither ids nor details to those who share its
// batch.
func TestARefusedCallerLeavesNothingInItsBatch(t *testing.T) {
	f := newFixture(t)
	f.put(f.operators(1, f.OperatorsSig))
	d := f.note("once")
	call := func(drafts ...Draft) *request {
		return &request{t.Context(), func(*ledger.State, time.Time) (Decision, error) { return Decision{Drafts: drafts}, nil }, make(chan answer, 1)}
	}
	refused, plain, again := call(d, Draft{Kind: ledger.BundleActivated}), call(f.activate("checkout", "prod", 1)), call(d)
	f.run([]*request{refused, plain, again}) // the loop is idle: nobody else appends here
	if a := <-refused.answer; a.err == nil {
		t.Errorf("half a decision was taken: %+v", a.receipts)
	}
	for i, r := range []*request{plain, again} {
		if a := <-r.answer; a.err != nil || a.receipts[0].Index != int64(2+i) || a.receipts[0].Repeated {
			t.Errorf("caller %d: %+v, %v", i, a.receipts, a.err)
		}
	}
	if row, err := f.details.get(2); row != nil || err != nil {
		t.Errorf("the detail of a refused change: %v, %v", row, err)
	}
	f.check()
}

func TestDiskFull(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.maxSize = 256 << 10; c.noSync = true })
	f.put(f.operators(1, f.OperatorsSig))
	var err error
	n := 0
	for ; err == nil && n < 10_000; n++ {
		_, err = f.try(activation("checkout", "prod", n))
	}
	if api.CodeOf(err) != api.CodeStorage || api.CodeOf(f.Writes()) != api.CodeStorage {
		t.Fatalf("after %d entries: %v; Writes: %v", n, err, f.Writes())
	}
	size := f.Snapshot().Tree.Size
	if _, _, err := f.Head("checkout", start); err != nil {
		t.Fatalf("reads stopped: %v", err)
	}
	for range 3 {
		if err := f.Scrub(t.Context()); err != nil || api.CodeOf(f.Writes()) != api.CodeStorage {
			t.Fatalf("a full disk: the scrub said %v; Writes: %v", err, f.Writes())
		}
	}
	f.cfg.maxSize = 0
	f.reopen()
	if r := f.put(activation("checkout", "prod", n)); r[0].Index != size {
		t.Fatalf("next entry %d, want %d", r[0].Index, size)
	}
	if f.Writes() != nil {
		t.Fatalf("Writes: %v", f.Writes())
	}
}

// copyDir is a backup, or the copy that somebody edits.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// A backup that is put back: shorter than the anchor says. The store reads, signs
// nothing and takes nothing.
func TestRolledBackStoreTakesNothing(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Anchor = filepath.Join(filepath.Dir(c.Dir), "anchor") })
	f.put(f.operators(1, f.OperatorsSig), f.activate("checkout", "prod", 1))
	f.closeFor(func() { copyDir(t, f.cfg.Dir, f.cfg.Dir+".backup") })
	f.put(f.activate("checkout", "prod", 2))
	f.closeFor(func() { copyDir(t, f.cfg.Dir+".backup", f.cfg.Dir) })
	f.refuses("rolled back")
	if _, _, err := f.Head("checkout", start); api.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("Head: %v", err)
	}
	if _, _, _, err := f.LogFile("checkpoint"); api.CodeOf(err) != api.CodeUnavailable {
		t.Errorf("checkpoint: %v", err)
	}
	if _, err := f.Change(2); err != nil {
		t.Errorf("reads stopped: %v", err)
	}
	if r, err := f.Verify(t.Context(), nil); err != nil || len(r.Findings) != 1 || r.Findings[0].Where != "anchor" {
		t.Errorf("Verify = %v, %v", r.Findings, err)
	}
}

// A backup that grew another way has the size, not the root.
func TestForkedStoreTakesNothing(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.Anchor = filepath.Join(filepath.Dir(c.Dir), "anchor") })
	f.closeFor(func() { copyDir(t, f.cfg.Dir, f.cfg.Dir+".backup") })
	f.put(f.activate("checkout", "prod", 1))
	anchor, err := os.ReadFile(f.cfg.Anchor)
	if err != nil {
		t.Fatal(err)
	}
	f.closeFor(func() {
		copyDir(t, f.cfg.Dir+".backup", f.cfg.Dir)
		if err := os.Remove(f.cfg.Anchor); err != nil {
			t.Fatal(err)
		}
	})
	f.put(f.activate("checkout", "prod", 2), f.activate("checkout", "prod", 3))
	f.closeFor(func() {
		if err := os.WriteFile(f.cfg.Anchor, anchor, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	f.refuses("another root")
}

func TestAnchorThatIsMissingOrOfAnotherLog(t *testing.T) {
	f := newFixture(t)
	f.put(f.activate("checkout", "prod", 1))
	f.closeFor(func() {
		if err := os.Remove(filepath.Join(f.cfg.Dir, "anchor")); err != nil {
			t.Fatal(err)
		}
	})
	f.refuses("missing")
	other := ledgertest.For(t, "other.example.com/log")
	cp, err := ledger.SignCheckpoint(other.Origin, f.Snapshot().Tree, other.Log)
	if err != nil {
		t.Fatal(err)
	}
	f.closeFor(func() {
		if err := os.WriteFile(filepath.Join(f.cfg.Dir, "anchor"), cp, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	f.refuses("can't be used")
	f.closeFor(func() {
		if err := os.WriteFile(filepath.Join(f.cfg.Dir, "anchor"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	f.refuses("holds no checkpoint of this log: it is empty")
}

// The command line makes exit 3 of it, as of a ledger that was cut off.
func TestAMissingFileIsDamage(t *testing.T) {
	for _, name := range []string{fileObjects, fileDetails} {
		f := newFixture(t)
		if err := errors.Join(f.Close(), os.Remove(filepath.Join(f.cfg.Dir, name))); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(f.cfg); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "ledger recover") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// closeFor closes the store, lets do change its files, and opens it again.
func (f *fixture) closeFor(do func()) {
	f.t.Helper()
	if err := f.Close(); err != nil {
		f.t.Fatal(err)
	}
	do()
	f.open()
}

// refuses demands that the store takes no changes, and says why.
func (f *fixture) refuses(why string) {
	f.t.Helper()
	_, err := f.try(activation("checkout", "prod", 99))
	if !errors.Is(err, ErrReadOnly) || api.CodeOf(err) != api.CodeReadOnly {
		f.t.Fatalf("append: %v", err)
	}
	if e, ok := errors.AsType[*api.Error](f.Writes()); !ok || !strings.Contains(e.Detail, why) || e.Hint == "" {
		f.t.Fatalf("Writes = %v, want %q and a hint", f.Writes(), why)
	}
}

func TestInitIsFinishedByASecondOne(t *testing.T) {
	lt := ledgertest.New(t)
	cfg := Config{Dir: t.TempDir(), Log: lt.Log, Node: lt.Node, Trust: lt.Trust}
	cut := cfg
	cut.fault = func(step string, _ bool) error {
		if step == stepCommit {
			return errFault
		}
		return nil
	}
	if err := Init(cut); !errors.Is(err, errFault) {
		t.Fatalf("Init: %v", err)
	}
	if _, err := Open(cfg); !errors.Is(err, ErrNoLedger) {
		t.Fatalf("Open of half a ledger: %v", err)
	}
	if err := Init(cfg); err != nil {
		t.Fatal(err)
	}
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := os.Stat(filepath.Join(cfg.Dir, "anchor")); errors.Is(err, fs.ErrNotExist) {
		t.Fatal("no anchor")
	}
}

func TestOpenRefusesKeysOfAnotherLog(t *testing.T) {
	f := newFixture(t)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	other := ledgertest.For(t, "other.example.com/log")
	for name, edit := range map[string]func(*Config){
		"log key":    func(c *Config) { c.Log = other.Log },
		"node key":   func(c *Config) { c.Node = other.Node },
		"trust file": func(c *Config) { c.Log, c.Node, c.Trust = other.Log, other.Node, other.Trust },
		"same origin, other trust file": func(c *Config) {
			c.Trust = f.TrustFile(1, func(st *ledger.TrustStatement) { st.Log = append(st.Log, st.Log[0]) })
		},
	} {
		cfg := f.cfg
		edit(&cfg)
		if s, err := Open(cfg); err == nil {
			t.Errorf("opened with another %s", name)
			_ = s.Close()
		}
	}
	f.open()
}

// A crash while one slot of the anchor is written leaves the other.
func TestAnchorSurvivesATornWrite(t *testing.T) {
	f := newFixture(t)
	path := filepath.Join(f.cfg.Dir, "anchor")
	f.put(f.activate("checkout", "prod", 1))
	f.put(f.activate("checkout", "prod", 2))
	f.put(f.activate("checkout", "prod", 3))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	newest, _, err := f.readAnchor()
	if err != nil || newest != f.Snapshot().Tree {
		t.Fatalf("anchor %v, %v; published %v", newest, err, f.Snapshot().Tree)
	}
	for slot := range 2 {
		torn := append([]byte{}, whole...)
		clear(torn[slot*anchorSlot+100 : (slot+1)*anchorSlot])
		if err := os.WriteFile(path, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, _, err := f.readAnchor(); err != nil || got.Size < newest.Size-1 {
			t.Errorf("slot %d torn: %v, %v", slot, got, err)
		}
		f.reopen()
		f.put(f.activate("checkout", "prod", 4+slot))
	}
	f.check()
}

// An anchor may be written as the checkpoint alone, by hand or by a recovery; one
// that is taken away from under a running store comes back with the next change.
func TestAnchorIsMadeAnewWhenItWasReplaced(t *testing.T) {
	f := newFixture(t)
	path := filepath.Join(f.cfg.Dir, "anchor")
	f.closeFor(func() {
		if err := os.WriteFile(path, f.Snapshot().Checkpoint, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	f.put(f.activate("checkout", "prod", 1))
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	f.put(f.activate("checkout", "prod", 2))
	if got, _, err := f.readAnchor(); err != nil || got != f.Snapshot().Tree {
		t.Fatalf("anchor %v, %v; published %v", got, err, f.Snapshot().Tree)
	}
	f.reopen()
	f.check()
}

// A disk that is full at the start stops writes, not reads; what a kill left to do,
// and the anchor, are owed and done when there is room again.
func TestAFullDiskAtTheStartStopsNoReads(t *testing.T) {
	for _, step := range []string{stepErase, stepAnchor} {
		t.Run(step, func(t *testing.T) {
			x := &faults{step: stepCommit}
			f := newFixture(t, func(c *Config) { c.fault = x.hook })
			f.put(f.operators(1, f.OperatorsSig))
			x.armed.Store(true)
			if _, err := f.try(f.note("whose detail is left over")); err == nil {
				t.Fatal("taken")
			}
			must(t, f.Close())
			x.step = step
			f.open()
			if f.Writes() == nil || f.Snapshot().Tree.Size != 2 {
				t.Fatalf("writes %v, size %d", f.Writes(), f.Snapshot().Tree.Size)
			}
			if _, err := f.try(f.note("meanwhile")); api.CodeOf(err) != api.CodeStorage {
				t.Errorf("taken before what is owed is done: %v", err)
			}
			x.armed.Store(false)
			f.Probe(t.Context())
			if err := f.Writes(); err != nil {
				t.Errorf("after there was room again: %v", err)
			}
			if n, err := f.details.stale(2, nil); n != 0 || err != nil {
				t.Errorf("%d details are left over, %v", n, err)
			}
			f.put(f.note("at last"))
			f.check()
		})
	}
}

// A torn newest meta page makes bbolt use the older one without a word: a commit
// is lost that was published. The anchor knows.
func TestTornMetaPageIsARollback(t *testing.T) {
	f := newFixture(t)
	f.put(f.activate("checkout", "prod", 1))
	f.put(f.activate("checkout", "prod", 2))
	path := filepath.Join(f.cfg.Dir, fileLedger)
	tear := func(pages ...int64) {
		b, err := os.ReadFile(path)
		must(t, err)
		for _, p := range pages {
			clear(b[p*4096+64 : (p+1)*4096])
		}
		must(t, os.WriteFile(path, b, 0o600))
	}
	must(t, f.Close())
	whole, err := os.ReadFile(path)
	must(t, err)
	behind := 0
	for page := range int64(2) {
		must(t, os.WriteFile(path, whole, 0o600))
		tear(page)
		f.open()
		if f.Snapshot().Tree.Size == 2 {
			behind++
			f.refuses("rolled back")
		}
		must(t, f.Close())
	}
	if behind != 1 {
		t.Errorf("%d of two meta pages were the newest", behind)
	}
	tear(0, 1)
	if s, err := Open(f.cfg); api.CodeOf(err) != api.CodeReadOnly {
		t.Errorf("both torn: %v, %v", s, err)
	}
	must(t, os.WriteFile(path, whole, 0o600))
	f.open()
	f.check()
}

// What callers and status are told of a disk is in the system's words, without
// paths; the cause stays inside for the log.
func TestTheAnswerSaysWhatTheDiskSays(t *testing.T) {
	for _, e := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO} {
		cause := fmt.Errorf("file resize error: %s", &os.PathError{Op: "write", Path: "/secret/ledger.db", Err: e}) //nolint:errorlint // as bbolt has it
		err := storageError(stepCommit, cause)
		if !strings.Contains(err.Error(), "(commit failed: "+e.Error()+")") || strings.Contains(err.Error(), "secret") || !errors.Is(err, cause) {
			t.Errorf("%v", err)
		}
	}
	if err := storageError(stepCommit, errFault); !strings.Contains(err.Error(), "(commit failed)") {
		t.Errorf("%v", err)
	}
}
