package bundler

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/sealstone/sealstone/api"
)

// Touched lists the services that two commits may say different things about,
// by Git ids alone: a service's folder or its activation file differs, or what
// all services share does (common/, schemas/, sealstone.yaml). all counts the
// services of either commit. An empty old commit touches everything.
func (b *Builder) Touched(ctx context.Context, old, new string) (touched []string, all int, err error) {
	before, err := b.ids(ctx, old)
	if err != nil {
		return nil, 0, err
	}
	after, err := b.ids(ctx, new)
	if err != nil {
		return nil, 0, err
	}
	names := map[string]bool{}
	for _, ids := range []*commitIDs{before, after} {
		for name := range ids.services {
			names[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if before.shared != after.shared || before.services[name] != after.services[name] {
			touched = append(touched, name)
		}
	}
	return touched, len(names), nil
}

// commitIDs are the Git ids that what is live depends on.
type commitIDs struct {
	shared   [3]plumbing.Hash     // sealstone.yaml, common, schemas
	services map[string]serviceID // also of what has an activation file alone
}

// serviceID is the ids of a service's folder and of its activation file.
type serviceID [2]plumbing.Hash

func (b *Builder) ids(ctx context.Context, commit string) (*commitIDs, error) {
	out := &commitIDs{services: map[string]serviceID{}}
	if commit == "" {
		return out, nil
	}
	c, err := b.repo.Commit(commit)
	if err != nil {
		return nil, err
	}
	root, err := b.repo.tree(plumbing.NewHash(c.Tree))
	if err != nil {
		return nil, fmt.Errorf("commit %.12s: %w", commit, missing(err))
	}
	for _, e := range root {
		if i := slices.Index([]string{"sealstone.yaml", "common", "schemas"}, e.name); i >= 0 {
			out.shared[i] = e.hash
		}
		if i := slices.Index([]string{"services", "activations"}, e.name); i >= 0 && e.kind == kindDir {
			if err := b.addIDs(out.services, e, i); err != nil {
				return nil, err
			}
		}
	}
	return out, ctx.Err()
}

func (b *Builder) addIDs(into map[string]serviceID, dir entry, i int) error {
	entries, err := b.repo.tree(dir.hash)
	if err != nil {
		return fmt.Errorf("%s: %w", dir.name, missing(err))
	}
	for _, e := range entries {
		name := strings.TrimSuffix(e.name, ".yaml")
		if api.CheckName(name) != nil {
			continue
		}
		id := into[name]
		id[i] = e.hash
		into[name] = id
	}
	return nil
}

// File reads a file of a commit; ok is false when there is none that can be
// read whole, which needs at most 1 MiB.
func (b *Builder) File(ctx context.Context, commit, path string) (raw []byte, ok bool, err error) {
	h, ok, err := b.idAt(commit, path)
	if !ok || err != nil {
		return nil, false, err
	}
	raw, f, err := b.file(path, h)
	return raw, f == nil && err == nil, err
}

// Same reports whether two commits have the same file or folder at a path.
func (b *Builder) Same(old, new, path string) bool {
	x, had, _ := b.idAt(old, path)
	y, has, _ := b.idAt(new, path)
	return had == has && x == y
}

// SameMode reports whether two releases have the same folder of a safe mode.
func (b *Builder) SameMode(ctx context.Context, old, new, service string, mode api.Mode) bool {
	var ids [2]plumbing.Hash
	for i, commit := range []string{old, new} {
		rel, err := b.release(ctx, commit)
		if err != nil || rel == nil {
			return false
		}
		ids[i], _, _ = b.idBelow(rel.services[service], "safe-modes/"+string(mode))
	}
	return ids[0] == ids[1]
}

// idAt finds the Git id of a file or folder.
func (b *Builder) idAt(commit, path string) (plumbing.Hash, bool, error) {
	c, err := b.repo.Commit(commit)
	if err != nil {
		return plumbing.ZeroHash, false, err
	}
	return b.idBelow(plumbing.NewHash(c.Tree), path)
}

func (b *Builder) idBelow(h plumbing.Hash, path string) (plumbing.Hash, bool, error) {
	dir := true
	for part := range strings.SplitSeq(path, "/") {
		if !dir {
			return plumbing.ZeroHash, false, nil
		}
		entries, err := b.repo.tree(h)
		if err != nil {
			return plumbing.ZeroHash, false, missing(err)
		}
		i := slices.IndexFunc(entries, func(e entry) bool { return e.name == part })
		if i < 0 {
			return plumbing.ZeroHash, false, nil
		}
		h, dir = entries[i].hash, entries[i].kind == kindDir
	}
	return h, true, nil
}
