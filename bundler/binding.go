package bundler

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/schemas"
)

// noSchema in a binding says that a document is held to none.
const noSchema = "none"

// bind finds the schema of a document: an exact name before patterns, the
// service's file before common's. The node is what decided, nil for nothing.
func bind(common, service *source, doc string) (binding *node, clash []field) {
	name := "config/" + doc
	for _, s := range []*source{service, common} {
		if n := bindings(s).get(name); n != nil {
			return n, nil
		}
	}
	for _, s := range []*source{service, common} {
		if found := matching(bindings(s), name); len(found) == 1 {
			return found[0].val, nil
		} else if len(found) > 1 {
			return nil, found
		}
	}
	return nil, nil
}

func bindings(s *source) *node {
	if s == nil {
		return nil
	}
	return s.meta.get("schemas")
}

func matching(b *node, name string) []field {
	var out []field
	if b == nil {
		return nil
	}
	for _, f := range b.fields {
		if ok, err := path.Match(f.name, name); ok && err == nil && strings.Contains(f.name, "*") {
			out = append(out, f)
		}
	}
	return out
}

// A schemaFolder is schemas/ of one commit.
type schemaFolder struct {
	b     *Builder
	files map[string]plumbing.Hash // by name without suffix
}

// A compiled schema, or why there is none, with the blobs it was made of: it
// serves as long as these names have these blobs.
type compiledSchema struct {
	schema *schemas.Schema
	err    error
	blobs  map[string]plumbing.Hash // zero for a name that had no file
}

// holds reports whether schemas have these blobs here.
func (f *schemaFolder) holds(blobs map[string]plumbing.Hash) bool {
	for name, h := range blobs {
		if f.files[name] != h {
			return false
		}
	}
	return true
}

// compile returns a schema by name, from memory when its files are the same.
func (f *schemaFolder) compile(ctx context.Context, name string) (*compiledSchema, error) {
	key := name + "\x00" + f.files[name].String()
	if c, ok := f.b.compiled.get(key); ok && f.holds(c.blobs) {
		return c, nil
	}
	c := &compiledSchema{blobs: map[string]plumbing.Hash{}}
	var broken error
	c.schema, c.err = schemas.Compile(name, func(n string) ([]byte, error) {
		h := f.files[n]
		c.blobs[n] = h
		if h.IsZero() {
			return nil, schemas.ErrNotFound
		}
		raw, err := f.b.repo.blob(h, bundle.MaxDocument)
		switch f, ok := objectFault("schemas/"+n+".schema.json", h, err); {
		case ok:
			return nil, Faults{f}
		case err != nil && !errors.Is(err, errTooLarge):
			broken = err
		}
		return raw, err
	})
	if broken = errors.Join(broken, ctx.Err()); broken != nil {
		return nil, broken
	}
	f.b.compiled.put(key, c, 1)
	return c, nil
}

// has reports whether name is a schema here or built in.
func (f *schemaFolder) has(name string) bool {
	if _, ok := f.files[name]; ok {
		return true
	}
	_, ok := schemas.Builtin(name)
	return ok
}

func (f *schemaFolder) names() []string {
	names := schemas.Names()
	for n := range f.files {
		names = append(names, n)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
