package bundler

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
)

// parseSourceURL accepts the kinds of address that Git knows and we can serve.
func parseSourceURL(raw string) (*transport.Endpoint, error) {
	end, err := transport.NewEndpoint(raw)
	if err != nil {
		return nil, errors.New("the URL can't be parsed") // the cause would quote it
	}
	switch end.Protocol {
	case "file", "http", "https", "ssh":
		return end, nil
	}
	return nil, fmt.Errorf("URL scheme %.20q: use a path, file, http, https or ssh", end.Protocol)
}

// connect opens a session; for http nothing is sent before the first request.
func (s *Source) connect(ctx context.Context) (transport.UploadPackSession, error) {
	end := *s.end // a session writes redirects into its endpoint
	switch end.Protocol {
	case "file":
		has := s.shared.has
		if s.ref(refRemote).IsZero() && s.ref(refAccepted).IsZero() { // asking for each object costs a quarter of a first fetch
			has = func(plumbing.Hash) bool { return false }
		}
		return openLocal(end.Path, has)
	case "ssh":
		return dialSSH(ctx, &end, s.cfg.SSHKeyFile, s.cfg.KnownHostsFile)
	}
	auth, err := s.httpAuth()
	if err != nil {
		return nil, err
	}
	session, err := githttp.NewClient(httpClient).NewUploadPackSession(&end, auth)
	if err != nil {
		return nil, err
	}
	return session, nil
}

// httpClient has no timeout of its own: the watchdog ends a silent exchange.
// go-git wraps it so that credentials never follow a redirect to another host
// and https never falls back to http.
var httpClient = &http.Client{Transport: &http.Transport{
	Proxy:               http.ProxyFromEnvironment,
	DialContext:         (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
	TLSHandshakeTimeout: 15 * time.Second,
	IdleConnTimeout:     90 * time.Second,
	ForceAttemptHTTP2:   true,
}}

// httpAuth reads the token anew. Forges take it as a password with any user.
func (s *Source) httpAuth() (transport.AuthMethod, error) {
	if s.cfg.TokenFile == "" {
		return nil, nil // the URL's own user and password, if any
	}
	token, err := readToken(s.cfg.TokenFile)
	if err != nil {
		return nil, err
	}
	return &githttp.BasicAuth{Username: "any", Password: token}, nil
}

func readToken(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" || len(token) > 4096 || strings.ContainsFunc(token, unicode.IsSpace) {
		return "", fmt.Errorf("token file %s: must hold one token and nothing else", file)
	}
	return token, nil
}

// secrets lists what must not appear in a message.
func (s *Source) secrets() []string {
	var out []string
	if s.end.Password != "" {
		out = append(out, s.end.Password, url.PathEscape(s.end.Password), url.QueryEscape(s.end.Password))
	}
	if s.cfg.TokenFile != "" {
		if token, err := readToken(s.cfg.TokenFile); err == nil {
			out = append(out, token)
		}
	}
	return out
}

// redactURL drops the password, and for http(s) the user as well: tokens are
// also written as a user name.
func redactURL(raw string) string {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return raw // a path, or user@host:path, which has no password
	}
	authority, path, slash := strings.Cut(rest, "/")
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		user, _, _ := strings.Cut(authority[:i], ":")
		if scheme != "ssh" {
			user = "REDACTED"
		}
		authority = user + authority[i:]
	}
	if slash {
		path = "/" + path
	}
	return scheme + "://" + authority + path
}

// cleanText makes a foreign message fit for a log line: one line, short,
// without secrets.
func cleanText(text string, secrets []string) string {
	for _, secret := range secrets {
		text = strings.ReplaceAll(text, secret, "REDACTED")
	}
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool {
		return unicode.IsSpace(r) || !unicode.IsPrint(r)
	}), " ")
	if len(text) > 300 {
		text = strings.ToValidUTF8(text[:297], "") + "..."
	}
	return text
}

// demux takes the pack out of the side-band, where the host mixes it with
// progress messages.
func demux(caps *capability.List, r io.Reader) io.Reader {
	switch {
	case caps.Supports(capability.Sideband64k):
		return sideband.NewDemuxer(sideband.Sideband64k, r)
	case caps.Supports(capability.Sideband):
		return sideband.NewDemuxer(sideband.Sideband, r)
	}
	return r
}

// writeRequest is the client's half of the protocol after the refs: wants,
// haves, done, in one go.
func writeRequest(w io.Writer, req *packp.UploadPackRequest) error {
	if err := req.UploadRequest.Encode(w); err != nil {
		return err
	}
	if err := req.UploadHaves.Encode(w, false); err != nil {
		return err
	}
	_, err := io.WriteString(w, "0009done\n")
	return err
}

// errSilent is the cause of a context that the watchdog ended.
var errSilent = errors.New("the host stopped answering")

// stepBytes must arrive within each period. Counting every byte instead would
// let a host hold a fetch for ever with one byte a minute.
const stepBytes = 64 << 10

// watchdog ends a context when a host is silent or trickles.
type watchdog struct {
	timer  *time.Timer
	period time.Duration
	cancel context.CancelCauseFunc
}

func newWatchdog(ctx context.Context, period time.Duration) (context.Context, *watchdog) {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watchdog{period: period, cancel: cancel}
	w.timer = time.AfterFunc(period, func() { cancel(fmt.Errorf("%w for %s", errSilent, period)) })
	return ctx, w
}

func (w *watchdog) stop() { w.timer.Stop(); w.cancel(nil) }

func (w *watchdog) reader(r io.Reader) io.Reader { return &watchedReader{r: r, dog: w} }

type watchedReader struct {
	r   io.Reader
	dog *watchdog
	n   int // bytes since the last reset
}

func (r *watchedReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if r.n += n; r.n >= stepBytes {
		r.n = 0
		r.dog.timer.Reset(r.dog.period)
	}
	return n, err
}
