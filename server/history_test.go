package server

import (
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
)

// moment is what the server said was live at a time, then.
type moment struct {
	at   time.Time
	live api.Live
}

// past is a rig with a day of changes, one an hour, and what was live at each.
type past struct {
	*rig
	moments []moment
}

func newPast(t *testing.T) *past {
	p := &past{rig: newRig(t, nil)}
	clock := func() time.Time { return time.Now().Add(p.ahead) }
	p.f.At(clock)
	mode := func(kind ledger.Kind, scope api.Scope, after int64) func() {
		return func() { p.send(200, p.f.SafeMode(kind, "checkout", scope, "degraded", after)) }
	}
	push := func(file, text string) func() { return func() { p.push(map[string]string{file: text}) } }
	for _, step := range []func(){
		p.sync,
		push("services/checkout/config/http.yaml", "timeout: 31\n"),
		mode(ledger.SafeModeEntered, "prod/eu-west-1", 0),
		push("services/checkout/config/http.yaml", "timeout: 32\n"),
		mode(ledger.SafeModeRenewed, "prod/eu-west-1", 1),
		mode(ledger.SafeModeEntered, "prod", 0),
		mode(ledger.SafeModeExited, "prod/eu-west-1", 2),
		mode(ledger.SafeModeExited, "prod", 1),
		push("activations/checkout.yaml", "service: checkout\nactivations:\n  - scope: staging\n    release: latest\n"),
		push("activations/checkout.yaml", shop["activations/checkout.yaml"]),
	} {
		step()
		live := decode[api.Live](t, p.get(200, "/v1/live"))
		p.moments = append(p.moments, moment{clock(), live})
		p.ahead += time.Hour
	}
	return p
}

func (p *past) history(query string) api.History {
	p.t.Helper()
	return decode[api.History](p.t, p.get(200, "/v1/history?target="+query))
}

func stamp(t time.Time) string { return url.QueryEscape(t.UTC().Format(time.RFC3339Nano)) }

func TestLiveAtATimeIsWhatWasLiveThen(t *testing.T) {
	p := newPast(t)
	for i, m := range p.moments {
		got := decode[api.Live](t, p.get(200, "/v1/live?at="+stamp(m.at)))
		if got.Size != m.live.Size || len(got.Services) != 1 {
			t.Fatalf("moment %d: %+v", i, got)
		}
		was := map[api.Scope]*api.Proven{}
		for _, sc := range m.live.Services[0].Scopes {
			was[sc.Scope] = sc.Proven
		}
		for _, sc := range got.Services[0].Scopes {
			if len(sc.Instances) != 0 || !reflect.DeepEqual(sc.Proven, was[sc.Scope]) {
				t.Errorf("moment %d, %s\ngot  %+v\nwant %+v", i, sc.Scope, sc.Proven, was[sc.Scope])
			}
			target := "checkout@" + string(sc.Scope)
			if sc.Proven == nil {
				p.get(404, "/v1/history?target="+target+"&at="+stamp(m.at))
				continue
			}
			h := p.history(target + "&at=" + stamp(m.at))
			if len(h.Intervals) != 1 || h.Intervals[0].Bundle != sc.Proven.Bundle || h.Intervals[0].Mode != sc.Proven.Mode {
				t.Errorf("moment %d, %s: history has %+v, live %+v", i, sc.Scope, h.Intervals, sc.Proven)
			}
		}
	}
	if got := decode[api.Live](t, p.get(200, "/v1/live?at=2020-01-01T00:00:00Z")); len(got.Services) != 0 || got.Size != 0 {
		t.Errorf("before the log: %+v", got)
	}
	p.get(400, "/v1/live?at=yesterday")
}

func TestHistoryHasEveryInterval(t *testing.T) {
	p := newPast(t)
	all := p.history("checkout@prod/eu-west-1").Intervals
	var got []string
	for _, iv := range all {
		got = append(got, iv.Kind+" "+string(iv.Mode))
	}
	want := []string{
		"bundle.activated normal", // activated again; before that is a gap
		"safe-mode.exited normal", // of prod
		"safe-mode.exited degraded",
		"safe-mode.renewed degraded",
		"bundle.activated degraded", // under the mode
		"safe-mode.entered degraded",
		"bundle.activated normal",
		"bundle.activated normal",
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got  %q\nwant %q", got, want)
	}
	if iv := all[0]; iv.To != "" || iv.EndedBy != nil || iv.Override != nil || iv.By != "Test" {
		t.Errorf("newest: %+v", iv)
	}
	if iv := all[1]; iv.To >= all[0].From || iv.EndedBy == nil || *iv.EndedBy >= all[0].Index {
		t.Errorf("the gap is covered: %+v then %+v", iv, all[0])
	}
	if iv := all[2]; iv.By != ledgertest.OperatorID || iv.Override == nil || iv.Override.Scope != "prod" || iv.Main.Generation != 3 {
		t.Errorf("under the outer mode: %+v", iv)
	}
	if all[3].Bundle != all[4].Bundle || all[4].Bundle != all[5].Bundle || all[4].Bundle == all[6].Bundle {
		t.Error("a mode's bundle is not that of its set")
	}
	if all[7].From != p.moments[0].live.Services[0].Scopes[0].Proven.Since {
		t.Errorf("first: %+v", all[7])
	}
}

func TestHistoryIsPagedAndBounded(t *testing.T) {
	p := newPast(t)
	all := p.history("checkout@prod/eu-west-1").Intervals
	for limit := 1; limit < len(all)+2; limit++ {
		var got []api.Interval
		query := "checkout@prod/eu-west-1&limit=" + strconv.Itoa(limit)
		for h := p.history(query); ; h = p.history(query + "&before=" + strconv.FormatInt(*h.Next, 10)) {
			if got = append(got, h.Intervals...); h.Next == nil {
				break
			}
		}
		if !reflect.DeepEqual(got, all) {
			t.Fatalf("pages of %d: %d intervals, want %d", limit, len(got), len(all))
		}
	}
	from, to := p.moments[2].at, p.moments[5].at // the mode is entered just before from, the outer one just before to
	got := p.history("checkout@prod/eu-west-1&from=" + stamp(from) + "&to=" + stamp(to)).Intervals
	if !reflect.DeepEqual(got, all[3:6]) {
		t.Errorf("between two times: %+v", got)
	}
	if got := p.history("checkout@prod/eu-west-1&to=2020-01-01T00:00:00Z"); len(got.Intervals) != 0 {
		t.Errorf("before the log: %+v", got)
	}
}

func TestHistoryRefuses(t *testing.T) {
	p := newPast(t)
	for query, status := range map[string]int{
		"":                               400,
		"?target=checkout":               400,
		"?target=checkout@prod&limit=0":  400,
		"?target=checkout@prod&from=x":   400,
		"?target=checkout@prod&before=x": 400,
		"?target=checkout@dev":           404,
		"?target=nobody@prod":            404,
	} {
		p.get(status, "/v1/history"+query)
	}
	clients := "clients:\n  - name: eu\n    token: \"" + string(api.DigestOf([]byte("eu"))) + "\"\n    services: [checkout]\n    scopes: [prod/eu-west-1]\n" +
		"  - name: audit\n    token: \"" + string(api.DigestOf([]byte("audit"))) + "\"\n    services: [payments]\n    scopes: [staging]\n    log: true\n"
	p.push(map[string]string{"clients.yaml": clients})
	p.get(200, "/v1/history?target=checkout@prod/eu-west-1", "Authorization", "Bearer eu")
	p.get(403, "/v1/history?target=checkout@prod", "Authorization", "Bearer eu")
	p.get(200, "/v1/history?target=checkout@prod", "Authorization", "Bearer audit")
	p.get(401, "/v1/history?target=checkout@prod")
}

// What was erased is said to be: a detail, and a set that is withheld.
func TestHistoryOutlivesErasures(t *testing.T) {
	p := newPast(t)
	all := p.history("checkout@prod").Intervals
	oldest := all[len(all)-1]
	erase := func(kind ledger.Kind, edit func(*ledger.Statement)) {
		p.expect(200, p.do(http.MethodPost, "/v1/changes", string(p.f.Statement(kind, "checkout", "prod", edit).Raw)))
	}
	erase(ledger.DetailErased, func(s *ledger.Statement) { s.Index = oldest.Index })
	erase(ledger.ObjectErased, func(s *ledger.Statement) { s.Object = oldest.Set })
	p.programs.sets.Clear()
	all = p.history("checkout@prod").Intervals
	got := all[len(all)-1]
	if !got.Erased || got.By != "" || got.Subject != "" || got.Bundle != "" || got.Set != oldest.Set || got.Missing != "object "+string(oldest.Set)+" was erased" {
		t.Errorf("%+v", got)
	}
	live := decode[api.Live](t, p.get(200, "/v1/live?service=checkout&at="+url.QueryEscape(oldest.From)))
	i := slices.IndexFunc(live.Services[0].Scopes, func(sc api.LiveScope) bool { return sc.Scope == "prod" })
	if was := live.Services[0].Scopes[i].Proven; was == nil || was.Missing != got.Missing || was.Set != oldest.Set || was.Bundle != "" || was.Index != oldest.Index || was.Mode != oldest.Mode || was.Release != oldest.Commit {
		t.Errorf("live at %s: %+v", oldest.From, was)
	}
}
