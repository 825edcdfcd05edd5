package flags

import (
	"math"
	"unicode/utf8"
)

// opCat joins the texts of its operands.
func opCat(c *compiler, a args, in scope) code {
	items := c.values(a, in)
	return code{expr: func(e *env) value {
		parts := e.operands(items, a.single)
		start := len(e.bytes)
		for _, v := range parts {
			e.write(v)
		}
		return e.written(start)
	}}
}

// opSubstr is [TEXT, START, LENGTH?]. Positions count characters, negative ones
// from the end; outside the text there is nothing.
func opSubstr(c *compiler, a args, in scope) code {
	source, from := c.arg(a, 0, in).value(), c.arg(a, 1, in).value()
	if len(a.nodes) < 3 {
		return code{expr: func(e *env) value {
			return substr(e.whole(source), e.operand(from).operand(), math.Inf(1))
		}}
	}
	size := c.arg(a, 2, in).value()
	return code{expr: func(e *env) value {
		return substr(e.whole(source), e.operand(from).operand(), e.operand(size).operand())
	}}
}

// whole is a text whose characters are counted.
func (e *env) whole(x expr) string {
	s := e.needle(x(e))
	e.spend(len(s) / 8)
	return s
}

func substr(s string, from, size float64) value {
	n := utf8.RuneCountInString(s)
	total := float64(n)
	if from = math.Trunc(from); from < 0 {
		from = max(0, total+from)
	}
	from = min(from, total)
	end := from + math.Trunc(size)
	if size < 0 {
		end = total + math.Trunc(size)
	}
	end = min(max(end, from), total)
	return ofText(s[offset(s, n, int(from)):offset(s, n, int(end))])
}

// offset is the byte position of the i-th of n characters.
func offset(s string, n, i int) int {
	if n == len(s) {
		return i
	}
	at := 0
	for ; i > 0; i-- {
		_, w := utf8.DecodeRuneInString(s[at:])
		at += w
	}
	return at
}

// affix compiles starts_with and ends_with: null unless both of exactly two
// operands are texts.
func affix(test func(s, part string) bool) operator {
	return func(c *compiler, a args, in scope) code {
		for i := range a.nodes {
			if n := &a.nodes[i]; !n.dynamic && n.kind != stringNode {
				c.faultArg(a, i, "this operand is a string or a rule, not "+n.kind.String())
			}
		}
		if len(a.nodes) != 2 {
			return constantOf(value{})
		}
		whole, part := c.arg(a, 0, in).value(), c.arg(a, 1, in)
		if part.constant {
			return affixConstant(test, whole, part.val.str)
		}
		get := part.value()
		return affixCode(func(e *env) (bool, bool) {
			s, p := whole(e), get(e)
			ok := s.kind == text && p.kind == text
			e.look(p.str)
			return ok && test(s.str, p.str), ok
		})
	}
}

func affixConstant(test func(s, part string) bool, whole expr, part string) code {
	return code{
		expr: func(e *env) value {
			e.look(part)
			if s := whole(e); s.kind == text {
				return ofBool(test(s.str, part))
			}
			return value{}
		},
		cond: func(e *env) bool {
			e.look(part)
			s := whole(e)
			return s.kind == text && test(s.str, part)
		},
	}
}

// affixCode makes both forms of a test that may not apply.
func affixCode(test func(e *env) (holds, applies bool)) code {
	return code{
		expr: func(e *env) value {
			holds, applies := test(e)
			if !applies {
				return value{}
			}
			return ofBool(holds)
		},
		cond: func(e *env) bool {
			holds, _ := test(e)
			return holds
		},
	}
}
