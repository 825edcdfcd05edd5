package bundler_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/crypto/ssh"

	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/gittest"
)

func pinned(scope, release, expect string) string {
	s := "service: checkout\nactivations:\n  - scope: staging\n    release: latest\n  - scope: " + scope + "\n    release: " + release + "\n"
	if expect != "" {
		s += "    expect: " + expect + "\n"
	}
	return s
}

func check(t *testing.T, b *bundler.Builder, commit string) bundler.Faults {
	t.Helper()
	rep, err := b.Check(context.Background(), commit, bundler.CheckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return rep.Faults
}

func wantSpots(t *testing.T, got bundler.Faults, want ...string) {
	t.Helper()
	if s := spots(got); !slices.Equal(s, sorted(want)) {
		t.Errorf("faults %q, want %q\n%v", s, sorted(want), got)
	}
}

func TestPins(t *testing.T) {
	ctx := context.Background()
	repo := gittest.New(t)
	b := bundler.New(bundler.NewRepo(repo))
	files := shop()
	first := gittest.Commit(t, repo, files)
	tip, _ := b.Tip(ctx, first)
	built, err := b.Build(ctx, tip, tip.Activations[0])
	if err != nil {
		t.Fatal(err)
	}
	if built.Scope != "prod" {
		t.Fatal("activations are not sorted by scope")
	}

	t.Run("right", func(t *testing.T) {
		c, _ := gittest.Next(t, repo, files, map[string]string{act: pinned("prod", first, string(built.Digest)), http: "timeout: 31\nport: 1\n"})
		wantSpots(t, check(t, b, c))
		tip, _ := b.Tip(ctx, c)
		again, err := b.Build(ctx, tip, tip.Activations[0])
		if err != nil || again.Digest != built.Digest || again.Commit != first {
			t.Errorf("%v %v, want %v", again, err, built)
		}
	})
	t.Run("expects another set", func(t *testing.T) {
		c, _ := gittest.Next(t, repo, files, map[string]string{act: pinned("prod", first, "sha256:"+strings.Repeat("0", 64))})
		wantSpots(t, check(t, b, c), act+":5:5 E_EXPECT")
	})
	t.Run("names a commit of another branch", func(t *testing.T) {
		side := gittest.CommitOn(t, repo, files, plumbing.NewHash(first))
		c, _ := gittest.Next(t, repo, files, map[string]string{act: pinned("prod", side.String(), "")})
		wantSpots(t, check(t, b, c), act+":5:5 E_RELEASE_UNREACHABLE")
	})
	t.Run("names a release without the service", func(t *testing.T) {
		bare, _ := gittest.Next(t, repo, map[string]string{"sealstone.yaml": files["sealstone.yaml"], act: files[act]}, nil)
		c, _ := gittest.Next(t, repo, files, map[string]string{act: pinned("prod", bare, "")})
		wantSpots(t, check(t, b, c), act+":5:5 E_SERVICE_UNKNOWN")
	})
	t.Run("names a faulty release", func(t *testing.T) {
		bad, _ := gittest.Next(t, repo, files, map[string]string{http: "timeout: 1\nport: x\n"})
		c, _ := gittest.Next(t, repo, files, map[string]string{act: pinned("prod", bad, "")})
		wantSpots(t, check(t, b, c), act+":5:5 E_SCHEMA")
	})
	t.Run("may lie in a release whose overlays are unlisted by now", func(t *testing.T) {
		old, _ := gittest.Next(t, repo, files, nil)
		narrow := "version: 1\nlevels: [env, region, pool]\nscopes: [staging, prod]\n"
		c, _ := gittest.Next(t, repo, files, map[string]string{
			"sealstone.yaml": narrow, act: pinned("prod", old, ""), "services/checkout/overlays/prod/eu-west-1/flags/flags.yaml": "",
		})
		wantSpots(t, check(t, b, c))
	})
}

func TestAVanishedActivationFileIsAFault(t *testing.T) {
	repo := gittest.New(t)
	b := bundler.New(bundler.NewRepo(repo))
	files := shop()
	gittest.Commit(t, repo, files)
	c, gone := gittest.Next(t, repo, files, map[string]string{act: ""})
	faults := check(t, b, c).Errors()
	wantSpots(t, faults, act+":0:0 E_ACTIVATION_GONE")
	if faults[0].Service != "checkout" {
		t.Error("the fault names no service")
	}
	c, retired := gittest.Next(t, repo, gone, map[string]string{act: "service: checkout\nretired: true\n"})
	wantSpots(t, check(t, b, c).Errors())
	c, _ = gittest.Next(t, repo, retired, map[string]string{act: ""})
	wantSpots(t, check(t, b, c).Errors())
}

func TestLevelsAreComparedWithTheFirstParent(t *testing.T) {
	for levels, want := range map[string][]string{
		"[env, region, pool, host]": nil,
		"[env, region]":             {"sealstone.yaml:0:0 E_LEVELS"},
		"[env, site, pool]":         {"sealstone.yaml:2:15 E_LEVELS"},
		"[tier, env, region, pool]": {"sealstone.yaml:2:10 E_LEVELS"},
	} {
		repo := gittest.New(t)
		files := shop()
		gittest.Commit(t, repo, files)
		layout := "version: 1\nlevels: " + levels + "\nscopes: [staging, prod, prod/eu-west-1]\n"
		c, _ := gittest.Next(t, repo, files, map[string]string{"sealstone.yaml": layout})
		wantSpots(t, check(t, bundler.New(bundler.NewRepo(repo)), c), want...)
	}
}

func TestCheckJudgesSignaturesByTheCommitsOwnOperators(t *testing.T) {
	private := ed25519.NewKeyFromSeed(make([]byte, 32))
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	ops := operators(strings.TrimSpace(string(ssh.MarshalAuthorizedKey(public))))
	repo := gittest.New(t)
	b := bundler.New(bundler.NewRepo(repo))
	plain := shop()["sealstone.yaml"]
	files := gittest.With(shop(), map[string]string{"operators.yaml": ops, "operators.sig": signature(ops), "sealstone.yaml": plain + "source: {require_signed: true}\n"})
	unsigned := gittest.Commit(t, repo, files)
	wantSpots(t, check(t, b, unsigned), "sealstone.yaml:4:10 E_UNSIGNED")
	wantSpots(t, check(t, b, gittest.Sign(t, repo, private)))

	c, _ := gittest.Next(t, repo, files, map[string]string{"sealstone.yaml": plain})
	wantSpots(t, check(t, b, c), "sealstone.yaml:0:0 E_UNSIGNED") // its parent asked for a signature
	signed := gittest.Sign(t, repo, private)
	wantSpots(t, check(t, b, signed))

	_, files = gittest.Next(t, repo, files, map[string]string{act: pinned("prod", signed, "")})
	gittest.Sign(t, repo, private)
	side, _ := gittest.Next(t, repo, files, map[string]string{http: "timeout: 31\nport: 1\n"})
	gittest.Next(t, repo, files, map[string]string{act: pinned("prod", side, "")})
	wantSpots(t, check(t, b, gittest.Sign(t, repo, private)), act+":5:5 E_UNSIGNED")
	gittest.Next(t, repo, files, map[string]string{act: pinned("prod", side, ""), "README.md": "x"})
	wantSpots(t, check(t, b, gittest.Sign(t, repo, private))) // the parent had the pin
}

func TestOneBadServiceStopsNoOther(t *testing.T) {
	ctx := context.Background()
	files := gittest.With(shop(), map[string]string{
		"services/cart/service.yaml":  "owner: x\n",
		"services/cart/flags/f.yaml":  "flags: {a: yes}\n",
		"activations/cart.yaml":       "service: cart\nactivations:\n  - {scope: staging, release: latest}\n",
		"activations/stock.yaml":      "service: stock\nactivations: {}\n",
		"services/stock/service.yaml": "owner: x\n",
	})
	b, commit := open(t, files)
	built, faults := b.BuildAll(ctx, commit, bundler.BuildFilter{})
	if len(built) != 2 || built[0].Service != "checkout" {
		t.Errorf("built %v", built)
	}
	wantSpots(t, faults, "services/cart/flags/f.yaml:1:9 E_FLAG", "activations/stock.yaml:2:1 E_FILE_FORMAT")
	for _, f := range faults {
		if f.Service != "cart" && f.Service != "stock" {
			t.Errorf("fault of service %q: %s", f.Service, f)
		}
	}
}

func TestBuildFilters(t *testing.T) {
	ctx := context.Background()
	b, commit := open(t, shop())
	built, faults := b.BuildAll(ctx, commit, bundler.BuildFilter{Service: "checkout", Scope: "prod/eu-west-1"})
	if len(faults) > 0 || len(built) != 1 || built[0].Scope != "prod/eu-west-1" || len(built[0].Entries) != 2 {
		t.Errorf("%v %v", built, faults)
	}
	built, _ = b.BuildAll(ctx, commit, bundler.BuildFilter{Mode: "degraded"})
	if len(built) != 2 || len(built[0].Entries) != 2 || built[0].Entries[0].Mode != "degraded" {
		t.Errorf("%v", built)
	}
	if built, _ = b.BuildAll(ctx, commit, bundler.BuildFilter{Service: "none"}); len(built) != 0 {
		t.Errorf("%v", built)
	}
}

func TestLimits(t *testing.T) {
	many := map[string]string{}
	for i := range 10_001 {
		many[fmt.Sprintf("services/checkout/config/d%05d.yaml", i)] = "a: 1\n"
	}
	big := map[string]string{meta: "owner: x\nschemas: {config/http: http, 'config/d*': none}\n"}
	for i := range 18 {
		big[fmt.Sprintf("services/checkout/config/d%02d.yaml", i)] = "a: " + strings.Repeat("x", 1<<20-100) + "\n"
	}
	half := strings.Repeat("y", 600<<10)
	grown := map[string]string{
		meta: "owner: x\nschemas: {config/http: http, config/d: none}\n", "services/checkout/config/d.yaml": "a: " + half + "\n",
		"services/checkout/overlays/prod/config/d.yaml": "b: " + half + "\n",
	}
	modes := map[string]string{}
	for i := range 9000 {
		modes[fmt.Sprintf("services/checkout/safe-modes/m%d/safe-mode.yaml", i)] = "description: x\nowner: y\n"
	}
	list := func(values int) string { return "a: [" + strings.Repeat("1,", values) + "1]\n" }
	copies := func(n int, format, text string) map[string]string {
		files := map[string]string{meta: "owner: x\nschemas: {config/http: http, 'config/d*': none}\n"}
		for i := range n {
			files[fmt.Sprintf(format, i)] = text
		}
		return files
	}
	sets := copies(14, "services/checkout/config/d%d.yaml", "a: "+strings.Repeat("x", 1<<20-100)+"\n")
	for m := range 9 { // each changes every document a little
		sets[fmt.Sprintf("services/checkout/safe-modes/m%d/safe-mode.yaml", m)] = "description: x\nowner: y\n"
		for i := range 14 {
			sets[fmt.Sprintf("services/checkout/safe-modes/m%d/config/d%d.yaml", m, i)] = fmt.Sprintf("m: %d\n", m)
		}
	}
	for name, c := range map[string]struct {
		change map[string]string
		want   string // rule, and how the message begins
	}{
		"files":               {many, "E_LIMIT_FILES "},
		"bundle":              {big, "E_LIMIT_BUNDLE "},
		"document":            {grown, "E_LIMIT_DOCUMENT "},
		"set":                 {modes, "E_LIMIT_SET "},
		"bytes of a set":      {sets, "E_LIMIT_SET the set has more than"},
		"values of a file":    {copies(1, "services/checkout/config/d%d.yaml", list(1<<17)), "E_LIMIT_VALUES the file has up to"},
		"values of a service": {copies(6, "services/checkout/config/d%d.yaml", list(100_000)), "E_LIMIT_VALUES more than 524288 values"},
		"bytes of a service":  {copies(65, "services/checkout/config/d%d.yaml", "a: "+strings.Repeat("x", 1<<20-5)+"\n"), "E_LIMIT_VALUES more than 524288 values or 67108864 bytes"},
		"bytes of schemas":    {copies(33, "schemas/d%d.schema.json", "{}"+strings.Repeat(" ", 1<<20-2)), "E_LIMIT_VALUES its files have more than"},
	} {
		t.Run(name, func(t *testing.T) {
			b, commit := open(t, gittest.With(shop(), c.change))
			faults := check(t, b, commit)
			if !slices.ContainsFunc(faults, func(f bundler.Fault) bool { return strings.HasPrefix(f.Rule+" "+f.Message, c.want) }) {
				t.Errorf("no %s in %d faults, first %v", c.want, len(faults), faults[:min(3, len(faults))])
			}
		})
	}
}

// A safe mode at prod lists what all activations below it have: those of other
// releases, too. What only a promotion would make is a fault of the service.
func TestWhatSafeModesListIsBounded(t *testing.T) {
	pools := func(name string, n int) map[string]string {
		files := map[string]string{}
		for i := range n {
			files[fmt.Sprintf("services/checkout/overlays/prod/us-east-1/%s%d/config/http.yaml", name, i)] = fmt.Sprintf("timeout: %d\n", i+100)
		}
		return files
	}
	const both = "  - scope: prod/us-east-1\n    release: latest\n"
	for name, c := range map[string]struct {
		pinned, latest int
		more           string // activations
		want           []string
	}{
		"within it":                 {150, 150, both, nil},
		"two releases":              {250, 250, both, []string{act + ":0:0 E_LIMIT_SAFE_MODE"}},
		"a promotion would be":      {250, 500, "", []string{"services/checkout:0:0 E_LIMIT_SAFE_MODE"}},
		"the release is, of a pin":  {500, 10, "", []string{act + ":0:0 E_LIMIT_SAFE_MODE"}},
		"each release alone is not": {250, 250, "", nil},
	} {
		t.Run(name, func(t *testing.T) {
			repo := gittest.New(t)
			first := gittest.Commit(t, repo, gittest.With(shop(), pools("a", c.pinned)))
			commit := gittest.Commit(t, repo, gittest.With(gittest.With(shop(), pools("b", c.latest)), map[string]string{act: pinned("prod", first, "") + c.more}))
			b := bundler.New(bundler.NewRepo(repo))
			wantSpots(t, check(t, b, commit).Errors(), c.want...)
			rebuilt, err := b.Rebuild(t.Context(), first, "checkout", "prod")
			if err != nil {
				t.Fatal(err)
			}
			if _, wide := bundler.SafeModesTooWide("checkout", []*bundler.Built{rebuilt}); wide != (c.pinned == 500) {
				t.Errorf("the first release alone is too wide: %v", wide)
			}
		})
	}
}

func TestAMissingObjectIsAFault(t *testing.T) {
	repo := gittest.New(t)
	commit := gittest.Commit(t, repo, shop())
	h := gittest.Blob(t, repo.Storer, shop()[http])
	delete(memoryOf(t, repo).Blobs, h)
	delete(memoryOf(t, repo).Objects, h)
	faults := check(t, bundler.New(bundler.NewRepo(repo)), commit)
	wantSpots(t, faults, http+":0:0 E_GIT_OBJECT")
}

func TestReportsAreBounded(t *testing.T) {
	files := shop()
	var doc strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&doc, "k%d: yes\n", i)
	}
	b, commit := open(t, gittest.With(files, map[string]string{free: doc.String()}))
	faults := check(t, b, commit)
	if n := len(faults); n > 2001 || !slices.ContainsFunc(faults, func(f bundler.Fault) bool { return f.Rule == "E_TOO_MANY_FAULTS" }) {
		t.Errorf("%d faults", n)
	}
}

func TestLongValuesAreNeverQuoted(t *testing.T) {
	for _, long := range []string{strings.Repeat("s3cr3t", 20), strings.Repeat("s3 cr3t,", 20)} {
		neverQuoted(t, long)
	}
}

func neverQuoted(t *testing.T, long string) {
	t.Helper()
	broken := func(format string) string { return fmt.Sprintf(format, long) }
	files := gittest.With(shop(), map[string]string{
		"schemas/http.schema.json":               `{"properties":{"a":{"format":"email"},"b":{"enum":["x"]},"c":{"pattern":"^x$"},"d":{"const":1},"e":{"maxLength":3},"f":{"type":"integer"}},"additionalProperties":false}`,
		http:                                     fmt.Sprintf("a: %[1]s\nb: %[1]s\nc: %[1]s\nd: %[1]s\ne: %[1]s\nf: %[1]s\n%[1]s: 1\n", long),
		"services/checkout/flags/more.yaml":      fmt.Sprintf("flags:\n  a: {state: %[1]s, variants: {%[1]s: %[1]s}, defaultVariant: %[1]s, %[1]s: 1, targeting: {%[1]s: 1}}\n", long),
		"activations/other.yaml":                 fmt.Sprintf("service: %[1]s\nactivations: [{scope: %[1]s, release: %[1]s}]\n", long),
		"services/checkout/overlays/prod/x.yaml": long,
		"schemas/a.schema.json":                  broken(`{"type":%q}`),
		"schemas/b.schema.json":                  broken(`{"pattern":"(%s"}`),
		"schemas/c.schema.json":                  broken(`{"$ref":"#/$defs/%s"}`),
		"schemas/d.schema.json":                  broken(`{"$ref":"https://example.com/%s"}`),
		"schemas/e.schema.json":                  broken(`{"properties":{%q:1}}`),
		"schemas/f.schema.json":                  broken(`{"a":{%[1]q:1,%[1]q:2}}`),
		"schemas/g.schema.json":                  broken(`{"$schema":%q}`),
		"schemas/h.schema.json":                  broken(`{"required":{%q:1}}`),
		"schemas/i.schema.json":                  broken(`{"$id":"https://example.com/%s","$ref":"x"}`),
		"schemas/j.schema.json":                  broken(`{"a":1} %s`),
		"tests/contexts/checkout.jsonl":          fmt.Sprintf("{%[1]q:1,%[1]q:2}\n{%[1]q:1}\n{\"type\":%[1]q,\"context\":{}}\n{\"context\":%[1]q}\n", long),
		"sealstone.yaml":                         shop()["sealstone.yaml"] + "source: {require_signed: true}\n",
	})
	b, commit := open(t, files)
	faults := check(t, b, commit)
	if len(faults) < 20 {
		t.Errorf("%d faults", len(faults))
	}
	for _, f := range faults {
		if strings.Contains(f.Message+f.Fix, long[:65]) {
			t.Errorf("quotes a long value: %s", f)
		}
	}
}
