package flags

import (
	"math"
	"sort"
	"strings"
)

// A Warning is a construct that is evaluated in one way here and in another by
// some public implementation of flagd's semantics.
type Warning struct {
	Path string // JSON pointer into the document
	Rule string // short, stable name of the kind of construct
	Msg  string // who does what
}

// Lint reports constructs on which public implementations differ: flagd in Go
// (which also serves most providers over the wire) and flagd-core for
// JavaScript, which evaluates in the process. Warnings are sorted by path. A
// document that does not parse has none: Compile says what is wrong with it.
func Lint(doc []byte) []Warning {
	root, err := parse(string(doc))
	if err != nil || root.kind != objectNode {
		return nil
	}
	l := &linter{}
	l.flags(root.member("flags"))
	l.evaluators(root.member("$evaluators"))
	sort.SliceStable(l.found, func(a, b int) bool { return l.found[a].Path < l.found[b].Path })
	return l.found
}

type linter struct {
	report
	found   []Warning
	inLoop  bool
	inSplit bool
	outer   map[string]bool // attributes the rule reads outside of loops
}

func (l *linter) warn(rule, msg string) {
	l.found = append(l.found, Warning{Path: l.pointer(), Rule: rule, Msg: msg})
}

func (l *linter) flags(n *node) {
	if n == nil {
		return
	}
	l.enter("flags")
	defer l.leave()
	if n.kind == arrayNode {
		l.warn("flags-array", "flagd reads flags in an array; in-process providers and flagd-core JS read an object only")
	}
	l.each(n, l.flag)
}

func (l *linter) flag(n *node) {
	if v := n.member("variants"); v != nil {
		l.enter("variants")
		l.variants(v)
		l.leave()
	}
	t := n.member("targeting")
	if t == nil {
		return
	}
	l.enter("targeting")
	defer l.leave()
	if t.kind == nullNode {
		l.warn("targeting-null", "null is no targeting here and STATIC in flagd-core JS; flagd Go reports DEFAULT")
		return
	}
	l.start(t)
}

// start lints a whole rule.
func (l *linter) start(n *node) {
	l.outer = map[string]bool{}
	l.collect(n, false)
	l.rule(n)
}

func (l *linter) variants(n *node) {
	for i, name := range n.keys {
		l.enter(name)
		if strings.ContainsAny(name, `"<>&`) {
			l.warn("variant-name", "a rule never matches a variant with \" < > or & in its name in flagd Go; here and in JS it does")
		}
		l.references(&n.items[i])
		l.leave()
	}
}

// references finds what flagd would replace inside a variant's value.
func (l *linter) references(n *node) {
	if name, _, ok := n.rule(); ok && name == refOperator {
		l.warn("ref-in-value", "flagd substitutes $ref in values too; here a value is data and stays as it is")
	}
	l.each(n, l.references)
}

func (l *linter) evaluators(n *node) {
	if n == nil {
		return
	}
	l.enter("$evaluators")
	defer l.leave()
	for i, name := range n.keys {
		l.enter(name)
		if e := &n.items[i]; e.kind == objectNode && len(e.items) == 0 {
			l.warn("evaluator-empty", "an empty evaluator makes flagd Go refuse the document; here and in JS it chooses nothing")
		} else {
			l.start(e)
			l.nested(e)
		}
		l.leave()
	}
}

// nested finds references between evaluators.
func (l *linter) nested(n *node) {
	name, _, ok := n.rule()
	if ok && name == refOperator {
		l.warn("ref-nested", "flagd replaces references in one pass of no fixed order: one inside an evaluator may stay unresolved (PARSE_ERROR)")
	}
	l.each(n, l.nested)
}

// collect notes the attributes read outside of loops.
func (l *linter) collect(n *node, loop bool) {
	op, operand, ok := n.rule()
	if ok && op == "var" && !loop {
		if path, ok := constantPath(operand); ok {
			l.outer[path] = true
		}
	}
	if ok && loopOperators[op] && operand.kind == arrayNode {
		for i := range operand.items {
			l.collect(&operand.items[i], loop || i == 1)
		}
		return
	}
	for i := range n.items {
		l.collect(&n.items[i], loop)
	}
}

func constantPath(n *node) (string, bool) {
	if n.kind == arrayNode && len(n.items) > 0 {
		n = &n.items[0]
	}
	return n.str, n.kind == stringNode
}

var loopOperators = map[string]bool{
	"map": true, "filter": true, "reduce": true, "all": true, "some": true, "none": true,
}

// rule lints an operand of any kind.
func (l *linter) rule(n *node) {
	op, operand, ok := n.rule()
	switch {
	case n.kind == arrayNode:
		l.each(n, l.rule)
		return
	case n.kind == objectNode && len(n.items) > 1:
		l.warn("object-literal", "an object with several members is a literal here and in flagd Go, and a PARSE_ERROR in JS")
		return
	case !ok || op == refOperator:
		return
	}
	l.enter(op)
	defer l.leave()
	a := args{nodes: []node{*operand}, single: true}
	if operand.kind == arrayNode {
		a = args{nodes: operand.items}
	}
	if check := lintOperators[op]; check != nil {
		check(l, op, a)
	}
	if loopOperators[op] {
		l.loop(operand)
		return
	}
	was := l.inSplit
	l.inSplit = was || op == "fractional"
	l.rule(operand)
	l.inSplit = was
}

// loop lints the body of a loop as one.
func (l *linter) loop(operand *node) {
	if operand.kind != arrayNode {
		l.rule(operand)
		return
	}
	for i := range operand.items {
		was := l.inLoop
		l.inLoop = was || i == 1
		l.enterIndex(i)
		l.rule(&operand.items[i])
		l.leave()
		l.inLoop = was
	}
}

type lintCheck func(l *linter, op string, a args)

var lintOperators = map[string]lintCheck{
	"?:": func(l *linter, _ string, _ args) {
		l.warn("not-in-schema", "?: runs everywhere but is not in flagd's schema: write if")
	},
	"var": lintVar, "==": lintEquality, "!=": lintEquality, "===": lintStrict, "!==": lintStrict,
	"<": lintOrder, "<=": lintOrder, ">": lintOrder, ">=": lintOrder,
	"+": lintArithmetic, "-": lintArithmetic, "*": lintArithmetic, "/": lintDivision, "%": lintDivision,
	"min": lintExtreme, "max": lintExtreme, "cat": lintCat, "in": lintIn, "substr": lintSubstr,
	"all": lintAll, "starts_with": lintAffix, "ends_with": lintAffix, "sem_ver": lintSemVer,
	"fractional": lintFractional,
}

func lintVar(l *linter, _ string, a args) {
	if len(a.nodes) == 0 || a.nodes[0].kind != stringNode {
		return
	}
	path := a.nodes[0].str
	if strings.HasSuffix(path, ".length") {
		l.warn("var-length", "the length of an array is null here, its element 0 in flagd Go, an error in JS")
	}
	if l.inLoop && (l.outer[path] || strings.HasPrefix(path, flagdPrefix) || path == "targetingKey") {
		l.warn("outer-variable", "inside a loop var reads the element only, as in JS; flagd Go also finds attributes of the context")
	}
}

// constants calls visit for each operand that is no rule.
func (a args) constants(visit func(i int, n *node)) {
	for i := range a.nodes {
		if !a.nodes[i].dynamic {
			visit(i, &a.nodes[i])
		}
	}
}

func lintEquality(l *linter, _ string, a args) {
	a.constants(func(_ int, n *node) {
		switch {
		case n.kind == boolNode && !n.truth || n.kind == numberNode && n.num == 0:
			l.warn("equals-missing", "a missing attribute does not equal false or 0 here and in flagd Go; in JS it does")
		case n.kind == arrayNode || n.kind == objectNode:
			l.warn("equals-structure", "arrays and objects equal nothing here and in flagd Go; JS answers with an error")
		case n.kind == boolNode:
			l.warn("equals-boolean", `true does not equal "true" here and in flagd Go; JS answers with an error when the attribute is a text`)
		case oddNumber(n):
			l.warn("number-text", "a text with blanks or in hexadecimal is no number here and in flagd Go; in JS it is one")
		}
	})
}

// oddNumber: a text JavaScript takes for a number and Go does not.
func oddNumber(n *node) bool {
	if n.kind != stringNode {
		return false
	}
	trimmed := strings.TrimSpace(n.str)
	_, number := parseDecimal(trimmed)
	return trimmed != "" && (number && trimmed != n.str || strings.HasPrefix(trimmed, "0x"))
}

func lintStrict(l *linter, _ string, a args) {
	a.constants(func(_ int, n *node) {
		if n.kind == arrayNode || n.kind == objectNode {
			l.warn("equals-structure", "arrays and objects are never === here and in flagd Go; in JS equal ones may be")
		}
	})
}

func lintOrder(l *linter, op string, a args) {
	a.constants(func(_ int, n *node) {
		_, isNumber := parseDecimal(n.str)
		switch {
		case n.kind == numberNode && n.num == 0 && (op == ">=" || op == "<="):
			l.warn("order-missing", "a missing attribute is neither >= 0 nor <= 0 here and in flagd Go; in JS it is")
		case oddNumber(n):
			l.warn("number-text", "a text with blanks or in hexadecimal is no number here and in flagd Go; in JS it is one")
		case n.kind == stringNode && !isNumber && !a.onlyTexts():
			l.warn("order-kinds", "a text that is no number stands in no order with numbers here and in flagd Go; JS answers with an error")
		case n.kind == arrayNode || n.kind == objectNode:
			l.warn("order-kinds", "arrays and objects stand in no order here and in flagd Go; JS answers with an error")
		}
	})
}

// onlyTexts reports whether all operands may be texts.
func (a args) onlyTexts() bool {
	for i := range a.nodes {
		if n := &a.nodes[i]; !n.dynamic && n.kind != stringNode {
			return false
		}
	}
	return true
}

func lintArithmetic(l *linter, op string, a args) {
	if a.single && (op == "-" || op == "*") && !a.nodes[0].dynamic {
		l.warn("bare-operand", "an operand without an array is a PARSE_ERROR in flagd Go; here and in JS it works")
	}
	a.constants(func(_ int, n *node) {
		_, isNumber := parseDecimal(n.str)
		switch {
		case n.kind == nullNode || n.kind == boolNode:
			l.warn("arithmetic-kinds", "null and booleans count as 0 and 1 here and in JS; flagd Go answers with PARSE_ERROR")
		case n.kind == stringNode && !isNumber:
			l.warn("arithmetic-kinds", "a text that is no number counts as 0 here and in flagd Go; JS answers with an error")
		}
	})
}

func lintDivision(l *linter, op string, a args) {
	lintArithmetic(l, "-", a)
	a.constants(func(i int, n *node) {
		if i > 0 && n.kind == numberNode && n.num == 0 {
			l.warn("division-by-zero", "dividing by zero is null here, some truthy value in flagd Go, an error in JS")
		}
	})
	if op == "%" && len(a.nodes) > 2 {
		l.warn("operand-ignored", "% takes two operands here and in flagd Go; others may use all")
	}
}

func lintExtreme(l *linter, _ string, a args) {
	if len(a.nodes) == 0 {
		l.warn("extreme-empty", "of no values this is null here and in flagd Go; JS answers with an error")
	}
	a.constants(func(_ int, n *node) {
		if n.kind == stringNode {
			l.warn("extreme-text", "texts are taken as numbers here and in flagd Go; JS answers with an error")
		}
	})
}

func lintCat(l *linter, _ string, a args) {
	a.constants(func(_ int, n *node) {
		switch n.kind {
		case boolNode:
			l.warn("cat-boolean", "a boolean is written as true or false here and in JS; flagd Go answers with PARSE_ERROR")
		case arrayNode, objectNode:
			l.warn("cat-structure", "the elements of an array are joined by commas here and in JS; flagd Go answers with PARSE_ERROR")
		}
	})
}

func lintIn(l *linter, _ string, a args) {
	if len(a.nodes) < 2 {
		return
	}
	needle, hay := &a.nodes[0], &a.nodes[1]
	switch {
	case hay.kind == objectNode && !hay.dynamic:
		l.warn("in-object", "nothing is in an object here and in flagd Go; JS answers with an error")
	case needle.kind == numberNode && hay.kind != arrayNode:
		l.warn("in-number", "in a text a number is looked for as text here and in JS; flagd Go answers with PARSE_ERROR")
	case hay.kind == arrayNode && needle.dynamic && numberTexts(hay):
		l.warn("in-number-text", `a number is not in a list of texts here and in JS; in flagd Go 1 is in ["1"]`)
	}
}

// numberTexts reports whether a list has texts that are numbers.
func numberTexts(n *node) bool {
	for i := range n.items {
		if s := &n.items[i]; s.kind == stringNode && s.str != "" {
			if _, ok := parseDecimal(s.str); ok {
				return true
			}
		}
	}
	return false
}

func lintSubstr(l *linter, _ string, _ args) {
	l.warn("substr-range", "beyond the end of a text there is nothing here and in JS; flagd Go gives the whole text")
}

func lintAll(l *linter, _ string, a args) {
	if len(a.nodes) > 0 && a.nodes[0].dynamic {
		l.warn("all-missing", "all is false for a missing array here and in flagd Go; in JS it is true")
	}
}

func lintAffix(l *linter, op string, _ args) {
	if l.inLoop {
		l.warn("custom-in-loop", op+" works inside a loop here and in flagd Go; JS answers with an error")
	}
}

func lintSemVer(l *linter, op string, a args) {
	lintAffix(l, op, a)
	a.constants(func(i int, n *node) {
		if i != 1 && (n.kind != stringNode || strings.HasPrefix(n.str, "v") || strings.HasPrefix(n.str, "V") || strings.Count(n.str, ".") < 2) {
			l.warn("sem-ver-form", "flagd's schema wants three numbers without v; evaluators also take this form")
		}
	})
}

func lintFractional(l *linter, op string, a args) {
	if l.inLoop {
		l.warn("custom-in-loop", "fractional without a bucketing value is null inside a loop here and in flagd Go; JS answers with an error")
	}
	if len(a.nodes) == 0 {
		return
	}
	first := &a.nodes[0]
	implicit := first.kind == arrayNode
	if implicit && l.inSplit {
		l.warn("fractional-correlated", "a split inside a split on the same value puts everybody where the outer one did: salt it with cat")
	}
	if name, _, ok := first.rule(); ok && name == "var" {
		l.warn("fractional-bucket", "when this is missing, flagd Go and we bucket by the targeting key, JS gives null; a number gives null: use cat")
	}
	if !ascii(first) {
		l.warn("fractional-ascii", "flagd-core JS hashes texts beyond ASCII differently from flagd Go and us")
	}
	l.weights(a)
}

// ascii reports whether no constant text in n has other characters.
func ascii(n *node) bool {
	for i := range n.str {
		if n.str[i] >= 0x80 {
			return false
		}
	}
	for i := range n.items {
		if !ascii(&n.items[i]) {
			return false
		}
	}
	return true
}

func (l *linter) weights(a args) {
	total := 0.0
	for i := range a.nodes {
		n := &a.nodes[i]
		if n.kind != arrayNode {
			continue
		}
		if len(n.items) > 2 {
			l.warn("fractional-entry", "further elements of an entry are ignored here and in flagd Go; in JS the split is null")
		}
		switch {
		case len(n.items) == 1:
			total++
		case len(n.items) > 1 && n.items[1].kind == numberNode:
			total += n.items[1].num
		case len(n.items) > 1:
			total = math.NaN() // computed
		}
	}
	if total == 0 || total > maxWeight {
		l.warn("fractional-null", "the weights sum up to 0 or beyond 2147483647: the split is always null")
	}
}
