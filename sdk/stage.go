package sdk

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/ledger"
)

// staged is a set of which every bundle that the target can need, normal and
// safe modes, is verified to the last byte and compiled. Changing the mode
// within it needs nothing more.
type staged struct {
	main    ledger.Chain // the change that named the set
	modes   map[api.Mode]*program
	objects map[api.Digest]bool // all of it: set, manifests, blobs
}

// Bounds of what is staged, so that a set can't fill memory.
const (
	maxModes   = 64
	maxFetches = 8 // at a time
)

// object is what a digest is of; it decides where it is fetched and which check
// refuses it.
type object struct {
	digest api.Digest
	size   int64
	check  ledger.Check
}

func (o object) verify(b []byte) error {
	if int64(len(b)) != o.size || !o.digest.Names(b) {
		return ledger.Refuse(o.check, fmt.Errorf("%w: %d bytes came for %s of %d bytes", bundle.ErrDigest, len(b), o.digest.Short(), o.size))
	}
	return nil
}

// stager collects the objects of a set from wherever they are. Every source is
// checked against size and digest, so none has to be trusted.
type stager struct {
	target api.Target
	local  func(api.Digest) ([]byte, bool)               // cache, export; may be nil
	fetch  func(context.Context, object) ([]byte, error) // servers
	old    *staged                                       // programs to use again; may be nil

	mu  sync.Mutex
	got map[api.Digest][]byte
}

// stage verifies a chain's set and all bundles of the target in it.
func (s *stager) stage(ctx context.Context, main ledger.Chain) (*staged, error) {
	s.got = map[api.Digest][]byte{}
	if main.Set.Size > bundle.MaxManifest {
		return nil, ledger.Refuse(ledger.CheckSet, fmt.Errorf("a set of %d bytes, limit %d", main.Set.Size, bundle.MaxManifest))
	}
	raw, err := s.get(ctx, object{main.Set.Digest, main.Set.Size, ledger.CheckSet})
	if err != nil {
		return nil, err
	}
	set, err := bundle.ParseSet(raw)
	if err != nil {
		return nil, ledger.Refuse(ledger.CheckSet, err)
	}
	modes := set.Modes(s.target.Scope)
	if len(modes) > maxModes {
		return nil, ledger.Refuse(ledger.CheckSet, fmt.Errorf("%d modes, limit %d", len(modes), maxModes))
	}
	if !slices.Contains(modes, api.ModeNormal) {
		return nil, ledger.Refuse(ledger.CheckSet, fmt.Errorf("no bundle for %s in normal mode", s.target))
	}
	var entries []bundle.Entry
	for _, mode := range modes {
		entry, _ := set.Find(s.target.Scope, mode)
		if err := s.collect(ctx, entry); err != nil {
			return nil, fmt.Errorf("mode %s: %w", mode, err)
		}
		entries = append(entries, entry)
	}
	st := &staged{main: main, objects: map[api.Digest]bool{}}
	if st.modes, err = s.openAll(entries); err != nil {
		return nil, err
	}
	for d := range s.got {
		st.objects[d] = true
	}
	return st, nil
}

// collect gets all that a bundle consists of.
func (s *stager) collect(ctx context.Context, e bundle.Entry) error {
	manifest, err := s.get(ctx, object{e.Digest, e.Size, ledger.CheckManifest})
	if err != nil {
		return err
	}
	m, err := bundle.ParseManifest(manifest)
	if err != nil {
		return ledger.Refuse(ledger.CheckManifest, err)
	}
	return s.getAll(ctx, append(m.Layers, m.Config))
}

// openAll opens bundles that were collected, on every processor: it is most of
// what a start from the cache costs.
func (s *stager) openAll(entries []bundle.Entry) (map[api.Mode]*program, error) {
	programs, errs := make([]*program, len(entries)), make([]error, len(entries))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(entries)) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(entries)); i = next.Add(1) - 1 {
				programs[i], errs[i] = s.open(entries[i])
			}
		})
	}
	wg.Wait()
	out := make(map[api.Mode]*program, len(entries))
	for i, e := range entries {
		if errs[i] != nil {
			return nil, fmt.Errorf("mode %s: %w", e.Mode, errs[i])
		}
		out[e.Mode] = programs[i]
	}
	return out, nil
}

// open verifies a bundle and compiles it, or takes the program that an older
// set has compiled from the same bytes. Nothing is collected meanwhile, so
// s.got needs no lock.
func (s *stager) open(e bundle.Entry) (*program, error) {
	content, err := bundle.Open(e.Digest, s.got[e.Digest], s.target.Service, e.Mode, func(d api.Digest) ([]byte, error) { return s.got[d], nil })
	switch {
	case errors.Is(err, bundle.ErrIdentity):
		return nil, ledger.Refuse(ledger.CheckManifest, err)
	case err != nil:
		return nil, ledger.Refuse(ledger.CheckObject, err)
	}
	if s.old != nil && s.old.modes[e.Mode] != nil && s.old.modes[e.Mode].bundle == e.Digest {
		return s.old.modes[e.Mode], nil
	}
	return compile(s.target.Service, content)
}

// getAll gets blobs, several at a time.
func (s *stager) getAll(ctx context.Context, list []bundle.Descriptor) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	slots := make(chan struct{}, maxFetches)
	for _, d := range list {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if _, err := s.get(ctx, object{d.Digest, d.Size, ledger.CheckObject}); err != nil {
				cancel(err) // the first one counts; the others end with it
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// get returns verified bytes, from this round, from the disk, or from a server.
func (s *stager) get(ctx context.Context, o object) ([]byte, error) {
	if b, ok := s.have(o); ok {
		return b, nil
	}
	b, err := s.fetch(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := o.verify(b); err != nil {
		return nil, err
	}
	s.keep(o, b)
	return b, nil
}

func (s *stager) have(o object) ([]byte, bool) {
	s.mu.Lock()
	b, ok := s.got[o.digest]
	s.mu.Unlock()
	if ok || s.local == nil {
		return b, ok && o.verify(b) == nil
	}
	if b, ok = s.local(o.digest); !ok || o.verify(b) != nil {
		return nil, false
	}
	s.keep(o, b)
	return b, true
}

func (s *stager) keep(o object, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.got[o.digest] = b
}

// collected are the exact bytes of all that was staged.
func (s *stager) collected() map[api.Digest][]byte { return maps.Clone(s.got) }

// notHere is the fetch of a stager that has only what is at hand.
func notHere(_ context.Context, o object) ([]byte, error) {
	return nil, fmt.Errorf("%s is not there, or damaged", o.digest.Short())
}
