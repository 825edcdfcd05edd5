package differential

import (
	"errors"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// A difference is one that we have decided to have. In most, flagd in Go fails
// with PARSE_ERROR because an operator meets a kind of value that it doesn't
// expect, although operators are said never to fail.
type difference struct {
	// row is the row of the table of inputs on which flagd's own evaluators
	// differ, in its words, or "beyond the table: " and what it is.
	row string
	ops string // the operators, separated by blanks; empty for all
	// fits tells whether the finding is this difference: both whether flagd does
	// what is known of it and whether we do what we have decided.
	fits func(f *finding) bool
}

// known has the special before the general.
var known = []difference{
	{"beyond the table: there is a -0 there, which names another variant than 0", "", func(f *finding) bool {
		return f.err == nil && same(withoutSign(f.theirs), f.ours)
	}},

	// Attributes.
	{"var \"l.length\" on array", "var missing missing_some", func(f *finding) bool {
		return f.err == nil && f.somePath(badIndex) && f.weGive(read(f))
	}},
	{"beyond the table: empty parts of a path, as in \"a.\" and \"a..b\", are passed over there, and are names here", "var missing missing_some", func(f *finding) bool {
		return f.err == nil && f.somePath(hasEmptyPart) && f.weGive(read(f))
	}},
	{"beyond the table: a path in an array that is no text is an error there", "var", func(f *finding) bool {
		return f.err != nil && !f.bare && len(f.args) > 0 && !isText(f.arg(0)) && f.weGive(read(f))
	}},
	{"beyond the table: an object that an arm of an if gives is evaluated as a rule there, even one from the context", "if ?:", func(f *finding) bool {
		last := f.arg(len(f.args) - 1)
		return isObject(last) && len(last.(object)) == 1 && f.weGive(last)
	}},

	// Arithmetic.
	{"{\"-\":2} non-array operand of - * /", "- * / % min max", func(f *finding) bool {
		return f.bare && f.err != nil && f.weGive(arithmetic(f))
	}},
	{"null or bool in + - * /", "+ - * / % min max", func(f *finding) bool {
		return f.err != nil && f.someArg(isNull, isBool) && f.weGive(arithmetic(f))
	}},
	{"beyond the table: an array or object in arithmetic is an error there, 0 here", "+ - * / % min max", func(f *finding) bool {
		return f.err != nil && f.someArg(isArray, isObject) && f.weGive(arithmetic(f))
	}},
	{"1/0, 1%0", "/ %", func(f *finding) bool {
		return f.err == nil && !finite(f.theirs) && f.ours == nil && slices.ContainsFunc(f.args[min(1, len(f.args)):], isZero)
	}},
	{"beyond the table: inf, nan, 1_000 and what is too large are numbers in texts there", "+ - * / % min max == != < <= > >=", func(f *finding) bool {
		return f.err == nil && slices.ContainsFunc(flat(f.args), isGoNumber) && (!isArithmetic(f.op) || f.weGive(arithmetic(f)))
	}},
	{"beyond the table: - and / of an empty array are 0 there, null here", "- /", func(f *finding) bool {
		return f.err == nil && same(f.theirs, 0.0) && (len(f.args) == 0 || f.bare && same(f.arg(0), []any{})) && f.ours == nil
	}},

	// Comparisons.
	{"beyond the table: a text of blanks equals 0 there", "== != < <= > >=", func(f *finding) bool {
		return f.err == nil && f.someArg(isBlank)
	}},

	// Texts.
	{"cat with bool; cat with array", "cat", func(f *finding) bool {
		return f.err != nil && f.someArg(isBool, isArray, isObject) && f.weGive(concatenated(f))
	}},
	{"beyond the table: cat of one operand without an array is an error there", "cat", func(f *finding) bool {
		return f.bare && f.err != nil && f.weGive(concatenated(f))
	}},
	{"beyond the table: cat cuts blanks off both ends there", "cat", func(f *finding) bool {
		s, ok := f.ours.(string)
		return ok && f.err == nil && f.theirs == strings.TrimSpace(s) && f.weGive(concatenated(f))
	}},
	{"beyond the table: substr of a boolean, array or object is an error there, of its text here", "substr", func(f *finding) bool {
		return f.err != nil && !isText(f.arg(0)) && !isNumber(f.arg(0)) && f.weGive(substring(f))
	}},
	{"substr out of range", "substr", func(f *finding) bool {
		return f.weGive(substring(f)) && (f.err != nil || f.theirs == textOf(f.arg(0)))
	}},
	{"in: number or missing needle in a string", "in", func(f *finding) bool {
		hay, ok := f.arg(1).(string)
		return ok && f.err != nil && !isText(f.arg(0)) && f.weGive(!isNull(f.arg(0)) && strings.Contains(hay, textOf(f.arg(0))))
	}},
	{"beyond the table: a number is in a list of texts there", "in", func(f *finding) bool {
		hay, ok := f.args[1].([]any)
		return ok && isNumber(f.arg(0)) && f.weGive(containsSame(hay, f.arg(0))) && !slices.ContainsFunc(hay, isArray)
	}},
	{"beyond the table: an array in a list is a range there", "in", func(f *finding) bool {
		hay, ok := f.args[1].([]any)
		return ok && slices.ContainsFunc(hay, isArray) && f.weGive(containsSame(hay, f.arg(0)))
	}},
	{"beyond the table: an array or object in a list is an error there", "in", func(f *finding) bool {
		return f.err != nil && (isArray(f.arg(0)) || isObject(f.arg(0))) && f.ours == false
	}},

	// flagd's own operators.
	{"beyond the table: a number of a million or more as a version has an exponent there, which no version has", "sem_ver", func(f *finding) bool {
		return f.theirs == nil && isBool(f.ours) && f.someArg(isMillion)
	}},
	{"beyond the table: a weight below -2^63 makes a split null there, and counts as 0 here as all negative ones", "fractional", func(f *finding) bool {
		return f.theirs == nil && slices.ContainsFunc(f.args, func(v any) bool {
			entry, ok := v.([]any)
			return ok && len(entry) > 1 && number(entry[1]) < -1<<63
		})
	}},

	// Arrays.
	{"beyond the table: merge of null or an object without an array is an error there", "merge", func(f *finding) bool {
		return f.bare && f.err != nil && (isNull(f.arg(0)) || isObject(f.arg(0))) && f.weGive(f.args)
	}},
	{"beyond the table: a loop over what is no array is an error there, over nothing here", loops, func(f *finding) bool {
		return f.err != nil && !isArray(f.arg(0)) && f.weGive(looped(f))
	}},
	{"map/filter/some/all reading an outer variable", "filter some none", func(f *finding) bool {
		return f.readsOutside(f.body()) && f.weGive(looped(f))
	}},
	{"beyond the table: all and some put an element's values into the rule before they evaluate it there", "all some", func(f *finding) bool {
		return f.err != nil && f.weGive(looped(f))
	}},
	{"beyond the table: a body that is no rule is an error there", "all some none reduce", func(f *finding) bool {
		return f.err != nil && !isObject(f.body()) && f.weGive(looped(f))
	}},
	{"beyond the table: a reduction keeps the kind it starts with there, and passes over null", "reduce", func(f *finding) bool {
		return f.weGive(looped(f))
	}},
}

// wholeNumbers is a difference of typed evaluation.
const wholeNumbers = "beyond the table: an integer is asked of 1.5: cut to 1 there, TYPE_MISMATCH here, as only lossless conversions are made"

const loops = "map filter all some none reduce"

func explain(f *finding) string {
	for _, d := range known {
		if (d.ops == "" || slices.Contains(strings.Fields(d.ops), f.op)) && f.ourFail == nil && d.fits(f) {
			return d.row
		}
	}
	return ""
}

// arg is the i-th operand, null when it is absent.
func (f *finding) arg(i int) any {
	if i >= len(f.args) {
		return nil
	}
	return f.args[i]
}

func (f *finding) weGive(want any) bool { return same(want, f.ours) }

// someArg tells whether an operand is of one of the kinds.
func (f *finding) someArg(kinds ...func(any) bool) bool {
	return slices.ContainsFunc(f.args, func(v any) bool {
		return slices.ContainsFunc(kinds, func(is func(any) bool) bool { return is(v) })
	})
}

func isNull(v any) bool   { return v == nil }
func isBool(v any) bool   { return kindOf(v) == reflect.Bool }
func isNumber(v any) bool { return kindOf(v) == reflect.Float64 }
func isText(v any) bool   { return kindOf(v) == reflect.String }
func isArray(v any) bool  { return kindOf(v) == reflect.Slice }
func isObject(v any) bool { return kindOf(v) == reflect.Map }
func isZero(v any) bool   { return number(v) == 0 }
func isBlank(v any) bool  { return isText(v) && v != "" && strings.TrimSpace(v.(string)) == "" }

func kindOf(v any) reflect.Kind { return reflect.ValueOf(v).Kind() }

func isMillion(v any) bool { return isNumber(v) && math.Abs(v.(float64)) >= 1e6 }

// isGoNumber: a text that Go reads as a number and others do not.
func isGoNumber(v any) bool {
	s, _ := v.(string)
	f, err := strconv.ParseFloat(s, 64)
	return isNumeral(err) && (!finite(f) || strings.ContainsAny(s, "_xXpP"))
}

// isNumeral: a number beyond the range is one, and infinite.
func isNumeral(err error) bool { return err == nil || errors.Is(err, strconv.ErrRange) }

// withoutSign makes -0 a 0.
func withoutSign(v any) any {
	switch x := v.(type) {
	case float64:
		return x + 0
	case []any:
		out := make([]any, len(x))
		for i, e := range x {
			out[i] = withoutSign(e)
		}
		return out
	}
	return v
}

// flat are values, and those in arrays.
func flat(values []any) []any {
	var out []any
	for _, v := range values {
		out = append(out, v)
		if list, ok := v.([]any); ok {
			out = append(out, list...)
		}
	}
	return out
}

func isArithmetic(op string) bool { return slices.Contains(strings.Fields("+ - * / % min max"), op) }

// body is a loop's rule as written.
func (f *finding) body() any {
	if list, ok := f.rule.([]any); ok && len(list) > 1 {
		return list[1]
	}
	return nil
}

// readsOutside tells whether a loop's body names an attribute that is around the
// loop, or has a default for one.
func (f *finding) readsOutside(rule any) bool {
	switch x := rule.(type) {
	case object:
		if path, ok := x["var"]; ok {
			v, err := byTheirs(object{"var": path}, f.scope)
			return err != nil || v != nil
		}
		for _, v := range x {
			if f.readsOutside(v) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(x, f.readsOutside)
	}
	return false
}

func finite(v any) bool {
	f, ok := v.(float64)
	return !ok || !math.IsNaN(f) && !math.IsInf(f, 0)
}

// The rest is what we have decided that some operators give, written anew and
// plainly.

// number is what a value counts for in arithmetic.
func number(v any) float64 {
	switch x := v.(type) {
	case bool:
		if x {
			return 1
		}
	case float64:
		return x
	case string:
		if f, err := strconv.ParseFloat(x, 64); isNumeral(err) && !strings.ContainsAny(strings.ToLower(x), "xp_in") {
			return f
		}
	}
	return 0
}

func arithmetic(f *finding) any {
	items := f.args
	if f.bare && isArray(items[0]) {
		items = items[0].([]any)
	}
	if len(items) == 0 {
		return map[string]any{"+": 0.0, "*": 1.0}[f.op]
	}
	total := number(items[0])
	if len(items) == 1 && f.op == "-" { // negates
		total = -total
	}
	if f.op == "%" {
		items = items[:min(2, len(items))]
	}
	for _, v := range items[1:] {
		total = calculate(f.op, total, number(v))
	}
	if !finite(total) {
		return nil
	}
	return total + 0 // there is no -0
}

func calculate(op string, a, b float64) float64 {
	switch op {
	case "+":
		return a + b
	case "-":
		return a - b
	case "*":
		return a * b
	case "/":
		return a / b
	case "%":
		return math.Mod(a, b)
	case "min":
		return min(a, b)
	}
	return max(a, b)
}

// textOf is what a value is in a text.
func textOf(v any) string {
	switch x := v.(type) {
	case bool:
		return strconv.FormatBool(x)
	case float64:
		return strconv.FormatFloat(x, 'f', -1, 64)
	case string:
		return x
	case []any:
		var parts []string
		for _, e := range x {
			parts = append(parts, textOf(e))
		}
		return strings.Join(parts, ",")
	}
	return ""
}

func concatenated(f *finding) string {
	items := f.args
	if f.bare && isArray(items[0]) {
		items = items[0].([]any)
	}
	var b strings.Builder
	for _, v := range items {
		b.WriteString(textOf(v))
	}
	return b.String()
}

func substring(f *finding) string {
	runes := []rune(textOf(f.arg(0)))
	n := len(runes)
	from := int(number(f.arg(1)))
	if from < 0 {
		from = max(0, n+from)
	}
	from = min(from, n)
	to := n
	if len(f.args) > 2 {
		if size := int(number(f.args[2])); size < 0 {
			to = n + size
		} else {
			to = from + size
		}
	}
	return string(runes[from:max(from, min(to, n))])
}

// paths are what a var or missing names.
func (f *finding) paths() []any {
	switch {
	case f.op == "missing_some":
		list, _ := f.arg(1).([]any)
		return list
	case f.op == "var" && len(f.args) > 0:
		return f.args[:1]
	case f.bare && isArray(f.arg(0)) || len(f.args) > 0 && isArray(f.arg(0)):
		return f.args[0].([]any)
	}
	return f.args
}

func (f *finding) somePath(is func(data any, path string) bool) bool {
	return slices.ContainsFunc(f.paths(), func(p any) bool { return is(f.scope.theirData(), textOf(p)) })
}

func hasEmptyPart(_ any, path string) bool {
	return path != "" && slices.Contains(strings.Split(path, "."), "")
}

// badIndex tells whether a path goes into an array by what is no index.
func badIndex(data any, path string) bool {
	parts := strings.Split(path, ".")
	for i, part := range parts {
		if list := at(data, parts[:i]); isArray(list) && !isIndex(part) {
			return true
		}
	}
	return false
}

func isIndex(part string) bool {
	i, err := strconv.Atoi(part)
	return err == nil && i >= 0 && strconv.Itoa(i) == part
}

// at is what lies at a path, null when nothing does.
func at(data any, parts []string) any {
	for _, part := range parts {
		switch x := data.(type) {
		case object:
			data = x[part]
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || !isIndex(part) || i >= len(x) {
				return nil
			}
			data = x[i]
		default:
			return nil
		}
	}
	return data
}

func (f *finding) lookup(path any) any {
	if p := textOf(path); p != "" {
		return at(f.scope.theirData(), strings.Split(p, "."))
	}
	return f.scope.theirData()
}

// read is what var, missing and missing_some give.
func read(f *finding) any {
	if f.op == "var" {
		if len(f.args) == 0 {
			return f.scope.theirData()
		}
		v := f.lookup(f.arg(0))
		if v == nil && len(f.args) > 1 {
			v = f.arg(1)
		}
		return v
	}
	lacking := []any{}
	for _, p := range f.paths() {
		if f.lookup(p) == nil {
			lacking = append(lacking, p)
		}
	}
	if f.op == "missing_some" && float64(len(f.paths())-len(lacking)) >= number(f.arg(0)) {
		return []any{}
	}
	return lacking
}

// looped is what a loop gives whose body sees an element and nothing else. The
// engines agree on the body for each element, or there is an inner finding.
func looped(f *finding) any {
	all, _ := f.args[0].([]any)
	if f.op == "reduce" {
		acc := f.arg(1)
		for _, e := range all {
			acc = f.inside("reduce", object{"current": e, "accumulator": acc})
		}
		return acc
	}
	var mapped, kept []any
	for _, e := range all {
		v := f.inside("item", e)
		if mapped = append(mapped, v); truthy(v) {
			kept = append(kept, e)
		}
	}
	switch f.op {
	case "map":
		return append([]any{}, mapped...)
	case "filter":
		return append([]any{}, kept...)
	case "all":
		return len(all) > 0 && len(kept) == len(all)
	case "some":
		return len(kept) > 0
	}
	return len(kept) == 0
}

func (f *finding) inside(kind string, data any) any {
	s := f.scope
	s.kind, s.data = kind, data
	v, err := byTheirs(f.body(), s)
	if err != nil {
		return err
	}
	return v
}

// containsSame is strict: no kind counts for another, and arrays and objects
// equal nothing.
func containsSame(list []any, v any) bool {
	return !isArray(v) && !isObject(v) && slices.ContainsFunc(list, func(e any) bool { return same(e, v) })
}

// explainResult explains outcomes that differ although the rule gives the same
// value v.
func explainResult(v any) string {
	s, _ := v.(string)
	switch {
	case isText(v) && strings.ContainsAny(s, `"<>&`):
		return `variant name with " or <>&`
	}
	return ""
}
