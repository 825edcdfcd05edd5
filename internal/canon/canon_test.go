package canon

import (
	"bytes"
	"math"
	"strings"
	"testing"
)

func TestEncodeFollowsRFC8785(t *testing.T) {
	cases := []struct{ name, in, want string }{
		{"sorts by UTF-16 units", "{\"\ufb33\":1,\"😂\":2,\"a\":3}", "{\"a\":3,\"😂\":2,\"\ufb33\":1}"},
		{"rfc sample of numbers", `[333333333.33333329,1E3,4.50,2e-3,0.000000000000000000000000001]`, `[333333333.3333333,1000,4.5,0.002,1e-27]`},
		{"zero has no sign", `[-0,-0.0,0]`, `[0,0,0]`},
		{"small exponents", `[1e-7,1e-6,1.5e-10]`, `[1e-7,0.000001,1.5e-10]`},
		{"escapes", `"\u20ac$\u000f\nA'B\"\\\/<>&\u2028"`, "\"€$\\u000f\\nA'B\\\"\\\\/<>&\u2028\""},
		{"white space", " { \"b\" : [ ] , \"a\" : { } } ", `{"a":{},"b":[]}`},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			v, err := Parse([]byte(c.in), MaxDepth)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Encode(v)
			if err != nil || string(got) != c.want {
				t.Errorf("got %s, %v; want %s", got, err, c.want)
			}
			if err := Check(got); err != nil {
				t.Errorf("own output refused: %v", err)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	cases := map[string]string{
		"duplicate key":        `{"a":1,"a":2}`,
		"duplicate by escape":  `{"a":1,"\u0061":2}`,
		"lone surrogate":       `"\ud800"`,
		"reversed pair":        `"\udc00\ud800"`,
		"bad utf-8":            "\"\xff\"",
		"bad utf-8 and escape": "\"\\n\xff\"",
		"byte order mark":      "\ufeff{}",
		"big integer":          `9007199254740993`,
		"big float":            `1e20`,
		"leading zero":         `01`,
		"plus":                 `+1`,
		"bare point":           `1.`,
		"bare exponent":        `1e`,
		"overflow":             `1e999`,
		"trailing comma":       `[1,]`,
		"two values":           `1 2`,
		"control character":    "\"a\nb\"",
		"comment":              `/* */1`,
		"single quotes":        `{'a':1}`,
		"empty":                ``,
		"unended":              `{"a":`,
		"deep":                 strings.Repeat("[", 65) + strings.Repeat("]", 65),
	}
	for name, in := range cases {
		if v, err := Parse([]byte(in), MaxDepth); err == nil {
			t.Errorf("%s: accepted as %v", name, v)
		}
	}
}

func TestEncodeRefusesWhatJSONCannotHold(t *testing.T) {
	for _, v := range []any{math.NaN(), math.Inf(1), int64(1) << 53, uint64(1) << 60, "\xff", struct{}{}} {
		if b, err := Encode(v); err == nil {
			t.Errorf("%v encoded as %s", v, b)
		}
	}
}

func TestUnmarshalIsClosed(t *testing.T) {
	type doc struct {
		A string `json:"a"`
		B *int   `json:"b,omitempty"`
	}
	for in, ok := range map[string]bool{
		`{"a":"x"}`: true, `{"a":"x","b":1}`: true, `{"A":"x"}`: false, `{"a":"x","c":1}`: false,
		`{"a":"x","b":null}`: false, `{}`: false, `{"a": "x"}`: false,
	} {
		var d doc
		if err := Unmarshal([]byte(in), &d); (err == nil) != ok {
			t.Errorf("%s: err = %v, want ok = %v", in, err, ok)
		}
	}
}

func TestParseAtReportsKeysAndElements(t *testing.T) {
	got := map[string]int{}
	if _, err := ParseAt([]byte(`{"a": [1, {"b/c": 2}]}`), MaxDepth, func(p []string, at int) { got[strings.Join(append([]string{""}, p...), "|")] = at }); err != nil {
		t.Fatal(err)
	}
	for p, at := range map[string]int{"": 0, "|a": 1, "|a|0": 7, "|a|1": 10, "|a|1|b/c": 11} {
		if got[p] != at {
			t.Errorf("%s at %d, want %d", p, got[p], at)
		}
	}
}

func FuzzParseEncodeIsStable(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5,"x\u0000"],"b":null}`, `[1e-7,true]`, `"\ud83d\ude02"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		v, err := Parse(in, MaxDepth)
		if err != nil {
			return
		}
		once, err := Encode(v)
		if err != nil {
			t.Fatalf("parsed but can't be encoded: %v", err)
		}
		again, err := Parse(once, MaxDepth)
		if err != nil {
			t.Fatalf("own output refused: %v", err)
		}
		twice, _ := Encode(again)
		if !bytes.Equal(once, twice) {
			t.Fatalf("%s became %s", once, twice)
		}
	})
}

// Respell is Encode of Parse, for what either takes.
func FuzzRespellIsParseAndEncode(f *testing.F) {
	for _, s := range []string{`{"b":[1,2.50,{"z":"x\u0000","a":{}}],"a":null}`, ` [ 1E-7 , true , [ ] ]`, `{"a":1,"\u0061":2}`, `{"b":1,"a":2,"b":3}`, `{"\ufb33":1,"😂":2}`,
		`"\ud83d\ude02"`, "\"\xff\"", `{"a" 1}`, `{"a":1,}`, `1 2`, strings.Repeat(`{"b":`, 64) + "1", strings.Repeat("[", 64) + strings.Repeat("]", 64)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := Respell([]byte("before "), in, MaxDepth)
		tree, parseErr := Parse(in, MaxDepth)
		if (err == nil) != (parseErr == nil) {
			t.Fatalf("%q: respell: %v, parse: %v", in, err, parseErr)
		}
		if err != nil {
			return
		}
		want, err := Encode(tree)
		if err != nil || string(got) != "before "+string(want) {
			t.Fatalf("%q became %q, want %q (%v)", in, got, want, err)
		}
	})
}
