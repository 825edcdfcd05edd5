package flags

import (
	"sort"
	"time"
)

// A Set is a compiled document. It is immutable and safe for concurrent use;
// replace a set by storing another one behind an atomic pointer.
type Set struct {
	flags    map[string]*Flag
	keys     []string
	metadata map[string]any
	pool     *pool
	missing  Resolution
	source   string // the document, for Explain; its strings are shared
}

// Keys returns the keys of all flags, sorted.
func (s *Set) Keys() []string { return append([]string(nil), s.keys...) }

// Len returns the number of flags.
func (s *Set) Len() int { return len(s.keys) }

// Metadata returns the set's metadata, nil when it has none. Do not change it.
func (s *Set) Metadata() map[string]any { return s.metadata }

// Flag returns the flag with that key, or nil. A *Flag is the fastest handle
// there is, and stays what it was when a newer set comes.
func (s *Set) Flag(key string) *Flag { return s.flags[key] }

// UsesTime reports whether the flag's outcome may depend on the clock.
func (s *Set) UsesTime(key string) bool {
	f := s.flags[key]
	return f != nil && f.usesTime
}

// Evaluate resolves a flag without regard to a wanted type.
func (s *Set) Evaluate(key string, ctx Context, now time.Time) Resolution {
	if f := s.flags[key]; f != nil {
		return f.Evaluate(ctx, now)
	}
	return s.missing
}

// Measure is Evaluate, and about how many steps it took: nodes of the rule,
// elements looped over, handfuls of bytes. It is for those who evaluate what
// others wrote many times, and bound the sum.
func (s *Set) Measure(key string, ctx Context, now time.Time) (Resolution, int) {
	f := s.flags[key]
	if f == nil || f.pick == nil {
		return s.Evaluate(key, ctx, now), 1
	}
	b, steps := bulk{set: s, ctx: ctx, now: now}, f.cost+maxSteps
	_, r := f.outcome(b.run(f))
	if b.env != nil {
		steps -= b.env.steps
	}
	b.end()
	return *r, steps
}

// EvaluateAll appends the outcome of every flag, in the order of Keys, to dst
// and returns it. Attributes are read once for all flags, so it is much cheaper
// than evaluating one by one.
func (s *Set) EvaluateAll(ctx Context, now time.Time, dst []Resolution) []Resolution {
	b := bulk{set: s, ctx: ctx, now: now}
	for _, key := range s.keys {
		f := s.flags[key]
		if f.pick == nil {
			dst = append(dst, f.static)
			continue
		}
		_, r := f.outcome(b.run(f))
		dst = append(dst, *r)
	}
	b.end()
	return dst
}

// A bulk shares one environment between evaluations of one context.
type bulk struct {
	set *Set
	ctx Context
	now time.Time
	env *env
}

func (b *bulk) run(f *Flag) (n int) {
	defer func() {
		if p := recover(); p != nil {
			n = panicked(p)
			b.env = nil
		}
	}()
	if b.env == nil {
		b.env = b.set.pool.get()
	}
	e := b.env
	e.steps = maxSteps
	f.bind(e, b.ctx, b.now)
	n = f.pick(e)
	e.scrub()
	return n
}

func (b *bulk) end() {
	if b.env != nil {
		b.set.pool.put(b.env)
	}
}

// Boolean resolves a boolean flag; see [Flag.Boolean].
func (s *Set) Boolean(key string, ctx Context, def bool, now time.Time) (bool, Resolution) {
	if f := s.flags[key]; f != nil {
		return f.Boolean(ctx, def, now)
	}
	return def, withDefault(&s.missing, def)
}

// String resolves a string flag; see [Flag.String].
func (s *Set) String(key string, ctx Context, def string, now time.Time) (string, Resolution) {
	if f := s.flags[key]; f != nil {
		return f.String(ctx, def, now)
	}
	return def, s.missing
}

// Int resolves a number flag with a whole number; see [Flag.Int].
func (s *Set) Int(key string, ctx Context, def int64, now time.Time) (int64, Resolution) {
	if f := s.flags[key]; f != nil {
		return f.Int(ctx, def, now)
	}
	return def, s.missing
}

// Float resolves a number flag; see [Flag.Float].
func (s *Set) Float(key string, ctx Context, def float64, now time.Time) (float64, Resolution) {
	if f := s.flags[key]; f != nil {
		return f.Float(ctx, def, now)
	}
	return def, s.missing
}

// Object resolves an object flag; see [Flag.Object].
func (s *Set) Object(key string, ctx Context, def any, now time.Time) (any, Resolution) {
	if f := s.flags[key]; f != nil {
		return f.Object(ctx, def, now)
	}
	return def, withDefault(&s.missing, def)
}

// Changed returns the keys, sorted, of flags that were added or removed or whose
// state, default variant, variants, targeting (with evaluators put in) or merged
// metadata differ. Writing the same thing differently is no change. Either set
// may be nil.
func Changed(old, new *Set) []string {
	var keys []string
	before, after := old.all(), new.all()
	for key, f := range before {
		if g := after[key]; g == nil || g.digest != f.digest {
			keys = append(keys, key)
		}
	}
	for key := range after {
		if before[key] == nil {
			keys = append(keys, key)
		}
	}
	sort.Strings(keys)
	return keys
}

func (s *Set) all() map[string]*Flag {
	if s == nil {
		return nil
	}
	return s.flags
}
