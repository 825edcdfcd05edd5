package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/flags"
	"github.com/sealstone/sealstone/internal/canon"
)

// evalOptions are the flags of eval.
type evalOptions struct {
	target, bundle, file, context, contexts, at, kind string
	repo, diff                                        string
	explain                                           bool
}

func newEval(a *app) *cobra.Command {
	var o evalOptions
	cmd := &cobra.Command{
		Use:   "eval FLAG (--target T | --bundle REF | --file FLAGS.json) --context JSON",
		Short: "Evaluate a flag as a client would",
		Long: "Evaluate a flag for a context, by what is in effect for a target, or was at a\n" +
			"time, by a bundle, or by a file of flag definitions. --explain shows the rule and\n" +
			"the change that explains the result. With --contexts each line of a file is evaluated:\n" +
			`{"flag":"key","type":"boolean","context":{...}}, one result a line, in order.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.eval(c.Context(), args, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.target, "target", "", "service@scope, or service@scope~TIME")
	f.StringVar(&o.bundle, "bundle", "", "a bundle: sha256:..., log:INDEX or a commit; --target says of which service and scope")
	f.StringVar(&o.file, "file", "", "file of flag definitions, - for standard input")
	f.StringVar(&o.context, "context", "{}", "evaluation context, JSON")
	f.StringVar(&o.contexts, "contexts", "", "file of requests, one JSON object a line")
	f.StringVar(&o.kind, "type", "", "wanted type: boolean, string, integer, float or object")
	f.StringVar(&o.at, "at", "", "as of this time, RFC 3339: by what was in effect for the target then, with the clock of then")
	f.BoolVar(&o.explain, "explain", false, "show which rules were evaluated, what each gave, and buckets")
	f.StringVar(&o.repo, "repo", "", "the repository: of a commit given as --bundle; with --explain, to show which line set each part")
	f.StringVar(&o.diff, "diff", "", "with --contexts: another file of flag definitions; list the contexts whose result changes")
	cmd.MarkFlagsMutuallyExclusive("file", "target")
	return cmd
}

// evaluation is a line of output.
type evaluation struct {
	Flag      string          `json:"flag"`
	Value     any             `json:"value,omitempty"`
	Variant   string          `json:"variant,omitempty"`
	Reason    flags.Reason    `json:"reason"`
	ErrorCode flags.ErrorCode `json:"errorCode,omitempty"`
	Detail    string          `json:"errorDetails,omitempty"`
	Metadata  map[string]any  `json:"metadata,omitempty"`
}

func evaluationOf(key string, r flags.Resolution) evaluation {
	e := evaluation{Flag: key, Variant: r.Variant, Reason: r.Reason, ErrorCode: r.ErrorCode, Detail: r.ErrorDetail, Metadata: r.Metadata}
	if r.ErrorCode == "" {
		e.Value = r.Value
	}
	return e
}

func (e *evaluation) rows() [][]string {
	value, _ := canon.Encode(e.Value)
	rows := [][]string{{"flag", e.Flag}, {"value", string(value)}, {"variant", dash(e.Variant)}, {"reason", string(e.Reason)}}
	if e.ErrorCode != "" {
		rows = append(rows, []string{"error", strings.TrimSpace(string(e.ErrorCode) + " " + e.Detail)})
	}
	return rows
}

// request is a line of input.
type request struct {
	Flag    string          `json:"flag"`
	Type    string          `json:"type,omitempty"`
	Context json.RawMessage `json:"context"`
}

func (a *app) eval(ctx context.Context, args []string, o evalOptions) error {
	now, err := o.when()
	if err != nil {
		return err
	}
	set, from, err := a.flagSet(ctx, o)
	if err != nil {
		return err
	}
	if o.contexts != "" && o.diff != "" {
		return a.evalDiff(set, o.diff, o.contexts, now)
	}
	if o.contexts != "" {
		return a.evalLines(set, o.contexts, now)
	}
	if len(args) == 0 {
		return errors.New("which flag? sealstone eval FLAG --file FLAGS.json --context JSON")
	}
	fc, err := parseContext([]byte(o.context))
	if err != nil {
		return fmt.Errorf("--context: %w", err)
	}
	if o.explain {
		return a.explain(ctx, set, args[0], fc, now, o, from)
	}
	r, err := evaluate(set, args[0], o.kind, fc, now)
	if err != nil {
		return err
	}
	err = a.print(r, func(w io.Writer) { table(w, "", r.rows()) })
	if err == nil && r.ErrorCode != "" {
		return exitCode(exitError)
	}
	return err
}

func parseContext(b []byte) (map[string]any, error) {
	if len(bytes.TrimSpace(b)) == 0 || string(b) == "null" {
		return map[string]any{}, nil
	}
	v, err := canon.Parse(b, canon.MaxDepth)
	if err != nil {
		return nil, err
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("a context is a JSON object")
	}
	return m, nil
}

// when is the clock that rules read: now, or the time that is asked about.
func (o *evalOptions) when() (time.Time, error) {
	at := o.at
	if _, of, ok := strings.Cut(o.target, "~"); ok && at == "" {
		at = of
	}
	if at == "" {
		return time.Now(), nil
	}
	return parseTime("--at", at)
}

// flagSet compiles the flags that the options name; from is nil for a file's.
func (a *app) flagSet(ctx context.Context, o evalOptions) (set *flags.Set, from *resolved, err error) {
	if o.file != "" {
		set, err = a.compileFile(o.file)
		return set, nil, err
	}
	r := resolver{a, refOptions{repo: o.repo, ask: "pass --target service@scope"}}
	ref, err := o.ref(&r.o)
	if err != nil {
		return nil, nil, err
	}
	if from, err = r.resolve(ctx, ref); err != nil {
		return nil, nil, err
	}
	if err := from.pick(api.Scope(r.o.scope), ""); err != nil {
		return nil, nil, err
	}
	content, err := from.content()
	if err != nil {
		return nil, nil, err
	}
	set, err = flags.Compile(content.Files[bundle.FlagsTitle])
	return set, from, err
}

func (a *app) compileFile(path string) (*flags.Set, error) {
	b, err := a.readFile(path)
	if err != nil {
		return nil, err
	}
	set, err := flags.Compile(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return set, nil
}

// ref is the reference that the options name; a target beside it says of which
// service and scope.
func (o evalOptions) ref(beside *refOptions) (string, error) {
	switch {
	case o.bundle == "" && o.target == "":
		return "", errors.New("by which flags? pass --target service@scope, --bundle REF or --file FLAGS.json")
	case o.bundle != "" && o.target != "":
		t, err := api.ParseTarget(o.target)
		beside.service, beside.scope = t.Service, string(t.Scope)
		return o.bundle, err
	case o.bundle != "":
		return o.bundle, nil
	case o.at == "":
		return o.target, nil
	case strings.Contains(o.target, "~"):
		return "", fmt.Errorf("--target %s names a time: leave out --at", o.target)
	}
	return o.target + "~" + o.at, nil
}

// modeOf reads a bundle's mode out of its config.
func modeOf(manifest []byte, get func(api.Digest) ([]byte, error)) (api.Mode, error) {
	m, err := bundle.ParseManifest(manifest)
	if err != nil {
		return "", err
	}
	b, err := get(m.Config.Digest)
	if err != nil {
		return "", err
	}
	var c bundle.Config
	if err := json.Unmarshal(b, &c); err != nil {
		return "", fmt.Errorf("bundle config: %w", err)
	}
	return c.Mode, nil
}

func evaluate(set *flags.Set, key, kind string, fc flags.Context, now time.Time) (evaluation, error) {
	var r flags.Resolution
	switch kind {
	case "":
		r = set.Evaluate(key, fc, now)
	case "boolean":
		_, r = set.Boolean(key, fc, false, now)
	case "string":
		_, r = set.String(key, fc, "", now)
	case "integer":
		_, r = set.Int(key, fc, 0, now)
	case "float":
		_, r = set.Float(key, fc, 0, now)
	case "object":
		_, r = set.Object(key, fc, nil, now)
	default:
		return evaluation{}, fmt.Errorf("type %.32q: write boolean, string, integer, float or object", kind)
	}
	return evaluationOf(key, r), nil
}

// evalLines evaluates a file of requests in order.
func (a *app) evalLines(set *flags.Set, path string, now time.Time) error {
	b, err := a.readFile(path)
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(a.out, 1<<16)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	err = eachLine(path, b, func(_ int, text []byte) error {
		e, err := evalLine(set, text, now)
		if err != nil {
			return err
		}
		return enc.Encode(e)
	})
	return errors.Join(err, out.Flush())
}

// eachLine calls f for every line that isn't blank, and says where it failed.
func eachLine(path string, b []byte, f func(line int, text []byte) error) error {
	line := 0
	for text := range bytes.Lines(b) {
		line++
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		if err := f(line, text); err != nil {
			return fmt.Errorf("%s:%d: %w", path, line, err)
		}
	}
	return nil
}

func evalLine(set *flags.Set, text []byte, now time.Time) (evaluation, error) {
	var q request
	if err := json.Unmarshal(text, &q); err != nil {
		return evaluation{}, err
	}
	fc, err := parseContext(q.Context)
	if err != nil {
		return evaluation{}, fmt.Errorf("context: %w", err)
	}
	e, err := evaluate(set, q.Flag, q.Type, fc, now)
	e.Detail = "" // words for people; what is wrong stands in the error code
	return e, err
}
