package main

import (
	"context"
	"fmt"

	"github.com/open-feature/go-sdk/openfeature"

	"github.com/sealstone/sealstone/sdk"
)

// The lines of the tables that go through OpenFeature's SDK. Ours is the first.
const (
	ofOurs     = "**go-sdk, sealstone's provider**"
	ofIdle     = "go-sdk, provider that does nothing"
	ofConstant = "go-sdk, provider that gives a constant"
	ofHand     = "go-sdk, provider written by hand"
)

// throughOpenFeature asks through OpenFeature's Go SDK: our provider, one that
// does nothing, which is what the SDK itself costs, and one that does nothing
// but answer as ours does, with a variant, a reason and metadata, which the SDK
// copies for the caller; and the rules written by hand behind a provider, which
// gives none of these.
func throughOpenFeature(c *sdk.Client) ([]engine, error) {
	like := c.Provider().BooleanEvaluation(context.Background(), keyOne, false, user(0))
	if len(like.FlagMetadata) == 0 || like.Error() != nil {
		return nil, fmt.Errorf("openfeature: our provider answers %+v", like)
	}
	var out []engine
	for i, e := range []struct {
		name, note string
		p          openfeature.FeatureProvider
	}{
		{ofOurs, "`client.Provider()`; `BooleanValue`", c.Provider()},
		{ofConstant, "does nothing either, but answers with the variant, reason and metadata that ours gives: the SDK copies metadata for each caller", constant{like: like}},
		{ofHand, "the rules written by hand behind a provider, without variant, reason or metadata", newByHand()},
		{ofIdle, "the limit: what the SDK itself costs", idle{}},
	} {
		made, err := openFeature(fmt.Sprintf("bench-%d", i), e.p)
		if err != nil {
			return nil, err
		}
		made.name, made.note = e.name, e.note
		out = append(out, made)
	}
	return out, nil
}

func openFeature(domain string, p openfeature.FeatureProvider) (engine, error) {
	if err := openfeature.SetNamedProviderAndWait(domain, p); err != nil {
		return engine{}, fmt.Errorf("openfeature: %w", err)
	}
	of, ctx := openfeature.NewClient(domain), context.Background()
	return engine{for1: func(u map[string]any) asker {
		attrs := map[string]any{}
		for k, v := range u {
			if k != "targetingKey" {
				attrs[k] = v
			}
		}
		ec := openfeature.NewEvaluationContext(u["targetingKey"].(string), attrs)
		return asker{one: func(key string) loop {
			return func(n int) (on int) {
				for range n {
					if v, err := of.BooleanValue(ctx, key, false, ec); v && err == nil {
						on++
					}
				}
				return on
			}
		}}
	}}, nil
}

// idle answers with the default. It is not openfeature.NoopProvider because the
// SDK skips its own checks for that one.
type idle struct{ openfeature.NoopProvider }

// constant answers every boolean flag alike.
type constant struct {
	openfeature.NoopProvider
	like openfeature.BoolResolutionDetail
}

func (c constant) BooleanEvaluation(context.Context, string, bool, openfeature.FlattenedContext) openfeature.BoolResolutionDetail {
	return c.like
}

// byHand is the provider that somebody would write who has just these flags.
type byHand struct {
	openfeature.NoopProvider
	flags map[string]*handFlag
	rules []handRule
}

func newByHand() byHand { return byHand{flags: handFlags(), rules: handRules()} }

func (h byHand) BooleanEvaluation(_ context.Context, key string, _ bool, u openfeature.FlattenedContext) openfeature.BoolResolutionDetail {
	return openfeature.BoolResolutionDetail{Value: h.flags[key].eval(h.rules, u)}
}
