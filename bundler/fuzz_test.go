package bundler

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sealstone/sealstone/internal/canon"
	"github.com/sealstone/sealstone/internal/gittest"
)

// FuzzReadYAML: no text panics, every fault has a place inside it, and what is
// accepted is what an independent decoding of the same text as JSON values says.
func FuzzReadYAML(f *testing.F) {
	for _, s := range []string{
		"a: 1\n", "a: [1, {b: c}]\n", "- 'x'\n- |\n  y\n", "&a [*a]", "? [a]\n: b", "%YAML 1.2\n---\na", "a: !!binary aGk=", "{}", "\"\\u0041\"", "a: 0x1F", "<<: {a: b}", "---\n---\n", "a:\n  b:\n c", "! 12", "é: ☃\r\nb: 1\r\n", "a: \"\\ud800\"",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		d := readDocument("f.yaml", raw, forConfig)
		for _, fault := range d.faults {
			if fault.Rule == "" || fault.Message == "" || fault.Line < 0 || fault.Line > bytes.Count(raw, []byte("\n"))+bytes.Count(raw, []byte("\r"))+bytes.Count(raw, []byte("\xc2\x85"))+2*bytes.Count(raw, []byte("\xe2\x80"))+2 {
				t.Fatalf("%q: %+v", raw, fault)
			}
		}
		if asError(d.faults) != nil {
			return
		}
		got, err := canon.Encode(d.root.value())
		if err != nil {
			t.Fatalf("%q is accepted but can't be encoded: %v", raw, err)
		}
		var other any
		if err := yaml.Unmarshal(raw, &other); err != nil {
			t.Fatalf("%q is accepted, the parser says %v", raw, err)
		}
		want, err := canon.Encode(normal(other))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%q is %s, the parser alone says %s (%v)", raw, got, want, err)
		}
	})
}

// normal maps what the YAML library decodes to what canon takes.
func normal(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = normal(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = normal(v[k])
		}
	}
	return v
}

// FuzzReadJSON: the tree with places has the values of the tree without.
func FuzzReadJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,{"b":null}]}`, `[[],{},""]`, `{"a":{"a":{"a":1}}}`, `1e3`, "{\n\"é\": 1,\n\"b\": [\n2]}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		n, faults := readJSON("f.json", raw)
		v, err := canon.Parse(raw, canon.MaxDepth)
		if (err == nil) != (len(faults) == 0) {
			t.Fatalf("%q: %v, %v", raw, faults, err)
		}
		if err != nil {
			return
		}
		a, _ := canon.Encode(n.value())
		b, _ := canon.Encode(v)
		if !bytes.Equal(a, b) {
			t.Fatalf("%q: %s, %s", raw, a, b)
		}
	})
}

// TestHostileTexts holds parsing to a time and a size.
func TestHostileTexts(t *testing.T) {
	const mib = 1 << 20
	rep := func(s string, n int) string { return strings.Repeat(s, n/len(s)) }
	bomb := "a: &a [x,x,x,x,x,x,x,x,x]\n"
	for i := 'b'; i <= 'z'; i++ {
		bomb += fmt.Sprintf("%c: &%c [*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c,*%c]\n", i, i, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1)
	}
	for name, text := range map[string]string{
		"an alias bomb":       bomb,
		"open brackets":       rep("[", mib),
		"open braces":         rep("{a: ", mib),
		"brackets in a row":   rep("[],", mib),
		"sequence indicators": rep("- ", mib),
		"question marks":      rep("? ", mib),
		"keys of keys":        rep("? a\n", mib),
		"anchors":             rep("&a ", mib),
		"one long key":        rep("k", mib-10) + ": 1\n",
		"many keys": func() string {
			var b strings.Builder
			for i := 0; b.Len() < mib-20; i++ {
				fmt.Fprintf(&b, "k%d: 1\n", i)
			}
			return b.String()
		}(),
		"many faults":        rep("- yes\n", mib),
		"many documents":     rep("---\n", mib),
		"many comments":      rep("#\n", mib-10) + "a: 1\n",
		"an unclosed string": "\"" + rep("x", mib-10),
		"escapes":            "\"" + rep("\\u0041", mib-10) + "\"",
		"colons":             rep("a:", mib),
		"tabs":               rep("\t", mib),
		"blank lines":        rep("\n", mib),
		"percent signs":      rep("%", mib),
		"steps": func() string {
			var b strings.Builder
			for i := 0; b.Len() < mib-2000; i++ {
				b.WriteString(strings.Repeat(" ", i))
				b.WriteString("a:\n")
			}
			return b.String()
		}(),
		"block scalars":           rep("- |\n a\n", mib),
		"exclamation marks":       rep("- !\n", mib),
		"exclamation on one line": "[" + rep("! a,", mib-10) + "]",
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			d := readDocument("h.yaml", []byte(text), forConfig)
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			if mem := after.TotalAlloc - before.TotalAlloc; mem > 400*mib {
				t.Errorf("allocated %d MiB", mem/mib)
			}
			t.Logf("%s, %d MiB, %d faults", took, (after.TotalAlloc-before.TotalAlloc)/mib, len(d.faults))
		})
	}
	t.Run("JSON with a long key above many values", func(t *testing.T) {
		if _, faults := readJSON("h.json", []byte(`{"`+rep("k", mib/2)+`":[`+rep("1,", mib/2-20)+`1]}`)); len(faults) > 0 {
			t.Error(faults)
		}
	})
}

// TestHostileSchemas: what a schema may cost is bounded, whatever it asks for.
func TestHostileSchemas(t *testing.T) {
	chain := func(n int) string {
		var b strings.Builder
		b.WriteString(`{"$ref":"#/$defs/a0","$defs":{`)
		for i := range n {
			fmt.Fprintf(&b, `"a%d":{"$ref":"#/$defs/a%d"},`, i, i+1)
		}
		fmt.Fprintf(&b, `"a%d":{}}}`, n)
		return b.String()
	}
	many := func(format string, n int) string {
		parts := make([]string, n)
		for i := range parts {
			parts[i] = fmt.Sprintf(format, i)
		}
		return strings.Join(parts, ",")
	}
	for name, c := range map[string]struct{ schema, doc string }{
		"a long chain of references":    {chain(5000), "a: 1\n"},
		"many subschemas":               {`{"allOf":[` + many(`{"minimum":%d}`, 40000) + `]}`, "a: 1\n"},
		"recursion that doubles":        {`{"properties":{"a":{"allOf":[{"$ref":"#"},{"$ref":"#"}]}}}`, strings.Repeat("{a: ", 60) + "1" + strings.Repeat("}", 60) + "\n"},
		"unique items":                  {`{"properties":{"a":{"uniqueItems":true}}}`, "a: [" + many("%d", 150000) + "]\n"},
		"unique objects":                {`{"properties":{"a":{"uniqueItems":true}}}`, "a: [" + many("{k: %d}", 80000) + "]\n"},
		"patterns times keys":           {`{"patternProperties":{` + many(`"^(a|b)*%d$":{}`, 20000) + `}}`, "{" + many("k%d: 1", 80000) + "}\n"},
		"many subschemas within limits": {`{"allOf":[` + many(`{"minimum":%d}`, 4900) + `]}`, "a: 1\n"},
		"patterns within limits":        {`{"patternProperties":{` + many(`"^(a|b)*%d$":{}`, 100) + `}}`, "{" + many("k%d: 1", 60000) + "}\n"},
		"contains within contains":      {`{"properties":{"a":{"items":{"contains":{"contains":{"const":1}}}}}}`, "a: [" + many("[[%d]]", 50000) + "]\n"},
		"a regular expression's size":   {`{"properties":{"a":{"pattern":"^((((a{1,30}){1,30}){1,30}){1,30})$"}}}`, "a: aaaa\n"},
		"dynamic references":            {`{"$dynamicAnchor":"x","properties":{"a":{"anyOf":[{"$dynamicRef":"#x"},{"$dynamicRef":"#x"}]}}}`, strings.Repeat("{a: ", 60) + "1" + strings.Repeat("}", 60) + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			repo := gittest.New(t)
			commit := gittest.Commit(t, repo, map[string]string{
				"sealstone.yaml": "version: 1\nlevels: [env]\nscopes: [prod]\n", "schemas/h.schema.json": c.schema,
				"services/s/service.yaml": "owner: x\nschemas: {config/d: h}\n", "services/s/config/d.yaml": c.doc,
			})
			start := time.Now()
			rep, err := New(NewRepo(repo)).Check(context.Background(), commit, CheckOptions{})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%s: %.200v", time.Since(start), rep.Faults.Errors())
		})
	}
}
