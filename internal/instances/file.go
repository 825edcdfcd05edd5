package instances

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/kv"
)

// KeepFor is how long intervals are kept.
const KeepFor = 90 * 24 * time.Hour

// Bounds of the file.
const (
	maxIntervals = 1_000_000
	maxFile      = 2 << 30
	maxUnsaved   = 2 * Max // intervals that wait for the file
	batch        = 5000    // rows a transaction
	pulsePage    = 1024    // rows a record of pulses
	pulseSize    = 24
)

// Buckets of the file. Rows and intervals name facts by key; pulses are what
// every report changes, packed, so that they cost little to write.
var (
	bucketFacts     = []byte("facts")     // key → Facts, JSON
	bucketRows      = []byte("rows")      // slot → savedRow, JSON
	bucketPulses    = []byte("pulses")    // page → (seen, head, log size) of each slot
	bucketIntervals = []byte("intervals") // end, slot → facts, begin, id
	bucketLists     = []byte("lists")     // digest → lines
	buckets         = [][]byte{bucketFacts, bucketRows, bucketPulses, bucketIntervals, bucketLists}
)

const fileFormat = "sealstone instances v1"

type factsKey [16]byte

func keyOf(f *Facts) (k factsKey) {
	b, _ := json.Marshal(f) // strings and numbers only
	sum := sha256.Sum256(b)
	copy(k[:], sum[:])
	return k
}

// savedRow is what of a row changes rarely.
type savedRow struct {
	ID      string       `json:"id"`
	Facts   []byte       `json:"facts"`
	State   api.State    `json:"state"`
	Refusal *api.Refusal `json:"refusal,omitempty"`
	Started int64        `json:"started,omitempty"`
	Since   int64        `json:"since"`
}

// ended is an interval: an instance reported facts from one time to another.
type ended struct {
	group    factsKey
	facts    *Facts
	id       string
	slot     uint32
	from, to int64
}

func (e *ended) key() []byte {
	return binary.BigEndian.AppendUint32(be64(e.to), e.slot)
}

func (e *ended) value() []byte {
	return append(append(e.group[:], be64(e.from)...), e.id...)
}

func parseEnded(k, v []byte) (e ended, ok bool) {
	if len(k) != 12 || len(v) < 24 {
		return e, false
	}
	copy(e.group[:], v)
	e.to, e.slot = int64(binary.BigEndian.Uint64(k)), binary.BigEndian.Uint32(k[8:])
	e.from, e.id = int64(binary.BigEndian.Uint64(v[16:])), string(v[24:])
	return e, true
}

func be64(n int64) []byte  { return binary.BigEndian.AppendUint64(nil, uint64(n)) }
func be32(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// unsaved is what the file doesn't have yet.
type unsaved struct {
	rows   map[uint32]bool
	pulses map[uint32]bool // pages
	facts  map[factsKey]*Facts
	lists  map[api.Digest]*list
	ended  []ended
}

func newUnsaved() unsaved {
	return unsaved{rows: map[uint32]bool{}, pulses: map[uint32]bool{}, facts: map[factsKey]*Facts{}, lists: map[api.Digest]*list{}}
}

func (u *unsaved) pulse(slot uint32) { u.pulses[slot/pulsePage] = true }

// Open reads the file, or makes it. "" keeps the table in memory only. The
// file may be lost: whoever can't open it may take another one.
func Open(path string, now time.Time) (*Table, error) {
	t := newTable()
	if path == "" {
		return t, nil
	}
	db, err := kv.Open(path, kv.Options{Format: fileFormat, MaxSize: maxFile})
	if err != nil {
		return nil, err
	}
	t.db = db
	err = db.Write(func(tx *bbolt.Tx) error {
		for _, name := range buckets {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		err = db.Read(t.load)
	}
	if err == nil {
		err = t.Prune(now)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("instances in %s: %w", path, err), db.Close())
	}
	return t, nil
}

// Close saves what is left and closes the file.
func (t *Table) Close(now time.Time) error {
	if t.db == nil {
		return nil
	}
	return errors.Join(t.Flush(now), t.db.Close())
}

// load reads rows back, each with what it stands on.
func (t *Table) load(tx *bbolt.Tx) error {
	pulses := tx.Bucket(bucketPulses)
	defer t.findFree()
	return tx.Bucket(bucketRows).ForEach(func(k, v []byte) error {
		var saved savedRow
		if len(k) != 4 || json.Unmarshal(v, &saved) != nil || len(saved.Facts) != len(factsKey{}) {
			return fmt.Errorf("%w: row %x", kv.ErrCorrupt, k)
		}
		f, ok := readFacts(tx, saved.Facts)
		slot := binary.BigEndian.Uint32(k)
		if !ok || slot >= Max {
			return fmt.Errorf("%w: row %x", kv.ErrCorrupt, k)
		}
		t.restore(tx, &Row{ID: saved.ID, State: saved.State, Refusal: saved.Refusal, Started: saved.Started, Since: saved.Since, slot: slot}, f)
		readPulse(pulses.Get(be32(slot/pulsePage)), t.rows[slot])
		return nil
	})
}

func (t *Table) findFree() {
	for slot, r := range t.rows {
		if r == nil {
			t.free = append(t.free, uint32(slot))
		}
	}
}

func (t *Table) restore(tx *bbolt.Tx, r *Row, f Facts) {
	g := t.groups[f]
	if g == nil {
		g = t.addGroup(f)
		if lines := tx.Bucket(bucketLists).Get([]byte(f.Deps)); lines != nil && t.lists[f.Deps] == nil {
			t.keep(f.Deps, newList(strings.Split(string(lines), "\n"), f.Client))
		}
	}
	g.rows++
	t.bytes += len(r.ID) + rowOverhead + refusalSize(r.Refusal)
	r.group, r.Facts = g, &g.facts
	for len(t.rows) <= int(r.slot) {
		t.rows = append(t.rows, nil)
	}
	t.rows[r.slot] = r
	t.enter(r)
}

func readFacts(tx *bbolt.Tx, key []byte) (f Facts, ok bool) {
	v := tx.Bucket(bucketFacts).Get(key)
	return f, v != nil && json.Unmarshal(v, &f) == nil
}

func readPulse(page []byte, r *Row) {
	at := int(r.slot%pulsePage) * pulseSize
	r.Seen = r.Since
	if at+pulseSize <= len(page) {
		p := page[at:]
		r.Seen, r.HeadAt, r.LogSize = max(r.Since, int64(binary.BigEndian.Uint64(p))), int64(binary.BigEndian.Uint64(p[8:])), int64(binary.BigEndian.Uint64(p[16:]))
	}
}

func writePulses(rows []*Row) []byte {
	page := make([]byte, 0, pulsePage*pulseSize)
	for _, r := range rows {
		if r == nil {
			r = &Row{}
		}
		for _, n := range []int64{r.Seen, r.HeadAt, r.LogSize} {
			page = binary.BigEndian.AppendUint64(page, uint64(n))
		}
	}
	return page
}

// put is one record to write; a nil value deletes it.
type put struct{ bucket, key, value []byte }

// Flush writes what changed since the last one, in batches: reports go on
// meanwhile. What can't be written is tried again.
func (t *Table) Flush(now time.Time) error {
	if t.db == nil {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.unsaved.expire(now)
		return nil
	}
	t.flushing.Lock()
	defer t.flushing.Unlock()
	for {
		puts, taken := t.take()
		if len(puts) == 0 {
			return nil
		}
		if err := t.write(puts); err != nil {
			t.giveBack(taken)
			return err
		}
	}
}

// expire is for a table without a file: it keeps nothing but intervals, while
// they last.
func (u *unsaved) expire(now time.Time) {
	kept, old := newUnsaved(), now.Add(-KeepFor).UnixMilli()
	kept.ended = slices.DeleteFunc(u.ended, func(e ended) bool { return e.to < old })
	*u = kept
}

func (t *Table) write(puts []put) error {
	return t.db.Write(func(tx *bbolt.Tx) error {
		for _, p := range puts {
			b := tx.Bucket(p.bucket)
			if p.value == nil {
				if err := b.Delete(p.key); err != nil {
					return err
				}
			} else if err := b.Put(p.key, p.value); err != nil {
				return err
			}
		}
		return nil
	})
}

// take encodes a batch of what is unsaved, facts first: rows and intervals of
// one transaction name them.
func (t *Table) take() (puts []put, taken unsaved) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u, taken := &t.unsaved, newUnsaved()
	for k, f := range u.facts {
		b, _ := json.Marshal(f)
		puts = append(puts, put{bucketFacts, k[:], b})
	}
	for d, l := range u.lists {
		puts = append(puts, put{bucketLists, []byte(d), []byte(strings.Join(l.lines, "\n"))})
	}
	taken.facts, u.facts = u.facts, taken.facts
	taken.lists, u.lists = u.lists, taken.lists
	n := min(batch, len(u.ended))
	taken.ended = slices.Clone(u.ended[:n])
	u.ended = slices.Delete(u.ended, 0, n)
	for _, e := range taken.ended {
		puts = append(puts, put{bucketIntervals, e.key(), e.value()})
	}
	for slot := range u.rows {
		if len(taken.rows) >= batch {
			return puts, taken
		}
		taken.rows[slot] = true
		delete(u.rows, slot)
		puts = append(puts, t.putRow(slot))
	}
	for page := range u.pulses {
		from := int(page) * pulsePage
		puts = append(puts, put{bucketPulses, be32(page), writePulses(t.rows[from:min(from+pulsePage, len(t.rows))])})
	}
	taken.pulses, u.pulses = u.pulses, taken.pulses
	return puts, taken
}

func (t *Table) putRow(slot uint32) put {
	p := put{bucket: bucketRows, key: be32(slot)}
	if r := t.rows[slot]; r != nil {
		p.value, _ = json.Marshal(savedRow{r.ID, r.group.key[:], r.State, r.Refusal, r.Started, r.Since})
	}
	return p
}

func (t *Table) giveBack(taken unsaved) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, f := range taken.facts {
		t.unsaved.facts[k] = f
	}
	for k, l := range taken.lists {
		t.unsaved.lists[k] = l
	}
	for k := range taken.rows {
		t.unsaved.rows[k] = true
	}
	for k := range taken.pulses {
		t.unsaved.pulses[k] = true
	}
	t.unsaved.ended = append(taken.ended, t.unsaved.ended...)
}

// At shows the instances of a service, "" is all, as Scan did at a time: who
// reported then, and who had fallen silent and was not forgotten. What a row had
// beside its facts isn't known any more. Seen is the time itself for an instance
// that went on reporting the same: what was missed in between isn't kept.
func (t *Table) At(at time.Time, service string, f func(*Row)) error {
	l := lookBack{ms: at.UnixMilli(), service: service, f: f, silent: map[place]ended{}}
	t.flushing.Lock() // no interval is on its way to the file
	defer t.flushing.Unlock()
	if t.db != nil {
		if err := t.db.Read(l.file); err != nil {
			return err
		}
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	for i := range t.unsaved.ended {
		l.show(&t.unsaved.ended[i])
	}
	for _, r := range t.rows {
		if r != nil {
			l.show(&ended{facts: r.Facts, id: r.ID, from: r.Since, to: r.Seen})
		}
	}
	for _, e := range l.silent {
		f(e.row())
	}
	return nil
}

// place is where an instance is found.
type place struct {
	target api.Target
	id     string
}

// lookBack goes through intervals, those of one place in the order of time.
type lookBack struct {
	ms      int64
	service string
	f       func(*Row)
	silent  map[place]ended // the newest of each place that ended before
}

func (l *lookBack) show(e *ended) {
	if e.from > l.ms || l.ms-e.to > forgetAfter.Milliseconds() || l.service != "" && e.facts.Target.Service != l.service {
		return
	}
	p := place{e.facts.Target, e.id}
	if e.to < l.ms {
		l.silent[p] = *e
		return
	}
	delete(l.silent, p)
	r := e.row()
	r.Seen = l.ms
	l.f(r)
}

func (e *ended) row() *Row { return &Row{ID: e.id, Facts: e.facts, Since: e.from, Seen: e.to} }

func (l *lookBack) file(tx *bbolt.Tx) error {
	known := map[factsKey]*Facts{}
	c := tx.Bucket(bucketIntervals).Cursor()
	for k, v := c.Seek(be64(l.ms - forgetAfter.Milliseconds())); k != nil; k, v = c.Next() {
		e, ok := parseEnded(k, v)
		if !ok {
			return fmt.Errorf("%w: interval %x", kv.ErrCorrupt, k)
		}
		if e.from > l.ms {
			continue
		}
		if known[e.group] == nil {
			f, _ := readFacts(tx, e.group[:]) // facts that are lost are shown as unknown
			known[e.group] = &f
		}
		e.facts = known[e.group]
		l.show(&e)
	}
	return nil
}

// Past shows what an instance ran before, newest first, at most limit intervals.
// It walks the file, so it is for a single instance that somebody asks about.
func (t *Table) Past(target api.Target, id string, limit int) (past []Row, err error) {
	show := func(e *ended) {
		if e.id == id && e.facts.Target == target && len(past) < limit {
			past = append(past, *e.row())
		}
	}
	t.flushing.Lock() // no interval is on its way to the file
	defer t.flushing.Unlock()
	t.mu.RLock()
	for i := range slices.Backward(t.unsaved.ended) {
		show(&t.unsaved.ended[i])
	}
	t.mu.RUnlock()
	if t.db == nil {
		return past, nil
	}
	return past, t.db.Read(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketIntervals).Cursor()
		for k, v := c.Last(); k != nil && len(past) < limit; k, v = c.Prev() {
			if e, ok := parseEnded(k, v); ok && e.id == id {
				f, _ := readFacts(tx, e.group[:]) // of another target, or lost: not shown
				e.facts = &f
				show(&e)
			}
		}
		return nil
	})
}

// Prune drops intervals that are too old or too many, and facts and lists that
// nothing names any more. Call it rarely: it walks the file.
func (t *Table) Prune(now time.Time) error {
	if t.db == nil {
		return nil
	}
	t.flushing.Lock()
	defer t.flushing.Unlock()
	return t.db.Write(func(tx *bbolt.Tx) error {
		if err := trim(tx, be64(now.Add(-KeepFor).UnixMilli()), maxIntervals); err != nil {
			return err
		}
		return t.sweep(tx)
	})
}

// trim drops intervals that ended before a time, and of those that are left the
// oldest of whoever has more than a fair share: a client can't push out others.
func trim(tx *bbolt.Tx, old []byte, most int) error {
	b, client, have := tx.Bucket(bucketIntervals), clientsOf(tx), map[string]int{}
	err := b.ForEach(func(k, v []byte) error {
		if bytes.Compare(k, old) >= 0 {
			have[client(v)]++
		}
		return nil
	})
	share := fairShare(have, most)
	return errors.Join(err, keepOnly(b, func(k, v []byte) bool {
		if bytes.Compare(k, old) < 0 {
			return false
		}
		if have[client(v)] <= share {
			return true
		}
		have[client(v)]--
		return false
	}))
}

// keepOnly deletes the records that are not to be kept.
func keepOnly(b *bbolt.Bucket, keep func(k, v []byte) bool) error {
	var dead [][]byte
	err := b.ForEach(func(k, v []byte) error {
		if !keep(k, v) {
			dead = append(dead, bytes.Clone(k))
		}
		return nil
	})
	for _, k := range dead {
		err = errors.Join(err, b.Delete(k))
	}
	return err
}

// clientsOf tells whose token an interval came with.
func clientsOf(tx *bbolt.Tx) func(value []byte) string {
	known := map[factsKey]string{}
	return func(v []byte) string {
		if len(v) < len(factsKey{}) {
			return ""
		}
		name, ok := known[factsKey(v[:16])]
		if !ok {
			f, _ := readFacts(tx, v[:16])
			name, known[factsKey(v[:16])] = f.Client, f.Client
		}
		return name
	}
}

// fairShare is how many each may have, so that all have at most so many: who has
// fewer keeps them all.
func fairShare(have map[string]int, most int) int {
	counts := slices.Sorted(maps.Values(have))
	for i, n := range counts {
		if share := most / (len(counts) - i); n > share {
			return share
		}
		most -= n
	}
	return math.MaxInt
}

// sweep deletes facts that no row and no interval names, and lists that no
// facts name.
func (t *Table) sweep(tx *bbolt.Tx) error {
	t.mu.RLock()
	used, lists := map[factsKey]bool{}, map[api.Digest]bool{}
	for _, g := range t.groups {
		used[g.key], lists[g.facts.Deps] = true, true
	}
	for _, e := range t.unsaved.ended {
		used[e.group] = true
	}
	t.mu.RUnlock()
	err := tx.Bucket(bucketIntervals).ForEach(func(k, v []byte) error {
		if e, ok := parseEnded(k, v); ok {
			used[e.group] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = keepOnly(tx.Bucket(bucketFacts), func(k, v []byte) bool {
		var f Facts
		if used[factsKey(k)] && json.Unmarshal(v, &f) == nil {
			lists[f.Deps] = true
		}
		return used[factsKey(k)]
	})
	if err != nil {
		return err
	}
	return keepOnly(tx.Bucket(bucketLists), func(k, _ []byte) bool { return lists[api.Digest(k)] })
}
