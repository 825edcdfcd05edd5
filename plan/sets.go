package plan

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
)

// State says what becomes of a set.
type State string

// The states of sets.
const (
	SetNew       State = "new"       // nothing was activated here
	SetChanges   State = "changes"   // other content goes live
	SetMoves     State = "moves"     // the activation names another release, of the same content
	SetWithdrawn State = "withdrawn" // an outer activation takes over, or nothing does
	SetRefused   State = "refused"   // the last good set stays
	SetWaits     State = "waits"     // pinned: other content, or a safe mode that says other things, once it is promoted
	SetUnknown   State = "unknown"   // goes live; what is in effect now can't be built
)

// A Set is what becomes of one activation.
type Set struct {
	Service     string    `json:"service"`
	Scope       api.Scope `json:"scope"`
	State       State     `json:"state"`
	Old         *Release  `json:"old,omitempty"` // in effect now
	New         *Release  `json:"new,omitempty"`
	Destructive bool      `json:"destructive,omitempty"`
	Running     *int      `json:"running,omitempty"` // live instances, when a server was asked
	Promote     string    `json:"promote,omitempty"` // the command that ends the waiting
	Back        string    `json:"back,omitempty"`    // the command that goes back to Old
	Reproduce   string    `json:"reproduce,omitempty"`
}

// A Release is a commit and the set that it builds to.
type Release struct {
	Commit string     `json:"commit"`
	Set    api.Digest `json:"set"`
}

// activation plans one scope of a service.
func (m *maker) activation(t *turn, scope api.Scope) error {
	was, is := nearest(t.before, scope), nearest(t.after, scope)
	old, err := m.effective(t.from, was)
	if err == nil {
		old, err = m.proven(t.service, scope, old)
	}
	if err != nil {
		return err
	}
	row := Set{Service: t.service, Scope: scope, Old: releaseOf(old), Running: m.running(t, scope)}
	if t.refused {
		row.State = SetRefused
		m.out.Sets = append(m.out.Sets, row)
		return nil
	}
	next, err := m.effective(m.head, is)
	if err != nil {
		return err
	}
	row.New = releaseOf(next)
	switch {
	case is == nil || is.Scope != scope:
		row.State, row.Destructive = SetWithdrawn, is == nil
	case old == nil && (was != nil || t.from.lost):
		row.State = SetUnknown
	case old == nil:
		row.State = SetNew
	case old.Digest != next.Digest:
		row.State = SetChanges
	case was == nil || was.Release != is.Release || !alike(old, next):
		row.State = SetMoves
	}
	places := placesOf(t.service, scope, scopesOf(t.before, t.after), old, next)
	if row.State == "" {
		return m.waiting(row, t.from, old, is, places)
	}
	at := scope
	if is != nil {
		at = is.Scope // of the outer activation, for one that is withdrawn
	}
	m.commands(&row, at)
	m.out.Sets = append(m.out.Sets, row)
	return m.compare(places, old, next, true)
}

// alike reports sets of the same content whose safe modes are entered alike.
func alike(a, b *bundler.Built) bool {
	return a != nil && a.Digest == b.Digest && reflect.DeepEqual(a.SafeModes, b.SafeModes)
}

func pinned(a *bundler.Activation) bool { return a.Release != bundler.ReleaseLatest }

func (m *maker) effective(s *side, a *bundler.Activation) (*bundler.Built, error) {
	if a == nil {
		return nil, nil
	}
	return m.build(s, *a)
}

func releaseOf(b *bundler.Built) *Release {
	if b == nil {
		return nil
	}
	return &Release{b.Commit, b.Digest}
}

// waiting plans what a promotion of the head would do to a pinned scope, where
// now is in effect, as far as it comes of this revision.
func (m *maker) waiting(row Set, from *side, now *bundler.Built, a *bundler.Activation, places []Place) error {
	if !pinned(a) || m.head.commit == m.base.commit {
		m.out.Unchanged.Sets++
		return nil
	}
	next, err := m.rebuild(m.head.commit, row.Service, row.Scope)
	if err != nil || next == nil {
		return err
	}
	old, err := m.rebuild(from.commit, row.Service, row.Scope)
	if err != nil {
		return err
	}
	if alike(now, next) || alike(old, next) {
		m.out.Unchanged.Sets++
		return nil
	}
	row.State, row.New = SetWaits, releaseOf(next)
	row.Promote = fmt.Sprintf("sealstone promote %s --to %s", row.Service, row.Scope)
	m.commands(&row, row.Scope)
	row.Back = ""
	m.out.Sets = append(m.out.Sets, row)
	if old == nil {
		return nil // the base could not be promoted: there is nothing to compare with
	}
	return m.compare(places, old, next, false)
}

func (m *maker) rebuild(commit, service string, scope api.Scope) (*bundler.Built, error) {
	if commit == "" {
		return nil, nil
	}
	b, err := m.b.Rebuild(m.ctx, commit, service, scope)
	if _, faulty := bundler.FaultsOf(err); faulty {
		return nil, nil
	}
	return b, err
}

// commands adds how to go back and how to build the same bytes again.
func (m *maker) commands(row *Set, built api.Scope) {
	if row.New != nil {
		row.Reproduce = fmt.Sprintf("sealstone build --reproduce %s --rev %s --service %s --scope %s", row.New.Set, row.New.Commit, row.Service, built)
	}
	if row.Old != nil && (row.New == nil || row.New.Commit != row.Old.Commit) {
		row.Back = fmt.Sprintf("sealstone promote %s --to %s --release %s", row.Service, row.Scope, row.Old.Commit)
	}
}

// running counts live instances that an activation is the nearest one for.
func (m *maker) running(t *turn, scope api.Scope) *int {
	if m.opt.Live == nil {
		return nil
	}
	all, n := slices.Concat(t.before, t.after), 0
	for _, s := range m.opt.Live.Services {
		for _, sc := range s.Scopes {
			for _, in := range sc.Instances {
				if in.Target.Service == t.service && in.Lease == "live" && nearestScope(all, in.Target.Scope) == scope {
					n++
				}
			}
		}
	}
	return &n
}

func nearestScope(list []bundler.Activation, scope api.Scope) api.Scope {
	if a := nearest(list, scope); a != nil {
		return a.Scope
	}
	return ""
}
