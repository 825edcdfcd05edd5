package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// liveOptions say what of the answer is wanted.
type liveOptions struct {
	at, instance, after string
	instances           int // listed; -1 is as the server likes
	drift               bool
}

func newLive(a *app) *cobra.Command {
	var o liveOptions
	var code, watch bool
	cmd := &cobra.Command{
		Use:   "live [SERVICE]",
		Short: "Show what is live, where, since when, by whose change",
		Long: "Show, by service and scope, what the ledger proves to be in effect beside what\n" +
			"running instances report, and where the two differ. With --trust every row is proven\n" +
			"by the log, and one that isn't ends the command with exit 3; what instances report\n" +
			"stays their word. With --at it is what the server says to have been in effect then,\n" +
			"and who reported what at that time; history proves the past of a target.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if !c.Flags().Changed("instances") {
				o.instances = -1
			}
			if watch {
				return a.watchLive(c.Context(), args, o)
			}
			found, err := a.live(c.Context(), args, o)
			if err == nil && code && found {
				return exitCode(exitFinding)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.drift, "drift", false, "only scopes that drift")
	f.StringVar(&o.at, "at", "", "what was in effect at this time, RFC 3339")
	f.StringVar(&o.instance, "instance", "", "only the instance with this id, with all it says of itself")
	f.IntVar(&o.instances, "instances", 100, "list this many instances, 0 to 1000")
	f.StringVar(&o.after, "after", "", "go on listing instances after this one")
	f.BoolVar(&code, "exit-code", false, "exit 2 when something drifts, or the log is behind its anchor")
	f.BoolVar(&watch, "watch", false, "show it again whenever it changes: redrawn on a terminal, else as JSON lines")
	cmd.MarkFlagsMutuallyExclusive("watch", "at")
	cmd.MarkFlagsMutuallyExclusive("watch", "exit-code")
	cmd.AddCommand(newLiveFlags(a), newLiveDeps(a), newLiveImages(a))
	return cmd
}

func (a *app) live(ctx context.Context, args []string, o liveOptions) (drifts bool, err error) {
	c, err := a.client()
	if err != nil {
		return false, err
	}
	trust, err := a.rowsTrust(ctx, c, o.at != "")
	if err != nil {
		return false, err
	}
	live, drifts, err := a.provenLive(ctx, c, trust, args, o)
	if err != nil {
		return false, err
	}
	if live.Behind != "" {
		fmt.Fprintln(a.err, "note: "+printable(live.Behind)+". What the entries that are lost put into effect is not shown: trust what instances report")
	}
	return drifts || live.Behind != "", a.print(live, func(w io.Writer) {
		if len(live.Services) == 0 {
			fmt.Fprintln(a.err, nothingLive(ctx, c, args, o))
		} else if o.drift && !drifts {
			fmt.Fprintln(a.err, "nothing drifts")
		}
		showLive(w, live, o)
		if live.Next != "" && o.instances >= 0 {
			fmt.Fprintf(a.err, "more: add --after %q\n", live.Next)
		}
	})
}

// provenLive asks for what is live, proves it where there is a trust file, and
// keeps what is wanted of it.
func (a *app) provenLive(ctx context.Context, c *client, trust *ledger.Trust, args []string, o liveOptions) (live api.Live, drifts bool, err error) {
	for range provenTries {
		if live, err = c.live(ctx, args, o); err != nil || trust == nil {
			break
		}
		if err = a.proveAllLive(ctx, c, trust, &live, o.instance == ""); codeOf(err) != exitProof {
			break
		}
	}
	return live, wanted(&live, o), err
}

// rowsTrust is --trust, to prove rows with. Without it, and of another time, they
// are the server's word, and that is said.
func (a *app) rowsTrust(ctx context.Context, c *client, past bool) (*ledger.Trust, error) {
	switch {
	case a.trust == "":
		fmt.Fprintln(a.err, "note: the rows are the server's word: pass --trust FILE to prove them")
		return nil, nil
	case past:
		fmt.Fprintln(a.err, "note: what was live at another time is the server's word: sealstone history proves it, target by target")
		return nil, nil
	}
	return a.needTrust(ctx, c)
}

// live asks for what is live.
func (c *client) live(ctx context.Context, args []string, o liveOptions) (live api.Live, err error) {
	q := url.Values{}
	if len(args) > 0 {
		if service, _, target := strings.Cut(args[0], "@"); target {
			return live, fmt.Errorf("live takes a service: sealstone live %s, or sealstone history %s", service, args[0])
		}
		q.Set("service", args[0])
	}
	if err := setTimes(q, map[string]string{"at": o.at}); err != nil {
		return live, err
	}
	if o.instances >= 0 {
		q.Set("instances", fmt.Sprint(o.instances))
	}
	for name, v := range map[string]string{"instance": o.instance, "after": o.after} {
		if v != "" {
			q.Set(name, v)
		}
	}
	err = c.get(ctx, "/v1/live", q, &live)
	return live, err
}

// wanted drops what isn't, and tells whether anything drifts.
func wanted(live *api.Live, o liveOptions) (drifts bool) {
	for i, s := range live.Services {
		kept := s.Scopes[:0:0]
		for _, sc := range s.Scopes {
			drifts = drifts || len(sc.Drift) > 0
			if !o.drift || len(sc.Drift) > 0 {
				kept = append(kept, sc)
			}
		}
		live.Services[i].Scopes = kept
	}
	return drifts
}

// nothingLive explains an empty table.
func nothingLive(ctx context.Context, c *client, args []string, o liveOptions) string {
	switch {
	case o.instance != "":
		return fmt.Sprintf("no instance %q reports here: ids are those of sealstone live --instances 1000", o.instance)
	case o.at != "":
		return "nothing was activated at " + o.at
	case len(args) > 0:
		if list, err := c.services(ctx); err == nil && len(activated(list)) > 0 {
			return fmt.Sprintf("no service %q is activated; there are %s", args[0], strings.Join(serviceNames(activated(list)), ", "))
		}
	}
	return "nothing is activated yet: a server that just started is reading its repository, or /v1/status says what is wrong"
}

func showLive(w io.Writer, live api.Live, o liveOptions) {
	now, err := api.ParseTime(live.Time)
	if err != nil {
		now = time.Now()
	}
	if o.instance != "" {
		instanceSheets(w, live, now)
		return
	}
	var rows [][]string
	for _, s := range live.Services {
		for _, sc := range s.Scopes {
			rows = append(rows, liveRow(s.Service, sc, now))
			if sc.Proven != nil && sc.Proven.Missing != "" {
				rows = append(rows, []string{"  ! " + sc.Proven.Missing})
			}
			rows = append(rows, driftRows("  ", sc.Drift)...)
			rows = append(rows, reportedRows(sc, now, o.instances >= 0)...)
		}
		if s.Omitted > 0 {
			rows = append(rows, []string{fmt.Sprintf("%s: and %d more scopes that instances report from", s.Service, s.Omitted)})
		}
	}
	fitted(w, "TARGET MODE BUNDLE RELEASE SINCE ENTRY BY", rows)
}

// driftRows stand below what drifts, a line for each way.
func driftRows(indent string, drift []string) (rows [][]string) {
	for _, d := range drift {
		rows = append(rows, []string{indent + "! " + d})
	}
	return rows
}

// reportedRows lists a few instances, and counts many.
func reportedRows(sc api.LiveScope, now time.Time, list bool) (rows [][]string) {
	total := 0
	for _, c := range sc.Counts {
		total += c.Instances
	}
	if total > len(sc.Instances) {
		for _, c := range sc.Counts {
			rows = append(rows, countRow(c))
			rows = append(rows, driftRows("    ", c.Drift)...)
		}
		if !list {
			return rows
		}
	}
	for _, in := range sc.Instances {
		rows = append(rows, instanceRow(in, now))
		rows = append(rows, driftRows("    ", in.Drift)...)
	}
	return rows
}

func countRow(c api.LiveCount) []string {
	if c.Omitted {
		return []string{fmt.Sprintf("  %d others", c.Instances)}
	}
	return []string{"  " + count(c.Instances, "instance"), dash(string(c.Mode)), hex12(c.Bundle), artifactName(c.Version, c.Revision), "-", "-", leased(c.State, c.Lease)}
}

// artifactName prefers the commit: a version is a label.
func artifactName(version, revision string) string {
	if revision != "" {
		return short(revision)
	}
	return dash(version)
}

func leased(state api.State, lease string) string {
	if state == "" {
		return lease
	}
	if lease != "live" {
		return string(state) + ", " + lease
	}
	return string(state)
}

// instanceSheets show all that an instance says of itself. What it doesn't say
// is unknown.
func instanceSheets(w io.Writer, live api.Live, now time.Time) {
	for _, s := range live.Services {
		for _, sc := range s.Scopes {
			for _, in := range sc.Instances {
				table(w, "", instanceSheet(in, sc.Proven, now))
				showPast(w, in.Past)
			}
		}
	}
}

// showPast lists what an instance ran before.
func showPast(w io.Writer, past []api.PastRun) {
	if len(past) == 0 {
		return
	}
	var rows [][]string
	for _, p := range past {
		rows = append(rows, []string{p.From, p.To, dash(string(p.Mode)), hex12(p.Bundle), artifactName(p.Version, p.Revision), fmt.Sprint(p.Index)})
	}
	fmt.Fprintln(w)
	table(w, "FROM TO MODE BUNDLE RELEASE ENTRY", rows)
}

func instanceSheet(in api.LiveInstance, p *api.Proven, now time.Time) (rows [][]string) {
	add := func(name, value string) {
		if value == "" {
			value = "unknown"
		}
		rows = append(rows, []string{name, value})
	}
	add("instance", in.ID)
	add("target", in.Target.String())
	add("state", leased(in.State, in.Lease))
	add("last seen", in.LastSeen+" ("+ago(in.LastSeen, now)+")")
	add("drift", dash(strings.Join(in.Drift, "; ")))
	if p != nil {
		add("proven", string(p.Bundle))
		add("by", fmt.Sprintf("entry %s of %s, since %s, mode %s", entryOr(p.Index, "pending"), dash(p.By), p.Since, p.Mode))
	}
	add("bundle", string(in.Bundle))
	add("set", string(in.Set))
	add("mode", string(in.Mode))
	add("entry", reportedEntry(in))
	add("since", in.Since)
	add("head", in.HeadAt)
	modes := make([]string, len(in.SafeModes))
	for i, m := range in.SafeModes {
		modes[i] = string(m)
	}
	add("safe modes ready", dash(strings.Join(modes, " ")))
	add("version", in.Version)
	revision := in.Revision
	if in.Modified {
		revision += " and changes that are not committed"
	}
	add("revision", revision)
	add("artifact", in.Artifact)
	add("image", in.Image)
	add("base image", in.BaseImage)
	add("sbom", in.SBOM)
	add("dependencies", string(in.Deps))
	add("sdk", in.SDK)
	add("started", in.Started)
	if r := in.Refusal; r != nil {
		add("refused", r.Check+": "+r.Message+" ("+strings.TrimPrefix(r.Source+", "+r.Time, ", ")+")")
		next := "mend the server that gave it: the refusal ends when answers are good for 5m; docs/operations.md, When it goes wrong"
		if r.OfFile() {
			next = "remove the file, or put a good one in its place: the refusal ends within seconds"
		}
		add("next", next)
	}
	add("reported by", in.Client)
	return rows
}

func liveRow(service string, sc api.LiveScope, now time.Time) []string {
	target := service + "@" + string(sc.Scope)
	p := sc.Proven
	if p == nil {
		return []string{target, "-", "-", "-", "-", "-", "-"}
	}
	return []string{target, string(p.Mode), hex12(p.Bundle), short(p.Release), ago(p.Since, now), entryOr(p.Index, "pending"), dash(p.By)}
}

func instanceRow(in api.LiveInstance, now time.Time) []string {
	return []string{"  " + in.ID, dash(string(in.Mode)), hex12(in.Bundle), artifactName(in.Version, in.Revision), ago(in.Since, now), reportedEntry(in), leased(in.State, in.Lease)}
}

// entryOr is an entry's number, and a word for what the log doesn't have.
func entryOr(index int64, word string) string {
	if index < 0 {
		return word
	}
	return strconv.FormatInt(index, 10)
}

// reportedEntry is what an instance goes by: in a safe mode without an entry, a
// statement that waits for the log.
func reportedEntry(in api.LiveInstance) string {
	if in.Mode != "" && in.Mode != api.ModeNormal {
		return entryOr(in.Index, "pending")
	}
	return entryOr(in.Index, "-")
}

// hex12 is a digest's first digits, as tables show it.
func hex12(d api.Digest) string { return dash(short(strings.TrimPrefix(string(d), "sha256:"))) }
