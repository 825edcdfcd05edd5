package server

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/flags"
	"github.com/sealstone/sealstone/internal/canon"
)

// answers holds what is constant in the OFREP answers of one bundle, as JSON, so
// that a request only copies bytes. It is immutable, made at a bundle's first
// request.
type answers struct {
	order    []*answer // by key, as EvaluateAll gives outcomes
	byKey    map[string]*answer
	missing  string // metadata of flags that don't exist, and of the whole
	usesTime bool   // a flag of the bundle reads the clock
}

// answer is one flag: {"key":K,"reason":" R variant metadata }.
type answer struct {
	open     string
	key      string // quoted
	variants []variantJSON
	metadata string // ,"metadata":{...   without the closing brace
}

type variantJSON struct{ name, json string } // ","value":V,"variant":N

// answers returns those of a bundle. Two first requests may both make them:
// they are equal.
func (p *programs) answers(prog *program, service string, mode api.Mode) (*answers, error) {
	if a := prog.answers.Load(); a != nil {
		return a, nil
	}
	document, err := p.store.Object(prog.Manifest.Flags())
	if err != nil {
		return nil, err
	}
	a, err := newAnswers(prog, document, service, mode)
	if err != nil {
		return nil, fmt.Errorf("answers of bundle %s: %w", prog.Digest.Short(), err)
	}
	prog.answers.Store(a)
	return a, nil
}

func newAnswers(prog *program, document []byte, service string, mode api.Mode) (*answers, error) {
	var doc struct {
		Flags map[string]struct {
			Variants map[string]json.RawMessage `json:"variants"`
		} `json:"flags"`
	}
	if err := json.Unmarshal(document, &doc); err != nil {
		return nil, err
	}
	own := map[string]any{"flagSetId": service, "version": string(prog.Digest), "mode": string(mode)}
	a := &answers{byKey: make(map[string]*answer, prog.Flags.Len())}
	var err error
	if a.missing, err = metadataJSON(prog.Flags.Metadata(), own); err != nil {
		return nil, err
	}
	for _, key := range prog.Flags.Keys() {
		f, err := newAnswer(key, doc.Flags[key].Variants, prog.Flags.Flag(key), own)
		if err != nil {
			return nil, err
		}
		a.order, a.byKey[key] = append(a.order, f), f
		a.usesTime = a.usesTime || prog.Flags.UsesTime(key)
	}
	return a, nil
}

func newAnswer(key string, variants map[string]json.RawMessage, f *flags.Flag, own map[string]any) (*answer, error) {
	quoted, err := canon.Encode(key)
	if err != nil {
		return nil, err
	}
	a := &answer{key: string(quoted), open: `{"key":` + string(quoted) + `,"reason":"`}
	if a.metadata, err = metadataJSON(f.Metadata(), own); err != nil {
		return nil, err
	}
	for _, name := range f.Variants() {
		quoted, err := canon.Encode(name)
		if err != nil {
			return nil, err
		}
		a.variants = append(a.variants, variantJSON{name, `","value":` + string(variants[name]) + `,"variant":` + string(quoted)})
	}
	return a, nil
}

// metadataJSON writes metadata, without the closing brace: the age comes last.
// Which set, bundle and mode answered is ours to say, whatever the flags' own
// metadata claims.
func metadataJSON(theirs, own map[string]any) (string, error) {
	all := make(map[string]any, len(theirs)+len(own))
	maps.Copy(all, theirs)
	maps.Copy(all, own)
	delete(all, "headAge")
	b, err := canon.Encode(all)
	if err != nil {
		return "", err
	}
	return `,"metadata":` + string(b[:len(b)-1]), nil
}

// appendOne writes the outcome of one flag; the age and two braces are missing.
func (a *answers) appendOne(b []byte, key string, r *flags.Resolution) []byte {
	if f := a.byKey[key]; f != nil {
		return f.append(b, r)
	}
	quoted, _ := json.Marshal(key) // it came by URL, so it need not be UTF-8
	missing := answer{key: string(quoted), metadata: a.missing}
	return missing.append(b, r)
}

// append writes one outcome. The value is the document's own spelling, which is
// canonical.
func (f *answer) append(b []byte, r *flags.Resolution) []byte {
	if r.ErrorCode != "" {
		return f.appendError(b, r)
	}
	b = append(append(b, f.open...), r.Reason...)
	for i := range f.variants {
		if r.Value != nil && f.variants[i].name == r.Variant {
			return append(append(b, f.variants[i].json...), f.metadata...)
		}
	}
	return append(append(b, '"'), f.metadata...) // the code brings its default
}

func (f *answer) appendError(b []byte, r *flags.Resolution) []byte {
	b = append(append(append(b, `{"key":`...), f.key...), `,"errorCode":"`...)
	b = append(append(b, r.ErrorCode...), '"')
	if r.ErrorDetail != "" {
		detail, _ := json.Marshal(r.ErrorDetail)
		b = append(append(b, `,"errorDetails":`...), detail...)
	}
	return append(b, f.metadata...)
}

// appendAll writes the outcomes of all flags; the age and two braces are
// missing.
func (a *answers) appendAll(b []byte, list []flags.Resolution, stream string) []byte {
	b = append(append(append(b, `{"eventStreams":[`...), stream...), `],"flags":[`...)
	for i := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(a.order[i].append(b, &list[i]), "}}"...)
	}
	return append(append(b, ']'), a.missing...)
}
