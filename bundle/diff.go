package bundle

import (
	"bytes"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/sealstone/sealstone/internal/canon"
)

// An Edit is one value that two states of a document don't share. Old or New is
// nil where there is no value; both are when an element of a list only moved.
type Edit struct {
	Path     string // JSON pointer: into the new document, of what was removed into the old one
	Key      string // the same for people: pools[2].size, or pools[name=main].size
	From     string // JSON pointer into the old document, of an element that moved
	Old, New []byte // canonical JSON
}

// Diff lists what it takes to make new of old: objects are compared by member,
// lists by element, everything else is replaced whole. Elements are the same when
// they have the same name, id or key, if all of a list have one of their own, and
// else when they have equal values. What is added to an object is listed value by
// value, what is removed at the highest place that is gone. Edits are in the order
// of the new document, a list's removals before what took their place; there are
// none exactly when the documents have equal values. A part with more than 10,000
// of them, or with a mebibyte of pointers, is replaced whole.
func Diff(old, new []byte) ([]Edit, error) {
	a, err := canon.Parse(old, canon.MaxDepth)
	if err != nil {
		return nil, err
	}
	b, err := canon.Parse(new, canon.MaxDepth)
	if err != nil {
		return nil, err
	}
	d := newDiffer()
	d.values(spot{}, spot{}, a, b)
	return d.edits, d.err
}

// Leaves lists the values of a document that has no older state.
func Leaves(doc []byte) ([]Edit, error) {
	v, err := canon.Parse(doc, canon.MaxDepth)
	if err != nil {
		return nil, err
	}
	d := newDiffer()
	d.added(spot{}, v)
	return d.edits, d.err
}

// Bounds of a difference. Pointers repeat the keys above a value, so they can
// have the square of a document's bytes.
const (
	maxEdits    = 10_000
	maxPointers = 1 << 20
	maxWork     = 1 << 24 // comparisons of elements
)

type differ struct {
	edits    []Edit
	pointers int // bytes
	work     int // that is left
	err      error
}

func newDiffer() *differ { return &differ{work: maxWork} }

// A spot is a place in a document.
type spot struct{ path, key string }

func (s spot) member(name string) spot {
	key := KeyOf(name)
	if s.key != "" {
		key = s.key + "." + key
	}
	return spot{s.path + "/" + canon.EscapePointer(name), key}
}

// element is a place in a list; of one with a name, people read that.
func (s spot) element(i int, name string) spot {
	n := strconv.Itoa(i)
	if name == "" {
		name = n
	}
	return spot{s.path + "/" + n, s.key + "[" + name + "]"}
}

// KeyOf writes the name of a member, in quotes when it would be misread.
func KeyOf(name string) string {
	if name == "" || strings.ContainsAny(name, ". \"[]") {
		return strconv.Quote(name)
	}
	return name
}

func (d *differ) add(e Edit) {
	d.edits = append(d.edits, e)
	d.pointers += len(e.Path) + len(e.Key) + len(e.From)
}

func (d *differ) full() bool {
	return len(d.edits) > maxEdits || d.pointers > maxPointers || d.err != nil
}

// within lists the edits of a part, or replaces it whole when they are too many.
func (d *differ) within(list func(), whole func()) {
	count, pointers := len(d.edits), d.pointers
	if list(); d.full() {
		clear(d.edits[count:])
		d.edits, d.pointers = d.edits[:count], pointers
		whole()
	}
}

// values compares what stands at a place before and after.
func (d *differ) values(was, is spot, old, new any) {
	whole := func() {
		if a, b := d.encode(old), d.encode(new); !bytes.Equal(a, b) {
			d.add(Edit{Path: is.path, Key: is.key, Old: a, New: b})
		}
	}
	switch a := old.(type) {
	case map[string]any:
		if b, ok := new.(map[string]any); ok {
			d.within(func() { d.members(was, is, a, b) }, whole)
			return
		}
	case []any:
		if b, ok := new.([]any); ok {
			d.within(func() { d.lists(was, is, a, b) }, whole)
			return
		}
	}
	whole()
}

func (d *differ) members(was, is spot, a, b map[string]any) {
	for _, key := range keysOf(a, b) {
		old, had := a[key]
		new, has := b[key]
		switch {
		case d.full():
			return
		case !had:
			d.added(is.member(key), new)
		case !has:
			d.removed(was.member(key), old)
		default:
			d.values(was.member(key), is.member(key), old, new)
		}
	}
}

func (d *differ) removed(at spot, v any) {
	d.add(Edit{Path: at.path, Key: at.key, Old: d.encode(v)})
}

func (d *differ) added(at spot, v any) {
	whole := func() { d.add(Edit{Path: at.path, Key: at.key, New: d.encode(v)}) }
	m, ok := v.(map[string]any)
	if !ok || len(m) == 0 {
		whole()
		return
	}
	d.within(func() {
		for _, key := range slices.Sorted(maps.Keys(m)) {
			if d.full() {
				return
			}
			d.added(at.member(key), m[key])
		}
	}, whole)
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
