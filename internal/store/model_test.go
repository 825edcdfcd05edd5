package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
)

// model is what the ledger must do, as maps.
type model struct {
	chains  map[ledger.ChainKey]int64 // generation
	modes   map[ledger.ChainKey]api.Mode
	entries []modelEntry
	rows    map[string]string
}

type modelEntry struct {
	id      string
	service string
	scope   api.Scope
	kind    ledger.Kind
	at      time.Time
	digest  api.Digest
	actor   string
}

// Random appends, refusals, repeats and restarts, one after another, against a
// map; then every kind of query against a walk over the map's entries.
func TestRandomAgainstAModel(t *testing.T) {
	steps := 800
	if testing.Short() {
		steps = 250
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	m := &modelTest{t: t, r: rand.New(rand.NewPCG(seed, 1)), model: model{chains: map[ledger.ChainKey]int64{},
		modes: map[ledger.ChainKey]api.Mode{}, rows: map[string]string{}}, clock: start}
	m.f = newFixture(t, func(c *Config) { c.noSync = true; c.Now = m.now })
	m.f.At(m.now)
	m.entries = append(m.entries, modelEntry{kind: ledger.LedgerCreated, at: start})
	trust := ledger.ChainKey{Lane: ledger.LaneTrust}
	m.chains[trust] = 1 // ledger.created
	m.must(m.f.operators(1, m.f.OperatorsSig), trust)
	m.refs = map[int]*ledger.SetRef{}
	for range steps {
		m.step()
	}
	m.compare()
	m.f.reopen()
	m.compare()
	m.f.check()
	m.queries()
	m.past()
}

type modelTest struct {
	model
	t     *testing.T
	f     *fixture
	r     *rand.Rand
	clock time.Time
	refs  map[int]*ledger.SetRef
	last  Draft
}

func (m *modelTest) now() time.Time { return m.clock }

var (
	modelServices = []string{"checkout", "search", "cart-api"}
	modelScopes   = []api.Scope{"prod", "prod/eu", "prod/eu/canary", "prod/us", "staging"}
)

func (m *modelTest) step() {
	m.clock = m.clock.Add(time.Duration(m.r.IntN(5000)) * time.Millisecond)
	service, scope := modelServices[m.r.IntN(3)], modelScopes[m.r.IntN(5)]
	switch m.r.IntN(14) {
	case 0, 1, 2, 3:
		m.must(m.activate(service, scope), ledger.ChainKey{Lane: ledger.LaneMain, Service: service, Scope: scope})
	case 4, 5, 6:
		m.must(m.note(service, scope), ledger.ChainKey{Lane: ledger.LaneRecord, Service: service, Scope: scope})
	case 7, 8:
		m.safeMode(service, scope)
	case 9:
		m.refused(service, scope)
	case 10:
		m.repeat()
	case 11:
		m.row()
		if m.r.IntN(10) == 0 {
			m.f.reopen()
		}
	case 12:
		d := Draft{Kind: ledger.BundleWithdrawn, Data: ledger.Data{Service: service, Scope: scope, Fields: ledger.Fields{Release: ledgertest.Release(1), Replaces: setRef(1).Digest}}}
		m.must(d, ledger.ChainKey{Lane: ledger.LaneMain, Service: service, Scope: scope})
	case 13:
		m.overdue(service, scope)
	}
}

// overdue lets a mode in force run out.
func (m *modelTest) overdue(service string, scope api.Scope) {
	over, _ := m.f.Snapshot().State.Chain(ledger.ChainKey{Lane: ledger.LaneOverride, Service: service, Scope: scope})
	if over.Expires == "" {
		return
	}
	if at, _ := api.ParseTime(over.Expires); at.After(m.clock) {
		m.clock = at
	}
	d := Draft{Kind: ledger.SafeModeOverdue, Data: ledger.Data{Service: service, Scope: scope, Fields: ledger.Fields{Mode: over.Mode, Expires: over.Expires}}}
	m.must(d, ledger.ChainKey{Lane: ledger.LaneRecord, Service: service, Scope: scope})
}

func (m *modelTest) activate(service string, scope api.Scope) Draft {
	n := m.r.IntN(4)
	if m.refs[n] == nil {
		m.refs[n] = m.f.content(service, "prod", n)
	}
	d := activation(service, scope, n)
	d.Data.Set = m.refs[n]
	return d
}

func (m *modelTest) note(service string, scope api.Scope) Draft {
	return DraftOf(m.f.Statement(ledger.NoteAdded, service, scope, func(st *ledger.Statement) {
		st.Time = api.FormatTime(m.clock.Add(-time.Duration(m.r.IntN(100)) * time.Minute)) // facts come late
	}), nil)
}

// must appends a draft that has to be taken, and notes it.
func (m *modelTest) must(d Draft, k ledger.ChainKey) {
	m.t.Helper()
	r, err := m.f.try(d)
	if err != nil {
		m.t.Fatalf("step refused: %v", err)
	}
	m.chains[k]++
	want := Receipt{Index: int64(len(m.entries)), Generation: m.chains[k]}
	if r[0].Index != want.Index || r[0].Generation != want.Generation || r[0].Repeated {
		m.t.Fatalf("receipt %+v, want %+v", r[0], want)
	}
	e := modelEntry{id: r[0].ID, service: k.Service, scope: k.Scope, kind: d.Kind, at: m.clock}
	if !d.At.IsZero() {
		e.at = d.At
	}
	if d.Data.Set != nil {
		e.digest = d.Data.Set.Digest
	}
	if d.signed != nil {
		e.actor = "alex"
	}
	m.entries = append(m.entries, e)
	d.ID = r[0].ID
	m.last = d
}

// safeMode enters or leaves, whichever the model says is right; with a stale
// "after" it must be refused.
func (m *modelTest) safeMode(service string, scope api.Scope) {
	k := ledger.ChainKey{Lane: ledger.LaneOverride, Service: service, Scope: scope}
	kind, mode := ledger.SafeModeEntered, api.Mode("degraded")
	if m.modes[k] != "" {
		kind = []ledger.Kind{ledger.SafeModeExited, ledger.SafeModeRenewed}[m.r.IntN(2)]
	}
	stale := m.r.IntN(4) == 0 && m.chains[k] > 0
	after := m.chains[k]
	if stale {
		after--
	}
	d := DraftOf(m.f.SafeMode(kind, service, scope, mode, after), nil)
	if kind != ledger.SafeModeExited {
		d.Data.Expires = api.FormatTime(m.clock.Add(time.Hour))
	}
	if stale {
		if _, err := m.f.try(d); api.CodeOf(err) != api.CodeConflict {
			m.t.Fatalf("stale safe-mode statement: %v", err)
		}
		return
	}
	m.must(d, k)
	if kind == ledger.SafeModeExited {
		mode = ""
	}
	m.modes[k] = mode
}

// refused sends a decision whose last draft can't be taken: nothing may stay.
func (m *modelTest) refused(service string, scope api.Scope) {
	good := m.activate(service, scope)
	bad := DraftOf(m.f.StatementBy(m.f.Stranger, ledger.NoteAdded, service, scope, nil), nil)
	if _, err := m.f.try(good, m.note(service, scope), bad); api.CodeOf(err) != api.CodeForbidden {
		m.t.Fatalf("a stranger's statement: %v", err)
	}
}

func (m *modelTest) repeat() {
	if m.last.ID == "" {
		return
	}
	r, err := m.f.try(m.last)
	if err != nil || !r[0].Repeated || r[0].Index != int64(len(m.entries))-1 {
		m.t.Fatalf("repeated: %+v, %v", r, err)
	}
	other := m.note("other", "prod")
	other.ID = m.last.ID
	if _, err := m.f.try(other); api.CodeOf(err) != api.CodeConflict {
		m.t.Fatalf("the same id with another statement: %v", err)
	}
}

func (m *modelTest) row() {
	k, v := fmt.Sprint("row", m.r.IntN(3)), fmt.Sprint(m.r.IntN(100))
	m.rows[k] = v
	_, err := m.f.Append(m.t.Context(), func(*ledger.State, time.Time) (Decision, error) {
		return Decision{Rows: map[string][]byte{k: []byte(v)}}, nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *modelTest) compare() {
	m.t.Helper()
	st := m.f.Snapshot().State
	if st.Size != int64(len(m.entries)) {
		m.t.Fatalf("size %d, want %d", st.Size, len(m.entries))
	}
	for k, gen := range m.chains {
		c, ok := st.Chain(k)
		if !ok || c.Generation != gen {
			m.t.Errorf("chain %s: generation %d, want %d", k, c.Generation, gen)
		}
		if k.Lane == ledger.LaneOverride && (c.Kind == ledger.SafeModeExited) != (m.modes[k] == "") {
			m.t.Errorf("chain %s: %s, want mode %q", k, c.Kind, m.modes[k])
		}
	}
	for k, v := range m.rows {
		if got, err := m.f.Row(k); string(got) != v || err != nil {
			m.t.Errorf("row %s = %q, %v; want %q", k, got, err, v)
		}
	}
	for i, e := range m.entries[2:] {
		if at, ok := m.f.ByID(e.id); !ok || at != int64(i+2) {
			m.t.Fatalf("ByID(%s) = %d, %v; want %d", e.id, at, ok, i+2)
		}
	}
}

func (m *modelTest) queries() {
	for range 120 {
		q := m.randomQuery()
		m.f.Store.cfg.listed = 1 + m.r.IntN(len(m.entries)) // both ways to read a range of times
		want := m.walk(q)
		got := m.page(q)
		if !slices.Equal(got, want) {
			m.t.Fatalf("query %+v:\n got %v\nwant %v", q, got, want)
		}
	}
}

func (m *modelTest) randomQuery() Query {
	q := Query{Ascending: m.r.IntN(2) == 0, Limit: 1 + m.r.IntN(40)}
	pick := func() bool { return m.r.IntN(3) == 0 }
	if pick() {
		q.Service = modelServices[m.r.IntN(3)]
	}
	if pick() {
		q.Scope = modelScopes[m.r.IntN(5)]
	}
	for _, k := range []ledger.Kind{ledger.BundleActivated, ledger.NoteAdded, ledger.SafeModeEntered, ledger.SafeModeExited} {
		if pick() {
			q.Kinds = append(q.Kinds, k)
		}
	}
	if pick() {
		q.From = start.Add(time.Duration(m.r.Int64N(int64(m.clock.Sub(start)))))
	}
	if pick() {
		q.To = start.Add(time.Duration(m.r.Int64N(int64(m.clock.Sub(start)))))
	}
	if ref := m.refs[m.r.IntN(4)]; pick() && ref != nil {
		q.Digests = []api.Digest{ref.Digest}
	}
	if pick() {
		q.Actor = "alex"
	}
	if pick() {
		q.Before = new(m.r.Int64N(int64(len(m.entries)) + 10))
	}
	if pick() {
		q.After = new(m.r.Int64N(int64(len(m.entries))))
	}
	return q
}

func (m *modelTest) walk(q Query) (out []int64) {
	for i, e := range m.entries {
		n := int64(i)
		switch {
		case q.Service != "" && e.service != q.Service, q.Scope != "" && (e.scope == "" || !q.Scope.Contains(e.scope)),
			len(q.Kinds) > 0 && !slices.Contains(q.Kinds, e.kind), !q.From.IsZero() && e.at.Before(q.From),
			!q.To.IsZero() && !e.at.Before(q.To), q.Digests != nil && e.digest != q.Digests[0], q.Actor != "" && e.actor != q.Actor,
			q.Before != nil && n >= *q.Before, q.After != nil && n <= *q.After:
		default:
			out = append(out, n)
		}
	}
	if !q.Ascending {
		slices.Reverse(out)
	}
	return out
}

// page asks until there are no more.
func (m *modelTest) page(q Query) (out []int64) {
	for {
		found, next, err := m.f.Query(m.t.Context(), q)
		if err != nil {
			m.t.Fatal(err)
		}
		for _, x := range found {
			out = append(out, x.Index)
		}
		if next == nil {
			return out
		}
		if q.Ascending {
			q.After = next
		} else {
			q.Before = next
		}
	}
}

// Many callers at once: nobody's change is lost or doubled, refusals reach only
// their callers, readers see whole states, evidence always verifies.
func TestConcurrentCallers(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.noSync = true })
	f.put(f.operators(1, f.OperatorsSig), f.activate("checkout", "prod", 1))
	drafts := make([][]Draft, 12)
	for w := range drafts {
		for range 20 {
			drafts[w] = append(drafts[w], f.note("words"))
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var readers, callers sync.WaitGroup
	for range 3 {
		readers.Go(func() { f.readAll(ctx, t) })
	}
	var mu sync.Mutex
	seen := map[int64]bool{}
	for w := range drafts {
		callers.Go(func() {
			for n, d := range drafts[w] {
				if n%4 == 3 {
					if _, err := f.try(d, Draft{Kind: ledger.BundleActivated}); err == nil {
						t.Error("half a decision was taken")
					}
				}
				r, err := f.try(d)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if seen[r[0].Index] {
					t.Errorf("index %d twice", r[0].Index)
				}
				seen[r[0].Index] = true
				mu.Unlock()
			}
		})
	}
	callers.Wait()
	stop()
	readers.Wait()
	if got := f.Snapshot().Tree.Size; got != 3+240 {
		t.Errorf("size %d, want 243", got)
	}
	f.check()
}

func (f *fixture) readAll(ctx context.Context, t *testing.T) {
	var known *ledger.Known
	for ctx.Err() == nil {
		snap := f.Snapshot()
		if snap.State.Size != snap.Tree.Size {
			t.Errorf("a state of %d entries is published with a tree of %d", snap.State.Size, snap.Tree.Size)
		}
		if _, err := f.Leaf(snap.Tree.Size - 1); err != nil {
			t.Error(err)
		}
		from := int64(0)
		if known != nil {
			from = known.Tree.Size
		}
		e, err := f.Evidence("checkout", from, nil, false, time.Now())
		if err != nil {
			t.Error(err)
			return
		}
		p, err := f.Trust.Prove(e, "checkout", known)
		if err != nil {
			t.Error(err)
			return
		}
		known = p.Known()
		if err := f.Scrub(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

// The same statement from two callers at the same time counts once.
func TestSameIDAtTheSameTime(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.noSync = true })
	f.put(f.operators(1, f.OperatorsSig))
	d := f.note("once")
	var wg sync.WaitGroup
	var mu sync.Mutex
	fresh := 0
	for range 20 {
		wg.Go(func() {
			r, err := f.try(d)
			if err != nil || r[0].Index != 2 {
				t.Errorf("%+v, %v", r, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if !r[0].Repeated {
				fresh++
			}
		})
	}
	wg.Wait()
	if fresh != 1 || f.Snapshot().Tree.Size != 3 {
		t.Fatalf("%d fresh receipts, size %d", fresh, f.Snapshot().Tree.Size)
	}
}

func TestAppendEndsWithItsContextAndWithTheStore(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	decide := func(*ledger.State, time.Time) (Decision, error) { return Decision{}, nil }
	if _, err := f.Append(ctx, decide); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := f.Append(t.Context(), func(*ledger.State, time.Time) (Decision, error) { panic("mine") }); err == nil || !bytes.Contains([]byte(err.Error()), []byte("mine")) {
		t.Errorf("panic: %v", err)
	}
	changed := f.Changed()
	f.put(f.activate("checkout", "prod", 1))
	select {
	case <-changed:
	default:
		t.Error("a publish did not close the channel")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Append(t.Context(), decide); !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
	if _, err := f.Leaf(0); err == nil {
		t.Error("a closed store was read")
	}
	if err := f.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	f.open()
}
