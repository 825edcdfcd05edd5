package bundler

import (
	"context"
	"sync"
)

// maxBuilt is what all sets that one check, one build or one tip of a server
// asks for may be together. A set has limits of its own, but common/ is in the
// sets of every service: a few lines can ask for millions of bundles. Values
// are those of distinct files of each set, bytes these files and manifests.
var maxBuilt = amount{bundles: 131_072, values: 32 << 20, bytes: 1 << 30}

type amount struct{ bundles, values, bytes int64 }

// A Batch builds sets that are asked for together, and bounds what they are in
// all. What was remembered counts as what was not, so whether a commit is within
// its limits depends on the commit alone. It is safe for concurrent use.
type Batch struct {
	b    *Builder
	most amount

	mu    sync.Mutex // guards built
	built amount
}

// Batch begins one.
func (b *Builder) Batch() *Batch { return &Batch{b: b, most: b.most} }

// Build builds the set that an activation of tip asks for. The error is Faults
// when the repository is at fault and something else (storage, ctx) when it
// isn't. Nothing about other services matters to it, but for what all are
// together: see Over.
func (t *Batch) Build(ctx context.Context, tip *Tip, a Activation) (*Built, error) {
	if over := t.Over(); over != nil {
		return nil, over
	}
	built, c, err := t.b.activated(ctx, tip, a)
	t.count(c)
	return built, err
}

// count adds a set, or one that has faults: it has cost as much.
func (t *Batch) count(c *content) {
	if c == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.built.bundles += int64(c.asked)
	t.built.values += int64(c.values)
	t.built.bytes += int64(c.bytes)
}

// Over is the fault of a batch that asks for too much; the sets that came after
// were not built.
func (t *Batch) Over() Faults {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.built.bundles <= t.most.bundles && t.built.values <= t.most.values && t.built.bytes <= t.most.bytes {
		return nil
	}
	return Faults{fault(ruleBuildLimit, place{file: "services"}, "all sets together have more than %d bundles, %d values or %d bytes; not all were built", t.most.bundles, t.most.values, t.most.bytes)}
}

// RefusesAll reports whether a server takes nothing of a commit with this fault,
// although each service builds.
func (f Fault) RefusesAll() bool { return f.Rule == ruleBuildLimit.ID }
