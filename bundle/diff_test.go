package bundle

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/sealstone/sealstone/internal/canon"
)

// taken stands where an element was, until compact.
type taken struct{}

// apply makes a document of an older one and edits: an oracle that shares
// nothing with Diff. What goes or moves is taken out at its old place first; the
// rest is put in, in order.
func apply(t *testing.T, doc any, edits []Edit) any {
	t.Helper()
	moved := map[string]any{}
	for _, e := range slices.Backward(edits) { // what is inside another thing first
		switch {
		case e.From != "":
			moved[e.From], doc = take(doc, steps(e.From))
		case e.New == nil:
			_, doc = take(doc, steps(e.Path))
		}
	}
	doc = compact(doc)
	for _, e := range edits {
		switch {
		case e.From != "":
			doc = put(doc, steps(e.Path), compact(moved[e.From]), true)
		case e.New != nil:
			doc = put(doc, steps(e.Path), parsed(t, e.New), e.Old == nil)
		}
	}
	return doc
}

func steps(path string) []string {
	if path == "" {
		return nil
	}
	return strings.Split(path[1:], "/")
}

func take(doc any, at []string) (out, rest any) {
	if len(at) == 0 {
		return doc, taken{}
	}
	switch v := doc.(type) {
	case map[string]any:
		key := unescape(at[0])
		if out, rest = take(v[key], at[1:]); rest == (taken{}) {
			delete(v, key)
			return out, v
		}
		v[key] = rest
	case []any:
		i, _ := strconv.Atoi(at[0])
		out, v[i] = take(v[i], at[1:])
	}
	return out, doc
}

func compact(doc any) any {
	switch v := doc.(type) {
	case map[string]any:
		for k := range v {
			v[k] = compact(v[k])
		}
	case []any:
		out := []any{}
		for _, e := range v {
			if e != (any)(taken{}) {
				out = append(out, compact(e))
			}
		}
		return out
	}
	return doc
}

// put sets a value, or makes room for it in a list.
func put(doc any, at []string, v any, more bool) any {
	if len(at) == 0 {
		return v
	}
	if list, ok := doc.([]any); ok {
		i, _ := strconv.Atoi(at[0])
		if len(at) == 1 && more {
			return slices.Insert(list, i, v)
		}
		list[i] = put(list[i], at[1:], v, more)
		return list
	}
	m, ok := doc.(map[string]any)
	if !ok {
		m = map[string]any{}
	}
	m[unescape(at[0])] = put(m[unescape(at[0])], at[1:], v, more)
	return m
}

func unescape(p string) string {
	return strings.ReplaceAll(strings.ReplaceAll(p, "~1", "/"), "~0", "~")
}

func parsed(t *testing.T, b []byte) any {
	t.Helper()
	v, err := canon.Parse(b, canon.MaxDepth)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// FuzzDiff: edits applied to the old document give the new one, and there are
// none exactly when the canonical bytes are equal.
func FuzzDiff(f *testing.F) {
	for _, pair := range [][2]string{
		{`{"a":1}`, `{"a":2}`}, {`{"a":{"b":{}}}`, `{"a":{}}`}, {`{"a":{}}`, `{}`}, {`[]`, `{"a":[null]}`}, {`{"a/b":{"~":1}}`, `{"a/b":{"~":{"c":1}}}`}, {`{"":{"":1}}`, `{"":{}}`}, {`1`, `1.0`},
		{`[1,2,3]`, `[0,1,3,4]`}, {`[[1],[2]]`, `[[2],[1,3]]`}, {`[{"name":"a","n":[1]},{"name":"b"}]`, `[{"name":"b","x":[]},{"name":"a","n":[1,2]}]`},
		{`{"l":[{"id":1,"x":[{"id":1},{"id":2}]},{"id":2}]}`, `{"l":[{"id":2},{"id":1,"x":[{"id":2,"y":0},{"id":1}]}]}`}, {`[{"key":"a"},{"key":"a"}]`, `[{"key":"a"}]`}, {`[{"a":1}]`, `[]`},
	} {
		f.Add([]byte(pair[0]), []byte(pair[1]))
	}
	f.Fuzz(func(t *testing.T, old, new []byte) {
		edits, err := Diff(old, new)
		if err != nil {
			return
		}
		was, _ := canon.Encode(parsed(t, old))
		is, _ := canon.Encode(parsed(t, new))
		if (len(edits) == 0) != (string(was) == string(is)) {
			t.Fatalf("%s and %s: %d edits", was, is, len(edits))
		}
		if got, err := canon.Encode(apply(t, parsed(t, old), edits)); err != nil || string(got) != string(is) {
			t.Fatalf("%s becomes %s, not %s (%v)", was, got, is, err)
		}
	})
}
