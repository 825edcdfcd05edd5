package bundler_test

import (
	"testing"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/storage/memory"

	"github.com/sealstone/sealstone/internal/gittest"
)

func memoryOf(t *testing.T, repo *git.Repository) *memory.Storage {
	t.Helper()
	s, ok := repo.Storer.(*memory.Storage)
	if !ok {
		t.Fatal("not a repository in memory")
	}
	return s
}

// pack writes a repository in memory to disk as one pack.
func pack(t testing.TB, from *git.Repository, dir string) {
	t.Helper()
	to, err := git.PlainInitWithOptions(dir, &git.PlainInitOptions{Bare: true, InitOptions: git.InitOptions{DefaultBranch: gittest.Branch}})
	if err != nil {
		t.Fatal(err)
	}
	var all []plumbing.Hash
	objects, err := from.Storer.IterEncodedObjects(plumbing.AnyObject)
	if err != nil {
		t.Fatal(err)
	}
	if err := objects.ForEach(func(o plumbing.EncodedObject) error { all = append(all, o.Hash()); return nil }); err != nil {
		t.Fatal(err)
	}
	w, err := to.Storer.(storer.PackfileWriter).PackfileWriter()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := packfile.NewEncoder(w, from.Storer, false).Encode(all, 0); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	ref, err := from.Reference(gittest.Branch, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := to.Storer.SetReference(ref); err != nil {
		t.Fatal(err)
	}
}
