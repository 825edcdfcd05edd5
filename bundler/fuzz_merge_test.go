package bundler

import (
	"reflect"
	"testing"
)

// FuzzMerge holds the merge of documents to its laws, for any three values:
// RFC 7386 as it is written defines it; an empty object changes no object;
// a patch twice is the patch once; a later value that is no object replaces all
// before it. Folding is from the left: merging the patches first is another
// thing, because a null in the first one is then forgotten.
func FuzzMerge(f *testing.F) {
	f.Add([]byte(`{"a":{"b":1,"c":2}}`), []byte(`{"a":{"b":null,"d":[null]}}`), []byte(`{"a":3}`))
	f.Add([]byte(`[1]`), []byte(`{"a":{"b":null}}`), []byte(`null`))
	f.Add([]byte(`{"e":null}`), []byte(`{"a":1}`), []byte(`{"a":{"b":{}}}`))
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		base, faults := readJSON("a.json", a)
		first, faults2 := readJSON("b.json", b)
		second, faults3 := readJSON("c.json", c)
		if len(faults)+len(faults2)+len(faults3) > 0 {
			return
		}
		one, did := merge(base, first)
		same(t, "RFC 7386", one, mergePatch(base.value(), first.value()))
		if !did && !equal(one, base) {
			t.Error("a change was not told")
		}
		twice, _ := merge(one, first)
		same(t, "twice is once", twice, one.value())
		if one.kind == kindObject {
			still, _ := merge(one, &node{kind: kindObject})
			same(t, "an empty object", still, one.value())
		}
		two, _ := merge(one, second)
		same(t, "from the left", two, mergePatch(mergePatch(base.value(), first.value()), second.value()))
		if second.kind != kindObject {
			same(t, "a later value replaces", two, second.value())
		}
	})
}

func same(t *testing.T, law string, got *node, want any) {
	t.Helper()
	if !reflect.DeepEqual(got.value(), want) {
		t.Errorf("%s: %v, want %v", law, got.value(), want)
	}
}
