package sdk_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
	"github.com/sealstone/sealstone/sdk"
)

// fakeLog is a log in memory with the routes of a server, and hooks to lie with.
type fakeLog struct {
	t *testing.T
	*ledgertest.Fixture

	mu        sync.Mutex
	state     *ledger.State
	leaves    [][]byte
	hashes    []tlog.Hash
	objects   map[api.Digest][]byte
	pending   []json.RawMessage
	trust     []byte
	watchers  map[chan string]bool
	knowsDeps bool
	reports   []api.Instance
	requests  []string

	down     bool                                  // connections fail
	hang     bool                                  // requests get no answer
	evidence func(*ledger.Evidence)                // edits what is answered
	serve    func(path string, body []byte) []byte // edits any body
	head     func(*ledger.Head)                    // edits a head before it is signed
	headKey  note.Signer
	size     int64 // answer as if the log ended here; 0 is all
}

func newFake(t *testing.T) *fakeLog { return fakeFor(t, ledgertest.Origin) }

func fakeFor(t *testing.T, origin string) *fakeLog {
	return fakeOf(t, ledgertest.For(t, origin))
}

func fakeOf(t *testing.T, f *ledgertest.Fixture) *fakeLog {
	l := &fakeLog{t: t, Fixture: f, state: ledger.NewState(f.Origin), objects: map[api.Digest][]byte{}, trust: f.Trust.Raw,
		watchers: map[chan string]bool{}, headKey: f.Node}
	l.append(ledger.LedgerCreated, ledger.Data{Fields: ledger.Fields{Trust: f.Trust.Digest}})
	l.operators(f.OperatorsSig, 1)
	return l
}

func (l *fakeLog) operators(sig []byte, version int) {
	l.append(ledger.OperatorsChanged, ledger.Data{Statement: sig, Fields: ledger.Fields{Version: strconv.Itoa(version), Commit: ledgertest.Release(1).Commit}})
}

func (l *fakeLog) HashReader() tlog.HashReader {
	return tlog.HashReaderFunc(func(idx []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, 0, len(idx))
		for _, i := range idx {
			out = append(out, l.hashes[i])
		}
		return out, nil
	})
}

// append records a change of the node's own.
func (l *fakeLog) append(kind ledger.Kind, d ledger.Data) int64 {
	l.t.Helper()
	now := time.Now()
	return l.record(ledger.NewEvent(l.Origin, kind, ledgertest.NewID(now), now, now, d))
}

// accept records a signed statement.
func (l *fakeLog) accept(s *ledger.Signed) int64 {
	l.t.Helper()
	now := time.Now()
	d := ledger.Data{Service: s.Service, Scope: s.Scope, Statement: s.Raw, Detail: s.Detail, Fields: s.Fields}
	if s.Kind == ledger.SafeModeEntered || s.Kind == ledger.SafeModeRenewed {
		d.Expires = expires(s, now)
	}
	return l.record(ledger.NewEvent(l.Origin, s.Kind, s.ID, s.At(), now, d))
}

// expires is when a mode ends that is recorded now.
func expires(s *ledger.Signed, now time.Time) string {
	return api.FormatTime(now.Add(time.Duration(s.TTL) * time.Second))
}

func (l *fakeLog) record(e *ledger.Event) int64 {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state.Next(&e.Data)
	leaf, err := e.Leaf(ledger.NodeSigner{Signer: l.Node})
	if err != nil {
		l.t.Fatal(err)
	}
	c, err := ledger.ParseLeaf(leaf)
	if err != nil {
		l.t.Fatal(err)
	}
	if err := l.state.Apply(c, l.Trust); err != nil {
		l.t.Fatal(err)
	}
	return l.push(leaf)
}

// push adds a leaf without asking whether it is right.
func (l *fakeLog) push(leaf []byte) int64 {
	n := int64(len(l.leaves))
	more, err := tlog.StoredHashes(n, leaf, l.HashReader())
	if err != nil {
		l.t.Fatal(err)
	}
	l.leaves, l.hashes = append(l.leaves, leaf), append(l.hashes, more...)
	return n
}

// files of a bundle: flags.json and one document.
func files(n int) map[string][]byte {
	return map[string][]byte{
		"flags.json": fmt.Appendf(nil, `{"flags":{"new-checkout":{"defaultVariant":"off","state":"ENABLED","targeting":{"if":[{"==":[{"var":"country"},"de"]},"on","off"]},`+
			`"variants":{"off":false,"on":true}},"release":{"defaultVariant":"v","state":"ENABLED","variants":{"v":%d}}}}`, n),
		"config/http.json": fmt.Appendf(nil, `{"timeout":%d}`, n),
	}
}

// contents are the bundles of a set by mode.
type contents map[api.Mode]map[string][]byte

func release(n int) contents {
	return contents{api.ModeNormal: files(n), "degraded": files(1000 + n)}
}

// activate builds a set and records it.
func (l *fakeLog) activate(scope api.Scope, n int, c contents) ledger.SetRef {
	l.t.Helper()
	ref := l.publish(scope, c)
	l.append(ledger.BundleActivated, ledger.Data{Service: "checkout", Scope: scope,
		Fields: ledger.Fields{Release: ledgertest.Release(n), Set: &ref, Contract: 1}})
	return ref
}

func (l *fakeLog) publish(scope api.Scope, c contents) ledger.SetRef {
	l.t.Helper()
	var entries []bundle.Entry
	for mode, files := range c {
		b, err := bundle.Build(bundle.Config{Contract: 1, Mode: mode, Service: "checkout"}, files)
		if err != nil {
			l.t.Fatal(err)
		}
		l.put(b.Manifest)
		for _, blob := range b.Blobs {
			l.put(blob)
		}
		entries = append(entries, bundle.Entry{Scope: scope, Mode: mode, Digest: b.Digest, Size: int64(len(b.Manifest))})
	}
	return l.publishSet(entries)
}

func (l *fakeLog) publishSet(entries []bundle.Entry) ledger.SetRef {
	l.t.Helper()
	set, err := bundle.BuildSet(entries)
	if err != nil {
		l.t.Fatal(err)
	}
	l.put(set)
	return ledger.SetRef{Digest: api.DigestOf(set), Size: int64(len(set))}
}

func (l *fakeLog) put(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.objects[api.DigestOf(b)] = b
}

// tell notifies watchers.
func (l *fakeLog) tell(event string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.watchers {
		select {
		case w <- event:
		default:
		}
	}
}

// locked runs f while no request is answered.
func (l *fakeLog) locked(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

// reported is what clients have reported so far.
func (l *fakeLog) reported() (all []api.Instance) {
	l.locked(func() { all = slices.Clone(l.reports) })
	return all
}

func (l *fakeLog) tree(size int64) ledger.Tree {
	root, err := tlog.TreeHash(size, l.HashReader())
	if err != nil {
		l.t.Fatal(err)
	}
	return ledger.Tree{Size: size, Root: root}
}

// end is the size that the log gives out.
func (l *fakeLog) end() int64 {
	if l.size > 0 {
		return l.size
	}
	return int64(len(l.leaves))
}

// answer builds evidence as a server would; l.mu is held.
func (l *fakeLog) answer(service string, from int64, have []int64) *ledger.Evidence {
	size, state := l.end(), l.state
	if l.size > 0 {
		state = l.refold(l.size)
	}
	h := &ledger.Head{Origin: l.Origin, Service: service, Tree: l.tree(size), Issued: time.Now().Truncate(time.Millisecond), Lines: state.HeadLines(service)}
	if o := state.Operators; o != nil {
		h.Operators = ledger.Ref{Index: o.Index, Hash: o.Hash}
	}
	if l.head != nil {
		l.head(h)
	}
	note1, err := h.Sign(l.headKey)
	must(l.t, err)
	cp, err := ledger.SignCheckpoint(l.Origin, l.tree(size), l.Log)
	must(l.t, err)
	e := &ledger.Evidence{Head: string(note1), Checkpoint: string(cp), Consistency: []string{}}
	if from > 0 && from < size {
		p, err := tlog.ProveTree(size, from, l.HashReader())
		must(l.t, err)
		e.Consistency = ledger.EncodeHashes(p)
	}
	for _, i := range l.needed(h, state) {
		if slices.Contains(have, i) {
			continue
		}
		p, err := tlog.ProveRecord(size, i, l.HashReader())
		must(l.t, err)
		e.Changes = append(e.Changes, ledger.EvidenceChange{Index: i, Leaf: l.leaves[i], Proof: ledger.EncodeHashes(p)})
	}
	if l.evidence != nil {
		l.evidence(e)
	}
	return e
}

// needed lists what a cold client wants: the changes of all lines, the sets
// they cite, and those sets' successors.
func (l *fakeLog) needed(h *ledger.Head, state *ledger.State) []int64 {
	want := map[int64]bool{}
	if h.Operators.Hash != "" {
		want[h.Operators.Index] = true
	}
	for _, line := range h.Lines {
		want[line.Index] = true
		c, err := ledger.ParseLeaf(l.leaves[line.Index])
		must(l.t, err)
		for i, ref := range state.Sets {
			if ref.Index == c.Data.Operators {
				want[ref.Index] = true
				if i+1 < len(state.Sets) {
					want[state.Sets[i+1].Index] = true
				}
			}
		}
	}
	var out []int64
	for i := range want {
		out = append(out, i)
	}
	slices.Sort(out)
	return out
}

func (l *fakeLog) refold(size int64) *ledger.State {
	s := ledger.NewState(l.Origin)
	for _, leaf := range l.leaves[:size] {
		c, err := ledger.ParseLeaf(leaf)
		must(l.t, err)
		must(l.t, s.Apply(c, l.Trust))
	}
	return s
}

func (l *fakeLog) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v1/watch" {
		l.watch(w, r)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests = append(l.requests, r.Method+" "+r.URL.RequestURI())
	body, err := l.body(r)
	if err != nil {
		p := api.ProblemOf(err)
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(p.Status)
		_ = json.NewEncoder(w).Encode(p)
		return
	}
	if l.serve != nil {
		body = l.serve(r.URL.Path, body)
	}
	_, _ = w.Write(body)
}

func (l *fakeLog) body(r *http.Request) ([]byte, error) {
	q := r.URL.Query()
	switch path := r.URL.Path; {
	case path == "/v1/evidence":
		from, _ := strconv.ParseInt(q.Get("from"), 10, 64)
		if size := l.end(); from > size {
			return nil, &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("a log of %d entries is known to you, this one has %d", from, size)}
		}
		var have []int64
		for s := range strings.SplitSeq(q.Get("have"), ",") {
			if n, err := strconv.ParseInt(s, 10, 64); err == nil {
				have = append(have, n)
			}
		}
		b, err := json.Marshal(l.answer(q.Get("service"), from, have))
		must(l.t, err)
		return b, nil
	case path == "/v1/pending":
		b, err := json.Marshal(api.Pending{Statements: l.pending})
		must(l.t, err)
		return b, nil
	case path == "/v1/trust":
		return l.trust, nil
	case path == "/v1/instances":
		var i api.Instance
		must(l.t, json.NewDecoder(r.Body).Decode(&i))
		l.reports = append(l.reports, i)
		if i.Deps != "" && i.DepList == nil && !l.knowsDeps {
			return json.Marshal(api.ReportAnswer{Want: []string{api.WantDependencies}})
		}
		l.knowsDeps = l.knowsDeps || i.DepList != nil
		return nil, nil
	case strings.HasPrefix(path, "/v2/checkout/"):
		b, ok := l.objects[api.Digest(path[strings.LastIndexByte(path, '/')+1:])]
		if ok {
			return b, nil
		}
	}
	return nil, &api.Error{Code: api.CodeNotFound, Detail: "no " + r.URL.Path}
}

func (l *fakeLog) watch(w http.ResponseWriter, r *http.Request) {
	events := make(chan string, 16)
	l.locked(func() { l.watchers[events] = true })
	defer l.locked(func() { delete(l.watchers, events) })
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprint(w, ": hello\n\n")
	alive := time.NewTicker(15 * time.Second)
	defer alive.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case e := <-events:
			if e == "drop" {
				return
			}
			fmt.Fprintf(w, "event: %s\nid: 1\ndata: {}\n\n", e)
		case <-alive.C:
			fmt.Fprint(w, ": alive\n\n")
		}
	}
}

// RoundTrip answers in this process, streaming, so that synctest sees it all.
func (l *fakeLog) RoundTrip(r *http.Request) (*http.Response, error) {
	l.mu.Lock()
	down, hang := l.down, l.hang
	l.mu.Unlock()
	if down {
		return nil, fmt.Errorf("connection refused")
	}
	if hang {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	pr, pw := io.Pipe()
	rw := &pipeWriter{header: http.Header{}, pipe: pw, status: make(chan int, 1)}
	ctx, cancel := context.WithCancel(r.Context())
	go func() {
		defer cancel()
		l.ServeHTTP(rw, r.WithContext(ctx))
		rw.WriteHeader(http.StatusOK)
		_ = pw.Close()
	}()
	stop := context.AfterFunc(ctx, func() { _ = pw.CloseWithError(io.ErrUnexpectedEOF) })
	status := <-rw.status
	return &http.Response{StatusCode: status, Status: strconv.Itoa(status), Header: rw.header, Body: &pipeBody{pr, cancel, stop}, Request: r, ProtoMajor: 1, ProtoMinor: 1}, nil
}

type pipeWriter struct {
	header http.Header
	pipe   *io.PipeWriter
	status chan int
	once   sync.Once
}

func (w *pipeWriter) Header() http.Header { return w.header }
func (w *pipeWriter) WriteHeader(s int)   { w.once.Do(func() { w.status <- s }) }
func (w *pipeWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.pipe.Write(b)
}

type pipeBody struct {
	*io.PipeReader
	cancel context.CancelFunc
	stop   func() bool
}

func (b *pipeBody) Close() error {
	b.cancel()
	b.stop()
	return b.PipeReader.Close()
}

// hosts sends each request to the log of its host.
type hosts map[string]*fakeLog

func (h hosts) RoundTrip(r *http.Request) (*http.Response, error) { return h[r.URL.Host].RoundTrip(r) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// config is for one server, http://log.
func (l *fakeLog) config() sdk.Config {
	return sdk.Config{
		Servers: []string{"http://log"}, Target: "checkout@prod/eu", TrustData: l.Trust.Raw,
		HTTPClient: &http.Client{Transport: l}, Logger: slog.New(slog.NewTextHandler(testLog{l.t}, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
}

// released is a log with release 1 in prod, and a client's config for it.
func released(t *testing.T) (*fakeLog, sdk.Config) {
	t.Helper()
	l := newFake(t)
	l.activate("prod", 1, release(1))
	return l, l.config()
}

// running is the same with a client that runs the release.
func running(t *testing.T) (*fakeLog, *sdk.Client) {
	t.Helper()
	l, cfg := released(t)
	return l, open(t, cfg)
}

type testLog struct{ t *testing.T }

func (w testLog) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func open(t *testing.T, cfg sdk.Config) *sdk.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := sdk.Open(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// succeed is an empty log that goes on from this one, by trust version 2.
func (l *fakeLog) succeed(origin string) *fakeLog {
	l.t.Helper()
	next := ledgertest.For(l.t, origin)
	st, end := next.Trust.TrustStatement, l.tree(int64(len(l.leaves)))
	st.Version, st.Succeeds = 2, &ledger.Succeeds{Origin: l.Origin, Size: end.Size, Root: base64.StdEncoding.EncodeToString(end.Root[:])}
	raw, err := ledger.SignTrust(st, l.Root, next.Root)
	must(l.t, err)
	next.Trust, err = ledger.ParseTrust(raw)
	must(l.t, err)
	return fakeOf(l.t, next)
}
