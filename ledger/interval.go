package ledger

import (
	"iter"

	"github.com/sealstone/sealstone/api"
)

// Past finds the changes of a service's main and override chains by their place
// in the log.
type Past interface {
	// Last is a chain as it was before entry below.
	Last(lane Lane, scope api.Scope, below int64) (Chain, bool)
	// Next is the first entry at or above from that changes or marks a chain.
	Next(lane Lane, scope api.Scope, from int64) (int64, bool)
}

// Interval is a stretch of the log in which one main change, under one override
// change or none, was in effect for a target.
type Interval struct {
	Effect
	Began int64 // the change that put it into effect: not always one of the two, it may be an exit or a withdrawal
	Ended int64 // the change that ended it; -1 while it lasts
}

// effectAt is what was in effect for a scope before entry below.
func effectAt(p Past, scope api.Scope, below int64) (Effect, bool) {
	return InEffect(pathChains(p, scope, below), scope)
}

func pathChains(p Past, scope api.Scope, below int64) (chains []Chain) {
	for _, s := range scope.Path() {
		for _, lane := range []Lane{LaneMain, LaneOverride} {
			if c, ok := p.Last(lane, s, below); ok {
				chains = append(chains, c)
			}
		}
	}
	return chains
}

// Intervals lists what was in effect for a scope, newest first, from the
// interval on that holds before entry below. Its cost is that of the chains at
// or above the scope for each interval taken, whatever the log's size.
func Intervals(p Past, scope api.Scope, below int64) iter.Seq[Interval] {
	return func(yield func(Interval) bool) {
		ended := ended(p, scope, below)
		for below > 0 {
			e, ok, began := began(p, scope, below)
			if ok && !yield(Interval{e, began, ended}) {
				return
			}
			below, ended = began, began
		}
	}
}

// began walks back to the change that brought what is in effect before entry
// below; to -1 when it was so from the start.
func began(p Past, scope api.Scope, below int64) (e Effect, ok bool, at int64) {
	chains := pathChains(p, scope, below)
	e, ok = InEffect(chains, scope)
	for {
		at = -1
		for _, c := range chains {
			if matters(e, ok, c.Lane, c.Scope) {
				at = max(at, c.Index)
			}
		}
		if at < 0 {
			return e, ok, at
		}
		chains = pathChains(p, scope, at)
		if was, had := InEffect(chains, scope); !sameEffect(was, had, e, ok) {
			return e, ok, at
		}
	}
}

// ended walks on to the change that ends what is in effect before entry below.
func ended(p Past, scope api.Scope, below int64) int64 {
	e, ok := effectAt(p, scope, below)
	for {
		at := int64(-1)
		for _, s := range scope.Path() {
			for _, lane := range []Lane{LaneMain, LaneOverride} {
				if next, found := p.Next(lane, s, below); found && matters(e, ok, lane, s) && (at < 0 || next < at) {
					at = next
				}
			}
		}
		if at < 0 {
			return -1
		}
		below = at + 1
		if now, has := effectAt(p, scope, below); !sameEffect(now, has, e, ok) {
			return at
		}
	}
}

// matters tells whether a change of a chain could have brought or could end an
// effect: chains further out than those in effect are covered by them.
func matters(e Effect, ok bool, lane Lane, scope api.Scope) bool {
	switch {
	case lane == LaneMain:
		return !ok || scope.Depth() >= e.Main.Scope.Depth()
	case !ok:
		return false // an override of nothing
	}
	return e.Override == nil || scope.Depth() >= e.Override.Scope.Depth()
}

func sameEffect(a Effect, aok bool, b Effect, bok bool) bool {
	if !aok || !bok {
		return aok == bok
	}
	return a.Main.Index == b.Main.Index && overrideIndex(a) == overrideIndex(b)
}

func overrideIndex(e Effect) int64 {
	if e.Override == nil {
		return -1
	}
	return e.Override.Index
}
