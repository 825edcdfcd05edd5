package server

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/sealstone/sealstone/api"
)

// Entry 0 is an index like every other: a page may end there, and a bound be it.
func TestChangesArePagedFromEntryZero(t *testing.T) {
	r := newRig(t, nil)
	ask := func(query string) (answer api.Changes) {
		t.Helper()
		if err := json.Unmarshal(r.get(200, "/v1/changes?"+query), &answer); err != nil {
			t.Fatal(err)
		}
		return answer
	}
	size := ask("").Size
	for n, query := int64(0), "order=asc&limit=1"; n < size; n++ {
		a := ask(query)
		if len(a.Changes) != 1 || a.Changes[0].Index != n || (a.Next == nil) != (n == size-1) {
			t.Fatalf("%s of %d entries: %+v", query, size, a)
		}
		if a.Next != nil {
			query = fmt.Sprintf("order=asc&limit=1&after=%d", *a.Next)
		}
	}
	if a := ask("before=0"); len(a.Changes) != 0 || a.Next != nil {
		t.Errorf("before=0: %+v", a)
	}
}
