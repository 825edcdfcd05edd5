package flags

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strings"
)

// A Difference is what two documents don't share: nothing exactly when they hold
// the same values.
type Difference struct {
	Flags      []Changes // by key
	Evaluators []Changes // by name
	Metadata   []Edit    // of the set, by name
}

// Changes are what is different about one flag or evaluator.
type Changes struct {
	Key            string
	Added, Removed bool
	Edits          []Edit // none when removed
	Rollouts       []Rollout
	// Through names the changed evaluators that change the meaning of a flag.
	Through []string
	// Reworded says that a flag is written differently and means the same.
	Reworded bool
}

// An Edit is one value that was added, removed or replaced. Path is a JSON
// pointer below the flag or evaluator; Old or New is empty where there is none.
// In a rule, what stands before and after the difference in a list of rules is
// left out, so Old and New may be several values with commas between them.
type Edit struct {
	Path     string
	Old, New string // JSON
}

// A Rollout is a split whose shares changed, in percent: 0 is nothing at all.
type Rollout struct {
	Path   string  // JSON pointer below the flag or evaluator
	Shares []Share // those that changed first
	Moves  float64 // how many subjects get another variant
}

// A Share is how much of a split a variant gets, and the weights that say so.
type Share struct {
	Variant   string  `json:"variant"`
	Old       float64 `json:"old"`
	New       float64 `json:"new"`
	OldWeight uint64  `json:"oldWeight"`
	NewWeight uint64  `json:"newWeight"`
}

// Diff compares two documents by what flags mean. The error joins faults of
// syntax; whether a document is a right one is for [Compile] to say.
func Diff(old, new []byte) (Difference, error) {
	var out Difference
	a, err := parse(string(old))
	if err != nil {
		return out, err
	}
	b, err := parse(string(new))
	if err != nil {
		return out, err
	}
	if a.kind != objectNode || b.kind != objectNode {
		return out, errNoObject
	}
	c := comparison{old: newMeaning(a), new: newMeaning(b), touched: map[string]bool{}}
	out.Evaluators = c.evaluators()
	out.Flags = c.flags()
	var d ruleDiffer
	d.members("", a.part("metadata"), b.part("metadata"))
	out.Metadata = d.edits
	return out, nil
}

// Meanings tells what the flags of a document mean, with evaluators put in: two
// flags mean the same when their numbers are equal. The numbers are of this
// process alone. Metadata of the set is no part of them.
func Meanings(doc []byte) (map[string]uint64, error) {
	root, err := parse(string(doc))
	if err != nil {
		return nil, err
	}
	if root.kind != objectNode {
		return nil, errNoObject
	}
	m := newMeaning(root)
	out := make(map[string]uint64, len(m.flags.keys))
	for i, key := range m.flags.keys {
		out[key] = m.of(&m.flags.items[i])
	}
	return out, nil
}

var errNoObject = &Error{Msg: "a document is an object"}

// uses returns the evaluators that changed and that a flag's rule reaches.
func (c *comparison) uses(flags ...*node) []string {
	reached := map[string]bool{}
	for i, f := range flags {
		if f != nil {
			[]*meaning{c.old, c.new}[i].reach(f.member("targeting"), reached)
		}
	}
	var out []string
	for name := range reached {
		if c.touched[name] {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// A meaning is a document with what it takes to tell what its rules mean.
type meaning struct {
	flags   *node // object form
	named   *node
	digests digester
}

func newMeaning(root *node) *meaning {
	m := &meaning{flags: byKey(root.part("flags")), named: root.part("$evaluators")}
	m.digests = digester{named: m.named.byName(), known: map[string]uint64{}}
	return m
}

// byKey turns flags in an array into the object that they stand for.
func byKey(n *node) *node {
	out := &node{kind: objectNode}
	if n.kind == objectNode {
		return n
	}
	for i := range n.items {
		if key := n.items[i].member("key"); key != nil && out.member(key.str) == nil {
			out.keys = append(out.keys, key.str)
			out.items = append(out.items, n.items[i])
		}
	}
	return out
}

// of digests what a flag does, with evaluators put in.
func (m *meaning) of(flag *node) uint64 {
	h := m.digests.object(without(flag, "targeting"))
	if t := flag.member("targeting"); t != nil && len(t.items) > 0 {
		h = mix(h, m.digests.rule(t))
	}
	return h
}

// reach collects the evaluators that a rule refers to, however far away.
func (m *meaning) reach(n *node, into map[string]bool) {
	if n == nil {
		return
	}
	if op, operand, ok := n.rule(); ok && op == refOperator && operand.kind == stringNode {
		if name := operand.str; !into[name] {
			into[name] = true
			m.reach(m.named.member(name), into)
		}
		return
	}
	for i := range n.items {
		m.reach(&n.items[i], into)
	}
}

func without(n *node, names ...string) *node {
	out := &node{kind: objectNode}
	for i, k := range n.keys {
		if !slices.Contains(names, k) {
			out.keys = append(out.keys, k)
			out.items = append(out.items, n.items[i])
		}
	}
	return out
}

type comparison struct {
	old, new *meaning
	touched  map[string]bool // evaluators that differ
}

func (c *comparison) evaluators() []Changes {
	var out []Changes
	for _, p := range pairs(c.old.named, c.new.named) {
		name, a, b := p.name, p.old, p.new
		one := Changes{Key: name, Added: a == nil, Removed: b == nil}
		var d ruleDiffer
		switch {
		case a == nil:
			d.edit("", nil, b)
		case b != nil:
			d.rule("", a, b)
		}
		one.Edits, one.Rollouts = d.edits, d.rollouts
		if one.any() {
			c.touched[name] = true
			out = append(out, one)
		}
	}
	return out
}

func (c *comparison) flags() []Changes {
	var out []Changes
	for _, p := range pairs(c.old.flags, c.new.flags) {
		a, b := p.old, p.new
		one := Changes{Key: p.name, Added: a == nil, Removed: b == nil}
		if a != nil && b != nil {
			one.between(c, a, b)
		} else if b != nil {
			for i, name := range b.keys {
				one.Edits = append(one.Edits, Edit{Path: "/" + pointerEscape.Replace(name), New: b.items[i].json()})
			}
		}
		if one.any() {
			out = append(out, one)
		}
	}
	return out
}

func (one *Changes) any() bool {
	return one.Added || one.Removed || len(one.Edits)+len(one.Rollouts)+len(one.Through) > 0
}

func (one *Changes) between(c *comparison, a, b *node) {
	var d ruleDiffer
	if a.kind != objectNode || b.kind != objectNode {
		d.rule("", a, b)
	} else {
		d.flag(a, b)
	}
	one.Edits, one.Rollouts = d.edits, d.rollouts
	if c.old.of(a) != c.new.of(b) {
		one.Through = c.uses(a, b)
	} else {
		one.Reworded = len(d.edits)+len(d.rollouts) > 0
	}
}

// A pair is a member of two objects; old or new is nil where it is missing.
type pair struct {
	name     string
	old, new *node
}

// pairs are the members of either, sorted.
func pairs(a, b *node) []pair {
	at := make(map[string]*pair, len(a.keys)+len(b.keys))
	for i, name := range a.keys {
		at[name] = &pair{name: name, old: &a.items[i]}
	}
	for i, name := range b.keys {
		if at[name] == nil {
			at[name] = &pair{name: name}
		}
		at[name].new = &b.items[i]
	}
	out := make([]pair, 0, len(at))
	for _, p := range at {
		out = append(out, *p)
	}
	slices.SortFunc(out, func(a, b pair) int { return strings.Compare(a.name, b.name) })
	return out
}

// A ruleDiffer finds where two rules part.
type ruleDiffer struct {
	edits    []Edit
	rollouts []Rollout
}

func (d *ruleDiffer) edit(path string, old, new *node) {
	d.edits = append(d.edits, Edit{path, old.json(), new.json()})
}

// flag compares two flags by member; variants and metadata by name.
func (d *ruleDiffer) flag(a, b *node) {
	for _, p := range pairs(a, b) {
		name, x, y := p.name, p.old, p.new
		path := "/" + pointerEscape.Replace(name)
		switch {
		case x == nil || y == nil:
			d.edit(path, x, y)
		case name == "targeting":
			d.rule(path, x, y)
		case (name == "variants" || name == "metadata") && x.kind == objectNode && y.kind == objectNode:
			d.members(path, x, y)
		default:
			d.value(path, x, y)
		}
	}
}

func (d *ruleDiffer) members(path string, a, b *node) {
	for _, p := range pairs(a, b) {
		d.value(path+"/"+pointerEscape.Replace(p.name), p.old, p.new)
	}
}

func (d *ruleDiffer) value(path string, a, b *node) {
	if !same(a, b) {
		d.edit(path, a, b)
	}
}

func (d *ruleDiffer) rule(path string, a, b *node) {
	if same(a, b) {
		return
	}
	op, x, isRule := a.rule()
	other, y, both := b.rule()
	switch {
	case isRule && both && op == other:
		path += "/" + pointerEscape.Replace(op)
		if op == "fractional" {
			if r, ok := rollout(x, y); ok {
				r.Path = path
				d.rollouts = append(d.rollouts, r)
				return
			}
		}
		d.rule(path, x, y)
	case a.kind == arrayNode && b.kind == arrayNode && a.plain() && b.plain():
		d.edit(path, a, b)
	case a.kind == arrayNode && b.kind == arrayNode && len(a.items) == len(b.items):
		for i := range a.items {
			d.rule(path+"/"+itoa(i), &a.items[i], &b.items[i])
		}
	case a.kind == arrayNode && b.kind == arrayNode:
		d.list(path, a.items, b.items)
	default:
		d.edit(path, a, b)
	}
}

// plain reports a list of values, such as those of "in", in which no rule stands.
func (n *node) plain() bool {
	return !slices.ContainsFunc(n.items, func(e node) bool { return e.kind == objectNode || e.kind == arrayNode })
}

// list leaves out what two lists of different lengths begin and end with.
func (d *ruleDiffer) list(path string, a, b []node) {
	start := 0
	for start < min(len(a), len(b)) && same(&a[start], &b[start]) {
		start++
	}
	a, b = a[start:], b[start:]
	for len(a) > 0 && len(b) > 0 && same(&a[len(a)-1], &b[len(b)-1]) {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	d.edits = append(d.edits, Edit{path + "/" + itoa(start), several(a), several(b)})
}

// same compares values; the order of members is no part of them.
func same(a, b *node) bool {
	if a == nil || b == nil || a.kind != b.kind || len(a.items) != len(b.items) {
		return a == b
	}
	for i := range a.items {
		other := &b.items[i]
		if a.kind == objectNode && a.keys[i] != b.keys[i] {
			other = b.member(a.keys[i])
		}
		if other == nil || !same(&a.items[i], other) {
			return false
		}
	}
	return a.truth == b.truth && a.num == b.num && a.str == b.str
}

// rollout compares two splits of the same subjects whose shares are constants.
func rollout(a, b *node) (Rollout, bool) {
	x, old, ok := shares(a)
	y, new, also := shares(b)
	if !ok || !also || !(x == nil && y == nil || same(x, y)) {
		return Rollout{}, false
	}
	r := Rollout{Moves: moves(old, new)}
	var stay []Share
	for _, name := range order(new, old) {
		was, is := old.weight(name), new.weight(name)
		s := Share{name, percent(was, old.total()), percent(is, new.total()), was, is}
		if was*new.total() == is*old.total() {
			stay = append(stay, s)
			continue
		}
		r.Shares = append(r.Shares, s)
	}
	r.Shares = append(r.Shares, stay...)
	return r, true
}

// A slice is a part of a split: the range of weights that a variant gets.
type slice struct {
	variant  string
	from, to uint64
}

type parts []slice

func (p parts) total() uint64 { return p[len(p)-1].to }

func (p parts) weight(variant string) (sum uint64) {
	for _, s := range p {
		if s.variant == variant {
			sum += s.to - s.from
		}
	}
	return sum
}

// shares reads the operand of a split: what it buckets by, if that is given,
// and a slice for each entry. With too large a sum of weights nobody gets any.
func shares(n *node) (by *node, out parts, ok bool) {
	const most = 1000 // slices are compared with each other
	if n.kind != arrayNode || len(n.items) == 0 || len(n.items) > most {
		return nil, nil, false
	}
	items := n.items
	if items[0].kind != arrayNode {
		by, items = &items[0], items[1:]
	}
	total := uint64(0)
	for i := range items {
		e := &items[i]
		if e.kind != arrayNode || len(e.items) == 0 || e.items[0].kind != stringNode {
			return nil, nil, false
		}
		weight := uint64(1)
		if len(e.items) > 1 {
			w, whole := weightOf(ofNum(e.items[1].num))
			if weight = w; e.items[1].kind != numberNode || !whole {
				return nil, nil, false
			}
		}
		out = append(out, slice{e.items[0].str, total, total + weight})
		total += weight
	}
	return by, out, total > 0 && total <= maxWeight
}

// order lists variants as the first split has them, then those of the second.
func order(lists ...parts) []string {
	var out []string
	for _, list := range lists {
		for _, s := range list {
			if !slices.Contains(out, s.variant) {
				out = append(out, s.variant)
			}
		}
	}
	return out
}

// moves is the part of all subjects, in percent, whose slice has another
// variant than before. Weights of both are brought to a common total.
func moves(old, new parts) float64 {
	was, is := old.total(), new.total()
	moved := was * is
	for _, a := range old {
		for _, b := range new {
			from, to := max(a.from*is, b.from*was), min(a.to*is, b.to*was)
			if a.variant == b.variant && from < to {
				moved -= to - from
			}
		}
	}
	return percent(moved, was*is)
}

// percent is a part of a whole with two decimals, and more for what would be 0.
func percent(part, whole uint64) float64 {
	exact := float64(part) / float64(whole)
	if out := math.Round(exact*1e4) / 1e2; out > 0 {
		return out
	}
	return exact * 1e2
}

// json writes a node, nothing for none.
func (n *node) json() string {
	if n == nil {
		return ""
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(n.toAny()) // plain values of a parsed document
	return string(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}

func several(list []node) string {
	out := ""
	for i := range list {
		if i > 0 {
			out += ","
		}
		out += list[i].json()
	}
	return out
}
