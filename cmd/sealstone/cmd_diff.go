package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/plan"
)

func newDiff(a *app) *cobra.Command {
	o := refOptions{ask: "pass --service and --scope, and --mode for a safe mode"}
	var code bool
	cmd := &cobra.Command{
		Use:   "diff REF REF",
		Short: "Show what two bundles or sets don't share, by what they mean",
		Long: "Show what two bundles don't share: documents by key, flags by state, variants,\n" +
			"rules and shares of splits; of two sets, this for every scope and mode. REF is\n" +
			"sha256:..., log:INDEX, a revision of a repository, service@scope, or\n" +
			"service@scope~TIME. A commit is built from --repo, of the service and at the scope\n" +
			"of the other REF unless --service and --scope say otherwise. Where --repo has the\n" +
			"commits that both were built of, each value has the line that sets it.",
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			d, err := a.diff(c.Context(), args, o)
			if err == nil && code && !d.Same {
				return exitCode(exitFinding)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.service, "service", "", "service, where a REF does not say")
	f.StringVar(&o.scope, "scope", "", "scope: of a commit, or of the bundle to take from a set")
	f.StringVar(&o.mode, "mode", "", "mode of the bundle to take from a set (default: normal, or the other's)")
	f.StringVar(&o.repo, "repo", "", "repository to build commits from and to find lines in (default: the clone you are in)")
	f.BoolVar(&code, "exit-code", false, "exit 2 when they differ")
	return cmd
}

// diffed is what diff prints.
type diffed struct {
	Old        diffSide        `json:"old"`
	New        diffSide        `json:"new"`
	Same       bool            `json:"same"`                 // the same digest
	Difference plan.Difference `json:"difference,omitempty"` // of two bundles
	Bundles    []diffEntry     `json:"bundles,omitempty"`    // of two sets
}

// diffSide is what a reference was found to name.
type diffSide struct {
	Ref     string      `json:"ref"`
	Service string      `json:"service"`
	Scope   api.Scope   `json:"scope,omitempty"`
	Mode    api.Mode    `json:"mode,omitempty"`
	Bundle  api.Digest  `json:"bundle,omitempty"`
	Set     api.Digest  `json:"set,omitempty"`
	Change  *api.Proven `json:"change,omitempty"` // of a target: what put it into effect
}

// diffEntry is a scope and mode of two sets.
type diffEntry struct {
	Scope      api.Scope       `json:"scope"`
	Mode       api.Mode        `json:"mode"`
	Change     string          `json:"change"` // added, removed, changed or unchanged
	Old        api.Digest      `json:"old,omitempty"`
	New        api.Digest      `json:"new,omitempty"`
	Difference plan.Difference `json:"difference,omitempty"`
}

func (a *app) diff(ctx context.Context, refs []string, o refOptions) (*diffed, error) {
	old, new, err := resolveBoth(ctx, a, refs, o)
	if err != nil {
		return nil, err
	}
	l, d := newLiner(ctx, o.repo), &diffed{}
	if old.Bundle == "" && new.Bundle == "" && o.scope == "" && o.mode == "" {
		d.Same = old.Digest == new.Digest
		d.Bundles, err = l.diffSets(old, new)
	} else if err = pickBoth(old, new, o); err == nil {
		d.Same = old.Bundle == new.Bundle
		d.Difference, err = l.diffBundles(old, new, old.Scope, new.Scope)
	}
	if err != nil {
		return nil, err
	}
	d.Old, d.New = old.side(), new.side()
	return d, a.print(d, d.table)
}

// resolveBoth resolves commits last: they are built of what the other is of.
func resolveBoth(ctx context.Context, a *app, refs []string, o refOptions) (old, new *resolved, err error) {
	both := [2]*resolved{}
	order := []int{0, 1}
	if isRev(refs[0]) {
		order = []int{1, 0}
	}
	for _, i := range order {
		r := resolver{a, o}
		if other := both[1-i]; other != nil && isRev(refs[i]) {
			r.o.service, r.o.scope = cmp.Or(o.service, other.Service), cmp.Or(o.scope, string(other.Scope))
		}
		if both[i], err = r.resolve(ctx, refs[i]); err != nil {
			return nil, nil, err
		}
	}
	return both[0], both[1], nil
}

// pickBoth narrows sets to the bundle that is asked for, or to that of the
// other's scope and mode.
func pickBoth(old, new *resolved, o refOptions) error {
	for _, pair := range [][2]*resolved{{old, new}, {new, old}} {
		one, other := pair[0], pair[1]
		scope, mode := o.scope, o.mode
		if one.Bundle == "" && other.Bundle != "" {
			scope, mode = cmp.Or(scope, string(other.Scope)), cmp.Or(mode, string(other.Mode))
		}
		if err := one.pick(api.Scope(scope), api.Mode(mode)); err != nil {
			return err
		}
	}
	return nil
}

// A liner compares bundles, and finds the lines that set their values where a
// clone has the commits that they were built of.
type liner struct {
	ctx context.Context
	b   *bundler.Builder // nil without a clone
}

func newLiner(ctx context.Context, dir string) *liner {
	repo, err := bundler.OpenRepo(cmp.Or(dir, "."))
	if err != nil {
		return &liner{ctx, nil}
	}
	return &liner{ctx, bundler.New(repo)}
}

func (l *liner) diffBundles(old, new *resolved, was, is api.Scope) (plan.Difference, error) {
	if old.Bundle == new.Bundle {
		return nil, nil
	}
	a, err := old.content()
	if err != nil {
		return nil, err
	}
	b, err := new.content()
	if err != nil {
		return nil, err
	}
	d, err := plan.Compare(a.Files, b.Files)
	if err != nil || l.b == nil {
		return d, err
	}
	return d, plan.Locate(l.ctx, l.b, d, l.origin(old, was), l.origin(new, is))
}

// origin is what a bundle was built of, if it can be built of that again: its
// lines are shown only then.
func (l *liner) origin(r *resolved, scope api.Scope) plan.Origin {
	if r.Release == "" {
		return plan.Origin{}
	}
	built, err := l.b.Rebuild(l.ctx, r.Release, r.Service, r.Scope)
	if err != nil {
		return plan.Origin{}
	}
	if e, ok := built.Find(scope, r.Mode); !ok || e.Digest != r.Bundle {
		return plan.Origin{}
	}
	return plan.Origin{Commit: r.Release, Place: plan.Place{Service: r.Service, Scope: scope, Mode: r.Mode}}
}

// diffSets goes through the scopes and modes of both sets. Bundles that several
// scopes share are compared once.
func (l *liner) diffSets(old, new *resolved) ([]diffEntry, error) {
	for _, r := range []*resolved{old, new} {
		if err := r.readSet(); err != nil {
			return nil, err
		}
	}
	seen := map[[2]api.Digest]plan.Difference{}
	var out []diffEntry
	for _, e := range pairEntries(old.Set, new.Set) {
		pair := [2]api.Digest{e.Old, e.New}
		if d, ok := seen[pair]; ok || e.Change != "changed" {
			e.Difference = d
			out = append(out, e)
			continue
		}
		a, b := *old, *new
		a.Bundle, a.Mode, b.Bundle, b.Mode = e.Old, e.Mode, e.New, e.Mode
		var err error
		if e.Difference, err = l.diffBundles(&a, &b, e.Scope, e.Scope); err != nil {
			return nil, err
		}
		seen[pair] = e.Difference
		out = append(out, e)
	}
	return out, nil
}

func pairEntries(old, new *bundle.Set) []diffEntry {
	type key struct {
		scope api.Scope
		mode  api.Mode
	}
	at := map[key]*diffEntry{}
	var keys []key
	entry := func(e bundle.Entry) *diffEntry {
		k := key{e.Scope, e.Mode}
		if at[k] == nil {
			at[k] = &diffEntry{Scope: e.Scope, Mode: e.Mode}
			keys = append(keys, k)
		}
		return at[k]
	}
	for _, e := range old.Entries {
		entry(e).Old = e.Digest
	}
	for _, e := range new.Entries {
		entry(e).New = e.Digest
	}
	slices.SortFunc(keys, func(a, b key) int {
		return strings.Compare(string(a.scope+"\x00")+string(a.mode), string(b.scope+"\x00")+string(b.mode))
	})
	out := make([]diffEntry, 0, len(keys))
	for _, k := range keys {
		e := at[k]
		e.Change = changeOf(e.Old, e.New)
		out = append(out, *e)
	}
	return out
}

func changeOf(old, new api.Digest) string {
	switch {
	case old == "":
		return "added"
	case new == "":
		return "removed"
	case old == new:
		return "unchanged"
	}
	return "changed"
}

func (r *resolved) side() diffSide {
	return diffSide{Ref: r.Ref, Service: r.Service, Scope: r.Scope, Mode: r.Mode, Bundle: r.Bundle, Set: r.Digest, Change: r.Proven}
}

func (d *diffed) table(w io.Writer) {
	table(w, "", [][]string{d.Old.row("-"), d.New.row("+")})
	fmt.Fprintln(w, d.verdict())
	d.Difference.WriteText(w)
	shown := map[[2]api.Digest]string{}
	for _, e := range d.Bundles {
		if e.Change == "unchanged" {
			continue
		}
		name := fmt.Sprintf("%s in mode %s", e.Scope, e.Mode)
		pair := [2]api.Digest{e.Old, e.New}
		switch as := shown[pair]; {
		case e.Change != "changed":
			fmt.Fprintf(w, "%s: %s\n", name, e.Change)
		case as != "":
			fmt.Fprintf(w, "%s: changed as %s\n", name, as)
		default:
			shown[pair] = name
			fmt.Fprintf(w, "%s: changed\n", name)
			e.Difference.WriteText(w)
		}
	}
}

// row tells a side: what was named, what it is, and the change that brought it.
func (s *diffSide) row(sign string) []string {
	what, digest, ref := "set", s.Set, s.Ref
	if s.Bundle != "" {
		what, digest = strings.TrimSpace(string(s.Scope)+" "+string(s.Mode)), s.Bundle
	}
	switch {
	case isHex(ref):
		ref = short(ref)
	case strings.HasPrefix(ref, "sha256:"):
		ref = api.Digest(ref).Short()
	}
	why := ""
	if s.Change != nil {
		why = fmt.Sprintf("entry %d by %s", s.Change.Index, dash(s.Change.By))
	}
	return []string{sign + " " + ref, what, digest.Short(), why}
}

// verdict counts, before the list begins.
func (d *diffed) verdict() string {
	var words []string
	switch {
	case d.Same:
		return "the same: one digest"
	case d.Bundles == nil && len(d.Difference) == 0:
		return "other digests, the same documents and flags"
	case d.Bundles == nil:
		for _, i := range d.Difference {
			words = append(words, string(i.Kind))
		}
		return "differ: " + tally(words, "s")
	}
	for _, e := range d.Bundles {
		words = append(words, e.Change)
	}
	return "bundles: " + tally(words, "")
}

// tally counts words, in the order in which they come.
func tally(words []string, plural string) string {
	count := map[string]int{}
	for _, x := range words {
		count[x]++
	}
	var parts []string
	for _, x := range words {
		n := count[x]
		delete(count, x)
		switch n {
		case 0:
		case 1:
			parts = append(parts, "1 "+x)
		default:
			parts = append(parts, fmt.Sprintf("%d %s%s", n, x, plural))
		}
	}
	return strings.Join(parts, ", ")
}
