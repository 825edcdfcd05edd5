package flags

import "strings"

// opVar is {"var": PATH} or {"var": [PATH, DEFAULT]}. The default also stands in
// for null.
func opVar(c *compiler, a args, in scope) code {
	c.pure = false
	get := c.read(a, in)
	if len(a.nodes) < 2 {
		return code{expr: get}
	}
	def := c.arg(a, 1, in).value()
	c.pure = false
	return code{expr: func(e *env) value {
		if v := get(e); v.kind != null {
			return v
		}
		return def(e)
	}}
}

// read compiles the path of a var.
func (c *compiler) read(a args, in scope) expr {
	k := c.arg(a, 0, in)
	c.pure = false
	if !k.constant {
		c.usesTime = c.usesTime || in == inRoot
		path := k.value()
		return func(e *env) value {
			v := path(e)
			return e.lookup(in, e.pathText(v))
		}
	}
	path := (&env{steps: maxSteps}).pathText(k.val)
	if a.single && strings.HasPrefix(path, flagdPrefix) && path != timestampPath && path != flagKeyPath {
		c.fault("$flagd has only flagKey and timestamp")
	}
	return c.readPath(path, in)
}

// pathText is the path a value stands for: numbers index arrays, null is the
// whole data.
func (e *env) pathText(v value) string {
	switch v.kind {
	case text:
		e.look(v.str)
		return v.str
	case number:
		start := len(e.bytes)
		e.bytes = appendNumber(e.bytes, v.num)
		return e.scratchText(start).str
	}
	return ""
}

// The attributes every evaluation adds to the context, hiding the caller's.
const (
	flagdName     = "$flagd"
	flagdPrefix   = flagdName + "."
	flagKeyPath   = flagdPrefix + "flagKey"
	timestampPath = flagdPrefix + "timestamp"
)

// readPath compiles the lookup of a constant path.
func (c *compiler) readPath(path string, in scope) expr {
	if in != inRoot {
		return func(e *env) value { return e.lookup(in, path) }
	}
	switch {
	case path == flagKeyPath:
		return func(e *env) value { return ofText(e.key) }
	case path == timestampPath:
		c.usesTime = true
		return func(e *env) value { return ofNum(e.now) }
	case path == "" || path == flagdName || strings.HasPrefix(path, flagdPrefix):
		return func(e *env) value { return e.rootPath(path) }
	}
	name, rest, dotted := strings.Cut(path, ".")
	i, slotted := c.slot(path)
	switch {
	case slotted && !dotted:
		return func(e *env) value {
			if i < len(e.slots) && e.slots[i].known {
				return e.slots[i].v
			}
			return e.keep(i, fromAny(e.ctx[name]))
		}
	case slotted:
		return func(e *env) value {
			if i < len(e.slots) && e.slots[i].known {
				return e.slots[i].v
			}
			return e.keep(i, e.rootPath(path))
		}
	case dotted && rest != "":
		return func(e *env) value {
			e.look(rest)
			return fromAny(e.ctx[name]).follow(rest)
		}
	case !dotted:
		return func(e *env) value {
			if s, ok := e.ctx[name].(string); ok {
				return value{kind: text, str: s}
			}
			return fromAny(e.ctx[name])
		}
	}
	return func(e *env) value { return e.rootPath(path) }
}

// keep remembers an attribute for the rest of the evaluation.
func (e *env) keep(i int, v value) value {
	if i < len(e.slots) {
		e.slots[i] = slot{true, v}
		e.touched = append(e.touched, uint16(i))
	}
	return v
}

// lookup finds a path in a scope.
func (e *env) lookup(in scope, path string) value {
	e.look(path)
	switch in {
	case inItem:
		return e.item.follow(path)
	case inReduce:
		return e.reducePath(path)
	}
	return e.rootPath(path)
}

func (e *env) rootPath(path string) value {
	name, rest, more := strings.Cut(path, ".")
	switch {
	case path == "":
		return value{kind: object, ref: root{}}
	case name == flagdName:
		return e.flagd(rest)
	case !more:
		return fromAny(e.ctx[name])
	case rest == "":
		return fromAny(e.ctx[name]).member("")
	}
	return fromAny(e.ctx[name]).follow(rest)
}

func (e *env) flagd(name string) value {
	switch name {
	case "":
		return value{kind: object, ref: root{}}
	case "flagKey":
		return ofText(e.key)
	case "timestamp":
		return ofNum(e.now)
	}
	return value{}
}

func (e *env) reducePath(path string) value {
	name, rest, _ := strings.Cut(path, ".")
	switch name {
	case "":
		return value{kind: object, ref: root{}}
	case "current":
		return e.item.follow(rest)
	case "accumulator":
		return e.acc.follow(rest)
	}
	return value{}
}

// opMissing lists which of the paths have no value: absent or null.
func opMissing(c *compiler, a args, in scope) code {
	items := c.values(a, in)
	c.pure = false
	c.usesTime = c.usesTime || in == inRoot
	return code{expr: func(e *env) value {
		paths := e.evaluate(items)
		if len(paths) > 0 && paths[0].kind == array {
			return e.listOf(e.missing(in, paths[0]))
		}
		return e.listOf(e.missing(in, e.listOf(paths)))
	}}
}

func (e *env) evaluate(items []expr) []value {
	out := e.take(len(items))
	for i, x := range items {
		out[i] = x(e)
	}
	return out
}

func (e *env) missing(in scope, paths value) []value {
	out := e.take(paths.len())
	n := 0
	for i := range out {
		path := paths.at(i)
		if e.lookup(in, e.pathText(path)).kind == null {
			out[n] = path
			n++
		}
	}
	return out[:n]
}

// opMissingSome is [AT_LEAST, PATHS]: empty when that many have a value, else
// those that have none.
func opMissingSome(c *compiler, a args, in scope) code {
	least, paths := c.arg(a, 0, in).value(), c.arg(a, 1, in).value()
	c.pure = false
	c.usesTime = c.usesTime || in == inRoot
	return code{expr: func(e *env) value {
		want, all := least(e).operand(), paths(e)
		lacking := e.missing(in, all)
		if float64(all.len()-len(lacking)) >= want {
			return e.listOf(nil)
		}
		return e.listOf(lacking)
	}}
}
