package plan

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"github.com/sealstone/sealstone/api"
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

// A question is a line of recorded contexts; without a flag it asks for all.
type question struct {
	Flag    string        `json:"flag"`
	Context flags.Context `json:"context"`
	line    int
}

// Bounds of what is evaluated: enough for every scope of many services, and an
// end for hostile repositories.
const (
	maxPairs       = 1000 // of sets of flags
	maxEvaluations = 1_000_000
)

// evaluate asks both documents the recorded questions, once for each pair.
func (m *maker) evaluate(service string, a, b []byte) ([]Outcome, error) {
	key := service + string(api.DigestOf(a)+api.DigestOf(b))
	found, ok := m.evaluated[key]
	if ok || bytes.Equal(a, b) || len(m.evaluated) >= maxPairs {
		return found, nil
	}
	found, err := m.ask(service, a, b)
	m.evaluated[key] = found
	return found, err
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
	qs := questions(raw)
	if !m.asked[service] {
		m.asked[service] = true
		m.out.Asked += len(qs)
	}
	return m.outcomesOf(service, before, after, qs), m.ctx.Err()
}

// questions reads recorded contexts. A line that is none is a fault of the
// check; here it is passed over.
func questions(raw []byte) []question {
	var out []question
	line := 0
	for text := range bytes.Lines(raw) {
		line++
		q := question{line: line}
		if len(bytes.TrimSpace(text)) > 0 && json.Unmarshal(text, &q) == nil {
			out = append(out, q)
		}
	}
	return out
}

// outcomesOf evaluates each flag that means something else for each context
// that asks for it, or for all flags.
func (m *maker) outcomesOf(service string, before, after *flags.Set, qs []question) []Outcome {
	var out []Outcome
	for _, key := range flags.Changed(before, after) {
		first, asked := len(out), 0
		for _, q := range qs {
			if q.Flag != "" && q.Flag != key {
				continue
			}
			if m.spent++; m.spent > maxEvaluations {
				m.note("only the first %d evaluations of recorded contexts were made", maxEvaluations)
				return out
			}
			asked++
			x, y := before.Evaluate(key, q.Context, m.opt.Now), after.Evaluate(key, q.Context, m.opt.Now)
			if x.Variant != y.Variant || x.ErrorCode != y.ErrorCode || !reflect.DeepEqual(x.Value, y.Value) {
				out = count(out, Outcome{Service: service, Flag: key, From: result(x, y), To: result(y, x), Line: q.line})
			}
		}
		for i := range out[first:] {
			out[first+i].Of = asked
		}
	}
	return out
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
