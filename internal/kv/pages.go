package kv

import (
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"sync"
)

// The layout of bbolt's other pages: a header of 16 bytes (id 8, flags 2, count
// 2, further pages that belong to it 4), then elements of 16 bytes. Of a branch:
// where its key lies, counted from the element, its size (4 each), and the page
// that it leads to (8). Of a leaf: flags, where, size of key and value (4 each).
const (
	pageBranch   = 0x01
	pageLeaf     = 0x02
	pageFree     = 0x10
	pageElement  = 16
	leafIsBucket = 0x01
	bucketHeader = 16 // of a bucket's value: its root page, or 0 and the page itself behind it; a counter

	maxLevels = 32             // of a tree: bbolt's have five at a terabyte
	atOnce    = 16             // reads under way
	maxFew    = 0xFFFF         // a freelist of as many counts them in its first element
	noList    = math.MaxUint64 // the file has no freelist
)

var ne = binary.NativeEndian

// pages is a walk from a meta page over the pages that it leads to, without
// bbolt: on a page that leads back to itself, or to one above, bbolt recurses
// until the stack or the memory ends, and no net catches that. Each page may be
// led to once. Leaf pages lead nowhere, but for those of the root, which name the
// buckets: of others only the head is read, and only when the whole is asked for.
type pages struct {
	meta
	f     io.ReaderAt
	whole bool
	taken []uint64 // a bit for each page
	buf   page
}

func checkPages(f io.ReaderAt, m meta, whole bool) error {
	return (&pages{meta: m, f: f, whole: whole, taken: make([]uint64, m.highWater/64+1)}).all()
}

func (w *pages) all() error {
	if err := w.take(0, 0, 2); err != nil {
		return err
	}
	if err := w.tree(w.root, true); err != nil || w.freelist == noList {
		return err
	}
	return w.free()
}

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrStructure}, args...)...)
}

// take marks n pages that another one leads to.
func (w *pages) take(by, id, n uint64) error {
	if n > w.highWater || id > w.highWater-n {
		return bad("page %d leads to page %d, and the file has %d", by, id, w.highWater)
	}
	for i := id; i < id+n; i++ {
		if w.taken[i/64]>>(i%64)&1 != 0 {
			return bad("page %d leads to page %d, which is in use already", by, i)
		}
		w.taken[i/64] |= 1 << (i % 64)
	}
	return nil
}

// page is a page as it lies in the file.
type page []byte

func (p page) flags() uint16         { return ne.Uint16(p[8:]) }
func (p page) count() uint64         { return uint64(ne.Uint16(p[10:])) }
func (p page) further() uint64       { return uint64(ne.Uint32(p[12:])) }
func (p page) element(i uint64) page { return p[pageHeader+i*pageElement:] }

// holds tells whether n bytes lie within the page from an element's own start on.
func (p page) holds(i, n uint64) bool { return pageHeader+i*pageElement+n <= uint64(len(p)) }

// read reads the first n bytes of a page, over what was read before.
func (w *pages) read(id, n uint64) (page, error) {
	if uint64(len(w.buf)) < n {
		w.buf = make(page, n)
	}
	p := w.buf[:n]
	if _, err := w.f.ReadAt(p, int64(id*w.pageSize)); err != nil {
		return nil, err
	}
	if own := ne.Uint64(p); own != id {
		return nil, bad("page %d says that it is page %d", id, own)
	}
	return p, nil
}

// load reads a whole page of a kind, and takes the further ones that belong to it.
func (w *pages) load(id uint64, kind uint16) (page, error) {
	p, err := w.read(id, w.pageSize)
	if err != nil {
		return nil, err
	}
	if p.flags() != kind {
		return nil, bad("page %d has flags %#x, want %#x", id, p.flags(), kind)
	}
	if err := w.take(id, id+1, p.further()); err != nil || p.further() == 0 {
		return p, err
	}
	return w.read(id, (1+p.further())*w.pageSize)
}

// tree walks a bucket down level by level; all leaves are on the last.
func (w *pages) tree(root uint64, names bool) error {
	if err := w.take(root, root, 1); err != nil {
		return err
	}
	level := []uint64{root}
	for range maxLevels {
		first, err := w.read(level[0], pageHeader)
		if err != nil {
			return err
		}
		if first.flags() == pageLeaf {
			return w.leaves(level, names)
		}
		if level, err = w.below(level); err != nil {
			return err
		}
	}
	return bad("page %d is the root of more than %d levels", root, maxLevels)
}

// below are the pages that a level of branch pages leads to.
func (w *pages) below(level []uint64) (next []uint64, err error) {
	slices.Sort(level)
	w.warm(level)
	for _, id := range level {
		p, err := w.load(id, pageBranch)
		if err != nil {
			return nil, err
		}
		if p.count() == 0 {
			return nil, bad("page %d leads nowhere", id)
		}
		for i := range p.count() {
			if !p.holds(i, pageElement) || !p.holds(i, uint64(ne.Uint32(p.element(i)))+uint64(ne.Uint32(p.element(i)[4:]))) {
				return nil, bad("page %d does not hold its element %d", id, i)
			}
			to := ne.Uint64(p.element(i)[8:])
			if err := w.take(id, to, 1); err != nil {
				return nil, err
			}
			next = append(next, to)
		}
	}
	return next, nil
}

// warm asks a cold disk for many pages at a time: one by one, a start would wait
// for thousands of answers. What can't be read is told by load.
func (w *pages) warm(level []uint64) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for k := range min(atOnce, len(level)) {
		wg.Go(func() {
			var head [pageHeader]byte
			for i := k; i < len(level); i += atOnce {
				_, _ = w.f.ReadAt(head[:], int64(level[i]*w.pageSize))
			}
		})
	}
}

// leaves takes the pages of a bucket's last level.
func (w *pages) leaves(level []uint64, names bool) error {
	if w.whole {
		slices.Sort(level) // as a disk likes to be read
	}
	for _, id := range level {
		switch {
		case names:
			if err := w.buckets(id); err != nil {
				return err
			}
		case w.whole:
			p, err := w.read(id, pageHeader)
			if err != nil {
				return err
			}
			if p.flags() != pageLeaf {
				return bad("page %d has flags %#x, want %#x", id, p.flags(), pageLeaf)
			}
			if err := w.take(id, id+1, p.further()); err != nil {
				return err
			}
		}
	}
	return nil
}

// buckets walks the buckets that a leaf page of the root names.
func (w *pages) buckets(id uint64) error {
	p, err := w.load(id, pageLeaf)
	if err != nil {
		return err
	}
	p = slices.Clone(p)
	for i := range p.count() {
		v, err := p.value(id, i)
		if err != nil {
			return err
		}
		if v == nil {
			continue
		}
		if root := ne.Uint64(v); root != 0 {
			err = w.tree(root, false)
		} else if in := page(v[bucketHeader:]); len(in) < pageHeader || in.flags() != pageLeaf {
			err = bad("element %d of page %d is no page", i, id)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// value is what an element of a leaf page says of a bucket; nil when it is none.
func (p page) value(id, i uint64) ([]byte, error) {
	if !p.holds(i, pageElement) {
		return nil, bad("page %d does not hold its element %d", id, i)
	}
	e := p.element(i)
	at, size := uint64(ne.Uint32(e[4:]))+uint64(ne.Uint32(e[8:])), uint64(ne.Uint32(e[12:]))
	if !p.holds(i, at+size) {
		return nil, bad("page %d does not hold its element %d", id, i)
	}
	if ne.Uint32(e)&leafIsBucket == 0 {
		return nil, nil
	}
	if size < bucketHeader {
		return nil, bad("element %d of page %d is no bucket", i, id)
	}
	return e[at : at+size], nil
}

// free takes the pages of the freelist, and those that it lists: a write through
// one that lists a page in use would put another in its place.
func (w *pages) free() error {
	if err := w.take(w.freelist, w.freelist, 1); err != nil {
		return err
	}
	p, err := w.load(w.freelist, pageFree)
	if err != nil {
		return err
	}
	ids, n := p[pageHeader:], p.count()
	if n == maxFew {
		n, ids = ne.Uint64(ids), ids[8:]
	}
	if n > uint64(len(ids))/8 {
		return bad("page %d lists %d free pages, and has room for %d", w.freelist, n, len(ids)/8)
	}
	for i := range n {
		if err := w.take(w.freelist, ne.Uint64(ids[8*i:]), 1); err != nil {
			return err
		}
	}
	return nil
}
