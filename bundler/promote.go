package bundler

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/sealstone/sealstone/api"
)

// ReleaseLatest in an activation follows the branch.
const ReleaseLatest = "latest"

// Promote edits the text of an activation file so that scope runs release: a
// full commit, or "latest". An empty expect takes a present one out, because it
// would name another set. The entry is added when there is none. Comments,
// order and every other byte stay as they are, so that the pull request shows
// the promotion and nothing else.
func Promote(activationYAML []byte, scope api.Scope, release string, expect api.Digest) ([]byte, error) {
	want := activationEdit{scope, release, expect}
	if err := want.validate(); err != nil {
		return nil, fmt.Errorf("promote: %w", err)
	}
	out, err := want.apply(activationYAML)
	if err == nil {
		err = want.check(activationYAML, out)
	}
	if err != nil {
		return nil, fmt.Errorf("promote: %w", err)
	}
	return out, nil
}

type activationEdit struct {
	scope   api.Scope
	release string
	expect  api.Digest
}

func (w activationEdit) validate() error {
	_, err := api.ParseScope(string(w.scope))
	switch {
	case err != nil:
		return err
	case w.release != ReleaseLatest && !api.IsCommit(w.release):
		return fmt.Errorf("release %.64q: write a commit of 40 lower-case hex digits, or latest", w.release)
	case w.expect != "" && !w.expect.Valid():
		return api.ErrDigest
	case w.expect != "" && w.release == ReleaseLatest:
		return errors.New("expect names one set, release: latest follows the branch: choose one")
	}
	return nil
}

func (w activationEdit) apply(text []byte) ([]byte, error) {
	root, err := parseActivation(text)
	if err != nil {
		return nil, err
	}
	if _, retired := member(root, "retired"); retired != nil && retired.Value != "false" {
		return nil, errors.New("the service is retired: remove `retired` first")
	}
	doc := newYAMLText(text)
	key, list := member(root, "activations")
	if list == nil {
		return doc.append("activations:" + doc.newline + w.entry(2, 2, doc.newline)), nil
	}
	entry, err := w.find(list)
	if err != nil {
		return nil, err
	}
	if entry == nil {
		return w.add(doc, key, list)
	}
	return w.change(doc, entry)
}

func parseActivation(text []byte) (*yaml.Node, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, err
	}
	if root.Kind != yaml.DocumentNode || root.Content[0].Kind != yaml.MappingNode {
		return nil, errors.New("not an activation file: it must be a mapping with service and activations")
	}
	return root.Content[0], nil
}

// member finds key and value in a mapping.
func member(m *yaml.Node, name string) (key, value *yaml.Node) {
	for i := 0; i+1 < len(m.Content); i += 2 {
		if m.Content[i].Value == name {
			return m.Content[i], m.Content[i+1]
		}
	}
	return nil, nil
}

func (w activationEdit) find(list *yaml.Node) (found *yaml.Node, err error) {
	for _, e := range list.Content {
		if e.Kind != yaml.MappingNode {
			return nil, fmt.Errorf("line %d: an activation must be a mapping with scope and release", e.Line)
		}
		if _, scope := member(e, "scope"); scope == nil || scope.Value != string(w.scope) {
			continue
		}
		if found != nil {
			return nil, fmt.Errorf("line %d: scope %s is there twice", e.Line, w.scope)
		}
		found = e
	}
	return found, nil
}

// entry is a new list item with its dash in column dash and its keys width
// columns further.
func (w activationEdit) entry(dash, width int, newline string) string {
	lines := []string{"scope: " + string(w.scope), "release: " + w.release}
	if w.expect != "" {
		lines = append(lines, "expect: "+string(w.expect))
	}
	indent := strings.Repeat(" ", dash+width)
	text := strings.Join(lines, newline+indent) + newline
	return strings.Repeat(" ", dash) + "-" + strings.Repeat(" ", width-1) + text
}

func (w activationEdit) add(doc *yamlText, key, list *yaml.Node) ([]byte, error) {
	switch {
	case list.Kind == yaml.SequenceNode && len(list.Content) > 0 && list.Style&yaml.FlowStyle == 0:
		last := list.Content[len(list.Content)-1]
		dash, width := list.Column-1, last.Column-list.Column
		if width < 2 || last.Style&yaml.FlowStyle != 0 {
			width = 2
		}
		return doc.insertLines(lastLine(last), w.entry(dash, width, doc.newline)), nil
	case list.Kind == yaml.SequenceNode && len(list.Content) == 0:
		start, rest := doc.offset(list.Line, list.Column), doc.lineEnd(list.Line)
		closing := bytes.IndexByte(doc.text[start:rest], ']')
		if closing < 0 {
			break
		}
		// The rest of the line may be a comment and stays, behind the key.
		out := doc.splice(start, start+closing+1, "")
		out = bytes.Replace(out, []byte("activations: \n"), []byte("activations:\n"), 1)
		return newYAMLText(out).insertLines(key.Line, w.entry(key.Column+1, 2, doc.newline)), nil
	case list.Tag == "!!null" && list.Value == "":
		return doc.insertLines(key.Line, w.entry(key.Column+1, 2, doc.newline)), nil
	}
	return nil, fmt.Errorf("line %d: write activations as a list with one dash per entry", list.Line)
}

func lastLine(n *yaml.Node) int {
	line := n.Line
	for _, c := range n.Content {
		line = max(line, lastLine(c))
	}
	return line
}

// change edits from the back of the entry to its front, so that offsets stay
// true.
func (w activationEdit) change(doc *yamlText, entry *yaml.Node) ([]byte, error) {
	key, release := member(entry, "release")
	if release == nil {
		return nil, fmt.Errorf("line %d: the activation of %s has no release", entry.Line, w.scope)
	}
	edits := []func() error{func() error { return doc.setScalar(release, w.release) }}
	at := release
	switch expectKey, expect := member(entry, "expect"); {
	case expect == nil && w.expect != "":
		edits = append(edits, func() error { return doc.addAfter(entry, key, release, "expect: "+string(w.expect)) })
	case expect != nil && w.expect != "":
		edits = append(edits, func() error { return doc.setScalar(expect, string(w.expect)) })
		at = expect
	case expect != nil:
		edits = append(edits, func() error { return doc.remove(entry, expectKey, expect) })
		at = expect
	}
	if !before(at, release) {
		slices.Reverse(edits)
	}
	for _, edit := range edits {
		if err := edit(); err != nil {
			return nil, err
		}
	}
	return doc.text, nil
}

func before(a, b *yaml.Node) bool {
	return a.Line < b.Line || a.Line == b.Line && a.Column < b.Column
}

// check reads the result as a program would: the wanted entry, all else equal.
// It guards against shapes of YAML that the edits didn't foresee.
func (w activationEdit) check(old, edited []byte) error {
	was, err := decodeActivation(old)
	if err != nil {
		return err
	}
	is, err := decodeActivation(edited)
	if err != nil {
		return fmt.Errorf("the file has a form that can't be edited; write one entry per dash: %w", err)
	}
	want := map[string]any{"scope": string(w.scope), "release": w.release}
	if w.expect != "" {
		want["expect"] = string(w.expect)
	}
	for _, e := range was.Activations {
		if e["scope"] == string(w.scope) {
			for k, v := range e {
				if k != "expect" && k != "release" {
					want[k] = v
				}
			}
		}
	}
	same := func(e map[string]any) bool { return e["scope"] == string(w.scope) }
	found := slices.IndexFunc(is.Activations, same)
	rest := func(l []map[string]any) []map[string]any {
		return append([]map[string]any{}, slices.DeleteFunc(l, same)...)
	}
	if found < 0 || !reflect.DeepEqual(is.Activations[found], want) ||
		!reflect.DeepEqual(rest(is.Activations), rest(was.Activations)) || !reflect.DeepEqual(is.Rest, was.Rest) {
		return errors.New("the file has a form that can't be edited; write one entry per dash, plain values")
	}
	return nil
}

type activationText struct {
	Activations []map[string]any `yaml:"activations"`
	Rest        map[string]any   `yaml:",inline"`
}

func decodeActivation(text []byte) (a activationText, err error) {
	err = yaml.Unmarshal(text, &a)
	return a, err
}

// yamlText edits bytes at positions that the parser reported.
type yamlText struct {
	text    []byte
	newline string
}

func newYAMLText(text []byte) *yamlText {
	d := &yamlText{text: slices.Clone(text), newline: "\n"}
	if i := bytes.IndexByte(text, '\n'); i > 0 && text[i-1] == '\r' {
		d.newline = "\r\n"
	}
	return d
}

func (d *yamlText) splice(from, to int, with string) []byte {
	return slices.Concat(d.text[:from], []byte(with), d.text[to:])
}

func (d *yamlText) append(lines string) []byte {
	if len(d.text) > 0 && d.text[len(d.text)-1] != '\n' {
		lines = d.newline + lines
	}
	return append(d.text, lines...)
}

// insertLines puts whole lines behind a line.
func (d *yamlText) insertLines(line int, lines string) []byte {
	end := d.lineEnd(line)
	if end == len(d.text) {
		return d.append(lines)
	}
	return d.splice(end+1, end+1, lines)
}

// lineEnd is the offset of a line's line feed, or of the end of the text.
func (d *yamlText) lineEnd(line int) int {
	start := d.offset(line, 1)
	if i := bytes.IndexByte(d.text[start:], '\n'); i >= 0 {
		return start + i
	}
	return len(d.text)
}

// offset turns a position, counted from 1 and in characters, into bytes.
func (d *yamlText) offset(line, column int) int {
	at := 0
	for ; line > 1; line-- {
		i := bytes.IndexByte(d.text[at:], '\n')
		if i < 0 {
			return len(d.text)
		}
		at += i + 1
	}
	for ; column > 1 && at < len(d.text); column-- {
		_, size := utf8.DecodeRune(d.text[at:])
		at += size
	}
	return at
}

// extent is where a scalar stands, with its quotes.
func (d *yamlText) extent(n *yaml.Node) (from, to int, err error) {
	raw := n.Value
	switch {
	case n.Style&yaml.SingleQuotedStyle != 0:
		raw = "'" + raw + "'"
	case n.Style&yaml.DoubleQuotedStyle != 0:
		raw = `"` + raw + `"`
	}
	from = d.offset(n.Line, n.Column)
	if n.Kind != yaml.ScalarNode || raw == "" || !bytes.HasPrefix(d.text[from:], []byte(raw)) {
		return 0, 0, fmt.Errorf("line %d: write the value plainly, on one line", n.Line)
	}
	return from, from + len(raw), nil
}

func (d *yamlText) setScalar(n *yaml.Node, value string) error {
	if n.Value == value {
		return nil
	}
	from, to, err := d.extent(n)
	if err != nil {
		return err
	}
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
		value = string(d.text[from]) + value + string(d.text[from])
	}
	d.text = d.splice(from, to, value)
	return nil
}

// addAfter puts a member behind another one of the same mapping.
func (d *yamlText) addAfter(in, key, value *yaml.Node, text string) error {
	if in.Style&yaml.FlowStyle == 0 {
		d.text = d.insertLines(value.Line, strings.Repeat(" ", key.Column-1)+text+d.newline)
		return nil
	}
	_, to, err := d.extent(value)
	if err == nil {
		d.text = d.splice(to, to, ", "+text)
	}
	return err
}

// remove takes a member out: a first one up to the next, another one of a flow
// mapping with the comma before it, else its whole line.
func (d *yamlText) remove(in, key, value *yaml.Node) error {
	_, to, err := d.extent(value)
	if err != nil {
		return err
	}
	from := d.offset(key.Line, key.Column)
	switch i := slices.Index(in.Content, key); {
	case i == 0 && len(in.Content) > 2:
		next := d.offset(in.Content[2].Line, in.Content[2].Column)
		if !bytes.ContainsRune(d.text[to:next], '#') { // a comment stays
			to = next
		}
	case in.Style&yaml.FlowStyle != 0:
		from = bytes.LastIndexByte(d.text[:from], ',')
	default:
		from = d.offset(key.Line, 1)
		to = min(d.lineEnd(value.Line)+1, len(d.text))
	}
	d.text = d.splice(from, to, "")
	return nil
}
