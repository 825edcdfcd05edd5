package server

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
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

// An answer says how much of each chain it shows.
func TestAnswersSayHowWholeTheirChainsAre(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	for _, scope := range []api.Scope{"prod", "prod", "prod", "staging"} {
		r.send(200, r.f.Statement(ledger.NoteAdded, "checkout", scope, nil))
	}
	r.send(200, r.f.Statement(ledger.NoteAdded, "checkout", "prod", func(s *ledger.Statement) {
		s.Time = api.FormatTime(time.Now().Add(-29 * 24 * time.Hour))
	}))
	r.send(422, r.f.Statement(ledger.NoteAdded, "checkout", "prod", func(s *ledger.Statement) {
		s.Time = api.FormatTime(time.Now().Add(-31 * 24 * time.Hour))
	}))
	ask := func(query string) (answer api.Changes) {
		t.Helper()
		if err := json.Unmarshal(r.get(200, "/v1/changes?"+query), &answer); err != nil {
			t.Fatal(err)
		}
		return answer
	}
	whole := ask("kind=note.added")
	if got := fmt.Sprint(whole.Chains); got != "[{record checkout prod 1 4 4 4 true} {record checkout staging 1 1 1 1 true}]" {
		t.Errorf("all notes: %s", got)
	}
	if !whole.Changes[0].Late || whole.Changes[1].Late {
		t.Error("the one of 29 days ago, and only that, is late")
	}
	if got := fmt.Sprint(ask("kind=note.added&limit=2&before=" + fmt.Sprint(whole.Changes[0].Index)).Chains); got != "[{record checkout staging 1 1 1 1 true} {record checkout prod 3 3 1 4 false}]" {
		t.Errorf("a page: %s", got)
	}
	r.get(400, "/v1/changes?text="+strings.Repeat("x", 201))
}

func TestCredentialsAreNotRecorded(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	key := "AKIA" + "ABCDEFGHIJKLMNOP"
	b := r.send(422, r.f.Statement(ledger.SecretRotated, "checkout", "prod", func(s *ledger.Statement) { s.Name, s.Version = "psp", key }))
	if text := string(b); !strings.Contains(text, "E_SECRET: member statement.version looks like an AWS access key") || strings.Contains(text, key) {
		t.Errorf("said %s", text)
	}
}
