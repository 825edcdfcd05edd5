package bundle

import (
	"bytes"
	"maps"
	"slices"

	"github.com/sealstone/sealstone/internal/canon"
)

// An Edit is one value that two states of a document don't share. Path is a
// JSON pointer; Old or New is nil where there is no value.
type Edit struct {
	Path     string
	Old, New []byte // canonical JSON
}

// Diff lists what it takes to make new of old: objects are compared by member,
// everything else is replaced whole, as layers do it. What is added is listed
// value by value, what is removed at the highest place that is gone. Edits are
// sorted by key; there are none exactly when the documents have equal values.
func Diff(old, new []byte) ([]Edit, error) {
	var d differ
	a, err := canon.Parse(old, canon.MaxDepth)
	if err != nil {
		return nil, err
	}
	b, err := canon.Parse(new, canon.MaxDepth)
	if err != nil {
		return nil, err
	}
	d.values("", a, b)
	return d.edits, d.err
}

// Leaves lists the values of a document that has no older state.
func Leaves(doc []byte) ([]Edit, error) {
	var d differ
	v, err := canon.Parse(doc, canon.MaxDepth)
	if err != nil {
		return nil, err
	}
	d.added("", v)
	return d.edits, d.err
}

type differ struct {
	edits []Edit
	err   error
}

func (d *differ) values(path string, old, new any) {
	a, isObject := old.(map[string]any)
	b, both := new.(map[string]any)
	if !isObject || !both {
		if was, is := d.encode(old), d.encode(new); !bytes.Equal(was, is) {
			d.edits = append(d.edits, Edit{path, was, is})
		}
		return
	}
	for _, key := range keysOf(a, b) {
		below := path + "/" + canon.EscapePointer(key)
		was, had := a[key]
		is, has := b[key]
		switch {
		case !had:
			d.added(below, is)
		case !has:
			d.edits = append(d.edits, Edit{Path: below, Old: d.encode(was)})
		default:
			d.values(below, was, is)
		}
	}
}

func (d *differ) added(path string, v any) {
	m, ok := v.(map[string]any)
	if !ok || len(m) == 0 {
		d.edits = append(d.edits, Edit{Path: path, New: d.encode(v)})
		return
	}
	for _, key := range slices.Sorted(maps.Keys(m)) {
		d.added(path+"/"+canon.EscapePointer(key), m[key])
	}
}

func (d *differ) encode(v any) []byte {
	b, err := canon.Encode(v)
	if err != nil {
		d.err = err
	}
	return b
}

func keysOf(a, b map[string]any) []string {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return slices.Sorted(maps.Keys(all))
}
