package flags

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestParseRefuses(t *testing.T) {
	for doc, want := range map[string]string{
		``: "expected a JSON value", `{`: "expected a member name", `{"a"}`: "expected :", `{"a":1,}`: "expected a member name",
		`[1,]`: "expected a JSON value", `[1 2]`: "expected , or ]", `{"a":1 "b":2}`: "expected , or }", `{} {}`: "unexpected text",
		"\ufeff{}": "expected a JSON value", "\"\xff\"": "not valid UTF-8", `"\ud800"`: "unpaired surrogate", `"\ud800\u0041"`: "unpaired surrogate",
		`"\x"`: "unknown escape", `"\u12g4"`: "four hexadecimal digits", `"\u+123"`: "four hexadecimal digits", "\"\n\"": "control character", "\"\\n\x01\"": "control character",
		`"a`: "string does not end", `"a\`: "unknown escape", `"\n`: "string does not end",
		`01`: "unexpected text", `-`: "expected a digit", `1.`: "expected a digit", `1e`: "expected a digit", `.5`: "expected a JSON value", `+1`: "expected a JSON value",
		`NaN`: "expected a JSON value", `1e999`: "beyond", `9007199254740992`: "beyond", `-9007199254740992`: "beyond", `1e16`: "beyond",
		`{"a":1,"a":2}`: "/a: member name appears twice", `{"a":{"b~/":1,"b~/":2}}`: "/a/b~0~1: member name appears twice",
		strings.Repeat("[", 65): "deeper than 64", strings.Repeat(`{"a":`, 65): "deeper than 64",
		"[" + strings.Repeat("1,", maxNodes) + "1]": "more than",
		strings.Repeat(" ", maxDocument+1):          "larger than",
	} {
		if _, err := parse(doc); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parse(%.60q) = %v, want %q", doc, err, want)
		}
	}
}

func TestParseAccepts(t *testing.T) {
	for _, doc := range []string{
		`null`, ` [ ] `, `{}`, `-0`, `9007199254740991`, `1.5e-300`, `0.1`, `"\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00x"`, `"é😀\n"`, `{"":{"a":[1,"2",true,false,null]}}`,
		strings.Repeat("[", 64) + strings.Repeat("]", 64), "[\t1 ,\r\n2 ]", many(40),
	} {
		n, err := parse(doc)
		if err != nil {
			t.Errorf("parse(%.60q): %v", doc, err)
			continue
		}
		var want any
		if err := json.Unmarshal([]byte(doc), &want); err != nil {
			t.Fatal(err)
		}
		if got := n.toAny(); !reflect.DeepEqual(got, want) {
			t.Errorf("parse(%.60q) = %v, want %v", doc, got, want)
		}
	}
}

// many is an object of n members.
func many(n int) string {
	var b strings.Builder
	b.WriteByte('{')
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(`"m` + itoa(i) + `":` + itoa(i))
	}
	return b.String() + "}"
}

func TestParseFindsRepeatsInLargeObjects(t *testing.T) {
	doc := strings.TrimSuffix(many(40), "}") + `,"m3":0,"m39":0}`
	_, err := parse(doc)
	if got := len(Faults(err)); got != 2 {
		t.Errorf("%d faults, want 2: %v", got, err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{`{"a":[1,"\u00e9",null,true]}`, `"\ud83d\ude00"`, `-1.5e3`, `[[[{}]]]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, doc string) {
		n, err := parse(doc)
		if err != nil {
			return
		}
		// What we take, encoding/json takes and reads alike.
		var want any
		if err := json.Unmarshal([]byte(doc), &want); err != nil {
			t.Fatalf("%q: encoding/json: %v", doc, err)
		}
		if got := n.toAny(); !reflect.DeepEqual(got, want) {
			t.Fatalf("%q = %v, want %v", doc, got, want)
		}
	})
}
