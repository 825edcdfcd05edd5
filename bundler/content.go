package bundler

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
)

// A builtKey names all that a set depends on, but for the schemas: those that
// were used are in content.schemas.
type builtKey struct {
	service  string
	tree     plumbing.Hash // of services/<service>
	common   plumbing.Hash
	contract int
	scope    api.Scope
}

// content is a set without the commit it was asked for by, or its faults.
type content struct {
	set      []byte
	digest   api.Digest
	entries  []bundle.Entry
	bundles  map[api.Digest]*bundle.Bundle
	modes    map[api.Mode]SafeMode
	asked    int // bundles
	values   int // of distinct files
	bytes    int // of distinct files, and of manifests
	faults   Faults
	effects  map[string]bool // files of layers, and whether they changed anything
	overlays []overlay       // of the service and of common, by scope
	blobs    map[string]plumbing.Hash
	schemas  plumbing.Hash // a folder that has these blobs
}

type overlay struct {
	scope api.Scope
	dir   string
}

// Limits of one set: what its index can hold, and memory.
const (
	maxEntries  = bundle.MaxManifest / 512
	maxSetBytes = 128 << 20
)

// content builds, or remembers, the set of (service tree, common tree, bound
// schemas, contract, scope).
func (b *Builder) content(ctx context.Context, rel *release, service string, scope api.Scope) (*content, error) {
	key := builtKey{service, rel.services[service], rel.common, rel.contract, scope}
	if c, ok := b.built.get(key); ok && (c.schemas == rel.schemaTree || rel.schemas.holds(c.blobs)) {
		return c, nil
	}
	p, err := b.project(ctx, rel, service)
	if err != nil {
		return nil, err
	}
	c, err := p.assemble(ctx, scope)
	if err != nil {
		return nil, err
	}
	c.schemas = rel.schemaTree
	b.built.put(key, c, c.weight())
	return c, nil
}

func overlaysOf(sources ...*source) []overlay {
	var out []overlay
	for _, s := range sources {
		if s == nil {
			continue
		}
		for _, scope := range slices.Sorted(maps.Keys(s.overlays)) {
			out = append(out, overlay{scope, s.overlays[scope].dir})
		}
	}
	return out
}

func (c *content) weight() int {
	w := 4096 + len(c.set)
	w += faultWeight * len(c.faults)
	for _, b := range c.bundles {
		w += len(b.Manifest) + int(b.Size)
	}
	return w
}

// An assembler makes the bundles of one set.
type assembler struct {
	*project
	ctx   context.Context
	out   *content
	used  map[*resolved]bool
	open  map[string]bool // strings that a schema marks as no secrets
	bytes int
	err   error
}

// assemble makes the set of an activation at scope.
func (p *project) assemble(ctx context.Context, scope api.Scope) (*content, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.forget()
	a := &assembler{
		project: p, ctx: ctx, used: map[*resolved]bool{}, open: map[string]bool{},
		out: &content{
			bundles: map[api.Digest]*bundle.Bundle{}, modes: map[api.Mode]SafeMode{},
			blobs: map[string]plumbing.Hash{}, effects: map[string]bool{},
		},
	}
	for _, s := range p.sources() {
		a.add(s.faults...)
	}
	a.run(scope)
	if a.err == nil {
		a.err = ctx.Err()
	}
	a.out.bytes = a.bytes
	a.out.faults = stamp(sorted(a.out.faults), p.name)
	return a.out, a.err
}

func (a *assembler) add(fs ...Fault) {
	if len(a.out.faults) <= 2*maxFaults {
		a.out.faults = append(a.out.faults, fs...)
	}
}

func (a *assembler) run(scope api.Scope) {
	a.out.overlays = overlaysOf(a.common, a.service)
	modes := []api.Mode{api.ModeNormal}
	for m, src := range a.service.modes {
		modes = append(modes, m)
		a.out.modes[m] = src.SafeMode
	}
	slices.Sort(modes)
	scopes := setScopes(a.common, a.service, scope)
	if a.out.asked = len(scopes) * len(modes); a.out.asked > maxEntries {
		a.out.asked = 1
		a.add(fault(ruleSetLimit, place{file: a.service.dir}, "%d scopes in %d modes are more than %d bundles", len(scopes), len(modes), maxEntries))
		return
	}
	for _, s := range scopes {
		for _, m := range modes {
			if a.ctx.Err() != nil || a.err != nil || a.bytes > maxSetBytes {
				return
			}
			a.entry(s, m)
		}
	}
	a.secretFaults()
	a.seal()
}

// entry builds the bundle of one scope and mode.
func (a *assembler) entry(scope api.Scope, mode api.Mode) {
	ls := layers(a.common, a.service, scope, mode)
	files, whole := map[string][]byte{}, true
	for _, name := range docNames(ls) {
		r := a.use("config/"+name, having(ls, func(l *layer) bool { return l.docs[name] != nil }), func(r *resolver, ls []*layer) { r.document(name, ls) })
		files["config/"+name+".json"], whole = r.bytes, whole && r.bytes != nil
	}
	r := a.use("flags", having(ls, func(l *layer) bool { return l.hasFlags() || l.badFlags }), (*resolver).flags)
	files[bundle.FlagsTitle], whole = r.bytes, whole && r.bytes != nil
	if whole && len(a.out.faults.Errors()) == 0 {
		a.bundle(scope, mode, files)
	}
}

// use resolves a file, once for each list of layers that it comes from, and
// takes over what was found on the way.
func (a *assembler) use(name string, ls []*layer, resolve func(*resolver, []*layer)) *resolved {
	r, err := a.resolve(a.ctx, name, ls, resolve)
	if err != nil {
		a.err = errors.Join(a.err, err)
		return &resolved{}
	}
	if a.used[r] {
		return r
	}
	a.used[r] = true
	a.add(r.faults...)
	maps.Copy(a.open, r.open)
	maps.Copy(a.out.blobs, r.blobs)
	for file, did := range r.effects {
		a.out.effects[file] = a.out.effects[file] || did
	}
	a.out.values += countValues(r.bytes)
	a.grow(len(r.bytes))
	return r
}

func (a *assembler) grow(bytes int) {
	if a.bytes += bytes; a.bytes > maxSetBytes {
		a.add(fault(ruleSetLimit, place{file: a.service.dir}, "the set has more than %d bytes of distinct files and manifests", maxSetBytes))
	}
}

func (a *assembler) bundle(scope api.Scope, mode api.Mode, files map[string][]byte) {
	size := 0
	for _, f := range files {
		size += len(f)
	}
	if size > bundle.MaxBundle {
		a.add(fault(ruleBundleLimit, place{file: a.service.dir}, "the bundle for %s in mode %s has %d bytes, the limit is %d", scope, mode, size, bundle.MaxBundle))
		return
	}
	b, err := bundle.Build(bundle.Config{Contract: a.contract, Mode: mode, Service: a.name}, files)
	if err != nil {
		a.add(fault(ruleBundleLimit, place{file: a.service.dir}, "the bundle for %s in mode %s: %.200s", scope, mode, err))
		return
	}
	a.grow(len(b.Manifest))
	a.out.bundles[b.Digest] = b
	a.out.entries = append(a.out.entries, bundle.Entry{Scope: scope, Mode: mode, Digest: b.Digest, Size: int64(len(b.Manifest))})
}

// seal encodes the set, when everything in it is right.
func (a *assembler) seal() {
	if len(a.out.faults.Errors()) > 0 {
		a.out.entries, a.out.bundles = nil, nil
		return
	}
	set, err := bundle.BuildSet(a.out.entries)
	if err != nil {
		a.add(fault(ruleSetLimit, place{file: a.service.dir}, "%.200s", err))
		return
	}
	a.out.set, a.out.digest = set, api.DigestOf(set)
}

func (a *assembler) secretFaults() {
	for _, s := range a.sources() {
		for _, found := range s.secrets {
			if !a.open[found.value] {
				a.add(fault(ruleSecret, found.at, "the value has the shape of %s", found.what))
			}
		}
	}
}

func having(ls []*layer, has func(*layer) bool) []*layer {
	var out []*layer
	for _, l := range ls {
		if has(l) {
			out = append(out, l)
		}
	}
	return out
}
