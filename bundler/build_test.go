package bundler_test

import (
	"context"
	"strings"
	"testing"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/gittest"
)

// shop is a small repository without a fault or a warning.
func shop() map[string]string {
	return map[string]string{
		"sealstone.yaml": "version: 1\nlevels: [env, region, pool]\nscopes: [staging, prod, prod/eu-west-1, prod/us-east-1/*]\n",
		"schemas/http.schema.json": `{"type":"object","required":["timeout","port"],"properties":{"timeout":{"type":"integer"},"port":{"type":"integer"},
"note":{"type":"string"},"hosts":{"type":"array","items":{"type":"string"}}},"additionalProperties":false}`,
		"common/service.yaml":                "schemas: {\"config/log\": none}\n",
		"common/config/log.yaml":             "level: info\n",
		"services/checkout/service.yaml":     "owner: team-pay\nschemas:\n  config/http: http\n",
		"services/checkout/config/http.yaml": "timeout: 30\nport: 8080\nhosts: [a, b]\n",
		"services/checkout/flags/flags.yaml": `flags:
  new-cart:
    state: ENABLED
    variants: {on: true, off: false}
    defaultVariant: off
`,
		"services/checkout/overlays/prod/config/http.yaml":           "timeout: 10\n",
		"services/checkout/overlays/prod/eu-west-1/flags/flags.yaml": "flags:\n  new-cart: {defaultVariant: on}\n",
		"services/checkout/safe-modes/degraded/safe-mode.yaml":       "description: less\nowner: team-pay\nttl: 2h\n",
		"services/checkout/safe-modes/degraded/config/http.yaml":     "timeout: 1\n",
		"activations/checkout.yaml":                                  "service: checkout\nactivations:\n  - scope: staging\n    release: latest\n  - scope: prod\n    release: latest\n",
	}
}

func open(t *testing.T, files map[string]string) (*bundler.Builder, string) {
	t.Helper()
	repo := gittest.New(t)
	commit := gittest.Commit(t, repo, files)
	return bundler.New(bundler.NewRepo(repo)), commit
}

func TestAGoodRepositoryHasNoFault(t *testing.T) {
	b, commit := open(t, shop())
	rep, err := b.Check(context.Background(), commit, bundler.CheckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Faults) > 0 {
		t.Error(rep.Faults)
	}
}

func TestBuildResolvesEveryLayer(t *testing.T) {
	ctx := context.Background()
	b, commit := open(t, shop())
	tip, faults := b.Tip(ctx, commit)
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	built := map[api.Scope]*bundler.Built{}
	for _, a := range tip.Activations {
		one, err := b.Build(ctx, tip, a)
		if err != nil {
			t.Fatal(err)
		}
		built[a.Scope] = one
	}
	for _, c := range []struct {
		scope api.Scope
		mode  api.Mode
		title string
		want  string
	}{
		{"staging", "normal", "config/http.json", `{"hosts":["a","b"],"port":8080,"timeout":30}`},
		{"staging", "normal", "config/log.json", `{"level":"info"}`},
		{"staging", "degraded", "config/http.json", `{"hosts":["a","b"],"port":8080,"timeout":1}`},
		{"prod", "normal", "config/http.json", `{"hosts":["a","b"],"port":8080,"timeout":10}`},
		{"prod/eu-west-1", "normal", "flags.json", `{"flags":{"new-cart":{"defaultVariant":"on","state":"ENABLED","variants":{"off":false,"on":true}}}}`},
		{"prod", "normal", "flags.json", `{"flags":{"new-cart":{"defaultVariant":"off","state":"ENABLED","variants":{"off":false,"on":true}}}}`},
	} {
		got := fileOf(t, built[c.scope.Path()[0]], c.scope, c.mode, c.title)
		if got != c.want {
			t.Errorf("%s %s %s: %s, want %s", c.scope, c.mode, c.title, got, c.want)
		}
	}
}

// fileOf opens a bundle out of a set the way a client does.
func fileOf(t *testing.T, b *bundler.Built, scope api.Scope, mode api.Mode, title string) string {
	t.Helper()
	objects := map[api.Digest][]byte{}
	for d, raw := range b.Objects() {
		objects[d] = raw
	}
	set, err := bundle.ParseSet(objects[b.Digest])
	if err != nil {
		t.Fatal(err)
	}
	e, ok := set.Find(scope, mode)
	if !ok {
		t.Fatalf("no bundle for %s in mode %s", scope, mode)
	}
	c, err := bundle.Open(e.Digest, objects[e.Digest], b.Service, mode, func(d api.Digest) ([]byte, error) { return objects[d], nil })
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(c.Files[title]))
}
