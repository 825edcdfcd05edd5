// Package oci pulls bundles with oras, a client library of others: what
// Sealstone serves and writes is OCI, so no tool of ours is needed to read it.
package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/content/oci"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"

	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/integration/proctest"
)

func TestMain(m *testing.M) { proctest.Main(m) }

// built is what `sealstone build -o json` says of a set.
type built struct {
	Service, Scope string
	Digest         digest.Digest
	Bundles        []struct {
		Scope, Mode string
		Digest      digest.Digest
		Objects     []struct {
			Title  string
			Digest digest.Digest
		}
	}
}

func build(t *testing.T, r *proctest.Rig) []built {
	t.Helper()
	var sets []built
	if err := json.Unmarshal([]byte(r.OK("build", r.Work, "-o", "json")), &sets); err != nil {
		t.Fatal(err)
	}
	return sets
}

// One server is enough for all: the later tests change what it serves.
func TestOCI(t *testing.T) {
	r := proctest.New(t, examples.Shop())
	s := r.Serve()
	s.UntilTip(r.Git("rev-parse", "HEAD"))
	for _, test := range []struct {
		name string
		run  func(*testing.T, *proctest.Rig, *proctest.Server)
	}{
		{"pull by tag and by digest", pullByTagAndByDigest},
		{"tags name bundles only", tagsNameBundlesOnly},
		{"copy a set with all its bundles", copyASetWithAllItsBundles},
		{"read the layout of a build", readTheLayoutOfABuild},
		{"only what an activation names", onlyWhatAnActivationNames},
		{"pull with a token", pullWithAToken},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, r, s) })
	}
}

func repository(t *testing.T, s *proctest.Server, name string) *remote.Repository {
	t.Helper()
	repo, err := remote.NewRepository(s.Addr + "/" + name)
	if err != nil {
		t.Fatal(err)
	}
	repo.PlainHTTP = true
	return repo
}

// tag is the name that a bundle has in its service's repository.
func tag(scope, mode string) string {
	name := []byte(scope)
	for i, c := range name {
		if c == '/' {
			name[i] = '.'
		}
	}
	if mode != "normal" {
		return string(name) + "_" + mode
	}
	return string(name)
}

func pullByTagAndByDigest(t *testing.T, r *proctest.Rig, s *proctest.Server) {
	for _, set := range build(t, r) {
		repo := repository(t, s, set.Service)
		for _, b := range set.Bundles {
			for _, ref := range []string{tag(b.Scope, b.Mode), b.Digest.String()} {
				desc, raw, err := oras.FetchBytes(t.Context(), repo, ref, oras.DefaultFetchBytesOptions)
				if err != nil {
					t.Fatalf("%s:%s: %v", set.Service, ref, err)
				}
				if desc.Digest != b.Digest || digest.FromBytes(raw) != b.Digest || desc.MediaType != ocispec.MediaTypeImageManifest {
					t.Errorf("%s:%s is %s of type %s, want %s", set.Service, ref, desc.Digest, desc.MediaType, b.Digest)
				}
			}
		}
	}
}

func tagsNameBundlesOnly(t *testing.T, r *proctest.Rig, s *proctest.Server) {
	var want, got []string
	for _, set := range build(t, r) {
		for _, b := range set.Bundles {
			if set.Service == "checkout" {
				want = append(want, tag(b.Scope, b.Mode))
			}
		}
	}
	repo := repository(t, s, "checkout")
	repo.TagListPageSize = 3 // so that pages are followed
	err := repo.Tags(t.Context(), "", func(tags []string) error {
		got = append(got, tags...)
		return nil
	})
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("tags %v, %v; want %v", got, err, want)
	}
}

// A set is an index over its bundles: copying it copies all that a service
// needs, and oras checks every digest on the way.
func copyASetWithAllItsBundles(t *testing.T, r *proctest.Rig, s *proctest.Server) {
	for _, set := range build(t, r) {
		dir := t.TempDir()
		layout, err := oci.New(dir)
		if err != nil {
			t.Fatal(err)
		}
		root, err := oras.Copy(t.Context(), repository(t, s, set.Service), set.Digest.String(), layout, "set", oras.DefaultCopyOptions)
		if err != nil || root.Digest != set.Digest || root.MediaType != ocispec.MediaTypeImageIndex {
			t.Fatalf("%s@%s: %+v, %v", set.Service, set.Scope, root, err)
		}
		wantAll(t, dir, set)
	}
}

// wantAll looks for everything of a set in a layout's blobs.
func wantAll(t *testing.T, dir string, set built) {
	t.Helper()
	want := []digest.Digest{set.Digest}
	for _, b := range set.Bundles {
		want = append(want, b.Digest)
		for _, o := range b.Objects {
			want = append(want, o.Digest)
		}
	}
	for _, d := range want {
		raw, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", d.Encoded()))
		if err != nil || digest.FromBytes(raw) != d {
			t.Errorf("%s@%s: %s: %v", set.Service, set.Scope, d, err)
		}
	}
}

// What build --out writes is a layout that oras reads, and it holds the bytes
// that the server serves.
func readTheLayoutOfABuild(t *testing.T, r *proctest.Rig, s *proctest.Server) {
	dir := filepath.Join(t.TempDir(), "layout")
	r.OK("build", r.Work, "--out", dir)
	layout, err := oci.NewFromFS(t.Context(), os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, set := range build(t, r) {
		copied, err := oci.New(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		ref := set.Service + "." + tag(set.Scope, "normal")
		root, err := oras.Copy(t.Context(), layout, ref, copied, ref, oras.DefaultCopyOptions)
		if err != nil || root.Digest != set.Digest {
			t.Fatalf("%s: %+v, %v", ref, root, err)
		}
		served, err := content.FetchAll(t.Context(), repository(t, s, set.Service), root)
		if err != nil || digest.FromBytes(served) != root.Digest {
			t.Errorf("%s: the server has other bytes: %v", ref, err)
		}
		wantAll(t, dir, set)
	}
}

// With clients.yaml a registry client logs in with its token as the password,
// and gets what its services are.
func pullWithAToken(t *testing.T, r *proctest.Rig, s *proctest.Server) {
	var token struct{ Token, SHA256 string }
	if err := json.Unmarshal([]byte(r.OK("token", "new", "-o", "json")), &token); err != nil {
		t.Fatal(err)
	}
	r.Write("clients.yaml", fmt.Sprintf("clients:\n  - name: mirror\n    token: %q\n    services: [checkout]\n    scopes: [prod]\n", token.SHA256))
	commit := r.Push("Restrict reads")
	proctest.Until(t, "restricted reads of "+commit, func() bool {
		_, _, err := oras.FetchBytes(t.Context(), repository(t, s, "checkout"), "prod", oras.DefaultFetchBytesOptions)
		return err != nil
	})
	for name, want := range map[string]bool{"checkout": true, "payments": false} {
		repo := repository(t, s, name)
		repo.Client = &auth.Client{Credential: auth.StaticCredential(s.Addr, auth.Credential{Username: "any", Password: token.Token})}
		if _, _, err := oras.FetchBytes(t.Context(), repo, "prod", oras.DefaultFetchBytesOptions); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What no activation named is not there, whoever asks.
func onlyWhatAnActivationNames(t *testing.T, r *proctest.Rig, s *proctest.Server) {
	r.Edit("services/checkout/config/http.yaml", "readMs: 5000", "readMs: 4999")
	r.Commit("Not pushed")
	for _, set := range build(t, r) {
		if set.Service != "checkout" {
			continue
		}
		if _, err := repository(t, s, "checkout").Resolve(t.Context(), set.Digest.String()); err == nil {
			t.Errorf("%s is served", set.Digest)
		}
		if _, err := repository(t, s, "payments").Resolve(t.Context(), "no-such-tag"); err == nil {
			t.Error("a tag that doesn't exist is served")
		}
	}
}
