package store

import (
	"bytes"
	"context"
	"slices"

	"go.etcd.io/bbolt"
)

// posting is a sorted list of indexes that can be entered anywhere: from is the
// first at or above i, or, not ascending, the last at or below. One that would
// have to look far may answer sooner with an index that isn't in it, but never
// with i then, and never beyond one that is.
type posting interface {
	from(i int64, ascending bool) (int64, bool)
}

// before is the row that stands before the one that a cursor was set to.
func before(c *bbolt.Cursor, k []byte) (key, value []byte) {
	if k == nil {
		return c.Last()
	}
	return c.Prev()
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

func (p *termPosting) from(i int64, ascending bool) (int64, bool) {
	k, _ := p.c.Seek(p.key(i))
	if at, ok := p.index(k); !ascending && (!ok || at != i) {
		k, _ = before(p.c, k)
	}
	return p.index(k)
}

// union is the list of what is in any of its parts.
type union []posting

func (u union) from(i int64, ascending bool) (best int64, ok bool) {
	for _, p := range u {
		if at, has := p.from(i, ascending); has && (!ok || at < best == ascending) {
			best, ok = at, true
		}
	}
	return best, ok
}

// list is a sorted slice of indexes.
type list []int64

func (l list) from(i int64, ascending bool) (int64, bool) {
	at, found := slices.BinarySearch(l, i)
	if !found && !ascending {
		at--
	}
	if at < 0 || at == len(l) {
		return 0, false
	}
	return l[at], true
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

func (p *timePosting) from(i int64, ascending bool) (int64, bool) {
	k, v := p.c.Seek(be64(i))
	move := p.c.Next
	if !ascending {
		if move = p.c.Prev; k == nil || fromBE64(k) > i {
			k, v = before(p.c, k)
		}
	}
	for n := 0; n < timesAhead && k != nil && !p.has(v); n++ {
		k, v = move()
	}
	return fromBE64(k), k != nil
}

// all is every index from 0 on.
type all struct{}

func (all) from(i int64, _ bool) (int64, bool) { return i, i >= 0 }

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
		if next, ok := p.from(at, ascending); !ok || next != at {
			return next, ok
		}
	}
	return at, true
}
