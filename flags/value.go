package flags

import (
	"math"
	"strconv"
	"strings"
)

type kind uint8

const (
	null kind = iota
	boolean
	number
	text
	array
	object
)

// A value is what rules compute with. It travels in registers and never boxes a
// scalar, which is what keeps an evaluation free of allocations.
type value struct {
	kind kind
	num  float64 // number; 1 for true
	str  string  // text; may point into the evaluation's scratch
	ref  any     // array: *list, []any, []string. object: map[string]any, map[string]string, root
}

// A list is an array made by a rule or written in one.
type list struct{ items []value }

// root stands for the whole context: never empty, as it holds "$flagd".
type root struct{}

// ofBool, ofNum and ofText make values. A number that is not finite has no JSON
// form; it counts as null, as division by zero does.
func ofBool(b bool) value {
	if b {
		return value{kind: boolean, num: 1}
	}
	return value{kind: boolean}
}

func ofNum(f float64) value {
	if f-f != 0 {
		return value{}
	}
	return value{kind: number, num: f + 0} // -0 would name another variant than 0
}

func ofText(s string) value { return value{kind: text, str: s} }

// truthy: false, 0, "", null, [] and {} are false. Both public engines agree on
// {} although the JsonLogic community does not.
func (v value) truthy() bool {
	switch v.kind {
	case boolean, number:
		return v.num != 0
	case text:
		return v.str != ""
	case array:
		return v.len() > 0
	case object:
		return objectLen(v.ref) > 0
	}
	return false
}

func (v value) len() int {
	switch a := v.ref.(type) {
	case *list:
		return len(a.items)
	case []any:
		return len(a)
	case []string:
		return len(a)
	}
	return 0
}

func (v value) at(i int) value {
	switch a := v.ref.(type) {
	case *list:
		return a.items[i]
	case []any:
		return fromAny(a[i])
	case []string:
		return ofText(a[i])
	}
	return value{}
}

func objectLen(ref any) int {
	switch o := ref.(type) {
	case map[string]any:
		return len(o)
	case map[string]string:
		return len(o)
	}
	return 1
}

// numeric converts for comparison: only what is plainly a number. Null is none,
// so a missing attribute does not equal 0.
func (v value) numeric() (float64, bool) {
	switch v.kind {
	case boolean, number:
		return v.num, true
	case text:
		return parseDecimal(v.str)
	}
	return 0, false
}

// operand converts for arithmetic, where what is not a number counts as 0.
func (v value) operand() float64 {
	f, _ := v.numeric()
	return f
}

// parseDecimal reads a decimal number; blanks, hexadecimal, "inf" are none, the
// empty string is 0. The shape is checked first because a failing ParseFloat
// allocates its error.
func parseDecimal(s string) (float64, bool) {
	if s == "" {
		return 0, true
	}
	if !decimalShape(s) {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil
}

func decimalShape(s string) bool {
	if s[0] == '+' || s[0] == '-' {
		s = s[1:]
	}
	whole := digitsOf(s)
	s = s[whole:]
	part := 0
	if strings.HasPrefix(s, ".") {
		part = digitsOf(s[1:])
		s = s[1+part:]
	}
	if whole+part == 0 {
		return false
	}
	if s == "" {
		return true
	}
	if s[0]|0x20 != 'e' {
		return false
	}
	if s = s[1:]; s != "" && (s[0] == '+' || s[0] == '-') {
		s = s[1:]
	}
	return s != "" && digitsOf(s) == len(s)
}

// digitsOf counts the decimal digits s starts with.
func digitsOf(s string) int {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return i
		}
	}
	return len(s)
}

// looseEqual is ==: scalars are compared as numbers when their kinds differ,
// null equals only null, arrays and objects equal nothing.
func looseEqual(a, b value) bool {
	if a.kind == b.kind {
		return strictEqual(a, b)
	}
	if a.kind == null || b.kind == null {
		return false
	}
	x, ok := a.numeric()
	if !ok {
		return false
	}
	y, ok := b.numeric()
	return ok && x == y
}

// strictEqual is ===.
func strictEqual(a, b value) bool {
	if a.kind != b.kind {
		return false
	}
	switch a.kind {
	case null:
		return true
	case boolean, number:
		return a.num == b.num
	case text:
		return a.str == b.str
	}
	return false
}

// appendPlain writes a number as cat does: never with an exponent.
func appendPlain(b []byte, f float64) []byte {
	return strconv.AppendFloat(b, f, 'f', -1, 64)
}

// appendNumber writes a number in its JSON form, which names variants.
func appendNumber(b []byte, f float64) []byte {
	if abs := math.Abs(f); f == 0 || abs >= 1e-6 && abs < 1e21 {
		return appendPlain(b, f)
	}
	b = strconv.AppendFloat(b, f, 'e', -1, 64)
	if n := len(b); n >= 4 && b[n-4] == 'e' && b[n-2] == '0' {
		b[n-2] = b[n-1] // e-07 is written e-7
		b = b[:n-1]
	}
	return b
}

// toAny turns a value into plain Go data that outlives the evaluation. What came
// from the context is shared with it.
func (v value) toAny() any {
	switch v.kind {
	case boolean:
		return v.num != 0
	case number:
		return v.num
	case text:
		return strings.Clone(v.str)
	case array:
		if a, ok := v.ref.([]any); ok {
			return a
		}
		out := make([]any, v.len())
		for i := range out {
			out[i] = v.at(i).toAny()
		}
		return out
	case object:
		if m, ok := v.ref.(map[string]string); ok {
			out := make(map[string]any, len(m))
			for k, s := range m {
				out[k] = s
			}
			return out
		}
		return v.ref
	}
	return nil
}

// parts counts a value and what is in it, up to about most. A list may be in a
// list many times over, so a small rule can give more than memory holds.
func (v value) parts(most int) int {
	n := 1
	if l, ok := v.ref.(*list); ok {
		for i := 0; i < len(l.items) && n <= most; i++ {
			n += l.items[i].parts(most - n)
		}
	}
	return n
}

// frozen copies a value out of the evaluation's scratch.
func (v value) frozen() value {
	switch v.kind {
	case text:
		return ofText(strings.Clone(v.str))
	case array:
		l := &list{items: make([]value, v.len())}
		for i := range l.items {
			l.items[i] = v.at(i).frozen()
		}
		return value{kind: array, ref: l}
	}
	return v
}
