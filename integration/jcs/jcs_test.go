package jcs

import (
	"bytes"
	"strings"
	"testing"

	webpki "github.com/gowebpki/jcs"

	"github.com/sealstone/sealstone/internal/canon"
)

var seeds = []string{
	`{"b":1,"a":[true,false,null,"x"]}`, `{"\u20ac":1,"\r":2,"1":3,"\ud83d\ude02":4,"\ufb33":5,"\u00f6":6,"\u0080":7}`,
	`[1e3,0.1,1E-7,1e21,333333333.33333329,4.5,2e-3,0.000001,-0,9007199254740991,9007199254740993]`,
	`{"a":"\u0000\u001f\u007f\u2028</script>\\\"/"}`, `"\ud800"`, `{"a":1,"a":2}`, `[]`, `{}`, `{"":{"":[]}}`, "[1,\n 2]", `{"a":NaN}`, `[01]`, `[1.]`, "\"\xff\"",
}

// FuzzEncode: what our parser accepts, both encode to the same bytes, and those
// parse and encode to themselves.
func FuzzEncode(f *testing.F) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		v, err := canon.Parse(raw, canon.MaxDepth)
		if err != nil {
			return // stricter on purpose: bounds, duplicates, lone surrogates, whole numbers beyond 2^53-1
		}
		ours, err := canon.Encode(v)
		if err != nil {
			t.Fatalf("%q is parsed and can't be encoded: %v", raw, err)
		}
		again, err := canon.Parse(ours, canon.MaxDepth)
		if err != nil {
			t.Fatalf("%q is encoded as %q, which is refused: %v", raw, ours, err)
		}
		if twice, err := canon.Encode(again); err != nil || !bytes.Equal(twice, ours) {
			t.Fatalf("%q, then %q (%v)", ours, twice, err)
		}
		theirs, err := webpki.Transform(raw)
		if err != nil {
			if name := known(raw, err); name == "" {
				t.Fatalf("%q: ours %q, theirs refuses: %v", raw, ours, err)
			}
			return
		}
		if !bytes.Equal(ours, theirs) {
			t.Fatalf("%q: ours %q, theirs %q", raw, ours, theirs)
		}
	})
}

// known names what the other implementation refuses, though RFC 8259 and 8785
// allow it.
func known(raw []byte, err error) string {
	switch text := strings.TrimSpace(string(raw)); {
	case !strings.HasPrefix(text, "{") && !strings.HasPrefix(text, "["):
		return "a value that is neither object nor array"
	case strings.Contains(err.Error(), "range"):
		return "a number too small to be told from zero"
	}
	return ""
}
