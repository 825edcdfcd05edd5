package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// finding is one line of doctor. Result is ok, warn or fail.
type finding struct {
	Result string `json:"result"`
	Check  string `json:"check"`
	Detail string `json:"detail"`
	Next   string `json:"next,omitempty"` // what to do
}

// doctor goes through what a 3 a.m. command needs, before it is 3 a.m.
type doctor struct {
	a        *app
	c        *client
	trust    *ledger.Trust
	ops      *ledger.Operators // in force; nil is unknown, and so is me
	me       *ledger.Operator  // who has the key
	findings []finding
}

func newDoctor(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Check that everything a safe-mode command needs is there, each with the next step",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			d := &doctor{a: a}
			d.run(c.Context())
			if err := a.print(d.findings, d.show); err != nil {
				return err
			}
			if slices.ContainsFunc(d.findings, func(f finding) bool { return f.Result == "fail" }) {
				return exitCode(exitFinding)
			}
			return nil
		},
	}
}

func (d *doctor) show(w io.Writer) {
	for _, f := range d.findings {
		fmt.Fprintf(w, "%-4s  %s: %s\n", f.Result, f.Check, printable(f.Detail))
		if f.Next != "" {
			fmt.Fprintf(w, "      next: %s\n", printable(f.Next))
		}
	}
}

func (d *doctor) add(result, check, detail, next string) {
	d.findings = append(d.findings, finding{result, check, detail, next})
}

func (d *doctor) run(ctx context.Context) {
	d.checkTrust()
	d.checkKey()
	st, ok := d.checkServer(ctx)
	if !ok {
		return
	}
	d.followSuccession(ctx, st)
	if d.trust != nil && d.trust.Origin != st.Origin {
		d.add("fail", "trust", "the trust file is of "+d.trust.Origin+", the server's log is "+st.Origin, "pass the right --trust, or the right --server")
	}
	if d.trust != nil && d.trust.Origin == st.Origin && d.trust.Version > st.Trust {
		d.add("fail", "trust", fmt.Sprintf("the trust file is version %d, the server uses version %d: its answers may not verify", d.trust.Version, st.Trust),
			"sealstone trust install FILE --data DIR, where the server is; once it is there, sealstone status says what hinders it")
	}
	d.checkClock(st)
	for _, f := range statusFaults(st) {
		d.add("fail", "repository and ledger", f.what, f.next)
	}
	if len(statusFaults(st)) == 0 {
		d.add("ok", "repository and ledger", "tip "+short(st.Source.Tip)+" is accepted, the ledger takes changes", "")
	}
	d.checkMay(ctx)
	d.checkModes(ctx)
}

// followSuccession goes on to the log that succeeds that of --trust, as the
// commands that sign and verify do.
func (d *doctor) followSuccession(ctx context.Context, st api.Status) {
	if d.trust == nil || d.trust.Origin == st.Origin {
		return
	}
	shown, err := d.c.trust(ctx)
	if err != nil {
		return
	}
	if newer, err := d.trust.Follow(shown); err == nil && newer.Origin == st.Origin {
		d.add("warn", "trust", fmt.Sprintf("log %s goes on as %s, and the trust file is of the former", d.trust.Origin, newer.Origin),
			"keep the new one, which its roots lead to: sealstone trust --trust '' >FILE")
		d.trust = newer
	}
}

func (d *doctor) checkTrust() {
	t, err := d.a.loadTrust()
	switch {
	case err != nil:
		d.add("fail", "trust", err.Error(), "get the file anew: sealstone trust --server URL, and compare its root with the owner")
	case t == nil:
		d.add("warn", "trust", "no trust file: a server's own is believed", "pass --trust FILE, or keep it in a context: sealstone context set")
	default:
		d.trust = t
		d.add("ok", "trust", fmt.Sprintf("version %d of %s", t.Version, t.Origin), "")
	}
}

func (d *doctor) checkKey() {
	k, err := d.a.signer()
	if err != nil {
		d.add("fail", "key", err.Error(), "pass --key FILE that only you can read, or add the key to ssh-agent")
		return
	}
	d.add("ok", "key", k.KeyID(), "")
}

func (d *doctor) checkServer(ctx context.Context) (st api.Status, ok bool) {
	c, err := d.a.client()
	start := time.Now()
	if err == nil {
		err = c.get(ctx, "/v1/status", nil, &st)
	}
	if err != nil {
		next := "pass --server URL, or keep it in a context"
		if d.a.server != "" {
			next = "is it running, and is the URL right? A safe mode works without: docs/operations.md, The server is down"
		}
		if codeOf(err) == exitAuth {
			next = "pass --token-file FILE; clients.yaml of the repository lists who has a token"
		}
		d.add("fail", "server", err.Error(), next)
		return st, false
	}
	d.c = c
	d.add("ok", "server", fmt.Sprintf("%s answers in %s", c.base, span(time.Since(start))), "")
	return st, true
}

// checkClock compares the clocks: heads read as STALE from five minutes on.
func (d *doctor) checkClock(st api.Status) {
	at, err := api.ParseTime(st.Time)
	skew := time.Until(at)
	side := "ahead of"
	if skew < 0 {
		side = "behind"
	}
	switch {
	case err != nil:
		d.add("fail", "clock", err.Error(), "")
	case skew.Abs() > time.Minute:
		d.add("fail", "clock", "the server's clock is "+span(skew.Abs())+" "+side+" this machine's", "set the one that is wrong: a client that is over 5m from the server's clock reads STALE, and goes on")
	default:
		d.add("ok", "clock", "this machine and the server agree", "")
	}
}

// checkMay tells what the operators in force let the key do.
func (d *doctor) checkMay(ctx context.Context) {
	k, err := d.a.signer()
	if err != nil || d.trust == nil {
		return // said above
	}
	var answer api.Changes
	if err := d.c.get(ctx, "/v1/changes", url.Values{"kind": {string(ledger.OperatorsChanged)}, "limit": {"1"}}, &answer); err != nil {
		d.add("warn", "operators", "who may do what can't be read: "+err.Error(), "ask somebody whose token has log: true")
		return
	}
	if len(answer.Changes) == 0 {
		d.add("fail", "operators", "the log has no operators yet: nobody may enter a safe mode", "sealstone operators sign DIR --key ROOT, and commit")
		return
	}
	r := answer.Changes[0]
	if err := damagedIn(answer.Changes); err != nil {
		d.add("fail", "operators", err.Error(), "sealstone verify")
		return
	}
	ops, err := d.trust.OperatorsAt(r.Index, eventOf(r).Data.Statement)
	if err != nil {
		d.add("fail", "operators", err.Error(), "sealstone verify")
		return
	}
	id := ops.KeyOwner(k.KeyID())
	i := slices.IndexFunc(ops.Operators, func(o ledger.Operator) bool { return o.ID == id })
	if i < 0 {
		d.add("fail", "operators", fmt.Sprintf("no operator of version %d has this key", ops.Version), "add it to operators.yaml and have a root sign it")
		return
	}
	d.ops, d.me = ops, &ops.Operators[i]
	d.add("ok", "operators", id+" may "+grants(ops.Operators[i].May), "")
}

func grants(list []ledger.Grant) string {
	var out []string
	for _, g := range list {
		scopes := make([]string, len(g.Scopes))
		for i, s := range g.Scopes {
			scopes[i] = string(s)
		}
		out = append(out, strings.Join(g.Do, ",")+" for "+strings.Join(g.Services, ",")+" at "+strings.Join(scopes, ","))
	}
	return strings.Join(out, "; ")
}

// checkModes tells, for each scope, which safe modes can be entered and which
// instances haven't staged them.
func (d *doctor) checkModes(ctx context.Context) {
	live, err := d.c.live(ctx, nil, liveOptions{instances: 1000})
	if err != nil {
		d.add("fail", "safe modes", err.Error(), "")
		return
	}
	for _, s := range live.Services {
		for _, sc := range s.Scopes {
			if sc.Proven != nil {
				d.checkScope(ctx, s.Service, sc)
			}
		}
	}
}

func (d *doctor) checkScope(ctx context.Context, service string, sc api.LiveScope) {
	check := "safe modes of " + service + "@" + string(sc.Scope)
	var modes api.SafeModes
	if err := d.c.get(ctx, "/v1/safe-modes", url.Values{"service": {service}, "scope": {string(sc.Scope)}}, &modes); err != nil {
		d.add("warn", check, err.Error(), "")
		return
	}
	if len(modes.Available) == 0 {
		d.add("warn", check, "there is none to enter", "add services/"+service+"/safe-modes/<mode>/safe-mode.yaml")
		return
	}
	var names []string
	for _, m := range modes.Available {
		names = append(names, string(m.Mode))
	}
	detail := strings.Join(names, ", ") + "; "
	ready, behind := staged(sc.Instances, modes.Available)
	switch {
	case !d.may(d.me, service, sc.Scope):
		d.add("warn", check, detail+ready+"; "+d.me.ID+" may not enter them here", "ask somebody who may"+d.whoMay(service, sc.Scope)+", or have a root sign the grant")
	case behind != "":
		d.add("warn", check, detail+ready, "sealstone live --instance "+behind)
	default:
		d.add("ok", check, detail+ready, "")
	}
}

// maxBehind is how many instances a finding names.
const maxBehind = 3

// staged tells which instances lack which modes, and the first of them.
func staged(list []api.LiveInstance, modes []api.SafeMode) (ready, first string) {
	var behind []string
	reporting := 0
	for _, in := range list {
		if in.Lease == "gone" {
			continue
		}
		reporting++
		var lacks []string
		for _, m := range modes {
			if !slices.Contains(in.SafeModes, m.Mode) {
				lacks = append(lacks, string(m.Mode))
			}
		}
		if len(lacks) > 0 {
			first = cmp.Or(first, in.ID)
			behind = append(behind, in.ID+" lacks "+strings.Join(lacks, ", "))
		}
	}
	switch n := len(behind) - maxBehind; {
	case reporting == 0:
		return "no instance reports, so whether they are staged is unknown", ""
	case first == "":
		return "staged on each of " + count(reporting, "instance") + " that report", ""
	case n > 0:
		behind = append(behind[:maxBehind], fmt.Sprintf("and %d more", n))
	}
	return strings.Join(behind, "; "), first
}

// may tells whether an operator may enter a safe mode somewhere; who isn't known
// may, as far as is known.
func (d *doctor) may(o *ledger.Operator, service string, scope api.Scope) bool {
	return o == nil || slices.ContainsFunc(o.May, func(g ledger.Grant) bool { return g.Allows("safe-mode", service, scope) })
}

func (d *doctor) whoMay(service string, scope api.Scope) string {
	var ids []string
	for i := range d.ops.Operators {
		if o := &d.ops.Operators[i]; d.may(o, service, scope) {
			ids = append(ids, o.ID)
		}
	}
	if len(ids) == 0 {
		return ", nobody so far"
	}
	return ": " + strings.Join(ids, ", ")
}
