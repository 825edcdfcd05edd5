package ledger

import (
	"cmp"
	"slices"
	"time"

	"github.com/sealstone/sealstone/api"
)

// Effect is what is in effect for a target. With an override the bundle is the
// one that the main chain's own set lists for (scope, mode).
type Effect struct {
	Main     Chain
	Override *Chain // nil in normal mode
	Mode     api.Mode
}

// InEffect is the one rule of precedence, for server, SDK and command line: the
// override of the nearest scope at or above the target's whose newest change
// isn't an exit, over the main chain of the nearest scope whose newest change
// isn't a withdrawal. ok is false when no main chain covers the scope.
func InEffect(chains []Chain, scope api.Scope) (e Effect, ok bool) {
	e.Mode = api.ModeNormal
	for _, c := range chains {
		if !c.Scope.Contains(scope) {
			continue
		}
		switch {
		case c.Lane == LaneMain && c.Kind != BundleWithdrawn && (!ok || c.Scope.Depth() > e.Main.Scope.Depth()):
			e.Main, ok = c, true
		case c.Lane == LaneOverride && c.Kind != SafeModeExited && (e.Override == nil || c.Scope.Depth() > e.Override.Scope.Depth()):
			over := c
			e.Override, e.Mode = &over, c.Mode
		}
	}
	return e, ok
}

// MaxPendingAge is how far a pending statement's time may be from now.
const MaxPendingAge = 24 * time.Hour

// WithPending returns the chains with the pending statements laid over them
// that a client must obey: of this log and service, by a permitted operator,
// signed after at least the proven generation of its chain, not more than a day
// away from now, and into a mode that is staged. The chains passed in, and so
// stored generations, are not touched.
func WithPending(chains []Chain, service string, pending []*Signed, ops *Operators, staged func(api.Mode) bool, now time.Time) []Chain {
	best := map[api.Scope]*Signed{}
	for _, p := range pending {
		if p.Service != service || p.Kind.Lane() != LaneOverride || !fresh(p, now) {
			continue
		}
		if p.Kind != SafeModeExited && !staged(p.Mode) {
			continue
		}
		if *p.After < generationOf(chains, p.Scope) {
			continue // the log went on from there
		}
		if _, err := ops.Judge(p); err != nil {
			continue
		}
		if old := best[p.Scope]; old == nil || comparePending(p, old) > 0 {
			best[p.Scope] = p
		}
	}
	if len(best) == 0 {
		return chains
	}
	return overlay(chains, best)
}

func overlay(chains []Chain, best map[api.Scope]*Signed) []Chain {
	out := slices.DeleteFunc(slices.Clone(chains), func(c Chain) bool {
		return c.Lane == LaneOverride && best[c.Scope] != nil
	})
	for scope, p := range best {
		out = append(out, Chain{Lane: LaneOverride, Scope: scope, Kind: p.Kind, ID: p.ID, Time: p.Time, Mode: p.Mode,
			OnExpiry: p.OnExpiry, Generation: generationOf(chains, scope), Pending: true})
	}
	slices.SortFunc(out, compareChains)
	return out
}

func fresh(p *Signed, now time.Time) bool {
	d := now.Sub(p.At())
	return d <= MaxPendingAge && d >= -MaxPendingAge
}

func generationOf(chains []Chain, scope api.Scope) int64 {
	for _, c := range chains {
		if c.Lane == LaneOverride && c.Scope == scope {
			return c.Generation
		}
	}
	return 0
}

// comparePending orders rivals: highest after, then time, then hash.
func comparePending(a, b *Signed) int {
	return cmp.Or(cmp.Compare(*a.After, *b.After), cmp.Compare(a.Time, b.Time), cmp.Compare(api.DigestOf(a.Raw), api.DigestOf(b.Raw)))
}
