package bundler

import (
	"context"
	"slices"
	"sync"
)

// A reachMemo knows which pins one tip has been found to reach, so that a build
// asks history only about a new pin or a new tip, and once for all pins.
type reachMemo struct {
	mu   sync.Mutex
	tip  string
	pins map[string]bool
}

// reachable refuses a pin that its tip doesn't contain: nobody accepted it.
func (b *Builder) reachable(ctx context.Context, tip *Tip, a Activation) error {
	if a.Release == ReleaseLatest || a.Release == tip.Commit {
		return nil
	}
	ok, err := b.reaches(ctx, tip, a.Release)
	if err != nil || ok {
		return err
	}
	if _, err := b.repo.Commit(a.Release); err != nil {
		return stamp(Faults{b.noRelease(a.at(), a.Release)}, a.Service)
	}
	return stamp(Faults{fault(ruleUnreachable, a.at(), "release %.12s is not reachable from the tip %.12s", a.Release, tip.Commit)}, a.Service)
}

// noRelease says that a release isn't there, which in a shallow clone says
// nothing about the repository.
func (b *Builder) noRelease(at place, release string) Fault {
	if b.repo.Shallow() {
		return fault(ruleRelease, at, "release %.12s is not in this clone, which is shallow", release).withFix(FetchCommits)
	}
	return fault(ruleRelease, at, "release %.12s is not a commit of this repository", release)
}

func (b *Builder) reaches(ctx context.Context, tip *Tip, pin string) (bool, error) {
	m := &b.reached
	m.mu.Lock()
	defer m.mu.Unlock()
	if ok, known := m.pins[pin]; known && m.tip == tip.Commit {
		return ok, nil
	}
	wanted := []string{pin}
	for _, a := range tip.Activations {
		if !a.Retired && a.Release != ReleaseLatest {
			wanted = append(wanted, a.Release)
		}
	}
	slices.Sort(wanted)
	pins, err := b.carryOver(ctx, tip.Commit, slices.Compact(wanted))
	if err != nil {
		return false, err
	}
	m.tip, m.pins = tip.Commit, pins
	return pins[pin], nil
}

// carryOver asks about pins, but takes what the last tip reached as reached
// when the new tip descends from it, which a short walk tells.
func (b *Builder) carryOver(ctx context.Context, tip string, wanted []string) (map[string]bool, error) {
	known := map[string]bool{}
	if b.reached.tip != "" {
		after, err := b.repo.IsAncestor(ctx, b.reached.tip, tip)
		if err != nil {
			return nil, err
		}
		if after {
			known = b.reached.pins
		}
	}
	ask := slices.DeleteFunc(slices.Clone(wanted), func(p string) bool { return known[p] })
	pins, err := b.repo.ReachableFrom(ctx, tip, ask)
	if err != nil {
		return nil, err
	}
	for _, p := range wanted {
		pins[p] = pins[p] || known[p]
	}
	return pins, nil
}
