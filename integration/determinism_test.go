package integration_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/integration/proctest"
)

// surrounding is all of a machine that must not show in a digest.
type surrounding struct {
	name  string
	umask string
	env   []string
	clone []string                         // options of git clone
	after func(t *testing.T, clone string) // what is done to the clone
}

var surroundings = []surrounding{
	{name: "plain", umask: "022", env: []string{"TZ=UTC", "LANG=C"}},
	{name: "time zone, umask and language", umask: "077", env: []string{"TZ=Asia/Kathmandu", "LANG=tr_TR.UTF-8", "LC_ALL=tr_TR.UTF-8"}},
	{name: "Windows line ends", umask: "002", env: []string{"TZ=America/Caracas", "LANG=ja_JP.eucJP"}, clone: []string{"-c", "core.autocrlf=true", "-c", "core.fileMode=false"}, after: wantCRLF},
	{name: "one pack", umask: "027", env: []string{"TZ=Pacific/Kiritimati"}, after: pack},
	{name: "loose objects", umask: "022", env: []string{"TZ=Pacific/Niue"}, after: unpack},
	{name: "history rewritten around the same tree", umask: "022", env: []string{"TZ=Asia/Tokyo"}, after: rewrite},
	{name: "shallow", umask: "022", env: []string{"TZ=UTC"}, clone: []string{"--depth=1"}},
	{name: "objects of another clone, indexed as a whole", umask: "022", env: []string{"GOMAXPROCS=1"}, clone: []string{"--local", "--shared"}, after: index},
	{name: "bare", umask: "077", env: []string{"TZ=Europe/Berlin"}, clone: []string{"--bare"}},
}

// One commit builds to the same bytes on every machine, whatever its clone
// looks like.
func TestABuildIsTheSameEverywhere(t *testing.T) {
	t.Parallel()
	r := proctest.New(t, examples.Shop())
	want := r.OK("build", r.Work, "-o", "json")
	if n := strings.Count(want, `"bundles"`); n != 6 {
		t.Fatalf("%d sets: %s", n, want)
	}
	for i, s := range surroundings {
		t.Run(s.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), strings.Repeat("deeper/", i), "clone of it")
			proctest.Git(t, r.Dir, append(append([]string{"clone", "-q", "--no-local"}, s.clone...), r.Bare, dir)...)
			if s.after != nil {
				s.after(t, dir)
			}
			if got := s.build(t, r, dir); commits.ReplaceAllString(got, "") != commits.ReplaceAllString(want, "") {
				t.Errorf("built\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// commits are the one thing in an answer that a history may change.
var commits = regexp.MustCompile(`"commit": "[0-9a-f]{40}"`)

// rewrite makes the tree that of a first commit, by somebody else, years ago.
func rewrite(t *testing.T, clone string) {
	old := proctest.Git(t, clone, "rev-parse", "HEAD")
	env := []string{"GIT_AUTHOR_NAME=Eve", "GIT_AUTHOR_DATE=2001-02-03T04:05:06Z", "GIT_COMMITTER_DATE=2002-03-04T05:06:07Z"}
	now := proctest.GitWith(t, env, clone, "commit-tree", "-m", "Once upon a time", "HEAD^{tree}")
	proctest.Git(t, clone, "reset", "-q", "--hard", now)
	if now == old {
		t.Fatal("the history is the same")
	}
}

// build runs the program under the surrounding's umask, which Go can't set for
// a child alone.
func (s *surrounding) build(t *testing.T, r *proctest.Rig, dir string) string {
	t.Helper()
	cmd := exec.Command("sh", "-c", `umask "$1" && shift && exec "$@"`, "sh", s.umask, proctest.Program(), "build", ".", "-o", "json")
	cmd.Dir, cmd.Env = dir, append(s.env, "HOME="+r.Dir, "PATH="+os.Getenv("PATH"))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	return string(out)
}

// wantCRLF makes sure that the work tree really differs.
func wantCRLF(t *testing.T, clone string) {
	if text := proctest.ReadFile(t, filepath.Join(clone, checkoutHTTP)); !strings.Contains(text, "\r\n") {
		t.Fatal("git did not turn line ends")
	}
}

// index writes what makes a large repository fast, beside no object of its own.
func index(t *testing.T, clone string) {
	if _, err := os.Stat(filepath.Join(clone, ".git/objects/info/alternates")); err != nil {
		t.Fatal(err)
	}
	proctest.Git(t, clone, "commit-graph", "write", "--reachable")
	proctest.Git(t, clone, "pack-refs", "--all")
}

func pack(t *testing.T, clone string) {
	proctest.Git(t, clone, "gc", "-q", "--aggressive", "--prune=now")
	proctest.Git(t, clone, "pack-refs", "--all")
	if n := objects(t, clone, "pack"); n != 1 {
		t.Fatalf("%d packs", n)
	}
}

func unpack(t *testing.T, clone string) {
	packs, err := filepath.Glob(filepath.Join(clone, ".git/objects/pack/*.pack"))
	if err != nil || len(packs) == 0 {
		t.Fatalf("no packs: %v", err)
	}
	for _, p := range packs {
		moved := filepath.Join(t.TempDir(), filepath.Base(p))
		if err := os.Rename(p, moved); err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(strings.TrimSuffix(p, ".pack") + ".idx")
		cmd := exec.Command("sh", "-c", `git unpack-objects -q < "$1"`, "sh", moved)
		cmd.Dir = clone
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if n := objects(t, clone, "pack"); n != 0 {
		t.Fatalf("%d packs are left", n)
	}
}

func objects(t *testing.T, clone, suffix string) int {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(clone, ".git/objects/pack/*."+suffix))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}

// The layout that --out writes is a function of the commit as well, file by
// file; and a further clone's commit of the same content has the same sets.
func TestLayoutsAndContentDecideTheDigest(t *testing.T) {
	t.Parallel()
	r := proctest.New(t, examples.Shop())
	digests := func(dir string) []string {
		var sets []string
		for _, s := range decode[[]struct{ Digest string }](t, r.OK("build", dir, "-o", "json")) {
			sets = append(sets, s.Digest)
		}
		return sets
	}
	before := digests(r.Work)
	var layouts []string
	for range 2 {
		out := filepath.Join(t.TempDir(), "layout")
		r.OK("build", r.Work, "--out", out)
		layouts = append(layouts, tree(t, out))
	}
	if layouts[0] != layouts[1] {
		t.Error("two layouts of one commit differ")
	}
	r.Write("README.md", "other words, another commit\n")
	r.Commit("Say something")
	if got := digests(r.Work); strings.Join(got, " ") != strings.Join(before, " ") {
		t.Errorf("the same content, another commit: sets %v, want %v", got, before)
	}
}

// tree is every file below dir with its content.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			b.WriteString(rel + "\n" + proctest.ReadFile(t, path) + "\n")
		}
		return err
	})
	if err != nil || b.Len() == 0 {
		t.Fatalf("%s: %d bytes, %v", dir, b.Len(), err)
	}
	return b.String()
}
