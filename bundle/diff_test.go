package bundle

import (
	"strings"
	"testing"

	"github.com/sealstone/sealstone/internal/canon"
)

// apply makes a document of an older one and edits: an oracle that shares
// nothing with Diff.
func apply(t *testing.T, doc any, edits []Edit) any {
	t.Helper()
	for _, e := range edits {
		if e.Path == "" {
			doc = parsed(t, e.New)
			continue
		}
		parts := strings.Split(e.Path[1:], "/")
		m := doc.(map[string]any)
		for _, p := range parts[:len(parts)-1] {
			key := unescape(p)
			if _, ok := m[key]; !ok {
				m[key] = map[string]any{}
			}
			m = m[key].(map[string]any)
		}
		last := unescape(parts[len(parts)-1])
		if e.New == nil {
			delete(m, last)
			continue
		}
		m[last] = parsed(t, e.New)
	}
	return doc
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
