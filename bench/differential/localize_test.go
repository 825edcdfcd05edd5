package differential

import "fmt"

// A finding is the innermost rule that the engines evaluate differently although
// its operands come out the same.
type finding struct {
	op      string
	bare    bool  // the operand is written without an array around it
	args    []any // the operands' values; those of a loop's body are absent
	rule    any   // the operand as written
	scope   scope
	ours    any
	theirs  any
	err     error // flagd's, if it fails
	ourFail error // ours: explaining failed
}

func (f *finding) String() string {
	return fmt.Sprintf("{%q: %s}\n  operands  %s\n  data      %s (%s)\n  ours      %s %v\n  flagd     %s %v",
		f.op, encode(f.rule), encode(f.args), encode(f.scope.data), f.scope.kind, shown(f.ours), f.ourFail, shown(f.theirs), f.err)
}

// shown prints what may hold a NaN.
func shown(v any) string { return fmt.Sprintf("%#v", v) }

// localize finds where a rule, or an operand, begins to differ; nil if nowhere.
func localize(rule any, s scope) *finding {
	f := &finding{scope: s}
	f.ours, f.ourFail = byOurs(rule, s)
	f.theirs, f.err = byTheirs(rule, s)
	if f.ourFail == nil && f.err == nil && same(f.ours, f.theirs) {
		return nil
	}
	switch x := rule.(type) {
	case []any:
		for _, e := range x {
			if inner := localize(e, s); inner != nil {
				return inner
			}
		}
	case object:
		if len(x) != 1 {
			break
		}
		for op, operand := range x {
			return f.descend(op, operand)
		}
	}
	f.op, f.rule = "literal", rule
	return f
}

func (f *finding) descend(op string, operand any) *finding {
	f.op, f.rule = op, operand
	list, isList := operand.([]any)
	if f.bare = !isList; f.bare {
		list = []any{operand}
	}
	switch op {
	case "if", "?:":
		return f.chain(list)
	case "and", "or":
		return f.until(list, op == "or")
	case "map", "filter", "all", "some", "none", "reduce":
		return f.loop(list)
	}
	for _, e := range list {
		if inner := localize(e, f.scope); inner != nil {
			return inner
		}
		f.args = append(f.args, f.value(e))
	}
	return f
}

// value is what an operand comes to; the engines agree on it.
func (f *finding) value(operand any) any {
	v, err := byTheirs(operand, f.scope)
	if err != nil {
		return err.Error()
	}
	return v
}

// chain follows an if to the arm that is taken.
func (f *finding) chain(list []any) *finding {
	for i := 0; i < len(list); i += 2 {
		taken := list[i : i+1]
		if i+1 < len(list) && f.holds(list[i]) {
			taken = list[i : i+2]
		}
		for _, e := range taken {
			if inner := localize(e, f.scope); inner != nil {
				return inner
			}
			f.args = append(f.args, f.value(e))
		}
		if len(taken) == 2 {
			break
		}
	}
	return f
}

// holds tells whether flagd takes an arm.
func (f *finding) holds(condition any) bool {
	v, err := byTheirs(condition, f.scope)
	return err == nil && truthy(v)
}

// until follows an and, or an or, to the operand that decides.
func (f *finding) until(list []any, stop bool) *finding {
	for _, e := range list {
		if inner := localize(e, f.scope); inner != nil {
			return inner
		}
		v := f.value(e)
		if f.args = append(f.args, v); truthy(v) == stop {
			break
		}
	}
	return f
}

// loop looks into the array, into the start of a reduction, and then into the
// body for each element.
func (f *finding) loop(list []any) *finding {
	for i, e := range list {
		if i == 1 {
			continue
		}
		if inner := localize(e, f.scope); inner != nil {
			return inner
		}
		f.args = append(f.args, f.value(e))
	}
	if len(list) < 2 || f.op == "reduce" && len(list) < 3 {
		return f // flagd gives something without looking
	}
	all, _ := f.args[0].([]any)
	acc := f.args[len(f.args)-1]
	for _, e := range all {
		s := f.scope
		s.kind, s.data = "item", e
		if f.op == "reduce" {
			s.kind, s.data = "reduce", object{"current": e, "accumulator": acc}
		}
		if inner := localize(list[1], s); inner != nil {
			return inner
		}
		if v, err := byTheirs(list[1], s); f.op == "reduce" && err == nil {
			acc = v
		}
	}
	return f
}

func truthy(v any) bool {
	switch x := v.(type) {
	case bool:
		return x
	case float64:
		return x != 0
	case string:
		return x != ""
	case []any:
		return len(x) > 0
	case object:
		return len(x) > 0
	}
	return false
}
