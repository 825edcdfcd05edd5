package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/instances"
	"github.com/sealstone/sealstone/ledger"
)

// reportOne sends a report for checkout at a scope.
func (r *rig) reportOne(status int, scope api.Scope, id string, edit func(*api.Instance)) {
	r.t.Helper()
	in := api.Instance{Target: api.Target{Service: "checkout", Scope: scope}, ID: id, Mode: api.ModeNormal, State: api.StateReady, Index: 2}
	if eff, err := r.resolve(in.Target); err == nil {
		in.Bundle = eff.Entry.Digest
	}
	if edit != nil {
		edit(&in)
	}
	b, err := json.Marshal(in)
	if err != nil {
		r.t.Fatal(err)
	}
	r.expect(status, r.do(http.MethodPost, "/v1/instances", string(b)))
}

func (r *rig) scope(scope api.Scope) api.LiveScope {
	r.t.Helper()
	for _, s := range decode[api.Live](r.t, r.get(200, "/v1/live?service=checkout")).Services[0].Scopes {
		if s.Scope == scope {
			return s
		}
	}
	return api.LiveScope{}
}

func TestLiveCountsAndPages(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	for i := range 5 {
		r.reportOne(204, "prod", fmt.Sprint("pod-", i), func(in *api.Instance) { in.Version = fmt.Sprint("v", i/3) })
	}
	r.reportOne(204, "prod", "pod-2", func(in *api.Instance) { in.Version, in.Bundle = "v0", api.Digest("sha256:"+strings.Repeat("0", 64)) })
	prod := r.scope("prod")
	if len(prod.Instances) != 5 || len(prod.Counts) != 3 || prod.Counts[0].Instances != 2 || len(prod.Drift) != 1 || prod.Drift[0] != "1 of 5 instances differ" {
		t.Errorf("%+v", prod)
	}
	var ids []string
	for next := ""; ; {
		live := decode[api.Live](t, r.get(200, "/v1/live?service=checkout&instances=2&after="+url.QueryEscape(next)))
		for _, s := range live.Services[0].Scopes {
			for _, in := range s.Instances {
				ids = append(ids, in.ID)
			}
		}
		if next = live.Next; next == "" {
			break
		}
	}
	if got := strings.Join(ids, " "); got != "pod-0 pod-1 pod-2 pod-3 pod-4" {
		t.Errorf("pages: %s", got)
	}
	one := decode[api.Live](t, r.get(200, "/v1/live?instance=pod-3"))
	if len(one.Services) != 1 || len(one.Services[0].Scopes) != 1 || one.Services[0].Scopes[0].Instances[0].Client != "anonymous" {
		t.Errorf("one instance: %+v", one)
	}
	r.get(400, "/v1/live?instances=1001")
	r.get(400, "/v1/live?after=x")
}

// What instances ran at another time comes from their intervals.
func TestInstancesOfAnotherTime(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	r.reportOne(204, "prod", "a", func(in *api.Instance) { in.Version = "v1" })
	time.Sleep(5 * time.Millisecond)
	r.reportOne(204, "prod", "a", func(in *api.Instance) { in.Version = "v1" })
	then := time.Now()
	time.Sleep(5 * time.Millisecond)
	r.reportOne(204, "prod", "a", func(in *api.Instance) { in.Version, in.State = "v2", api.StateError })
	r.reportOne(204, "prod", "b", nil)
	stamp := url.QueryEscape(then.Add(-2 * time.Millisecond).UTC().Format(time.RFC3339Nano))
	prod := decode[api.Live](t, r.get(200, "/v1/live?service=checkout&at="+stamp)).Services[0].Scopes[0]
	if len(prod.Instances) != 1 || prod.Instances[0].Version != "v1" || prod.Instances[0].State != "" || len(prod.Drift) != 0 || prod.Counts[0].Instances != 1 {
		t.Errorf("then: %+v", prod)
	}
	if old := decode[api.Live](t, r.get(200, "/v1/live?at=2020-01-01T00:00:00Z&instance=a")); len(old.Services) != 0 {
		t.Errorf("before anything was: %+v", old)
	}
}

func TestStrayScopesAreBounded(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	for i := range maxStrays + 20 {
		r.reportOne(204, api.Scope(fmt.Sprint("prod/stray-", i)), "a", nil)
	}
	svc := decode[api.Live](t, r.get(200, "/v1/live?service=checkout")).Services[0]
	if svc.Omitted != 20 || len(svc.Scopes) != 4+maxStrays-1 {
		t.Errorf("%d scopes, %d omitted", len(svc.Scopes), svc.Omitted)
	}
}

func TestWhoRunsWhat(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	deps := []string{"pkg:golang/golang.org/x/net@v0.39.0", "pkg:golang/stdlib@v1.26.0"}
	base := string(api.DigestOf([]byte("base")))
	with := func(list []string) func(*api.Instance) {
		return func(in *api.Instance) {
			in.Deps, in.DepList, in.BaseImage, in.Version = api.DependenciesDigest(deps), list, base, "v1"
		}
	}
	r.reportOne(200, "prod", "a", with(nil)) // the list is wanted
	r.reportOne(204, "prod", "a", with(deps))
	r.reportOne(204, "prod", "b", with(nil))
	r.reportOne(204, "staging", "c", nil)
	got := decode[api.Artifacts](t, r.get(200, "/v1/live/artifacts?dependency=golang.org/x/net&below=v0.40.0"))
	if len(got.Found) != 1 || got.Found[0].Instances != 2 || got.Found[0].Dependency != deps[0] || got.Found[0].Target.Scope != "prod" || got.Unknown != 1 {
		t.Errorf("dependency: %+v", got)
	}
	got = decode[api.Artifacts](t, r.get(200, "/v1/live/artifacts?service=checkout&base="+base))
	if len(got.Found) != 1 || got.Found[0].Instances != 2 || got.Unknown != 1 {
		t.Errorf("base image: %+v", got)
	}
	got = decode[api.Artifacts](t, r.get(200, "/v1/live/artifacts"))
	if len(got.Found) != 2 || got.Found[0].Instances != 2 || got.Unknown != 0 {
		t.Errorf("everything: %+v", got)
	}
	for _, bad := range []string{"?dependency=a&base=b", "?below=v1", "?dependency=a&below=latest", "?image=sha256:1", "?service=X&dependency=a"} {
		r.get(400, "/v1/live/artifacts"+bad)
	}
}

func TestFlagsNameTheChangeThatTouchedThem(t *testing.T) {
	r := newRig(t, nil)
	flag := func(key, def string) string {
		return "  " + key + ":\n    state: ENABLED\n    variants: {on: true, off: false}\n    defaultVariant: " + def + "\n"
	}
	ruled := "  ruled:\n    state: ENABLED\n    variants: {on: true, off: false}\n    defaultVariant: off\n    targeting: {if: [{$ref: staff}, on, {\"==\": [{var: a}, 1]}, on, off]}\n"
	write := func(express, other, staff string) map[string]string {
		return map[string]string{"services/checkout/flags/checkout.yaml": "flags:\n" + flag("express", express) + flag("other", other) + ruled +
			"$evaluators:\n  staff: {\"==\": [{var: email}, " + staff + "]}\n"}
	}
	touched := func() string {
		var out []string
		for _, f := range decode[api.LiveFlags](t, r.get(200, "/v1/flags?target=checkout@prod/eu-west-1")).Flags {
			out = append(out, fmt.Sprintf("%s=%s/%d@%d", f.Key, f.Default, f.Rules, f.Changed.Index))
		}
		return strings.Join(out, " ")
	}
	expect := func(want string) {
		t.Helper()
		if got := touched(); got != want {
			t.Errorf("flags: %s, want %s", got, want)
		}
	}
	r.push(write("off", "off", "a")) // prod is entry 2, staging 3
	expect("express=off/0@2 other=off/0@2 ruled=off/2@2")
	r.push(write("on", "off", "a")) // 4, 5
	expect("express=on/0@4 other=off/0@2 ruled=off/2@2")
	r.push(map[string]string{"services/checkout/config/http.yaml": "timeout: 31\n"}) // 6, 7: no flag
	r.push(write("on", "off", "b"))                                                  // 8, 9: what a rule refers to
	expect("express=on/0@4 other=off/0@2 ruled=off/2@8")
	r.push(write("on", "on", "b")) // 10, 11
	want := "express=on/0@4 other=on/0@10 ruled=off/2@8"
	expect(want)
	expect(want)
	r.walks = walks{}
	expect(want) // the same without what was remembered
	r.send(200, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
	expect(want) // the mode has the same flags
	f := decode[api.LiveFlags](t, r.get(200, "/v1/flags?target=checkout@prod")).Flags[0].Changed
	if f.Kind != "bundle.activated" || f.By == "" || len(f.Commit) != 40 {
		t.Errorf("%+v", f)
	}
	r.get(400, "/v1/flags?target=checkout")
	r.get(404, "/v1/flags?target=never@prod")
}

// An older set that was erased ends the search, not the answer.
func TestFlagsBehindAnErasedSet(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	file := "services/checkout/flags/checkout.yaml"
	const more = "  other:\n    state: ENABLED\n    variants: {on: true, off: false}\n    defaultVariant: off\n"
	first, err := r.store.Change(2)
	if err != nil {
		t.Fatal(err)
	}
	r.push(map[string]string{file: shop[file] + more})
	r.push(map[string]string{file: shop[file] + strings.Replace(more, "Variant: off", "Variant: on", 1)})
	r.send(200, r.f.Statement(ledger.ObjectErased, "checkout", "prod", func(s *ledger.Statement) { s.Object = first.Data.Set.Digest }))
	for range 2 {
		for _, f := range decode[api.LiveFlags](t, r.get(200, "/v1/flags?target=checkout@prod")).Flags {
			if f.Key == "other" && (f.Changed == nil || f.Changed.Index != 6) || f.Key == "express" && (f.Changed != nil || f.Since != 4) {
				t.Errorf("%+v", f)
			}
		}
	}
}

// The status counts clients that say something is wrong, and not those that only
// went away.
func TestStatusCountsFailingInstances(t *testing.T) {
	r := newRig(t, nil)
	for i, more := range []string{`"READY"`, `"ERROR"`, `"STALE", "sealstone.refusal": {"check": "consistency", "message": "no", "time": "2026-11-20T10:00:00Z"}`} {
		r.expect(204, r.do(http.MethodPost, "/v1/instances", fmt.Sprintf(`{"target": "checkout@prod", "service.instance.id": "i%d", "sealstone.state": %s}`, i, more)))
	}
	if st := r.Status(); st.Instances != 3 || st.Failing != 2 {
		t.Errorf("%+v", st)
	}
	if n := r.failing(time.Now().Add(time.Hour)); n != 0 {
		t.Errorf("%d of those that are gone fail", n)
	}
}

// Whoever reports in another language learns what is wrong with its JSON.
func TestABadReportSaysWhy(t *testing.T) {
	r := newRig(t, nil)
	for body, want := range map[string]string{
		"[": "unexpected end of JSON", `{"target": "checkout"}`: "write service@scope", `{"service.instance.id": 5}`: "service.instance.id", `{}`: "service.instance.id are needed",
		`{"target": "checkout@prod", "service.instance.id": "a"}`: "READY, STALE, ERROR or NOT_READY",
	} {
		if p := decode[api.Problem](t, r.expect(400, r.do(http.MethodPost, "/v1/instances", body))); !strings.Contains(p.Detail, want) || p.Hint == "" {
			t.Errorf("%s: %+v", body, p)
		}
	}
	r.expect(413, r.do(http.MethodPost, "/v1/instances", strings.Repeat(" ", 2<<20)))
	for _, kind := range []string{"text/plain", "application/x-www-form-urlencoded", ""} {
		if p := decode[api.Problem](t, r.expect(415, r.do(http.MethodPost, "/v1/instances", "{}", "Content-Type", kind))); !strings.Contains(p.Hint, "Content-Type: application/json") {
			t.Errorf("%q: %+v", kind, p)
		}
	}
	r.get(400, "/v1/changes?service=X")
}

// A token reports for its own services and scopes, and what it makes up is shown
// as what it is: reported, by whom, and not what the log proves.
func TestATokenReportsForItself(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	client := func(name, service, scope string) string {
		return fmt.Sprintf("  - {name: %s, token: %q, services: [%s], scopes: [%s]}\n", name, api.DigestOf([]byte(name)), service, scope)
	}
	r.push(map[string]string{"clients.yaml": "clients:\n" + client("eu", "checkout", "prod/eu-west-1") + client("all", "checkout", "prod")})
	post := func(status int, token, target, id string, more string) {
		t.Helper()
		body := fmt.Sprintf(`{"target": %q, "service.instance.id": %q, "sealstone.state": "READY"%s}`, target, id, more)
		r.expect(status, r.do(http.MethodPost, "/v1/instances", body, "Authorization", "Bearer "+token))
	}
	post(401, "stranger", "checkout@prod", "a", "")
	post(403, "eu", "payments@prod/eu-west-1", "a", "")
	post(403, "eu", "checkout@prod", "a", "")
	post(403, "eu", "checkout@prod/us-east-1", "a", "")
	post(204, "eu", "checkout@prod/eu-west-1/canary", "a", "")
	lie := api.DigestOf([]byte("never built"))
	for i := range 10_000 {
		post(204, "eu", "checkout@prod/eu-west-1", fmt.Sprint("made-up-", i), fmt.Sprintf(`, "sealstone.bundle.digest": %q`, lie))
	}
	post(204, "all", "checkout@prod", "real", "")
	auth := []string{"Authorization", "Bearer all"}
	var eu api.LiveScope
	for _, sc := range decode[api.Live](t, r.get(200, "/v1/live?service=checkout", auth...)).Services[0].Scopes {
		if sc.Scope == "prod/eu-west-1" {
			eu = sc
		}
	}
	if len(eu.Counts) != 1 || eu.Counts[0].Instances != 10_000 || eu.Counts[0].Drift[0] != "runs a bundle the log never named" || eu.Proven.Bundle == lie || len(eu.Instances) > pageInstances {
		t.Errorf("%+v, %d instances listed", eu.Counts, len(eu.Instances))
	}
	one := decode[api.Live](t, r.get(200, "/v1/live?instance=made-up-7", auth...)).Services[0].Scopes[0].Instances[0]
	if one.Client != "eu" || one.Drift[0] != "runs a bundle the log never named" {
		t.Errorf("%+v", one)
	}
}

// A restart knows what it knew.
func TestInstancesOutliveARestart(t *testing.T) {
	r := newRig(t, nil)
	path := r.dir + "/instances.db"
	keep := func(c *Config) {
		var err error
		if c.Instances, err = instances.Open(path, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	_ = r.store.Close()
	_ = r.cfg.Source.Close()
	r.open(r.url, keep)
	r.sync()
	r.reportOne(204, "prod", "a", nil)
	if err := r.cfg.Instances.Close(time.Now()); err != nil {
		t.Fatal(err)
	}
	_ = r.store.Close()
	_ = r.cfg.Source.Close()
	r.open(r.url, keep)
	if got := r.scope("prod").Instances; len(got) != 1 || got[0].ID != "a" || got[0].Lease != "live" || got[0].State != api.StateReady {
		t.Errorf("%+v", got)
	}
	if err := r.cfg.Instances.Close(time.Now()); err != nil {
		t.Fatal(err)
	}
}

// A page may be empty, however many instances report.
func TestLivePageOfNone(t *testing.T) {
	p := &page{}
	for _, id := range []string{"a", "b", "c"} {
		p.offer(&instances.Row{ID: id, Facts: &instances.Facts{Target: api.Target{Service: "checkout", Scope: "prod"}}})
	}
	if next := p.finish(); next != "" || len(p.rows) != 0 {
		t.Errorf("next %q, %d rows", next, len(p.rows))
	}
}
