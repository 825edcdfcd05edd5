package bundler

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/sealstone/sealstone/internal/canon"
)

// readYAML reads one YAML 1.2 document of JSON values. The parser is used for
// structure alone: what a scalar means is decided here, in resolveScalar, so
// that no parser's liberties decide what is served.
func readYAML(file string, raw []byte, use usage) (root *node, faults Faults) {
	defer func() {
		if r := recover(); r != nil { // the parser's own; it must not take the server along
			root, faults = nil, Faults{fault(ruleYAML, place{file: file}, "the YAML parser gave up")}
		}
	}()
	if at, ok := directive(file, raw); ok {
		return nil, Faults{fault(ruleDirective, at, "the file begins with a %%-directive")}
	}
	if f, ok := tooNested(file, raw); ok {
		return nil, Faults{f}
	}
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, Faults{fault(ruleEmpty, place{file, 1, 1}, "the file is empty").withFix("Write {} for an object without members, or remove the file")}
	case err != nil:
		return nil, Faults{yamlFault(file, err)}
	}
	l := &linter{file: file, raw: raw, use: use, bang: bytes.IndexByte(raw, '!') >= 0, line: 1, col: 1}
	root = l.node(doc.Content[0], canon.MaxDepth)
	l.second(dec)
	return root, l.faults
}

// directive looks for a line beginning with % before the content.
func directive(file string, raw []byte) (place, bool) {
	line := int32(0)
	for text := range bytes.Lines(raw) {
		line++
		text = bytes.TrimSpace(text)
		if len(text) == 0 || text[0] == '#' {
			continue
		}
		return place{file, line, 1}, text[0] == '%'
	}
	return place{}, false
}

// tooNested bounds what the parser is given: flow brackets nested by the
// hundred thousand cost it time and stack before any node exists. It counts
// brackets in the text, those in strings too, so its limit is generous.
func tooNested(file string, raw []byte) (Fault, bool) {
	const most = 4096
	depth := 0
	for i, c := range raw {
		switch c {
		case '[', '{':
			if depth++; depth > most {
				return fault(ruleDepthLimit, placeOf(file, raw, i), "brackets are nested more than %d deep", most), true
			}
		case ']', '}':
			depth = max(0, depth-1)
		}
	}
	return Fault{}, false
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

func yamlFault(file string, err error) Fault {
	at, msg := place{file: file}, err.Error()
	if m := yamlLine.FindStringSubmatch(strings.ReplaceAll(msg, "\n", " ")); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil {
			at.line, at.col = int32(n), 1
		}
		msg = m[2]
	}
	return fault(ruleYAML, at, "%.120s", msg)
}

// A linter turns the parser's tree into nodes and reports what is not allowed.
type linter struct {
	file   string
	raw    []byte
	use    usage
	faults Faults

	// Where byteAt has got to.
	bang          bool // the text has a "!"
	at, line, col int
}

func (l *linter) fault(r *Rule, at place, format string, args ...any) {
	if len(l.faults) <= maxFaults {
		l.faults = append(l.faults, fault(r, at, format, args...))
	}
}

// second reports a further document in the file.
func (l *linter) second(dec *yaml.Decoder) {
	var more yaml.Node
	switch err := dec.Decode(&more); {
	case errors.Is(err, io.EOF):
	case err != nil:
		l.faults = append(l.faults, yamlFault(l.file, err))
	default:
		l.fault(ruleDocuments, l.place(more.Content[0]), "a second document begins")
	}
}

func (l *linter) place(y *yaml.Node) place {
	return place{l.file, int32(y.Line), int32(y.Column)}
}

func (l *linter) node(y *yaml.Node, depth int) *node {
	n := &node{at: l.place(y)}
	if y.Kind == yaml.AliasNode {
		l.fault(ruleAnchor, n.at, "*%s is an alias", clipName(y.Value))
		return n
	}
	l.properties(y, n.at)
	switch y.Kind {
	case yaml.ScalarNode:
		l.scalar(n, y)
	case yaml.SequenceNode:
		l.list(n, y, depth)
	case yaml.MappingNode:
		l.object(n, y, depth)
	}
	return n
}

// properties reports anchors and tags in front of a node.
func (l *linter) properties(y *yaml.Node, at place) {
	if y.Anchor != "" {
		l.fault(ruleAnchor, at, "&%s is an anchor", clipName(y.Anchor))
	}
	// The parser forgets the lone tag "!", which makes a string of a number.
	if y.Style&yaml.TaggedStyle != 0 || l.byteAt(y) == '!' {
		l.fault(ruleTag, at, "a tag stands in front of the value")
	}
}

// byteAt is the first byte of a node in the text, 0 when no node can hide a
// lone "!". Nodes come in the order of the text, so one pass finds them all.
func (l *linter) byteAt(y *yaml.Node) byte {
	if !l.bang {
		return 0
	}
	if y.Line < l.line || y.Line == l.line && y.Column < l.col {
		l.at, l.line, l.col = 0, 1, 1
	}
	for l.at < len(l.raw) && (l.line < y.Line || l.col < y.Column) {
		l.advance()
	}
	if l.at == len(l.raw) || l.line != y.Line {
		return 0
	}
	return l.raw[l.at]
}

// advance moves over one character, counting as the parser counts.
func (l *linter) advance() {
	r, n := utf8.DecodeRune(l.raw[l.at:])
	l.at += n
	switch {
	case r == '\r' && l.at < len(l.raw) && l.raw[l.at] == '\n':
	case r == '\n', r == '\r', r == '\u0085', r == '\u2028', r == '\u2029':
		l.line, l.col = l.line+1, 1
	default:
		l.col++
	}
}

func (l *linter) list(n *node, y *yaml.Node, depth int) {
	n.kind = kindList
	if depth == 0 {
		l.fault(ruleDepthLimit, n.at, "nested more than %d levels deep", canon.MaxDepth)
		return
	}
	n.list = make([]*node, len(y.Content))
	for i, e := range y.Content {
		n.list[i] = l.node(e, depth-1)
	}
}

func (l *linter) object(n *node, y *yaml.Node, depth int) {
	n.kind = kindObject
	if depth == 0 {
		l.fault(ruleDepthLimit, n.at, "nested more than %d levels deep", canon.MaxDepth)
		return
	}
	fields := make([]field, 0, len(y.Content)/2)
	for i := 0; i+1 < len(y.Content); i += 2 {
		name, ok := l.key(y.Content[i])
		val := l.node(y.Content[i+1], depth-1)
		if ok {
			val.at = l.place(y.Content[i])
			fields = append(fields, field{name, val})
		}
	}
	n.setFields(fields, func(f field) { l.fault(ruleDuplicate, f.val.at, "key %s stands twice in one object", quote(f.name)) })
}

func (l *linter) key(y *yaml.Node) (string, bool) {
	at := l.place(y)
	if y.Kind == yaml.AliasNode {
		l.fault(ruleAnchor, at, "*%s is an alias", clipName(y.Value))
		return "", false
	}
	l.properties(y, at)
	if y.Kind != yaml.ScalarNode {
		l.fault(ruleKey, at, "a key is a list or an object")
		return "", false
	}
	if y.Style&^yaml.TaggedStyle != 0 {
		return y.Value, true
	}
	switch r := resolveScalar(y.Value, l.use); {
	case y.Value == "<<":
		l.fault(ruleMergeKey, at, "<< merges another object into this one")
		return "", false
	case r.rule == ruleBool && r.word && l.use != forConfig, r.rule == nil && r.kind == kindString:
		return y.Value, true
	case r.rule == ruleBool && r.word:
		l.fault(ruleBool, at, "key %s is a boolean to some parsers", quote(y.Value))
	default:
		l.fault(ruleKey, at, "key %s is not a string", quote(y.Value))
	}
	return y.Value, true
}

func (l *linter) scalar(n *node, y *yaml.Node) {
	if y.Style&^(yaml.TaggedStyle|yaml.FlowStyle) != 0 {
		n.kind, n.str = kindString, y.Value
		return
	}
	r := resolveScalar(y.Value, l.use)
	n.kind, n.truth, n.num, n.loose = r.kind, r.truth, r.num, r.loose
	if r.kind == kindString {
		n.str = y.Value
	}
	if r.rule != nil {
		l.fault(r.rule, n.at, "%s", r.why(y.Value))
	}
}

func clipName(s string) string {
	if len(s) > 64 {
		return fmt.Sprintf("(a name of %d bytes)", len(s))
	}
	return s
}
