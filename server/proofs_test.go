package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/ledger"
)

// Proofs of many changes come at once, all in one tree: the newest, or an older
// one that the client knows.
func TestProofsOfManyChanges(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	for range 3 {
		r.send(200, r.f.Statement(ledger.NoteAdded, "checkout", "prod", nil))
	}
	tree := r.store.Snapshot().Tree
	ask := func(query string, tree ledger.Tree) map[int64]*ledger.Change {
		t.Helper()
		var e ledger.Evidence
		if err := json.Unmarshal(r.get(200, "/v1/changes/"+query), &e); err != nil {
			t.Fatal(err)
		}
		changes, err := r.f.Trust.ProveAlone(&e, tree)
		if err != nil {
			t.Fatal(err)
		}
		if newest := r.store.Snapshot().Tree == tree; newest != (e.Checkpoint != "") {
			t.Errorf("%s: checkpoint %q", query, e.Checkpoint)
		}
		return changes
	}
	last := tree.Size - 1
	if got := ask(fmt.Sprintf("%d,2%%2C0?proof=1", last), tree); len(got) != 4 || got[1] == nil { // and the set that a note cites
		t.Errorf("%d changes", len(got))
	}
	r.send(200, r.f.Statement(ledger.NoteAdded, "checkout", "prod", nil))
	ask(fmt.Sprintf("%d,0?proof=1&size=%d", last, tree.Size), tree)
	many := strings.Repeat("0,", api.MaxIndexes) + "0"
	for path, want := range map[string]int{
		fmt.Sprintf("%d?proof=1&size=%d", last, last): 400,
		fmt.Sprintf("0?proof=1&size=%d", tree.Size+2): 400,
		fmt.Sprintf("0,%d?proof=1", tree.Size+1):      404,
		"0,1":                                         400,
		"0,1,0?proof=1":                               400,
		"0,,1?proof=1":                                400,
		"0,x?proof=1":                                 400,
		"%25zz?proof=1":                               400,
		many + "?proof=1":                             400,
	} {
		r.get(want, "/v1/changes/"+path)
	}
	r.access.set([]bundler.Client{{Name: "checkout", Token: string(api.DigestOf([]byte("mine"))), Services: []string{"checkout"}},
		{Name: "payments", Token: string(api.DigestOf([]byte("other"))), Services: []string{"payments"}}}, true)
	path := fmt.Sprintf("/v1/changes/%d,%d?proof=1", last, last-1)
	r.get(200, path, "Authorization", "Bearer mine")
	r.get(403, path, "Authorization", "Bearer other")
	r.get(403, fmt.Sprintf("/v1/changes/%d,0?proof=1", last), "Authorization", "Bearer mine")
}

// Nobody waits for proofs any more: no more are made.
func TestProofsEndWithTheirRequest(t *testing.T) {
	r := newRig(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.store.ProofEvidence(ctx, 0, 0, 0); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// The tree of proofs goes on from one that the client knows, or the answer says
// that it doesn't.
func TestProofsGoOnFromAnOlderTree(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	old := r.store.Snapshot().Tree
	r.send(200, r.f.Statement(ledger.NoteAdded, "checkout", "prod", nil))
	now := r.store.Snapshot().Tree
	var e ledger.Evidence
	if err := json.Unmarshal(r.get(200, fmt.Sprintf("/v1/changes/0?proof=1&from=%d", old.Size)), &e); err != nil {
		t.Fatal(err)
	}
	if err := ledger.CheckConsistency(old, now, e.Consistency); err != nil {
		t.Error(err)
	}
	r.get(409, fmt.Sprintf("/v1/changes/0?proof=1&from=%d", now.Size+1))
	r.get(400, "/v1/changes/0?proof=1&from=x")
}
