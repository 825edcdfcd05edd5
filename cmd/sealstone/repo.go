package main

import (
	"fmt"
	"os"

	"github.com/go-git/go-git/v5"

	"github.com/sealstone/sealstone/bundler"
)

func dirArg(args []string) string {
	if len(args) > 0 {
		return args[0]
	}
	return "."
}

// openCommit opens a repository at DIR and resolves a revision.
func openCommit(dir, rev string) (*bundler.Repo, string, error) {
	repo, err := bundler.OpenRepo(dir)
	if err != nil {
		return nil, "", err
	}
	commit, err := repo.Resolve(rev)
	return repo, commit, err
}

// workTree is the one that dir lies in; nil for a bare repository, or none.
func workTree(dir string) *git.Worktree {
	repo, err := git.PlainOpenWithOptions(dir, &git.PlainOpenOptions{DetectDotGit: true})
	if err != nil {
		return nil
	}
	tree, err := repo.Worktree()
	if err != nil {
		return nil
	}
	return tree
}

// noteDirty tells somebody who edited a file and forgot to commit it why the
// answer did not change. The files in but are read from the work tree.
func (a *app) noteDirty(dir string, but ...string) {
	tree := workTree(dir)
	if tree == nil {
		return
	}
	st, err := tree.Status()
	for _, file := range but {
		delete(st, file)
	}
	if err == nil && !st.IsClean() {
		fmt.Fprintln(a.err, "note: the work tree has changes that are not committed; this is about HEAD")
	}
}

// noteInside tells somebody who named a folder of a repository that the answer
// is about the repository.
func (a *app) noteInside(dir string) {
	tree := workTree(dir)
	if tree == nil {
		return
	}
	root := tree.Filesystem.Root()
	here, err1 := os.Stat(dir)
	top, err2 := os.Stat(root)
	if err1 == nil && err2 == nil && !os.SameFile(here, top) {
		fmt.Fprintf(a.err, "note: %s is inside the repository %s; this is about that repository, from its root\n", dir, root)
	}
}
