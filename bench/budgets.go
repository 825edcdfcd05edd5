package main

import (
	"fmt"

	"github.com/sealstone/sealstone/bench/page"
)

// A budget is what we promise of one measurement, and what came of it.
type budget struct {
	what     string
	measured string
	met      bool
	cause    string // of the shortfall, if it is one
}

func (b *budget) verdict() string {
	if b.met {
		return "met"
	}
	return "**not met**"
}

const (
	unexplained = "the cause is not known. Run again on a quiet machine; if it stays, it is a regression."
	busy        = "two goroutines share nothing that is written, so what is lacking went to other work on the machine: the same happened to the rules written by hand."
)

// The rows of the report, in order.
const (
	rowStatic = iota
	rowOne
	rowTen
	rowAll
	rowLoad
	rowThrough // and the two after
)

func (r *report) budgets() []budget {
	var out []budget
	names := []string{"static", "one rule", "ten rules"}
	for i, ld := range []float64{0.20, 0.25, 0.33} {
		x := &r.rows[rowStatic+i]
		peer := x.result("LaunchDarkly Go SDK")
		out = append(out,
			allocs("handle, "+names[i], x.ours().allocs, 0, unexplained),
			atMost("handle, "+names[i], "written by hand", x.ours().ns1/x.result(x.limit).ns1, 3, unexplained),
			atMost("handle, "+names[i], "LaunchDarkly's SDK", x.ours().ns1/peer.ns1, ld, unexplained))
	}
	all := &r.rows[rowAll]
	out = append(out,
		allocs("all 1,000 flags", all.ours().allocs, 1, unexplained),
		atMost("all 1,000 flags", "written by hand", all.ours().ns1/all.result(all.limit).ns1, 4, unexplained),
		budget{"all 1,000 flags: ≥ 1.8× on two cores", fmt.Sprintf("%.2f× (written by hand: %.2f×)", all.ours().scaling(), all.result(all.limit).scaling()), all.ours().scaling() >= 1.8, busy})
	for i, name := range names {
		out = append(out, r.through(&r.rows[rowThrough+i], name)...)
	}
	load := &r.rows[rowLoad]
	return append(out, atMost("loading 1,000 flags", "decoding the same JSON", load.ours().ns1/load.result(load.limit).ns1, 4, unexplained))
}

// through are the budgets of our provider. Whether it allocates shows against
// the provider that answers alike; its time counts against doing nothing.
func (r *report) through(x *row, name string) []budget {
	idle, like, hand := x.result(ofIdle), x.result(ofConstant), x.result(ofHand)
	over := func(r *result) float64 { return 100 * (r.ns1/idle.ns1 - 1) }
	cause := fmt.Sprintf("(%s) the SDK itself takes %s ns. Copying the metadata that OpenFeature asks for, which the SDK does, adds %.0f %%; "+
		"the rules written by hand behind a provider, without metadata, add %.0f %%. The rest is our evaluation, "+
		"with its attributes in a map that the SDK makes anew for each call.",
		name, page.Digits(idle.ns1), over(like), over(hand))
	own := allocs("OpenFeature, "+name+", the provider's own", x.ours().allocs-like.allocs, 0, unexplained)
	own.measured += fmt.Sprintf(" (the SDK makes %.0f for metadata)", like.allocs-idle.allocs)
	return []budget{own, {
		"OpenFeature, " + name + ": ≤ 15 % above doing nothing",
		fmt.Sprintf("%.1f %% (a constant: %.1f %%, by hand: %.1f %%)", over(x.ours()), over(like), over(hand)), over(x.ours()) <= 15, cause,
	}}
}

func allocs(what string, got float64, most int, cause string) budget {
	return budget{fmt.Sprintf("%s: ≤ %d allocations", what, most), fmt.Sprintf("%.0f", got), got <= float64(most), cause}
}

func atMost(what, than string, got, most float64, cause string) budget {
	return budget{fmt.Sprintf("%s: ≤ %.2g× %s", what, most, than), fmt.Sprintf("%.2f×", got), got <= most, cause}
}
