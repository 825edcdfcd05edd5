package main

import "fmt"

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

	metadataCopied = "a provider that gives flags metadata, which OpenFeature asks for, makes the SDK copy it for each caller: " +
		"two allocations, of which the provider makes none. The line \"" + ofConstant + "\" shows what is left when only that copy is added to doing nothing; ours allocates as often."
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
		out = append(out, r.through(&r.rows[rowThrough+i], name, i == 2)...)
	}
	load := &r.rows[rowLoad]
	return append(out, atMost("loading 1,000 flags", "decoding the same JSON", load.ours().ns1/load.result(load.limit).ns1, 4, unexplained))
}

// through are the budgets of our provider. Whether it allocates shows against
// the provider that answers alike; its time counts against doing nothing.
func (r *report) through(x *row, name string, long bool) []budget {
	idle, like := x.result(ofIdle), x.result(ofConstant)
	cause := metadataCopied
	if long {
		hand := r.rows[rowTen].result(r.rows[rowTen].limit)
		cause = fmt.Sprintf("what the SDK does around an evaluation takes %s ns, so 15 %% of it is %s ns. Ten rules take %s ns when they are written by hand, "+
			"so no provider that evaluates them can meet this.", digits(idle.ns1), digits(0.15*idle.ns1), digits(hand.ns1))
	}
	over := func(than *result) float64 { return 100 * (x.ours().ns1/than.ns1 - 1) }
	return []budget{
		allocs("OpenFeature, "+name+", the provider's own", x.ours().allocs-like.allocs, 0, unexplained),
		allocs("OpenFeature, "+name+", above doing nothing", x.ours().allocs-idle.allocs, 0, metadataCopied),
		{
			"OpenFeature, " + name + ": ≤ 15 % above doing nothing",
			fmt.Sprintf("%.0f %% (%.0f %% above the constant)", over(idle), over(like)), over(idle) <= 15, cause,
		},
	}
}

func allocs(what string, got float64, most int, cause string) budget {
	return budget{fmt.Sprintf("%s: ≤ %d allocations", what, most), fmt.Sprintf("%.0f", got), got <= float64(most), cause}
}

func atMost(what, than string, got, most float64, cause string) budget {
	return budget{fmt.Sprintf("%s: ≤ %.2g× %s", what, most, than), fmt.Sprintf("%.2f×", got), got <= most, cause}
}
