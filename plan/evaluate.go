package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/flags"
)

// An Outcome counts the recorded contexts for which a flag gives something else.
type Outcome struct {
	Service  string  `json:"service"`
	Flag     string  `json:"flag"`
	From     string  `json:"from"` // a variant, or an error's code
	To       string  `json:"to"`
	Contexts int     `json:"contexts"`
	Of       int     `json:"of"`   // recorded contexts that ask for the flag
	Line     int     `json:"line"` // of the first one, in tests/contexts/<service>.jsonl
	Places   []Place `json:"places"`
}

// A question is a line of recorded contexts.
type question struct {
	Flag    string        `json:"flag"`
	Context flags.Context `json:"context"`
}

// maxPairs bounds how many pairs of flag sets are evaluated: enough for every
// scope of many services, and an end for hostile repositories.
const maxPairs = 1000

// evaluate asks both bundles the recorded questions, once for each pair of flags.
func (m *maker) evaluate(p Place, old, next *bundle.Bundle) error {
	if p.Mode != api.ModeNormal {
		return nil
	}
	was, err := contentOf(old)
	if err != nil {
		return err
	}
	is, err := contentOf(next)
	if err != nil {
		return err
	}
	a, b := was[bundle.FlagsTitle], is[bundle.FlagsTitle]
	if bytes.Equal(a, b) {
		return nil
	}
	key := p.Service + string(api.DigestOf(a)+api.DigestOf(b))
	found, ok := m.evaluated[key]
	if !ok && len(m.evaluated) < maxPairs {
		if found, err = m.ask(p.Service, a, b); err != nil {
			return err
		}
		m.evaluated[key] = found
	}
	for _, o := range found {
		m.outcome(o, p)
	}
	return nil
}

// outcome adds a place to the same outcome elsewhere.
func (m *maker) outcome(o Outcome, p Place) {
	key := fmt.Sprintf("%q", []any{o.Service, o.Flag, o.From, o.To, o.Contexts, o.Of, o.Line})
	i, ok := m.outcomes[key]
	if !ok {
		i = len(m.out.Outcomes)
		m.outcomes[key] = i
		m.out.Outcomes = append(m.out.Outcomes, o)
	}
	m.out.Outcomes[i].Places = append(m.out.Outcomes[i].Places, p)
}

func (m *maker) ask(service string, old, next []byte) ([]Outcome, error) {
	file := contexts(service)
	raw, ok, err := m.b.File(m.ctx, m.head.commit, file)
	if err != nil {
		return nil, err
	}
	if !ok {
		m.note("flags of %s change, and no context is recorded in %s", service, file)
		return nil, nil
	}
	before, err := flags.Compile(old)
	if err != nil {
		return nil, err
	}
	after, err := flags.Compile(next)
	if err != nil {
		return nil, err
	}
	var out []Outcome
	asked := map[string]int{}
	line := 0
	for text := range bytes.Lines(raw) {
		line++
		var q question
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		if err := json.Unmarshal(text, &q); err != nil {
			m.note("%s:%d is no recorded context: a line is {\"flag\": KEY, \"context\": {...}}", file, line)
			continue
		}
		asked[q.Flag]++
		x, y := before.Evaluate(q.Flag, q.Context, m.opt.Now), after.Evaluate(q.Flag, q.Context, m.opt.Now)
		if x.Variant != y.Variant || x.ErrorCode != y.ErrorCode || !reflect.DeepEqual(x.Value, y.Value) {
			out = count(out, Outcome{Service: service, Flag: q.Flag, From: result(x, y), To: result(y, x), Line: line})
		}
	}
	for i := range out {
		out[i].Of = asked[out[i].Flag]
	}
	if !m.asked[service] {
		m.asked[service] = true
		for _, n := range asked {
			m.out.Asked += n
		}
	}
	return out, m.ctx.Err()
}

// contexts is the file of a service's recorded contexts.
func contexts(service string) string { return "tests/contexts/" + service + ".jsonl" }

// count adds a context to the same outcome of an earlier line.
func count(list []Outcome, o Outcome) []Outcome {
	for i, have := range list {
		if have.Flag == o.Flag && have.From == o.From && have.To == o.To {
			list[i].Contexts++
			return list
		}
	}
	o.Contexts = 1
	return append(list, o)
}

// result names what an evaluation gave; the value, too, when only that differs
// from the other.
func result(r, other flags.Resolution) string {
	switch {
	case r.ErrorCode != "":
		return string(r.ErrorCode)
	case r.Variant == "":
		return string(r.Reason)
	case r.Variant != other.Variant:
		return r.Variant
	}
	v, err := json.Marshal(r.Value)
	if err != nil {
		return r.Variant
	}
	return r.Variant + " " + window(string(v), 0)
}

// maxNotes bounds what is remarked about files.
const maxNotes = 20

func (m *maker) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if len(m.out.Notes) < maxNotes && !slices.Contains(m.out.Notes, text) {
		m.out.Notes = append(m.out.Notes, text)
	}
}
