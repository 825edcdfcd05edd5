package canon

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may nest.
const MaxDepth = 64

// SyntaxError says where strict JSON ends being that. Offset counts bytes from 0.
type SyntaxError struct {
	Offset int
	Msg    string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("JSON at byte %d: %s", e.Offset, e.Msg) }

// Parse reads one strict JSON value: RFC 8259 without duplicate keys, lone
// surrogates, invalid UTF-8, a byte order mark, integers beyond ±(2^53-1) or
// nesting over maxDepth. The tree is nil, bool, float64, string, []any and
// map[string]any.
func Parse(b []byte, maxDepth int) (any, error) { return ParseAt(b, maxDepth, nil) }

// Visitor is told where each value starts; see ParseAt. The path has the keys
// and indexes that lead to it, unescaped, and is only lent: a pointer for each
// value would cost the square of a document with long keys.
type Visitor func(path []string, offset int)

// ParseAt is Parse that reports the byte offset of every value, and of the key
// for a member of an object, in document order; visit may be nil.
func ParseAt(b []byte, maxDepth int, visit Visitor) (any, error) {
	p := parser{in: b, depth: maxDepth, visit: visit}
	p.space()
	if visit != nil {
		visit(nil, p.at)
	}
	v, err := p.value()
	if err != nil {
		return nil, err
	}
	p.space()
	if p.at < len(b) {
		return nil, p.fail("text behind the value")
	}
	return v, nil
}

type parser struct {
	in    []byte
	at    int
	depth int // levels that are left
	visit Visitor
	path  []string // kept only when visit is set
}

func (p *parser) fail(msg string) error { return &SyntaxError{p.at, msg} }

// enter reports the value of a key or index; pop ends it.
func (p *parser) enter(part string, at int) {
	if p.visit != nil {
		p.path = append(p.path, part)
		p.visit(p.path, at)
	}
}

func (p *parser) pop() {
	if p.visit != nil {
		p.path = p.path[:len(p.path)-1]
	}
}

// EscapePointer escapes one part of a JSON pointer (RFC 6901).
func EscapePointer(part string) string {
	return strings.ReplaceAll(strings.ReplaceAll(part, "~", "~0"), "/", "~1")
}

// UnescapePointer is what one part of a JSON pointer names.
func UnescapePointer(part string) string {
	return strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~")
}

func (p *parser) space() {
	for p.at < len(p.in) {
		switch p.in[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

func (p *parser) peek() byte {
	if p.at < len(p.in) {
		return p.in[p.at]
	}
	return 0
}

func (p *parser) value() (any, error) {
	switch c := p.peek(); {
	case c == '{':
		return nested(p, p.object)
	case c == '[':
		return nested(p, p.array)
	case c == '"':
		return p.str()
	case c == 't':
		return true, p.word("true")
	case c == 'f':
		return false, p.word("false")
	case c == 'n':
		return nil, p.word("null")
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	case p.at >= len(p.in):
		return nil, p.fail("ends where a value is expected")
	default:
		return nil, p.fail("a value is expected")
	}
}

func nested[T any](p *parser, read func() (T, error)) (v T, err error) {
	if p.depth == 0 {
		return v, p.fail("nested too deeply")
	}
	p.depth--
	v, err = read()
	p.depth++
	return v, err
}

func (p *parser) word(w string) error {
	if !strings.HasPrefix(string(p.in[p.at:min(len(p.in), p.at+len(w))]), w) {
		return p.fail("a value is expected")
	}
	p.at += len(w)
	return nil
}

func (p *parser) array() (any, error) {
	p.at++
	list := []any{}
	p.space()
	if p.peek() == ']' {
		p.at++
		return list, nil
	}
	for {
		p.space()
		if p.visit != nil {
			p.enter(strconv.Itoa(len(list)), p.at)
		}
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		p.pop()
		list = append(list, v)
		if done, err := p.next(']'); done || err != nil {
			return list, err
		}
	}
}

func (p *parser) object() (any, error) {
	p.at++
	m := map[string]any{}
	p.space()
	if p.peek() == '}' {
		p.at++
		return m, nil
	}
	for {
		p.space()
		if err := p.member(m); err != nil {
			return nil, err
		}
		if done, err := p.next('}'); done || err != nil {
			return m, err
		}
	}
}

func (p *parser) member(m map[string]any) error {
	start := p.at
	key, err := p.key()
	if err != nil {
		return err
	}
	if _, twice := m[key]; twice {
		return duplicate(start, key)
	}
	p.enter(key, start)
	if m[key], err = p.value(); err != nil {
		return err
	}
	p.pop()
	return nil
}

func duplicate(at int, key string) error {
	return &SyntaxError{at, fmt.Sprintf("duplicate key %.64q", key)}
}

// key reads a member's key and the colon behind it.
func (p *parser) key() (string, error) {
	if p.peek() != '"' {
		return "", p.fail("a key in double quotes is expected")
	}
	key, err := p.str()
	if err != nil {
		return "", err
	}
	p.space()
	if p.peek() != ':' {
		return "", p.fail("':' is expected")
	}
	p.at++
	p.space()
	return key, nil
}

// next reads what stands between two elements; done means the end was read.
func (p *parser) next(end byte) (done bool, err error) {
	p.space()
	switch p.peek() {
	case ',':
		p.at++
		return false, nil
	case end:
		p.at++
		return true, nil
	}
	return false, p.fail(fmt.Sprintf("',' or '%c' is expected", end))
}

func (p *parser) number() (any, error) {
	start := p.at
	for p.at < len(p.in) && strings.IndexByte("+-.eE0123456789", p.in[p.at]) >= 0 {
		p.at++
	}
	f, err := parseNumber(string(p.in[start:p.at]))
	if err != nil {
		p.at = start
		return nil, p.fail(err.Error())
	}
	return f, nil
}

func parseNumber(s string) (float64, error) {
	digits := strings.TrimPrefix(s, "-")
	if !numberShape(digits) {
		return 0, fmt.Errorf("%.64q is not a JSON number", s)
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.Abs(f) > MaxInteger {
		return 0, fmt.Errorf("number %.64s is beyond ±(2^53-1) and can't be kept exactly; write it as a string", s)
	}
	return f, nil
}

// numberShape is the grammar of RFC 8259 without the sign.
func numberShape(s string) bool {
	n := countDigits(s)
	if n == 0 || n > 1 && s[0] == '0' {
		return false
	}
	s = s[n:]
	if rest, ok := strings.CutPrefix(s, "."); ok {
		if n = countDigits(rest); n == 0 {
			return false
		}
		s = rest[n:]
	}
	if s != "" && (s[0] == 'e' || s[0] == 'E') {
		s = s[1:]
		if s != "" && (s[0] == '+' || s[0] == '-') {
			s = s[1:]
		}
		if n = countDigits(s); n == 0 {
			return false
		}
		s = s[n:]
	}
	return s == ""
}

func countDigits(s string) int {
	n := 0
	for n < len(s) && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}

func (p *parser) str() (string, error) {
	text, err := p.text()
	return string(text), err
}

// text is what a string says; it may lie in the input.
func (p *parser) text() ([]byte, error) {
	p.at++
	start := p.at
	for p.at < len(p.in) {
		switch c := p.in[p.at]; {
		case c == '"':
			text := p.in[start:p.at]
			if !utf8.Valid(text) {
				return nil, p.fail("a string is not valid UTF-8")
			}
			p.at++
			return text, nil
		case c == '\\':
			return p.escaped(start)
		case c < 0x20:
			return nil, p.fail("a control character in a string must be escaped")
		}
		p.at++
	}
	return nil, p.fail("a string does not end")
}

// escaped reads the rest of a string that has escapes.
func (p *parser) escaped(start int) ([]byte, error) {
	out := append([]byte(nil), p.in[start:p.at]...)
	for p.at < len(p.in) {
		switch c := p.in[p.at]; {
		case c == '"':
			p.at++
			if !utf8.Valid(out) {
				return nil, p.fail("a string is not valid UTF-8")
			}
			return out, nil
		case c == '\\':
			r, err := p.escape()
			if err != nil {
				return nil, err
			}
			out = utf8.AppendRune(out, r)
		case c < 0x20:
			return nil, p.fail("a control character in a string must be escaped")
		default:
			out = append(out, c)
			p.at++
		}
	}
	return nil, p.fail("a string does not end")
}

func (p *parser) escape() (rune, error) {
	if p.at+1 >= len(p.in) {
		return 0, p.fail("a string does not end")
	}
	c := p.in[p.at+1]
	if c == 'u' {
		return p.unicodeEscape()
	}
	const from, to = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	i := strings.IndexByte(from, c)
	if i < 0 {
		return 0, p.fail("unknown escape in a string")
	}
	p.at += 2
	return rune(to[i]), nil
}

func (p *parser) unicodeEscape() (rune, error) {
	r, ok := p.hex4(p.at)
	if !ok {
		return 0, p.fail(`\u needs four hex digits`)
	}
	if !utf16.IsSurrogate(r) {
		p.at += 6
		return r, nil
	}
	low, ok := p.hex4(p.at + 6)
	pair := utf16.DecodeRune(r, low)
	if !ok || pair == utf8.RuneError {
		return 0, p.fail("a lone surrogate in a string")
	}
	p.at += 12
	return pair, nil
}

func (p *parser) hex4(at int) (rune, bool) {
	if at+6 > len(p.in) || p.in[at] != '\\' || p.in[at+1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(p.in[at+2:at+6]), 16, 32)
	return rune(n), err == nil
}
