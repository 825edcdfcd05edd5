package store

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// past compares what the index says of each place in the log, and of each time,
// with a fold from entry 0 up to there; then a walk over a target's intervals
// with what is in effect after each entry.
func (m *modelTest) past() {
	m.t.Helper()
	t := api.Target{Service: modelServices[m.r.IntN(3)], Scope: modelScopes[m.r.IntN(5)]}
	intervals := m.f.intervals(t, m.f.Snapshot().Tree.Size)
	st := ledger.NewState(m.f.Origin)
	for i := range int64(len(m.entries)) {
		leaf, err := m.f.Leaf(i)
		if err != nil {
			m.t.Fatal(err)
		}
		c, err := ledger.ParseLeaf(leaf)
		if err != nil {
			m.t.Fatal(err)
		}
		if err := st.Apply(c, m.f.Trust); err != nil {
			m.t.Fatal(err)
		}
		m.sameState(st)
		size, err := m.f.SizeAt(c.Recorded())
		if err != nil || size <= i {
			m.t.Fatalf("SizeAt(%s) = %d, %v; entry %d was recorded then", c.RecordedTime, size, err, i)
		}
		if before, err := m.f.SizeAt(c.Recorded().Add(-time.Millisecond)); err != nil || before > i {
			m.t.Fatalf("a millisecond before %s the log had %d entries, %v; entry %d came then", c.RecordedTime, before, err, i)
		}
		at := slices.IndexFunc(intervals, func(iv ledger.Interval) bool { return iv.Began <= i && (iv.Ended < 0 || i < iv.Ended) })
		e, ok := ledger.InEffect(st.ServiceChains(t.Service), t.Scope)
		if ok != (at >= 0) || ok && (intervals[at].Main.Hash != e.Main.Hash || intervals[at].Mode != e.Mode) {
			m.t.Fatalf("after entry %d %s has %+v, the intervals say %+v", i, t, e, intervals)
		}
	}
}

func (m *modelTest) sameState(want *ledger.State) {
	m.t.Helper()
	got, err := m.f.StateAt(m.t.Context(), want.Size)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, service := range modelServices {
		var chains []ledger.Chain
		for _, c := range want.ServiceChains(service) {
			if c.Lane == ledger.LaneMain || c.Lane == ledger.LaneOverride {
				chains = append(chains, c)
			}
		}
		if !reflect.DeepEqual(got.ServiceChains(service), chains) {
			m.t.Fatalf("%s after %d entries\ngot  %+v\nwant %+v", service, want.Size, got.ServiceChains(service), chains)
		}
	}
}

func (f *fixture) intervals(t api.Target, below int64) (out []ledger.Interval) {
	f.t.Helper()
	err := f.Past(f.t.Context(), t.Service, func(p ledger.Past) error {
		out = slices.Collect(ledger.Intervals(p, t.Scope, below))
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

// A change that can't be read, or isn't of the chain that the index gives it to,
// ends the walk with its error, not with another history.
func TestDamageIsNoHistory(t *testing.T) {
	f := newFixture(t)
	f.put(f.operators(1, f.OperatorsSig), f.activate("checkout", "prod", 1), f.activate("checkout", "prod", 2))
	if got := f.intervals(api.Target{Service: "checkout", Scope: "prod/eu"}, 4); len(got) != 2 {
		t.Fatalf("%+v", got)
	}
	f.rowsOpen(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketTerms).Put(append(termPrefix(termChain, chainTerm(ledger.LaneMain, "search", "prod")), be64(3)...), nil)
	})
	err := f.Past(t.Context(), "search", func(p ledger.Past) error {
		p.Last(ledger.LaneMain, "prod", 4)
		return nil
	})
	if !errors.Is(err, ErrCorrupt) {
		t.Errorf("an entry of another chain: %v", err)
	}
	f.rowsOpen(func(tx *bbolt.Tx) error { return flip(tx, bucketEntries, be64(2), 9) })
	err = f.Past(t.Context(), "checkout", func(p ledger.Past) error {
		for range ledger.Intervals(p, "prod", 4) {
		}
		return nil
	})
	if err == nil {
		t.Error("a damaged entry was passed over")
	}
	if _, err := f.StateAt(t.Context(), 3); err == nil {
		t.Error("a damaged entry was passed over by StateAt")
	}
	mine := errors.New("mine")
	if err := f.Past(t.Context(), "checkout", func(ledger.Past) error { return mine }); !errors.Is(err, mine) {
		t.Error(err)
	}
}

// BenchmarkHistory is a page of 100 intervals, from the newest on and from the
// middle of the log, of a target below 1/16 of its activations.
func BenchmarkHistory(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		f := benchLog(b, n)
		for name, below := range map[string]int64{"newest": int64(n), "middle": int64(n / 2)} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				for b.Loop() {
					got := 0
					err := f.Past(b.Context(), "svc-1", func(p ledger.Past) error {
						for range ledger.Intervals(p, "prod/eu-west-1/canary", below) {
							if got++; got == 100 {
								break
							}
						}
						return nil
					})
					if err != nil || got != 100 {
						b.Fatal(got, err)
					}
				}
			})
		}
	}
}
