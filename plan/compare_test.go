package plan_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

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

func TestCompareDocuments(t *testing.T) {
	for name, c := range map[string]struct{ old, new, want string }{
		"equal":                           {`{"a":1}`, `{"a":1}`, ""},
		"a value":                         {`{"a":{"b":1}}`, `{"a":{"b":2}}`, "config/http  changed\n  ~ a.b  1 → 2\n"},
		"a value of another type":         {`{"a":1}`, `{"a":"1"}`, "config/http  changed\n  ~ a  1 → \"1\"\n"},
		"an object for a value":           {`{"a":1}`, `{"a":{"b":1}}`, "config/http  changed\n  ~ a  1 → {\"b\":1}\n"},
		"added, value by value":           {`{}`, `{"a":{"b":1,"c":{}}}`, "config/http  changed\n  + a.b  1\n  + a.c  {}\n"},
		"removed, at the highest place":   {`{"a":{"b":1}}`, `{}`, "config/http  changed\n  - a  {\"b\":1}\n"},
		"an element of a list":            {`{"a":[1,2]}`, `{"a":[1,3]}`, "config/http  changed\n  ~ a[1]  2 → 3\n"},
		"of lists in lists":               {`[[1,{"b":2}]]`, `[[1,{"b":3}]]`, "config/http  changed\n  ~ [0][1].b  2 → 3\n"},
		"names that would be misread":     {`[{"id":"a]=b","n":1},{"id":7}]`, `[{"id":"a]=b","n":2},{"id":7,"n":1}]`, "config/http  changed\n  ~ [0].n  1 → 2\n  + [id=7].n  1\n"},
		"keys that would be misread":      {`{"a.b":{"":1}}`, `{"a.b":{"":2}}`, "config/http  changed\n  ~ \"a.b\".\"\"  1 → 2\n"},
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

// split has ten variants, of which the last two have other weights.
func split(weights ...int) string {
	var list []string
	for i := range 10 {
		list = append(list, fmt.Sprintf(`["v%d",%d]`, i, append([]int{10, 10, 10, 10, 10, 10, 10, 10}, weights...)[i]))
	}
	return `{"fractional":[` + strings.Join(list, ",") + `]}`
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
		"a sum that gives nobody a share is no split": {flow(`{"fractional":[["b",1073741824],["a",1073741823]]}`), flow(`{"fractional":[["b",2147483647],["a",2147483647]]}`),
			"flag flow  changed\n  ~ targeting.fractional[0][1]  1073741824 → 2147483647\n  ~ targeting.fractional[1][1]  1073741823 → 2147483647\n"},
		"a share of one in many": {flow(`{"fractional":[["a",1000000],["b",40]]}`), flow(`{"fractional":[["a",1000000],["b",0]]}`),
			"flag flow  changed\n  ~ targeting.fractional\n      a 100 % → 100 % (1000000 of 1000040 → 1000000 of 1000000), b less than 0.01 % → 0 %; less than 0.01 % of subjects move\n"},
		"the shares that change first": {flow(split(10, 10)), flow(split(19, 1)),
			"flag flow  changed\n  ~ targeting.fractional\n      v8 10 % → 19 %, v9 10 % → 1 %, v0 10 % → 10 %, v1 10 % → 10 %, v2 10 % → 10 %, v3 10 % → 10 %, v4 10 % → 10 %, v5 10 % → 10 %, 2 more; 9 % of subjects move\n"},
		"a split by something else": {flow(`{"fractional":[{"var":"x"},["b",1]]}`), flow(`{"fractional":[{"var":"y"},["b",1]]}`),
			"flag flow  changed\n  ~ targeting.fractional[0].var  \"x\" → \"y\"\n"},
		"deep in a rule": {flow(`{"if":[{"==":[{"var":"tier"},"gold"]},"a","b"]}`), flow(`{"if":[{"==":[{"var":"tier"},"silver"]},"a","b"]}`),
			"flag flow  changed\n  ~ targeting.if[0].==[1]  \"gold\" → \"silver\"\n"},
		"an arm more": {flow(`{"if":[{"var":"x"},"a","b"]}`), flow(`{"if":[{"var":"x"},"a",{"var":"y"},"a","b"]}`),
			"flag flow  changed\n  + targeting.if[2]  {\"var\":\"y\"},\"a\"\n"},
		"one of a list less": {flow(`{"in":[{"var":"x"},["DE","NL"]]}`), flow(`{"in":[{"var":"x"},["NL"]]}`),
			"flag flow  changed\n  - targeting.in[1][0]  \"DE\"\n"},
		"lists in a rule by element": {flow(`{"in":[{"var":"x"},["DE","NL","AT"]]}`), flow(`{"in":[{"var":"x"},["CH","DE","NL"]]}`),
			"flag flow  changed\n  + targeting.in[1][0]  \"CH\"\n  - targeting.in[1][2]  \"AT\"\n"},
		"a variant by member": {static(`"variants":{"a":{"pools":[1,2],"url":"x"}}`), static(`"variants":{"a":{"pools":[1,3],"url":"x"}}`),
			"flag f  changed\n  ~ variants.a.pools[1]  2 → 3\n"},
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
	if want := "flag flow  changed\n    its rule reads inner, which changed\nevaluator inner  changed\n    changes through it: flow\n  ~ ==[1]  1 → 2\n"; through != want {
		t.Errorf("got\n%s", through)
	}
	moved := text(t, with(`{"if":[{"==":[1,1]},"a","b"]}`, `{"var":"x"}`, `{"==":[1,1]}`), with(`{"if":[{"$ref":"inner"},"a","b"]}`, `{"var":"x"}`, `{"==":[1,1]}`))
	if want := "flag flow  changed\n    written differently, means the same\n  ~ targeting.if[0]  {\"==\":[1,1]} → {\"$ref\":\"inner\"}\n"; moved != want {
		t.Errorf("got\n%s", moved)
	}
}

// lined is a JSON string of numbered lines, with some put in place of others.
func lined(n int, other map[int]string) string {
	var b strings.Builder
	for i := range n {
		if text, ok := other[i+1]; ok {
			b.WriteString(text)
			continue
		}
		fmt.Fprintf(&b, "line %d of the receipt\n", i+1)
	}
	raw, _ := json.Marshal(b.String())
	return string(raw)
}

const (
	motd  = `"Orders placed before noon leave today. Parcels to islands take two days longer. Returns are free for thirty days, and refunds arrive within a week."`
	later = `"Orders placed before ten leave today. Parcels to islands take two days longer. Returns are free for sixty days, and refunds arrive within a week."`
	pools = `[{"name":"main","size":10,"hosts":["a","b"]},{"name":"spare","size":2},{"name":"batch","size":4}]`
	other = `[{"name":"batch","size":4},{"name":"main","size":20,"hosts":["a","c","b"]},{"name":"burst","size":1}]`
)

// Values as text and JSON; SEALSTONE_UPDATE=1 writes the golden files.
func TestGoldenValues(t *testing.T) {
	for name, c := range map[string]struct{ old, new string }{
		"elements":   {`{"ports":[1,2,3,4,5,6,7,8],"routes":[{"to":"a"},{"to":"b"},{"to":"c"}]}`, `{"ports":[0,1,2,3,4,6,7,9],"routes":[{"to":"a"},{"to":"x","retry":true},{"to":"c"}]}`},
		"named":      {`{"pools":` + pools + `}`, `{"pools":` + other + `}`},
		"long-text":  {`{"motd":` + motd + `}`, `{"motd":` + later + `}`},
		"template":   {`{"receipt":` + lined(40, nil) + `}`, `{"receipt":` + lined(40, map[int]string{7: "line seven\n", 31: "", 40: "line 40 of the receipt"}) + `}`},
		"new-text":   {`{}`, `{"receipt":` + lined(30, nil) + `,"short":"one\ntwo"}`},
		"type":       {`{"a":` + motd + `,"b":[` + motd + `]}`, `{"a":[` + motd + `],"b":{"c":1}}`},
		"added-list": {`{}`, `{"pools":` + pools + `}`},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := plan.Compare(doc(c.old), doc(c.new))
			if err != nil {
				t.Fatal(err)
			}
			raw, err := json.MarshalIndent(d, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "value-"+name+".txt", text(t, doc(c.old), doc(c.new)))
			golden(t, "value-"+name+".json", string(raw)+"\n")
		})
	}
}

// What nobody would write is shown in little time, text and JSON.
func TestCompareIsBounded(t *testing.T) {
	many := func(n int, format string) string {
		var parts []string
		for i := range n {
			parts = append(parts, fmt.Sprintf(format, i))
		}
		return strings.Join(parts, ",")
	}
	wide := strings.Repeat("k", 200_000)
	deep := func(v string) string {
		return strings.Repeat(`{"a":[`, 31) + v + strings.Repeat(`]}`, 31)
	}
	for name, c := range map[string]struct{ old, new string }{
		"a list wholly changed":     {`{"a":[` + many(10_000, "%d") + `]}`, `{"a":[` + many(10_000, "-%d.5") + `]}`},
		"named, all changed":        {`[` + many(10_000, `{"name":"n%d","v":1}`) + `]`, `[` + many(10_000, `{"name":"n%d","v":2}`) + `]`},
		"named, turned round":       {`[` + many(9_000, `{"id":%d}`) + `]`, `[` + many(9_000, `{"id":-%d}`) + `]`},
		"lists alike but for some":  {`[` + many(60_000, "[%d,7]") + `]`, `[1,` + many(59_999, "[%d,7]") + `]`},
		"one value again and again": {`[` + strings.Repeat("0,1,", 100_000) + `2]`, `[` + strings.Repeat("1,0,0,", 70_000) + `2]`},
		"many small lists":          {`[` + strings.Repeat("[[1,2,3],[4]],", 30_000) + `0]`, `[` + strings.Repeat("[[4],[3,2,1]],", 30_000) + `1]`},
		"deep":                      {deep("1"), deep("2")},
		"a key above many values":   {`{"` + wide + `":{` + many(50_000, `"k%d":1`) + `}}`, `{"` + wide + `":{` + many(50_000, `"k%d":2`) + `}}`},
		"all of it new":             {`{}`, `{"` + wide + `":{` + many(50_000, `"k%d":1`) + `}}`},
		"a long word":               {`"` + wide + `"`, `"` + strings.Repeat("K", 900_000) + `"`},
		"many words":                {`"` + strings.Repeat("a b ", 200_000) + `"`, `"` + strings.Repeat("b a a ", 150_000) + `"`},
		"many lines":                {`"` + strings.Repeat(`a\nb\n`, 150_000) + `"`, `"` + strings.Repeat(`b\na\na\n`, 100_000) + `"`},
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			d, err := plan.Compare(doc(c.old), doc(c.new))
			if err != nil || len(d) != 1 {
				t.Fatal(err)
			}
			took := time.Since(begin)
			var b strings.Builder
			d.WriteText(&b)
			raw, err := json.Marshal(d)
			if err != nil {
				t.Fatal(err)
			}
			if b.Len() > 1<<20 || strings.Count(b.String(), "\n") > 400 || len(raw) > 6<<20 {
				t.Errorf("%d bytes of text, %d of JSON", b.Len(), len(raw))
			}
			t.Logf("compared in %v, all in %v; %d edits, %d bytes of text, %d of JSON", took, time.Since(begin), len(d[0].Edits), b.Len(), len(raw))
		})
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
