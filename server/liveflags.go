package server

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/flags"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

// Bounds of the walk back through a chain. A later request goes on where an
// earlier one stopped.
const (
	maxWalk  = 2000 // activations a request
	maxWalks = 64   // chains that are remembered
)

// getFlags lists the flags in effect for a target.
func (s *Server) getFlags(c echo.Context) error {
	t, err := api.ParseTarget(c.QueryParam("target"))
	if err != nil {
		return &api.Error{Code: api.CodeInvalid, Detail: "query member target: " + err.Error(), Hint: "write ?target=service@scope"}
	}
	if err := mayRead(c, t.Service); err != nil {
		return err
	}
	eff, err := s.resolve(t)
	if err != nil {
		return err
	}
	list, err := s.shortFlags(eff.Entry.Digest)
	if err != nil {
		return err
	}
	touched, err := s.touched(c.Request().Context(), t, eff)
	if err != nil {
		return err
	}
	out := api.LiveFlags{Time: api.FormatTime(time.Now()), Size: s.store.Snapshot().Tree.Size, Target: t, Proven: s.proven(eff), Flags: list}
	by := map[int64]*api.FlagChange{}
	for i := range list {
		f := &list[i]
		if index, ok := touched.by[f.Key]; ok {
			if by[index] == nil {
				by[index] = s.flagChange(index, eff)
			}
			f.Changed = by[index]
		} else {
			f.Since = touched.from
		}
	}
	return c.JSON(http.StatusOK, out)
}

func (s *Server) flagChange(index int64, eff *effect) *api.FlagChange {
	if index < 0 { // a pending statement
		return &api.FlagChange{Index: -1, Kind: string(eff.Override.Kind), Time: eff.Override.Time}
	}
	ch, err := s.store.Change(index)
	if err != nil {
		return &api.FlagChange{Index: index}
	}
	r := s.record(index, ch)
	out := &api.FlagChange{Index: index, Kind: string(ch.Kind()), Time: api.FormatTime(ch.Recorded()), By: r.By()}
	if ch.Data.Release != nil {
		out.Commit = ch.Data.Release.Commit
	}
	for _, name := range []string{"reason", "subject", "releaseSubject"} { // the last that is there
		if v, ok := r.Detail[name].(string); ok && v != "" {
			out.Why = v
		}
	}
	return out
}

// meanings are what the flags of a bundle mean.
type meanings struct {
	digest api.Digest // of flags.json
	flags  map[string]uint64
}

// differs tells whether a flag means something else in older ones, or isn't there.
func (m *meanings) differs(key string, older *meanings) bool {
	was, ok := older.flags[key]
	return !ok || was != m.flags[key]
}

func (s *Server) meanings(b api.Digest) (*meanings, error) {
	d, doc, err := s.flagsDoc(b)
	if err != nil {
		return nil, err
	}
	m, err := flags.Meanings(doc)
	if err != nil {
		return nil, fmt.Errorf("flags of bundle %s: %w", b.Short(), err)
	}
	return &meanings{d, m}, nil
}

// shortFlags describes the flags of a bundle, sorted by key.
func (s *Server) shortFlags(b api.Digest) ([]api.LiveFlag, error) {
	_, doc, err := s.flagsDoc(b)
	if err != nil {
		return nil, err
	}
	var parsed struct {
		Flags map[string]json.RawMessage `json:"flags"`
	}
	if err := json.Unmarshal(doc, &parsed); err != nil {
		return nil, fmt.Errorf("flags of bundle %s: %w", b.Short(), err)
	}
	out := make([]api.LiveFlag, 0, len(parsed.Flags))
	for _, key := range sortedKeys(parsed.Flags) {
		out = append(out, shortFlag(key, parsed.Flags[key]))
	}
	return out, nil
}

func (s *Server) flagsDoc(b api.Digest) (api.Digest, []byte, error) {
	d, err := s.flagsDigest(b)
	if err != nil {
		return "", nil, err
	}
	doc, err := s.store.Object(d)
	return d, doc, err
}

func (s *Server) flagsDigest(b api.Digest) (api.Digest, error) {
	doc, err := s.store.Object(b)
	if err != nil {
		return "", err
	}
	m, err := bundle.ParseManifest(doc)
	if err != nil {
		return "", err
	}
	return m.Flags(), nil
}

func shortFlag(key string, def json.RawMessage) api.LiveFlag {
	var f struct {
		State     string          `json:"state"`
		Default   *string         `json:"defaultVariant"`
		Targeting json.RawMessage `json:"targeting"`
	}
	_ = json.Unmarshal(def, &f) // it compiled when it was activated
	out := api.LiveFlag{Key: key, State: f.State, Rules: rules(f.Targeting)}
	if f.Default != nil {
		out.Default = *f.Default
	}
	return out
}

// rules counts the arms of an if, and any other rule as one.
func rules(targeting json.RawMessage) int {
	var rule map[string]json.RawMessage
	if json.Unmarshal(targeting, &rule) != nil || len(rule) == 0 {
		return 0
	}
	var arms []json.RawMessage
	if json.Unmarshal(rule["if"], &arms) == nil && len(arms) > 1 {
		return len(arms) / 2
	}
	return 1
}

// touched says which change gave each flag its present meaning. A flag that a
// safe mode defines otherwise was touched by entering it.
func (s *Server) touched(ctx context.Context, t api.Target, eff *effect) (*walk, error) {
	if eff.Override == nil {
		return s.walked(ctx, t, eff.Main, eff.Entry.Digest)
	}
	set, err := s.programs.set(eff.Main.Set.Digest)
	if err != nil {
		return nil, err
	}
	normal, ok := set.Find(t.Scope, api.ModeNormal)
	if !ok {
		return nil, fmt.Errorf("set %s has no normal mode for %s", eff.Main.Set.Digest.Short(), t)
	}
	w, err := s.walked(ctx, t, eff.Main, normal.Digest)
	if err != nil {
		return nil, err
	}
	now, err := s.meanings(eff.Entry.Digest)
	if err != nil {
		return nil, err
	}
	over := &walk{from: w.from, by: maps.Clone(w.by)}
	for key := range now.flags {
		if now.differs(key, w.top) {
			over.by[key] = eff.index()
		}
	}
	return over, nil
}

// walks remembers how far each chain was walked back. A walk is never changed
// once it is here, so the lock isn't held while one reads the disk.
type walks struct {
	mu sync.Mutex
	m  map[string]*walk
}

func (m *walks) get(key string) *walk {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.m[key]
}

func (m *walks) put(key string, w *walk) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.m == nil || len(m.m) >= maxWalks {
		m.m = map[string]*walk{}
	}
	m.m[key] = w
}

// walk is what is known of a chain, from its newest activation down to from.
type walk struct {
	newest int64
	top    *meanings // of newest
	by     map[string]int64
	from   int64     // the oldest activation that was looked at
	last   *meanings // of from
	before int64     // where to go on
	done   bool      // nothing is left to find
}

// walked goes from the newest activation back to the first, or to what was
// walked before.
func (s *Server) walked(ctx context.Context, t api.Target, main ledger.Chain, b api.Digest) (*walk, error) {
	key := t.String() + " " + string(main.Scope)
	old := s.walks.get(key)
	w := &walk{}
	if old != nil && old.newest == main.Index {
		if old.done {
			return old, nil
		}
		*w = *old
		w.by = maps.Clone(old.by)
	} else {
		top, err := s.meanings(b)
		if err != nil {
			return nil, err
		}
		*w = walk{newest: main.Index, top: top, by: map[string]int64{}, from: main.Index, last: top, before: main.Index}
	}
	if err := s.walkBack(ctx, t, main.Scope, w, old); err != nil {
		return nil, err
	}
	s.walks.put(key, w)
	return w, nil
}

func (s *Server) walkBack(ctx context.Context, t api.Target, scope api.Scope, w, old *walk) error {
	for n := 0; n < maxWalk && !w.done; n += store.DefaultLimit {
		found, next, err := s.store.Query(ctx, store.Query{Service: t.Service, Scope: scope, Kinds: []ledger.Kind{ledger.BundleActivated}, Before: &w.before})
		if err != nil {
			return err
		}
		met, err := s.walkPage(t, scope, w, old, found)
		if err != nil {
			return err
		}
		switch {
		case met:
		case next == nil:
			w.finish()
		default:
			w.before = *next
		}
	}
	return nil
}

func (s *Server) walkPage(t api.Target, scope api.Scope, w, old *walk, found []store.Found) (met bool, err error) {
	for _, f := range found {
		switch {
		case f.Change == nil:
			return false, f.Damage
		case f.Change.Data.Scope != scope:
			continue
		case w.meets(old, f.Index):
			return true, nil
		}
		err := s.step(t, w, f)
		if api.CodeOf(err) == api.CodeGone { // erased: what is not found by now can't be
			w.done = true
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	return false, nil
}

// step compares the flags of the activation before with what is walked.
func (s *Server) step(t api.Target, w *walk, f store.Found) error {
	set, err := s.programs.readSet(f.Change.Data.Set.Digest)
	if err != nil {
		return err
	}
	older := &meanings{}
	if entry, ok := set.Find(t.Scope, api.ModeNormal); ok {
		d, err := s.flagsDigest(entry.Digest)
		if err != nil {
			return err
		}
		if d == w.last.digest {
			w.from = f.Index
			return nil
		}
		if older, err = s.meanings(entry.Digest); err != nil {
			return err
		}
	}
	w.compare(older)
	w.from, w.last = f.Index, older
	return nil
}

// compare assigns to the activation at from the flags that it changed.
func (w *walk) compare(older *meanings) {
	for key := range w.top.flags {
		if _, ok := w.by[key]; !ok && w.last.differs(key, older) {
			w.by[key] = w.from
		}
	}
	w.done = len(w.by) == len(w.top.flags)
}

// meets takes over what an earlier walk found, when this one arrives there.
func (w *walk) meets(old *walk, index int64) bool {
	if old == nil || old.newest != index || w.newest == index {
		return false
	}
	w.compare(old.top)
	for key := range w.top.flags {
		if _, ok := w.by[key]; ok {
			continue
		}
		if at, ok := old.by[key]; ok {
			w.by[key] = at
		}
	}
	w.from, w.last, w.before, w.done = old.from, old.last, old.before, old.done
	return true
}

// finish assigns what is left to the first activation.
func (w *walk) finish() {
	w.done = true
	for key := range w.top.flags {
		if _, ok := w.by[key]; !ok {
			w.by[key] = w.from
		}
	}
}
