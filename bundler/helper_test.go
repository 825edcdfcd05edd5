package bundler_test

import (
	"testing"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/storage/memory"
)

func memoryOf(t *testing.T, repo *git.Repository) *memory.Storage {
	t.Helper()
	s, ok := repo.Storer.(*memory.Storage)
	if !ok {
		t.Fatal("not a repository in memory")
	}
	return s
}
