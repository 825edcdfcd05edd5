package kv

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"

	"go.etcd.io/bbolt"
)

// The layout of bbolt's meta pages, from its file format version 2: a page
// header of 16 bytes, then magic, version, page size, flags (4 bytes each),
// root bucket (16), freelist, high-water mark, transaction id, checksum (8 each).
const (
	pageHeader    = 16
	metaSize      = 64
	metaMagic     = 0xED0CDAED
	metaPageSize  = 8
	metaRoot      = 16
	metaFreelist  = 32
	metaHighWater = 40
	metaTx        = 48
	metaChecksum  = 56
)

// guard refuses a file that ends before the pages that its newest valid meta page
// counts, or whose pages would lead bbolt round in circles. Files without a valid
// meta page are left to bbolt, which says what is wrong with them.
func guard(path string, opt Options) error {
	ok, err := exists(path)
	if err != nil {
		return err
	}
	if !ok {
		if opt.MustExist || opt.ReadOnly {
			return fmt.Errorf("%w: %w", ErrNotFound, fs.ErrNotExist)
		}
		return nil
	}
	found := look(path, opt.Whole)
	if !Damaged(found) {
		return found
	}
	opt.ReadOnly = true // of a file that is being written nothing is known: it is one only under the lock
	held, err := bbolt.Open(path, 0o600, boltOptions(opt))
	if err = openError(err); errors.Is(err, ErrLocked) {
		return err
	} else if err != nil {
		return found
	}
	return errors.Join(look(path, opt.Whole), held.Close())
}

func look(path string, whole bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	m, ok := newest(f)
	if !ok {
		return nil
	}
	if have := uint64(info.Size()) / m.pageSize; have < max(m.highWater, 2) {
		return fmt.Errorf("%w: %d of %d pages", ErrTruncated, have, max(m.highWater, 2))
	}
	return checkPages(f, m, whole)
}

// newest is the meta page that bbolt will go by.
func newest(f *os.File) (m meta, ok bool) {
	if first, ok := readMeta(f, 0); ok {
		second, ok := readMeta(f, int64(first.pageSize))
		if ok && second.tx > first.tx {
			return second, true
		}
		return first, true
	}
	for size := int64(1024); size <= 16<<20; size <<= 1 { // the first page is torn: its size is unknown
		if second, ok := readMeta(f, size); ok && second.pageSize == uint64(size) {
			return second, true
		}
	}
	return meta{}, false
}

type meta struct {
	pageSize, root, freelist, highWater, tx uint64
}

func readMeta(f *os.File, at int64) (meta, bool) {
	var b [pageHeader + metaSize]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return meta{}, false
	}
	m := b[pageHeader:]
	sum := fnv.New64a()
	_, _ = sum.Write(m[:metaChecksum]) // never fails
	if ne.Uint32(m) != metaMagic || ne.Uint64(m[metaChecksum:]) != sum.Sum64() || ne.Uint32(m[metaPageSize:]) < 1024 {
		return meta{}, false
	}
	return meta{uint64(ne.Uint32(m[metaPageSize:])), ne.Uint64(m[metaRoot:]), ne.Uint64(m[metaFreelist:]), ne.Uint64(m[metaHighWater:]), ne.Uint64(m[metaTx:])}, true
}
