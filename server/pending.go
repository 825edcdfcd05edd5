package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

// pending holds safe-mode statements that were judged right while the log could
// not take them. They are served, obeyed, and appended when the log is back.
type pending struct {
	holding  sync.Mutex   // over deciding and adding, so that rivals see each other
	settling turn         // over appending what waits, in its order
	stuck    atomic.Int64 // how many of them can't be judged yet, at the last look
	file     pendingFile
	keeping  turn // over reading the list and writing it
	mu       sync.RWMutex
	list     []held
	unkept   atomic.Pointer[string] // why the list is in memory only; nil: it isn't
	lost     string                 // why what waited at the last stop could not be read

	overlays sync.Mutex
	overlay  *overlay
}

// turn is a mutex that nobody waits for longer than he wants to: a disk that
// hangs keeps it for ever.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turn) leave() { <-t }

type held struct {
	st     *ledger.Signed
	detail *ledger.Detail
}

// maxPending bounds what a flood of signed statements can hold in memory.
const maxPending = 1024

// hold keeps a statement that the log could not take and announces it. It is
// held to all that the log would hold it to, on top of those that wait already.
func (s *Server) hold(st *ledger.Signed, detail *ledger.Detail, cause error) (*api.Receipt, error) {
	added, err := s.addHeld(st, detail, cause)
	if err != nil {
		return nil, err
	}
	if added {
		s.log.Error("a safe-mode statement is served unrecorded", slog.String("service", st.Service), slog.String("scope", string(st.Scope)), slog.Any("cause", cause))
		s.announcePending(st.Service)
	}
	if added || s.pending.unkept.Load() != nil {
		err = s.keepPending()
	}
	return &api.Receipt{Index: -1, ID: st.ID, Kind: string(st.Kind), Unrecorded: true, Volatile: err != nil, Behind: s.store.Behind(), Narrower: s.narrower(st.Service, st.Scope)}, nil
}

// addHeld adds a statement to those that wait, or finds it among them.
func (s *Server) addHeld(st *ledger.Signed, detail *ledger.Detail, cause error) (added bool, err error) {
	s.pending.holding.Lock()
	defer s.pending.holding.Unlock()
	state := s.store.Snapshot().State
	if s.pending.has(st) {
		return false, nil
	}
	if _, taken := s.store.ByID(st.ID); taken || s.pending.hasID(st.ID) {
		return false, &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("id %s is that of another statement", st.ID), Hint: "make a new id for a new statement"}
	}
	if err := errors.Join(judge(state, st), checkClock(st, time.Now())); err != nil {
		return false, err
	}
	if err := s.admitHeld(state, st, cause != errUnread); err != nil {
		return false, err
	}
	if !s.pending.add(held{st, detail}) {
		return false, cause
	}
	return true, nil
}

// admitHeld holds a statement to what waits already. A log that is behind its
// anchor doesn't know how far the chain had come, nor what was in force then: the
// signer may have it from a client, so a higher number is taken at its word.
// Where no set tells which modes there are, that isn't asked: clients obey none
// that they don't have staged.
func (s *Server) admitHeld(state *ledger.State, st *ledger.Signed, readable bool) error {
	prev, next := s.pending.chain(state, st), s.nextAfter(state, st.Service, st.Scope)
	behind := s.store.Behind() != ""
	if behind && *st.After > next {
		prev, next = ledger.Chain{Kind: ledger.SafeModeEntered, Mode: st.Mode}, *st.After
	}
	err := s.admitNext(state, prev, next, st)
	if err == nil && readable {
		_, err = s.resolvedBy(state, st)
	}
	if e, ok := errors.AsType[*api.Error](err); ok && behind && (st.Kind != ledger.SafeModeEntered || e.Code == api.CodeConflict) {
		return &api.Error{Code: e.Code, Detail: e.Detail, Err: e.Err,
			Hint: "the log is behind its anchor: sign with --after GENERATION, that of the scope in overrides of a client's Live()"}
	}
	return err
}

func (s *Server) announcePending(service string) {
	s.hub.send(service, "event: pending\ndata: {}\n\n")
}

// chain is the override chain that a statement is about, with what waits laid
// over it.
func (p *pending) chain(state *ledger.State, st *ledger.Signed) ledger.Chain {
	for _, c := range p.over(state, st.Service) {
		if c.Lane == ledger.LaneOverride && c.Scope == st.Scope {
			return c
		}
	}
	return ledger.Chain{}
}

// keepTimeout bounds how long an answer waits for the file.
const keepTimeout = 2 * time.Second

// keepPending writes what waits to the file: a restart in the middle of the
// trouble must not forget what was acknowledged. On a disk that hangs it is not
// kept yet, and the answer says so.
func (s *Server) keepPending() error {
	ctx, cancel := context.WithTimeout(context.Background(), keepTimeout)
	defer cancel()
	err := s.pending.keeping.take(ctx)
	list := s.pending.all()
	if err == nil {
		wrote := make(chan error, 1)
		go func() {
			defer s.pending.keeping.leave()
			wrote <- s.writePending(list)
		}()
		select {
		case err = <-wrote:
		case <-ctx.Done():
			err = fmt.Errorf("the disk hasn't answered for %s", keepTimeout)
		}
	}
	if err != nil || sameList(list, s.pending.all()) { // else who changed it writes it as well
		s.unkept(err)
	}
	return err
}

// unkept notes why the file can't keep what waits; nil: it can.
func (s *Server) unkept(err error) {
	if err == nil {
		s.pending.unkept.Store(nil)
		return
	}
	why := err.Error()
	if was := s.pending.unkept.Swap(&why); was == nil {
		s.log.Error("pending statements are in memory only; a restart would forget them", slog.Any("error", err))
	}
}

func (s *Server) writePending(waiting []held) error {
	list := []api.Submission{}
	for _, h := range waiting {
		sub := api.Submission{Statement: h.st.Raw}
		if h.detail != nil {
			sub.Salt, sub.Detail = h.detail.Salt, h.detail.Text
		}
		list = append(list, sub)
	}
	return s.pending.file.write(list)
}

// restorePending reads them back. One whose signer may not sign any more, by a log
// that was recovered, has no effect, and is kept as late when it is its turn.
func (s *Server) restorePending() {
	if s.pending.file = pendingFile(s.cfg.PendingFile); s.pending.file == "" {
		return
	}
	if err := s.pending.file.take(); err != nil {
		s.unkept(err)
		return
	}
	list, _, err := s.pending.file.read()
	if err != nil {
		s.pending.lost = err.Error()
		s.log.Error("pending statements can't be read", slog.Any("error", err))
	}
	for _, raw := range list {
		st, detail, err := parseSubmission(raw)
		if err != nil {
			s.log.Error("a pending statement is dropped", slog.Any("error", err))
			continue
		}
		s.pending.add(held{st, detail})
	}
}

// nextAfter is what the next statement on an override chain must carry: the
// chain's generation, with those counted that wait for the log.
func (s *Server) nextAfter(state *ledger.State, service string, scope api.Scope) int64 {
	c, _ := state.Chain(ledger.ChainKey{Lane: ledger.LaneOverride, Service: service, Scope: scope})
	next := c.Generation
	for _, h := range s.pending.all() {
		if h.st.Service == service && h.st.Scope == scope {
			next = max(next, *h.st.After+1)
		}
	}
	return next
}

// on lists what waits on the chain that a safe-mode statement is about.
func (p *pending) on(st *ledger.Signed) []held {
	return slices.DeleteFunc(slices.Clone(p.all()), func(h held) bool {
		return st.Kind.Lane() != ledger.LaneOverride || h.st.Service != st.Service || h.st.Scope != st.Scope
	})
}

func (p *pending) has(st *ledger.Signed) bool {
	return slices.ContainsFunc(p.all(), func(h held) bool { return string(h.st.Raw) == string(st.Raw) })
}

func (p *pending) hasID(id string) bool {
	return slices.ContainsFunc(p.all(), func(h held) bool { return h.st.ID == id })
}

func (p *pending) add(h held) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, old := range p.list {
		if string(old.st.Raw) == string(h.st.Raw) {
			return true
		}
	}
	if len(p.list) >= maxPending {
		return false
	}
	p.list = append(p.list, h)
	return true
}

func (p *pending) remove(st *ledger.Signed) {
	p.mu.Lock()
	defer p.mu.Unlock()
	kept := p.list[:0:0]
	for _, h := range p.list {
		if h.st != st {
			kept = append(kept, h)
		}
	}
	p.list = kept
}

func (p *pending) all() []held {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.list
}

// overlay remembers what over answered for a state and a list: to judge what
// waits costs a signature each.
type overlay struct {
	state  *ledger.State
	list   []held
	chains map[string][]ledger.Chain // by service
}

func (o *overlay) isOf(state *ledger.State, list []held) bool {
	return o.state == state && sameList(o.list, list)
}

// sameList tells whether nothing came or went between two looks at what waits.
func sameList(a, b []held) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

// over lays the pending statements over a service's chains, by the rule that
// clients follow.
func (p *pending) over(st *ledger.State, service string) []ledger.Chain {
	chains := st.ServiceChains(service)
	list := p.all()
	if len(list) == 0 {
		return chains
	}
	p.overlays.Lock()
	defer p.overlays.Unlock()
	if p.overlay == nil || !p.overlay.isOf(st, list) {
		p.overlay = &overlay{st, list, map[string][]ledger.Chain{}}
	}
	if known, ok := p.overlay.chains[service]; ok {
		return known
	}
	for _, h := range list { // in the order they were taken; each as of its own time, which was judged then
		chains = ledger.WithPending(chains, service, []*ledger.Signed{h.st}, st.Operators, func(api.Mode) bool { return true }, h.st.At())
	}
	p.overlay.chains[service] = chains
	return chains
}

// describe adds what the statement itself says of a mode that is pending.
func (p *pending) describe(out *api.Held, id string, ops *ledger.Operators) {
	for _, h := range p.all() {
		if h.st.ID != id {
			continue
		}
		by, _ := ops.Signer(h.st) // it was judged when it was taken
		out.TTL, out.By = h.st.TTL, by.Operator
		if h.detail != nil {
			out.Reason, _ = h.detail.Text["reason"].(string)
		}
	}
}

// pendingLoop tries to append what is pending, oldest first, and, when nothing
// is, whether storage that failed works again: those who look at /readyz/writes
// before they write would wait for ever.
func (s *Server) pendingLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(2 * time.Second):
		}
		s.store.Probe(ctx)
		s.tellTrouble()
		if s.pending.unkept.Load() != nil {
			_ = s.keepPending() // noted there
		}
		for _, h := range s.pending.all() {
			if s.unread(h.st.Service) {
				s.healSets(ctx, h.st.Service)
				break // the others of the round come with it
			}
		}
		_ = s.settlePending(ctx) // tried again at the next tick
	}
}

// append is the way into the log of every change but those that wait for it.
// They go first: what was judged right, and answered, and obeyed by clients, was
// judged by the state that they will follow. A full disk changes nothing about
// what they mean.
func (s *Server) append(ctx context.Context, d store.Decide) ([]store.Receipt, error) {
	if err := s.settlePending(ctx); err != nil {
		return nil, err
	}
	defer s.tellTrouble()
	return s.store.Append(ctx, func(st *ledger.State, now time.Time) (store.Decision, error) {
		if int64(len(s.pending.all())) > s.pending.stuck.Load() {
			return store.Decision{}, errOthersWait
		}
		return d(st, now)
	})
}

var errOthersWait = &api.Error{Code: api.CodeStorage, Detail: "safe-mode statements wait for the log, and go first", Hint: "send it again"}

// stays tells of a statement that waits whether what its signer saw isn't in the
// log: it was taken while that was behind its anchor. Clients obey it, so it waits
// on and holds nothing else up, until the chain has come so far or its signer may
// not sign any more.
func stays(state *ledger.State, st *ledger.Signed) bool {
	c, _ := state.Chain(overrideKey(st))
	return *st.After > c.Generation && judge(state, st) == nil
}

// settlePending appends what waits, oldest first, but for what stays. It stops at
// the first that the log doesn't take. What is about sets that can't be read now
// goes on waiting and holds up nothing but its own service's statements: whether
// it fits will be known when they are built again.
func (s *Server) settlePending(ctx context.Context) error {
	if len(s.pending.all()) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, appendTimeout)
	defer cancel()
	if err := s.pending.settling.take(ctx); err != nil {
		return err
	}
	defer s.pending.settling.leave()
	settled, unread := 0, map[string]bool{}
	defer func() {
		if settled > 0 {
			_ = s.keepPending() // noted there
		}
	}()
	stuck := int64(0)
	for _, h := range s.pending.all() {
		name := h.st.Service
		if _, looked := unread[name]; !looked {
			unread[name] = s.unread(name)
		}
		if unread[name] || stays(s.store.Snapshot().State, h.st) {
			stuck++
			continue
		}
		if err := s.settle(ctx, h); err != nil {
			return err
		}
		s.pending.remove(h.st)
		s.announcePending(name)
		settled++
	}
	s.pending.stuck.Store(stuck)
	return nil
}

// settle appends a pending statement, or the evidence that it does not fit.
// Nothing that was acknowledged is dropped.
func (s *Server) settle(ctx context.Context, h held) error {
	r, err := s.submitPending(ctx, h)
	if err == nil {
		s.log.InfoContext(ctx, "a pending statement is in the log", slog.Int64("index", r.Index), slog.Bool("late", r.Late))
		return nil
	}
	if code := api.CodeOf(err); code == api.CodeStorage || code == api.CodeReadOnly || ctx.Err() != nil {
		return err
	}
	s.log.ErrorContext(ctx, "a pending statement does not fit any more and is kept as late", slog.String("id", h.st.ID), slog.Any("error", err))
	_, err = s.store.Append(ctx, func(*ledger.State, time.Time) (store.Decision, error) { return late(h.st, h.detail, "refused"), nil })
	return err
}

func (s *Server) getPending(c echo.Context) error {
	service, err := serviceParam(c)
	if err != nil {
		return err
	}
	out := api.Pending{Statements: []json.RawMessage{}}
	for _, h := range s.pending.all() {
		if h.st.Service == service {
			out.Statements = append(out.Statements, h.st.Raw)
		}
	}
	return c.JSON(http.StatusOK, out)
}
