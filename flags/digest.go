package flags

import (
	"hash/maphash"
	"sort"
)

// Digests tell whether two flags mean the same. They are keyed by a seed of this
// process, so nobody can prepare a collision, and are never stored or sent.
var digestSeed = maphash.MakeSeed()

// A digester digests values; a reference digests as what it refers to, so that
// moving a rule into an evaluator is no change and editing one is.
type digester struct {
	named map[string]*node // the evaluators
	known map[string]uint64
}

func mix(a, b uint64) uint64 { return maphash.Comparable(digestSeed, [2]uint64{a, b}) }

func digestText(s string) uint64 { return maphash.String(digestSeed, s) }

func (d *digester) node(n *node) uint64 {
	h := uint64(n.kind)
	switch n.kind {
	case boolNode:
		if n.truth {
			h += 16
		}
	case numberNode:
		return mix(h, maphash.Comparable(digestSeed, n.num))
	case stringNode:
		return mix(h, digestText(n.str))
	case arrayNode:
		for i := range n.items {
			h = mix(h, d.node(&n.items[i]))
		}
	case objectNode:
		return d.object(n)
	}
	return mix(h, 0)
}

// rule digests targeting, where references mean something.
func (d *digester) rule(n *node) uint64 {
	op, operand, ok := n.rule()
	switch {
	case ok && op == refOperator && operand.kind == stringNode:
		return d.evaluator(operand.str)
	case ok:
		return mix(mix(uint64(objectNode), digestText(op)), d.rule(operand))
	case n.kind == arrayNode:
		h := uint64(n.kind)
		for i := range n.items {
			h = mix(h, d.rule(&n.items[i]))
		}
		return mix(h, 0)
	}
	return d.node(n)
}

func (d *digester) evaluator(name string) uint64 {
	if h, ok := d.known[name]; ok {
		return h
	}
	d.known[name] = 0    // a cycle is an error of Compile; here it only has to end
	h := d.node(&node{}) // an empty one chooses nothing, as null does
	if n := d.named[name]; n != nil && len(n.items) > 0 {
		h = d.rule(n)
	}
	d.known[name] = h
	return h
}

// object digests members in the order of their names.
func (d *digester) object(n *node) uint64 {
	order := make([]int, len(n.keys))
	for i := range order {
		order[i] = i
	}
	sort.Slice(order, func(a, b int) bool { return n.keys[order[a]] < n.keys[order[b]] })
	h := uint64(objectNode)
	for _, i := range order {
		h = mix(mix(h, digestText(n.keys[i])), d.node(&n.items[i]))
	}
	return mix(h, 0)
}
