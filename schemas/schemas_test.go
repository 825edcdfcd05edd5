package schemas

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sealstone/sealstone/internal/canon"
)

func TestEveryBuiltInSchemaCompiles(t *testing.T) {
	names := Names()
	for _, want := range []string{"sealstone", "service", "common", "bindings", "safe-mode", "activations", "operators", "clients", "flags", "targeting"} {
		if !slices.Contains(names, want) {
			t.Errorf("no %s among %v", want, names)
		}
	}
	for _, name := range names {
		if _, err := Compile(name, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		raw, _ := Builtin(name)
		if _, err := canon.Parse(raw, canon.MaxDepth); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestFlagSchemaAgreesWithItsSuite runs the examples that come with the
// flag-definition schemas.
func TestFlagSchemaAgreesWithItsSuite(t *testing.T) {
	s, err := Compile("flags", nil)
	if err != nil {
		t.Fatal(err)
	}
	for dir, right := range map[string]bool{"positive": true, "negative": false} {
		files, _ := filepath.Glob("../flags/testdata/flagd/flags/" + dir + "/*.json")
		if len(files) < 5 {
			t.Fatalf("the suite is not there: %v", files)
		}
		for _, file := range files {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var v any
			if err := json.Unmarshal(raw, &v); err != nil {
				t.Fatal(file, err)
			}
			res, err := s.Validate(v)
			list := strings.Contains(file, "array") // the daemon's list form, not the providers' form
			if err != nil || (len(res.Faults) == 0) != right && !list {
				t.Errorf("%s: %v %v", file, res.Faults, err)
			}
		}
	}
}

func source(files map[string]string) Source {
	return func(name string) ([]byte, error) {
		if text, ok := files[name]; ok {
			return []byte(text), nil
		}
		return nil, ErrNotFound
	}
}

// noting tells which of a source's files were read.
func noting(from Source, read *[]string) Source {
	return func(name string) ([]byte, error) {
		b, err := from(name)
		if err == nil {
			*read = append(*read, name)
		}
		return b, err
	}
}

func TestNothingOutsideIsReachable(t *testing.T) {
	for _, ref := range []string{
		"file:///etc/passwd", "/etc/passwd", "../../etc/passwd.schema.json", "http://127.0.0.1:1/a.json", "https://example.com/a.schema.json",
		"sealstone:///other/a.schema.json", "missing.schema.json", "a/b.schema.json", "%2e%2e/a.schema.json", "//host/a.schema.json", "x.schema.json?y",
	} {
		var read []string
		_, err := Compile("a", noting(source(map[string]string{"a": fmt.Sprintf(`{"properties":{"x":{"$ref":%q}}}`, ref)}), &read))
		if _, ok := errors.AsType[*RefError](err); !ok {
			t.Errorf("%s: %v", ref, err)
		}
		if !slices.Equal(read, []string{"a"}) {
			t.Errorf("%s: read %v", ref, read)
		}
	}
	// An $id moves the base; what is relative to it is outside too.
	_, err := Compile("a", source(map[string]string{"a": `{"$id":"https://example.com/x/","$ref":"b.schema.json"}`, "b": `{}`}))
	if _, ok := errors.AsType[*RefError](err); !ok {
		t.Error(err)
	}
	_, err = Compile("a", source(map[string]string{"a": `{"$schema":"https://example.com/meta"}`}))
	if _, ok := errors.AsType[*RefError](err); !ok {
		t.Error(err)
	}
}

func TestNeighboursAndDrafts(t *testing.T) {
	var read []string
	s, err := Compile("a", noting(source(map[string]string{
		"a": `{"properties":{"x":{"$ref":"b.schema.json#/$defs/n"},"f":{"$ref":"flags.schema.json"},"g":{"$ref":"https://flagd.dev/schema/v0/targeting.json"}}}`,
		"b": `{"$schema":"http://json-schema.org/draft-07/schema#","$defs":{"n":{"type":"integer"}}}`,
	}), &read))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(read, []string{"a", "b"}) {
		t.Errorf("read %v", read)
	}
	res, err := s.Validate(map[string]any{"x": "no", "f": map[string]any{"flags": map[string]any{}}, "g": map[string]any{}})
	if err != nil || len(res.Faults) != 1 || res.Faults[0].Pointer != "/x" {
		t.Errorf("%v %v", res, err)
	}
}

func TestFaults(t *testing.T) {
	long := strings.Repeat("s3cr3t", 20)
	for _, c := range []struct {
		schema string
		value  any
		want   []Fault
	}{
		{`{"type":"string"}`, 1.0, []Fault{{"", "expected string, but got number", nil}}},
		{`{"required":["a"]}`, map[string]any{}, []Fault{{"", "missing member 'a'", nil}}},
		{`{"additionalProperties":false}`, map[string]any{"a/b": 1.0}, []Fault{{"", "unknown member", []string{"a/b"}}}},
		{`{"properties":{"a b~/":{"maxLength":1}}}`, map[string]any{"a b~/": "xx"}, []Fault{{"/a b~0~1", "length must be <= 1, but got 2", nil}}},
		{`{"format":"email"}`, long, []Fault{{"", "not valid for the format that the schema asks for", nil}}},
		{`{"anyOf":[{"type":"string"},{"properties":{"a":{"type":"string"}}}]}`, map[string]any{"a": 1.0}, []Fault{{"/a", "expected string, but got number", nil}}},
		{`{"properties":{"a":{"type":"integer"}},"items":{"type":"string"}}`, []any{"x", 1.0}, []Fault{{"/1", "expected string, but got number", nil}}},
	} {
		s, err := Compile("a", source(map[string]string{"a": c.schema}))
		if err != nil {
			t.Fatal(err)
		}
		res, err := s.Validate(c.value)
		if err != nil || fmt.Sprint(res.Faults) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v %v, want %v", c.schema, res.Faults, err, c.want)
		}
	}
}

func TestNotSecretIsToldOfMarkedStringsAlone(t *testing.T) {
	s, err := Compile("a", source(map[string]string{"a": `{"properties":{"a":{"x-not-secret":true},"c":{"items":{"x-not-secret":true,"type":"string"}}}}`}))
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Validate(map[string]any{"a": "1", "b": "2", "c": []any{"3"}})
	if err != nil || len(res.NotSecret) != 2 || !res.NotSecret["1"] || !res.NotSecret["3"] {
		t.Errorf("%v %v", res.NotSecret, err)
	}
}

func TestValidateIsSafeForManyAtOnce(t *testing.T) {
	s, err := Compile("a", source(map[string]string{"a": `{"properties":{"a":{"type":"integer","x-not-secret":true}}}`}))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 100 {
				v, want := any(1.0), 0
				if i%2 == 0 {
					v, want = "x", 1
				}
				if res, err := s.Validate(map[string]any{"a": v}); err != nil || len(res.Faults) != want {
					t.Error(res, err)
					return
				}
			}
		})
	}
	wg.Wait()
}
