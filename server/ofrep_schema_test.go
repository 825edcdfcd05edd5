package server

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v5"
	"go.yaml.in/yaml/v3"
)

// ofrepDocument is the protocol's own description, with two corrections. Its
// reasons lack DEFAULT, which the protocol's decisions use. And its types of
// flags exclude each other, although every value is also what is said of a
// flag without one, and every integer a float: taken literally, no success is
// valid, not even its own examples.
var ofrepDocument = sync.OnceValues(func() ([]byte, error) {
	b, err := os.ReadFile("testdata/ofrep/openapi.yaml")
	if err != nil {
		return nil, err
	}
	var doc map[string]any
	if err := yaml.Unmarshal(b, &doc); err != nil {
		return nil, err
	}
	schemas := doc["components"].(map[string]any)["schemas"].(map[string]any)
	parts := schemas["evaluationSuccess"].(map[string]any)["allOf"].([]any)
	reason := parts[0].(map[string]any)["properties"].(map[string]any)["reason"].(map[string]any)
	reason["enum"] = append(reason["enum"].([]any), "DEFAULT")
	types := parts[1].(map[string]any)
	types["anyOf"] = types["oneOf"]
	delete(types, "oneOf")
	schemas["codeDefaultFlag"].(map[string]any)["not"] = map[string]any{"required": []any{"value"}}
	return json.Marshal(doc)
})

// valid holds an answer against a schema of the protocol.
func valid(t testing.TB, schema string, answer []byte) {
	t.Helper()
	doc, err := ofrepDocument()
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.Draft = jsonschema.Draft2020
	if err := c.AddResource("ofrep.json", bytes.NewReader(doc)); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("ofrep.json#/components/schemas/" + schema)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(answer, &v); err != nil {
		t.Fatalf("%v: %s", err, answer)
	}
	if err := s.Validate(v); err != nil {
		t.Errorf("not a valid %s: %#v\n%s", schema, err, answer)
	}
}

// A schema that accepts everything would prove nothing.
func TestTheSchemasRefuse(t *testing.T) {
	doc, err := ofrepDocument()
	if err != nil {
		t.Fatal(err)
	}
	for schema, wrong := range map[string]string{
		"evaluationSuccess":     `{"key":"k","reason":"STATIC","value":[1]} {"key":"k","value":1} {"key":"k","reason":"BECAUSE"} {"reason":"STATIC"}`,
		"evaluationFailure":     `{"key":"k"} {"errorCode":"GENERAL"} {"key":"k","errorCode":"FLAG_NOT_FOUND"}`,
		"bulkEvaluationSuccess": `{} {"flags":[{"key":"k"}]} {"flags":[],"metadata":{"a":{}}} {"flags":[],"eventStreams":[{"type":"sse"}]}`,
		"flagNotFound":          `{"key":"k","errorCode":"GENERAL"}`,
		"sseEventData":          `{}`,
	} {
		c := jsonschema.NewCompiler()
		c.Draft = jsonschema.Draft2020
		if err := c.AddResource("ofrep.json", bytes.NewReader(doc)); err != nil {
			t.Fatal(err)
		}
		s := c.MustCompile("ofrep.json#/components/schemas/" + schema)
		for _, w := range strings.Split(wrong, " ") {
			var v any
			if err := json.Unmarshal([]byte(w), &v); err != nil {
				t.Fatal(err)
			}
			if s.Validate(v) == nil {
				t.Errorf("%s accepts %s", schema, w)
			}
		}
	}
}
