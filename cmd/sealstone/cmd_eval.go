package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
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
		Use:   "eval FLAG (--target T | --bundle DIGEST | --file FLAGS.json) --context JSON",
		Short: "Evaluate a flag as a client would",
		Long: "Evaluate a flag for a context, by what is in effect for a target, by a bundle, or\n" +
			"by a file of flag definitions. With --contexts each line of a file is evaluated:\n" +
			`{"flag":"key","type":"boolean","context":{...}}, one result a line, in order.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.eval(c.Context(), args, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.target, "target", "", "service@scope")
	f.StringVar(&o.bundle, "bundle", "", "digest of a bundle")
	f.StringVar(&o.file, "file", "", "file of flag definitions, - for standard input")
	f.StringVar(&o.context, "context", "{}", "evaluation context, JSON")
	f.StringVar(&o.contexts, "contexts", "", "file of requests, one JSON object a line")
	f.StringVar(&o.kind, "type", "", "wanted type: boolean, string, integer, float or object")
	f.StringVar(&o.at, "at", "", "evaluate as of this time, RFC 3339 (for rules that read the clock)")
	f.BoolVar(&o.explain, "explain", false, "show which rules were evaluated, what each gave, and buckets")
	f.StringVar(&o.repo, "repo", "", "with --explain and --target: the repository, to show which line set each part")
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

// request is a line of input.
type request struct {
	Flag    string          `json:"flag"`
	Type    string          `json:"type,omitempty"`
	Context json.RawMessage `json:"context"`
}

func (a *app) eval(ctx context.Context, args []string, o evalOptions) error {
	now := time.Now()
	if o.at != "" {
		t, err := time.Parse(time.RFC3339, o.at)
		if err != nil {
			return fmt.Errorf("--at %q: write RFC 3339, for example 2026-11-20T10:03:00Z", o.at)
		}
		now = t
	}
	set, err := a.flagSet(ctx, o)
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
		return a.explain(ctx, set, args[0], fc, now, o)
	}
	r, err := evaluate(set, args[0], o.kind, fc, now)
	if err != nil {
		return err
	}
	err = a.print(r, func(w io.Writer) {
		value, _ := canon.Encode(r.Value)
		table(w, "", [][]string{{"flag", r.Flag}, {"value", string(value)}, {"variant", dash(r.Variant)}, {"reason", string(r.Reason)}, {"error", dash(strings.TrimSpace(string(r.ErrorCode) + " " + r.Detail))}})
	})
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

// flagSet compiles the flags that the options name.
func (a *app) flagSet(ctx context.Context, o evalOptions) (*flags.Set, error) {
	if o.file != "" {
		b, err := a.readFile(o.file)
		if err != nil {
			return nil, err
		}
		set, err := flags.Compile(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.file, err)
		}
		return set, nil
	}
	if o.target == "" && o.bundle != "" {
		return a.bundleFlags(ctx, o.bundle)
	}
	if o.target == "" {
		return nil, errors.New("by which flags? pass --target service@scope, --bundle DIGEST or --file FLAGS.json")
	}
	t, err := api.ParseTarget(o.target)
	if err != nil {
		return nil, err
	}
	return a.targetFlags(ctx, t, o.bundle)
}

// bundleFlags finds the service that a bundle is of.
func (a *app) bundleFlags(ctx context.Context, ref string) (*flags.Set, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	names, err := a.expandServices(ctx, c, "*")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		set, err := a.targetFlags(ctx, api.Target{Service: name}, ref)
		if api.CodeOf(err) != api.CodeNotFound {
			return set, err
		}
	}
	return nil, &api.Error{Code: api.CodeNotFound, Detail: "no service has bundle " + ref, Hint: "sealstone live and sealstone build show digests"}
}

// targetFlags pulls the flags of a target's bundle, checked by digest.
func (a *app) targetFlags(ctx context.Context, t api.Target, ref string) (*flags.Set, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	digest, mode, err := a.effectiveBundle(ctx, c, t, ref)
	if err != nil {
		return nil, err
	}
	manifest, err := c.do(ctx, http.MethodGet, "/v2/"+t.Service+"/manifests/"+string(digest), nil)
	if err != nil {
		return nil, err
	}
	get := func(d bundle.Descriptor) ([]byte, error) {
		return c.do(ctx, http.MethodGet, "/v2/"+t.Service+"/blobs/"+string(d.Digest), nil)
	}
	if mode == "" {
		if mode, err = modeOf(manifest, get); err != nil {
			return nil, err
		}
	}
	content, err := bundle.Open(digest, manifest, t.Service, mode, get)
	if err != nil {
		return nil, err
	}
	return flags.Compile(content.Files[bundle.FlagsTitle])
}

// modeOf reads a bundle's mode out of its config.
func modeOf(manifest []byte, get func(bundle.Descriptor) ([]byte, error)) (api.Mode, error) {
	m, err := bundle.ParseManifest(manifest)
	if err != nil {
		return "", err
	}
	b, err := get(m.Config)
	if err != nil {
		return "", err
	}
	var c bundle.Config
	if err := json.Unmarshal(b, &c); err != nil {
		return "", fmt.Errorf("bundle config: %w", err)
	}
	return c.Mode, nil
}

// effectiveBundle asks what is in effect for a target, unless a digest is given.
func (a *app) effectiveBundle(ctx context.Context, c *client, t api.Target, ref string) (api.Digest, api.Mode, error) {
	if ref != "" {
		d, err := api.ParseDigest(ref)
		return d, "", err
	}
	p, err := c.provenAt(ctx, t)
	if err != nil {
		return "", "", err
	}
	return p.Bundle, p.Mode, nil
}

// provenAt is what the server's ledger says is in effect for a target.
func (c *client) provenAt(ctx context.Context, t api.Target) (*api.Proven, error) {
	var live api.Live
	if err := c.get(ctx, "/v1/live", url.Values{"service": {t.Service}}, &live); err != nil {
		return nil, err
	}
	var best *api.LiveScope
	for _, s := range live.Services {
		for _, sc := range s.Scopes {
			if sc.Proven != nil && sc.Scope.Contains(t.Scope) && (best == nil || sc.Scope.Depth() > best.Scope.Depth()) {
				best = &sc
			}
		}
	}
	if best == nil {
		return nil, &api.Error{Code: api.CodeNotActivated, Detail: "nothing is activated for " + t.String(), Hint: "sealstone live shows what is"}
	}
	return best.Proven, nil
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
	e := evaluation{Flag: key, Variant: r.Variant, Reason: r.Reason, ErrorCode: r.ErrorCode, Detail: r.ErrorDetail, Metadata: r.Metadata}
	if r.ErrorCode == "" {
		e.Value = r.Value
	}
	return e, nil
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
	e.Detail = "" // a line has the design's members only
	return e, err
}
