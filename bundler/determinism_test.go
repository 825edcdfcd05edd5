package bundler_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/gittest"
)

// repositoryVector is a config repository and all that it builds, for every
// implementation of contract 1. SEALSTONE_UPDATE=1 rewrites it, which is right
// only for a new contract.
type repositoryVector struct {
	Files   map[string]string     `json:"files"`
	Sets    map[string]api.Digest `json:"sets"`    // by target
	Objects map[api.Digest]string `json:"objects"` // sets, manifests and blobs, as text
}

// vectorFiles is a small repository with each part of a resolution.
func vectorFiles() map[string]string {
	return gittest.With(shop(), map[string]string{
		"common/flags/common.yaml":                            "flags:\n  maintenance:\n    state: DISABLED\n    variants: {on: true, off: false}\n    defaultVariant: off\n$evaluators:\n  staff:\n    ends_with: [{var: email}, \"@shop.example\"]\nmetadata: {owner: platform}\n",
		"common/overlays/prod/config/log.yaml":                "level: warn\n",
		"services/checkout/config/texts.json":                 `{"€": "Grüße 😂 \u0001", "\u20ac2": "\"\\/", "z": true, "a": {"ö": [], "": {}}}`,
		"services/checkout/config/numbers.json":               `{"big": 9007199254740991, "small": -9007199254740991, "tiny": 1e-7, "half": 0.5, "million": 1.0E6, "zero": -0.0, "long": 0.1234567890123456789}`,
		"services/checkout/overlays/prod/config/numbers.yaml": "tiny: null\n",
		"services/checkout/flags/rules.yaml":                  "flags:\n  one-page:\n    state: ENABLED\n    variants: {yes: 1, no: 0}\n    defaultVariant: no\n    targeting:\n      if: [{$ref: staff}, yes, {fractional: [[yes, 10], [no, 90]]}]\n",
		"services/checkout/overlays/prod/flags/rules.yaml":    "flags:\n  maintenance: null\n  one-page: {targeting: {}}\n",
		"services/checkout/service.yaml":                      "owner: team-pay\nschemas:\n  config/http: http\n  config/*: none\n",
	})
}

const repositoryGolden = "../bundle/testdata/contract-1/repository.json"

func digests(t *testing.T, b *bundler.Builder, commit string) map[string]api.Digest {
	t.Helper()
	built, faults := b.BuildAll(context.Background(), commit, bundler.BuildFilter{})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	out := map[string]api.Digest{}
	for _, one := range built {
		out[api.Target{Service: one.Service, Scope: one.Scope}.String()] = one.Digest
	}
	return out
}

func TestRepositoryVector(t *testing.T) {
	raw, err := os.ReadFile(repositoryGolden)
	if err != nil && os.Getenv("SEALSTONE_UPDATE") == "" {
		t.Fatal(err)
	}
	v := repositoryVector{vectorFiles(), map[string]api.Digest{}, map[api.Digest]string{}}
	b, commit := open(t, v.Files)
	built, faults := b.BuildAll(t.Context(), commit, bundler.BuildFilter{})
	if len(faults.Errors()) > 0 {
		t.Fatal(faults)
	}
	for _, one := range built {
		v.Sets[api.Target{Service: one.Service, Scope: one.Scope}.String()] = one.Digest
		for d, object := range one.Objects() {
			v.Objects[d] = string(object)
		}
	}
	got, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if os.Getenv("SEALSTONE_UPDATE") != "" {
		if err := os.WriteFile(repositoryGolden, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(raw, got) {
		t.Errorf("contract 1 builds otherwise than its vector; that is a new contract\n%s", got)
	}
}

// TestContentAloneDecides: history, spelling of the same values, order of keys
// and files' names and formats don't show in a digest; content does.
func TestContentAloneDecides(t *testing.T) {
	b, commit := open(t, shop())
	want := digests(t, b, commit)
	same := map[string]map[string]string{
		"after other commits": nil,
		"JSON for YAML":       {http: "", "services/checkout/config/http.json": `{"hosts": ["a", "b"], "port": 8.08e3, "timeout": 30}`},
		"another key order":   {http: "port: 8080\nhosts:\n  - \"a\"\n  - 'b'\ntimeout: 30 # seconds\n"},
		"another file name":   {flag: "", "services/checkout/flags/other.json": `{"flags":{"new-cart":{"variants":{"off":false,"on":true},"defaultVariant":"off","state":"ENABLED"}}}`},
		"another owner":       {meta: "owner: somebody-else\nschemas:\n  config/http: http\n"},
		"Windows line ends":   {http: strings.ReplaceAll(shop()[http], "\n", "\r\n")},
		"a stricter schema":   {"schemas/http.schema.json": `{"type":"object","required":["timeout","port"]}`},
	}
	for name, change := range same {
		repo := gittest.New(t)
		gittest.Commit(t, repo, map[string]string{"README.md": name})
		c := gittest.Commit(t, repo, gittest.With(shop(), change))
		if got := digests(t, bundler.New(bundler.NewRepo(repo)), c); !equalMaps(got, want) {
			t.Errorf("%s: %v, want %v", name, got, want)
		}
	}
	for name, change := range map[string]map[string]string{
		"a value":     {http: "timeout: 31\nport: 8080\nhosts: [a, b]\n"},
		"a mode more": {"services/checkout/safe-modes/off/safe-mode.yaml": "description: x\nowner: y\n"},
	} {
		b, c := open(t, gittest.With(shop(), change))
		if got := digests(t, b, c); equalMaps(got, want) {
			t.Errorf("%s: the digests stay", name)
		}
	}
}

func equalMaps(a, b map[string]api.Digest) bool {
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return len(a) == len(b)
}

// TestClonesAgree makes real clones that differ in everything that must not
// matter, and builds in each.
func TestClonesAgree(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("needs git")
	}
	dir := t.TempDir()
	git := func(env []string, args ...string) {
		t.Helper()
		cmd := exec.Command("git", args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com")
		cmd.Env = append(cmd.Env, env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	files := gittest.With(shop(), map[string]string{".gitattributes": "*.yaml text eol=crlf ident\n"})
	for path, content := range files {
		full := filepath.Join(dir, "origin", filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	git(nil, "init", "-q", "-b", "main", "origin")
	git(nil, "-C", "origin", "add", ".")
	git(nil, "-C", "origin", "commit", "-q", "-m", "one")
	git([]string{"TZ=Asia/Tokyo"}, "clone", "-q", "-c", "core.autocrlf=true", "origin", "clone with spaces")
	git([]string{"LANG=tr_TR.UTF-8"}, "clone", "-q", "--bare", "origin", "bare.git")
	git(nil, "clone", "-q", "--no-local", "origin", "repacked")
	git(nil, "-C", "repacked", "repack", "-adfq")
	git(nil, "-C", "repacked", "worktree", "add", "-q", "--detach", filepath.Join(dir, "linked"))
	git(nil, "clone", "-q", "origin", "sparse")
	git(nil, "-C", "sparse", "sparse-checkout", "set", "services")

	b, commit := open(t, files)
	want := digests(t, b, commit)
	for _, clone := range []string{"origin", "clone with spaces", "bare.git", "repacked", "linked", "sparse", "origin/services"} {
		r, err := bundler.OpenRepo(filepath.Join(dir, clone))
		if err != nil {
			t.Fatal(clone, err)
		}
		head, err := r.Resolve("HEAD")
		if err != nil {
			t.Fatal(clone, err)
		}
		if got := digests(t, bundler.New(r), head); !equalMaps(got, want) {
			t.Errorf("%s: %v, want %v", clone, got, want)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestWriteLayout(t *testing.T) {
	b, commit := open(t, shop())
	built, faults := b.BuildAll(context.Background(), commit, bundler.BuildFilter{})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	dir := t.TempDir()
	for range 2 { // a second time over the first is the same
		if err := bundler.WriteLayout(dir, built); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index struct {
		Manifests []struct {
			Digest      api.Digest
			Size        int
			Annotations map[string]string
		}
	}
	if err := json.Unmarshal(raw, &index); err != nil {
		t.Fatal(err)
	}
	if len(index.Manifests) != 2 || index.Manifests[0].Annotations["dev.sealstone.scope"] != "prod" {
		t.Fatalf("%s", raw)
	}
	for _, m := range index.Manifests {
		set := readBlob(t, dir, m.Digest)
		if len(set) != m.Size {
			t.Errorf("set %s has %d bytes, the index says %d", m.Digest, len(set), m.Size)
		}
		follow(t, dir, set)
	}
	blobs, err := os.ReadDir(filepath.Join(dir, "blobs", "sha256"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range blobs {
		if strings.HasPrefix(f.Name(), ".") {
			t.Errorf("%s is left behind", f.Name())
		}
	}
}

// follow reads everything that a manifest or index points to, as oras does.
func follow(t *testing.T, dir string, raw []byte) {
	t.Helper()
	var m struct {
		Config            *struct{ Digest api.Digest }
		Layers, Manifests []struct{ Digest api.Digest }
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		t.Fatal(err)
	}
	if m.Config != nil {
		readBlob(t, dir, m.Config.Digest)
	}
	for _, l := range m.Layers {
		readBlob(t, dir, l.Digest)
	}
	for _, l := range m.Manifests {
		follow(t, dir, readBlob(t, dir, l.Digest))
	}
}

func readBlob(t *testing.T, dir string, d api.Digest) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", d.Hex()))
	if err != nil {
		t.Fatal(err)
	}
	if !d.Names(raw) {
		t.Errorf("%s has other bytes", d)
	}
	return raw
}
