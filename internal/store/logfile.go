package store

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealstone/sealstone/api"
)

// Content types of the files of a log.
const (
	typeText   = "text/plain; charset=utf-8"
	typeBinary = "application/octet-stream"
	typeLines  = "application/jsonl"
)

func noFile(path string) error {
	return &api.Error{Code: api.CodeNotFound, Detail: fmt.Sprintf("the log has no file %.120q", path), Err: ErrNotFound}
}

// LogFile answers a path below /log/ as C2SP tlog-tiles has it: "checkpoint",
// "tile/<L>/<N>[.p/<W>]", "tile/entries/<N>[.p/<W>]", and our "proof/<index>" and
// "details/<N>", a line of JSON for each detail of an entry bundle.
// Only the one spelling of a path is accepted, only what the published tree
// covers is served, and immutable says that the answer will never change.
func (s *Store) LogFile(path string) (body []byte, contentType string, immutable bool, err error) {
	switch {
	case path == "checkpoint":
		body, err = s.checkpoint(s.Snapshot())
		return body, typeText, false, err
	case strings.HasPrefix(path, "proof/"):
		rest := strings.TrimPrefix(path, "proof/")
		index, err := strconv.ParseInt(rest, 10, 64)
		if err != nil || strconv.FormatInt(index, 10) != rest {
			return nil, "", false, noFile(path)
		}
		body, err = s.TlogProof(index)
		return body, typeText, false, err
	case strings.HasPrefix(path, "details/"):
		t, ok := parseTile("tile/0/" + strings.TrimPrefix(path, "details/"))
		if !ok || t.W != tileWidth || !s.covers(0, t.N, 1) {
			return nil, "", false, noFile(path)
		}
		body, err = s.detailLines(t.N)
		return body, typeLines, false, err
	}
	t, ok := parseTile(path)
	if !ok {
		return nil, "", false, noFile(path)
	}
	if t.L < 0 {
		body, err = s.Entries(t.N, t.W)
	} else {
		body, err = s.Tile(int64(t.L), t.N, t.W)
	}
	return body, typeBinary, err == nil, err
}

// parseTile reads a C2SP tile path. It differs from x/mod's only in the height,
// which is always 8 and not written, and in "entries" for "data"; x/mod refuses
// every spelling but one.
func parseTile(path string) (tlog.Tile, bool) {
	rest, ok := strings.CutPrefix(path, "tile/")
	if !ok || strings.HasPrefix(rest, "data/") {
		return tlog.Tile{}, false
	}
	if n, ok := strings.CutPrefix(rest, "entries/"); ok {
		rest = "data/" + n
	}
	t, err := tlog.ParseTilePath("tile/8/" + rest)
	return t, err == nil && t.L < 64
}

// Tile returns the first width hashes of tile n of a level: ErrNotFound unless
// the published tree has that many.
func (s *Store) Tile(level, n int64, width int) (body []byte, err error) {
	if !s.covers(level, n, width) {
		return nil, noFile(fmt.Sprintf("tile/%d/%d, width %d", level, n, width))
	}
	err = s.ledger.Read(func(tx *bbolt.Tx) error {
		row := tx.Bucket(bucketTiles).Get(tileKey{int(level), n}.bytes())
		if len(row) < width*tlog.HashSize {
			return fmt.Errorf("tile %d/%d has %d bytes: %w", level, n, len(row), ErrCorrupt)
		}
		body = append([]byte{}, row[:width*tlog.HashSize]...)
		return climb(tx, int(level), n, s.Snapshot())
	})
	if err != nil {
		return nil, s.lost(fmt.Sprintf("tile/%d/%d", level, n), err)
	}
	return body, nil
}

// Entries returns width leaves from 256·n on, each with its length in front. They
// are held to the published root: proxies keep for ever what is served here.
func (s *Store) Entries(n int64, width int) (body []byte, err error) {
	if !s.covers(0, n, width) {
		return nil, noFile(fmt.Sprintf("tile/entries/%d, width %d", n, width))
	}
	err = s.ledger.Read(func(tx *bbolt.Tx) error {
		for i := range int64(width) {
			leaf, err := checkLeaf(tx, n*tileWidth+i)
			if err != nil {
				return err
			}
			body = append(binary.BigEndian.AppendUint16(body, uint16(len(leaf))), leaf...)
		}
		return climb(tx, 0, n, s.Snapshot())
	})
	if err != nil {
		return nil, s.lost(fmt.Sprintf("tile/entries/%d", n), err)
	}
	return body, nil
}

// covers reports whether the published tree has a tile of that width.
func (s *Store) covers(level, n int64, width int) bool {
	if level < 0 || level > 7 || n < 0 || width < 1 || width > tileWidth || n > 1<<54 {
		return false
	}
	return n*tileWidth+int64(width) <= s.Snapshot().Tree.Size>>(tileHeight*level)
}
