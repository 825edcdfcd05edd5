// Package instances keeps what instances reported: observations, never
// evidence. A report costs the same however many instances there are; what many
// of them share is held once.
//
//	t, err := instances.Open("instances.db", time.Now())
//	want, err := t.Put(&report, client, time.Now())
//	t.Scan("checkout", func(r *instances.Row) { ... })
//	err = t.Flush(time.Now()) // every few seconds
//
// The table lives in memory. Its file is written in batches, so a crash loses
// the last few seconds of observations, and losing the file loses nothing that
// counts as evidence.
package instances

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/kv"
)

// Lease is how long a report counts unless SetLease says otherwise: four
// heartbeats. An instance is live, then suspect when two are missed, then gone.
const Lease = 60 * time.Second

// Instances that are gone are forgotten a while after; sooner when the table
// fills up.
const (
	forgetAfter = 24 * time.Hour
	forgetSoon  = 10 * time.Minute
)

// Bounds of the table.
const (
	Max         = 100_000  // instances
	maxBytes    = 96 << 20 // what reports make the table hold beyond its fixed parts
	rowOverhead = 64

	// What one client may send: reports, three times as many as its instances
	// need to, and facts that nobody reported before.
	reportRate, reportBurst = 1000, 10_000
	factsRate, factsBurst   = 5, 5000

	// Intervals of one client that are kept: each of its instances may change
	// every two minutes, and all of them a few times at once.
	endedRate, endedBurst = 5, 1000
)

// Facts are what instances share: whose token reports, what was built, and what
// runs. An instance's interval ends when one of them changes.
type Facts struct {
	Client    string     `json:"client,omitempty"`
	Target    api.Target `json:"target"`
	Version   string     `json:"version,omitempty"`
	Revision  string     `json:"revision,omitempty"`
	Modified  bool       `json:"modified,omitempty"`
	Artifact  string     `json:"artifact,omitempty"`
	Image     string     `json:"image,omitempty"`
	BaseImage string     `json:"baseImage,omitempty"`
	SBOM      string     `json:"sbom,omitempty"`
	Deps      api.Digest `json:"deps,omitempty"`
	SDK       string     `json:"sdk,omitempty"`
	FirstUse  bool       `json:"firstUse,omitempty"`
	Bundle    api.Digest `json:"bundle,omitempty"`
	Set       api.Digest `json:"set,omitempty"`
	Mode      api.Mode   `json:"mode,omitempty"`
	Index     int64      `json:"index"`
	SafeModes string     `json:"safeModes,omitempty"` // comma-separated
}

// Row is an instance as it last reported. Times are Unix milliseconds, 0 is
// unknown. It must not be kept beyond the call that shows it, nor written.
type Row struct {
	ID      string
	Facts   *Facts
	State   api.State // "" is unknown
	Refusal *api.Refusal
	Started int64
	HeadAt  int64
	LogSize int64
	Since   int64 // it reports these facts
	Seen    int64 // last

	group *group
	slot  uint32
}

// Lease of an instance at a time.
func (t *Table) Lease(r *Row, now time.Time) string {
	switch age := time.Duration(now.UnixMilli()-r.Seen) * time.Millisecond; {
	case age > t.lease:
		return "gone"
	case age > t.lease*7/12: // 35 s of a minute
		return "suspect"
	}
	return "live"
}

// group is the one copy of facts, and how many rows stand on it.
type group struct {
	facts Facts
	rows  int
	key   factsKey // its name in the file
}

// Table is the table. Its methods are safe for concurrent use.
type Table struct {
	db    *kv.DB // nil keeps nothing over a restart
	lease time.Duration

	mu       sync.RWMutex
	rows     []*Row // by slot; nil is free
	free     []uint32
	count    int
	places   map[api.Target]map[string]*Row // by target and id
	below    map[api.Target]int             // instances at a target or below it
	groups   map[Facts]*group
	lists    map[api.Digest]*list
	clients  map[string]*allowance
	bytes    int
	listSize int
	tried    time.Time // to make room
	unsaved  unsaved
	dropped  int64 // intervals that were not kept

	flushing sync.Mutex
}

func newTable() *Table {
	return &Table{lease: Lease, places: map[api.Target]map[string]*Row{}, below: map[api.Target]int{}, groups: map[Facts]*group{},
		lists: map[api.Digest]*list{}, clients: map[string]*allowance{}, unsaved: newUnsaved()}
}

// SetLease changes how long a report counts. Call it before the first report.
func (t *Table) SetLease(d time.Duration) { t.lease = d }

// Put takes a report that came with a client's token. want tells that the list
// of dependencies behind its digest isn't known.
func (t *Table) Put(in *api.Instance, client string, now time.Time) (want bool, err error) {
	if err := check(in, now); err != nil {
		return false, err
	}
	f := factsOf(in, client)
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.allow(client, now) {
		return false, tooMany("client %q reports more often than its instances may", client)
	}
	r := t.places[in.Target][in.ID]
	switch {
	case r == nil:
		if r, err = t.add(in.ID, f, now); err != nil {
			return false, err
		}
	case *r.Facts != f || t.Lease(r, now) == "gone":
		if err := t.turn(r, f, now); err != nil {
			return false, err
		}
	}
	t.note(r, in, now)
	return t.learn(in, client), nil
}

// add makes a row.
func (t *Table) add(id string, f Facts, now time.Time) (*Row, error) {
	if t.count >= Max && now.Sub(t.tried) > 10*time.Second {
		t.tried = now
		t.forget(now, forgetSoon)
	}
	if t.count >= Max && !t.makeRoom(f.Client, now) {
		return nil, tooMany("%d instances are known, the limit", t.count)
	}
	g, err := t.join(f, len(id)+rowOverhead, now)
	if err != nil {
		return nil, err
	}
	r := &Row{ID: id, Facts: &g.facts, Since: now.UnixMilli(), group: g}
	t.place(r)
	return r, nil
}

// makeRoom drops the instance that is silent for longest of the client that has
// the most, for one of a client that has fewer.
func (t *Table) makeRoom(client string, now time.Time) bool {
	most := ""
	for name, a := range t.clients {
		if most == "" || a.rows > t.clients[most].rows {
			most = name
		}
	}
	if t.client(most).rows <= t.client(client).rows+1 {
		return false
	}
	var silent *Row
	for _, r := range t.rows {
		if r != nil && r.Facts.Client == most && (silent == nil || r.Seen < silent.Seen) {
			silent = r
		}
	}
	t.drop(silent, now)
	return true
}

// place puts a row where it is found: by slot, by target and id, and counts it.
func (t *Table) place(r *Row) {
	if n := len(t.free); n > 0 {
		r.slot, t.free = t.free[n-1], t.free[:n-1]
		t.rows[r.slot] = r
	} else {
		r.slot = uint32(len(t.rows))
		t.rows = append(t.rows, r)
	}
	t.enter(r)
}

func (t *Table) enter(r *Row) {
	f := r.Facts
	if t.places[f.Target] == nil {
		t.places[f.Target] = map[string]*Row{}
	}
	t.places[f.Target][r.ID] = r
	for _, s := range f.Target.Scope.Path() {
		t.below[api.Target{Service: f.Target.Service, Scope: s}]++
	}
	t.client(f.Client).rows++
	t.count++
}

// drop takes a row out. What it ran, and until when, is kept.
func (t *Table) drop(r *Row, now time.Time) {
	f := r.Facts
	t.end(r, r.Seen, now)
	delete(t.places[f.Target], r.ID)
	if len(t.places[f.Target]) == 0 {
		delete(t.places, f.Target)
	}
	for _, s := range f.Target.Scope.Path() {
		at := api.Target{Service: f.Target.Service, Scope: s}
		if t.below[at]--; t.below[at] == 0 {
			delete(t.below, at)
		}
	}
	t.client(f.Client).rows--
	t.leave(r.group, len(r.ID)+rowOverhead+refusalSize(r.Refusal))
	t.rows[r.slot] = nil
	t.free = append(t.free, r.slot)
	t.unsaved.rows[r.slot] = true
	t.count--
}

// turn begins another interval: the facts changed, or the instance was gone.
func (t *Table) turn(r *Row, f Facts, now time.Time) error {
	g, err := t.join(f, 0, now)
	if err != nil {
		return err
	}
	until := r.Seen
	if t.Lease(r, now) != "gone" {
		until = max(until, now.UnixMilli()-1) // it ran the old until it told of the new
	}
	t.end(r, until, now)
	t.client(r.Facts.Client).rows--
	t.client(f.Client).rows++
	t.leave(r.group, 0)
	r.group, r.Facts, r.Since = g, &g.facts, now.UnixMilli()
	t.unsaved.rows[r.slot] = true
	return nil
}

// end keeps the interval of a row; one that began in this millisecond was none.
// What is too much is dropped and counted: these are observations.
func (t *Table) end(r *Row, until int64, now time.Time) {
	a := t.client(r.Facts.Client)
	switch {
	case until < r.Since:
	case len(t.unsaved.ended) >= maxUnsaved || !a.ended.take(endedRate+float64(a.rows)/120, endedBurst+4*float64(a.rows), now):
		t.dropped++
	default:
		t.unsaved.ended = append(t.unsaved.ended, ended{group: r.group.key, facts: r.Facts, id: r.ID, slot: r.slot, from: r.Since, to: until})
	}
}

// note takes over what changes without ending an interval.
func (t *Table) note(r *Row, in *api.Instance, now time.Time) {
	state, refusal, started := in.State, in.Refusal, millis(in.Started)
	if r.State != state || r.Started != started || !sameRefusal(r.Refusal, refusal) || r.Seen == 0 {
		t.bytes += refusalSize(refusal) - refusalSize(r.Refusal)
		r.State, r.Started, r.Refusal = knownState(state), started, refusal
		t.unsaved.rows[r.slot] = true
	}
	r.HeadAt, r.LogSize, r.Seen = millis(in.HeadAt), in.LogSize, now.UnixMilli()
	t.unsaved.pulse(r.slot)
}

// join finds or makes the group of facts and counts one row more on it.
func (t *Table) join(f Facts, more int, now time.Time) (*group, error) {
	g := t.groups[f]
	if g == nil {
		if t.bytes+more+f.size() > maxBytes {
			return nil, tooMany("reports hold %d bytes, the limit", t.bytes)
		}
		if !t.client(f.Client).facts.take(factsRate, factsBurst, now) {
			return nil, tooMany("client %q reports something new more often than it may", f.Client)
		}
		g = t.addGroup(f)
		t.unsaved.facts[g.key] = &g.facts
	}
	g.rows++
	t.bytes += more
	return g, nil
}

func (t *Table) addGroup(f Facts) *group {
	g := &group{facts: f, key: keyOf(&f)}
	t.groups[f] = g
	t.bytes += f.size()
	return g
}

func (t *Table) leave(g *group, less int) {
	t.bytes -= less
	if g.rows--; g.rows == 0 {
		delete(t.groups, g.facts)
		t.bytes -= g.facts.size()
	}
}

// Forget drops instances that have been gone for long, and lists that nobody
// refers to.
func (t *Table) Forget(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	after := forgetAfter
	if t.count > Max/2 {
		after = forgetSoon
	}
	t.forget(now, after)
	t.forgetLists()
	for name, a := range t.clients {
		if a.rows == 0 && a.lists == 0 && now.Sub(a.reports.at) > time.Hour {
			delete(t.clients, name)
		}
	}
}

func (t *Table) forget(now time.Time, after time.Duration) {
	for _, r := range t.rows {
		if r != nil && now.UnixMilli()-r.Seen > after.Milliseconds() {
			t.drop(r, now)
		}
	}
}

// Len is how many instances are known.
func (t *Table) Len() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.count
}

// Dropped is how many intervals were not kept since the start.
func (t *Table) Dropped() int64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.dropped
}

// Reports tells whether any instance reports from a scope or below it.
func (t *Table) Reports(service string, scope api.Scope) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.below[api.Target{Service: service, Scope: scope}] > 0
}

// Find returns a copy of every row with an id: one, unless processes share it.
func (t *Table) Find(id string) (found []Row) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, place := range t.places {
		if r := place[id]; r != nil {
			found = append(found, *r)
		}
	}
	return found
}

// Scan shows every instance of a service, "" is all, in no order.
func (t *Table) Scan(service string, f func(*Row)) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for target, place := range t.places {
		if service != "" && target.Service != service {
			continue
		}
		for _, r := range place {
			f(r)
		}
	}
}

// allowance bounds what a client may send.
type allowance struct {
	rows, lists           int // bytes of lists
	reports, facts, ended bucket
}

func (t *Table) client(name string) *allowance {
	a := t.clients[name]
	if a == nil {
		a = &allowance{}
		t.clients[name] = a
	}
	return a
}

func (t *Table) allow(name string, now time.Time) bool {
	a := t.client(name)
	return a.reports.take(reportRate+float64(a.rows)/3, reportBurst+float64(a.rows), now)
}

// bucket is a token bucket; the zero value is full.
type bucket struct {
	tokens float64
	at     time.Time
}

func (b *bucket) take(rate, most float64, now time.Time) bool {
	if b.at.IsZero() {
		b.tokens = most
	} else {
		b.tokens = min(most, b.tokens+rate*max(0, now.Sub(b.at).Seconds()))
	}
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func tooMany(format string, args ...any) error {
	return &api.Error{Code: api.CodeTooMany, Detail: fmt.Sprintf(format, args...)}
}

func (f *Facts) size() int {
	n := 2 * 300 // the struct, as key and in its group
	for _, s := range []string{f.Target.Service, string(f.Target.Scope), f.Version, f.Revision, f.Artifact, f.Image, f.BaseImage, f.SBOM, string(f.Deps), f.SDK,
		string(f.Bundle), string(f.Set), string(f.Mode), f.SafeModes} {
		n += len(s)
	}
	return n
}

func refusalSize(r *api.Refusal) int {
	if r == nil {
		return 0
	}
	return 64 + len(r.Check) + len(r.Message) + len(r.Time) + len(r.Source)
}

func sameRefusal(a, b *api.Refusal) bool {
	return a == b || a != nil && b != nil && *a == *b
}

// knownState returns our own copy of a state's text.
func knownState(s api.State) api.State {
	for _, k := range []api.State{api.StateReady, api.StateStale, api.StateError, api.StateNotReady} {
		if s == k {
			return k
		}
	}
	return s
}

func factsOf(in *api.Instance, client string) Facts {
	modes := make([]string, len(in.SafeModes))
	for i, m := range in.SafeModes {
		modes[i] = string(m)
	}
	return Facts{Client: client, Target: in.Target, Version: in.Version, Revision: in.Revision, Modified: in.Modified, Artifact: in.Artifact, Image: in.Image,
		BaseImage: in.BaseImage, SBOM: in.SBOM, Deps: in.Deps, SDK: in.SDK, FirstUse: in.FirstUse, Bundle: in.Bundle, Set: in.Set, Mode: in.Mode, Index: in.Index,
		SafeModes: strings.Join(modes, ",")}
}

// Report is the row as the instance would send it.
func (r *Row) Report() api.Instance {
	f := r.Facts
	in := api.Instance{Target: f.Target, ID: r.ID, Version: f.Version, Revision: f.Revision, Modified: f.Modified, Artifact: f.Artifact, Image: f.Image,
		BaseImage: f.BaseImage, SBOM: f.SBOM, Deps: f.Deps, SDK: f.SDK, Started: Time(r.Started), Bundle: f.Bundle, Set: f.Set, Mode: f.Mode, Index: f.Index,
		LogSize: r.LogSize, HeadAt: Time(r.HeadAt), State: r.State, Refusal: r.Refusal, FirstUse: f.FirstUse}
	for m := range strings.SplitSeq(f.SafeModes, ",") {
		if m != "" {
			in.SafeModes = append(in.SafeModes, api.Mode(m))
		}
	}
	return in
}

// Time prints a row's time; "" for an unknown one.
func Time(millis int64) string {
	if millis == 0 {
		return ""
	}
	return api.FormatTime(time.UnixMilli(millis))
}

// millis reads a time; 0 is unknown.
func millis(s string) int64 {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return 0
	}
	return t.UnixMilli()
}
