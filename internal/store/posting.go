package store

import (
	"bytes"
	"context"
	"slices"

	"go.etcd.io/bbolt"
)

// posting is a sorted list of indexes that can be entered anywhere: next is the
// first at or above i, prev the last at or below. One that would have to look
// far may answer sooner with an index that isn't in it, but never with i then,
// and never beyond one that is.
type posting interface {
	next(i int64) (int64, bool)
	prev(i int64) (int64, bool)
}

// termPosting is the list of one index term. A term's value may be binary: only
// keys of exactly the prefix and an index are its own.
type termPosting struct {
	c      *bbolt.Cursor
	prefix []byte
}

func (p *termPosting) index(k []byte) (int64, bool) {
	if len(k) != len(p.prefix)+8 || !bytes.HasPrefix(k, p.prefix) {
		return 0, false
	}
	return fromBE64(k[len(p.prefix):]), true
}

func (p *termPosting) key(i int64) []byte { return append(slices.Clip(p.prefix), be64(i)...) }

func (p *termPosting) next(i int64) (int64, bool) {
	k, _ := p.c.Seek(p.key(i))
	return p.index(k)
}

func (p *termPosting) prev(i int64) (int64, bool) {
	k, _ := p.c.Seek(p.key(i))
	if at, ok := p.index(k); ok && at == i {
		return i, true
	}
	if k == nil {
		k, _ = p.c.Last()
	} else {
		k, _ = p.c.Prev()
	}
	return p.index(k)
}

// union is the list of what is in any of its parts.
type union []posting

func (u union) next(i int64) (best int64, ok bool) {
	for _, p := range u {
		if at, has := p.next(i); has && (!ok || at < best) {
			best, ok = at, true
		}
	}
	return best, ok
}

func (u union) prev(i int64) (best int64, ok bool) {
	for _, p := range u {
		if at, has := p.prev(i); has && (!ok || at > best) {
			best, ok = at, true
		}
	}
	return best, ok
}

// list is a sorted slice of indexes.
type list []int64

func (l list) next(i int64) (int64, bool) {
	at, _ := slices.BinarySearch(l, i)
	if at == len(l) {
		return 0, false
	}
	return l[at], true
}

func (l list) prev(i int64) (int64, bool) {
	at, found := slices.BinarySearch(l, i)
	if found {
		return i, true
	}
	if at == 0 {
		return 0, false
	}
	return l[at-1], true
}

// timePosting is the list of the entries whose time is in [lo, hi), by their rows.
type timePosting struct {
	c      *bbolt.Cursor // over bucketTimes
	lo, hi int64         // ms
}

// timesAhead is how many rows a timePosting reads in one step, so that other
// lists can jump over the rest.
const timesAhead = 64

func (p *timePosting) has(row []byte) bool {
	if len(row) < 8 {
		return false
	}
	at := fromBE64(row[:8])
	return at >= p.lo && at < p.hi
}

func (p *timePosting) next(i int64) (int64, bool) {
	k, v := p.c.Seek(be64(i))
	return p.step(k, v, p.c.Next)
}

func (p *timePosting) prev(i int64) (int64, bool) {
	k, v := p.c.Seek(be64(i))
	switch {
	case k == nil:
		k, v = p.c.Last()
	case fromBE64(k) > i:
		k, v = p.c.Prev()
	}
	return p.step(k, v, p.c.Prev)
}

func (p *timePosting) step(k, v []byte, move func() (k, v []byte)) (int64, bool) {
	for n := 0; n < timesAhead && k != nil && !p.has(v); n++ {
		k, v = move()
	}
	return fromBE64(k), k != nil
}

// all is every index from 0 on.
type all struct{}

func (all) next(i int64) (int64, bool) { return i, true }
func (all) prev(i int64) (int64, bool) { return i, i >= 0 }

// intersect calls f with the indexes that are in every list, within [lo, hi],
// in order, until f returns false or ctx ends. The lists leapfrog: each jumps to
// where the others are, so the cost is that of the rarest.
func intersect(ctx context.Context, lists []posting, lo, hi int64, ascending bool, f func(int64) bool) {
	at, step := hi, int64(-1)
	if ascending {
		at, step = lo, 1
	}
	for at >= lo && at <= hi && ctx.Err() == nil {
		next, ok := meet(lists, at, ascending)
		if !ok {
			return
		}
		if next == at {
			if !f(at) {
				return
			}
			next = at + step
		}
		at = next
	}
}

// meet moves to the first candidate that one list names; it is a hit when that
// is where the walk stands.
func meet(lists []posting, at int64, ascending bool) (int64, bool) {
	for _, p := range lists {
		var next int64
		var ok bool
		if ascending {
			next, ok = p.next(at)
		} else {
			next, ok = p.prev(at)
		}
		if !ok || next != at {
			return next, ok
		}
	}
	return at, true
}
