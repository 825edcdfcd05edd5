package flags

import (
	"testing"
	"time"
)

// A bare operand of ! that is an array is the list of its operands, whether it
// folds to a constant or not.
func TestNegationOfAFoldedArray(t *testing.T) {
	for rule, want := range map[string]string{
		`{"!":{"merge":[0]}}`:  "true",
		`{"!!":{"merge":[0]}}`: "false",
		`{"!":{"merge":[]}}`:   "true",
		`{"!!":{"merge":[]}}`:  "false",
		`{"!":[0]}`:            "true",
		`{"!!":[[0]]}`:         "true",
	} {
		doc := `{"flags":{"f":{"state":"ENABLED","variants":{"true":true,"false":false},"defaultVariant":"true","targeting":` + rule + `}}}`
		s, err := Compile([]byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		if r := s.Evaluate("f", nil, time.Time{}); r.Variant != want || r.Reason != ReasonTargetingMatch {
			t.Errorf("%s: %+v, want %s", rule, r, want)
		}
	}
}
