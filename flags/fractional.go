package flags

import "math"

// maxWeight bounds each weight and the sum of all.
const maxWeight = math.MaxInt32

// A split is a compiled fractional: a bucketing text and weighted entries.
// Entries are what it gives; a pick also knows their variants' numbers.
type split struct {
	in   scope
	by   expr // nil: the flag's key and the targeting key
	list []entry

	// With constant weights: the sums up to each entry. Total 0 is null.
	fixed bool
	upto  []uint64
	total uint64
}

// An entry is [VARIANT, WEIGHT?].
type entry struct {
	whole   expr // set when the entry is not written as an array
	variant code
	weight  code
	name    expr // variant and weight as values
	heavy   expr
}

// split compiles the operands; what is no array in first place is what to bucket
// by.
func (c *compiler) split(a args, in scope) *split {
	s := &split{in: in}
	entries := 0
	if len(a.nodes) > 0 && a.nodes[0].kind != arrayNode {
		first := c.arg(a, 0, in)
		entries = 1
		switch {
		case !a.nodes[0].dynamic && first.val.kind == text:
			c.faultArg(a, 0, "the bucketing value is a rule: a constant puts every subject into one bucket")
		case !first.constant || first.val.kind != null:
			s.by = first.value()
		}
	}
	for i := entries; i < len(a.nodes); i++ {
		c.at(a, i, func() { s.list = append(s.list, c.entry(&a.nodes[i], in)) })
	}
	c.pure = false // it hashes the flag's key, or should
	s.fix()
	return s
}

func (c *compiler) entry(n *node, in scope) entry {
	if n.kind != arrayNode {
		return entry{whole: c.rule(n, in).value()}
	}
	c.cost++
	out := entry{variant: constantOf(value{}), weight: constantOf(ofNum(1))}
	for i := range n.items {
		c.enterIndex(i)
		switch i {
		case 0:
			out.variant = c.rule(&n.items[i], in)
		case 1:
			out.weight = c.rule(&n.items[i], in)
			c.checkWeight(&n.items[i])
		}
		c.leave()
	}
	if len(n.items) == 0 {
		out.whole = constantOf(value{}).value() // no entry at all: the split is null
	}
	out.name, out.heavy = out.variant.value(), out.weight.value()
	return out
}

// checkWeight refuses constants that are no weight. Too large a sum is not
// refused: it has a defined result.
func (c *compiler) checkWeight(n *node) {
	if n.dynamic {
		return
	}
	if n.kind != numberNode || n.num < 0 || n.num != math.Trunc(n.num) {
		c.fault("a weight is a whole number that is not negative, or a rule")
	}
}

// weightOf reads a weight: a whole number; negative ones are 0, null is 1.
func weightOf(v value) (uint64, bool) {
	switch {
	case v.kind == null:
		return 1, true
	case v.kind != number || v.num != math.Trunc(v.num) || v.num > maxWeight:
		return 0, false
	}
	return uint64(max(v.num, 0)), true
}

// nameable reports whether a value may stand as the variant of an entry.
func nameable(v value) bool { return v.kind < array }

// fix makes the table of a split whose weights and kinds of variants are known.
func (s *split) fix() {
	total := uint64(0)
	for _, en := range s.list {
		if en.whole != nil || !en.weight.constant || !en.variant.constant {
			return
		}
		w, ok := weightOf(en.weight.val)
		if total += w; !ok || total > maxWeight || !nameable(en.variant.val) {
			s.fixed, s.total = true, 0
			return
		}
		s.upto = append(s.upto, total)
	}
	s.fixed, s.total = true, total
}

// bucketText is what the subject is hashed by; ok is false when there is none. A
// first operand that is neither text nor null is an entry, given back.
func (s *split) bucketText(e *env) (by string, first value, ok bool) {
	if s.by != nil {
		v := s.by(e)
		if v.kind == text {
			// Inside a loop the element has to be an object, as it has in flagd.
			return v.str, value{}, s.in == inRoot || e.item.kind == object
		}
		first = v
	}
	by, ok = e.implicit(s.in)
	return by, first, ok
}

// implicit is the flag's key with the targeting key behind it.
func (e *env) implicit(in scope) (string, bool) {
	key, subject := e.key, value{}
	if in == inRoot {
		subject = fromAny(e.ctx["targetingKey"])
	} else {
		key, subject = "", e.lookup(in, "targetingKey") // a loop's body does not see $flagd
	}
	if subject.kind != text || subject.str == "" {
		return "", false
	}
	start := len(e.bytes)
	e.bytes = append(append(e.bytes, key...), subject.str...)
	return e.scratchText(start).str, true
}

// bucket places a text in [0, total).
func (e *env) bucket(by string, total uint64) uint64 {
	e.spend(len(by) / 8)
	return uint64(murmur3(by)) * total >> 32
}

// choose returns the entry's number in a fixed split, or none. When the first
// operand turns out to be an entry, dynamic has to decide.
func (s *split) choose(e *env) (n int, dynamic bool) {
	by, first, ok := s.bucketText(e)
	if !ok || first.kind != null {
		return none, ok
	}
	if s.total == 0 {
		return none, false
	}
	b := e.bucket(by, s.total)
	from := uint64(0)
	for n = 0; b >= s.upto[n]; n++ {
		from = s.upto[n]
	}
	e.landed(by, b, s.total, from, s.upto[n])
	return n, false
}

// evaluate computes a split of any form.
func (s *split) evaluate(e *env) value {
	if !s.fixed {
		return s.dynamic(e)
	}
	n, dynamic := s.choose(e)
	switch {
	case dynamic:
		return s.dynamic(e)
	case n < 0:
		return value{}
	}
	return s.list[n].variant.val
}

// dynamic computes all weights and variants: one that is none makes the whole
// split null, chosen or not.
func (s *split) dynamic(e *env) value {
	by, first, ok := s.bucketText(e)
	if !ok {
		return value{}
	}
	variants, upto := e.take(len(s.list) + 1)[:0], e.take(len(s.list) + 1)[:0]
	total := uint64(0)
	add := func(v value, w uint64, ok bool) bool {
		total += w
		variants, upto = append(variants, v), append(upto, value{num: float64(total)})
		return ok && total <= maxWeight && nameable(v)
	}
	if first.kind != null && !add(listed(first)) {
		return value{}
	}
	for i := range s.list {
		if !add(s.list[i].weigh(e)) {
			return value{}
		}
	}
	if total == 0 {
		return value{}
	}
	b := e.bucket(by, total)
	n, from := 0, uint64(0)
	for ; b >= uint64(upto[n].num); n++ {
		from = uint64(upto[n].num)
	}
	e.landed(by, b, total, from, uint64(upto[n].num))
	return variants[n]
}

// weigh evaluates an entry.
func (en *entry) weigh(e *env) (value, uint64, bool) {
	if en.whole != nil {
		return listed(en.whole(e))
	}
	w, ok := weightOf(en.heavy(e))
	return en.name(e), w, ok
}

// listed reads an entry that is an array only when evaluated.
func listed(v value) (value, uint64, bool) {
	if v.kind != array || v.len() == 0 {
		return value{}, 0, false
	}
	w, ok := uint64(1), true
	if v.len() > 1 {
		w, ok = weightOf(v.at(1))
	}
	return v.at(0), w, ok
}

func opFractional(c *compiler, a args, in scope) code {
	return code{expr: c.split(a, in).evaluate}
}

// pickFractional goes from the bucket to the variant's number when all entries
// name constants.
func (c *compiler) pickFractional(f *Flag, a args) pick {
	s := c.split(a, inRoot)
	if !s.fixed {
		return func(e *env) int { return f.number(s.evaluate(e)) }
	}
	numbers := make([]int, len(s.list))
	for i := range numbers {
		numbers[i] = f.number(s.list[i].variant.val)
	}
	return func(e *env) int {
		n, dynamic := s.choose(e)
		switch {
		case dynamic:
			return f.number(s.dynamic(e))
		case n < 0:
			return none
		}
		return numbers[n]
	}
}
