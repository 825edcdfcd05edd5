package flags

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// acceptedHere lists documents the provider schema refuses and Compile takes.
var acceptedHere = map[string]string{
	"with-array-flags.json": "the array form is flagd's own file format, and normalised here",
}

func TestFlagdDocuments(t *testing.T) {
	for _, path := range glob(t, "testdata/flagd/flags/positive/*.json") {
		if _, err := Compile(read(t, path)); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, path := range glob(t, "testdata/flagd/flags/negative/*.json") {
		_, err := Compile(read(t, path))
		_, accepted := acceptedHere[filepath.Base(path)]
		if accepted != (err == nil) {
			t.Errorf("%s: err = %v, want accepted %v", path, err, accepted)
		}
	}
}

func TestFlagdTargeting(t *testing.T) {
	for _, path := range glob(t, "testdata/flagd/targeting/positive/*.json") {
		if _, err := Compile(asTargeting(t, path)); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
	for _, path := range glob(t, "testdata/flagd/targeting/negative/*.json") {
		_, err := Compile(asTargeting(t, path))
		if err == nil {
			t.Errorf("%s: compiles, want an error", path)
		}
		for _, f := range Faults(err) {
			if !strings.HasPrefix(f.Path, "/flags/f/targeting/") {
				t.Errorf("%s: fault at %q: %s", path, f.Path, f.Msg)
			}
		}
	}
}

// asTargeting wraps a rule into a document. The examples gather many rules under
// "*"; as operands of a product they all get compiled.
func asTargeting(t *testing.T, path string) []byte {
	t.Helper()
	return []byte(`{"$evaluators":{"some-ref":{"==":[1,1]}},
		"flags":{"f":{"state":"ENABLED","variants":{"a":1},"targeting":` + string(read(t, path)) + `}}}`)
}

func glob(t testing.TB, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("no files %s: %v", pattern, err)
	}
	return paths
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
