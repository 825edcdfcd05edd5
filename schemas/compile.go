package schemas

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v5"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/canon"
)

// base is where schemas of a repository live for the resolver. The scheme is
// one that nothing can open.
const base = "sealstone:///schemas/"

// A Source returns the bytes of a schema by its name without Suffix. The error
// wraps fs.ErrNotExist-like conditions as it likes; it is passed on.
type Source func(name string) ([]byte, error)

// A RefError is a reference to something that is neither a neighbour nor built in.
type RefError struct{ URL string }

func (e *RefError) Error() string {
	return fmt.Sprintf("reference to %s, which is neither a file of schemas/ nor built in", brief(strconv.Quote(e.URL)))
}

// ErrNotFound is what a Source returns for a name it doesn't have.
var ErrNotFound = errors.New("no such schema")

// A Schema is ready to validate. It is safe for concurrent use.
type Schema struct {
	compile func() (*instance, error)
	mu      sync.Mutex
	idle    []*instance
}

// An instance is one compiled copy with a counter of its own: the compiled form
// can't carry state of one validation otherwise.
type instance struct {
	schema *jsonschema.Schema
	meter  *meter
}

// Compile compiles the schema called name, from source or else the built-in
// ones. source may be nil.
func Compile(name string, source Source) (*Schema, error) {
	s := &Schema{}
	loader := &loader{source: source}
	s.compile = func() (*instance, error) { return compile(name, loader) }
	first, err := s.compile()
	if err != nil {
		return s, err
	}
	s.idle = append(s.idle, first)
	return s, nil
}

func compile(name string, l *loader) (inst *instance, err error) {
	defer func() {
		if r := recover(); r != nil {
			inst, err = nil, fmt.Errorf("can't be compiled: %v", r)
		}
	}()
	m := &meter{}
	c := jsonschema.NewCompiler()
	c.Draft = jsonschema.Draft2020
	c.LoadURL = l.load
	c.AssertFormat = true
	c.RegisterExtension("sealstone", nil, meterCompiler{m})
	schema, err := c.Compile(base + name + Suffix)
	if err != nil {
		return nil, l.explain(err)
	}
	return &instance{schema, m}, nil
}

// A loader hands out the only files a reference can reach.
type loader struct {
	source Source
	mu     sync.Mutex
	read   map[string][]byte
	failed error
}

func (l *loader) load(url string) (io.ReadCloser, error) {
	b, err := l.bytes(url)
	if err != nil {
		l.mu.Lock()
		l.failed = err
		l.mu.Unlock()
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(b)), nil
}

func (l *loader) bytes(url string) ([]byte, error) {
	// The flag-definition schemas name each other by the file names they have
	// upstream, relative to their $id or to where they lie here.
	for _, from := range []string{flagdBase, base} {
		if name, ok := schemaName(url, from, ".json"); ok && (name == "flags" || name == "targeting") {
			b, _ := Builtin(name)
			return b, nil
		}
	}
	name, ok := schemaName(url, base, Suffix)
	if !ok {
		return nil, &RefError{url}
	}
	b, err := l.own(name)
	if !errors.Is(err, ErrNotFound) {
		return b, err
	}
	if b, ok := Builtin(name); ok {
		return b, nil
	}
	return nil, &RefError{strings.TrimPrefix(url, base)}
}

func (l *loader) own(name string) ([]byte, error) {
	if l.source == nil {
		return nil, ErrNotFound
	}
	l.mu.Lock()
	b, ok := l.read[name]
	l.mu.Unlock()
	if ok {
		return b, nil
	}
	b, err := l.source(name)
	if err != nil {
		return nil, err
	}
	tree, err := canon.Parse(b, canon.MaxDepth)
	if err != nil {
		return nil, fmt.Errorf("%s%s: %w", name, Suffix, err)
	}
	if err := checkSize(tree); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.read == nil {
		l.read = map[string][]byte{}
	}
	l.read[name] = b
	return b, nil
}

// explain prefers the loader's own error to the library's rendering of it.
func (l *loader) explain(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return l.failed
	}
	if ve, ok := errors.AsType[*jsonschema.ValidationError](err); ok {
		leaf := ve
		for len(leaf.Causes) > 0 {
			leaf = leaf.Causes[0]
		}
		return fmt.Errorf("is not a valid JSON Schema at %q: %.200s", BriefPointer(unescape(leaf.InstanceLocation)), brief(leaf.Message))
	}
	if se, ok := errors.AsType[*jsonschema.SchemaError](err); ok {
		err = se.Err
	}
	msg := strings.ReplaceAll(strings.TrimPrefix(err.Error(), "jsonschema: "), base, "")
	return fmt.Errorf("can't be compiled: %.300s", brief(msg))
}

// longText finds quoted values and words of more than 64 bytes: the library
// quotes what it finds, which may be long or secret.
var longText = regexp.MustCompile("'[^']{65,}'|\"[^\"]{65,}\"|`[^`]{65,}`|[^\\s/'\"`]{65,}")

// BriefPointer is a JSON pointer for a message: no name of more than 64 bytes,
// about 120 bytes in all.
func BriefPointer(p string) string {
	parts := strings.Split(p, "/")
	for i, name := range parts {
		if len(name) > 64 {
			parts[i] = fmt.Sprintf("(%d bytes)", len(name))
		}
	}
	return strings.ToValidUTF8(api.Clip(strings.Join(parts, "/"), 120), "?")
}

func brief(msg string) string {
	return longText.ReplaceAllStringFunc(msg, func(s string) string { return fmt.Sprintf("a value of %d bytes", len(s)) })
}

func schemaName(url, base, suffix string) (string, bool) {
	rest, ok := strings.CutPrefix(url, base)
	if !ok {
		return "", false
	}
	name, ok := strings.CutSuffix(rest, suffix)
	return name, ok && name != "" && !strings.ContainsAny(name, "/%?#")
}
