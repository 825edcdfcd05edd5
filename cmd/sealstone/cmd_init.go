package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/examples"
)

func newInit(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "init [DIR]", Short: "Write a config repository to start from", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			dir := dirArg(args)
			if err := copyTree(dir, examples.Starter()); err != nil {
				return err
			}
			fmt.Fprintf(a.err, "wrote a config repository to %s\nnext: cd %s, git init -b main, git add -A, git commit, sealstone check\n", dir, dir)
			return nil
		},
	}
}

// copyTree writes files that aren't there; one that is stops it, so that
// nobody's work is overwritten.
func copyTree(dir string, tree fs.FS) error {
	return fs.WalkDir(tree, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to := filepath.Join(dir, filepath.FromSlash(path))
		if d.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		b, err := fs.ReadFile(tree, path)
		if err != nil {
			return err
		}
		f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		_, err = f.Write(b)
		return errors.Join(err, f.Close())
	})
}
