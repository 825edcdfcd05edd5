package bundler

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"testing"
)

// FuzzFlagLayers holds the layers of flags to their laws, for a base and two
// overlays: the rules as plain maps define the result; an empty layer
// changes nothing, wherever it lies; a layer twice is the layer once; a layer
// of which it is told that it changed nothing can be left out; neither the order
// of keys nor how names are spread over files matters; and overlays that remove
// nothing may be laid over each other first.
func FuzzFlagLayers(f *testing.F) {
	const a = `{"flags":{"a":{"state":"ENABLED","variants":{"on":1,"off":[2]},"defaultVariant":"on","targeting":{"$ref":"e"}},"b":{"state":"DISABLED","variants":{}}},"$evaluators":{"e":{"var":"x"},"f":1},"metadata":{"m":1}}`
	f.Add([]byte(a), []byte(`{"flags":{"a":{"targeting":{},"defaultVariant":null},"b":null,"c":{"state":"ENABLED","variants":{}}},"$evaluators":{"f":null,"e":{"var":"y"}}}`), []byte(`{"flags":{"b":{"state":"ENABLED","variants":{"x":{"y":1}}},"a":{"variants":{"z":1}}},"metadata":{"m":null,"n":""}}`))
	f.Add([]byte(a), []byte(`{"flags":{"a":{"state":"DISABLED"},"d":{"state":"ENABLED"}}}`), []byte(`{"flags":{"a":{"variants":{"off":3},"metadata":{"o":"t"}}}}`))
	f.Add([]byte(a), []byte(`{"flags":{"a":{"state":"ENABLED"}},"$evaluators":{"e":{"var":"x"}}}`), []byte(`{"flags":[{"key":"b","state":"ENABLED"}]}`))
	f.Fuzz(func(t *testing.T, texts0, texts1, texts2 []byte) {
		var ls []*layer
		for _, text := range [][]byte{texts0, texts1, texts2} {
			l, ok := flagLayer(len(ls) == 0, text)
			if !ok {
				return
			}
			ls = append(ls, l)
		}
		want := flagsOf(ls...)
		law := func(name string, ls ...*layer) {
			t.Helper()
			if got := flagsOf(ls...); !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %v, want %v", name, got, want)
			}
		}
		if plain := plainFlags(ls); !reflect.DeepEqual(want, plain) {
			t.Errorf("layers make %v, the rules say %v", want, plain)
		}
		for i := range ls {
			law("an empty layer", slices.Insert(slices.Clone(ls), i, newLayer("empty"))...)
			law("a layer twice", slices.Insert(slices.Clone(ls), i, ls[i])...)
			law("another order of keys", slices.Replace(slices.Clone(ls), i, i+1, again(t, ls[i], fallingKeys))...)
			law("a file for each name", slices.Replace(slices.Clone(ls), i, i+1, again(t, ls[i], fileEach))...)
		}
		if !changes(ls[:2], ls[1]) && !changes(ls, ls[1]) {
			law("a layer that changes nothing", ls[0], ls[2])
		}
		if over, ok := overlaid(ls[0], ls[1], ls[2]); ok {
			law("overlays first", ls[0], over)
		}
	})
}

// flagLayer reads the files of a layer; ok says that they are right.
func flagLayer(base bool, texts ...[]byte) (l *layer, ok bool) {
	l, r := newLayer("l"), &reader{}
	l.base, l.loaded = base, true
	for _, text := range texts {
		n, faults := readJSON("l/flags/f.json", text)
		if len(faults) > 0 {
			return nil, false
		}
		r.flagFile(l, n)
	}
	return l, len(r.faults) == 0
}

func flagsOf(ls ...*layer) any {
	return (&reader{}).foldFlags(ls, func(string, bool) {}).value()
}

// changes reports whether anything is told to change at the last of some layers.
func changes(ls []*layer, last *layer) (did bool) {
	named := *last
	for _, m := range []*map[string]*node{&named.flags, &named.evaluators, &named.metadata} {
		*m = maps.Clone(*m)
		for name, n := range *m {
			other := *n
			other.at.file = "last"
			(*m)[name] = &other
		}
	}
	ls = slices.Clone(ls)
	ls[slices.Index(ls, last)] = &named
	(&reader{}).foldFlags(ls, func(file string, d bool) { did = did || file == "last" && d })
	return did
}

// plainFlags is what docs/config-repository.md says of layers of flags, on plain maps.
func plainFlags(ls []*layer) any {
	out := map[string]map[string]any{"flags": {}, "$evaluators": {}, "metadata": {}}
	for _, l := range ls {
		for part, named := range plainLayer(l) {
			for name, v := range named {
				out[part][name] = plainOver(part, out[part][name], v, l.base)
				if out[part][name] == nil {
					delete(out[part], name)
				}
			}
		}
	}
	doc := map[string]any{"flags": out["flags"]}
	for _, part := range []string{"$evaluators", "metadata"} {
		if len(out[part]) > 0 {
			doc[part] = out[part]
		}
	}
	return doc
}

func plainLayer(l *layer) map[string]map[string]any {
	out := map[string]map[string]any{"flags": {}, "$evaluators": {}, "metadata": {}}
	for part, named := range map[string]map[string]*node{"flags": l.flags, "$evaluators": l.evaluators, "metadata": l.metadata} {
		for name, n := range named {
			out[part][name] = n.value()
		}
	}
	return out
}

func plainOver(part string, old, v any, base bool) any {
	if part != "flags" || v == nil {
		return v
	}
	flag, over := map[string]any{}, v.(map[string]any)
	if old == nil && !base && (over["state"] == nil || over["variants"] == nil) {
		return nil // an error: nothing is there that it could change
	}
	if old != nil {
		maps.Copy(flag, old.(map[string]any))
	}
	maps.Copy(flag, over)
	if rule, ok := flag["targeting"].(map[string]any); ok && len(rule) == 0 {
		delete(flag, "targeting")
	}
	return flag
}

// again writes a layer in another way.
func again(t *testing.T, l *layer, write func(map[string]map[string]any) [][]byte) *layer {
	t.Helper()
	out, ok := flagLayer(l.base, write(plainLayer(l))...)
	if !ok {
		t.Fatal("a right layer can't be written in another way")
	}
	return out
}

// fileEach writes a file for each name, the last name first.
func fileEach(parts map[string]map[string]any) (files [][]byte) {
	for part, named := range parts {
		for _, name := range slices.Backward(slices.Sorted(maps.Keys(named))) {
			files = append(files, reversed(map[string]any{part: map[string]any{name: named[name]}}))
		}
	}
	return files
}

func fallingKeys(parts map[string]map[string]any) [][]byte {
	doc := map[string]any{}
	for part, named := range parts {
		doc[part] = named
	}
	return [][]byte{reversed(doc)}
}

// reversed encodes a value with the keys of every object in falling order.
func reversed(v any) []byte {
	var b bytes.Buffer
	switch v := v.(type) {
	case map[string]any:
		b.WriteByte('{')
		for _, key := range slices.Backward(slices.Sorted(maps.Keys(v))) {
			if b.Len() > 1 {
				b.WriteByte(',')
			}
			b.Write(reversed(key))
			b.WriteByte(':')
			b.Write(reversed(v[key]))
		}
		b.WriteByte('}')
	case []any:
		b.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				b.WriteByte(',')
			}
			b.Write(reversed(e))
		}
		b.WriteByte(']')
	default:
		raw, _ := json.Marshal(v)
		b.Write(raw)
	}
	return b.Bytes()
}

// overlaid lays one overlay over another, if neither removes anything and both
// change what the base defines only.
func overlaid(base, one, two *layer) (*layer, bool) {
	for _, l := range []*layer{one, two} {
		for part, named := range plainLayer(l) {
			for name, v := range named {
				flag, _ := v.(map[string]any)
				rule, ruled := flag["targeting"].(map[string]any)
				if v == nil || part == "flags" && (base.flags[name] == nil || base.flags[name].kind == kindNull || ruled && len(rule) == 0) {
					return nil, false
				}
			}
		}
	}
	out := newLayer("both")
	out.loaded = true
	r := &reader{}
	for _, l := range []*layer{one, two} {
		for name, n := range l.flags {
			out.flags[name] = overFlag(out.flags[name], n)
		}
		r.overNamed(out.evaluators, l.evaluators, "evaluator", func(string, bool) {})
		r.overNamed(out.metadata, l.metadata, "metadata", func(string, bool) {})
	}
	return out, true
}
