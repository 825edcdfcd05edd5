package flags

import (
	"encoding/json"
	"testing"
	"time"
)

func addDocuments(f *testing.F) {
	f.Helper()
	for _, path := range append(glob(f, "testdata/flagd/flags/*/*.json"), glob(f, "testdata/vectors/*.json")...) {
		f.Add(read(f, path))
	}
	for _, rule := range operatorRules {
		f.Add([]byte(`{"flags":{"f":` + boolFlag(rule) + `}}`))
	}
}

// FuzzCompile: any bytes are compiled or refused with faults that have a message,
// and linted, without a panic.
func FuzzCompile(f *testing.F) {
	addDocuments(f)
	f.Fuzz(func(t *testing.T, doc []byte) {
		Lint(doc)
		s, err := Compile(doc)
		if err == nil {
			if len(Changed(s, s)) != 0 {
				t.Fatal("a set differs from itself")
			}
			return
		}
		for _, fault := range Faults(err) {
			if fault.Msg == "" {
				t.Fatal("a fault without words")
			}
		}
	})
}

// FuzzEvaluate: what compiles evaluates to a known outcome, in a bounded time,
// twice the same, in bulk as alone, and never into the recovery of panics.
func FuzzEvaluate(f *testing.F) {
	ctx, err := json.Marshal(operatorContext())
	if err != nil {
		f.Fatal(err)
	}
	for _, rule := range operatorRules {
		f.Add([]byte(rule), ctx)
	}
	f.Fuzz(func(t *testing.T, rule, context []byte) {
		s, err := Compile([]byte(`{"$evaluators":{"staff":{"var":"x"}},"flags":{"f":` + boolFlag(string(rule)) + `}}`))
		var ctx Context
		if err != nil || json.Unmarshal(context, &ctx) != nil {
			return
		}
		fl := s.Flag("f")
		if fl == nil {
			return
		}
		n, r := fl.resolve(ctx, time.Unix(1_767_323_045, 0))
		if r == &fl.failed {
			t.Fatalf("%s with %s panics", rule, context)
		}
		if n >= 0 && r.ErrorCode != "" || n < 0 && r.Value != nil {
			t.Fatalf("%d, %+v", n, r)
		}
		if again := s.EvaluateAll(ctx, time.Unix(1_767_323_045, 0), nil); again[0].Variant != r.Variant || again[0].ErrorCode != r.ErrorCode {
			t.Fatalf("%+v, then %+v", r, again[0])
		}
	})
}
