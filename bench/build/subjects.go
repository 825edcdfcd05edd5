package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"go.yaml.in/yaml/v3"

	"github.com/sealstone/sealstone/bundler"
)

// A subject is measured in a process of its own, so that its memory is its own.
// It returns the times of what it repeated.
type subject struct {
	name string
	run  func(ctx context.Context, repo string) ([]time.Duration, error)
}

const (
	subCold   = "cold build"
	subCheck  = "`check`, cold"
	subFile   = "build after a one-file commit"
	subSchema = "build after a schema edit (1 of 20 services)"
	subCommon = "build after a `common/` edit (all services)"
	subFind   = "finding what changed after a one-file commit"
	subPruned = "hash-pruned comparison of the same trees"
	subClone  = "clone + parse, go-git"
	subCLI    = "clone + parse, `git clone` and `git cat-file --batch`"
	subRead   = "read all blobs, go-git"
	subCat    = "read all blobs, `git cat-file --batch`"
)

var subjects = []subject{
	{subCold, cold},
	{subCheck, check},
	{subFile, after("file")},
	{subSchema, after("schema")},
	{subCommon, after("common")},
	{subFind, find},
	{subPruned, pruned},
	{subClone, cloneGoGit},
	{subCLI, cloneGit},
	{subRead, func(_ context.Context, dir string) ([]time.Duration, error) {
		return once(func() error { return readGoGit(dir, ignore) })
	}},
	{subCat, func(ctx context.Context, dir string) ([]time.Duration, error) {
		return once(func() error { return readGit(ctx, dir, ignore) })
	}},
}

func ignore([]byte) error { return nil }

func once(f func() error) ([]time.Duration, error) {
	began := time.Now()
	err := f()
	return []time.Duration{time.Since(began)}, err
}

func build(ctx context.Context, b *bundler.Builder, rev string) error {
	commit, err := b.Repo().Resolve(rev)
	if err != nil {
		return err
	}
	built, faults := b.BuildAll(ctx, commit, bundler.BuildFilter{})
	if len(faults) > 0 || len(built) == 0 {
		return fmt.Errorf("%d sets, %v", len(built), faults)
	}
	return nil
}

func open(dir string) (*bundler.Builder, error) {
	repo, err := bundler.OpenRepo(dir)
	if err != nil {
		return nil, err
	}
	return bundler.New(repo), nil
}

func cold(ctx context.Context, dir string) ([]time.Duration, error) {
	return once(func() error {
		b, err := open(dir)
		if err != nil {
			return err
		}
		return build(ctx, b, ref("file", 0))
	})
}

func check(ctx context.Context, dir string) ([]time.Duration, error) {
	return once(func() error {
		b, err := open(dir)
		if err != nil {
			return err
		}
		commit, err := b.Repo().Resolve(ref("file", 0))
		if err != nil {
			return err
		}
		rep, err := b.Check(ctx, commit, bundler.CheckOptions{})
		if err == nil && len(rep.Faults.Errors()) > 0 {
			err = fmt.Errorf("%v", rep.Faults)
		}
		return err
	})
}

// after builds the commit before the first edit of a kind, and then times each
// further one.
func after(kind string) func(context.Context, string) ([]time.Duration, error) {
	return func(ctx context.Context, dir string) ([]time.Duration, error) {
		b, err := open(dir)
		if err != nil {
			return nil, err
		}
		if err := build(ctx, b, ref(kind, 0)); err != nil {
			return nil, err
		}
		return each(func(n int) error { return build(ctx, b, ref(kind, n)) })
	}
}

func each(f func(n int) error) ([]time.Duration, error) {
	var out []time.Duration
	for n := 1; n < edits; n++ {
		took, err := once(func() error { return f(n) })
		if err != nil {
			return nil, err
		}
		out = append(out, took...)
	}
	return out, nil
}

// find does what a server does with a new tip, but for the service that has the
// edit: read the tip, and ask for every set.
func find(ctx context.Context, dir string) ([]time.Duration, error) {
	b, err := open(dir)
	if err != nil {
		return nil, err
	}
	if err := build(ctx, b, ref("file", 0)); err != nil {
		return nil, err
	}
	var out []time.Duration
	for n := 1; n < edits; n++ {
		took, err := once(func() error { return findAll(ctx, b, n) })
		if err == nil {
			err = build(ctx, b, ref("file", n)) // so that the next commit differs in one service
		}
		if err != nil {
			return nil, err
		}
		out = append(out, took...)
	}
	return out, nil
}

func findAll(ctx context.Context, b *bundler.Builder, n int) error {
	commit, err := b.Repo().Resolve(ref("file", n))
	if err != nil {
		return err
	}
	tip, faults := b.Tip(ctx, commit)
	if len(faults) > 0 {
		return faults
	}
	edited := fmt.Sprintf("svc-%04d", editedService(len(tip.Services), n))
	for _, a := range tip.Activations {
		if a.Service == edited {
			continue
		}
		if _, err := b.Build(ctx, tip, a); err != nil {
			return err
		}
	}
	return nil
}

// pruned walks two trees at once and passes by what has one id.
func pruned(_ context.Context, dir string) ([]time.Duration, error) {
	repo, err := gogit.PlainOpen(dir)
	if err != nil {
		return nil, err
	}
	if _, err := changes(repo, 0, 0); err != nil { // the old tree is known by the time that a commit comes
		return nil, err
	}
	return each(func(n int) error {
		paths, err := changes(repo, n-1, n)
		if err == nil && len(paths) != 1 {
			err = fmt.Errorf("%d files differ", len(paths))
		}
		return err
	})
}

func changes(repo *gogit.Repository, a, b int) ([]string, error) {
	before, err := treeOf(repo, a)
	if err != nil {
		return nil, err
	}
	after, err := treeOf(repo, b)
	if err != nil {
		return nil, err
	}
	var out []string
	return out, compare(repo, before, after, "", &out)
}

func treeOf(repo *gogit.Repository, n int) (*object.Tree, error) {
	r, err := repo.Reference(plumbing.ReferenceName(ref("file", n)), true)
	if err != nil {
		return nil, err
	}
	c, err := repo.CommitObject(r.Hash())
	if err != nil {
		return nil, err
	}
	return c.Tree()
}

func compare(repo *gogit.Repository, a, b *object.Tree, path string, out *[]string) error {
	old := make(map[string]plumbing.Hash, len(a.Entries))
	for _, e := range a.Entries {
		old[e.Name] = e.Hash
	}
	for _, e := range b.Entries {
		was, there := old[e.Name]
		if was == e.Hash {
			continue
		}
		if !there || e.Mode.IsFile() {
			*out = append(*out, path+e.Name)
			continue
		}
		ta, err := repo.TreeObject(was)
		if err != nil {
			return err
		}
		tb, err := repo.TreeObject(e.Hash)
		if err != nil {
			return err
		}
		if err := compare(repo, ta, tb, path+e.Name+"/", out); err != nil {
			return err
		}
	}
	return nil
}

func parse(raw []byte) error {
	var n yaml.Node
	return yaml.Unmarshal(raw, &n)
}

func cloneGoGit(_ context.Context, dir string) ([]time.Duration, error) {
	return inTemp(func(to string) error {
		if _, err := gogit.PlainClone(to, true, &gogit.CloneOptions{URL: dir}); err != nil {
			return err
		}
		return readGoGit(to, parse)
	})
}

func cloneGit(ctx context.Context, dir string) ([]time.Duration, error) {
	return inTemp(func(to string) error {
		if err := git(".", "clone", "-q", "--bare", "file://"+dir, to); err != nil {
			return err
		}
		return readGit(ctx, to, parse)
	})
}

func inTemp(f func(to string) error) ([]time.Duration, error) {
	tmp, err := os.MkdirTemp("", "bench-clone")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	return once(func() error { return f(filepath.Join(tmp, "clone")) })
}

// readGoGit gives every YAML file of a commit to use.
func readGoGit(dir string, use func([]byte) error) error {
	repo, err := gogit.PlainOpen(dir)
	if err != nil {
		return err
	}
	tree, err := treeOf(repo, 0)
	if err != nil {
		return err
	}
	return tree.Files().ForEach(func(f *object.File) error {
		text, err := f.Contents()
		if err != nil || !strings.HasSuffix(f.Name, ".yaml") {
			return err
		}
		return use([]byte(text))
	})
}

// readGit does the same through the git binary: ls-tree names the blobs, and
// one cat-file gives them.
func readGit(ctx context.Context, dir string, use func([]byte) error) error {
	list := exec.CommandContext(ctx, "git", "-C", dir, "ls-tree", "-r", ref("file", 0))
	names, err := list.Output()
	if err != nil {
		return err
	}
	var ids bytes.Buffer
	for line := range strings.Lines(string(names)) {
		if meta, name, ok := strings.Cut(strings.TrimSpace(line), "\t"); ok && strings.HasSuffix(name, ".yaml") {
			ids.WriteString(meta[len(meta)-40:] + "\n")
		}
	}
	cat := exec.CommandContext(ctx, "git", "-C", dir, "cat-file", "--batch")
	cat.Stdin = &ids
	out, err := cat.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cat.Start(); err != nil {
		return err
	}
	if err := batch(bufio.NewReaderSize(out, 1<<20), use); err != nil {
		return err
	}
	return cat.Wait()
}

// batch takes "id type size LF bytes LF" apart.
func batch(r *bufio.Reader, use func([]byte) error) error {
	for {
		head, err := r.ReadString('\n')
		if err == io.EOF {
			return nil
		}
		parts := strings.Fields(head)
		if err != nil || len(parts) != 3 {
			return fmt.Errorf("git cat-file said %q: %v", head, err)
		}
		size, err := strconv.Atoi(parts[2])
		if err != nil {
			return err
		}
		raw := make([]byte, size+1)
		if _, err := io.ReadFull(r, raw); err != nil {
			return err
		}
		if err := use(raw[:size]); err != nil {
			return err
		}
	}
}
