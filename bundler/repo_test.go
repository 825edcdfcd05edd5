package bundler_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"

	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/gittest"
)

var one = map[string]string{"a": "a"}

func TestResolve(t *testing.T) {
	repo := gittest.New(t)
	first := gittest.Commit(t, repo, one)
	second := gittest.Commit(t, repo, one)
	for name, id := range map[string]string{"refs/tags/v1": first, "refs/heads/side": first} {
		if err := repo.Storer.SetReference(plumbing.NewHashReference(plumbing.ReferenceName(name), plumbing.NewHash(id))); err != nil {
			t.Fatal(err)
		}
	}
	r := bundler.NewRepo(repo)
	for rev, want := range map[string]string{"HEAD": second, "main": second, "v1": first, "side": first, first: first, first[:7]: first, "HEAD~1": first} {
		if got, err := r.Resolve(rev); got != want || err != nil {
			t.Errorf("%s is %s (%v), want %s", rev, got, err, want)
		}
	}
	for _, rev := range []string{"nope", "0000000", "", "--help", "HEAD~9"} {
		if got, err := r.Resolve(rev); !errors.Is(err, bundler.ErrNoCommit) {
			t.Errorf("%q is %s (%v)", rev, got, err)
		}
	}
	c, err := r.Commit(second)
	if err != nil || len(c.Parents) != 1 || c.Parents[0] != first || c.Subject != "test commit" || c.Email != "test@example.com" {
		t.Errorf("%+v %v", c, err)
	}
}

func TestOpenRepoFindsWorkTreesFoldersAndBareOnes(t *testing.T) {
	dir := t.TempDir()
	if _, err := git.PlainInit(dir+"/work", false); err != nil {
		t.Fatal(err)
	}
	if _, err := git.PlainInit(dir+"/work/bare", true); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"/work", "/work/bare"} {
		if _, err := bundler.OpenRepo(dir + d); err != nil {
			t.Errorf("%s: %v", d, err)
		}
	}
	if _, err := bundler.OpenRepo(dir); err == nil {
		t.Error("a folder that is no repository opens")
	}
}

// TestHistoryAgainstTheDefinition builds random histories, with times that lie,
// and compares every answer with a plain closure over the parents.
func TestHistoryAgainstTheDefinition(t *testing.T) {
	ctx := context.Background()
	for seed := range uint64(8) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		repo := gittest.New(t)
		var ids []plumbing.Hash
		up := map[plumbing.Hash]map[plumbing.Hash]bool{}
		for i := range 40 {
			var parents []plumbing.Hash
			if i > 0 && rnd.IntN(12) > 0 {
				parents = append(parents, ids[rnd.IntN(i)])
				if other := ids[rnd.IntN(i)]; rnd.IntN(3) == 0 && other != parents[0] {
					parents = append(parents, other)
				}
			}
			when := gittest.Start.Add(time.Duration(rnd.IntN(1000)) * time.Minute)
			h := gittest.CommitAt(t, repo, map[string]string{"n": fmt.Sprint(i)}, when, parents...)
			ids = append(ids, h)
			up[h] = map[plumbing.Hash]bool{h: true}
			for _, p := range parents {
				for a := range up[p] {
					up[h][a] = true
				}
			}
		}
		r := bundler.NewRepo(repo)
		var all []string
		for _, h := range ids {
			all = append(all, h.String())
		}
		for _, b := range ids {
			reach, err := r.ReachableFrom(ctx, b.String(), all)
			if err != nil {
				t.Fatal(err)
			}
			for _, a := range ids {
				got, err := r.IsAncestor(ctx, a.String(), b.String())
				if err != nil {
					t.Fatal(err)
				}
				if got, err := r.MergeBases(ctx, a.String(), b.String()); err != nil || !sameSet(got, mergeBases(up, a, b)) {
					t.Fatalf("seed %d: merge bases of %s and %s: %v %v, want %v", seed, a, b, got, err, mergeBases(up, a, b))
				}
				if got != up[b][a] || reach[a.String()] != up[b][a] {
					t.Fatalf("seed %d: is %s an ancestor of %s: %v, reachable %v, want %v", seed, a, b, got, reach[a.String()], up[b][a])
				}
			}
		}
	}
}

// mergeBases is the definition: common ancestors that are none of another one.
func mergeBases(up map[plumbing.Hash]map[plumbing.Hash]bool, a, b plumbing.Hash) (out []string) {
	for c := range up[a] {
		best := up[b][c]
		for d := range up[a] {
			best = best && (d == c || !up[b][d] || !up[d][c])
		}
		if best {
			out = append(out, c.String())
		}
	}
	return out
}

func sameSet(a, b []string) bool {
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

func TestCountBetween(t *testing.T) {
	ctx := context.Background()
	repo := gittest.New(t)
	var ids []string
	for i := range 10 {
		ids = append(ids, gittest.Commit(t, repo, map[string]string{"n": fmt.Sprint(i)}))
	}
	side := gittest.CommitOn(t, repo, one, plumbing.NewHash(ids[3])).String()
	r := bundler.NewRepo(repo)
	for _, c := range []struct {
		old, new string
		want     int
	}{{ids[0], ids[9], 9}, {ids[9], ids[0], 0}, {ids[4], ids[4], 0}, {side, ids[9], 6}, {ids[9], side, 1}} {
		if got, err := r.CountBetween(ctx, c.old, c.new); got != c.want || err != nil {
			t.Errorf("%d (%v), want %d", got, err, c.want)
		}
	}
}

// TestCountBetweenWhenTimesLie merges a side branch into a tip that says it is
// older than all of its history.
func TestCountBetweenWhenTimesLie(t *testing.T) {
	repo := gittest.New(t)
	at := func(minutes int, parents ...plumbing.Hash) plumbing.Hash {
		return gittest.CommitAt(t, repo, map[string]string{"n": fmt.Sprint(minutes, parents)}, gittest.Start.Add(time.Duration(minutes)*time.Minute), parents...)
	}
	root := at(10)
	fork := at(20, at(15, root))
	tip, side := at(-1000, fork), at(30, fork)
	merge := at(40, tip, side)
	next := at(50, merge)
	if got, err := bundler.NewRepo(repo).CountBetween(t.Context(), tip.String(), next.String()); got != 3 || err != nil {
		t.Errorf("%d (%v), want 3: the side, the merge, and the one after it", got, err)
	}
}

// TestAShortAnswerNeedsNoLongHistory cuts the history off below the fork: an
// answer that came without reading further must not miss what is gone.
func TestAShortAnswerNeedsNoLongHistory(t *testing.T) {
	ctx := context.Background()
	repo := gittest.New(t)
	var ids []string
	for i := range 20 {
		ids = append(ids, gittest.Commit(t, repo, map[string]string{"n": fmt.Sprint(i)}))
	}
	side := gittest.CommitOn(t, repo, one, plumbing.NewHash(ids[15])).String()
	m := memoryOf(t, repo)
	for _, id := range ids[:10] {
		delete(m.Commits, plumbing.NewHash(id))
		delete(m.Objects, plumbing.NewHash(id))
	}
	r := bundler.NewRepo(repo)
	for _, c := range []struct {
		old, new string
		want     bool
	}{{ids[18], ids[19], true}, {side, ids[19], false}, {ids[19], side, false}, {ids[19], ids[17], false}} {
		if got, err := r.IsAncestor(ctx, c.old, c.new); got != c.want || err != nil {
			t.Errorf("%v (%v), want %v", got, err, c.want)
		}
	}
	if _, err := r.IsAncestor(ctx, ids[0], ids[19]); !errors.Is(err, bundler.ErrShallow) {
		t.Errorf("a history that is cut off: %v", err)
	}
	reach, err := r.ReachableFrom(ctx, ids[19], []string{ids[12], side, ids[19]})
	if err != nil || !reach[ids[12]] || reach[side] || !reach[ids[19]] {
		t.Errorf("%v %v", reach, err)
	}
}
