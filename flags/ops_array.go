package flags

// opMerge makes one array of its operands; those that are none count as one
// element.
func opMerge(c *compiler, a args, in scope) code {
	items := c.values(a, in)
	return code{expr: func(e *env) value {
		parts := e.evaluate(items)
		n := 0
		for _, v := range parts {
			if v.kind != array {
				n++
			}
			n += v.len()
		}
		out := e.take(n)[:0]
		for _, v := range parts {
			if v.kind != array {
				out = append(out, v)
				continue
			}
			for i := range v.len() {
				out = append(out, v.at(i))
			}
		}
		return e.listOf(out)
	}}
}

// A loop runs a body over the elements of an array, each of which is all that
// the body's var sees.
type loop struct {
	over expr
	body code
	cost int
}

// loop compiles the first two operands of a loop.
func (c *compiler) loop(a args, in scope, body scope) loop {
	over := c.arg(a, 0, in).value()
	before, pure := c.cost, c.pure
	k := c.arg(a, 1, body)
	c.pure = pure // the body sees elements only: over a constant the loop is one
	return loop{over, k, 1 + c.cost - before}
}

// each calls do with every element's number until it returns false. Elements are
// bound to e.item, and the loop around is restored.
func (l *loop) each(e *env, all value, do func(i int) bool) {
	outer := e.item
	for i := range all.len() {
		e.spend(l.cost)
		e.item = all.at(i)
		if !do(i) {
			break
		}
	}
	e.item = outer
}

func opMap(c *compiler, a args, in scope) code {
	l := c.loop(a, in, inItem)
	body := l.body.value()
	return code{expr: func(e *env) value {
		all := l.over(e)
		out := e.take(all.len())
		l.each(e, all, func(i int) bool {
			out[i] = body(e)
			return true
		})
		return e.listOf(out)
	}}
}

func opFilter(c *compiler, a args, in scope) code {
	l := c.loop(a, in, inItem)
	test := l.body.truth()
	return code{expr: func(e *env) value {
		all := l.over(e)
		out := e.take(all.len())
		n := 0
		l.each(e, all, func(int) bool {
			if test(e) {
				out[n] = e.item
				n++
			}
			return true
		})
		return e.listOf(out[:n])
	}}
}

// opReduce is [ARRAY, BODY, INITIAL]; the body sees current and accumulator.
func opReduce(c *compiler, a args, in scope) code {
	initial := c.arg(a, 2, in).value()
	l := c.loop(a, in, inReduce)
	body := l.body.value()
	return code{expr: func(e *env) value {
		result, all := initial(e), l.over(e)
		outer := e.acc
		l.each(e, all, func(int) bool {
			e.acc = result
			result = body(e)
			return true
		})
		e.acc = outer
		return result
	}}
}

// opAll: nothing holds for all elements of an empty or missing array.
func opAll(c *compiler, a args, in scope) code {
	some := c.quantify(a, in, false)
	return code{cond: func(e *env) bool {
		n, exception := some(e)
		return n > 0 && !exception
	}}
}

func opSome(c *compiler, a args, in scope) code {
	some := c.quantify(a, in, true)
	return code{cond: func(e *env) bool {
		_, found := some(e)
		return found
	}}
}

func opNone(c *compiler, a args, in scope) code {
	some := c.quantify(a, in, true)
	return code{cond: func(e *env) bool {
		_, found := some(e)
		return !found
	}}
}

// quantify looks for an element whose test gives want.
func (c *compiler) quantify(a args, in scope, want bool) func(e *env) (int, bool) {
	l := c.loop(a, in, inItem)
	test := l.body.truth()
	return func(e *env) (n int, found bool) {
		all := l.over(e)
		l.each(e, all, func(int) bool {
			found = test(e) == want
			return !found
		})
		return all.len(), found
	}
}
