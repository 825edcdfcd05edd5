package plan_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/plan"
)

// sshKey is a public key of 32 bytes that are all the same.
func sshKey(b byte) string {
	wire := "\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20" + strings.Repeat(string(rune(b)), 32)
	return "ssh-ed25519 " + base64.StdEncoding.EncodeToString([]byte(wire))
}

// signed are operators.yaml and a signature file that is for it.
func (h *history) signed(operators string) {
	raw, _ := json.Marshal(map[string]string{"sha256": string(api.DigestOf([]byte(operators)))})
	h.files["operators.yaml"] = operators
	h.files["operators.sig"] = fmt.Sprintf(`{"payload":%q}`, base64.StdEncoding.EncodeToString(raw))
}

func token(c string) string { return "sha256:" + strings.Repeat(c, 64) }

var (
	operatorsBefore = `version: 3
operators:
  - id: ada
    name: Ada Operator
    keys: ["` + sshKey('a') + ` ada@desk"]
    may:
      - {do: [record], services: ["*"], scopes: [prod, staging]}
  - id: ci
    keys: ["` + sshKey('c') + `"]
    may:
      - {do: [record], services: ["*"], scopes: ["*"]}
  - id: gone
    keys: ["` + sshKey('g') + `"]
    may:
      - {do: [safe-mode], services: [checkout], scopes: [prod]}
`
	operatorsAfter = `version: 4
operators:
  - id: ci
    keys: ["` + sshKey('d') + `"]
    may:
      - {do: [record], services: [checkout, payments], scopes: [staging]}
  - id: ada
    name: Ada Operator
    keys: ["` + sshKey('a') + ` ada@laptop"]
    may:
      - {do: [record, safe-mode, erase], services: ["*"], scopes: [prod]}
      - {do: [record], services: ["*"], scopes: [staging]}
  - id: sre
    keys: ["` + sshKey('s') + `"]
    may:
      - {do: [source], services: ["*"], scopes: ["*"]}
`
	clientsBefore = `clients:
  - {name: edge, token: "` + token("1") + `", services: [checkout], scopes: [prod]}
  - {name: audit, token: "` + token("2") + `", services: ["*"], scopes: ["*"], log: true}
`
	clientsAfter = `clients:
  - name: edge
    token: "` + token("3") + `"
    services: [checkout, catalog]
    scopes: [prod]
    log: true
  - {name: audit, token: "` + token("2") + `", services: ["*"], scopes: ["*"], log: true}
`
)

func withAccess(t *testing.T) *history {
	h := newHistory(t)
	h.signed(operatorsBefore)
	h.files["clients.yaml"] = clientsBefore
	h.commit(nil)
	return h
}

// Who gains or loses what, as text, Markdown and JSON.
func TestGoldenAccess(t *testing.T) {
	h := withAccess(t)
	h.signed(operatorsAfter)
	h.files["clients.yaml"] = clientsAfter
	h.edit("sealstone.yaml", "  - prod/eu-west-1\n", "  - prod/eu-west-1\n  - prod/eu-west-1/canary\n")
	h.edit("services/checkout/overlays/prod/config/limits.yaml", "burst: 4000", "burst: 5000")
	h.commitSaying("Hand the pager over")
	p := h.plan(plan.Options{Base: "main", Head: "HEAD"})
	var text strings.Builder
	p.WriteText(&text)
	raw, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "access.txt", text.String())
	golden(t, "access.md", p.Markdown())
	golden(t, "access.json", string(raw)+"\n")
}

func TestAccess(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*history)
		want   []string // in the text, in this order
		not    string
	}{
		"a wider grant makes a narrower one no news": {func(h *history) {
			h.signed(strings.Replace(operatorsBefore, "scopes: [prod, staging]", "scopes: [prod, staging, prod/eu-west-1]", 1))
		}, []string{"operator ada  changed", `+ may  record on *@prod/eu-west-1  (was allowed before)  operators.yaml:7`}, "- may"},
		"written differently": {func(h *history) { h.signed("# reviewed\n" + operatorsBefore) },
			[]string{"CHANGES  who may do what changes: operators.yaml, operators.sig", "operators.yaml  changed\n    written differently, says the same\n    its version is not a higher one: servers keep the operators that they have\noperators.sig  changed\n"}, "operator "},
		"not signed": {func(h *history) { h.files["operators.yaml"] = operatorsAfter },
			[]string{"E_OPERATORS_SIGNATURE", "WHO MAY DO WHAT", "operator gone  removed"}, ""},
		"not readable": {func(h *history) { h.signed("version: 4\noperators: nobody\n") },
			[]string{"operators.yaml  changed\n    it can't be used as it is: what is in force stays"}, "removed"},
		"no longer there": {func(h *history) { delete(h.files, "clients.yaml") },
			[]string{"who may do what changes: everybody, 2 clients\n", "clients.yaml  removed\n    a server that listens on a network without --open-reads lets nobody read\n  + everybody  may read everything, the log too\nclient edge  removed\n  - token  sha256:111111111111  was clients.yaml:2"}, ""},
		"nobody listed": {func(h *history) { h.files["clients.yaml"] = "clients: []\n" },
			[]string{"clients.yaml  changed\n    it lists no client: nobody may read, unless a server has --open-reads\nclient edge  removed\n"}, "everybody"},
		"beside a service that is refused": {func(h *history) {
			h.files["clients.yaml"] = clientsAfter
			h.files["services/payments/config/http.yaml"] = "a: 0x1F\n"
		}, []string{"REFUSED  payments would not go live: ", "the last good set stays;\n    who may do what changes: 1 client"}, ""},
		"a demand": {func(h *history) { h.files["sealstone.yaml"] += "source: {require_signed: true}\n" },
			[]string{"sealstone.yaml  changed\n  ~ source.require_signed  false → true  sealstone.yaml:"}, ""},
		"more than can be listed": {func(h *history) {
			var many []string
			for i := range 200 {
				many = append(many, fmt.Sprintf("s%d", i))
			}
			list := strings.Join(many, ", ")
			h.signed(strings.Replace(operatorsBefore, `services: ["*"], scopes: [prod, staging]`, "services: ["+list+"], scopes: ["+list+"]", 1))
		}, []string{"+ may  40000 things, too many to list (sha256:", "- may  record on *@prod"}, ""},
		"a client whose name is markup": {func(h *history) {
			h.files["clients.yaml"] = strings.Replace(clientsBefore, "name: edge", `name: "</details>@team\u202e"`, 1)
		}, []string{"CHANGES  who may do what changes: 2 clients\n", `client </details>@team\u202e  added`}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			h := withAccess(t)
			c.change(h)
			h.commit(nil)
			p := h.plan(plan.Options{})
			var b strings.Builder
			p.WriteText(&b)
			text := b.String()
			for _, want := range c.want {
				i := strings.Index(text, want)
				if i < 0 {
					t.Fatalf("no %q in\n%s", want, b.String())
				}
				text = text[i:]
			}
			if c.not != "" && strings.Contains(b.String(), c.not) {
				t.Errorf("%q in\n%s", c.not, b.String())
			}
		})
	}
}

// The first clients.yaml takes from everybody what it does not give.
func TestFirstClients(t *testing.T) {
	for clients, want := range map[string]string{
		clientsBefore:     "clients.yaml  added\n  - everybody  may read everything, the log too\nclient edge  added\n",
		"clients: []\n":   "clients.yaml  added\n    it lists no client: nobody may read, unless a server has --open-reads\n  - everybody  may read everything, the log too\n",
		"clients: many\n": "clients.yaml  added\n    it can't be used as it is: what is in force stays\n",
	} {
		h := newHistory(t)
		h.commit(map[string]string{"clients.yaml": clients})
		var b strings.Builder
		h.plan(plan.Options{}).WriteText(&b)
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}
