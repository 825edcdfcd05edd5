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
	Of       int     `json:"of"`             // recorded contexts that ask for the flag
	Line     int     `json:"line"`           // of the first one, in tests/contexts/<service>.jsonl
	Gone     bool    `json:"gone,omitempty"` // that line is the base's: the head has it no longer
	Places   []Place `json:"places"`
}

// A question is a line of recorded contexts; without a flag it asks for all.
type question struct {
	Flag    string        `json:"flag"`
	Context flags.Context `json:"context"`
	line    int
	gone    bool // recorded in the base alone
}

// Unasked says from which flag on a service's recorded contexts were not
// evaluated, as the plan's steps were spent.
type Unasked struct {
	Service string `json:"service"`
	Flag    string `json:"flag,omitempty"` // the first one; "" for all of a pair of sets
}

// maxSteps bounds the evaluation of recorded contexts: seconds, whatever a
// repository asks for. A service that leaves steps leaves them to those after it,
// and none can spend what is another's.
const maxSteps = 50_000_000

// What costs steps beside rules.
const (
	stepsByte  = 4    // of flags compiled
	stepsAsked = 20   // an evaluation
	stepsFound = 2000 // an outcome that is kept
)

// maxPlaces bounds the places of all outcomes.
const maxPlaces = 100_000

// A purse holds the steps that may still be spent, in all and by the service at
// hand.
type purse struct{ all, share int }

// next gives the first of a number of services its share.
func (p *purse) next(services int) { p.share = p.all / services }

func (p *purse) pay(steps int) bool {
	steps = min(steps, p.share)
	p.all, p.share = p.all-steps, p.share-steps
	return p.share > 0
}

// evaluate asks both documents the recorded questions, once for each pair.
func (m *maker) evaluate(service string, a, b []byte) ([]Outcome, error) {
	if bytes.Equal(a, b) {
		return nil, nil
	}
	key := service + string(api.DigestOf(a)+api.DigestOf(b))
	if found, ok := m.evaluated[key]; ok {
		return found, nil
	}
	found, err := m.ask(service, a, b)
	m.evaluated[key] = found
	return found, err
}

func (m *maker) unasked(service, flag string) {
	if n := len(m.out.Unasked); n == 0 || m.out.Unasked[n-1].Service != service {
		m.out.Unasked = append(m.out.Unasked, Unasked{service, flag})
	}
}

// outcome adds a place to the same outcome elsewhere.
func (m *maker) outcome(o Outcome, p Place) {
	if m.places++; m.places > maxPlaces {
		m.unasked(o.Service, "")
		return
	}
	key := fmt.Sprintf("%q", []any{o.Service, o.Flag, o.From, o.To, o.Contexts, o.Of, o.Line, o.Gone})
	i, ok := m.outcomes[key]
	if !ok {
		i = len(m.out.Outcomes)
		m.outcomes[key] = i
		m.out.Outcomes = append(m.out.Outcomes, o)
	}
	m.out.Outcomes[i].Places = append(m.out.Outcomes[i].Places, p)
}

func (m *maker) ask(service string, old, next []byte) ([]Outcome, error) {
	qs, err := m.questions(service)
	if err != nil || qs == nil {
		return nil, err
	}
	if !m.purse.pay(stepsByte * (len(old) + len(next))) {
		m.unasked(service, "")
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
	return m.outcomesOf(service, before, after, qs), m.ctx.Err()
}

// questions reads a service's recorded contexts once, and those of the base that
// the head dropped; nil when there are none.
func (m *maker) questions(service string) ([]question, error) {
	if qs, ok := m.asked[service]; ok {
		return qs, nil
	}
	qs, err := m.recorded(m.head, service)
	if err != nil {
		return nil, err
	}
	if len(qs) == 0 {
		m.note("flags of %s change, and no context is recorded in %s", service, contexts(service))
	}
	was, err := m.recorded(m.base, service)
	if err != nil {
		return nil, err
	}
	for _, q := range missingFrom(qs, was) {
		q.gone = true
		qs = append(qs, q)
		m.out.Dropped++
	}
	m.asked[service] = qs
	m.out.Asked += len(qs)
	return qs, nil
}

func (m *maker) recorded(s *side, service string) ([]question, error) {
	if s.commit == "" {
		return nil, nil
	}
	raw, _, err := m.b.File(m.ctx, s.commit, contexts(service))
	return parseQuestions(raw), err
}

// missingFrom are the questions of a list that others don't ask.
func missingFrom(others, list []question) []question {
	key := func(q question) string {
		raw, _ := json.Marshal(q) // of what was JSON
		return string(raw)
	}
	asked := map[string]bool{}
	for _, q := range others {
		asked[key(q)] = true
	}
	return slices.DeleteFunc(list, func(q question) bool { return asked[key(q)] })
}

// parseQuestions reads recorded contexts. A line that is none is a fault of the
// check; here it is passed over.
func parseQuestions(raw []byte) []question {
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

// outcomesOf evaluates each flag that means something else, while steps are left.
func (m *maker) outcomesOf(service string, before, after *flags.Set, qs []question) []Outcome {
	var out []Outcome
	for _, key := range flags.Changed(before, after) {
		found, ok := m.outcomesFor(key, before, after, qs)
		if !ok {
			m.unasked(service, key)
			break
		}
		for _, o := range found {
			o.Service = service
			out = append(out, o)
		}
	}
	return out
}

// outcomesFor evaluates a flag for each context that asks for it, or for all
// flags; ok is false when the steps were spent.
func (m *maker) outcomesFor(key string, before, after *flags.Set, qs []question) (out []Outcome, ok bool) {
	found, asked := map[[2]string]int{}, 0 // places in out, by from and to
	for _, q := range qs {
		if q.Flag != "" && q.Flag != key {
			continue
		}
		x, a := before.Measure(key, q.Context, m.opt.Now)
		y, b := after.Measure(key, q.Context, m.opt.Now)
		if !m.purse.pay(stepsAsked + a + b) {
			return nil, false
		}
		asked++
		if x.Variant == y.Variant && x.ErrorCode == y.ErrorCode && reflect.DeepEqual(x.Value, y.Value) {
			continue
		}
		pair := [2]string{result(x, y), result(y, x)}
		i, known := found[pair]
		if !known {
			i = len(out)
			found[pair] = i
			out = append(out, Outcome{Flag: key, From: pair[0], To: pair[1], Line: q.line, Gone: q.gone})
			m.purse.pay(stepsFound)
		}
		out[i].Contexts++
	}
	for i := range out {
		out[i].Of = asked
	}
	return out, true
}

// contexts is the file of a service's recorded contexts.
func contexts(service string) string { return "tests/contexts/" + service + ".jsonl" }

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
	return r.Variant + " " + window(string(v), 0, maxValue)
}

// maxNotes bounds what is remarked about files.
const maxNotes = 20

func (m *maker) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if len(m.out.Notes) < maxNotes && !slices.Contains(m.out.Notes, text) {
		m.out.Notes = append(m.out.Notes, text)
	}
}
