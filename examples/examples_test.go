package examples_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/flags"
)

// commit makes a Git repository of a folder and returns it with its commit.
func commit(t *testing.T, tree fs.FS) (*bundler.Builder, string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, tree); err != nil {
		t.Fatal(err)
	}
	repo, err := git.PlainInit(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	work, err := repo.Worktree()
	if err != nil {
		t.Fatal(err)
	}
	if err := work.AddWithOptions(&git.AddOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	who := &object.Signature{Name: "a", Email: "a@example.org", When: time.Unix(1e9, 0)}
	h, err := work.Commit("first", &git.CommitOptions{Author: who})
	if err != nil {
		t.Fatal(err)
	}
	return bundler.New(bundler.NewRepo(repo)), h.String()
}

func build(t *testing.T, b *bundler.Builder, commit string) []*bundler.Built {
	t.Helper()
	built, faults := b.BuildAll(t.Context(), commit, bundler.BuildFilter{})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	return built
}

func TestEveryExampleIsFaultless(t *testing.T) {
	for name, tree := range map[string]fs.FS{
		"shop": examples.Shop(), "starter": examples.Starter(), "flagd-suite": os.DirFS("flagd-suite"),
	} {
		t.Run(name, func(t *testing.T) {
			b, c := commit(t, tree)
			report, err := b.Check(t.Context(), c, bundler.CheckOptions{Strict: name != "flagd-suite"})
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range report.Faults {
				if f.Severity == bundler.Error {
					t.Error(f)
				}
			}
			if len(build(t, b, c)) == 0 {
				t.Error("nothing is built")
			}
		})
	}
}

// entry finds the bundle of a target in a mode.
func entry(t *testing.T, built []*bundler.Built, service string, scope api.Scope, mode api.Mode) map[string]json.RawMessage {
	t.Helper()
	for _, set := range built {
		if set.Service != service || !set.Scope.Contains(scope) {
			continue
		}
		for _, e := range set.Entries {
			if e.Scope == scope && e.Mode == mode {
				return contents(t, set, e.Digest)
			}
		}
	}
	t.Fatalf("no bundle of %s at %s in mode %s", service, scope, mode)
	return nil
}

func contents(t *testing.T, set *bundler.Built, name api.Digest) map[string]json.RawMessage {
	t.Helper()
	var m struct {
		Layers []struct {
			Digest      api.Digest
			Annotations map[string]string
		}
	}
	b := set.Bundles[name]
	if err := json.Unmarshal(b.Manifest, &m); err != nil {
		t.Fatal(err)
	}
	files := map[string]json.RawMessage{}
	for _, l := range m.Layers {
		files[l.Annotations["org.opencontainers.image.title"]] = b.Blobs[l.Digest]
	}
	return files
}

func TestShopHasEverySafeModeInEveryRegion(t *testing.T) {
	b, c := commit(t, examples.Shop())
	built := build(t, b, c)
	modes := map[string]api.Mode{"checkout": "degraded", "catalog": "catalog-static", "payments": "read-only"}
	for service, mode := range modes {
		for _, scope := range []api.Scope{"staging", "prod", "prod/eu-west-1", "prod/us-east-1"} {
			normal, safe := entry(t, built, service, scope, api.ModeNormal), entry(t, built, service, scope, mode)
			if maps.EqualFunc(normal, safe, func(a, b json.RawMessage) bool { return string(a) == string(b) }) {
				t.Errorf("%s at %s: %s changes nothing", service, scope, mode)
			}
		}
	}
	if got := string(entry(t, built, "checkout", "prod/us-east-1", "degraded")["config/limits.json"]); got !=
		`{"cart":{"maxItems":100,"maxTotalCents":2000000},"countries":["US"],"currency":"USD","requests":{"burst":300,"perSecond":300}}` {
		t.Errorf("layers don't meet as the example says: %s", got)
	}
}

// TestRecordedContexts holds every flag of the shop to what its file promises:
// it evaluates without an error, and each is asked for at least once.
func TestRecordedContexts(t *testing.T) {
	b, c := commit(t, examples.Shop())
	built := build(t, b, c)
	for _, service := range []string{"checkout", "catalog", "payments"} {
		set, err := flags.Compile(entry(t, built, service, "prod", api.ModeNormal)[`flags.json`])
		if err != nil {
			t.Fatal(err)
		}
		asked := map[string]bool{"maintenance-banner": true, "recommendations-in-cart": true}
		for _, q := range recorded(t, service) {
			asked[q.Flag] = true
			r := set.Evaluate(q.Flag, q.Context, time.Unix(1e9, 0))
			if r.ErrorCode != "" || r.Variant == "" {
				t.Errorf("%s %v: %+v", q.Flag, q.Context, r)
			}
		}
		for _, key := range set.Keys() {
			if !asked[key] {
				t.Errorf("%s: no recorded context asks for %s", service, key)
			}
		}
	}
}

type question struct {
	Flag    string
	Type    string
	Context flags.Context
}

func recorded(t *testing.T, service string) []question {
	t.Helper()
	f, err := examples.Shop().Open("tests/contexts/" + service + ".jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []question
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var q question
		if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
			t.Fatal(err)
		}
		out = append(out, q)
	}
	return out
}

func TestFlagdExampleBuildsAndEvaluates(t *testing.T) {
	b, c := commit(t, os.DirFS("flagd-suite"))
	set, err := flags.Compile(entry(t, build(t, b, c), "flagd", "staging", api.ModeNormal)[`flags.json`])
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"fibAlgo", "headerColor", "isColorYellow", "myBoolFlag", "myFloatFlag", "myIntFlag", "myObjectFlag", "myStringFlag"}; !slices.Equal(set.Keys(), want) {
		t.Errorf("flags %v", set.Keys())
	}
	for _, q := range []struct {
		flag    string
		context flags.Context
		want    string
	}{
		{"myBoolFlag", nil, "on true STATIC"},
		{"myStringFlag", nil, "key1 val1 STATIC"},
		{"myFloatFlag", nil, "one 1.23 STATIC"},
		{"myIntFlag", nil, "one 1 STATIC"},
		{"myObjectFlag", nil, "object1 map[key:val] STATIC"},
		{"isColorYellow", flags.Context{"color": "yellow"}, "on true TARGETING_MATCH"},
		{"isColorYellow", flags.Context{"color": "red"}, "off false TARGETING_MATCH"},
		{"fibAlgo", flags.Context{"email": "user@faas.com"}, "binet binet TARGETING_MATCH"},
		{"fibAlgo", flags.Context{"email": "user@example.com"}, "recursive recursive DEFAULT"},
		{"fibAlgo", nil, "recursive recursive DEFAULT"},
		{"headerColor", flags.Context{"email": "user@example.com"}, "red #FF0000 DEFAULT"},
	} {
		r := set.Evaluate(q.flag, q.context, time.Unix(1e9, 0))
		if got := fmt.Sprint(r.Variant, " ", r.Value, " ", r.Reason); got != q.want {
			t.Errorf("%s %v: %s, want %s", q.flag, q.context, got, q.want)
		}
	}
	colours := map[string]int{}
	for i := range 4000 {
		r := set.Evaluate("headerColor", flags.Context{"email": fmt.Sprintf("user%d@faas.com", i)}, time.Unix(1e9, 0))
		colours[r.Variant]++
	}
	for _, name := range []string{"red", "blue", "green", "yellow"} {
		if n := colours[name]; n < 900 || n > 1100 {
			t.Errorf("%s gets %d of 4000", name, n)
		}
	}
}

func TestFlagdExampleIsUnchanged(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("flagd-suite", "services", "flagd", "flags", "example.flagd.json"))
	if err != nil {
		t.Fatal(err)
	}
	if got := api.DigestOf(b); got != "sha256:ba1f337dfb6b96d5109f375e25b24c85afbb2776261137cbf059f99ddb673373" {
		t.Errorf("the file was edited: %s", got)
	}
}

// A report that the server refuses fails, and says why.
func TestReportScriptSaysWhyItIsRefused(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is needed")
	}
	refuse := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `{"detail": "member sealstone.bundle.digest is sha256: and 64 hex digits"}`, http.StatusBadRequest)
	})
	srv := httptest.NewServer(refuse)
	defer srv.Close()
	cmd := exec.CommandContext(t.Context(), "sh", "observability/report.sh")
	cmd.Env = append(os.Environ(), "SERVER="+srv.URL, "TARGET=checkout@prod", "BUNDLE=sha256:...", "ONCE=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "64 hex digits") {
		t.Errorf("%v: %s", err, out)
	}
}
