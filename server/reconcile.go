package server

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

// acceptedRow is the store's row of what the last complete round read. It is
// written in the transaction of that round's changes.
const acceptedRow = "accepted"

// accepted is the tip that the ledger stands at, and what is served from it
// beside changes. A restart with Git down starts from it.
type accepted struct {
	Commit     string           `json:"commit"`
	Clients    []bundler.Client `json:"clients,omitempty"`
	HasClients bool             `json:"hasClients,omitempty"`
	Layout     bundler.Layout   `json:"layout"`              // of sealstone.yaml
	Refused    string           `json:"refused,omitempty"`   // the branch's tip, when it is a rewrite and was refused
	Unsigned   string           `json:"unsigned,omitempty"`  // the branch's tip, when it was refused for want of a signature
	Pins       pins             `json:"pins,omitempty"`      // what activations ask for
	Rejected   []rejection      `json:"rejected,omitempty"`  // services that stay behind
	Operators  string           `json:"operators,omitempty"` // why the tip's operators are not in force

	ClientsFault string `json:"clientsFault,omitempty"` // why the tip's clients.yaml is not
}

// pins are the releases that the tip's activations name: commits, or latest.
type pins map[api.Target]string

func pinsOf(list []bundler.Activation) pins {
	p := pins{}
	for _, a := range list {
		if !a.Retired {
			p[api.Target{Service: a.Service, Scope: a.Scope}] = a.Release
		}
	}
	return p
}

// pinned is the commit that the nearest activation pins a target to, "" for
// none and for one that follows the branch.
func (a *accepted) pinned(t api.Target) string {
	release := ""
	for _, scope := range t.Scope.Path() {
		release = cmp.Or(a.Pins[api.Target{Service: t.Service, Scope: scope}], release)
	}
	if release == bundler.ReleaseLatest {
		return ""
	}
	return release
}

// rejection is a service that stays at its last good set.
type rejection struct {
	Service string   `json:"service"`
	Commit  string   `json:"commit"`
	Key     string   `json:"key"` // digest of the faults: the same are recorded once
	Faults  []string `json:"faults"`
	Total   int      `json:"total"`
	Waits   bool     `json:"waits,omitempty"` // for a safe mode to end: tried again without a new commit
}

// waits reports whether the accepted tip may be built anew with another result.
func (a *accepted) waits() bool {
	return slices.ContainsFunc(a.Rejected, func(r rejection) bool { return r.Waits })
}

// sourceState is what the reconcile loop knows; readers take copies.
type sourceState struct {
	mu sync.Mutex
	sourceFacts
}

type sourceFacts struct {
	now     accepted
	seen    string // newest commit fetched
	success time.Time
	err     string
}

func (st *sourceState) snapshot() sourceFacts {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.sourceFacts
}

func (s *Server) restore() error {
	row, err := s.store.Row(acceptedRow)
	if err != nil || row == nil {
		return err
	}
	var a accepted
	if err := json.Unmarshal(row, &a); err != nil {
		return fmt.Errorf("store row %q: %w", acceptedRow, err)
	}
	// The row is a memory, not evidence: who may read is read again from the
	// commit itself, whose name covers it. Without the local repository the row
	// has to do.
	if tip, _ := s.builder.Tip(context.Background(), a.Commit); tip != nil {
		a.Layout, a.Pins = tip.Config, pinsOf(tip.Activations)
		if a.ClientsFault == "" {
			a.Clients, a.HasClients = tip.Clients, tip.HasClients
		}
	}
	s.adopt(a)
	return nil
}

func (s *Server) adopt(a accepted) {
	s.source.mu.Lock()
	s.source.now = a
	s.source.mu.Unlock()
	s.access.set(a.Clients, a.HasClients)
}

// HasClients reports whether reads are restricted by clients.yaml.
func (s *Server) HasClients() bool { return s.access.clients.Load() != nil }

func (s *Server) reconcileLoop(ctx context.Context) {
	for {
		s.round(ctx)
		if ctx.Err() != nil {
			return
		}
		jitter := 0.8 + 0.4*rand.Float64()
		select {
		case <-ctx.Done():
			return
		case <-s.kick:
		case <-time.After(time.Duration(float64(s.hooks.pause(s.cfg.Poll, s.hasCommit)) * jitter)):
		}
	}
}

func (s *Server) hasCommit(id string) bool {
	_, err := s.repo.Commit(id)
	return err == nil
}

// round is one pass of the loop with its outcome kept for status and metrics.
func (s *Server) round(ctx context.Context) {
	start := time.Now()
	s.healIfDue(ctx) // out of what is here, however long the fetch takes
	err := s.Reconcile(ctx)
	s.whole.tried.Store(true)
	s.healIfDue(ctx)
	if ctx.Err() != nil {
		return
	}
	s.source.mu.Lock()
	defer s.source.mu.Unlock()
	if err == nil {
		s.source.success, s.source.err = time.Now(), ""
		s.metrics.rounds.WithLabelValues("ok").Inc()
		s.metrics.roundSeconds.Observe(time.Since(start).Seconds())
		return
	}
	s.metrics.rounds.WithLabelValues("error").Inc()
	if s.source.err != err.Error() { // the same outage is told once
		s.log.WarnContext(ctx, "source round failed; what is live stays live", slog.Any("error", err), slog.String("cause", causeOf(err)))
	}
	s.source.err = err.Error()
}

// Reconcile fetches and, when the tip moved, builds and appends. It holds no
// lock that a reader needs. The revision counts as seen only when it was built.
// Of two at once the second waits: else the slower could accept an older tip
// again, and with it tokens that were taken back.
func (s *Server) Reconcile(ctx context.Context) error {
	s.reconciling.Lock()
	defer s.reconciling.Unlock()
	tip, err := s.cfg.Source.Fetch(ctx)
	if err != nil {
		return err
	}
	s.source.mu.Lock()
	s.source.seen = tip
	now := s.source.now
	s.source.mu.Unlock()
	if err := s.leave(ctx, &now, tip); err != nil {
		return err
	}
	if tip == now.Commit && !now.waits() {
		return nil
	}
	skipped, err := s.lineage(ctx, now, tip)
	if err != nil {
		return err
	}
	return s.advance(ctx, now, tip, skipped)
}

// leave ends the findings about tips that the branch has left: neither is there
// anything to do about them, nor may source accept let one through.
func (s *Server) leave(ctx context.Context, now *accepted, tip string) error {
	was := *now
	if now.Refused != tip {
		now.Refused = ""
	}
	if now.Unsigned != tip {
		now.Unsigned = ""
	}
	if now.Refused == was.Refused && now.Unsigned == was.Unsigned {
		return nil
	}
	return s.commit(ctx, now, func(*ledger.State) (store.Decision, error) { return store.Decision{}, nil })
}

// lineage lets a fast-forward through and records a rewrite, once. skipped
// counts the commits passed over since the last accepted tip.
func (s *Server) lineage(ctx context.Context, now accepted, tip string) (skipped int, err error) {
	if now.Commit == "" || now.Commit == tip {
		return 0, nil
	}
	forward, err := s.repo.IsAncestor(ctx, now.Commit, tip)
	if err != nil {
		return 0, err
	}
	if forward || s.letThrough(ctx, now.Commit, tip) {
		n, err := s.repo.CountBetween(ctx, now.Commit, tip)
		return max(0, n-1), err
	}
	refused := &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("the branch was rewritten: %s does not come after the accepted %s", tip[:12], now.Commit[:12]),
		Hint: "push the branch back, or let it through with sealstone source accept --rev " + tip[:12]}
	if now.Refused == tip {
		return 0, refused
	}
	next := now
	next.Refused = tip
	return 0, s.refuse(ctx, next, tip, refused)
}

// refuse records that a tip is not taken, and why. next remembers that it was,
// so that it is recorded once.
func (s *Server) refuse(ctx context.Context, next accepted, tip string, why error) error {
	detail, _, err := ledger.NewDetail(map[string]any{"reason": clean(why.Error())})
	if err != nil {
		return errors.Join(why, err)
	}
	draft := draftOf(ledger.SourceRefused, ledger.Data{Fields: ledger.Fields{From: cmp.Or(next.Commit, noCommit), To: tip}}, detail)
	record := func(*ledger.State) (store.Decision, error) { return store.Decision{Drafts: []store.Draft{draft}}, nil }
	return errors.Join(why, s.commit(ctx, &next, record))
}

// noCommit is what Git writes where there was none.
const noCommit = "0000000000000000000000000000000000000000"

// letThrough reports whether the newest trust-lane change lets this rewrite, or
// one that goes on from it, through.
func (s *Server) letThrough(ctx context.Context, from, tip string) bool {
	c, ok := s.store.Snapshot().State.Chain(ledger.ChainKey{Lane: ledger.LaneTrust})
	if !ok || c.Kind != ledger.SourceAccepted {
		return false
	}
	change, err := s.store.Change(c.Index)
	if err != nil || change.Data.From != from {
		return false
	}
	after, err := s.repo.IsAncestor(ctx, change.Data.To, tip)
	return err == nil && (after || change.Data.To == tip)
}

// admitSource takes a statement about the rewrite that the branch has now. One
// about another would wait, unseen, for somebody to push that.
func (s *Server) admitSource(st *ledger.Signed) error {
	now := s.source.snapshot().now
	if st.Kind != ledger.SourceAccepted || st.From == now.Commit && st.To == now.Refused {
		return nil
	}
	branch := "no rewrite that was refused"
	if now.Refused != "" {
		branch = "the refused " + now.Refused + " after the accepted " + now.Commit
	}
	return &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("the branch has %s, not %s after %s", branch, st.To, st.From),
		Hint: "push the rewrite, wait until sealstone status shows it, and sign that one"}
}

// unit is all that one tip asks for: operators, then activations, then
// withdrawals.
type unit struct {
	tip          *bundler.Tip
	skipped      int
	ops          *store.Draft
	built        []*bundler.Built // outermost scopes first
	pinned       map[*bundler.Built]bool
	failed       map[string]bundler.Faults // by service
	entries      map[string]map[api.Scope]bool
	opsFault     string
	clientsFault string
	signers      bundler.Signers // keys of the operators that will be in force
}

func (s *Server) advance(ctx context.Context, now accepted, commit string, skipped int) error {
	if s.over.commit == commit {
		return s.over.err
	}
	tip, faults := s.builder.Tip(ctx, commit)
	if tip == nil {
		return fmt.Errorf("commit %s can't be read as a config repository: %w", commit[:12], faults)
	}
	u := &unit{tip: tip, skipped: skipped, pinned: map[*bundler.Built]bool{}, failed: map[string]bundler.Faults{}, entries: map[string]map[api.Scope]bool{}}
	if broken := append(tip.LevelsGrew(now.Layout.Levels), u.sort(faults.Errors())...); len(broken) > 0 {
		return fmt.Errorf("commit %s: %w", commit[:12], broken)
	}
	s.readOperators(u)
	if err := s.demandSigned(ctx, u, now); err != nil {
		return err
	}
	if err := s.build(ctx, u); err != nil {
		if over, ok := bundler.FaultsOf(err); ok {
			s.over = overLimit{commit, fmt.Errorf("commit %s: %w", commit[:12], over)}
			return s.over.err
		}
		return err
	}
	for _, b := range u.built {
		if err := s.store.PutObjects(ctx, b.Objects()); err != nil {
			return err
		}
	}
	next := s.next(ctx, u, now)
	decide := func(st *ledger.State) (store.Decision, error) { return s.decide(st, u, now, &next) }
	if err := s.commit(ctx, &next, decide); err != nil {
		return err
	}
	if err := s.cfg.Source.Keep(commit); err != nil {
		s.log.WarnContext(ctx, "can't keep the accepted commit referenced", slog.Any("error", err))
	}
	s.log.InfoContext(ctx, "accepted a tip", slog.String("commit", commit), slog.Int("sets", len(u.built)), slog.Int("rejected", len(next.Rejected)))
	return nil
}

// sort files faults by what they stop: the operators, the clients, a service,
// or, which it returns, all.
func (u *unit) sort(faults bundler.Faults) (all bundler.Faults) {
	for _, f := range faults {
		switch {
		case strings.HasPrefix(f.File, "operators."):
			u.opsFault = f.String()
		case strings.HasPrefix(f.File, "clients."):
			u.clientsFault = f.String()
		case f.Service == "":
			all = append(all, f)
		default:
			u.failed[f.Service] = append(u.failed[f.Service], f)
		}
	}
	return all
}

// next is what is accepted with the tip. Where its operators or its clients are
// at fault, those in force stay; everything else goes on.
func (s *Server) next(ctx context.Context, u *unit, now accepted) accepted {
	next := accepted{Commit: u.tip.Commit, Clients: u.tip.Clients, HasClients: u.tip.HasClients, Layout: u.tip.Config, Pins: pinsOf(u.tip.Activations),
		Operators: u.opsFault, ClientsFault: u.clientsFault}
	if u.opsFault != "" {
		s.log.WarnContext(ctx, "the tip's operators are not taken; the set in force stays", slog.String("fault", u.opsFault))
	}
	if u.clientsFault != "" {
		next.Clients, next.HasClients = now.Clients, now.HasClients
		s.log.WarnContext(ctx, "clients.yaml is not taken; the tokens in force stay", slog.String("fault", u.clientsFault))
	}
	return next
}

// overLimit is the newest tip that asked for more than is built, and what was
// said of it: it is not built again at every round, at the same cost.
type overLimit struct {
	commit string
	err    error
}

// build builds every activation of the tip. A service at fault drops out alone;
// only an error that is nobody's fault stops the round, and the fault of a tip
// that asks for too much in all.
func (s *Server) build(ctx context.Context, u *unit) error {
	for _, a := range u.tip.Activations {
		if u.entries[a.Service] == nil {
			u.entries[a.Service] = map[api.Scope]bool{}
		}
		if !a.Retired {
			u.entries[a.Service][a.Scope] = true
		}
	}
	var mu sync.Mutex
	var errs []error
	var wg sync.WaitGroup
	all := s.builder.Batch()
	slots := make(chan struct{}, 4)
	wanted := slices.DeleteFunc(slices.Clone(u.tip.Activations), func(a bundler.Activation) bool { return a.Retired || len(u.failed[a.Service]) > 0 })
	for _, a := range wanted {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			b, err := all.Build(ctx, u.tip, a)
			mu.Lock()
			defer mu.Unlock()
			if faults, ok := errors.AsType[bundler.Faults](err); ok {
				u.failed[a.Service] = append(u.failed[a.Service], faults...)
			} else if err != nil {
				errs = append(errs, err)
			} else {
				u.built, u.pinned[b] = append(u.built, b), a.Release != bundler.ReleaseLatest
			}
		})
	}
	wg.Wait()
	if over := all.Over(); over != nil {
		return over
	}
	u.built = slices.DeleteFunc(u.built, func(b *bundler.Built) bool { return len(u.failed[b.Service]) > 0 })
	slices.SortFunc(u.built, func(a, b *bundler.Built) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Scope.Depth(), b.Scope.Depth()), cmp.Compare(a.Scope, b.Scope))
	})
	return errors.Join(errs...)
}

// readOperators turns a new root-signed set into a draft. A missing, bad or
// older one keeps the set in force, and status says why.
func (s *Server) readOperators(u *unit) {
	st := s.store.Snapshot().State
	u.signers = signersOf(st.Operators)
	if u.tip.OperatorsSig == nil || u.opsFault != "" {
		return
	}
	sig := trimNewline(u.tip.OperatorsSig)
	ops, err := s.store.Trusted().OperatorsAt(s.store.Snapshot().Tree.Size, sig)
	if err == nil && !ops.SHA256.Names(u.tip.Operators) {
		err = errors.New("operators.sig is not over this operators.yaml; run sealstone operators sign")
	}
	if err != nil {
		u.opsFault = err.Error()
		return
	}
	d := draftOf(ledger.OperatorsChanged, ledger.Data{Statement: sig, Fields: ledger.Fields{Version: fmt.Sprint(ops.Version), Commit: u.tip.Commit}}, nil)
	u.ops = &d
	if newerOperators(st, &d) {
		u.signers = signersOf(ops)
	}
}
