package server

import (
	"strings"
	"testing"
	"time"

	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

func rowsFindings(t *testing.T, st *store.Store) string {
	t.Helper()
	var log []Activated
	for i := range st.Snapshot().Tree.Size {
		c, err := st.Change(i)
		if err != nil {
			t.Fatal(err)
		}
		if c.Kind() == ledger.BundleActivated {
			log = append(log, Activated{c.Data.Service, c.Data.Set.Digest})
		}
	}
	list, err := CheckRows(st, log)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(list, "\n")
}

// rows writes the server's rows, as somebody with the file does.
func (r *rig) rows(rows map[string][]byte) {
	r.t.Helper()
	_, err := r.store.Append(r.t.Context(), func(*ledger.State, time.Time) (store.Decision, error) { return store.Decision{Rows: rows}, nil })
	if err != nil {
		r.t.Fatal(err)
	}
}

// Rows that show an object to those whom no activation lets see it are found, and
// so are rows that are gone; a start without rows, as after a recovery, makes
// them anew.
func TestRowsAreHeldToTheLog(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	if got := rowsFindings(t, r.store); got != "" {
		t.Fatalf("an untouched store: %s", got)
	}
	c, ok := r.store.Snapshot().State.Chain(ledger.ChainKey{Lane: ledger.LaneMain, Service: "checkout", Scope: "prod"})
	if !ok {
		t.Fatal("checkout is not active")
	}
	planted := namedRow("mallory", c.Set.Digest)
	r.rows(map[string][]byte{planted: {1}})
	if got := rowsFindings(t, r.store); !strings.Contains(got, `shown to readers of "mallory", and no activation of it names it`) {
		t.Errorf("a planted row: %q", got)
	}
	gone := map[string][]byte{planted: nil, acceptedRow: nil, namedRow("checkout", c.Set.Digest): nil, modesRow(c.Set.Digest): nil}
	r.rows(gone)
	if got := rowsFindings(t, r.store); !strings.Contains(got, `is in force, and not shown to readers of "checkout"`) {
		t.Errorf("a row that is gone: %q", got)
	}
	size := r.store.Snapshot().Tree.Size
	r.restart(r.url)
	r.sync()
	if got := rowsFindings(t, r.store); got != "" || r.store.Snapshot().Tree.Size != size {
		t.Errorf("after a start without rows: %s; %d entries, had %d", got, r.store.Snapshot().Tree.Size, size)
	}
	if row, err := r.store.Row(modesRow(c.Set.Digest)); err != nil || row == nil {
		t.Errorf("the modes' row: %q, %v", row, err)
	}
}
