package server

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/sealstone/sealstone/internal/gittest"
)

const hookSecret = "0123456789abcdef"

// pushBody has the members that all forges send, among some that one does.
func pushBody(ref, after string) string {
	return fmt.Sprintf(`{"object_kind":"push","ref":%q,"before":"%040d","after":%q,"checkout_sha":%[3]q,"repository":{"full_name":"shop/config"},"pusher":{"name":"ada"},"commits":[{"id":%[3]q,"message":"Sell faster"}]}`, ref, 1, after)
}

func github(event, id, body string) []string {
	return []string{"X-GitHub-Event", event, "X-GitHub-Delivery", id, "X-Hub-Signature-256", "sha256=" + hmacHex(body, hookSecret)}
}

func gitea(name, event, id, body string) []string {
	mac := hmacHex(body, hookSecret)
	h := []string{"X-GitHub-Event", event, "X-GitHub-Delivery", id, "X-Hub-Signature-256", "sha256=" + mac, "X-Gogs-Signature", mac}
	return append(h, "X-"+name+"-Event", event, "X-"+name+"-Delivery", id, "X-"+name+"-Signature", mac)
}

func gitlab(event, id string) []string {
	return []string{"X-Gitlab-Event", event, "X-Gitlab-Event-UUID", id, "X-Gitlab-Token", hookSecret}
}

func standard(id string, at time.Time, body, key string) []string {
	stamp := fmt.Sprint(at.Unix())
	mac := base64.StdEncoding.EncodeToString(hookMAC([]byte(key), []byte(id+"."+stamp+"."+body)))
	return []string{"X-Gitlab-Event", "Push Hook", "Webhook-Id", id, "Webhook-Timestamp", stamp, "Webhook-Signature", "v1,AAAA v1," + mac}
}

// kicked reports whether a round was asked for, and forgets it.
func (r *rig) kicked() bool {
	select {
	case <-r.kick:
		return true
	default:
		return false
	}
}

func TestHooksOfEveryForge(t *testing.T) {
	commit := strings.Repeat("ab", 20)
	push := pushBody("refs/heads/main", commit)
	form := "payload=" + url.QueryEscape(push)
	r := newRig(t, func(c *Config) { c.HookSecret = []byte(hookSecret) })
	for name, c := range map[string]struct {
		header []string
		body   string
		status int
		fetch  bool
		expect string
	}{
		"github":                  {github("push", "1", push), push, 202, true, commit},
		"github as a form":        {append(github("push", "1", form), "Content-Type", "application/x-www-form-urlencoded"), form, 202, true, commit},
		"gitea":                   {gitea("Gitea", "push", "1", push), push, 202, true, commit},
		"forgejo":                 {gitea("Forgejo", "push", "1", push), push, 202, true, commit},
		"forgejo, its own only":   {gitea("Forgejo", "push", "1", push)[8:], push, 202, true, commit},
		"gitlab":                  {gitlab("Push Hook", "1"), push, 202, true, commit},
		"gitlab, system":          {gitlab("System Hook", "1"), push, 202, true, commit},
		"gitlab, signed":          {standard("1", time.Now(), push, hookSecret), push, 202, true, commit},
		"gitlab, signed long ago": {standard("1", time.Now().Add(-6*time.Minute), push, hookSecret), push, 401, false, ""},
		"gitlab, signed ahead":    {standard("1", time.Now().Add(6*time.Minute), push, hookSecret), push, 401, false, ""},
		"gitlab, another key":     {standard("1", time.Now(), push, "another"), push, 401, false, ""},
		"gitlab, a wrong token":   {[]string{"X-Gitlab-Token", hookSecret + "x"}, push, 401, false, ""},
		"a ping":                  {github("ping", "1", `{"zen":"Anything added dilutes everything else."}`), `{"zen":"Anything added dilutes everything else."}`, 202, false, ""},
		"a pull request":          {github("pull_request", "1", push), push, 202, false, ""},
		"a tag":                   {gitlab("Tag Push Hook", "1"), push, 202, false, ""},
		"another branch":          {github("push", "1", pushBody("refs/heads/side", commit)), pushBody("refs/heads/side", commit), 202, false, ""},
		"a deleted branch":        {github("push", "1", pushBody("refs/heads/main", noCommit)), pushBody("refs/heads/main", noCommit), 202, true, ""},
		"no event":                {[]string{"X-Hub-Signature-256", "sha256=" + hmacHex("{}", hookSecret)}, "{}", 202, true, ""},
		"another body":            {github("push", "1", push), push + " ", 401, false, ""},
		"no signature":            {[]string{"X-GitHub-Event", "push"}, push, 401, false, ""},
		"not hex":                 {[]string{"X-Hub-Signature-256", "sha256=zz"}, push, 401, false, ""},
		"a long body":             {github("push", "1", push), strings.Repeat("x", 1<<20+1), 413, false, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r.hooks.seen, r.hooks.order, r.hooks.expected = nil, nil, ""
			r.kicked()
			r.expect(c.status, r.do(http.MethodPost, "/hooks/git", c.body, append([]string{"Content-Type", "application/json"}, c.header...)...))
			if fetch := r.kicked(); fetch != c.fetch || r.hooks.expected != c.expect {
				t.Errorf("fetch %v, expects %q; want %v, %q", fetch, r.hooks.expected, c.fetch, c.expect)
			}
		})
	}
}

func TestWithoutASecretThereIsNoHook(t *testing.T) {
	r := newRig(t, nil)
	r.expect(404, r.do(http.MethodPost, "/hooks/git", "{}", "X-Gitlab-Token", ""))
}

func TestASecretOfStandardWebhooks(t *testing.T) {
	secret := "whsec_" + base64.StdEncoding.EncodeToString([]byte(hookSecret))
	h := http.Header{}
	for k, v := range pairs(standard("1", time.Now(), "{}", hookSecret)) {
		h.Set(k, v)
	}
	if !hookSigned(h, []byte("{}"), []byte(secret), time.Now()) {
		t.Error("the decoded key is not taken")
	}
}

func pairs(list []string) map[string]string {
	out := map[string]string{}
	for kv := range slices.Chunk(list, 2) {
		out[kv[0]] = kv[1]
	}
	return out
}

func TestADeliveryCountsOnce(t *testing.T) {
	r := newRig(t, func(c *Config) { c.HookSecret = []byte(hookSecret) })
	one, two := pushBody("refs/heads/main", strings.Repeat("ab", 20)), pushBody("refs/heads/main", strings.Repeat("cd", 20))
	for _, c := range []struct {
		name, body, id string
		fetch          bool
	}{
		{"a push", one, "1", true},
		{"the same delivery", one, "1", false},
		{"the same push as another delivery, which anybody could say", one, "2", false},
		{"a further push", two, "3", true},
		{"an old id with another body", two + " ", "1", false},
	} {
		r.expect(202, r.do(http.MethodPost, "/hooks/git", c.body, github("push", c.id, c.body)...))
		if got := r.kicked(); got != c.fetch {
			t.Errorf("%s: fetch %v", c.name, got)
		}
	}
	r.expect(401, r.do(http.MethodPost, "/hooks/git", one, "X-GitHub-Event", "push", "X-GitHub-Delivery", "4"))
	third := pushBody("refs/heads/main", strings.Repeat("ef", 20))
	r.expect(202, r.do(http.MethodPost, "/hooks/git", third, github("push", "4", third)...))
	if !r.kicked() {
		t.Error("an unsigned delivery spoiled the id of a good one")
	}
	for range 2 { // a caller of its own may ask again
		r.expect(202, r.do(http.MethodPost, "/hooks/git", "{}", "X-Hub-Signature-256", "sha256="+hmacHex("{}", hookSecret)))
		if !r.kicked() {
			t.Error("no fetch")
		}
	}
}

func TestDeliveriesAreForgottenInBounds(t *testing.T) {
	var h hooks
	now := time.Now()
	for i := range 5 * hookMost {
		if !h.first([]string{fmt.Sprint(i), fmt.Sprint("body ", i)}, now) {
			t.Fatal(i)
		}
	}
	if len(h.seen) != hookMost || len(h.order) != hookMost {
		t.Errorf("remembers %d and %d", len(h.seen), len(h.order))
	}
	newest := []string{fmt.Sprint(5*hookMost - 1)}
	if h.first(newest, now.Add(hookWindow)) || !h.first(newest, now.Add(2*hookWindow)) {
		t.Error("the window is not kept")
	}
}

func TestRoundsFollowUntilAPushShowsOrABoundPasses(t *testing.T) {
	var h hooks
	never := func(string) bool { return false }
	if h.pause(time.Minute, never) != time.Minute {
		t.Error("in a hurry without a push")
	}
	h.expect("a")
	var total time.Duration
	for n := range hookAttempts {
		p := h.pause(time.Minute, never)
		if want := min(hookLongest, hookPause<<n); p != want {
			t.Errorf("pause %d is %s, want %s", n, p, want)
		}
		total += p
	}
	if p := h.pause(time.Minute, never); p != time.Minute || total > 20*time.Second {
		t.Errorf("%s after %s", p, total)
	}
	h.expect("a")
	h.expect("b")
	if p := h.pause(time.Minute, func(c string) bool { return c == "b" }); p != time.Minute {
		t.Error("goes on after the newest push has shown")
	}
	h.expect("c")
	if p := h.pause(time.Millisecond, never); p != time.Millisecond {
		t.Errorf("slower than polling: %s", p)
	}
}

// TestAPushThatShowsLate: the forge told of a commit that its replica doesn't
// have yet. Nobody waits for the next poll.
func TestAPushThatShowsLate(t *testing.T) {
	r := newRig(t, func(c *Config) { c.HookSecret, c.Poll = []byte(hookSecret), 24*time.Hour })
	r.sync()
	first, err := r.repo.Reference(gittest.Branch, true)
	if err != nil {
		t.Fatal(err)
	}
	commit, _ := gittest.Next(t, r.repo, r.files, map[string]string{"services/checkout/config/http.yaml": "timeout: 31\n"})
	setBranch(t, r.repo, first.Hash())
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() { r.Run(ctx); close(ran) }()
	defer func() { cancel(); await(t, "the end of the loops", ran) }()
	body := pushBody("refs/heads/main", commit)
	r.expect(202, r.do(http.MethodPost, "/hooks/git", body, github("push", "1", body)...))
	tried := func() bool { r.hooks.mu.Lock(); defer r.hooks.mu.Unlock(); return r.hooks.attempts > 1 }
	until(t, "a second round", tried)
	setBranch(t, r.repo, plumbing.NewHash(commit))
	until(t, "the pushed commit", func() bool { return r.Status().Source.Tip == commit })
}
