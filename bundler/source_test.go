package bundler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// gitRepo is a work tree driven by the real git.
type gitRepo struct {
	t   *testing.T
	dir string
}

func newGitRepo(t *testing.T) *gitRepo {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git")
	}
	r := &gitRepo{t, filepath.Join(t.TempDir(), "work")}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	r.git("init", "-q", "-b", "main")
	return r
}

func (r *gitRepo) git(args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=c", "GIT_COMMITTER_EMAIL=c@example.org")
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// commit writes files, as name and content in turn, and returns the commit.
func (r *gitRepo) commit(files ...string) string {
	r.t.Helper()
	for i := 0; i < len(files); i += 2 {
		path := filepath.Join(r.dir, files[i])
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			r.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(files[i+1]), 0o644); err != nil {
			r.t.Fatal(err)
		}
	}
	r.git("add", "-A")
	r.git("commit", "-q", "--allow-empty", "-m", "change")
	return r.git("rev-parse", "HEAD")
}

func openTestSource(t *testing.T, cfg SourceConfig) *Source {
	t.Helper()
	if cfg.Branch == "" {
		cfg.Branch = "main"
	}
	if cfg.Dir == "" {
		cfg.Dir = filepath.Join(t.TempDir(), "bare")
	}
	s, err := OpenSource(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func mustFetch(t *testing.T, s *Source, want string) {
	t.Helper()
	got, err := s.Fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Fatalf("tip %s, want %s", got, want)
	}
}

func readAt(t *testing.T, s *Source, commit, path string) string {
	t.Helper()
	c, err := s.Git().CommitObject(plumbing.NewHash(commit))
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.File(path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := f.Contents()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// fsck lets git judge the bare repository.
func fsck(t *testing.T, s *Source) {
	t.Helper()
	out, err := exec.Command("git", "-C", s.cfg.Dir, "-c", "safe.directory=*", "fsck", "--full", "--strict").CombinedOutput()
	if err != nil {
		t.Fatalf("git fsck: %v\n%s", err, out)
	}
}

// exercise walks one kind of URL through a repository's life.
func exercise(t *testing.T, r *gitRepo, s *Source, publish func()) {
	first := r.commit("a.yaml", "v: 1\n", "deep/er/b.yaml", strings.Repeat("x: 1\n", 5000))
	publish()
	mustFetch(t, s, first)
	if got := readAt(t, s, first, "a.yaml"); got != "v: 1\n" {
		t.Errorf("a.yaml is %q", got)
	}
	mustFetch(t, s, first)
	if h, err := s.Git().ResolveRevision(plumbing.Revision(first[:8])); err != nil || h.String() != first {
		t.Errorf("%s resolves to %v, %v", first[:8], h, err)
	}

	many := make([]string, 0, 600)
	for i := range 300 {
		many = append(many, fmt.Sprintf("many/%d/%d.yaml", i%7, i), fmt.Sprintf("n: %d\n", i))
	}
	second := r.commit(many...)
	publish()
	mustFetch(t, s, second)
	if got := readAt(t, s, second, "many/5/299.yaml"); got != "n: 299\n" {
		t.Errorf("299.yaml is %q", got)
	}
	if err := s.Keep(second); err != nil {
		t.Fatal(err)
	}

	r.git("reset", "-q", "--hard", first)
	rewritten := r.commit("a.yaml", "v: other\n")
	publish()
	mustFetch(t, s, rewritten)
	if got := readAt(t, s, second, "many/5/299.yaml"); got != "n: 299\n" {
		t.Errorf("after a force push, 299.yaml of the accepted tip is %q", got)
	}
	fsck(t, s)

	again := openTestSource(t, s.cfg)
	mustFetch(t, again, rewritten)
	if again.ref(refAccepted).String() != second {
		t.Errorf("the accepted tip is forgotten after a restart")
	}
}

func TestFetchFromPathWithoutGitProgram(t *testing.T) {
	r := newGitRepo(t)
	s := openTestSource(t, SourceConfig{URL: r.dir})
	exercise(t, r, s, func() {})

	next := r.commit("b.yaml", "b: 1\n")
	r.git("gc", "-q", "--prune=now")
	t.Setenv("PATH", "")
	mustFetch(t, s, next)
	mustFetch(t, openTestSource(t, SourceConfig{URL: "file://" + r.dir}), next)
}

func TestFetchFromBareFileURL(t *testing.T) {
	r := newGitRepo(t)
	bare := filepath.Join(t.TempDir(), "bare.git")
	r.git("init", "-q", "--bare", "-b", "main", bare)
	s := openTestSource(t, SourceConfig{URL: "file://" + bare})
	exercise(t, r, s, func() { r.git("push", "-q", "-f", bare, "main") })
}

// gitHTTP serves every repository below root by git's own http-backend.
func gitHTTP(t *testing.T, root string) http.Handler {
	t.Helper()
	git, err := exec.LookPath("git")
	if err != nil {
		t.Skip("needs git")
	}
	exe, err := exec.Command(git, "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	backend := filepath.Join(strings.TrimSpace(string(exe)), "git-http-backend")
	if _, err := os.Stat(backend); err != nil {
		t.Skip("needs git http-backend")
	}
	return &cgi.Handler{Path: backend, Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1",
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"}, Stderr: os.Stderr}
}

func TestFetchOverHTTP(t *testing.T) {
	r := newGitRepo(t)
	root := t.TempDir()
	r.git("init", "-q", "--bare", "-b", "main", filepath.Join(root, "c.git"))
	srv := httptest.NewServer(gitHTTP(t, root))
	defer srv.Close()
	s := openTestSource(t, SourceConfig{URL: srv.URL + "/c.git"})
	if _, err := s.Fetch(t.Context()); !errors.Is(err, errEmptyRepository) {
		t.Fatalf("empty repository: %v", err)
	}
	exercise(t, r, s, func() { r.git("push", "-q", "-f", filepath.Join(root, "c.git"), "main") })
}

func TestFetchTellsWhyThereIsNoTip(t *testing.T) {
	r := newGitRepo(t)
	s := openTestSource(t, SourceConfig{URL: r.dir})
	check := func(s *Source, want error) {
		t.Helper()
		if _, err := s.Fetch(t.Context()); !errors.Is(err, want) {
			t.Fatalf("got %v, want %v", err, want)
		}
	}
	check(s, errEmptyRepository)
	tip := r.commit("a", "1")
	mustFetch(t, s, tip)
	r.git("branch", "-m", "trunk")
	check(s, errBranchGone)
	if s.ref(refRemote).String() != tip {
		t.Error("a deleted branch moved the ref")
	}
	gone := openTestSource(t, SourceConfig{URL: filepath.Join(t.TempDir(), "nothing")})
	check(gone, errUnreachable)
	check(gone, transport.ErrRepositoryNotFound)
}

func TestFetchRefusesShallowRemote(t *testing.T) {
	r := newGitRepo(t)
	r.commit("a", "1")
	r.commit("a", "2")
	root := t.TempDir()
	shallow := filepath.Join(root, "shallow.git")
	r.git("clone", "-q", "--bare", "--depth=1", "file://"+r.dir, shallow)
	srv := httptest.NewServer(gitHTTP(t, root))
	defer srv.Close()
	for _, url := range []string{shallow, srv.URL + "/shallow.git"} {
		if _, err := openTestSource(t, SourceConfig{URL: url}).Fetch(t.Context()); !errors.Is(err, ErrShallow) {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestOpenSourceNeedsNoNetwork(t *testing.T) {
	s := openTestSource(t, SourceConfig{URL: "https://user:hunter2@127.0.0.1:1/x.git"})
	_, err := s.Fetch(t.Context())
	if !errors.Is(err, errUnreachable) {
		t.Fatalf("got %v", err)
	}
	if strings.Contains(err.Error(), "hunter2") || strings.Contains(s.URL(), "hunter2") {
		t.Errorf("password shown: %v, %s", err, s.URL())
	}
}

func TestTokenFileIsReadAtEachAttempt(t *testing.T) {
	r := newGitRepo(t)
	first := r.commit("a", "1")
	root := filepath.Dir(r.dir)
	good := "token-one"
	backend := gitHTTP(t, root)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		user, token, _ := q.BasicAuth()
		if user != "any" || token != good {
			http.Error(w, "no entry for "+token, http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, q)
	}))
	defer srv.Close()
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := openTestSource(t, SourceConfig{URL: srv.URL + "/work/.git", TokenFile: file})
	write("token-one")
	mustFetch(t, s, first)
	good = "token-two"
	second := r.commit("a", "2")
	_, err := s.Fetch(t.Context())
	if !errors.Is(err, errUnreachable) || !errors.Is(err, transport.ErrAuthenticationRequired) {
		t.Fatalf("old token: %v", err)
	}
	if strings.Contains(err.Error(), "token-one") {
		t.Errorf("token shown: %v", err)
	}
	write("token-two")
	mustFetch(t, s, second)
}

func TestTokenStaysWithItsHost(t *testing.T) {
	r := newGitRepo(t)
	tip := r.commit("a", "1")
	var leaked atomic.Bool
	backend := gitHTTP(t, filepath.Dir(r.dir))
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("Authorization") != "" {
			leaked.Store(true)
		}
		backend.ServeHTTP(w, q)
	}))
	defer other.Close()
	_, port, _ := net.SplitHostPort(other.Listener.Addr().String())
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		http.Redirect(w, q, "http://127.0.0.1:"+port+q.URL.RequestURI(), http.StatusFound)
	}))
	defer srv.Close()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openTestSource(t, SourceConfig{URL: strings.Replace(srv.URL, "127.0.0.1", "localhost", 1) + "/work/.git", TokenFile: file})
	mustFetch(t, s, tip)
	if leaked.Load() {
		t.Error("the token followed a redirect to another host")
	}
}

func TestHangingHostIsCutOff(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // connections wait in the backlog for ever
	file := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, scheme := range []string{"http", "ssh"} {
		s := openTestSource(t, SourceConfig{URL: scheme + "://" + l.Addr().String() + "/x.git", Timeout: 100 * time.Millisecond,
			KnownHostsFile: file, SSHKeyFile: testSSHKey(t)})
		_, err := s.Fetch(t.Context())
		if !errors.Is(err, errUnreachable) || !errors.Is(err, errSilent) {
			t.Errorf("%s: %v", scheme, err)
		}
	}
}

func TestHostHangingInsideAPackIsCutOff(t *testing.T) {
	r := newGitRepo(t)
	tip := r.commit("a", "1", "b", strings.Repeat("z", 9999))
	backend := gitHTTP(t, filepath.Dir(r.dir))
	var healthy atomic.Bool
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.Method == http.MethodGet || healthy.Load() {
			backend.ServeHTTP(w, q)
			return
		}
		rec := httptest.NewRecorder()
		backend.ServeHTTP(rec, q)
		w.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
		w.Write(rec.Body.Bytes()[:rec.Body.Len()-30])
		w.(http.Flusher).Flush()
		<-q.Context().Done()
	}))
	defer srv.Close()
	s := openTestSource(t, SourceConfig{URL: srv.URL + "/work/.git", Timeout: 500 * time.Millisecond})
	if _, err := s.Fetch(t.Context()); !errors.Is(err, errSilent) {
		t.Fatalf("got %v", err)
	}
	healthy.Store(true)
	mustFetch(t, s, tip)
}

func TestCancelledFetchSaysSo(t *testing.T) {
	s := openTestSource(t, SourceConfig{URL: "http://127.0.0.1:1/x"})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Fetch(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestReadersRunBesideFetches(t *testing.T) {
	r := newGitRepo(t)
	first := r.commit("a.yaml", "v: 1\n")
	s := openTestSource(t, SourceConfig{URL: r.dir})
	mustFetch(t, s, first)
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				h := s.ref(refRemote)
				c, err := s.Git().CommitObject(h)
				if err == nil {
					err = walkAll(c)
				}
				if err != nil {
					t.Errorf("commit %s: %v", h, err)
					return
				}
			}
		})
	}
	for i := range 5 {
		files := []string{"a.yaml", fmt.Sprint(i)}
		for j := range 150 * (i % 2) {
			files = append(files, fmt.Sprintf("d%d/%d.yaml", i, j), fmt.Sprint(i, j))
		}
		mustFetch(t, s, r.commit(files...))
	}
	close(stop)
	readers.Wait()
	fsck(t, s)
}

func walkAll(c *object.Commit) error {
	files, err := c.Files()
	if err != nil {
		return err
	}
	return files.ForEach(func(f *object.File) error { _, err := f.Contents(); return err })
}

// TestLeftoversOfAKilledFetchAreHarmless lays out what a kill can leave.
func TestLeftoversOfAKilledFetchAreHarmless(t *testing.T) {
	r := newGitRepo(t)
	files := make([]string, 0, 400)
	for i := range 200 {
		files = append(files, fmt.Sprintf("%d.yaml", i), fmt.Sprint(i))
	}
	tip := r.commit(files...)
	probe := openTestSource(t, SourceConfig{URL: r.dir})
	mustFetch(t, probe, tip)
	var name string
	for name = range listPacks(probe.cfg.Dir) {
		name = strings.TrimSuffix(name, ".pack")
	}
	read := func(ext string) []byte {
		b, err := os.ReadFile(filepath.Join(probe.cfg.Dir, "objects/pack", name+ext))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	idx, pack := read(".idx"), read(".pack")
	for what, leftover := range map[string]map[string][]byte{
		"half an index":             {name + ".idx": idx[:len(idx)/2]},
		"an index without pack":     {name + ".idx": idx},
		"an index with half a pack": {name + ".idx": idx, name + ".pack": pack[:len(pack)/2]},
		"a pack without index":      {name + ".pack": pack},
		"a broken index":            {name + ".idx": {}, name + ".pack": pack},
		"a temporary pack":          {"tmp_pack_1": pack[:99]},
	} {
		t.Run(what, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "bare")
			openTestSource(t, SourceConfig{URL: r.dir, Dir: dir})
			for file, b := range leftover {
				if err := os.WriteFile(filepath.Join(dir, "objects/pack", file), b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			os.WriteFile(filepath.Join(dir, refRemote), nil, 0o644)
			os.WriteFile(filepath.Join(dir, refRemote+".lock"), nil, 0o644)
			os.WriteFile(filepath.Join(dir, "HEAD"), nil, 0o644)
			s := openTestSource(t, SourceConfig{URL: r.dir, Dir: dir})
			mustFetch(t, s, tip)
			if got := readAt(t, s, tip, "7.yaml"); got != "7" {
				t.Errorf("7.yaml is %q", got)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "objects/pack/tmp_*")); len(left) > 0 {
				t.Errorf("left over: %v", left)
			}
			os.Remove(filepath.Join(dir, refRemote+".lock"))
			fsck(t, s)
		})
	}
}

// TestKilledFetchesContinue kills a process in the middle of its fetches.
func TestKilledFetchesContinue(t *testing.T) {
	if testing.Short() {
		t.Skip("slow")
	}
	r := newGitRepo(t)
	dir := filepath.Join(t.TempDir(), "bare")
	for i := range 12 {
		files := []string{"a", fmt.Sprint(i)}
		for j := range 400 * (i % 2) {
			files = append(files, fmt.Sprintf("%d/%d", i, j), strings.Repeat(fmt.Sprint(i, j), 200))
		}
		tip := r.commit(files...)
		cmd := exec.Command(os.Args[0], "-test.run=^TestFetchUntilKilled$")
		cmd.Env = append(os.Environ(), "SEALSTONE_TEST_FETCH="+r.dir, "SEALSTONE_TEST_DIR="+dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(20+i*7) * time.Millisecond)
		cmd.Process.Kill()
		cmd.Wait()
		s := openTestSource(t, SourceConfig{URL: r.dir, Dir: dir})
		mustFetch(t, s, tip)
		fsck(t, s)
	}
}

func TestFetchUntilKilled(t *testing.T) {
	url, dir := os.Getenv("SEALSTONE_TEST_FETCH"), os.Getenv("SEALSTONE_TEST_DIR")
	if url == "" {
		t.Skip("a part of TestKilledFetchesContinue")
	}
	s := openTestSource(t, SourceConfig{URL: url, Dir: dir})
	for {
		s.Fetch(t.Context())
		os.Remove(filepath.Join(dir, refRemote))
	}
}

func TestKeepRefusesWhatIsNotHere(t *testing.T) {
	r := newGitRepo(t)
	tip := r.commit("a", "1")
	s := openTestSource(t, SourceConfig{URL: r.dir})
	mustFetch(t, s, tip)
	for _, commit := range []string{strings.Repeat("0", 39) + "1", "main", ""} {
		if err := s.Keep(commit); err == nil {
			t.Errorf("kept %q", commit)
		}
	}
	if err := s.Keep(tip); err != nil || s.ref(refAccepted).String() != tip {
		t.Error(err)
	}
}

func TestOpenSourceNamesEveryFault(t *testing.T) {
	_, err := OpenSource(SourceConfig{Branch: "refs/heads/main"})
	for _, want := range []string{"no URL", "short name", "no folder"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v lacks %q", err, want)
		}
	}
	if _, err := OpenSource(SourceConfig{URL: "git://host/x", Branch: "main", Dir: t.TempDir()}); err == nil {
		t.Error("git:// accepted")
	}
}

func TestRedactURL(t *testing.T) {
	for in, want := range map[string]string{
		"/srv/config.git":              "/srv/config.git",
		"git@host:team/x.git":          "git@host:team/x.git",
		"https://host/x":               "https://host/x",
		"https://me:pw@host/x@y":       "https://REDACTED@host/x@y",
		"https://glpat-token@host:8/x": "https://REDACTED@host:8/x",
		"ssh://git:pw@host:22/x":       "ssh://git@host:22/x",
		"https://me:p@w@host":          "https://REDACTED@host",
	} {
		if got := redactURL(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestPackedHeaderIsGits(t *testing.T) {
	for size, want := range map[uint64][]byte{0: {0x30}, 15: {0x3f}, 16: {0xb0, 0x01}, 3000: {0xb8, 0xbb, 0x01}} {
		if got := packedHeader(plumbing.BlobObject, size); !bytes.Equal(got, want) {
			t.Errorf("%d: % x, want % x", size, got, want)
		}
	}
}
