package server

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sealstone/sealstone/ledger"
)

// events opens a stream and sends its event names.
func events(ctx context.Context, t *testing.T, url string) <-chan string {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := streaming.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != 200 || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		t.Fatalf("%s %s", res.Status, res.Header)
	}
	out := make(chan string, 100)
	go func() {
		defer close(out)
		defer res.Body.Close()
		for sc := bufio.NewScanner(res.Body); sc.Scan(); {
			if name, ok := strings.CutPrefix(sc.Text(), "event: "); ok {
				out <- name
			}
		}
	}()
	return out
}

func TestWatchersAreToldAndLoopsEnd(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	r := newRig(t, func(c *Config) { c.Poll = time.Hour })
	r.sync()
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() { r.Run(ctx); close(ran) }()
	hs := httptest.NewServer(r.Server)
	watch := events(ctx, t, hs.URL+"/v1/watch?target=checkout@prod")
	other := events(ctx, t, hs.URL+"/v1/watch?service=payments")
	feed := events(ctx, t, hs.URL+"/v1/changes/watch?after=3")
	if e := await(t, "an event", watch); e != "head" {
		t.Errorf("first event %q", e)
	}
	await(t, "an event", other)
	r.send(200, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
	if e := await(t, "an event", watch); e != "head" {
		t.Errorf("event %q", e)
	}
	if e := await(t, "a change", feed); e != "safe-mode.entered" {
		t.Errorf("feed %q", e)
	}
	cancel()
	await(t, "the end of the loops", ran)
	if more := rest(t, "the watch of another service", other); len(more) > 0 {
		t.Errorf("a watcher of another service was woken: %v", more)
	}
	rest(t, "the watch", watch)
	rest(t, "the feed", feed)
	ends(t, "the requests", hs.Close)
	streaming.CloseIdleConnections()
	_ = r.store.Close()
}

func TestASafeModeThatRunsOutIsRecorded(t *testing.T) {
	for onExpiry, want := range map[string]string{"restore": "safe-mode.exited checkout@prod", "hold": "safe-mode.overdue checkout@prod"} {
		t.Run(onExpiry, func(t *testing.T) {
			r := newRig(t, nil)
			r.sync()
			r.send(200, r.f.Statement(ledger.SafeModeEntered, "checkout", "prod", func(s *ledger.Statement) {
				after := int64(0)
				s.Mode, s.TTL, s.OnExpiry, s.After = "degraded", ledger.MinTTL, onExpiry, &after
			}))
			d := r.store.Snapshot().State.Deadlines()
			if len(d) != 1 {
				t.Fatalf("%d deadlines", len(d))
			}
			if err := r.expire(t.Context(), d[0]); err == nil {
				t.Fatal("recorded before its time")
			}
			r.ahead = 2 * ledger.MinTTL * time.Second
			if err := r.expire(t.Context(), d[0]); err != nil {
				t.Fatal(err)
			}
			wantKinds(t, r, 5, want)
			if len(r.store.Snapshot().State.Deadlines()) != 0 {
				t.Error("the timer is still there")
			}
		})
	}
}
