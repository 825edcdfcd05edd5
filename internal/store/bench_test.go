package store

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// BenchmarkBareCommit is the floor of one durable write: a bbolt put of a
// leaf's size.
func BenchmarkBareCommit(b *testing.B) {
	db, err := bbolt.Open(filepath.Join(b.TempDir(), "bare.db"), 0o600, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	value := make([]byte, 1400)
	for i := 0; b.Loop(); i++ {
		err := db.Update(func(tx *bbolt.Tx) error {
			bk, err := tx.CreateBucketIfNotExists([]byte("e"))
			if err != nil {
				return err
			}
			return bk.Put(be64(int64(i)), value)
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAppend is events by the node's own word; BenchmarkAppendSigned has an
// operator's statement in each, which is verified.
func BenchmarkAppend(b *testing.B) {
	benchmarkAppend(b, func(_ *fixture, caller, n int) Draft {
		return activation(fmt.Sprintf("svc-%d", caller%16), "prod", n)
	})
}

func BenchmarkAppendSigned(b *testing.B) {
	benchmarkAppend(b, func(f *fixture, caller, _ int) Draft {
		return DraftOf(f.Statement(ledger.DeployFinished, fmt.Sprintf("svc-%d", caller%16), "prod", func(st *ledger.Statement) {
			st.Artifact = string(api.DigestOf([]byte("artifact")))
		}), nil)
	})
}

func benchmarkAppend(b *testing.B, draft func(f *fixture, caller, n int) Draft) {
	for _, callers := range []int{1, 8, 64, 512} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			f := newFixture(b)
			f.put(f.operators(1, f.OperatorsSig))
			drafts := make([]Draft, 2048)
			for i := range drafts {
				drafts[i] = draft(f, i, i)
			}
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for range callers {
				wg.Go(func() {
					for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
						d := drafts[n%int64(len(drafts))]
						if n >= int64(len(drafts)) {
							d = draft(f, int(n), int(n))
						}
						if _, err := f.try(d); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

func BenchmarkEvidence(b *testing.B) {
	f := benchLog(b, 5000)
	for b.Loop() {
		if _, err := f.Evidence("svc-1", 4000, nil, false, time.Now()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkProof(b *testing.B) {
	f := benchLog(b, 5000)
	for i := int64(0); b.Loop(); i++ {
		if _, err := f.TlogProof(i % 5000); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkQuery(b *testing.B) {
	f := benchLog(b, 5000)
	q := Query{Service: "svc-1", Kinds: []ledger.Kind{ledger.BundleActivated}, Limit: 20}
	for b.Loop() {
		if _, _, err := f.Query(b.Context(), q); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkQueryOfAllTimes is a page of a range that holds the whole log.
func BenchmarkQueryOfAllTimes(b *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f := benchLog(b, n)
			q := Query{From: time.Unix(0, 0), Limit: 20}
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := f.Query(b.Context(), q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	f := benchLog(b, 5000)
	for b.Loop() {
		if _, err := f.Verify(b.Context(), nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/5000, "µs/entry")
}

// benchLog is a log of n activations of 16 services, written without fsync.
func benchLog(b *testing.B, n int) *fixture {
	f := newFixture(b, func(c *Config) { c.noSync = true })
	for i := 0; i < n; i += 500 {
		var drafts []Draft
		for k := range 500 {
			drafts = append(drafts, activation(fmt.Sprintf("svc-%d", (i+k)%16), "prod", i+k))
		}
		f.put(drafts...)
	}
	return f
}
