package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/bundler"
)

// builtSet and builtBundle are what build -o json prints.
type builtSet struct {
	Service  string        `json:"service"`
	Scope    api.Scope     `json:"scope"`
	Commit   string        `json:"commit"`
	Tree     string        `json:"tree"`
	Contract int           `json:"contract"`
	Digest   api.Digest    `json:"digest"`
	Size     int           `json:"size"`
	Bundles  []builtBundle `json:"bundles"`
}

type builtBundle struct {
	Scope   api.Scope     `json:"scope"`
	Mode    api.Mode      `json:"mode"`
	Digest  api.Digest    `json:"digest"`
	Size    int64         `json:"size"`
	Objects []builtObject `json:"objects"`
}

type builtObject struct {
	Title     string     `json:"title"`
	MediaType string     `json:"mediaType"`
	Digest    api.Digest `json:"digest"`
	Size      int64      `json:"size"`
}

func newBuild(a *app) *cobra.Command {
	var rev, service, scope, mode, out, reproduce, layout string
	cmd := &cobra.Command{
		Use:   "build [DIR]",
		Short: "Build the sets of a revision, the same bytes anywhere",
		Long: "Build the sets of a revision, the same bytes anywhere. --reproduce DIGEST says whether\n" +
			"the revision has a set or bundle of that digest; if not, it exits 2 and shows the\n" +
			"first value that differs from the old objects, which --server or --layout has.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			f := bundler.BuildFilter{Service: service, Scope: api.Scope(scope), Mode: api.Mode(mode)}
			if reproduce != "" {
				return a.reproduce(c.Context(), dirArg(args), rev, layout, api.Digest(reproduce), f)
			}
			return a.build(c.Context(), dirArg(args), rev, f, out)
		},
	}
	f := cmd.Flags()
	f.StringVar(&rev, "rev", "HEAD", "revision to build")
	f.StringVar(&service, "service", "", "only this service")
	f.StringVar(&scope, "scope", "", "build as if this scope were activated")
	f.StringVar(&mode, "mode", "", "only this mode's bundles")
	f.StringVar(&out, "out", "", "write an OCI image layout to this directory")
	f.StringVar(&reproduce, "reproduce", "", "digest of a set or bundle to compare with")
	f.StringVar(&layout, "layout", "", "OCI image layout that has the old objects, for --reproduce")
	cmd.MarkFlagsMutuallyExclusive("reproduce", "out")
	cmd.MarkFlagsMutuallyExclusive("reproduce", "mode")
	return cmd
}

func (a *app) build(ctx context.Context, dir, rev string, f bundler.BuildFilter, out string) error {
	repo, commit, err := openCommit(dir, rev)
	if err != nil {
		return err
	}
	built, err := a.buildAll(ctx, bundler.New(repo), commit, f)
	if err != nil {
		return err
	}
	if out != "" {
		if err := bundler.WriteLayout(out, built); err != nil {
			return err
		}
		fmt.Fprintf(a.err, "wrote %s to %s\n", count(len(built), "set"), out)
	}
	sets := make([]builtSet, 0, len(built))
	for _, b := range built {
		s, err := describe(b, f.Mode)
		if err != nil {
			return err
		}
		sets = append(sets, s)
	}
	return a.print(sets, func(w io.Writer) {
		var rows [][]string
		for _, s := range sets {
			rows = append(rows, []string{s.Service, string(s.Scope), "set", s.Digest.Short(), fmt.Sprint(s.Size)})
			for _, b := range s.Bundles {
				rows = append(rows, []string{"", string(b.Scope), string(b.Mode), b.Digest.Short(), fmt.Sprint(b.Size)})
			}
		}
		table(w, "SERVICE SCOPE MODE DIGEST SIZE", rows)
	})
}

// buildAll builds sets of a commit, shows how far it is, and prints what is
// wrong with the repository.
func (a *app) buildAll(ctx context.Context, b *bundler.Builder, commit string, f bundler.BuildFilter) ([]*bundler.Built, error) {
	stop := a.building("building", b)
	built, faults := b.BuildAll(ctx, commit, f)
	stop()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(faults.Errors()) > 0 {
		return nil, a.faultsError(faults)
	}
	return built, nil
}

// describe lists a set's bundles with their objects.
func describe(b *bundler.Built, mode api.Mode) (builtSet, error) {
	s := builtSet{b.Service, b.Scope, b.Commit, b.Tree, b.Contract, b.Digest, len(b.Set), []builtBundle{}}
	for _, e := range b.Entries {
		if mode != "" && e.Mode != mode {
			continue
		}
		m, err := bundle.ParseManifest(b.Bundles[e.Digest].Manifest)
		if err != nil {
			return s, err
		}
		bb := builtBundle{e.Scope, e.Mode, e.Digest, e.Size, []builtObject{{"", m.Config.MediaType, m.Config.Digest, m.Config.Size}}}
		for _, l := range m.Layers {
			bb.Objects = append(bb.Objects, builtObject{l.Title(), l.MediaType, l.Digest, l.Size})
		}
		s.Bundles = append(s.Bundles, bb)
	}
	return s, nil
}
