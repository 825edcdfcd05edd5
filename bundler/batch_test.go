package bundler

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sealstone/sealstone/internal/gittest"
)

// manyScopes is a repository whose common/ asks for a bundle at each of n scopes
// for each of m services.
func manyScopes(n, m int) map[string]string {
	files := map[string]string{
		"sealstone.yaml": "version: 1\nlevels: [env, region]\nscopes: [prod, 'prod/*']\n", "common/service.yaml": "schemas: {config/d: none}\n",
		"common/config/d.yaml": "a: [1, 2, 3]\n",
	}
	for i := range n {
		files[fmt.Sprintf("common/overlays/prod/r%d/config/d.yaml", i)] = fmt.Sprintf("k: %d\n", i)
	}
	for i := range m {
		files[fmt.Sprintf("services/s%d/service.yaml", i)] = "owner: x\n"
		files[fmt.Sprintf("activations/s%d.yaml", i)] = fmt.Sprintf("service: s%d\nactivations:\n  - {scope: prod, release: latest}\n", i)
	}
	return files
}

// TestAllSetsTogetherAreBounded: check, build and a batch, as a server has one
// for a tip, agree about the same commit, whatever is remembered.
func TestAllSetsTogetherAreBounded(t *testing.T) {
	repo := gittest.New(t)
	commit := gittest.Commit(t, repo, manyScopes(9, 4))
	for name, most := range map[string]amount{
		"enough":           {40, 400, 1 << 20},
		"too many bundles": {39, 400, 1 << 20},
		"too many values":  {40, 100, 1 << 20},
		"too many bytes":   {40, 400, 1 << 12},
	} {
		t.Run(name, func(t *testing.T) {
			b := New(NewRepo(repo))
			b.most = most
			for range 2 {
				rep, err := b.Check(t.Context(), commit, CheckOptions{})
				if err != nil {
					t.Fatal(err)
				}
				_, built := b.BuildAll(t.Context(), commit, BuildFilter{})
				for _, fs := range []Faults{rep.Faults.Errors(), built} {
					if name == "enough" && len(fs) == 0 {
						continue
					}
					if len(fs) != 1 || fs[0].Rule != "E_LIMIT_BUILD" || !strings.Contains(fs[0].Message, fmt.Sprintf("more than %d bundles", most.bundles)) {
						t.Errorf("faults %v", fs)
					}
				}
			}
		})
	}
}
