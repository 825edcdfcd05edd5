package server

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// hub wakes watchers. A watcher is told that something changed, never what: it
// re-reads, so a lost or repeated event costs nothing.
type hub struct {
	mu       sync.Mutex
	watchers map[string]map[chan string]bool // by service
	followed map[string]int                  // streams of the whole log, by client
	closed   bool
}

func (h *hub) init() {
	h.watchers, h.followed = map[string]map[chan string]bool{}, map[string]int{}
}

// maxFollowed is how many streams of the whole log a client may have open. A
// watcher costs a notice; each of these reads every change for itself.
const maxFollowed = 64

// follow lets a client open one more stream of the whole log.
func (h *hub) follow(client string) (leave func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.followed[client] >= maxFollowed {
		return nil, &api.Error{Code: api.CodeTooMany, Detail: fmt.Sprintf("client %q follows the log %d times already", client, maxFollowed), Hint: "end one of these streams, or give whoever else follows a token of its own"}
	}
	h.followed[client]++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.followed[client]--; h.followed[client] == 0 {
			delete(h.followed, client)
		}
	}, nil
}

// join adds a watcher of a service. Its channel holds one event beyond the one
// in flight; a watcher that doesn't read loses events, not others' time.
func (h *hub) join(service string) (events chan string, leave func()) {
	events = make(chan string, 2)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		close(events)
		return events, func() {}
	}
	if h.watchers[service] == nil {
		h.watchers[service] = map[chan string]bool{}
	}
	h.watchers[service][events] = true
	return events, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.watchers[service], events)
		if len(h.watchers[service]) == 0 {
			delete(h.watchers, service)
		}
	}
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for _, set := range h.watchers {
		for ch := range set {
			close(ch)
		}
	}
	h.watchers = map[string]map[chan string]bool{}
}

func (h *hub) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, set := range h.watchers {
		n += len(set)
	}
	for _, open := range h.followed {
		n += open
	}
	return n
}

// publish tells the watchers of every service whose chains differ.
func (h *hub) publish(old, now *ledger.State, size int64) {
	event := fmt.Sprintf("id: %d\nevent: head\ndata: {}\n\n", size)
	for name, svc := range now.Services {
		if name != "" && old.Services[name] != svc {
			h.send(name, event)
		}
	}
}

func (h *hub) send(service, event string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for ch := range h.watchers[service] {
		select {
		case ch <- event:
		default: // it has events to read, and will re-read everything then
		}
	}
}

// keepAlive is the pause after which a silent stream sends a comment, so that
// proxies keep it and clients notice a dead one.
const keepAlive = 15 * time.Second

// getWatch streams notices for a service. The first event comes at once, so
// that a client that reconnects re-reads.
func (s *Server) getWatch(c echo.Context) error {
	service, err := s.watchedService(c)
	if err != nil {
		return err
	}
	events, leave := s.hub.join(service)
	defer leave()
	first := fmt.Sprintf("retry: 1000\nid: %d\nevent: head\ndata: {}\n\n", s.store.Snapshot().Tree.Size)
	return s.stream(c, eventStream, first, events, func(p *principal) bool { return p.reads(service) })
}

// watchedService accepts service=, or target= alone. A service that isn't
// activated yet may be watched: its first activation is an event.
func (s *Server) watchedService(c echo.Context) (string, error) {
	if t := c.QueryParam("target"); t != "" {
		target, err := api.ParseTarget(t)
		if err != nil {
			return "", &api.Error{Code: api.CodeInvalid, Detail: err.Error()}
		}
		if !who(c).readsTarget(target) {
			return "", &api.Error{Code: api.CodeForbidden, Detail: fmt.Sprintf("client %q may not read %s", who(c).name, target)}
		}
		if c.QueryParam("service") == "" {
			return target.Service, nil
		}
	}
	return serviceParam(c)
}

// framing is how events travel: how each is written, and what keeps a silent
// stream open.
type framing struct {
	contentType string
	alive       string
	frame       func(id int64, event, data string) string
}

var (
	eventStream = framing{"text/event-stream", ": alive\n\n", sseData}
	jsonLines   = framing{"application/x-ndjson", "\n", func(_ int64, _, data string) string { return data + "\n" }}
)

// startStream sends the headers of a stream, and a first text.
func startStream(c echo.Context, as framing, first string) bool {
	h := c.Response().Header()
	h.Set(echo.HeaderContentType, as.contentType)
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Accel-Buffering", "no")
	c.Response().WriteHeader(http.StatusOK)
	return writeEvent(c, first)
}

// stream writes events until the client or the server goes away. A
// client that does not take an event within the write timeout is dropped.
func (s *Server) stream(c echo.Context, as framing, first string, events <-chan string, may func(*principal) bool) error {
	if !startStream(c, as, first) {
		return nil
	}
	alive := time.NewTicker(keepAlive)
	defer alive.Stop()
	ctx := c.Request().Context()
	for {
		event, ok := nextEvent(ctx, as, events, alive.C)
		if !ok || !s.access.still(who(c), may) || !writeEvent(c, event) {
			return nil
		}
	}
}

func nextEvent(ctx context.Context, as framing, events <-chan string, alive <-chan time.Time) (string, bool) {
	select {
	case <-ctx.Done():
		return "", false
	case e, ok := <-events:
		return e, ok
	case <-alive:
		return as.alive, true
	}
}

const writeTimeout = 10 * time.Second

func writeEvent(c echo.Context, event string) bool {
	rc := http.NewResponseController(c.Response().Writer)
	_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := c.Response().Write([]byte(event)); err != nil {
		return false
	}
	return rc.Flush() == nil
}

// sseData prefixes each line, as the event stream format asks.
func sseData(id int64, event, data string) string {
	return fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", id, event, strings.ReplaceAll(data, "\n", "\ndata: "))
}
