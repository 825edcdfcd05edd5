package bundler

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // Git's own format
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
)

// Bounds of one fetch. A host that sends more is refused, and what was here
// stays.
const (
	maxPackBytes   = 2<<30 - 1 // compressed
	maxPackObjects = 2 << 20
	maxPackWork    = 16 << 30 // bytes inflated to name every object
	maxPackRounds  = 64       // over differences that stand before what they are to
)

// A packReceiver names every object of a pack that came without an index.
type packReceiver struct {
	packFile
	sum     []byte // what the pack ends with
	work    int64  // bytes that may still be inflated
	objects []packPlace
	deltas  []int // those of them that have no name yet
}

// A packPlace is where an object lies, and the CRC of its bytes there.
type packPlace struct {
	id  plumbing.Hash
	at  int64
	crc uint32
}

func receivePack(r io.ReaderAt, size, work int64) (*packReceiver, error) {
	p := &packReceiver{work: work, packFile: packFile{
		r: r, size: size, found: map[plumbing.Hash]int64{}, room: newDeltaRoom(),
	}}
	count, err := packCount(r)
	if err != nil {
		return nil, err
	}
	if p.sum, err = checkedSum(r, size); err != nil {
		return nil, err
	}
	at := int64(12)
	for range count {
		if at, err = p.scan(at); err != nil {
			return nil, err
		}
	}
	if at != size-20 {
		return nil, damaged("bytes behind the last object")
	}
	return p, p.nameDeltas()
}

// packCount reads how many objects a pack says that it has.
func packCount(r io.ReaderAt) (uint32, error) {
	var head [12]byte
	if _, err := r.ReadAt(head[:], 0); err != nil || !bytes.HasPrefix(head[:], []byte("PACK\x00\x00\x00\x02")) {
		return 0, damaged("no pack of version 2")
	}
	n := binary.BigEndian.Uint32(head[8:])
	if n > maxPackObjects {
		return 0, fmt.Errorf("a pack of %d objects, the limit is %d: %w", n, maxPackObjects, errHeavy)
	}
	return n, nil
}

// scan reads one object and returns where the next one begins.
func (p *packReceiver) scan(at int64) (int64, error) {
	h, err := p.header(at)
	if err != nil {
		return 0, err
	}
	if p.work -= h.size; p.work < 0 {
		return 0, fmt.Errorf("a pack that inflates to more than its limit: %w", errHeavy)
	}
	o := packPlace{at: at}
	used, err := p.inflate(h, func(r io.Reader) error {
		if h.delta() {
			return copyExactly(io.Discard, r, h.size)
		}
		sum := plumbing.NewHasher(h.kind, h.size)
		err := copyExactly(sum, r, h.size)
		o.id = sum.Sum()
		return err
	})
	if err != nil {
		return 0, err
	}
	next := h.body + used
	sum := crc32.NewIEEE()
	if _, err := io.Copy(sum, io.NewSectionReader(p.r, at, next-at)); err != nil {
		return 0, err
	}
	if o.crc = sum.Sum32(); h.delta() {
		p.deltas = append(p.deltas, len(p.objects))
	} else {
		p.found[o.id] = at
	}
	p.objects = append(p.objects, o)
	return next, nil
}

func copyExactly(w io.Writer, r io.Reader, n int64) error {
	if _, err := io.CopyN(w, r, n); err != nil {
		return damaged("%w", err)
	}
	return ended(r)
}

// nameDeltas resolves differences, again and again while some of them are to
// others that have no name yet. Git puts those first, so that one round does.
func (p *packReceiver) nameDeltas() error {
	var err error
	for range maxPackRounds {
		waiting := p.deltas[:0]
		for _, i := range p.deltas {
			o := &p.objects[i]
			var got packedObject
			got, err = p.objectAt(o.at, &p.work)
			switch {
			case errors.Is(err, errNoBase):
				waiting = append(waiting, i)
			case err != nil:
				return err
			default:
				o.id = plumbing.ComputeHash(got.kind, got.data)
				p.found[o.id] = o.at
			}
		}
		if p.deltas = waiting; len(waiting) == 0 {
			return nil
		}
	}
	return err
}

// checkedSum compares the checksum that a pack ends with to its bytes.
func checkedSum(r io.ReaderAt, size int64) (sum []byte, err error) {
	h := sha1.New() //nolint:gosec // Git's own format
	if _, err := io.Copy(h, io.NewSectionReader(r, 0, size-20)); err != nil {
		return nil, err
	}
	if sum, err = io.ReadAll(io.NewSectionReader(r, size-20, 20)); err == nil && !bytes.Equal(sum, h.Sum(nil)) {
		err = damaged("the checksum of the pack is wrong")
	}
	return sum, err
}

// writeIndex writes what an .idx file of version 2 holds.
func (p *packReceiver) writeIndex(w io.Writer) error {
	slices.SortFunc(p.objects, func(a, b packPlace) int { return bytes.Compare(a.id[:], b.id[:]) })
	objects := slices.CompactFunc(p.objects, func(a, b packPlace) bool { return a.id == b.id })
	sum := sha1.New() //nolint:gosec // Git's own format
	out := bytes.NewBuffer(slices.Clone(indexMagic))
	for n, i := 0, 0; i < 256; i++ {
		for n < len(objects) && int(objects[n].id[0]) <= i {
			n++
		}
		out.Write(binary.BigEndian.AppendUint32(nil, uint32(n)))
	}
	for _, o := range objects {
		out.Write(o.id[:])
	}
	for _, o := range objects {
		out.Write(binary.BigEndian.AppendUint32(nil, o.crc))
	}
	for _, o := range objects {
		out.Write(binary.BigEndian.AppendUint32(nil, uint32(o.at)))
	}
	out.Write(p.sum)
	sum.Write(out.Bytes())
	out.Write(sum.Sum(nil))
	_, err := out.WriteTo(w)
	return err
}
