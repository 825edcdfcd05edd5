package bundler

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"
)

// Bounds of what the objects of a pack may ask of their reader.
const (
	maxDelta = 64 << 20  // bytes of a difference, of what it is to, and of what it makes
	maxChain = 4095      // differences on the way to a whole object; git writes no more
	maxWork  = 512 << 20 // bytes inflated for the sake of one object
	bigDelta = 1 << 20   // from here on, one reader at a time
)

// A packFile is one pack, read at any place by many readers at once. Nothing
// that it says is believed: every length is held to a bound before its bytes
// are inflated.
type packFile struct {
	r     io.ReaderAt
	size  int64
	index packIndex
	found map[plumbing.Hash]int64 // objects named so far, while there is no index
	room  *deltaRoom
}

// A deltaRoom is the memory that differences are resolved in.
type deltaRoom struct {
	bases *memo[basePlace, packedObject] // small ones
	big   sync.Mutex                     // held while large ones are resolved
}

type basePlace struct {
	p  *packFile
	at int64
}

func newDeltaRoom() *deltaRoom {
	return &deltaRoom{bases: newMemo[basePlace, packedObject](objectCacheSize)}
}

// A packedObject is one in memory, resolved.
type packedObject struct {
	kind plumbing.ObjectType
	data []byte
}

// A packHeader is what stands before the compressed bytes.
type packHeader struct {
	kind   plumbing.ObjectType
	size   int64 // of the object, or of the difference
	body   int64 // where the compressed bytes begin
	base   int64 // where the object lies that the difference is to
	baseID plumbing.Hash
}

func (h packHeader) delta() bool {
	return h.kind == plumbing.OFSDeltaObject || h.kind == plumbing.REFDeltaObject
}

func (p *packFile) header(at int64) (packHeader, error) {
	var buf [32]byte
	n, _ := p.r.ReadAt(buf[:], at)
	if n < 2 || at < 0 {
		return packHeader{}, damaged("no object at %d", at)
	}
	h := packHeader{kind: plumbing.ObjectType(buf[0] >> 4 & 7), size: int64(buf[0] & 15)}
	used := 1
	if buf[0]&0x80 != 0 {
		rest, k := binary.Uvarint(buf[1:n])
		if k <= 0 || rest >= 1<<55 {
			return h, damaged("no length at %d", at)
		}
		h.size |= int64(rest) << 4
		used += k
	}
	switch h.kind {
	case plumbing.OFSDeltaObject:
		back, k := backwards(buf[used:n])
		if back <= 0 || back > at {
			return h, damaged("a difference to nothing at %d", at)
		}
		h.base = at - back
		used += k
	case plumbing.REFDeltaObject:
		used += copy(h.baseID[:], buf[used:n])
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
	default:
		return h, damaged("no kind of object at %d", at)
	}
	h.body = at + int64(used)
	return h, nil
}

// backwards reads Git's own variable-length number: each further byte adds one.
func backwards(b []byte) (n int64, used int) {
	for i, c := range b[:min(len(b), 9)] {
		n = n<<7 | int64(c&0x7f)
		if c&0x80 == 0 {
			return n, i + 1
		}
		n++
	}
	return 0, 0
}

// baseOf finds what a difference is to.
func (p *packFile) baseOf(h packHeader) (int64, error) {
	if h.kind == plumbing.OFSDeltaObject {
		return h.base, nil
	}
	if at, ok := p.found[h.baseID]; ok {
		return at, nil
	}
	if at, ok := p.index.find(h.baseID); ok {
		return at, nil
	}
	return 0, fmt.Errorf("%w: a difference to %s, which is not there", errNoBase, h.baseID)
}

// sizeAt is the size of the object at a place, of which no more than the first
// bytes are inflated.
func (p *packFile) sizeAt(at int64) (size int64, err error) {
	h, err := p.header(at)
	if err != nil || !h.delta() {
		return h.size, err
	}
	_, err = p.inflate(h, func(r io.Reader) error {
		var head [20]byte
		n, err := io.ReadFull(r, head[:])
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			return damaged("%w", err)
		}
		_, size, _, err = deltaSizes(head[:n])
		return err
	})
	return size, err
}

// inflate lends f the bytes behind a header, and says how many bytes of the
// pack f took.
func (p *packFile) inflate(h packHeader, f func(io.Reader) error) (int64, error) {
	return inflate(io.NewSectionReader(p.r, h.body, p.size-h.body), f)
}

type inflater struct {
	in *bufio.Reader
	z  io.ReadCloser
}

var inflaters = sync.Pool{New: func() any { return &inflater{in: bufio.NewReaderSize(nil, 1<<10)} }}

func inflate(r io.Reader, f func(io.Reader) error) (used int64, err error) {
	i := inflaters.Get().(*inflater)
	defer inflaters.Put(i)
	in := &counted{r: r}
	i.in.Reset(in)
	if i.z == nil {
		i.z, err = zlib.NewReader(i.in)
	} else {
		err = i.z.(zlib.Resetter).Reset(i.in, nil)
	}
	if err != nil {
		return 0, damaged("%w", err)
	}
	if err := f(i.z); err != nil {
		return 0, err
	}
	return in.n - int64(i.in.Buffered()), nil
}

type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// exactly reads n bytes, after which there must be no more.
func exactly(r io.Reader, n int64) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, damaged("%w", err)
	}
	return b, ended(r)
}

func ended(r io.Reader) error {
	var one [1]byte
	if _, err := io.ReadFull(r, one[:]); err == nil {
		return damaged("more bytes than its length says")
	} else if !errors.Is(err, io.EOF) {
		return damaged("%w", err)
	}
	return nil
}

// stream lends f an object, see packedObjects.stream.
func (p *packFile) stream(at, limit int64, f func(plumbing.ObjectType, int64, io.Reader) error) error {
	h, err := p.header(at)
	if err != nil {
		return err
	}
	if !h.delta() {
		_, err := p.inflate(h, func(r io.Reader) error { return f(h.kind, h.size, r) })
		return err
	}
	size, err := p.sizeAt(at)
	if err != nil {
		return err
	}
	if size > limit {
		return fmt.Errorf("%d bytes: %w", size, errTooLarge)
	}
	work := int64(maxWork)
	o, err := p.objectAt(at, &work)
	if err != nil {
		return err
	}
	return f(o.kind, size, bytes.NewReader(o.data))
}

// objectAt resolves what lies at a place. Each byte that it inflates is taken
// from work.
func (p *packFile) objectAt(at int64, work *int64) (packedObject, error) {
	r := resolving{p: p, work: work}
	defer r.done()
	return r.object(at)
}

// resolving is one way from an object to what it is made of, and back.
type resolving struct {
	p    *packFile
	work *int64
	held bool
}

func (r *resolving) done() {
	if r.held {
		r.p.room.big.Unlock()
	}
}

// room asks for n bytes before they are inflated.
func (r *resolving) room(n int64) error {
	if *r.work -= n; n > maxDelta || *r.work < 0 {
		return fmt.Errorf("a difference that takes %d bytes or more to resolve: %w", n, errHeavy)
	}
	if n > bigDelta && !r.held {
		r.p.room.big.Lock()
		r.held = true
	}
	return nil
}

// A link is a difference on the way, and where it stands.
type link struct {
	packHeader
	at int64
}

func (r *resolving) object(at int64) (packedObject, error) {
	var links []link
	o, known := r.p.room.bases.get(basePlace{r.p, at})
	for !known {
		h, err := r.p.header(at)
		if err != nil {
			return o, err
		}
		if err := r.room(h.size); err != nil {
			return o, err
		}
		if !h.delta() {
			if o, err = r.whole(h); err != nil {
				return o, err
			}
			r.keep(at, o)
			break
		}
		if links = append(links, link{h, at}); len(links) > maxChain {
			return o, fmt.Errorf("a difference to a difference, and so on, more than %d times: %w", maxChain, errHeavy)
		}
		if at, err = r.p.baseOf(h); err != nil {
			return o, err
		}
		o, known = r.p.room.bases.get(basePlace{r.p, at})
	}
	for i := len(links) - 1; i >= 0; i-- {
		var err error
		if o.data, err = r.apply(o.data, links[i].packHeader); err != nil {
			return o, err
		}
		r.keep(links[i].at, o)
	}
	return o, nil
}

func (r *resolving) whole(h packHeader) (o packedObject, err error) {
	_, err = r.p.inflate(h, func(z io.Reader) error {
		o.kind = h.kind
		o.data, err = exactly(z, h.size)
		return err
	})
	return o, err
}

func (r *resolving) keep(at int64, o packedObject) {
	if len(o.data) <= bigDelta {
		r.p.room.bases.put(basePlace{r.p, at}, o, 128+len(o.data))
	}
}

func (r *resolving) apply(base []byte, h packHeader) (out []byte, err error) {
	_, err = r.p.inflate(h, func(z io.Reader) error {
		delta, err := exactly(z, h.size)
		if err != nil {
			return err
		}
		from, to, ops, err := deltaSizes(delta)
		if err != nil {
			return err
		}
		if from != int64(len(base)) {
			return damaged("a difference to another object")
		}
		if err := r.room(to); err != nil {
			return err
		}
		out, err = patch(base, ops, make([]byte, 0, to))
		return err
	})
	return out, err
}

// deltaSizes reads the two sizes that a difference begins with.
func deltaSizes(b []byte) (from, to int64, ops []byte, err error) {
	x, n := binary.Uvarint(b)
	y, m := binary.Uvarint(b[max(n, 0):])
	if n <= 0 || m <= 0 || x >= 1<<62 || y >= 1<<62 {
		return 0, 0, nil, damaged("a difference without sizes")
	}
	return int64(x), int64(y), b[n+m:], nil
}

// patch appends to out, up to its capacity, what the operations say.
func patch(base, ops, out []byte) ([]byte, error) {
	for len(ops) > 0 {
		op := ops[0]
		ops = ops[1:]
		var piece []byte
		if op&0x80 != 0 {
			var ok bool
			if piece, ops, ok = copied(base, op, ops); !ok {
				return nil, damaged("a difference that copies from nowhere")
			}
		} else {
			n := int(op)
			if n == 0 || n > len(ops) {
				return nil, damaged("a difference with a wrong operation")
			}
			piece, ops = ops[:n], ops[n:]
		}
		if len(piece) > cap(out)-len(out) {
			return nil, damaged("a difference that makes more than its size says")
		}
		out = append(out, piece...)
	}
	if len(out) != cap(out) {
		return nil, damaged("a difference that makes less than its size says")
	}
	return out, nil
}

// copied is the piece of base that a copy names: four bits say which bytes of
// the offset follow, three which of the length.
func copied(base []byte, op byte, ops []byte) (piece, rest []byte, ok bool) {
	var v [7]byte
	for i := range v {
		if op&(1<<i) == 0 {
			continue
		}
		if len(ops) == 0 {
			return nil, nil, false
		}
		v[i], ops = ops[0], ops[1:]
	}
	from := int64(binary.LittleEndian.Uint32(v[:4]))
	n := int64(v[4]) | int64(v[5])<<8 | int64(v[6])<<16
	if n == 0 {
		n = 0x10000
	}
	if from+n > int64(len(base)) {
		return nil, nil, false
	}
	return base[from : from+n], ops, true
}
