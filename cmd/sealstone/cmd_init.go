package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/examples"
)

func newInit(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "init [DIR]", Short: "Write a config repository to start from", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			dir := dirArg(args)
			if err := os.CopyFS(dir, examples.Starter()); err != nil { // a file that is there stops it
				return err
			}
			fmt.Fprintf(a.err, "wrote a config repository to %s\nnext: cd %s, git init -b main, git add -A, git commit, sealstone check\n", dir, dir)
			return nil
		},
	}
}
