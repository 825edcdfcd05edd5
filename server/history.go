package server

import (
	"context"
	"fmt"
	"net/http"

	"github.com/labstack/echo/v4"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// stretch is the part of the log that a history is asked for, by index: the
// intervals that began before entry below, back to the one that holds at from.
type stretch struct {
	from, below int64
	limit       int
	only        bool // the one interval that holds before entry below, or none
}

// getHistory answers what was in effect for a target.
func (s *Server) getHistory(c echo.Context) error {
	t, err := api.ParseTarget(c.QueryParam("target"))
	if err != nil {
		return &api.Error{Code: api.CodeInvalid, Detail: "query member " + err.Error()}
	}
	if !who(c).log && !who(c).readsTarget(t) {
		return &api.Error{Code: api.CodeForbidden, Detail: fmt.Sprintf("client %q may not read %s", who(c).name, t), Hint: "list its service and scope in clients.yaml"}
	}
	size := s.store.Snapshot().Tree.Size
	part, err := s.stretchParam(c, size)
	if err != nil {
		return err
	}
	found, next, err := s.intervals(c.Request().Context(), t, part)
	if err != nil {
		return err
	}
	out := api.History{Target: t, Size: size, Intervals: make([]api.Interval, 0, len(found)), Next: next}
	for _, iv := range found {
		i, err := s.interval(t, iv)
		if err != nil {
			return err
		}
		out.Intervals = append(out.Intervals, i)
	}
	return c.JSON(http.StatusOK, out)
}

// stretchParam turns times into places in the log.
func (s *Server) stretchParam(c echo.Context, size int64) (part stretch, err error) {
	part.below = size
	if part.limit, err = limitParam(c); err != nil {
		return part, err
	}
	if v := c.QueryParam("before"); v != "" {
		if part.below, err = parseIndex("before", v); err != nil {
			return part, err
		}
	}
	for _, p := range []struct {
		name string
		set  func(size int64)
	}{
		{"from", func(n int64) { part.from = n }},
		{"to", func(n int64) { part.below = min(part.below, n) }},
		{"at", func(n int64) { part.below, part.only = min(part.below, n), true }},
	} {
		at, err := timeParam(c, p.name)
		if err != nil {
			return part, err
		}
		if at.IsZero() {
			continue
		}
		if p.name == "to" {
			at = at.Add(-1) // exclusive
		}
		n, err := s.store.SizeAt(at)
		if err != nil {
			return part, err
		}
		p.set(n)
	}
	return part, nil
}

// intervals reads a page. Nothing else may be read from the store meanwhile: it
// is one transaction.
func (s *Server) intervals(ctx context.Context, t api.Target, part stretch) (out []ledger.Interval, next *int64, err error) {
	err = s.store.Past(ctx, t.Service, func(p ledger.Past) error {
		for iv := range ledger.Intervals(p, t.Scope, part.below) {
			over := iv.Ended >= 0 && iv.Ended < part.from || part.only && (len(out) > 0 || iv.Ended >= 0 && iv.Ended < part.below)
			if over {
				return nil
			}
			if len(out) == part.limit {
				next = &out[len(out)-1].Began
				return nil
			}
			out = append(out, iv)
		}
		return nil
	})
	switch {
	case err != nil || len(out) > 0:
		return out, next, err
	case part.only:
		return nil, nil, &api.Error{Code: api.CodeNotActivated, Detail: fmt.Sprintf("nothing was activated for %s at that time", t), Hint: "sealstone history " + t.String() + " shows when something was"}
	case !s.everActive(ctx, t):
		return nil, nil, &api.Error{Code: api.CodeNotActivated, Detail: fmt.Sprintf("nothing was ever activated for %s", t), Hint: "sealstone live shows what is"}
	}
	return out, nil, nil
}

// everActive tells a target with nothing in a stretch from one that never was.
func (s *Server) everActive(ctx context.Context, t api.Target) (ok bool) {
	_ = s.store.Past(ctx, t.Service, func(p ledger.Past) error {
		for range ledger.Intervals(p, t.Scope, s.store.Snapshot().Tree.Size) {
			ok = true
			break
		}
		return nil
	})
	return ok
}

// interval tells an interval to people: with the change that began it, and the
// bundle that it means.
func (s *Server) interval(t api.Target, iv ledger.Interval) (api.Interval, error) {
	change, err := s.store.Change(iv.Began)
	if err != nil {
		return api.Interval{}, err
	}
	r := s.record(iv.Began, change)
	text := func(key string) string { v, _ := r.Detail[key].(string); return v }
	out := api.Interval{From: change.RecordedTime, Index: iv.Began, Kind: string(change.Kind()), By: r.By(), Subject: text("subject"), Reason: text("reason"), Erased: r.Erased, ErasedBy: r.ErasedBy, DetailMissing: r.Missing,
		Mode: iv.Mode, Set: iv.Main.Set.Digest, Commit: iv.Main.Release.Commit, Tree: iv.Main.Release.Tree, Main: refOf(&iv.Main)}
	if iv.Override != nil {
		ref := refOf(iv.Override)
		out.Override = &ref
	}
	if iv.Ended >= 0 {
		end, err := s.store.Change(iv.Ended)
		if err != nil {
			return out, err
		}
		out.To, out.EndedBy = end.RecordedTime, &iv.Ended
	}
	if eff, err := s.bundleOf(iv.Effect, t); err == nil {
		out.Mode, out.Bundle = eff.Mode, eff.Entry.Digest
	} else {
		out.Missing = api.ProblemOf(err).Detail
	}
	return out, nil
}

func refOf(c *ledger.Chain) api.ChainRef {
	return api.ChainRef{Scope: c.Scope, Index: c.Index, Generation: c.Generation}
}
