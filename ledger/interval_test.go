package ledger

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/sealstone/sealstone/api"
)

// list is a log as a slice; an entry without a lane is none of its business,
// and one of kind safe-mode.overdue marks its chain.
type list []Chain

func (l list) Last(lane Lane, scope api.Scope, below int64) (Chain, bool) {
	for _, c := range slices.Backward(l[:min(int64(len(l)), below)]) {
		if c.Lane == lane && c.Scope == scope && c.Kind != SafeModeOverdue {
			return c, true
		}
	}
	return Chain{}, false
}

func (l list) Next(lane Lane, scope api.Scope, from int64) (int64, bool) {
	for i := from; i < int64(len(l)); i++ {
		if l[i].Lane == lane && l[i].Scope == scope {
			return i, true
		}
	}
	return 0, false
}

// refold is what an auditor does: the state before entry below, change by change.
func (l list) refold(scope api.Scope, below int) (Effect, bool) {
	st := NewState("test")
	for _, c := range l[:below] {
		if c.Lane != "" && c.Kind != SafeModeOverdue {
			st.set("svc", c)
		}
	}
	return InEffect(st.ServiceChains("svc"), scope)
}

// brute finds the intervals by a fold up to each entry, oldest first.
func (l list) brute(scope api.Scope) (out []Interval) {
	was, had := Effect{}, false
	for i := range l {
		now, has := l.refold(scope, i+1)
		if sameEffect(was, had, now, has) {
			continue
		}
		if had {
			out[len(out)-1].Ended = int64(i)
		}
		if has {
			out = append(out, Interval{now, int64(i), -1})
		}
		was, had = now, has
	}
	return out
}

var intervalScopes = []api.Scope{"prod", "prod/eu", "prod/eu/canary", "prod/us", "staging"}

func randomLog(r *rand.Rand, n int) (l list) {
	for i := range n {
		c := Chain{Index: int64(i), Scope: intervalScopes[r.IntN(len(intervalScopes))]}
		switch r.IntN(9) {
		case 0, 1, 2:
			c.Lane, c.Kind = LaneMain, BundleActivated
		case 3:
			c.Lane, c.Kind = LaneMain, BundleWithdrawn
		case 4, 5:
			c.Lane, c.Kind, c.Mode = LaneOverride, SafeModeEntered, "degraded"
		case 6, 7:
			c.Lane, c.Kind, c.Mode = LaneOverride, SafeModeExited, "degraded"
		case 8:
			if r.IntN(2) == 0 {
				c.Lane, c.Kind = LaneOverride, SafeModeOverdue
			}
		}
		l = append(l, c)
	}
	return l
}

// Every interval of every target, from every place in the log, is what a fold up
// to each entry says.
func TestIntervalsAreWhatTheFoldSays(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 150 {
		l := randomLog(r, r.IntN(40))
		for _, scope := range append([]api.Scope{"prod/eu/canary/a", "prod/ap", "dev"}, intervalScopes...) {
			want := l.brute(scope)
			slices.Reverse(want)
			for below := range int64(len(l) + 1) {
				var rest []Interval
				for _, iv := range want {
					if iv.Began < below {
						rest = append(rest, iv)
					}
				}
				if _, ok := l.refold(scope, int(below)); !ok && len(rest) > 0 && rest[0].Ended >= below {
					t.Fatal("the oracle contradicts itself")
				}
				if got := slices.Collect(Intervals(l, scope, below)); !reflect.DeepEqual(got, rest) {
					t.Fatalf("%s before %d of %+v\ngot  %+v\nwant %+v", scope, below, l, got, rest)
				}
			}
		}
	}
}

// counting counts look-ups.
type counting struct {
	list
	n int
}

func (c *counting) Last(lane Lane, scope api.Scope, below int64) (Chain, bool) {
	c.n++
	return c.list.Last(lane, scope, below)
}

// What an inner chain covers costs nothing: a thousand activations further out
// are not looked at to find the one interval of a target.
func TestIntervalsSkipWhatIsCovered(t *testing.T) {
	l := list{{Lane: LaneMain, Scope: "prod/eu", Kind: BundleActivated}}
	for i := range int64(1000) {
		l = append(l, Chain{Lane: LaneMain, Scope: "prod", Kind: BundleActivated, Index: i + 1})
	}
	c := &counting{list: l}
	if got := slices.Collect(Intervals(c, "prod/eu", int64(len(l)))); len(got) != 1 || got[0].Began != 0 || got[0].Ended != -1 {
		t.Errorf("%+v", got)
	}
	if c.n > 30 {
		t.Errorf("%d look-ups", c.n)
	}
}
