package bundler

import (
	"context"
	"strings"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
)

// A Position is where a file says something.
type Position struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Col  int    `json:"col"`
}

// Where tells which lines of a release set parts of a file of the bundle that a
// service resolves to at a scope in a mode. The file is named by its title in
// the bundle, parts are JSON pointers into it; one that is not there gets the
// place of the nearest value above it.
func (b *Builder) Where(ctx context.Context, commit, service string, scope api.Scope, mode api.Mode, title string, pointers []string) (map[string]Position, error) {
	rel, fs, err := b.serving(ctx, commit, service, place{})
	if err == nil {
		err = asError(fs)
	}
	if err != nil {
		return nil, err
	}
	p, err := b.project(ctx, rel, service)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.resolver(ctx)
	n := r.fold(title, layers(p.common, p.service, scope, mode))
	out := make(map[string]Position, len(pointers))
	for _, at := range pointers {
		if n == nil {
			break // the bundle has no such document
		}
		out[at] = n.locate(at).position()
	}
	return out, r.err
}

// Places tells which line of one of Sealstone's own files sets a part of it,
// named by a JSON pointer, or the nearest value above it.
func Places(file string, raw []byte) func(pointer string) Position {
	d := readDocument(file, raw, forOwn)
	return func(pointer string) Position {
		if d.root == nil {
			return Position{File: file}
		}
		return d.root.locate(pointer).position()
	}
}

// fold resolves a file of a bundle without judging it.
func (r *resolver) fold(title string, ls []*layer) *node {
	ignore := func(string, bool) {}
	if title == bundle.FlagsTitle {
		return r.foldFlags(having(ls, (*layer).hasFlags), ignore)
	}
	return r.foldDocument(strings.TrimSuffix(strings.TrimPrefix(title, "config/"), ".json"), ls, ignore)
}
