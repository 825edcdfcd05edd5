package integration_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/integration/proctest"
	"github.com/sealstone/sealstone/ledger"
)

// slowed is a way to a server on which each request takes longer.
func slowed(b *testing.B, to string, delay time.Duration) string {
	b.Helper()
	u, err := url.Parse(to)
	if err != nil {
		b.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(u)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(delay)
		proxy.ServeHTTP(w, r)
	}))
	b.Cleanup(s.Close)
	return s.URL
}

// renewed is a server on which a safe mode was renewed until its chain has n
// changes: each begins an interval.
func renewed(b *testing.B, n int) *proctest.Server {
	b.Helper()
	r := proctest.New(b, examples.Shop())
	s := r.Serve()
	s.UntilTip(r.Git("rev-parse", "HEAD"))
	for i := range n {
		st := r.SafeMode(ledger.SafeModeRenewed, "checkout", "prod", "degraded", int64(i))
		if i == 0 {
			st = r.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0)
		}
		if status, answer, err := ask(b.Context(), http.MethodPost, s.URL+"/v1/changes", st.Raw); err != nil || status != http.StatusOK {
			b.Fatal(status, string(answer), err)
		}
	}
	return s
}

// BenchmarkProven asks for what the log proves: the whole history of a target of
// many changes, over a near and a far way, with the program whole.
// SEALSTONE_BENCH_CHANGES sets how many.
func BenchmarkProven(b *testing.B) {
	n, err := strconv.Atoi(os.Getenv("SEALSTONE_BENCH_CHANGES"))
	if err != nil {
		n = 1000
	}
	s := renewed(b, n)
	for _, delay := range []time.Duration{0, 20 * time.Millisecond} {
		way := slowed(b, s.URL, delay)
		b.Run(fmt.Sprintf("history-%d-%s", n, delay), func(b *testing.B) {
			for b.Loop() {
				var h api.History
				if err := json.Unmarshal([]byte(s.OK("history", "checkout@prod", "-o", "json", "--server", way)), &h); err != nil || len(h.Intervals) <= n {
					b.Fatal(err, len(h.Intervals))
				}
			}
		})
	}
}
