package bundler

import (
	"context"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/sealstone/sealstone/api"
)

// A Position is where a file says something.
type Position struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Col  int    `json:"col"`
}

// Where tells which lines of a release set parts of the flags that a service
// resolves to at a scope in a mode. Parts are JSON pointers into flags.json; one
// that is not there gets the place of the nearest value above it.
func (b *Builder) Where(ctx context.Context, commit, service string, scope api.Scope, mode api.Mode, pointers []string) (map[string]Position, error) {
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
	r := &resolver{
		reader: reader{ctx: ctx, b: b}, project: p,
		out: &resolved{effects: map[string]bool{}, blobs: map[string]plumbing.Hash{}},
	}
	ls := having(layers(p.common, p.service, scope, mode), (*layer).hasFlags)
	n := r.foldFlags(ls, func(string, bool) {})
	out := make(map[string]Position, len(pointers))
	for _, at := range pointers {
		where := n.locate(at)
		out[at] = Position{where.file, int(where.line), int(where.col)}
	}
	return out, r.err
}
