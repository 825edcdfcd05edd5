package server

import (
	"bytes"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

func (r *rig) checkRows() *RowsReport {
	r.t.Helper()
	var log []ledger.Data
	for i := range r.store.Snapshot().Tree.Size {
		c, err := r.store.Change(i)
		if err != nil {
			r.t.Fatal(err)
		}
		if c.Kind() == ledger.BundleActivated {
			log = append(log, c.Data)
		}
	}
	report, err := CheckRows(r.t.Context(), r.store, log, r.Server.repo)
	if err != nil {
		r.t.Fatal(err)
	}
	return report
}

// rows writes the server's rows, as somebody with the file does.
func (r *rig) rows(rows map[string][]byte) {
	r.t.Helper()
	_, err := r.store.Append(r.t.Context(), func(*ledger.State, time.Time) (store.Decision, error) { return store.Decision{Rows: rows}, nil })
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) allRows() map[string][]byte {
	r.t.Helper()
	keys, err := r.store.RowKeys("")
	out := map[string][]byte{}
	for _, k := range keys {
		if err == nil {
			out[k], err = r.store.Row(k)
		}
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

// story is a server with a past: four activations of each scope, some with
// bundles that were there before.
func story(t *testing.T) *rig {
	t.Helper()
	const eu = "services/checkout/overlays/prod/eu-west-1/config/http.yaml"
	r := newRig(t, nil)
	r.sync()
	r.push(map[string]string{eu: "timeout: 41\n"})
	r.push(map[string]string{eu: "timeout: 42\n"})
	r.push(map[string]string{eu: "timeout: 41\n"})
	if got := r.checkRows(); len(got.Findings) > 0 || got.Unproven > 0 {
		t.Fatalf("an untouched store: %+v", got)
	}
	return r
}

// Every row that an answer comes from is held to the log, the objects and the
// commits: each one edited, moved or gone is a finding.
func TestRowsAreHeldToTheLog(t *testing.T) {
	r := story(t)
	inForce := map[string]bool{}
	for _, c := range r.store.Snapshot().State.ServiceChains("checkout") {
		inForce[modesRow(c.Set.Digest)] = true
	}
	for key, row := range r.allRows() {
		kind, _, _ := strings.Cut(key, "/")
		if kind != "named" && kind != "brought" && !inForce[key] {
			continue // nothing is answered from it
		}
		edited := bytes.Clone(row)
		edited[len(row)/2] ^= 1
		moved := key[:len(key)-1] + string(key[len(key)-1]^1)
		for name, edit := range map[string]map[string][]byte{"edited": {key: edited}, "moved": {key: nil, moved: row}, "gone": {key: nil}} {
			if kind == "named" && name == "edited" {
				continue // that it is there is all it says
			}
			r.rows(edit)
			if got := r.checkRows(); len(got.Findings) == 0 {
				t.Errorf("%s %s: not found", key, name)
			}
			r.rows(map[string][]byte{moved: nil, key: row})
		}
	}
	c, _ := r.store.Snapshot().State.Chain(ledger.ChainKey{Lane: ledger.LaneMain, Service: "checkout", Scope: "prod"})
	for want, edit := range map[string]map[string][]byte{
		`shown to readers of "mallory", and no activation of it names it`: {namedRow("mallory", c.Set.Digest): {1}},
		"asks for other releases than its commit":                         {acceptedRow: bytes.Replace(r.allRows()[acceptedRow], []byte(`:"latest"`), []byte(`:"other"`), 1)},
		"is of no known kind":                                             {"nbmed/x": {1}},
	} {
		before := r.allRows()
		r.rows(edit)
		if got := r.checkRows(); !strings.Contains(strings.Join(got.Findings, "\n"), want) {
			t.Errorf("%+v, want %q", got, want)
		}
		for k := range edit {
			r.rows(map[string][]byte{k: before[k]})
		}
	}
}

// A recovery leaves these rows out, and the next start makes them as they were.
func TestRowsAreMadeAgain(t *testing.T) {
	r := story(t)
	before, after := r.allRows(), r.allRows()
	RecoverRows(after)
	for k := range before {
		if _, stays := after[k]; !stays {
			after[k] = nil
		}
	}
	r.rows(after)
	size := r.store.Snapshot().Tree.Size
	r.restart(r.url)
	named := func(v map[string][]byte) map[string][]byte {
		maps.DeleteFunc(v, func(k string, _ []byte) bool { return strings.HasPrefix(k, modesRows) || k == acceptedRow })
		return v
	}
	if got := r.allRows(); !maps.EqualFunc(named(got), named(before), bytes.Equal) {
		t.Errorf("%d rows after a start, had %d", len(got), len(before))
	}
	r.push(map[string]string{"README.md": "x\n"})
	if r.store.Snapshot().Tree.Size != size {
		t.Error("a start without rows made a change")
	}
	// without the modes' row, a text that changed is still a change of its own
	r.rows(map[string][]byte{modesRow(r.store.Snapshot().State.ServiceChains("checkout")[0].Set.Digest): nil})
	r.push(map[string]string{"services/checkout/safe-modes/degraded/safe-mode.yaml": "description: still less\nowner: team-checkout\nttl: 4h\n"})
	if got := r.checkRows(); len(got.Findings) > 0 || r.store.Snapshot().Tree.Size != size+2 {
		t.Errorf("%+v; %d entries, had %d", got, r.store.Snapshot().Tree.Size, size)
	}
}

// What was erased is gone for its readers, not unknown, when the sets that named
// it are lost as well.
func TestAnErasedObjectStaysErasedAfterARecovery(t *testing.T) {
	r := story(t)
	var oldest api.Digest
	for i := range r.store.Snapshot().Tree.Size {
		if c, err := r.store.Change(i); err == nil && oldest == "" && c.Kind() == ledger.BundleActivated {
			oldest = c.Data.Set.Digest
		}
	}
	raw, err := r.store.Object(oldest)
	must(t, err)
	set, err := bundle.ParseSet(raw)
	must(t, err)
	inForce := string(r.get(200, "/v2/checkout/manifests/"+string(r.inForce("prod"))))
	var old api.Digest
	for _, e := range set.Entries {
		if !strings.Contains(inForce, string(e.Digest)) {
			old = e.Digest
		}
	}
	r.send(200, r.f.StatementBy(r.f.Operator, ledger.ObjectErased, "checkout", "", func(s *ledger.Statement) { s.Object = old }))
	r.get(410, "/v2/checkout/manifests/"+string(old))
	rows := r.allRows()
	before := maps.Clone(rows)
	RecoverRows(rows)
	for k := range before {
		if _, stays := rows[k]; !stays {
			rows[k] = nil
		}
	}
	r.rows(rows)
	r.loseObjects()
	r.restart(r.url)
	r.round(t.Context())
	r.get(410, "/v2/checkout/manifests/"+string(old))
	if got := r.checkRows(); len(got.Findings) > 0 {
		t.Errorf("%+v", got)
	}
}

// What an erased set named can't be told any more: that is said, and is no
// finding. Rows of other services stay findings.
func TestRowsAfterAnErasure(t *testing.T) {
	r := story(t)
	var oldest api.Digest
	for i := range r.store.Snapshot().Tree.Size {
		if c, err := r.store.Change(i); err == nil && oldest == "" && c.Kind() == ledger.BundleActivated {
			oldest = c.Data.Set.Digest
		}
	}
	r.send(200, r.f.StatementBy(r.f.Operator, ledger.ObjectErased, "checkout", "", func(s *ledger.Statement) { s.Object = oldest }))
	if got := r.checkRows(); len(got.Findings) > 0 || got.Unproven == 0 {
		t.Errorf("after an erasure: %+v", got)
	}
	r.rows(map[string][]byte{namedRow("mallory", r.store.Snapshot().State.ServiceChains("checkout")[0].Set.Digest): {1}})
	if got := r.checkRows(); len(got.Findings) != 1 {
		t.Errorf("a planted row: %+v", got)
	}
}
