package bundler

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/internal/canon"
	"github.com/sealstone/sealstone/internal/durable"
)

// WriteLayout writes sets as an OCI image layout that registry tools read:
// index.json lists the sets alone, each with its service and scope. Every file
// appears whole or not at all, index.json last; blobs that are there stay.
func WriteLayout(dir string, built []*Built) error {
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	for _, b := range built {
		for digest, raw := range b.Objects() {
			if err := durable.Replace(filepath.Join(blobs, digest.Hex()), raw, 0o644); err != nil {
				return err
			}
		}
	}
	if err := durable.SyncDir(blobs); err != nil {
		return err
	}
	if err := durable.Replace(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644); err != nil {
		return err
	}
	index, err := layoutIndex(built)
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(dir, "index.json"), index, 0o644)
}

// layoutIndex is sorted by service and scope.
func layoutIndex(built []*Built) ([]byte, error) {
	built = slices.SortedFunc(slices.Values(built), func(a, b *Built) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Scope, b.Scope))
	})
	manifests := make([]any, len(built))
	for i, b := range built {
		manifests[i] = map[string]any{
			"mediaType": bundle.TypeIndex, "artifactType": bundle.TypeSet, "digest": string(b.Digest), "size": len(b.Set),
			"annotations": map[string]any{
				"org.opencontainers.image.ref.name": b.Service + "." + b.Scope.Tag(api.ModeNormal),
				"dev.sealstone.service":             b.Service,
				bundle.AnnotationScope:              string(b.Scope),
			},
		}
	}
	return canon.Encode(map[string]any{"schemaVersion": 2, "mediaType": bundle.TypeIndex, "manifests": manifests})
}
