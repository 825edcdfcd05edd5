package main

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"time"

	"github.com/diegoholiveira/jsonlogic/v3"
	growthbook "github.com/growthbook/growthbook-golang"
	"github.com/launchdarkly/go-sdk-common/v3/ldcontext"
	"github.com/launchdarkly/go-sdk-common/v3/ldvalue"
	"github.com/launchdarkly/go-server-sdk-evaluation/v3/ldbuilders"
	"github.com/launchdarkly/go-server-sdk-evaluation/v3/ldmodel"
	ldclient "github.com/launchdarkly/go-server-sdk/v7"
	"github.com/launchdarkly/go-server-sdk/v7/ldcomponents"
	"github.com/launchdarkly/go-server-sdk/v7/testhelpers/ldtestdata"
	"github.com/open-feature/flagd/core/pkg/evaluator"
	"github.com/open-feature/flagd/core/pkg/logger"
	"github.com/open-feature/flagd/core/pkg/store"
	"github.com/open-feature/flagd/core/pkg/sync"
	"go.uber.org/zap"
)

// launchDarkly serves the flags from the SDK's own test data source, without
// events: the fastest way to run it.
func launchDarkly() ([]engine, func(), error) {
	td := ldtestdata.DataSource()
	for i := range numFlags {
		td.UsePreconfiguredFlag(ldFlag(i))
	}
	c, err := ldclient.MakeCustomClient("sdk-key", ldclient.Config{
		DataSource: td, Events: ldcomponents.NoEvents(), Logging: ldcomponents.NoLogging(),
	}, 10*time.Second)
	if err != nil {
		return nil, nil, fmt.Errorf("launchdarkly: %w", err)
	}
	value := engine{
		name: "LaunchDarkly Go SDK", note: "`BoolVariation`, events off; all flags: `AllFlagsState`",
		for1: func(u map[string]any) asker {
			lu := ldUser(u)
			return asker{one: func(key string) loop { return ldLoop(c, lu, key) }, all: func() loop { return ldAll(c, lu) }}
		},
	}
	details := engine{
		name: "LaunchDarkly Go SDK with details", note: "`BoolVariationDetail`",
		for1: func(u map[string]any) asker {
			lu := ldUser(u)
			return asker{one: func(key string) loop {
				return func(n int) (on int) {
					for range n {
						if v, _, err := c.BoolVariationDetail(key, lu, false); v && err == nil {
							on++
						}
					}
					return on
				}
			}}
		},
	}
	return []engine{value, details}, func() { _ = c.Close() }, nil
}

func ldLoop(c *ldclient.LDClient, u ldcontext.Context, key string) loop {
	return func(n int) (on int) {
		for range n {
			if v, err := c.BoolVariation(key, u, false); v && err == nil {
				on++
			}
		}
		return on
	}
}

func ldAll(c *ldclient.LDClient, u ldcontext.Context) loop {
	keys := allKeys()
	return func(n int) (on int) {
		for range n {
			state := c.AllFlagsState(u)
			for _, k := range keys {
				if state.GetValue(k).BoolValue() {
					on++
				}
			}
		}
		return on
	}
}

func ldUser(u map[string]any) ldcontext.Context {
	b := ldcontext.NewBuilder(u["targetingKey"].(string))
	for k, v := range u {
		if k != "targetingKey" {
			b.SetValue(k, ldvalue.CopyArbitraryValue(v))
		}
	}
	return b.Build()
}

// ldFlag is a flag whose variation 0 is on. LaunchDarkly has no >= for versions:
// it is "not less".
func ldFlag(i int) ldmodel.FeatureFlag {
	b := ldbuilders.NewFlagBuilder(keyOf(i)).Version(1).On(true).Salt("salt").
		Variations(ldvalue.Bool(true), ldvalue.Bool(false)).OffVariation(1).FallthroughVariation(1)
	switch shapeOf(i) {
	case oneRule:
		b.AddRule(ldbuilders.NewRuleBuilder().ID("email").Variation(0).
			Clauses(ldbuilders.Clause("email", ldmodel.OperatorEndsWith, ldvalue.String(emailSuffix))))
	case tenRules:
		for _, r := range theTen() {
			var list []ldvalue.Value
			for _, c := range r.countries {
				list = append(list, ldvalue.String(c))
			}
			b.AddRule(ldbuilders.NewRuleBuilder().ID(r.seed).
				Clauses(ldbuilders.Clause("country", ldmodel.OperatorIn, list...),
					ldbuilders.Negate(ldbuilders.Clause("version", ldmodel.OperatorSemVerLessThan, ldvalue.String(r.least)))).
				VariationOrRollout(ldbuilders.Rollout(ldbuilders.Bucket(0, 50_000), ldbuilders.Bucket(1, 50_000))))
		}
	}
	return b.Build()
}

// ldDocuments are the flags as LaunchDarkly sends them.
func ldDocuments() ([][]byte, error) {
	var out [][]byte
	for i := range numFlags {
		b, err := ldmodel.NewJSONDataModelSerialization().MarshalFeatureFlag(ldFlag(i))
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

func growthBook() (engine, error) {
	c, err := growthbook.NewClient(context.Background(), growthbook.WithJsonFeatures(string(growthBookDocument())))
	if err != nil {
		return engine{}, fmt.Errorf("growthbook: %w", err)
	}
	keys, ctx := allKeys(), context.Background()
	return engine{
		name: "GrowthBook Go SDK", note: "`EvalFeature`; all flags: one by one, as it has no call for all",
		for1: func(u map[string]any) asker {
			attrs := growthbook.Attributes{"id": u["targetingKey"]}
			for k, v := range u {
				attrs[k] = v
			}
			mine, err := c.WithAttributes(attrs)
			if err != nil {
				panic(err) // strings, numbers and booleans only
			}
			ask := func(k string) bool { return mine.EvalFeature(ctx, k).On }
			return asker{one: func(key string) loop { return each([]string{key}, ask) }, all: func() loop { return each(keys, ask) }}
		},
	}, nil
}

func growthBookDocument() []byte {
	features := map[string]any{}
	for i := range numFlags {
		f := map[string]any{"defaultValue": false}
		switch shapeOf(i) {
		case oneRule:
			f["rules"] = []any{map[string]any{"condition": map[string]any{"email": op("$regex", regexp.QuoteMeta(emailSuffix)+"$")}, "force": true}}
		case tenRules:
			var rules []any
			for _, r := range theTen() {
				rules = append(rules, map[string]any{
					"condition":  map[string]any{"country": op("$in", r.countries), "version": op("$vgte", r.least)},
					"variations": []any{true, false}, "weights": []any{0.5, 0.5}, "key": r.seed, "hashAttribute": "id", "hashVersion": 2,
				})
			}
			f["rules"] = rules
		}
		features[keyOf(i)] = f
	}
	b, err := json.Marshal(features)
	if err != nil {
		panic(err) // strings, numbers and booleans only
	}
	return b
}

func quiet() *logger.Logger { return logger.NewLogger(zap.NewNop(), false) }

const flagdSource = "bench"

func flagdState(doc []byte) (*evaluator.JSON, error) {
	st, err := store.NewStore(quiet(), []string{flagdSource})
	if err != nil {
		return nil, fmt.Errorf("flagd: %w", err)
	}
	e := evaluator.NewJSON(quiet(), st)
	if err := e.SetState(sync.DataSync{FlagData: string(doc), Source: flagdSource}); err != nil {
		return nil, fmt.Errorf("flagd: %w", err)
	}
	return e, nil
}

// flagd is flagd's evaluator, which the daemon and its in-process provider run.
func flagd(doc []byte) (engine, error) {
	e, err := flagdState(doc)
	if err != nil {
		return engine{}, err
	}
	ctx := context.Background()
	return engine{
		name: "flagd core", note: "`ResolveBooleanValue`; all flags: `ResolveAllValues`",
		for1: func(u map[string]any) asker {
			return asker{
				one: func(key string) loop {
					return each([]string{key}, func(k string) bool {
						v, _, _, _, err := e.ResolveBooleanValue(ctx, "", k, u)
						return v && err == nil
					})
				},
				all: func() loop { return flagdAll(e, u) },
			}
		},
	}, nil
}

func flagdAll(e *evaluator.JSON, u map[string]any) loop {
	return func(n int) (on int) {
		for range n {
			values, _, err := e.ResolveAllValues(context.Background(), "", u)
			if err != nil {
				panic(err) // its own store
			}
			for i := range values {
				if values[i].Value == true {
					on++
				}
			}
		}
		return on
	}
}

// bareJSONLogic is the library that flagd evaluates with, with flagd's operators,
// its rules parsed beforehand. flagd registers the operators.
func bareJSONLogic(doc []byte) (engine, error) {
	var parsed struct {
		Flags map[string]struct{ Targeting any }
	}
	if err := json.Unmarshal(doc, &parsed); err != nil {
		return engine{}, err
	}
	rules, ruled := map[string]any{}, []string(nil)
	for _, k := range allKeys() {
		if t := parsed.Flags[k].Targeting; t != nil {
			rules[k], ruled = t, append(ruled, k)
		}
	}
	return engine{
		name: "bare JsonLogic library", note: "diegoholiveira/jsonlogic with flagd's operators; a rule's result only, so no static flags; all flags: the 400 with rules",
		for1: func(u map[string]any) asker {
			data := map[string]any{"$flagd": map[string]any{"flagKey": "", "timestamp": 0.0}}
			for k, v := range u {
				data[k] = v
			}
			ask := func(k string) bool {
				v, err := jsonlogic.ApplyInterface(rules[k], data)
				return err == nil && v == "on"
			}
			return asker{
				one: func(key string) loop {
					if rules[key] == nil {
						return nil
					}
					return each([]string{key}, ask)
				},
				all: func() loop { return each(ruled, ask) },
			}
		},
	}, nil
}
