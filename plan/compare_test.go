package plan_test

import (
	"strings"
	"testing"

	"github.com/sealstone/sealstone/plan"
)

func text(t *testing.T, old, new plan.Content) string {
	t.Helper()
	d, err := plan.Compare(old, new)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	d.WriteText(&b)
	return b.String()
}

func doc(s string) plan.Content { return plan.Content{"config/http.json": []byte(s)} }

func flagsOf(s string) plan.Content { return plan.Content{"flags.json": []byte(s)} }

const longList = `["aaaaaaaaaa","bbbbbbbbbb","cccccccccc","dddddddddd","eeeeeeeeee","ffffffffff"`

func TestCompareDocuments(t *testing.T) {
	for name, c := range map[string]struct{ old, new, want string }{
		"equal":                           {`{"a":1}`, `{"a":1}`, ""},
		"a value":                         {`{"a":{"b":1}}`, `{"a":{"b":2}}`, "config/http  changed\n  ~ a.b  1 → 2\n"},
		"a value of another type":         {`{"a":1}`, `{"a":"1"}`, "config/http  changed\n  ~ a  1 → \"1\"\n"},
		"an object for a value":           {`{"a":1}`, `{"a":{"b":1}}`, "config/http  changed\n  ~ a  1 → {\"b\":1}\n"},
		"added, value by value":           {`{}`, `{"a":{"b":1,"c":{}}}`, "config/http  changed\n  + a.b  1\n  + a.c  {}\n"},
		"removed, at the highest place":   {`{"a":{"b":1}}`, `{}`, "config/http  changed\n  - a  {\"b\":1}\n"},
		"a list is replaced whole":        {`{"a":[1,2]}`, `{"a":[1,3]}`, "config/http  changed\n  ~ a  [1,2] → [1,3]\n"},
		"keys that would be misread":      {`{"a.b":{"":1}}`, `{"a.b":{"":2}}`, "config/http  changed\n  ~ \"a.b\".\"\"  1 → 2\n"},
		"long values, where they part":    {`{"a":` + longList + `,1]}`, `{"a":` + longList + `,2]}`, "config/http  changed\n  ~ a\n      …bb\",\"cccccccccc\",\"dddddddddd\",\"eeeeeeeeee\",\"ffffffffff\",1]\n      → …bb"},
		"what hides or turns text around": {`{"a":"x"}`, `{"a":"x` + "\u202e\u0085" + `"}`, "config/http  changed\n  ~ a  \"x\" → \"x\\u202e\\u0085\"\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := text(t, doc(c.old), doc(c.new)); !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
				t.Errorf("got\n%swant\n%s", got, c.want)
			}
		})
	}
}

func TestCompareTellsAddedAndRemovedDocuments(t *testing.T) {
	if got, want := text(t, nil, doc(`{"a":1}`)), "config/http  added\n  + a  1\n"; got != want {
		t.Errorf("got %s", got)
	}
	if got, want := text(t, doc(`{"a":1}`), nil), "config/http  removed\n"; got != want {
		t.Errorf("got %s", got)
	}
}

// flow is a flag with a rule.
func flow(rule string) string {
	return `{"flags":{"flow":{"defaultVariant":"a","state":"ENABLED","targeting":` + rule + `,"variants":{"a":1,"b":2}}}}`
}

func TestCompareFlags(t *testing.T) {
	static := func(members string) string { return `{"flags":{"f":{"state":"ENABLED",` + members + `}}}` }
	for name, c := range map[string]struct{ old, new, want string }{
		"a flag comes": {`{"flags":{}}`, static(`"defaultVariant":"a","variants":{"a":1}`),
			"flag f  added\n  + state  \"ENABLED\"\n  + defaultVariant  \"a\"\n  + variants  {\"a\":1}\n"},
		"a flag goes": {static(`"variants":{}`), `{"flags":{}}`, "flag f  removed\n"},
		"variants by name": {static(`"variants":{"a":1,"b":2}`), static(`"variants":{"a":3,"c":2}`),
			"flag f  changed\n  ~ variants.a  1 → 3\n  - variants.b  2\n  + variants.c  2\n"},
		"shares of a split": {flow(`{"fractional":[["b",10],["a",90]]}`), flow(`{"fractional":[["b",25],["a",75]]}`),
			"flag flow  changed\n  ~ targeting.fractional  b 10 % → 25 %, a 90 % → 75 %; 15 % of subjects move\n"},
		"a split in another order moves": {flow(`{"fractional":[["b",50],["a",50]]}`), flow(`{"fractional":[["a",50],["b",50]]}`),
			"flag flow  changed\n  ~ targeting.fractional  a 50 % → 50 %, b 50 % → 50 %; 100 % of subjects move\n"},
		"a split by something else": {flow(`{"fractional":[{"var":"x"},["b",1]]}`), flow(`{"fractional":[{"var":"y"},["b",1]]}`),
			"flag flow  changed\n  ~ targeting.fractional.0.var  \"x\" → \"y\"\n"},
		"deep in a rule": {flow(`{"if":[{"==":[{"var":"tier"},"gold"]},"a","b"]}`), flow(`{"if":[{"==":[{"var":"tier"},"silver"]},"a","b"]}`),
			"flag flow  changed\n  ~ targeting.if.0.==.1  \"gold\" → \"silver\"\n"},
		"an arm more": {flow(`{"if":[{"var":"x"},"a","b"]}`), flow(`{"if":[{"var":"x"},"a",{"var":"y"},"a","b"]}`),
			"flag flow  changed\n  + targeting.if.2  {\"var\":\"y\"},\"a\"\n"},
		"one of a list less": {flow(`{"in":[{"var":"x"},["DE","NL"]]}`), flow(`{"in":[{"var":"x"},["NL"]]}`),
			"flag flow  changed\n  - targeting.in.1.0  \"DE\"\n"},
		"the set's metadata": {`{"flags":{},"metadata":{"a":1}}`, `{"flags":{},"metadata":{"a":2}}`,
			"metadata of all flags  changed\n  ~ a  1 → 2\n"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := text(t, flagsOf(c.old), flagsOf(c.new)); got != c.want {
				t.Errorf("got\n%swant\n%s", got, c.want)
			}
		})
	}
}

func TestCompareFollowsEvaluators(t *testing.T) {
	with := func(rule, staff, inner string) plan.Content {
		return flagsOf(`{"$evaluators":{"inner":` + inner + `,"staff":` + staff + `},` + flow(rule)[1:])
	}
	through := text(t, with(`{"if":[{"$ref":"staff"},"a","b"]}`, `{"$ref":"inner"}`, `{"==":[1,1]}`), with(`{"if":[{"$ref":"staff"},"a","b"]}`, `{"$ref":"inner"}`, `{"==":[1,2]}`))
	if want := "flag flow  changed\n    its rule reads inner, which changed\nevaluator inner  changed\n    changes through it: flow\n  ~ ==.1  1 → 2\n"; through != want {
		t.Errorf("got\n%s", through)
	}
	moved := text(t, with(`{"if":[{"==":[1,1]},"a","b"]}`, `{"var":"x"}`, `{"==":[1,1]}`), with(`{"if":[{"$ref":"inner"},"a","b"]}`, `{"var":"x"}`, `{"==":[1,1]}`))
	if want := "flag flow  changed\n    written differently, means the same\n  ~ targeting.if.0  {\"==\":[1,1]} → {\"$ref\":\"inner\"}\n"; moved != want {
		t.Errorf("got\n%s", moved)
	}
}

func TestCompareRefusesWhatIsNoJSON(t *testing.T) {
	for _, bad := range []plan.Content{doc("{"), flagsOf("{"), flagsOf("[]")} {
		if _, err := plan.Compare(bad, bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}

// FuzzCompare: any content is compared or refused; content is equal to itself,
// and a difference has a text.
func FuzzCompare(f *testing.F) {
	f.Add([]byte(`{"a":{"b":[1]}}`), []byte(`{"a":{}}`), []byte(flow(`{"fractional":[["b",10],["a",90]]}`)), []byte(`{"flags":{}}`))
	f.Fuzz(func(t *testing.T, a, b, x, y []byte) {
		old := plan.Content{"config/a.json": a, "flags.json": x}
		new := plan.Content{"config/a.json": b, "flags.json": y}
		d, err := plan.Compare(old, new)
		if err != nil {
			return
		}
		var out strings.Builder
		d.WriteText(&out)
		if (len(d) == 0) != (out.Len() == 0) {
			t.Errorf("%d items, text %q", len(d), out.String())
		}
		if d, err := plan.Compare(old, old); err != nil || len(d) > 0 {
			t.Errorf("differs from itself: %v %v", d, err)
		}
	})
}
