package main

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/durable"
	"github.com/sealstone/sealstone/plan"
)

func newPromote(a *app) *cobra.Command {
	var to, release, from, dir string
	cmd := &cobra.Command{
		Use:   "promote SERVICE --to SCOPE",
		Short: "Edit a service's activation file to run a release at a scope",
		Long: "Edit activations/SERVICE.yaml in the work tree, and nothing else: the release, and\n" +
			"as expect the digest of the set that it builds to. It prints the plan of this edit,\n" +
			"with a server also what runs there, and edits nothing that a server would refuse.\n" +
			"Review, commit, open a pull request. The release is --release, what another scope runs (--from), or HEAD.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.promote(c.Context(), dir, args[0], to, release, from)
		},
	}
	f := cmd.Flags()
	f.StringVar(&to, "to", "", "scope to promote to (required)")
	f.StringVar(&release, "release", "", "revision to run there")
	f.StringVar(&from, "from", "", "scope whose release to take")
	f.StringVar(&dir, "dir", ".", "the config repository")
	_ = cmd.MarkFlagRequired("to")
	cmd.MarkFlagsMutuallyExclusive("release", "from")
	return cmd
}

// promoted is what promote prints.
type promoted struct {
	Service string     `json:"service"`
	Scope   api.Scope  `json:"scope"`
	Release string     `json:"release"`
	Expect  api.Digest `json:"expect"`
	File    string     `json:"file"`
}

func (a *app) promote(ctx context.Context, dir, service, to, release, from string) error {
	scope, err := api.ParseScope(to)
	if err != nil {
		return err
	}
	a.noteDirty(dir, "activations/"+service+".yaml")
	opt := plan.Options{Now: time.Now()}
	a.askLive(ctx, &opt)
	p, effect, err := promoteIn(ctx, dir, service, scope, release, from, opt)
	if effect != nil {
		effect.WriteText(a.err)
	}
	if faults, ok := bundler.FaultsOf(err); ok {
		err = a.faultsError(faults)
	}
	if err != nil {
		a.noteShallow(dir)
		return err
	}
	return a.print(p, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s runs %s, set %s\n", p.File, p.Scope, short(p.Release), p.Expect)
		git := "git"
		if dir != "." {
			git += " -C " + dir
		}
		fmt.Fprintf(w, "next: %s commit -m \"Promote %s to %s\" %s\n", git, service, scope, p.File)
	})
}

// promoteIn edits the activation file, unless a server would refuse that: then
// the plan says why. Everything but that file is read from HEAD.
func promoteIn(ctx context.Context, dir, service string, scope api.Scope, release, from string, opt plan.Options) (*promoted, *plan.Plan, error) {
	repo, head, err := openCommit(dir, "HEAD")
	if err != nil {
		return nil, nil, err
	}
	b := bundler.New(repo)
	tip, faults := b.Tip(ctx, head)
	if tip == nil {
		return nil, nil, faults
	}
	commit, err := releaseOf(repo, tip, service, release, api.Scope(from))
	if err != nil {
		return nil, nil, err
	}
	set, err := promotable(ctx, b, tip, bundler.Activation{Service: service, Scope: scope, Release: commit})
	if err != nil {
		return nil, nil, err
	}
	file := filepath.Join("activations", service+".yaml")
	path := filepath.Join(dir, file)
	text, mode, err := readRegular(path)
	if err != nil {
		return nil, nil, err
	}
	edited, err := bundler.Promote(text, scope, commit, set)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", file, err)
	}
	opt.Base = "HEAD"
	effect, err := plan.Edited(ctx, b, tip, service, edited, opt)
	if err != nil {
		return nil, nil, err
	}
	if effect.Verdict == plan.Refused {
		return nil, effect, &api.Error{Code: api.CodeInvalid, Detail: "a server would refuse this promotion: " + file + " is as it was",
			Hint: "mend what stands under ERRORS, commit, and promote again"}
	}
	return &promoted{service, scope, commit, set, file}, effect, durable.WriteFile(path, edited, mode)
}

// promotable is the set that an activation would have, at a scope that there is.
func promotable(ctx context.Context, b *bundler.Builder, tip *bundler.Tip, act bundler.Activation) (api.Digest, error) {
	if !tip.Config.Listed(act.Scope) {
		return "", &api.Error{Code: api.CodeInvalid, Detail: fmt.Sprintf("scope %s is not listed in sealstone.yaml", act.Scope),
			Hint: "the nearest one is " + dash(tip.Config.Nearest(string(act.Scope)))}
	}
	built, err := b.Build(ctx, tip, act)
	if err != nil {
		return "", err
	}
	return built.Digest, nil
}

// readRegular reads a file that can be replaced: what a link of a repository
// leads to is not for us to write.
func readRegular(path string) ([]byte, fs.FileMode, error) {
	at, err := os.Lstat(path)
	if err != nil {
		return nil, 0, err
	}
	if !at.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is not a regular file", path)
	}
	text, err := os.ReadFile(path)
	return text, at.Mode().Perm(), err
}

// releaseOf is the commit to promote.
func releaseOf(repo *bundler.Repo, tip *bundler.Tip, service, release string, from api.Scope) (string, error) {
	if release != "" {
		return repo.Resolve(release)
	}
	if from == "" {
		return tip.Commit, nil
	}
	for _, act := range tip.Activations {
		if act.Service == service && act.Scope == from {
			if act.Release == bundler.ReleaseLatest {
				return tip.Commit, nil
			}
			return act.Release, nil
		}
	}
	return "", fmt.Errorf("%s is not activated at %s: see activations/%s.yaml", service, from, service)
}
