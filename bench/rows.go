package main

import (
	"context"
	"encoding/json"
	"fmt"

	growthbook "github.com/growthbook/growthbook-golang"
	"github.com/launchdarkly/go-server-sdk-evaluation/v3/ldmodel"
	"github.com/open-feature/flagd/core/pkg/sync"

	"github.com/sealstone/sealstone/flags"
)

// A row is one question, asked of several engines. The first subject is ours.
type row struct {
	title    string
	about    string
	unit     string // "" is nanoseconds
	limit    string // the subject that is the limit
	subjects []subject
	results  []result
}

func (l *lineup) rows() ([]row, error) {
	u := user(4711)
	out := []row{
		l.single("Static flag", "No rule: the default variant.", keyStatic, u),
		l.single("One rule", "`ends_with` on the email, which holds.", keyOne, u),
		l.single("Ten rules", "Each: the country is in a list of ten, and the version is at least, and a 50/50 split. "+
			"Five fail on the country, four on the version; the tenth matches.", keyTen, u),
		l.all(u),
	}
	load, err := l.load()
	if err != nil {
		return nil, err
	}
	out = append(out, load)
	for _, r := range []struct{ title, key string }{{"static flag", keyStatic}, {"one rule", keyOne}, {"ten rules", keyTen}} {
		out = append(out, l.through(r.title, r.key, u))
	}
	return out, nil
}

func (l *lineup) single(title, about, key string, u map[string]any) row {
	r := row{title: title, about: about, limit: "written by hand"}
	for _, e := range l.engines {
		if e.for1(u).one(key) != nil {
			r.subjects = append(r.subjects, subject{e.name, func() loop { return e.for1(u).one(key) }})
		}
	}
	return r
}

func (l *lineup) all(u map[string]any) row {
	r := row{title: "All 1,000 flags", about: "60 % static, 30 % one rule, 10 % ten rules; all values looked at.",
		unit: "µs", limit: "written by hand"}
	for _, e := range l.engines {
		if e.for1(u).all != nil {
			r.subjects = append(r.subjects, subject{e.name, func() loop { return e.for1(u).all() }})
		}
	}
	return r
}

func (l *lineup) through(title, key string, u map[string]any) row {
	r := row{title: "Through OpenFeature: " + title, about: "`BooleanValue` with an evaluation context of the same nine attributes.", limit: ofIdle}
	for _, e := range l.openFeature {
		r.subjects = append(r.subjects, subject{e.name, func() loop { return e.for1(u).one(key) }})
	}
	return r
}

const decodeOnly = "encoding/json into `any`"

// load measures from bytes to ready to evaluate. Each engine reads its own form
// of the flags.
func (l *lineup) load() (row, error) {
	ld, err := ldDocuments()
	if err != nil {
		return row{}, err
	}
	gb := string(growthBookDocument())
	c, err := growthbook.NewClient(context.Background())
	if err != nil {
		return row{}, err
	}
	return row{
		title: "Loading 1,000 flags", unit: "µs", limit: decodeOnly,
		about: fmt.Sprintf("From bytes to ready to evaluate; ours also validates everything. The document in flagd's format has %d bytes.", len(l.doc)),
		subjects: []subject{
			repeat("**sealstone**, `flags.Compile`", func() error { _, err := flags.Compile(l.doc); return err }),
			repeat("LaunchDarkly Go SDK, flags from JSON", func() error {
				for _, b := range ld {
					if _, err := ldmodel.NewJSONDataModelSerialization().UnmarshalFeatureFlag(b); err != nil {
						return err
					}
				}
				return nil
			}),
			repeat("GrowthBook Go SDK, `SetJSONFeatures`", func() error { return c.SetJSONFeatures(gb) }),
			l.flagdLoad(),
			repeat(decodeOnly, func() error { var v any; return json.Unmarshal(l.doc, &v) }),
		},
	}, nil
}

// flagdLoad sets the state of an evaluator that is there already: starting one
// compiles schemas, which no later load repeats.
func (l *lineup) flagdLoad() subject {
	return subject{"flagd core, `SetState`", func() loop {
		e, err := flagdState(l.doc)
		if err != nil {
			panic(err) // it worked when all engines were set up
		}
		return repeat("", func() error { return e.SetState(sync.DataSync{FlagData: string(l.doc), Source: flagdSource}) }).start()
	}}
}

func repeat(name string, do func() error) subject {
	return subject{name, func() loop {
		return func(n int) int {
			for range n {
				if err := do(); err != nil {
					panic(err) // it worked when all engines were set up
				}
			}
			return n
		}
	}}
}

// agreeThroughSDK checks our provider against the handle.
func agreeThroughSDK(direct, through engine) error {
	for i := range 100 {
		for _, u := range []map[string]any{user(i), stranger(i)} {
			for _, k := range []string{keyStatic, keyOne, keyTen} {
				if a, b := direct.for1(u).one(k)(1), through.for1(u).one(k)(1); a != b {
					return fmt.Errorf("%s: %d by handle, %d through OpenFeature", k, a, b)
				}
			}
		}
	}
	return nil
}
