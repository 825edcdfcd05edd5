package server

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/instances"
	"github.com/sealstone/sealstone/ledger"
)

// Bounds of an answer about instances.
const (
	pageInstances = 100 // unless instances= says otherwise
	maxPage       = 1000
	maxCounts     = 100 // a scope
	maxPast       = 100 // intervals of an instance that is asked for
	maxStrays     = 100 // a service: scopes that only reports name
)

// liveView is what a question about what is live is answered from.
type liveView struct {
	st   *ledger.State
	now  time.Time // or the time that is asked about
	past bool
	kept bool     // what instances reported is known
	tip  accepted // of now; of another time nothing is known of it
	seen *observed
	page *page
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
	pg, err := pageOf(c)
	if err != nil {
		return err
	}
	v := &liveView{st: s.store.Snapshot().State, now: time.Now(), kept: true, page: pg}
	if at.IsZero() {
		v.tip = s.source.snapshot().now
	} else if err := s.lookBack(c.Request().Context(), v, at); err != nil {
		return err
	}
	if v.seen, err = s.observe(v, service, who(c).reads); err != nil {
		return err
	}
	out := api.Live{Time: api.FormatTime(v.now), Size: v.st.Size, Services: []api.LiveService{}, Behind: s.store.Behind(), Next: pg.finish()}
	for _, name := range v.services() {
		if (service == "" || service == name) && who(c).reads(name) {
			out.Services = append(out.Services, s.liveService(v, name))
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
	v.kept = v.now.Sub(at) < instances.KeepFor
	if at.Before(v.now) {
		v.now = at
	}
	v.past = true
	v.st, err = s.store.StateAt(ctx, size)
	return err
}

// page is the part of the instances that an answer lists: the first ones after
// a place in the order of target and id, or those with one id.
type page struct {
	limit  int
	after  api.Target
	afterI string
	id     string
	rows   []instances.Row // sorted up to the last trim
	more   bool
}

func pageOf(c echo.Context) (*page, error) {
	p := &page{limit: pageInstances, id: c.QueryParam("instance")}
	if v := c.QueryParam("instances"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 0 || n > maxPage {
			return nil, &api.Error{Code: api.CodeInvalid, Detail: fmt.Sprintf("query member instances: write 0 to %d", maxPage)}
		}
		p.limit = n
	}
	if v := c.QueryParam("after"); v != "" {
		target, id, _ := strings.Cut(v, " ")
		t, err := api.ParseTarget(target)
		if err != nil {
			return nil, &api.Error{Code: api.CodeInvalid, Detail: "query member after: " + err.Error(), Hint: "pass the answer's next"}
		}
		p.after, p.afterI = t, id
	}
	return p, nil
}

// offer keeps a row if it may be among the first ones.
func (p *page) offer(r *instances.Row) {
	if compareRow(r, p.after, p.afterI) <= 0 {
		return
	}
	if p.limit == 0 {
		p.more = true
		return
	}
	if len(p.rows) >= p.limit && p.more && compareRow(r, p.rows[p.limit-1].Facts.Target, p.rows[p.limit-1].ID) > 0 {
		return
	}
	p.rows = append(p.rows, *r)
	if len(p.rows) >= 4*p.limit {
		p.trim()
	}
}

func (p *page) trim() {
	slices.SortFunc(p.rows, func(a, b instances.Row) int { return compareRow(&a, b.Facts.Target, b.ID) })
	if len(p.rows) > p.limit {
		p.rows, p.more = p.rows[:p.limit], true
	}
}

// finish sorts what is left and says where to go on.
func (p *page) finish() (next string) {
	p.trim()
	if !p.more || len(p.rows) == 0 {
		return ""
	}
	last := p.rows[len(p.rows)-1]
	return last.Facts.Target.String() + " " + last.ID
}

func compareRow(r *instances.Row, t api.Target, id string) int {
	a := r.Facts.Target
	return cmp.Or(cmp.Compare(a.Service, t.Service), cmp.Compare(a.Scope, t.Scope), cmp.Compare(r.ID, id))
}

// observed counts instances by service and scope, and by what they report.
type observed struct {
	scopes map[string]map[api.Scope]map[report]int
	now    time.Time
	named  map[string]bool // memo: bundles that the log named
}

// report is what of a report says whether an instance drifts.
type report struct {
	facts    *instances.Facts
	state    api.State
	lease    string
	refusal  string // in words; "" without one that stands
	lastSeen string // of a single instance; "" in counts
}

func (s *Server) reportOf(r *instances.Row, now time.Time) report {
	out := report{facts: r.Facts, state: r.State, lease: s.live.Lease(r, now)}
	if r.Refusal != nil {
		out.refusal = "refused an answer: " + r.Refusal.Check
		if r.Refusal.OfFile() {
			out.refusal = "refused an override file: " + r.Refusal.Check
		}
	}
	return out
}

// observe walks the instances once. Those of another time have an interval then.
func (s *Server) observe(v *liveView, service string, reads func(string) bool) (*observed, error) {
	out := &observed{scopes: map[string]map[api.Scope]map[report]int{}, now: v.now, named: map[string]bool{}}
	add := func(r *instances.Row) {
		t := r.Facts.Target
		if !reads(t.Service) || service != "" && service != t.Service || v.page != nil && v.page.id != "" && v.page.id != r.ID {
			return
		}
		out.add(t, s.reportOf(r, v.now))
		if v.page != nil {
			v.page.offer(r)
		}
	}
	switch {
	case v.past && !v.kept:
		return out, nil
	case v.past:
		return out, s.live.At(v.now, service, add)
	case v.page != nil && v.page.id != "":
		for _, r := range s.live.Find(v.page.id) {
			add(&r)
		}
		return out, nil
	}
	s.live.Scan(service, add)
	return out, nil
}

func (o *observed) add(t api.Target, r report) {
	if o.scopes[t.Service] == nil {
		o.scopes[t.Service] = map[api.Scope]map[report]int{}
	}
	if o.scopes[t.Service][t.Scope] == nil {
		o.scopes[t.Service][t.Scope] = map[report]int{}
	}
	o.scopes[t.Service][t.Scope][r]++
}

// services are those that the view shows: with an instance asked for, only its
// own.
func (v *liveView) services() []string {
	names := map[string]bool{}
	for n := range v.st.Services {
		if v.page.id == "" && len(v.st.HeadLines(n)) > 0 {
			names[n] = true
		}
	}
	for t := range v.tip.Pins {
		if v.page.id == "" {
			names[t.Service] = true
		}
	}
	for n := range v.seen.scopes {
		names[n] = true
	}
	return sortedKeys(names)
}

func (s *Server) liveService(v *liveView, name string) api.LiveService {
	out := api.LiveService{Service: name, Scopes: []api.LiveScope{}}
	at := map[string]bool{}
	if v.page.id == "" {
		at = s.namedScopes(v.st, name)
		for t := range v.tip.Pins { // one whose first set was rejected is asked for, and nothing else
			if t.Service == name {
				at[string(t.Scope)] = true
			}
		}
	}
	strays := 0
	for _, scope := range sortedKeys(v.seen.scopes[name]) {
		if at[string(scope)] {
			continue
		}
		if strays++; strays > maxStrays {
			out.Omitted++
			continue
		}
		at[string(scope)] = true
	}
	for _, scope := range sortedKeys(at) {
		out.Scopes = append(out.Scopes, s.liveScope(v, api.Target{Service: name, Scope: api.Scope(scope)}))
	}
	return out
}

// namedScopes are those of a service's chains and of the sets in force.
func (s *Server) namedScopes(st *ledger.State, name string) map[string]bool {
	at := map[string]bool{}
	for _, c := range st.ServiceChains(name) {
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
	return at
}

func (s *Server) liveScope(v *liveView, t api.Target) api.LiveScope {
	out, chains := api.LiveScope{Scope: t.Scope}, v.st.ServiceChains(t.Service)
	if !v.past {
		chains = s.pending.over(v.st, t.Service)
	}
	if e, ok := ledger.InEffect(chains, t.Scope); ok && e.Main.Set != nil {
		out.Proven = s.provenOf(e, t)
	}
	reports := v.seen.scopes[t.Service][t.Scope]
	total, drifting := 0, 0
	for r, n := range reports {
		total += n
		if len(s.drift(v.seen, out.Proven, r)) > 0 {
			drifting += n
		}
	}
	out.Drift = s.scopeDrift(v, t, out.Proven, total, drifting)
	if v.page.id == "" {
		out.Counts = s.liveCounts(v.seen, out.Proven, reports)
	}
	if v.kept {
		out.Instances = []api.LiveInstance{}
	}
	for i := range v.page.rows {
		if r := &v.page.rows[i]; r.Facts.Target == t {
			in := s.liveInstance(v.seen, out.Proven, r)
			if v.page.id != "" && !v.past {
				in.Past = s.past(r)
			}
			out.Instances = append(out.Instances, in)
		}
	}
	return out
}

// past is what an instance ran before. A file that can't be read shows nothing:
// these are observations.
func (s *Server) past(r *instances.Row) (list []api.PastRun) {
	rows, err := s.live.Past(r.Facts.Target, r.ID, maxPast)
	if err != nil {
		s.log.Warn("intervals of an instance can't be read", slog.Any("error", err))
	}
	for _, p := range rows {
		f := p.Facts
		list = append(list, api.PastRun{From: instances.Time(p.Since), To: instances.Time(p.Seen), Mode: f.Mode, Bundle: f.Bundle, Index: f.Index,
			Version: f.Version, Revision: f.Revision, Artifact: f.Artifact, Image: f.Image})
	}
	return list
}

func (s *Server) liveInstance(seen *observed, p *api.Proven, r *instances.Row) api.LiveInstance {
	in := api.LiveInstance{Instance: r.Report(), Lease: s.live.Lease(r, seen.now), Since: instances.Time(r.Since), LastSeen: instances.Time(r.Seen), Client: r.Facts.Client}
	rep := s.reportOf(r, seen.now)
	rep.lastSeen = in.LastSeen
	in.Drift = words(s.drift(seen, p, rep))
	return in
}

// scopeDrift is how a whole scope differs.
func (s *Server) scopeDrift(v *liveView, t api.Target, p *api.Proven, total, drifting int) (out []string) {
	if drifting > 0 {
		out = append(out, fmt.Sprintf("%d of %d instances differ", drifting, total))
	}
	if p != nil && p.Overdue {
		out = append(out, fmt.Sprintf("safe mode %s is overdue since %s", p.Mode, p.Expires))
	}
	if p == nil && total > 0 {
		out = append(out, "instances report here, and nothing is activated")
	}
	if v.past {
		return out
	}
	a := &v.tip
	if total > 0 && !a.Layout.Listed(t.Scope) {
		out = append(out, "scope is not listed in sealstone.yaml")
	}
	_, asked := a.Pins[t]
	for _, r := range a.Rejected {
		if r.Service == t.Service && (p != nil || asked) {
			out = append(out, fmt.Sprintf("commit %.12s asks for another set, which is rejected", r.Commit))
		}
	}
	if p == nil && asked {
		out = append(out, "activations ask for a set here, and nothing is activated")
	}
	if pin := a.pinned(t); p != nil && pin != "" && pin != p.Release {
		out = append(out, fmt.Sprintf("pinned to %.12s, active is %.12s", pin, p.Release))
	}
	return out
}

// liveCounts merges reports that read the same, biggest first.
func (s *Server) liveCounts(seen *observed, p *api.Proven, reports map[report]int) []api.LiveCount {
	type key struct {
		artifact, version, revision string
		bundle                      api.Digest
		mode                        api.Mode
		state                       api.State
		lease, drift                string
	}
	merged := map[key]*api.LiveCount{}
	for r, n := range reports {
		f, drift := r.facts, words(s.drift(seen, p, r))
		k := key{f.Artifact, f.Version, f.Revision, f.Bundle, f.Mode, r.state, r.lease, strings.Join(drift, "\n")}
		if merged[k] == nil {
			merged[k] = &api.LiveCount{Artifact: f.Artifact, Version: f.Version, Revision: f.Revision, Bundle: f.Bundle, Mode: f.Mode, State: r.state, Lease: r.lease, Drift: drift}
		}
		merged[k].Instances += n
	}
	list := make([]api.LiveCount, 0, len(merged))
	for _, c := range merged {
		list = append(list, *c)
	}
	slices.SortFunc(list, compareCounts)
	if len(list) <= maxCounts {
		return list
	}
	rest := api.LiveCount{Omitted: true}
	for _, c := range list[maxCounts:] {
		rest.Instances += c.Instances
	}
	return append(list[:maxCounts], rest)
}

func compareCounts(a, b api.LiveCount) int {
	return cmp.Or(cmp.Compare(b.Instances, a.Instances), cmp.Compare(a.Artifact, b.Artifact), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Revision, b.Revision),
		cmp.Compare(a.Bundle, b.Bundle), cmp.Compare(a.Mode, b.Mode), cmp.Compare(a.State, b.State), cmp.Compare(a.Lease, b.Lease), slices.Compare(a.Drift, b.Drift))
}

// provenOf tells what is in effect for a target, and why its bundle is not known
// when the set was erased.
func (s *Server) provenOf(e ledger.Effect, t api.Target) *api.Proven {
	eff, err := s.bundleOf(e, t)
	if err == nil {
		return s.proven(eff)
	}
	p := s.proven(&effect{Effect: e})
	p.Missing = api.ProblemOf(err).Detail
	return p
}

func (s *Server) proven(eff *effect) *api.Proven {
	p := &api.Proven{Bundle: eff.Entry.Digest, Set: eff.Main.Set.Digest, Mode: eff.Mode, Release: eff.Main.Release.Commit, Index: eff.index(), Since: eff.since()}
	if o := eff.Override; o != nil {
		p.Expires, p.Overdue = o.Expires, o.Overdue
		if o.Pending {
			p.By = s.heldOf("", *o).By
		}
	}
	if c, err := s.store.Change(p.Index); err == nil {
		p.By = s.record(p.Index, c).By()
	}
	return p
}

// difference is one way in which a report differs from what the log proves: a
// kind for counting, and words.
type difference struct{ kind, words string }

func words(list []difference) (out []string) {
	for _, d := range list {
		out = append(out, d.words)
	}
	return out
}

// drift says how a report differs from what the log proves.
func (s *Server) drift(seen *observed, p *api.Proven, r report) (out []difference) {
	differ := func(kind, words string) { out = append(out, difference{kind, words}) }
	switch b := r.facts.Bundle; {
	case p == nil || p.Missing != "" || r.lease == "gone":
	case b == "":
		differ("bundle", "runs no bundle")
	case b != p.Bundle && !s.everNamed(seen, r.facts.Target.Service, b):
		differ("unknown-bundle", "runs a bundle the log never named")
	case b != p.Bundle:
		differ("bundle", "runs "+b.Short()+", active is "+p.Bundle.Short())
	}
	if r.state != api.StateReady && r.state != "" { // unknown at another time than now
		differ(strings.ToLower(string(r.state)), "state "+string(r.state))
	}
	if r.lease != "live" {
		differ("silent", strings.TrimSuffix("silent since "+r.lastSeen, " since "))
	}
	if r.refusal != "" {
		differ("refused", r.refusal)
	}
	if r.facts.FirstUse {
		differ("first-use", "trusts on first use")
	}
	return out
}

func (s *Server) everNamed(seen *observed, service string, d api.Digest) bool {
	key := service + " " + string(d)
	known, ok := seen.named[key]
	if !ok {
		row, err := s.store.Row(namedRow(service, d))
		known = err == nil && row != nil
		seen.named[key] = known
	}
	return known
}
