package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/canon"
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
	if v := q.Get("digest"); v != "" {
		if _, err := wholeDigest(v); err != nil {
			return err
		}
	}
	return setTimes(q, map[string]string{"from": q.Get("from"), "to": q.Get("to")})
}

func (a *app) listChanges(ctx context.Context, q url.Values) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	trust, err := a.rowsTrust(ctx, c, false)
	if err != nil {
		return err
	}
	answer, err := c.searchChanges(ctx, q)
	if err == nil {
		_, err = proveChanges(ctx, c, trust, signedTree{}, answer.Changes)
	}
	if err != nil {
		return err
	}
	a.noteComplete(trust)
	err = a.print(answer, func(w io.Writer) {
		var rows [][]string
		for _, r := range answer.Changes {
			row := changeRow(r)
			why := row[len(row)-1]
			if rows = append(rows, row[:len(row)-1]); why != "-" {
				rows = append(rows, []string{clipText("       "+why, maxWidth)})
			}
		}
		fitted(w, "ENTRY TIME KIND SUBJECT WHAT BY", rows)
		if len(rows) == 0 {
			fmt.Fprintln(a.err, nothingFound(q))
		}
		if whole := slices.DeleteFunc(slices.Clone(answer.Chains), func(s api.ChainSpan) bool { return !s.Complete }); q.Get("service") != "" && len(answer.Chains) > len(whole) {
			fmt.Fprintf(a.err, "of %d in %s the table leaves changes out: the filters, or --limit, do; -o json says which\n", len(answer.Chains)-len(whole), count(len(answer.Chains), "chain"))
		}
		if answer.Next != nil {
			fmt.Fprintf(a.err, "more: add --before %d\n", *answer.Next)
		}
	})
	return errors.Join(err, damagedIn(answer.Changes), lostDetails(trust, missingDetails(answer.Changes)))
}

// damagedIn says of rows that there is nothing in some of them; nil when they are
// whole.
func damagedIn(list []api.Record) error {
	i := slices.IndexFunc(list, func(r api.Record) bool { return r.Damaged })
	if i < 0 {
		return nil
	}
	return &api.Error{Code: api.CodeDamaged, Detail: fmt.Sprintf("entry %d is damaged on the server's disk", list[i].Index),
		Hint: fmt.Sprintf("sealstone changes show %d says how to recover", list[i].Index)}
}

// nothingFound says so, and what a filter may have been meant for.
func nothingFound(q url.Values) string {
	if q.Has("actor") {
		return "no change fits; --actor is an operator's id or key id: words such as a commit's author are found by --text"
	}
	return "no change fits"
}

// searchChanges asks on while a server that looks for words has looked at as many
// details as it does in one answer, and found none.
func (c *client) searchChanges(ctx context.Context, q url.Values) (answer api.Changes, err error) {
	for last := int64(math.MaxInt64); ; last = *answer.Next {
		answer = api.Changes{}
		err = c.get(ctx, "/v1/changes", q, &answer)
		if err != nil || len(answer.Changes) > 0 || answer.Next == nil || *answer.Next >= last {
			return answer, err
		}
		q.Set("before", fmt.Sprint(*answer.Next))
	}
}

// followEvery is how often a follower asks for more.
const followEvery = time.Second

// follower shows changes as they come. The log that it follows only grows, and
// with a trust file each tree goes on from the one that was proven before.
type follower struct {
	a      *app
	c      *client
	trust  *ledger.Trust
	q      url.Values
	size   int64      // of the log, as the server said it last
	proven signedTree // of the rows shown last
}

func (f *follower) ask(ctx context.Context) (answer api.Changes, err error) {
	if err := f.c.get(ctx, "/v1/changes", f.q, &answer); err != nil {
		return answer, err
	}
	if answer.Size < f.size {
		return answer, f.shrunk(ctx, answer.Size)
	}
	f.size = answer.Size
	f.proven, err = proveChanges(ctx, f.c, f.trust, f.proven, answer.Changes)
	if fork, ok := errors.AsType[*forkError](err); ok {
		f.tell(fork.proven.note, fork.shown.note)
	}
	return answer, err
}

// shrunk says that the log was longer before.
func (f *follower) shrunk(ctx context.Context, size int64) error {
	if f.proven.note != "" {
		shown, _ := f.c.log(ctx, "checkpoint")
		f.tell(f.proven.note, string(shown))
	}
	return &api.Error{Code: api.CodeInternal, Err: errProof, Detail: fmt.Sprintf("the log was rolled back: it had %d entries, and the server says it has %d", f.size, size),
		Hint: "keep what was shown of it; sealstone verify --server looks at what is there now"}
}

// tell prints two checkpoints that contradict each other: whoever has both can
// show it.
func (f *follower) tell(proven, shown string) {
	fmt.Fprintf(clean(f.a.err), "checkpoint that was proven:\n%s\ncheckpoint that the server shows:\n%s\n", proven, shown)
}

// followChanges shows changes as they come, until it is interrupted. A server
// that doesn't answer is said once and asked again.
func (a *app) followChanges(ctx context.Context, q url.Values) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	trust, err := a.rowsTrust(ctx, c, false)
	if err != nil {
		return err
	}
	f := &follower{a: a, c: c, trust: trust, q: q}
	answer, err := f.ask(ctx)
	if err != nil {
		return err
	}
	a.noteComplete(trust)
	slices.Reverse(answer.Changes)
	q.Set("order", "asc")
	q.Del("before")
	said, after := false, answer.Size-1
	for {
		if err := cmp.Or(a.printFollowed(answer.Changes), lostDetails(trust, missingDetails(answer.Changes))); err != nil {
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
		if answer, err = f.ask(ctx); codeOf(err) == exitProof {
			return err
		}
		if err != nil {
			answer = api.Changes{} // what was not shown is asked for again
		}
		if err != nil && !said && ctx.Err() == nil {
			fmt.Fprintf(a.err, "sealstone: %v; asking again\n", err)
		}
		said = err != nil
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

// changeRow is a change for a table; why comes last, and for an activation the
// release's commit before it.
func changeRow(r api.Record) []string {
	if r.Damaged {
		return []string{fmt.Sprint(r.Index), "-", "(damaged)", "-", "-", "-", "-"}
	}
	e := eventOf(r)
	text := func(key string) string { s, _ := r.Detail[key].(string); return s }
	why := text("reason") + text("subject") + text("note")
	switch {
	case r.Erased || r.Missing:
		why = noDetail(r.ErasedBy, r.Missing)
	case e.Kind() == ledger.SafeModeExited && e.Data.Statement == nil:
		why = ranOut
	}
	at := e.RecordedTime
	if t, err := api.ParseTime(at); err == nil {
		at = t.UTC().Format("2006-01-02 15:04:05Z")
	}
	if st := lateStatement(&e); st != nil {
		why = strings.TrimSpace(fmt.Sprintf("%s %s, of %s  %s", st.Kind, what(&st.Fields), strings.TrimSuffix(st.Time, ".000Z"), why))
	} else if r.Late {
		why = strings.TrimSpace("late, of " + strings.TrimSuffix(e.Time, ".000Z") + "  " + why)
	}
	thing := what(&e.Data.Fields)
	if set := e.Data.Set; set != nil {
		thing, why = hex12(set.Digest), short(e.Data.Release.Commit)+"  "+why
	}
	return []string{fmt.Sprint(r.Index), at, string(e.Kind()), dash(e.Subject), thing, dash(clipText(r.By(), 24)), dash(why)}
}

// lateStatement is what a statement.late keeps, nil for other changes: its own
// time is when it was recorded.
func lateStatement(e *ledger.Event) *ledger.Signed {
	if e.Kind() != ledger.StatementLate {
		return nil
	}
	st, _ := ledger.ParseStatement(e.Data.Statement)
	return st
}

// noDetail stands where a detail's words would, and says why they don't.
func noDetail(erasedBy int64, missing bool) string {
	switch {
	case missing:
		return "(missing, no erasure in the log says why)"
	case erasedBy == 0: // a server that doesn't say
		return "(erased)"
	}
	return fmt.Sprintf("(erased, entry %d)", erasedBy)
}

// ranOut is why a safe mode ended that nobody left.
const ranOut = "its time ran out"

// what is the one thing that a change is about, for a table.
func what(f *ledger.Fields) string {
	switch {
	case f.Set != nil:
		return f.Set.Digest.Short() + " from " + short(f.Release.Commit)
	case f.Mode != "":
		return string(f.Mode)
	case f.Total > 0:
		return count(f.Total, "fault")
	case f.From != "":
		return short(f.From) + " → " + short(f.To)
	case f.Index > 0:
		return fmt.Sprintf("detail of entry %d", f.Index)
	case f.Late != "":
		return f.Late
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
		c, err := a.client()
		if err != nil {
			return err
		}
		trust, err := a.rowsTrust(cmd.Context(), c, false)
		if err != nil {
			return err
		}
		var r api.Record
		if err := c.get(cmd.Context(), "/v1/changes/"+url.PathEscape(strings.TrimPrefix(args[0], "log:")), nil, &r); err != nil {
			return err
		}
		one := []api.Record{r}
		if _, err := proveChanges(cmd.Context(), c, trust, signedTree{}, one); err != nil {
			return err
		}
		err = a.print(one[0], func(w io.Writer) { showChange(w, one[0]) })
		return cmp.Or(err, lostDetails(trust, missingDetails(one)))
	}}
}

// showChange is one change for people; -o yaml has every member.
func showChange(w io.Writer, r api.Record) {
	e, row := eventOf(r), changeRow(r)
	rows := [][]string{{"entry", row[0]}, {"recorded", e.RecordedTime}, {"kind", row[2]}, {"subject", row[3]}, {"by", dash(r.By())}}
	if e.Time != e.RecordedTime {
		rows = append(rows, []string{"time", e.Time})
	}
	rows = append(rows, memberRows("", e.Data.Fields)...)
	if st := lateStatement(&e); st != nil {
		rows = append(rows, []string{"statement.kind", string(st.Kind)}, []string{"statement.time", st.Time})
		if st.After != nil {
			rows = append(rows, []string{"statement.after", fmt.Sprint(*st.After)})
		}
		rows = append(rows, memberRows("statement.", st.Fields)...)
	}
	for _, k := range slices.Sorted(maps.Keys(r.Detail)) {
		rows = append(rows, []string{k, oneLine(plain(r.Detail[k]))})
	}
	if r.Erased || r.Missing {
		rows = append(rows, []string{"detail", noDetail(r.ErasedBy, r.Missing)})
	}
	table(w, "", append(rows, []string{"id", e.ID}, []string{"leaf", string(r.LeafHash)}))
}

// memberRows are the members of a kind, a row each.
func memberRows(prefix string, v any) (rows [][]string) {
	b, err := json.Marshal(v)
	var members map[string]any
	if err != nil || json.Unmarshal(b, &members) != nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		switch v := members[name].(type) {
		case map[string]any:
			rows = append(rows, memberRows(name+".", v)...)
		case []any:
			for _, one := range v {
				text, _ := canon.Encode(one)
				rows = append(rows, []string{prefix + name, string(text)})
			}
		default:
			rows = append(rows, []string{prefix + name, fmt.Sprint(v)})
		}
	}
	return rows
}

func newChangesProof(a *app) *cobra.Command {
	var out string
	cmd := &cobra.Command{Use: "proof INDEX --out FILE", Short: "Write a change with its proof, to verify anywhere", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.client()
			if err != nil {
				return err
			}
			e, err := c.evidence(cmd.Context(), 0, 0, strings.TrimPrefix(args[0], "log:"))
			if err != nil {
				return err
			}
			b, err := proofFile(e)
			if err != nil {
				return err
			}
			if out == "" {
				_, err = filter{a.out, escaped}.Write(b)
				return err
			}
			if err := writeOut(out, b); err != nil {
				return err
			}
			fmt.Fprintf(a.err, "wrote %s; next: sealstone verify %s%s\n", out, out, a.trustHint())
			return nil
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

// evidence is the proof of changes in the tree of a size; 0 is the newest.
// With from it is also the proof that this tree goes on from one of that size.
func (c *client) evidence(ctx context.Context, size, from int64, indexes ...string) (*ledger.Evidence, error) {
	var e ledger.Evidence
	q := url.Values{"proof": {"1"}}
	for name, n := range map[string]int64{"size": size, "from": from} {
		if n > 0 {
			q.Set(name, fmt.Sprint(n))
		}
	}
	err := c.get(ctx, "/v1/changes/"+url.PathEscape(strings.Join(indexes, ",")), q, &e)
	return &e, err
}

func proofFile(e *ledger.Evidence) ([]byte, error) {
	b, err := json.MarshalIndent(e, "", "  ")
	return append(b, '\n'), err
}
