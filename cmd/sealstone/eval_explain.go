package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/flags"
	"github.com/sealstone/sealstone/internal/canon"
)

// explanation is what eval --explain prints.
type explanation struct {
	evaluation
	Steps   []flags.Step `json:"steps"`
	Parts   []part       `json:"parts,omitempty"` // which line set what
	Bundle  api.Digest   `json:"bundle,omitempty"`
	Mode    api.Mode     `json:"mode,omitempty"`
	Index   *int64       `json:"index,omitempty"` // the change that put the bundle into effect; -1 for a pending one
	Release string       `json:"release,omitempty"`
	By      string       `json:"by,omitempty"`
	Since   string       `json:"since,omitempty"`
}

// part is a piece of the flag's definition.
type part struct {
	Pointer string `json:"pointer"`
	bundler.Position
}

func (a *app) explain(ctx context.Context, set *flags.Set, key string, fc flags.Context, now time.Time, o evalOptions, from *resolved) error {
	ex := set.Explain(key, fc, now)
	e := explanation{Steps: ex.Steps, evaluation: evaluationOf(key, ex.Resolution)}
	if e.Steps == nil {
		e.Steps = []flags.Step{}
	}
	pointers := partsOf(key, ex.Steps)
	var err error
	switch {
	case o.file != "":
		e.Parts, err = a.partsOfFile(o.file, pointers)
	case from.Proven != nil:
		err = explainTarget(ctx, &e, pointers, o, from)
	}
	if err != nil {
		return err
	}
	return a.print(e, func(w io.Writer) { explainTable(w, &e) })
}

// partsOf lists the flag's members and the rules that were evaluated.
func partsOf(key string, steps []flags.Step) []string {
	base := "/flags/" + canon.EscapePointer(key)
	out := []string{base, base + "/state", base + "/variants", base + "/defaultVariant", base + "/targeting"}
	for _, s := range steps {
		out = append(out, s.Path)
	}
	return out
}

// partsOfFile finds the lines in a file of definitions.
func (a *app) partsOfFile(path string, pointers []string) ([]part, error) {
	if path == "-" {
		return nil, nil // it was read already
	}
	text, err := a.readFile(path)
	if err != nil {
		return nil, err
	}
	at := map[string]int{}
	_, err = canon.ParseAt(text, canon.MaxDepth, func(parts []string, offset int) {
		var p strings.Builder
		for _, x := range parts {
			p.WriteString("/" + canon.EscapePointer(x))
		}
		at[p.String()] = offset
	})
	if err != nil {
		return nil, err
	}
	var out []part
	for _, p := range pointers {
		if offset, ok := at[p]; ok {
			line := 1 + bytes.Count(text[:offset], []byte("\n"))
			col := offset - bytes.LastIndexByte(text[:offset], '\n')
			out = append(out, part{p, bundler.Position{File: path, Line: line, Col: col}})
		}
	}
	return out, nil
}

// explainTarget adds the bundle, the change that brought it and, with a
// repository, the lines of the release.
func explainTarget(ctx context.Context, e *explanation, pointers []string, o evalOptions, from *resolved) error {
	proven := from.Proven
	e.Bundle, e.Mode, e.Index, e.Release, e.By, e.Since = proven.Bundle, proven.Mode, &proven.Index, proven.Release, proven.By, proven.Since
	if o.repo == "" {
		return nil
	}
	repo, err := bundler.OpenRepo(o.repo)
	if err != nil {
		return err
	}
	where, err := bundler.New(repo).Where(ctx, proven.Release, from.Service, from.Scope, proven.Mode, bundle.FlagsTitle, pointers)
	if err != nil {
		return err
	}
	for _, p := range pointers {
		if at := where[p]; at.File != "" {
			e.Parts = append(e.Parts, part{p, at})
		}
	}
	return nil
}

func explainTable(w io.Writer, e *explanation) {
	rows := e.rows()
	if e.Bundle != "" {
		rows = append(rows, []string{"bundle", e.Bundle.Short() + " in mode " + string(e.Mode)},
			[]string{"change", fmt.Sprintf("entry %d by %s at %s, release %s", *e.Index, dash(e.By), e.Since, short(e.Release))})
	}
	table(w, "", rows)
	lines := map[string]string{}
	for _, p := range e.Parts {
		lines[p.Pointer] = fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
	}
	rows = nil
	for _, s := range e.Steps {
		gave, _ := json.Marshal(s.Value)
		rows = append(rows, []string{s.Rule, clipText(string(gave), 40), bucket(s.Bucket), dash(lines[s.Path])})
	}
	if len(rows) > 0 {
		fmt.Fprintln(w)
		table(w, "RULE GAVE BUCKET AT", rows)
	}
	base := "/flags/" + canon.EscapePointer(e.Flag)
	rows = nil
	for _, member := range []string{"state", "variants", "defaultVariant", "targeting"} {
		if at := lines[base+"/"+member]; at != "" && at != lines[base] {
			rows = append(rows, []string{member, at})
		}
	}
	if len(rows) > 0 {
		fmt.Fprintln(w)
		table(w, "MEMBER SET-AT", rows)
	}
}

func bucket(b *flags.Bucket) string {
	if b == nil {
		return "-"
	}
	return fmt.Sprintf("%d of %d, in [%d,%d) by %q", b.At, b.Of, b.From, b.To, clipText(b.By, 32))
}

// difference is a line of eval --diff.
type difference struct {
	Line int        `json:"line"` // in the file of contexts
	Flag string     `json:"flag"`
	From evaluation `json:"from"`
	To   evaluation `json:"to"`
}

// evalDiff is a backtest: which recorded contexts get another result from other
// definitions.
func (a *app) evalDiff(set *flags.Set, other, path string, now time.Time) error {
	next, err := a.compileFile(other)
	if err != nil {
		return err
	}
	b, err := a.readFile(path)
	if err != nil {
		return err
	}
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	all, changed := 0, 0
	err = eachLine(path, b, func(line int, text []byte) error {
		from, err := evalLine(set, text, now)
		if err != nil {
			return err
		}
		to, err := evalLine(next, text, now)
		if err != nil {
			return err
		}
		all++
		from.Metadata, to.Metadata = nil, nil // a note about the flag changes nobody's result
		was, _ := json.Marshal(from)
		is, _ := json.Marshal(to)
		if bytes.Equal(was, is) {
			return nil
		}
		changed++
		return enc.Encode(difference{line, from.Flag, from, to})
	})
	if err == nil {
		fmt.Fprintf(a.err, "%d of %d contexts change\n", changed, all)
	}
	return err
}
