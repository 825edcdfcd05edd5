package server

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

func TestAnnotations(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	before := time.Now().Add(-time.Minute).UnixMilli()
	r.send(200, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
	r.send(200, r.f.SafeMode(ledger.SafeModeExited, "checkout", "prod", "degraded", 1))
	all := decode[[]api.Annotation](t, r.get(200, fmt.Sprintf("/v1/annotations?from=%d&to=%d", before, time.Now().Add(time.Minute).UnixMilli())))
	if len(all) != 6 || all[0].Title != "safe-mode.exited checkout@prod" || all[1].TimeEnd != all[0].Time || all[1].Time > all[0].Time {
		t.Errorf("%+v", all)
	}
	if got := strings.Join(all[1].Tags, " "); got != "sealstone safe-mode.entered by:alex mode:degraded scope:prod service:checkout" {
		t.Errorf("tags %s", got)
	}
	for query, want := range map[string]int{"?tags=bundle.activated": 2, "?tags=safe-mode.entered,service:checkout": 1, "?tags=mode:degraded&tags=scope:prod": 2, "?tags=no": 0,
		"?limit=1": 1, "?service=checkout&scope=staging": 1, "?to=" + fmt.Sprint(before): 0, "?kind=safe-mode.exited": 1} {
		if got := decode[[]api.Annotation](t, r.get(200, "/v1/annotations"+query)); len(got) != want {
			t.Errorf("%s: %d, want %d", query, len(got), want)
		}
	}
	r.get(400, "/v1/annotations?from=yesterday")
	r.push(map[string]string{"clients.yaml": "clients:\n  - name: pay\n    token: \"" + string(api.DigestOf([]byte("pay"))) + "\"\n    services: [payments]\n    scopes: [prod]\n"})
	r.get(403, "/v1/annotations", "Authorization", "Bearer pay")
	r.get(403, "/v1/annotations?service=checkout", "Authorization", "Bearer pay")
	r.expect(401, r.do(http.MethodGet, "/v1/annotations", ""))
}

// Facts come late and in any order: a deploy ends when the next thing of its
// place happened, never before it began, and says which version it was.
func TestDeploysEndInTheOrderOfTheirTimes(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	now := time.Now()
	at := func(ago time.Duration) string { return api.FormatTime(now.Add(-ago)) }
	fact := func(kind ledger.Kind, ago time.Duration) {
		r.send(200, r.f.Statement(kind, "checkout", "prod", func(s *ledger.Statement) { s.Time, s.Version = at(ago), "v"+ago.String() }))
	}
	fact(ledger.DeployFinished, 4*time.Hour)
	fact(ledger.DeployStarted, time.Hour)
	fact(ledger.DeployStarted, 5*time.Hour) // late, and after its end
	fact(ledger.DeployStarted, 3*time.Hour) // ended by the start of an hour ago
	for _, a := range decode[[]api.Annotation](t, r.get(200, "/v1/annotations?kind=deploy.started,deploy.finished")) {
		want := map[string]string{"v5h0m0s": at(4 * time.Hour), "v3h0m0s": at(time.Hour)}
		_, version, _ := strings.Cut(a.Text, ", version ")
		end := ""
		if a.TimeEnd != 0 {
			end = api.FormatTime(time.UnixMilli(a.TimeEnd))
		}
		if version == "" || end != want[version] {
			t.Errorf("%s ends %q, want %q", a.Text, end, want[version])
		}
	}
	if first := decode[[]api.Annotation](t, r.get(200, "/v1/annotations?kind=bundle.activated&limit=1")); !strings.HasPrefix(first[0].Text, "Commit ") && !strings.Contains(first[0].Text, " (entry ") {
		t.Errorf("%+v", first)
	}
}

// The change feed as lines: each a record, whose event is the signed CloudEvent.
func TestChangesAsLines(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	srv := httptest.NewServer(r)
	defer srv.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, srv.URL+"/v1/changes/watch?after=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/x-ndjson")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var index []int64
	for sc := bufio.NewScanner(res.Body); len(index) < 2 && sc.Scan(); {
		if sc.Text() == "" {
			continue
		}
		rec := decode[api.Record](t, sc.Bytes())
		var event struct {
			SpecVersion string `json:"specversion"`
			Type        string `json:"type"`
		}
		if json.Unmarshal(rec.Event, &event) != nil || event.SpecVersion != "1.0" || event.Type != "dev.sealstone.bundle.activated" {
			t.Errorf("%s", rec.Event)
		}
		index = append(index, rec.Index)
	}
	if fmt.Sprint(index) != "[2 3]" || res.Header.Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("%v %v", index, res.Header)
	}
}
