package bundler

import (
	"bytes"
	"encoding/binary"
	"sort"

	"github.com/go-git/go-git/v5/plumbing"
)

// A packIndex is the bytes of an .idx file of version 2: where in the pack each
// object lies, by its id.
type packIndex struct {
	raw []byte
	n   int
}

const (
	indexHead   = 8 + 256*4
	indexRecord = 20 + 4 + 4 // id, CRC, offset; each in a list of its own
	indexTail   = 2 * 20
)

var indexMagic = []byte("\xfftOc\x00\x00\x00\x02")

func parsePackIndex(raw []byte) (packIndex, error) {
	if len(raw) < indexHead+indexTail || !bytes.HasPrefix(raw, indexMagic) {
		return packIndex{}, damaged("no index of version 2")
	}
	x := packIndex{raw: raw}
	last := 0
	for i := range 256 {
		n := int(binary.BigEndian.Uint32(raw[8+4*i:]))
		if n < last {
			return packIndex{}, damaged("an index out of order")
		}
		last = n
	}
	if x.n = last; len(raw) < indexHead+last*indexRecord+indexTail {
		return packIndex{}, damaged("an index that was cut off")
	}
	return x, nil
}

func (x packIndex) id(i int) []byte { return x.raw[indexHead+20*i:][:20] }

// from is the first place that isn't before an id, or a part of one.
func (x packIndex) from(id []byte) int {
	return sort.Search(x.n, func(i int) bool { return bytes.Compare(x.id(i), id) >= 0 })
}

func (x packIndex) find(id plumbing.Hash) (at int64, ok bool) {
	if x.n == 0 {
		return 0, false
	}
	lo, hi := 0, int(binary.BigEndian.Uint32(x.raw[8+4*int(id[0]):]))
	if id[0] > 0 {
		lo = int(binary.BigEndian.Uint32(x.raw[4+4*int(id[0]):]))
	}
	i := lo + sort.Search(hi-lo, func(i int) bool { return bytes.Compare(x.id(lo+i), id[:]) >= 0 })
	if i == hi || !bytes.Equal(x.id(i), id[:]) {
		return 0, false
	}
	return x.offset(i)
}

// offset is in 31 bits, or at a place in a list of longer ones.
func (x packIndex) offset(i int) (int64, bool) {
	short := binary.BigEndian.Uint32(x.raw[indexHead+24*x.n+4*i:])
	if short>>31 == 0 {
		return int64(short), true
	}
	place := indexHead + indexRecord*x.n + 8*int(short&(1<<31-1))
	if place+8+indexTail > len(x.raw) {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64(x.raw[place:]) & (1<<63 - 1)), true
}

// sum is the checksum of the pack that the index is for.
func (x packIndex) sum() []byte { return x.raw[len(x.raw)-indexTail:][:20] }
