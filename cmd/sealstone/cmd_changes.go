package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

func newChanges(a *app) *cobra.Command {
	q := url.Values{}
	var service, scope, kind, digest, actor, from, to string
	var limit int
	var before int64
	run := func(c *cobra.Command, _ []string) error {
		for k, v := range map[string]string{"service": service, "scope": scope, "kind": kind, "digest": digest, "actor": actor, "from": from, "to": to} {
			if v != "" {
				q.Set(k, v)
			}
		}
		q.Set("limit", fmt.Sprint(limit))
		if before > 0 {
			q.Set("before", fmt.Sprint(before))
		}
		return a.listChanges(c.Context(), q)
	}
	cmd := &cobra.Command{Use: "changes", Short: "Ask the ledger what changed", Args: cobra.NoArgs, RunE: run}
	list := &cobra.Command{Use: "list", Short: "List changes, newest first", Args: cobra.NoArgs, RunE: run}
	for _, c := range []*cobra.Command{cmd, list} {
		f := c.Flags()
		f.StringVar(&service, "service", "", "only this service")
		f.StringVar(&scope, "scope", "", "only this scope and what is below it")
		f.StringVar(&kind, "kind", "", "only these kinds, comma-separated")
		f.StringVar(&digest, "digest", "", "only changes that name this digest")
		f.StringVar(&actor, "actor", "", "only changes by this operator or key id")
		f.StringVar(&from, "from", "", "not before this time, RFC 3339")
		f.StringVar(&to, "to", "", "before this time, RFC 3339")
		f.Int64Var(&before, "before", 0, "only entries before this one, to page")
		f.IntVar(&limit, "limit", 50, "at most this many, 1 to 1000")
	}
	cmd.AddCommand(list, newChangesShow(a), newChangesProof(a), newChangesRecord(a), newChangesErase(a), newChangesSend(a))
	return cmd
}

func (a *app) listChanges(ctx context.Context, q url.Values) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	var answer api.Changes
	if err := c.get(ctx, "/v1/changes", q, &answer); err != nil {
		return err
	}
	return a.print(answer, func(w io.Writer) {
		var rows [][]string
		for _, r := range answer.Changes {
			rows = append(rows, changeRow(r))
		}
		table(w, "ENTRY TIME KIND SUBJECT WHAT BY WHY", rows)
		if answer.Next != nil {
			fmt.Fprintf(a.err, "more: add --before %d\n", *answer.Next)
		}
	})
}

func eventOf(r api.Record) ledger.Event {
	var e ledger.Event
	_ = json.Unmarshal(r.Event, &e)
	return e
}

func changeRow(r api.Record) []string {
	e := eventOf(r)
	text := func(key string) string { s, _ := r.Detail[key].(string); return s }
	by := r.Operator
	if by == "" {
		by = text("author")
	}
	why := text("reason") + text("subject") + text("note")
	if r.Erased {
		why = "(erased)"
	}
	at := strings.Replace(strings.TrimSuffix(e.RecordedTime, "Z"), "T", " ", 1)
	return []string{fmt.Sprint(r.Index), at, string(e.Kind()), dash(e.Subject), what(&e.Data.Fields), dash(by), dash(clipText(why, 48))}
}

// what is the one thing that a change is about, for a table.
func what(f *ledger.Fields) string {
	switch {
	case f.Set != nil:
		return f.Set.Digest.Short() + " from " + short(f.Release.Commit)
	case f.Mode != "":
		return string(f.Mode)
	case f.Total > 0:
		return fmt.Sprintf("%d faults", f.Total)
	case f.From != "":
		return short(f.From) + " → " + short(f.To)
	case f.Artifact != "":
		return api.Digest(f.Artifact).Short()
	case f.Name != "":
		return strings.TrimSpace(f.Name + " " + f.Version)
	case f.PURL != "":
		return f.PURL
	case f.Version != "":
		return "version " + f.Version
	case f.Replaces != "":
		return f.Replaces.Short()
	}
	return "-"
}

func clipText(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

func newChangesShow(a *app) *cobra.Command {
	return &cobra.Command{Use: "show INDEX", Short: "Show one change whole", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		var r api.Record
		if err := c.get(cmd.Context(), "/v1/changes/"+url.PathEscape(strings.TrimPrefix(args[0], "log:")), nil, &r); err != nil {
			return err
		}
		return a.print(r, func(w io.Writer) { _ = printYAML(w, r) })
	}}
}

func newChangesProof(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{Use: "proof INDEX --out FILE", Short: "Write a change with its proof, to verify anywhere", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			b, err := c.proof(cmd.Context(), strings.TrimPrefix(args[0], "log:"))
			if err != nil {
				return err
			}
			if out == "" {
				_, err = a.out.Write(b)
				return err
			}
			fmt.Fprintf(a.err, "wrote %s; next: sealstone verify %s --trust TRUST\n", out, out)
			return os.WriteFile(out, b, 0o644)
		}}
	cmd.Flags().StringVar(&out, "out", "", "file to write (default: standard output)")
	return cmd
}

// proof is a change's proof as a file.
func (c *client) proof(ctx context.Context, index string) ([]byte, error) {
	var e ledger.Evidence
	if err := c.get(ctx, "/v1/changes/"+url.PathEscape(index), url.Values{"proof": {"1"}}, &e); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(e, "", "  ")
	return append(b, '\n'), err
}

func newChangesRecord(a *app) *cobra.Command {
	var service, scope, note string
	var sets []string
	named := map[string]*string{}
	cmd := &cobra.Command{
		Use:   "record KIND --service S",
		Short: "Record a fact: a deploy, a rotated secret, a changed dependency, a note",
		Long: "Record a fact as a signed statement. KIND is one of:\n  " + strings.Join(recordKinds(), "\n  ") + "\n" +
			"docs/formats.md lists the members of each; --set and its named forms give them.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for name, v := range named {
				if *v != "" {
					sets = append(sets, strings.ReplaceAll(name, "base-image", "baseImage")+"="+*v)
				}
			}
			return a.recordChange(cmd.Context(), ledger.Kind(args[0]), api.Target{Service: service, Scope: api.Scope(scope)}, sets, note)
		},
	}
	f := cmd.Flags()
	f.StringVar(&service, "service", "", "service that it is about")
	f.StringVar(&scope, "scope", "", "scope that it is about")
	f.StringVar(&note, "note", "", "words for people; go into the detail")
	f.StringArrayVar(&sets, "set", nil, "a member of the kind, name=value; repeat for more")
	for name, help := range map[string]string{"artifact": "digest of the artifact", "image": "digest of the image", "base-image": "digest of the base image",
		"sbom": "digest of the SBOM", "version": "version", "name": "name, never a value", "purl": "package URL", "plan": "digest of the plan"} {
		named[name] = f.String(name, "", help)
	}
	return cmd
}

// recordKinds are the facts that people record; the rest has commands of its own.
func recordKinds() []string {
	var out []string
	for _, k := range ledger.Kinds() {
		if k.Do() == "record" {
			out = append(out, string(k))
		}
	}
	return out
}

func (a *app) recordChange(ctx context.Context, kind ledger.Kind, t api.Target, sets []string, note string) error {
	if !kind.Signed() {
		return fmt.Errorf("unknown kind %q: write one of %s", kind, strings.Join(recordKinds(), ", "))
	}
	key, c, origin, err := a.signing(ctx)
	if err != nil {
		return err
	}
	st := newStatement(origin, kind, t, serverTime(ctx, c))
	fields := map[string]any{}
	for _, s := range sets {
		name, value, ok := strings.Cut(s, "=")
		if !ok {
			return fmt.Errorf("--set %q: write name=value", s)
		}
		fields[name] = value
		if n, err := strconv.ParseInt(value, 10, 64); err == nil && (name == "index" || name == "ttl") {
			fields[name] = n
		}
	}
	b, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, &st.Fields); err != nil {
		return fmt.Errorf("--set: %w", err)
	}
	body, err := signSubmission(st, note, key)
	if err != nil {
		return err
	}
	r, err := c.submit(ctx, body)
	if err != nil {
		return err
	}
	return a.printReceipts([]api.Receipt{*r})
}

func newChangesErase(a *app) *cobra.Command {
	var note string
	cmd := &cobra.Command{Use: "erase INDEX --note WHY", Short: "Erase the detail of a change; its proof stays valid", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			index := strings.TrimPrefix(args[0], "log:")
			c, err := a.client()
			if err != nil {
				return err
			}
			var r api.Record
			if err := c.get(cmd.Context(), "/v1/changes/"+url.PathEscape(index), nil, &r); err != nil {
				return err
			}
			d := eventOf(r).Data
			return a.recordChange(cmd.Context(), ledger.DetailErased, api.Target{Service: d.Service, Scope: d.Scope}, []string{"index=" + index}, note)
		}}
	cmd.Flags().StringVar(&note, "note", "", "words for people; go into the erasure's own detail")
	return cmd
}

// serverTime stamps statements by the server's clock where it can be asked.
func serverTime(ctx context.Context, c *client) time.Time {
	var answer api.SafeModes
	if err := c.get(ctx, "/v1/safe-modes", nil, &answer); err == nil {
		if t, err := api.ParseTime(answer.Time); err == nil {
			return t
		}
	}
	return time.Now()
}

func newChangesSend(a *app) *cobra.Command {
	return &cobra.Command{Use: "send FILE", Short: "Send a statement that was signed elsewhere", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		b, err := a.readFile(args[0])
		if err != nil {
			return err
		}
		if len(b) > ledger.MaxEnvelope {
			return errors.New("a statement is at most 128 KiB")
		}
		rb, err := c.do(cmd.Context(), http.MethodPost, "/v1/changes", b)
		if err != nil {
			return err
		}
		var r api.Receipt
		if err := json.Unmarshal(rb, &r); err != nil {
			return err
		}
		return a.printReceipts([]api.Receipt{r})
	}}
}
