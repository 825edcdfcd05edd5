package store

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// Wherever the tail stands, the index is whole: verify says so, and questions
// find the same changes.
func TestTheTailMovesAndNothingIsLost(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.noSync = true; c.Now = func() time.Time { return start } })
	f.put(f.operators(1, f.OperatorsSig))
	want, moved, set := int64(0), 0, f.content("checkout", "prod", 1)
	for _, n := range []int{1, 100, maxTail - 104, 1, 1, 1, maxTail - 1, 1, maxTail + 1, 5, 2*maxTail + 3, maxTail} {
		var drafts []Draft
		for range n {
			for _, d := range []Draft{activation("checkout", "prod", int(want)), activation(fmt.Sprint("svc-", want%7), "staging", n)} {
				d.Data.Set = set
				drafts = append(drafts, d)
			}
			want++
		}
		f.put(drafts...)
		f.check()
		if f.tail() == 0 {
			moved++
		}
		for _, q := range []Query{{Service: "checkout"}, {Scope: "prod"}, {Service: "checkout", Kinds: []ledger.Kind{ledger.BundleActivated}, From: start, To: start.Add(time.Hour), Ascending: true}} {
			if got := f.count(q); got != want {
				t.Errorf("%+v after %d: %d changes, want %d", q, want, got, want)
			}
		}
		if got := int64(len(f.intervals(api.Target{Service: "checkout", Scope: "prod"}, want*2+2))); got != want {
			t.Errorf("%d intervals, want %d", got, want)
		}
	}
	if moved < 4 || f.tail() >= maxTail {
		t.Errorf("the tail was empty %d times, and has %d changes now", moved, f.tail())
	}
}

func (f *fixture) tail() (n int64) {
	f.t.Helper()
	must(f.t, f.ledger.Read(func(tx *bbolt.Tx) error {
		n = tailSize(tx, f.Snapshot().Tree.Size)
		return nil
	}))
	return n
}

func (f *fixture) count(q Query) (n int64) {
	f.t.Helper()
	for q.Limit = MaxLimit; ; {
		found, next, err := f.Query(f.t.Context(), q)
		must(f.t, err)
		n += int64(len(found))
		if next == nil {
			return n
		}
		if q.Before = next; q.Ascending {
			q.Before, q.After = nil, next
		}
	}
}

// A file of version 2 goes on as it is. One that its program wrote to after this
// one has a tail that nobody kept, and is folded anew.
func TestFilesOfTheVersionWithoutTail(t *testing.T) {
	inPlaces := func(tx *bbolt.Tx) error {
		for _, k := range tailKeys(tx.Bucket(bucketTail)) {
			if err := tx.Bucket(bucketTerms).Put(k, nil); err != nil {
				return err
			}
		}
		return nil
	}
	for name, older := range map[string]func(tx *bbolt.Tx) error{
		"before":              func(tx *bbolt.Tx) error { return errors.Join(inPlaces(tx), tx.DeleteBucket(bucketTail)) },
		"after, folding anew": inPlaces,
		"after": func(tx *bbolt.Tx) error {
			return tx.Bucket(bucketTail).Put(be64(7), packTerms([][]byte{termPrefix(termService, "mallory")}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := attacked(t, 50)
			f.closeFor(func() {
				f.rows(func(tx *bbolt.Tx) error {
					meta := bytes.Replace(tx.Bucket(bucketState).Get(keyMeta), fmt.Appendf(nil, `"version":%d`, stateVersion), []byte(`"version":2`), 1)
					return errors.Join(older(tx), tx.Bucket(bucketState).Put(keyMeta, meta))
				})
			})
			f.check()
			f.put(f.activate("checkout", "prod", 2))
			f.reopen()
			f.check()
			if got := f.count(Query{Service: "mallory"}); got != 0 {
				t.Errorf("%d changes of a service that has none", got)
			}
		})
	}
}
