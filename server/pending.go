package server

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// pending holds safe-mode statements that were judged right while the log could
// not take them. They are served, obeyed, and appended when the log is back.
type pending struct {
	mu   sync.RWMutex
	list []held
}

type held struct {
	st     *ledger.Signed
	detail *ledger.Detail
}

// maxPending bounds what a flood of signed statements can hold in memory.
const maxPending = 1024

// hold keeps a statement that the log could not take and announces it.
func (s *Server) hold(st *ledger.Signed, detail *ledger.Detail, cause error) (*api.Receipt, error) {
	state := s.store.Snapshot().State
	if err := judge(state, st); err != nil {
		return nil, err
	}
	if err := checkClock(st, time.Now()); err != nil {
		return nil, err
	}
	if next := s.nextAfter(state, st.Service, st.Scope); *st.After != next && !s.pending.has(st) {
		return nil, &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("signed after generation %d of the override at %s@%s, pending statements included it is at %d", *st.After, st.Service, st.Scope, next),
			Hint: "look with sealstone safe-mode status and sign again"}
	}
	if !s.pending.add(held{st, detail}) {
		return nil, cause
	}
	s.log.Error("a safe-mode statement is served unrecorded", slog.String("service", st.Service), slog.String("scope", string(st.Scope)), slog.Any("cause", cause))
	s.hub.send(st.Service, "event: pending\ndata: {}\n\n")
	return &api.Receipt{Index: -1, ID: st.ID, Kind: string(st.Kind), Unrecorded: true, Narrower: s.narrower(st.Service, st.Scope)}, nil
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

func (p *pending) has(st *ledger.Signed) bool {
	return slices.ContainsFunc(p.all(), func(h held) bool { return string(h.st.Raw) == string(st.Raw) })
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

// over lays the pending statements over a service's chains, by the rule that
// clients follow.
func (p *pending) over(st *ledger.State, service string) []ledger.Chain {
	chains := st.ServiceChains(service)
	list := p.all()
	if len(list) == 0 {
		return chains
	}
	signed := make([]*ledger.Signed, 0, len(list))
	for _, h := range list {
		signed = append(signed, h.st)
	}
	return ledger.WithPending(chains, service, signed, st.Operators, func(api.Mode) bool { return true }, time.Now())
}

// pendingLoop tries to append what is pending, oldest first.
func (s *Server) pendingLoop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(2 * time.Second):
		}
		for _, h := range s.pending.all() {
			if s.settle(ctx, h) {
				s.pending.remove(h.st)
			}
		}
	}
}

// settle appends a pending statement; true when it needs no more tries.
func (s *Server) settle(ctx context.Context, h held) bool {
	r, err := s.submitPending(ctx, h)
	if err == nil {
		s.log.InfoContext(ctx, "a pending statement is in the log", slog.Int64("index", r.Index), slog.Bool("late", r.Late))
		return true
	}
	code := api.CodeOf(err)
	if code == api.CodeStorage || code == api.CodeReadOnly || ctx.Err() != nil {
		return false
	}
	s.log.ErrorContext(ctx, "a pending statement can't be recorded", slog.String("id", h.st.ID), slog.Any("error", err))
	return true
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
