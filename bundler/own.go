package bundler

import (
	"errors"
	"sync"

	"github.com/sealstone/sealstone/internal/canon"
	"github.com/sealstone/sealstone/schemas"
)

// ownSchemas are the compiled built-in schemas of Sealstone's own files, made
// when first needed: the published schema and the check are the same thing.
var ownSchemas sync.Map // name → *schemas.Schema

func ownSchema(name string) *schemas.Schema {
	if s, ok := ownSchemas.Load(name); ok {
		return s.(*schemas.Schema)
	}
	s, err := schemas.Compile(name, nil)
	if err != nil {
		panic("built-in schema " + name + ": " + err.Error())
	}
	ownSchemas.Store(name, s)
	return s
}

// readOwn reads one of Sealstone's own files and holds it to its schema. The
// node is nil when there is nothing that can be used.
func readOwn(file string, raw []byte, schema string) (*node, Faults) {
	d := readDocument(file, raw, forOwn)
	if asError(d.faults) != nil {
		return nil, d.faults
	}
	res, err := ownSchema(schema).Validate(d.root.value())
	if err != nil {
		return nil, append(d.faults, fault(ruleFormat, place{file: file}, "%s", err))
	}
	faults := append(d.faults, schemaFaults(ruleFormat, d.root, res)...)
	if len(res.Faults) > 0 {
		return nil, faults
	}
	return d.root, faults
}

// schemaFaults says where in the text each breach of a schema was set.
func schemaFaults(r *Rule, root *node, res schemas.Result) Faults {
	var out Faults
	for _, f := range res.Faults {
		if len(f.Extra) == 0 {
			out = append(out, fault(r, root.locate(f.Pointer), "%s%s", where(f.Pointer), f.Message))
		}
		for _, name := range f.Extra {
			p := f.Pointer + "/" + canon.EscapePointer(name)
			out = append(out, fault(r, root.locate(p), "%sunknown member %s", where(f.Pointer), quote(name)))
		}
	}
	return out
}

func where(pointer string) string {
	if pointer == "" {
		return ""
	}
	return schemas.BriefPointer(pointer) + ": "
}

// text returns a string member, "" when absent.
func (n *node) text(name string) string {
	if m := n.get(name); m != nil {
		return m.str
	}
	return ""
}

// texts returns a list of strings.
func (n *node) texts(name string) []string {
	m := n.get(name)
	if m == nil {
		return nil
	}
	out := make([]string, len(m.list))
	for i, e := range m.list {
		out[i] = e.str
	}
	return out
}

// items returns the members of a list, none when it is absent.
func (n *node) items(name string) []*node {
	if m := n.get(name); m != nil {
		return m.list
	}
	return nil
}

func (n *node) whole(name string) int {
	if m := n.get(name); m != nil {
		return int(m.num)
	}
	return 0
}

// schemaError says why a schema can't be used.
func schemaError(err error, at place) Fault {
	if fs, ok := FaultsOf(err); ok { // of a file that can't be read
		return fs[0]
	}
	if _, ok := errors.AsType[*schemas.RefError](err); ok {
		return fault(ruleSchemaRef, at, "%s", err)
	}
	if errors.Is(err, schemas.ErrCost) {
		return fault(ruleSchemaCost, at, "the schema %s", err)
	}
	return fault(ruleSchemaBad, at, "the schema %s", err)
}
