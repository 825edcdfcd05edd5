package server

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
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
	defs, err := s.flagDefs(eff.Entry.Digest)
	if err != nil {
		return err
	}
	touched, err := s.touched(c.Request().Context(), t, eff, defs)
	if err != nil {
		return err
	}
	out := api.LiveFlags{Time: api.FormatTime(time.Now()), Size: s.store.Snapshot().Tree.Size, Target: t, Proven: s.proven(eff), Flags: []api.LiveFlag{}}
	by := map[int64]*api.FlagChange{}
	for _, key := range sortedKeys(defs.flags) {
		f := shortFlag(key, defs.flags[key])
		if index, ok := touched.by[key]; ok {
			if by[index] == nil {
				by[index] = s.flagChange(index, eff)
			}
			f.Changed = by[index]
		} else {
			f.Since = touched.from
		}
		out.Flags = append(out.Flags, f)
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
	text := func(names ...string) string {
		for _, n := range names {
			if v, ok := r.Detail[n].(string); ok && v != "" {
				return v
			}
		}
		return ""
	}
	out := &api.FlagChange{Index: index, Kind: string(ch.Kind()), Time: api.FormatTime(ch.Recorded()), By: r.Operator, Why: text("releaseSubject", "subject", "reason")}
	if ch.Data.Release != nil {
		out.Commit = ch.Data.Release.Commit
	}
	if out.By == "" {
		out.By = text("releaseAuthor", "author")
	}
	return out
}

// definitions are the flags of a bundle as its canonical bytes write them: equal
// bytes are equal flags.
type definitions struct {
	digest     api.Digest // of flags.json
	flags      map[string]json.RawMessage
	evaluators map[string]json.RawMessage
}

func (s *Server) flagDefs(b api.Digest) (*definitions, error) {
	d, err := s.flagsDigest(b)
	if err != nil {
		return nil, err
	}
	doc, err := s.store.Object(d)
	if err != nil {
		return nil, err
	}
	var parsed struct {
		Flags      map[string]json.RawMessage `json:"flags"`
		Evaluators map[string]json.RawMessage `json:"$evaluators"`
	}
	if err := json.Unmarshal(doc, &parsed); err != nil {
		return nil, fmt.Errorf("flags of bundle %s: %w", b.Short(), err)
	}
	return &definitions{d, parsed.Flags, parsed.Evaluators}, nil
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
	i := slices.IndexFunc(m.Layers, func(l bundle.Descriptor) bool { return l.Title() == bundle.FlagsTitle })
	if i < 0 {
		return "", fmt.Errorf("bundle %s has no flags", b.Short())
	}
	return m.Layers[i].Digest, nil
}

// differs tells whether a flag is another one, or not there, in older
// definitions; stale are evaluators that changed.
func (d *definitions) differs(key string, old *definitions, stale map[string]bool) bool {
	def := d.flags[key]
	return !bytes.Equal(def, old.flags[key]) || refersTo(def, stale)
}

// stale names the evaluators that changed, and those that refer to them.
func (d *definitions) stale(old *definitions) map[string]bool {
	out := map[string]bool{}
	for name, def := range d.evaluators {
		if !bytes.Equal(def, old.evaluators[name]) {
			out[name] = true
		}
	}
	for n := -1; n != len(out); {
		n = len(out)
		for name, def := range d.evaluators {
			if refersTo(def, out) {
				out[name] = true
			}
		}
	}
	return out
}

func refersTo(def json.RawMessage, names map[string]bool) bool {
	for name := range names {
		quoted, _ := json.Marshal(name)
		if bytes.Contains(def, append([]byte(`"$ref":`), quoted...)) {
			return true
		}
	}
	return false
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

// touched says which change gave each flag its present definition. A flag that
// a safe mode defines otherwise was touched by entering it.
func (s *Server) touched(ctx context.Context, t api.Target, eff *effect, defs *definitions) (*walk, error) {
	normal, base := *eff, defs
	var err error
	if eff.Override != nil {
		set, err := s.programs.set(eff.Main.Set.Digest)
		if err != nil {
			return nil, err
		}
		var ok bool
		if normal.Entry, ok = set.Find(t.Scope, api.ModeNormal); !ok {
			return nil, fmt.Errorf("set %s has no normal mode for %s", eff.Main.Set.Digest.Short(), t)
		}
		if base, err = s.flagDefs(normal.Entry.Digest); err != nil {
			return nil, err
		}
	}
	w, err := s.walks.back(ctx, s, t, &normal, base)
	if err != nil || eff.Override == nil {
		return w, err
	}
	over := &walk{from: w.from, by: maps.Clone(w.by)}
	stale := defs.stale(base)
	for key := range defs.flags {
		if defs.differs(key, base, stale) {
			over.by[key] = eff.index()
		}
	}
	return over, nil
}

// walks remembers how far each chain was walked back.
type walks struct {
	mu sync.Mutex
	m  map[string]*walk
}

// walk is what is known of a chain, from its newest activation down to from.
type walk struct {
	top    int64
	defs   *definitions // of top
	by     map[string]int64
	from   int64        // the oldest activation that was looked at
	last   *definitions // of from
	before int64        // where to go on
	done   bool         // nothing is left to find
}

// back walks from the newest activation to the first, or to what was walked
// before.
func (m *walks) back(ctx context.Context, s *Server, t api.Target, eff *effect, defs *definitions) (*walk, error) {
	key := t.String() + " " + string(eff.Main.Scope)
	m.mu.Lock()
	defer m.mu.Unlock() // one at a time: it reads the disk
	old := m.m[key]
	if old != nil && old.top == eff.Main.Index && old.done {
		return old, nil
	}
	w := &walk{top: eff.Main.Index, defs: defs, by: map[string]int64{}, from: eff.Main.Index, before: eff.Main.Index, last: defs}
	if old != nil && old.top == w.top {
		again := *old
		again.by = maps.Clone(old.by)
		w = &again
	}
	err := s.walkBack(ctx, t, eff.Main.Scope, w, old)
	if err != nil {
		return nil, err
	}
	if m.m == nil || len(m.m) >= maxWalks {
		m.m = map[string]*walk{}
	}
	m.m[key] = w
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
	older := &definitions{}
	if entry, ok := set.Find(t.Scope, api.ModeNormal); ok {
		d, err := s.flagsDigest(entry.Digest)
		if err != nil {
			return err
		}
		if d == w.last.digest {
			w.from = f.Index
			return nil
		}
		if older, err = s.flagDefs(entry.Digest); err != nil {
			return err
		}
	}
	w.compare(older)
	w.from, w.last = f.Index, older
	return nil
}

// compare assigns to the activation at from the flags that it changed.
func (w *walk) compare(older *definitions) {
	stale := w.last.stale(older)
	for key := range w.defs.flags {
		if _, ok := w.by[key]; !ok && w.last.differs(key, older, stale) {
			w.by[key] = w.from
		}
	}
	w.done = len(w.by) == len(w.defs.flags)
}

// meets takes over what an earlier walk found, when this one arrives there.
func (w *walk) meets(old *walk, index int64) bool {
	if old == nil || old.top != index || w.top == index {
		return false
	}
	w.compare(old.defs)
	for key := range w.defs.flags {
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
	for key := range w.defs.flags {
		if _, ok := w.by[key]; !ok {
			w.by[key] = w.from
		}
	}
}
