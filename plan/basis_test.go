package plan_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/plan"
)

// What a server says runs is what a plan compares with, where the base comes
// after it; what it says that makes no sense is noted, and shown harmless.
func TestWhatAServerSays(t *testing.T) {
	const limits = "services/payments/config/http.yaml"
	// Commits 0 and 1 are newHistory's; 2, 3 and 4 set writeMs to 2000, 3000, 4000.
	for name, c := range map[string]struct {
		base int
		opt  func(h *history, o *plan.Options)
		want []string
	}{
		"it accepted the base": {3, func(h *history, o *plan.Options) { o.Accepted = h.commits[3] },
			[]string{"writeMs  3000 → 4000", "payments  staging  changes"}},
		"it is behind": {3, func(h *history, o *plan.Options) { o.Accepted = h.commits[2] },
			[]string{"writeMs  2000 → 4000", "which the server accepted last, not with", "accepted by the server"}},
		"it went on": {2, func(h *history, o *plan.Options) { o.Accepted = h.commits[3] },
			[]string{"writeMs  2000 → 4000", "does not contain: merge the main branch"}},
		"it went on beyond the head": {3, func(h *history, o *plan.Options) { o.Accepted = h.commits[4] },
			[]string{"writeMs  3000 → 4000", "which contains the head: this is what merging it changed"}},
		"it has a commit that this clone has not": {3, func(_ *history, o *plan.Options) { o.Accepted = strings.Repeat("ab", 20) },
			[]string{"writeMs  3000 → 4000", "the server accepted abababababab, which is not in this clone: fetch"}},
		"it names no commit": {3, func(_ *history, o *plan.Options) { o.Accepted = "\x1b[31m--all" },
			[]string{"writeMs  3000 → 4000", `the server accepted \u001b[31m--all, which is not in this clone`}},
		"it took nothing of a service": {3, func(h *history, o *plan.Options) { o.Accepted, o.Rejected = h.commits[3], []string{"payments"} },
			[]string{"writeMs  2000 → 4000", "payments: compared with "}},
		"it proves another set": {3, func(h *history, o *plan.Options) {
			o.Accepted, o.Live = h.commits[3], proven(h.set(2, "staging"), h.commits[2])
		}, []string{"writeMs  2000 → 4000"}},
		"it proves a set of an unknown release": {3, func(h *history, o *plan.Options) {
			o.Accepted, o.Live = h.commits[3], proven(h.set(2, "staging"), strings.Repeat("ab", 20))
		}, []string{"writeMs  3000 → 4000", "of release abababababab, which can't be built here"}},
		"it proves what is no digest": {3, func(h *history, o *plan.Options) {
			o.Accepted, o.Live = h.commits[3], proven("\x1b[31m", "HEAD")
		}, []string{"writeMs  3000 → 4000", "of release HEAD, which can't be built here"}},
		"it counts instances": {3, func(h *history, o *plan.Options) {
			o.Accepted, o.Live = h.commits[3], proven(h.set(3, "staging"), h.commits[3])
		}, []string{"RUNNING", "payments  staging  changes", "  2\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHistory(t)
			for _, ms := range []string{"2000", "3000", "4000"} {
				h.files[limits] = strings.NewReplacer("writeMs: 15000", "writeMs: "+ms, "writeMs: 2000", "writeMs: "+ms, "writeMs: 3000", "writeMs: "+ms).Replace(h.files[limits])
				h.commit(nil)
			}
			var opt plan.Options
			c.opt(h, &opt)
			p := h.between(h.commits[c.base], h.last(), opt)
			var b strings.Builder
			p.WriteText(&b)
			for _, want := range c.want {
				if !strings.Contains(strings.ReplaceAll(b.String(), "\n    ", " "), want) && !strings.Contains(b.String(), want) {
					t.Errorf("no %q in\n%s", want, b.String())
				}
			}
			if strings.ContainsRune(b.String()+p.Markdown(), '\x1b') {
				t.Error("an escape of the server's reaches a terminal")
			}
		})
	}
}

// set is what payments builds to at a scope of a commit.
func (h *history) set(commit int, scope api.Scope) api.Digest {
	h.t.Helper()
	b, err := h.b.Rebuild(h.t.Context(), h.commits[commit], "payments", scope)
	if err != nil {
		h.t.Fatal(err)
	}
	return b.Digest
}

func proven(set api.Digest, release string) *api.Live {
	in := api.LiveInstance{Instance: api.Instance{Target: api.Target{Service: "payments", Scope: "staging"}}, Lease: "live"}
	return &api.Live{Services: []api.LiveService{{Service: "payments", Scopes: []api.LiveScope{
		{Scope: "staging", Proven: &api.Proven{Set: set, Release: release}, Instances: []api.LiveInstance{in, in}}}}}}
}

// A head lists 256 chains of a service, those that are withdrawn among them.
func TestTooManyChains(t *testing.T) {
	for n, refused := range map[int]bool{253: false, 254: true} { // beside prod and staging
		h := newHistory(t)
		h.edit("sealstone.yaml", "scopes:\n", "scopes:\n  - prod/many/*\n")
		before := h.files["activations/payments.yaml"]
		h.edit("activations/payments.yaml", "activations:\n", "activations:\n"+manyScopes(n))
		h.commit(nil)
		h.files["activations/payments.yaml"] = before
		h.edit("activations/payments.yaml", "activations:\n", "activations:\n  - scope: prod/many/other\n    release: latest\n")
		h.commit(nil)
		p := h.plan(plan.Options{})
		found := slices.ContainsFunc(p.Errors, func(f bundler.Fault) bool { return f.Rule == "E_TOO_MANY_CHAINS" })
		if found != refused || (p.Verdict == plan.Refused) != refused {
			t.Errorf("%d scopes: %s, %v", n, p.Verdict, p.Errors)
		}
	}
}

// A plan refuses what the server would: sets that no safe-mode change could list.
func TestSafeModesTooWide(t *testing.T) {
	for n, refused := range map[int]bool{300: false, 600: true} {
		h := newHistory(t)
		h.edit("sealstone.yaml", "scopes:\n", "scopes:\n  - staging/*\n")
		for i := range n {
			h.files[fmt.Sprintf("services/payments/overlays/staging/r%d/config/http.yaml", i)] = "timeouts: {writeMs: 1234}\n"
		}
		h.commit(nil)
		p := h.plan(plan.Options{})
		faults := slices.DeleteFunc(slices.Clone(p.Errors), func(f bundler.Fault) bool { return f.Rule != "E_LIMIT_SAFE_MODE" })
		if (len(faults) == 1) != refused || len(faults) > 1 || (p.Verdict == plan.Refused) != refused {
			t.Errorf("%d scopes: %s, %v", n, p.Verdict, p.Errors)
		}
	}
}

func manyScopes(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "  - scope: prod/many/p%d\n    release: latest\n", i)
	}
	return b.String()
}
