package bundler_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/gittest"
)

// said are files and what each may say; the empty text is no file.
var said = map[string][]string{
	"common/service.yaml":                                        {"schemas: {\"config/log\": none}\n", "schemas: {\"config/*\": none}\n", "schemas: {\"config/log\": http}\n"},
	"common/config/log.yaml":                                     {"level: info\n", "level: warn\nrate: 1.10\n", "level: [yes]\n", "note: null\n", ""},
	"common/config/http.yaml":                                    {"", "note: common\n", "note: null\n"},
	"common/flags/f.yaml":                                        {"", "$evaluators: {e: {var: a}}\n", "flags: {new-cart: {state: ENABLED, variants: {on: 1}}}\n", "flags: 1\n"},
	"common/overlays/prod/config/http.yaml":                      {"", "port: 1\n", "timeout: x\n"},
	"common/overlays/prod/config/log.yaml":                       {"", "level: null\n", "level: info\n"},
	"schemas/http.schema.json":                                   {`{"type":"object"}`, `{"properties":{"timeout":{"maximum":9}}}`, `{"$ref":"more"}`, `{"properties":{"note":{"x-not-secret":true}}}`, "{", ""},
	"schemas/more.schema.json":                                   {"", `{"required":["port"]}`, `{"type":"array"}`},
	"services/checkout/service.yaml":                             {"owner: t\nschemas: {config/http: http}\n", "owner: t\nschemas: {'config/*': none}\n", "owner: t\n"},
	"services/checkout/config/http.yaml":                         {"timeout: 30\nport: 8080\n", "timeout: 1.50\n", "note: AKIAIOSFODNN7EXAMPLE\n", "a: {b: null}\n", "a: [{b: null}]\n", ""},
	"services/checkout/config/log.json":                          {"", `{"level":"debug"}`, `{"level":`},
	"services/checkout/flags/flags.yaml":                         {"flags: {new-cart: {state: ENABLED, variants: {on: 1}, defaultVariant: on}}\n", "flags: {b: {state: ENABLED, variants: {on: 1}, targeting: {$ref: e}}}\n", "flags: {b: null}\n", ""},
	"services/checkout/flags/b.yaml":                             {"", "flags: {new-cart: {state: DISABLED, variants: {off: 2}}}\n", "# empty\n{}\n"},
	"services/checkout/overlays/prod/config/http.yaml":           {"timeout: 10\n", "timeout: null\nport: 2\n", ""},
	"services/checkout/overlays/prod/eu-west-1/flags/flags.yaml": {"flags: {new-cart: {defaultVariant: null}}\n", "flags: {new-cart: null}\n", ""},
	"services/checkout/safe-modes/degraded/config/http.yaml":     {"timeout: 1\n", "", "timeout: 1e3\n"},
}

// TestABuilderForgetsNothingThatMatters: whatever a builder has read and built
// before, what it says of a commit is what a new builder says.
func TestABuilderForgetsNothingThatMatters(t *testing.T) {
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 1))
		repo := gittest.New(t)
		files := shop()
		long := bundler.New(bundler.NewRepo(repo))
		for step := range 40 {
			path := slices.Sorted(maps.Keys(said))[rng.IntN(len(said))]
			text := said[path][rng.IntN(len(said[path]))]
			var commit string
			commit, files = gittest.Next(t, repo, files, map[string]string{path: text})
			if got, want := everything(t, long, commit), everything(t, bundler.New(bundler.NewRepo(repo)), commit); got != want {
				t.Fatalf("seed %d, step %d, after %q in %s:\n%s\na new builder:\n%s", seed, step, text, path, got, want)
			}
		}
	}
}

// Two files with the same text are not one: each fault has its own place.
func TestTheSameTextInTwoFilesIsTwoFaults(t *testing.T) {
	b, commit := open(t, gittest.With(shop(), map[string]string{
		"services/checkout/service.yaml":    "owner: t\nschemas: {'config/*': none}\n",
		"services/checkout/config/one.yaml": "a: null\n", "services/checkout/config/two.yaml": "a: null\n",
	}))
	_, faults := b.BuildAll(t.Context(), commit, bundler.BuildFilter{Service: "checkout", Scope: "prod"})
	for _, want := range []string{"config/one.yaml", "config/two.yaml"} {
		if !slices.ContainsFunc(faults, func(f bundler.Fault) bool { return strings.HasSuffix(f.File, want) }) {
			t.Errorf("no fault of %s: %v", want, faults)
		}
	}
}

// A document that is remembered as right by its schema keeps what the schema
// says is no secret.
func TestNoSecretIsRemembered(t *testing.T) {
	repo := gittest.New(t)
	b := bundler.New(bundler.NewRepo(repo))
	files := gittest.With(shop(), map[string]string{
		"schemas/http.schema.json": `{"properties":{"note":{"x-not-secret":true}}}`,
		http:                       "note: AKIAIOSFODNN7EXAMPLE\n",
	})
	for _, level := range []string{"info", "warn", "debug"} {
		commit, next := gittest.Next(t, repo, files, map[string]string{"common/config/log.yaml": "level: " + level + "\n"})
		if files = next; everything(t, b, commit) != everything(t, bundler.New(bundler.NewRepo(repo)), commit) {
			t.Errorf("with level %s: %s", level, everything(t, b, commit))
		}
	}
}
