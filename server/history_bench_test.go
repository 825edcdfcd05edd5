package server

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

const yearOfLog = 365 * 24 * time.Hour

// longRig is a server on a log of n changes over a year: 200 services in three
// scopes take turns to name another release of a set that exists.
func longRig(b *testing.B, n int) *rig {
	b.Helper()
	r := newRig(b, nil)
	r.ahead = -yearOfLog
	r.sync()
	sets := map[api.Scope]*ledger.SetRef{}
	for _, c := range r.store.Snapshot().State.ServiceChains("checkout") {
		if c.Lane == ledger.LaneMain {
			sets[c.Scope] = c.Set
		}
	}
	sets["prod/eu-west-1"] = sets["prod"]
	scopes := []api.Scope{"staging", "prod", "prod/eu-west-1"}
	for i := 0; i < n; {
		var drafts []store.Draft
		for ; len(drafts) < 2000 && i < n; i++ {
			drafts = append(drafts, draftOf(ledger.BundleActivated, ledger.Data{Service: fmt.Sprint("svc-", i%200), Scope: scopes[i/200%3],
				Fields: ledger.Fields{Release: ledgertest.Release(i), Set: sets[scopes[i/200%3]], Contract: 1}}, nil))
		}
		r.ahead = -yearOfLog + time.Duration(float64(yearOfLog)*float64(i)/float64(n))
		if _, err := r.store.Append(b.Context(), func(*ledger.State, time.Time) (store.Decision, error) {
			return store.Decision{Drafts: drafts}, nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	return r
}

// BenchmarkTimeTravel asks about a time in the middle of a long log, each
// question whole: from the request to the last byte of the answer.
func BenchmarkTimeTravel(b *testing.B) {
	n, err := strconv.Atoi(os.Getenv("SEALSTONE_BENCH_CHANGES"))
	if err != nil {
		n = 20_000
	}
	r := longRig(b, n)
	at := url.QueryEscape(time.Now().Add(-yearOfLog / 2).UTC().Format(time.RFC3339Nano))
	for _, q := range []struct{ name, path string }{
		{"live", "/v1/live?service=svc-7"},
		{"live-at", "/v1/live?service=svc-7&at=" + at},
		{"history", "/v1/history?target=svc-7@prod/eu-west-1&limit=50"},
		{"history-at", "/v1/history?target=svc-7@prod/eu-west-1&at=" + at},
		{"flags", "/v1/flags?target=svc-7@prod/eu-west-1"},
		{"annotations", "/v1/annotations?service=svc-7&limit=50"},
		{"annotations-tags", "/v1/annotations?tags=bundle.activated&tags=service:svc-7&limit=50"},
		{"annotations-at", "/v1/annotations?limit=50&to=" + at},
	} {
		b.Run(fmt.Sprint(q.name, "-", n), func(b *testing.B) {
			for b.Loop() {
				w := httptest.NewRecorder()
				r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, q.path, nil))
				if size, _ := io.Copy(io.Discard, w.Body); w.Code != http.StatusOK || size == 0 {
					b.Fatal(q.path, w.Code, w.Body)
				}
			}
		})
	}
}
