package bundler_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/storage/memory"

	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/gittest"
)

// countedStorage counts the commits that are read.
type countedStorage struct {
	*memory.Storage
	commits atomic.Int64
}

func (s *countedStorage) EncodedObject(t plumbing.ObjectType, h plumbing.Hash) (plumbing.EncodedObject, error) {
	if t == plumbing.CommitObject {
		s.commits.Add(1)
	}
	return s.Storage.EncodedObject(t, h)
}

// TestOneWalkForAllPins: history is walked when a pin or the lineage changes,
// and then once, however many pins there are.
func TestOneWalkForAllPins(t *testing.T) {
	const history, pins = 400, 8
	repo := gittest.New(t)
	files := gittest.With(shop(), map[string]string{act: ""})
	first := gittest.Commit(t, repo, files)
	for i := range history {
		_, files = gittest.Next(t, repo, files, map[string]string{"README.md": fmt.Sprint(i)})
	}
	change := map[string]string{"sealstone.yaml": "version: 1\nlevels: [env, region]\nscopes: [staging, 'prod/*']\n",
		"services/checkout/overlays/prod/eu-west-1/flags/flags.yaml": ""}
	text := "service: checkout\nactivations:\n"
	for i := range pins {
		text += fmt.Sprintf("  - {scope: prod/r%d, release: %s}\n", i, first)
	}
	change[act] = text
	tip, files := gittest.Next(t, repo, files, change)
	counted := &countedStorage{Storage: memoryOf(t, repo)}
	again, err := git.Open(counted, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := bundler.New(bundler.NewRepo(again))
	build := func(commit string) int64 {
		t.Helper()
		counted.commits.Store(0)
		at, faults := b.Tip(t.Context(), commit)
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		for _, a := range at.Activations {
			if _, err := b.Build(t.Context(), at, a); err != nil {
				t.Fatal(err)
			}
		}
		return counted.commits.Load()
	}
	if n := build(tip); n < history || n > history+4*pins {
		t.Errorf("a first build reads %d commits of %d", n, history)
	}
	if n := build(tip); n > 4*pins {
		t.Errorf("the same tip again reads %d commits", n)
	}
	next, _ := gittest.Next(t, repo, files, map[string]string{"README.md": "x"})
	if n := build(next); n > 4*pins {
		t.Errorf("the next tip with the same pins reads %d commits", n)
	}
}
