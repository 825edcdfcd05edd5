package flags

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Bounds on a document. They are far above what people write and low enough
// that a hostile document cannot exhaust the process that loads it.
const (
	maxDocument = 16 << 20
	maxDepth    = 64
	maxNodes    = 1 << 20
	maxInteger  = 1<<53 - 1
)

type nodeKind uint8

const (
	nullNode nodeKind = iota
	boolNode
	numberNode
	stringNode
	arrayNode
	objectNode
)

func (k nodeKind) String() string {
	return [...]string{"null", "boolean", "number", "string", "array", "object"}[k]
}

// A node is one JSON value. Its strings point into the parsed text.
type node struct {
	kind  nodeKind
	truth bool
	// dynamic says that a rule (an object of one member) lies in here, so the
	// value is not a constant.
	dynamic bool
	num     float64
	str     string
	keys    []string // of an object, beside items
	items   []node
}

// member returns the value of an object's member, or nil.
func (n *node) member(name string) *node {
	for i, k := range n.keys {
		if k == name {
			return &n.items[i]
		}
	}
	return nil
}

// part is a member, or an empty object.
func (n *node) part(name string) *node {
	if m := n.member(name); m != nil {
		return m
	}
	return &node{kind: objectNode}
}

// byName indexes the members of an object.
func (n *node) byName() map[string]*node {
	out := make(map[string]*node, len(n.keys))
	for i, name := range n.keys {
		out[name] = &n.items[i]
	}
	return out
}

// rule returns operator and operand of an object that is a rule.
func (n *node) rule() (string, *node, bool) {
	if n.kind != objectNode || len(n.items) != 1 {
		return "", nil, false
	}
	return n.keys[0], &n.items[0], true
}

// A parser reads strict JSON (RFC 8259) with the bounds above. A fault of
// syntax ends the parse, one of content (a key twice) is noted and passed over.
type parser struct {
	report
	text  string
	pos   int
	nodes int
	dead  bool
}

// parse returns the document's root, or the faults found.
func parse(text string) (*node, error) {
	p := &parser{text: text}
	var root node
	switch {
	case len(text) > maxDocument:
		p.fault("document is larger than 16 MiB")
	case !utf8.ValidString(text):
		p.fault("document is not valid UTF-8")
	default:
		p.value(&root, 0)
		p.space()
		if !p.dead && p.pos < len(text) {
			p.die("unexpected text after the document")
		}
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	return &root, nil
}

// die reports a fault after which the rest of the text means nothing.
func (p *parser) die(msg string) {
	if !p.dead {
		p.fault(msg + " at byte " + strconv.Itoa(p.pos))
	}
	p.dead = true
	p.pos = len(p.text)
}

func (p *parser) peek() byte {
	if p.pos < len(p.text) {
		return p.text[p.pos]
	}
	return 0
}

func (p *parser) space() {
	for p.pos < len(p.text) {
		switch p.text[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

// accept skips blanks and then c, if that is what follows.
func (p *parser) accept(c byte) bool {
	p.space()
	if p.peek() != c || p.pos >= len(p.text) {
		return false
	}
	p.pos++
	return true
}

func (p *parser) value(n *node, depth int) {
	p.space()
	if p.nodes++; p.nodes > maxNodes {
		p.die("document has more than " + strconv.Itoa(maxNodes) + " values")
		return
	}
	switch c := p.peek(); {
	case c == '{' || c == '[':
		if depth++; depth > maxDepth {
			p.die("document is nested deeper than " + strconv.Itoa(maxDepth))
			return
		}
		p.pos++
		if c == '{' {
			p.object(n, depth)
		} else {
			p.array(n, depth)
		}
	case c == '"':
		n.kind, n.str = stringNode, p.str()
	case c == '-' || '0' <= c && c <= '9':
		n.kind, n.num = numberNode, p.number()
	default:
		p.literal(n)
	}
}

func (p *parser) literal(n *node) {
	rest := p.text[p.pos:]
	switch {
	case strings.HasPrefix(rest, "true"):
		n.kind, n.truth = boolNode, true
		p.pos += 4
	case strings.HasPrefix(rest, "false"):
		n.kind = boolNode
		p.pos += 5
	case strings.HasPrefix(rest, "null"):
		p.pos += 4
	default:
		p.die("expected a JSON value")
	}
}

func (p *parser) array(n *node, depth int) {
	n.kind = arrayNode
	if p.accept(']') {
		return
	}
	for {
		n.items = append(n.items, node{})
		item := &n.items[len(n.items)-1]
		p.enterIndex(len(n.items) - 1)
		p.value(item, depth)
		p.leave()
		n.dynamic = n.dynamic || item.dynamic
		if p.accept(',') {
			continue
		}
		if !p.accept(']') {
			p.die("expected , or ] in an array")
		}
		return
	}
}

func (p *parser) object(n *node, depth int) {
	n.kind = objectNode
	var seen map[string]bool
	for first := true; ; first = false {
		if p.accept('}') && first {
			return
		}
		if p.space(); p.peek() != '"' {
			p.die("expected a member name")
			return
		}
		name := p.str()
		p.enter(name)
		seen = p.once(n, name, seen)
		n.keys = append(n.keys, name)
		n.items = append(n.items, node{})
		if !p.accept(':') {
			p.die("expected : after a member name")
		}
		if !p.dead {
			p.value(&n.items[len(n.items)-1], depth)
		}
		p.leave()
		if p.accept(',') {
			continue
		}
		if !p.accept('}') {
			p.die("expected , or } in an object")
		}
		break
	}
	// A rule inside makes an object of several members no rule: such an object
	// is a literal, and its members are data.
	n.dynamic = len(n.items) == 1
}

// once reports a name given twice. Small objects are searched, large ones get
// an index.
func (p *parser) once(n *node, name string, seen map[string]bool) map[string]bool {
	const few = 16
	if len(n.keys) < few {
		if n.member(name) != nil {
			p.fault("member name appears twice")
		}
		return nil
	}
	if seen == nil {
		seen = make(map[string]bool, 4*few)
		for _, k := range n.keys {
			seen[k] = true
		}
	}
	if seen[name] {
		p.fault("member name appears twice")
	}
	seen[name] = true
	return seen
}

// number reads a number. Any magnitude beyond 2^53-1 is refused: two readers
// would not agree on its value.
func (p *parser) number() float64 {
	start := p.pos
	if p.peek() == '-' {
		p.pos++
	}
	if p.peek() == '0' {
		p.pos++
	} else if !p.digits() {
		return 0
	}
	if p.peek() == '.' {
		p.pos++
		if !p.digits() {
			return 0
		}
	}
	if c := p.peek(); c == 'e' || c == 'E' {
		p.pos++
		if c := p.peek(); c == '+' || c == '-' {
			p.pos++
		}
		if !p.digits() {
			return 0
		}
	}
	f, err := strconv.ParseFloat(p.text[start:p.pos], 64)
	if err != nil || math.Abs(f) > maxInteger {
		p.fault("number is beyond ±(2^53-1)")
		return 0
	}
	return f + 0 // -0 has no place in a rule: it would print as "-0"
}

func (p *parser) digits() bool {
	start := p.pos
	for c := p.peek(); '0' <= c && c <= '9'; c = p.peek() {
		p.pos++
	}
	if p.pos == start {
		p.die("expected a digit")
		return false
	}
	return true
}

// str reads a string; without escapes it is a slice of the text.
func (p *parser) str() string {
	p.pos++
	start := p.pos
	for p.pos < len(p.text) {
		switch c := p.text[p.pos]; {
		case c == '"':
			s := p.text[start:p.pos]
			p.pos++
			return s
		case c == '\\':
			return p.escaped(start)
		case c < ' ':
			p.die("control character in a string")
			return ""
		}
		p.pos++
	}
	p.die("string does not end")
	return ""
}

func (p *parser) escaped(start int) string {
	b := []byte(p.text[start:p.pos])
	for p.pos < len(p.text) {
		switch c := p.text[p.pos]; {
		case c == '"':
			p.pos++
			return string(b)
		case c == '\\':
			b = p.escape(b)
		case c < ' ':
			p.die("control character in a string")
		default:
			b = append(b, c)
			p.pos++
		}
	}
	p.die("string does not end")
	return ""
}

// escape appends what the escape sequence at the position stands for.
func (p *parser) escape(b []byte) []byte {
	p.pos++
	c := p.peek()
	p.pos++
	if i := strings.IndexByte(`"\/bfnrt`, c); i >= 0 && c != 0 {
		return append(b, "\"\\/\b\f\n\r\t"[i])
	}
	if c != 'u' {
		p.die("unknown escape in a string")
		return b
	}
	r := p.hex()
	if utf16.IsSurrogate(r) {
		low := rune(utf8.RuneError)
		if strings.HasPrefix(p.text[min(p.pos, len(p.text)):], `\u`) {
			p.pos += 2
			low = p.hex()
		}
		if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
			p.die("unpaired surrogate in a string")
		}
	}
	return utf8.AppendRune(b, r)
}

func (p *parser) hex() rune {
	if p.pos+4 <= len(p.text) {
		if r, err := strconv.ParseUint(p.text[p.pos:p.pos+4], 16, 16); err == nil {
			p.pos += 4
			return rune(r)
		}
	}
	p.die("expected four hexadecimal digits")
	return 0
}
