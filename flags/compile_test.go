package flags

import (
	"encoding/json"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

const ok = `"state":"ENABLED","variants":{"on":true,"off":false}`

func TestCompileRefuses(t *testing.T) {
	for doc, want := range map[string]string{
		`[]`:                                     ": a document is an object, not array",
		`{}`:                                     `: member "flags" is missing`,
		`{"flags":{},"flag":{}}`:                 "/flag: unknown member of a document",
		`{"flags":null}`:                         "/flags: flags is an object or an array",
		`{"flags":{"":{` + ok + `}}}`:            "/flags/: the key of a flag is empty",
		`{"flags":{"f":null}}`:                   "/flags/f: a flag is an object, not null",
		`{"flags":{"f":{` + ok + `,"key":"f"}}}`: "/flags/f/key: unknown member",
		`{"flags":{"f":{` + ok + `,"targetting":{}}}}`:                   "/flags/f/targetting: unknown member",
		`{"flags":{"f":{"variants":{"a":1}}}}`:                           `/flags/f: member "state" is missing`,
		`{"flags":{"f":{"state":"enabled","variants":{"a":1}}}}`:         "/flags/f/state: state is ENABLED or DISABLED",
		`{"flags":{"f":{"state":"ENABLED"}}}`:                            `/flags/f: member "variants" is missing`,
		`{"flags":{"f":{"state":"ENABLED","variants":{}}}}`:              "/flags/f/variants: variants is an object of at least one",
		`{"flags":{"f":{"state":"ENABLED","variants":{"a":[1]}}}}`:       "/flags/f/variants/a: a variant is",
		`{"flags":{"f":{"state":"ENABLED","variants":{"a":null}}}}`:      "/flags/f/variants/a: a variant is",
		`{"flags":{"f":{"state":"ENABLED","variants":{"":1}}}}`:          "/flags/f/variants/: the name of a variant is empty",
		`{"flags":{"f":{"state":"ENABLED","variants":{"a":1,"b":"1"}}}}`: "/flags/f/variants/b: variants are of one type",
		`{"flags":{"f":{` + ok + `,"defaultVariant":"x"}}}`:              `/flags/f/defaultVariant: there is no variant "x"`,
		`{"flags":{"f":{` + ok + `,"defaultVariant":true}}}`:             "/flags/f/defaultVariant: defaultVariant is a string or null",
		`{"flags":{"f":{` + ok + `,"targeting":true}}}`:                  "/flags/f/targeting: targeting is an object",
		`{"flags":{"f":{` + ok + `,"targeting":["a"]}}}`:                 "/flags/f/targeting: targeting is an object",
		`{"flags":{"f":{` + ok + `,"metadata":[]}}}`:                     "/flags/f/metadata: metadata is an object",
		`{"flags":{"f":{` + ok + `,"metadata":{"a":null}}}}`:             "/flags/f/metadata/a: metadata holds",
		`{"flags":{},"metadata":{"flagSetId":1}}`:                        "/metadata/flagSetId: flagSetId is a string",
		`{"flags":{},"metadata":{"fractional":"v3"}}`:                    "/metadata/fractional: fractional v3",
		`{"flags":{},"metadata":{"fractionalVersion":3}}`:                "/metadata/fractionalVersion: fractional v3",
		`{"flags":{"f":{` + ok + `,"metadata":{"fractional":3}}}}`:       "/flags/f/metadata/fractional: fractional v3",
		`{"flags":[{` + ok + `}]}`:                                       `/flags/0: a flag in an array needs a member "key"`,
		`{"flags":[{"key":1,` + ok + `}]}`:                               "/flags/0/key: key is a string",
		`{"flags":[{"key":"a",` + ok + `},{"key":"a",` + ok + `}]}`:      "/flags/1/key: another flag has this key",
		`{"flags":[3]}`:                               `/flags/0: a flag in an array needs`,
		`{"flags":{},"$evaluators":[]}`:               "/$evaluators: $evaluators is an object",
		`{"flags":{},"$evaluators":{"a":"x"}}`:        "/$evaluators/a: an evaluator is a rule, not string",
		`{"flags":{},"$evaluators":{"a":{"nope":1}}}`: `/$evaluators/a/nope: unknown operator "nope"`,
		`{"flags":{},"$evaluators":{"a":{"!":{"$ref":"b"}},"b":{"!":{"$ref":"a"}}}}`: `refers to itself`,
	} {
		_, err := Compile([]byte(doc))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n got %v\nwant %s", doc, err, want)
		}
	}
}

func TestCompileRefusesRules(t *testing.T) {
	for rule, want := range map[string]string{
		`{"if":[{"var":"x"},{"log":"y"}]}`:        `/if/1/log: unknown operator "log"`,
		`{"if":[true,"on",{"nope":[]}]}`:          `/if/2/nope: unknown operator`,
		`{"!":{"nope":[]}}`:                       `/!/nope: unknown operator`,
		`{"and":[{"$ref":"nope"}]}`:               `/and/0/$ref: there is no evaluator "nope"`,
		`{"$ref":1}`:                              `/$ref: a $ref names an evaluator by a string`,
		`{"var":"$flagd.nope"}`:                   `/var: $flagd has only`,
		`{"starts_with":[{"var":"x"},0]}`:         `/starts_with/1: this operand is a string`,
		`{"sem_ver":[{"var":"x"},"*","1.0.0"]}`:   `/sem_ver/1: sem_ver compares`,
		`{"sem_ver":[{"var":"x"},"=","1.0.0.0"]}`: `/sem_ver/2: this is not a semantic version`,
		`{"fractional":["x",["on",1]]}`:           `/fractional/0: the bucketing value`,
		`{"fractional":[["on",1.5]]}`:             `/fractional/0/1: a weight is a whole number`,
		`{"fractional":[["on",-1]]}`:              `/fractional/0/1: a weight is`,
		`{"fractional":[["on","1"]]}`:             `/fractional/0/1: a weight is`,
		`{"fractional":[["on",null]]}`:            `/fractional/0/1: a weight is`,
	} {
		_, err := Compile([]byte(`{"flags":{"f":` + boolFlag(rule) + `}}`))
		if err == nil || !strings.Contains(err.Error(), "/flags/f/targeting"+want) {
			t.Errorf("%s:\n got %v\nwant %s", rule, err, want)
		}
	}
}

// A fault is told once, where it is, whoever refers to it.
func TestFaultsInEvaluatorsAreToldOnce(t *testing.T) {
	_, err := Compile([]byte(`{"$evaluators":{"a":{"nope":1}},"flags":{"f":` + boolFlag(`{"if":[{"$ref":"a"},{"$ref":"a"}]}`) + `,"g":` + boolFlag(`{"$ref":"a"}`) + `}}`))
	if got := Faults(err); len(got) != 1 || got[0].Path != "/$evaluators/a/nope" {
		t.Errorf("faults %v", err)
	}
}

// References that double at each level would expand to 2^30 parts.
func TestReferencesAreBounded(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"$evaluators":{"e0":{"var":"x"}`)
	for i := 1; i <= 30; i++ {
		fmt.Fprintf(&b, `,"e%d":{"and":[{"$ref":"e%d"},{"$ref":"e%d"}]}`, i, i-1, i-1)
	}
	b.WriteString(`},"flags":{"f":` + boolFlag(`{"$ref":"e30"}`) + `}}`)
	if _, err := Compile([]byte(b.String())); err == nil || !strings.Contains(err.Error(), "once its references are put in") {
		t.Errorf("err = %v", err)
	}
}

// Loops that multiply end by the budget, soon, and for this evaluation only.
func TestStepBudget(t *testing.T) {
	numbers := make([]any, 400)
	for i := range numbers {
		numbers[i] = float64(i)
	}
	ctx := Context{"l": numbers, "s": strings.Repeat("x", 1000), "long": slices.Repeat([]any{0.0}, 100_000), "huge": strings.Repeat("x", 1<<20)}
	for _, rule := range []string{
		`{"reduce":[{"var":"l"},{"cat":[{"var":"accumulator"},{"var":"accumulator"}]},"x"]}`,
		`{"reduce":[{"var":"l"},{"merge":[{"var":"accumulator"},{"var":"accumulator"}]},[1]]}`,
		`{"reduce":[{"var":"l"},{"map":[{"var":"accumulator"},{"var":""}]},{"map":[{"var":"long"},1]}]}`,
		// one step that does the work of many
		`{"cat":[` + bomb(`{"var":"s"}`) + `]}`,
		`{"cat":[` + bomb(`"x"`) + `]}`, // computed when compiled, were it small
		`{"reduce":[{"var":"long"},{"substr":[{"var":"accumulator"},0]},{"cat":[{"var":"s"},{"var":"s"}]}]}`,
		`{"reduce":[{"var":"long"},{"if":[{"+":{"var":"accumulator"}},{"var":"accumulator"}]},{"map":[{"var":"l"},1]}]}`,
		`{"reduce":[{"var":"long"},{"if":[{"==":[{"var":"accumulator"},{"var":"accumulator"}]},{"var":"accumulator"}]},{"var":"huge"}]}`,
		`{"map":[{"var":"long"},{"in":[{"var":""},[` + strings.Repeat("-1,", 20000) + `-1]]}]}`,
	} {
		s := mustCompile(t, `{"flags":{"f":`+boolFlag(rule)+`,"g":`+boolFlag(emailRule)+`}}`)
		if r := s.Evaluate("f", ctx, time.Time{}); !strings.Contains(r.ErrorDetail, "more steps") {
			t.Errorf("%.60s: %+v", rule, r)
		}
		if r, steps := s.Measure("f", ctx, time.Time{}); steps < maxSteps || steps > 2*maxSteps {
			t.Errorf("%.60s: %+v after %d steps", rule, r, steps)
		}
		all := s.EvaluateAll(ctx, time.Time{}, nil)
		if all[0].ErrorCode != General || all[1].ErrorCode != "" {
			t.Errorf("in bulk: %+v", all)
		}
	}
}

// bomb gives lists of ten of the same list, ten levels deep.
func bomb(seed string) string {
	ten := strings.TrimSuffix(strings.Repeat(`{"var":"accumulator"},`, 10), ",")
	return `{"reduce":[[1,2,3,4,5,6,7,8,9,10],[` + ten + `],` + seed + `]}`
}

// Constant rules that give much are computed once for each evaluation, not kept.
func TestConstantRulesAreNotKeptWithoutEnd(t *testing.T) {
	grow := `{"cat":{"reduce":[[1,2,3,4,5,6,7,8,9,10,11,12],{"cat":[{"var":"accumulator"},{"var":"accumulator"}]},"xxxxxxxxxxxxxxxx"]}}`
	rules := strings.TrimSuffix(strings.Repeat(grow+",", 3000), ",")
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s := mustCompile(t, `{"flags":{"f":`+boolFlag(`{"in":[{"var":"x"},[`+rules+`]]}`)+`}}`)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if kept := int64(after.HeapAlloc) - int64(before.HeapAlloc); kept > 64<<20 {
		t.Errorf("%d MiB for %d flags", kept>>20, s.Len())
	}
}

func TestMeasure(t *testing.T) {
	s := mustCompile(t, `{"flags":{"f":`+boolFlag(`{"==":[{"var":"x"},1]}`)+`,"g":`+boolFlag(`{"some":[{"var":"x"},{"==":[{"var":""},1]}]}`)+`}}`)
	for _, c := range []struct {
		key   string
		x     any
		steps int
	}{{"none", 1, 1}, {"f", 1, 4}, {"g", []any{}, 7}, {"g", make([]any, 100), 507}} {
		ctx := Context{"x": c.x}
		r, steps := s.Measure(c.key, ctx, time.Time{})
		if steps != c.steps || r.Variant != s.Evaluate(c.key, ctx, time.Time{}).Variant {
			t.Errorf("%s: %d steps, want %d; %+v", c.key, steps, c.steps, r)
		}
	}
}

type panics struct{}

func (panics) MarshalJSON() ([]byte, error) { panic("no") }

func TestPanicIsGeneral(t *testing.T) {
	s := mustCompile(t, `{"flags":{"f":`+boolFlag(`{"var":"x"}`)+`}}`)
	for range 3 {
		if r := s.Evaluate("f", Context{"x": panics{}}, time.Time{}); r.ErrorCode != General || r.ErrorDetail == "" {
			t.Errorf("%+v", r)
		}
		if r := s.Evaluate("f", Context{"x": "on"}, time.Time{}); r.Variant != "on" {
			t.Errorf("after a panic: %+v", r)
		}
	}
}

type (
	named  string
	nested struct {
		Plan named `json:"plan"`
		N    int
	}
)

func TestContextTypes(t *testing.T) {
	two := 2
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	for i, c := range []struct {
		in   any
		path string
		want any
	}{
		{int8(2), "x", 2.0},
		{int16(2), "x", 2.0},
		{int32(2), "x", 2.0},
		{int64(2), "x", 2.0},
		{uint(2), "x", 2.0},
		{uint8(2), "x", 2.0},
		{uint64(2), "x", 2.0},
		{float32(1.5), "x", 1.5},
		{&two, "x", 2.0},
		{(*int)(nil), "x", nil},
		{named("a"), "x", "a"},
		{at, "x", "2026-01-02T03:04:05.000006Z"},
		{[]string{"a", "b"}, "x.1", "b"},
		{map[string]string{"k": "v"}, "x.k", "v"},
		{map[string]string{"k": "v"}, "x.q", nil},
		{[]int{1, 2}, "x.1", 2.0},
		{map[string]int{"k": 3}, "x.k", 3.0},
		{nested{"pro", 4}, "x.plan", "pro"},
		{&nested{"pro", 4}, "x.N", 4.0},
		{make(chan int), "x", nil},
		{jsonNumber("1.5"), "x", 1.5},
		{jsonNumber(""), "x", nil},
		{[]any{map[string]any{"a": 1}}, "x.0.a", 1.0},
	} {
		got := ruleValue(t, `{"var":"`+c.path+`"}`, inRoot, Context{"x": c.in})
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%d: %s of %T = %v, want %v", i, c.path, c.in, got, c.want)
		}
	}
}

func TestUsesTime(t *testing.T) {
	for rule, want := range map[string]bool{
		``: false, emailRule: false, splitByKey: false, `{"var":"$flagd.flagKey"}`: false,
		`{"<":[{"var":"$flagd.timestamp"},5]}`: true, `{"if":[{"$ref":"night"},"on"]}`: true, `{"if":[{"$ref":"day"},"on"]}`: false,
		`{"var":{"var":"x"}}`: true,
	} {
		s := mustCompile(t, `{"$evaluators":{"day":{"var":"x"},"night":{"<":[{"var":"$flagd.timestamp"},5]}},"flags":{"f":`+boolFlag(rule)+`}}`)
		if got := s.UsesTime("f"); got != want {
			t.Errorf("%s: %v", rule, got)
		}
	}
}

func TestFlagAccessors(t *testing.T) {
	s := mustCompile(t, `{"metadata":{"a":1,"b":"set"},"flags":[{"key":"z","state":"DISABLED","variants":{"y":"Y","x":"X"},"defaultVariant":"y","metadata":{"b":"own"}},{"key":"a",`+ok+`}]}`)
	f := s.Flag("z")
	if f.typ.String() != "string" || f.enabled || !slices.Equal(f.Variants(), []string{"x", "y"}) {
		t.Errorf("flag %+v", f)
	}
	if want := map[string]any{"a": 1.0, "b": "own"}; !reflect.DeepEqual(f.Metadata(), want) {
		t.Errorf("metadata %v", f.Metadata())
	}
	if !slices.Equal(s.Keys(), []string{"a", "z"}) || s.Len() != 2 || s.Flag("q") != nil || s.UsesTime("q") {
		t.Errorf("set %v", s.Keys())
	}
}

func TestChanged(t *testing.T) {
	doc := func(flag, evaluator, metadata string) *Set {
		return mustCompile(t, `{"$evaluators":{"e":`+evaluator+`},"metadata":`+metadata+`,"flags":{"f":`+flag+`,"still":{`+ok+`,"metadata":{"m":2}}}}`)
	}
	base := `{` + ok + `,"defaultVariant":"on","targeting":{"if":[{"$ref":"e"},"on"]}}`
	rule := `{"==":[{"var":"x"},1]}`
	old := doc(base, rule, `{"m":1}`)
	for name, c := range map[string]struct {
		now  *Set
		want []string
	}{
		"same":       {doc(base, rule, `{"m":1}`), nil},
		"order":      {doc(`{"targeting":{"if":[{"$ref":"e"},"on"]},"defaultVariant":"on","variants":{"off":false,"on":true},"state":"ENABLED"}`, `{"==":[{"var":"x"},1.0]}`, `{"m":1}`), nil},
		"inlined":    {doc(strings.Replace(base, `{"$ref":"e"}`, rule, 1), rule, `{"m":1}`), nil},
		"state":      {doc(strings.Replace(base, "ENABLED", "DISABLED", 1), rule, `{"m":1}`), []string{"f"}},
		"default":    {doc(strings.Replace(base, `t":"on`, `t":"off`, 1), rule, `{"m":1}`), []string{"f"}},
		"no default": {doc(strings.Replace(base, `"defaultVariant":"on",`, "", 1), rule, `{"m":1}`), []string{"f"}},
		"variants":   {doc(strings.Replace(base, `"off"`, `"of"`, 1), rule, `{"m":1}`), []string{"f"}},
		"targeting":  {doc(strings.Replace(base, `,"on"]`, `,"off"]`, 1), rule, `{"m":1}`), []string{"f"}},
		"evaluator":  {doc(base, `{"==":[{"var":"x"},2]}`, `{"m":1}`), []string{"f"}},
		"metadata":   {doc(base, rule, `{"m":3}`), []string{"f"}}, // still has its own
		"gone":       {mustCompile(t, `{"flags":{}}`), []string{"f", "still"}},
	} {
		if got := Changed(old, c.now); !slices.Equal(got, c.want) {
			t.Errorf("%s: changed %v, want %v", name, got, c.want)
		}
	}
	if got := Changed(nil, old); !slices.Equal(got, []string{"f", "still"}) || Changed(nil, nil) != nil {
		t.Errorf("from nothing: %v", got)
	}
}

func TestMurmur3(t *testing.T) {
	for s, want := range map[string]uint32{
		"ejOoVL": 0, "bY9fO-": 1, "SI7p-": 1<<31 - 1, "6LvT0": 1 << 31, "ceQdGm": 1<<32 - 1, "": 0, "hello": 0x248bfa47, "hello, world": 0x149bbb7f,
	} {
		if got := murmur3(s); got != want {
			t.Errorf("murmur3(%q) = %#x, want %#x", s, got, want)
		}
	}
}

// Evaluating from many goroutines, some of them in bulk, with the race detector.
func TestConcurrentEvaluation(t *testing.T) {
	s := mustCompile(t, thousand())
	want := s.EvaluateAll(benchContext(), time.Time{}, nil)
	for g := range 8 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			for range 5 {
				if g%2 == 0 && !reflect.DeepEqual(s.EvaluateAll(benchContext(), time.Time{}, nil), want) {
					t.Error("bulk differs")
				}
				for i, key := range s.Keys() {
					if s.Evaluate(key, benchContext(), time.Time{}).Variant != want[i].Variant {
						t.Error("differs")
					}
				}
			}
		})
	}
}

func jsonNumber(s string) json.Number { return json.Number(s) }

// Go values may refer to themselves, which JSON cannot.
func TestContextCycles(t *testing.T) {
	ring := make([]any, 2)
	ring[0], ring[1] = ring, "x"
	type pointer *pointer
	var p pointer
	p = &p
	tree := map[string]any{}
	tree["m"] = tree
	s := mustCompile(t, `{"flags":{
		"cat":`+boolFlag(`{"if":[{"cat":[{"var":"ring"}]},"on"]}`)+`,
		"in":`+boolFlag(`{"if":[{"in":["x",{"var":"ring.0.0"}]},"on"]}`)+`,
		"path":`+boolFlag(`{"if":[{"var":"tree.m.m.m"},"on"]}`)+`,
		"pointer":`+boolFlag(`{"if":[{"var":"p"},"off","on"]}`)+`}}`)
	ctx := Context{"ring": ring, "p": &p, "tree": tree}
	for _, key := range s.Keys() {
		if on, r := s.Boolean(key, ctx, false, time.Time{}); !on {
			t.Errorf("%s: %+v", key, r)
		}
	}
}
