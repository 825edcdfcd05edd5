package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

// Rows that answer questions follow from the log, from the objects, and from the
// commits that the log names. They are held to those here, and made from them
// again after a recovery. What an erased set named nobody can tell any more.
//
//	named/SERVICE/OBJECT  an activation of the service names the object: readers may have it
//	brought/BUNDLE        the sets that brought the bundle, see brought.go
//	modes/SET             what the set's safe modes say of themselves: for people, so outside the set
//	accepted              the tip that was read last, and what was wrong with it
//
// Each is written in the transaction of the activation that it belongs to.

// rowDerive asks a start to make the rows that follow from log and objects.
const rowDerive = "derive"

const (
	namedRows   = "named/"
	broughtRows = "brought/"
	modesRows   = "modes/"
)

func namedRow(service string, d api.Digest) string { return namedRows + service + "/" + d.Hex() }
func broughtRow(d api.Digest) string               { return broughtRows + d.Hex() }
func modesRow(set api.Digest) string               { return modesRows + set.Hex() }

// RecoverRows takes the rows that follow from log and objects away from those
// that a recovery takes over: the next start makes them anew.
func RecoverRows(rows map[string][]byte) {
	maps.DeleteFunc(rows, func(k string, _ []byte) bool {
		return strings.HasPrefix(k, namedRows) || strings.HasPrefix(k, broughtRows)
	})
	rows[rowDerive] = []byte{1}
}

// derived is what the log's activations and the objects say of the rows.
type derived struct {
	st      *store.Store
	sets    map[api.Digest]*bundle.Set // nil: known, and can't be read
	rows    map[string][]byte          // that must be there
	sources map[api.Digest]bool        // sets that were ever activated
	open    map[string]bool            // services that have a set or bundle that can't be read
}

// derive goes through the activations in the order of the log.
func derive(st *store.Store, log []ledger.Data) (*derived, error) {
	d := &derived{st: st, sets: map[api.Digest]*bundle.Set{}, rows: map[string][]byte{}, sources: map[api.Digest]bool{}, open: map[string]bool{}}
	for _, a := range log {
		if err := d.add(a); err != nil {
			return nil, err
		}
	}
	return d, nil
}

func (d *derived) add(a ledger.Data) error {
	d.sources[a.Set.Digest] = true
	set, err := d.set(a.Set.Digest)
	if err != nil {
		return err
	}
	if set == nil {
		d.open[a.Service] = true
		if d.withheld(a.Set.Digest) {
			d.name(a.Service, a.Set.Digest)
		}
		return nil
	}
	whole := true
	for _, e := range set.Entries {
		ok, err := d.bundle(a.Service, e.Digest)
		if err != nil {
			return err
		}
		whole = whole && ok
	}
	if whole { // else its objects are named when Git has made them again, see isNamed
		d.name(a.Service, a.Set.Digest)
	}
	return d.bring(a, set)
}

// bring adds the set to the rows of the bundles that it has and the one before
// hadn't.
func (d *derived) bring(a ledger.Data, set *bundle.Set) error {
	before := map[api.Digest]bool{}
	if a.Replaces != "" {
		old, err := d.set(a.Replaces)
		if old == nil || err != nil {
			return err
		}
		for _, e := range old.Entries {
			before[e.Digest] = true
		}
	}
	sum, _ := a.Set.Digest.Sum()
	for _, e := range set.Entries {
		if key := broughtRow(e.Digest); !before[e.Digest] {
			d.rows[key] = appendSum(d.rows[key], sum)
		}
	}
	return nil
}

// bundle names a bundle and its objects; false where one is missing.
func (d *derived) bundle(service string, b api.Digest) (whole bool, err error) {
	if d.rows[namedRow(service, b)] != nil {
		return true, nil
	}
	raw, err := d.object(b)
	if err != nil {
		return false, err
	}
	m, err := bundle.ParseManifest(raw)
	if raw == nil || err != nil {
		d.open[service] = true
		return d.nameIf(service, b, d.withheld(b)), nil
	}
	whole = true
	for _, o := range m.Objects() {
		has, err := d.st.HasObject(o)
		if err != nil {
			return false, err
		}
		whole = d.nameIf(service, o, has || d.withheld(o)) && whole
	}
	return d.nameIf(service, b, whole), nil
}

func (d *derived) name(service string, o api.Digest) { d.rows[namedRow(service, o)] = []byte{1} }

func (d *derived) nameIf(service string, o api.Digest, ok bool) bool {
	if ok {
		d.name(service, o)
	}
	return ok
}

func (d *derived) withheld(o api.Digest) bool {
	return d.st.Withheld(func(yield func(api.Digest, []byte) bool) { yield(o, nil) }) != ""
}

// set reads a set once; nil where it is gone.
func (d *derived) set(name api.Digest) (*bundle.Set, error) {
	if s, known := d.sets[name]; known {
		return s, nil
	}
	b, err := d.object(name)
	if err != nil {
		return nil, err
	}
	s, err := bundle.ParseSet(b)
	if b == nil || err != nil {
		s = nil
	}
	d.sets[name] = s
	return s, nil
}

// object is nil for one that is erased, missing or damaged; the latter two are
// findings of the store's own check where they matter.
func (d *derived) object(name api.Digest) ([]byte, error) {
	b, err := d.st.Object(name)
	if errors.Is(err, store.ErrErased) || errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrCorrupt) {
		return nil, nil
	}
	return b, err
}

// rederive makes the rows that a recovery left out.
func (s *Server) rederive() error {
	asked, err := s.store.Row(rowDerive)
	if asked == nil || err != nil {
		return err
	}
	var log, erased []ledger.Data
	for i := range s.store.Snapshot().Tree.Size {
		c, err := s.store.Change(i)
		if err != nil {
			return err
		}
		switch {
		case c.Kind() == ledger.BundleActivated:
			log = append(log, c.Data)
		case c.Kind() == ledger.ObjectErased && c.Data.Service != "":
			erased = append(erased, c.Data)
		}
	}
	d, err := derive(s.store, log)
	if err != nil {
		return err
	}
	for _, e := range erased { // the sets that named it may be gone
		d.name(e.Service, e.Object)
	}
	d.rows[rowDerive] = nil
	_, err = s.store.Append(context.Background(), func(*ledger.State, time.Time) (store.Decision, error) { return store.Decision{Rows: d.rows}, nil })
	return err
}

// RowsReport is what CheckRows found.
type RowsReport struct {
	Findings []string
	Unproven int // rows that only an erased set or bundle can have brought about
}

func (r *RowsReport) find(format string, args ...any) {
	r.Findings = append(r.Findings, fmt.Sprintf(format, args...))
}

// CheckRows makes the server's rows again from the log's activations, in its
// order, the objects and the commits, and compares. Without a repository (nil)
// what safe modes say of themselves, and what the accepted tip asks for, is not
// compared.
func CheckRows(ctx context.Context, st *store.Store, log []ledger.Data, repo *bundler.Repo) (*RowsReport, error) {
	d, err := derive(st, log)
	if err != nil {
		return nil, err
	}
	keys, err := st.RowKeys("")
	if err != nil {
		return nil, err
	}
	r, have := &RowsReport{}, map[string]bool{}
	for _, k := range keys {
		have[k] = true
		if err := r.present(d, k); err != nil {
			return nil, err
		}
	}
	for _, k := range sortedKeys(d.rows) {
		if !have[k] && !have[rowDerive] {
			r.find("row %s is missing", k)
		}
	}
	if repo == nil {
		return r, nil
	}
	return r, r.fromGit(ctx, st, bundler.New(repo))
}

// present judges a row that is there.
func (r *RowsReport) present(d *derived, key string) error {
	row, err := d.st.Row(key)
	if err != nil {
		return err
	}
	kind, rest, _ := strings.Cut(key, "/")
	switch kind + "/" {
	case namedRows:
		service, hex, _ := strings.Cut(rest, "/")
		return r.named(d, key, service, api.Digest("sha256:"+hex))
	case broughtRows:
		r.brought(d, key, row)
	case modesRows, store.OwnRows:
	default:
		if key != acceptedRow && key != rowDerive {
			r.find("row %.80q is of no known kind", key)
		}
	}
	return nil
}

// named judges a row that shows an object to a service's readers. One whose
// object isn't here shows nothing.
func (r *RowsReport) named(d *derived, key, service string, o api.Digest) error {
	if d.rows[key] != nil {
		return nil
	}
	if !o.Valid() {
		r.find("row %.80q is of no known kind", key)
		return nil
	}
	here, err := d.st.HasObject(o)
	switch {
	case !here || err != nil:
		return err
	case d.open[service]:
		r.Unproven++
	default:
		r.find("object %s is shown to readers of %q, and no activation of it names it", o, service)
	}
	return nil
}

// brought judges the sets that a row says brought a bundle: those that must be
// among them are, and each other one was activated and has it.
func (r *RowsReport) brought(d *derived, key string, row []byte) {
	if len(row)%sumSize != 0 {
		r.find("row %s is cut off", key)
		return
	}
	b, have := api.Digest("sha256:"+strings.TrimPrefix(key, broughtRows)), map[api.Digest]bool{}
	for _, set := range setsIn(row) {
		have[set] = true
		switch known, listed := d.lists(set, b); {
		case !d.sources[set] || known && !listed:
			r.find("row %s says that set %s brought the bundle, and it did not", key, set)
		case !known:
			r.Unproven++
		}
	}
	for _, set := range setsIn(d.rows[key]) {
		if !have[set] && len(have) < maxBrought {
			r.find("row %s does not name set %s, which brought the bundle", key, set)
		}
	}
}

// lists tells whether a set has a bundle, where that is known.
func (d *derived) lists(set, b api.Digest) (known, listed bool) {
	s := d.sets[set]
	return s != nil, s != nil && slices.ContainsFunc(s.Entries, func(e bundle.Entry) bool { return e.Digest == b })
}

// fromGit compares what follows from commits: of the sets in force what their
// safe modes say of themselves, and what the accepted tip's activations ask for.
func (r *RowsReport) fromGit(ctx context.Context, st *store.Store, b *bundler.Builder) error {
	for service, c := range st.Snapshot().State.Active() {
		if err := r.modes(ctx, st, b, service, c); err != nil {
			return err
		}
	}
	return r.pins(ctx, st, b)
}

func (r *RowsReport) modes(ctx context.Context, st *store.Store, b *bundler.Builder, service string, c ledger.Chain) error {
	row, err := st.Row(modesRow(c.Set.Digest))
	if err != nil {
		return err
	}
	built, err := b.Rebuild(ctx, c.Release.Commit, service, c.Scope)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil { // the clone may be a new one, or of a rewritten branch
		r.Unproven++
		return nil
	}
	want, err := json.Marshal(modesOf(built))
	if !bytes.Equal(row, want) {
		r.find("the row of safe modes of %s is not what commit %.12s says of them", api.Target{Service: service, Scope: c.Scope}, c.Release.Commit)
	}
	return err
}

func (r *RowsReport) pins(ctx context.Context, st *store.Store, b *bundler.Builder) error {
	row, err := st.Row(acceptedRow)
	if row == nil || err != nil {
		return err
	}
	var a accepted
	if err := json.Unmarshal(row, &a); err != nil {
		r.find("row %s: %v", acceptedRow, err)
		return nil
	}
	tip, _ := b.Tip(ctx, a.Commit)
	if tip == nil {
		r.Unproven++
		return ctx.Err()
	}
	if !maps.Equal(a.Pins, pinsOf(tip.Activations)) {
		r.find("row %s asks for other releases than its commit %.12s", acceptedRow, a.Commit)
	}
	return nil
}
