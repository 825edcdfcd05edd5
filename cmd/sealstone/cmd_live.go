package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
)

func newLive(a *app) *cobra.Command {
	var drift, code bool
	var at string
	cmd := &cobra.Command{
		Use:   "live [SERVICE]",
		Short: "Show what is live, where, since when, by whose change",
		Long: "Show, by service and scope, what the ledger proves to be in effect beside what\n" +
			"running instances report, and where the two differ. With --at it is what the ledger\n" +
			"proves to have been in effect then; what instances reported isn't known.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			found, err := a.live(c.Context(), args, at, drift)
			if err == nil && code && found {
				return exitCode(exitFinding)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&drift, "drift", false, "only scopes that drift")
	cmd.Flags().StringVar(&at, "at", "", "what was in effect at this time, RFC 3339")
	cmd.Flags().BoolVar(&code, "exit-code", false, "exit 2 when something drifts")
	return cmd
}

func (a *app) live(ctx context.Context, args []string, at string, driftOnly bool) (drifts bool, err error) {
	c, err := a.client()
	if err != nil {
		return false, err
	}
	q := url.Values{}
	if len(args) > 0 {
		q.Set("service", args[0])
	}
	if at != "" {
		t, err := parseTime("--at", at)
		if err != nil {
			return false, err
		}
		q.Set("at", t.Format(time.RFC3339Nano))
	}
	var live api.Live
	if err := c.get(ctx, "/v1/live", q, &live); err != nil {
		return false, err
	}
	now, err := api.ParseTime(live.Time)
	if err != nil {
		return false, err
	}
	for i, s := range live.Services {
		kept := s.Scopes[:0:0]
		for _, sc := range s.Scopes {
			drifts = drifts || len(sc.Drift) > 0
			if !driftOnly || len(sc.Drift) > 0 {
				kept = append(kept, sc)
			}
		}
		live.Services[i].Scopes = kept
	}
	return drifts, a.print(live, func(w io.Writer) {
		if len(live.Services) == 0 {
			fmt.Fprintln(a.err, nothingLive(ctx, c, args, at))
		}
		liveTable(w, live, now)
	})
}

// nothingLive explains an empty table.
func nothingLive(ctx context.Context, c *client, args []string, at string) string {
	if at != "" {
		return "nothing was activated at " + at
	}
	var all api.Live
	if len(args) > 0 && c.get(ctx, "/v1/live", nil, &all) == nil && len(all.Services) > 0 {
		var names []string
		for _, s := range all.Services {
			names = append(names, s.Service)
		}
		return fmt.Sprintf("no service %q is activated; there are %s", args[0], strings.Join(names, ", "))
	}
	return "nothing is activated yet: a server that just started is reading its repository, or /v1/status says what is wrong"
}

func liveTable(w io.Writer, live api.Live, now time.Time) {
	var rows [][]string
	for _, s := range live.Services {
		for _, sc := range s.Scopes {
			rows = append(rows, liveRow(s.Service, sc, now))
			for _, in := range sc.Instances {
				rows = append(rows, instanceRow(in, now))
			}
		}
	}
	table(w, "SERVICE SCOPE MODE BUNDLE RELEASE SINCE ENTRY BY DRIFT", rows)
}

func liveRow(service string, sc api.LiveScope, now time.Time) []string {
	drift := strings.Join(sc.Drift, "; ")
	p := sc.Proven
	if p == nil {
		return []string{service, string(sc.Scope), "-", "-", "-", "-", "-", "-", dash(drift)}
	}
	return []string{service, string(sc.Scope), string(p.Mode), p.Bundle.Short(), short(p.Release), ago(p.Since, now), fmt.Sprint(p.Index), dash(p.By), dash(drift)}
}

func instanceRow(in api.LiveInstance, now time.Time) []string {
	state := string(in.State)
	if in.Lease != "live" {
		state += ", " + in.Lease
	}
	artifact := in.Version
	if in.Revision != "" {
		artifact = short(in.Revision)
	}
	return []string{"  reported", in.ID, string(in.Mode), in.Bundle.Short(), dash(artifact), "seen " + ago(in.LastSeen, now), fmt.Sprint(in.Index), state, dash(strings.Join(in.Drift, "; "))}
}
