package bundler

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
)

// Contract is the newest contract that this binary builds: how values are
// resolved and encoded and which operators rules have. The builder keeps all.
const Contract = 1

// Bounds of the builder's memory, in bytes unless said otherwise.
const (
	knownMemory   = 32 << 20
	madeMemory    = 96 << 20
	builtMemory   = 256 << 20
	compiledMost  = 256 // schemas
	releasesMost  = 64  // commits
	projectMemory = 16 << 20
	commonsMost   = 4
)

// A Builder builds sets out of one repository and remembers them by Git ids.
// It is safe for concurrent use.
type Builder struct {
	repo     *Repo
	known    *memo[fileKey, *found]
	made     *memo[string, *made]
	compiled *memo[string, *compiledSchema]
	built    *memo[builtKey, *content]
	releases *memo[string, *release]
	projects *memo[projectKey, *project]
	commons  *memo[plumbing.Hash, *source]
	tips     *memo[string, *tipResult]
	folders  *memo[folderKey, *tipFile]
	tipFiles *memo[fileKey, *tipFile]
	reached  reachMemo
	most     amount // of a Batch
	done     progress
}

// Progress is how far a builder is: it counts for ever, over all it is asked.
type Progress struct {
	Files    int64 // read from Git
	Services int64 // built or checked
	Wanted   int64 // services that it was asked for
}

type progress struct{ files, services, wanted atomic.Int64 }

// Progress may be called while b works.
func (b *Builder) Progress() Progress {
	return Progress{b.done.files.Load(), b.done.services.Load(), b.done.wanted.Load()}
}

// New returns a builder with nothing remembered.
func New(repo *Repo) *Builder {
	return &Builder{
		repo:     repo,
		most:     maxBuilt,
		known:    newMemo[fileKey, *found](knownMemory),
		made:     newMemo[string, *made](madeMemory),
		compiled: newMemo[string, *compiledSchema](compiledMost),
		built:    newMemo[builtKey, *content](builtMemory),
		releases: newMemo[string, *release](releasesMost),
		projects: newMemo[projectKey, *project](projectMemory),
		commons:  newMemo[plumbing.Hash, *source](commonsMost),
		tips:     newMemo[string, *tipResult](4),
		folders:  newMemo[folderKey, *tipFile](4),
		tipFiles: newMemo[fileKey, *tipFile](16 << 20),
	}
}

// Repo returns the repository that b reads.
func (b *Builder) Repo() *Repo { return b.repo }

// Built is the set of one service for one activation, and all it names.
type Built struct {
	Service   string
	Scope     api.Scope
	Commit    string // the release
	Tree      string // of the release
	Contract  int
	Set       []byte
	Digest    api.Digest // of Set
	Entries   []bundle.Entry
	Bundles   map[api.Digest]*bundle.Bundle
	SafeModes map[api.Mode]SafeMode
}

// Find is the bundle that a target runs in a mode.
func (b *Built) Find(scope api.Scope, mode api.Mode) (bundle.Entry, bool) {
	set := bundle.Set{Entries: b.Entries}
	return set.Find(scope, mode)
}

// Objects yields the set, then every manifest and blob once, each with its
// digest, in the order of the digests. It reaches everything that Set names.
func (b *Built) Objects() iter.Seq2[api.Digest, []byte] {
	return func(yield func(api.Digest, []byte) bool) {
		if !yield(b.Digest, b.Set) {
			return
		}
		all := map[api.Digest][]byte{}
		for _, one := range b.Bundles {
			all[one.Digest] = one.Manifest
			maps.Copy(all, one.Blobs)
		}
		for _, d := range slices.Sorted(maps.Keys(all)) {
			if !yield(d, all[d]) {
				return
			}
		}
	}
}

// Build is [Batch.Build] of one set alone.
func (b *Builder) Build(ctx context.Context, tip *Tip, a Activation) (*Built, error) {
	return b.Batch().Build(ctx, tip, a)
}

// activated builds what an activation asks for. The content is there as well
// when it has faults.
func (b *Builder) activated(ctx context.Context, tip *Tip, a Activation) (*Built, *content, error) {
	at := a.at()
	commit := a.Release
	if commit == ReleaseLatest {
		commit = tip.Commit
	}
	if err := b.reachable(ctx, tip, a); err != nil {
		return nil, nil, err
	}
	built, c, err := b.build(ctx, commit, a.Service, a.Scope, at)
	if err != nil {
		return nil, c, err
	}
	if commit == tip.Commit {
		if fs := c.unlisted(tip.Config, a.Service); len(fs) > 0 {
			return nil, c, sorted(fs)
		}
	}
	if a.Expect != "" && a.Expect != built.Digest {
		f := fault(ruleExpect, at, "the set of release %.12s has digest %s, expected %s", commit, built.Digest.Short(), a.Expect.Short())
		return nil, c, stamp(Faults{f}, a.Service)
	}
	return built, c, nil
}

// build builds (service, commit, scope); at is where somebody asked for it.
func (b *Builder) build(ctx context.Context, commit, service string, scope api.Scope, at place) (*Built, *content, error) {
	rel, fs, err := b.serving(ctx, commit, service, at)
	if err == nil {
		err = asError(fs)
	}
	if err != nil {
		return nil, nil, err
	}
	c, err := b.content(ctx, rel, service, scope)
	if err != nil {
		return nil, nil, err
	}
	if err := asError(c.faults); err != nil {
		return nil, c, err
	}
	return &Built{
		Service: service, Scope: scope, Commit: rel.commit, Tree: rel.tree, Contract: rel.contract,
		Set: c.set, Digest: c.digest, Entries: c.entries, Bundles: c.bundles, SafeModes: c.modes,
	}, c, nil
}

// Rebuild builds the set of (service, commit, scope) from the release alone,
// whatever the tip says today: what an auditor compares with the log.
func (b *Builder) Rebuild(ctx context.Context, commit, service string, scope api.Scope) (*Built, error) {
	built, _, err := b.build(ctx, commit, service, scope, place{})
	return built, err
}

// serving returns a release that has a service, or what is wrong with asking
// for it.
func (b *Builder) serving(ctx context.Context, commit, service string, at place) (*release, Faults, error) {
	rel, err := b.release(ctx, commit)
	if err != nil {
		return nil, nil, err
	}
	var fs Faults
	if rel == nil {
		fs = Faults{b.noRelease(at, commit)}
	} else if len(rel.faults) > 0 {
		fs = slices.Clone(rel.faults)
	} else if _, ok := rel.services[service]; !ok {
		fs = Faults{fault(ruleServiceGone, at, "release %.12s has no service %s", commit, quote(service))}
	}
	return rel, stamp(fs, service), nil
}

// A release is what one commit offers to build from.
type release struct {
	commit, tree string
	contract     int
	services     map[string]plumbing.Hash
	common       plumbing.Hash // zero when there is none
	schemas      *schemaFolder
	schemaTree   plumbing.Hash
	schemaFaults Faults
	faults       Faults // of the root: no service can be built
}

// release reads the root of a commit; nil means there is no such commit.
func (b *Builder) release(ctx context.Context, commit string) (*release, error) {
	if rel, ok := b.releases.get(commit); ok {
		return rel, nil
	}
	c, err := b.repo.Commit(commit)
	if errors.Is(err, ErrNoCommit) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := &reader{ctx: ctx, b: b}
	rel := &release{commit: commit, tree: c.Tree, services: map[string]plumbing.Hash{}}
	rel.schemas = &schemaFolder{b: b, files: map[string]plumbing.Hash{}}
	r.root(rel, plumbing.NewHash(c.Tree))
	if r.err != nil {
		return nil, r.err
	}
	b.releases.put(commit, rel, 1)
	return rel, nil
}

// root finds the parts of a release. Only what keeps every service from being
// built is a fault of the release; the rest is for Check.
func (r *reader) root(rel *release, tree plumbing.Hash) {
	entries, err := r.b.repo.tree(tree)
	if err != nil {
		r.object(".", tree, err)
	}
	found := false
	for _, e := range entries {
		switch {
		case e.name == "sealstone.yaml" && e.kind == kindFile:
			found = true
			rel.contract = r.contract(e.hash)
		case e.name == "services" && e.kind == kindDir:
			r.names(rel.services, e)
		case e.name == "common" && e.kind == kindDir:
			rel.common = e.hash
		case e.name == "schemas" && e.kind == kindDir:
			rel.schemaTree = e.hash
			sub := &reader{ctx: r.ctx, b: r.b}
			sub.schemaFiles(rel.schemas, e.hash)
			rel.schemaFaults, r.err = sub.faults, errors.Join(r.err, sub.err)
		}
	}
	if !found && r.err == nil {
		r.fault(ruleNoConfig, place{file: "sealstone.yaml"}, "commit %.12s has no sealstone.yaml", rel.commit)
	}
	rel.faults = sorted(r.faults.Errors())
}

func (r *reader) names(into map[string]plumbing.Hash, dir entry) {
	entries, err := r.b.repo.tree(dir.hash)
	if err != nil {
		r.object(dir.name, dir.hash, err)
	}
	for _, e := range entries {
		if e.kind == kindDir && api.CheckName(e.name) == nil {
			into[e.name] = e.hash
		}
	}
}

// contract reads the version alone: scopes of an old commit don't matter.
func (r *reader) contract(h plumbing.Hash) int {
	raw, ok := r.file("sealstone.yaml", h)
	if !ok {
		return 0
	}
	d := readDocument("sealstone.yaml", raw, forOwn)
	r.add(d.faults...)
	v := d.root.get("version")
	if v == nil {
		return 0
	}
	if v.kind != kindNumber || v.num != Contract {
		r.fault(ruleVersion, v.at, "this binary knows contract versions up to %d", Contract)
		return 0
	}
	return int(v.num)
}

// BuildFilter narrows BuildAll; zero members don't.
type BuildFilter struct {
	Service string
	Scope   api.Scope
	Mode    api.Mode // keeps services that have it, and lists its entries alone
}

// BuildAll builds one set for each activation of commit, content from commit
// itself, or with a scope the set of every service as if it were activated
// there. Sets that can be built are returned beside the faults of others.
func (b *Builder) BuildAll(ctx context.Context, commit string, filter BuildFilter) ([]*Built, Faults) {
	tip, faults := b.Tip(ctx, commit)
	if tip == nil {
		return nil, faults
	}
	jobs, all := filter.jobs(tip), b.Batch()
	built := make([]*Built, len(jobs))
	failed := make([]error, len(jobs))
	b.eachService(ctx, jobs, func(i int) { built[i], failed[i] = all.Build(ctx, tip, jobs[i]) })
	faults = faults.Errors()
	if filter.Service != "" {
		faults = slices.DeleteFunc(faults, func(f Fault) bool { return f.Service != "" && f.Service != filter.Service })
	}
	for _, err := range append(failed, asError(all.Over())) {
		faults = append(faults, asFaults(err)...)
	}
	if err := ctx.Err(); err != nil {
		faults = append(faults, asFaults(err)...)
	}
	return filter.keep(built), sorted(faults)
}

func (f BuildFilter) jobs(tip *Tip) []Activation {
	var out []Activation
	if f.Scope != "" {
		for _, s := range tip.Services {
			if f.Service == "" || f.Service == s {
				out = append(out, Activation{Service: s, Scope: f.Scope, Release: ReleaseLatest})
			}
		}
		return out
	}
	for _, a := range tip.Activations {
		if !a.Retired && (f.Service == "" || f.Service == a.Service) {
			a.Release, a.Expect = ReleaseLatest, ""
			out = append(out, a)
		}
	}
	return out
}

func (f BuildFilter) keep(built []*Built) []*Built {
	var out []*Built
	for _, b := range built {
		if b == nil {
			continue
		}
		if f.Mode != "" {
			one := *b
			one.Entries = slices.DeleteFunc(slices.Clone(b.Entries), func(e bundle.Entry) bool { return e.Mode != f.Mode })
			if b = &one; len(b.Entries) == 0 {
				continue
			}
		}
		out = append(out, b)
	}
	return out
}

// asFaults turns any error into faults; what isn't the repository's fault says so.
func asFaults(err error) Faults {
	if err == nil {
		return nil
	}
	if fs, ok := FaultsOf(err); ok {
		return fs
	}
	if f, ok := badObject(place{}, err); ok {
		return Faults{f}
	}
	return Faults{fault(ruleInternal, place{}, "%s", err)}
}

// eachService runs f for every job, those of one service one after the other:
// they share what they resolve.
func (b *Builder) eachService(ctx context.Context, jobs []Activation, f func(int)) {
	var starts []int
	for i := range jobs {
		if i == 0 || jobs[i].Service != jobs[i-1].Service {
			starts = append(starts, i)
		}
	}
	b.done.wanted.Add(int64(len(starts)))
	each(ctx, len(starts), func(n int) {
		defer b.done.services.Add(1)
		for i := starts[n]; i < len(jobs) && jobs[i].Service == jobs[starts[n]].Service && ctx.Err() == nil; i++ {
			f(i)
		}
	})
}

// each runs f for 0..n-1 on as many goroutines as there are processors and
// starts no more when ctx ends.
func each(ctx context.Context, n int, f func(int)) {
	var wg sync.WaitGroup
	var next atomic.Int64
	for range min(n, runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	wg.Wait()
}

func (b *Built) String() string {
	return fmt.Sprintf("%s %s", api.Target{Service: b.Service, Scope: b.Scope}, b.Digest.Short())
}
