package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
)

func newStatus(a *app) *cobra.Command {
	var code bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show how the server does, what is wrong first",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			wrong, err := a.status(c.Context())
			if err == nil && code && wrong {
				return exitCode(exitFinding)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&code, "exit-code", false, "exit 2 when something is wrong")
	return cmd
}

func (a *app) status(ctx context.Context) (wrong bool, err error) {
	var st api.Status
	if err := a.get(ctx, "/v1/status", nil, &st); err != nil {
		return false, err
	}
	faults := statusFaults(st)
	return len(faults) > 0, a.print(st, func(w io.Writer) {
		for _, f := range faults {
			fmt.Fprintf(w, "%s  %s\n", colour(w, "31", "WRONG"), printable(f.what))
			fmt.Fprintf(w, "  next: %s\n", printable(f.next))
		}
		if len(faults) == 0 {
			fmt.Fprintln(w, "nothing is wrong")
		}
		table(w, "", statusRows(st))
	})
}

// fault is something wrong, and what to do about it.
type fault struct{ what, next string }

// statusFaults are the worst first: what stops safety, then what stops changes.
func statusFaults(st api.Status) (list []fault) {
	add := func(when bool, what, next string) {
		if when {
			list = append(list, fault{what, next})
		}
	}
	add(st.Behind != "", "the log lacks entries that clients may know: what they put into effect, safe modes too, is not shown here",
		"docs/operations.md, The store is behind its anchor: until it is recovered a safe mode needs --after; sealstone live --trust '' shows what instances report")
	add(st.Writes != "ok", "the ledger takes no changes: "+st.Writes, "docs/operations.md, When it goes wrong; safe modes go on as pending")
	add(st.TrustFile != "", "the trust file in the server's data directory is not in use: "+st.TrustFile,
		"end what it names: the server takes the file within its --poll then, or when it is started again. Until then give it to no client: the answers would not verify")
	for _, d := range st.Damaged {
		add(true, fmt.Sprintf("clients can't fetch %s@%s: %s", d.Service, d.Scope, d.Why), cmp.Or(d.Next, "it is tried again at every round; see docs/operations.md, When it goes wrong"))
	}
	add(st.Details != "", "details of changes, their names and words: "+st.Details,
		"nothing that is live depends on them. sealstone verify --data DIR, of a copy, says which; with a mirror that was made with --details, sealstone ledger recover puts them back; else sealstone changes erase INDEX says in the log that one is gone")
	add(st.Pending > 0, count(st.Pending, "safe-mode statement")+" that the log doesn't have", pendingNext(st))
	add(st.PendingFile != "", "safe-mode statements that wait for the ledger don't survive a restart: "+st.PendingFile,
		"free the disk, or move DATA/pending away and keep it, and start the server again; then enter what sealstone safe-mode status lacks")
	for _, h := range st.SafeModes {
		add(h.Overdue, fmt.Sprintf("safe mode %s at %s@%s is overdue since %s", h.Mode, h.Service, h.Scope, h.Expires), "sealstone safe-mode renew, or exit, "+h.Service+" --scope "+string(h.Scope))
	}
	add(st.Failing > 0, count(st.Failing, "instance")+" in state ERROR, or with a refusal that stands, of a server's answer or an override file", "sealstone live --drift, then sealstone live --instance ID of those it shows")
	add(st.ClockSkew != "", st.ClockSkew, "set the server's clock. If it is right, it was ahead when that change was recorded, and this ends by itself")
	src := st.Source
	add(src.Refused != "", "the branch was rewritten: "+src.Refused, "push the branch back, or sealstone source accept --rev NEW")
	add(src.Unsigned != "", "the tip is not signed by an operator: "+src.Unsigned, "have somebody who may sign the tip")
	add(src.LastError != "", "Git: "+src.LastError, "nothing that is live depends on it; mend what it names: the repository's address or token, or the commit at the tip")
	add(src.LastSuccess == "" && src.LastError == "", "the repository has not been read yet", "wait for the first round")
	add(src.Operators != "", "the tip's operators are not in force: "+src.Operators, "sealstone operators sign DIR --key ROOT")
	add(src.Clients != "", "the tip's clients.yaml is not in force: "+src.Clients, "sealstone check DIR")
	for _, r := range st.Rejected {
		first := ""
		if len(r.Faults) > 0 {
			first = ": " + r.Faults[0]
		}
		add(true, fmt.Sprintf("%s stays at its last good set, commit %s has %s%s", r.Service, short(r.Commit), count(r.Total, "fault"), first), rejectedNext(r))
	}
	return list
}

// pendingNext is what ends that statements wait: their cause.
func pendingNext(st api.Status) string {
	switch {
	case st.Behind != "":
		return "recover the ledger: what fits is appended then"
	case st.Writes != "ok":
		return "end what keeps the ledger from taking changes, such as a full disk; they are appended then"
	}
	return "wait a few seconds: they are appended. One that stays was signed after a generation that its chain doesn't have: docs/operations.md, The store is behind its anchor"
}

// foundByServer are the rules that a check of the repository knows nothing of.
var foundByServer = map[string]string{
	"E_MODE_IN_FORCE":   "sealstone safe-mode exit, or keep the mode in the release",
	"E_TOO_MANY_CHAINS": "activate outer scopes instead of many inner ones",
	"E_WITHHELD":        "sealstone changes --kind object.erased says by whom and why; change that content in the repository, or promote a release without it",
}

func rejectedNext(r api.RejectedService) string {
	next := ""
	for _, f := range r.Faults {
		_, rest, _ := strings.Cut(f, ": ")
		rule, _, _ := strings.Cut(rest, " ")
		if foundByServer[rule] == "" {
			return "sealstone check DIR --rev " + short(r.Commit)
		}
		next = foundByServer[rule]
	}
	return cmp.Or(next, "sealstone check DIR --rev "+short(r.Commit))
}

func statusRows(st api.Status) [][]string {
	now, err := api.ParseTime(st.Time)
	if err != nil {
		now = time.Now()
	}
	read := "never"
	if st.Source.LastSuccess != "" {
		read = ago(st.Source.LastSuccess, now)
	}
	rows := [][]string{
		{"server", st.Version + ", started " + ago(st.Started, now)},
		{"log", st.Origin + ", " + fmt.Sprint(st.Size) + " entries"},
		{"trust file", "version " + fmt.Sprint(st.Trust)},
		{"operators", "version " + fmt.Sprint(st.Operators)},
		{"repository", st.Source.Repository + " " + st.Source.Branch},
		{"tip", dash(short(st.Source.Tip)) + ", read " + read},
		{"instances", fmt.Sprint(st.Instances)},
		{"watchers", fmt.Sprint(st.Watchers)},
	}
	if st.Dropped > 0 {
		rows = append(rows, []string{"gaps", fmt.Sprintf("%d runs of instances were too many to keep; live --at lacks them", st.Dropped)})
	}
	for _, h := range st.SafeModes {
		rows = append(rows, []string{"safe mode", fmt.Sprintf("%s at %s@%s", h.Mode, h.Service, h.Scope)})
	}
	return rows
}
