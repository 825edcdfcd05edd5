package server

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"strings"
	"testing"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/gittest"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
)

var demand = map[string]string{"sealstone.yaml": shop["sealstone.yaml"] + "source: {require_signed: true}\n"}

// next commits changed files, signed by key unless that is nil, and returns
// what a round says.
func (r *rig) next(change map[string]string, key ed25519.PrivateKey) (string, error) {
	r.t.Helper()
	var commit string
	commit, r.files = gittest.Next(r.t, r.repo, r.files, change)
	if key != nil {
		commit = gittest.Sign(r.t, r.repo, key)
	}
	return commit, r.Reconcile(context.Background())
}

func (r *rig) accepts(change map[string]string, key ed25519.PrivateKey) string {
	r.t.Helper()
	commit, err := r.next(change, key)
	if err != nil {
		r.t.Fatal(err)
	}
	return commit
}

func (r *rig) refuses(why string, change map[string]string, key ed25519.PrivateKey) {
	r.t.Helper()
	before, size, files := r.Status().Source.Tip, r.store.Snapshot().Tree.Size, r.files
	head, _ := r.repo.Reference(gittest.Branch, true)
	commit, err := r.next(change, key)
	if err == nil || !strings.Contains(err.Error(), "E_UNSIGNED") || !strings.Contains(err.Error(), why) {
		r.t.Errorf("err = %v, want %q", err, why)
	}
	if err := r.Reconcile(context.Background()); err == nil {
		r.t.Error("taken on the second look")
	}
	if st := r.Status().Source; st.Tip != before || st.Unsigned != commit {
		r.t.Errorf("status %+v", st)
	}
	if got := r.kinds()[size:]; len(got) != 1 || got[0] != "source.refused" {
		r.t.Errorf("recorded %q", got)
	}
	r.files = files // the branch goes back, as after somebody mended it
	setBranch(r.t, r.repo, head.Hash())
}

func (r *rig) detail(index int64) map[string]any {
	r.t.Helper()
	rec := decode[api.Record](r.t, r.get(200, fmt.Sprintf("/v1/changes/%d", index)))
	return rec.Detail
}

func TestADemandForSignaturesHoldsForWhatFollows(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	good, stranger := r.f.OperatorKey, r.f.Key("stranger")
	r.refuses("has no signature", demand, nil)
	if d := r.detail(4); !strings.Contains(d["reason"].(string), "E_UNSIGNED") {
		t.Errorf("detail %v", d)
	}
	r.accepts(demand, good)
	r.refuses("has no signature", map[string]string{"services/checkout/config/http.yaml": "timeout: 31\n"}, nil)
	r.refuses("which no operator has", map[string]string{"services/checkout/config/http.yaml": "timeout: 32\n"}, stranger)
	r.refuses("has no signature", map[string]string{"sealstone.yaml": shop["sealstone.yaml"]}, nil)

	commit := r.accepts(map[string]string{"services/checkout/config/http.yaml": "timeout: 33\n"}, good)
	last := r.store.Snapshot().Tree.Size - 1
	if d := r.detail(last); d["signer"] != ledgertest.OperatorID || !strings.HasPrefix(d["signerKey"].(string), "SHA256:") || d["tip"] != commit {
		t.Errorf("detail %v", d)
	}
	r.restart(r.url)
	r.refuses("has no signature", map[string]string{"sealstone.yaml": shop["sealstone.yaml"]}, nil)
	if st := r.Status(); st.Source.Unsigned == "" || st.Source.Tip != commit {
		t.Errorf("status %+v", st.Source)
	}
	r.accepts(map[string]string{"sealstone.yaml": shop["sealstone.yaml"]}, good)
	r.accepts(map[string]string{"README.md": "signed or not"}, nil)
	if st := r.Status(); st.Source.Unsigned != "" {
		t.Errorf("status %+v", st.Source)
	}
}

func TestABranchAloneBringsNoKeys(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	good, second, eve := r.f.OperatorKey, r.f.Key("second"), r.f.Key("eve")
	r.accepts(demand, good)
	old := map[string]string{"operators.yaml": r.files["operators.yaml"], "operators.sig": r.files["operators.sig"]}
	set := func(version int, key ed25519.PrivateKey) map[string]string {
		yaml := strings.Replace(strings.Replace(old["operators.yaml"], "version: 1", fmt.Sprintf("version: %d", version), 1), ledgertest.SSHLine(good), ledgertest.SSHLine(key), 1)
		op := ledger.Operator{ID: "bea", Keys: []string{ledgertest.SSHLine(key)}, May: []ledger.Grant{ledgertest.Everything()}}
		return map[string]string{"operators.yaml": yaml, "operators.sig": string(r.f.SignOperators(version, []byte(yaml), op)) + "\n"}
	}
	forged := set(2, eve)
	r.refuses("which no operator has", map[string]string{"operators.yaml": forged["operators.yaml"]}, eve)
	forged["operators.sig"] = string(ledgertest.For(t, "other.example.com").SignOperators(2, []byte(forged["operators.yaml"]))) + "\n"
	r.refuses("which no operator has", forged, eve)

	r.refuses("which no operator has", set(2, second), good) // whom the new set drops
	r.accepts(set(2, second), second)
	r.refuses("which no operator has", map[string]string{"README.md": "x"}, good)
	r.refuses("which no operator has", old, good) // an old set again
	r.accepts(map[string]string{"README.md": "y"}, second)
}

func TestReleasesAreSignedWhenTheyArePromoted(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	good := r.f.OperatorKey
	pin := func(release string) map[string]string {
		return map[string]string{"activations/checkout.yaml": "service: checkout\nactivations:\n  - scope: staging\n    release: latest\n  - scope: prod\n    release: " + release + "\n"}
	}
	unsigned := r.accepts(map[string]string{"services/checkout/config/http.yaml": "timeout: 31\n"}, nil)
	signed := r.accepts(map[string]string{"services/checkout/config/http.yaml": "timeout: 32\n"}, good)
	r.accepts(map[string]string{"services/checkout/config/http.yaml": "timeout: 33\n"}, nil)
	r.accepts(gittest.With(demand, pin(signed)), good)
	last := r.store.Snapshot().Tree.Size - 1
	if c, err := r.store.Change(last); err != nil || c.Data.Release.Commit != signed || c.Data.Scope != "prod" {
		t.Fatalf("%+v, %v", c.Data, err)
	}
	if d := r.detail(last); d["releaseSigner"] != ledgertest.OperatorID {
		t.Errorf("detail %v", d)
	}
	size := len(r.kinds())
	r.accepts(pin(unsigned), good)
	wantKinds(t, r, size, "bundle.rejected checkout")
	if st := r.Status(); len(st.Rejected) != 1 || !strings.HasPrefix(st.Rejected[0].Faults[0], "activations/checkout.yaml:5:5: E_UNSIGNED") {
		t.Errorf("%+v", st.Rejected)
	}
	r.accepts(pin(signed), good)

	second := r.f.Key("second") // the old signer leaves; what runs goes on
	yaml := strings.Replace(strings.Replace(r.files["operators.yaml"], "version: 1", "version: 2", 1), ledgertest.SSHLine(good), ledgertest.SSHLine(second), 1)
	op := ledger.Operator{ID: "bea", Keys: []string{ledgertest.SSHLine(second)}, May: []ledger.Grant{ledgertest.Everything()}}
	r.accepts(map[string]string{"operators.yaml": yaml, "operators.sig": string(r.f.SignOperators(2, []byte(yaml), op)) + "\n"}, second)
	if st := r.Status(); len(st.Rejected) != 0 {
		t.Errorf("%+v", st.Rejected)
	}
}

func TestAnUnsignedRewriteIsNotLetThrough(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	accepted := r.accepts(demand, r.f.OperatorKey)
	h := gittest.CommitOn(t, r.repo, gittest.With(r.files, map[string]string{"README.md": "x"}))
	setBranch(t, r.repo, h)
	if err := r.Reconcile(context.Background()); err == nil || !strings.Contains(err.Error(), "rewritten") {
		t.Fatal(err)
	}
	r.send(200, r.f.Statement(ledger.SourceAccepted, "", "", func(s *ledger.Statement) { s.From, s.To = accepted, h.String() }))
	if err := r.Reconcile(context.Background()); err == nil || !strings.Contains(err.Error(), "E_UNSIGNED") {
		t.Fatal(err)
	}
}

func TestAFirstTipThatDemandsSignaturesIsHeldToIt(t *testing.T) {
	r := newRig(t, nil)
	first, err := r.next(demand, nil)
	if err == nil || !strings.Contains(err.Error(), "E_UNSIGNED") {
		t.Fatal(err)
	}
	wantKinds(t, r, 0, "ledger.created", "source.refused")
	if c, err := r.store.Change(1); err != nil || c.Data.From != strings.Repeat("0", 40) || c.Data.To != first {
		t.Errorf("%+v, %v", c, err)
	}
	r.accepts(map[string]string{"README.md": "x"}, r.f.OperatorKey)
	wantKinds(t, r, 2, "operators.changed", "bundle.activated checkout@prod", "bundle.activated checkout@staging")
}

func TestLevelsOnlyGrowAtTheEnd(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	tip := r.Status().Source.Tip
	turned := strings.Replace(shop["sealstone.yaml"], "[env, region, pool]", "[env, pool, region]", 1)
	if _, err := r.next(map[string]string{"sealstone.yaml": turned}, nil); err == nil || !strings.Contains(err.Error(), `sealstone.yaml:2:15: E_LEVELS level 2 was "region"`) {
		t.Errorf("err = %v", err)
	}
	r.restart(r.url)
	if err := r.Reconcile(context.Background()); err == nil || r.Status().Source.Tip != tip {
		t.Errorf("taken after a restart: %v", err)
	}
	r.accepts(map[string]string{"sealstone.yaml": strings.Replace(shop["sealstone.yaml"], "pool]", "pool, host]", 1)}, nil)
}

// What the server overlooks at the root would silently not be in force.
func TestTheRootIsReadStrictly(t *testing.T) {
	for name, c := range map[string]struct {
		change map[string]string
		want   string // "" when the tip is taken and status says why a part is not
	}{
		"a near miss":            {map[string]string{"sealstone.yml": "x"}, "E_FILE_NEAR_MISS"},
		"clients, misspelt":      {map[string]string{"client.yaml": "x"}, "E_FILE_NEAR_MISS"},
		"clients in a folder":    {map[string]string{"clients.yaml/a": "x"}, ""},
		"clients as a link":      {map[string]string{"clients.yaml@link": "x"}, ""},
		"clients as a module":    {map[string]string{"clients.yaml@module": "x"}, ""},
		"operators in a folder":  {map[string]string{"operators.yaml": "", "operators.yaml/a": "x"}, ""},
		"the layout in a folder": {map[string]string{"sealstone.yaml": "", "sealstone.yaml/a": "x"}, "E_SEALSTONE_MISSING"},
		"activations as a file":  {map[string]string{"activations/checkout.yaml": "", "activations": "x"}, "E_FILE_UNKNOWN"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.sync()
			_, err := r.next(c.change, nil)
			st := r.Status().Source
			if c.want == "" && (err != nil || st.Clients+st.Operators == "") || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("err = %v, status %+v", err, st)
			}
		})
	}
}
