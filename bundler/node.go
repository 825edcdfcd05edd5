package bundler

import (
	"slices"
	"strconv"
	"strings"

	"github.com/sealstone/sealstone/internal/canon"
)

// A node is one value of a document with the place that set it. Nodes are
// immutable once read: merging builds new objects around shared members, so a
// resolved document still knows, value by value, which layer's line it is from.
type node struct {
	at     place // of the key for a member, of the value otherwise
	kind   kind
	loose  bool // a decimal that doesn't print back as written
	truth  bool
	num    float64
	str    string
	list   []*node
	fields []field // sorted by name
}

type field struct {
	name string
	val  *node
}

type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindList
	kindObject
)

func (k kind) String() string {
	return [...]string{"null", "a boolean", "a number", "a string", "a list", "an object"}[k]
}

// get returns a member of an object, nil when there is none.
func (n *node) get(name string) *node {
	if n == nil {
		return nil
	}
	if i, ok := n.find(name); ok {
		return n.fields[i].val
	}
	return nil
}

func (n *node) find(name string) (int, bool) {
	return slices.BinarySearchFunc(n.fields, name, func(f field, name string) int { return strings.Compare(f.name, name) })
}

// value is the node as the canonical encoder and the validator take it.
func (n *node) value() any {
	switch n.kind {
	case kindBool:
		return n.truth
	case kindNumber:
		return n.num
	case kindString:
		return n.str
	case kindList:
		list := make([]any, len(n.list))
		for i, e := range n.list {
			list[i] = e.value()
		}
		return list
	case kindObject:
		m := make(map[string]any, len(n.fields))
		for _, f := range n.fields {
			m[f.name] = f.val.value()
		}
		return m
	}
	return nil
}

// locate finds the place of a JSON pointer, or of the nearest value above it.
func (n *node) locate(pointer string) place {
	for rest := strings.TrimPrefix(pointer, "/"); rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		next := n.step(canon.UnescapePointer(part))
		if next == nil {
			break
		}
		n = next
	}
	return n.at
}

func (n *node) step(part string) *node {
	if n.kind == kindList {
		if i, err := strconv.Atoi(part); err == nil && i >= 0 && i < len(n.list) {
			return n.list[i]
		}
		return nil
	}
	return n.get(part)
}

// walk visits n and everything below it.
func (n *node) walk(visit func(*node)) {
	visit(n)
	for _, e := range n.list {
		e.walk(visit)
	}
	for _, f := range n.fields {
		f.val.walk(visit)
	}
}

// setFields sorts members and reports those that stand twice.
func (n *node) setFields(fields []field, twice func(field)) {
	slices.SortStableFunc(fields, func(a, b field) int { return strings.Compare(a.name, b.name) })
	out := fields[:0]
	for _, f := range fields {
		if len(out) > 0 && out[len(out)-1].name == f.name {
			twice(f)
			continue
		}
		out = append(out, f)
	}
	n.fields = out
}
