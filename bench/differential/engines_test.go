package differential

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"strings"
	gosync "sync"
	"testing"
	"time"

	"github.com/diegoholiveira/jsonlogic/v3"
	schema "github.com/open-feature/flagd-schemas/json"
	"github.com/open-feature/flagd/core/pkg/evaluator"
	"github.com/open-feature/flagd/core/pkg/logger"
	"github.com/open-feature/flagd/core/pkg/model"
	"github.com/open-feature/flagd/core/pkg/store"
	"github.com/open-feature/flagd/core/pkg/sync"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.uber.org/zap"

	"github.com/sealstone/sealstone/flags"
)

// An outcome is what both engines say of one evaluation.
type outcome struct {
	Value   any
	Variant string
	Reason  string
	Code    string
}

func (o outcome) equal(p outcome) bool {
	return same(o.Value, p.Value) && o.Variant == p.Variant && o.Reason == p.Reason && o.Code == p.Code
}

// theirs is a document in flagd.
type theirs struct{ *evaluator.JSON }

// judge is one flagd for all documents, as starting one compiles schemas.
var judge = gosync.OnceValues(func() (*evaluator.JSON, error) {
	log := logger.NewLogger(zap.NewNop(), false)
	st, err := store.NewStore(log, []string{"test"})
	if err != nil {
		return nil, err
	}
	return evaluator.NewJSON(log, st), nil
})

// loadTheirs replaces what the judge holds.
func loadTheirs(t testing.TB, doc []byte) theirs {
	t.Helper()
	e, err := judge()
	if err == nil {
		err = e.SetState(sync.DataSync{FlagData: string(doc), Source: "test"})
	}
	if err != nil {
		t.Fatalf("flagd refuses what we take: %v\n%s", err, doc)
	}
	return theirs{e}
}

// flagdSchema is the schema of flagd's documents.
var flagdSchema = gosync.OnceValues(func() (*jsonschema.Schema, error) {
	c := jsonschema.NewCompiler()
	for name, text := range map[string]string{"flagd": schema.FlagdSchema, "flags": schema.FlagSchema, "targeting": schema.TargetingSchema} {
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err == nil {
			err = c.AddResource("https://flagd.dev/schema/v0/"+name+".json", v)
		}
		if err != nil {
			return nil, err
		}
	}
	return c.Compile("https://flagd.dev/schema/v0/flagd.json")
})

func (e theirs) evaluate(key string, ctx object) (outcome, object) {
	v := e.ResolveAsAnyValue(context.Background(), "", key, ctx)
	o := outcome{v.Value, v.Variant, v.Reason, ""}
	if v.Error != nil {
		o = outcome{nil, "", model.ErrorReason, v.Error.Error()}
	}
	if o.Reason == model.FallbackReason {
		o.Reason = model.DefaultReason // FALLBACK is an internal name: it is never sent
	}
	return o, v.Metadata
}

// typed asks for one type; what it gives is the value, or nothing and the code.
func (e theirs) typed(key string, ctx object, want string) (v any, code string) {
	var err error
	var reason string
	bg := context.Background()
	switch want {
	case "boolean":
		v, _, reason, _, err = e.ResolveBooleanValue(bg, "", key, ctx)
	case "string":
		v, _, reason, _, err = e.ResolveStringValue(bg, "", key, ctx)
	case "float":
		v, _, reason, _, err = e.ResolveFloatValue(bg, "", key, ctx)
	case "int":
		v, _, reason, _, err = e.ResolveIntValue(bg, "", key, ctx)
	case "object":
		v, _, reason, _, err = e.ResolveObjectValue(bg, "", key, ctx)
	}
	switch {
	case err != nil:
		return nil, err.Error()
	case reason == model.FallbackReason || reason == model.DisabledReason:
		return nil, ""
	}
	return v, ""
}

func ours(r flags.Resolution) outcome {
	return outcome{r.Value, r.Variant, string(r.Reason), string(r.ErrorCode)}
}

func oursTyped(set *flags.Set, key string, ctx object, now time.Time, want string) (any, string) {
	var v any
	var r flags.Resolution
	switch want {
	case "boolean":
		v, r = set.Boolean(key, ctx, false, now)
	case "string":
		v, r = set.String(key, ctx, "", now)
	case "float":
		v, r = set.Float(key, ctx, 0, now)
	case "int":
		v, r = set.Int(key, ctx, 0, now)
	case "object":
		v, r = set.Object(key, ctx, nil, now)
	}
	if r.ErrorCode != "" || r.Variant == "" {
		return nil, string(r.ErrorCode)
	}
	return v, ""
}

// A scope is where a rule is evaluated: on a whole context, or inside a loop on
// one element, or inside a reduction.
type scope struct {
	kind string // "", "item", "reduce"
	data any
	key  string // of the flag
	now  time.Time
}

var errTheirs = errors.New("flagd fails")

// byTheirs evaluates any part of a rule by the library that flagd uses.
func byTheirs(rule any, s scope) (v any, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errTheirs, r)
		}
	}()
	v, err = jsonlogic.ApplyInterface(clone(rule), s.theirData())
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errTheirs, err)
	}
	return clone(v), nil
}

func (s scope) theirData() any {
	data := clone(s.data)
	if s.kind == "" {
		data.(object)["$flagd"] = object{"flagKey": s.key, "timestamp": float64(s.now.Unix())}
	}
	return data
}

// byOurs evaluates any part of a rule by explaining a flag that has it. Inside a
// loop the flag has a loop of one element.
func byOurs(rule any, s scope) (any, error) {
	ctx := s.data
	unwrap := func(v any) any { return v.([]any)[0] }
	switch s.kind {
	case "":
		rule = object{"merge": []any{[]any{rule}}}
	case "item":
		rule, ctx = object{"map": []any{object{"var": "x"}, rule}}, object{"x": []any{s.data}}
	case "reduce":
		d := s.data.(object)
		rule = object{"reduce": []any{object{"var": "x"}, rule, object{"var": "acc"}}}
		ctx, unwrap = object{"x": []any{d["current"]}, "acc": d["accumulator"]}, func(v any) any { return v }
	}
	doc := encode(object{"flags": object{s.key: object{"state": "ENABLED", "variants": object{"on": true}, "targeting": rule}}})
	set, err := flags.Compile(doc)
	if err != nil {
		return nil, err
	}
	steps := set.Explain(s.key, ctx.(object), s.now).Steps
	if len(steps) == 0 || len(steps) == 1000 {
		return nil, errors.New("no whole explanation")
	}
	return s.plain(unwrap(steps[len(steps)-1].Value)), nil
}

// plain puts the whole context where an explanation leaves it out.
func (s scope) plain(v any) any {
	switch x := v.(type) {
	case nil, bool, string, float64, object:
		return v
	case []any:
		out := make([]any, len(x))
		for i, e := range x {
			out[i] = s.plain(e)
		}
		return out
	}
	return s.theirData()
}

// same compares values as JSON has them, in which 0 and -0 differ.
func same(a, b any) bool {
	switch x := a.(type) {
	case object:
		y, ok := b.(object)
		return ok && maps.EqualFunc(x, y, same)
	case float64:
		y, ok := b.(float64)
		return ok && (x == y && math.Signbit(x) == math.Signbit(y) || math.IsNaN(x) && math.IsNaN(y))
	case []any:
		y, ok := b.([]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for i := range x {
			if !same(x[i], y[i]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(a, b)
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // what is generated is JSON
	}
	return b
}

// clone copies JSON data, so that an engine that writes to it harms nobody.
func clone(v any) any {
	switch x := v.(type) {
	case object:
		out := make(object, len(x))
		for k, e := range x {
			out[k] = clone(e)
		}
		return out
	case []any:
		out := make([]any, len(x))
		for i, e := range x {
			out[i] = clone(e)
		}
		return out
	case int:
		return float64(x)
	}
	return v
}
