package server

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/flags"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

// programs holds parsed sets and compiled bundles by digest. What a digest
// names never changes, so entries are made once; those that no chain lists any
// more are dropped when a new state is prepared.
type programs struct {
	store   *store.Store
	lost    func(api.Digest) // hears of objects that are missing or damaged
	sets    sync.Map         // api.Digest → *bundle.Set
	bundles sync.Map         // api.Digest → *program
}

// program is a bundle ready to evaluate.
type program struct {
	Digest   api.Digest
	Manifest *bundle.Manifest
	Flags    *flags.Set
	answers  atomic.Pointer[answers] // nil until OFREP is asked for it
}

func (p *programs) init(st *store.Store, lost func(api.Digest)) { p.store, p.lost = st, lost }

func (p *programs) object(d api.Digest) ([]byte, error) {
	b, err := p.store.Object(d)
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrCorrupt) {
		p.lost(d)
	}
	return b, err
}

// prepare compiles what a state lists and forgets the rest. A bundle that fails
// here was damaged on disk: reads of it say so, others go on.
func (p *programs) prepare(st *ledger.State) {
	sets, bundles := map[api.Digest]bool{}, map[api.Digest]bool{}
	for name, c := range st.Active() {
		sets[c.Set.Digest] = true
		set, err := p.set(c.Set.Digest)
		if err != nil {
			continue
		}
		for _, e := range set.Entries {
			bundles[e.Digest] = true
			_, _ = p.bundle(e.Digest, name, e.Mode)
		}
	}
	forget(&p.sets, sets)
	forget(&p.bundles, bundles)
}

// uses tells whether an object is part of what a state lists, as far as that was
// read before.
func (p *programs) uses(st *ledger.State, d api.Digest) bool {
	for _, c := range st.Active() {
		if c.Set.Digest == d || p.setUses(c.Set.Digest, d) {
			return true
		}
	}
	return false
}

func (p *programs) setUses(name, d api.Digest) bool {
	set, ok := p.sets.Load(name)
	if !ok {
		return false
	}
	return slices.ContainsFunc(set.(*bundle.Set).Entries, func(e bundle.Entry) bool {
		prog, ok := p.bundles.Load(e.Digest)
		return e.Digest == d || ok && slices.Contains(prog.(*program).Manifest.Objects(), d)
	})
}

func forget(m *sync.Map, keep map[api.Digest]bool) {
	m.Range(func(k, _ any) bool {
		if !keep[k.(api.Digest)] {
			m.Delete(k)
		}
		return true
	})
}

func (p *programs) set(d api.Digest) (*bundle.Set, error) {
	if v, ok := p.sets.Load(d); ok {
		return v.(*bundle.Set), nil
	}
	set, err := p.readSet(d)
	if err == nil {
		p.sets.Store(d, set)
	}
	return set, err
}

// readSet reads a set without keeping it.
func (p *programs) readSet(d api.Digest) (*bundle.Set, error) {
	b, err := p.object(d)
	if err != nil {
		return nil, fmt.Errorf("set %s: %w", d.Short(), err)
	}
	return bundle.ParseSet(b)
}

func (p *programs) bundle(d api.Digest, service string, mode api.Mode) (*program, error) {
	if v, ok := p.bundles.Load(d); ok {
		return v.(*program), nil
	}
	manifest, err := p.object(d)
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %w", d.Short(), err)
	}
	content, err := bundle.Open(d, manifest, service, mode, p.object)
	if err != nil {
		return nil, err
	}
	set, err := flags.Compile(content.Files[bundle.FlagsTitle])
	if err != nil {
		return nil, err
	}
	prog := &program{Digest: d, Manifest: content.Manifest, Flags: set}
	p.bundles.Store(d, prog)
	return prog, nil
}

// effect is what is in effect for a target, resolved to a bundle.
type effect struct {
	ledger.Effect
	Entry bundle.Entry
}

// index is the change that put the bundle into effect; -1 for a statement that
// isn't in the log.
func (e *effect) index() int64 {
	if e.Override == nil {
		return e.Main.Index
	}
	if e.Override.Pending {
		return -1
	}
	return e.Override.Index
}

// since is when it came into effect.
func (e *effect) since() string {
	switch {
	case e.Override == nil:
		return e.Main.Recorded
	case e.Override.Pending:
		return e.Override.Time
	}
	return max(e.Override.Recorded, e.Main.Recorded)
}

var errNotActivated = errors.New("not activated")

// resolve finds what is in effect for a target, pending statements included.
func (s *Server) resolve(t api.Target) (*effect, error) {
	st := s.store.Snapshot().State
	chains := s.pending.over(st, t.Service)
	return s.resolveIn(chains, t)
}

func (s *Server) resolveIn(chains []ledger.Chain, t api.Target) (*effect, error) {
	e, ok := ledger.InEffect(chains, t.Scope)
	if !ok || e.Main.Set == nil {
		return nil, &api.Error{Code: api.CodeNotActivated, Detail: "nothing is activated for " + t.String(), Err: errNotActivated,
			Hint: "sealstone live shows what is; unlisted scopes fall to the nearest listed one above"}
	}
	return s.bundleOf(e, t)
}

// bundleOf finds the bundle that an effect means for a target.
func (s *Server) bundleOf(e ledger.Effect, t api.Target) (*effect, error) {
	set, err := s.programs.set(e.Main.Set.Digest)
	if err != nil {
		return nil, err
	}
	entry, ok := set.Find(t.Scope, e.Mode)
	if !ok { // the set was made before the mode existed: normal goes on
		e.Mode, e.Override = api.ModeNormal, nil
		if entry, ok = set.Find(t.Scope, e.Mode); !ok {
			return nil, fmt.Errorf("set %s lists nothing for %s", e.Main.Set.Digest.Short(), t)
		}
	}
	return &effect{e, entry}, nil
}
