package bundler

import (
	"maps"
	"slices"
	"strings"

	"github.com/sealstone/sealstone/api"
)

// How a value comes to be. For one scope and mode the layers are, lowest first:
// common, the service, then for each scope from the outermost down common's
// overlay before the service's, and last the safe mode. Documents are merged by
// RFC 7386, flags by key and member.

// layers returns the layers of a bundle, lowest first.
func layers(common, service *source, scope api.Scope, mode api.Mode) []*layer {
	var out []*layer
	add := func(l *layer, ok bool) {
		if ok && l != nil {
			out = append(out, l)
		}
	}
	if common != nil {
		add(common.base, true)
	}
	add(service.base, true)
	for _, s := range scope.Path() {
		if common != nil {
			l, ok := common.overlays[s]
			add(l, ok)
		}
		l, ok := service.overlays[s]
		add(l, ok)
	}
	if m, ok := service.modes[mode]; ok {
		add(m.layer, true)
	}
	return out
}

// setScopes are the scopes of the set of an activation at scope: itself and
// each deeper one with an overlay.
func setScopes(common, service *source, scope api.Scope) []api.Scope {
	deeper := map[api.Scope]bool{scope: true}
	for _, s := range []*source{common, service} {
		if s == nil {
			continue
		}
		for o := range s.overlays {
			if scope.Contains(o) {
				deeper[o] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(deeper))
}

// docNames are the documents that any of the layers has.
func docNames(ls []*layer) []string {
	names := map[string]bool{}
	for _, l := range ls {
		for name := range l.docs {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// foldDocument merges the layers' values of one document. effect is told of
// every file whether it made a difference.
func (r *reader) foldDocument(name string, ls []*layer, effect effect) *node {
	var n *node
	for _, l := range ls {
		file, ok := l.docs[name]
		if !ok {
			continue
		}
		patch := r.node(file)
		if n == nil {
			nullMembers(patch, func(m *node, member string) {
				r.fault(ruleNullBase, m.at, "%s is null, but no lower layer has this document", quote(member))
			})
			n = patch
			effect(patch.at.file, true)
			continue
		}
		merged, did := merge(n, patch)
		n = merged
		effect(patch.at.file, did || l.base)
	}
	if n != nil && n.kind == kindNull {
		r.fault(ruleNullBase, n.at, "document %s is null", quote(name))
		return nil
	}
	return n
}

// merge is RFC 7386's MergePatch on nodes; did says whether anything changed.
func merge(target, patch *node) (out *node, did bool) {
	if patch.kind != kindObject {
		return patch, target == nil || !equal(target, patch)
	}
	out = &node{kind: kindObject, at: patch.at}
	var base []field
	if target != nil && target.kind == kindObject {
		base, out.at = target.fields, target.at
	} else {
		did = true
	}
	out.fields = make([]field, 0, len(base)+len(patch.fields))
	i := 0
	for _, p := range patch.fields {
		for i < len(base) && base[i].name < p.name {
			out.fields = append(out.fields, base[i])
			i++
		}
		var old *node
		if i < len(base) && base[i].name == p.name {
			old = base[i].val
			i++
		}
		if p.val.kind == kindNull {
			did = did || old != nil
			continue
		}
		val, changed := merge(old, p.val)
		out.fields = append(out.fields, field{p.name, val})
		did = did || changed
	}
	out.fields = append(out.fields, base[i:]...)
	return out, did
}

// equal compares values, not places.
func equal(a, b *node) bool {
	if a.kind != b.kind || a.truth != b.truth || a.num != b.num || a.str != b.str ||
		len(a.list) != len(b.list) || len(a.fields) != len(b.fields) {
		return false
	}
	for i := range a.list {
		if !equal(a.list[i], b.list[i]) {
			return false
		}
	}
	for i, f := range a.fields {
		if f.name != b.fields[i].name || !equal(f.val, b.fields[i].val) {
			return false
		}
	}
	return true
}

// An effect is told which file of a layer made a difference, and which did not.
type effect func(file string, did bool)

// foldFlags makes flags.json of the layers: its three parts, empty ones left out.
func (r *reader) foldFlags(ls []*layer, effect effect) *node {
	flags, evaluators, metadata := map[string]*node{}, map[string]*node{}, map[string]*node{}
	for _, l := range ls {
		r.loadFlags(l)
		r.overFlags(flags, l, effect)
		r.overNamed(evaluators, l.evaluators, "evaluator", effect)
		r.overNamed(metadata, l.metadata, "metadata", effect)
	}
	root := &node{kind: kindObject, fields: []field{{"flags", objectOf(flags)}}}
	if len(evaluators) > 0 {
		root.fields = append(root.fields, field{"$evaluators", objectOf(evaluators)})
	}
	if len(metadata) > 0 {
		root.fields = append(root.fields, field{"metadata", objectOf(metadata)})
	}
	root.setFields(root.fields, func(field) {})
	root.at = root.get("flags").at
	return root
}

func objectOf(m map[string]*node) *node {
	n := &node{kind: kindObject, fields: make([]field, 0, len(m))}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		n.fields = append(n.fields, field{name, m[name]})
	}
	if len(n.fields) > 0 {
		n.at = n.fields[0].val.at
	}
	return n
}

// overNamed lays named values over, each whole; null removes one.
func (r *reader) overNamed(into, over map[string]*node, what string, effect effect) {
	for name, n := range over {
		old, was := into[name]
		if n.kind != kindNull {
			effect(n.at.file, !was || !equal(old, n))
			into[name] = n
			continue
		}
		if !was {
			r.fault(ruleFlagUnknown, n.at, "%s %s is removed, but no lower layer defines it", what, quote(name))
		}
		delete(into, name)
		effect(n.at.file, true)
	}
}

func (r *reader) overFlags(into map[string]*node, l *layer, effect effect) {
	for name, n := range l.flags {
		old, was := into[name]
		switch {
		case n.kind == kindNull:
			if !was {
				r.fault(ruleFlagUnknown, n.at, "flag %s is removed, but no lower layer defines it", quote(name))
			}
			delete(into, name)
			effect(n.at.file, true)
		case !was && !l.base && (n.get("state") == nil || n.get("variants") == nil):
			r.fault(ruleFlagUnknown, n.at, "flag %s is changed here, but no lower layer defines it", quote(name))
		default:
			into[name] = overFlag(old, n)
			effect(n.at.file, l.base || old == nil || !equal(old, into[name]))
		}
	}
}

// overFlag replaces members of a flag, each whole. An empty targeting is the
// way to say that there is no rule; it leaves no trace in the result.
func overFlag(old, over *node) *node {
	out := &node{kind: kindObject, at: over.at}
	if old != nil {
		out.at = old.at
		for _, f := range old.fields {
			if over.get(f.name) == nil {
				out.fields = append(out.fields, f)
			}
		}
	}
	for _, f := range over.fields {
		if f.name == "targeting" && f.val.kind == kindObject && len(f.val.fields) == 0 {
			continue
		}
		out.fields = append(out.fields, f)
	}
	slices.SortFunc(out.fields, func(a, b field) int { return strings.Compare(a.name, b.name) })
	return out
}
