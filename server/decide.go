package server

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

func draftOf(kind ledger.Kind, data ledger.Data, detail *ledger.Detail) store.Draft {
	return store.Draft{Kind: kind, Data: data, Detail: detail}
}

func trimNewline(b []byte) []byte { return bytes.TrimSuffix(b, []byte("\n")) }

// commit appends drafts together with the row that says which tip they are of,
// and adopts that row: one transaction, one swap.
func (s *Server) commit(ctx context.Context, next *accepted, decide func(*ledger.State) (store.Decision, error)) error {
	_, err := s.append(ctx, func(st *ledger.State, _ time.Time) (store.Decision, error) {
		d, err := decide(st)
		if err != nil {
			return store.Decision{}, err
		}
		if d.Rows == nil {
			d.Rows = map[string][]byte{}
		}
		d.Rows[acceptedRow], err = json.Marshal(next)
		return d, err
	})
	if err == nil {
		s.adopt(*next)
	}
	return err
}

// decide compares what the tip asks for with the state that the append loop
// holds: operators, then activations, then withdrawals, then what was rejected.
func (s *Server) decide(st *ledger.State, u *unit, now accepted, next *accepted) (store.Decision, error) {
	d := store.Decision{Rows: map[string][]byte{}}
	if u.ops != nil && newerOperators(st, u.ops) {
		d.Drafts = append(d.Drafts, *u.ops)
	}
	s.judge(st, u)
	for _, b := range u.built {
		if len(u.failed[b.Service]) > 0 {
			continue
		}
		if err := s.activate(st, u, b, &d); err != nil {
			return store.Decision{}, err
		}
	}
	d.Drafts = append(d.Drafts, s.withdrawals(st, u)...)
	next.Rejected = nil
	for _, service := range sortedKeys(u.failed) {
		r, draft := rejected(u, service, s.release(u.tip.Commit, u.skipped), now)
		next.Rejected = append(next.Rejected, r)
		if draft != nil {
			d.Drafts = append(d.Drafts, *draft)
		}
	}
	return d, nil
}

// judge finds the faults that show beside the state only.
func (s *Server) judge(st *ledger.State, u *unit) {
	vanished(st, u)
	chains, sets := map[string]int{}, map[string][]*bundler.Built{}
	for _, b := range u.built {
		sets[b.Service] = append(sets[b.Service], b)
		if !fitsHead(st, b, chains) {
			u.failed[b.Service] = append(u.failed[b.Service], bundler.TooManyChains(b.Service))
		}
	}
	for _, b := range u.built {
		if d := s.store.Withheld(b.Objects()); d != "" {
			u.failed[b.Service] = append(u.failed[b.Service], bundler.ObjectWithheld(b.Service, b.Scope, d))
		}
	}
	for service := range u.entries {
		if fault, wide := bundler.SafeModesTooWide(service, sets[service]); wide {
			u.failed[service] = append(u.failed[service], fault)
		}
		if fault, ok := s.modesStay(st, u, service); !ok {
			u.failed[service] = append(u.failed[service], fault)
		}
	}
}

// activate adds the change that a set makes, if it makes one, and the rows that
// go with the set.
func (s *Server) activate(st *ledger.State, u *unit, b *bundler.Built, out *store.Decision) error {
	d, err := s.activation(st, u, b)
	if err != nil {
		return err
	}
	if d == nil && s.isNamed(b.Service, b.Digest) {
		return nil
	}
	var replaces api.Digest // unknown to a ledger that came from a mirror: then all bundles are news
	if d != nil {
		out.Drafts = append(out.Drafts, *d)
		replaces = d.Data.Replaces
	}
	return s.describe(out.Rows, b, replaces)
}

// describe adds the rows of a set: who may fetch it, which of its bundles it
// brought, what its safe modes say of themselves.
func (s *Server) describe(rows map[string][]byte, b *bundler.Built, replaces api.Digest) error {
	nameObjects(rows, b)
	if err := s.noteBrought(rows, b, replaces); err != nil {
		return err
	}
	modes, err := json.Marshal(modesOf(b))
	rows[modesRow(b.Digest)] = modes
	return err
}

// vanished finds services that are active and have no activation file any more:
// an error, since retiring one is said with retired: true.
func vanished(st *ledger.State, u *unit) {
	for service := range st.Services {
		active := slices.ContainsFunc(st.ServiceChains(service), func(c ledger.Chain) bool { return c.Kind == ledger.BundleActivated })
		if _, listed := u.entries[service]; service == "" || !active || listed || len(u.failed[service]) > 0 {
			continue
		}
		u.failed[service] = bundler.Faults{bundler.ActivationGone(service)}
	}
}

// isNamed tells whether the rows of a set are there: a ledger that was recovered
// from a mirror starts without some.
func (s *Server) isNamed(service string, set api.Digest) bool {
	for _, key := range []string{namedRow(service, set), modesRow(set)} {
		if row, err := s.store.Row(key); err != nil || row == nil {
			return false
		}
	}
	return true
}

// nameObjects marks what an activation makes public to the service's readers.
func nameObjects(rows map[string][]byte, b *bundler.Built) {
	for d := range b.Objects() {
		rows[namedRow(b.Service, d)] = []byte{1}
	}
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }

func newerOperators(st *ledger.State, d *store.Draft) bool {
	v, err := strconv.Atoi(d.Data.Version)
	return err == nil && (st.Operators == nil || v > st.Operators.Version)
}

// fitsHead refuses a chain beyond what a head can list.
func fitsHead(st *ledger.State, b *bundler.Built, added map[string]int) bool {
	if _, there := st.Chain(ledger.ChainKey{Lane: ledger.LaneMain, Service: b.Service, Scope: b.Scope}); there {
		return true
	}
	added[b.Service]++
	return len(st.HeadLines(b.Service))+added[b.Service] <= api.MaxChains
}

// modesStay refuses a unit that would take a safe mode away from under those
// who are in it: wherever a mode in force has a bundle now, what is in effect
// after the unit must have one, too.
func (s *Server) modesStay(st *ledger.State, u *unit, service string) (bundler.Fault, bool) {
	after, sets := futureChains(st, u, service)
	for _, c := range st.ServiceChains(service) {
		if c.Lane != ledger.LaneOverride || c.Kind == ledger.SafeModeExited {
			continue
		}
		change, err := s.store.Change(c.Index)
		if err != nil {
			continue // damaged: nothing is appended then
		}
		for _, r := range change.Data.Resolved {
			if !s.hasMode(after, sets, r.Scope, c.Mode) {
				return bundler.ModeInForce(service, c.Mode, r.Scope), false
			}
		}
	}
	return bundler.Fault{}, true
}

// futureChains are a service's main chains as a unit would leave them, with the
// sets that aren't stored yet.
func futureChains(st *ledger.State, u *unit, service string) ([]ledger.Chain, map[api.Digest]*bundle.Set) {
	var out []ledger.Chain
	sets := map[api.Digest]*bundle.Set{}
	built := map[api.Scope]bool{}
	for _, b := range u.built {
		if b.Service == service {
			built[b.Scope] = true
			sets[b.Digest] = &bundle.Set{Entries: b.Entries}
			out = append(out, ledger.Chain{Lane: ledger.LaneMain, Scope: b.Scope, Kind: ledger.BundleActivated, Set: &ledger.SetRef{Digest: b.Digest}})
		}
	}
	for _, c := range st.ServiceChains(service) {
		if c.Lane == ledger.LaneMain && !built[c.Scope] && u.entries[service][c.Scope] {
			out = append(out, c)
		}
	}
	return out, sets
}

func (s *Server) hasMode(chains []ledger.Chain, sets map[api.Digest]*bundle.Set, scope api.Scope, mode api.Mode) bool {
	e, ok := ledger.InEffect(chains, scope)
	if !ok || e.Main.Set == nil {
		return false
	}
	set := sets[e.Main.Set.Digest]
	if set == nil {
		var err error
		if set, err = s.programs.set(e.Main.Set.Digest); err != nil {
			return false
		}
	}
	_, ok = set.Find(scope, mode)
	return ok
}

// activation is the change of one entry: none when the set is the one in force
// and no pin moved.
func (s *Server) activation(st *ledger.State, u *unit, b *bundler.Built) (*store.Draft, error) {
	old, _ := st.Chain(ledger.ChainKey{Lane: ledger.LaneMain, Service: b.Service, Scope: b.Scope})
	live := old.Kind == ledger.BundleActivated
	if live && old.Set.Digest == b.Digest && !(u.pinned[b] && old.Release.Commit != b.Commit) {
		same, err := s.sameModes(b, old.Release.Commit)
		if same || err != nil {
			return nil, err
		}
	}
	d := ledger.Data{Service: b.Service, Scope: b.Scope, Fields: ledger.Fields{
		Set: &ledger.SetRef{Digest: b.Digest, Size: int64(len(b.Set))}, Contract: b.Contract,
		Release: s.release(b.Commit, u.skipped),
	}}
	if live {
		d.Replaces = old.Set.Digest
	}
	detail, _, err := ledger.NewDetail(s.commitDetail(u, b.Commit))
	draft := draftOf(ledger.BundleActivated, d, detail)
	return &draft, err
}

// sameModes tells whether what the safe modes of an active set say of themselves
// is what is known. It is outside the set, and no less a change. A ledger that
// came from a mirror knows nothing yet: then it is what the active commit says.
func (s *Server) sameModes(b *bundler.Built, active string) (bool, error) {
	row, err := s.store.Row(modesRow(b.Digest))
	if err != nil {
		return false, err
	}
	if row == nil {
		old, err := s.builder.Rebuild(context.Background(), active, b.Service, b.Scope)
		if err != nil { // a rewritten branch may lack it
			return true, nil
		}
		if row, err = json.Marshal(modesOf(old)); err != nil {
			return false, err
		}
	}
	now, err := json.Marshal(modesOf(b))
	return bytes.Equal(row, now), err
}

// release says where a main change comes from: commit is the one whose content it
// is.
func (s *Server) release(commit string, skipped int) *ledger.Release {
	r := &ledger.Release{Repository: s.cfg.Source.URL(), Ref: "refs/heads/" + s.cfg.Branch, Commit: commit, Skipped: skipped}
	if c, err := s.repo.Commit(commit); err == nil {
		r.Tree = c.Tree
	}
	return r
}

// commitDetail is what people want to read beside a change and may want erased.
func (s *Server) commitDetail(u *unit, commit string) map[string]any {
	out, tip := map[string]any{}, u.tip.Commit
	if c, err := s.repo.Commit(tip); err == nil {
		out["author"], out["email"], out["subject"], out["tip"] = clean(c.Author), clean(c.Email), clean(c.Subject), tip
		s.signedBy(out, "signer", tip, u.signers)
	}
	if c, err := s.repo.Commit(commit); err == nil && commit != tip {
		out["releaseAuthor"], out["releaseSubject"] = clean(c.Author), clean(c.Subject)
		s.signedBy(out, "releaseSigner", commit, u.signers)
	}
	return out
}

// withdrawals end the chains whose entries are gone. A service whose activation
// file has faults, or vanished, keeps its chains.
func (s *Server) withdrawals(st *ledger.State, u *unit) []store.Draft {
	var out []store.Draft
	for _, service := range sortedKeys(st.Services) {
		entries, listed := u.entries[service]
		if service == "" || !listed || len(u.failed[service]) > 0 {
			continue
		}
		for _, c := range st.ServiceChains(service) {
			if c.Lane == ledger.LaneMain && c.Kind == ledger.BundleActivated && !entries[c.Scope] {
				d := ledger.Data{Service: service, Scope: c.Scope, Fields: ledger.Fields{Replaces: c.Set.Digest, Release: s.release(u.tip.Commit, u.skipped)}}
				detail, _, _ := ledger.NewDetail(s.commitDetail(u, u.tip.Commit))
				out = append(out, draftOf(ledger.BundleWithdrawn, d, detail))
			}
		}
	}
	return out
}

const maxFaultPlaces = 20

// rejected records a service's faults, once for the same ones.
func rejected(u *unit, service string, rel *ledger.Release, now accepted) (rejection, *store.Draft) {
	faults := distinct(u.failed[service])
	r := rejection{Service: service, Commit: u.tip.Commit, Total: len(faults)}
	var places []ledger.FaultPlace
	for i, f := range faults {
		r.Waits = r.Waits || f.Rule == bundler.RuleModeInForce
		if i < maxFaultPlaces {
			r.Faults = append(r.Faults, clean(f.String()))
			places = append(places, ledger.FaultPlace{Rule: f.Rule, File: clean(f.File), Line: f.Line, Column: f.Col})
		}
	}
	r.Key = string(api.DigestOf(fmt.Appendf(nil, "%v", places)))
	for _, old := range now.Rejected {
		if old.Service == service && old.Key == r.Key {
			return r, nil
		}
	}
	texts := make([]any, 0, len(r.Faults))
	for _, t := range r.Faults {
		texts = append(texts, t)
	}
	detail, _, err := ledger.NewDetail(map[string]any{"faults": texts})
	if err != nil { // the words don't fit; the places do
		detail = nil
	}
	d := draftOf(ledger.BundleRejected, ledger.Data{Service: service, Fields: ledger.Fields{Release: rel, Faults: places, Total: len(faults)}}, detail)
	return r, &d
}

// distinct sorts faults and drops those that several activations of one release
// brought up again.
func distinct(faults bundler.Faults) bundler.Faults {
	out := slices.Clone(faults)
	slices.SortFunc(out, func(a, b bundler.Fault) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(out)
}

// clean bounds text that comes out of a repository.
func clean(s string) string {
	s = toValidUTF8(s)
	if len(s) > 512 {
		s = toValidUTF8(s[:512]) + "…"
	}
	return s
}

func toValidUTF8(s string) string { return string(bytes.ToValidUTF8([]byte(s), []byte("\ufffd"))) }
