package bundler

import (
	"bytes"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/internal/canon"
)

// A usage says what a file is for, because the strictness differs: `on` is a
// fine name of a variant and a trap in a document.
type usage uint8

const (
	forOwn    usage = iota // sealstone.yaml and the like
	forConfig              // a document
	forFlags
)

// A document is one file read into nodes. root is nil when faults hold errors
// that leave nothing to work with.
type document struct {
	root *node
	found
}

var (
	bom        = []byte("\xef\xbb\xbf")
	lfsPointer = []byte("version https://git-lfs.github.com/spec/")
)

// readDocument reads the bytes of a file of a repository.
func readDocument(file string, raw []byte, use usage) *document {
	d := &document{}
	d.size = len(raw)
	if f, bad := checkBytes(file, raw); bad {
		d.faults = Faults{f}
		return d
	}
	if d.values = countValues(raw); d.values > maxValues {
		d.faults = Faults{fault(ruleValuesLimit, place{file: file}, "the file has up to %d values, the limit is %d", d.values, maxValues)}
		return d
	}
	if strings.HasSuffix(file, ".json") {
		d.root, d.faults = readJSON(file, raw)
	} else {
		d.root, d.faults = readYAML(file, raw, use)
	}
	if d.root != nil {
		d.secrets = findSecrets(file, raw, d.root)
	}
	return d
}

// Bounds of what is read, where a byte of text may become a hundred of memory.
const (
	maxValues        = 1 << 17   // of a file
	maxServiceValues = 1 << 19   // of all files of a service, or of common
	maxServiceBytes  = 64 << 20  // likewise
	maxCheckValues   = 3 << 20   // of all services that one check reads
	maxCheckBytes    = 512 << 20 // likewise
	maxFolderBytes   = 32 << 20  // of activations/, of schemas/, of recorded contexts
)

// countValues says how many values a text can have at most, before a parser
// spends memory on them: each but the first stands behind one of these.
func countValues(raw []byte) int {
	n := 1
	for _, c := range raw {
		if c == ',' || c == '\n' || c == '[' || c == '{' {
			n++
		}
	}
	return n
}

// checkBytes refuses what no parser should see.
func checkBytes(file string, raw []byte) (Fault, bool) {
	at := place{file: file, line: 1, col: 1}
	switch {
	case len(raw) > bundle.MaxDocument:
		return fault(ruleFileLimit, place{file: file}, "the file has %d bytes, the limit is %d", len(raw), bundle.MaxDocument), true
	case bytes.HasPrefix(raw, lfsPointer):
		return fault(ruleLFS, at, "the file is a Git LFS pointer"), true
	case bytes.HasPrefix(raw, bom):
		return fault(ruleEncoding, at, "the file begins with a byte order mark"), true
	case bytes.IndexByte(raw, 0) >= 0:
		return fault(ruleEncoding, placeOf(file, raw, bytes.IndexByte(raw, 0)), "the file holds a NUL byte"), true
	case !utf8.Valid(raw):
		return fault(ruleEncoding, placeOf(file, raw, invalidAt(raw)), "the file is not valid UTF-8"), true
	}
	if i := bytes.IndexFunc(raw, misleads); i >= 0 {
		r, _ := utf8.DecodeRune(raw[i:])
		return fault(ruleEncoding, placeOf(file, raw, i), "the file holds U+%04X, which shows other lines or another order than parsers read", r).withFix(
			"Remove it, or write it as an escape in double quotes"), true
	}
	return Fault{}, false
}

// misleads finds characters that make a reviewer see something else than a
// parser does: line breaks to some parsers and none to others, and marks that
// turn the direction of text.
func misleads(r rune) bool {
	return r == 0x85 || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

func invalidAt(raw []byte) int {
	for i := 0; i < len(raw); {
		r, n := utf8.DecodeRune(raw[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return 0
}

// placeOf turns a byte offset into line and column; columns count characters.
func placeOf(file string, raw []byte, offset int) place {
	before := raw[:min(max(0, offset), len(raw))]
	line := bytes.Count(before, []byte("\n"))
	start := bytes.LastIndexByte(before, '\n') + 1
	return place{file, int32(line + 1), int32(utf8.RuneCount(before[start:]) + 1)}
}

// A positions turns rising offsets into places in one pass over the text.
type positions struct {
	file      string
	raw       []byte
	at        int
	line, col int32
}

func (p *positions) place(offset int) place {
	for p.at < offset && p.at < len(p.raw) {
		switch c := p.raw[p.at]; {
		case c == '\n':
			p.line, p.col = p.line+1, 0
		case utf8.RuneStart(c):
			p.col++
		}
		p.at++
	}
	return place{p.file, p.line + 1, p.col + 1}
}

// readJSON reads strict JSON. The parser tells where each value starts, in the
// order of the text; the tree of places grows along and is then filled.
func readJSON(file string, raw []byte) (*node, Faults) {
	pos := positions{file: file, raw: raw}
	t := tracer{}
	v, err := canon.ParseAt(raw, canon.MaxDepth, func(path []string, offset int) { t.add(path, pos.place(offset)) })
	if err != nil {
		return nil, Faults{jsonFault(file, raw, err)}
	}
	return t.root.fill(v), nil
}

func jsonFault(file string, raw []byte, err error) Fault {
	se, ok := errors.AsType[*canon.SyntaxError](err)
	if !ok {
		return fault(ruleJSON, place{file: file}, "%s", err)
	}
	at := placeOf(file, raw, se.Offset)
	switch {
	case strings.HasPrefix(se.Msg, "duplicate key"):
		return fault(ruleDuplicate, at, "%s", se.Msg)
	case strings.HasPrefix(se.Msg, "nested"):
		return fault(ruleDepthLimit, at, "%s", se.Msg)
	case strings.Contains(se.Msg, "2^53"):
		return fault(ruleNumberRange, at, "a number is beyond ±(2^53-1) and can't be kept exactly")
	}
	return fault(ruleJSON, at, "%s", se.Msg)
}

// A tracer builds the nodes that the parser reports, with places and names
// alone: members and elements are fields, in the order of the text.
type tracer struct {
	root  *node
	stack []*node
}

func (t *tracer) add(path []string, at place) {
	n := &node{at: at}
	if len(path) == 0 {
		t.root, t.stack = n, []*node{n}
		return
	}
	t.stack = t.stack[:len(path)]
	up := t.stack[len(path)-1]
	up.fields = append(up.fields, field{path[len(path)-1], n})
	t.stack = append(t.stack, n)
}

// fill gives a traced node its value.
func (n *node) fill(v any) *node {
	switch v := v.(type) {
	case bool:
		n.kind, n.truth = kindBool, v
	case float64:
		n.kind, n.num = kindNumber, v
	case string:
		n.kind, n.str = kindString, v
	case []any:
		n.kind, n.list = kindList, make([]*node, len(v))
		for i, e := range v {
			n.list[i] = n.fields[i].val.fill(e)
		}
		n.fields = nil
	case map[string]any:
		n.kind = kindObject
		for _, f := range n.fields {
			f.val.fill(v[f.name])
		}
		n.setFields(n.fields, func(field) {}) // the parser has refused repeats
	}
	return n
}

// file reads a blob with its limit held before it is inflated.
func (b *Builder) file(file string, h plumbing.Hash) ([]byte, *Fault, error) {
	b.done.files.Add(1)
	raw, err := b.repo.blob(h, bundle.MaxDocument)
	if errors.Is(err, errTooLarge) {
		f := fault(ruleFileLimit, place{file: file}, "the file has %s", strings.TrimSuffix(err.Error(), ": "+errTooLarge.Error()))
		return nil, &f, nil
	}
	if f, ok := objectFault(file, h, err); ok {
		return nil, &f, nil
	}
	return raw, nil, err
}
