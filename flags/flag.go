package flags

import (
	"time"
)

// Reason says how a value came about. flagd's wire names are used as they are;
// a split by fractional is a TARGETING_MATCH.
type Reason string

// The reasons an evaluation gives.
const (
	ReasonStatic         Reason = "STATIC"          // no rule, the default variant
	ReasonDefault        Reason = "DEFAULT"         // the rule chose nothing, or no default variant
	ReasonTargetingMatch Reason = "TARGETING_MATCH" // the rule chose the variant
	ReasonDisabled       Reason = "DISABLED"        // a success without a value
	ReasonError          Reason = "ERROR"
)

// ErrorCode is OpenFeature's code of a failed evaluation; "" is success.
type ErrorCode string

// The error codes an evaluation gives. Compile refuses what flagd would answer
// with PARSE_ERROR; the name is here for those who serve documents of others.
const (
	FlagNotFound ErrorCode = "FLAG_NOT_FOUND"
	ParseError   ErrorCode = "PARSE_ERROR"
	TypeMismatch ErrorCode = "TYPE_MISMATCH"
	General      ErrorCode = "GENERAL"
)

// Type is the type of all variants of a flag. The zero Type is no type.
type Type uint8

// The types of flags.
const (
	_ Type = iota
	Boolean
	String
	Number
	Object
)

func (t Type) String() string {
	switch t {
	case Boolean:
		return "boolean"
	case String:
		return "string"
	case Number:
		return "number"
	case Object:
		return "object"
	}
	return "unknown"
}

// A Resolution is the outcome of one evaluation.
//
// Value is the variant's value (bool, string, float64 or map[string]any),
// shared by all evaluations: read it, do not change it. It is nil when there is
// none: a flag that is disabled, leaves the choice to the code, or failed.
// Metadata is the set's overlaid by the flag's, shared and read-only, nil when
// empty.
type Resolution struct {
	Value       any
	Variant     string
	Reason      Reason
	ErrorCode   ErrorCode
	ErrorDetail string
	Metadata    map[string]any
}

// A variant is one value of a flag, ready for every accessor.
type variant struct {
	name  string
	boxed any
	truth bool
	str   string
	num   float64
	match Resolution // the outcome of a rule that chooses it
}

// A Flag is one flag, compiled. It is immutable and safe for concurrent use.
type Flag struct {
	key      string
	typ      Type
	enabled  bool
	variants []variant // sorted by name
	index    map[string]int
	preset   int // the default variant, or none
	metadata map[string]any

	pick     pick // nil without targeting
	usesTime bool
	cost     int // nodes of the rule
	pool     *pool
	digest   uint64

	static   Resolution // outcome when no rule is asked
	unset    Resolution // the rule chose nothing
	unknown  Resolution // the rule chose what is no variant
	mismatch Resolution // the variant has another type; its name is filled in
	failed   Resolution // the rule panicked
	overrun  Resolution // the rule used up its steps
}

// Variants returns the names of the variants, sorted.
func (f *Flag) Variants() []string {
	names := make([]string, len(f.variants))
	for i := range f.variants {
		names[i] = f.variants[i].name
	}
	return names
}

// Metadata returns the set's metadata overlaid by the flag's. Do not change it.
func (f *Flag) Metadata() map[string]any { return f.metadata }

// Evaluate resolves the flag without regard to a wanted type. now is read only
// by rules about $flagd.timestamp.
func (f *Flag) Evaluate(ctx Context, now time.Time) Resolution {
	_, r := f.resolve(ctx, now)
	return *r
}

// resolve returns the variant's number, or none, and the outcome prepared for it.
func (f *Flag) resolve(ctx Context, now time.Time) (int, *Resolution) {
	if f.pick == nil {
		return f.staticVariant(), &f.static
	}
	return f.outcome(f.run(ctx, now))
}

func (f *Flag) staticVariant() int {
	if !f.enabled {
		return none
	}
	return f.preset
}

// outcome maps what a rule picked to the outcome prepared for it.
func (f *Flag) outcome(n int) (int, *Resolution) {
	switch {
	case n >= 0:
		return n, &f.variants[n].match
	case n == none:
		return f.preset, &f.unset
	case n == unknownName:
		return none, &f.unknown
	case n == outOfSteps:
		return none, &f.overrun
	}
	return none, &f.failed
}

// run evaluates the rule in a pooled environment. A panic costs this one
// evaluation, never the process, and its environment is not used again.
func (f *Flag) run(ctx Context, now time.Time) (n int) {
	e := f.pool.get()
	defer func() {
		if p := recover(); p != nil {
			n = panicked(p)
			return
		}
		f.pool.put(e)
	}()
	f.bind(e, ctx, now)
	return f.pick(e)
}

func (f *Flag) bind(e *env, ctx Context, now time.Time) {
	e.ctx, e.key = ctx, f.key
	if f.usesTime {
		e.now = float64(now.Unix())
	}
}

func panicked(p any) int {
	if _, ok := p.(budgetError); ok {
		return outOfSteps
	}
	return broken
}

// Boolean resolves a boolean flag. The Resolution's Value is the value returned.
func (f *Flag) Boolean(ctx Context, def bool, now time.Time) (bool, Resolution) {
	n, r := f.resolve(ctx, now)
	if n < 0 {
		return def, withDefault(r, def)
	}
	if f.typ != Boolean {
		return def, withDefault(f.mismatched(n), def)
	}
	return f.variants[n].truth, *r
}

// String resolves a string flag. The Resolution's Value is nil, not def, when def is
// returned: boxing a string would allocate.
func (f *Flag) String(ctx Context, def string, now time.Time) (string, Resolution) {
	n, r := f.resolve(ctx, now)
	if n < 0 {
		return def, *r
	}
	if f.typ != String {
		return def, *f.mismatched(n)
	}
	return f.variants[n].str, *r
}

// Float resolves a number flag. The Resolution's Value is nil when def is returned.
func (f *Flag) Float(ctx Context, def float64, now time.Time) (float64, Resolution) {
	n, r := f.resolve(ctx, now)
	if n < 0 {
		return def, *r
	}
	if f.typ != Number {
		return def, *f.mismatched(n)
	}
	return f.variants[n].num, *r
}

// Int resolves a number flag whose variant is a whole number; any other is a
// TYPE_MISMATCH, as it could not be converted without loss. The Resolution's Value is the
// variant's float64, or nil when def is returned.
func (f *Flag) Int(ctx Context, def int64, now time.Time) (int64, Resolution) {
	n, r := f.resolve(ctx, now)
	if n < 0 {
		return def, *r
	}
	whole := int64(f.variants[n].num)
	if f.typ != Number || float64(whole) != f.variants[n].num {
		return def, *f.mismatched(n)
	}
	return whole, *r
}

// Object resolves an object flag. The Resolution's Value is the value returned; when it is
// the flag's, it is shared and must not be changed.
func (f *Flag) Object(ctx Context, def any, now time.Time) (any, Resolution) {
	n, r := f.resolve(ctx, now)
	if n < 0 {
		return def, withDefault(r, def)
	}
	if f.typ != Object {
		return def, withDefault(f.mismatched(n), def)
	}
	return f.variants[n].boxed, *r
}

func withDefault(r *Resolution, def any) Resolution {
	out := *r
	out.Value = def
	return out
}

// mismatched returns the outcome of asking for another type than variant n has.
func (f *Flag) mismatched(n int) *Resolution {
	r := f.mismatch
	r.Variant = f.variants[n].name
	return &r
}

// prepare builds the outcomes of the flag, so that evaluating only picks one.
func (f *Flag) prepare() {
	for i := range f.variants {
		v := &f.variants[i]
		v.match = Resolution{Value: v.boxed, Variant: v.name, Reason: ReasonTargetingMatch, Metadata: f.metadata}
	}
	f.static = Resolution{Reason: ReasonDefault, Metadata: f.metadata}
	f.unset = f.static
	if f.preset >= 0 {
		v := &f.variants[f.preset]
		f.unset.Value, f.unset.Variant = v.boxed, v.name
		f.static = f.unset
		f.static.Reason = ReasonStatic
	}
	if !f.enabled {
		f.static = Resolution{Reason: ReasonDisabled, Metadata: f.metadata}
		f.pick = nil
	}
	name := "flag " + quote(f.key)
	f.unknown = f.failure(General, "the rule of "+name+" gives no name of a variant")
	f.mismatch = f.failure(TypeMismatch, name+" has another type: its variants are of type "+f.typ.String())
	f.failed = f.failure(General, "evaluating "+name+" failed")
	f.overrun = f.failure(General, "evaluating "+name+": "+budgetError{}.Error())
}

func (f *Flag) failure(code ErrorCode, detail string) Resolution {
	return Resolution{Reason: ReasonError, ErrorCode: code, ErrorDetail: detail, Metadata: f.metadata}
}
