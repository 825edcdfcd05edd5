package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/internal/durable"
	"github.com/sealstone/sealstone/internal/kv"
	"github.com/sealstone/sealstone/ledger"
)

// The anchor file has two slots that take turns, each a checkpoint filled up
// with newlines. A crash while one is written leaves the other, and the log's
// signature tells which is whole. A rename would need no slots, but makes the
// file system commit its journal at every append: that cost more than all the
// rest of one. A file that holds nothing but a checkpoint is read as well.
const anchorSlot = 4096

// anchorFile is the open anchor; the append loop's own.
type anchorFile struct {
	f    *os.File
	next int64                // the slot that is older; stays until the other is known to be durable
	sync func(*os.File) error // tests: nil is durable.SyncData
}

func (a *anchorFile) close() error {
	if a.f == nil {
		return nil
	}
	f := a.f
	a.f = nil
	return f.Close()
}

// write puts a checkpoint into the older slot. A file that is missing, or was
// replaced since, is made anew.
func (a *anchorFile) write(path string, checkpoint []byte) error {
	if len(checkpoint) >= anchorSlot {
		return fmt.Errorf("anchor: a checkpoint of %d bytes", len(checkpoint))
	}
	slot := append(slices.Clone(checkpoint), bytes.Repeat([]byte("\n"), anchorSlot-len(checkpoint))...)
	if !a.isAt(path) {
		return a.create(path, slot)
	}
	if _, err := a.f.WriteAt(slot, a.next*anchorSlot); err != nil {
		return err
	}
	if err := a.syncData(); err != nil {
		return err
	}
	a.next = 1 - a.next
	return nil
}

func (a *anchorFile) syncData() error {
	if a.sync != nil {
		return a.sync(a.f)
	}
	return durable.SyncData(a.f)
}

// isAt tells whether the open file is still the one of that name.
func (a *anchorFile) isAt(path string) bool {
	if a.f == nil {
		return false
	}
	mine, err1 := a.f.Stat()
	there, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(mine, there) && there.Size() == 2*anchorSlot
}

func (a *anchorFile) create(path string, slot []byte) error {
	if err := errors.Join(a.close(), durable.WriteFile(path, append(slices.Clone(slot), slot...), 0o600)); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	a.f, a.next = f, 0
	return err
}

// writeAnchor copies the published checkpoint to the anchor file.
func (s *Store) writeAnchor() error {
	s.owed.anchor = true
	if err := s.step(stepAnchor, func() error { return s.anchor.write(s.cfg.Anchor, s.Snapshot().Checkpoint) }); err != nil {
		return err
	}
	s.owed.anchor = false
	return nil
}

// readAnchor opens the anchor: the newer of its slots that the log key signed.
func (s *Store) readAnchor() (newest ledger.Tree, checkpoint []byte, err error) {
	return readAnchor(s.cfg.Anchor, s.Trusted())
}

// ReadAnchor reads an anchor file, or one with just a checkpoint.
func ReadAnchor(path string, t *ledger.Trust) (ledger.Tree, error) {
	tree, _, err := readAnchor(path, t)
	return tree, err
}

func readAnchor(path string, t *ledger.Trust) (newest ledger.Tree, checkpoint []byte, err error) {
	b, err := os.ReadFile(path)
	if elsewhere, ok := strings.CutPrefix(string(b), anchorNote); ok && err == nil {
		b, err = os.ReadFile(strings.TrimSuffix(elsewhere, "\n"))
	}
	if err != nil {
		return newest, nil, err
	}
	return parseAnchor(b, t)
}

// anchorNote begins a file that says where the anchor is.
const anchorNote = "the anchor is "

// pointAnchor leaves such a note in the data directory when the anchor lies
// elsewhere. The anchor that Init made there stays what it was then: whoever
// looks without --anchor would find a store that was rolled back in order. An
// anchor there that knows more than this one stays.
func (s *Store) pointAnchor() error {
	path := s.cfg.path(fileAnchor)
	to, err := filepath.Abs(s.cfg.Anchor)
	if err != nil {
		return err
	}
	text := []byte(anchorNote + to + "\n")
	have, err1 := os.Stat(path)
	anchor, err2 := os.Stat(to)
	if err1 == nil && err2 == nil && os.SameFile(have, anchor) {
		return nil
	}
	if b, err := os.ReadFile(path); bytes.Equal(b, text) && err == nil {
		return nil
	}
	if t, err := ReadAnchor(path, s.Trusted()); err == nil && t.Size > s.Snapshot().Tree.Size {
		return nil
	}
	return durable.WriteFile(path, text, 0o600)
}

func parseAnchor(b []byte, trust *ledger.Trust) (newest ledger.Tree, checkpoint []byte, err error) {
	var errs []error
	for slot := range slices.Chunk(b, anchorSlot) {
		cp := append(bytes.TrimRight(slot, "\n"), '\n')
		t, err := trust.Past().OpenCheckpoint(cp)
		if err != nil {
			errs = append(errs, err)
		} else if checkpoint == nil || t.Size > newest.Size {
			newest, checkpoint = t, cp
		}
	}
	if len(b) == 0 {
		errs = append(errs, errors.New("it is empty"))
	}
	if checkpoint == nil {
		return newest, nil, fmt.Errorf("holds no checkpoint of this log: %w", errors.Join(errs...))
	}
	return newest, checkpoint, nil
}

// compareAnchor bars writes where the log is not one that goes on from its
// anchor. A log of one entry may lack it: Init was cut off before the last step.
func (s *Store) compareAnchor(head ledger.Tree) {
	anchor, _, err := s.readAnchor()
	switch {
	case errors.Is(err, fs.ErrNotExist) && head.Size == 1:
	case errors.Is(err, fs.ErrNotExist):
		s.bar("the anchor file is missing, so nothing shows that the log was not rolled back")
	case err != nil:
		s.bar(fmt.Sprintf("the anchor file can't be used: %v", err))
	case anchor.Size > head.Size:
		s.barBehind(fmt.Sprintf("the log has %d entries, its anchor says that %d were published: the data directory was rolled back", head.Size, anchor.Size))
	default:
		if err := s.containsTree(anchor); err != nil {
			s.barBehind(fmt.Sprintf("the log is not the one of its anchor: %v", err))
		}
	}
}

// containsTree tells whether the log's first entries are those of t.
func (s *Store) containsTree(t ledger.Tree) error {
	return s.ledger.Read(func(tx *bbolt.Tx) error {
		root, err := rootAt(tx, t.Size)
		if err != nil {
			return err
		}
		if root != t.Root {
			return fmt.Errorf("another root for %d entries: %w", t.Size, kv.ErrCorrupt)
		}
		return nil
	})
}

// anchorAt is the anchor's checkpoint if it is of exactly this tree.
func (s *Store) anchorAt(head ledger.Tree) []byte {
	if t, b, err := s.readAnchor(); err == nil && t == head {
		return b
	}
	return nil
}
