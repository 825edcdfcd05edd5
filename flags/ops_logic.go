package flags

// pickIf compiles operands from i on as an if chain that ends in variants.
func (c *compiler) pickIf(f *Flag, a args, i int) pick {
	if i >= len(a.nodes) {
		return func(*env) int { return none }
	}
	if i == len(a.nodes)-1 {
		return c.pickArg(f, a, i)
	}
	when := c.arg(a, i, inRoot)
	then, otherwise := c.pickArg(f, a, i+1), c.pickIf(f, a, i+2)
	if when.constant {
		if when.val.truthy() {
			return then
		}
		return otherwise
	}
	test := when.truth()
	return func(e *env) int {
		if test(e) {
			return then(e)
		}
		return otherwise(e)
	}
}

func (c *compiler) pickArg(f *Flag, a args, i int) pick {
	if !a.single {
		c.enterIndex(i)
		defer c.leave()
	}
	return c.pick(f, &a.nodes[i])
}

// opIf is [IF, THEN, IF, THEN, ..., ELSE]; without ELSE it gives null, and a
// single operand is its own result.
func opIf(c *compiler, a args, in scope) code {
	whens, thens := make([]cond, 0, len(a.nodes)/2), make([]expr, 0, len(a.nodes)/2)
	i := 0
	for ; i+1 < len(a.nodes); i += 2 {
		whens = append(whens, c.arg(a, i, in).truth())
		thens = append(thens, c.arm(c.arg(a, i+1, in).value(), a, i+1, "then"))
	}
	last := c.arm(c.arg(a, i, in).value(), a, i, "else")
	return code{expr: func(e *env) value {
		for i, when := range whens {
			if when(e) {
				return thens[i](e)
			}
		}
		return last(e)
	}}
}

// opAnd gives the first falsy operand, or the last one. As a condition it never
// builds a value.
func opAnd(c *compiler, a args, in scope) code {
	codes := c.codes(a, in)
	tests, items := truths(codes), exprs(codes)
	return code{
		expr: func(e *env) value { return decide(e, items, false) },
		cond: func(e *env) bool {
			for _, t := range tests {
				if !t(e) {
					return false
				}
			}
			return len(tests) > 0
		},
	}
}

// opOr gives the first truthy operand, or the last one.
func opOr(c *compiler, a args, in scope) code {
	codes := c.codes(a, in)
	tests, items := truths(codes), exprs(codes)
	return code{
		expr: func(e *env) value { return decide(e, items, true) },
		cond: func(e *env) bool {
			for _, t := range tests {
				if t(e) {
					return true
				}
			}
			return false
		},
	}
}

// decide returns the first item whose truth is stop, or the last one.
func decide(e *env, items []expr, stop bool) (v value) {
	for _, x := range items {
		if v = x(e); v.truthy() == stop {
			return v
		}
	}
	return v
}

func (c *compiler) codes(a args, in scope) []code {
	out := make([]code, len(a.nodes))
	for i := range out {
		out[i] = c.arg(a, i, in)
	}
	return out
}

func truths(codes []code) []cond {
	out := make([]cond, len(codes))
	for i, k := range codes {
		out[i] = k.truth()
	}
	return out
}

func exprs(codes []code) []expr {
	out := make([]expr, len(codes))
	for i, k := range codes {
		out[i] = k.value()
	}
	return out
}

func opNot(c *compiler, a args, in scope) code {
	test := c.unary(a, in)
	return code{cond: func(e *env) bool { return !test(e) }}
}

func opTruth(c *compiler, a args, in scope) code {
	return code{cond: c.unary(a, in)}
}

// unary compiles the operand of ! and !!. Of an array that a rule without
// brackets gives, the first element counts.
func (c *compiler) unary(a args, in scope) cond {
	k := c.arg(a, 0, in)
	if !a.single || k.constant || k.expr == nil {
		return k.truth()
	}
	get := k.value()
	return func(e *env) bool {
		v := get(e)
		if v.kind == array && v.len() > 0 {
			v = v.at(0)
		}
		return v.truthy()
	}
}
