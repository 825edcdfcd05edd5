package bundler

import (
	"errors"
	"slices"

	"github.com/go-git/go-git/v5/plumbing"
)

// flagMembers are what a layer may replace of a flag, each whole.
var flagMembers = []string{"defaultVariant", "metadata", "state", "targeting", "variants"}

// flagFiles takes over what is known of flags/ of a layer, or else reads it.
func (r *reader) flagFiles(l *layer, dir string, h plumbing.Hash) {
	if r.stop() {
		return
	}
	l.flagsTree = h
	known, ok := r.b.known.get(fileKey{dir, h})
	if !ok || r.nodes {
		if known = r.loadFlags(l); r.err != nil {
			return
		}
		r.b.known.put(fileKey{dir, h}, known, known.weight())
	}
	before := r.errors
	r.absorb(dir, known)
	l.names, l.badFlags = known.defines, r.errors > before
	l.files += known.data
}

// loadFlags reads the flags of a layer, once.
func (r *reader) loadFlags(l *layer) *found {
	sub := &reader{ctx: r.ctx, b: r.b}
	if !l.loaded && !l.flagsTree.IsZero() {
		l.loaded = true
		sub.readFlags(l, l.dir+"/flags")
		sub.defines = len(l.flags) + len(l.evaluators) + len(l.metadata)
		r.err = errors.Join(r.err, sub.err)
	}
	return &sub.found
}

// readFlags reads all files of one layer as one: a name may stand in one of them.
func (r *reader) readFlags(l *layer, dir string) {
	names := map[string]bool{}
	for _, e := range r.dir(dir, l.flagsTree) {
		path := dir + "/" + e.name
		name, ok := r.dataFile(path, e)
		if !ok {
			continue
		}
		if names[name] {
			r.fault(ruleTwice, place{file: path}, "flags file %s has another file in this folder", quote(name))
		}
		names[name] = true
		if r.data++; r.stop() {
			return
		}
		d := r.parse(path, e.hash, forFlags)
		if d == nil {
			continue
		}
		r.absorb(path, &d.found)
		if d.root != nil && !r.full {
			r.flagFile(l, d.root)
		}
	}
}

func (r *reader) flagFile(l *layer, n *node) {
	if n.kind != kindObject {
		r.fault(ruleFlagFile, n.at, "a flags file is %s", n.kind)
		return
	}
	for _, f := range n.fields {
		switch f.name {
		case "$schema":
		case "flags":
			r.flags(l, f.val)
		case "$evaluators":
			r.named(l.evaluators, f, false)
		case "metadata":
			r.named(l.metadata, f, true)
		default:
			r.fault(ruleFlagFile, f.val.at, "unknown member %s of a flags file", quote(f.name))
		}
	}
}

// named adds evaluators or metadata, each by name and whole.
func (r *reader) named(into map[string]*node, f field, scalars bool) {
	if f.val.kind != kindObject {
		r.fault(ruleFlagFile, f.val.at, "%s is %s", f.name, f.val.kind)
		return
	}
	for _, m := range f.val.fields {
		if scalars && (m.val.kind == kindList || m.val.kind == kindObject) {
			r.fault(ruleFlag, m.val.at, "metadata %s is %s; use a string, number or boolean", quote(m.name), m.val.kind)
		}
		nullMembers(m.val, func(n *node, name string) { r.fault(ruleNullBase, n.at, "%s is null", quote(name)) })
		r.define(into, m.name, m.val)
	}
}

func (r *reader) define(into map[string]*node, name string, n *node) {
	if first, twice := into[name]; twice {
		r.fault(ruleFlagTwice, n.at, "%s is defined in this layer already, at %s:%d", quote(name), first.at.file, first.at.line)
		return
	}
	into[name] = n
}

// flags adds flags in object form, or in the list form where each has a key.
func (r *reader) flags(l *layer, n *node) {
	switch n.kind {
	case kindObject:
		for _, f := range n.fields {
			r.flag(l, f.name, f.val)
		}
	case kindList:
		for _, e := range n.list {
			r.keyedFlag(l, e)
		}
	default:
		r.fault(ruleFlagFile, n.at, "flags is %s", n.kind)
	}
}

func (r *reader) keyedFlag(l *layer, n *node) {
	key := n.get("key")
	if key == nil || key.kind != kindString {
		r.fault(ruleFlagFile, n.at, "a flag in a list has no key")
		return
	}
	bare := *n
	bare.fields = slices.DeleteFunc(slices.Clone(n.fields), func(f field) bool { return f.name == "key" })
	r.flag(l, key.str, &bare)
}

func (r *reader) flag(l *layer, name string, n *node) {
	if name == "" {
		r.fault(ruleFlagFile, n.at, "a flag's key is empty")
		return
	}
	if n.kind != kindNull && n.kind != kindObject {
		r.fault(ruleFlag, n.at, "flag %s is %s", quote(name), n.kind)
		return
	}
	for _, f := range n.fields {
		r.flagMember(name, f)
	}
	r.define(l.flags, name, n)
}

func (r *reader) flagMember(flag string, f field) {
	if !slices.Contains(flagMembers, f.name) {
		r.fault(ruleFlagMember, f.val.at, "flag %s has a member %s", quote(flag), quote(f.name))
		return
	}
	if f.val.kind == kindNull && f.name != "defaultVariant" {
		r.fault(ruleNullBase, f.val.at, "%s of flag %s is null", f.name, quote(flag))
		return
	}
	nullMembers(f.val, func(n *node, name string) {
		r.fault(ruleNullBase, n.at, "%s is null in flag %s", quote(name), quote(flag))
	})
}
