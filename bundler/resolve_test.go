package bundler

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/canon"
	"github.com/sealstone/sealstone/internal/gittest"
)

func parse(t testing.TB, text string) *node {
	t.Helper()
	n, faults := readJSON("t.json", []byte(text))
	if len(faults) > 0 {
		t.Fatal(text, faults)
	}
	return n
}

// TestMergeVectorsOfRFC7386 is the table of its appendix A, without the cases
// whose result has a null member: those can't be in a document.
func TestMergeVectorsOfRFC7386(t *testing.T) {
	for _, c := range [][3]string{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`["a","b"]`, `["c","d"]`, `["c","d"]`},
		{`{"a":"b"}`, `["c"]`, `["c"]`},
		{`{"a":"foo"}`, `null`, `null`},
		{`{"a":"foo"}`, `"bar"`, `"bar"`},
		{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
	} {
		got, _ := merge(parse(t, c[0]), parse(t, c[1]))
		if raw, err := canon.Encode(got.value()); err != nil || string(raw) != c[2] {
			t.Errorf("%s over %s is %s (%v), want %s", c[1], c[0], raw, err, c[2])
		}
	}
}

// mergePatch is the pseudo code of RFC 7386, for comparison.
func mergePatch(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	out := map[string]any{}
	if t, ok := target.(map[string]any); ok {
		for k, v := range t {
			out[k] = v
		}
	}
	for k, v := range p {
		if v == nil {
			delete(out, k)
		} else {
			out[k] = mergePatch(out[k], v)
		}
	}
	return out
}

func randomValue(rnd *rand.Rand, depth int, nulls bool) any {
	kind := rnd.IntN(6)
	if depth == 0 {
		kind = rnd.IntN(3)
	}
	switch kind {
	case 0:
		return float64(rnd.IntN(3))
	case 1:
		return string(rune('x' + rnd.IntN(3)))
	case 2:
		if nulls {
			return nil
		}
		return true
	case 3:
		return []any{randomValue(rnd, 0, false), randomValue(rnd, 0, false)}
	}
	m := map[string]any{}
	for range rnd.IntN(4) {
		m[string(rune('a'+rnd.IntN(4)))] = randomValue(rnd, depth-1, nulls)
	}
	return m
}

// TestMergeLaws: the definition holds; merging a patch twice is merging it once;
// `did` is false exactly when the result equals the target; inputs stay as they were.
func TestMergeLaws(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		target, patch := randomValue(rnd, 3, false), randomValue(rnd, 3, true)
		tn, pn := nodeOf(t, target), nodeOf(t, patch)
		got, did := merge(tn, pn)
		if want := mergePatch(target, patch); !reflect.DeepEqual(got.value(), want) {
			t.Fatalf("%v over %v is %v, want %v", patch, target, got.value(), want)
		}
		if did != !reflect.DeepEqual(target, got.value()) {
			t.Fatalf("%v over %v is %v: changed is %v", patch, target, got.value(), did)
		}
		if again, did := merge(got, pn); did || !equal(again, got) {
			t.Fatalf("%v over %v twice differs from once", patch, target)
		}
		if !reflect.DeepEqual(tn.value(), target) || !reflect.DeepEqual(pn.value(), patch) {
			t.Fatal("merging changed its input")
		}
	}
}

func nodeOf(t testing.TB, v any) *node {
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, string(raw))
}

// resolveOne builds a service of one scope chain and returns flags.json, or the
// rules that it broke.
func resolveOne(t *testing.T, files map[string]string, scope api.Scope, mode api.Mode, title string) string {
	t.Helper()
	repo := gittest.New(t)
	files = gittest.With(files, map[string]string{
		"sealstone.yaml":          "version: 1\nlevels: [env, region, pool]\nscopes: ['prod/*/*']\n",
		"services/s/service.yaml": "owner: x\nschemas: {'config/*': none}\n",
	})
	b := New(NewRepo(repo))
	commit := gittest.Commit(t, repo, files)
	built, faults := b.BuildAll(context.Background(), commit, BuildFilter{Service: "s", Scope: "prod"})
	if len(faults) > 0 {
		var rules []string
		for _, f := range faults {
			rules = append(rules, f.Rule)
		}
		return strings.Join(rules, " ")
	}
	best := built[0].Entries[0]
	for _, e := range built[0].Entries {
		if e.Mode == mode && e.Scope.Contains(scope) && (best.Mode != mode || e.Scope.Depth() >= best.Scope.Depth()) {
			best = e
		}
	}
	one := built[0].Bundles[best.Digest]
	var m struct {
		Layers []struct {
			Digest      api.Digest
			Annotations map[string]string
		}
	}
	if err := json.Unmarshal(one.Manifest, &m); err != nil {
		t.Fatal(err)
	}
	for _, l := range m.Layers {
		if l.Annotations["org.opencontainers.image.title"] == title {
			return string(one.Blobs[l.Digest])
		}
	}
	return "none"
}

func TestLayersLieInOrder(t *testing.T) {
	files := map[string]string{
		"common/config/d.yaml":                             "v: common\n",
		"services/s/config/d.yaml":                         "v: service\n",
		"common/overlays/prod/config/d.yaml":               "v: common-prod\n",
		"services/s/overlays/prod/config/d.yaml":           "v: service-prod\n",
		"common/overlays/prod/eu/config/d.yaml":            "v: common-eu\n",
		"services/s/overlays/prod/eu/config/d.yaml":        "v: service-eu\n",
		"services/s/overlays/prod/eu/canary/config/d.yaml": "v: service-canary\n",
		"services/s/safe-modes/calm/config/d.yaml":         "v: calm\n",
		"services/s/safe-modes/calm/safe-mode.yaml":        "description: x\nowner: y\n",
	}
	order := []struct {
		top   string
		scope api.Scope
		mode  api.Mode
		want  string
	}{
		{"services/s/safe-modes/calm/config/d.yaml", "prod/eu/canary", "calm", "calm"},
		{"services/s/overlays/prod/eu/canary/config/d.yaml", "prod/eu/canary", "normal", "service-canary"},
		{"services/s/overlays/prod/eu/config/d.yaml", "prod/eu/canary", "normal", "service-eu"},
		{"common/overlays/prod/eu/config/d.yaml", "prod/eu", "normal", "common-eu"},
		{"services/s/overlays/prod/config/d.yaml", "prod/eu", "normal", "service-prod"},
		{"common/overlays/prod/config/d.yaml", "prod", "normal", "common-prod"},
		{"services/s/config/d.yaml", "prod", "normal", "service"},
		{"common/config/d.yaml", "prod", "normal", "common"},
	}
	for _, o := range order {
		if got, want := resolveOne(t, files, o.scope, o.mode, "config/d.json"), `{"v":"`+o.want+`"}`; got != want {
			t.Errorf("with %s on top, %s in mode %s has %s, want %s", o.top, o.scope, o.mode, got, want)
		}
		files = gittest.With(files, map[string]string{o.top: ""})
		if strings.Contains(o.top, "safe-modes") {
			files = gittest.With(files, map[string]string{"services/s/safe-modes/calm/safe-mode.yaml": ""})
		}
	}
}

func TestFlagLayers(t *testing.T) {
	const base = "flags:\n  f: {state: ENABLED, variants: {a: 1, b: 2}, defaultVariant: a, targeting: {if: [{var: [x]}, b]}, metadata: {m: 1}}\n  g: {state: DISABLED, variants: {a: 1}, defaultVariant: a}\n$evaluators: {e: {var: [x]}}\nmetadata: {team: pay, n: 1}\n"
	const rest = `"g":{"defaultVariant":"a","state":"DISABLED","variants":{"a":1}}},"metadata":{"n":1,"team":"pay"}}`
	for _, c := range []struct{ name, over, want string }{
		{"nothing", "flags: {}\n", `{"$evaluators":{"e":{"var":["x"]}},"flags":{"f":{"defaultVariant":"a","metadata":{"m":1},"state":"ENABLED","targeting":{"if":[{"var":["x"]},"b"]},"variants":{"a":1,"b":2}},` + rest},
		{"one member, whole", "flags: {f: {metadata: {k: 2}, variants: {a: 3, b: 4}}}\n", `{"$evaluators":{"e":{"var":["x"]}},"flags":{"f":{"defaultVariant":"a","metadata":{"k":2},"state":"ENABLED","targeting":{"if":[{"var":["x"]},"b"]},"variants":{"a":3,"b":4}},` + rest},
		{"no rule", "flags: {f: {targeting: {}}}\n", `{"$evaluators":{"e":{"var":["x"]}},"flags":{"f":{"defaultVariant":"a","metadata":{"m":1},"state":"ENABLED","variants":{"a":1,"b":2}},` + rest},
		{"a default in code", "flags: {f: {defaultVariant: null}}\n", `{"$evaluators":{"e":{"var":["x"]}},"flags":{"f":{"defaultVariant":null,"metadata":{"m":1},"state":"ENABLED","targeting":{"if":[{"var":["x"]},"b"]},"variants":{"a":1,"b":2}},` + rest},
		{"a flag removed", "flags: {f: null}\n", `{"$evaluators":{"e":{"var":["x"]}},"flags":{` + rest},
		{"everything removed", "flags: {f: null, g: null}\n$evaluators: {e: null}\nmetadata: {team: null, n: null}\n", `{"flags":{}}`},
		{"an evaluator whole, a name more", "$evaluators: {e: {var: [y]}}\nmetadata: {n: 2}\nflags: {f: null, g: null}\n$schema: x\n", `{"$evaluators":{"e":{"var":["y"]}},"flags":{},"metadata":{"n":2,"team":"pay"}}`},
		{"a list of flags", "flags: [{key: f, state: DISABLED}]\nmetadata: {team: null, n: null}\n$evaluators: {e: null}\n", `{"flags":{"f":{"defaultVariant":"a","metadata":{"m":1},"state":"DISABLED","targeting":{"if":[{"var":["x"]},"b"]},"variants":{"a":1,"b":2}},"g":{"defaultVariant":"a","state":"DISABLED","variants":{"a":1}}}}`},
		{"a flag that isn't there", "flags: {h: {state: DISABLED}}\n", "E_FLAG_UNKNOWN"},
		{"an evaluator that isn't there", "$evaluators: {h: null}\n", "E_FLAG_UNKNOWN"},
		{"a new flag", "flags: {f: null, g: null, h: {state: ENABLED, variants: {a: true}, defaultVariant: a}}\n$evaluators: {e: null}\nmetadata: {team: null, n: null}\n", `{"flags":{"h":{"defaultVariant":"a","state":"ENABLED","variants":{"a":true}}}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := resolveOne(t, map[string]string{"services/s/flags/f.yaml": base, "services/s/overlays/prod/flags/f.yaml": c.over}, "prod", "normal", "flags.json")
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestAServiceWithoutFlagsHasAnEmptyFlagsFile(t *testing.T) {
	if got := resolveOne(t, nil, "prod", "normal", "flags.json"); got != `{"flags":{}}` {
		t.Error(got)
	}
}
