package store

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealstone/sealstone/internal/kv"
	"github.com/sealstone/sealstone/ledger"
)

// Formats of the files.
const (
	formatLedger  = "sealstone ledger v1"
	formatDetails = "sealstone details v1"
	formatObjects = "sealstone objects v1"
)

// Buckets of ledger.db and details.db.
var (
	bucketEntries = []byte("e") // be64 index → leaf bytes
	bucketTiles   = []byte("t") // level ‖ be64 n → tile, at most 256 hashes; a narrower one is a prefix
	bucketHead    = []byte("m") // "head" → be64 size ‖ root
	bucketIDs     = []byte("i") // 16 bytes of a UUID → be64 index
	bucketTerms   = []byte("x") // see terms.go
	bucketTail    = []byte("y") // be64 index → terms that are not in "x" yet, see tail.go
	bucketTimes   = []byte("w") // be64 index → be64 time ‖ be64 recorded (ms) ‖ operator id
	bucketState   = []byte("s") // see fold.go
	bucketRows    = []byte("u") // the server's own small rows
	bucketDetails = []byte("d") // be64 index → salt ‖ JCS text; in details.db

	keyHead = []byte("head")
)

var ledgerBuckets = [][]byte{bucketEntries, bucketTiles, bucketHead, bucketIDs, bucketTerms, bucketTail, bucketTimes, bucketState, bucketRows}

func be64(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }

func fromBE64(b []byte) int64 {
	if len(b) != 8 {
		return -1
	}
	return int64(binary.BigEndian.Uint64(b))
}

func encodeHead(t ledger.Tree) []byte { return append(be64(t.Size), t.Root[:]...) }

// readHead returns the committed tree; that of an empty log when there is none.
func readHead(tx *bbolt.Tx) (ledger.Tree, error) {
	t := ledger.Tree{Root: ledger.EmptyRoot()}
	b := tx.Bucket(bucketHead)
	if b == nil {
		return t, nil
	}
	v := b.Get(keyHead)
	if v == nil {
		return t, nil
	}
	if len(v) != 8+tlog.HashSize {
		return t, fmt.Errorf("head row of %d bytes: %w", len(v), kv.ErrCorrupt)
	}
	t.Size = fromBE64(v[:8])
	copy(t.Root[:], v[8:])
	if t.Size < 0 {
		return t, fmt.Errorf("head row: %w", kv.ErrCorrupt)
	}
	return t, nil
}

func readLeaf(tx *bbolt.Tx, index int64) ([]byte, error) {
	var v []byte
	if b := tx.Bucket(bucketEntries); b != nil {
		v = b.Get(be64(index))
	}
	if v == nil {
		return nil, fmt.Errorf("entry %d: %w", index, kv.ErrNotFound)
	}
	return append([]byte{}, v...), nil
}

func dropBuckets(tx *bbolt.Tx, names ...[]byte) error {
	for _, name := range names {
		if tx.Bucket(name) == nil {
			continue
		}
		if err := tx.DeleteBucket(name); err != nil {
			return err
		}
	}
	return nil
}

func createBuckets(tx *bbolt.Tx, names ...[]byte) error {
	for _, name := range names {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	return nil
}
