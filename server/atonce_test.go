package server

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sealstone/sealstone/ledger"
)

// Of two who enter a mode at the same moment one wins; the other is told what is
// newer than what he saw.
func TestOfTwoEntriesAtOnceOneWins(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	size := r.store.Snapshot().Tree.Size
	answers := make([]int, 2)
	bodies := make([]string, 2)
	var both sync.WaitGroup
	for i := range answers {
		st := r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0)
		both.Go(func() {
			res := r.do(http.MethodPost, "/v1/changes", string(st.Raw))
			answers[i] = res.StatusCode
			bodies[i] = string(r.expect(res.StatusCode, res))
		})
	}
	both.Wait()
	lost := slices.Index(answers, http.StatusConflict)
	if lost < 0 || answers[1-lost]/100 != 2 || !strings.Contains(bodies[lost], "signed after generation 0") || !strings.Contains(bodies[lost], "1") {
		t.Errorf("answers %v: %s", answers, bodies)
	}
	if got := r.store.Snapshot().Tree.Size; got != size+1 {
		t.Errorf("%d changes came of it", got-size)
	}
}
