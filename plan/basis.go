package plan

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
)

// Bounds of the search for what runs: along first parents.
const (
	maxBack  = 100  // commits
	maxLooks = 2000 // looks at a service of a commit, in all
)

// A basis is what a plan compares with: commits that a server accepted, or would
// have, the newest first.
type basis struct {
	commits []string
	server  bool // a server says that the first one is what it runs
	notes   []string
	steps   int
}

func (f *basis) commit() string {
	if len(f.commits) == 0 {
		return ""
	}
	return f.commits[0]
}

// findBasis goes from the base that was asked for to what the server accepted,
// when one was asked and the base comes after that, and else to the newest
// commit that a server would have accepted.
func findBasis(ctx context.Context, b *bundler.Builder, base, head string, opt *Options) (basis, error) {
	f := basis{}
	if opt.Note != "" {
		f.notes = append(f.notes, opt.Note)
	}
	if base == "" {
		return f, nil
	}
	asked := base
	if err := f.askServer(ctx, b, &base, head, opt); err != nil {
		return f, err
	}
	list, refused, err := b.Accepted(ctx, base, maxBack)
	if err != nil {
		return f, err
	}
	f.commits = list
	if f.server && f.commit() != base { // it knows better
		f.commits = append([]string{base}, list...)
	}
	switch {
	case f.server && base != asked:
		opt.Base = "accepted by the server"
		f.notes = append(f.notes, fmt.Sprintf("compared with %.12s, which the server accepted last, not with %.12s", base, asked))
	case !f.server && f.commit() == "":
		f.notes = append(f.notes, fmt.Sprintf("no commit was found that a server would have accepted, from %.12s back: all is shown as new. %s", base, firstFault(refused)))
	case f.commit() != base:
		opt.Base = "newest that is accepted"
		f.notes = append(f.notes, fmt.Sprintf("compared with %.12s: a server refuses %.12s as a whole. %s", f.commit(), base, firstFault(refused)))
	}
	return f, nil
}

// askServer takes the server's accepted commit as the base when the base comes
// after it. A server that has gone on says nothing about this base.
func (f *basis) askServer(ctx context.Context, b *bundler.Builder, base *string, head string, opt *Options) error {
	if opt.Accepted == "" {
		return nil
	}
	if _, err := b.Repo().Commit(opt.Accepted); errors.Is(err, bundler.ErrNoCommit) {
		f.notes = append(f.notes, fmt.Sprintf("the server accepted %.12s, which is not in this clone: fetch, to compare with what runs", opt.Accepted))
		return nil
	}
	before, err := b.Repo().IsAncestor(ctx, opt.Accepted, *base)
	if err != nil {
		return err
	}
	if !before && head != *base {
		done, err := b.Repo().IsAncestor(ctx, head, opt.Accepted)
		if err != nil {
			return err
		}
		if done {
			f.notes = append(f.notes, fmt.Sprintf("the server accepted %.12s, which contains the head: this is what merging it changed", opt.Accepted))
			return nil
		}
	}
	if !before {
		f.notes = append(f.notes, fmt.Sprintf("the server accepted %.12s, which %.12s does not contain: merge the main branch, to compare with what runs", opt.Accepted, *base))
		return nil
	}
	*base, f.server = opt.Accepted, true
	return nil
}

func firstFault(fs bundler.Faults) string {
	if len(fs) == 0 {
		return ""
	}
	return fs[0].String()
}

// wholeHead finds out whether the server would take nothing of the head. Whether
// an edit of it will be signed is not known.
func (m *maker) wholeHead() error {
	_, faults, err := m.b.Refusal(m.ctx, m.head.commit, m.base.tip)
	if m.edited {
		faults = slices.DeleteFunc(slices.Clone(faults), func(f bundler.Fault) bool { return f.Rule == "E_UNSIGNED" })
		m.errors(faults)
	}
	m.out.Whole = len(faults) > 0
	return err
}

// lastGood is the newest accepted commit of which a service went live: the
// base, unless the service has errors there or its activation file vanished.
func (m *maker) lastGood(name string) (*side, error) {
	seen := false // that it was activated
	for i, commit := range m.basis.commits {
		if m.basis.steps++; m.basis.steps > maxLooks {
			m.note("the search for the last good sets ended after %d steps", maxLooks)
			break
		}
		if i == 0 && m.basis.server && slices.Contains(m.opt.Rejected, name) {
			seen = true
			continue
		}
		s, good, err := m.took(commit, name)
		if err != nil {
			return nil, err
		}
		seen = seen || len(s.activations(name)) > 0 || s.faulty(name)
		if good {
			if i > 0 {
				m.note("%s: compared with %.12s, the newest commit of which it went live", name, commit)
			}
			return s, nil
		}
	}
	if !seen {
		return m.base, nil
	}
	m.note("%s: no commit was found of which it went live, so what changes can't be shown", name)
	return &side{commit: m.base.commit, lost: true}, nil
}

// took reports whether a service of an accepted commit went live, or was
// retired there.
func (m *maker) took(commit, name string) (*side, bool, error) {
	s := m.base
	if commit != m.base.commit {
		var err error
		if s, _, err = m.side(commit, ""); err != nil {
			return nil, false, err
		}
	}
	if s.tip == nil || s.faulty(name) {
		return s, false, nil
	}
	list := s.activations(name)
	for _, a := range list {
		if b, err := m.build(s, a); err != nil || b == nil {
			return s, false, err
		}
	}
	return s, len(list) > 0 || s.says(name), nil
}

// faulty reports errors of a service's activation file.
func (s *side) faulty(service string) bool {
	return slices.ContainsFunc(s.faults.Errors(), func(f bundler.Fault) bool { return f.Service == service })
}

// says reports whether a service has an activation file that can be read.
func (s *side) says(service string) bool {
	return slices.ContainsFunc(s.tip.Activations, func(a bundler.Activation) bool { return a.Service == service })
}

// proven is what the server says is in effect at a scope, when that is another
// set than the repository's.
func (m *maker) proven(service string, scope api.Scope, old *bundler.Built) (*bundler.Built, error) {
	p := m.provenAt(service, scope)
	if p == nil || old != nil && old.Digest == p.Set {
		return old, nil
	}
	for s := scope; s != ""; s = s.Parent() {
		b, err := m.rebuild(p.Release, service, s)
		if errors.Is(err, bundler.ErrNoCommit) {
			break
		}
		if err != nil || b != nil && b.Digest == p.Set {
			return b, err
		}
	}
	m.note("the server runs %s at %s@%s, of release %.12s, which can't be built here", p.Set.Short(), service, scope, p.Release)
	return old, nil
}

func (m *maker) provenAt(service string, scope api.Scope) *api.Proven {
	if !m.basis.server || m.opt.Live == nil {
		return nil
	}
	for _, s := range m.opt.Live.Services {
		for _, sc := range s.Scopes {
			if s.Service == service && sc.Scope == scope {
				return sc.Proven
			}
		}
	}
	return nil
}

// serverFaults are the faults of a service that the server finds after it was
// built.
func (m *maker) serverFaults(t *turn) (bundler.Faults, error) {
	var out bundler.Faults
	if len(scopesOf(t.before, t.after)) > api.MaxChains {
		out = append(out, bundler.TooManyChains(t.service))
	}
	var built []*bundler.Built
	for _, a := range t.after {
		built = append(built, m.head.built[a])
	}
	if f, wide := bundler.SafeModesTooWide(t.service, built); wide {
		out = append(out, f)
	}
	for _, h := range m.opt.InForce {
		if h.Service != t.service {
			continue
		}
		at, gone, err := m.loses(t, h)
		if err != nil {
			return nil, err
		}
		if gone {
			out = append(out, bundler.ModeInForce(t.service, h.Mode, at))
		}
	}
	return out, nil
}

// loses finds a scope where a mode in force has a bundle now and would have
// none.
func (m *maker) loses(t *turn, h api.Held) (api.Scope, bool, error) {
	for _, at := range append(scopesOf(t.before), h.Scope) {
		if !h.Scope.Contains(at) {
			continue
		}
		now, err := m.effective(t.from, nearest(t.before, at))
		if err != nil {
			return "", false, err
		}
		next, err := m.effective(m.head, nearest(t.after, at))
		if err != nil {
			return "", false, err
		}
		for _, s := range modeScopes(now, h.Mode, at) {
			if !hasMode(next, s, h.Mode) {
				return s, true, nil
			}
		}
	}
	return "", false, nil
}

// modeScopes are the scopes at or below one where a set has a mode.
func modeScopes(b *bundler.Built, mode api.Mode, at api.Scope) []api.Scope {
	if !hasMode(b, at, mode) {
		return nil
	}
	out := []api.Scope{at}
	for _, e := range b.Entries {
		if e.Mode == mode && at.Contains(e.Scope) {
			out = append(out, e.Scope)
		}
	}
	return out
}

func hasMode(b *bundler.Built, at api.Scope, mode api.Mode) bool {
	if b == nil {
		return false
	}
	_, ok := b.Find(at, mode)
	return ok
}
