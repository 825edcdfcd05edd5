package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// client asks a server. Answers are bounded, errors come back as the server's
// own rows of the error table.
type client struct {
	base  string
	token string
	http  *http.Client
}

const maxAnswer = 64 << 20

func (a *app) client() (*client, error) {
	if a.server == "" {
		return nil, errors.New("which server? pass --server URL or set SEALSTONE_SERVER, for example http://127.0.0.1:7460")
	}
	return a.clientFor(a.server)
}

// clientFor asks another server than --server.
func (a *app) clientFor(server string) (*client, error) {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("%q is not an http or https URL", server)
	}
	c := &client{base: strings.TrimSuffix(server, "/"), http: &http.Client{Timeout: 90 * time.Second}}
	if a.tokenFile != "" {
		b, err := os.ReadFile(a.tokenFile)
		if err != nil {
			return nil, fmt.Errorf("token: %w", err)
		}
		c.token = strings.TrimSpace(string(b))
	}
	return c, nil
}

// do sends a request and returns the answer's bytes.
func (c *client) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := c.firstByte(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err == nil && len(b) > maxAnswer {
		err = fmt.Errorf("answer of %s is over %d bytes", path, maxAnswer)
	}
	if err != nil {
		return nil, err
	}
	if res.StatusCode >= 400 {
		return nil, problem(res, b)
	}
	return b, nil
}

// How long an answer may take to begin. A server that can't write answers a safe
// mode after 7 s, any other statement after 30.
const (
	readWait  = 12 * time.Second
	writeWait = 40 * time.Second
)

// firstByte sends a request, and gives up on a server that says nothing.
func (c *client) firstByte(req *http.Request) (*http.Response, error) {
	wait := readWait
	if req.Method == http.MethodPost {
		wait = writeWait
	}
	ctx, cancel := context.WithCancelCause(req.Context())
	silent := &api.Error{Code: api.CodeUnavailable, Detail: fmt.Sprintf("%s does not answer within %s", c.base, wait), Hint: reachHint}
	timer := time.AfterFunc(wait, func() { cancel(silent) })
	res, err := c.http.Do(req.WithContext(ctx))
	timer.Stop()
	if err == nil {
		res.Body = closer{res.Body, cancel}
		return res, nil
	}
	cancel(nil)
	if context.Cause(ctx) == silent {
		err = silent
	}
	return nil, unreachable(c.base, err)
}

// closer ends a request with its body.
type closer struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
}

func (c closer) Close() error { c.cancel(nil); return c.ReadCloser.Close() }

const reachHint = "is it running, and is the URL right? --server names another one"

func unreachable(base string, err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return &api.Error{Code: api.CodeUnavailable, Detail: fmt.Sprintf("can't reach %s: %v", base, op.Err), Err: err,
			Hint: reachHint}
	}
	return err
}

func problem(res *http.Response, b []byte) error {
	var p api.Problem
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if kind == "application/problem+json" && json.Unmarshal(b, &p) == nil {
		e := p.Error()
		e.Detail, e.Hint = printable(e.Detail), printable(e.Hint) // a line each, of no line of ours
		switch {
		case e.Code == api.CodeUnauthorized:
			e.Hint = tokenHint
		case strings.HasPrefix(e.Detail, "query member "):
			e.Detail = strings.TrimPrefix(e.Detail, "query member ")
		}
		switch {
		case strings.Contains(e.Hint, "?service="):
			e.Hint = "name a service of yours with --service"
		}
		return e
	}
	e := &api.Error{Detail: fmt.Sprintf("%s answered %s", res.Request.URL.Path, res.Status)}
	switch res.StatusCode { // OCI routes answer in their own format
	case http.StatusNotFound:
		e.Code = api.CodeNotFound
	case http.StatusGone:
		e.Code = api.CodeGone
	case http.StatusForbidden:
		e.Code = api.CodeForbidden
	case http.StatusUnauthorized:
		e.Code, e.Hint = api.CodeUnauthorized, tokenHint
	default:
		return errors.New(e.Detail)
	}
	if strings.HasPrefix(res.Request.URL.Path, "/v2/") || e.Hint != "" {
		return e
	}
	e.Hint = notOurs
	return e
}

const tokenHint = "pass --token-file FILE or set SEALSTONE_TOKEN_FILE; clients.yaml of the repository lists who has a token"

const notOurs = "is that a Sealstone server? --server is its address without a path, for example http://127.0.0.1:7460"

// get decodes a JSON answer into v.
func (c *client) get(ctx context.Context, path string, query url.Values, v any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	b, err := c.do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return &api.Error{Code: api.CodeInternal, Detail: fmt.Sprintf("answer of %s: %v", path, err), Hint: notOurs, Err: err}
	}
	return nil
}

// get asks --server once.
func (a *app) get(ctx context.Context, path string, query url.Values, v any) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	return c.get(ctx, path, query, v)
}

// trust is the trust file that a server shows.
func (c *client) trust(ctx context.Context) ([]byte, error) {
	return c.do(ctx, http.MethodGet, "/v1/trust", nil)
}

// loadTrust reads --trust.
func (a *app) loadTrust() (*ledger.Trust, error) {
	if a.trust == "" {
		return nil, nil
	}
	b, err := os.ReadFile(a.trust)
	if err != nil {
		return nil, fmt.Errorf("trust: %w", err)
	}
	return ledger.ParseTrust(b)
}

// ownTrust reads --trust where nothing else will do; without it, it asks.
func (a *app) ownTrust(question string) (*ledger.Trust, error) {
	t, err := a.loadTrust()
	if t == nil && err == nil {
		err = errors.New(question)
	}
	return t, err
}

// needTrust reads --trust, or asks the server and says so: what is checked with
// a server's own trust file proves that the server agrees with itself.
func (a *app) needTrust(ctx context.Context, c *client) (*ledger.Trust, error) {
	if c == nil {
		return a.ownTrust("which trust file? pass --trust FILE or set SEALSTONE_TRUST")
	}
	t, err := a.loadTrust()
	if err != nil {
		return nil, err
	}
	b, err := c.trust(ctx)
	if err != nil {
		return nil, err
	}
	if t != nil {
		return a.followTrust(t, b)
	}
	fmt.Fprintln(a.err, "note: verifying with the server's own trust file; pass --trust FILE to trust nobody")
	return ledger.ParseTrust(b)
}

// followTrust goes from --trust to a newer version that the server shows, where
// the roots lead there.
func (a *app) followTrust(t *ledger.Trust, shown []byte) (*ledger.Trust, error) {
	newer, err := t.Follow(shown)
	if err == nil {
		a.noteNewer("the server", t, newer)
	}
	return newer, err
}

func (a *app) noteNewer(who string, t, newer *ledger.Trust) {
	if newer.Version > t.Version {
		fmt.Fprintf(a.err, "note: %s shows version %d of the trust file, which the roots of version %d lead to\n", who, newer.Version, t.Version)
	}
	for _, v := range newer.Versions() {
		if v.Version > t.Version && v.Succeeds != nil {
			fmt.Fprintf(a.err, "note: log %s is known up to entry %d and goes on as another one, %s: that is the one looked at\n", v.Succeeds.Origin, v.Succeeds.Size-1, v.Origin)
		}
	}
}

// signing is what it takes to sign a statement and send it.
func (a *app) signing(ctx context.Context) (key ledger.Signer, c *client, origin string, err error) {
	if key, err = a.signer(); err != nil {
		return nil, nil, "", err
	}
	if c, err = a.client(); err != nil {
		return nil, nil, "", err
	}
	origin, err = a.origin(ctx, c)
	return key, c, origin, err
}

// origin is the log that statements are meant for. Where c is given it is the one
// that goes on from that of --trust, if c shows that the roots say so; what c
// refuses otherwise it says itself.
func (a *app) origin(ctx context.Context, c *client) (string, error) {
	t, err := a.signingTrust(ctx)
	if err != nil {
		return "", err
	}
	if c == nil || a.trust == "" {
		return t.Origin, nil
	}
	shown, err := c.trust(ctx)
	if api.CodeOf(err) == api.CodeUnavailable {
		return "", err
	}
	if newer, err := t.Follow(shown); err == nil && newer.Origin != t.Origin {
		fmt.Fprintf(a.err, "note: log %s goes on as %s: the statement is signed for that one\n", t.Origin, newer.Origin)
		t = newer
	}
	return t.Origin, nil
}

// signingTrust is --trust, or the server's trust file: whoever signs for the
// wrong log signs nothing.
func (a *app) signingTrust(ctx context.Context) (*ledger.Trust, error) {
	t, err := a.loadTrust()
	if t != nil || err != nil {
		return t, err
	}
	if a.server == "" {
		return nil, errors.New("which log? pass --trust FILE or --server URL")
	}
	return a.fetchTrust(ctx)
}
