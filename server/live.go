package server

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// A lease says how long a report counts: live, then suspect, then gone, and
// forgotten a while after.
const (
	suspectAfter = 35 * time.Second // two heartbeats missed
	goneAfter    = 60 * time.Second
	forgetAfter  = 24 * time.Hour
	maxInstances = 100_000
)

// liveTable is what instances reported: observations, never state.
type liveTable struct {
	mu   sync.RWMutex
	rows map[string]*observed // by service, target and instance
}

type observed struct {
	api.Instance
	seen time.Time
}

func (t *liveTable) init() { t.rows = map[string]*observed{} }

func (t *liveTable) put(in api.Instance, now time.Time) error {
	key := in.Target.String() + "\x00" + in.ID
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.rows[key] == nil && len(t.rows) >= maxInstances {
		return &api.Error{Code: api.CodeTooMany, Detail: fmt.Sprintf("%d instances are known, the limit", maxInstances)}
	}
	t.rows[key] = &observed{in, now}
	return nil
}

// reports tells whether any instance reports from a scope or below it.
func (t *liveTable) reports(service string, scope api.Scope) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, o := range t.rows {
		if o.Target.Service == service && scope.Contains(o.Target.Scope) {
			return true
		}
	}
	return false
}

func (t *liveTable) all() []*observed {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]*observed, 0, len(t.rows))
	for _, o := range t.rows {
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b *observed) int {
		return cmp.Or(cmp.Compare(a.Target.String(), b.Target.String()), cmp.Compare(a.ID, b.ID))
	})
	return out
}

func (t *liveTable) forget(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, o := range t.rows {
		if now.Sub(o.seen) > forgetAfter {
			delete(t.rows, k)
		}
	}
}

func (s *Server) leaseLoop(ctx context.Context) {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.live.forget(now)
		}
	}
}

// postInstance takes a report. It is bound to what the token may read, and
// stays an observation: labelled reported, beside what is proven.
func (s *Server) postInstance(c echo.Context) error {
	var in api.Instance
	if err := c.Bind(&in); err != nil {
		return &api.Error{Code: api.CodeInvalid, Detail: "instance report: " + err.Error(), Hint: "docs/formats.md shows one", Err: err}
	}
	if err := checkInstance(&in); err != nil {
		return err
	}
	if !who(c).readsTarget(in.Target) {
		return &api.Error{Code: api.CodeForbidden, Detail: fmt.Sprintf("client %q may not report for %s", who(c).name, in.Target)}
	}
	if err := s.live.put(in, time.Now()); err != nil {
		return err
	}
	return c.NoContent(http.StatusNoContent)
}

func checkInstance(in *api.Instance) error {
	if in.ID == "" || len(in.ID) > 128 || in.Target.Service == "" || in.Target.Scope == "" {
		return &api.Error{Code: api.CodeInvalid, Detail: "instance report: target and service.instance.id are needed", Hint: "docs/formats.md shows one"}
	}
	for _, s := range []string{in.Version, in.Revision, in.Artifact, in.Image, in.BaseImage, in.SDK, in.Started, in.HeadAt, string(in.Bundle), string(in.Mode), string(in.Set)} {
		if len(s) > 256 {
			return &api.Error{Code: api.CodeInvalid, Detail: "instance report: a member is longer than 256 bytes"}
		}
	}
	if !slices.Contains([]api.State{api.StateReady, api.StateStale, api.StateError, api.StateNotReady}, in.State) {
		return &api.Error{Code: api.CodeInvalid, Detail: "instance report: sealstone.state is READY, STALE, ERROR or NOT_READY"}
	}
	if len(in.SafeModes) > 64 || slices.ContainsFunc(in.SafeModes, func(m api.Mode) bool { return api.CheckName(string(m)) != nil }) {
		return &api.Error{Code: api.CodeInvalid, Detail: "instance report: at most 64 safe modes, by their names"}
	}
	if r := in.Refusal; r != nil {
		if len(r.Check) > 64 || len(r.Time) > 64 {
			return &api.Error{Code: api.CodeInvalid, Detail: "instance report: a refusal's check and time are at most 64 bytes"}
		}
		r.Message = clean(r.Message)
	}
	return nil
}

// liveView is what a question about what is live is answered from.
type liveView struct {
	st      *ledger.State
	now     time.Time
	past    bool                                 // another time: the log alone knows it
	reports map[string]map[api.Scope][]*observed // by service; of now only
}

// getLive sets what the log proves beside what instances report.
func (s *Server) getLive(c echo.Context) error {
	service := c.QueryParam("service")
	if service != "" {
		if _, err := serviceParam(c); err != nil {
			return err
		}
	}
	at, err := timeParam(c, "at")
	if err != nil {
		return err
	}
	v := liveView{st: s.store.Snapshot().State, now: time.Now()}
	if at.IsZero() {
		v.reports = s.live.byScope()
	} else if err := s.lookBack(c.Request().Context(), &v, at); err != nil {
		return err
	}
	out := api.Live{Time: api.FormatTime(v.now), Size: v.st.Size, Services: []api.LiveService{}}
	for _, name := range liveServices(v.st, v.reports) {
		if (service == "" || service == name) && who(c).reads(name) {
			out.Services = append(out.Services, s.liveService(&v, name))
		}
	}
	return c.JSON(http.StatusOK, out)
}

// lookBack moves a view to another time. The future is now.
func (s *Server) lookBack(ctx context.Context, v *liveView, at time.Time) error {
	size, err := s.store.SizeAt(at)
	if err != nil {
		return err
	}
	if at.Before(v.now) {
		v.now = at
	}
	v.past = true
	v.st, err = s.store.StateAt(ctx, size)
	return err
}

func (t *liveTable) byScope() map[string]map[api.Scope][]*observed {
	out := map[string]map[api.Scope][]*observed{}
	for _, o := range t.all() {
		name := o.Target.Service
		if out[name] == nil {
			out[name] = map[api.Scope][]*observed{}
		}
		out[name][o.Target.Scope] = append(out[name][o.Target.Scope], o)
	}
	return out
}

func liveServices(st *ledger.State, reports map[string]map[api.Scope][]*observed) []string {
	names := map[string]bool{}
	for n := range st.Services {
		if len(st.HeadLines(n)) > 0 {
			names[n] = true
		}
	}
	for n := range reports {
		names[n] = true
	}
	return sortedKeys(names)
}

func (s *Server) liveService(v *liveView, name string) api.LiveService {
	out := api.LiveService{Service: name, Scopes: []api.LiveScope{}}
	at := map[string]bool{}
	for _, c := range v.st.ServiceChains(name) {
		if c.Lane == ledger.LaneOverride || c.Lane == ledger.LaneMain {
			at[string(c.Scope)] = true
		}
		if c.Lane == ledger.LaneMain && c.Set != nil {
			if set, err := s.programs.set(c.Set.Digest); err == nil {
				for _, e := range set.Entries {
					at[string(e.Scope)] = true
				}
			}
		}
	}
	for scope := range v.reports[name] {
		at[string(scope)] = true
	}
	for _, scope := range sortedKeys(at) {
		out.Scopes = append(out.Scopes, s.liveScope(v, api.Target{Service: name, Scope: api.Scope(scope)}))
	}
	return out
}

func (s *Server) liveScope(v *liveView, t api.Target) api.LiveScope {
	out := api.LiveScope{Scope: t.Scope}
	reports, chains := v.reports[t.Service][t.Scope], v.st.ServiceChains(t.Service)
	if !v.past {
		out.Instances, chains = []api.LiveInstance{}, s.pending.over(v.st, t.Service)
	}
	if eff, err := s.resolveIn(chains, t); err == nil {
		out.Proven = s.proven(eff)
	}
	drifting := 0
	for _, o := range reports {
		in := api.LiveInstance{Instance: o.Instance, Lease: lease(v.now.Sub(o.seen)), LastSeen: api.FormatTime(o.seen)}
		in.Drift = s.drift(out.Proven, &in)
		if len(in.Drift) > 0 {
			drifting++
		}
		out.Instances = append(out.Instances, in)
	}
	if drifting > 0 {
		out.Drift = append(out.Drift, fmt.Sprintf("%d of %d instances differ", drifting, len(reports)))
	}
	if p := out.Proven; p != nil && p.Overdue {
		out.Drift = append(out.Drift, fmt.Sprintf("safe mode %s is overdue since %s", p.Mode, p.Expires))
	}
	if out.Proven == nil && len(reports) > 0 {
		out.Drift = append(out.Drift, "instances report here, and nothing is activated")
	}
	if a, _, _, _ := s.source.snapshot(); len(reports) > 0 && !a.Layout.Listed(t.Scope) {
		out.Drift = append(out.Drift, "scope is not listed in sealstone.yaml")
	}
	return out
}

func (s *Server) proven(eff *effect) *api.Proven {
	p := &api.Proven{Bundle: eff.Entry.Digest, Set: eff.Main.Set.Digest, Mode: eff.Mode, Release: eff.Main.Release.Commit, Index: eff.index(), Since: eff.since()}
	if o := eff.Override; o != nil {
		p.Expires, p.Overdue = o.Expires, o.Overdue
	}
	if c, err := s.store.Change(p.Index); err == nil {
		r := s.record(p.Index, c)
		p.By = r.Operator
		if author, ok := r.Detail["author"].(string); ok && p.By == "" {
			p.By = author
		}
	}
	return p
}

func lease(age time.Duration) string {
	switch {
	case age > goneAfter:
		return "gone"
	case age > suspectAfter:
		return "suspect"
	}
	return "live"
}

// drift says in words how a report differs from what the log proves.
func (s *Server) drift(p *api.Proven, in *api.LiveInstance) []string {
	var out []string
	switch {
	case p == nil || in.Lease == "gone":
	case in.Bundle == "":
		out = append(out, "runs no bundle")
	case in.Bundle != p.Bundle && !s.everNamed(in.Target.Service, in.Bundle):
		out = append(out, "runs a bundle the log never named")
	case in.Bundle != p.Bundle:
		out = append(out, "runs "+in.Bundle.Short()+", active is "+p.Bundle.Short())
	}
	if in.State != api.StateReady {
		out = append(out, "state "+string(in.State))
	}
	if in.Lease != "live" {
		out = append(out, "silent since "+in.LastSeen)
	}
	if in.Refusal != nil {
		out = append(out, "refused an answer: "+in.Refusal.Check)
	}
	if in.FirstUse {
		out = append(out, "trusts on first use")
	}
	return out
}

func (s *Server) everNamed(service string, d api.Digest) bool {
	if !d.Valid() {
		return false
	}
	row, err := s.store.Row(namedRow(service, d))
	return err == nil && row != nil
}
