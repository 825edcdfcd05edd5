package sdk

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/sealstone/sealstone/api"
)

// Bounds on what a server may send, in bytes after decompression.
const (
	maxEvidence = 16 << 20
	maxPending  = 4 << 20
	maxProblem  = 16 << 10
)

// errTooLong is an answer over its bound: endless data, or not what was asked for.
var errTooLong = errors.New("the answer is longer than it may be")

// remote asks servers. It bounds bytes and time and believes nothing.
type remote struct {
	http    *http.Client
	token   func() (string, error)
	servers []*server
	own     *http.Transport // to be closed; nil when the caller brought one
}

// server is one base URL and how it did last.
type server struct {
	base string

	mu      sync.Mutex
	lastOK  time.Time
	lastErr string
}

func newRemote(cfg *Config) *remote {
	r := &remote{http: &http.Client{}, token: cfg.token}
	if cfg.HTTPClient != nil {
		*r.http = *cfg.HTTPClient
	} else {
		r.own = http.DefaultTransport.(*http.Transport).Clone()
		r.http.Transport = r.own
	}
	r.http.CheckRedirect, r.http.Timeout = sameHost, 0 // each request has its own time limit
	for _, s := range cfg.Servers {
		r.servers = append(r.servers, &server{base: strings.TrimSuffix(s, "/")})
	}
	return r
}

func (r *remote) close() {
	if r.own != nil {
		r.own.CloseIdleConnections()
	}
}

// sameHost keeps a server from sending us, and our token, somewhere else.
func sameHost(req *http.Request, via []*http.Request) error {
	if first := via[0].URL; len(via) > 3 || req.URL.Host != first.Host || req.URL.Scheme != first.Scheme {
		return fmt.Errorf("redirect to another host, or too many: %s", req.URL.Redacted())
	}
	return nil
}

func (s *server) done(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.lastOK, s.lastErr = time.Now(), ""
	} else if !errors.Is(err, context.Canceled) {
		s.lastErr = err.Error()
	}
}

func (r *remote) request(ctx context.Context, method, url string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "sealstone-go/"+Version)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	token, err := r.token()
	if err != nil {
		return nil, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		defer resp.Body.Close()
		return nil, problem(resp)
	}
	return resp, nil
}

// problem reads the error that a server answered with.
func problem(resp *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxProblem)) // an error body may be cut short or missing
	var p api.Problem
	if json.Unmarshal(b, &p) == nil && p.Type != "" {
		return p.Error()
	}
	code := api.CodeUnavailable
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		code = api.CodeUnauthorized
	case http.StatusForbidden:
		code = api.CodeForbidden
	case http.StatusNotFound:
		code = api.CodeNotFound
	case http.StatusGone:
		return &api.Error{Code: api.CodeGone, Detail: "the server answered " + resp.Status, Hint: "the object was erased by an operator; activate a set without it"}
	}
	return &api.Error{Code: code, Detail: "the server answered " + resp.Status}
}

// get reads an answer of at most limit bytes.
func (r *remote) get(ctx context.Context, s *server, path string, limit int64, timeout time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	resp, err := r.request(ctx, http.MethodGet, s.base+path, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%w: over %d bytes", errTooLong, limit)
	}
	return b, err
}

// post sends a small document and returns the answer, of at most maxProblem bytes.
func (r *remote) post(ctx context.Context, s *server, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	resp, err := r.request(ctx, http.MethodPost, s.base+path, body)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, maxProblem)) // read, so that the connection is used again
}

// watch holds a server's event stream and calls notify when it opens and at
// every event: events say that there is something to read, never what.
func (r *remote) watch(ctx context.Context, s *server, path string, notify func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	idle := time.AfterFunc(watchIdle, cancel)
	defer idle.Stop()
	resp, err := r.request(ctx, http.MethodGet, s.base+path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if t := resp.Header.Get("Content-Type"); !strings.HasPrefix(t, "text/event-stream") {
		return fmt.Errorf("watch: content type %.64q is no event stream", t)
	}
	notify()
	lines := bufio.NewScanner(resp.Body) // lines over 64 KiB end the stream
	for lines.Scan() {
		idle.Reset(watchIdle)
		if strings.HasPrefix(lines.Text(), "event:") {
			notify()
		}
	}
	return errors.Join(io.ErrUnexpectedEOF, lines.Err())
}

// firstGood asks servers in order, the next one when the one before failed or
// is slow, and returns the first answer that ask believes. It returns when all
// that it started has ended.
func firstGood[T any](ctx context.Context, servers []*server, ask func(context.Context, *server) (T, error)) (T, error) {
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		v   T
		err error
	}
	var (
		results = make(chan result, len(servers))
		wg      sync.WaitGroup
		next    int
		errs    []error
		zero    T
	)
	defer wg.Wait()
	defer cancel()
	start := func() {
		if next == len(servers) {
			return
		}
		s := servers[next]
		next++
		wg.Go(func() {
			v, err := ask(ctx, s)
			s.done(err)
			if err != nil {
				err = fmt.Errorf("%s: %w", s.base, err)
			}
			results <- result{v, err}
		})
	}
	start()
	hedge := time.NewTicker(hedgeAfter)
	defer hedge.Stop()
	for len(errs) < len(servers) {
		select {
		case r := <-results:
			if r.err == nil {
				return r.v, nil
			}
			errs = append(errs, r.err)
			start()
		case <-hedge.C:
			start()
		}
	}
	if len(servers) == 0 {
		return zero, errors.New("no servers are configured")
	}
	return zero, errors.Join(errs...)
}
