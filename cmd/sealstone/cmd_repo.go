package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/internal/durable"
	"github.com/sealstone/sealstone/plan"
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

// openCommit opens a repository at DIR and resolves a revision.
func openCommit(dir, rev string) (*bundler.Repo, string, error) {
	repo, err := bundler.OpenRepo(dir)
	if err != nil {
		return nil, "", err
	}
	commit, err := repo.Resolve(rev)
	return repo, commit, err
}

func newCheck(a *app) *cobra.Command {
	var rev, format string
	var strict bool
	cmd := &cobra.Command{
		Use:   "check [DIR]",
		Short: "Find every fault of a config repository",
		Long: "Find every fault of a config repository at a revision, in one run, with\n" +
			"file:line:col, a rule and the fix. It reads what is committed, never the work\n" +
			"tree. Exit 1 when there is an error.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.check(c.Context(), dirArg(args), rev, format, strict)
		},
	}
	cmd.Flags().StringVar(&rev, "rev", "HEAD", "revision to check")
	cmd.Flags().StringVar(&format, "format", "", "github: print workflow annotations")
	cmd.Flags().BoolVar(&strict, "strict", false, "count warnings as errors")
	return cmd
}

// checkMemory makes the collector work harder before a hostile repository takes
// 512 MiB of a CI runner. What a check holds at once is bounded by rules.
const checkMemory = 320 << 20

func (a *app) check(ctx context.Context, dir, rev, format string, strict bool) error {
	repo, commit, err := openCommit(dir, rev)
	if err != nil {
		return err
	}
	a.noteInside(dir)
	a.noteShallow(dir)
	if rev == "HEAD" {
		a.noteDirty(dir)
	}
	debug.SetMemoryLimit(checkMemory)
	b := bundler.New(repo)
	stop := a.building("checking", b)
	report, err := b.Check(ctx, commit, bundler.CheckOptions{Strict: strict})
	stop()
	if err != nil {
		return deepen(repo, err)
	}
	if err := a.printReport(report, format); err != nil {
		return err
	}
	if len(report.Faults.Errors()) > 0 {
		return exitCode(exitError)
	}
	return nil
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

func (a *app) printReport(r *bundler.Report, format string) error {
	if format == "github" {
		for _, f := range r.Faults {
			fmt.Fprintln(a.out, annotation(f))
		}
		return nil
	}
	if format != "" {
		return fmt.Errorf("unknown format %q: write github", format)
	}
	return a.print(r, func(w io.Writer) {
		for _, f := range r.Faults {
			fmt.Fprintln(w, printable(f.String()))
		}
		fmt.Fprintf(w, "%s: %s, %s, %s, %s\n", short(r.Commit), count(r.Services, "service"), count(r.Files, "file"),
			count(len(r.Faults.Errors()), "error"), count(len(r.Faults.Warnings()), "warning"))
	})
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// annotation is a workflow command of GitHub Actions (and Forgejo's): shown at
// the line, within the diff where the line was changed. A fault without a line
// is shown at the file.
func annotation(f bundler.Fault) string {
	var at []string
	if f.File != "" {
		at = append(at, "file="+escapeProperty(f.File))
	}
	if f.Line > 0 {
		at = append(at, fmt.Sprintf("line=%d,col=%d", f.Line, max(1, f.Col)))
	}
	at = append(at, "title="+f.Rule)
	return fmt.Sprintf("::%s %s::%s", f.Severity, strings.Join(at, ","), escapeData(f.Message+". "+f.Fix))
}

// A name or a value out of a repository must not end a command and begin one of
// its own. GitHub's escapes: these three in text, two more in properties.
var (
	escapeData     = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace
	escapeProperty = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C").Replace
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
		fmt.Fprintf(w, "next: git commit -m \"Promote %s to %s\" %s\n", service, scope, p.File)
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

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version and what it was built from", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error {
		info := buildInfo()
		return a.print(info, func(w io.Writer) {
			fmt.Fprintf(w, "sealstone %s\n", info["version"])
			table(w, "", [][]string{{"revision", dash(info["revision"])}, {"go", info["go"]}})
		})
	}}
}

// readFile reads a file, or standard input for "-".
func (a *app) readFile(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(a.in)
	}
	return os.ReadFile(path)
}
