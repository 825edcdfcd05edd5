package flags

// pickIf compiles an if chain whose arms are variants.
func (c *compiler) pickIf(f *Flag, a args) pick {
	var whens []cond
	var thens []pick
	last := func(*env) int { return none }
	for i := 0; i < len(a.nodes); i += 2 {
		if i == len(a.nodes)-1 {
			last = c.pickArg(f, a, i)
			break
		}
		when, then := c.arg(a, i, inRoot), c.pickArg(f, a, i+1)
		whens, thens = append(whens, when.truth()), append(thens, then)
	}
	return func(e *env) int {
		for i, when := range whens {
			if when(e) {
				return thens[i](e)
			}
		}
		return last(e)
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
	if !a.single || k.expr == nil && !k.constant {
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
