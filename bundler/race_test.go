package bundler_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/gittest"
)

// TestOneBuilderServesMany builds, checks and asks from many goroutines about
// several commits at once; answers must not depend on who else asks.
func TestOneBuilderServesMany(t *testing.T) {
	ctx := context.Background()
	repo := gittest.New(t)
	files := gittest.With(shop(), map[string]string{
		"services/cart/service.yaml": "owner: x\n", "services/cart/flags/f.yaml": "flags: {a: yes}\n",
		"activations/cart.yaml": "service: cart\nactivations:\n  - {scope: staging, release: latest}\n",
	})
	var commits []string
	for i := range 4 {
		c, _ := gittest.Next(t, repo, files, map[string]string{http: fmt.Sprintf("timeout: %d\nport: 1\n", i)})
		commits = append(commits, c)
	}
	r := bundler.NewRepo(repo)
	want := map[string]string{}
	for _, c := range commits {
		want[c] = everything(t, bundler.New(r), c)
	}
	shared := bundler.New(r)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 8 {
				c := commits[(i+j)%len(commits)]
				if got := everything(t, shared, c); got != want[c] {
					t.Errorf("%s\nalone:\n%s", got, want[c])
				}
				if _, err := r.IsAncestor(ctx, commits[0], c); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func everything(t *testing.T, b *bundler.Builder, commit string) string {
	rep, err := b.Check(context.Background(), commit, bundler.CheckOptions{})
	if err != nil {
		t.Error(err)
		return ""
	}
	built, faults := b.BuildAll(context.Background(), commit, bundler.BuildFilter{})
	return fmt.Sprint(rep.Faults, built, faults)
}

func TestACancelledContextEndsWork(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b, commit := open(t, shop())
	if _, err := b.Check(ctx, commit, bundler.CheckOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if built, faults := b.BuildAll(ctx, commit, bundler.BuildFilter{}); len(built) > 0 || len(faults) == 0 {
		t.Error(built, faults)
	}
	tip, _ := b.Tip(context.Background(), commit)
	if _, err := b.Build(ctx, tip, tip.Activations[0]); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if rep, err := b.Check(context.Background(), commit, bundler.CheckOptions{}); err != nil || len(rep.Faults.Errors()) > 0 {
		t.Error("a cancelled build left its mark:", rep, err)
	}
}

func TestStrictMakesErrorsOfWarnings(t *testing.T) {
	b, commit := open(t, gittest.With(shop(), map[string]string{over: "timeout: 30\n"}))
	rep, err := b.Check(context.Background(), commit, bundler.CheckOptions{})
	if err != nil || len(rep.Faults.Errors()) > 0 {
		t.Error(rep, err)
	}
	rep, err = b.Check(context.Background(), commit, bundler.CheckOptions{Strict: true})
	if err != nil || len(rep.Faults.Errors()) == 0 {
		t.Error(rep, err)
	}
}

// A build that is told to stop reads at most what is under way.
func TestABuildStopsInTheMiddle(t *testing.T) {
	repo := gittest.New(t)
	commit := gittest.Commit(t, repo, fleet(40))
	for name, run := range map[string]func(context.Context, *bundler.Builder) error{
		"build": func(ctx context.Context, b *bundler.Builder) error {
			_, faults := b.BuildAll(ctx, commit, bundler.BuildFilter{})
			return faults
		},
		"check": func(ctx context.Context, b *bundler.Builder) error {
			_, err := b.Check(ctx, commit, bundler.CheckOptions{})
			return err
		},
	} {
		b := bundler.New(bundler.NewRepo(repo))
		ctx := &endsAfter{Context: context.Background(), b: b, files: 300}
		if err := run(ctx, b); err == nil {
			t.Errorf("%s: no error", name)
		}
		if p := b.Progress(); p.Files > 310 || p.Wanted != 40 || p.Services >= 40 {
			t.Errorf("%s: %+v of 2,000 files were read", name, p)
		}
	}
}

// endsAfter is a context that is cancelled when a builder has read so many files.
type endsAfter struct {
	context.Context
	b     *bundler.Builder
	files int64
}

func (c *endsAfter) Err() error {
	if c.b.Progress().Files > c.files {
		return context.Canceled
	}
	return nil
}
