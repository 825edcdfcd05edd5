package bundler

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/flags"
	"github.com/sealstone/sealstone/internal/canon"
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
	faults   Faults
	effects  map[string]bool // files of layers, and whether they changed anything
	overlays []overlay       // of the service and of common, by scope
	blobs    map[string]plumbing.Hash
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
	if c, ok := b.built.get(key); ok && sameBlobs(c.blobs, rel.schemas) {
		return c, nil
	}
	s, common, err := b.sources(ctx, rel, service)
	if err != nil {
		return nil, err
	}
	c, err := b.assemble(ctx, rel, service, s, common, scope)
	if err != nil {
		return nil, err
	}
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

func sameBlobs(blobs map[string]plumbing.Hash, f *schemaFolder) bool {
	for name, h := range blobs {
		if f.files[name] != h {
			return false
		}
	}
	return true
}

func (c *content) weight() int {
	w := 4096 + len(c.set)
	for _, b := range c.bundles {
		w += len(b.Manifest) + int(b.Size)
	}
	return w
}

// sources reads a service and common; faults of both are in them.
func (b *Builder) sources(ctx context.Context, rel *release, service string) (s, common *source, err error) {
	r := &reader{ctx: ctx, b: b}
	s = r.source("services/"+service, rel.services[service], false)
	if r.err != nil {
		return nil, nil, r.err
	}
	if rel.common.IsZero() {
		return s, nil, nil
	}
	r = &reader{ctx: ctx, b: b}
	common = r.source("common", rel.common, true)
	return s, common, r.err
}

// An assembler makes the bundles of one set. Work is shared by what goes in:
// bundles that draw a document from the same layers have the same document.
type assembler struct {
	reader
	rel             *release
	name            string
	service, common *source
	out             *content
	ids             map[*layer]int
	files           map[string]*resolved
	open            map[string]bool // strings that a schema marks as no secrets
	bytes           int
}

// resolved is one distinct resolved file.
type resolved struct {
	bytes []byte // nil when faulty
}

func (b *Builder) assemble(ctx context.Context, rel *release, name string, s, common *source, scope api.Scope) (*content, error) {
	a := &assembler{
		reader: reader{ctx: ctx, b: b}, rel: rel, name: name, service: s, common: common,
		out:   &content{bundles: map[api.Digest]*bundle.Bundle{}, modes: map[api.Mode]SafeMode{}, blobs: map[string]plumbing.Hash{}, effects: map[string]bool{}},
		ids:   map[*layer]int{},
		files: map[string]*resolved{}, open: map[string]bool{},
	}
	a.add(s.faults...)
	if common != nil {
		a.add(common.faults...)
	}
	a.run(scope)
	if a.err != nil {
		return nil, a.err
	}
	a.out.faults = stamp(sorted(a.faults), name)
	return a.out, nil
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
	if len(scopes)*len(modes) > maxEntries {
		a.fault(ruleSetLimit, place{file: a.service.dir}, "%d scopes in %d modes are more than %d bundles", len(scopes), len(modes), maxEntries)
		return
	}
	for _, s := range scopes {
		for _, m := range modes {
			if a.stop() || a.bytes > maxSetBytes {
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
	add := func(title string, r *resolved) {
		files[title] = r.bytes
		whole = whole && r.bytes != nil
	}
	for _, name := range docNames(ls) {
		add("config/"+name+".json", a.shared("config/"+name, having(ls, func(l *layer) bool { return l.docs[name] != nil }),
			func(ls []*layer) *resolved { return a.document(name, ls) }))
	}
	add(bundle.FlagsTitle, a.shared("flags", having(ls, func(l *layer) bool { return l.hasFlags() || l.badFlags }), a.flags))
	if !whole || len(a.faults.Errors()) > 0 {
		return
	}
	a.bundle(scope, mode, files)
}

func (a *assembler) bundle(scope api.Scope, mode api.Mode, files map[string][]byte) {
	size := 0
	for _, f := range files {
		size += len(f)
	}
	if size > bundle.MaxBundle {
		a.fault(ruleBundleLimit, place{file: a.service.dir}, "the bundle for %s in mode %s has %d bytes, the limit is %d", scope, mode, size, bundle.MaxBundle)
		return
	}
	b, err := bundle.Build(bundle.Config{Contract: a.rel.contract, Mode: mode, Service: a.name}, files)
	if err != nil {
		a.fault(ruleBundleLimit, place{file: a.service.dir}, "the bundle for %s in mode %s: %.200s", scope, mode, err)
		return
	}
	a.out.bundles[b.Digest] = b
	a.out.entries = append(a.out.entries, bundle.Entry{Scope: scope, Mode: mode, Digest: b.Digest, Size: int64(len(b.Manifest))})
}

// seal encodes the set, when everything in it is right.
func (a *assembler) seal() {
	if len(a.faults.Errors()) > 0 {
		a.out.entries, a.out.bundles = nil, nil
		return
	}
	set, err := bundle.BuildSet(a.out.entries)
	if err != nil {
		a.fault(ruleSetLimit, place{file: a.service.dir}, "%.200s", err)
		return
	}
	a.out.set, a.out.digest = set, api.DigestOf(set)
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

// shared resolves a file once for each list of layers that it comes from.
func (a *assembler) shared(name string, ls []*layer, resolve func([]*layer) *resolved) *resolved {
	var key strings.Builder
	key.WriteString(name)
	for _, l := range ls {
		id, ok := a.ids[l]
		if !ok {
			id = len(a.ids)
			a.ids[l] = id
		}
		key.WriteByte(' ')
		key.WriteString(strconv.Itoa(id))
	}
	if r, ok := a.files[key.String()]; ok {
		return r
	}
	r := resolve(ls)
	a.files[key.String()] = r
	if a.bytes += len(r.bytes); a.bytes > maxSetBytes {
		a.fault(ruleSetLimit, place{file: a.service.dir}, "the set has more than %d bytes of distinct files", maxSetBytes)
	}
	return r
}

func (a *assembler) document(name string, ls []*layer) *resolved {
	if slices.ContainsFunc(ls, func(l *layer) bool { return l.badDocs[name] }) {
		return &resolved{}
	}
	n := a.foldDocument(name, ls, a.effect)
	if n == nil {
		return &resolved{}
	}
	raw := a.encode(n, "document "+quote(name))
	if raw != nil {
		a.validate(name, n)
	}
	return &resolved{raw}
}

// encode makes the canonical bytes and holds the limit of one file.
func (a *assembler) encode(n *node, what string) []byte {
	raw, err := canon.Encode(n.value())
	if err != nil {
		a.fault(ruleNumberRange, n.at, "%s: %.200s", what, err)
		return nil
	}
	if len(raw) > bundle.MaxDocument {
		a.fault(ruleDocLimit, n.at, "%s has %d bytes once resolved, the limit is %d", what, len(raw), bundle.MaxDocument)
		return nil
	}
	return raw
}

// effect notes whether a file of an overlay made a difference anywhere.
func (a *assembler) effect(file string, did bool) {
	a.out.effects[file] = a.out.effects[file] || did
}

// validate holds a resolved document to the schema that it is bound to.
func (a *assembler) validate(doc string, n *node) {
	binding, clash := bind(a.common, a.service, doc)
	switch {
	case len(clash) > 1:
		a.fault(ruleBinding, clash[1].val.at, "patterns %s and %s both match config/%s", quote(clash[0].name), quote(clash[1].name), doc)
	case binding == nil:
		a.fault(ruleBinding, place{file: n.at.file}, "document %s has no schema", quote(doc))
	case binding.str == noSchema:
		n.walk(a.looseNumber)
	default:
		a.validateWith(binding, n)
	}
}

func (a *assembler) looseNumber(n *node) {
	if n.loose {
		a.fault(ruleDecimal, n.at, "the number is served as %s", text(n))
	}
}

func text(n *node) string {
	b, err := canon.Encode(n.num)
	if err != nil {
		return "a number"
	}
	return string(b)
}

func (a *assembler) validateWith(binding, n *node) {
	if !a.rel.schemas.has(binding.str) {
		f := fault(ruleSchemaName, binding.at, "no schema %s", quote(binding.str))
		if near, ok := nearest(binding.str, a.rel.schemas.names()); ok {
			f = f.withFix("Did you mean %s", near)
		}
		a.add(f)
		a.out.blobs[binding.str] = plumbing.ZeroHash
		return
	}
	c, err := a.rel.schemas.compile(a.ctx, binding.str)
	if err != nil {
		a.err = errors.Join(a.err, err)
		return
	}
	maps.Copy(a.out.blobs, c.blobs)
	at := place{file: "schemas/" + binding.str + ".schema.json"}
	if c.err != nil {
		a.add(schemaError(c.err, at))
		return
	}
	res, err := c.schema.Validate(n.value())
	if err != nil {
		a.add(schemaError(err, at))
		return
	}
	maps.Copy(a.open, res.NotSecret)
	a.add(schemaFaults(ruleSchema, n, res)...)
}

// flags resolves flags.json, compiles every rule of it, and holds it to the
// flag-definition schema. The compiler's words come first: they are for people.
func (a *assembler) flags(ls []*layer) *resolved {
	if slices.ContainsFunc(ls, func(l *layer) bool { return l.badFlags }) {
		return &resolved{}
	}
	n := a.foldFlags(ls, a.effect)
	raw := a.encode(n, bundle.FlagsTitle)
	if raw == nil {
		return &resolved{}
	}
	if _, err := flags.Compile(raw); err != nil {
		for _, f := range flags.Faults(err) {
			a.fault(ruleFlag, n.locate(f.Path), "%s%.300s", where(f.Path), f.Msg)
		}
		return &resolved{}
	}
	for _, w := range flags.Lint(raw) {
		a.fault(ruleFlagLint, n.locate(w.Path), "%s%.300s", where(w.Path), w.Msg)
	}
	res, err := ownSchema("flags").Validate(n.value())
	if err != nil {
		a.fault(ruleFlag, n.at, "%.300s", err)
		return &resolved{}
	}
	a.add(schemaFaults(ruleFlag, n, res)...)
	return &resolved{raw}
}

func (a *assembler) secretFaults() {
	for _, s := range []*source{a.common, a.service} {
		if s == nil {
			continue
		}
		for _, found := range s.secrets {
			if !a.open[found.value] {
				a.fault(ruleSecret, found.at, "the value has the shape of %s", found.what)
			}
		}
	}
}
