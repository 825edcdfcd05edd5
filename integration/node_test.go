package integration_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/integration/proctest"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

// Who has the node's and the log's keys can put old content into effect under a
// new commit, and every proof of it is right. The log keeps it, and building
// what it names from Git finds it.
func TestAStolenNodeKeysContentIsFoundByRebuilding(t *testing.T) {
	t.Parallel()
	r := proctest.New(t, examples.Shop())
	s := r.Serve()
	s.UntilTip(r.Git("rev-parse", "HEAD"))
	expressOn(r, true)
	s.UntilTip(r.Push("Sell faster"))
	s.Stop()
	rebuild := []string{"verify", "--data", r.Data, "--rebuild", "--repo", r.Work}
	r.OK(rebuild...)

	st, err := store.Open(store.Config{Dir: r.Data, Log: noteKey(t, r, "log.key"), Node: noteKey(t, r, "node.key"), Trust: r.LoadTrust()})
	if err != nil {
		t.Fatal(err)
	}
	forged, err := st.Append(t.Context(), func(now *ledger.State, _ time.Time) (store.Decision, error) {
		c, _ := now.Chain(ledger.ChainKey{Lane: ledger.LaneMain, Service: "checkout", Scope: "staging"})
		newest, err := st.Change(c.Index)
		if err != nil {
			return store.Decision{}, err
		}
		old := newest.Data.Replaces
		body, err := st.Object(old)
		if err != nil {
			return store.Decision{}, err
		}
		d := ledger.Data{Service: "checkout", Scope: "staging", Fields: newest.Data.Fields}
		d.Set, d.Replaces = &ledger.SetRef{Digest: old, Size: int64(len(body))}, c.Set.Digest
		return store.Decision{Drafts: []store.Draft{{Kind: ledger.BundleActivated, Data: d}}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	r.OK("verify", "--data", r.Data) // the evidence alone is whole
	if res := r.CLI(rebuild...); res.Code != 3 || !strings.Contains(res.Stdout+res.Stderr, "checkout at staging was activated as") {
		t.Errorf("entry %d: exit %d\n%s%s", forged[0].Index, res.Code, res.Stdout, res.Stderr)
	}
}
