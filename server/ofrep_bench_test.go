package server

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// hundred is a set of 100 flags: 60 static, 30 with one rule, 10 with ten.
func hundred() string {
	const one = `{if: [{ends_with: [{var: email}, "@example.com"]}, on, off]}`
	var ten strings.Builder
	ten.WriteString("{if: [")
	for i := range 10 {
		fmt.Fprintf(&ten, `{and: [{in: [{var: country}, [DE, FR, IT, ES, NL]]}, {sem_ver: [{var: version}, ">=", "2.%d.0"]}]}, {fractional: [{cat: ["r%d", {var: targetingKey}]}, [on, 50], [off, 50]]}, `, i, i)
	}
	ten.WriteString("off]}")
	var b strings.Builder
	b.WriteString("flags:\n")
	for i := range 100 {
		rule := ""
		switch i % 10 {
		case 0, 1, 2:
			rule = ", targeting: " + one
		case 3:
			rule = ", targeting: " + ten.String()
		}
		fmt.Fprintf(&b, "  flag-%03d: {state: ENABLED, variants: {on: true, off: false}, defaultVariant: off%s}\n", i, rule)
	}
	return b.String()
}

const benchBody = `{"context":{"targetingKey":"user-4711","email":"ada@example.com","country":"PT","version":"2.11.3","plan":"pro","age":37,"beta":true,"device":"mobile","locale":"pt-PT"}}`

// The floor: a handler that reads a context and writes the answer that ours
// gave, with encoding/json and typed structs, and does nothing else.
type (
	floorMeta struct {
		FlagSetID string `json:"flagSetId"`
		Mode      string `json:"mode"`
		Version   string `json:"version"`
		HeadAge   *int   `json:"headAge,omitempty"`
	}
	floorFlag struct {
		Key      string    `json:"key"`
		Reason   string    `json:"reason"`
		Value    any       `json:"value,omitempty"`
		Variant  string    `json:"variant,omitempty"`
		Metadata floorMeta `json:"metadata"`
	}
	floorStream struct {
		Endpoint struct {
			RequestURI string `json:"requestUri"`
		} `json:"endpoint"`
		InactivityDelaySec int    `json:"inactivityDelaySec"`
		Type               string `json:"type"`
	}
	floorBulk struct {
		EventStreams []floorStream `json:"eventStreams"`
		Flags        []floorFlag   `json:"flags"`
		Metadata     floorMeta     `json:"metadata"`
	}
)

func floorOf[T any](b testing.TB, answer []byte) http.Handler {
	out := decode[T](b, answer)
	if again, err := json.Marshal(out); err != nil || len(again) != len(answer) {
		b.Fatalf("the floor writes %d bytes, we %d: %s\n%s", len(again), len(answer), again, answer)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Context map[string]any `json:"context"`
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out)
	})
}

// peer is a server with keep-alive connections to it, and the request to send.
type peer struct {
	hs      *httptest.Server
	conns   []*benchConn
	request string
	status  int
}

type benchConn struct {
	net.Conn
	r *bufio.Reader
}

const connections, each = 16, 25 // requests a connection and round

func newPeer(b *testing.B, h http.Handler, path string, status int, header ...string) *peer {
	p := &peer{hs: httptest.NewServer(h), status: status}
	b.Cleanup(p.hs.Close)
	p.request = "POST " + path + " HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
	for i := 0; i+1 < len(header); i += 2 {
		p.request += header[i] + ": " + header[i+1] + "\r\n"
	}
	p.request += fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(benchBody), benchBody)
	for range connections {
		c, err := net.Dial("tcp", p.hs.Listener.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Close() })
		p.conns = append(p.conns, &benchConn{c, bufio.NewReader(c)})
	}
	return p
}

// round sends a batch over all connections and says how long it took.
func (p *peer) round(b *testing.B) time.Duration {
	var wg sync.WaitGroup
	start := time.Now()
	for _, c := range p.conns {
		wg.Go(func() {
			for range each {
				if err := c.ask(p.request, p.status); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(start)
}

func (c *benchConn) ask(request string, status int) error {
	if _, err := io.WriteString(c, request); err != nil {
		return err
	}
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return err
	}
	if res.StatusCode != status {
		return fmt.Errorf("status %d, want %d", res.StatusCode, status)
	}
	_, err = io.Copy(io.Discard, res.Body)
	return err
}

// compare runs both by turns and reports how many requests a second ours
// answers, and the median over all rounds of how that compares.
func compare(b *testing.B, ours, other *peer, unit string) {
	var ratios []float64
	var total time.Duration
	for _, p := range []*peer{ours, other} {
		p.round(b)
	}
	for i := 0; b.Loop(); i++ {
		var took, base time.Duration
		if i%2 == 0 {
			took, base = ours.round(b), other.round(b)
		} else {
			base, took = other.round(b), ours.round(b)
		}
		ratios, total = append(ratios, float64(base)/float64(took)), total+took
	}
	slices.Sort(ratios)
	b.ReportMetric(ratios[len(ratios)/2], unit)
	b.ReportMetric(float64(len(ratios)*connections*each)/total.Seconds(), "req/s")
	b.ReportMetric(0, "ns/op") // a round of both says nothing
}

// nothing is a client without a cost of its own.
type nothing struct{ h http.Header }

func (n *nothing) Header() http.Header         { return n.h }
func (n *nothing) Write(b []byte) (int, error) { return len(b), nil }
func (n *nothing) WriteHeader(int)             {}

// allocations of a request inside the handler, without net/http's own.
func allocations(h http.Handler, path string, header ...string) float64 {
	body := strings.NewReader("")
	req := httptest.NewRequest(http.MethodPost, path, nil)
	req.Body, req.ContentLength = io.NopCloser(body), int64(len(benchBody))
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	w := &nothing{http.Header{}}
	return testing.AllocsPerRun(200, func() {
		body.Reset(benchBody)
		clear(w.h)
		h.ServeHTTP(w, req)
	})
}

// BenchmarkOFREP holds the server, with all that it does for a request, against
// the floor and the 304 path against the 200 path: at least 0.9, and 1.5.
func BenchmarkOFREP(b *testing.B) {
	r := flagRig(b, hundred(), nil)
	const single = flagPath + "flag-003"
	_, one := r.post(200, single, benchBody)
	res, all := r.post(200, bulkPath, benchBody)
	tag := []string{"If-None-Match", res.Header.Get("ETag")}

	b.Run("single", func(b *testing.B) {
		floor := floorOf[floorFlag](b, one)
		compare(b, newPeer(b, r.Server, single, 200), newPeer(b, floor, single, 200), "x-floor")
		b.ReportMetric(allocations(r.Server, single), "allocs/req")
		b.ReportMetric(allocations(floor, single), "floor-allocs/req")
	})
	b.Run("bulk100", func(b *testing.B) {
		floor := floorOf[floorBulk](b, all)
		compare(b, newPeer(b, r.Server, bulkPath, 200), newPeer(b, floor, bulkPath, 200), "x-floor")
		b.ReportMetric(allocations(r.Server, bulkPath), "allocs/req")
		b.ReportMetric(allocations(floor, bulkPath), "floor-allocs/req")
		b.ReportMetric(float64(len(all)), "bytes")
	})
	b.Run("bulk100-304", func(b *testing.B) {
		compare(b, newPeer(b, r.Server, bulkPath, 304, tag...), newPeer(b, r.Server, bulkPath, 200), "x-200")
		b.ReportMetric(allocations(r.Server, bulkPath, tag...), "allocs/req")
	})
}
