package integration_test

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/open-feature/go-sdk/openfeature"
	"golang.org/x/crypto/ssh"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/integration/proctest"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
	"github.com/sealstone/sealstone/sdk"
)

// forge serves a rig's bare repository over http by git's own http-backend,
// and may ask for a password as forges do.
type forge struct {
	backend http.Handler
	token   atomic.Pointer[string] // nil asks for none
	denied  atomic.Int64
}

func newForge(t *testing.T, r *proctest.Rig) *forge {
	t.Helper()
	backend := filepath.Join(proctest.Git(t, r.Dir, "--exec-path"), "git-http-backend")
	if _, err := os.Stat(backend); err != nil {
		t.Skip("needs git http-backend, which this git lacks")
	}
	proctest.Git(t, r.Bare, "config", "http.receivepack", "true")
	f := &forge{backend: &cgi.Handler{Path: backend, Stderr: io.Discard, Env: []string{"GIT_PROJECT_ROOT=" + r.Dir, "GIT_HTTP_EXPORT_ALL=1",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}}}
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	r.URL = srv.URL + "/config.git"
	r.Git("remote", "set-url", "origin", r.URL)
	return f
}

func (f *forge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if want := f.token.Load(); want != nil {
		if _, got, _ := r.BasicAuth(); got != *want {
			f.denied.Add(1)
			w.Header().Set("WWW-Authenticate", `Basic realm="forge"`)
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
	}
	f.backend.ServeHTTP(w, r)
}

// provider listens to what OpenFeature tells of a client.
func provider(t *testing.T, c *sdk.Client) (*openfeature.Client, <-chan openfeature.EventDetails) {
	t.Helper()
	if err := openfeature.SetNamedProviderAndWait(t.Name(), c.Provider()); err != nil {
		t.Fatal(err)
	}
	changed := make(chan openfeature.EventDetails, 64)
	client := openfeature.NewClient(t.Name())
	on := func(e openfeature.EventDetails) { changed <- e }
	client.AddHandler(openfeature.ProviderConfigChange, &on)
	return client, changed
}

func TestAPushIsServedAndAnnounced(t *testing.T) {
	t.Parallel()
	r := proctest.New(t, examples.Shop())
	newForge(t, r)
	s := r.Serve()
	c := openSDK(t, sdkConfig(t, r, "checkout@staging", s.URL))
	client, changed := provider(t, c)
	ctx := openfeature.NewEvaluationContext("buyer-7", nil)
	if on, err := client.BooleanValue(t.Context(), "express-checkout", false, ctx); on || err != nil {
		t.Fatalf("%v, %v", on, err)
	}

	expressOn(r, true)
	commit := r.Push("Sell faster")
	e := proctest.Await(t, "an event of the provider", changed)
	if strings.Join(e.FlagChanges, " ") != "express-checkout" {
		t.Errorf("changed flags %v", e.FlagChanges)
	}
	got, err := client.BooleanValueDetails(t.Context(), "express-checkout", false, ctx)
	if err != nil || !got.Value || got.FlagMetadata["flagSetId"] != "checkout" || got.FlagMetadata["version"] != string(c.Live().Bundle) {
		t.Errorf("%+v, %v", got, err)
	}
	newest := s.Changes(ledger.BundleActivated)[0].Event.Data.Release
	if newest.Commit != commit || newest.Repository != r.URL {
		t.Errorf("release %+v, want commit %s of %s", newest, commit, r.URL)
	}
	wantReady(t, c)
	r.OK("verify", "--server", s.URL, "--rebuild", "--repo", r.Work)
}

func TestAForcePushIsRefusedAndRecorded(t *testing.T) {
	t.Parallel()
	r := proctest.New(t, examples.Shop())
	newForge(t, r)
	s := r.Serve()
	start := r.Git("rev-parse", "HEAD")
	expressOn(r, true)
	accepted := r.Push("Sell faster")
	s.UntilTip(accepted)
	c := openSDK(t, sdkConfig(t, r, "checkout@staging", s.URL))

	r.Git("reset", "-q", "--hard", start)
	r.Edit(checkoutHTTP, "8080", "8081")
	rewritten := r.Push("Rewrite history", "--force")
	proctest.Until(t, "the refusal", func() bool { return s.Status().Source.Refused == rewritten })
	refused := s.Changes(ledger.SourceRefused)
	if len(refused) != 1 || refused[0].Event.Data.From != accepted || refused[0].Event.Data.To != rewritten {
		t.Fatalf("recorded: %+v", refused)
	}
	st := s.Status()
	if st.Source.Tip != accepted || st.Source.Seen != rewritten || !strings.Contains(st.Source.LastError, "rewritten") {
		t.Errorf("status: %+v", st.Source)
	}
	wantReady(t, c)
	if !express(c) {
		t.Error("the last good is gone")
	}

	s.Kill()
	s = r.Serve()
	proctest.Until(t, "a round after the restart", func() bool { return s.Status().Source.Seen == rewritten })
	if st := s.Status(); st.Source.Tip != accepted || len(s.Changes(ledger.SourceRefused)) != 1 {
		t.Errorf("after a restart: %+v", st.Source)
	}
	r.Git("reset", "-q", "--hard", accepted)
	expressOn(r, false)
	s.UntilTip(r.Push("Go on from what was accepted", "--force"))
	proctest.Until(t, "a status without the refusal", func() bool { st := s.Status().Source; return st.Refused == "" && st.LastError == "" })
	r.OK("verify", "--server", s.URL)
}

// An operator who may lets a rewrite through, and clients go on without a gap
// in what they have proven.
func TestARewriteIsLetThrough(t *testing.T) {
	t.Parallel()
	r := proctest.New(t, examples.Shop())
	newForge(t, r)
	s := r.Serve()
	expressOn(r, true)
	accepted := r.Push("Sell faster")
	s.UntilTip(accepted)
	c := openSDK(t, sdkConfig(t, r, "checkout@staging", s.URL))
	r.Git("reset", "-q", "--hard", accepted+"~1")
	r.Edit(checkoutHTTP, "8080", "8081")
	rewritten := r.Push("Rewrite history", "--force")
	proctest.Until(t, "the refusal", func() bool { return s.Status().Source.Refused == rewritten })
	if res := r.CLI("source", "accept", "--rev", rewritten, "--server", s.URL, "--key", r.Root); res.Code != 4 {
		t.Errorf("by somebody who may not: exit %d\n%s%s", res.Code, res.Stdout, res.Stderr)
	}
	s.OK("source", "accept", "--rev", rewritten)
	s.UntilTip(rewritten)
	untilExpress(t, c, false)
	wantReady(t, c)
	if got := s.Changes(ledger.SourceAccepted); len(got) != 1 || got[0].Event.Data.From != accepted || got[0].Event.Data.To != rewritten {
		t.Errorf("recorded: %+v", got)
	}
	s.OK("verify")

	expressOn(r, true)
	s.UntilTip(r.Push("Sell faster again"))
	r.Git("reset", "-q", "--hard", rewritten)
	r.Edit(checkoutHTTP, "8081", "8082")
	again := r.Push("Rewrite once more, from what was let through", "--force")
	proctest.Until(t, "the refusal of another rewrite", func() bool { return s.Status().Source.Refused == again })
}

// TestAHookIsFollowedByTheFetch: with a poll once a day, only the hook can have
// brought the push.
func TestAHookIsFollowedByTheFetch(t *testing.T) {
	t.Parallel()
	r := proctest.New(t, examples.Shop())
	newForge(t, r)
	const secret = "0123456789abcdef"
	file := filepath.Join(r.Dir, "hook-secret")
	proctest.WriteFile(t, file, secret+"\n", 0o600)
	s := r.Serve("--hook-secret-file", file, "--poll", "24h")
	s.UntilTip(r.Git("rev-parse", "HEAD"))
	expressOn(r, true)
	commit := r.Push("Sell faster")
	body := `{"ref":"refs/heads/main","after":"` + commit + `"}`
	if got := hook(t, s.URL, body, "another secret"); got != http.StatusUnauthorized {
		t.Errorf("a wrong secret gets %d", got)
	}
	for range 2 {
		if got := hook(t, s.URL, body, secret); got != http.StatusAccepted {
			t.Errorf("status %d", got)
		}
	}
	s.UntilTip(commit)
}

// hook posts a push event as GitHub does.
func hook(t *testing.T, url, body, secret string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/hooks/git", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(body))
	req.Header.Set("X-GitHub-Event", "push")
	req.Header.Set("X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958")
	req.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

// signCommits makes git sign as people do: a key file, gpg.format=ssh.
func signCommits(t *testing.T, r *proctest.Rig, key ed25519.PrivateKey) {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(key, "somebody")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "id_ed25519")
	proctest.WriteFile(t, file, string(pem.EncodeToMemory(block)), 0o600)
	r.Git("config", "gpg.format", "ssh")
	r.Git("config", "user.signingkey", file)
	r.Git("config", "commit.gpgsign", "true")
}

func TestOnlySignedCommitsGoLive(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("needs ssh-keygen")
	}
	r := proctest.New(t, examples.Shop())
	newForge(t, r)
	s := r.Serve()
	signCommits(t, r, r.OperatorKey)
	r.Write("sealstone.yaml", proctest.ReadFile(t, filepath.Join(r.Work, "sealstone.yaml"))+"source: {require_signed: true}\n")
	demand := r.Push("Ask for signatures")
	s.UntilTip(demand)
	r.OK("check", r.Work)

	signCommits(t, r, r.Key("stranger"))
	expressOn(r, true)
	bad := r.Push("Sell faster")
	proctest.Until(t, "the refusal", func() bool { return s.Status().Source.Unsigned == bad })
	if res := r.CLI("check", r.Work); res.Code != 1 || !strings.Contains(res.Stdout, "E_UNSIGNED") {
		t.Errorf("check: exit %d\n%s", res.Code, res.Stdout)
	}
	if st := s.Status().Source; st.Tip != demand || !strings.Contains(st.LastError, "which no operator has") {
		t.Errorf("status: %+v", st)
	}
	signCommits(t, r, r.OperatorKey)
	r.Git("checkout", "-q", "-b", "side", demand)
	r.Write("README.md", "beside\n")
	r.Commit("Beside")
	r.Git("checkout", "-q", "main")
	r.Git("merge", "-q", "--no-ff", "-m", "Merge", "side")
	s.UntilTip(r.Push("Vouch for it"))
	if got := s.Changes(ledger.SourceRefused); len(got) != 1 || got[0].Event.Data.From != demand || got[0].Event.Data.To != bad {
		t.Errorf("recorded: %+v", got)
	}
	newest := s.Changes(ledger.BundleActivated)[0]
	if newest.Detail["signer"] != ledgertest.OperatorID || newest.Detail["signerKey"] != r.Operator.KeyID() {
		t.Errorf("detail: %v", newest.Detail)
	}
	r.OK("verify", "--server", s.URL)
}

func TestABadFileKeepsTheLastGood(t *testing.T) {
	t.Parallel()
	r := proctest.New(t, examples.Shop())
	newForge(t, r)
	s := r.Serve()
	s.UntilTip(r.Git("rev-parse", "HEAD"))
	c := openSDK(t, sdkConfig(t, r, "checkout@staging", s.URL))
	before := c.Live().Set

	r.Edit(checkoutHTTP, "readMs: 5000", "readMs: 0644")
	r.Edit(checkoutHTTP, "retries: 2", "retries: 2\n    retries: 3")
	r.Edit(checkoutFlags, "defaultVariant: standard", "defaultVariant: gone")
	r.Edit(catalogHTTP, "readMs: [0-9]+", "readMs: 4999")
	bad := r.Push("Break checkout, change catalog")
	res := r.CLI("check", r.Work)
	faults := []string{checkoutHTTP + ":3:11: E_", checkoutHTTP + ":10:5: E_", checkoutFlags + ":34:5: E_"}
	if res.Code != 1 {
		t.Errorf("check ends with %d", res.Code)
	}
	for _, want := range faults {
		if !strings.Contains(res.Stdout, want) {
			t.Errorf("check does not print %q:\n%s%s", want, res.Stdout, res.Stderr)
		}
	}

	proctest.Until(t, "catalog's newer set", func() bool {
		a := s.Changes(ledger.BundleActivated)
		return a[0].Event.Data.Service == "catalog" && a[0].Event.Data.Release.Commit == bad
	})
	r.Write("README.md", "still bad\n")
	s.UntilTip(r.Push("Something else"))
	rejected := s.Changes(ledger.BundleRejected)
	if len(rejected) != 1 || rejected[0].Event.Data.Service != "checkout" || rejected[0].Event.Data.Total != len(faults) {
		t.Fatalf("recorded: %+v", rejected)
	}
	if st := s.Status(); len(st.Rejected) != 1 || st.Rejected[0].Total != len(faults) || !strings.HasPrefix(st.Rejected[0].Faults[0], checkoutHTTP) && !strings.HasPrefix(st.Rejected[0].Faults[0], checkoutFlags) {
		t.Errorf("status: %+v", st.Rejected)
	}
	if l := c.Live(); l.Set != before || l.State != api.StateReady {
		t.Errorf("the last good set did not stay: %+v", l)
	}
	r.Git("revert", "--no-edit", bad)
	s.UntilTip(r.Push("Mend"))
	if st := s.Status(); len(st.Rejected) != 0 {
		t.Errorf("mended: %+v", st.Rejected)
	}
}

// TestWhatBecomesOfABranch: a branch that is deleted, that loses sealstone.yaml,
// a repository without anything: each is said, what was live stays live, and the
// next good tip goes on from there.
func TestWhatBecomesOfABranch(t *testing.T) {
	t.Parallel()
	r := proctest.New(t, examples.Shop())
	newForge(t, r)
	s := r.Serve()
	good := r.Git("rev-parse", "HEAD")
	s.UntilTip(good)
	c := openSDK(t, sdkConfig(t, r, "checkout@staging", s.URL))
	before := c.Live().Set
	says := func(what string) {
		t.Helper()
		proctest.Until(t, "a status that says "+what, func() bool { return strings.Contains(s.Status().Source.LastError, what) })
		if st := s.Status().Source; st.Tip != good {
			t.Errorf("the tip is %s", st.Tip)
		}
		wantReady(t, c)
	}
	r.Git("push", "-q", "origin", "main:trunk")
	proctest.Git(t, r.Bare, "update-ref", "-d", "refs/heads/main")
	says("branch does not exist")
	proctest.Git(t, r.Bare, "update-ref", "-d", "refs/heads/trunk")
	says("empty repository")
	r.Git("mv", "sealstone.yaml", "elsewhere.txt")
	bad := r.Push("Lose the layout")
	says("E_SEALSTONE_MISSING")
	r.Git("revert", "--no-edit", bad)
	s.UntilTip(r.Push("Mend"))
	proctest.Until(t, "a status without an error", func() bool { return s.Status().Source.LastError == "" })
	if c.Live().Set != before {
		t.Error("the set changed without a reason")
	}
	s.OK("verify")
}

func TestTheForgesTokenIsRotated(t *testing.T) {
	t.Parallel()
	r := proctest.New(t, examples.Shop())
	f := newForge(t, r)
	file := filepath.Join(r.Dir, "git-token")
	rotate := func(token string) {
		f.token.Store(&token)
		r.Git("config", "http.extraHeader", basic(token))
	}
	rotate("first-token")
	proctest.WriteFile(t, file, "first-token\n", 0o600)
	s := r.Serve("--git-token-file", file)
	s.UntilTip(r.Git("rev-parse", "HEAD"))
	c := openSDK(t, sdkConfig(t, r, "checkout@staging", s.URL))

	rotate("second-token")
	expressOn(r, true)
	commit := r.Push("Sell faster")
	proctest.Until(t, "an error in the status", func() bool { return s.Status().Source.LastError != "" })
	if st := s.Status(); strings.Contains(st.Source.LastError, "first-token") || strings.Contains(s.Log(), "first-token") {
		t.Errorf("the token is shown: %s", st.Source.LastError)
	}
	if c.State() != api.StateReady || express(c) {
		t.Errorf("state %s, flag %v", c.State(), express(c))
	}
	proctest.WriteFile(t, file, "second-token\n", 0o600)
	s.UntilTip(commit)
	untilExpress(t, c, true)
	proctest.Until(t, "a status without the error", func() bool { return s.Status().Source.LastError == "" })
	if f.denied.Load() == 0 {
		t.Error("the forge let the old token in")
	}
}

func basic(token string) string {
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth("any", token)
	return "Authorization: " + r.Header.Get("Authorization")
}
