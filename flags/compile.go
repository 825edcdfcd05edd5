package flags

import "strings"

// Rules are compiled to closures, in three forms by what the consumer wants: a
// value, a truth, or at the top a variant. Conditions never build a value and
// variants known at compile time are numbers, not names.
type (
	expr func(*env) value
	cond func(*env) bool
	pick func(*env) int
)

// What a pick returns instead of a variant's number.
const (
	none        = -1 - iota // null: the default variant
	unknownName             // what is no variant's name
	broken                  // a panic
	outOfSteps
)

const refOperator = "$ref"

// A code is a compiled rule. One of expr and cond is set, or it is a constant.
type code struct {
	expr     expr
	cond     cond
	constant bool
	val      value
}

func constantOf(v value) code { return code{constant: true, val: v} }

// value returns the code in the form that gives a value.
func (k code) value() expr {
	switch {
	case k.constant:
		v := k.val
		return func(*env) value { return v }
	case k.expr != nil:
		return k.expr
	}
	c := k.cond
	return func(e *env) value { return ofBool(c(e)) }
}

// truth returns the code in the form that gives a truth.
func (k code) truth() cond {
	switch {
	case k.constant:
		t := k.val.truthy()
		return func(*env) bool { return t }
	case k.cond != nil:
		return k.cond
	}
	x := k.expr
	return func(e *env) bool { return x(e).truthy() }
}

// A scope says what "var" reads: the context, the element of a loop, or the
// element and accumulator of a reduction. An inner scope hides the outer one.
type scope uint8

const (
	inRoot scope = iota
	inItem
	inReduce
)

// maxCost bounds the size of one flag's rule after its references are put in.
// References share compiled code, so it bounds evaluation, not memory.
const maxCost = 1 << 16

type compiler struct {
	report
	pool           *pool
	setMetadata    map[string]any
	metadataNode   *node
	metadataDigest uint64
	digests        digester
	inArray        bool
	trace          *tracer // for Explain

	evaluators *node
	named      map[string]*node // the evaluators by name
	refs       map[refKey]*ref
	constants  map[*node]value
	sets       map[*node]*members
	slots      map[string]int
	reads      map[string]int

	// Of the rule being compiled.
	cost     int
	usesTime bool
	pure     bool // no operand read the context so far

	folding     int // steps left for constant rules of the document
	inEvaluator bool
}

type refKey struct {
	name string
	in   scope
}

// A ref is an evaluator compiled for one scope.
type ref struct {
	code     code
	cost     int
	usesTime bool
	pure     bool
	open     bool // being compiled: meeting it again is a cycle
}

func newCompiler(root *node) *compiler {
	c := &compiler{
		pool:       &pool{},
		evaluators: root.part("$evaluators"),
		refs:       map[refKey]*ref{},
		constants:  map[*node]value{},
		sets:       map[*node]*members{},
		slots:      map[string]int{},
		reads:      map[string]int{},
		folding:    maxSteps,
	}
	c.named = c.evaluators.byName()
	c.digests = digester{named: c.named, known: map[string]uint64{}}
	c.metadataNode = root.part("metadata")
	c.metadataDigest = c.digests.object(c.metadataNode)
	return c
}

// checkEvaluators compiles all of them, so that faults in unused ones show.
func (c *compiler) checkEvaluators() {
	n := c.evaluators
	if n.kind != objectNode {
		c.faultAt("$evaluators", "$evaluators is an object, not "+n.kind.String())
		clear(c.named) // of an array there is none
		return
	}
	for _, name := range n.keys {
		if name == "" {
			c.faultAt("$evaluators", "the name of an evaluator is empty")
		}
		c.evaluator(name, inRoot)
	}
}

// flag compiles a flag's rule.
func (c *compiler) flag(f *Flag, n *node) {
	c.cost, c.usesTime = 0, false
	clear(c.reads)
	c.countReads(n)
	f.pick = c.pick(f, n)
	f.usesTime, f.cost = c.usesTime, c.cost
	if c.cost > maxCost {
		c.fault("the rule has more than " + itoa(maxCost) + " parts once its references are put in")
	}
}

// rule compiles any operand: a rule, a literal, or an array of either.
func (c *compiler) rule(n *node, in scope) code {
	c.cost++
	if !n.dynamic {
		return constantOf(c.literal(n))
	}
	if n.kind == arrayNode {
		return c.array(n, in)
	}
	name, operand, _ := n.rule()
	c.enter(name)
	defer c.leave()
	if name == refOperator {
		return c.reference(operand, in)
	}
	op, ok := operators[name]
	if !ok {
		c.fault("unknown operator " + quote(name))
		return constantOf(value{})
	}
	outer := c.pure
	c.pure = true
	k := op(c, c.arguments(operand), in)
	if c.pure && !k.constant && c.trace == nil {
		k = c.fold(k)
	}
	c.pure = c.pure && outer
	if c.trace != nil {
		k = c.trace.watch(k, c.pointer(), name)
	}
	return k
}

// fold evaluates a rule that reads nothing. One that takes too many steps stays
// as it is, and so do all once a document's are spent: what they give is kept.
func (c *compiler) fold(k code) (out code) {
	allowed := min(maxSteps/16, c.folding)
	e := &env{steps: allowed}
	defer func() {
		if recover() != nil {
			out = k
		}
		c.folding -= allowed - max(e.steps, 0)
	}()
	v := k.value()(e)
	e.spend(v.parts(e.steps))
	return constantOf(v.frozen())
}

// literal returns a constant; big ones are shared by all who refer to them.
func (c *compiler) literal(n *node) value {
	switch n.kind {
	case boolNode:
		return ofBool(n.truth)
	case numberNode:
		return ofNum(n.num)
	case stringNode:
		return ofText(n.str)
	case nullNode:
		return value{}
	}
	if v, ok := c.constants[n]; ok {
		return v
	}
	v := value{kind: object, ref: nil}
	if n.kind == objectNode {
		v.ref = n.toAny()
	} else {
		l := &list{items: make([]value, len(n.items))}
		for i := range n.items {
			l.items[i] = c.literal(&n.items[i])
		}
		v = value{kind: array, ref: l}
	}
	c.constants[n] = v
	return v
}

// array compiles an array with rules in it.
func (c *compiler) array(n *node, in scope) code {
	items := c.all(n, in)
	return code{expr: func(e *env) value {
		out := e.take(len(items))
		for i, x := range items {
			out[i] = x(e)
		}
		return e.listOf(out)
	}}
}

func (c *compiler) all(n *node, in scope) []expr {
	items := make([]expr, len(n.items))
	for i := range n.items {
		c.enterIndex(i)
		items[i] = c.rule(&n.items[i], in).value()
		c.leave()
	}
	return items
}

// reference compiles {"$ref": NAME}.
func (c *compiler) reference(n *node, in scope) code {
	if n.kind != stringNode {
		c.fault("a $ref names an evaluator by a string")
		return constantOf(value{})
	}
	if c.named[n.str] == nil {
		c.fault("there is no evaluator " + quote(n.str))
		return constantOf(value{})
	}
	r := c.evaluator(n.str, in)
	if r.open {
		c.fault("evaluator " + quote(n.str) + " refers to itself")
	}
	c.cost = min(c.cost+r.cost, maxCost+1)
	c.usesTime = c.usesTime || r.usesTime
	c.pure = c.pure && r.pure
	return r.code
}

// evaluator compiles an evaluator once for each scope it is used in.
func (c *compiler) evaluator(name string, in scope) *ref {
	if r := c.refs[refKey{name, in}]; r != nil {
		return r
	}
	r := &ref{open: true, code: constantOf(value{})}
	c.refs[refKey{name, in}] = r
	outer := *c
	c.report.steps = []step{{"$evaluators", -1}, {name, -1}}
	c.cost, c.usesTime, c.pure, c.inEvaluator = 0, false, true, true
	n := c.named[name]
	switch {
	case n.kind != objectNode:
		c.fault("an evaluator is a rule, not " + n.kind.String())
	case len(n.items) > 0: // an empty one chooses nothing
		r.code = c.rule(n, in)
	}
	r.cost, r.usesTime, r.pure, r.open = c.cost, c.usesTime, c.pure, false
	if r.cost > maxCost {
		c.fault("the evaluator has more than " + itoa(maxCost) + " parts once its references are put in")
	}
	c.report.steps, c.inEvaluator = outer.report.steps, outer.inEvaluator
	c.cost, c.usesTime, c.pure = outer.cost, outer.usesTime, outer.pure
	return r
}

// args are an operator's operands.
type args struct {
	nodes  []node
	single bool // written without an array around it
}

// arguments takes an operand without an array around it as the only one.
func (c *compiler) arguments(n *node) args {
	if n.kind == arrayNode {
		return args{nodes: n.items}
	}
	return args{nodes: []node{*n}, single: true}
}

// at does something at the place of the i-th operand.
func (r *report) at(a args, i int, do func()) {
	if !a.single {
		r.enterIndex(i)
		defer r.leave()
	}
	do()
}

// arg compiles the i-th operand; an absent one is null.
func (c *compiler) arg(a args, i int, in scope) code {
	k := constantOf(value{})
	if i < len(a.nodes) {
		c.at(a, i, func() { k = c.rule(&a.nodes[i], in) })
	}
	return k
}

// faultArg reports about the i-th operand.
func (c *compiler) faultArg(a args, i int, msg string) { c.at(a, i, func() { c.fault(msg) }) }

// values compiles all operands to values.
func (c *compiler) values(a args, in scope) []expr {
	out := make([]expr, len(a.nodes))
	for i := range out {
		out[i] = c.arg(a, i, in).value()
	}
	return out
}

// pick compiles what decides the variant: chains of if and plain splits go to a
// variant's number directly, everything else by the text of its value.
func (c *compiler) pick(f *Flag, n *node) pick {
	op, operand, isRule := n.rule()
	switch {
	case isRule && (op == "if" || op == "?:"):
		c.cost++
		c.enter(op)
		defer c.leave()
		return c.pickIf(f, c.arguments(operand))
	case isRule && op == "fractional":
		c.cost++
		c.enter(op)
		defer c.leave()
		return c.pickFractional(f, c.arguments(operand))
	}
	k := c.rule(n, inRoot)
	if k.constant {
		i := f.number(k.val)
		return func(*env) int { return i }
	}
	x := k.value()
	return func(e *env) int { return f.number(x(e)) }
}

// number finds the variant a rule's result names. Numbers name it by their JSON
// form; arrays and objects name none.
func (f *Flag) number(v value) int {
	var name string
	switch v.kind {
	case null:
		return none
	case boolean:
		name = "false"
		if v.num != 0 {
			name = "true"
		}
	case number:
		var b [32]byte
		if i, ok := f.index[string(appendNumber(b[:0], v.num))]; ok {
			return i
		}
		return unknownName
	case text:
		name = v.str
	default:
		return unknownName
	}
	if i, ok := f.index[name]; ok {
		return i
	}
	return unknownName
}

// slot returns the number under which an evaluation keeps an attribute once read.
// One that a flag reads only once is not worth keeping.
func (c *compiler) slot(path string) (int, bool) {
	const most = 1 << 10
	i, ok := c.slots[path]
	if !ok && (c.inEvaluator || c.reads[path] > 1) && len(c.slots) < most {
		i, ok = len(c.slots), true
		c.slots[strings.Clone(path)] = i
	}
	return i, ok
}

// countReads counts how often each attribute is named in a rule. Elements of
// loops count too: that keeps a few attributes in vain.
func (c *compiler) countReads(n *node) {
	if op, operand, ok := n.rule(); ok && op == "var" {
		if operand.kind == arrayNode && len(operand.items) > 0 {
			operand = &operand.items[0]
		}
		if operand.kind == stringNode {
			c.reads[operand.str]++
		}
	}
	for i := range n.items {
		c.countReads(&n.items[i])
	}
}

// An operator compiles its operands.
type operator func(c *compiler, a args, in scope) code

// operators is filled here rather than where it is declared because operators
// compile their operands, which look operators up.
var operators map[string]operator

func init() {
	operators = map[string]operator{
		"var": opVar, "missing": opMissing, "missing_some": opMissingSome,
		"if": opIf, "?:": opIf, "and": opAnd, "or": opOr, "!": opNot, "!!": opTruth,
		"==": equality(looseEqual, true), "!=": equality(looseEqual, false),
		"===": equality(strictEqual, true), "!==": equality(strictEqual, false),
		"<": ordering(less), "<=": ordering(lessEqual), ">": ordering(greater), ">=": ordering(greaterEqual),
		"in": opIn,
		"+":  arithmetic(sum), "*": arithmetic(product), "-": arithmetic(difference),
		"/": arithmetic(quotient), "%": arithmetic(remainder),
		"min": arithmetic(least), "max": arithmetic(greatest),
		"cat": opCat, "substr": opSubstr,
		"starts_with": affix(strings.HasPrefix), "ends_with": affix(strings.HasSuffix),
		"merge": opMerge, "map": opMap, "filter": opFilter, "reduce": opReduce,
		"all": opAll, "some": opSome, "none": opNone,
		"sem_ver": opSemVer, "fractional": opFractional,
	}
}
