package store

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/kv"
	"github.com/sealstone/sealstone/ledger"
)

// Query asks for changes that fit all of its members; a zero member asks
// nothing.
type Query struct {
	Service string
	Scope   api.Scope // and everything below
	Kinds   []ledger.Kind
	From    time.Time    // of the event's time, inclusive
	To      time.Time    // exclusive
	Digests []api.Digest // of which a change names one
	Actor   string       // operator id, or key id
	Text    string       // words; each is somewhere in the detail, whatever its case

	Before    *int64 // only entries below this index; nil is no bound
	After     *int64 // only entries above this index; nil is no bound
	Limit     int    // 0 is DefaultLimit, at most MaxLimit
	Ascending bool   // oldest first; else newest first
}

// Limits of one answer.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// maxSearched bounds how many details one query for a text reads.
const maxSearched = 10_000

// maxListed bounds what one query reads of the index of times.
const maxListed = 4096

// Found is one change that fits.
type Found struct {
	Index  int64
	Change *ledger.Change // nil when the entry is damaged
	Damage error          // why Change is nil
}

// Query returns the changes that fit, and where to go on: ask again with Before
// (or After, when ascending) set to next; nil says that there are no more. One
// for a text may end before its limit, with next where it stopped.
func (s *Store) Query(ctx context.Context, q Query) (found []Found, next *int64, err error) {
	limit := q.Limit
	if limit <= 0 {
		limit = DefaultLimit
	}
	limit = min(limit, MaxLimit)
	var hits []int64
	err = s.ledger.Read(func(tx *bbolt.Tx) error {
		hits, next = s.hits(ctx, tx, q, limit)
		return nil
	})
	for _, i := range hits {
		if err = errors.Join(err, ctx.Err()); err != nil {
			break
		}
		var f Found
		f, err = s.found(i)
		found = append(found, f)
	}
	if err = errors.Join(err, ctx.Err()); err != nil {
		return nil, nil, err
	}
	return found, next, nil
}

// found reads an entry in a transaction of its own: a damaged page ends that one
// alone.
func (s *Store) found(i int64) (Found, error) {
	c, err := s.Change(i)
	if kv.Damaged(err) {
		return Found{Index: i, Damage: err}, nil
	}
	return Found{Index: i, Change: c}, err
}

// hits are the indexes of one answer, and where the next one goes on.
func (s *Store) hits(ctx context.Context, tx *bbolt.Tx, q Query, limit int) (hits []int64, next *int64) {
	lo, hi := int64(0), s.Snapshot().Tree.Size-1
	if q.Before != nil {
		hi = min(hi, *q.Before-1)
	}
	if q.After != nil {
		lo = max(lo, min(*q.After, hi)+1)
	}
	words, seen, last := strings.Fields(strings.ToLower(q.Text)), 0, int64(0)
	intersect(ctx, q.lists(tx, s.cfg.listed), lo, hi, q.Ascending, func(i int64) bool {
		if len(hits) == limit || seen == s.cfg.searched {
			next = &last
			return false
		}
		if last = i; words != nil {
			seen++
		}
		if len(words) == 0 || s.detailHas(tx, i, words) {
			hits = append(hits, i)
		}
		return true
	})
	return hits, next
}

// detailHas tells whether every word is in an entry's detail. One that is erased,
// or damaged, has none.
func (s *Store) detailHas(tx *bbolt.Tx, i int64, words []string) bool {
	d, err := s.details.get(i)
	if _, gone := erasedIn(tx, i, s.Snapshot().Tree.Size); err != nil || d == nil || gone {
		return false
	}
	text := strings.ToLower(strings.Join(valuesOf(d.Text, nil), "\n"))
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
}

// valuesOf lists the strings in a detail, its members' names aside.
func valuesOf(v any, out []string) []string {
	switch v := v.(type) {
	case string:
		out = append(out, v)
	case []any:
		for _, e := range v {
			out = valuesOf(e, out)
		}
	case map[string]any:
		for _, e := range v {
			out = valuesOf(e, out)
		}
	}
	return out
}

func (q *Query) lists(tx *bbolt.Tx, listed int) []posting {
	var out []posting
	term := func(kind byte, value string) posting { return postingOf(tx, termPrefix(kind, value)) }
	if len(q.Digests) > 0 {
		var u union
		for _, d := range q.Digests {
			sum, _ := d.Sum()
			u = append(u, term(termDigest, string(sum[:])))
		}
		out = append(out, u)
	}
	if q.Actor != "" {
		out = append(out, term(termActor, q.Actor))
	}
	if q.Service != "" {
		out = append(out, term(termService, q.Service))
	}
	if q.Scope != "" {
		out = append(out, term(termScope, string(q.Scope)))
	}
	if len(q.Kinds) > 0 {
		var u union
		for _, k := range q.Kinds {
			u = append(u, term(termKind, string(k)))
		}
		out = append(out, u)
	}
	if !q.From.IsZero() || !q.To.IsZero() {
		out = append(out, between(tx, q.From, q.To, listed))
	}
	if len(out) == 0 {
		out = append(out, all{})
	}
	return out
}

// between is the list of the entries whose time is in [from, to). One of up to
// most entries is read from the index; time and index nearly go together, so
// sorting what is nearly sorted is cheap. A longer one isn't read at all, but
// checked entry by entry as the walk comes by.
func between(tx *bbolt.Tx, from, to time.Time, most int) posting {
	lo, hi := int64(0), int64(1)<<62
	if !from.IsZero() {
		lo = max(lo, ceilMillis(from))
	}
	if !to.IsZero() {
		hi = ceilMillis(to)
	}
	var out list
	entries := &timePosting{tx.Bucket(bucketTimes).Cursor(), lo, hi}
	c := tx.Bucket(bucketTerms).Cursor()
	for k, _ := c.Seek(append([]byte{termTime}, be64(lo)...)); len(k) == 17 && k[0] == termTime; k, _ = c.Next() {
		if fromBE64(k[1:9]) >= hi {
			break
		}
		if len(out) == most {
			return entries
		}
		out = append(out, fromBE64(k[9:]))
	}
	for at := range rowsOf(tx.Bucket(bucketTail)) {
		if entries.has(tx.Bucket(bucketTimes).Get(at)) {
			out = append(out, fromBE64(at))
		}
	}
	slices.Sort(out)
	return out
}

func ceilMillis(t time.Time) int64 { return t.Add(time.Millisecond - 1).UnixMilli() }
