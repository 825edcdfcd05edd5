package flags

import (
	"sort"
	"strconv"
)

// Compile checks a document and makes it ready to evaluate. The document is
// flagd's: {"flags":{...}, "$evaluators":{...}, "metadata":{...}}, of which only
// flags is required; "$schema" is passed over, and flags may be an array whose
// items have a "key".
//
// Nothing is repaired or skipped: any fault refuses the whole document, so that
// a caller keeps what it had. The error joins all faults; see [Faults].
func Compile(doc []byte) (*Set, error) {
	source := string(doc)
	root, err := parse(source)
	if err != nil {
		return nil, err
	}
	c := newCompiler(root)
	set := c.document(root)
	if err := c.err(); err != nil {
		return nil, err
	}
	set.source = source
	return set, nil
}

func (c *compiler) document(root *node) *Set {
	set := &Set{flags: map[string]*Flag{}, pool: c.pool}
	if root.kind != objectNode {
		c.fault("a document is an object, not " + root.kind.String())
		return set
	}
	for _, name := range root.keys {
		switch name {
		case "flags", "$evaluators", "metadata", "$schema":
		default:
			c.faultAt(name, "unknown member of a document")
		}
	}
	set.metadata = c.metadata(root, nil)
	c.setMetadata = set.metadata
	c.checkEvaluators()
	c.flags(set, root.member("flags"))
	sort.Strings(set.keys)
	set.missing = Resolution{
		Reason: ReasonError, ErrorCode: FlagNotFound,
		ErrorDetail: "no flag has this key", Metadata: set.metadata,
	}
	c.pool.slots = len(c.slots)
	return set
}

// flags compiles both forms of "flags".
func (c *compiler) flags(set *Set, n *node) {
	if n == nil {
		c.fault(`member "flags" is missing`)
		return
	}
	c.enter("flags")
	defer c.leave()
	switch n.kind {
	case objectNode:
		for i := range n.items {
			c.enter(n.keys[i])
			c.add(set, n.keys[i], &n.items[i])
			c.leave()
		}
	case arrayNode:
		c.each(n, func(item *node) { c.addItem(set, item) })
	default:
		c.fault("flags is an object or an array, not " + n.kind.String())
	}
}

// addItem compiles a flag of the array form.
func (c *compiler) addItem(set *Set, n *node) {
	key := n.member("key")
	switch {
	case key == nil:
		c.fault(`a flag in an array needs a member "key"`)
	case key.kind != stringNode:
		c.faultAt("key", "key is a string, not "+key.kind.String())
	case set.flags[key.str] != nil:
		c.faultAt("key", "another flag has this key")
	default:
		c.inArray = true
		c.add(set, key.str, n)
		c.inArray = false
	}
}

func (c *compiler) add(set *Set, key string, n *node) {
	if key == "" {
		c.fault("the key of a flag is empty")
	}
	if n.kind != objectNode {
		c.fault("a flag is an object, not " + n.kind.String())
		return
	}
	f := &Flag{key: key, pool: c.pool, preset: none}
	set.flags[key] = f
	set.keys = append(set.keys, key)
	c.closed(n)
	c.state(f, n.member("state"))
	c.variants(f, n.member("variants"))
	c.defaultVariant(f, n.member("defaultVariant"))
	f.metadata = c.metadata(n, c.setMetadata)
	c.targeting(f, n.member("targeting"))
	f.digest = c.flagDigest(f, n)
	f.prepare()
}

// closed refuses members that no flag has: a misspelt one would be ignored.
func (c *compiler) closed(n *node) {
	for _, name := range n.keys {
		switch name {
		case "state", "variants", "defaultVariant", "targeting", "metadata":
		case "key":
			if !c.inArray {
				c.faultAt(name, "unknown member of a flag")
			}
		default:
			c.faultAt(name, "unknown member of a flag")
		}
	}
}

func (c *compiler) state(f *Flag, n *node) {
	switch {
	case n == nil:
		c.fault(`member "state" is missing`)
	case n.kind == stringNode && n.str == "ENABLED":
		f.enabled = true
	case n.kind != stringNode || n.str != "DISABLED":
		c.faultAt("state", "state is ENABLED or DISABLED")
	}
}

func (c *compiler) variants(f *Flag, n *node) {
	if n == nil {
		c.fault(`member "variants" is missing`)
		return
	}
	c.enter("variants")
	defer c.leave()
	if n.kind != objectNode || len(n.items) == 0 {
		c.fault("variants is an object of at least one variant")
		return
	}
	f.variants = make([]variant, 0, len(n.items))
	for i := range n.items {
		c.enter(n.keys[i])
		c.variant(f, n.keys[i], &n.items[i])
		c.leave()
	}
	sort.Slice(f.variants, func(a, b int) bool { return f.variants[a].name < f.variants[b].name })
	f.index = make(map[string]int, len(f.variants))
	for i := range f.variants {
		f.index[f.variants[i].name] = i
	}
}

func (c *compiler) variant(f *Flag, name string, n *node) {
	typ := variantTypes[n.kind]
	switch {
	case name == "":
		c.fault("the name of a variant is empty")
	case typ == 0:
		c.fault("a variant is a boolean, string, number or object, not " + n.kind.String())
	case f.typ != 0 && f.typ != typ:
		c.fault("variants are of one type: this is a " + typ.String() + ", others are of type " + f.typ.String())
	}
	if f.typ == 0 {
		f.typ = typ
	}
	f.variants = append(f.variants, variant{
		name: name, boxed: n.toAny(), truth: n.truth, str: n.str, num: n.num,
	})
}

var variantTypes = [...]Type{boolNode: Boolean, stringNode: String, numberNode: Number, arrayNode: 0, objectNode: Object}

// defaultVariant resolves the name; null, "" and nothing leave the choice to the
// code that asks.
func (c *compiler) defaultVariant(f *Flag, n *node) {
	if n == nil || n.kind == nullNode || n.kind == stringNode && n.str == "" {
		return
	}
	if n.kind != stringNode {
		c.faultAt("defaultVariant", "defaultVariant is a string or null, not "+n.kind.String())
		return
	}
	i, ok := f.index[n.str]
	if !ok {
		c.faultAt("defaultVariant", "there is no variant "+quote(n.str))
		return
	}
	f.preset = i
}

func (c *compiler) targeting(f *Flag, n *node) {
	if n == nil || n.kind == nullNode {
		return
	}
	c.enter("targeting")
	defer c.leave()
	if n.kind != objectNode {
		c.fault("targeting is an object, not " + n.kind.String())
		return
	}
	if len(n.items) > 0 {
		c.flag(f, n)
	}
}

// maxMetadata bounds what is copied for each flag.
const maxMetadata = 256

// metadata reads the member "metadata" of a set or a flag, laid over base.
func (c *compiler) metadata(owner *node, base map[string]any) map[string]any {
	n := owner.member("metadata")
	if n == nil {
		return base
	}
	c.enter("metadata")
	defer c.leave()
	if n.kind != objectNode {
		c.fault("metadata is an object, not " + n.kind.String())
		return base
	}
	if len(n.items) > maxMetadata {
		c.fault("metadata has more than " + itoa(maxMetadata) + " members")
		return base
	}
	if len(n.items) == 0 {
		return base
	}
	merged := make(map[string]any, len(base)+len(n.items))
	for k, v := range base {
		merged[k] = v
	}
	for i := range n.items {
		c.enter(n.keys[i])
		c.metadatum(n.keys[i], &n.items[i])
		c.leave()
		merged[n.keys[i]] = n.items[i].toAny()
	}
	return merged
}

func (c *compiler) metadatum(name string, n *node) {
	switch n.kind {
	case boolNode, numberNode, stringNode:
	default:
		c.fault("metadata holds strings, numbers and booleans, not " + n.kind.String())
	}
	switch name {
	case "flagSetId", "version":
		if n.kind != stringNode {
			c.fault(name + " is a string, not " + n.kind.String())
		}
	case "fractional", "fractionalVersion":
		if v := n.toAny(); v == "v3" || v == "3" || v == 3.0 {
			c.fault("fractional v3 hashes other buckets than any shipped evaluator and is not supported")
		}
	}
}

// flagDigest digests everything that Changed compares.
func (c *compiler) flagDigest(f *Flag, n *node) uint64 {
	h := uint64(0)
	if f.enabled {
		h = 1
	}
	h = mix(h, uint64(f.preset+1))
	if v := n.member("variants"); v != nil {
		h = mix(h, c.digests.node(v))
	}
	if t := n.member("targeting"); t != nil && len(t.items) > 0 {
		h = mix(h, c.digests.rule(t))
	}
	return mix(h, c.mergedDigest(n.member("metadata")))
}

// mergedDigest digests the set's metadata overlaid by a flag's, whose usual
// absence must cost nothing.
func (c *compiler) mergedDigest(own *node) uint64 {
	if own == nil || len(own.items) == 0 {
		return c.metadataDigest
	}
	return c.digests.object(overlay(c.metadataNode, own))
}

// overlay merges the members of two objects.
func overlay(base, over *node) *node {
	merged := &node{kind: objectNode}
	for i, k := range base.keys {
		if over.member(k) == nil {
			merged.keys = append(merged.keys, k)
			merged.items = append(merged.items, base.items[i])
		}
	}
	merged.keys = append(merged.keys, over.keys...)
	merged.items = append(merged.items, over.items...)
	return merged
}

// toAny turns a node into plain Go data.
func (n *node) toAny() any {
	switch n.kind {
	case boolNode:
		return n.truth
	case numberNode:
		return n.num
	case stringNode:
		return n.str
	case arrayNode:
		out := make([]any, len(n.items))
		for i := range out {
			out[i] = n.items[i].toAny()
		}
		return out
	case objectNode:
		out := make(map[string]any, len(n.items))
		for i := range n.items {
			out[n.keys[i]] = n.items[i].toAny()
		}
		return out
	}
	return nil
}

func itoa(i int) string { return strconv.Itoa(i) }
