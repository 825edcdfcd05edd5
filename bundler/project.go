package bundler

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/flags"
	"github.com/sealstone/sealstone/internal/canon"
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
	r := &reader{ctx: ctx, b: b}
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
	out *resolved
}

// resolve returns a file of the bundles that draw it from layers ls. p.mu is held.
func (p *project) resolve(ctx context.Context, name string, ls []*layer, do func(*resolver, []*layer)) (*resolved, error) {
	key := p.key(name, ls)
	if r, ok := p.files[key]; ok {
		return r, nil
	}
	r := &resolver{
		reader: reader{ctx: ctx, b: p.b}, project: p,
		out: &resolved{effects: map[string]bool{}, blobs: map[string]plumbing.Hash{}},
	}
	do(r, ls)
	if r.err != nil {
		return nil, r.err
	}
	r.out.faults = r.faults
	p.files[key] = r.out
	p.bytes += len(r.out.bytes) + faultWeight*len(r.faults)
	return r.out, nil
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

// document resolves one document and holds it to its schema.
func (r *resolver) document(name string, ls []*layer) {
	if slices.ContainsFunc(ls, func(l *layer) bool { return l.badDocs[name] }) {
		return
	}
	n := r.foldDocument(name, ls, r.effect)
	if n == nil {
		return
	}
	v := n.value()
	if r.encode(n, v, "document "+quote(name)) {
		r.validate(name, n, v)
	}
}

// encode makes the canonical bytes and holds the limit of one file.
func (r *resolver) encode(n *node, v any, what string) bool {
	raw, err := canon.Encode(v)
	if err != nil {
		r.fault(ruleNumberRange, n.at, "%s: %.200s", what, err)
		return false
	}
	if len(raw) > bundle.MaxDocument {
		r.fault(ruleDocLimit, n.at, "%s has %d bytes once resolved, the limit is %d", what, len(raw), bundle.MaxDocument)
		return false
	}
	r.out.bytes = raw
	return true
}

// effect notes whether a file of an overlay made a difference anywhere.
func (r *resolver) effect(file string, did bool) {
	r.out.effects[file] = r.out.effects[file] || did
}

// validate holds a resolved document to the schema that it is bound to.
func (r *resolver) validate(doc string, n *node, v any) {
	binding, clash := bind(r.common, r.service, doc)
	switch {
	case len(clash) > 1:
		r.fault(ruleBinding, clash[1].val.at, "patterns %s and %s both match config/%s", quote(clash[0].name), quote(clash[1].name), doc)
	case binding == nil:
		r.fault(ruleBinding, place{file: n.at.file}, "document %s has no schema", quote(doc))
	case binding.str == noSchema:
		n.walk(r.looseNumber)
	default:
		r.validateWith(binding, n, v)
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

func (r *resolver) validateWith(binding, n *node, v any) {
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
	maps.Copy(r.out.blobs, c.blobs)
	at := place{file: "schemas/" + binding.str + ".schema.json"}
	if c.err != nil {
		r.add(schemaError(c.err, at))
		return
	}
	res, err := c.schema.Validate(v)
	if err != nil {
		r.add(schemaError(err, at))
		return
	}
	r.out.open = res.NotSecret
	r.add(schemaFaults(ruleSchema, n, res)...)
}

// flags resolves flags.json and compiles every rule of it. The compiler refuses
// all that the published flag schema does, in words for people and in a small
// part of the time.
func (r *resolver) flags(ls []*layer) {
	if slices.ContainsFunc(ls, func(l *layer) bool { return l.badFlags }) {
		return
	}
	n := r.foldFlags(ls, r.effect)
	v := n.value()
	if !r.encode(n, v, bundle.FlagsTitle) {
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
