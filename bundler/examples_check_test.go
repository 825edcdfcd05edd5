package bundler_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/gittest"
)

// TestTheExamplesAreClean checks every example repository as a user would.
func TestTheExamplesAreClean(t *testing.T) {
	for _, name := range []string{"shop", "starter", "flagd-suite"} {
		root := filepath.Join("..", "examples", name)
		files := map[string]string{}
		if err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			raw, err := os.ReadFile(path)
			rel, _ := filepath.Rel(root, path)
			files[filepath.ToSlash(rel)] = string(raw)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		repo := gittest.New(t)
		commit := gittest.Commit(t, repo, files)
		faults := check(t, bundler.New(bundler.NewRepo(repo)), commit)
		if name == "flagd-suite" {
			faults = faults.Errors() // it is upstream's file, unchanged, and has a rule on which evaluators differ
		}
		for _, f := range faults {
			t.Errorf("%s: %s", name, f)
		}
	}
}
