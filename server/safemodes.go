package server

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/ledger"
)

func modesOf(b *bundler.Built) map[api.Mode]api.SafeMode {
	out := make(map[api.Mode]api.SafeMode, len(b.SafeModes))
	for name, m := range b.SafeModes {
		out[name] = api.SafeMode{Mode: name, Description: m.Description, Owner: m.Owner, TTL: int64(m.TTL / time.Second), OnExpiry: m.OnExpiry, Exit: m.Exit}
	}
	return out
}

// held lists the safe modes in force, pending ones included; service "" is all.
func (s *Server) held(service string) []api.Held {
	st := s.store.Snapshot().State
	out := []api.Held{}
	for _, name := range sortedKeys(st.Services) {
		if name == "" || service != "" && name != service {
			continue
		}
		for _, ch := range s.pending.over(st, name) {
			if ch.Lane == ledger.LaneOverride && ch.Kind != ledger.SafeModeExited {
				out = append(out, s.heldOf(name, ch))
			}
		}
	}
	return out
}

func (s *Server) heldOf(service string, ch ledger.Chain) api.Held {
	h := api.Held{Service: service, Scope: ch.Scope, Mode: ch.Mode, Generation: ch.Generation, Index: ch.Index, Entered: ch.Recorded,
		Expires: ch.Expires, OnExpiry: ch.OnExpiry, Overdue: ch.Overdue, Pending: ch.Pending}
	if ch.Pending {
		h.Index, h.Entered = -1, ch.Time
		s.pending.describe(&h, ch.ID, s.store.Snapshot().State.Operators)
		return h
	}
	if c, err := s.store.Change(ch.Index); err == nil {
		r := s.record(ch.Index, c)
		h.By = r.Operator
		h.Reason, _ = r.Detail["reason"].(string)
	}
	return h
}

// getSafeModes answers the modes in force and, with service and scope, those
// that can be entered there.
func (s *Server) getSafeModes(c echo.Context) error {
	service := c.QueryParam("service")
	if service != "" {
		if err := mayRead(c, service); err != nil {
			return err
		}
	}
	out := api.SafeModes{Time: api.FormatTime(time.Now()), InForce: []api.Held{}, Behind: s.store.Behind()}
	for _, m := range s.held(service) {
		if who(c).reads(m.Service) {
			out.InForce = append(out.InForce, m)
		}
	}
	if scope := c.QueryParam("scope"); scope != "" && service != "" {
		t, err := api.ParseTarget(service + "@" + scope)
		if err != nil {
			return &api.Error{Code: api.CodeInvalid, Detail: err.Error()}
		}
		s.healSets(c.Request().Context(), t.Service)
		after := s.nextAfter(s.store.Snapshot().State, t.Service, t.Scope)
		out.Available, err = s.available(t)
		switch {
		case err != nil && s.unread(t.Service):
			err = nil // which modes there are can't be read now; to sign needs none of it, and clients judge by their own
		case err == nil && after == 0:
			err = s.checkScope(t)
		}
		if err != nil {
			return err
		}
		out.After = &after
	}
	return c.JSON(http.StatusOK, out)
}

// available lists the safe modes of the set that is in effect for a target.
func (s *Server) available(t api.Target) ([]api.SafeMode, error) {
	e, ok := ledger.InEffect(s.store.Snapshot().State.ServiceChains(t.Service), t.Scope)
	if !ok || e.Main.Set == nil {
		return nil, notActivated(t.String())
	}
	set, err := s.programs.set(e.Main.Set.Digest)
	if err != nil {
		return nil, err
	}
	row, err := s.store.Row(modesRow(e.Main.Set.Digest))
	if err != nil {
		return nil, err
	}
	said := map[api.Mode]api.SafeMode{}
	if row != nil {
		if err := json.Unmarshal(row, &said); err != nil {
			return nil, err
		}
	}
	var out []api.SafeMode
	for _, m := range set.Modes(t.Scope) {
		entry, ok := set.Find(t.Scope, m)
		if m == api.ModeNormal || !ok {
			continue
		}
		mode := said[m]
		mode.Mode, mode.Bundle = m, entry.Digest
		out = append(out, mode)
	}
	return out, nil
}
