package proctest

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
)

// Origin is the log of every rig.
const Origin = "shop.example/sealstone"

// Rig is a config repository, keys and a ledger on disk. Its Fixture has the
// root's and an operator's key, and signs statements; the log's and the node's
// keys are those that ledger init made.
type Rig struct {
	*ledgertest.Fixture
	t testing.TB

	Dir   string // everything is below it
	Work  string // work tree
	Bare  string // what the work tree pushes to
	Data  string // data directory, with trust.json
	Trust string // path of the trust file
	Root  string // key files
	SRE   string
	URL   string // the repository, as the server gets it
	count int    // of servers started
}

// New lays out files as a repository with signed operators, pushes it to a bare
// one, and creates a ledger. It skips the test where git is absent.
func New(t testing.TB, files fs.FS) *Rig {
	t.Helper()
	NeedGit(t)
	if err := touch(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	r := &Rig{Fixture: ledgertest.For(t, Origin), t: t, Dir: dir, Work: in("work"), Bare: in("config.git"), Data: in("data"), Root: in("root"), SRE: in("sre")}
	r.URL, r.Trust = r.Bare, filepath.Join(r.Data, "trust.json")
	WriteKey(t, r.Root, r.RootKey)
	WriteKey(t, r.SRE, r.OperatorKey)
	Git(t, dir, "init", "-q", "--bare", "-b", "main", r.Bare)
	Git(t, dir, "init", "-q", "-b", "main", r.Work)
	r.Git("remote", "add", "origin", r.Bare)
	if err := os.CopyFS(r.Work, files); err != nil {
		t.Fatal(err)
	}
	r.OK("ledger", "init", "--data", r.Data, "--origin", Origin, "--root", r.Root+".pub")
	r.Write("operators.yaml", string(r.OperatorsYAML))
	r.OK("operators", "sign", r.Work, "--key", r.Root)
	r.Push("Start")
	return r
}

// WriteKey writes an Ed25519 key pair as PATH and PATH.pub.
func WriteKey(t testing.TB, path string, key ed25519.PrivateKey) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	line := ledger.NewSSHKey(key.Public().(ed25519.PublicKey)).String()
	WriteFile(t, path, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), 0o600)
	WriteFile(t, path+".pub", line+"\n", 0o644)
}

// WriteFile writes a file and the folders above it.
func WriteFile(t testing.TB, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// ReadFile reads a file.
func ReadFile(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// env is all that the program sees of its surroundings.
func (r *Rig) env() []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + r.Dir, "TMPDIR=" + os.TempDir(), "NO_COLOR=1", "GORACE=" + GORACE, "SEALSTONE_TRUST=" + r.Trust}
}

// CLI runs a command of the program.
func (r *Rig) CLI(args ...string) Result {
	r.t.Helper()
	return runBin(r.t, r.Dir, r.env(), args...)
}

// CLIWith is CLI with more variables in the environment.
func (r *Rig) CLIWith(env []string, args ...string) Result {
	r.t.Helper()
	return runBin(r.t, r.Dir, append(r.env(), env...), args...)
}

// Start runs a command until the test ends, and returns what it has printed.
func (r *Rig) Start(args ...string) (stdout, stderr func() string) {
	r.t.Helper()
	cmd := exec.Command(bin, args...)
	var out, errs safeBuffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = r.Dir, r.env(), &out, &errs
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if r.t.Failed() {
			r.t.Logf("sealstone %s said:\n%s", strings.Join(args, " "), errs.String())
		}
	})
	return out.String, errs.String
}

// Killed runs a command and kills it after a while: kill -9. It tells whether
// the command was still running then; one that ended must have succeeded.
func (r *Rig) Killed(after time.Duration, args ...string) bool {
	r.t.Helper()
	cmd := exec.Command(bin, args...)
	cmd.Dir, cmd.Env = r.Dir, r.env()
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() }) // it may have ended
	defer timer.Stop()
	err := cmd.Wait()
	if err != nil && cmd.ProcessState.ExitCode() >= 0 {
		r.t.Fatalf("sealstone %s: %v", strings.Join(args, " "), err)
	}
	return err != nil
}

// OK is CLI of a command that must succeed; it returns what was printed.
func (r *Rig) OK(args ...string) string {
	r.t.Helper()
	res := r.CLI(args...)
	if res.Code != 0 {
		r.t.Fatalf("sealstone %s: exit %d\n%s%s", strings.Join(args, " "), res.Code, res.Stdout, res.Stderr)
	}
	return res.Stdout
}

// Write writes a file of the work tree.
func (r *Rig) Write(name, text string) {
	r.t.Helper()
	WriteFile(r.t, filepath.Join(r.Work, name), text, 0o644)
}

// Edit replaces what matches a pattern in a file of the work tree.
func (r *Rig) Edit(name, pattern, with string) {
	r.t.Helper()
	path := filepath.Join(r.Work, name)
	old := ReadFile(r.t, path)
	text := regexp.MustCompile(pattern).ReplaceAllString(old, with)
	if text == old {
		r.t.Fatalf("%s: %q changes nothing", name, pattern)
	}
	r.Write(name, text)
}

// Commit commits the whole work tree and returns the commit.
func (r *Rig) Commit(message string) string {
	r.t.Helper()
	r.Git("add", "-A")
	r.Git("commit", "-q", "--allow-empty", "-m", message)
	return r.Git("rev-parse", "HEAD")
}

// Push commits the whole work tree and pushes it.
func (r *Rig) Push(message string, options ...string) string {
	r.t.Helper()
	commit := r.Commit(message)
	r.Git(append([]string{"push", "-q", "origin", "main"}, options...)...)
	return commit
}

// Git runs git in the work tree.
func (r *Rig) Git(args ...string) string {
	r.t.Helper()
	return Git(r.t, r.Work, args...)
}

// NeedGit skips the test where there is no git.
func NeedGit(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git, which is not installed")
	}
}

// Git runs git in a folder, untouched by the machine's settings.
func Git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	return GitWith(t, nil, dir, args...)
}

// GitWith is Git with more variables in the environment.
func GitWith(t testing.TB, env []string, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull, "GIT_TERMINAL_PROMPT=0",
		"GIT_AUTHOR_NAME=Ada Editor", "GIT_AUTHOR_EMAIL=ada@shop.example", "GIT_COMMITTER_NAME=Ada Editor", "GIT_COMMITTER_EMAIL=ada@shop.example"), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}
