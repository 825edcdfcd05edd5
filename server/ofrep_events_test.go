package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// address evaluates in bulk and returns the stream's address.
func (r *rig) address(path string, header ...string) string {
	r.t.Helper()
	_, b := r.post(200, path, "{}", header...)
	got := decode[struct {
		EventStreams []struct {
			Type               string
			URL                string
			InactivityDelaySec int
			Endpoint           struct{ RequestURI, Origin string }
		}
	}](r.t, b)
	if len(got.EventStreams) != 1 || got.EventStreams[0].Type != "sse" || got.EventStreams[0].InactivityDelaySec != 120 || got.EventStreams[0].URL+got.EventStreams[0].Endpoint.Origin != "" {
		r.t.Fatalf("%+v", got)
	}
	return got.EventStreams[0].Endpoint.RequestURI
}

// live is a server whose loops run, behind a real socket. Its end waits for all
// of it and looks for what was left behind.
type live struct {
	*rig
	url  string
	stop context.CancelFunc
}

func newLive(t *testing.T, edit func(*Config)) *live {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	r := newRig(t, func(c *Config) {
		c.Poll = time.Hour
		if edit != nil {
			edit(c)
		}
	})
	r.sync()
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() { r.Run(ctx); close(ran) }()
	hs := httptest.NewServer(r.Server)
	t.Cleanup(func() {
		cancel()
		await(t, "the end of the loops", ran)
		ends(t, "the requests", hs.Close)
		streaming.CloseIdleConnections()
		_ = r.store.Close()
		goleak.VerifyNone(t, leaks)
	})
	return &live{r, hs.URL, cancel}
}

// sse is one event; all of its lines.
type sse map[string]string

func (l *live) listen(uri string, header ...string) <-chan sse {
	l.t.Helper()
	req, err := http.NewRequest(http.MethodGet, l.url+uri, nil)
	if err != nil {
		l.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := streaming.Do(req)
	if err != nil {
		l.t.Fatal(err)
	}
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
		l.t.Fatalf("%s %v", res.Status, res.Header)
	}
	out := make(chan sse, 100)
	go func() {
		defer close(out)
		defer res.Body.Close()
		e := sse{}
		for sc := bufio.NewScanner(res.Body); sc.Scan(); {
			if name, value, ok := strings.Cut(sc.Text(), ": "); ok {
				e[name] = value
			} else if len(e) > 0 {
				out <- e
				e = sse{}
			}
		}
	}()
	return out
}

// refetch expects the next event to be one, and returns its data.
func refetch(t *testing.T, events <-chan sse) (e sse, data map[string]any) {
	t.Helper()
	for late := time.After(patience); ; {
		select {
		case e, ok := <-events:
			if !ok {
				t.Fatal("the stream ended")
			}
			if e["data"] == "" {
				continue // retry, or a comment
			}
			valid(t, "sseEventData", []byte(e["data"]))
			data := decode[map[string]any](t, []byte(e["data"]))
			if e["event"] != "message" || data["type"] != "refetchEvaluation" {
				t.Fatalf("%v", e)
			}
			return e, data
		case <-late:
			t.Fatalf("no event within %s", patience)
		}
	}
}

// ended expects a stream to end without another event.
func ended(t *testing.T, events <-chan sse) {
	t.Helper()
	for _, e := range rest(t, "the stream", events) {
		if e["data"] != "" {
			t.Errorf("unexpected event %v", e)
		}
	}
}

func (l *live) enter(scope api.Scope, after int64) {
	l.t.Helper()
	l.send(200, l.f.SafeMode(ledger.SafeModeEntered, "checkout", scope, "degraded", after))
}

func TestAStreamTellsOnlyOfItsTargetsBundle(t *testing.T) {
	l := newLive(t, nil)
	prod := l.listen(l.address(bulkPath))
	eu := l.listen(l.address("/at/checkout@prod/eu-west-1/ofrep/v1/evaluate/flags"))
	l.enter("prod/eu-west-1", 0)
	e, data := refetch(t, eu)
	size := strconv.FormatInt(l.store.Snapshot().Tree.Size, 10)
	if e["id"] != size || !strings.HasPrefix(data["etag"].(string), size+"-") || data["lastModified"] == nil {
		t.Errorf("%v, log of %s", e, size)
	}
	l.send(200, l.f.Statement(ledger.NoteAdded, "checkout", "prod", nil)) // no bundle changes
	l.enter("prod", 0)                                                    // eu's override is nearer
	if e, _ := refetch(t, prod); e["id"] != strconv.FormatInt(l.store.Snapshot().Tree.Size, 10) {
		t.Errorf("%v", e)
	}
	l.stop()
	ended(t, eu)
	ended(t, prod)
}

func TestWhoComesBackIsToldWhatWasMissed(t *testing.T) {
	l := newLive(t, nil)
	early := l.address(bulkPath)
	l.enter("prod", 0)
	size := l.store.Snapshot().Tree.Size
	at := func(n int64) string { return strconv.FormatInt(n, 10) }
	told := map[string]<-chan sse{
		"between evaluation and stream": l.listen(early),
		"away since before":             l.listen(early, "Last-Event-ID", at(size-1)),
		"of a longer log":               l.listen(early, "Last-Event-ID", at(size+1)),
		"with an id of no log":          l.listen(early, "Last-Event-ID", at(size)+"+pending"),
	}
	for name, events := range told {
		e, _ := refetch(t, events)
		if e["id"] != at(size) {
			t.Errorf("%s: %v", name, e)
		}
	}
	fresh := l.listen(l.address(bulkPath))
	back := l.listen(early, "Last-Event-ID", at(size))
	l.stop()
	ended(t, fresh)
	ended(t, back)
	for _, events := range told {
		ended(t, events)
	}
}

// Leaving a mode brings an old bundle back: its change is older than the id.
func TestAnExitThatWasMissedIsTold(t *testing.T) {
	l := newLive(t, nil)
	uri := l.address(bulkPath)
	l.enter("prod", 0)
	seen := l.store.Snapshot().Tree.Size
	l.send(200, l.f.SafeMode(ledger.SafeModeExited, "checkout", "prod", "degraded", 1))
	refetch(t, l.listen(uri, "Last-Event-ID", strconv.FormatInt(seen, 10)))
	l.stop()
}

func TestPendingModesAreTold(t *testing.T) {
	l := newLive(t, nil)
	events := l.listen(l.address(bulkPath))
	if _, err := l.hold(l.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0), nil, os.ErrClosed); err != nil {
		t.Fatal(err)
	}
	e, data := refetch(t, events)
	if !strings.HasSuffix(e["id"], "+pending") {
		t.Errorf("%v", e)
	}
	if at, _ := api.ParseTarget("checkout@prod"); !l.configOf(at).reached(url.Values{"flagConfigEtag": {data["etag"].(string)}}) {
		t.Error("this server has not reached what it announced")
	}
	refetch(t, l.listen(l.address(bulkPath), "Last-Event-ID", e["id"]))
	l.stop()
}

func TestAddressesRunOutAndCantBeForged(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	uri := r.address(bulkPath)
	now := time.Now()
	token := strings.TrimPrefix(uri, "/ofrep/v1/events?token=")
	g, err := r.streams.open(token, now)
	if err != nil || g.target != "checkout@prod" || g.client != "" {
		t.Fatalf("%+v, %v", g, err)
	}
	if left := time.Unix(g.expires, 0).Sub(now); left < streamTerm-time.Second || left > 2*streamTerm {
		t.Errorf("good for %s", left)
	}
	if _, err := r.streams.open(token, time.Unix(g.expires, 0)); api.CodeOf(err) != api.CodeUnauthorized {
		t.Errorf("run out: %v", err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		t.Fatal(err)
	}
	for _, forged := range []string{"", "x", "%00", token[:20], token + "AA", base64.RawURLEncoding.EncodeToString(raw[:16]),
		base64.RawURLEncoding.EncodeToString(bytes.Replace(raw, []byte("@prod"), []byte("@test"), 1))} {
		_, err := r.streams.open(forged, now)
		if api.CodeOf(err) != api.CodeUnauthorized {
			t.Errorf("%q: %v", forged, err)
		}
		r.get(401, "/ofrep/v1/events?token="+url.QueryEscape(forged))
	}
	r.restart(r.url)
	valid(t, "bulkEvaluationFailure", r.get(401, uri))
}

// A tag must not keep a client at an address that has run out.
func TestANewAddressIsANewAnswer(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	at, _ := api.ParseTarget("checkout@prod")
	digest, start := r.effect(t, "checkout@prod").Entry.Digest, time.Unix(0, 0)
	first := r.streams.url(at, everybody, digest, start)
	if r.streams.url(at, everybody, digest, start.Add(streamTerm-1)) != first {
		t.Error("the address changes within its term")
	}
	if r.streams.url(at, everybody, digest, start.Add(streamTerm)) == first {
		t.Error("the address outlives its term")
	}
	res, _ := r.post(200, bulkPath, "{}")
	r.restart(r.url)
	r.post(200, bulkPath, "{}", "If-None-Match", res.Header.Get("ETag"))
}

func TestAStreamEndsWithItsClientsPermission(t *testing.T) {
	l := newLive(t, nil)
	token := func(s string) string { return strconv.Quote(string(api.DigestOf([]byte(s)))) }
	l.push(map[string]string{"clients.yaml": "clients:\n  - {name: web, token: " + token("web") + ", services: [checkout], scopes: [prod]}\n  - {name: ops, token: " + token("ops") + ", services: [checkout], scopes: [prod]}\n"})
	uri := l.address("/ofrep/v1/evaluate/flags", "X-API-Key", "web")
	events := l.listen(uri)
	l.push(map[string]string{"clients.yaml": "clients:\n  - {name: ops, token: " + token("ops") + ", services: [checkout], scopes: [staging]}\n"})
	l.enter("prod", 0)
	ended(t, events)
	l.get(401, uri)
	at, _ := api.ParseTarget("checkout@prod")
	if err := l.mayStream(grant{client: "ops"}, at); api.CodeOf(err) != api.CodeForbidden {
		t.Errorf("moved client: %v", err)
	}
	if err := l.mayStream(grant{}, at); api.CodeOf(err) != api.CodeUnauthorized {
		t.Errorf("everybody: %v", err)
	}
	l.stop()
}

func TestAddressesAreNeverLogged(t *testing.T) {
	var out lockedBuffer
	l := newLive(t, func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	uri := l.address(bulkPath)
	events := l.listen(uri)
	l.enter("prod", 0)
	refetch(t, events)
	l.get(401, uri+"x")
	l.stop()
	ended(t, events)
	if token := strings.TrimPrefix(uri, "/ofrep/v1/events?token="); strings.Contains(out.String(), token[:30]) {
		t.Errorf("the log has the token:\n%s", out.String())
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestAnAnswerWaitsForTheAnnouncedVersion(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	at, _ := api.ParseTarget("checkout@prod")
	now := r.configOf(at)
	next := strconv.FormatInt(now.size+1, 10) + "-0123456789abcdef"
	cases := map[string]struct {
		query   url.Values
		reached bool
	}{
		"own tag":              {url.Values{"flagConfigEtag": {now.tag()}}, true},
		"older":                {url.Values{"flagConfigEtag": {"1-0123456789abcdef"}}, true},
		"newer":                {url.Values{"flagConfigEtag": {next}}, false},
		"newer, but the same":  {url.Values{"flagConfigEtag": {"99-" + now.version}}, true},
		"pending elsewhere":    {url.Values{"flagConfigEtag": {"1+pending-0123456789abcdef"}}, false},
		"somebody else's":      {url.Values{"flagConfigEtag": {"550e8400-e29b-41d4-a716-446655440000"}}, true},
		"no tag":               {url.Values{"flagConfigEtag": {"abc"}}, true},
		"this second":          {url.Values{"flagConfigLastModified": {strconv.FormatInt(now.changed, 10)}}, true},
		"later":                {url.Values{"flagConfigLastModified": {strconv.FormatInt(now.changed+1, 10)}}, false},
		"later, in words":      {url.Values{"flagConfigLastModified": {"2999-01-01T00:00:00Z"}}, false},
		"earlier, in words":    {url.Values{"flagConfigLastModified": {"1999-01-01T00:00:00Z"}}, true},
		"no time":              {url.Values{"flagConfigLastModified": {"soon"}}, true},
		"tag here, time later": {url.Values{"flagConfigEtag": {now.tag()}, "flagConfigLastModified": {"2999-01-01T00:00:00Z"}}, false},
	}
	for name, c := range cases {
		if got := now.reached(c.query); got != c.reached {
			t.Errorf("%s: %v", name, got)
		}
	}

	start := time.Now()
	r.post(200, bulkPath+"?flagConfigEtag="+next, "{}")
	if took := time.Since(start); took < maxConfigWait {
		t.Errorf("in vain, it waited only %s", took)
	}
	done := make(chan *http.Response, 1)
	go func() { done <- r.do(http.MethodPost, bulkPath+"?flagConfigEtag="+next, "{}") }()
	r.send(200, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
	if b := r.expect(200, await(t, "the answer", done)); !bytes.Contains(b, []byte(`"degraded"`)) {
		t.Errorf("%s", b)
	}
}

func FuzzOFREP(f *testing.F) {
	r := flagRig(f, variety, func(c *Config) { c.CORSOrigins = []string{"https://shop.example"} })
	for _, s := range []struct{ path, body, tag string }{
		{flagPath + "express", `{"context":{"targetingKey":"u"}}`, ""},
		{bulkPath, `{"context":{"email":"a@shop.example","pick":[1,{"a":null}]}}`, `W/"x", *`},
		{flagPath + "a%2Fb", `{"context":{"x":1e999}}`, ""},
		{"/at/checkout%40prod/ofrep/v1/evaluate/flags/%ff", `{"context":{"x":"\ud800"}}`, `"`},
		{"/ofrep/v1/evaluate/flags?flagConfigEtag=9-x", ``, ","},
		{"/ofrep/v1/events?token=AAAA", ``, ""},
	} {
		f.Add(s.path, s.body, s.tag)
	}
	f.Fuzz(func(t *testing.T, path, body, tag string) {
		u, err := url.ParseRequestURI(path)
		if err != nil || !strings.Contains(u.EscapedPath(), "/ofrep/v1/") {
			return // other routes are not our matter
		}
		u.RawQuery = strings.ReplaceAll(u.RawQuery, "flagConfig", "flag") // waiting is slow
		for _, method := range []string{http.MethodPost, http.MethodGet} {
			req := httptest.NewRequest(method, "/", strings.NewReader(body))
			req.URL = u
			req.Header.Set("If-None-Match", tag)
			req.Header.Set(TargetHeader, "checkout@prod")
			w := httptest.NewRecorder()
			r.ServeHTTP(w, req)
			if w.Code >= 500 || w.Code != 304 && !json.Valid(w.Body.Bytes()) {
				t.Fatalf("%s %s: %d %q", method, path, w.Code, w.Body)
			}
		}
	})
}
