package differential

import (
	"fmt"
	"math/rand/v2"
)

// A source decides what is generated. pick gives a number below n.
type source interface{ pick(n int) int }

// random is a source of any length.
type random struct{ *rand.Rand }

func (r random) pick(n int) int { return r.IntN(n) }

// entropy is a source of bytes, for fuzzing. Where it ends everything is 0,
// which generates the smallest things.
type entropy struct{ bytes []byte }

func (e *entropy) pick(n int) int {
	if len(e.bytes) == 0 {
		return 0
	}
	b := e.bytes[0]
	e.bytes = e.bytes[1:]
	return int(b) % n
}

// A generator makes documents and contexts that our compiler takes: only what
// flagd's schema allows, but of that the odd as often as the usual.
type generator struct {
	source
	evaluators int // how many there are to refer to
}

func of[T any](g *generator, options ...T) T { return options[g.pick(len(options))] }

func (g *generator) chance(percent int) bool { return g.pick(100) >= 100-percent }

func (g *generator) many(least, most int, one func() any) []any {
	out := []any{}
	for range least + g.pick(most-least+1) {
		out = append(out, one())
	}
	return out
}

type object = map[string]any

// document makes a set of n flags, f-0 and so on.
func (g *generator) document(n int) object {
	doc := object{"flags": object{}}
	if g.chance(30) {
		evaluators := object{}
		for i := range 1 + g.pick(2) {
			evaluators[fmt.Sprintf("e-%d", i)] = g.operation(2)
		}
		doc["$evaluators"], g.evaluators = evaluators, len(evaluators)
	}
	if g.chance(30) {
		doc["metadata"] = g.metadata()
	}
	for i := range n {
		doc["flags"].(object)[fmt.Sprintf("f-%d", i)] = g.flag()
	}
	return doc
}

func (g *generator) metadata() object {
	return object{"flagSetId": of(g, "set-a", "set-b"), "owner": of[any](g, "me", 7.0, true), "tier": of[any](g, 1.5, "gold")}
}

func (g *generator) flag() object {
	variants := g.variants()
	f := object{"state": "ENABLED", "variants": variants}
	if g.chance(5) {
		f["state"] = "DISABLED"
	}
	switch g.pick(6) {
	case 0:
	case 1:
		f["defaultVariant"] = nil
	case 2:
		f["defaultVariant"] = ""
	default:
		f["defaultVariant"] = "off"
	}
	switch {
	case g.chance(90):
		f["targeting"] = g.targeting()
	case g.chance(50):
		f["targeting"] = object{}
	}
	if g.chance(20) {
		f["metadata"] = object{"owner": "flag", "extra": of[any](g, true, 3.0, "x")}
	}
	return f
}

// names are variants that rules hit often: what a rule gives names a variant by
// its text.
var names = []string{"on", "off", "true", "false", "1", "0", "2.5", "3", "abc", "a b", "100", "-1", "ü"}

func (g *generator) variants() object {
	kind := g.pick(4)
	out := variants(kind)
	if g.chance(10) {
		out[of(g, `say "on"`, "a<b", "R&D")] = out["on"]
	}
	return out
}

// variants are of one of four types, with all the names.
func variants(kind int) object {
	out := object{}
	for i, name := range names {
		out[name] = []any{i%2 == 0, fmt.Sprintf("value %d", i), float64(i) * 1.5, object{"n": float64(i), "list": []any{"x", 1.0}}}[kind]
	}
	return out
}

func (g *generator) targeting() object {
	switch {
	case g.chance(40):
		return object{"if": append(g.many(1, 1, func() any { return g.operation(2) }), g.arm(), g.arm())}
	case g.chance(15):
		return object{"fractional": g.split(1)}
	}
	return g.operation(3)
}

func (g *generator) arm() any {
	switch {
	case g.chance(70):
		return of[any](g, "on", "off", "abc", nil, true, "nobody")
	case g.chance(50):
		return object{"fractional": g.split(0)}
	}
	return g.operation(1)
}

// operand is a constant, an attribute, or, above depth 0, a rule.
func (g *generator) operand(depth int) any {
	switch {
	case depth > 0 && g.chance(45):
		return g.operation(depth - 1)
	case g.chance(50):
		return g.variable()
	}
	return g.constant(1)
}

var texts = []string{
	"abc", "", "a", "20", " 20 ", "0x20", "1.5", "1e2", "on", "off", "true", "null", "1.2.3", "v1.2", "2.0.0-rc.1", "ü", "日本", "a ", " ", "xabcx", "ejOoVL",
	"Infinity", "nan", "1_000", "-0", "+5", "a,b", "  ",
}

var numbers = []float64{1, 0, -1, 2, 2.5, 3, 20, 100, 1e-7, 9007199254740991, -2.5, 0.1}

func (g *generator) scalar() any {
	switch g.pick(6) {
	case 0, 1, 2:
		return of(g, texts...)
	case 3, 4:
		return of(g, numbers...)
	}
	return of[any](g, true, false, nil)
}

// constant is no rule: objects have no member or several.
func (g *generator) constant(depth int) any {
	switch {
	case depth > 0 && g.chance(12):
		return g.many(0, 3, func() any { return g.constant(depth - 1) })
	case g.chance(4):
		return of(g, object{}, object{"x": 1.0, "y": "abc"})
	}
	return g.scalar()
}

var paths = []string{
	"text", "number", "flag", "nothing", "list", "numbers", "objects", "user", "user.name", "user.age", "user.tags", "user.tags.0", "list.1", "list.9",
	"version", "email", "targetingKey", "$flagd.flagKey", "$flagd.timestamp", "list.x", "nested.0.1", "nested.1", "user.", "user..name", "rule", "missing.deep", "objects.0.x", "empty", "odd",
}

func (g *generator) variable() any {
	switch {
	case g.chance(10):
		return object{"var": []any{of(g, paths...), g.scalar()}}
	case g.chance(3):
		return object{"var": of[any](g, "", "x", "y", 0.0, []any{}, []any{1.0})}
	}
	return object{"var": of(g, paths...)}
}

func (g *generator) element() any {
	return object{"var": of(g, "", "x", "y", "0", "text", "number")}
}

var comparisons = []string{"==", "!=", "===", "!==", "<", "<=", ">", ">="}

// operation is a rule.
func (g *generator) operation(depth int) object {
	one := func() any { return g.operand(depth) }
	switch g.pick(26) {
	case 0:
		return object{"and": g.many(1, 3, one)}
	case 1:
		return object{"or": g.many(1, 3, one)}
	case 2:
		return object{of(g, "!", "!!"): of(g, any(g.many(1, 1, one)), one())}
	case 3, 4, 5:
		return object{of(g, comparisons...): g.many(2, 2, one)}
	case 6:
		return object{of(g, "<", "<=", ">", ">="): g.many(3, 3, one)}
	case 7:
		return object{of(g, "+", "*", "-", "/", "%"): g.many(2, 2, one)}
	case 8:
		return object{of(g, "+", "*", "-", "min", "max"): g.many(1, 3, one)}
	case 9:
		return object{of(g, "+", "-", "!", "!!", "cat", "merge"): one()}
	case 10:
		return object{"cat": g.many(1, 3, one)}
	case 11:
		return object{"substr": g.substring(depth)}
	case 12, 13:
		return object{"in": []any{one(), g.haystack(depth)}}
	case 14:
		return object{"merge": g.many(1, 3, one)}
	case 15:
		return object{of(g, "starts_with", "ends_with"): []any{g.text(depth), g.text(depth)}}
	case 16, 17:
		return object{"sem_ver": []any{g.version(depth), of(g, "=", "!=", "<", "<=", ">", ">=", "^", "~"), g.version(depth)}}
	case 18:
		return object{"fractional": g.split(depth)}
	case 19:
		return object{"missing": g.many(1, 3, func() any { return of(g, paths...) })}
	case 20:
		return object{"missing_some": []any{of(g, 1.0, 2.0), g.many(1, 3, func() any { return of(g, paths...) })}}
	case 21:
		return object{of(g, "map", "filter"): []any{g.array(depth), g.body(depth)}}
	case 22:
		return object{of(g, "all", "some", "none"): []any{g.array(depth), g.body(depth)}}
	case 23:
		return object{"reduce": []any{g.array(depth), g.folding(), of[any](g, 0.0, 1.0, "", false)}}
	case 24:
		if g.evaluators > 0 {
			return object{"$ref": fmt.Sprintf("e-%d", g.pick(g.evaluators))}
		}
		return g.variable().(object)
	}
	return object{of(g, "if", "if", "?:"): g.many(1, 5, one)}
}

func (g *generator) substring(depth int) []any {
	out := []any{g.text(depth), of[any](g, 0.0, 1.0, -1.0, -2.0, 5.0, -9.0)}
	if g.chance(50) {
		out = append(out, of[any](g, 0.0, 1.0, 2.0, -1.0, 9.0, -9.0))
	}
	return out
}

// text is mostly one.
func (g *generator) text(depth int) any {
	switch {
	case g.chance(40):
		return of(g, texts...)
	case depth > 0 && g.chance(20):
		return object{"cat": g.many(1, 2, func() any { return g.text(depth - 1) })}
	}
	return object{"var": of(g, "text", "email", "user.name", "targetingKey", "nothing", "number", "odd", "flag")}
}

func (g *generator) haystack(depth int) any {
	switch {
	case g.chance(50):
		return g.many(0, 4, func() any { return g.scalar() })
	case g.chance(50):
		return object{"var": of(g, "list", "numbers", "text", "nothing", "user.tags", "user", "nested")}
	}
	return g.operand(depth)
}

func (g *generator) version(depth int) any {
	switch {
	case g.chance(60):
		return of(g, "1.2.3", "v1.2.3", "1.2", "2.0.0-rc.1", "2.0.0-rc.2+build", "1", "V3", "0.9.0", "99999999999.0.0", "1.10.0")
	case g.chance(60):
		return object{"var": of(g, "version", "user.version", "number", "nothing")}
	}
	return g.operand(depth)
}

func (g *generator) array(depth int) any {
	switch {
	case g.chance(60):
		return object{"var": of(g, "list", "numbers", "objects", "user.tags", "nothing", "empty", "text", "nested", "rule")}
	case g.chance(60):
		return g.many(0, 3, func() any { return g.scalar() })
	case depth > 0:
		return of(g, object{"merge": g.many(1, 2, func() any { return g.operand(depth - 1) })}, object{"filter": []any{g.array(depth - 1), g.body(depth - 1)}})
	}
	return object{"var": "list"}
}

// body is what a loop does with an element.
func (g *generator) body(depth int) any {
	one := func() any {
		if g.chance(60) {
			return g.element()
		}
		return g.operand(0)
	}
	switch g.pick(6) {
	case 0, 1:
		return object{of(g, comparisons...): g.many(2, 2, one)}
	case 2:
		return g.element()
	case 3:
		return object{"cat": g.many(1, 2, one)}
	case 4:
		return object{of(g, "starts_with", "in", "+", "*"): []any{one(), one()}}
	case 5:
		if g.chance(20) {
			return g.constant(0)
		}
	}
	return g.operation(max(0, depth-1))
}

func (g *generator) folding() any {
	acc, current := object{"var": "accumulator"}, object{"var": of(g, "current", "current.x", "current")}
	return of[any](g, object{"+": []any{acc, current}}, object{"cat": []any{acc, current}}, object{"or": []any{acc, current}},
		object{"max": []any{acc, current}}, object{"if": []any{current, acc, current}})
}

func (g *generator) split(depth int) []any {
	var out []any
	switch {
	case g.chance(40):
		out = append(out, object{"var": of(g, "targetingKey", "email", "text", "nothing", "user.name")})
	case g.chance(30):
		out = append(out, object{"cat": []any{of(g, texts...), object{"var": of(g, "targetingKey", "email", "number")}}})
	case g.chance(10):
		out = append(out, g.text(depth))
	}
	for range 1 + g.pick(3) {
		variant := of[any](g, "on", "off", "abc", "1", true, 2.5, nil)
		if depth > 0 && g.chance(15) {
			variant = g.operation(depth - 1)
		}
		entry := []any{variant}
		if g.chance(80) {
			entry = append(entry, g.weight())
		}
		out = append(out, entry)
	}
	return out
}

func (g *generator) weight() any {
	switch {
	case g.chance(80):
		return of[any](g, 50.0, 1.0, 0.0, 25.0, 100.0, 2147483647.0)
	case g.chance(60):
		return object{"var": of(g, "number", "user.age", "nothing", "text")}
	}
	return object{"-": []any{of(g, numbers...), object{"var": "number"}}}
}

// context makes attributes; some are of another kind than rules expect.
func (g *generator) context() object {
	c := object{}
	put := func(name string, percent int, v any) {
		if g.chance(percent) {
			c[name] = v
		}
	}
	put("targetingKey", 90, of[any](g, "user-1", "ejOoVL", "6LvT0", "abc", "ü", "", 7.0))
	put("text", 90, of(g, append(texts, "  ", "1e999")...))
	put("number", 90, of(g, append(numbers, 1e21, 1e-9)...))
	put("flag", 80, of[any](g, true, false, "true"))
	put("list", 90, g.many(0, 3, func() any { return g.scalar() }))
	put("numbers", 90, g.many(0, 3, func() any { return of(g, numbers...) }))
	put("objects", 80, g.many(0, 3, func() any { return object{"x": g.scalar(), "y": g.scalar()} }))
	put("empty", 80, []any{})
	put("nested", 60, []any{[]any{1.0, of(g, numbers...)}, of[any](g, object{"x": 1.0}, []any{}, "abc")})
	put("rule", 60, of(g, object{"var": "text"}, object{"cat": []any{"o", "n"}}, object{"nothing": 1.0}, object{"x": object{}}))
	put("$flagd", 10, object{"flagKey": "mine", "timestamp": 0.0})
	put("version", 90, of[any](g, "1.2.3", "2.0.0-rc.1", "v1.3", "1.2.x", 1.0))
	put("email", 90, of(g, "ada@example.com", "bob@example.org", "abc"))
	put("odd", 70, g.constant(2))
	put("user", 90, object{"name": of(g, texts...), "age": of(g, numbers...), "version": "1.2.3", "tags": g.many(0, 3, func() any { return of(g, texts...) })})
	return c
}
