package server

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/instances"
)

// crowd is a server that the most instances it takes report to: one service, four
// targets, three versions, and dependencies that are known.
func crowd(b *testing.B) *rig {
	b.Helper()
	r := newRig(b, func(c *Config) {
		var err error
		if c.Instances, err = instances.Open(b.TempDir()+"/instances.db", time.Now()); err != nil {
			b.Fatal(err)
		}
	})
	b.Cleanup(func() { _ = r.cfg.Instances.Close(time.Now()) })
	r.sync()
	for i := range instances.Max {
		in := crowdReport(r, i)
		for _, ago := range []time.Duration{20 * time.Second, 0} {
			if _, err := r.live.Put(&in, fmt.Sprint("c", i%20), time.Now().Add(-ago)); err != nil {
				b.Fatal(err)
			}
		}
	}
	return r
}

func crowdReport(r *rig, i int) api.Instance {
	scope := []api.Scope{"prod", "prod/eu-west-1", "prod/us-east-1", "staging"}[i%4]
	deps := []string{fmt.Sprintf("pkg:golang/golang.org/x/net@v0.%d.0", 39+i%3), "pkg:golang/stdlib@v1.26.0"}
	in := api.Instance{Target: api.Target{Service: "checkout", Scope: scope}, ID: fmt.Sprintf("checkout-7d9f8c6b5d-%08x", i), Version: fmt.Sprint("v1.2.", i%3),
		Mode: api.ModeNormal, State: api.StateReady, Index: 2, Deps: api.DependenciesDigest(deps), DepList: deps, Artifact: string(api.DigestOf([]byte{byte(i % 3)}))}
	if eff, err := r.resolve(in.Target); err == nil {
		in.Bundle = eff.Entry.Digest
	}
	return in
}

// BenchmarkLive answers questions at 100,000 instances, each whole: from the
// request to the last byte of the answer.
func BenchmarkLive(b *testing.B) {
	r := crowd(b)
	at := url.QueryEscape(time.Now().Add(-10 * time.Second).UTC().Format(time.RFC3339Nano))
	for _, q := range []struct{ name, path string }{
		{"live", "/v1/live?service=checkout"},
		{"live-at", "/v1/live?service=checkout&at=" + at},
		{"instance", "/v1/live?instance=checkout-7d9f8c6b5d-00000007"},
		{"dependency", "/v1/live/artifacts?dependency=golang.org/x/net&below=v0.40.0"},
		{"flags", "/v1/flags?target=checkout@prod"},
		{"metrics", "/metrics"},
	} {
		b.Run(q.name, func(b *testing.B) {
			for b.Loop() {
				w := httptest.NewRecorder()
				r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, q.path, nil))
				if n, _ := io.Copy(io.Discard, w.Body); w.Code != http.StatusOK || n == 0 {
					b.Fatal(q.path, w.Code)
				}
			}
		})
	}
}

// BenchmarkReport takes heartbeats whole, from the request on. Run it for fewer
// iterations than a client may report at once.
func BenchmarkReport(b *testing.B) {
	r := crowd(b)
	in := crowdReport(r, 7)
	in.DepList = nil
	body, err := json.Marshal(in)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		req := httptest.NewRequest(http.MethodPost, "/v1/instances", strings.NewReader(string(body)))
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		if w.Code != http.StatusNoContent {
			b.Fatal(w.Code, w.Body)
		}
	}
}
