package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/sealstone/sealstone/api"
)

// vectors are for every implementation of contract 1: what goes in, the exact
// bytes that come out, and their names. SEALSTONE_UPDATE=1 rewrites them, which
// is right only for a new contract.
type vectors struct {
	Bundles []bundleVector `json:"bundles"`
	Sets    []setVector    `json:"sets"`
}

type bundleVector struct {
	Name     string            `json:"name"`
	Config   Config            `json:"config"`
	Files    map[string]string `json:"files"`
	Manifest string            `json:"manifest"`
	Digest   api.Digest        `json:"digest"`
}

type setVector struct {
	Name    string     `json:"name"`
	Entries []setEntry `json:"entries"`
	Set     string     `json:"set"`
	Digest  api.Digest `json:"digest"`
}

type setEntry struct {
	Scope  api.Scope  `json:"scope"`
	Mode   api.Mode   `json:"mode"`
	Digest api.Digest `json:"digest"`
	Size   int64      `json:"size"`
}

const golden = "testdata/contract-1/encoding.json"

func inputs() vectors {
	normal := Config{Contract: 1, Mode: api.ModeNormal, Service: "checkout"}
	d1, d2, d3 := api.DigestOf([]byte("1")), api.DigestOf([]byte("2")), api.DigestOf([]byte("3"))
	return vectors{
		Bundles: []bundleVector{
			{Name: "flags alone", Config: normal, Files: map[string]string{"flags.json": `{"flags":{}}`}},
			{Name: "a safe mode", Config: Config{Contract: 1, Mode: "degraded", Service: "checkout"}, Files: map[string]string{"flags.json": `{"flags":{}}`}},
			{Name: "documents sort by title", Config: normal, Files: map[string]string{
				"flags.json": `{"flags":{}}`, "config/http.json": `{"timeout":30}`, "config/http-client.json": `{"retries":3}`, "config/a.b.json": `[1,2.5,"\u0000é😂"]`,
			}},
			{Name: "equal documents are one blob", Config: normal, Files: map[string]string{
				"flags.json": `{"flags":{}}`, "config/a.json": `{}`, "config/b.json": `{}`,
			}},
		},
		Sets: []setVector{
			{Name: "one bundle", Entries: []setEntry{{"prod", "normal", d1, 600}}},
			{Name: "sorted by scope, then mode, bytewise", Entries: []setEntry{
				{"prod/eu-west-1", "normal", d2, 600}, {"prod", "read-only", d3, 601}, {"prod", "degraded", d3, 602}, {"prod", "normal", d1, 600}, {"prod-b", "normal", d1, 600},
			}},
		},
	}
}

func run(t *testing.T, v vectors) vectors {
	t.Helper()
	for i, b := range v.Bundles {
		files := map[string][]byte{}
		for title, text := range b.Files {
			files[title] = []byte(text)
		}
		got, err := Build(b.Config, files)
		if err != nil {
			t.Fatal(b.Name, err)
		}
		if _, err := ParseManifest(got.Manifest); err != nil {
			t.Fatal(b.Name, err)
		}
		v.Bundles[i].Manifest, v.Bundles[i].Digest = string(got.Manifest), got.Digest
	}
	for i, s := range v.Sets {
		raw, err := BuildSet(s.list())
		if err != nil {
			t.Fatal(s.Name, err)
		}
		v.Sets[i].Set, v.Sets[i].Digest = string(raw), api.DigestOf(raw)
	}
	return v
}

func (s setVector) list() []Entry {
	var out []Entry
	for _, e := range s.Entries {
		out = append(out, Entry(e))
	}
	return out
}

func TestGoldenVectors(t *testing.T) {
	got, err := json.MarshalIndent(run(t, inputs()), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	if os.Getenv("SEALSTONE_UPDATE") != "" {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("contract 1 encodes otherwise than its vectors; a changed encoding is a new contract\n%s", got)
	}
}

func TestASetDoesNotDependOnTheOrderOfEntries(t *testing.T) {
	s := inputs().Sets[1]
	want, err := BuildSet(s.list())
	if err != nil {
		t.Fatal(err)
	}
	entries := s.list()
	slices.Reverse(entries)
	got, err := BuildSet(entries)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%v\n%s\n%s", err, got, want)
	}
	set, err := ParseSet(want)
	if err != nil {
		t.Fatal(err)
	}
	again, err := BuildSet(set.Entries)
	if err != nil || !bytes.Equal(again, want) {
		t.Error("a parsed set encodes otherwise")
	}
}

func TestFindTakesTheDeepestScope(t *testing.T) {
	raw, err := BuildSet(inputs().Sets[1].list())
	if err != nil {
		t.Fatal(err)
	}
	set, err := ParseSet(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		scope api.Scope
		mode  api.Mode
		want  api.Scope
	}{
		{"prod", "normal", "prod"},
		{"prod/eu-west-1", "normal", "prod/eu-west-1"},
		{"prod/eu-west-1/canary", "normal", "prod/eu-west-1"},
		{"prod/eu-west-1", "degraded", "prod"},
		{"prod/eu-west-2", "normal", "prod"},
		{"staging", "normal", ""},
		{"prod", "unknown", ""},
	} {
		if e, _ := set.Find(c.scope, c.mode); e.Scope != c.want {
			t.Errorf("%s in mode %s is served by %q, want %q", c.scope, c.mode, e.Scope, c.want)
		}
	}
}

// TestRefusals changes one thing of right bytes at a time.
func TestRefusals(t *testing.T) {
	v := run(t, inputs())
	manifest, set := v.Bundles[2].Manifest, v.Sets[1].Set
	for _, c := range []struct{ name, old, new string }{
		{"another media type", TypeManifest, TypeIndex},
		{"another artifact type", TypeBundle, TypeSet},
		{"a schema version", `"schemaVersion":2`, `"schemaVersion":1`},
		{"an unknown member", `"schemaVersion":2`, `"schemaVersion":2,"x":1`},
		{"a space", `"schemaVersion":2`, `"schemaVersion": 2`},
		{"a title outside", "config/http.json", "config/../x.json"},
		{"a title twice", "config/http.json", "config/http-client.json"},
		{"no flags", "flags.json", "config/z.json"},
		{"a digest in capitals", "sha256:", "SHA256:"},
		{"a size of nothing", `"size":`, `"size":0`},
		{"a float for a size", `"schemaVersion":2`, `"schemaVersion":2.0`},
	} {
		if _, err := ParseManifest(bytes.Replace([]byte(manifest), []byte(c.old), []byte(c.new), 1)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for _, c := range []struct{ name, old, new string }{
		{"a manifest", TypeSet, TypeBundle},
		{"a nested index", TypeManifest, TypeIndex},
		{"a scope that is none", `"prod/eu-west-1"`, `"prod/EU"`},
		{"a scope twice", `"prod/eu-west-1"`, `"prod"`},
		{"a mode that is none", "read-only", "read_only"},
		{"a size beyond", `"size":600`, `"size":60000000`},
	} {
		if _, err := ParseSet(bytes.Replace([]byte(set), []byte(c.old), []byte(c.new), 1)); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if _, err := ParseSet([]byte(`{"artifactType":"` + TypeSet + `","manifests":[],"mediaType":"` + TypeIndex + `","schemaVersion":2}`)); !errors.Is(err, ErrFormat) {
		t.Error("an empty set is accepted")
	}
}

func TestOpenChecksEveryByte(t *testing.T) {
	config := Config{Contract: 1, Mode: api.ModeNormal, Service: "checkout"}
	b, err := Build(config, map[string][]byte{"flags.json": []byte(`{"flags":{}}`), "config/a.json": []byte(`{"a":1}`)})
	if err != nil {
		t.Fatal(err)
	}
	get := func(d api.Digest) ([]byte, error) { return b.Blobs[d], nil }
	c, err := Open(b.Digest, b.Manifest, "checkout", api.ModeNormal, get)
	if err != nil || string(c.Files["config/a.json"]) != `{"a":1}` {
		t.Fatal(c, err)
	}
	if _, err := Open(b.Digest, b.Manifest, "cart", api.ModeNormal, get); !errors.Is(err, ErrIdentity) {
		t.Error("another service's bundle passes:", err)
	}
	if _, err := Open(b.Digest, b.Manifest, "checkout", "degraded", get); !errors.Is(err, ErrIdentity) {
		t.Error("a normal bundle passes for a safe mode:", err)
	}
	if _, err := Open(api.DigestOf(nil), b.Manifest, "checkout", api.ModeNormal, get); !errors.Is(err, ErrDigest) {
		t.Error("a manifest passes under another name:", err)
	}
	tampered := func(d api.Digest) ([]byte, error) {
		return bytes.Replace(b.Blobs[d], []byte("1"), []byte("2"), 1), nil
	}
	if _, err := Open(b.Digest, b.Manifest, "checkout", api.ModeNormal, tampered); !errors.Is(err, ErrDigest) {
		t.Error("tampered objects pass:", err)
	}
}

// FuzzParseManifest: what is accepted is what Build would write, and what the
// encoder for any value writes.
func FuzzParseManifest(f *testing.F) {
	b, err := Build(Config{1, api.ModeNormal, "a"}, map[string][]byte{"flags.json": []byte(`{"flags":{}}`)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b.Manifest)
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := ParseManifest(raw)
		if err == nil && (len(m.Layers) == 0 || m.MediaType != TypeManifest) {
			t.Errorf("accepts %q", raw)
		}
		if err == nil && !bytes.Equal(m.canonical(), raw) {
			t.Errorf("%q is written as %q", raw, m.canonical())
		}
	})
}

// The vectors hold without any of our code.
func TestVectorsCheckThemselves(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("needs python3, which is not installed")
	}
	if out, err := exec.CommandContext(t.Context(), python, "testdata/contract-1/check.py").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
