package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

func newChanges(a *app) *cobra.Command {
	q := url.Values{}
	var service, scope, kind, digest, actor, text, from, to string
	var follow bool
	var limit int
	var before int64
	run := func(c *cobra.Command, _ []string) error {
		for k, v := range map[string]string{"service": service, "scope": scope, "kind": kind, "digest": digest, "actor": actor, "text": text, "from": from, "to": to} {
			if v != "" {
				q.Set(k, v)
			}
		}
		if err := checkFilter(q); err != nil {
			return err
		}
		q.Set("limit", fmt.Sprint(limit))
		if before > 0 {
			q.Set("before", fmt.Sprint(before))
		}
		if follow {
			return a.followChanges(c.Context(), q)
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
		f.StringVar(&text, "text", "", "only changes with these words in their detail")
		f.BoolVar(&follow, "follow", false, "show the newest, oldest first, then each that comes; -o jsonl for programs")
		f.StringVar(&from, "from", "", "not before this time, RFC 3339")
		f.StringVar(&to, "to", "", "before this time, RFC 3339")
		f.Int64Var(&before, "before", 0, "only entries before this one, to page")
		f.IntVar(&limit, "limit", 50, "at most this many, 1 to 1000")
	}
	cmd.AddCommand(list, newChangesShow(a), newChangesProof(a), newChangesRecord(a), newChangesErase(a), newChangesSend(a))
	return cmd
}

// checkFilter holds kinds to those there are, and reads times as history does.
func checkFilter(q url.Values) error {
	known := make([]string, 0, 32)
	for _, k := range ledger.Kinds() {
		known = append(known, string(k))
	}
	for _, k := range strings.Split(q.Get("kind"), ",") {
		if k != "" && !slices.Contains(known, k) {
			return &api.Error{Code: api.CodeInvalid, Detail: fmt.Sprintf("unknown kind %.64q", k), Hint: "kinds are " + strings.Join(known, ", ")}
		}
	}
	for _, name := range []string{"from", "to"} {
		if v := q.Get(name); v != "" {
			at, err := parseTime("--"+name, v)
			if err != nil {
				return err
			}
			q.Set(name, at.Format(time.RFC3339Nano))
		}
	}
	return nil
}

func (a *app) listChanges(ctx context.Context, q url.Values) error {
	var answer api.Changes
	if err := a.get(ctx, "/v1/changes", q, &answer); err != nil {
		return err
	}
	return a.print(answer, func(w io.Writer) {
		var rows [][]string
		for _, r := range answer.Changes {
			rows = append(rows, changeRow(r))
		}
		table(w, "ENTRY TIME KIND SUBJECT WHAT BY WHY", rows)
		if whole := slices.DeleteFunc(slices.Clone(answer.Chains), func(s api.ChainSpan) bool { return !s.Complete }); q.Get("service") != "" && len(answer.Chains) > len(whole) {
			fmt.Fprintf(a.err, "of %d in %s the table leaves changes out: the filters, or --limit, do; -o json says which\n", len(answer.Chains)-len(whole), count(len(answer.Chains), "chain"))
		}
		if answer.Next != nil {
			fmt.Fprintf(a.err, "more: add --before %d\n", *answer.Next)
		}
	})
}

// followEvery is how often a follower asks for more.
const followEvery = time.Second

// followChanges shows changes as they come, until it is interrupted. A server
// that doesn't answer is said once and asked again.
func (a *app) followChanges(ctx context.Context, q url.Values) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	var answer api.Changes
	if err := c.get(ctx, "/v1/changes", q, &answer); err != nil {
		return err
	}
	slices.Reverse(answer.Changes)
	q.Set("order", "asc")
	q.Del("before")
	said, after := false, answer.Size-1
	for {
		if err := a.printFollowed(answer.Changes); err != nil {
			return err
		}
		if answer.Next == nil || q.Get("after") == "" {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(followEvery):
			}
		}
		q.Set("after", fmt.Sprint(after))
		answer = api.Changes{Size: after + 1}
		if err := c.get(ctx, "/v1/changes", q, &answer); err != nil && !said && ctx.Err() == nil {
			fmt.Fprintf(a.err, "sealstone: %v; asking again\n", err)
			said = true
		} else if err == nil {
			said = false
		}
		if after = max(after, answer.Size-1); answer.Next != nil {
			after = *answer.Next
		}
	}
}

func (a *app) printFollowed(list []api.Record) error {
	if a.output != "table" {
		return printLines(a.out, list)
	}
	for _, r := range list {
		row := changeRow(r)
		for i := range row {
			row[i] = printable(row[i])
		}
		if _, err := fmt.Fprintln(a.out, strings.Join(row, "  ")); err != nil {
			return err
		}
	}
	return nil
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
	at := e.RecordedTime
	if t, err := api.ParseTime(at); err == nil {
		at = t.UTC().Format("2006-01-02 15:04:05Z")
	}
	if r.Late {
		why = strings.TrimSpace("late, of " + strings.TrimSuffix(e.Time, ".000Z") + "  " + why)
	}
	return []string{fmt.Sprint(r.Index), at, string(e.Kind()), dash(e.Subject), what(&e.Data.Fields), dash(clipText(by, 24)), dash(clipText(why, 48))}
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
	case f.Object != "":
		return f.Object.Short()
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
		var r api.Record
		if err := a.get(cmd.Context(), "/v1/changes/"+url.PathEscape(strings.TrimPrefix(args[0], "log:")), nil, &r); err != nil {
			return err
		}
		return a.print(r, func(w io.Writer) { showChange(w, r) })
	}}
}

// showChange is one change for people; -o yaml has every member.
func showChange(w io.Writer, r api.Record) {
	e, row := eventOf(r), changeRow(r)
	rows := [][]string{{"entry", row[0]}, {"recorded", e.RecordedTime}, {"kind", row[2]}, {"subject", row[3]}, {"what", row[4]}, {"by", row[5]}}
	for _, k := range slices.Sorted(maps.Keys(r.Detail)) {
		rows = append(rows, []string{k, oneLine(fmt.Sprint(r.Detail[k]))})
	}
	if r.Erased {
		rows = append(rows, []string{"detail", "(erased)"})
	}
	table(w, "", append(rows, []string{"id", e.ID}, []string{"leaf", string(r.LeafHash)}))
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
			fmt.Fprintf(a.err, "wrote %s; next: sealstone verify %s%s\n", out, out, a.trustHint())
			return os.WriteFile(out, b, 0o644)
		}}
	cmd.Flags().StringVar(&out, "out", "", "file to write (default: standard output)")
	return cmd
}

// trustHint is what a command line still lacks to verify with.
func (a *app) trustHint() string {
	if a.trust != "" {
		return ""
	}
	return " --trust TRUST"
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

// fact is what record and erase sign.
type fact struct {
	kind      ledger.Kind
	target    api.Target
	sets      []string // name=value
	note      string
	when, out string
}

// digestFlags are the named forms that take a digest, or a file that has one.
var digestFlags = map[string]string{"artifact": "artifact", "image": "image", "base-image": "baseImage", "sbom": "sbom", "plan": "plan"}

func newChangesRecord(a *app) *cobra.Command {
	var o fact
	var service, scope string
	named := map[string]*string{}
	cmd := &cobra.Command{
		Use:   "record KIND --service S",
		Short: "Record a fact: a deploy, a rotated secret, a changed dependency, a note",
		Long: "Record a fact as a signed statement. KIND is one of:\n  " + strings.Join(recordKinds(), "\n  ") + "\n" +
			"docs/formats.md lists the members of each; --set and its named forms give them.\n" +
			"A digest may also be the path of a file, whose SHA-256 is taken. With --out the\n" +
			"statement is signed for --trust and written, to be sent by anybody: no server is\n" +
			"asked. Facts may be sent for 30 days.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.kind, o.target = ledger.Kind(args[0]), api.Target{Service: service, Scope: api.Scope(scope)}
			for name, v := range named {
				if *v == "" {
					continue
				}
				member, value, err := namedSet(name, *v)
				if err != nil {
					return err
				}
				o.sets = append(o.sets, member+"="+value)
			}
			return a.recordFact(cmd.Context(), &o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&service, "service", "", "service that it is about")
	f.StringVar(&scope, "scope", "", "scope that it is about")
	f.StringVar(&o.note, "note", "", "words for people; go into the detail")
	f.StringVar(&o.when, "time", "", "when it happened: RFC 3339, or how long ago, such as 36h (default: now)")
	f.StringVar(&o.out, "out", "", "write the signed statement to this file instead of sending it")
	f.StringArrayVar(&o.sets, "set", nil, "a member of the kind, name=value; repeat for more")
	for name, help := range map[string]string{"artifact": "digest of the artifact, or its file", "image": "digest of the image", "base-image": "digest of the base image",
		"sbom": "digest of the SBOM, or its file", "version": "version", "name": "name, never a value", "purl": "package URL", "plan": "digest of the plan, or its file"} {
		named[name] = f.String(name, "", help)
	}
	return cmd
}

// namedSet is the member that a named form sets.
func namedSet(name, value string) (member, set string, err error) {
	member, isDigest := digestFlags[name]
	if !isDigest {
		return name, value, nil
	}
	if strings.HasPrefix(value, "sha256:") {
		return member, value, nil
	}
	f, err := os.Open(value)
	if err != nil {
		return "", "", fmt.Errorf("--%s: write sha256:<64 hex digits>, or the path of a file: %w", name, err)
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return member, "sha256:" + hex.EncodeToString(h.Sum(nil)), err
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

func (a *app) recordFact(ctx context.Context, o *fact) error {
	if !o.kind.Signed() {
		return fmt.Errorf("unknown kind %q: write one of %s", o.kind, strings.Join(recordKinds(), ", "))
	}
	if o.out != "" {
		return a.writeFact(ctx, o)
	}
	key, c, origin, err := a.signing(ctx)
	if err != nil {
		return err
	}
	body, err := o.sign(key, origin, serverTime(ctx, c))
	if err != nil {
		return err
	}
	r, err := c.submit(ctx, body)
	if err != nil {
		return err
	}
	return a.printReceipts([]api.Receipt{*r})
}

// writeFact signs without sending.
func (a *app) writeFact(ctx context.Context, o *fact) error {
	key, err := a.signer()
	if err != nil {
		return err
	}
	origin, err := a.origin(ctx)
	if err != nil {
		return err
	}
	body, err := o.sign(key, origin, time.Now())
	if err != nil {
		return err
	}
	fmt.Fprintf(a.err, "wrote %s: send it with sealstone changes send %s, or curl --data-binary @%s SERVER/v1/changes\n", o.out, o.out, o.out)
	return os.WriteFile(o.out, append(body, '\n'), 0o644)
}

func (o *fact) sign(key ledger.Signer, origin string, now time.Time) ([]byte, error) {
	at, err := o.at(now)
	if err != nil {
		return nil, err
	}
	st := newStatement(origin, o.kind, o.target, at)
	if err := setFields(&st.Fields, o.sets); err != nil {
		return nil, err
	}
	return signSubmission(st, o.note, key)
}

func (o *fact) at(now time.Time) (time.Time, error) {
	if o.when == "" {
		return now, nil
	}
	if ago, err := time.ParseDuration(o.when); err == nil {
		return now.Add(-ago.Abs()), nil
	}
	at, err := time.Parse(time.RFC3339, o.when)
	if err != nil {
		return at, fmt.Errorf("--time %q: write RFC 3339, such as 2026-11-20T10:03:00Z, or how long ago, such as 36h", o.when)
	}
	return at, nil
}

func setFields(f *ledger.Fields, sets []string) error {
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
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(f); err != nil {
		return fmt.Errorf("--set: %w", err)
	}
	return nil
}

func newChangesErase(a *app) *cobra.Command {
	o := fact{kind: ledger.DetailErased}
	var object string
	cmd := &cobra.Command{
		Use:   "erase (INDEX | --object DIGEST --service S) --note WHY",
		Short: "Erase the detail of a change, or withhold an object; proofs stay valid",
		Long: "Erase the detail of a change: names and words, which lie outside the log. Or\n" +
			"withhold an object that leaked: a bundle, a document, a set that nothing in force\n" +
			"is made of. Servers answer 410 for it from then on, and don't build it again; who\n" +
			"has it already keeps it. Proofs stay valid, and verify says what is gone.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if (len(args) == 1) == (object != "") {
				return errors.New("erase what? name an INDEX, or an object with --object")
			}
			if object != "" {
				o.kind, o.sets = ledger.ObjectErased, []string{"object=" + object}
				return a.recordFact(cmd.Context(), &o)
			}
			index := strings.TrimPrefix(args[0], "log:")
			var r api.Record
			if err := a.get(cmd.Context(), "/v1/changes/"+url.PathEscape(index), nil, &r); err != nil {
				return err
			}
			d := eventOf(r).Data
			o.target, o.sets = api.Target{Service: d.Service, Scope: d.Scope}, []string{"index=" + index}
			return a.recordFact(cmd.Context(), &o)
		}}
	f := cmd.Flags()
	f.StringVar(&object, "object", "", "digest of a set, bundle or document to withhold")
	f.StringVar(&o.target.Service, "service", "", "with --object: the service that named it; without, all services")
	f.StringVar((*string)(&o.target.Scope), "scope", "", "with --object: the scope that your grant is for")
	f.StringVar(&o.note, "note", "", "words for people; go into the erasure's own detail")
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
