package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

// wholeness is what is known of the objects that the sets in effect are made of.
type wholeness struct {
	turn   turn      // one look at a time
	looked time.Time // when they were all read last; owned by turn, as told is: what the log says
	told   []api.DamagedSet
	found  atomic.Pointer[wholes]
	doubt  atomic.Bool // a read found one of them missing or damaged since
	tried  atomic.Bool // a fetch has ended, well or not
}

// wholes is the outcome of a look. Immutable.
type wholes struct {
	sets    int              // in effect
	damaged []api.DamagedSet // that could not be made whole
}

// lookEvery is how often the objects are all read while nothing seems wrong.
const lookEvery = 10 * time.Minute

// heal reads every object of the sets in effect, once each, and builds sets that
// lack some again from the releases that the log names: what has the same digest
// is the same. It needs the local repository only.
func (s *Server) heal(ctx context.Context) {
	if s.whole.turn.take(ctx) != nil {
		return
	}
	defer s.whole.turn.leave()
	s.whole.doubt.Store(false)
	var sets []*healed
	read := map[api.Digest]bool{}
	for service, c := range s.store.Snapshot().State.Active() {
		h := &healed{service: service, chain: c}
		h.had, h.err = s.mend(ctx, read, service, c)
		sets = append(sets, h)
	}
	s.lookAgain(ctx, sets)
	now := &wholes{sets: len(sets)}
	for _, h := range sets {
		if h.err != nil {
			now.damaged = append(now.damaged, api.DamagedSet{Service: h.service, Scope: h.chain.Scope, Set: h.chain.Set.Digest, Why: clean(h.err.Error()), Next: afterHealing(h.err)})
		}
	}
	if ctx.Err() != nil {
		s.whole.doubt.Store(true)
		return
	}
	s.whole.looked = time.Now()
	s.whole.found.Store(now)
	if s.whole.tried.Load() && !slices.Equal(s.whole.told, now.damaged) { // before, Git may just not be here
		s.whole.told = now.damaged
		for _, d := range now.damaged {
			s.log.Error("a set in effect is not whole", slog.String("service", d.Service), slog.String("scope", string(d.Scope)), slog.String("why", d.Why))
		}
	}
}

// healed is what became of a set in effect.
type healed struct {
	service  string
	chain    ledger.Chain
	had, err error // what was wrong with it, and what is
}

// lookAgain reads everything anew where a set was stored again: a file that is
// damaged can lose that, or another one, in the same moment.
func (s *Server) lookAgain(ctx context.Context, sets []*healed) {
	if !slices.ContainsFunc(sets, func(h *healed) bool { return h.had != nil }) {
		return
	}
	read := map[api.Digest]bool{}
	for _, h := range sets {
		if h.err != nil {
			continue
		}
		if err := s.look(read, h.service, h.chain.Set.Digest); err != nil {
			h.err = fmt.Errorf("%w: %w", errBroken, err)
		} else if h.had != nil {
			s.log.WarnContext(ctx, "a set in effect was built again from Git", slog.String("service", h.service), slog.String("scope", string(h.chain.Scope)), slog.Any("it had", h.had))
		}
	}
}

// errBroken says that what was stored could not be read back.
var errBroken = errors.New("objects were built again and stored, and still can't be read: the file of objects is damaged")

// afterHealing is what to do about a set that no round can mend; "" where one
// may.
func afterHealing(err error) string {
	if !errors.Is(err, errBroken) && !errors.Is(err, store.ErrStructure) {
		return ""
	}
	return "make a mirror if there is none: sealstone mirror URL DIR --once --details; then " + store.MoveHint("objects.db")
}

// healIfDue looks again when something may be wrong, or for long nobody did.
func (s *Server) healIfDue(ctx context.Context) {
	if s.whole.turn.take(ctx) != nil {
		return
	}
	due := s.whole.doubt.Load() || len(s.damaged()) > 0 || time.Since(s.whole.looked) > lookEvery
	s.whole.turn.leave()
	if due {
		s.heal(ctx)
	}
}

// damaged lists the sets in effect that are not whole.
func (s *Server) damaged() []api.DamagedSet { return s.whole.found.Load().damaged }

// lost hears of an object that a read found missing or damaged. If it is part of
// what is in effect, a round is asked for; while something is known to be lost,
// every round looks anyway.
func (s *Server) lost(d api.Digest) {
	if found := s.whole.found.Load(); found == nil || len(found.damaged) > 0 {
		return
	}
	if s.programs.uses(s.store.Snapshot().State, d) && s.whole.doubt.CompareAndSwap(false, true) {
		s.Sync()
	}
}

// healTimeout bounds how long somebody who asks about safe modes waits for
// objects: their disk may hang.
const healTimeout = 2 * time.Second

// healSets makes the sets of a service readable before somebody asks which safe
// modes they have, and says whether they are. What they list may be damaged all
// the same: a round looks after that.
func (s *Server) healSets(ctx context.Context, service string) bool {
	ctx, cancel := context.WithTimeout(ctx, healTimeout)
	defer cancel()
	readable := make(chan bool, 1)
	go func() {
		if s.unread(service) {
			s.heal(ctx)
		}
		readable <- !s.unread(service)
	}()
	select {
	case ok := <-readable:
		return ok
	case <-ctx.Done():
		return false
	}
}

// unread tells whether a set in effect can't be read, though nobody erased it.
func (s *Server) unread(service string) bool {
	return slices.ContainsFunc(s.store.Snapshot().State.ServiceChains(service), func(c ledger.Chain) bool {
		if c.Kind != ledger.BundleActivated {
			return false
		}
		_, err := s.programs.set(c.Set.Digest)
		return err != nil && !errors.Is(err, store.ErrErased)
	})
}

// mend stores a set in effect again if it is not whole, and returns what it had.
func (s *Server) mend(ctx context.Context, read map[api.Digest]bool, service string, c ledger.Chain) (had, err error) {
	fault := s.look(read, service, c.Set.Digest)
	if fault == nil {
		return nil, nil
	}
	b, err := s.builder.Rebuild(ctx, c.Release.Commit, service, c.Scope)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w; release %.12s can't be built again: %w", fault, c.Release.Commit, err)
	case b.Digest != c.Set.Digest:
		return nil, fmt.Errorf("%w; release %.12s builds to %s", fault, c.Release.Commit, b.Digest.Short())
	}
	if err := s.store.PutObjects(ctx, b.Objects()); err != nil {
		return nil, fmt.Errorf("%w; it is built again, and can't be stored: %w", fault, err)
	}
	if s.isNamed(service, b.Digest) {
		return fault, nil
	}
	rows := map[string][]byte{}
	if err := s.describe(rows, b, ""); err != nil {
		return nil, err
	}
	if _, err := s.store.Append(ctx, func(*ledger.State, time.Time) (store.Decision, error) { return store.Decision{Rows: rows}, nil }); err != nil {
		return nil, fmt.Errorf("%w; %w", fault, err)
	}
	return fault, nil
}

// look reads all that a set names and was not read before, and says what is wrong
// first.
func (s *Server) look(read map[api.Digest]bool, service string, name api.Digest) error {
	if !s.isNamed(service, name) {
		return fmt.Errorf("set %s is not shown to readers of %s", name.Short(), service)
	}
	b, err := s.present(name)
	if b == nil {
		return err
	}
	set, err := bundle.ParseSet(b)
	if err != nil {
		return err
	}
	for _, e := range set.Entries {
		if err := s.lookAt(read, e.Digest); err != nil {
			return err
		}
	}
	return nil
}

// lookAt reads a bundle.
func (s *Server) lookAt(read map[api.Digest]bool, name api.Digest) error {
	if read[name] {
		return nil
	}
	b, err := s.present(name)
	if b == nil {
		return err
	}
	m, err := bundle.ParseManifest(b)
	if err != nil {
		return err
	}
	for _, l := range append(slices.Clone(m.Layers), m.Config) {
		if !read[l.Digest] {
			if _, err := s.present(l.Digest); err != nil {
				return err
			}
			read[l.Digest] = true
		}
	}
	read[name] = true
	return nil
}

// present returns an object; nil for one that the log says is erased: it is not
// there, and that is right.
func (s *Server) present(d api.Digest) ([]byte, error) {
	b, err := s.store.Object(d)
	if errors.Is(err, store.ErrErased) {
		return nil, nil
	}
	return b, err
}

// readyz is about reads: 200 while a client that knows nothing could start from
// here, with or without Git.
func (s *Server) readyz(c echo.Context) error {
	if s.store.Snapshot().Tree.Size == 0 {
		return &api.Error{Code: api.CodeUnavailable, Detail: "no ledger is loaded"}
	}
	if _, _, err := s.store.Head("", time.Now()); err != nil {
		return err
	}
	found := s.whole.found.Load()
	if len(found.damaged) == 0 {
		return c.String(http.StatusOK, "ok\n")
	}
	text := fmt.Sprintf("%d of %d sets in effect lack objects, or have damaged ones, and could not be made whole; /v1/status says which", len(found.damaged), found.sets)
	if len(found.damaged) == found.sets {
		return &api.Error{Code: api.CodeUnavailable, Detail: text}
	}
	return c.String(http.StatusOK, text+"\n")
}
