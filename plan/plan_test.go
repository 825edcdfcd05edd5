package plan_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/internal/gittest"
	"github.com/sealstone/sealstone/plan"
)

// A history is the shop with commits that change it, one idea each.
type history struct {
	t       *testing.T
	repo    *git.Repository
	b       *bundler.Builder
	files   map[string]string
	commits []string
}

func newHistory(t *testing.T) *history {
	t.Helper()
	h := &history{t: t, repo: gittest.New(t), files: map[string]string{}}
	h.b = bundler.New(bundler.NewRepo(h.repo))
	err := fs.WalkDir(examples.Shop(), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := fs.ReadFile(examples.Shop(), path)
		h.files[path] = string(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	h.commit(nil)
	for _, service := range []string{"catalog", "checkout", "payments"} {
		h.edit("activations/"+service+".yaml", `release: latest       # sealstone promote writes a commit here`, "release: "+h.commits[0])
	}
	h.commit(nil)
	return h
}

func (h *history) commit(change map[string]string) string {
	h.t.Helper()
	h.files = gittest.With(h.files, change)
	h.commits = append(h.commits, gittest.Commit(h.t, h.repo, h.files))
	return h.last()
}

func (h *history) commitSaying(message string) {
	h.t.Helper()
	h.commits = append(h.commits, gittest.CommitSaying(h.t, h.repo, h.files, message))
}

func (h *history) last() string { return h.commits[len(h.commits)-1] }

// edit replaces the one place of a file that a pattern matches.
func (h *history) edit(path, old, new string) {
	h.t.Helper()
	if strings.Count(h.files[path], old) != 1 {
		h.t.Fatalf("%s has %q %d times", path, old, strings.Count(h.files[path], old))
	}
	h.files[path] = strings.Replace(h.files[path], old, new, 1)
}

var now = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

func (h *history) plan(opt plan.Options) *plan.Plan {
	h.t.Helper()
	return h.between(h.commits[len(h.commits)-2], h.last(), opt)
}

func (h *history) between(base, head string, opt plan.Options) *plan.Plan {
	h.t.Helper()
	opt.Now = now
	p, err := plan.Make(h.t.Context(), h.b, base, head, opt)
	if err != nil {
		h.t.Fatal(err)
	}
	return p
}

// step is a commit of the history and the plan of it.
type step struct {
	name, message string
	change        func(*history)
	opt           plan.Options
}

const (
	checkoutFlags = "services/checkout/flags/checkout.yaml"
	degraded      = "services/checkout/safe-modes/degraded/"
)

var steps = []step{
	{name: "common", message: "Staff have addresses of their own", change: func(h *history) { h.edit("common/flags/common.yaml", "@shop.example", "@staff.shop.example") }},
	{name: "rollout", message: "A quarter of buyers on one page", change: func(h *history) {
		h.edit(checkoutFlags, "[one-page, 10]", "[one-page, 25]")
		h.edit(checkoutFlags, "[classic, 90]", "[classic, 75]")
	}},
	{name: "warning", message: "Rank by customer", change: func(h *history) {
		h.edit("services/catalog/flags/catalog.yaml", "      fractional:\n", "      fractional:\n        - {var: customer}\n")
	}},
	{name: "promotion", message: "Promote checkout to prod", opt: plan.Options{Live: running(), InForce: []api.Held{}}, change: func(h *history) {
		text, err := bundler.Promote([]byte(h.files["activations/checkout.yaml"]), "prod", h.last(), "")
		if err != nil {
			h.t.Fatal(err)
		}
		h.files["activations/checkout.yaml"] = string(text)
	}},
	{name: "safe-mode", message: "Degraded lets less through", change: func(h *history) {
		h.edit(degraded+"safe-mode.yaml", "ttl: 4h", "ttl: 2h")
		h.edit(degraded+"config/limits.yaml", "perSecond: 300", "perSecond: 200")
	}},
	{name: "withdrawal", message: "Withdraw catalog from prod", opt: plan.Options{LiveError: "can't reach http://127.0.0.1:7460: connection refused"}, change: func(h *history) {
		h.files["activations/catalog.yaml"] = "service: catalog\nactivations:\n  - scope: staging\n    release: latest\n"
	}},
	{name: "bad-file", message: "Raise limits", change: func(h *history) {
		h.files["services/checkout/config/limits.yaml"] = "requests:\n  perSecond: 0644\ncurrency: EUR\n"
		h.edit("services/payments/config/http.yaml", "writeMs: 15000", "writeMs: 20000")
	}},
}

// running is what a server says is live.
func running() *api.Live {
	at := func(scope api.Scope, lease string) api.LiveInstance {
		return api.LiveInstance{Instance: api.Instance{Target: api.Target{Service: "checkout", Scope: scope}}, Lease: lease}
	}
	return &api.Live{Services: []api.LiveService{{Service: "checkout", Scopes: []api.LiveScope{
		{Scope: "prod/eu-west-1", Instances: []api.LiveInstance{at("prod/eu-west-1", "live"), at("prod/eu-west-1/canary", "live"), at("prod/eu-west-1", "gone")}},
		{Scope: "staging", Instances: []api.LiveInstance{at("staging", "live")}},
	}}}}
}

// Every step of the history, as text, Markdown and JSON. SEALSTONE_UPDATE=1
// writes the golden files; docs/plan.md shows some of them.
func TestGoldenPlans(t *testing.T) {
	h := newHistory(t)
	for _, s := range steps {
		s.change(h)
		h.commitSaying(s.message)
		t.Run(s.name, func(t *testing.T) {
			h.t = t
			s.opt.Base, s.opt.Head = "main", "HEAD"
			p := h.plan(s.opt)
			var text strings.Builder
			p.WriteText(&text)
			raw, err := json.MarshalIndent(p, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, s.name+".txt", text.String())
			golden(t, s.name+".md", p.Markdown())
			golden(t, s.name+".json", string(raw)+"\n")
		})
		h.t = t
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("SEALSTONE_UPDATE") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s", path, got)
	}
}

// Tables and lines that are made of several things fit a terminal.
func TestLinesFit(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(paths) < len(steps) {
		t.Fatal(paths, err)
	}
	free := regexp.MustCompile(`^sealstone |E_[A-Z]|W_[A-Z]`) // commands to copy, and faults
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(raw)) {
			if n := len([]rune(strings.TrimRight(line, "\n"))); n > plan.Width && !free.MatchString(line) {
				t.Errorf("%s: %d columns: %s", path, n, line)
			}
		}
	}
}

// has makes a change of one file.
func has(path, text string) func(*history) { return func(h *history) { h.files[path] = text } }

func drop(prefix string) func(*history) {
	return func(h *history) {
		for path := range h.files {
			if strings.HasPrefix(path, prefix) {
				delete(h.files, path)
			}
		}
	}
}

func TestVerdicts(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(*history)
		opt     plan.Options
		verdict plan.Verdict
		text    []string // what the text form has
	}{
		"nothing is served of it": {change: has("README.md", "hello"), verdict: plan.Nothing, text: []string{"NONE  nothing that is served changes", "unchanged: 3 services"}},
		"only pinned scopes": {change: func(h *history) {
			h.edit("services/checkout/overlays/prod/config/limits.yaml", "burst: 4000", "burst: 5000")
		}, verdict: plan.Waits,
			text: []string{"WAITS  nothing goes live; waits for promotion: checkout@prod", "after promotion: checkout prod, prod/eu-west-1, prod/us-east-1 in mode normal"}},
		"a first activation below another": {change: func(h *history) {
			h.edit("activations/checkout.yaml", "activations:\n", "activations:\n  - scope: prod/eu-west-1\n    release: latest\n")
		}, verdict: plan.Changes, text: []string{"checkout  prod/eu-west-1  changes"}},
		"an outer activation takes over": {change: func(h *history) {
			h.edit("activations/catalog.yaml", "  - scope: staging\n    release: latest       # follows the branch\n", "")
			h.edit("activations/checkout.yaml", "  - scope: staging", "  - scope: prod/us-east-1\n    release: latest\n  - scope: staging")
		}, verdict: plan.Destructive, text: []string{"DESTRUCTIVE  withdraws catalog@staging, and nothing takes its place", "catalog   staging         withdrawn!"}},
		"a service retires": {change: has("activations/payments.yaml", "service: payments\nretired: true\n"), verdict: plan.Destructive,
			text: []string{"withdraws payments@prod, payments@staging"}},
		"an activation file vanishes": {change: drop("activations/payments.yaml"), verdict: plan.Refused,
			text: []string{"REFUSED  payments would not go live: 1 error", "activations/payments.yaml: E_ACTIVATION_GONE", "payments  prod     refused"}},
		"a new service": {change: func(h *history) {
			h.files["services/cart/service.yaml"] = "owner: team\n"
			h.files["services/cart/flags/a.yaml"] = "flags: {}\n"
			h.files["activations/cart.yaml"] = "service: cart\nactivations:\n  - scope: staging\n    release: latest\n"
		}, verdict: plan.Changes, text: []string{"goes live: cart@staging", "cart     staging  new    - → "}},
		"the same content of another release": {change: func(h *history) {
			h.edit("activations/payments.yaml", h.commits[0], h.commits[1])
		}, verdict: plan.Changes, text: []string{"payments  prod   moves  afdd6abc8ea2"}},
		"a mode goes while it is in force": {change: drop("services/checkout/safe-modes/"), verdict: plan.Refused,
			opt:  plan.Options{Live: running(), InForce: []api.Held{{Service: "checkout", Scope: "staging", Mode: "degraded"}}},
			text: []string{"E_MODE_IN_FORCE", "is in force at staging, and nothing would have it there", "RUNNING"}},
		"a fault beside what goes live": {change: func(h *history) {
			h.files["services/stray.txt"] = "x\n"
			h.edit("services/catalog/config/search.yaml", "cacheSeconds: 60", "cacheSeconds: 7")
		}, verdict: plan.Changes, text: []string{"catalog@staging"}},
		"what a safe mode says": {change: func(h *history) {
			h.edit("services/checkout/safe-modes/degraded/safe-mode.yaml", "ttl: 4h", "ttl: 13h")
		}, verdict: plan.Changes, text: []string{"checkout  prod     waits  5d5e9002d381  ", "checkout  staging  moves", "checkout degraded: changed", "ttl 4h0m0s → 13h0m0s"}},
		"what a safe mode says where all scopes are pinned": {change: func(h *history) {
			h.files["activations/checkout.yaml"] = "service: checkout\nactivations:\n  - scope: prod\n    release: " + h.commits[0] + "\n"
			h.commit(nil)
			h.edit("services/checkout/safe-modes/degraded/safe-mode.yaml", "ttl: 4h", "ttl: 5m")
		}, verdict: plan.Waits, text: []string{"WAITS  nothing goes live; waits for promotion: checkout@prod\n", "checkout degraded: changed (after promotion)\n    ttl 4h0m0s → 5m0s\n", "sealstone promote checkout --to prod\n"}},
		"the demand for signatures": {change: func(h *history) {
			h.files["sealstone.yaml"] += "source: {require_signed: false}\n"
		}, verdict: plan.Changes, text: []string{"sealstone.yaml"}},
		"who may do what":   {change: has("clients.yaml", "clients: []\n"), verdict: plan.Changes, text: []string{"CHANGES  who may do what changes: everybody"}},
		"no sealstone.yaml": {change: drop("sealstone.yaml"), verdict: plan.Refused, text: []string{"E_SEALSTONE_MISSING", "catalog   prod     refused"}},
		"a fault that only a promotion would meet": {change: func(h *history) {
			h.files["activations/payments.yaml"] = "service: payments\nactivations:\n  - scope: prod\n    release: " + h.commits[0] + "\n"
			h.commit(nil)
			h.edit("services/payments/config/http.yaml", "writeMs: 15000", "writeMs: fast")
		}, verdict: plan.Nothing, text: []string{"nothing that is served changes; 1 error that the server passes over"}},
		"lines that are no contexts": {change: func(h *history) {
			h.files["tests/contexts/checkout.jsonl"] = "{\"flag\": 1, \"context\": {}}\n" + h.files["tests/contexts/checkout.jsonl"]
			h.edit(checkoutFlags, "[one-page, 10]", "[one-page, 20]")
		}, verdict: plan.Changes, text: []string{"tests/contexts/checkout.jsonl:1:2: E_CONTEXTS", "evaluated: 7 recorded contexts"}},
		"a context that asks for all flags": {change: func(h *history) {
			h.files["tests/contexts/checkout.jsonl"] = `{"context": {"targetingKey": "guest-2"}}`
			h.edit(checkoutFlags, "[one-page, 10]", "[one-page, 10000]")
		}, verdict: plan.Changes, text: []string{"flag checkout-flow  2 of 3 contexts:  classic → one-page  tests/contexts/checkout.jsonl:1"}},
		"no contexts": {change: func(h *history) {
			delete(h.files, "tests/contexts/checkout.jsonl")
			h.edit(checkoutFlags, "[one-page, 10]", "[one-page, 20]")
		}, verdict: plan.Changes, text: []string{"flags of checkout change, and no context is recorded in tests/contexts/checkout.jsonl"}},
		"what common sets for prod alone": {change: func(h *history) {
			h.edit("common/overlays/prod/config/telemetry.yaml", "samplePercent: 5", "samplePercent: 7")
		}, verdict: plan.Waits, text: []string{"config/telemetry  changed through common/\n  ~ traces.samplePercent  5 → 7  common/overlays/prod/config/telemetry.yaml:2"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHistory(t)
			c.change(h)
			h.commit(nil)
			p := h.plan(c.opt)
			var b strings.Builder
			p.WriteText(&b)
			if p.Verdict != c.verdict {
				t.Errorf("verdict %s, want %s\n%s", p.Verdict, c.verdict, b.String())
			}
			for _, want := range c.text {
				if !strings.Contains(b.String(), want) {
					t.Errorf("no %q in\n%s", want, b.String())
				}
			}
		})
	}
}

// A base that a server refused, in whole or for one service, is not what runs.
func TestARefusedBaseIsNotWhatRuns(t *testing.T) {
	const limits, bad = "services/payments/config/http.yaml", "services/payments/config/bad.yaml"
	for name, c := range map[string]struct{ path, text string }{
		"a near miss at the root": {"sealstone.yml", "a: 1\n"},
		"a bad file of a service": {bad, "a: 0x1F\n"},
		"no sealstone.yaml":       {"sealstone.yaml", ""},
		"a vanished activation":   {"activations/payments.yaml", ""},
		"a bad activation file":   {"activations/payments.yaml", "service: payments\nactivations: 5\n"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHistory(t)
			good := h.files[c.path]
			h.edit(limits, "writeMs: 15000", "writeMs: 7000")
			h.commit(map[string]string{c.path: c.text})
			if c.text == "" {
				h.files = gittest.With(h.files, map[string]string{c.path: ""})
			}
			h.commit(map[string]string{"README.md": "still bad"})
			h.commit(map[string]string{c.path: good})
			p := h.plan(plan.Options{})
			var b strings.Builder
			p.WriteText(&b)
			if p.Verdict != plan.Changes || !strings.Contains(b.String(), "writeMs  15000 → 7000") || !strings.Contains(b.String(), "ompared with "+h.commits[1][:12]) {
				t.Errorf("%s", b.String())
			}
		})
	}
}

// What costs the tip, a service or nothing is what the server says.
func TestWhatErrorsCost(t *testing.T) {
	for name, c := range map[string]struct {
		change map[string]string
		want   string
	}{
		"nothing": {map[string]string{"services/stray.txt": "x"}, "CHANGES  goes live: payments@staging; waits for promotion: payments@prod; 1 error that the server passes over"},
		"the tip": {map[string]string{"sealstone.yml": "a: 1\n"}, "REFUSED  nothing of it goes live: 1 error, everything stays as it is"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHistory(t)
			h.edit("services/payments/config/http.yaml", "writeMs: 15000", "writeMs: 7000")
			h.commit(c.change)
			p := h.plan(plan.Options{})
			if got := strings.ToUpper(string(p.Verdict)) + "  " + p.Summary; got != c.want || p.Whole && len(p.Items) > 0 {
				t.Errorf("%s, %d items", got, len(p.Items))
			}
		})
	}
}

func TestAnEmptyBaseMakesEverythingNew(t *testing.T) {
	h := newHistory(t)
	p := h.between("", h.commits[0], plan.Options{})
	if p.Verdict != plan.Changes || len(p.Sets) != 6 || p.Sets[0].State != plan.SetNew || p.Sets[0].Old != nil {
		t.Errorf("%s %+v", p.Verdict, p.Sets)
	}
}

func TestACommitPlannedAgainstItselfIsEmpty(t *testing.T) {
	h := newHistory(t)
	if p := h.between(h.last(), h.last(), plan.Options{}); p.Verdict != plan.Nothing || len(p.Sets)+len(p.Items)+len(p.Warnings) > 0 {
		t.Errorf("%+v", p)
	}
}

// Going there and back says the same of what goes live, the other way round.
func TestAPlanTurnsRound(t *testing.T) {
	h := newHistory(t)
	for _, s := range steps[:2] {
		s.change(h)
	}
	h.commit(nil)
	there, back := h.plan(plan.Options{}), h.between(h.last(), h.commits[len(h.commits)-2], plan.Options{})
	were := map[string]plan.Set{}
	for _, s := range there.Sets {
		were[s.Service+string(s.Scope)] = s
	}
	for _, s := range back.Sets {
		if was := were[s.Service+string(s.Scope)]; s.Old.Set != was.New.Set || s.New.Set != was.Old.Set {
			t.Errorf("%+v and %+v", was, s)
		}
	}
	if len(back.Sets) != 3 || len(there.Items) != len(back.Items) {
		t.Errorf("%d and %d items, %d sets", len(there.Items), len(back.Items), len(back.Sets))
	}
}

func TestHostileContentStaysInCodeBlocks(t *testing.T) {
	h := newHistory(t)
	h.edit("services/catalog/overlays/prod/config/search.yaml", "cacheSeconds: 300", "cacheSeconds: 300\nboost:\n  \"```@team <img>|\\u202e\\n# x\": 5")
	h.commit(nil)
	md := h.plan(plan.Options{}).Markdown()
	if !strings.HasPrefix(md, plan.Marker+"\n") {
		t.Errorf("begins with %.60q", md)
	}
	inside := false
	for line := range strings.Lines(md) {
		fence := strings.HasPrefix(line, "```")
		if fence {
			inside = !inside
		}
		if !inside && !fence && (strings.Contains(line, "@team") || strings.Contains(line, "img")) || strings.Contains(line, "\u202e") {
			t.Errorf("%q stands free", line)
		}
	}
	if inside || !strings.Contains(md, "@team") {
		t.Errorf("a block does not end, or nothing is shown:\n%s", md)
	}
}

func TestMarkdownIsCut(t *testing.T) {
	h := newHistory(t)
	var flags strings.Builder
	flags.WriteString("flags:\n")
	for i := range 1500 {
		fmt.Fprintf(&flags, "  flag-%04d: {state: ENABLED, variants: {on: true, off: false}, defaultVariant: on}\n", i)
	}
	h.files["services/catalog/flags/many.yaml"] = flags.String()
	h.commit(nil)
	p := h.plan(plan.Options{})
	md := p.Markdown()
	if len(md) > plan.MaxMarkdown || len(md) < plan.MaxMarkdown/2 {
		t.Errorf("%d bytes", len(md))
	}
	for _, want := range []string{"more lines. All of it: `sealstone plan --base " + p.Base.Commit, "<summary>to promote</summary>", "unchanged: 2 services"} {
		if !strings.Contains(md, want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Count(md, "<details") != strings.Count(md, "</details>") || strings.Count(md, "```")%2 != 0 {
		t.Error("something is left open")
	}
}

func TestEditedPlansAPromotion(t *testing.T) {
	h := newHistory(t)
	steps[1].change(h)
	h.commit(nil)
	tip, _ := h.b.Tip(t.Context(), h.last())
	text, err := bundler.Promote([]byte(h.files["activations/checkout.yaml"]), "prod", h.last(), "")
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.Edited(t.Context(), h.b, tip, "checkout", text, plan.Options{Now: now})
	if err != nil || p.Verdict != plan.Changes || len(p.Sets) != 1 || p.Sets[0].Scope != "prod" || len(p.Items) != 1 {
		t.Errorf("%+v %v", p, err)
	}
}
