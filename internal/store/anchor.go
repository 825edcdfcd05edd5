package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/internal/kv"
	"github.com/sealstone/sealstone/ledger"
)

// writeAnchor copies the published checkpoint to the anchor file.
func (s *Store) writeAnchor() error {
	s.owed.anchor = true
	if err := s.step(stepAnchor, func() error { return kv.WriteFile(s.cfg.Anchor, s.Snapshot().Checkpoint) }); err != nil {
		return err
	}
	s.owed.anchor = false
	return nil
}

// readAnchor opens the anchor: the zero Tree when there is none.
func (s *Store) readAnchor() (ledger.Tree, []byte, error) {
	b, err := os.ReadFile(s.cfg.Anchor)
	if err != nil {
		return ledger.Tree{}, nil, err
	}
	t, err := s.cfg.Trust.OpenCheckpoint(b)
	return t, b, err
}

// compareAnchor bars writes where the log is not one that goes on from its
// anchor. A log of one entry may lack it: Init was cut off before the last step.
func (s *Store) compareAnchor(head ledger.Tree) {
	anchor, _, err := s.readAnchor()
	switch {
	case errors.Is(err, fs.ErrNotExist) && head.Size == 1:
	case errors.Is(err, fs.ErrNotExist):
		s.bar(fmt.Sprintf("the anchor file %s is missing, so nothing shows that the log was not rolled back", s.cfg.Anchor))
	case err != nil:
		s.bar(fmt.Sprintf("the anchor file %s can't be used: %v", s.cfg.Anchor, err))
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
