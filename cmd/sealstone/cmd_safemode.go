package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// safeModeOptions are what enter, exit and renew are told.
type safeModeOptions struct {
	kind                         ledger.Kind
	mode                         string // "" is the one in force
	scope, reason, onExpiry, out string
	ttl                          time.Duration
	after                        int64
	over                         bool
	ttlGiven, expiryGiven        bool // else the mode's own description says
}

func newSafeMode(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "safe-mode", Short: "Put a service into a pre-built safe mode, and back"}
	var o safeModeOptions
	change := func(use, short, long string, kind ledger.Kind, args cobra.PositionalArgs) *cobra.Command {
		c := &cobra.Command{Use: use, Short: short, Long: long, Args: args, RunE: func(c *cobra.Command, args []string) error {
			o.ttlGiven, o.expiryGiven = c.Flags().Changed("ttl"), c.Flags().Changed("on-expiry")
			if !c.Flags().Changed("after") {
				o.after = -1
			}
			if o.kind = kind; len(args) > 1 {
				o.mode = args[1]
			}
			return a.safeMode(c.Context(), args[0], o)
		}}
		f := c.Flags()
		f.StringVar(&o.scope, "scope", "", "scope, for example prod or prod/eu-west-1 (required)")
		f.StringVar(&o.reason, "reason", "", "why, for example an incident's number; goes into the detail")
		f.StringVar(&o.out, "out", "", "write the signed statement to this file instead of sending it")
		f.Int64Var(&o.after, "after", 0, "generation of the override chain you act on, plus 1 for each file you act on that the log lacks; without it the server is asked")
		_ = c.MarkFlagRequired("scope")
		cmd.AddCommand(c)
		return c
	}
	enter := change("enter SERVICE MODE --scope SCOPE [--reason WHY]", "Enter a safe mode",
		"Enter a safe mode. SERVICE may be a list (a,b) or '*'. Every client has the mode's\n"+
			"bundle already; it flips when it learns of the change. Works while Git is down. If\n"+
			"no server can be reached, --out writes the statement: drop that file into the\n"+
			"override directory of the clients. It is the bare statement: a reason, which is kept\n"+
			"apart from it, can't travel in it.", ledger.SafeModeEntered, cobra.ExactArgs(2))
	renew := change("renew SERVICE [MODE] --scope SCOPE", "Extend the safe mode in force", "", ledger.SafeModeRenewed, cobra.RangeArgs(1, 2))
	exit := change("exit SERVICE [MODE] --scope SCOPE", "Leave the safe mode in force", "Leave the safe mode in force: clients go to what the main chain says now.", ledger.SafeModeExited, cobra.RangeArgs(1, 2))
	for _, c := range []*cobra.Command{enter, renew} {
		c.Flags().DurationVar(&o.ttl, "ttl", 4*time.Hour, "time to live, 1m to 24h; without it what the mode's safe-mode.yaml says")
		c.Flags().StringVar(&o.onExpiry, "on-expiry", "hold", "what happens then: hold (stay and alarm) or restore; without it what the mode says")
	}
	for _, c := range []*cobra.Command{enter, renew, exit} {
		for _, name := range []string{"ttl", "on-expiry", "after"} { // their defaults are not values
			if f := c.Flags().Lookup(name); f != nil {
				f.DefValue = map[string]string{"ttl": "0s", "after": "0"}[name]
			}
		}
	}
	enter.Flags().BoolVar(&o.over, "over", false, "also leave narrower safe modes below the scope")
	cmd.AddCommand(newSafeModeStatus(a))
	return cmd
}

func newSafeModeStatus(a *app) *cobra.Command {
	var at string
	cmd := &cobra.Command{Use: "status [SERVICE [--scope SCOPE]]", Short: "Show the safe modes in force, and those that can be entered at a scope", Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.safeModeStatus(c.Context(), args, at) }}
	cmd.Flags().StringVar(&at, "scope", "", "also list the modes that SERVICE has at this scope")
	return cmd
}

// safeMode signs and sends one statement a service.
func (a *app) safeMode(ctx context.Context, services string, o safeModeOptions) error {
	scope, err := api.ParseScope(o.scope)
	if err != nil {
		return err
	}
	key, err := a.signer()
	if err != nil {
		return err
	}
	if o.out != "" {
		return a.safeModeFile(ctx, api.Target{Service: services, Scope: scope}, o, key)
	}
	c, err := a.client()
	if err != nil {
		return err
	}
	origin, err := a.origin(ctx, c)
	if err != nil {
		return withFileHint(err, services, o)
	}
	names, err := c.expandServices(ctx, services)
	if err != nil {
		return withFileHint(err, services, o)
	}
	s := modeSender{a, c, origin, key}
	receipts, err := s.each(ctx, names, scope, services == "*", o)
	if len(receipts) > 0 {
		err = errors.Join(err, a.printReceipts(receipts))
	} else if err == nil {
		err = fmt.Errorf("no service has safe mode %q at %s", o.mode, scope)
	}
	if err == nil && slices.ContainsFunc(receipts, func(r api.Receipt) bool { return len(r.Narrower) > 0 || r.Behind != "" }) {
		return exitCode(exitFinding)
	}
	return err
}

// modeSender sends statements about safe modes to a server.
type modeSender struct {
	a      *app
	c      *client
	origin string
	key    ledger.Signer
}

// each goes on after an error: this is no moment to stop half-way. With any, a
// service that has no such mode is left alone.
func (s *modeSender) each(ctx context.Context, names []string, scope api.Scope, any bool, o safeModeOptions) (receipts []api.Receipt, err error) {
	for _, service := range names {
		r, failed := s.one(ctx, api.Target{Service: service, Scope: scope}, o)
		switch code := api.CodeOf(failed); {
		case failed == nil:
			receipts = append(receipts, *r)
		case any && (code == api.CodeUnprocessable || code == api.CodeNotActivated):
			fmt.Fprintf(s.a.err, "%s@%s: left alone: %v\n", service, scope, failed)
		default:
			err = errors.Join(err, fmt.Errorf("%s@%s: %w", service, scope, withFileHint(failed, service, o)))
		}
	}
	return receipts, err
}

// one sends a statement for one service and, with --over, exits for the narrower
// modes that would stay.
func (s *modeSender) one(ctx context.Context, t api.Target, o safeModeOptions) (*api.Receipt, error) {
	r, err := s.send(ctx, t, o)
	if err != nil || !o.over {
		return r, err
	}
	for _, h := range r.Narrower {
		o.kind, o.mode, o.after = ledger.SafeModeExited, string(h.Mode), -1 // of a chain of its own
		if _, err := s.send(ctx, api.Target{Service: t.Service, Scope: h.Scope}, o); err != nil {
			return r, fmt.Errorf("leaving %s at %s: %w", h.Mode, h.Scope, err)
		}
	}
	r.Narrower = nil
	return r, nil
}

func (s *modeSender) send(ctx context.Context, t api.Target, o safeModeOptions) (*api.Receipt, error) {
	seen, err := s.c.safeModes(ctx, t)
	if err != nil {
		return nil, s.c.namingPlaces(ctx, err, t)
	}
	if err = seen.complete(t, &o); err != nil {
		return nil, err
	}
	if o.kind == ledger.SafeModeRenewed && o.reason == "" {
		o.reason = seen.at(t.Scope).Reason // why the mode is there doesn't change
	}
	body, err := signSubmission(o.statement(s.origin, t, seen.now), o.reason, s.key)
	if err != nil {
		return nil, err
	}
	r, err := s.c.submit(ctx, body)
	switch {
	case err != nil || r.Late:
	case r.Behind != "":
		fmt.Fprintf(s.a.err, "%s: who obeys is not known: %s. Clients that know a later generation there than %d pass this over, and log which\n", t, r.Behind, o.after)
		fmt.Fprintf(s.a.err, "next: take the scope's generation from overrides in a client's Live(); if it is above %d: sealstone safe-mode %s %s %s --scope %s --after GENERATION\n",
			o.after, verbOf(o.kind), t.Service, o.mode, t.Scope)
	case o.kind == ledger.SafeModeExited && len(r.Outer) == 0:
		fmt.Fprintf(s.a.err, "%s is in normal mode\n", t)
	case o.kind == ledger.SafeModeExited:
		fmt.Fprintf(s.a.err, "%s is in %s, by %s\n", t, r.Outer[0].Mode, r.Outer[0].Scope)
	default:
		until := seen.now.Add(o.ttl).UTC().Format("2006-01-02 15:04 UTC")
		fmt.Fprintf(s.a.err, "%s is in %s until %s, then %s\n", t, o.mode, until, map[string]string{"hold": "it holds and is overdue", "restore": "it is left"}[o.onExpiry])
	}
	return r, err
}

// seenModes is what the server shows of a target's safe modes, and its time.
type seenModes struct {
	api.SafeModes
	now time.Time
}

func (c *client) safeModes(ctx context.Context, t api.Target) (*seenModes, error) {
	s := &seenModes{}
	err := c.get(ctx, "/v1/safe-modes", url.Values{"service": {t.Service}, "scope": {string(t.Scope)}}, &s.SafeModes)
	if err == nil {
		s.now, err = api.ParseTime(s.Time)
	}
	return s, err
}

// at is the mode in force at exactly a scope, or zero.
func (s *seenModes) at(scope api.Scope) (h api.Held) {
	if i := slices.IndexFunc(s.InForce, func(h api.Held) bool { return h.Scope == scope }); i >= 0 {
		h = s.InForce[i]
	}
	return h
}

// complete fills in what the command left out.
func (s *seenModes) complete(t api.Target, o *safeModeOptions) error {
	if o.after < 0 && s.After != nil {
		o.after = *s.After
	}
	if o.mode == "" {
		o.mode = string(s.at(t.Scope).Mode)
	}
	if o.mode == "" {
		return s.notInForce(t)
	}
	s.defaults(o)
	return nil
}

// notInForce says where a mode is, when it isn't at the target.
func (s *seenModes) notInForce(t api.Target) error {
	e := &api.Error{Code: api.CodeUnprocessable, Detail: "no safe mode is in force at " + t.String(), Hint: "sealstone safe-mode status shows what is"}
	if s.Behind != "" {
		e.Hint = "the log is behind its anchor, so it may be in force on clients: name the MODE, and --after GENERATION, that of the scope in overrides of a client's Live()"
	}
	for _, h := range s.InForce {
		if h.Scope.Contains(t.Scope) || t.Scope.Contains(h.Scope) {
			e.Hint = fmt.Sprintf("%s is in force at %s: pass --scope %s", h.Mode, h.Scope, h.Scope)
		}
	}
	return e
}

// namingPlaces adds to the error of a place where nothing is activated those
// where something is: the service's scopes, or the services.
func (c *client) namingPlaces(ctx context.Context, err error, t api.Target) error {
	e, ok := errors.AsType[*api.Error](err)
	if !ok || e.Code != api.CodeNotActivated {
		return err
	}
	all, failed := c.services(ctx)
	list := activated(all)
	if failed != nil || len(list) == 0 {
		return err
	}
	hint := "services are " + strings.Join(serviceNames(list), ", ")
	for _, s := range list {
		if s.Service != t.Service {
			continue
		}
		var scopes []string
		for _, sc := range s.Scopes {
			scopes = append(scopes, string(sc.Scope))
		}
		hint = "scopes of " + s.Service + " are " + strings.Join(scopes, ", ")
	}
	return &api.Error{Code: e.Code, Detail: e.Detail, Hint: hint}
}

func verbOf(k ledger.Kind) string {
	return map[ledger.Kind]string{ledger.SafeModeEntered: "enter", ledger.SafeModeRenewed: "renew", ledger.SafeModeExited: "exit"}[k]
}

// withFileHint says, where no server can be reached, what works without one.
func withFileHint(err error, service string, o safeModeOptions) error {
	e, ok := errors.AsType[*api.Error](err)
	if !ok || e.Code != api.CodeUnavailable {
		return err
	}
	return &api.Error{Code: e.Code, Detail: e.Detail, Err: e.Err, Hint: fmt.Sprintf("is it running? Without it: sealstone safe-mode %s %s %s --scope %s --after GENERATION --out FILE.dsse --trust trust.json, "+
		"and copy the file to the clients' OverrideDir; docs/operations.md says where GENERATION is", verbOf(o.kind), service, cmp.Or(o.mode, "MODE"), o.scope)}
}

// defaults takes what the flags don't say from the mode's own safe-mode.yaml.
func (s *seenModes) defaults(o *safeModeOptions) {
	for _, m := range s.Available {
		if string(m.Mode) != o.mode || m.TTL == 0 {
			continue
		}
		if !o.ttlGiven {
			o.ttl = time.Duration(m.TTL) * time.Second
		}
		if !o.expiryGiven {
			o.onExpiry = m.OnExpiry
		}
	}
}

func (o safeModeOptions) statement(origin string, t api.Target, now time.Time) *ledger.Statement {
	st := newStatement(origin, o.kind, t, now)
	st.After, st.Mode = &o.after, api.Mode(o.mode)
	if o.kind != ledger.SafeModeExited {
		st.TTL, st.OnExpiry = int64(o.ttl/time.Second), o.onExpiry
	}
	return st
}

// newStatement frames a statement.
func newStatement(origin string, kind ledger.Kind, t api.Target, now time.Time) *ledger.Statement {
	return &ledger.Statement{ID: uuid.Must(uuid.NewV7()).String(), Kind: kind, Log: origin, Service: t.Service, Scope: t.Scope, Time: api.FormatTime(now)}
}

// signSubmission signs a statement with a reason in its detail.
func signSubmission(st *ledger.Statement, reason string, key ledger.Signer) ([]byte, error) {
	var text map[string]any
	if reason != "" {
		text = map[string]any{"reason": reason}
	}
	detail, name, err := ledger.NewDetail(text)
	if err != nil {
		return nil, err
	}
	st.Detail = name
	raw, err := st.Sign(key)
	if err != nil {
		return nil, err
	}
	sub := api.Submission{Statement: raw}
	if detail != nil {
		sub.Salt, sub.Detail = detail.Salt, detail.Text
	}
	return json.Marshal(sub)
}

func (c *client) submit(ctx context.Context, body []byte) (*api.Receipt, error) {
	b, err := c.do(ctx, http.MethodPost, "/v1/changes", body)
	if err != nil {
		return nil, err
	}
	var r api.Receipt
	return &r, json.Unmarshal(b, &r)
}

// expandServices turns "a,b" and "*" into names.
func (c *client) expandServices(ctx context.Context, list string) ([]string, error) {
	if list != "*" {
		names := strings.Split(list, ",")
		for _, n := range names {
			if err := api.CheckName(n); err != nil {
				return nil, fmt.Errorf("service %w", err)
			}
		}
		return names, nil
	}
	all, err := c.services(ctx)
	return serviceNames(activated(all)), err
}

// services are all that the server knows anything of.
func (c *client) services(ctx context.Context) ([]api.LiveService, error) {
	var live api.Live
	err := c.get(ctx, "/v1/live", url.Values{"instances": {"0"}}, &live)
	return live.Services, err
}

// activated keeps the services and scopes where something is in effect: others
// are only reported, or asked for.
func activated(list []api.LiveService) (out []api.LiveService) {
	for _, s := range list {
		s.Scopes = slices.DeleteFunc(s.Scopes, func(sc api.LiveScope) bool { return sc.Proven == nil })
		if len(s.Scopes) > 0 {
			out = append(out, s)
		}
	}
	return out
}

func serviceNames(list []api.LiveService) (names []string) {
	for _, s := range list {
		names = append(names, s.Service)
	}
	return names
}

// fileTimeout bounds the look at a server before a file is written.
const fileTimeout = 3 * time.Second

// look asks the server, if there is one, what it knows of a target; nil when
// nothing could be asked.
func (a *app) look(ctx context.Context, t api.Target) (*seenModes, error) {
	if a.server == "" {
		return nil, nil
	}
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, fileTimeout)
	defer cancel()
	seen, err := c.safeModes(ctx, t)
	if err == nil {
		return seen, nil
	}
	if code := api.CodeOf(err); code == api.CodeUnavailable || code == api.CodeInternal || code == api.CodeUnauthorized {
		return nil, nil
	}
	return nil, c.namingPlaces(ctx, err, t)
}

// checkFile holds what a file will say to what a server knows.
func (s *seenModes) checkFile(t api.Target, mode string) error {
	var names []string
	for _, m := range s.Available {
		names = append(names, string(m.Mode))
	}
	if !slices.Contains(names, mode) && string(s.at(t.Scope).Mode) != mode {
		return &api.Error{Code: api.CodeUnprocessable, Detail: fmt.Sprintf("%s has no safe mode %q", t, mode),
			Hint: fmt.Sprintf("it has [%s]; with --server '' the file is written unchecked", strings.Join(names, " "))}
	}
	return nil
}

// safeModeFile writes a statement for a file drop. A server that answers is
// asked whether the names are right; none is needed.
func (a *app) safeModeFile(ctx context.Context, t api.Target, o safeModeOptions, key ledger.Signer) error {
	if o.reason != "" || strings.ContainsAny(t.Service, ",*") {
		return errors.New("--out writes the bare statement of one service, which has no room for a reason: leave out --reason, and name one SERVICE")
	}
	seen, err := a.look(ctx, t)
	if err == nil && seen != nil && seen.Behind != "" && o.after < 0 {
		return &api.Error{Code: api.CodeUnprocessable, Detail: fmt.Sprintf("the server's log is behind its anchor, so its generation %d may be below that of clients, which then pass the file over", *seen.After),
			Hint: "pass --after GENERATION: that of the scope in overrides of a client's Live()"}
	}
	if err == nil && seen != nil && seen.Behind == "" {
		if err = seen.complete(t, &o); err == nil {
			err = seen.checkFile(t, o.mode)
		}
	}
	switch {
	case err != nil:
		return err
	case o.after < 0:
		return errors.New("no server could be asked: pass --after GENERATION of the override chain (0 when there never was one; overrides in a client's Live() shows it; after an enter or renew by a file that one's --after plus 1)")
	case o.mode == "":
		return errors.New("no server could be asked: name the MODE")
	}
	var c *client
	if seen != nil {
		c, _ = a.client() // it answered just now
	}
	origin, err := a.origin(ctx, c)
	if err != nil {
		return err
	}
	now := time.Now()
	if seen != nil {
		if d := seen.now.Sub(now); d.Abs() > time.Minute {
			fmt.Fprintf(a.err, "note: this machine's clock and the server's are %s apart; the statement has the server's time\n", span(d.Abs()))
		}
		now = seen.now
	}
	raw, err := o.statement(origin, t, now).Sign(key)
	if err != nil {
		return err
	}
	if err := writeOut(o.out, append(raw, '\n')); err != nil {
		return err
	}
	fmt.Fprintf(a.err, "wrote %s: %s %s %s after generation %d; drop it into the override directory of the clients; send it to a server with sealstone changes send %s\n", o.out, o.kind, t, o.mode, o.after, o.out)
	switch {
	case seen == nil && o.kind == ledger.SafeModeEntered:
		fmt.Fprintf(a.err, "note: no server was asked, so nothing was checked: clients pass over a wrong service, scope, mode or generation. To leave the mode by a file: safe-mode exit --after %d\n", o.after+1)
	case seen == nil:
		fmt.Fprintln(a.err, "note: no server was asked, so nothing was checked: clients pass over a wrong service, scope, mode or generation. After an enter or renew by a file --after is that one's plus 1: with the same number the log takes only the first")
	case seen.Behind != "":
		fmt.Fprintf(a.err, "note: nothing was checked: the server's log is behind its anchor, at generation %d there\n", *seen.After)
	case seen.After != nil && *seen.After != o.after:
		fmt.Fprintf(a.err, "note: the server's chain is at generation %d\n", *seen.After)
	}
	return nil
}

func (a *app) printReceipts(list []api.Receipt) error {
	var v any = list
	if len(list) == 1 {
		v = list[0]
	}
	return a.print(v, func(w io.Writer) {
		for _, r := range list {
			switch {
			case r.Volatile:
				fmt.Fprintf(w, "accepted, unrecorded, in memory only: %s, and a restart of the server forgets it; keep it with --out FILE.dsse, and send that again (id %s)\n", obeyed(r), r.ID)
			case r.Unrecorded:
				fmt.Fprintf(w, "accepted, unrecorded: the ledger can't take it now; %s, and it is appended when possible (id %s)\n", obeyed(r), r.ID)
			case r.Late:
				fmt.Fprintf(w, "kept as late, without effect: entry %d\n", r.Index)
			default:
				fmt.Fprintf(w, "%s  entry %d  generation %d  %s\n", r.Kind, r.Index, r.Generation, r.LeafHash.Short())
			}
			for _, h := range r.Outer {
				fmt.Fprintf(w, "still in force there: %s at %s@%s (entry %d)\n", h.Mode, h.Service, h.Scope, h.Index)
			}
			for _, h := range r.Narrower {
				fmt.Fprintf(w, "stays in force: %s at %s@%s; to leave it: sealstone safe-mode exit %s --scope %s\n", h.Mode, h.Service, h.Scope, h.Service, h.Scope)
			}
		}
	})
}

// obeyed tells who obeys a statement that the log doesn't have.
func obeyed(r api.Receipt) string {
	if r.Behind != "" {
		return "the log is behind its anchor, so only clients that know no later generation there obey"
	}
	return "every client obeys"
}

func (a *app) safeModeStatus(ctx context.Context, args []string, scope string) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	q := url.Values{}
	if len(args) > 0 {
		q.Set("service", args[0])
	}
	if scope != "" {
		if len(args) == 0 {
			return errors.New("--scope goes with a SERVICE")
		}
		q.Set("scope", scope)
	}
	answer, err := a.provenModes(ctx, c, q)
	if err != nil {
		return err
	}
	now, err := api.ParseTime(answer.Time)
	if err != nil {
		return err
	}
	err = a.print(answer, func(w io.Writer) {
		defer availableTable(w, answer.Available)
		if answer.Behind != "" {
			fmt.Fprintf(w, "%s  %s. Safe modes of the entries that are lost may be in force on clients, and are not shown here: sealstone live --trust '' shows what instances report\n", colour(w, "31", "WRONG"), printable(answer.Behind))
		}
		if len(answer.InForce) == 0 {
			fmt.Fprintln(w, map[bool]string{true: "no safe mode is in force", false: "none is in force by the entries that are left"}[answer.Behind == ""])
			return
		}
		var rows [][]string
		for _, h := range answer.InForce {
			rows = append(rows, []string{h.Service, string(h.Scope), string(h.Mode), ago(h.Entered, now), dash(h.By), ends(h, now), entryOr(h.Index, "pending"), dash(h.Reason)})
		}
		table(w, "SERVICE SCOPE MODE SINCE BY ENDS ENTRY REASON", rows)
	})
	if err == nil && answer.Behind != "" {
		return exitCode(exitFinding)
	}
	return err
}

func availableTable(w io.Writer, modes []api.SafeMode) {
	if len(modes) == 0 {
		return
	}
	var rows [][]string
	for _, m := range modes {
		ttl := "-"
		if m.TTL > 0 {
			ttl = span(time.Duration(m.TTL) * time.Second)
		}
		rows = append(rows, []string{string(m.Mode), ttl, dash(m.OnExpiry), dash(m.Owner), clipText(m.Description, 72)})
		for _, e := range m.Exit {
			rows = append(rows, []string{"", "", "", "exit when", e})
		}
	}
	fmt.Fprintln(w)
	table(w, "AVAILABLE TTL THEN OWNER DESCRIPTION", rows)
}

func ends(h api.Held, now time.Time) string {
	t, err := api.ParseTime(h.Expires)
	switch {
	case h.Pending:
		return span(time.Duration(h.TTL)*time.Second) + " after it is recorded, then " + h.OnExpiry
	case err != nil:
		return "-"
	case h.Overdue || t.Before(now):
		return "overdue, " + h.OnExpiry + "s"
	}
	return "in " + span(t.Sub(now)) + ", then " + h.OnExpiry
}
