package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/internal/canon"
	"github.com/sealstone/sealstone/internal/secrets"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

// Bounds of a statement's time against the server's clock.
const (
	maxAhead      = 5 * time.Minute
	maxRecordAge  = 30 * 24 * time.Hour
	appendTimeout = 30 * time.Second
	modeTimeout   = 5 * time.Second // of a safe mode: then it is pending
)

// postChange takes a signed statement: the bare envelope, or a Submission with
// the detail that its digest names.
func (s *Server) postChange(c echo.Context) error {
	body, err := io.ReadAll(c.Request().Body)
	if err != nil {
		return err
	}
	st, detail, err := parseSubmission(body)
	if err != nil {
		return &api.Error{Code: api.CodeInvalid, Detail: plainJSON(err), Hint: "docs/formats.md describes statements; sealstone signs and sends them", Err: err}
	}
	if st.Log != s.store.Trusted().Origin {
		return &api.Error{Code: api.CodeUnprocessable, Detail: fmt.Sprintf("the statement is meant for log %q, this is %q", st.Log, s.store.Trusted().Origin),
			Hint: "sign it anew for this log: sealstone does with --trust FILE of this log, or of one that it succeeds"}
	}
	if err := refuseSecrets(st, detail); err != nil {
		return err
	}
	if st.Detail != "" && detail == nil && s.recorded(st) == nil {
		return &api.Error{Code: api.CodeUnprocessable, Detail: "the statement names a detail, and it did not come along; nothing was recorded",
			Hint: "send the whole file that sealstone wrote, {\"statement\", \"salt\", \"detail\"}; if the detail is lost, sign again"}
	}
	wait := appendTimeout
	if st.Kind.Lane() == ledger.LaneOverride {
		wait = modeTimeout
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), wait)
	defer cancel()
	receipt, err := s.submit(ctx, st, detail)
	if err != nil {
		return err
	}
	if receipt.Unrecorded {
		return c.JSON(http.StatusAccepted, receipt)
	}
	return c.JSON(http.StatusOK, receipt)
}

// refuseSecrets keeps credentials out of the ledger: what is in a leaf stays
// there for ever. It says where one is, and never what it is.
func refuseSecrets(st *ledger.Signed, detail *ledger.Detail) error {
	payload, err := st.Envelope.Bytes()
	if err != nil {
		return err
	}
	var said any
	if err := json.Unmarshal(payload, &said); err != nil {
		return err
	}
	place, what := secrets.In("statement", said)
	if what == "" && detail != nil {
		place, what = secrets.In("detail", detail.Text)
	}
	if what == "" {
		return nil
	}
	return &api.Error{Code: api.CodeUnprocessable, Detail: fmt.Sprintf("%s: member %s looks like %s; nothing was recorded", secrets.Rule, place, what),
		Hint: "name secrets, never quote them; take this one for stolen, revoke it, and sign again without it"}
}

// plainJSON says what is wrong with a body without naming our types.
func plainJSON(err error) string {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Sprintf("the body is not a statement: member %q is a JSON %s", wrong.Field, wrong.Value)
	}
	return err.Error()
}

func parseSubmission(body []byte) (*ledger.Signed, *ledger.Detail, error) {
	body = trimNewline(body)
	tree, err := canon.Parse(body, canon.MaxDepth)
	if err != nil {
		return nil, nil, fmt.Errorf("not JSON: %w", err)
	}
	members, _ := tree.(map[string]any)
	if _, long := members["statement"]; !long {
		st, err := ledger.ParseStatement(body)
		return st, nil, err
	}
	for name := range members {
		if !slices.Contains([]string{"statement", "salt", "detail"}, name) {
			return nil, nil, fmt.Errorf("unknown member %.64q beside the statement", name)
		}
	}
	var sub api.Submission
	if err := json.Unmarshal(body, &sub); err != nil {
		return nil, nil, fmt.Errorf("not a statement with its detail: %w", err)
	}
	st, err := ledger.ParseStatement(sub.Statement)
	if err != nil || sub.Detail == nil {
		return st, nil, err
	}
	d := &ledger.Detail{Salt: sub.Salt, Text: sub.Detail}
	name, err := d.Digest()
	if err == nil && name != st.Detail {
		err = errors.New("the detail is not the one that the statement names")
	}
	return st, d, err
}

// submit judges a statement and appends it. When the log can't take it, a
// safe-mode statement becomes pending instead: an emergency waits for no disk.
func (s *Server) submit(ctx context.Context, st *ledger.Signed, detail *ledger.Detail) (*api.Receipt, error) {
	if st.Kind.Lane() == ledger.LaneOverride && !s.healSets(ctx, st.Service) {
		if old := s.recorded(st); old != nil {
			return old, nil
		}
		return s.hold(st, detail, errUnread)
	}
	receipts, err := s.append(ctx, func(state *ledger.State, now time.Time) (store.Decision, error) {
		if err := checkClock(st, now); err != nil {
			if _, ok := s.store.ByID(st.ID); !ok {
				return store.Decision{}, err
			}
		}
		if slices.ContainsFunc(s.pending.on(st), func(h held) bool { return !stays(state, h.st) }) {
			return store.Decision{}, errOthersWait
		}
		return s.admit(state, st, detail, now.Sub(st.At()) > ledger.LateAfter) // it was pending somewhere, and lost its race
	})
	if err == nil {
		return s.receipt(st, receipts[0]), nil
	}
	if old := s.recorded(st); old != nil {
		return old, nil // a retry whose first try won
	}
	code := api.CodeOf(err)
	cannot := code == api.CodeStorage || code == api.CodeReadOnly || errors.Is(err, context.DeadlineExceeded) || // a disk that hangs
		code == api.CodeConflict && len(s.pending.on(st)) > 0 // signed on top of those
	if st.Kind.Lane() == ledger.LaneOverride && cannot {
		return s.hold(st, detail, err)
	}
	return nil, err
}

var errUnread = &api.Error{Code: api.CodeUnavailable, Detail: "the sets that say which safe modes there are can't be read now"}

// recorded finds a statement that is in the log already.
func (s *Server) recorded(st *ledger.Signed) *api.Receipt {
	index, ok := s.store.ByID(st.ID)
	if !ok {
		return nil
	}
	c, err := s.store.Change(index)
	if err != nil || c.Statement == nil || !ledger.SameStatement(c.Statement.Raw, st.Raw) {
		return nil
	}
	return &api.Receipt{Index: index, LeafHash: c.Hash, ID: st.ID, Kind: string(c.Kind()), Generation: c.Data.Generation, Repeated: true, Late: c.Kind() == ledger.StatementLate}
}

func (s *Server) receipt(st *ledger.Signed, r store.Receipt) *api.Receipt {
	out := &api.Receipt{Index: r.Index, LeafHash: r.Hash, ID: r.ID, Kind: string(st.Kind), Generation: r.Generation, Repeated: r.Repeated}
	if r.Change != nil {
		out.Kind = string(r.Change.Kind())
		out.Late = r.Change.Kind() == ledger.StatementLate
	}
	if st.Kind.Lane() == ledger.LaneOverride {
		out.Narrower = s.narrower(st.Service, st.Scope)
	}
	if st.Kind == ledger.SafeModeExited {
		out.Outer = slices.DeleteFunc(s.held(st.Service), func(h api.Held) bool { return h.Scope == st.Scope || !h.Scope.Contains(st.Scope) })
	}
	return out
}

// narrower lists the safe modes below a scope: they win there.
func (s *Server) narrower(service string, scope api.Scope) []api.Held {
	return slices.DeleteFunc(s.held(service), func(h api.Held) bool { return h.Scope == scope || !scope.Contains(h.Scope) })
}

// submitPending appends a statement that was held: late when the chain went on.
func (s *Server) submitPending(ctx context.Context, h held) (*api.Receipt, error) {
	receipts, err := s.store.Append(ctx, func(state *ledger.State, _ time.Time) (store.Decision, error) {
		return s.admit(state, h.st, h.detail, true) // its age was judged when it was taken
	})
	if err != nil {
		return nil, err
	}
	return s.receipt(h.st, receipts[0]), nil
}

// admit is the decision on a statement, made under the append lock. mayBeLate
// says that a statement which lost its race is kept as statement.late rather
// than refused: it was out there, and clients may have obeyed it. One that was
// signed after more than the chain has lost no race. Clients that have it obey
// it, so it is never kept as late: it can be sent again behind what is missing.
func (s *Server) admit(state *ledger.State, st *ledger.Signed, detail *ledger.Detail, mayBeLate bool) (store.Decision, error) {
	d := store.DraftOf(st, detail)
	if _, ok := s.store.ByID(st.ID); ok { // the store answers with the old receipt, or refuses other bytes
		return store.Decision{Drafts: []store.Draft{d}}, nil
	}
	if err := judge(state, st); err != nil {
		return store.Decision{}, err
	}
	if err := errors.Join(s.admitErasure(state, st), s.admitSource(st)); err != nil {
		return store.Decision{}, err
	}
	if st.Kind == ledger.SafeModeDrilled && !s.hasSuchMode(state, st) {
		return store.Decision{}, s.noSuchMode(state, st)
	}
	if st.Kind.Lane() == ledger.LaneOverride {
		prev, _ := state.Chain(overrideKey(st))
		err := s.admitNext(state, prev, prev.Generation, st)
		if api.CodeOf(err) == api.CodeConflict && mayBeLate && *st.After < prev.Generation && s.hasSuchMode(state, st) {
			return late(st, detail, "superseded"), nil
		}
		if err == nil {
			d.Data.Resolved, err = s.resolvedBy(state, st)
		}
		if err != nil {
			return store.Decision{}, err
		}
	}
	return store.Decision{Drafts: []store.Draft{d}}, nil
}

// late keeps a statement that lost to newer ones while nobody could record it:
// evidence, with no effect.
func late(st *ledger.Signed, detail *ledger.Detail, why string) store.Decision {
	d := ledger.Data{Service: st.Service, Scope: st.Scope, Statement: st.Raw, Detail: st.Detail, Fields: ledger.Fields{Late: why}}
	return store.Decision{Drafts: []store.Draft{{Kind: ledger.StatementLate, Data: d, Detail: detail}}}
}

func judge(state *ledger.State, st *ledger.Signed) error {
	by, err := state.Operators.Judge(st)
	switch {
	case err == nil && st.Envelope.Signatures[0].KeyID != by.Key && st.Envelope.Signatures[0].KeyID != "":
		return &api.Error{Code: api.CodeInvalid, Detail: "the envelope's keyid is not that of the key that signed, " + by.Key, Hint: "write that one, or an empty one; sealstone writes it itself"}
	case errors.Is(err, ledger.ErrSignature):
		return &api.Error{Code: api.CodeForbidden, Detail: err.Error(), Hint: "sign with a key that operators.yaml lists, or have the roots sign a set that has yours", Err: err}
	case err != nil:
		return &api.Error{Code: api.CodeForbidden, Detail: err.Error(), Hint: "operators.yaml says who may do what; its change needs a root's signature", Err: err}
	}
	return nil
}

func checkClock(st *ledger.Signed, now time.Time) error {
	age, limit := now.Sub(st.At()), maxRecordAge
	if st.Kind.Lane() == ledger.LaneOverride {
		limit = ledger.MaxPendingAge
	}
	if age <= limit && age >= -maxAhead {
		return nil
	}
	hint := "set the clock right and sign again; the command line stamps with the server's time, where that answers"
	if st.Kind.Lane() == ledger.LaneRecord {
		hint = "facts are taken for 30 days, and none of the future: give the time when it happened, or set the clock right, and sign again"
	}
	return &api.Error{Code: api.CodeClockSkew, Detail: fmt.Sprintf("the statement's time %s is %s away from the server's %s", st.Time, age.Abs().Round(time.Second), api.FormatTime(now)), Hint: hint}
}

// admitErasure holds an erasure to the place of what it erases: a grant for one
// service erases nothing of another.
func (s *Server) admitErasure(state *ledger.State, st *ledger.Signed) error {
	switch st.Kind {
	case ledger.DetailErased:
		c, err := s.store.Change(st.Index)
		if err != nil {
			return err
		}
		if c.Data.Service != st.Service || c.Data.Scope != st.Scope {
			return &api.Error{Code: api.CodeUnprocessable, Detail: fmt.Sprintf("entry %d is about %q, the statement names %q", st.Index, c.Subject, api.Target{Service: st.Service, Scope: st.Scope}),
				Hint: "name the service and scope of the entry"}
		}
		if _, err := s.store.Detail(st.Index); errors.Is(err, store.ErrErased) || errors.Is(err, store.ErrNotFound) {
			return &api.Error{Code: api.CodeUnprocessable, Detail: fmt.Sprintf("entry %d has no detail, or none any more: there is nothing to erase", st.Index), Hint: fmt.Sprintf("sealstone changes show %d", st.Index)}
		}
	case ledger.ObjectErased:
		return s.admitObjectErasure(state, st)
	}
	return nil
}

// admitObjectErasure lets an object go that the named service alone names, and
// that nothing in force is made of.
func (s *Server) admitObjectErasure(state *ledger.State, st *ledger.Signed) error {
	refused := func(why, hint string) error {
		return &api.Error{Code: api.CodeUnprocessable, Detail: fmt.Sprintf("object %s %s", st.Object.Short(), why), Hint: hint}
	}
	if _, err := s.store.Object(st.Object); errors.Is(err, store.ErrErased) {
		return refused("was erased already", "sealstone changes --digest "+string(st.Object)+" shows by whose change")
	}
	named := false
	for service := range state.Services {
		row, err := s.store.Row(namedRow(service, st.Object))
		if err != nil {
			return err
		}
		named = named || service == st.Service && row != nil
		if row != nil && service != st.Service && st.Service != "" {
			return refused("is named by "+service+" as well", "an operator for all services erases it without naming one")
		}
	}
	if st.Service != "" && !named {
		return refused("was never named by "+st.Service, "name the service whose activation names it")
	}
	inForce, err := s.inForce(state)
	if err != nil {
		return err
	}
	if inForce[st.Object] {
		return refused("is part of what is in force", "activate something else first")
	}
	return nil
}

// inForce lists every object that a set in force reaches.
func (s *Server) inForce(state *ledger.State) (map[api.Digest]bool, error) {
	out := map[api.Digest]bool{}
	for name, c := range state.Active() {
		set, err := s.programs.set(c.Set.Digest)
		if err != nil {
			return nil, err
		}
		out[c.Set.Digest] = true
		for _, e := range set.Entries {
			p, err := s.programs.bundle(e.Digest, name, e.Mode)
			if err != nil {
				return nil, err
			}
			for _, o := range append(p.Manifest.Objects(), e.Digest) {
				out[o] = true
			}
		}
	}
	return out, nil
}

func overrideKey(st *ledger.Signed) ledger.ChainKey {
	return ledger.ChainKey{Lane: ledger.LaneOverride, Service: st.Service, Scope: st.Scope}
}

// admitNext holds a statement to the generation its signer saw and to the mode in
// force. prev is the chain as it stands, pending statements included where the log
// can't take any.
func (s *Server) admitNext(state *ledger.State, prev ledger.Chain, generation int64, st *ledger.Signed) error {
	if *st.After != generation {
		now := "never had a safe mode (generation 0)"
		if prev.Kind != "" {
			now = fmt.Sprintf("is now at %d (%s %s)", generation, prev.Kind, prev.Mode)
		}
		hint := "look with sealstone safe-mode status and sign again"
		if *st.After > generation {
			hint = "nothing was recorded. Send the statements that its signer saw first, then this one again; if there are none, sign again"
		}
		return &api.Error{Code: api.CodeConflict, Hint: hint,
			Detail: fmt.Sprintf("signed after generation %d of the override at %s@%s, which %s", *st.After, st.Service, st.Scope, now)}
	}
	inForce := prev.Kind != "" && prev.Kind != ledger.SafeModeExited
	if st.Kind != ledger.SafeModeEntered && (!inForce || prev.Mode != st.Mode) {
		return &api.Error{Code: api.CodeUnprocessable, Detail: fmt.Sprintf("safe mode %q is not in force at %s@%s", st.Mode, st.Service, st.Scope), Hint: "sealstone safe-mode status shows what is"}
	}
	if st.Kind == ledger.SafeModeEntered {
		if err := s.checkScope(api.Target{Service: st.Service, Scope: st.Scope}); err != nil {
			return err
		}
	}
	return s.fitsHead(state, st, prev.Kind != "")
}

// resolvedBy works out what a statement means at every scope.
func (s *Server) resolvedBy(state *ledger.State, st *ledger.Signed) ([]ledger.Resolved, error) {
	if st.Kind == ledger.SafeModeExited {
		return s.exitTo(state, st.Service, st.Scope), nil
	}
	resolved := s.resolvedAt(state, st.Service, st.Scope, st.Mode)
	switch {
	case len(resolved) == 0:
		return nil, s.noSuchMode(state, st)
	case resolvedSize(resolved) > bundle.MaxResolved:
		return nil, &api.Error{Code: api.CodeTooLarge, Detail: fmt.Sprintf("%d scopes at and below %s have bundles of their own, more than a change can list", len(resolved), st.Scope),
			Hint: "enter it at scopes further in; and promote a release with fewer overlays, as sealstone check asks for (E_LIMIT_SAFE_MODE)"}
	}
	return resolved, nil
}

// exitTo is what the end of a safe mode brings, or nothing where that would not
// fit into a leaf, or sets can't be read: sets of an older bundler may be as wide,
// and no mode may be held by the room that its end takes.
func (s *Server) exitTo(state *ledger.State, service string, scope api.Scope) []ledger.Resolved {
	resolved := s.resolvedAt(state, service, scope, api.ModeNormal)
	if resolvedSize(resolved) > bundle.MaxResolved || s.unread(service) {
		return nil
	}
	return resolved
}

func resolvedSize(list []ledger.Resolved) (bytes int) {
	for _, r := range list {
		bytes += bundle.ResolvedSize(r.Scope)
	}
	return bytes
}

// checkScope keeps a typing error from entering a mode nowhere.
func (s *Server) checkScope(t api.Target) error {
	a := s.source.snapshot().now
	if a.Commit == "" || a.Layout.Listed(t.Scope) || s.live.Reports(t.Service, t.Scope) {
		return nil
	}
	return &api.Error{Code: api.CodeUnprocessable, Detail: fmt.Sprintf("scope %s is not listed in sealstone.yaml, and no instance of %s reports from it", t.Scope, t.Service),
		Hint: "the nearest one is " + a.Layout.Nearest(string(t.Scope))}
}

func (s *Server) fitsHead(state *ledger.State, st *ledger.Signed, there bool) error {
	if !there && len(state.HeadLines(st.Service)) >= api.MaxChains {
		return &api.Error{Code: api.CodeUnprocessable, Detail: fmt.Sprintf("service %s has %d chains, no more fit a head", st.Service, api.MaxChains), Hint: "name an outer scope"}
	}
	return nil
}

// hasSuchMode tells whether a statement is about a mode that is there.
func (s *Server) hasSuchMode(state *ledger.State, st *ledger.Signed) bool {
	return st.Kind == ledger.SafeModeExited || len(s.resolvedAt(state, st.Service, st.Scope, st.Mode)) > 0
}

func (s *Server) noSuchMode(state *ledger.State, st *ledger.Signed) error {
	modes := map[string]bool{}
	for _, c := range state.ServiceChains(st.Service) {
		if c.Lane == ledger.LaneMain && c.Set != nil {
			if set, err := s.programs.set(c.Set.Digest); err == nil {
				for _, m := range set.Modes(st.Scope) {
					modes[string(m)] = true
				}
			}
		}
	}
	delete(modes, string(api.ModeNormal))
	return &api.Error{Code: api.CodeUnprocessable, Detail: fmt.Sprintf("no bundle of %s at %s has safe mode %q", st.Service, st.Scope, st.Mode),
		Hint: fmt.Sprintf("it has %v", sortedKeys(modes))}
}

// resolvedAt tells which bundle a mode means at a scope and at every scope
// below it that a set in effect lists.
func (s *Server) resolvedAt(state *ledger.State, service string, scope api.Scope, mode api.Mode) []ledger.Resolved {
	chains := slices.DeleteFunc(slices.Clone(state.ServiceChains(service)), func(c ledger.Chain) bool { return c.Lane != ledger.LaneMain })
	at := map[string]bool{string(scope): true}
	for _, c := range chains {
		if c.Set == nil {
			continue
		}
		if set, err := s.programs.set(c.Set.Digest); err == nil {
			for _, e := range set.Entries {
				if scope.Contains(e.Scope) {
					at[string(e.Scope)] = true
				}
			}
		}
	}
	var out []ledger.Resolved
	for _, name := range sortedKeys(at) {
		e, ok := ledger.InEffect(chains, api.Scope(name))
		if !ok {
			continue
		}
		if set, err := s.programs.set(e.Main.Set.Digest); err == nil {
			if entry, ok := set.Find(api.Scope(name), mode); ok {
				out = append(out, ledger.Resolved{Scope: api.Scope(name), Bundle: entry.Digest})
			}
		}
	}
	return out
}

// expiryLoop appends what the passing of time asks for: an exit for modes that
// restore, safe-mode.overdue for those that hold. It is rebuilt from the fold,
// so a restart loses no timer.
func (s *Server) expiryLoop(ctx context.Context) {
	for {
		changed := s.store.Changed()
		wait := time.Minute
		for _, d := range s.store.Snapshot().State.Deadlines() {
			if left := time.Until(d.At); left > 0 {
				wait = min(wait, left)
				break
			}
			if err := s.expire(ctx, d); err != nil && ctx.Err() == nil {
				s.log.WarnContext(ctx, "can't record that a safe mode ran out; trying again", slog.String("service", d.Service), slog.Any("error", err))
				wait = 5 * time.Second
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-time.After(wait):
		}
	}
}

func (s *Server) expire(ctx context.Context, d ledger.Deadline) error {
	_, err := s.append(ctx, func(state *ledger.State, now time.Time) (store.Decision, error) {
		key := ledger.ChainKey{Lane: ledger.LaneOverride, Service: d.Service, Scope: d.Chain.Scope}
		c, ok := state.Chain(key)
		if !ok || c.Generation != d.Chain.Generation || c.Overdue {
			return store.Decision{}, nil // renewed or left meanwhile
		}
		data := ledger.Data{Service: d.Service, Scope: c.Scope, Fields: ledger.Fields{Mode: c.Mode}}
		if c.OnExpiry == "restore" {
			data.Resolved = s.exitTo(state, d.Service, c.Scope)
			return store.Decision{Drafts: []store.Draft{draftOf(ledger.SafeModeExited, data, nil)}}, nil
		}
		data.Expires = c.Expires
		return store.Decision{Drafts: []store.Draft{draftOf(ledger.SafeModeOverdue, data, nil)}}, nil
	})
	return err
}
