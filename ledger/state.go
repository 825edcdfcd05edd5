package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/sealstone/sealstone/api"
)

// State is the fold over the log's first Size changes: the only source of what
// is active, which modes are in force and who may do what. A State is changed
// only by Apply, and Clone makes a cheap copy to publish: chains of a service
// are replaced, never written.
type State struct {
	Origin    string
	Trust     api.Digest // as ledger.created cites it
	Size      int64
	Operators *Operators          // nil before the first set
	Sets      []Ref               // every operators.changed, oldest first
	Services  map[string]*Service // "" holds the chains without a service
}

// Service is the newest change of every chain of a service, sorted by lane and
// scope. It is never written after it is made.
type Service struct {
	Chains []Chain
}

// Chain is the newest change of a chain, with what later decisions need of it.
type Chain struct {
	Lane       Lane       `json:"lane"`
	Scope      api.Scope  `json:"scope,omitempty"`
	Index      int64      `json:"index"`
	Hash       api.Digest `json:"hash"`
	Generation int64      `json:"generation"`
	Kind       Kind       `json:"kind"`
	ID         string     `json:"id"`
	Time       string     `json:"time"`
	Recorded   string     `json:"recorded"`
	Release    *Release   `json:"release,omitempty"`
	Set        *SetRef    `json:"set,omitempty"`
	Mode       api.Mode   `json:"mode,omitempty"`
	OnExpiry   string     `json:"onExpiry,omitempty"`
	Expires    string     `json:"expires,omitempty"`
	Overdue    bool       `json:"overdue,omitempty"` // the log says that Expires has passed and the mode holds
	Pending    bool       `json:"pending,omitempty"` // a statement that isn't in the log; see WithPending
	Cites      int64      `json:"operators,omitempty"`
}

// NewState is the state before the first entry.
func NewState(origin string) *State {
	return &State{Origin: origin, Services: map[string]*Service{}}
}

// Clone returns a copy that Apply on the original doesn't change.
func (s *State) Clone() *State {
	c := *s
	c.Services = maps.Clone(s.Services)
	c.Sets = slices.Clip(s.Sets)
	return &c
}

// Chain looks up a chain.
func (s *State) Chain(k ChainKey) (Chain, bool) {
	svc := s.Services[k.Service]
	if svc == nil {
		return Chain{}, false
	}
	i, ok := svc.find(k.Lane, k.Scope)
	if !ok {
		return Chain{}, false
	}
	return svc.Chains[i], true
}

func (svc *Service) find(lane Lane, scope api.Scope) (int, bool) {
	return slices.BinarySearchFunc(svc.Chains, Chain{Lane: lane, Scope: scope}, compareChains)
}

func compareChains(a, b Chain) int {
	return cmp.Or(cmp.Compare(a.Lane, b.Lane), cmp.Compare(a.Scope, b.Scope))
}

func (s *State) set(service string, c Chain) {
	old := s.Services[service]
	next := &Service{}
	if old != nil {
		next.Chains = slices.Clone(old.Chains)
	}
	if i, ok := next.find(c.Lane, c.Scope); ok {
		next.Chains[i] = c
	} else {
		next.Chains = slices.Insert(next.Chains, i, c)
	}
	s.Services[service] = next
}

// Next fills in where a new change stands: generation, prev, operators.
func (s *State) Next(d *Data) {
	d.Generation, d.Prev, d.Operators = 1, "", 0
	if c, ok := s.Chain(d.Chain()); ok {
		d.Generation, d.Prev = c.Generation+1, c.Hash
	}
	if s.Operators != nil {
		d.Operators = s.Operators.Index
	}
}

// ErrFold is wrapped by every refusal of Apply: the change isn't what may come
// next in this log.
var ErrFold = errors.New("change does not follow")

// Apply folds the next change into the state. It checks everything that the
// log's own rules say of it; the node's signature is the caller's to check,
// since it depends on the trust file of the day.
func (s *State) Apply(c *Change, t *Trust) error {
	if err := s.apply(c, t); err != nil {
		return fmt.Errorf("entry %d: %w: %w", s.Size, ErrFold, err)
	}
	return nil
}

func (s *State) apply(c *Change, t *Trust) error {
	if err := s.follows(c); err != nil {
		return err
	}
	var ops *Operators
	switch {
	case c.Roots != nil:
		var err error
		if ops, err = s.newOperators(c, t); err != nil {
			return err
		}
	case c.Statement != nil && c.Kind() != StatementLate:
		by, err := s.Operators.Judge(c.Statement)
		if err != nil {
			return err
		}
		c.By = by
	case c.Statement != nil: // a late one is kept as evidence, not obeyed: its signer may be gone
		c.By, _ = s.Operators.Signer(c.Statement)
	}
	if c.Kind() == LedgerCreated {
		if err := t.created(c.Data.Trust); err != nil {
			return err
		}
		s.Trust = c.Data.Trust
	}
	index := s.Size
	s.set(c.Data.Service, ChainOf(index, c))
	s.markOverdue(c)
	if ops != nil {
		ops.Index, ops.Hash = index, c.Hash
		s.Operators, s.Sets = ops, append(s.Sets, Ref{index, c.Hash})
	}
	s.Size++
	return nil
}

func (s *State) follows(c *Change) error {
	want := c.Data
	s.Next(&want)
	switch {
	case c.Source != s.Origin:
		return fmt.Errorf("source %.64q, the log is %q", c.Source, s.Origin)
	case (s.Size == 0) != (c.Kind() == LedgerCreated):
		return errors.New("ledger.created is the first entry, and only that")
	case c.Data.Generation != want.Generation || c.Data.Prev != want.Prev:
		return fmt.Errorf("chain %s: generation %d after %d, or another prev", c.Data.Chain(), c.Data.Generation, want.Generation-1)
	case c.Data.Operators != want.Operators:
		return fmt.Errorf("cites operators %d, in force are %d", c.Data.Operators, want.Operators)
	}
	if c.Kind() == SafeModeOverdue {
		return s.followsOverdue(c)
	}
	return s.followsOverride(c)
}

// followsOverdue holds the node to what it says of a mode that ran out.
func (s *State) followsOverdue(c *Change) error {
	over, ok := s.Chain(ChainKey{LaneOverride, c.Data.Service, c.Data.Scope})
	if !ok || over.Kind == SafeModeExited || over.Mode != c.Data.Mode || over.Expires != c.Data.Expires || c.Data.Expires > c.RecordedTime {
		return errors.New("no such mode has run out")
	}
	return nil
}

// followsOverride holds safe-mode changes to the generation that their signer
// saw and to the mode in force.
func (s *State) followsOverride(c *Change) error {
	if c.Data.Lane != LaneOverride {
		return nil
	}
	if err := c.CheckSafeMode(); err != nil {
		return err
	}
	prev, ok := s.Chain(c.Data.Chain())
	inForce := ok && prev.Kind != SafeModeExited
	if c.Kind() != SafeModeEntered && (!inForce || prev.Mode != c.Data.Mode) {
		return fmt.Errorf("mode %q is not in force at %s", c.Data.Mode, c.Subject)
	}
	if c.Kind() == SafeModeExited && c.Statement == nil && (prev.OnExpiry != "restore" || prev.Expires > c.RecordedTime) {
		return errors.New("an exit without a statement, and the mode has not run out")
	}
	return nil
}

func (s *State) newOperators(c *Change, t *Trust) (*Operators, error) {
	ops, err := t.OperatorsAt(s.Size, c.Data.Statement)
	if err != nil {
		return nil, err
	}
	if s.Operators != nil && ops.Version <= s.Operators.Version {
		return nil, fmt.Errorf("operators version %d is not above %d", ops.Version, s.Operators.Version)
	}
	if c.Data.Version != fmt.Sprint(ops.Version) {
		return nil, fmt.Errorf("says operators version %.16q, the statement %d", c.Data.Version, ops.Version)
	}
	return ops, nil
}

func (s *State) markOverdue(c *Change) {
	if c.Kind() != SafeModeOverdue {
		return
	}
	over, ok := s.Chain(ChainKey{LaneOverride, c.Data.Service, c.Data.Scope})
	if ok && over.Mode == c.Data.Mode && over.Expires == c.Data.Expires {
		over.Overdue = true
		s.set(c.Data.Service, over)
	}
}

// ChainOf is what a change at an index makes of its chain.
func ChainOf(index int64, c *Change) Chain {
	d := c.Data
	return Chain{
		Lane: d.Lane, Scope: d.Scope, Index: index, Hash: c.Hash, Generation: d.Generation, Kind: c.Kind(), ID: c.ID,
		Time: c.Time, Recorded: c.RecordedTime, Release: d.Release, Set: d.Set, Mode: d.Mode, OnExpiry: d.OnExpiry,
		Expires: d.Expires, Cites: d.Operators,
	}
}

// Deadline is a safe mode that runs out.
type Deadline struct {
	Service string
	Chain   Chain
	At      time.Time
}

// Deadlines lists the modes in force whose expiry isn't in the log yet, soonest
// first. Timers are rebuilt from it at every start.
func (s *State) Deadlines() []Deadline {
	var out []Deadline
	for name, svc := range s.Services {
		for _, c := range svc.Chains {
			if c.Lane != LaneOverride || c.Kind == SafeModeExited || c.Overdue {
				continue
			}
			if at, err := api.ParseTime(c.Expires); err == nil {
				out = append(out, Deadline{name, c, at})
			}
		}
	}
	slices.SortFunc(out, func(a, b Deadline) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Chain.Scope, b.Chain.Scope))
	})
	return out
}

// HeadLines are the lines of a service's head.
func (s *State) HeadLines(service string) []Line {
	var out []Line
	for _, c := range s.ServiceChains(service) {
		if c.Lane == LaneMain || c.Lane == LaneOverride {
			out = append(out, Line{c.Lane, c.Scope, Ref{c.Index, c.Hash}})
		}
	}
	return out
}

// Active yields every activation in force with its service, in order.
func (s *State) Active() iter.Seq2[string, Chain] {
	return func(yield func(string, Chain) bool) {
		for _, service := range slices.Sorted(maps.Keys(s.Services)) {
			for _, c := range s.Services[service].Chains {
				if c.Kind == BundleActivated && c.Set != nil && !yield(service, c) {
					return
				}
			}
		}
	}
}

// ServiceChains are the chains of a service; read only.
func (s *State) ServiceChains(service string) []Chain {
	if svc := s.Services[service]; svc != nil {
		return svc.Chains
	}
	return nil
}
