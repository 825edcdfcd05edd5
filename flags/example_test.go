package flags_test

import (
	"fmt"
	"time"

	"github.com/sealstone/sealstone/flags"
)

const exampleDoc = `{
  "flags": {
    "new-checkout": {
      "state": "ENABLED",
      "variants": {"on": true, "off": false},
      "defaultVariant": "off",
      "targeting": {"if": [{"$ref": "staff"}, "on", {"fractional": [["on", 10], ["off", 90]]}]}
    },
    "page-size": {"state": "ENABLED", "variants": {"small": 20, "large": 100}, "defaultVariant": "small"}
  },
  "$evaluators": {"staff": {"ends_with": [{"var": "email"}, "@example.com"]}},
  "metadata": {"flagSetId": "shop"}
}`

func Example() {
	set, err := flags.Compile([]byte(exampleDoc))
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := flags.Context{"targetingKey": "user-1", "email": "ada@example.com"}

	on, r := set.Boolean("new-checkout", ctx, false, time.Now())
	fmt.Println(on, r.Variant, r.Reason)

	size, r := set.Int("page-size", ctx, 10, time.Now())
	fmt.Println(size, r.Variant, r.Reason)

	_, r = set.String("page-size", ctx, "none", time.Now())
	fmt.Println(r.Reason, r.ErrorCode)
	// Output:
	// true on TARGETING_MATCH
	// 20 small STATIC
	// ERROR TYPE_MISMATCH
}

func ExampleFlag_Boolean() {
	set, err := flags.Compile([]byte(exampleDoc))
	if err != nil {
		fmt.Println(err)
		return
	}
	checkout := set.Flag("new-checkout") // looked up once
	for _, user := range []string{"user-1", "user-2", "user-3", "user-16"} {
		on, _ := checkout.Boolean(flags.Context{"targetingKey": user}, false, time.Now())
		fmt.Println(user, on)
	}
	// Output:
	// user-1 false
	// user-2 false
	// user-3 false
	// user-16 false
}

func ExampleFaults() {
	_, err := flags.Compile([]byte(`{"flags":{"a":{"state":"ON","variants":{"x":1,"y":"2"},"targeting":{"iff":[true]}}}}`))
	for _, f := range flags.Faults(err) {
		fmt.Println(f.Path, "-", f.Msg)
	}
	// Output:
	// /flags/a/state - state is ENABLED or DISABLED
	// /flags/a/variants/y - variants are of one type: this is a string, others are of type number
	// /flags/a/targeting/iff - unknown operator "iff"
}

func ExampleChanged() {
	before, _ := flags.Compile([]byte(`{"flags":{
		"a":{"state":"ENABLED","variants":{"x":1}},
		"b":{"state":"ENABLED","variants":{"x":1}}}}`))
	after, _ := flags.Compile([]byte(`{"flags":{
		"b":{"variants":{"x":1.0},"state":"ENABLED"},
		"c":{"state":"ENABLED","variants":{"x":1}}}}`))
	fmt.Println(flags.Changed(before, after))
	// Output: [a c]
}

func ExampleLint() {
	for _, w := range flags.Lint([]byte(`{"flags":{"a":{"state":"ENABLED","variants":{"x":1},
		"targeting":{"if":[{"in":[1,{"var":"floor"}]},"x"]}}}}`)) {
		fmt.Println(w.Path, w.Rule)
	}
	// Output: /flags/a/targeting/if/0/in in-number
}
