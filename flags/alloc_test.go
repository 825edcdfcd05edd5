package flags

import (
	"runtime/debug"
	"slices"
	"testing"
	"time"
)

// operatorRules has each operator at least once, and the shapes that take other
// code: constants and rules as operands, as a condition and as a value.
var operatorRules = map[string]string{
	"var": `{"var":"plan"}`, "var default": `{"var":["nope","on"]}`, "var path": `{"var":"user.plan"}`, "var index": `{"var":"tags.1"}`,
	"var computed": `{"var":{"var":"which"}}`, "flagKey": `{"var":"$flagd.flagKey"}`, "timestamp": `{">":[{"var":"$flagd.timestamp"},5]}`,
	"missing": `{"missing":["plan","nope"]}`, "missing_some": `{"missing_some":[1,["plan","nope"]]}`,
	"if": `{"if":[{"var":"beta"},"on",{"var":"nope"},"off","on"]}`, "?:": `{"?:":[{"var":"beta"},"on","off"]}`,
	"==": `{"==":[{"var":"plan"},"pro"]}`, "== number": `{"==":[{"var":"count"},3]}`, "== kinds": `{"==":[{"var":"digits"},{"var":"count"}]}`,
	"!=": `{"!=":[{"var":"plan"},"pro"]}`, "===": `{"===":[{"var":"plan"},{"var":"country"}]}`, "!==": `{"!==":[{"var":"plan"},1]}`,
	">": `{">":[{"var":"count"},2]}`, ">=": `{">=":[{"var":"digits"},2]}`, "<": `{"<":[1,{"var":"count"},9]}`, "<=": `{"<=":[{"var":"plan"},"z"]}`,
	"< text": `{"<":[{"var":"plan"},9]}`,
	"%":      `{"%":[{"var":"count"},2]}`, "/": `{"/":[{"var":"count"},0]}`, "*": `{"*":[{"var":"count"},2]}`,
	"+": `{"+":[{"var":"count"},{"var":"digits"},"abc"]}`, "-": `{"-":[{"var":"count"}]}`,
	"min": `{"min":[{"var":"count"},2]}`, "max": `{"max":{"var":"numbers"}}`,
	"and": `{"and":[{"var":"beta"},{"var":"plan"}]}`, "or": `{"or":[{"var":"nope"},{"var":"plan"}]}`,
	"!": `{"!":{"var":"tags"}}`, "!!": `{"!!":[{"var":"beta"}]}`,
	"cat": `{"cat":["a",{"var":"count"},{"cat":[{"var":"beta"},{"var":"tags"}]}]}`, "substr": `{"substr":[{"var":"umlauts"},1,2]}`,
	"merge": `{"merge":[{"var":"tags"},["x"],{"var":"plan"}]}`, "in": `{"in":[{"var":"country"},["PT","DE","FR","IT","ES"]]}`,
	"in text": `{"in":[{"var":"count"},{"var":"digits"}]}`, "in list": `{"in":["b",{"var":"tags"}]}`,
	"map": `{"map":[{"var":"numbers"},{"*":[{"var":""},2]}]}`, "filter": `{"filter":[{"var":"numbers"},{">":[{"var":""},1]}]}`,
	"all": `{"all":[{"var":"numbers"},{">":[{"var":""},0]}]}`, "none": `{"none":[{"var":"items"},{"==":[{"var":"n"},7]}]}`,
	"some":        `{"some":[{"var":"tags"},{"starts_with":[{"var":""},"b"]}]}`,
	"reduce":      `{"reduce":[{"var":"numbers"},{"+":[{"var":"current"},{"var":"accumulator"}]},0]}`,
	"starts_with": `{"starts_with":[{"var":"email"},"ada"]}`, "ends_with": `{"ends_with":[{"var":"email"},{"var":"domain"}]}`,
	"sem_ver": `{"sem_ver":[{"var":"version"},">=","2.1.0-rc.1"]}`, "sem_ver number": `{"sem_ver":[{"var":"count"},"^",{"var":"version"}]}`,
	"sem_ver bad": `{"sem_ver":[{"var":"plan"},"~","2.1.0"]}`,
	"fractional":  splitByKey, "fractional by": `{"fractional":[{"cat":[{"var":"$flagd.flagKey"},{"var":"email"}]},["on",1],["off",1]]}`,
	"fractional computed": `{"fractional":[["on",{"var":"count"}],["off",{"-":[9,{"var":"$flagd.timestamp"}]}]]}`,
	"fractional null":     `{"fractional":[{"var":"count"},["on",1]]}`,
	"ref":                 `{"if":[{"$ref":"staff"},"on"]}`, "array": `[{"var":"plan"},1]`, "literal": `["a",1]`,
}

func operatorContext() Context {
	return Context{
		"targetingKey": "u", "plan": "pro", "country": "PT", "count": 3, "digits": "31", "beta": true, "which": "plan",
		"umlauts": "äöüß", "tags": []any{"a", "b"}, "numbers": []any{1.0, 2.0, 3.0}, "items": []any{map[string]any{"n": 1}},
		"user": map[string]any{"plan": "pro"}, "email": "ada@example.com", "domain": "example.com", "version": "2.11.3",
	}
}

func operatorSet(tb testing.TB, targeting string) *Set {
	tb.Helper()
	return mustCompile(tb, `{"$evaluators":{"staff":{"ends_with":[{"var":"email"},"@example.com"]}},"flags":{"f":`+boolFlag(targeting)+`}}`)
}

func TestOperatorsDoNotAllocate(t *testing.T) {
	now := time.Now()
	for name, rule := range operatorRules {
		asValue := `{"if":[true,` + rule + `]}`
		asCondition := `{"if":[` + rule + `,"on","off"]}`
		for _, targeting := range []string{asValue, asCondition} {
			s, ctx := operatorSet(t, targeting), operatorContext()
			noAllocs(t, name, func() { sinkResult = s.Evaluate("f", ctx, now) })
		}
	}
	for op := range operators {
		if _, ok := operatorRules[op]; !ok {
			t.Errorf("no rule measures %s", op)
		}
	}
}

// raceEnabled: the race detector makes sync.Pool drop items at random.
var raceEnabled = func() bool {
	info, _ := debug.ReadBuildInfo()
	return info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}()

func noAllocs(t *testing.T, name string, evaluate func()) {
	t.Helper()
	evaluate() // fills the pool
	if n := testing.AllocsPerRun(100, evaluate); n != 0 && !raceEnabled {
		t.Errorf("%s: %v allocations per evaluation", name, n)
	}
}

func TestAccessorsDoNotAllocate(t *testing.T) {
	now, ctx := time.Now(), benchContext()
	s := mustCompile(t, thousand())
	for name, rule := range map[string]string{"static": "", "one rule": emailRule, "ten rules": tenRules()} {
		f := benchSet(t, rule).Flag("f")
		noAllocs(t, name, func() { sink, sinkResult = f.Boolean(ctx, false, now) })
		noAllocs(t, name+", untyped", func() { sinkResult = f.Evaluate(ctx, now) })
		noAllocs(t, name+", mismatch", func() { _, sinkResult = f.String(ctx, "", now) })
		noAllocs(t, name+", float", func() { _, sinkResult = f.Float(ctx, 0, now) })
		noAllocs(t, name+", int", func() { _, sinkResult = f.Int(ctx, 0, now) })
		noAllocs(t, name+", object", func() { _, sinkResult = f.Object(ctx, nil, now) })
	}
	noAllocs(t, "missing", func() { sink, sinkResult = s.Boolean("nope", ctx, false, now) })
	all := make([]Resolution, 0, s.Len())
	noAllocs(t, "all", func() { all = s.EvaluateAll(ctx, now, all[:0]) })
}
