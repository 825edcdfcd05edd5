package flags

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The rules of the benchmarks, each also written by hand over the same map. The
// hand-written ones are the floor: they know their one rule and report no
// variant and no reason.

const splitByKey = `{"fractional":[["on",50],["off",50]]}`

const emailRule = `{"if":[{"ends_with":[{"var":"email"},"@example.com"]},"on","off"]}`

func benchContext() Context {
	return Context{
		"targetingKey": "user-4711", "email": "ada@example.com", "country": "PT", "version": "2.11.3",
		"plan": "pro", "age": 37, "beta": true, "device": "mobile", "locale": "pt-PT",
	}
}

var (
	countries = strings.Fields("DE FR IT ES NL BE AT CH DK SE")
	others    = strings.Fields("PT PL CZ SK HU RO BG GR FI NO")
)

// tenRules: five fail on the country, four on the version, the tenth matches.
func tenRules() string {
	var b strings.Builder
	b.WriteString(`{"if":[`)
	for i := range 10 {
		list, least := countries, "2.0.0"
		if i >= 5 {
			list, least = others, "3."+strconv.Itoa(i)+".0"
		}
		if i == 9 {
			least = "2.4.0"
		}
		names, _ := json.Marshal(list)
		fmt.Fprintf(&b, `{"and":[{"in":[{"var":"country"},%s]},{"sem_ver":[{"var":"version"},">=",%q]}]},`, names, least)
		fmt.Fprintf(&b, `{"fractional":[{"cat":["rule-%d",{"var":"targetingKey"}]},["on",50],["off",50]]},`, i)
	}
	return b.String() + `"off"]}`
}

func boolFlag(targeting string) string {
	f := `{"state":"ENABLED","variants":{"on":true,"off":false},"defaultVariant":"off"`
	if targeting != "" {
		f += `,"targeting":` + targeting
	}
	return f + "}"
}

func benchSet(tb testing.TB, targeting string) *Set {
	tb.Helper()
	return mustCompile(tb, `{"flags":{"f":`+boolFlag(targeting)+`}}`)
}

func mustCompile(tb testing.TB, doc string) *Set {
	tb.Helper()
	s, err := Compile([]byte(doc))
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

// thousand is a document of 600 static flags, 300 of one rule, 100 of ten.
func thousand() string {
	rules := tenRules()
	var b strings.Builder
	b.WriteString(`{"flags":{`)
	for i := range 1000 {
		if i > 0 {
			b.WriteByte(',')
		}
		targeting := ""
		switch i % 10 {
		case 0, 1, 2:
			targeting = emailRule
		case 3:
			targeting = rules
		}
		fmt.Fprintf(&b, `"flag-%04d":%s`, i, boolFlag(targeting))
	}
	return b.String() + `}}`
}

type handFlag struct{ on, off, preset bool }

func (f *handFlag) email(ctx Context) bool {
	if s, ok := ctx["email"].(string); ok && strings.HasSuffix(s, "@example.com") {
		return f.on
	}
	return f.off
}

type handRule struct {
	countries map[string]bool
	least     [3]int
	seed      string
}

func handRules() []handRule {
	rules := make([]handRule, 10)
	for i := range rules {
		list, least := countries, [3]int{2, 0, 0}
		if i >= 5 {
			list, least = others, [3]int{3, i, 0}
		}
		if i == 9 {
			least = [3]int{2, 4, 0}
		}
		rules[i] = handRule{map[string]bool{}, least, "rule-" + strconv.Itoa(i)}
		for _, c := range list {
			rules[i].countries[c] = true
		}
	}
	return rules
}

func (f *handFlag) ten(rules []handRule, ctx Context) bool {
	for i := range rules {
		r := &rules[i]
		country, _ := ctx["country"].(string)
		if !r.countries[country] {
			continue
		}
		version, _ := ctx["version"].(string)
		if !atLeast(version, r.least) {
			continue
		}
		key, _ := ctx["targetingKey"].(string)
		if uint64(murmur3(r.seed+key))*100>>32 < 50 {
			return f.on
		}
		return f.off
	}
	return f.off
}

func atLeast(s string, least [3]int) bool {
	for i := range 3 {
		part, rest, _ := strings.Cut(s, ".")
		n, err := strconv.Atoi(part)
		if err != nil {
			return false
		}
		if n != least[i] {
			return n > least[i]
		}
		s = rest
	}
	return true
}

var (
	sink       bool
	sinkResult Resolution
)

// Each of the three rules is measured by handle with the whole Resolution and as
// a bare value; ByHand gives the bare value.

func BenchmarkStatic(b *testing.B) { benchFlag(b, "") }
func BenchmarkStaticByHand(b *testing.B) {
	m := map[string]*handFlag{"f": {true, false, false}}
	b.ReportAllocs()
	for b.Loop() {
		sink = m["f"].preset
	}
}

func BenchmarkEndsWith(b *testing.B) { benchFlag(b, emailRule) }
func BenchmarkEndsWithByHand(b *testing.B) {
	m, ctx := map[string]*handFlag{"f": {on: true}}, benchContext()
	b.ReportAllocs()
	for b.Loop() {
		sink = m["f"].email(ctx)
	}
}

func BenchmarkTenRules(b *testing.B) { benchFlag(b, tenRules()) }
func BenchmarkTenRulesByHand(b *testing.B) {
	m, ctx, rules := map[string]*handFlag{"f": {on: true}}, benchContext(), handRules()
	b.ReportAllocs()
	for b.Loop() {
		sink = m["f"].ten(rules, ctx)
	}
}

func BenchmarkSplit(b *testing.B) { benchFlag(b, splitByKey) }

func BenchmarkStaticByKey(b *testing.B) {
	s := benchSet(b, "")
	ctx, now := benchContext(), time.Now()
	b.ReportAllocs()
	for b.Loop() {
		sink, sinkResult = s.Boolean("f", ctx, false, now)
	}
}

func benchFlag(b *testing.B, targeting string) {
	f, ctx, now := benchSet(b, targeting).Flag("f"), benchContext(), time.Now()
	b.ReportAllocs()
	for b.Loop() {
		sink, _ = f.Boolean(ctx, false, now)
	}
}

func BenchmarkAll1000(b *testing.B) {
	s := mustCompile(b, thousand())
	ctx, now := benchContext(), time.Now()
	dst := make([]Resolution, 0, s.Len())
	b.ReportAllocs()
	for b.Loop() {
		dst = s.EvaluateAll(ctx, now, dst[:0])
	}
}

func BenchmarkEach1000(b *testing.B) {
	s := mustCompile(b, thousand())
	ctx, now, keys := benchContext(), time.Now(), s.Keys()
	b.ReportAllocs()
	for b.Loop() {
		for _, k := range keys {
			sink, _ = s.Boolean(k, ctx, false, now)
		}
	}
}

func BenchmarkEach1000Parallel(b *testing.B) {
	s := mustCompile(b, thousand())
	ctx, now, keys := benchContext(), time.Now(), s.Keys()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			for _, k := range keys {
				s.Boolean(k, ctx, false, now)
			}
		}
	})
}

func BenchmarkEach1000ByHand(b *testing.B) {
	ctx, rules, keys := benchContext(), handRules(), mustCompile(b, thousand()).Keys()
	set := map[string]*handFlag{}
	for _, k := range keys {
		set[k] = &handFlag{on: true}
	}
	b.ReportAllocs()
	for b.Loop() {
		for i, k := range keys {
			f := set[k]
			switch i % 10 {
			case 0, 1, 2:
				sink = f.email(ctx)
			case 3:
				sink = f.ten(rules, ctx)
			default:
				sink = f.preset
			}
		}
	}
}

func BenchmarkLoad1000(b *testing.B) {
	doc := []byte(thousand())
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(doc); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoad1000DecodeOnly(b *testing.B) {
	doc := []byte(thousand())
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		var v any
		if err := json.Unmarshal(doc, &v); err != nil {
			b.Fatal(err)
		}
	}
}
