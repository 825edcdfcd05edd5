package ledger

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The closed schemas of every kind, for other languages and for auditors. They
// are written out of the table of kinds, and this test holds the two together:
// SEALSTONE_UPDATE=1 go test ./ledger -run TestSchemas writes them anew.
func TestSchemasSayWhatTheTableSays(t *testing.T) {
	for _, kind := range Kinds() {
		compareSchema(t, filepath.Join("..", "schemas", "change", string(kind)+".schema.json"), eventSchema(kind))
		if kind.Signed() {
			compareSchema(t, filepath.Join("..", "schemas", "statement", string(kind)+".schema.json"), statementSchema(kind))
		}
	}
}

func compareSchema(t *testing.T, path string, schema map[string]any) {
	t.Helper()
	var want bytes.Buffer
	enc := json.NewEncoder(&want)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(schema); err != nil {
		t.Fatal(err)
	}
	if os.Getenv("SEALSTONE_UPDATE") != "" {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Errorf("%s is not what the table of kinds says", path)
	}
}

func object(props map[string]any, optional ...string) map[string]any {
	var required []string
	for name := range props {
		if !slices.Contains(optional, name) {
			required = append(required, name)
		}
	}
	slices.Sort(required)
	return map[string]any{"type": "object", "additionalProperties": false, "properties": props, "required": required}
}

func pattern(p string) map[string]any { return map[string]any{"type": "string", "pattern": p} }
func constant(v any) map[string]any   { return map[string]any{"const": v} }
func whole(low int) map[string]any    { return map[string]any{"type": "integer", "minimum": low} }

const (
	patName    = `^[a-z0-9]+(-[a-z0-9]+)*$`
	patScope   = `^[a-z0-9]+(-[a-z0-9]+)*(/[a-z0-9]+(-[a-z0-9]+)*)*$`
	patDigest  = `^sha256:[0-9a-f]{64}$`
	patTime    = `^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$`
	patUUID    = `^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`
	patCommit  = `^[0-9a-f]{40}$`
	patBase64  = `^[A-Za-z0-9+/]*={0,2}$`
	patNoSpace = `^[^\s]{1,256}$`
)

// memberSchema is the schema of a kind's own member.
func memberSchema(name string) any {
	switch name {
	case "artifact", "baseImage", "image", "sbom", "plan", "object", "replaces", "trust":
		return pattern(patDigest)
	case "expires":
		return pattern(patTime)
	case "mode":
		s := pattern(patName)
		s["maxLength"] = 40
		return s
	case "onExpiry":
		return map[string]any{"enum": []string{"hold", "restore"}}
	case "ttl":
		return map[string]any{"type": "integer", "minimum": MinTTL, "maximum": MaxTTL, "description": "seconds"}
	case "contract", "index", "total":
		return whole(1)
	case "release":
		return object(map[string]any{"commit": pattern(patCommit), "ref": map[string]any{"type": "string"}, "repository": map[string]any{"type": "string"},
			"skipped": whole(0), "tree": pattern(patCommit)})
	case "set":
		return object(map[string]any{"digest": pattern(patDigest), "size": whole(1)})
	case "resolved":
		return map[string]any{"type": "array", "minItems": 1, "description": "sorted by scope; absent when no bundle is in effect, or in an exit when it would not fit",
			"items": object(map[string]any{"bundle": pattern(patDigest), "scope": pattern(patScope)})}
	case "faults":
		return map[string]any{"type": "array", "minItems": 1, "maxItems": 20,
			"items": object(map[string]any{"column": whole(1), "file": map[string]any{"type": "string"}, "line": whole(1), "rule": pattern(`^[EW]_[A-Z0-9_]+$`)}, "column", "line")}
	}
	return pattern(patNoSpace)
}

// members adds a kind's own members and returns the names of optional ones.
func members(props map[string]any, r rule, statement bool) (optional []string) {
	for _, name := range slices.Concat(r.required, r.optional) {
		if statement && slices.Contains(r.nodeOnly, name) {
			continue
		}
		props[name] = memberSchema(name)
		if slices.Contains(r.optional, name) || name == "resolved" {
			optional = append(optional, name)
		}
	}
	return optional
}

func addPlace(props map[string]any, p place) (optional []string) {
	if p == placeNone {
		return nil
	}
	service, scope := pattern(patName), pattern(patScope)
	service["maxLength"], scope["maxLength"] = 40, 80
	props["service"], props["scope"] = service, scope
	switch p {
	case placeService:
		return []string{"scope"}
	case placeAny:
		return []string{"scope", "service"}
	}
	return nil
}

func envelopeSchema(payloadType string, maxSignatures int) map[string]any {
	return object(map[string]any{
		"payload": pattern(patBase64), "payloadType": constant(payloadType),
		"signatures": map[string]any{"type": "array", "minItems": 1, "maxItems": maxSignatures,
			"items": object(map[string]any{"keyid": map[string]any{"type": "string"}, "sig": pattern(patBase64)})},
	})
}

func eventSchema(kind Kind) map[string]any {
	r := rules[kind]
	data := map[string]any{"lane": constant(string(r.lane)), "generation": whole(1), "prev": pattern(patDigest), "operators": whole(1), "detail": pattern(patDigest)}
	optional := append([]string{"prev", "operators", "detail"}, members(data, r, false)...)
	optional = append(optional, addPlace(data, r.place)...)
	switch r.who {
	case byRoots:
		data["statement"] = envelopeSchema(TypeStatement, 16)
	case byStatement, byEither:
		data["statement"] = envelopeSchema(TypeStatement, 1)
		if r.who == byEither {
			optional = append(optional, "statement")
		}
	}
	props := map[string]any{
		"specversion": constant("1.0"), "id": pattern(patUUID), "source": pattern(`^[!-*,-~]{1,200}$`), "type": constant(TypePrefix + string(kind)),
		"subject": map[string]any{"type": "string"}, "time": pattern(patTime), "recordedtime": pattern(patTime), "data": object(data, optional...),
	}
	var optionalAttributes []string
	switch r.place {
	case placeNone:
		delete(props, "subject")
	case placeAny:
		optionalAttributes = []string{"subject"}
	}
	s := object(props, optionalAttributes...)
	s["$schema"], s["$id"] = "https://json-schema.org/draft/2020-12/schema", "urn:sealstone:schema:change:"+string(kind)
	s["title"] = "Change " + string(kind) + ": the CloudEvent in a leaf"
	return s
}

func statementSchema(kind Kind) map[string]any {
	r := rules[kind]
	props := map[string]any{"detail": pattern(patDigest), "id": pattern(patUUID), "kind": constant(string(kind)), "log": pattern(`^[!-*,-~]{1,200}$`), "time": pattern(patTime)}
	optional := append([]string{"detail"}, members(props, r, true)...)
	optional = append(optional, addPlace(props, r.place)...)
	if r.lane == LaneOverride {
		props["after"] = whole(0)
	}
	s := object(props, optional...)
	s["$schema"], s["$id"] = "https://json-schema.org/draft/2020-12/schema", "urn:sealstone:schema:statement:"+string(kind)
	s["title"] = "Statement " + string(kind) + ": what a person or pipeline signs"
	return s
}

func TestEveryKindHasALaneAndAPlaceInTheTable(t *testing.T) {
	for _, k := range Kinds() {
		if !slices.Contains([]Lane{LaneMain, LaneOverride, LaneRecord, LaneTrust}, k.Lane()) {
			t.Errorf("%s has lane %q", k, k.Lane())
		}
		if k.Signed() != (rules[k].do != "") || strings.ToLower(string(k)) != string(k) {
			t.Errorf("%s: signed kinds, and only those, name what an operator must be allowed to do", k)
		}
	}
}
