package integration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/integration/proctest"
	"github.com/sealstone/sealstone/sdk"
)

// serviceEnv makes this test binary a service that runs the SDK until its
// standard input ends: one that can be killed.
const serviceEnv = "SEALSTONE_TEST_SERVICE"

// childConfig is what such a service is told.
type childConfig struct {
	Servers              []string
	Target, Trust, Cache string
	Instance             sdk.Instance
	ReportEvery          time.Duration
}

func runService(config string) error {
	var cfg childConfig
	if err := json.Unmarshal([]byte(config), &cfg); err != nil {
		return err
	}
	c, err := sdk.Open(context.Background(), sdk.Config{Servers: cfg.Servers, Target: cfg.Target, Trust: cfg.Trust, Cache: cfg.Cache,
		Instance: cfg.Instance, ReportEvery: cfg.ReportEvery, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

var (
	shopServices = []string{"catalog", "checkout", "payments"}
	shopRegions  = []api.Scope{"prod/eu-west-1", "prod/us-east-1"}
	shopImage    = string(api.DigestOf([]byte("image")))
	shopBase     = string(api.DigestOf([]byte("base image")))
)

// moment is a time between two steps, with what was true then.
type moment struct {
	name    string
	at      string
	proven  map[string]api.Proven // by target
	running map[string]api.Digest // bundles by instance, those that are gone left out
	express map[string]string     // what eval says, by target
}

// day is a day in the life of the shop: a server, services, and moments.
type day struct {
	t       *testing.T
	r       *proctest.Rig
	s       *proctest.Server
	sbom    string
	moments []moment
}

// Three services in two regions, through a day: deploys, flips, promotes, a safe
// mode, an instance that dies, one that is cut off, a promotion that is refused.
// Every question has its answer at each step, and the same one when it is asked
// about that time later.
func TestWhatIsLiveThroughADay(t *testing.T) {
	t.Parallel()
	d := newDay(t)
	for _, service := range shopServices {
		for _, region := range shopRegions {
			openSDK(t, d.config(service, region, "1"))
		}
	}
	victim := d.child(d.config("checkout", "prod/eu-west-1", "victim"))
	d.note("start", 7)
	d.deploys()
	d.flips()
	d.promotes()
	d.entersSafeMode()
	d.cutsOff()
	d.kills(victim)
	d.isRefused()
	d.scrapes()
	for _, m := range d.moments {
		d.asksAgain(m)
	}
	d.asksForHistory()
}

func newDay(t *testing.T) *day {
	t.Helper()
	r := proctest.New(t, examples.Shop())
	for _, service := range shopServices {
		r.OK("promote", service, "--to", "prod", "--dir", r.Work)
	}
	d := &day{t: t, r: r, sbom: filepath.Join(r.Dir, "sbom.cdx.json")}
	proctest.WriteFile(t, d.sbom, `{"bomFormat":"CycloneDX"}`, 0o644)
	tip := r.Push("Pin prod")
	lease := "6s"
	if proctest.Race() { // slower in all it does
		lease = "20s"
	}
	d.s = r.Serve("--lease", lease)
	d.s.UntilTip(tip)
	return d
}

// config is a service's instance that reports often.
func (d *day) config(service string, scope api.Scope, n string) sdk.Config {
	cfg := sdkConfig(d.t, d.r, service+"@"+string(scope), d.s.URL)
	cfg.ReportEvery = 100 * time.Millisecond
	cfg.Instance = sdk.Instance{ID: fmt.Sprintf("%s-%s-%s", service, scope[len("prod/"):], n), Version: "1.4.0", Image: shopImage, BaseImage: shopBase,
		SBOM: string(api.DigestOf([]byte(proctest.ReadFile(d.t, d.sbom))))}
	return cfg
}

// child starts a service as a process of its own.
func (d *day) child(cfg sdk.Config) *exec.Cmd {
	d.t.Helper()
	config, err := json.Marshal(childConfig{cfg.Servers, cfg.Target, cfg.Trust, cfg.Cache, cfg.Instance, cfg.ReportEvery})
	if err != nil {
		d.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serviceEnv+"="+string(config))
	if _, err := cmd.StdinPipe(); err != nil { // it ends with us
		d.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func (d *day) live(args ...string) api.Live {
	d.t.Helper()
	return decode[api.Live](d.t, d.s.OK(append([]string{"live", "--instances", "1000", "-o", "json"}, args...)...))
}

// scope finds a target in an answer.
func (d *day) scope(live api.Live, target string) *api.LiveScope {
	d.t.Helper()
	for _, s := range live.Services {
		for i, sc := range s.Scopes {
			if s.Service+"@"+string(sc.Scope) == target {
				return &s.Scopes[i]
			}
		}
	}
	d.t.Fatalf("nothing about %s", target)
	return nil
}

// alive are the instances that are not gone, with their bundles.
func alive(live api.Live) map[string]api.Digest {
	out := map[string]api.Digest{}
	for _, s := range live.Services {
		for _, sc := range s.Scopes {
			for _, in := range sc.Instances {
				if in.Lease != "gone" {
					out[in.ID] = in.Bundle
				}
			}
		}
	}
	return out
}

// settled tells whether n instances are alive and run what is proven.
func settled(live api.Live, n int) bool {
	for _, s := range live.Services {
		for _, sc := range s.Scopes {
			for _, in := range sc.Instances {
				if in.Lease == "live" && in.State != api.StateNotReady && in.Bundle == sc.Proven.Bundle {
					n--
				}
			}
		}
	}
	return n == 0
}

// note waits until n instances run what is proven, and keeps the moment.
func (d *day) note(name string, n int) {
	d.t.Helper()
	var live api.Live
	proctest.Until(d.t, name+" to be live", func() bool { live = d.live(); return settled(live, n) })
	m := moment{name: name, at: live.Time, proven: map[string]api.Proven{}, running: alive(live), express: map[string]string{}}
	for _, service := range shopServices {
		for _, region := range shopRegions {
			target := service + "@" + string(region)
			m.proven[target] = *d.scope(live, target).Proven
		}
	}
	for _, region := range shopRegions {
		target := "checkout@" + string(region)
		m.express[target] = d.eval(target)
	}
	d.moments = append(d.moments, m)
}

func (d *day) eval(target string, args ...string) string {
	d.t.Helper()
	return d.s.OK(append([]string{"eval", "express-checkout", "--target", target, "-o", "jsonl"}, args...)...)
}

func (d *day) last() moment { return d.moments[len(d.moments)-1] }

// wants holds what a command prints against expressions.
func (d *day) wants(out string, patterns ...string) {
	d.t.Helper()
	for _, p := range patterns {
		if !regexp.MustCompile(`(?m)` + p).MatchString(out) {
			d.t.Errorf("nothing like %s in\n%s", p, out)
		}
	}
}

// deploys records a deploy with an SBOM, and finds who runs what it made.
func (d *day) deploys() {
	d.t.Helper()
	d.s.OK("changes", "record", "deploy.finished", "--service", "checkout", "--scope", "prod", "--version", "1.4.0", "--image", shopImage, "--base-image", shopBase, "--sbom", d.sbom)
	sbom := string(api.DigestOf([]byte(proctest.ReadFile(d.t, d.sbom))))
	d.wants(d.s.OK("changes", "--kind", "deploy.finished", "-o", "json"), `"sbom": "`+sbom+`"`)
	d.wants(d.s.OK("live", "--instance", "checkout-eu-west-1-1"), `^sbom +`+sbom+`$`, `^base image +`+shopBase+`$`, `^version +1\.4\.0$`)
	images := d.s.OK("live", "images", "--base", shopBase)
	d.wants(images, `^checkout@prod/eu-west-1 +2 +1\.4\.0`, `^checkout@prod/us-east-1 +1 +1\.4\.0`, `^payments@prod/us-east-1 +1`)
	proctest.Until(d.t, "the lists of dependencies", func() bool {
		return strings.Contains(d.s.OK("live", "deps", "stdlib", "--below", "v99.0.0", "--service", "checkout"), "pkg:golang/stdlib@v")
	})
	d.note("deploy", 7)
}

// flips a flag: staging follows the branch, prod is pinned.
func (d *day) flips() {
	d.t.Helper()
	expressOn(d.r, true)
	d.s.UntilTip(d.r.Push("Turn express checkout on"))
	d.wants(d.eval("checkout@staging"), `"value":true`)
	d.wants(d.s.OK("live", "flags", "checkout@staging"), `^express-checkout +ENABLED +on .* Ada Editor .* Turn express checko…$`)
	d.note("flip", 7)
	d.wants(d.last().express["checkout@prod/us-east-1"], `"value":false`)
}

func (d *day) promotes() {
	d.t.Helper()
	d.r.OK("promote", "checkout", "--to", "prod", "--dir", d.r.Work)
	d.s.UntilTip(d.r.Push("Promote checkout"))
	d.note("promote", 7)
	for _, region := range shopRegions {
		d.wants(d.last().express["checkout@"+string(region)], `"value":true`)
	}
	before, after := d.moments[len(d.moments)-2], d.last()
	d.wants(d.s.OK("diff", "checkout@prod/us-east-1~"+before.at, "checkout@prod/us-east-1~"+after.at), `^flag express-checkout +changed$`, `defaultVariant +"off" → "on"$`)
	d.wants(d.s.OK("live", "--instance", "checkout-us-east-1-1"), `^FROM +TO +MODE`, ` normal +`+before.proven["checkout@prod/us-east-1"].Bundle.Hex()[:12])
}

func (d *day) entersSafeMode() {
	d.t.Helper()
	receipt(d.t, d.s, "safe-mode", "enter", "checkout", "degraded", "--scope", "prod/eu-west-1", "--reason", "INC-123")
	d.note("safe mode", 7)
	if eu, us := d.last().proven["checkout@prod/eu-west-1"].Mode, d.last().proven["checkout@prod/us-east-1"].Mode; eu != "degraded" || us != api.ModeNormal {
		d.t.Errorf("modes %s, %s", eu, us)
	}
}

// cutsOff leaves an instance with nothing but its cache: what it reports gets
// through, and nothing comes back.
func (d *day) cutsOff() {
	d.t.Helper()
	server, err := url.Parse(d.s.URL)
	if err != nil {
		d.t.Fatal(err)
	}
	through := httputil.NewSingleHostReverseProxy(server)
	wall := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			http.Error(w, "cut off", http.StatusServiceUnavailable)
			return
		}
		through.ServeHTTP(w, r)
	}))
	d.t.Cleanup(wall.Close)
	cfg := d.config("checkout", "prod/us-east-1", "stale")
	every := cfg.ReportEvery
	cfg.ReportEvery = -1
	c, err := sdk.Open(d.t.Context(), cfg)
	if err != nil {
		d.t.Fatal(err)
	}
	c.Close()
	cfg.ReportEvery, cfg.Servers, cfg.StartWait = every, []string{wall.URL}, 50*time.Millisecond
	openSDK(d.t, cfg)
	proctest.Until(d.t, "the stale instance", func() bool {
		return strings.Contains(d.s.OK("live", "checkout"), "state STALE")
	})
	d.note("stale", 8)
}

func (d *day) kills(victim *exec.Cmd) {
	d.t.Helper()
	proctest.Until(d.t, "its last word, after the moment before", func() bool {
		for _, in := range d.scope(d.live("checkout"), "checkout@prod/eu-west-1").Instances {
			if in.ID == "checkout-eu-west-1-victim" {
				return in.LastSeen > d.last().at
			}
		}
		return false
	})
	if err := victim.Process.Kill(); err != nil { // kill -9
		d.t.Fatal(err)
	}
	proctest.Until(d.t, "the killed instance to be gone", func() bool {
		return strings.Contains(d.s.OK("live", "--instance", "checkout-eu-west-1-victim"), "READY, gone")
	})
	d.note("kill", 7)
	d.wants(d.s.OK("live", "checkout", "--drift"), `^  checkout-eu-west-1-victim .*\n    ! silent since `, `^checkout@prod/eu-west-1 .*\n  ! 1 of 2 instances differ$`)
	if res := d.s.CLI("live", "checkout", "--exit-code"); res.Code != 2 {
		d.t.Errorf("live --exit-code ends with %d", res.Code)
	}
}

// isRefused pins catalog to a release that isn't the one the reviewer saw, and
// lets somebody run what nobody activated: pinned, active and running differ.
func (d *day) isRefused() {
	d.t.Helper()
	d.r.Edit(catalogHTTP, `(?s)readMs: \d+`, "readMs: 1234")
	release := d.r.Push("Wait less")
	d.r.Edit("activations/catalog.yaml", `release: [0-9a-f]{40}`, "release: "+release)
	d.s.UntilTip(d.r.Push("Promote something else"))
	active := d.last().proven["catalog@prod/eu-west-1"]
	res, err := http.Post(d.s.URL+"/v1/instances", "application/json", strings.NewReader(
		`{"target":"catalog@prod/eu-west-1","service.instance.id":"catalog-odd","sealstone.state":"READY","sealstone.bundle.digest":"`+string(api.DigestOf([]byte("odd")))+`"}`))
	if err != nil || res.Body.Close() != nil || res.StatusCode >= 300 {
		d.t.Fatal(res, err)
	}
	out := d.s.OK("live", "catalog")
	d.wants(out, `^catalog@prod/eu-west-1 .*\n  ! 1 of 2 instances differ\n  ! .*rejected\n  ! pinned to `+release[:12]+`, active is `+active.Release[:12]+`$`,
		`^  catalog-odd .*\n    ! runs a bundle the log never named$`, `^catalog@prod/us-east-1 (.*\n  !)+ pinned to `+release[:12])
	if strings.Contains(d.s.OK("live", "payments"), "pinned to") {
		d.t.Error("payments is not where it is pinned")
	}
}

// asksAgain asks about a time that is over.
func (d *day) asksAgain(m moment) {
	d.t.Helper()
	for target, want := range m.express {
		if got := d.eval(target, "--at", m.at); got != want {
			d.t.Errorf("%s: %s evaluates to %s, then %s", m.name, target, got, want)
		}
	}
	past := d.live("--at", m.at)
	for target, want := range m.proven {
		if got := *d.scope(past, target).Proven; got != want {
			d.t.Errorf("%s: %s had %+v, then %+v", m.name, target, got, want)
		}
	}
	if got := alive(past); !maps.Equal(got, m.running) {
		d.t.Errorf("%s: ran %v, asked later %v", m.name, m.running, got)
	}
}

// asksForHistory finds each moment in what was in effect from when to when.
func (d *day) asksForHistory() {
	d.t.Helper()
	for target, kinds := range map[string][]string{
		"checkout@prod/eu-west-1": {"safe-mode.entered", "bundle.activated", "bundle.activated"},
		"checkout@prod/us-east-1": {"bundle.activated", "bundle.activated"},
		"payments@prod/us-east-1": {"bundle.activated"},
	} {
		h := decode[api.History](d.t, d.s.OK("history", target, "-o", "json"))
		var got []string
		for _, i := range h.Intervals {
			got = append(got, i.Kind)
		}
		if !slices.Equal(got, kinds) {
			d.t.Errorf("history %s: %v", target, got)
		}
		for _, m := range d.moments {
			n := slices.IndexFunc(h.Intervals, func(i api.Interval) bool { return i.From <= m.at && (i.To == "" || m.at < i.To) })
			if n < 0 || h.Intervals[n].Bundle != m.proven[target].Bundle || h.Intervals[n].Index != m.proven[target].Index {
				d.t.Errorf("%s: history %s has interval %d", m.name, target, n)
			}
		}
	}
}

// scrapes looks at it with other people's tools.
func (d *day) scrapes() {
	d.t.Helper()
	bundle := d.last().proven["checkout@prod/eu-west-1"].Bundle.Hex()[:12]
	d.wants(string(d.s.Get("/metrics")),
		`^sealstone_live_info\{artifact="[0-9a-f]{12}",bundle="`+bundle+`",mode="degraded",scope="prod/eu-west-1",service="checkout"\} 1$`,
		`^sealstone_instances\{lease="gone",scope="prod/eu-west-1",service="checkout",state="READY"\} 1$`,
		`^sealstone_instances\{lease="live",scope="prod/us-east-1",service="checkout",state="STALE"\} 1$`,
		`^sealstone_drift\{kind="silent",scope="prod/eu-west-1",service="checkout"\} 1$`,
		`^sealstone_drift\{kind="stale",scope="prod/us-east-1",service="checkout"\} 1$`,
		`^sealstone_drift\{kind="unknown-bundle",scope="prod/eu-west-1",service="catalog"\} 1$`,
		`^sealstone_safe_mode\{mode="degraded",scope="prod/eu-west-1",service="checkout"\} 1$`,
		`^sealstone_bundle_activated_timestamp_seconds\{scope="prod",service="payments",set="[0-9a-f]{12}"\} 1\.`,
		`^sealstone_bundle_rejected\{service="catalog"\} 1$`)
	var notes []api.Annotation
	d.s.JSON("/v1/annotations?tags=service:checkout", &notes)
	var titles []string
	for _, n := range notes {
		titles = append(titles, n.Title)
	}
	want := []string{"safe-mode.entered checkout@prod/eu-west-1", "bundle.activated checkout@prod", "bundle.activated checkout@staging",
		"deploy.finished checkout@prod", "bundle.activated checkout@staging", "bundle.activated checkout@prod"}
	if !slices.Equal(titles, want) {
		d.t.Errorf("annotations %q", titles)
	}
}
