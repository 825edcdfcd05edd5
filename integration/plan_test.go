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
