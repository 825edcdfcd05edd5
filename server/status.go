package server

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/instances"
)

func (s *Server) readyzWrites(c echo.Context) error {
	if e, ok := errors.AsType[*api.Error](s.store.Writes()); ok { // its cause, which may name paths, is for the log
		return &api.Error{Code: api.CodeUnavailable, Detail: "the ledger takes no changes: " + e.Detail, Hint: e.Hint}
	}
	return c.String(http.StatusOK, "ok\n")
}

// getStatus shows a client its own services; the server as a whole is
// everybody's who may read.
func (s *Server) getStatus(c echo.Context) error {
	st := s.Status()
	st.SafeModes = slices.DeleteFunc(st.SafeModes, func(h api.Held) bool { return !who(c).reads(h.Service) })
	st.Rejected = slices.DeleteFunc(st.Rejected, func(r api.RejectedService) bool { return !who(c).reads(r.Service) })
	st.Damaged = slices.DeleteFunc(st.Damaged, func(d api.DamagedSet) bool { return !who(c).reads(d.Service) })
	return c.JSON(http.StatusOK, st)
}

// Status is what an operator asks first.
func (s *Server) Status() api.Status {
	snap := s.store.Snapshot()
	src := s.source.snapshot()
	a := &src.now
	out := api.Status{
		Version: s.cfg.Version, Origin: s.store.Trusted().Origin, Trust: s.store.Trusted().Version, Time: api.FormatTime(time.Now()), Started: api.FormatTime(s.started),
		Size: snap.Tree.Size, Root: base64.StdEncoding.EncodeToString(snap.Tree.Root[:]), Writes: "ok", Behind: s.store.Behind(),
		Pending: len(s.pending.all()), Watchers: s.hub.count(), Instances: s.live.Len(), Failing: s.failing(time.Now()), Dropped: s.live.Dropped(),
		SafeModes: s.held(""), Rejected: []api.RejectedService{}, Damaged: slices.Clone(s.damaged()),
		Source: api.SourceStatus{Repository: s.cfg.Source.URL(), Branch: s.cfg.Branch, Tip: a.Commit, Seen: src.seen, LastError: src.err, Refused: a.Refused, Unsigned: a.Unsigned, Operators: a.Operators, Clients: a.ClientsFault},
	}
	if err := s.store.Writes(); err != nil {
		out.Writes = err.Error()
	}
	if out.PendingFile = s.pending.lost; out.PendingFile != "" {
		out.PendingFile = "what waited at the last stop can't be read: " + out.PendingFile
	}
	if why := s.pending.unkept.Load(); why != nil {
		out.PendingFile = *why
	}
	if why := s.trustErr.Load(); why != nil {
		out.TrustFile = *why
	}
	if snap.State.Operators != nil {
		out.Operators = snap.State.Operators.Version
	}
	if !src.success.IsZero() {
		out.Source.LastSuccess = api.FormatTime(src.success)
	}
	for _, r := range a.Rejected {
		out.Rejected = append(out.Rejected, api.RejectedService{Service: r.Service, Commit: r.Commit, Faults: r.Faults, Total: r.Total})
	}
	if n, first := s.store.LostDetails(); n > 0 {
		out.Details = fmt.Sprintf("%d of them were found damaged or lost, and no erasure in the log says why; the first is that of entry %d", n, first)
	}
	if skew := s.clockSkew(); skew > maxAhead {
		out.ClockSkew = "the newest change is " + skew.Round(time.Second).String() + " ahead of this clock"
	}
	return out
}

// failing counts the instances that say something is wrong.
func (s *Server) failing(now time.Time) (n int) {
	s.live.Scan("", func(r *instances.Row) {
		if (r.State == api.StateError || r.Refusal != nil) && s.live.Lease(r, now) != "gone" {
			n++
		}
	})
	return n
}

// clockSkew is how far the newest change lies in this clock's future.
func (s *Server) clockSkew() time.Duration {
	snap := s.store.Snapshot()
	if snap.Tree.Size == 0 {
		return 0
	}
	c, err := s.store.Change(snap.Tree.Size - 1)
	if err != nil {
		return 0
	}
	return time.Until(c.Recorded())
}
