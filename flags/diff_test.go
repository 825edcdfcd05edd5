package flags

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
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

// FuzzDiff: documents that compile differ exactly when their values do, every flag
// that means something else is in the difference, and one that does not evaluates
// to the same. So does each document with its evaluators put in.
func FuzzDiff(f *testing.F) {
	rules := slices.Sorted(maps.Values(operatorRules))
	for i, rule := range rules {
		doc := func(r string) []byte { return []byte(`{"flags":{"f":` + boolFlag(r) + `}}`) }
		f.Add(doc(rule), doc(rules[(i+1)%len(rules)]))
	}
	f.Add([]byte(`{"$evaluators":{"e":{"var":"a"}},"flags":{"f":`+boolFlag(`{"$ref":"e"}`)+`}}`), []byte(`{"$evaluators":{"e":{"var":"b"}},"flags":{"f":`+boolFlag(`{"$ref":"e"}`)+`}}`))
	for _, op := range slices.Sorted(maps.Keys(operators)) {
		for _, operand := range []string{`R`, `[R,{"var":"tags"}]`, `[{"var":"tags"},R]`, `[["on",R],["off",1]]`, `[[R,1],["off",1]]`, `[R,["on",1]]`} {
			for _, e := range []string{`{}`, `{"var":"tags"}`, `{"$ref":"none"}`, `{"a":1,"b":{"$ref":"none"}}`, `{"merge":["on",7]}`} {
				rule := `{"if":[{"` + op + `":` + strings.Replace(operand, "R", `{"$ref":"e"}`, 1) + `},{"$ref":"e"},"on"]}`
				doc := []byte(`{"$evaluators":{"none":{},"e":` + e + `},"flags":{"f":` + boolFlag(rule) + `}}`)
				f.Add(doc, doc)
			}
		}
	}
	f.Fuzz(func(t *testing.T, old, new []byte) {
		sameEvaluations(t, old, new)
		sameEvaluations(t, old, putIn(t, old))
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

// sameEvaluations asks both documents about the flags that mean the same in both.
func sameEvaluations(t *testing.T, old, new []byte) {
	t.Helper()
	a, bad := Compile(old)
	b, worse := Compile(new)
	if bad != nil || worse != nil {
		return
	}
	changed := Changed(a, b)
	for _, key := range a.Keys() {
		x, y := a.Flag(key), b.Flag(key)
		if y == nil || slices.Contains(changed, key) {
			continue
		}
		for _, ctx := range []Context{nil, operatorContext(), {"targetingKey": "v", "tags": "on", "plan": 1}, {"tags": map[string]any{}}} {
			_, p := x.resolve(ctx, time.Unix(1_767_323_045, 0))
			_, q := y.resolve(ctx, time.Unix(1_767_323_045, 0))
			if p != &x.overrun && q != &y.overrun && !reflect.DeepEqual(p, q) {
				t.Fatalf("%s of %s and %s means the same; for %v they give %+v and %+v", key, old, new, ctx, *p, *q)
			}
		}
	}
}

// putIn writes a document without references: what they name stands in their
// place, and a document that grows too long stays as it is.
func putIn(t *testing.T, doc []byte) []byte {
	t.Helper()
	var root map[string]any
	if _, err := Compile(doc); err != nil || json.Unmarshal(doc, &root) != nil {
		return doc
	}
	named, _ := root["$evaluators"].(map[string]any)
	left := 10_000
	var walk func(v any) any
	walk = func(v any) any {
		if left--; left < 0 {
			return nil
		}
		switch v := v.(type) {
		case []any:
			for i := range v {
				v[i] = walk(v[i])
			}
		case map[string]any:
			if name, ok := v["$ref"].(string); ok && len(v) == 1 && named[name] != nil {
				return walk(maps.Clone(named[name].(map[string]any)))
			}
			for k := range v {
				v[k] = walk(v[k])
			}
		}
		return v
	}
	out, err := json.Marshal(walk(root["flags"]))
	if err != nil || left < 0 {
		return doc
	}
	return []byte(`{"flags":` + string(out) + `}`)
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
		{`[["on",1073741824],["off",1073741823]]`, `[["on",2147483647],["off",2147483647]]`, 0, 0},
		{`[["on",1],["off",2147483646]]`, `[["on",2],["off",2147483645]]`, 100. / (1<<31 - 1), 1},
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

// FuzzRollout: as many subjects get another variant as the difference says, none
// when it says none; weights that give nobody a share are no split.
func FuzzRollout(f *testing.F) {
	f.Add(uint32(10), uint32(90), uint32(0), uint32(1), uint32(9), uint32(0))
	f.Add(uint32(1), uint32(1<<30), uint32(1<<30-1), uint32(0), uint32(1<<31-1), uint32(1<<31-1))
	f.Add(uint32(1e6), uint32(40), uint32(3), uint32(1e6), uint32(0), uint32(3))
	f.Fuzz(func(t *testing.T, a1, a2, a3, b1, b2, b3 uint32) {
		doc := func(x, y, z uint32) []byte {
			return fmt.Appendf(nil, `{"flags":{"f":{"state":"ENABLED","variants":{"x":1,"y":2,"z":3},"defaultVariant":null,"targeting":{"fractional":[["x",%d],["y",%d],["z",%d]]}}}}`, x, y, z)
		}
		old, new := doc(a1, a2, a3), doc(b1, b2, b3)
		d, err := Diff(old, new)
		if err != nil {
			t.Fatal(err)
		}
		right := func(x, y, z uint32) bool { return uint64(x)+uint64(y)+uint64(z)-1 < maxWeight }
		if len(d.Flags) == 0 {
			return
		}
		if split := len(d.Flags[0].Rollouts) == 1; split != (right(a1, a2, a3) && right(b1, b2, b3)) {
			t.Fatalf("%s and %s: %+v", old, new, d)
		} else if !split {
			return
		}
		a, b, moved := mustCompile(t, string(old)).Flag("f"), mustCompile(t, string(new)).Flag("f"), 0
		const subjects = 2000
		for i := range subjects {
			ctx := Context{"targetingKey": fmt.Sprint("subject ", i)}
			if a.Evaluate(ctx, time.Time{}).Variant != b.Evaluate(ctx, time.Time{}).Variant {
				moved++
			}
		}
		said := d.Flags[0].Rollouts[0].Moves
		if got := 100 * float64(moved) / subjects; said == 0 && moved > 0 || got-said > 8 || said-got > 8 {
			t.Errorf("%s and %s: %v %% move, not %v %%", old, new, got, said)
		}
	})
}
