package main

import (
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// historyOptions are the flags of history.
type historyOptions struct {
	from, to, proofs string
	before           int64
	limit            int // 0 is all
}

// historyRows is what a table shows unless --limit says otherwise.
const historyRows = 50

func newHistory(a *app) *cobra.Command {
	var o historyOptions
	cmd := &cobra.Command{
		Use:   "history TARGET",
		Short: "Show everything that was in effect for a target, from when to when, by whom",
		Long: "Show, newest first, every bundle that was in effect for service@scope, with the\n" +
			"change that brought it. Times are those at which the log recorded the changes. A\n" +
			"table shows the newest 50; -o json, jsonl, yaml and csv hold all, for audits. With\n" +
			"--trust every row, and that none is kept back, is proven by the log; one that isn't\n" +
			"ends the command with exit 3. With --proofs every change that the answer names is written to DIR as changes proof\n" +
			"does, to verify without a server.",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if !c.Flags().Changed("limit") && a.output == "table" {
				o.limit = historyRows
			}
			return a.history(c.Context(), args[0], o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.from, "from", "", "what was in effect at this time and after it, RFC 3339")
	f.StringVar(&o.to, "to", "", "what was in effect before this time, RFC 3339")
	f.StringVar(&o.proofs, "proofs", "", "directory to write the changes' proofs to")
	f.Int64Var(&o.before, "before", 0, "only what began before this entry, to page")
	f.IntVar(&o.limit, "limit", 0, "at most this many; 0 is all")
	return cmd
}

func (a *app) history(ctx context.Context, target string, o historyOptions) error {
	t, err := api.ParseTarget(target)
	if err != nil {
		return err
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	q := url.Values{"target": {t.String()}}
	if err := setTimes(q, map[string]string{"from": o.from, "to": o.to}); err != nil {
		return err
	}
	if o.before > 0 {
		q.Set("before", fmt.Sprint(o.before))
	}
	var trust *ledger.Trust
	if o.proofs != "" {
		trust, err = a.needTrust(ctx, c)
	} else {
		trust, err = a.rowsTrust(ctx, c, false)
	}
	if err != nil {
		return err
	}
	var h *api.History
	var proven *provenPast
	var lost error
	for range provenTries { // a detail may have been erased after the head that all is proven by
		if h, proven, err = a.provenHistory(ctx, c, trust, maps.Clone(q), o); err != nil {
			return err
		}
		if lost = lostDetails(trust, missingOf(h)); lost == nil {
			break
		}
	}
	if o.proofs != "" {
		if err := a.writeProofs(o.proofs, h.Intervals, proven.provenLog); err != nil {
			return err
		}
	}
	if a.output == "csv" {
		return cmp.Or(historyCSV(clean(a.out), h), lost)
	}
	err = a.print(h, func(w io.Writer) {
		historyTable(w, h, o.to == "" && o.before == 0)
		if h.Next != nil {
			fmt.Fprintf(a.err, "more: add --before %d, or --limit 0 for all\n", *h.Next)
		}
	})
	if errors.Is(err, errFormat) {
		err = fmt.Errorf("%w, or csv", err)
	}
	return cmp.Or(err, lost)
}

// missingOf lists the changes of which the words are missing.
func missingOf(h *api.History) (list []int64) {
	for _, iv := range h.Intervals {
		if iv.DetailMissing {
			list = append(list, iv.Index)
		}
	}
	return list
}

// history reads as many pages as it takes; limit 0 is all.
func (c *client) history(ctx context.Context, q url.Values, limit int) (*api.History, error) {
	const page = 1000
	var all *api.History
	for {
		want := page
		if limit > 0 {
			want = min(page, limit)
			if all != nil {
				want = min(page, limit-len(all.Intervals))
			}
		}
		q.Set("limit", fmt.Sprint(want))
		var h api.History
		if err := c.get(ctx, "/v1/history", q, &h); err != nil {
			return nil, err
		}
		if all == nil {
			all = &h
		} else {
			all.Intervals, all.Next = append(all.Intervals, h.Intervals...), h.Next
		}
		if all.Next == nil || len(h.Intervals) == 0 || limit > 0 && len(all.Intervals) >= limit {
			return all, nil
		}
		q.Set("before", fmt.Sprint(*all.Next))
	}
}

// tableWidth is what a table of free text fits.
const tableWidth = 100

// historyTable shows intervals and the gaps between them; untilNow says that
// the newest is followed by nothing.
func historyTable(w io.Writer, h *api.History, untilNow bool) {
	var rows [][]string
	for i, iv := range h.Intervals {
		switch {
		case iv.EndedBy == nil:
		case i == 0 && untilNow, i > 0 && *iv.EndedBy != h.Intervals[i-1].Index:
			gap := api.Interval{From: iv.To, Index: *iv.EndedBy, Reason: "nothing activated"}
			if i > 0 {
				gap.To = h.Intervals[i-1].From
			}
			rows = append(rows, historyRow(gap))
		}
		rows = append(rows, historyRow(iv))
	}
	const header = "FROM LASTED MODE BUNDLE RELEASE ENTRY BY WHY"
	fitLast(header, rows, tableWidth)
	table(w, header, rows)
}

func historyRow(iv api.Interval) []string {
	lasted := "to now"
	if iv.To != "" {
		from, _ := api.ParseTime(iv.From)
		to, _ := api.ParseTime(iv.To)
		lasted = span(to.Sub(from))
	}
	why := strings.TrimSpace(iv.Reason + " " + iv.Subject)
	switch {
	case iv.Erased || iv.DetailMissing:
		why = noDetail(iv.ErasedBy, iv.DetailMissing)
	case iv.Missing != "":
		why = iv.Missing
	case iv.Kind == string(ledger.SafeModeExited) && iv.By == "":
		why = ranOut
	}
	bundle := strings.TrimPrefix(iv.Bundle.Short(), "sha256:")
	return []string{seconds(iv.From), lasted, dash(clipText(string(iv.Mode), 12)), dash(bundle), dash(iv.Commit[:min(8, len(iv.Commit))]), fmt.Sprint(iv.Index), dash(clipText(iv.By, 12)), dash(why)}
}

// seconds is a time of the API for a table.
func seconds(s string) string {
	s, _, _ = strings.Cut(strings.Replace(strings.TrimSuffix(s, "Z"), "T", " ", 1), ".")
	return s
}

// fitLast clips the last column so that a table is at most width wide.
func fitLast(header string, rows [][]string, width int) {
	names := strings.Fields(header)
	last := len(names) - 1
	for i, name := range names[:last] {
		widest := len(name)
		for _, r := range rows {
			widest = max(widest, utf8.RuneCountInString(r[i]))
		}
		width -= widest + 2
	}
	for _, r := range rows {
		r[last] = clipText(r[last], max(width, 10))
	}
}

var historyHeader = strings.Fields("from to index kind endedBy by subject reason erased detailMissing mode bundle missing set commit tree " +
	"main.scope main.index main.generation override.scope override.index override.generation")

// historyCSV writes one line an interval. Text of other people that a
// spreadsheet would take for a formula gets an apostrophe in front.
func historyCSV(w io.Writer, h *api.History) error {
	out := csv.NewWriter(w)
	rows := [][]string{historyHeader}
	for _, iv := range h.Intervals {
		row := []string{iv.From, iv.To, fmt.Sprint(iv.Index), iv.Kind, "", plainCell(iv.By), plainCell(iv.Subject), plainCell(iv.Reason), fmt.Sprint(iv.Erased), fmt.Sprint(iv.DetailMissing),
			string(iv.Mode), string(iv.Bundle), iv.Missing, string(iv.Set), iv.Commit, iv.Tree}
		if iv.EndedBy != nil {
			row[4] = fmt.Sprint(*iv.EndedBy)
		}
		row = append(row, chainCells(&iv.Main)...)
		rows = append(rows, append(row, chainCells(iv.Override)...))
	}
	return out.WriteAll(rows)
}

func chainCells(r *api.ChainRef) []string {
	if r == nil {
		return []string{"", "", ""}
	}
	return []string{string(r.Scope), fmt.Sprint(r.Index), fmt.Sprint(r.Generation)}
}

func plainCell(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}

// writeProofs writes the proof of every change that intervals name: those that
// the rows were held to.
func (a *app) writeProofs(dir string, intervals []api.Interval, p *provenLog) error {
	named := map[int64]bool{}
	for _, iv := range intervals {
		named[iv.Index], named[iv.Main.Index] = true, true
		if iv.EndedBy != nil {
			named[*iv.EndedBy] = true
		}
		if iv.Override != nil {
			named[iv.Override.Index] = true
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, index := range slices.Sorted(maps.Keys(named)) {
		b, err := proofFile(p.proof(index))
		if err != nil {
			return err
		}
		path := filepath.Join(dir, fmt.Sprintf("%d.json", index))
		if err := writeOut(path, b); err != nil {
			return err
		}
	}
	fmt.Fprintf(a.err, "wrote %s to %s", count(len(named), "proof"), dir)
	if len(named) > 0 {
		fmt.Fprintf(a.err, "; next: sealstone verify %s%s", dir, a.trustHint())
	}
	fmt.Fprintln(a.err)
	return nil
}

// timeForms are the spellings of a time on the command line, those of tables
// among them, which are in UTC.
var timeForms = []string{time.RFC3339, "2006-01-02T15:04Z07:00", "2006-01-02", "2006-01-02 15:04:05Z07:00", time.DateTime, "2006-01-02 15:04"}

// setTimes asks with the times that flags of the same name give.
func setTimes(q url.Values, given map[string]string) error {
	for name, v := range given {
		if v == "" {
			continue
		}
		at, err := parseTime("--"+name, v)
		if err != nil {
			return err
		}
		q.Set(name, at.Format(time.RFC3339Nano))
	}
	return nil
}

// parseTime reads RFC 3339; seconds, or a day's time, may be left out.
func parseTime(what, s string) (time.Time, error) {
	for _, form := range timeForms {
		if t, err := time.Parse(form, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%s %.40q: write RFC 3339, for example 2026-11-20T10:03:00Z", what, s)
}
