package flags

import "strings"

// equality compiles ==, !=, === and !==.
func equality(equal func(a, b value) bool, want bool) operator {
	return func(c *compiler, a args, in scope) code {
		x, y := c.arg(a, 0, in), c.arg(a, 1, in)
		if x.constant {
			x, y = y, x
		}
		get := x.value()
		if y.constant && y.val.kind == text {
			return code{cond: equalsText(get, y.val, equal, want)}
		}
		other := y.value()
		return code{cond: func(e *env) bool {
			a, b := e.operand(get), e.operand(other)
			return equal(a, b) == want
		}}
	}
}

// equalsText is equality with a constant text: the usual condition of a rule.
func equalsText(get expr, to value, equal func(a, b value) bool, want bool) cond {
	return func(e *env) bool {
		v := get(e)
		if v.kind == text {
			same := len(v.str) == len(to.str)
			if same {
				e.look(v.str)
			}
			return (same && v.str == to.str) == want
		}
		e.look(to.str)
		return equal(v, to) == want
	}
}

// A relation is one of < <= > >=.
type relation struct{ swap, orEqual bool }

var (
	less         = relation{}
	lessEqual    = relation{orEqual: true}
	greater      = relation{swap: true}
	greaterEqual = relation{swap: true, orEqual: true}
)

func (r relation) holds(a, b value) bool {
	if r.swap {
		a, b = b, a
	}
	return before(a, b) || r.orEqual && looseEqual(a, b)
}

// before compares two texts bytewise and anything else as numbers; what is no
// number stands in no order. Null counts as 0 here but equals no number, so a
// missing attribute is < 1 and yet not >= 0: that is what flagd does.
func before(a, b value) bool {
	if a.kind == text && b.kind == text {
		return a.str < b.str
	}
	x, ok := a.ordinal()
	if !ok {
		return false
	}
	y, ok := b.ordinal()
	return ok && x < y
}

func (v value) ordinal() (float64, bool) {
	if v.kind == null {
		return 0, true
	}
	return v.numeric()
}

// numbers compares plain numbers.
func (r relation) numbers(x, y float64) bool {
	if r.swap {
		x, y = y, x
	}
	return x < y || r.orEqual && x == y
}

// ordering compiles < <= > >=; with three operands the middle one has to lie
// between the others.
func ordering(r relation) operator {
	return func(c *compiler, a args, in scope) code {
		x, y := c.arg(a, 0, in), c.arg(a, 1, in)
		left, right := x.value(), y.value()
		if len(a.nodes) > 2 {
			third := c.arg(a, 2, in).value()
			return code{cond: func(e *env) bool {
				mid := e.operand(right)
				return r.holds(e.operand(left), mid) && r.holds(mid, e.operand(third))
			}}
		}
		if y.constant && y.val.kind == number {
			return code{cond: r.toNumber(left, y.val)}
		}
		return code{cond: func(e *env) bool { return r.holds(e.operand(left), e.operand(right)) }}
	}
}

// toNumber is an order relative to a constant number.
func (r relation) toNumber(get expr, to value) cond {
	return func(e *env) bool {
		v := get(e)
		if v.kind == number {
			return r.numbers(v.num, to.num)
		}
		e.look(v.str)
		return r.holds(v, to)
	}
}

// opIn is membership in an array, by strict equality, or in a text, where the
// needle is taken as text; null is in no text.
func opIn(c *compiler, a args, in scope) code {
	needle, hay := c.arg(a, 0, in), c.arg(a, 1, in)
	get := needle.value()
	if hay.constant && hay.val.kind == array {
		set := c.members(&a.nodes[1], hay.val)
		return code{cond: func(e *env) bool { return e.among(set, get(e)) }}
	}
	where := hay.value()
	return code{cond: func(e *env) bool { return e.contains(where(e), get(e)) }}
}

// operand is a value that is looked through.
func (e *env) operand(x expr) value {
	v := x(e)
	e.look(v.str)
	return v
}

func (e *env) among(set *members, v value) bool {
	e.look(v.str)
	if v.kind == number {
		e.spend(len(set.numbers) / 64)
	}
	return set.has(v)
}

func (e *env) contains(hay, needle value) bool {
	switch hay.kind {
	case array:
		n := hay.len()
		e.spend(n)
		for i := range n {
			if strictEqual(hay.at(i), needle) {
				return true
			}
		}
	case text:
		e.spend(len(hay.str) / 16)
		return strings.Contains(hay.str, e.needle(needle)) && needle.kind <= text && needle.kind != null
	}
	return false
}

func (e *env) needle(v value) string {
	if v.kind == text {
		return v.str
	}
	start := len(e.bytes)
	e.write(v)
	return e.written(start).str
}

// members is a constant array made ready for "in".
type members struct {
	texts   map[string]struct{}
	few     []string // instead of texts, when there are few
	numbers []float64
	null    bool
	truth   [2]bool // by the booleans' numbers
}

// members indexes a literal array; all who refer to it share the index.
func (c *compiler) members(n *node, v value) *members {
	if m := c.sets[n]; m != nil {
		return m
	}
	m := &members{}
	for i := range v.len() {
		m.add(v.at(i))
	}
	const few = 4
	if len(m.few) > few {
		m.texts = make(map[string]struct{}, len(m.few))
		for _, s := range m.few {
			m.texts[s] = struct{}{}
		}
	}
	c.sets[n] = m
	return m
}

func (m *members) add(v value) {
	switch v.kind {
	case null:
		m.null = true
	case boolean:
		m.truth[int(v.num)] = true
	case number:
		m.numbers = append(m.numbers, v.num)
	case text:
		m.few = append(m.few, v.str)
	}
}

func (m *members) has(v value) bool {
	switch v.kind {
	case null:
		return m.null
	case boolean:
		return m.truth[int(v.num)]
	case number:
		for _, f := range m.numbers {
			if f == v.num {
				return true
			}
		}
	case text:
		if m.texts != nil {
			_, ok := m.texts[v.str]
			return ok
		}
		for _, s := range m.few {
			if s == v.str {
				return true
			}
		}
	}
	return false
}
