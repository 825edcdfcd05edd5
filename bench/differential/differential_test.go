package differential

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealstone/sealstone/flags"
)

var (
	evaluations = flag.Int("evaluations", 20_000, "how many to compare")
	stream      = flag.Uint64("stream", 1, "which of them: another number is another sequence")
)

// TestSameAsFlagd compares many evaluations, the same ones each time.
func TestSameAsFlagd(t *testing.T) {
	c := &comparison{TB: t, counts: map[string]int{}}
	for seed := uint64(0); c.evaluations < *evaluations; seed++ {
		c.run(random{rand.New(rand.NewPCG(*stream, seed))}, 20, 5)
	}
	different := 0
	for _, name := range slices.Sorted(maps.Keys(c.counts)) {
		t.Logf("%6d %s", c.counts[name], name)
		different += c.counts[name]
	}
	t.Logf("%d evaluations, %d of them differ; %d flags were refused", c.evaluations, different, c.refused)
	if different == 0 || different > c.evaluations/2 {
		t.Error("the generator doesn't mix the usual and the odd any more")
	}
	for _, d := range known {
		if c.counts[d.row] == 0 {
			t.Errorf("no evaluation differs by %q: is it still true?", d.row)
		}
	}
}

// FuzzSameAsFlagd lets the fuzzer's bytes choose what is generated.
func FuzzSameAsFlagd(f *testing.F) {
	r := rand.New(rand.NewPCG(2, 0))
	for range 50 {
		seed := make([]byte, 400)
		for i := range seed {
			seed[i] = byte(r.Uint32())
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, choices []byte) {
		c := &comparison{TB: t, counts: map[string]int{}}
		c.run(&entropy{choices}, 2, 2)
	})
}

// FuzzRuleSameAsFlagd takes any rule that flagd's schema and we take, and any
// context.
func FuzzRuleSameAsFlagd(f *testing.F) {
	validator, err := flagdSchema()
	if err != nil {
		f.Fatal(err)
	}
	g := &generator{source: random{rand.New(rand.NewPCG(3, 0))}}
	for range 100 {
		f.Add(encode(g.targeting()), encode(g.context()))
	}
	f.Fuzz(func(t *testing.T, rule, context []byte) {
		var targeting, ctx object
		if json.Unmarshal(rule, &targeting) != nil || json.Unmarshal(context, &ctx) != nil || len(targeting) == 0 || ctx == nil {
			return
		}
		one := object{"state": "ENABLED", "variants": variants(0), "defaultVariant": "off", "targeting": targeting}
		doc := object{"flags": object{"f": one}}
		set, err := flags.Compile(encode(doc))
		if err != nil || validator.Validate(doc) != nil {
			return
		}
		c := &comparison{TB: t, counts: map[string]int{}}
		c.flag(doc, set, loadTheirs(t, encode(doc)), "f", ctx)
	})
}

// A comparison runs documents through both engines and counts the differences,
// by what explains them.
type comparison struct {
	testing.TB
	evaluations int
	counts      map[string]int
	unexplained int
	refused     int // flags that don't compile
}

// run compares one generated document of about n flags for some contexts.
func (c *comparison) run(from source, n, contexts int) {
	g := &generator{source: from}
	doc := g.document(n)
	set, err := compile(doc)
	if err != nil {
		c.refused += n
		return
	}
	c.refused += n - set.Len()
	their := loadTheirs(c, encode(doc))
	for range contexts {
		ctx := g.context()
		for _, key := range set.Keys() {
			c.flag(doc, set, their, key, ctx)
		}
	}
}

// compile leaves out the flags that we refuse: those with a constant that can't
// work where flagd's schema only wants an operand.
func compile(doc object) (*flags.Set, error) {
	set, err := flags.Compile(encode(doc))
	if err == nil {
		return set, nil
	}
	for _, f := range flags.Faults(err) {
		parts := strings.Split(f.Path, "/")
		if len(parts) < 3 || parts[1] != "flags" {
			return nil, err
		}
		delete(doc["flags"].(object), parts[2])
	}
	return flags.Compile(encode(doc))
}

// flag compares one evaluation, and when it is the same, the typed ones and the
// metadata.
func (c *comparison) flag(doc object, set *flags.Set, their theirs, key string, ctx object) {
	c.evaluations++
	now := time.Now()
	r := set.Evaluate(key, ctx, now)
	our := ours(r)
	got, metadata := their.evaluate(key, clone(ctx).(object))
	if time.Now().Unix() != now.Unix() {
		return // flagd reads the clock itself, and it may have read another second
	}
	if !same(r.Metadata, metadata) && len(r.Metadata)+len(metadata) > 0 {
		c.unknown("metadata", "ours  %v\nflagd %v", r.Metadata, metadata)
	}
	if our.equal(got) {
		c.typed(set, their, key, ctx, now)
		return
	}
	rule := expand(doc, doc["flags"].(object)[key].(object)["targeting"])
	s := scope{data: ctx, key: key, now: now}
	if found := localize(rule, s); found != nil {
		c.difference(explain(found), found.op, fmt.Sprintf("%s\nours  %+v\nflagd %+v", found, our, got))
		return
	}
	v, _ := byTheirs(rule, s)
	c.difference(explainResult(v), "result", fmt.Sprintf("rule %s\ndata %s\nours  %+v\nflagd %+v", encode(rule), encode(ctx), our, got))
}

// typed compares what each kind of caller gets.
func (c *comparison) typed(set *flags.Set, their theirs, key string, ctx object, now time.Time) {
	for _, want := range []string{"boolean", "string", "float", "int", "object"} {
		v, code := oursTyped(set, key, ctx, now, want)
		theirV, theirCode := their.typed(key, clone(ctx).(object), want)
		if time.Now().Unix() != now.Unix() || same(v, theirV) && code == theirCode {
			continue
		}
		name := ""
		if f, ok := set.Evaluate(key, ctx, now).Value.(float64); want == "int" && ok && code == string(flags.TypeMismatch) && f != float64(int64(f)) {
			name = wholeNumbers
		}
		c.difference(name, want, fmt.Sprintf("%s as %s\nours  %v %s\nflagd %v %s", key, want, v, code, theirV, theirCode))
	}
}

func (c *comparison) difference(name, kind, text string) {
	if name != "" {
		c.counts[name]++
		return
	}
	c.unknown(kind, "%s", text)
}

func (c *comparison) unknown(kind, format string, args ...any) {
	c.unexplained++
	c.counts["unexplained "+kind]++
	if c.counts["unexplained "+kind] <= 3 {
		c.Errorf("unexplained:\n"+format, args...)
	}
}

// expand puts evaluators in, as both engines do.
func expand(doc object, rule any) any {
	switch x := rule.(type) {
	case object:
		if name, ok := x["$ref"].(string); ok {
			return expand(doc, doc["$evaluators"].(object)[name])
		}
		out := object{}
		for k, v := range x {
			out[k] = expand(doc, v)
		}
		return out
	case []any:
		out := make([]any, len(x))
		for i, v := range x {
			out[i] = expand(doc, v)
		}
		return out
	}
	return rule
}
