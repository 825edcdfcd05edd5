package plan_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sealstone/sealstone/plan"
)

// Recorded contexts and rules of a hostile author take a bounded number of
// steps, what is left out is said, and other services are evaluated.
func TestEvaluationIsBounded(t *testing.T) {
	ones := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat("1,", n), ",") + "]" }
	sum := `{"reduce": [` + ones(1000) + `, {"+": [{"var": "current"}, {"var": "accumulator"}]}, {"var": ""}]}`
	loop := `{"if": [{"some": [{"var": "l"}, {"<": [` + sum + `, 0]}]}, "on", "%s"]}`
	h := newHistory(t)
	h.files["tests/contexts/catalog.jsonl"] = strings.Repeat(`{"context": {"l": `+ones(200)+"}}\n", 400)
	slow := func(variant string) string {
		return fmt.Sprintf(`{"flags": {"a-slow": {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on", "targeting": `+loop+`},
			"b-slow": {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on", "targeting": `+loop+`}}}`, variant, variant)
	}
	h.commit(map[string]string{"services/catalog/flags/slow.json": slow("on")})
	h.edit(checkoutFlags, "[one-page, 10]", "[one-page, 10000]")
	h.commit(map[string]string{"services/catalog/flags/slow.json": slow("off"), "tests/contexts/checkout.jsonl": `{"context": {"targetingKey": "guest-2"}}`})
	p := h.plan(plan.Options{})
	if !slices.Equal(p.Unasked, []plan.Unasked{{Service: "catalog", Flag: "a-slow"}}) {
		t.Errorf("not evaluated: %+v", p.Unasked)
	}
	if len(p.Outcomes) != 1 || p.Outcomes[0].Flag != "checkout-flow" {
		t.Errorf("outcomes: %+v", p.Outcomes)
	}
	var b strings.Builder
	p.WriteText(&b)
	if want := "not evaluated: catalog, from flag a-slow on. A plan takes 50000000 steps at most: what these"; !strings.Contains(b.String(), want) || !strings.Contains(p.Markdown(), want) {
		t.Errorf("no %q in\n%s", want, b.String())
	}
}

// A context that a change drops is evaluated all the same; one that moved or is
// written differently is not dropped.
func TestDroppedContextsAreEvaluated(t *testing.T) {
	buyer := `{"flag": "checkout-flow", "context": {"targetingKey": "guest-2"}}` + "\n"
	other := `{"flag": "checkout-flow", "context": {"targetingKey": "guest-3", "n": 1}}` + "\n"
	for name, c := range map[string]struct{ head, want, not string }{
		"a line":  {other, "RECORDED CONTEXTS\nflag checkout-flow  1 of 2 contexts:  classic → one-page  was tests/contexts/checkout.jsonl:1\n", ""},
		"counted": {other, "evaluated: 2 recorded contexts of services whose flags change; 1 of them the head drops\n", ""},
		"all":     {"", "evaluated: 2 recorded contexts of services whose flags change; 2 of them the head drops\n", ""},
		"moved":   {`{"context":{"n":1.0,"targetingKey":"guest-3"},"flag":"checkout-flow"}` + "\n" + buyer, "classic → one-page  tests/contexts/checkout.jsonl:2\n", "drops"},
	} {
		h := newHistory(t)
		h.commit(map[string]string{"tests/contexts/checkout.jsonl": buyer + other})
		h.edit(checkoutFlags, "[one-page, 10]", "[one-page, 60]")
		h.commit(map[string]string{"tests/contexts/checkout.jsonl": c.head})
		var b strings.Builder
		h.plan(plan.Options{}).WriteText(&b)
		if !strings.Contains(b.String(), c.want) || c.not != "" && strings.Contains(b.String(), c.not) {
			t.Errorf("%s: no %q, or %q, in\n%s", name, c.want, c.not, b.String())
		}
	}
}
