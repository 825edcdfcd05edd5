package plan

import (
	"context"
	"slices"
	"strings"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
)

// A server goes from the last commit it took, not from the last one there is. So
// a plan compares with what the base really put into effect: where a server
// would have refused it, whole or for one service, an earlier commit counts.

// maxBack bounds how far a plan looks for a commit that was taken.
const maxBack = 100

// refusedWhole reports whether a server takes nothing of a commit, whatever its
// services are like.
func refusedWhole(ctx context.Context, b *bundler.Builder, commit string) (bool, error) {
	tip, faults := b.Tip(ctx, commit)
	if tip == nil {
		return true, ctx.Err()
	}
	costsAll := func(f bundler.Fault) bool {
		return f.Service == "" && !strings.HasPrefix(f.File, "operators.") && !strings.HasPrefix(f.File, "clients.")
	}
	if slices.ContainsFunc(faults.Errors(), costsAll) {
		return true, nil
	}
	report, err := b.Check(ctx, commit, bundler.CheckOptions{Services: []string{}})
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(report.Faults.Errors(), func(f bundler.Fault) bool {
		return f.Service == "" && (f.Rule == "E_UNSIGNED" || f.Rule == "E_LEVELS")
	}), nil
}

// taken is the newest commit from base down that a server takes; base itself
// when there is none.
func taken(ctx context.Context, b *bundler.Builder, base string) (string, error) {
	for commit, n := base, 0; commit != "" && n < maxBack; n++ {
		refused, err := refusedWhole(ctx, b, commit)
		if err != nil || !refused {
			return commit, err
		}
		if commit, err = parent(b, commit); err != nil {
			return "", err
		}
	}
	return base, nil
}

// parent is the first parent of a commit; "" when it has none here.
func parent(b *bundler.Builder, commit string) (string, error) {
	c, err := b.Repo().Commit(commit)
	if err != nil || len(c.Parents) == 0 {
		return "", nil //nolint:nilerr // the end of a shallow clone
	}
	return c.Parents[0], nil
}

// runs is the side that a service's sets in effect come from: the base, or the
// newest commit before it of which the service is taken.
func (m *maker) runs(service string) (*side, error) {
	s := m.base
	for n := 0; s.commit != "" && n < maxBack; n++ {
		ok, err := m.takes(s, service)
		if err != nil {
			return nil, err
		}
		if ok {
			if s != m.base {
				m.note("%s of %.12s is refused, so it is compared with %.12s, the newest before that is not", service, m.base.commit, s.commit)
			}
			return s, nil
		}
		up, err := parent(m.b, s.commit)
		if err != nil {
			return nil, err
		}
		if s, _, err = m.side(up, ""); err != nil {
			return nil, err
		}
	}
	return m.base, nil
}

// takes reports whether a server takes a service of a commit, as far as that
// shows in the repository, and in what runs where a server rejected it.
func (m *maker) takes(s *side, service string) (bool, error) {
	if whole, err := refusedWhole(m.ctx, m.b, s.commit); whole || err != nil {
		return false, err
	}
	if slices.ContainsFunc(s.faults.Errors(), func(f bundler.Fault) bool { return f.Service == service }) {
		return false, nil
	}
	for _, a := range s.activations(service) {
		b, err := m.build(s, a)
		if b == nil || err != nil {
			return false, err
		}
		if slices.Contains(m.opt.Rejected, service) && m.opt.Live != nil && !m.live(b) {
			return false, nil
		}
	}
	return true, nil
}

// live reports whether a set is the one that the server has at its scope.
func (m *maker) live(b *bundler.Built) bool {
	for _, s := range m.opt.Live.Services {
		for _, sc := range s.Scopes {
			if s.Service == b.Service && sc.Scope == b.Scope && sc.Proven != nil {
				return sc.Proven.Set == b.Digest
			}
		}
	}
	return true
}

// modeInForce reports a safe mode in force that the head would not have any more:
// the server refuses the whole service.
func (m *maker) modeInForce(service string, after []bundler.Activation) (bool, error) {
	refused := false
	for _, h := range m.opt.InForce {
		if h.Service != service {
			continue
		}
		set, err := m.effective(m.head, nearest(after, h.Scope))
		if err != nil {
			return false, err
		}
		if set != nil && has(set, h.Scope, h.Mode) {
			continue
		}
		refused = true
		m.out.Errors = append(m.out.Errors, bundler.Fault{Rule: "E_MODE_IN_FORCE", Severity: bundler.Error, Service: service,
			File: "activations/" + service + ".yaml", Message: "safe mode " + string(h.Mode) + " is in force at " + string(h.Scope) + ", and nothing would have it there",
			Fix: "Leave the mode first, or keep safe-modes/" + string(h.Mode)})
	}
	return refused, nil
}

func has(set *bundler.Built, scope api.Scope, mode api.Mode) bool {
	_, ok := set.SafeModes[mode]
	return ok && set.Scope.Contains(scope)
}
