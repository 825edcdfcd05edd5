package server

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sealstone/sealstone/api"
)

// streamTerm is how long a stream's address stays the same. It opens streams
// until the end of the next term, so that one handed out at the end of a term is
// good for a while. All answers of a term have the same address: entity tags
// cover it, so a client whose address has run out gets a whole answer, with a
// new one, instead of a 304.
const streamTerm = 30 * time.Minute

// inactivityDelay tells browsers when to close the stream of a hidden page.
const inactivityDelay = 120 // seconds

// streams signs and checks addresses of event streams. EventSource can't send
// headers, so the address carries its own permission: for one target, from one
// client, for a short time, by a key that ends with the process.
type streams struct{ key [32]byte }

func (g *streams) init() { _, _ = rand.Read(g.key[:]) } // never fails

// grant is what an address permits.
type grant struct {
	expires int64 // Unix time
	target  string
	version string // of the bundle that the client was given
	client  string // "" is everybody
}

func (g *streams) mac(payload string) []byte {
	m := hmac.New(sha256.New, g.key[:])
	m.Write([]byte(payload))
	return m.Sum(nil)[:16]
}

// url is the JSON of an eventStreams entry. It has no origin: behind a proxy,
// the client knows ours better than we do.
func (g *streams) url(t api.Target, p *principal, version api.Digest, now time.Time) string {
	client := p.name
	if p == everybody {
		client = ""
	}
	term := int64(streamTerm / time.Second)
	expires := (now.Unix()/term + 2) * term
	payload := strings.Join([]string{strconv.FormatInt(expires, 10), t.String(), versionOf(version), client}, "\n")
	token := base64.RawURLEncoding.EncodeToString(append(g.mac(payload), payload...))
	return `{"endpoint":{"requestUri":"/ofrep/v1/events?token=` + token + `"},"inactivityDelaySec":` + strconv.Itoa(inactivityDelay) + `,"type":"sse"}`
}

func versionOf(d api.Digest) string { return d.Hex()[:16] }

// open checks a token.
func (g *streams) open(token string, now time.Time) (grant, error) {
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) < 16 || !hmac.Equal(b[:16], g.mac(string(b[16:]))) {
		return grant{}, &api.Error{Code: api.CodeUnauthorized, Detail: "not a token of this server", Hint: "evaluate all flags to get a new eventStreams address"}
	}
	f := strings.SplitN(string(b[16:]), "\n", 4)
	expires, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil || now.Unix() >= expires {
		return grant{}, &api.Error{Code: api.CodeUnauthorized, Detail: "the token has run out", Hint: "evaluate all flags to get a new eventStreams address"}
	}
	return grant{expires, f[1], f[2], f[3]}, nil
}

// mayStream finds out whether the client of a grant still may read its target.
func (s *Server) mayStream(g grant, t api.Target) error {
	p := s.access.named(g.client)
	if p == nil {
		return &api.Error{Code: api.CodeUnauthorized, Detail: fmt.Sprintf("client %q is not in clients.yaml any more", g.client)}
	}
	if !p.readsTarget(t) {
		return &api.Error{Code: api.CodeForbidden, Detail: fmt.Sprintf("client %q may not read %s", p.name, t)}
	}
	return nil
}

// ofrepEvents streams refetchEvaluation whenever the target's bundle changes. A
// client that missed a change, while it was away or between its evaluation and
// this request, is told at once.
func (s *Server) ofrepEvents(c echo.Context) error {
	g, err := s.streams.open(c.QueryParam("token"), time.Now())
	if err != nil {
		return err
	}
	t, err := api.ParseTarget(g.target)
	if err != nil {
		return err
	}
	if err := s.mayStream(g, t); err != nil {
		return err
	}
	wakes, leave := s.hub.join(t.Service)
	defer leave()
	now := s.configOf(t)
	first := "retry: 1000\n\n"
	if last := c.Request().Header.Get("Last-Event-ID"); last == "" && now.version != g.version || last != "" && now.newerThan(last) {
		first += now.event()
	}
	if !startStream(c, eventStream, first) {
		return nil
	}
	s.followConfig(c, g, t, now, wakes)
	return nil
}

// followConfig writes an event for each change of the config until the client
// or the server goes away, or the client's permission does.
func (s *Server) followConfig(c echo.Context, g grant, t api.Target, last config, wakes <-chan string) {
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	for {
		text, ok := nextEvent(c.Request().Context(), eventStream, wakes, alive.C)
		if !ok {
			return
		}
		if !strings.HasPrefix(text, ":") { // not a keep-alive: something changed
			if s.mayStream(g, t) != nil {
				return
			}
			now := s.configOf(t)
			if now.version == last.version {
				continue
			}
			text, last = now.event(), now
		}
		if !writeEvent(c, text) {
			return
		}
	}
}

// config says which bundle is in effect for a target, and how far the log was.
type config struct {
	version string // "" when nothing is in effect
	size    int64  // of the log
	newest  int64  // index of the newest change at or above the target
	changed int64  // when that was recorded, Unix time
	pending bool   // the log alone does not say it
}

func (s *Server) configOf(t api.Target) config {
	snap := s.store.Snapshot()
	c := config{size: snap.Tree.Size, newest: -1}
	for _, ch := range s.pending.over(snap.State, t.Service) {
		if !ch.Scope.Contains(t.Scope) {
			continue
		}
		c.pending = c.pending || ch.Pending
		if ch.Index <= c.newest {
			continue
		}
		c.newest = ch.Index
		if at, err := time.Parse(time.RFC3339, ch.Recorded); err == nil {
			c.changed = at.Unix()
		}
	}
	if eff, err := s.resolve(t); err == nil {
		c.version = versionOf(eff.Entry.Digest)
	}
	return c
}

// id of an event is the log's size, so it is stable over restarts. A state that
// isn't in the log has no stable name: whoever comes back with one re-reads.
func (c config) id() string {
	if c.pending {
		return strconv.FormatInt(c.size, 10) + "+pending"
	}
	return strconv.FormatInt(c.size, 10)
}

// newerThan tells whether a client that has seen an event may have missed
// something since.
func (c config) newerThan(id string) bool {
	n, err := strconv.ParseInt(id, 10, 64)
	return err != nil || c.pending || n > c.size || c.newest >= n
}

// tag is what flagConfigEtag brings back: see awaitConfig.
func (c config) tag() string { return c.id() + "-" + c.version }

func (c config) event() string {
	return fmt.Sprintf("id: %s\nevent: message\ndata: {\"type\":\"refetchEvaluation\",\"etag\":\"%s\",\"lastModified\":%d}\n\n", c.id(), c.tag(), c.changed)
}

// reached tells whether the config is at least what an event has announced.
// What no event of ours says counts as reached: it is a hint, not a condition.
func (c config) reached(query url.Values) bool {
	if id, version, ok := strings.Cut(query.Get("flagConfigEtag"), "-"); ok && version != c.version {
		if n, err := strconv.ParseInt(strings.TrimSuffix(id, "+pending"), 10, 64); err == nil && (n > c.size || strings.HasSuffix(id, "+pending")) {
			return false
		}
	}
	v := query.Get("flagConfigLastModified")
	if n, err := strconv.ParseInt(v, 10, 64); err == nil {
		return n <= c.changed
	}
	at, err := time.Parse(time.RFC3339, v)
	return err != nil || at.Unix() <= c.changed
}

// maxConfigWait bounds how long an answer may wait for a version that an event
// announced and that has not arrived here.
const maxConfigWait = time.Second

// awaitConfig waits until this server has the version that a client was told
// of, perhaps by another server; in vain it answers with what it has.
func (s *Server) awaitConfig(ctx context.Context, t api.Target, query url.Values) {
	if !query.Has("flagConfigEtag") && !query.Has("flagConfigLastModified") {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, maxConfigWait)
	defer cancel()
	wakes, leave := s.hub.join(t.Service)
	defer leave()
	for changed := s.store.Changed(); !s.configOf(t).reached(query); changed = s.store.Changed() {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case _, ok := <-wakes: // also for statements that aren't in the log
			if !ok {
				return
			}
		}
	}
}
