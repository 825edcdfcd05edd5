package flags

import (
	"reflect"
	"testing"
	"time"
)

func TestExplain(t *testing.T) {
	s := mustCompile(t, `{"$evaluators":{"staff":{"ends_with":[{"var":"email"},"@example.com"]}},
		"flags":[{"key":"f","state":"ENABLED","variants":{"a":1,"b":2},
			"targeting":{"if":[{"$ref":"staff"},"a",{"fractional":[["a",25],["b",75]]}]}}]}`)
	got := s.Explain("f", Context{"email": "x", "targetingKey": "u"}, time.Time{})
	hash := murmur3("fu")
	at := uint64(hash) * 100 >> 32
	bucket := &Bucket{By: "fu", Hash: hash, At: at, Of: 100, From: 25, To: 100}
	if at < 25 {
		bucket.From, bucket.To = 0, 25
	}
	want := []Step{
		{Path: "/$evaluators/staff/ends_with/0/var", Rule: "var", Value: "x"},
		{Path: "/$evaluators/staff/ends_with", Rule: "ends_with", Value: false},
		{Path: "/flags/0/targeting/if/2/fractional", Rule: "fractional", Value: got.Resolution.Variant, Bucket: bucket},
		{Path: "/flags/0/targeting/if/2", Rule: "else", Value: got.Resolution.Variant},
		{Path: "/flags/0/targeting/if", Rule: "if", Value: got.Resolution.Variant},
	}
	if !reflect.DeepEqual(got.Steps, want) {
		t.Errorf("steps\n got %+v\nwant %+v", got.Steps, want)
	}
}

// The last step of an explanation gives the variant that evaluation gives, for
// all vectors: tracing changes nothing.
func TestExplainAgrees(t *testing.T) {
	for name, groups := range vectors(t) {
		for _, g := range groups {
			s := mustCompile(t, string(g.Document))
			for _, c := range g.Cases {
				x := s.Explain(c.Flag, c.Context, g.Now)
				if x.Resolution.Reason != ReasonTargetingMatch || len(x.Steps) == 0 {
					continue
				}
				f := s.Flag(c.Flag)
				if n := f.number(fromAny(x.Steps[len(x.Steps)-1].Value)); n < 0 || f.variants[n].name != x.Resolution.Variant {
					t.Errorf("%s: %s with %v: steps %+v, variant %s", name, c.Flag, c.Context, x.Steps, x.Resolution.Variant)
				}
			}
		}
	}
}

func TestExplainIsBounded(t *testing.T) {
	loop := `{"map":[{"var":"l"},{"map":[{"var":"m"},{"+":[{"var":""},1]}]}]}`
	s := mustCompile(t, `{"flags":{"f":`+boolFlag(loop)+`,"static":`+boolFlag("")+`}}`)
	big := make([]any, 2000)
	for i := range big {
		big[i] = map[string]any{"m": []any{1, 2, 3}}
	}
	if got := s.Explain("f", Context{"l": big}, time.Time{}); len(got.Steps) != 1000 {
		t.Errorf("%d steps", len(got.Steps))
	}
	if got := s.Explain("static", nil, time.Time{}); got.Resolution.Reason != ReasonStatic || got.Steps != nil {
		t.Errorf("%+v", got)
	}
	if got := s.Explain("nope", nil, time.Time{}); got.Resolution.ErrorCode != FlagNotFound {
		t.Errorf("%+v", got)
	}
}
