package plan

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
)

// Verdict says in one word what a reviewer decides about.
type Verdict string

// The verdicts, from the gravest.
const (
	Refused     Verdict = "refused"     // the head, or a service of it, would not be taken
	Destructive Verdict = "destructive" // something that runs is withdrawn, and nothing takes its place
	Changes     Verdict = "changes"     // something goes live
	Waits       Verdict = "waits"       // nothing goes live before a promotion
	Nothing     Verdict = "none"
)

// A Plan is what a revision would change.
type Plan struct {
	Verdict   Verdict        `json:"verdict"`
	Summary   string         `json:"summary"` // one line
	Base      Revision       `json:"base"`
	Head      Revision       `json:"head"`
	Whole     bool           `json:"whole,omitempty"` // the head is refused as a whole
	Refused   []string       `json:"refused"`         // services of which nothing goes live
	Errors    bundler.Faults `json:"errors"`
	Sets      []Set          `json:"sets"` // by service and scope; those that stay are counted
	Unchanged Unchanged      `json:"unchanged"`
	Items     []Placed       `json:"items"` // what differs, and where
	Outcomes  []Outcome      `json:"outcomes"`
	Asked     int            `json:"asked"`             // recorded contexts of services whose flags change
	Dropped   int            `json:"dropped,omitempty"` // those of them that the base has and the head has not
	Unasked   []Unasked      `json:"unasked,omitempty"`
	Modes     []Mode         `json:"safeModes"`
	Warnings  bundler.Faults `json:"warnings"`            // new ones, and those of changed files
	Others    int            `json:"otherWarnings"`       // of files that did not change
	Access    []Item         `json:"access,omitempty"`    // what files say otherwise about who may do what
	LiveError string         `json:"liveError,omitempty"` // why instances could not be counted
	Notes     []string       `json:"notes,omitempty"`
}

// A Revision is one side of a plan.
type Revision struct {
	Rev     string `json:"rev,omitempty"` // as it was asked for, or how it was found
	Commit  string `json:"commit"`        // "" for a repository with nothing in it
	Subject string `json:"subject,omitempty"`
}

// Unchanged counts what stays.
type Unchanged struct {
	Services int `json:"services"`
	Sets     int `json:"sets"` // of the services that change
}

// A Placed item is something that differs, where it goes live and where it
// waits for a promotion.
type Placed struct {
	Item
	Live  []Place `json:"live,omitempty"`
	Waits []Place `json:"waits,omitempty"`
}

// A Place is one bundle of a set.
type Place struct {
	Service string    `json:"service"`
	Scope   api.Scope `json:"scope"`
	Mode    api.Mode  `json:"mode"`
}

// Options are what a plan can't find in the repository.
type Options struct {
	Base, Head string    // how the revisions were asked for
	Now        time.Time // for rules that read the clock
	Live       *api.Live // nil: no server was asked
	LiveError  string    // why a server could not be asked
	InForce    []api.Held
	Accepted   string   // the newest commit that the server accepted
	Rejected   []string // services of which it took nothing
	Note       string   // how the base was found, when that needs saying
}

// Make plans the way from what runs at one commit to another; an empty base is a
// repository with nothing in it. A base that a server would not have accepted
// stands for the newest one before it that it would. Only services that the two
// say different things about are read. Faults of the head are part of the plan;
// the error is about storage, unknown commits or ctx.
func Make(ctx context.Context, b *bundler.Builder, base, head string, opt Options) (*Plan, error) {
	from, err := findBasis(ctx, b, base, head, &opt)
	if err != nil {
		return nil, err
	}
	base = from.commit()
	touched, all, err := b.Touched(ctx, base, head)
	if err != nil {
		return nil, err
	}
	m, err := newMaker(ctx, b, base, head, opt)
	if err != nil {
		return nil, err
	}
	m.basis = from
	m.out.Notes = from.notes
	m.out.Unchanged.Services = all - len(touched)
	if err := m.wholeHead(); err != nil {
		return nil, err
	}
	if err := m.check(touched); err != nil {
		return nil, err
	}
	if err := m.services(touched); err != nil {
		return nil, err
	}
	if err := m.access(); err != nil {
		return nil, err
	}
	return m.finish(), nil
}

// Edited plans an edit of an activation file that is not committed yet: the tip
// with another text of it.
func Edited(ctx context.Context, b *bundler.Builder, tip *bundler.Tip, service string, text []byte, opt Options) (*Plan, error) {
	from, err := findBasis(ctx, b, tip.Commit, tip.Commit, &opt)
	if err != nil {
		return nil, err
	}
	_, all, err := b.Touched(ctx, tip.Commit, tip.Commit)
	if err != nil {
		return nil, err
	}
	m, err := newMaker(ctx, b, from.commit(), tip.Commit, opt)
	if err != nil {
		return nil, err
	}
	m.basis, m.edited = from, true
	m.out.Notes, m.out.Unchanged.Services = from.notes, all-1
	if err := m.wholeHead(); err != nil {
		return nil, err
	}
	next, faults := tip.With(service, text)
	m.head.tip = next
	m.out.Errors = append(m.out.Errors, faults.Errors()...)
	if err := m.services([]string{service}); err != nil {
		return nil, err
	}
	m.out.Head.Rev, m.out.Head.Subject = "with this edit", ""
	return m.finish(), nil
}

// A maker collects a plan.
type maker struct {
	ctx        context.Context
	b          *bundler.Builder
	opt        Options
	base, head *side
	basis      basis
	out        *Plan
	placed     map[api.Digest]int // items by their JSON, in out.Items
	shown      int                // bytes of that
	compared   map[[2]api.Digest]comparison
	evaluated  map[string][]Outcome // by service and both flags.json
	outcomes   map[string]int
	asked      map[string][]question
	purse      purse
	places     int  // of outcomes
	edited     bool // nothing checked the head: faults of builds are the plan's
}

// A side is the tip that says what runs where, before or after.
type side struct {
	commit string
	tip    *bundler.Tip // nil when nothing can be said
	faults bundler.Faults
	sets   *bundler.Batch                        // bounds what is built of this side in all
	built  map[bundler.Activation]*bundler.Built // nil when refused
	lost   bool                                  // activations that never built
}

func newMaker(ctx context.Context, b *bundler.Builder, base, head string, opt Options) (*maker, error) {
	m := &maker{
		ctx: ctx, b: b, opt: opt, placed: map[api.Digest]int{}, compared: map[[2]api.Digest]comparison{},
		evaluated: map[string][]Outcome{}, outcomes: map[string]int{}, asked: map[string][]question{}, purse: purse{all: maxSteps},
		out: &Plan{
			LiveError: opt.LiveError, Errors: bundler.Faults{}, Refused: []string{}, Sets: []Set{}, Items: []Placed{},
			Outcomes: []Outcome{}, Modes: []Mode{}, Warnings: bundler.Faults{},
		},
	}
	var err error
	if m.base, m.out.Base, err = m.side(base, opt.Base); err != nil {
		return nil, err
	}
	m.head, m.out.Head, err = m.side(head, opt.Head)
	return m, err
}

func (m *maker) side(commit, rev string) (*side, Revision, error) {
	s := &side{commit: commit, sets: m.b.Batch(), built: map[bundler.Activation]*bundler.Built{}}
	r := Revision{Rev: rev, Commit: commit}
	if commit == "" {
		return s, r, nil
	}
	c, err := m.b.Repo().Commit(commit)
	if err != nil {
		return nil, r, err
	}
	r.Subject = c.Subject
	s.tip, s.faults = m.b.Tip(m.ctx, commit)
	return s, r, m.ctx.Err()
}

// check finds the faults of the head, and which of its warnings the base has
// not.
func (m *maker) check(touched []string) error {
	if touched == nil {
		touched = []string{}
	}
	after, err := m.b.Check(m.ctx, m.head.commit, bundler.CheckOptions{Services: touched, Since: m.base.commit})
	if err != nil {
		return err
	}
	m.out.Errors = append(m.out.Errors, after.Faults.Errors()...)
	m.out.Whole = m.out.Whole || slices.ContainsFunc(after.Faults, bundler.Fault.RefusesAll)
	old, err := m.oldWarnings(touched, after.Faults.Warnings())
	if err != nil {
		return err
	}
	for _, f := range after.Faults.Warnings() {
		if old[unplaced(f)] && m.b.Same(m.base.commit, m.head.commit, f.File) {
			m.out.Others++
			continue
		}
		m.out.Warnings = append(m.out.Warnings, f)
	}
	return nil
}

// oldWarnings are the warnings of the base, of the services that have some in
// the head; one in common/ may be any service's.
func (m *maker) oldWarnings(touched []string, now bundler.Faults) (map[bundler.Fault]bool, error) {
	old := map[bundler.Fault]bool{}
	if m.base.commit == "" || len(now) == 0 {
		return old, nil
	}
	services := []string{}
	for _, f := range now {
		services = append(services, f.Service)
		if f.Service == "" && strings.HasPrefix(f.File, "common/") {
			services = touched
			break
		}
	}
	before, err := m.b.Check(m.ctx, m.base.commit, bundler.CheckOptions{Services: services})
	if err != nil {
		return nil, err
	}
	for _, f := range before.Faults {
		old[unplaced(f)] = true
	}
	return old, nil
}

// unplaced is a fault without the line, which moves when others are added.
func unplaced(f bundler.Fault) bundler.Fault {
	f.Line, f.Col = 0, 0
	return f
}

func (m *maker) services(touched []string) error {
	for i, name := range touched {
		m.purse.next(len(touched) - i)
		if err := m.service(name); err != nil {
			return err
		}
	}
	return nil
}

// service plans every scope where a service is activated before or after.
func (m *maker) service(name string) error {
	from, err := m.lastGood(name)
	if err != nil {
		return err
	}
	t := &turn{service: name, from: from, before: from.activations(name), after: m.head.activations(name)}
	if t.refused, err = m.refused(t); err != nil {
		return err
	}
	if t.refused {
		m.out.Refused = append(m.out.Refused, name)
	}
	for _, scope := range scopesOf(t.before, t.after) {
		if err := m.activation(t, scope); err != nil {
			return err
		}
	}
	return nil
}

// A turn is what becomes of one service.
type turn struct {
	service       string
	from          *side // the last good one
	before, after []bundler.Activation
	refused       bool
}

// refused reports whether the server would take nothing of a service: nothing
// of the head, an activation of it can't be built, its activation file is at
// fault or gone, or a safe mode in force would go.
func (m *maker) refused(t *turn) (bool, error) {
	if m.out.Whole {
		return true, nil
	}
	for _, a := range t.after {
		if b, err := m.build(m.head, a); err != nil || b == nil && !m.edited {
			return true, err
		}
	}
	if slices.ContainsFunc(t.after, func(a bundler.Activation) bool { return m.head.built[a] == nil }) {
		return true, nil
	}
	faults, err := m.serverFaults(t)
	m.errors(faults)
	file := "activations/" + t.service + ".yaml"
	return slices.ContainsFunc(m.out.Errors, func(f bundler.Fault) bool { return f.Service == t.service && f.File == file }), err
}

// build builds what an activation of one side asks for; nil means that it is
// refused, and the reasons are among the faults of the check.
func (m *maker) build(s *side, a bundler.Activation) (*bundler.Built, error) {
	if b, ok := s.built[a]; ok {
		return b, nil
	}
	b, err := s.sets.Build(m.ctx, s.tip, a)
	if fs, faulty := bundler.FaultsOf(err); faulty {
		b, err = nil, nil
		if m.edited && s == m.head {
			m.errors(fs)
		}
	}
	if err == nil {
		s.built[a] = b
	}
	return b, err
}

func (m *maker) errors(fs bundler.Faults) {
	for _, f := range fs.Errors() {
		if !slices.Contains(m.out.Errors, f) {
			m.out.Errors = append(m.out.Errors, f)
		}
	}
}

func (s *side) activations(service string) []bundler.Activation {
	var out []bundler.Activation
	if s.tip == nil {
		return nil
	}
	for _, a := range s.tip.Activations {
		if a.Service == service && !a.Retired {
			out = append(out, a)
		}
	}
	return out
}

func scopesOf(lists ...[]bundler.Activation) []api.Scope {
	var out []api.Scope
	for _, list := range lists {
		for _, a := range list {
			out = append(out, a.Scope)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// nearest is the activation in effect at a scope; nil when there is none.
func nearest(list []bundler.Activation, scope api.Scope) *bundler.Activation {
	var best *bundler.Activation
	for i, a := range list {
		if a.Scope.Contains(scope) && (best == nil || a.Scope.Depth() > best.Scope.Depth()) {
			best = &list[i]
		}
	}
	return best
}
