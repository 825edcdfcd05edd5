// Package mirror reads a log as any C2SP tlog-tiles client does, and keeps a
// copy of it that any web server can serve.
//
//	l, err := mirror.Open(ctx, source, trust) // the checkpoint, verified
//	leaves, err := l.Entries(ctx, 0)          // each held, by tiles, to its root
//
//	m := mirror.Mirror{Dir: dir, Source: source, Trust: trust}
//	tree, changed, err := m.Sync(ctx)         // *Divergence: the log forked, or was rolled back
//
// # What a mirror holds
//
//	DIR/log/checkpoint, DIR/log/tile/...   what a web server serves as /log/
//	DIR/details/<N>                        details of a page, if asked for; mode 0600, and erasable
//	DIR/trust.json                         the trust file that it was verified with, all versions
//	DIR/evidence/<what>-<hash>/            both checkpoints, where the log contradicted itself
//
// Leaves and details are all that a ledger can't do without: tiles, fold and
// index follow from the leaves, and objects from Git. A page is up to 256 entries
// from a multiple of 256 on: what C2SP calls an entry bundle.
package mirror

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealstone/sealstone/ledger"
)

const (
	height = 8
	width  = 1 << height

	maxFile = 32 << 20 // a full page of entries is half of it
)

// Source reads a file of a log by its path below /log/: "checkpoint",
// "tile/...", or "details/<N>". A file that isn't there is an error.
type Source func(ctx context.Context, path string) ([]byte, error)

// Dir reads a mirror's directory.
func Dir(dir string) Source {
	return func(_ context.Context, path string) ([]byte, error) { return readFile(place(dir, path)) }
}

// place is where a file lies. Details are kept apart, so that a web server that
// is given DIR/log can't show them.
func place(dir, path string) string {
	if !strings.HasPrefix(path, "details/") {
		path = "log/" + path
	}
	return filepath.Join(dir, filepath.FromSlash(path))
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("%s is over %d bytes", path, maxFile)
	}
	return b, err
}

// ErrDamaged says that what was read is not what the checkpoint signs.
var ErrDamaged = errors.New("the log does not hold what its checkpoint signs")

// Log is one signed state of a log. Its methods are for one goroutine.
type Log struct {
	ledger.Tree
	Checkpoint []byte

	src     Source
	read    []string                          // the tiles that were asked for last
	tiles   map[string][]byte                 // that every proof needs: verified, above level 0 or at the edge
	save    func(path string, b []byte) error // each tile that was verified; nil: none
	saveErr error
}

// Open reads the checkpoint and verifies its signature.
func Open(ctx context.Context, src Source, trust *ledger.Trust) (*Log, error) {
	cp, err := src(ctx, "checkpoint")
	if err != nil {
		return nil, err
	}
	return opened(cp, src, trust)
}

func opened(cp []byte, src Source, trust *ledger.Trust) (*Log, error) {
	tree, err := trust.OpenCheckpoint(cp)
	if err != nil {
		return nil, err
	}
	return &Log{Tree: tree, Checkpoint: cp, src: src, tiles: map[string][]byte{}}, nil
}

// RootAt is the root of the log's first size entries, by tiles that hash to the
// signed root.
func (l *Log) RootAt(ctx context.Context, size int64) (tlog.Hash, error) {
	switch size {
	case 0:
		return ledger.EmptyRoot(), nil
	case l.Size:
		return l.Root, nil
	}
	return tlog.TreeHash(size, l.hashes(ctx))
}

// Pages is how many pages the log has.
func (l *Log) Pages() int64 { return (l.Size + width - 1) / width }

// Entries reads the leaves from 256·n on, 256 or what there is, and holds each
// to the signed root.
func (l *Log) Entries(ctx context.Context, n int64) ([][]byte, error) {
	path := l.entriesPath(n)
	b, err := l.src(ctx, path)
	if err != nil {
		return nil, err
	}
	return l.checkEntries(ctx, n, b)
}

func (l *Log) entriesPath(n int64) string {
	return tilePath(tlog.Tile{H: height, L: -1, N: n, W: l.widthOf(n)})
}

func (l *Log) widthOf(n int64) int { return int(min(width, l.Size-n*width)) }

// checkEntries takes a page apart and compares it with the verified tile.
func (l *Log) checkEntries(ctx context.Context, n int64, b []byte) ([][]byte, error) {
	leaves := split(b)
	if len(leaves) != l.widthOf(n) {
		return nil, fmt.Errorf("%w: page %d is not %d entries", ErrDamaged, n, l.widthOf(n))
	}
	at := make([]int64, len(leaves))
	for i := range at {
		at[i] = tlog.StoredHashIndex(0, n*width+int64(i))
	}
	want, err := l.hashes(ctx).ReadHashes(at)
	if err != nil {
		return nil, err
	}
	for i, leaf := range leaves {
		if tlog.RecordHash(leaf) != want[i] {
			return nil, fmt.Errorf("%w: entry %d is not the one that its tile names", ErrDamaged, n*width+int64(i))
		}
	}
	return leaves, nil
}

// split takes a page apart; nil when it isn't one.
func split(b []byte) (leaves [][]byte) {
	for len(b) >= 2 {
		size := 2 + int(binary.BigEndian.Uint16(b))
		if len(b) < size {
			return nil
		}
		leaves, b = append(leaves, b[2:size]), b[size:]
	}
	if len(b) > 0 {
		return nil
	}
	return leaves
}

// tilePath spells a tile as C2SP does.
func tilePath(t tlog.Tile) string {
	path := strings.Replace(t.Path(), "tile/8/", "tile/", 1)
	return strings.Replace(path, "tile/data/", "tile/entries/", 1)
}

func (l *Log) hashes(ctx context.Context) tlog.HashReader {
	return reader{tlog.TileHashReader(tlog.Tree{N: l.Size, Hash: l.Root}, tileReader{ctx, l}), l}
}

// reader says of tiles that contradict the root which they are.
type reader struct {
	tlog.HashReader
	l *Log
}

func (r reader) ReadHashes(at []int64) ([]tlog.Hash, error) {
	h, err := r.HashReader.ReadHashes(at)
	if err != nil && strings.Contains(err.Error(), "inconsistent tile") {
		err = fmt.Errorf("%w: one of %s does not hash to the root", ErrDamaged, strings.Join(r.l.read, ", "))
	}
	return h, err
}

// tileReader fetches tiles; x/mod verifies them and then gives them to SaveTiles.
type tileReader struct {
	ctx context.Context
	l   *Log
}

func (tileReader) Height() int { return height }

func (r tileReader) ReadTiles(list []tlog.Tile) (out [][]byte, err error) {
	r.l.read = nil
	for _, t := range list {
		r.l.read = append(r.l.read, tilePath(t))
		b, ok := r.l.tiles[t.Path()]
		if !ok {
			if b, err = r.l.src(r.ctx, tilePath(t)); err != nil {
				return nil, err
			}
			if len(b) != t.W*tlog.HashSize {
				return nil, fmt.Errorf("%w: %s has %d bytes, want %d", ErrDamaged, tilePath(t), len(b), t.W*tlog.HashSize)
			}
		}
		out = append(out, b)
	}
	return out, nil
}

func (r tileReader) SaveTiles(list []tlog.Tile, data [][]byte) {
	for i, t := range list {
		_, known := r.l.tiles[t.Path()]
		if !known && r.l.save != nil {
			r.l.saveErr = errors.Join(r.l.saveErr, r.l.save(tilePath(t), data[i]))
		}
		if t.L > 0 || t.W < width {
			r.l.tiles[t.Path()] = data[i]
		}
	}
}
