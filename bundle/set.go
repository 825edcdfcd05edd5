package bundle

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/canon"
)

// Entry is one bundle of a set: what a target at or below Scope runs in Mode.
type Entry struct {
	Scope  api.Scope
	Mode   api.Mode
	Digest api.Digest // of the bundle's manifest
	Size   int64      // of the bundle's manifest
}

// Set is all bundles of one service for one activation, sorted by scope, then
// mode, both bytewise.
type Set struct {
	Entries []Entry
}

type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	ArtifactType  string       `json:"artifactType"`
	Manifests     []Descriptor `json:"manifests"`
}

// BuildSet encodes a set. Entries come in any order; one (scope, mode) twice,
// or none at all, is an error.
func BuildSet(entries []Entry) ([]byte, error) {
	entries = slices.SortedFunc(slices.Values(entries), compareEntries)
	ix := index{SchemaVersion: 2, MediaType: TypeIndex, ArtifactType: TypeSet}
	for _, e := range entries {
		ix.Manifests = append(ix.Manifests, Descriptor{
			MediaType: TypeManifest, Digest: e.Digest, Size: e.Size,
			Annotations: map[string]string{AnnotationScope: string(e.Scope), AnnotationMode: string(e.Mode)},
		})
	}
	b, err := canon.Marshal(ix)
	if err != nil {
		return nil, err
	}
	if _, err := ParseSet(b); err != nil {
		return nil, err
	}
	return b, nil
}

func compareEntries(a, b Entry) int {
	return cmp.Or(cmp.Compare(a.Scope, b.Scope), cmp.Compare(a.Mode, b.Mode))
}

// ParseSet accepts exactly what BuildSet writes.
func ParseSet(b []byte) (*Set, error) {
	if len(b) > MaxManifest {
		return nil, fmt.Errorf("%w: set of %d bytes, limit %d", ErrFormat, len(b), MaxManifest)
	}
	var ix index
	if err := canon.Unmarshal(b, &ix); err != nil {
		return nil, fmt.Errorf("%w: set: %w", ErrFormat, err)
	}
	if ix.SchemaVersion != 2 || ix.MediaType != TypeIndex || ix.ArtifactType != TypeSet || len(ix.Manifests) == 0 {
		return nil, fmt.Errorf("%w: not a filled index of artifact type %s", ErrFormat, TypeSet)
	}
	s := &Set{Entries: make([]Entry, 0, len(ix.Manifests))}
	for _, d := range ix.Manifests {
		e, err := entryOf(d)
		if err != nil {
			return nil, err
		}
		if n := len(s.Entries); n > 0 && compareEntries(s.Entries[n-1], e) >= 0 {
			return nil, fmt.Errorf("%w: set is not sorted by scope and mode, or holds one twice", ErrFormat)
		}
		s.Entries = append(s.Entries, e)
	}
	return s, nil
}

func entryOf(d Descriptor) (Entry, error) {
	scope, err := api.ParseScope(d.Annotations[AnnotationScope])
	if err != nil {
		return Entry{}, fmt.Errorf("%w: set: %w", ErrFormat, err)
	}
	mode, err := api.ParseMode(d.Annotations[AnnotationMode])
	if err != nil {
		return Entry{}, fmt.Errorf("%w: set: %w", ErrFormat, err)
	}
	if d.MediaType != TypeManifest || len(d.Annotations) != 2 || !validBlob(d, MaxManifest) {
		return Entry{}, fmt.Errorf("%w: set: wrong descriptor for %s in mode %s", ErrFormat, scope, mode)
	}
	return Entry{scope, mode, d.Digest, d.Size}, nil
}

// Find returns the bundle of a target's scope in a mode: the entry of the
// deepest scope at or above it.
func (s *Set) Find(scope api.Scope, mode api.Mode) (Entry, bool) {
	best, ok := Entry{}, false
	for _, e := range s.Entries {
		if e.Mode == mode && e.Scope.Contains(scope) && (!ok || e.Scope.Depth() > best.Scope.Depth()) {
			best, ok = e, true
		}
	}
	return best, ok
}

// Modes lists the modes that a target's scope has, sorted.
func (s *Set) Modes(scope api.Scope) []api.Mode {
	var modes []api.Mode
	for _, e := range s.Entries {
		if e.Scope.Contains(scope) && !slices.Contains(modes, e.Mode) {
			modes = append(modes, e.Mode)
		}
	}
	slices.Sort(modes)
	return modes
}
