package flags

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"testing"
)

// plainOf is a document as a bundle has it: no $schema, no empty parts.
func plainOf(t *testing.T, doc []byte) any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(doc, &m); err != nil {
		t.Fatal(err)
	}
	delete(m, "$schema")
	for _, part := range []string{"metadata", "$evaluators"} {
		if v, ok := m[part].(map[string]any); ok && len(v) == 0 {
			delete(m, part)
		}
	}
	return m
}

// FuzzDiff: documents that compile differ exactly when their values do, and
// every flag that means something else is in the difference.
func FuzzDiff(f *testing.F) {
	rules := slices.Sorted(maps.Values(operatorRules))
	for i, rule := range rules {
		doc := func(r string) []byte { return []byte(`{"flags":{"f":` + boolFlag(r) + `}}`) }
		f.Add(doc(rule), doc(rules[(i+1)%len(rules)]))
	}
	f.Add([]byte(`{"$evaluators":{"e":{"var":"a"}},"flags":{"f":`+boolFlag(`{"$ref":"e"}`)+`}}`), []byte(`{"$evaluators":{"e":{"var":"b"}},"flags":{"f":`+boolFlag(`{"$ref":"e"}`)+`}}`))
	f.Fuzz(func(t *testing.T, old, new []byte) {
		d, err := Diff(old, new)
		a, bad := Compile(old)
		b, worse := Compile(new)
		if bad != nil || worse != nil || byArray(old) || byArray(new) {
			return
		}
		if err != nil {
			t.Fatalf("compiles, and has no difference: %v", err)
		}
		if empty := len(d.Flags)+len(d.Evaluators)+len(d.Metadata) == 0; empty != reflect.DeepEqual(plainOf(t, old), plainOf(t, new)) {
			t.Fatalf("%s and %s: %+v", old, new, d)
		}
		listed := map[string]bool{}
		for _, c := range d.Flags {
			listed[c.Key] = !c.Reworded
		}
		changed := Changed(a, b)
		for _, key := range changed {
			if !listed[key] && len(d.Metadata) == 0 {
				t.Fatalf("%s changed: %s and %s", key, old, new)
			}
		}
		if got := otherMeanings(t, old, new); len(d.Metadata) == 0 && !slices.Equal(got, changed) {
			t.Fatalf("%s and %s: %v mean something else, %v changed", old, new, got, changed)
		}
	})
}

// otherMeanings are the flags that Meanings tells apart.
func otherMeanings(t *testing.T, old, new []byte) []string {
	a, err := Meanings(old)
	b, err2 := Meanings(new)
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	keys := map[string]bool{}
	for key, was := range a {
		now, ok := b[key]
		keys[key] = !ok || now != was
	}
	for key := range b {
		_, ok := a[key]
		keys[key] = keys[key] || !ok
	}
	maps.DeleteFunc(keys, func(_ string, differ bool) bool { return !differ })
	return slices.Sorted(maps.Keys(keys))
}

// byArray tells the form that no bundle has.
func byArray(doc []byte) bool {
	root, err := parse(string(doc))
	return err == nil && root.part("flags").kind == arrayNode
}

func TestDiffSharesOfASplit(t *testing.T) {
	split := func(operand string) []byte {
		return []byte(`{"flags":{"f":` + boolFlag(`{"fractional":`+operand+`}`) + `}}`)
	}
	for _, c := range []struct {
		old, new string
		moves    float64
		want     int
	}{
		{`[["on",1],["off",3]]`, `[["on",2],["off",2]]`, 25, 1},
		{`[["on",10],["off",90]]`, `[["on",1],["off",9]]`, 0, 1},
		{`[["on"],["off"]]`, `[["off"],["on"]]`, 100, 1},
		{`[["on",1],["off",{"var":"w"}]]`, `[["on",2],["off",{"var":"w"}]]`, 0, 0},
		{`[["on",0]]`, `[["on",1]]`, 0, 0},
	} {
		d, err := Diff(split(c.old), split(c.new))
		if err != nil || len(d.Flags) != 1 || len(d.Flags[0].Rollouts) != c.want {
			t.Fatalf("%s and %s: %+v %v", c.old, c.new, d, err)
		}
		if c.want == 1 && d.Flags[0].Rollouts[0].Moves != c.moves {
			t.Errorf("%s and %s: %+v", c.old, c.new, d.Flags[0].Rollouts[0])
		}
	}
}
