package bundler

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/flags"
	"github.com/sealstone/sealstone/internal/canon"
	"github.com/sealstone/sealstone/schemas"
)

// A project is one service over common/ and schemas/ in one state. Sets of
// several scopes share what is read and resolved: a file is resolved once for
// each list of layers that it comes from.
type project struct {
	b        *Builder
	name     string
	contract int
	schemas  *schemaFolder
	service  *source
	common   *source // nil when there is none

	mu    sync.Mutex // guards what follows, and is held while a set is made
	ids   map[*layer]int
	files map[string]*resolved
	bytes int // of files
}

// forget drops resolved files when they have become many: scopes that come
// after can do without, and memory stays bounded.
func (p *project) forget() {
	if p.bytes > projectMemory/4 {
		p.files, p.bytes = map[string]*resolved{}, 0
	}
}

type projectKey struct {
	service  string
	tree     plumbing.Hash
	common   plumbing.Hash
	schemas  plumbing.Hash
	contract int
}

// project reads a service and what lies below it, or remembers it.
func (b *Builder) project(ctx context.Context, rel *release, service string) (*project, error) {
	key := projectKey{service, rel.services[service], rel.common, rel.schemaTree, rel.contract}
	if p, ok := b.projects.get(key); ok {
		return p, nil
	}
	p := &project{b: b, name: service, contract: rel.contract, schemas: rel.schemas, ids: map[*layer]int{}, files: map[string]*resolved{}}
	var err error
	if p.service, err = b.source(ctx, "services/"+service, key.tree, false); err != nil {
		return nil, err
	}
	if !key.common.IsZero() {
		if p.common, err = b.commonSource(ctx, key.common); err != nil {
			return nil, err
		}
	}
	b.projects.put(key, p, 4096+p.service.files*1024+nodeWeight*p.service.size+faultWeight*len(p.service.faults))
	return p, nil
}

func (b *Builder) source(ctx context.Context, dir string, h plumbing.Hash, common bool) (*source, error) {
	r := &reader{ctx: ctx, b: b, nodes: common} // many share common, so it is read whole, at once
	s := r.source(dir, h, common)
	return s, r.err
}

// commonSource remembers common/, which every service reads.
func (b *Builder) commonSource(ctx context.Context, h plumbing.Hash) (*source, error) {
	if s, ok := b.commons.get(h); ok {
		return s, nil
	}
	s, err := b.source(ctx, "common", h, true)
	if err == nil {
		b.commons.put(h, s, 1)
	}
	return s, err
}

// sources are common, when there is one, and the service.
func (p *project) sources() []*source {
	if p.common == nil {
		return []*source{p.service}
	}
	return []*source{p.common, p.service}
}

// resolved is one distinct file of a bundle, and what was found on the way.
type resolved struct {
	bytes   []byte // nil when faulty
	faults  Faults
	effects map[string]bool          // files of layers, and whether they changed anything
	open    map[string]bool          // strings that the schema marks with x-not-secret
	blobs   map[string]plumbing.Hash // schemas that it was held to
}

// A resolver resolves one file.
type resolver struct {
	reader
	*project
	out   *resolved
	loose bool // see made
}

// resolve returns a file of the bundles that draw it from layers ls. p.mu is held.
func (p *project) resolve(ctx context.Context, name string, ls []*layer, do func(*resolver, []*layer)) (*resolved, error) {
	key := p.key(name, ls)
	if r, ok := p.files[key]; ok {
		return r, nil
	}
	r := p.resolver(ctx)
	do(r, ls)
	if r.err != nil {
		return nil, r.err
	}
	r.out.faults = r.faults
	p.files[key] = r.out
	p.bytes += len(r.out.bytes) + faultWeight*len(r.faults)
	return r.out, nil
}

func (p *project) resolver(ctx context.Context) *resolver {
	return &resolver{
		reader: reader{ctx: ctx, b: p.b}, project: p,
		out: &resolved{effects: map[string]bool{}, blobs: map[string]plumbing.Hash{}},
	}
}

func (p *project) key(name string, ls []*layer) string {
	var key strings.Builder
	key.WriteString(name)
	for _, l := range ls {
		id, ok := p.ids[l]
		if !ok {
			id = len(p.ids)
			p.ids[l] = id
		}
		key.WriteByte(' ')
		key.WriteString(strconv.Itoa(id))
	}
	return key.String()
}

// A made file is what some layers make of one, whatever schema it is held to
// after that. It depends on their files alone, so a service that has another
// common/ or another schema keeps what those don't change.
type made struct {
	bytes   []byte // nil when faulty
	faults  Faults
	effects map[string]bool
	loose   bool // it has a number that is not served as it is written

	passed *compiledSchema // the last one that it was right by
	open   map[string]bool // strings that this one marks with x-not-secret
}

func (m *made) weight(key string) int {
	return 512 + len(key) + len(m.bytes) + faultWeight*len(m.faults) + 64*(len(m.effects)+len(m.open))
}

// make returns what layers make of a file; parts are their files or folders.
func (r *resolver) make(parts []fileKey, do func(*resolver)) (key string, m *made) {
	key = partsKey(r.project.contract, parts)
	if m, ok := r.project.b.made.get(key); ok {
		return key, m
	}
	sub := r.resolver(r.ctx)
	do(sub)
	m = &made{bytes: sub.out.bytes, faults: sub.faults, effects: sub.out.effects, loose: sub.loose}
	if r.err = errors.Join(r.err, sub.err); r.err == nil {
		r.project.b.made.put(key, m, m.weight(key))
	}
	return key, m
}

func partsKey(contract int, parts []fileKey) string {
	key := strconv.AppendInt(nil, int64(contract), 10)
	for _, p := range parts {
		key = append(key, p.hash[:]...)
		key = append(append(key, p.path...), 0)
	}
	return string(key)
}

func (r *resolver) take(m *made) {
	r.add(m.faults...)
	r.out.bytes, r.out.effects = m.bytes, m.effects
}

// document resolves one document and holds it to its schema.
func (r *resolver) document(name string, ls []*layer) {
	if slices.ContainsFunc(ls, func(l *layer) bool { return l.badDocs[name] }) {
		return
	}
	parts := make([]fileKey, len(ls))
	for i, l := range ls {
		parts[i] = fileKey{l.docs[name].path, l.docs[name].hash}
	}
	d := &resolvedDocument{name: name, ls: ls}
	d.key, d.made = r.make(parts, func(r *resolver) {
		if d.node = r.foldDocument(name, ls, r.effect); d.node != nil {
			d.value = d.node.value()
			d.node.walk(func(n *node) { r.loose = r.loose || n.loose })
			r.encode(d.node, d.value, "document "+quote(name))
		}
	})
	r.take(d.made)
	if d.bytes != nil && r.err == nil {
		r.validate(d)
	}
}

// A resolvedDocument has a node and a value only when they had to be made.
type resolvedDocument struct {
	name string
	ls   []*layer
	key  string
	*made
	node  *node
	value any
}

// placed returns the node of a document that turns out to have faults.
func (r *resolver) placed(d *resolvedDocument) *node {
	if d.node == nil {
		sub := r.resolver(r.ctx)
		d.node = sub.foldDocument(d.name, d.ls, sub.effect)
		r.err = errors.Join(r.err, sub.err)
	}
	return d.node
}

// encode makes the canonical bytes and holds the limit of one file.
func (r *resolver) encode(n *node, v any, what string) {
	raw, err := canon.Encode(v)
	switch {
	case err != nil:
		r.fault(ruleNumberRange, n.at, "%s: %.200s", what, err)
	case len(raw) > bundle.MaxDocument:
		r.fault(ruleDocLimit, n.at, "%s has %d bytes once resolved, the limit is %d", what, len(raw), bundle.MaxDocument)
	default:
		r.out.bytes = raw
	}
}

// effect notes whether a file of an overlay made a difference anywhere.
func (r *resolver) effect(file string, did bool) {
	r.out.effects[file] = r.out.effects[file] || did
}

// validate holds a resolved document to the schema that it is bound to.
func (r *resolver) validate(d *resolvedDocument) {
	binding, clash := bind(r.common, r.service, d.name)
	switch {
	case len(clash) > 1:
		r.fault(ruleBinding, clash[1].val.at, "patterns %s and %s both match config/%s", quote(clash[0].name), quote(clash[1].name), d.name)
	case binding == nil:
		r.fault(ruleBinding, place{file: r.placed(d).at.file}, "document %s has no schema", quote(d.name))
	case binding.str != noSchema:
		r.validateWith(binding, d)
	case d.loose:
		r.placed(d).walk(r.looseNumber)
	}
}

func (r *resolver) looseNumber(n *node) {
	if n.loose {
		r.fault(ruleDecimal, n.at, "the number is served as %s", text(n))
	}
}

func text(n *node) string {
	b, err := canon.Encode(n.num)
	if err != nil {
		return "a number"
	}
	return string(b)
}

func (r *resolver) validateWith(binding *node, d *resolvedDocument) {
	if !r.schemas.has(binding.str) {
		f := fault(ruleSchemaName, binding.at, "no schema %s", quote(binding.str))
		if near, ok := nearest(binding.str, r.schemas.names()); ok {
			f = f.withFix("Did you mean %s", near)
		}
		r.add(f)
		r.out.blobs[binding.str] = plumbing.ZeroHash
		return
	}
	c, err := r.schemas.compile(r.ctx, binding.str)
	if err != nil {
		r.err = errors.Join(r.err, err)
		return
	}
	r.out.blobs = c.blobs
	if c == d.passed {
		r.out.open = d.open
		return
	}
	at := place{file: "schemas/" + binding.str + ".schema.json"}
	if c.err != nil {
		r.add(schemaError(c.err, at))
		return
	}
	res, err := r.held(d, c)
	if err != nil {
		r.add(schemaError(err, at))
		return
	}
	r.out.open = res.NotSecret
	if len(res.Faults) > 0 {
		r.add(schemaFaults(ruleSchema, r.placed(d), res)...)
		return
	}
	passed := *d.made
	passed.passed, passed.open = c, res.NotSecret
	r.project.b.made.put(d.key, &passed, passed.weight(d.key))
}

// held holds a document to a schema; the value of one that is remembered is
// what its bytes say.
func (r *resolver) held(d *resolvedDocument, c *compiledSchema) (schemas.Result, error) {
	if d.value == nil {
		v, err := canon.Parse(d.bytes, canon.MaxDepth)
		if err != nil {
			return schemas.Result{}, err
		}
		d.value = v
	}
	return c.schema.Validate(d.value)
}

// flags resolves flags.json and compiles every rule of it. The compiler refuses
// all that the published flag schema does, in words for people and in a small
// part of the time.
func (r *resolver) flags(ls []*layer) {
	if slices.ContainsFunc(ls, func(l *layer) bool { return l.badFlags }) {
		return
	}
	parts := make([]fileKey, len(ls))
	for i, l := range ls {
		parts[i] = fileKey{l.dir + "/flags", l.flagsTree}
	}
	_, m := r.make(parts, func(r *resolver) { r.makeFlags(ls) })
	r.take(m)
}

func (r *resolver) makeFlags(ls []*layer) {
	n := r.foldFlags(ls, r.effect)
	if r.encode(n, n.value(), bundle.FlagsTitle); r.out.bytes == nil {
		return
	}
	raw := r.out.bytes
	if _, err := flags.Compile(raw); err != nil {
		for _, f := range flags.Faults(err) {
			r.fault(ruleFlag, n.locate(f.Path), "%s%.300s", where(f.Path), f.Msg)
		}
		return
	}
	for _, w := range flags.Lint(raw) {
		r.fault(ruleFlagLint, n.locate(w.Path), "%s%.300s", where(w.Path), w.Msg)
	}
}
