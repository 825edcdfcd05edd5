package flags

import "time"

// An Explanation says how a Resolution came about.
type Explanation struct {
	Resolution Resolution
	// Steps are the rules that were evaluated, each after its operands; what a
	// chain of conditions did not reach is absent. At most 1000 are kept.
	Steps []Step
}

// A Step is one evaluated rule, or an arm of an if that was taken.
type Step struct {
	Path   string  `json:"path"`             // JSON pointer into the document
	Rule   string  `json:"rule"`             // the operator, or "then" or "else"
	Value  any     `json:"value"`            // what it gave
	Bucket *Bucket `json:"bucket,omitempty"` // of a split
}

// A Bucket is where a split put its subject: By is the text hashed, At the place
// in [0, Of), and [From, To) the range of the entry chosen.
type Bucket struct {
	By   string `json:"by"`
	Hash uint32 `json:"hash"`
	At   uint64 `json:"at"`
	Of   uint64 `json:"of"`
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// Explain evaluates a flag and tells how. It compiles the flag anew with a probe
// at every rule, so it is for people, not for hot paths.
func (s *Set) Explain(key string, ctx Context, now time.Time) Explanation {
	out := Explanation{Resolution: s.Evaluate(key, ctx, now)}
	f := s.flags[key]
	if f == nil || f.pick == nil {
		return out
	}
	t := &tracer{}
	if probe := s.probe(f, t); probe != nil {
		e := &env{trace: t, steps: maxSteps}
		f.bind(e, ctx, now)
		e.now = float64(now.Unix())
		t.run(e, probe)
	}
	out.Steps = t.steps
	return out
}

// probe compiles the flag's rule from the set's document with probes.
func (s *Set) probe(f *Flag, t *tracer) expr {
	root, err := parse(s.source)
	if err != nil {
		return nil // it was parsed before
	}
	c := newCompiler(root)
	c.trace = t
	n := c.enterFlag(root.member("flags"), f.key)
	if n == nil {
		return nil
	}
	c.enter("targeting")
	return c.rule(n.member("targeting"), inRoot).value()
}

// enterFlag finds a flag in either form of "flags".
func (c *compiler) enterFlag(all *node, key string) *node {
	c.enter("flags")
	if all.kind == objectNode {
		c.enter(key)
		return all.member(key)
	}
	for i := range all.items {
		if all.items[i].member("key").str == key {
			c.enterIndex(i)
			return &all.items[i]
		}
	}
	return nil
}

// A tracer collects steps. A nil *tracer is the ordinary case and does nothing.
type tracer struct {
	steps  []Step
	bucket *Bucket
}

// run evaluates for the steps alone; what ends an evaluation early ends this.
func (t *tracer) run(e *env, x expr) {
	defer func() { _ = recover() }()
	x(e)
}

// watch puts a probe around a compiled rule.
func (t *tracer) watch(k code, path, rule string) code {
	x := k.value()
	return code{expr: func(e *env) value {
		v := x(e)
		e.spend(v.parts(e.steps))
		t.add(path, rule, v)
		return v
	}}
}

func (t *tracer) add(path, rule string, v value) {
	const most = 1000
	if len(t.steps) == most {
		return
	}
	s := Step{Path: path, Rule: rule, Value: v.shown()}
	if rule == "fractional" {
		s.Bucket, t.bucket = t.bucket, nil
	}
	t.steps = append(t.steps, s)
}

// shown is a value to show; the whole context is not repeated.
func (v value) shown() any {
	if _, ok := v.ref.(root); ok {
		return map[string]any{}
	}
	return v.toAny()
}

// arm puts a probe around an arm of an if.
func (c *compiler) arm(x expr, a args, i int, name string) expr {
	if c.trace == nil || i >= len(a.nodes) {
		return x
	}
	if !a.single {
		c.enterIndex(i)
		defer c.leave()
	}
	return c.trace.watch(code{expr: x}, c.pointer(), name).expr
}

// landed notes where a split put its subject.
func (e *env) landed(by string, at, of, from, to uint64) {
	if e.trace != nil {
		e.trace.bucket = &Bucket{By: ofText(by).toAny().(string), Hash: murmur3(by), At: at, Of: of, From: from, To: to}
	}
}
