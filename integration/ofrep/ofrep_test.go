package ofrep

import (
	"context"
	"testing"

	provider "github.com/open-feature/go-sdk-contrib/providers/ofrep"
	"github.com/open-feature/go-sdk/openfeature"

	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/integration/proctest"
)

func TestMain(m *testing.M) { proctest.Main(m) }

const (
	checkoutFlags = "services/checkout/flags/checkout.yaml"
	moreFlags     = "services/checkout/flags/more.yaml"
)

// more has what the shop lacks: keys with slashes, a disabled flag, a choice
// left to the code, an object, fractions.
const more = `flags:
  team/code-default: {state: ENABLED, variants: {a: "a"}}
  team/disabled: {state: DISABLED, variants: {on: true, off: false}, defaultVariant: off}
  team/layout: {state: ENABLED, variants: {two: {columns: 2, parts: [a, b]}}, defaultVariant: two}
  team/ratio: {state: ENABLED, variants: {half: 0.5}, defaultVariant: half}
`

func serve(t *testing.T) (*proctest.Rig, *proctest.Server) {
	t.Helper()
	r := proctest.New(t, examples.Shop())
	r.Write(moreFlags, more)
	r.Push("More flags")
	s := r.Serve()
	s.UntilTip(r.Git("rev-parse", "HEAD"))
	return r, s
}

// One server is enough for all: the later tests change what it serves.
func TestWebProvider(t *testing.T) {
	dir := installWeb(t)
	r, s := serve(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, string, *proctest.Rig, *proctest.Server)
	}{
		{"reads its flags", webReadsItsFlags},
		{"is told that nothing changed", webIsToldNothingChanged},
		{"is told of changes", webIsToldOfChanges},
		{"finds its way back after a restart", webFindsItsWayBack},
	} {
		if !t.Run(test.name, func(t *testing.T) { test.run(t, dir, r, s) }) {
			return
		}
	}
}

func TestGoProvider(t *testing.T) {
	r, s := serve(t)
	err := openfeature.SetNamedProviderAndWait("go", provider.NewProvider(s.URL, provider.WithHeader("Sealstone-Target", "checkout@prod")))
	if err != nil {
		t.Fatal(err)
	}
	c := openfeature.NewClient("go")
	goReadsEveryType(t, c)
	goReadsFailures(t, c)
	goReadsPaths(t, s.URL)

	r.Edit(checkoutFlags, `(?s)(express-checkout:.*?defaultVariant: )off`, "${1}on")
	s.UntilTip(r.Push("Express checkout for all"))
	if d, err := c.BooleanValueDetails(t.Context(), "express-checkout", false, user("FR")); err != nil || !d.Value {
		t.Errorf("after a push: %+v, %v", d, err)
	}
}

func user(country string) openfeature.EvaluationContext {
	return openfeature.NewEvaluationContext("user-1", map[string]any{"country": country, "age": 37, "tags": []string{"a"}})
}

func goReadsEveryType(t *testing.T, c *openfeature.Client) {
	t.Helper()
	ctx := t.Context()
	b, err := c.BooleanValueDetails(ctx, "express-checkout", true, user("FR"))
	if err != nil || b.Value || b.Variant != "off" || b.Reason != openfeature.StaticReason {
		t.Errorf("boolean: %+v, %v", b, err)
	}
	md := b.FlagMetadata
	if md["flagSetId"] != "checkout" || md["mode"] != "normal" || md["headAge"] != 0.0 || md["owner"] != "team-checkout" {
		t.Errorf("metadata %v", md)
	}
	if v, err := c.StringValue(ctx, "checkout-flow", "", user("FR")); err != nil || v != "classic" {
		t.Errorf("string: %q, %v", v, err)
	}
	if v, err := c.IntValue(ctx, "free-shipping-from-cents", 0, user("DE")); err != nil || v != 2500 {
		t.Errorf("int: %d, %v", v, err)
	}
	if v, err := c.FloatValue(ctx, "team/ratio", 0, user("DE")); err != nil || v != 0.5 {
		t.Errorf("float: %v, %v", v, err)
	}
	if v, err := c.ObjectValue(ctx, "team/layout", nil, user("DE")); err != nil || v.(map[string]any)["columns"] != 2.0 {
		t.Errorf("object: %v, %v", v, err)
	}
	if v, err := c.BooleanValueDetails(ctx, "team/disabled", true, user("DE")); err != nil || !v.Value || v.Reason != openfeature.DisabledReason {
		t.Errorf("disabled: %+v, %v", v, err)
	}
}

// goReadsFailures also holds what the provider makes of a choice left to the
// code: a mismatch, as it knows a missing value only from disabled flags.
func goReadsFailures(t *testing.T, c *openfeature.Client) {
	t.Helper()
	for key, want := range map[string]openfeature.ErrorCode{
		"nope": openfeature.FlagNotFoundCode, "team/nope?": openfeature.FlagNotFoundCode,
		"checkout-flow": openfeature.TypeMismatchCode, "team/code-default": openfeature.TypeMismatchCode,
	} {
		d, err := c.BooleanValueDetails(context.Background(), key, true, user("FR"))
		if err == nil || !d.Value || d.ErrorCode != want {
			t.Errorf("%s: %+v, %v; want %s", key, d, err, want)
		}
	}
}

// goReadsPaths names the target in the address instead.
func goReadsPaths(t *testing.T, url string) {
	t.Helper()
	err := openfeature.SetNamedProviderAndWait("path", provider.NewProvider(url+base))
	if err != nil {
		t.Fatal(err)
	}
	c := openfeature.NewClient("path")
	if v, err := c.BooleanValue(t.Context(), "express-checkout", true, user("FR")); err != nil || v {
		t.Errorf("by path: %v, %v", v, err)
	}
	openfeature.Shutdown()
}
