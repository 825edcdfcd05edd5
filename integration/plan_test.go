package integration_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/integration/proctest"
)

// A pull request's checkout is often shallow: a plan says what to fetch instead
// of making something up. With the whole history it finds where a branch left
// main.
func TestPlanInClones(t *testing.T) {
	t.Parallel()
	r := proctest.New(t, examples.Shop())
	base := r.Push("Start")
	r.Git("switch", "-q", "-c", "faster")
	r.Edit("services/catalog/config/search.yaml", "cacheSeconds: 60", "cacheSeconds: 30")
	r.Commit("Cache less")
	r.Git("push", "-q", "origin", "faster")

	clone := func(name string, options ...string) string {
		dir := filepath.Join(r.Dir, name)
		proctest.Git(t, r.Dir, append(append([]string{"clone", "-q", "-b", "faster", "--no-local"}, options...), "file://"+r.Bare, dir)...)
		return dir
	}
	shallow := r.CLI("plan", clone("shallow", "--depth=1"))
	if shallow.Code != 1 || !strings.Contains(shallow.Stderr, "git fetch --unshallow, or fetch-depth: 0") {
		t.Errorf("exit %d, %s%s", shallow.Code, shallow.Stdout, shallow.Stderr)
	}
	named := r.CLI("plan", clone("named", "--depth=1"), "--base", base)
	if named.Code != 1 || !strings.Contains(named.Stderr, "git fetch --unshallow") {
		t.Errorf("exit %d, %s%s", named.Code, named.Stdout, named.Stderr)
	}
	whole := r.OK("plan", clone("whole"))
	if !strings.Contains(whole, "compared  "+base[:12]+"  merge base with refs/remotes/origin/main") || !strings.Contains(whole, "cacheSeconds  60 → 30") {
		t.Error(whole)
	}
}

// A base that went on, that crossed the head's history, or that has nothing in
// common with it.
func TestPlanFromWhereTheHeadLeft(t *testing.T) {
	t.Parallel()
	const search, http = "services/catalog/config/search.yaml", "services/payments/config/http.yaml"
	r := proctest.New(t, examples.Shop())
	left := r.Push("Start")
	r.Git("switch", "-q", "-c", "faster")
	r.Edit(search, "cacheSeconds: 60", "cacheSeconds: 30")
	head := r.Commit("Cache less")
	r.Git("switch", "-q", "main")
	r.Edit(http, "writeMs: 15000", "writeMs: 7000")
	base := r.Push("Write faster")

	plan := func(base, head string, want ...string) {
		t.Helper()
		out := r.CLI("plan", r.Work, "--base", base, "--head", head)
		for _, w := range want {
			if all := out.Stdout + out.Stderr; !strings.Contains(strings.ReplaceAll(all, "\n    ", " "), w) {
				t.Errorf("%s..%s: no %q in\n%s", base, head, w, all)
			}
		}
		if strings.Contains(out.Stdout, "7000 → 15000") {
			t.Errorf("%s..%s takes back what the base did since:\n%s", base, head, out.Stdout)
		}
	}
	plan("main", "faster", "compared  "+left[:12]+"  merge base with main", "cacheSeconds  60 → 30",
		"main has commits that the head does not contain. They are left out")
	plan(base, head, "compared  "+left[:12]+"  merge base with "+base)

	// Each merges the other's commit: there are two merge bases, of the same second.
	r.Git("merge", "-q", "--no-edit", "faster")
	r.Git("switch", "-q", "faster")
	r.Git("merge", "-q", "--no-edit", base)
	r.Edit(search, "cacheSeconds: 30", "cacheSeconds: 10")
	r.Commit("Cache even less")
	crossed := r.OK("plan", r.Work, "--base", "main", "--head", "faster")
	if !strings.Contains(crossed, "compared  "+head[:12]+"  merge base") && !strings.Contains(crossed, "compared  "+base[:12]+"  merge base") || !strings.Contains(crossed, "→ 10") {
		t.Error(crossed)
	}
	if !strings.Contains(strings.Join(strings.Fields(crossed), " "), "there are 2 merge bases; this is the newest") {
		t.Errorf("not said that there are two:\n%s", crossed)
	}

	r.Git("switch", "-q", "--orphan", "other")
	r.Write("sealstone.yaml", "version: 1\n")
	other := r.Commit("Another history")
	plan("main", "other", "have no commit in common", other[:12])
}
