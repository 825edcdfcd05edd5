package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
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

// A digest that a span or a metric tells is a bundle's: it leads to the change
// that brought it, and neither to later sets that have it as well nor to those
// that took it away.
func TestChangesOfABundle(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	const flags, eu = "services/checkout/flags/checkout.yaml", "services/checkout/overlays/prod/eu-west-1/config/http.yaml"
	bundleAt := func(scope api.Scope) (d api.Digest) {
		t.Helper()
		for _, c := range r.store.Snapshot().State.ServiceChains("checkout") {
			if set, err := r.programs.set(c.Set.Digest); err == nil && c.Scope == "prod" {
				e, _ := set.Find(scope, api.ModeNormal)
				d = e.Digest
			}
		}
		return d
	}
	brought := func(d api.Digest) (commits []string) {
		t.Helper()
		var answer api.Changes
		if err := json.Unmarshal(r.get(200, "/v1/changes?order=asc&scope=prod&digest="+string(d)), &answer); err != nil {
			t.Fatal(err)
		}
		for _, c := range answer.Changes {
			var e ledger.Event
			if err := json.Unmarshal(c.Event, &e); err != nil {
				t.Fatal(err)
			}
			if e.Data.Scope == "prod" {
				commits = append(commits, e.Data.Release.Commit)
			}
		}
		return commits
	}
	first := r.store.Snapshot().State.ServiceChains("checkout")[0].Release.Commit
	off := bundleAt("prod")
	other := r.push(map[string]string{eu: "timeout: 41\n"}) // another bundle of the set
	if got := bundleAt("prod"); got != off || !slices.Equal(brought(off), []string{first}) {
		t.Errorf("%s was brought by %v, want %s", off, brought(off), first)
	}
	if got := brought(bundleAt("prod/eu-west-1")); !slices.Equal(got, []string{other}) {
		t.Errorf("the other was brought by %v, want %s", got, other)
	}
	turned := r.push(map[string]string{flags: strings.Replace(shop[flags], "Variant: off", "Variant: on", 1)})
	on := bundleAt("prod")
	back := r.push(map[string]string{flags: shop[flags]})
	if got := brought(on); !slices.Equal(got, []string{turned}) {
		t.Errorf("%s was brought by %v, want %s", on, got, turned)
	}
	if got := brought(off); !slices.Equal(got, []string{first, back}) {
		t.Errorf("%s was brought by %v, want %s and %s", off, got, first, back)
	}
}

func TestARowOfSetsIsBounded(t *testing.T) {
	var row []byte
	for n := range maxBrought + 10 {
		row = appendSum(row, [32]byte{byte(n)})
		row = appendSum(row, [32]byte{200}) // again and again
	}
	if len(row) != maxBrought*sumSize || row[len(row)-sumSize] != 200 || row[len(row)-2*sumSize] != maxBrought+9 {
		t.Errorf("%d bytes, ends with %x", len(row), row[len(row)-2*sumSize:])
	}
}

// A detail that stays away can't be told from one that was erased, and what
// names it could never be verified again.
func TestAStatementComesWithTheDetailThatItNames(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	detail, name, err := ledger.NewDetail(map[string]any{"note": "x"})
	if err != nil {
		t.Fatal(err)
	}
	st := r.f.Statement(ledger.NoteAdded, "checkout", "prod", func(s *ledger.Statement) { s.Detail = name })
	p := decode[api.Problem](t, r.send(422, st))
	if !strings.Contains(p.Detail, "nothing was recorded") || !strings.Contains(p.Hint, "whole file") {
		t.Errorf("%+v", p)
	}
	enter := r.f.Statement(ledger.SafeModeEntered, "checkout", "prod", func(s *ledger.Statement) { aged(0)(s); s.Detail = name })
	r.send(422, enter)
	wantKinds(t, r, 4)
	whole, err := json.Marshal(api.Submission{Statement: st.Raw, Salt: detail.Salt, Detail: detail.Text})
	if err != nil {
		t.Fatal(err)
	}
	first := decode[api.Receipt](t, r.expect(200, r.do(http.MethodPost, "/v1/changes", string(whole))))
	if again := decode[api.Receipt](t, r.send(200, st)); !again.Repeated || again.Index != first.Index {
		t.Errorf("a retry of what is recorded: %+v", again)
	}
	if report, err := r.store.Verify(t.Context(), nil); err != nil || len(report.Findings) > 0 {
		t.Errorf("%v %v", report, err)
	}
}

// The key id lies outside the signature: whoever carries a statement could
// write into the log what he likes.
func TestTheKeyIDIsThatOfTheKeyThatSigned(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	st := r.f.Statement(ledger.NoteAdded, "checkout", "prod", nil)
	with := func(keyid string) string {
		e := ledger.Envelope{Payload: st.Envelope.Payload, PayloadType: st.Envelope.PayloadType, Signatures: slices.Clone(st.Envelope.Signatures)}
		e.Signatures[0].KeyID = keyid
		b, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, bad := range []string{"x", "-----BEGIN OPENSSH " + "PRIVATE KEY-----", strings.Repeat("k", 38000), "\x00\u202e", r.f.Stranger.KeyID(), r.f.Operator.KeyID() + " "} {
		r.expect(400, r.do(http.MethodPost, "/v1/changes", with(bad)))
	}
	wantKinds(t, r, 4)
	r.expect(200, r.do(http.MethodPost, "/v1/changes", with("")))
}

func TestQueriesThatMeanNothingAreRefused(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	for _, path := range []string{"/v1/live?at=0001-01-01T00:00:00Z", "/v1/live?at=-62135596800000", "/v1/changes?to=0001-01-01T00:00:00Z", "/v1/changes/+1", "/v1/changes/01", "/v1/changes?after=00", "/v1/changes?limit=5;limit=9", "/v1/changes?limit=%zz"} {
		r.get(400, path)
	}
	p := decode[api.Problem](t, r.get(409, "/v1/changes/watch?after=99999"))
	if !strings.Contains(p.Detail, "beyond this log") {
		t.Errorf("%+v", p)
	}
}

func TestABodyMayHaveAllOf128KiB(t *testing.T) {
	r := newRig(t, nil)
	for n, status := range map[int]int{128 << 10: 400, 128<<10 + 1: 413} {
		r.expect(status, r.do(http.MethodPost, "/v1/changes", strings.Repeat(" ", n)))
	}
}
