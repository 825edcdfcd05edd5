package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A sync that fails may leave anything in its slot. The writes after it go to the
// same one, so that the last good checkpoint stays.
func TestAnchorKeepsTheLastGoodSlotWhenSyncsFail(t *testing.T) {
	f := newFixture(t)
	f.put(f.activate("checkout", "prod", 1))
	good := f.Snapshot().Tree
	f.anchor.sync = func(file *os.File) error {
		_, err := file.WriteAt(make([]byte, anchorSlot), f.anchor.next*anchorSlot)
		return errors.Join(errFault, err)
	}
	f.put(f.activate("checkout", "prod", 2)) // taken, and the anchor owed
	for n := range 3 {
		if _, err := f.try(f.activate("checkout", "prod", 3+n)); !errors.Is(err, errFault) {
			t.Fatalf("append %d with an anchor that can't be written: %v", n, err)
		}
		if got, _, err := f.readAnchor(); err != nil || got != good {
			t.Fatalf("anchor %v, %v after %d failed syncs, want %v", got, err, n+2, good)
		}
	}
	f.anchor.sync = nil
	f.put(f.activate("checkout", "prod", 9))
	if got, _, err := f.readAnchor(); err != nil || got != f.Snapshot().Tree {
		t.Fatalf("anchor %v, %v; published %v", got, err, f.Snapshot().Tree)
	}
	f.reopen()
	f.check()
}

// The anchor that Init made says one entry for ever once serve keeps it
// elsewhere: it becomes a note of where that is.
func TestAnAnchorElsewhereLeavesANote(t *testing.T) {
	f := newFixture(t)
	first, elsewhere := f.cfg.path(fileAnchor), filepath.Join(filepath.Dir(f.cfg.Dir), "anchor")
	stale, err := os.ReadFile(first)
	must(t, err)
	f.cfg.Anchor = elsewhere
	f.closeFor(func() {})
	f.put(f.activate("checkout", "prod", 1))
	for _, path := range []string{first, elsewhere} {
		if got, err := ReadAnchor(path, f.Trusted()); err != nil || got != f.Snapshot().Tree {
			t.Errorf("%s: %v, %v", path, got, err)
		}
	}
	f.closeFor(func() { must(t, os.WriteFile(first, stale, 0o600)) })
	if b, err := os.ReadFile(first); err != nil || string(b) != "the anchor is "+elsewhere+"\n" {
		t.Errorf("%q, %v", b, err)
	}

	f.cfg.Anchor = first // it is kept here again
	f.closeFor(func() {})
	f.put(f.activate("checkout", "prod", 2))
	if b, err := os.ReadFile(first); err != nil || len(b) != 2*anchorSlot {
		t.Errorf("%q, %v", b, err)
	}
	must(t, os.Symlink(f.cfg.Dir, f.cfg.Dir+".link"))
	f.cfg.Anchor = filepath.Join(f.cfg.Dir+".link", fileAnchor)
	f.closeFor(func() {})
	if b, err := os.ReadFile(first); err != nil || len(b) != 2*anchorSlot {
		t.Errorf("the anchor by another name: %q, %v", b, err)
	}
}
