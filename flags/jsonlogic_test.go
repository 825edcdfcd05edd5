package flags

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

// jsonLogicDiffers lists the cases of the JsonLogic community's suite that flagd
// decides otherwise, by description, with what is right here. All other cases
// have to give the suite's result. It is empty: the suite has no case about the
// truth of {} or about comparisons with null, where flagd goes its own way.
var jsonLogicDiffers = map[string]any{}

type jsonLogicCase struct {
	Description string
	Rule        json.RawMessage
	Data        any
	Result      any
}

func jsonLogicCases(t *testing.T) []jsonLogicCase {
	t.Helper()
	var raw []json.RawMessage
	readJSON(t, filepath.Join("testdata", "jsonlogic-compatible.json"), &raw)
	var cases []jsonLogicCase
	for _, r := range raw {
		var c jsonLogicCase
		if r[0] == '"' {
			continue // a heading
		}
		if err := json.Unmarshal(r, &c); err != nil {
			t.Fatal(err)
		}
		cases = append(cases, c)
	}
	return cases
}

func TestJSONLogicSuite(t *testing.T) {
	cases := jsonLogicCases(t)
	if len(cases) != 278 {
		t.Errorf("suite has %d cases, want 278", len(cases))
	}
	for _, c := range cases {
		want := c.Result
		if other, ok := jsonLogicDiffers[c.Description]; ok {
			want = other
		}
		for in, got := range ruleValues(t, string(c.Rule), c.Data) {
			if !reflect.DeepEqual(got, want) {
				t.Errorf("%s with %v in scope %d = %v, want %v", c.Rule, c.Data, in, got, want)
			}
		}
	}
}

// ruleValues evaluates a rule with data as the context, when it is an object, and
// as the element of a loop, which may be anything.
func ruleValues(t *testing.T, rule string, data any) map[scope]any {
	t.Helper()
	out := map[scope]any{inItem: ruleValue(t, rule, inItem, data)}
	if ctx, ok := data.(map[string]any); ok || data == nil {
		out[inRoot] = ruleValue(t, rule, inRoot, ctx)
	}
	return out
}

func ruleValue(t *testing.T, rule string, in scope, data any) any {
	t.Helper()
	root, err := parse(rule)
	if err != nil {
		t.Fatal(err)
	}
	c := newCompiler(&node{kind: objectNode})
	k := c.rule(root, in)
	if err := c.err(); err != nil {
		t.Fatalf("%s: %v", rule, err)
	}
	c.pool.slots = len(c.slots)
	e := c.pool.get()
	e.key, e.now = "flag", float64(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Unix())
	if ctx, ok := data.(Context); ok && in == inRoot {
		e.ctx = ctx
	} else {
		e.item = fromAny(data)
	}
	v := k.value()(e)
	if got := k.truth()(e); got != v.truthy() {
		t.Errorf("%s as a condition is %v, as a value %v", rule, got, v.toAny())
	}
	return v.toAny()
}

// The suite once more through the whole path: as the condition of a flag.
func TestJSONLogicSuiteAsTargeting(t *testing.T) {
	for _, c := range jsonLogicCases(t) {
		ctx, ok := c.Data.(map[string]any)
		if !ok && c.Data != nil {
			continue
		}
		doc := `{"flags":{"f":{"state":"ENABLED","variants":{"yes":true,"no":false},
			"targeting":{"if":[` + string(c.Rule) + `,"yes","no"]}}}}`
		s, err := Compile([]byte(doc))
		if err != nil {
			t.Fatalf("%s: %v", c.Rule, err)
		}
		got, r := s.Boolean("f", ctx, false, time.Time{})
		if want := fromAny(c.Result).truthy(); got != want || r.Reason != ReasonTargetingMatch {
			t.Errorf("if %s with %v: %v, %+v", c.Rule, c.Data, got, r)
		}
	}
}

func readJSON(t testing.TB, path string, into any) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}
