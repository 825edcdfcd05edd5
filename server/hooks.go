package server

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sealstone/sealstone/api"
)

// postHook starts a round now. A hook carries no content that is believed: the
// signature only keeps strangers from making the server fetch, and the pushed
// commit only says what a fetch should bring before it counts as done.
func (s *Server) postHook(c echo.Context) error {
	if len(s.cfg.HookSecret) == 0 {
		return &api.Error{Code: api.CodeNotFound, Detail: "no webhook secret is configured", Hint: "start with --hook-secret-file"}
	}
	body, err := io.ReadAll(c.Request().Body)
	if err != nil {
		return err
	}
	h, now := c.Request().Header, time.Now()
	if !hookSigned(h, body, s.cfg.HookSecret, now) {
		return &api.Error{Code: api.CodeUnauthorized, Detail: "the webhook's signature does not verify", Hint: "set the same secret at the forge"}
	}
	if commit, ok := pushed(h, body, s.cfg.Branch); ok && s.hooks.first(deliveryKeys(h, body, commit), now) {
		s.hooks.expect(commit)
		s.Sync()
	}
	return c.NoContent(http.StatusAccepted)
}

// hookSigned knows GitHub's, Gitea's and Forgejo's HMAC over the body, GitLab's
// over id, time and body (standardwebhooks.com), and its older plain token.
func hookSigned(h http.Header, body, secret []byte, now time.Time) bool {
	want := hookMAC(secret, body)
	for _, name := range []string{"X-Hub-Signature-256", "X-Forgejo-Signature", "X-Gitea-Signature"} {
		got, err := hex.DecodeString(strings.TrimPrefix(h.Get(name), "sha256="))
		if err == nil && hmac.Equal(got, want) {
			return true
		}
	}
	if h.Get("Webhook-Signature") != "" {
		return standardSigned(h, body, secret, now)
	}
	token := sha256.Sum256([]byte(h.Get("X-Gitlab-Token"))) // hashed, so that not even lengths show
	own := sha256.Sum256(secret)
	return subtle.ConstantTimeCompare(token[:], own[:]) == 1
}

func hookMAC(key []byte, parts ...[]byte) []byte {
	mac := hmac.New(sha256.New, key)
	for _, p := range parts {
		mac.Write(p)
	}
	return mac.Sum(nil)
}

// standardSigned holds a signature of standardwebhooks.com to its 5 minutes.
func standardSigned(h http.Header, body, secret []byte, now time.Time) bool {
	at, err := strconv.ParseInt(h.Get("Webhook-Timestamp"), 10, 64)
	if err != nil || now.Sub(time.Unix(at, 0)).Abs() > 5*time.Minute {
		return false
	}
	if key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(string(secret), "whsec_")); err == nil && strings.HasPrefix(string(secret), "whsec_") {
		secret = key
	}
	want := hookMAC(secret, []byte(h.Get("Webhook-Id")+"."+h.Get("Webhook-Timestamp")+"."), body)
	for one := range strings.FieldsSeq(h.Get("Webhook-Signature")) {
		got, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(one, "v1,"))
		if err == nil && hmac.Equal(got, want) {
			return true
		}
	}
	return false
}

// pushed tells whether a hook is about a push to the branch, and of which
// commit, "" when it doesn't say. A hook without an event is a caller of its
// own, such as a CI job: it asks for a round.
func pushed(h http.Header, body []byte, branch string) (commit string, ok bool) {
	var p struct{ Ref, After string }
	_ = json.Unmarshal(hookJSON(h, body), &p) // what it doesn't say is left empty
	switch event := hookEvent(h); {
	case event != "" && event != "push" && (event != "system" || p.Ref == ""): // GitLab's system hooks are of many kinds
		return "", false
	case p.Ref != "" && p.Ref != "refs/heads/"+branch:
		return "", false
	case !api.IsCommit(p.After) || p.After == noCommit: // deleted, or not said
		return "", true
	}
	return p.After, true
}

func hookEvent(h http.Header) string {
	for _, name := range []string{"X-Forgejo-Event", "X-Gitea-Event", "X-GitHub-Event"} { // the first two send GitHub's as well
		if e := h.Get(name); e != "" {
			return e
		}
	}
	return strings.ToLower(strings.TrimSuffix(h.Get("X-Gitlab-Event"), " Hook"))
}

// hookJSON unwraps the form that GitHub sends when asked to.
func hookJSON(h http.Header, body []byte) []byte {
	if kind, _, _ := mime.ParseMediaType(h.Get("Content-Type")); kind != "application/x-www-form-urlencoded" {
		return body
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil
	}
	return []byte(form.Get("payload"))
}

// Bounds of what is remembered of hooks.
const (
	hookWindow   = 10 * time.Minute // a delivery that comes again within it is the same
	hookMost     = 1024             // deliveries
	hookAttempts = 8                // rounds for a pushed commit that doesn't show
	hookPause    = 100 * time.Millisecond
	hookLongest  = 5 * time.Second
)

// hooks remembers deliveries, and which pushed commit hasn't shown yet.
type hooks struct {
	mu       sync.Mutex
	seen     map[string]time.Time // by deliveryKeys
	order    []string             // keys of seen, oldest first
	expected string               // newest commit that a hook told of; "" when it has shown
	attempts int                  // rounds that did not bring it
}

// deliveryKeys are what a delivery is known by: its id, and the body of a push,
// because ids are not signed.
func deliveryKeys(h http.Header, body []byte, commit string) []string {
	var keys []string
	if commit != "" {
		keys = append(keys, string(api.DigestOf(body)))
	}
	for _, name := range []string{"X-GitHub-Delivery", "X-Forgejo-Delivery", "X-Gitea-Delivery", "Webhook-Id", "Idempotency-Key", "X-Gitlab-Event-UUID"} {
		if id := h.Get(name); id != "" && len(id) <= 128 {
			return append(keys, id)
		}
	}
	return keys
}

// first reports whether a delivery is none that came before, and remembers it.
func (h *hooks) first(keys []string, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, key := range keys {
		if at, known := h.seen[key]; known && now.Sub(at) <= hookWindow {
			return false
		}
	}
	h.remember(keys, now)
	return true
}

func (h *hooks) remember(keys []string, now time.Time) {
	if h.seen == nil {
		h.seen = map[string]time.Time{}
	}
	for _, key := range keys {
		if _, known := h.seen[key]; !known {
			h.order = append(h.order, key)
		}
		h.seen[key] = now
	}
	for len(h.order) > hookMost {
		delete(h.seen, h.order[0])
		h.order = h.order[1:]
	}
}

// expect makes rounds follow each other faster until a commit shows. The newest
// push replaces the one before.
func (h *hooks) expect(commit string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if commit != "" {
		h.expected, h.attempts = commit, 0
	}
}

// pause is how long to wait after a round, at most poll: forges send hooks
// before every one of their replicas has the commit.
func (h *hooks) pause(poll time.Duration, here func(commit string) bool) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.expected != "" && (h.attempts == hookAttempts || here(h.expected)) {
		h.expected = ""
	}
	if h.expected == "" {
		return poll
	}
	h.attempts++
	return min(poll, hookLongest, hookPause<<(h.attempts-1))
}
