package flags

import "testing"

func TestLint(t *testing.T) {
	for rule, want := range map[string]string{
		`{"a":1,"b":2}`:                                                    "object-literal",
		`{"?:":[{"var":"x"},"on","off"]}`:                                  "not-in-schema",
		`{"==":[{"var":"x"},0]}`:                                           "equals-missing",
		`{"!=":[{"var":"x"},false]}`:                                       "equals-missing",
		`{"==":[{"var":"x"},true]}`:                                        "equals-boolean",
		`{"==":[{"var":"x"},[1]]}`:                                         "equals-structure",
		`{"===":[{"var":"x"},[1]]}`:                                        "equals-structure",
		`{"==":[{"var":"x"}," 20 "]}`:                                      "number-text",
		`{"<":[{"var":"x"},"0x20"]}`:                                       "number-text",
		`{">=":[{"var":"x"},0]}`:                                           "order-missing",
		`{"<":["abc",9]}`:                                                  "order-kinds",
		`{"-":2}`:                                                          "bare-operand",
		`{"+":[{"var":"x"},null]}`:                                         "arithmetic-kinds",
		`{"+":[{"var":"x"},"abc"]}`:                                        "arithmetic-kinds",
		`{"/":[{"var":"x"},0]}`:                                            "division-by-zero",
		`{"%":[{"var":"x"},0]}`:                                            "division-by-zero",
		`{"min":[]}`:                                                       "extreme-empty",
		`{"max":["1",{"var":"x"}]}`:                                        "extreme-text",
		`{"cat":[{"var":"x"},true]}`:                                       "cat-boolean",
		`{"cat":[{"var":"x"},["a"]]}`:                                      "cat-structure",
		`{"in":[1,{"var":"x"}]}`:                                           "in-number",
		`{"in":[{"var":"x"},["1"]]}`:                                       "in-number-text",
		`{"in":["a",{"a":1,"b":2}]}`:                                       "in-object",
		`{"substr":[{"var":"x"},1]}`:                                       "substr-range",
		`{"all":[{"var":"x"},true]}`:                                       "all-missing",
		`{"var":"x.length"}`:                                               "var-length",
		`{"some":[{"var":"x"},{"starts_with":[{"var":""},"a"]}]}`:          "custom-in-loop",
		`{"and":[{"var":"y"},{"some":[{"var":"x"},{"var":"y"}]}]}`:         "outer-variable",
		`{"sem_ver":[{"var":"x"},"=","1.2"]}`:                              "sem-ver-form",
		`{"fractional":[{"var":"x"},["on",1]]}`:                            "fractional-bucket",
		`{"fractional":[{"cat":["é",{"var":"x"}]},["on",1]]}`:              "fractional-ascii",
		`{"fractional":[["on",1,2]]}`:                                      "fractional-entry",
		`{"fractional":[["on",0]]}`:                                        "fractional-null",
		`{"fractional":[["on",2147483647],["off",1]]}`:                     "fractional-null",
		`{"fractional":[[{"fractional":[["on",1],["off",1]]}],["off",1]]}`: "fractional-correlated",
	} {
		found := map[string]bool{}
		for _, w := range Lint([]byte(`{"flags":{"f":` + boolFlag(rule) + `}}`)) {
			found[w.Rule] = true
			if w.Path == "" || w.Msg == "" {
				t.Errorf("%s: incomplete warning %+v", rule, w)
			}
		}
		if !found[want] {
			t.Errorf("%s: warnings %v lack %s", rule, found, want)
		}
	}
}

func TestLintDocument(t *testing.T) {
	doc := `{"$evaluators":{"a":{},"b":{"!":{"$ref":"a"}}},
		"flags":[{"key":"f","state":"ENABLED","variants":{"<":{"x":{"$ref":"a"}}},"targeting":null}]}`
	want := map[string]string{
		"evaluator-empty": "/$evaluators/a", "ref-nested": "/$evaluators/b/!", "flags-array": "/flags",
		"variant-name": "/flags/0/variants/<", "ref-in-value": "/flags/0/variants/</x", "targeting-null": "/flags/0/targeting",
	}
	got := map[string]string{}
	for _, w := range Lint([]byte(doc)) {
		got[w.Rule] = w.Path
	}
	for rule, path := range want {
		if got[rule] != path {
			t.Errorf("%s at %q, want %q", rule, got[rule], path)
		}
	}
}

// What everybody evaluates alike is not worth a word.
func TestLintIsQuiet(t *testing.T) {
	for _, rule := range []string{emailRule, splitByKey, tenRules(), `{"==":[{"var":"x"},"a"]}`, `{}`} {
		if found := Lint([]byte(`{"flags":{"f":` + boolFlag(rule) + `}}`)); len(found) > 0 {
			t.Errorf("%s: %+v", rule, found)
		}
	}
	if Lint([]byte(`{`)) != nil || Lint([]byte(`[]`)) != nil || Lint([]byte(`{"flags":3,"$evaluators":4}`)) != nil {
		t.Error("warnings about documents that do not parse")
	}
}
