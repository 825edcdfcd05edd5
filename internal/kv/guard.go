package kv

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
)

// The layout of bbolt's meta pages, from its file format version 2: a page
// header of 16 bytes, then magic, version, page size, flags (4 bytes each),
// root bucket (16), freelist, high-water mark, transaction id, checksum (8 each).
const (
	pageHeader    = 16
	metaSize      = 64
	metaMagic     = 0xED0CDAED
	metaPageSize  = 8
	metaHighWater = 40
	metaTx        = 48
	metaChecksum  = 56
)

// guardSize refuses a file that ends before the pages that its newest valid
// meta page counts. Files without a valid meta page are left to bbolt, which
// says what is wrong with them.
func guardSize(path string, opt Options) error {
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
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if need := needed(f); info.Size() < need {
		return fmt.Errorf("%w: %d of %d bytes", ErrTruncated, info.Size(), need)
	}
	return nil
}

// needed is how long the file must be, 0 when no meta page is valid.
func needed(f *os.File) int64 {
	first, ok0 := readMeta(f, 0)
	if ok0 {
		second, ok1 := readMeta(f, first.pageSize)
		if ok1 && second.tx > first.tx {
			return second.size()
		}
		return max(first.size(), 2*first.pageSize)
	}
	for size := int64(1024); size <= 16<<20; size <<= 1 { // the first page is torn: its size is unknown
		if second, ok := readMeta(f, size); ok && second.pageSize == size {
			return second.size()
		}
	}
	return 0
}

type meta struct {
	pageSize, highWater, tx int64
}

func (m meta) size() int64 { return m.pageSize * m.highWater }

func readMeta(f *os.File, at int64) (meta, bool) {
	var b [pageHeader + metaSize]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return meta{}, false
	}
	m, ne := b[pageHeader:], binary.NativeEndian
	sum := fnv.New64a()
	_, _ = sum.Write(m[:metaChecksum]) // never fails
	if ne.Uint32(m) != metaMagic || ne.Uint64(m[metaChecksum:]) != sum.Sum64() {
		return meta{}, false
	}
	return meta{int64(ne.Uint32(m[metaPageSize:])), int64(ne.Uint64(m[metaHighWater:])), int64(ne.Uint64(m[metaTx:]))}, true
}
