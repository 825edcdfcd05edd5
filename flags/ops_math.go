package flags

import "math"

// A folding computes over operands that are numbers; it reports false when the
// result is no number.
type folding func(e *env, items []value) (float64, bool)

// arithmetic compiles + - * / % min max. A rule that is the only operand and
// gives an array gives all operands.
func arithmetic(f folding) operator {
	return func(c *compiler, a args, in scope) code {
		items := c.values(a, in)
		return code{expr: func(e *env) value {
			parts := e.operands(items, a.single)
			for i := range parts {
				e.look(parts[i].str)
			}
			n, ok := f(e, parts)
			if !ok {
				return value{}
			}
			return ofNum(n)
		}}
	}
}

// operands evaluates items; an array given by a single one is spread.
func (e *env) operands(items []expr, single bool) []value {
	out := e.evaluate(items)
	if single && out[0].kind == array {
		return e.spread(out[0])
	}
	return out
}

func (e *env) spread(v value) []value {
	if l, ok := v.ref.(*list); ok {
		e.spend(len(l.items))
		return l.items
	}
	out := e.take(v.len())
	for i := range out {
		out[i] = v.at(i)
	}
	return out
}

func sum(_ *env, items []value) (float64, bool) {
	total := 0.0
	for _, v := range items {
		total += v.operand()
	}
	return total, true
}

func product(_ *env, items []value) (float64, bool) {
	total := 1.0
	for _, v := range items {
		total *= v.operand()
	}
	return total, true
}

// difference negates a single operand.
func difference(_ *env, items []value) (float64, bool) {
	if len(items) == 1 {
		return 0 - items[0].operand(), true
	}
	return chain(items, func(a, b float64) float64 { return a - b })
}

// quotient and remainder have no number for a division by zero: ofNum makes the
// infinity or NaN of it null.
func quotient(_ *env, items []value) (float64, bool) {
	return chain(items, func(a, b float64) float64 { return a / b })
}

func remainder(_ *env, items []value) (float64, bool) {
	return chain(items[:min(2, len(items))], math.Mod)
}

func chain(items []value, op func(a, b float64) float64) (float64, bool) {
	if len(items) == 0 {
		return 0, false
	}
	total := items[0].operand()
	for _, v := range items[1:] {
		total = op(total, v.operand())
	}
	return total, true
}

func least(_ *env, items []value) (float64, bool)    { return chain(items, math.Min) }
func greatest(_ *env, items []value) (float64, bool) { return chain(items, math.Max) }
