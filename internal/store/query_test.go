package store

import (
	"math"
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/ledger"
)

func (f *fixture) query(q Query) (indexes []int64, next *int64) {
	f.t.Helper()
	found, next, err := f.Query(f.t.Context(), q)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, x := range found {
		indexes = append(indexes, x.Index)
	}
	return indexes, next
}

// A page that ends with entry 0 is not the last one, and entry 0 is a bound.
func TestPagesGoOnBehindEntryZero(t *testing.T) {
	f := newFixture(t)
	f.put(f.operators(1, f.OperatorsSig), f.activate("checkout", "prod", 1))
	var all []int64
	for q := (Query{Ascending: true, Limit: 1}); ; {
		page, next := f.query(q)
		if all = append(all, page...); next == nil {
			break
		}
		q.After = next
	}
	if !slices.Equal(all, []int64{0, 1, 2}) {
		t.Errorf("pages of one: %v", all)
	}
	for _, ascending := range []bool{false, true} {
		for _, q := range []Query{{Before: new(int64(0))}, {After: new(int64(2))}, {After: new(int64(math.MaxInt64))}} {
			q.Ascending = ascending
			if page, next := f.query(q); len(page) != 0 || next != nil {
				t.Errorf("%+v: %v, next %v", q, page, next)
			}
		}
	}
}

// counted counts the steps of a walk.
type counted struct {
	posting
	steps int
}

func (c *counted) from(i int64, ascending bool) (int64, bool) {
	c.steps++
	return c.posting.from(i, ascending)
}

// A range of times that holds the whole log costs what the answer needs, and
// finds what a list of it finds.
func TestWideRangeOfTimesIsNotReadWhole(t *testing.T) {
	clock := start
	f := newFixture(t, func(c *Config) { c.noSync = true; c.Now = func() time.Time { return clock } })
	for n := range 40 { // two days, each of two runs of entries that lie apart
		var drafts []Draft
		for range 20 {
			drafts = append(drafts, activation("checkout", "prod", n))
		}
		clock = start.AddDate(0, 0, n/10%2).Add(time.Duration(n) * time.Second)
		f.put(drafts...)
	}
	size := f.Snapshot().Tree.Size
	walk := func(p posting, ascending bool, most int) (out []int64, steps int) {
		c := &counted{posting: p}
		intersect(t.Context(), []posting{c}, 0, size-1, ascending, func(i int64) bool {
			out = append(out, i)
			return len(out) < most
		})
		return out, c.steps
	}
	err := f.ledger.Read(func(tx *bbolt.Tx) error {
		for _, from := range []time.Time{time.Unix(0, 0), start.AddDate(0, 0, 1)} {
			for _, ascending := range []bool{false, true} {
				short := between(tx, from, time.Time{}, 10)
				if _, ok := short.(*timePosting); !ok {
					t.Fatalf("from %v: %T of more entries than it may read", from, short)
				}
				want, _ := walk(between(tx, from, time.Time{}, int(size)), ascending, int(size))
				if got, _ := walk(short, ascending, int(size)); len(want) < 400 || !slices.Equal(got, want) {
					t.Errorf("from %v, ascending %v: %d entries, want %d", from, ascending, len(got), len(want))
				}
				if _, steps := walk(short, ascending, 10); steps > 10+int(size)/timesAhead+1 {
					t.Errorf("from %v, ascending %v: %d steps to 10 entries", from, ascending, steps)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Store.cfg.listed = 10
	q := Query{From: time.Unix(0, 0), Kinds: []ledger.Kind{ledger.BundleActivated}, Limit: 5}
	if page, next := f.query(q); !slices.Equal(page, []int64{size - 1, size - 2, size - 3, size - 4, size - 5}) || next == nil {
		t.Errorf("newest: %v, next %v", page, next)
	}
}

// Words are looked for in details that are there, a bounded number at a time.
func TestTextIsFoundInDetails(t *testing.T) {
	f := newFixture(t)
	f.put(f.operators(1, f.OperatorsSig))
	for _, words := range []string{"Friday release", "nothing", "a FRIDAY night", "friday, erased"} {
		d, name, err := ledger.NewDetail(map[string]any{"reason": []any{words}, "n": 1})
		if err != nil {
			t.Fatal(err)
		}
		f.put(DraftOf(f.Statement(ledger.NoteAdded, "checkout", "prod", func(st *ledger.Statement) { st.Detail = name }), d))
	}
	f.put(DraftOf(f.Statement(ledger.DetailErased, "checkout", "prod", func(st *ledger.Statement) { st.Index = 5 }), nil))
	for text, want := range map[string][]int64{"friday": {4, 2}, "RELEASE fri": {2}, "reason": nil, "friday nothing": nil, " ": {6, 5, 4, 3, 2, 1, 0}} {
		if got, _ := f.query(Query{Text: text}); !slices.Equal(got, want) {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	f.Store.cfg.searched = 2
	var all, pages []int64
	for q := (Query{Text: "friday"}); ; {
		page, next := f.query(q)
		if all = append(all, page...); next == nil {
			break
		}
		pages, q.Before = append(pages, *next), next
	}
	if !slices.Equal(all, []int64{4, 2}) || !slices.Equal(pages, []int64{5, 3, 1}) {
		t.Errorf("two at a time: %v, going on below %v", all, pages)
	}
}
