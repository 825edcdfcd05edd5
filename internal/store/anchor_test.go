package store

import (
	"errors"
	"os"
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
