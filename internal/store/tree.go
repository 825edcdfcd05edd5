package store

import (
	"fmt"
	"slices"

	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealstone/sealstone/internal/kv"
	"github.com/sealstone/sealstone/ledger"
)

const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// tileKey names a tile row: level, n.
type tileKey struct {
	level int
	n     int64
}

func (k tileKey) bytes() []byte { return append([]byte{byte(k.level)}, be64(k.n)...) }

// tree is the growing edge of the Merkle tree: the rightmost tile of each
// level that isn't full. It is enough to add leaves and to compute the root.
type tree struct {
	size  int64
	edge  [][]byte    // by level, 0 to 255 hashes
	peaks []tlog.Hash // of the full subtrees, the largest first: one for each bit of size
}

func (t *tree) clone() *tree {
	c := &tree{size: t.size, edge: make([][]byte, len(t.edge)), peaks: slices.Clone(t.peaks)}
	for i, e := range t.edge {
		c.edge[i] = slices.Clone(e)
	}
	return c
}

// add appends a leaf hash and notes in dirty every tile row that changes.
func (t *tree) add(h tlog.Hash, dirty map[tileKey][]byte) {
	n := t.size
	t.size++
	t.raise(n, h)
	for level := 0; ; level++ {
		if level == len(t.edge) {
			t.edge = append(t.edge, nil)
		}
		tile := append(t.edge[level], h[:]...)
		t.edge[level] = tile
		n >>= tileHeight
		dirty[tileKey{level, n}] = tile
		if len(tile) < tileWidth*tlog.HashSize {
			return
		}
		t.edge[level] = nil
		h = hashTile(tile)
	}
}

// raise makes the next peak: a leaf takes in every peak of its own height.
func (t *tree) raise(size int64, h tlog.Hash) {
	for ; size&1 == 1; size >>= 1 {
		last := len(t.peaks) - 1
		h, t.peaks = tlog.NodeHash(t.peaks[last], h), t.peaks[:last]
	}
	t.peaks = append(t.peaks, h)
}

// root is the root of all that was added.
func (t *tree) root() tlog.Hash {
	if len(t.peaks) == 0 {
		return ledger.EmptyRoot()
	}
	last := len(t.peaks) - 1
	root := t.peaks[last]
	for _, p := range slices.Backward(t.peaks[:last]) {
		root = tlog.NodeHash(p, root)
	}
	return root
}

// peaksOf cuts the rightmost tile of a level into full subtrees.
func peaksOf(tile []byte) (out []tlog.Hash) {
	for width := tileWidth / 2 * tlog.HashSize; width >= tlog.HashSize; width /= 2 {
		if len(tile)&width != 0 {
			out, tile = append(out, hashTile(tile[:width])), tile[width:]
		}
	}
	return out
}

// hashTile is the root of a tile whose width is a power of two.
func hashTile(data []byte) tlog.Hash {
	if len(data) == tlog.HashSize {
		return tlog.Hash(data)
	}
	half := len(data) / 2
	return tlog.NodeHash(hashTile(data[:half]), hashTile(data[half:]))
}

// readHashes answers a tlog.HashReader out of tile rows.
func readHashes(indexes []int64, row func(tileKey) []byte) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		tile := tlog.TileForIndex(tileHeight, x)
		h, err := tlog.HashFromTile(tile, row(tileKey{tile.L, tile.N}), x)
		if err != nil {
			return nil, fmt.Errorf("tile %d/%d: %w: %w", tile.L, tile.N, kv.ErrCorrupt, err)
		}
		out[i] = h
	}
	return out, nil
}

// hashReader reads hashes from the tile rows of a transaction.
func hashReader(tx *bbolt.Tx) tlog.HashReader {
	b := tx.Bucket(bucketTiles)
	return tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		return readHashes(indexes, func(k tileKey) []byte {
			if b == nil {
				return nil
			}
			return b.Get(k.bytes())
		})
	})
}

// loadTree reads the edge from rows and holds it to the head row's root.
func loadTree(tx *bbolt.Tx, head ledger.Tree) (*tree, error) {
	t := &tree{size: head.Size}
	b := tx.Bucket(bucketTiles)
	for level := 0; b != nil && head.Size>>(tileHeight*level) > 0; level++ {
		hashes := head.Size >> (tileHeight * level)
		k, want := tileKey{level, hashes >> tileHeight}, int(hashes%tileWidth)*tlog.HashSize
		row := b.Get(k.bytes())
		if len(row) != want {
			return nil, fmt.Errorf("tile %d/%d has %d bytes, want %d: %w", level, k.n, len(row), want, kv.ErrCorrupt)
		}
		t.edge = append(t.edge, slices.Clone(row))
	}
	for _, tile := range slices.Backward(t.edge) {
		t.peaks = append(t.peaks, peaksOf(tile)...)
	}
	if t.root() != head.Root {
		return nil, fmt.Errorf("the tiles don't hash to the head's root: %w", kv.ErrCorrupt)
	}
	return t, nil
}

// rootAt is the root of the first size leaves.
func rootAt(tx *bbolt.Tx, size int64) (tlog.Hash, error) {
	if size == 0 {
		return ledger.EmptyRoot(), nil
	}
	return tlog.TreeHash(size, hashReader(tx))
}
