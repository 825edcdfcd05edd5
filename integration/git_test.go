package integration

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/examples"
)

// TestRealGit follows a bare repository that git itself serves over http, and
// is moved by `git push`: a commit reaches an evaluation, a force push is
// refused and recorded while the last good stays, and a push that continues the
// accepted history is taken again.
func TestRealGit(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the binary and runs git")
	}
	forge := newForge(t)
	work := forge.clone()
	if err := os.CopyFS(work.dir, examples.Shop()); err != nil {
		t.Fatal(err)
	}
	first := work.push("Start the shop")
	node := startNode(t, forge.url)
	node.until("the first activations", func() bool { return len(node.changes("bundle.activated")) == 6 })
	if node.flag("express-checkout", "checkout@staging") {
		t.Fatal("the flag is on from the start")
	}

	work.edit("services/checkout/flags/checkout.yaml", `(?s)(express-checkout:.*?defaultVariant: )off`, "${1}on")
	second := work.push("Turn on express checkout")
	node.until("the flag", func() bool { return node.flag("express-checkout", "checkout@staging") })
	if n := len(node.changes("source.refused")); n != 0 {
		t.Errorf("%d refusals before any force push", n)
	}

	work.git("reset", "-q", "--hard", first)
	work.edit("services/checkout/service.yaml", "owner: .*", "owner: somebody-else")
	rewritten := work.push("Rewrite history", "--force")
	node.until("the refusal", func() bool { return len(node.changes("source.refused")) == 1 })
	text := string(node.changes("source.refused")[0])
	for _, commit := range []string{second, rewritten} {
		if !strings.Contains(text, commit) {
			t.Errorf("the refusal doesn't name %s:\n%s", commit, text)
		}
	}
	if !node.flag("express-checkout", "checkout@staging") {
		t.Error("the last good is gone after a force push")
	}
	node.restart()
	if !node.flag("express-checkout", "checkout@staging") {
		t.Error("the last good is gone after a restart")
	}

	work.git("reset", "-q", "--hard", second)
	work.edit("services/checkout/flags/checkout.yaml", `(?s)(express-checkout:.*?defaultVariant: )on`, "${1}off")
	work.push("Go on from what was accepted", "--force")
	node.until("the flag again", func() bool { return !node.flag("express-checkout", "checkout@staging") })
	if n := len(node.changes("source.refused")); n != 1 {
		t.Errorf("%d refusals at the end, want 1", n)
	}
	if out, err := node.run("verify", "--server", node.url); err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
}

// forge is a bare repository behind git http-backend.
type forge struct {
	t   *testing.T
	url string
	dir string
}

func newForge(t *testing.T) *forge {
	t.Helper()
	exe, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Skip("needs git")
	}
	backend := filepath.Join(strings.TrimSpace(string(exe)), "git-http-backend")
	if _, err := os.Stat(backend); err != nil {
		t.Skip("needs git http-backend")
	}
	root := t.TempDir()
	f := &forge{t: t, dir: filepath.Join(root, "config.git")}
	gitIn(t, root, "init", "-q", "--bare", "-b", "main", f.dir)
	gitIn(t, f.dir, "config", "http.receivepack", "true")
	srv := httptest.NewServer(&cgi.Handler{Path: backend, Stderr: io.Discard, Env: []string{"GIT_PROJECT_ROOT=" + root,
		"GIT_HTTP_EXPORT_ALL=1", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}})
	t.Cleanup(srv.Close)
	f.url = srv.URL + "/config.git"
	return f
}

type workTree struct {
	t   *testing.T
	dir string
}

func (f *forge) clone() *workTree {
	f.t.Helper()
	w := &workTree{f.t, filepath.Join(f.t.TempDir(), "work")}
	gitIn(f.t, filepath.Dir(w.dir), "clone", "-q", f.url, w.dir)
	w.git("checkout", "-q", "-B", "main")
	return w
}

func (w *workTree) git(args ...string) string { w.t.Helper(); return gitIn(w.t, w.dir, args...) }

func (w *workTree) push(message string, options ...string) string {
	w.t.Helper()
	w.git("add", "-A")
	w.git("commit", "-q", "-m", message)
	w.git(append([]string{"push", "-q", "origin", "main"}, options...)...)
	return w.git("rev-parse", "HEAD")
}

func (w *workTree) edit(name, pattern, with string) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	b, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	edited := regexp.MustCompile(pattern).ReplaceAll(b, []byte(with))
	if bytes.Equal(b, edited) {
		w.t.Fatalf("%s: %q changes nothing", name, pattern)
	}
	if err := os.WriteFile(path, edited, 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func gitIn(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@shop.example", "GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@shop.example")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// node is a server in a process of its own.
type node struct {
	t         *testing.T
	bin, dir  string
	repo, url string
	cmd       *exec.Cmd
	log       bytes.Buffer
}

func startNode(t *testing.T, repo string) *node {
	t.Helper()
	n := &node{t: t, dir: t.TempDir(), repo: repo}
	n.bin = filepath.Join(n.dir, "sealstone")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", n.bin, "github.com/sealstone/sealstone/cmd/sealstone").CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	key := writeRootKey(t, n.dir)
	if out, err := n.run("ledger", "init", "--data", n.data(), "--origin", "shop.example/sealstone", "--root", key); err != nil {
		t.Fatalf("ledger init: %v\n%s", err, out)
	}
	n.start()
	t.Cleanup(func() {
		n.stop()
		if t.Failed() {
			t.Logf("server log:\n%s", n.log.String())
		}
	})
	return n
}

func (n *node) data() string { return filepath.Join(n.dir, "data") }

// writeRootKey makes an SSH key pair and returns the public half's file.
func writeRootKey(t *testing.T, dir string) string {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	sshPublic, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "root")
	for name, b := range map[string][]byte{file: pem.EncodeToMemory(block), file + ".pub": ssh.MarshalAuthorizedKey(sshPublic)} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return file + ".pub"
}

func (n *node) run(args ...string) (string, error) {
	cmd := exec.Command(n.bin, args...)
	cmd.Env = append(os.Environ(), "HOME="+n.dir, "NO_COLOR=1", "SEALSTONE_TRUST="+filepath.Join(n.data(), "trust.json"), "SEALSTONE_SERVER="+n.url)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return string(out) + stderr.String(), err
	}
	return string(out), nil
}

func (n *node) start() {
	n.t.Helper()
	addr := filepath.Join(n.dir, "addr")
	os.Remove(addr)
	n.cmd = exec.Command(n.bin, "serve", "--repo", n.repo, "--data", n.data(), "--listen", "127.0.0.1:0", "--addr-file", addr, "--poll", "100ms")
	n.cmd.Stdout, n.cmd.Stderr = &n.log, &n.log
	if err := n.cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.until("the address", func() bool {
		b, err := os.ReadFile(addr)
		n.url = "http://" + strings.TrimSpace(string(b))
		return err == nil && bytes.HasSuffix(b, []byte("\n"))
	})
}

func (n *node) stop() {
	n.cmd.Process.Kill()
	n.cmd.Wait()
}

// restart kills the server, as a machine would, and starts it again.
func (n *node) restart() {
	n.t.Helper()
	n.stop()
	n.start()
}

// until waits for a condition; the events behind it come from other processes.
func (n *node) until(what string, ok func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// changes lists the events of one kind.
func (n *node) changes(kind string) []json.RawMessage {
	n.t.Helper()
	res, err := http.Get(n.url + "/v1/changes?limit=1000&kind=" + kind)
	if err != nil {
		n.t.Fatal(err)
	}
	defer res.Body.Close()
	var answer api.Changes
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || res.StatusCode != http.StatusOK {
		n.t.Fatalf("changes: %s, %v", res.Status, err)
	}
	var events []json.RawMessage
	for _, r := range answer.Changes {
		events = append(events, r.Event)
	}
	return events
}

// flag asks as any OFREP client would.
func (n *node) flag(key, target string) bool {
	n.t.Helper()
	res, err := http.Post(fmt.Sprintf("%s/at/%s/ofrep/v1/evaluate/flags/%s", n.url, target, key), "application/json", strings.NewReader(`{"context":{}}`))
	if err != nil {
		n.t.Fatal(err)
	}
	defer res.Body.Close()
	var answer struct{ Value any }
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || res.StatusCode != http.StatusOK {
		n.t.Fatalf("OFREP: %s, %v", res.Status, err)
	}
	return answer.Value == true
}
