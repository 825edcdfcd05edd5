package store

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealstone/sealstone/internal/kv"
)

// scrubber remembers which tile is next.
type scrubber struct {
	mu   sync.Mutex
	next int64
}

// Scrub rehashes one tile of 256 entries and holds it, tile by tile, up to the
// published root; the next call takes the next tile, and after the last the
// first. bbolt serves a page with a flipped bit without a word; this is what
// finds it while the server runs. A finding is returned and turns writes off:
// what would be signed next would stand on it.
//
// Before that it does what waits for a quiet moment: it tries whether storage
// that failed works again, and rewrites files that still hold what was erased.
// What fails of this is told by Writes and Health.
func (s *Store) Scrub(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.scrub.mu.Lock()
	defer s.scrub.mu.Unlock()
	s.upkeep(ctx)
	snap := s.Snapshot()
	if s.scrub.next*tileWidth >= snap.Tree.Size {
		s.scrub.next = 0
	}
	n := s.scrub.next
	err := s.ledger.Read(func(tx *bbolt.Tx) error { return scrubTile(tx, n, snap) })
	if isClosed(err) {
		return ErrClosed
	}
	s.scrub.next++
	if err == nil {
		s.scrubDetails(ctx, n, snap)
		return nil
	}
	if !errors.Is(err, kv.ErrCorrupt) {
		return err
	}
	s.bar(fmt.Sprintf("scrub of entries from %d on: %v", n*tileWidth, err))
	return err
}

// upkeep leaves a store with a finding as it was found.
func (s *Store) upkeep(ctx context.Context) {
	if s.cfg.ReadOnly || s.health.barred() != nil {
		return
	}
	s.Probe(ctx)
	s.health.note(taskCompact, errors.Join(s.details.Compact(), s.objects.Compact()))
}

// scrubDetails reads the details of a tile: see LostDetails. No change stands on
// one, so writes go on.
func (s *Store) scrubDetails(ctx context.Context, n int64, snap *Snapshot) {
	for i := n * tileWidth; i < min((n+1)*tileWidth, snap.Tree.Size) && ctx.Err() == nil; i++ {
		_, _ = s.Detail(i)
	}
}

func scrubTile(tx *bbolt.Tx, n int64, snap *Snapshot) error {
	for i := n * tileWidth; i < min((n+1)*tileWidth, snap.Tree.Size); i++ {
		if _, err := checkLeaf(tx, i); err != nil {
			return err
		}
	}
	return climb(tx, 0, n, snap)
}

// climb holds a full tile against its hash in the tile above, up to the first
// that isn't full, and the edge of the tree against the published root.
func climb(tx *bbolt.Tx, level int, n int64, snap *Snapshot) error {
	tiles := tx.Bucket(bucketTiles)
	for ; (n+1)*tileWidth <= snap.Tree.Size>>(tileHeight*level); level++ {
		row := tiles.Get(tileKey{level, n}.bytes())
		if len(row) != tileWidth*tlog.HashSize {
			return fmt.Errorf("tile %d/%d has %d bytes: %w", level, n, len(row), kv.ErrCorrupt)
		}
		above := tiles.Get(tileKey{level + 1, n >> tileHeight}.bytes())
		at := int(n%tileWidth) * tlog.HashSize
		if len(above) < at+tlog.HashSize || hashTile(row) != tlog.Hash(above[at:at+tlog.HashSize]) {
			return fmt.Errorf("tile %d/%d does not have the hash that the tile above it holds: %w", level, n, kv.ErrCorrupt)
		}
		n >>= tileHeight
	}
	root, err := rootAt(tx, snap.Tree.Size)
	if err == nil && root != snap.Tree.Root {
		err = fmt.Errorf("the tiles don't hash to the published root: %w", kv.ErrCorrupt)
	}
	return err
}
