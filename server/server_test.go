package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/gittest"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

// shop is the smallest repository with everything that a server reads.
var shop = map[string]string{
	"sealstone.yaml":                                             "version: 1\nlevels: [env, region, pool]\nscopes: [staging, prod, prod/eu-west-1, prod/us-east-1]\n",
	"services/checkout/service.yaml":                             "owner: team-checkout\nschemas:\n  config/http: none\n",
	"services/checkout/config/http.yaml":                         "timeout: 30\n",
	"services/checkout/flags/checkout.yaml":                      "flags:\n  express:\n    state: ENABLED\n    variants: {on: true, off: false}\n    defaultVariant: off\n",
	"services/checkout/overlays/prod/eu-west-1/config/http.yaml": "timeout: 40\n",
	"services/checkout/safe-modes/degraded/safe-mode.yaml":       "description: less\nowner: team-checkout\nttl: 4h\n",
	"services/checkout/safe-modes/degraded/config/http.yaml":     "timeout: 5\n",
	"activations/checkout.yaml":                                  "service: checkout\nactivations:\n  - scope: staging\n    release: latest\n  - scope: prod\n    release: latest\n",
}

// rig is a server over a real store and a real repository on disk.
type rig struct {
	*Server
	t     testing.TB
	f     *ledgertest.Fixture
	repo  *git.Repository
	files map[string]string
	dir   string
	url   string
	ahead time.Duration // of the store's clock
}

func newRig(t testing.TB, edit func(*Config)) *rig {
	t.Helper()
	r := &rig{t: t, f: ledgertest.New(t), dir: t.TempDir()}
	r.files = map[string]string{"operators.yaml": string(r.f.OperatorsYAML), "operators.sig": string(r.f.OperatorsSig) + "\n"}
	for k, v := range shop {
		r.files[k] = v
	}
	r.url = filepath.Join(r.dir, "repo.git")
	var err error
	if r.repo, err = git.PlainInitWithOptions(r.url, &git.PlainInitOptions{Bare: true, InitOptions: git.InitOptions{DefaultBranch: gittest.Branch}}); err != nil {
		t.Fatal(err)
	}
	gittest.Commit(t, r.repo, r.files)
	if err := store.Init(r.storeConfig()); err != nil {
		t.Fatal(err)
	}
	r.open(r.url, edit)
	return r
}

func (r *rig) storeConfig() store.Config {
	return store.Config{Dir: filepath.Join(r.dir, "data"), Log: r.f.Log, Node: r.f.Node, Trust: r.f.Trust,
		Now: func() time.Time { return time.Now().Add(r.ahead) }}
}

// open starts a server on what the disk holds.
func (r *rig) open(url string, edit func(*Config)) {
	r.t.Helper()
	st, err := store.Open(r.storeConfig())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = st.Close() })
	src, err := bundler.OpenSource(bundler.SourceConfig{URL: url, Branch: "main", Dir: filepath.Join(r.dir, "git")})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = src.Close() })
	cfg := Config{Store: st, Source: src, Branch: "main", Logger: slog.New(slog.DiscardHandler), Version: "test"}
	if edit != nil {
		edit(&cfg)
	}
	if r.Server, err = New(cfg); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) restart(url string) {
	r.t.Helper()
	if err := r.store.Close(); err != nil {
		r.t.Fatal(err)
	}
	_ = r.cfg.Source.Close()
	r.open(url, nil)
}

func (r *rig) sync() {
	r.t.Helper()
	if err := r.Reconcile(context.Background()); err != nil {
		r.t.Fatal(err)
	}
}

// push commits changed files and lets the server read them.
func (r *rig) push(change map[string]string) string {
	r.t.Helper()
	var commit string
	commit, r.files = gittest.Next(r.t, r.repo, r.files, change)
	r.sync()
	return commit
}

func (r *rig) do(method, path, body string, header ...string) *http.Response {
	r.t.Helper()
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	return w.Result()
}

// get expects a status and returns the body.
func (r *rig) get(status int, path string, header ...string) []byte {
	r.t.Helper()
	return r.expect(status, r.do(http.MethodGet, path, "", header...))
}

func (r *rig) expect(status int, res *http.Response) []byte {
	r.t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	if res.StatusCode != status {
		r.t.Fatalf("status %d, want %d: %s", res.StatusCode, status, b)
	}
	return b
}

func decode[T any](t testing.TB, b []byte) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return v
}

// prove verifies the evidence of checkout as a client does.
func (r *rig) prove(known *ledger.Known) *ledger.Proven {
	r.t.Helper()
	path := "/v1/evidence?service=checkout"
	if known != nil {
		path += "&from=" + strconv.FormatInt(known.Tree.Size, 10)
	}
	e := decode[ledger.Evidence](r.t, r.get(200, path))
	p, err := r.f.Trust.Prove(&e, "checkout", known)
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func (r *rig) send(status int, st *ledger.Signed) []byte {
	r.t.Helper()
	return r.expect(status, r.do(http.MethodPost, "/v1/changes", string(st.Raw)))
}

func (r *rig) kinds() []string {
	r.t.Helper()
	var out []string
	for i := range r.store.Snapshot().Tree.Size {
		c, err := r.store.Change(i)
		if err != nil {
			r.t.Fatal(err)
		}
		out = append(out, strings.TrimSpace(string(c.Kind())+" "+c.Subject))
	}
	return out
}

func wantKinds(t *testing.T, r *rig, from int, want ...string) {
	t.Helper()
	got := r.kinds()[from:]
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Fatalf("log has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestATipIsOneUnitOfOperatorsThenActivations(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	wantKinds(t, r, 0, "ledger.created", "operators.changed", "bundle.activated checkout@prod", "bundle.activated checkout@staging")
	r.sync()
	if n := r.store.Snapshot().Tree.Size; n != 4 {
		t.Fatalf("the same tip again appended: size %d", n)
	}
	p := r.prove(nil)
	if e, ok := ledger.InEffect(p.Chains, "prod/eu-west-1"); !ok || e.Main.Scope != "prod" || e.Mode != api.ModeNormal {
		t.Fatalf("in effect: %+v, %v", e, ok)
	}
}

func TestOnlyWhatChangedIsActivated(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	r.push(map[string]string{"README.md": "words"})
	wantKinds(t, r, 4)
	first := r.store.Snapshot().State.ServiceChains("checkout")
	r.push(map[string]string{"services/checkout/flags/checkout.yaml": strings.Replace(shop["services/checkout/flags/checkout.yaml"], "defaultVariant: off", "defaultVariant: on", 1)})
	wantKinds(t, r, 4, "bundle.activated checkout@prod", "bundle.activated checkout@staging")
	c, err := r.store.Change(4)
	if err != nil {
		t.Fatal(err)
	}
	if c.Data.Replaces != first[0].Set.Digest || c.Data.Release.Skipped != 0 {
		t.Errorf("replaces %s, skipped %d", c.Data.Replaces, c.Data.Release.Skipped)
	}
}

func TestAPinStaysAndItsMoveIsAChange(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	head, err := r.repo.Head()
	if err != nil {
		t.Fatal(err)
	}
	pin := "service: checkout\nactivations:\n  - scope: staging\n    release: latest\n  - scope: prod\n    release: " + head.Hash().String() + "\n"
	r.push(map[string]string{"activations/checkout.yaml": pin})
	r.push(map[string]string{"services/checkout/config/http.yaml": "timeout: 31\n"})
	wantKinds(t, r, 4, "bundle.activated checkout@staging")
}

func TestABadFileKeepsTheLastGoodSetAndIsRecordedOnce(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	before := r.prove(nil)
	r.push(map[string]string{"services/checkout/config/http.yaml": "timeout: 0644\n"})
	wantKinds(t, r, 4, "bundle.rejected checkout")
	r.push(map[string]string{"README.md": "still bad"})
	wantKinds(t, r, 4, "bundle.rejected checkout")
	st := decode[api.Status](t, r.get(200, "/v1/status"))
	if len(st.Rejected) != 1 || st.Rejected[0].Total != 1 || !strings.HasPrefix(st.Rejected[0].Faults[0], "services/checkout/config/http.yaml:1:10: E_") {
		t.Errorf("status: %+v", st.Rejected)
	}
	if p := r.prove(before.Known()); p.Chains[0].Set.Digest != before.Chains[0].Set.Digest {
		t.Error("the last good set did not stay")
	}
	r.push(map[string]string{"services/checkout/config/http.yaml": "timeout: 31\n"})
	wantKinds(t, r, 5, "bundle.activated checkout@prod", "bundle.activated checkout@staging")
	if st := r.Status(); len(st.Rejected) != 0 {
		t.Errorf("mended, but still rejected: %+v", st.Rejected)
	}
}

func TestRemovingAnEntryWithdrawsItsChain(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	r.push(map[string]string{"activations/checkout.yaml": "service: checkout\nactivations:\n  - scope: staging\n    release: latest\n"})
	wantKinds(t, r, 4, "bundle.withdrawn checkout@prod")
	b := r.expect(404, r.do(http.MethodPost, "/at/checkout@prod/ofrep/v1/evaluate/flags/express", "{}"))
	if !bytes.Contains(b, []byte("FLAG_NOT_FOUND")) {
		t.Errorf("%s", b)
	}
	r.prove(nil)
}

func TestARewriteIsRefusedAndRecordedOnce(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	old, err := r.repo.Head()
	if err != nil {
		t.Fatal(err)
	}
	h := gittest.CommitOn(t, r.repo, gittest.With(r.files, map[string]string{"services/checkout/config/http.yaml": "timeout: 1\n"}))
	setBranch(t, r.repo, h)
	for range 2 {
		if err := r.Reconcile(context.Background()); err == nil || !strings.Contains(err.Error(), "rewritten") {
			t.Fatalf("err = %v", err)
		}
	}
	wantKinds(t, r, 4, "source.refused")
	c, err := r.store.Change(4)
	if err != nil || c.Data.From != old.Hash().String() || c.Data.To != h.String() {
		t.Errorf("%+v, %v", c.Data, err)
	}
	st := r.f.Statement(ledger.SourceAccepted, "", "", func(s *ledger.Statement) { s.From, s.To = old.Hash().String(), h.String() })
	r.send(200, st)
	r.sync()
	wantKinds(t, r, 5, "source.accepted", "bundle.activated checkout@prod", "bundle.activated checkout@staging")
}

// TestARefusalEndsWithTheBranch: what is said of a rewrite holds while the
// branch has it, and so does the way to let it through.
func TestARefusalEndsWithTheBranch(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	head, err := r.repo.Head()
	if err != nil {
		t.Fatal(err)
	}
	old := head.Hash()
	orphan := gittest.CommitOn(t, r.repo, gittest.With(r.files, map[string]string{"services/checkout/config/http.yaml": "timeout: 1\n"}))
	later := gittest.CommitOn(t, r.repo, gittest.With(r.files, map[string]string{"README.md": "more"}), old)
	accept := func() *ledger.Signed {
		return r.f.Statement(ledger.SourceAccepted, "", "", func(s *ledger.Statement) { s.From, s.To = old.String(), orphan.String() })
	}
	rewrite := func() {
		t.Helper()
		setBranch(t, r.repo, orphan)
		if err := r.Reconcile(context.Background()); err == nil || r.Status().Source.Refused != orphan.String() {
			t.Fatalf("err = %v, status %+v", err, r.Status().Source)
		}
	}
	for _, back := range []plumbing.Hash{old, later} {
		rewrite()
		setBranch(t, r.repo, back)
		r.sync()
		if got := r.Status().Source.Refused; got != "" {
			t.Fatalf("at %s: still refused: %s", back, got)
		}
		if b := r.send(409, accept()); !bytes.Contains(b, []byte("the branch has no rewrite")) {
			t.Errorf("%s", b)
		}
	}
	rewrite()
	if b := r.send(409, accept()); !bytes.Contains(b, []byte("after the accepted "+later.String())) {
		t.Errorf("%s", b)
	}
	wantKinds(t, r, 4, "source.refused", "source.refused", "source.refused")
}

// stopper is a log that holds up who says something.
type stopper struct {
	slog.Handler
	says          string
	reached, goOn chan struct{}
}

func (s *stopper) Enabled(context.Context, slog.Level) bool { return true }

func (s *stopper) Handle(_ context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, s.says) {
		close(s.reached)
		<-s.goOn
	}
	return nil
}

// TestOfTwoRoundsAtOnceNoneAcceptsAnOlderTip: a round that is held up after its
// fetch comes before the next one, or not at all.
func TestOfTwoRoundsAtOnceNoneAcceptsAnOlderTip(t *testing.T) {
	slow := &stopper{slog.DiscardHandler, "clients.yaml is not taken", make(chan struct{}), make(chan struct{})}
	r := newRig(t, func(c *Config) { c.Logger = slog.New(slow) })
	r.sync()
	round := func() <-chan error {
		done := make(chan error, 1)
		go func() { done <- r.Reconcile(t.Context()) }()
		return done
	}
	_, r.files = gittest.Next(t, r.repo, r.files, map[string]string{"clients.yaml": "clients: none\n"})
	first := round()
	await(t, "the first round's warning", slow.reached)
	tip, _ := gittest.Next(t, r.repo, r.files, map[string]string{"clients.yaml": "clients: []\n"})
	second := round()
	for i := 0; i < 200 && len(second) == 0; i++ { // it may overtake, if it can
		time.Sleep(time.Millisecond)
	}
	close(slow.goOn)
	if err := errors.Join(await(t, "the end of the first round", first), await(t, "the end of the second", second)); err != nil {
		t.Error(err)
	}
	if got := r.source.snapshot().now.Commit; got != tip {
		t.Errorf("accepted %s, the branch is at %s", got, tip)
	}
}

func TestARestartServesWithoutGit(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	before := r.prove(nil)
	r.restart(filepath.Join(r.dir, "gone.git"))
	if err := r.Reconcile(context.Background()); err == nil {
		t.Fatal("the source is gone, and a round succeeded")
	}
	after := r.prove(before.Known())
	if after.Tree != before.Tree {
		t.Errorf("tree %v, want %v", after.Tree, before.Tree)
	}
	r.get(200, "/readyz")
	b := r.expect(200, r.do(http.MethodPost, "/at/checkout@prod/ofrep/v1/evaluate/flags/express", `{"context":{"targetingKey":"u"}}`))
	if got := decode[map[string]any](t, b); got["value"] != false || got["variant"] != "off" || got["reason"] != "STATIC" {
		t.Errorf("%s", b)
	}
	r.send(200, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
}

func TestSafeModeIsAnOverrideThatClientsCanProve(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	enter := r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod/eu-west-1", "degraded", 0)
	got := decode[api.Receipt](t, r.send(200, enter))
	if got.Index != 4 || got.Generation != 1 || got.ID != enter.ID {
		t.Fatalf("receipt %+v", got)
	}
	again := decode[api.Receipt](t, r.send(200, enter))
	if again.Index != 4 || !again.Repeated {
		t.Errorf("sent again: %+v", again)
	}
	hinted := strings.Replace(string(enter.Raw), `"keyid":"SHA256:`, `"keyid":"sha256:`, 1)
	if b := r.expect(200, r.do(http.MethodPost, "/v1/changes", hinted)); !bytes.Contains(b, []byte(`"repeated":true`)) {
		t.Errorf("with another key hint: %s", b)
	}
	p := r.prove(nil)
	eu, _ := ledger.InEffect(p.Chains, "prod/eu-west-1/canary")
	us, _ := ledger.InEffect(p.Chains, "prod/us-east-1")
	if eu.Mode != "degraded" || us.Mode != api.ModeNormal {
		t.Errorf("eu %s, us %s", eu.Mode, us.Mode)
	}
	c, err := r.store.Change(4)
	if err != nil || len(c.Data.Resolved) != 1 || c.Data.Resolved[0].Scope != "prod/eu-west-1" || c.Data.Expires == "" {
		t.Errorf("%+v, %v", c.Data.Fields, err)
	}
	r.send(409, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod/eu-west-1", "degraded", 0))
	outer := decode[api.Receipt](t, r.send(200, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0)))
	if len(outer.Narrower) != 1 || outer.Narrower[0].Scope != "prod/eu-west-1" {
		t.Errorf("narrower: %+v", outer.Narrower)
	}
	r.send(200, r.f.SafeMode(ledger.SafeModeExited, "checkout", "prod/eu-west-1", "degraded", 1))
	r.send(422, r.f.SafeMode(ledger.SafeModeExited, "checkout", "prod/eu-west-1", "degraded", 2))
	r.prove(p.Known())
}

func TestStatementsThatAreRefused(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	day := 25 * time.Hour
	cases := map[string]struct {
		status int
		st     *ledger.Signed
	}{
		"a stranger's key": {403, r.f.StatementBy(r.f.Stranger, ledger.NoteAdded, "checkout", "prod", nil)},
		"unknown mode":     {422, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "no-such", 0)},
		"unknown service":  {422, r.f.SafeMode(ledger.SafeModeEntered, "nowhere", "prod", "degraded", 0)},
		"another log":      {422, ledgertest.For(t, "other.example/log").SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0)},
		"too old":          {422, r.f.Statement(ledger.SafeModeEntered, "checkout", "prod", aged(-day))},
		"from the future":  {422, r.f.Statement(ledger.SafeModeEntered, "checkout", "prod", aged(time.Hour))},
		"drill of no mode": {422, r.f.Statement(ledger.SafeModeDrilled, "checkout", "prod", func(s *ledger.Statement) { s.Mode = "no-such" })},
		"exit of nothing":  {422, r.f.SafeMode(ledger.SafeModeExited, "checkout", "prod", "degraded", 0)},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			b := r.expect(c.status, r.do(http.MethodPost, "/v1/changes", string(c.st.Raw)))
			if p := decode[api.Problem](t, b); p.Detail == "" || p.Status != c.status {
				t.Errorf("%s", b)
			}
		})
	}
	note := string(r.f.Statement(ledger.NoteAdded, "checkout", "prod", nil).Raw)
	for _, body := range []string{"", "{}", "[]", `{"statement":{}}`, strings.Repeat("x", 129<<10),
		`{"Statement":` + note + `}`, `{"statement":` + note + `,"statement":` + note + `}`, `{"statement":` + note + `,"Salt":""}`, `{"statement":` + note + `,"x":1}`} {
		if res := r.do(http.MethodPost, "/v1/changes", body); res.StatusCode != 400 && res.StatusCode != 413 {
			t.Errorf("%.20q: status %d", body, res.StatusCode)
		}
	}
	wantKinds(t, r, 4)
}

func aged(by time.Duration) func(*ledger.Statement) {
	return func(st *ledger.Statement) {
		after := int64(0)
		st.Mode, st.TTL, st.OnExpiry, st.After = "degraded", 3600, "hold", &after
		st.Time = api.FormatTime(time.Now().Add(by))
	}
}

func TestAStatementThatLostItsRaceLongAgoIsKeptAsLate(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	old := r.f.Statement(ledger.SafeModeEntered, "checkout", "prod", aged(-time.Hour))
	r.send(200, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
	got := decode[api.Receipt](t, r.send(200, old))
	if !got.Late || got.Kind != "statement.late" {
		t.Errorf("%+v", got)
	}
	if again := decode[api.Receipt](t, r.send(200, old)); !again.Late || again.Index != got.Index {
		t.Errorf("sent again: %+v", again)
	}
	wantKinds(t, r, 4, "safe-mode.entered checkout@prod", "statement.late checkout@prod")
}

// Old statements of one chain that arrive in any order, each sent again until it
// is taken: the log ends where it would have ended in order, nothing is kept as
// late, and a client that has them all runs the same from the first moment on.
func TestStatementsThatArriveInAnyOrderEndTheSame(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	kinds := []ledger.Kind{ledger.SafeModeEntered, ledger.SafeModeRenewed, ledger.SafeModeExited, ledger.SafeModeEntered, ledger.SafeModeExited}
	random, generation := rand.New(rand.NewPCG(1, 2)), int64(0)
	for range 12 {
		var all []*ledger.Signed
		for i, kind := range kinds[:1+random.IntN(len(kinds))] {
			after := generation + int64(i)
			all = append(all, r.f.Statement(kind, "checkout", "prod", func(st *ledger.Statement) {
				aged(-time.Hour + time.Duration(after)*time.Minute)(st)
				if st.After = &after; kind == ledger.SafeModeExited {
					st.TTL, st.OnExpiry = 0, ""
				}
			}))
		}
		last := all[len(all)-1]
		for sent := map[*ledger.Signed]bool{}; len(sent) < len(all); {
			st := all[random.IntN(len(all))]
			status := 409
			if *st.After <= r.chain("prod").Generation {
				status, sent[st] = 200, true
			}
			if b := r.send(status, st); strings.Contains(string(b), string(ledger.StatementLate)) {
				t.Fatalf("kept as late: %s", b)
			}
			wantMode(t, r, all, last)
		}
		generation += int64(len(all))
		if c := r.chain("prod"); c.Generation != generation || c.ID != last.ID {
			t.Fatalf("the chain ends with %+v, want %s at generation %d", c, last.ID, generation)
		}
		if last.Kind != ledger.SafeModeExited {
			r.send(200, r.f.SafeMode(ledger.SafeModeExited, "checkout", "prod", "degraded", generation))
			generation++
		}
	}
}

func (r *rig) chain(scope api.Scope) ledger.Chain {
	c, _ := r.store.Snapshot().State.Chain(ledger.ChainKey{Lane: ledger.LaneOverride, Service: "checkout", Scope: scope})
	return c
}

// wantMode holds what a client does that has all statements to what the last one says.
func wantMode(t *testing.T, r *rig, all []*ledger.Signed, last *ledger.Signed) {
	t.Helper()
	state := r.store.Snapshot().State
	chains := ledger.WithPending(state.ServiceChains("checkout"), "checkout", all, state.Operators, func(api.Mode) bool { return true }, time.Now())
	want := last.Mode
	if last.Kind == ledger.SafeModeExited {
		want = api.ModeNormal
	}
	if e, _ := ledger.InEffect(chains, "prod"); e.Mode != want {
		t.Fatalf("a client that has all runs %q, want %q", e.Mode, want)
	}
}

func TestAPromotionMayNotRemoveAModeInForce(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	r.send(200, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
	r.push(map[string]string{"services/checkout/safe-modes/degraded/safe-mode.yaml": "", "services/checkout/safe-modes/degraded/config/http.yaml": ""})
	wantKinds(t, r, 5, "bundle.rejected checkout")
	if st := r.Status(); len(st.Rejected) != 1 || !strings.Contains(st.Rejected[0].Faults[0], "E_MODE_IN_FORCE") {
		t.Errorf("%+v", st.Rejected)
	}
	r.send(200, r.f.SafeMode(ledger.SafeModeExited, "checkout", "prod", "degraded", 1))
	r.sync()
	wantKinds(t, r, 6, "safe-mode.exited checkout@prod", "bundle.activated checkout@prod", "bundle.activated checkout@staging")
}

func TestAVanishedActivationFileWithdrawsNothing(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	r.push(map[string]string{"activations/checkout.yaml": ""})
	wantKinds(t, r, 4, "bundle.rejected checkout")
	r.push(map[string]string{"activations/checkout.yaml": "service: checkout\nretired: true\n"})
	wantKinds(t, r, 5, "bundle.withdrawn checkout@prod", "bundle.withdrawn checkout@staging")
}

func TestBadOperatorsKeepTheSetInForce(t *testing.T) {
	signed := func(t *testing.T, edit func(f *ledgertest.Fixture), version int) map[string]string {
		f := ledgertest.New(t)
		edit(f)
		yaml := string(f.OperatorsYAML) + "# edited\n"
		op := ledger.Operator{ID: ledgertest.OperatorID, Keys: []string{ledgertest.SSHLine(f.OperatorKey)}, May: []ledger.Grant{ledgertest.Everything()}}
		return map[string]string{"operators.yaml": yaml, "operators.sig": string(f.SignOperators(version, []byte(yaml), op)) + "\n"}
	}
	for name, c := range map[string]struct {
		files map[string]string
		why   string // "" where status need not say
		taken bool
	}{
		"edited after it was signed": {map[string]string{"operators.yaml": string(ledgertest.New(t).OperatorsYAML) + "# edited\n"}, "not over this operators.yaml", false},
		"signed by no root":          {signed(t, func(f *ledgertest.Fixture) { f.Root = f.Operator }, 2), "root signatures", false},
		"signed for another log":     {signed(t, func(f *ledgertest.Fixture) { f.Origin = "other.example/log" }, 2), "signed for log", false},
		"of a version that was":      {signed(t, func(*ledgertest.Fixture) {}, 1), "", false},
		"signed as it must be":       {signed(t, func(*ledgertest.Fixture) {}, 2), "", true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.sync()
			r.push(c.files)
			r.push(map[string]string{"services/checkout/config/http.yaml": "timeout: 31\n"})
			want, in := []string{"bundle.activated checkout@prod", "bundle.activated checkout@staging"}, int64(1)
			if c.taken {
				want, in = append([]string{"operators.changed"}, want...), 2
			}
			wantKinds(t, r, 4, want...)
			if st := r.Status(); int64(st.Operators) != in || !strings.Contains(st.Source.Operators, c.why) || c.taken && st.Source.Operators != "" {
				t.Errorf("operators %d, %q", st.Operators, st.Source.Operators)
			}
			r.send(200, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
		})
	}
}

func TestOCIServesWhatActivationsName(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	tags := decode[struct{ Tags []string }](t, r.get(200, "/v2/checkout/tags/list"))
	want := "prod prod.eu-west-1 prod.eu-west-1_degraded prod_degraded staging staging_degraded"
	if got := strings.Join(tags.Tags, " "); got != want {
		t.Errorf("tags %s, want %s", got, want)
	}
	res := r.do(http.MethodGet, "/v2/checkout/manifests/prod.eu-west-1_degraded", "")
	b := r.expect(200, res)
	digest := api.Digest(res.Header.Get("Docker-Content-Digest"))
	if !digest.Names(b) || res.Header.Get("Content-Type") != "application/vnd.oci.image.manifest.v1+json" {
		t.Errorf("%s %v", digest, res.Header)
	}
	r.get(200, "/v2/checkout/manifests/"+string(digest))
	set := r.store.Snapshot().State.ServiceChains("checkout")[0].Set.Digest
	res = r.do(http.MethodGet, "/v2/checkout/manifests/"+string(set), "")
	r.expect(200, res)
	if got := res.Header.Get("Content-Type"); got != "application/vnd.oci.image.index.v1+json" {
		t.Errorf("set has type %s", got)
	}
	b = r.get(404, "/v2/checkout/blobs/"+string(api.DigestOf([]byte("never"))))
	if !bytes.Contains(b, []byte(`"errors"`)) {
		t.Errorf("%s", b)
	}
	if res := r.do(http.MethodHead, "/v2/checkout/manifests/prod", ""); res.StatusCode != 200 || res.Header.Get("Content-Length") == "" {
		t.Errorf("HEAD: %d %v", res.StatusCode, res.Header)
	}
}

func TestClientsReadOnlyTheirOwn(t *testing.T) {
	token := func(s string) string { return string(api.DigestOf([]byte(s))) }
	r := newRig(t, nil)
	r.push(map[string]string{"clients.yaml": "clients:\n  - name: checkout-eu\n    token: " + `"` + token("eu") + `"` + "\n    services: [checkout]\n    scopes: [prod/eu-west-1]\n" +
		"  - name: auditor\n    token: " + `"` + token("audit") + `"` + "\n    services: [\"*\"]\n    scopes: [\"*\"]\n    log: true\n"})
	r.get(401, "/v1/head?service=checkout")
	r.get(401, "/v1/head?service=checkout", "Authorization", "Bearer wrong")
	r.get(200, "/v1/head?service=checkout", "Authorization", "Bearer eu")
	r.get(403, "/v1/head?service=payments", "Authorization", "Bearer eu")
	r.get(403, "/log/checkpoint", "Authorization", "Bearer eu")
	r.get(200, "/log/checkpoint", "Authorization", "Bearer audit")
	r.get(200, "/v1/changes?service=checkout", "Authorization", "Bearer eu")
	for _, path := range []string{"/v1/changes", "/v1/changes?service=payments", "/v1/changes/0", "/v1/safe-modes?service=payments", "/v2/payments/tags/list"} {
		r.get(403, path, "Authorization", "Bearer eu")
	}
	set := r.inForce("prod")
	for path, who := range map[string]string{"/v2/checkout/manifests/" + string(set): "eu", "/log/tile/0/000.p/1": "audit"} {
		if res := r.do(http.MethodGet, path, "", "Authorization", "Bearer "+who); res.StatusCode != 200 || !strings.HasPrefix(res.Header.Get("Cache-Control"), "private, ") {
			t.Errorf("%s: %d, others may be handed it: %q", path, res.StatusCode, res.Header.Get("Cache-Control"))
		}
	}
	r.get(200, "/v1/trust")
	if res := r.do(http.MethodPost, "/ofrep/v1/evaluate/flags/express", "{}", "X-API-Key", "eu"); res.StatusCode != 200 {
		t.Errorf("the token's own target: %d", res.StatusCode)
	}
	r.expect(403, r.do(http.MethodPost, "/at/checkout@prod/ofrep/v1/evaluate/flags/express", "{}", "X-API-Key", "eu"))
	req := httptest.NewRequest(http.MethodGet, "/v2/", nil)
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	if w.Code != 401 || !strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Basic") {
		t.Errorf("OCI challenge: %d %v", w.Code, w.Header())
	}
	r.restart(filepath.Join(r.dir, "gone.git"))
	r.get(401, "/v1/head?service=checkout")
}

func TestHeadIsTaggedByItsChainLines(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	res := r.do(http.MethodGet, "/v1/head?service=checkout", "")
	if _, err := r.f.Trust.OpenHead(r.expect(200, res)); err != nil {
		t.Fatal(err)
	}
	tag := res.Header.Get("ETag")
	r.expect(304, r.do(http.MethodGet, "/v1/head?service=checkout", "", "If-None-Match", tag))
	done := make(chan *http.Response, 1)
	go func() {
		done <- r.do(http.MethodGet, "/v1/head?service=checkout&wait=60", "", "If-None-Match", tag)
	}()
	r.send(200, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
	if res := await(t, "the answer", done); res.StatusCode != 200 || res.Header.Get("ETag") == tag {
		t.Errorf("wait: %d %s", res.StatusCode, res.Header.Get("ETag"))
	}
	r.get(404, "/v1/head?service=never")
	r.get(400, "/v1/head")
	r.get(400, "/v1/head?service=checkout&wait=61")
}

func TestLiveSetsReportsBesideProof(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	prod := decode[api.Live](t, r.get(200, "/v1/live?service=checkout")).Services[0].Scopes[0]
	if prod.Scope != "prod" || prod.Proven == nil || prod.Proven.Index != 2 {
		t.Fatalf("%+v", prod)
	}
	report := func(bundle api.Digest) string {
		b, _ := json.Marshal(api.Instance{Target: api.Target{Service: "checkout", Scope: "prod"}, ID: "a", Bundle: bundle, Mode: api.ModeNormal, State: api.StateReady, Index: 2})
		return string(b)
	}
	r.expect(204, r.do(http.MethodPost, "/v1/instances", report(prod.Proven.Bundle)))
	if got := decode[api.Live](t, r.get(200, "/v1/live")).Services[0].Scopes[0]; len(got.Instances) != 1 || len(got.Drift) != 0 {
		t.Errorf("agreeing: %+v", got)
	}
	lie := strings.Replace(report(api.DigestOf([]byte("x"))), `"sealstone.mode":"normal"`, `"sealstone.mode":"degraded"`, 1)
	r.expect(204, r.do(http.MethodPost, "/v1/instances", lie))
	got := decode[api.Live](t, r.get(200, "/v1/live")).Services[0].Scopes[0]
	if len(got.Drift) == 0 || !strings.Contains(got.Instances[0].Drift[0], "never named") {
		t.Errorf("unknown bundle: %+v", got)
	}
	if *got.Proven != *prod.Proven || got.Instances[0].Mode != "degraded" || got.Instances[0].Client != "anonymous" {
		t.Errorf("a report is taken for proof, or shown as another: %+v, %+v", got.Proven, got.Instances[0])
	}
	r.expect(400, r.do(http.MethodPost, "/v1/instances", "{}"))
}

func TestARemovedClientsFileOpensNothingToOthers(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Public = true })
	clients := "clients:\n  - name: eu\n    token: \"" + string(api.DigestOf([]byte("eu"))) + "\"\n    services: [checkout]\n    scopes: [prod]\n"
	r.push(map[string]string{"clients.yaml": clients})
	r.get(200, "/v1/status", "Authorization", "Bearer eu")
	r.push(map[string]string{"clients.yaml": "clients: [1\n", "services/checkout/config/http.yaml": "timeout: 31\n"})
	r.get(200, "/v1/status", "Authorization", "Bearer eu")
	if st := r.Status(); st.Source.Clients == "" || len(st.Rejected) != 0 {
		t.Errorf("%+v", st.Source)
	}
	r.push(map[string]string{"clients.yaml": ""})
	r.get(401, "/v1/status")
	r.get(401, "/v1/status", "Authorization", "Bearer eu")
}

func TestAnEditedRowGivesNobodyMoreThanTheCommitSays(t *testing.T) {
	r := newRig(t, nil)
	r.push(map[string]string{"clients.yaml": "clients:\n  - name: eu\n    token: \"" + string(api.DigestOf([]byte("eu"))) + "\"\n    services: [checkout]\n    scopes: [prod]\n"})
	a := r.source.snapshot().now
	a.Clients[0].Log, a.Clients[0].Services = true, []string{"*"}
	row, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.store.Append(t.Context(), func(*ledger.State, time.Time) (store.Decision, error) {
		return store.Decision{Rows: map[string][]byte{acceptedRow: row}}, nil
	}); err != nil {
		t.Fatal(err)
	}
	r.restart(r.url)
	r.get(403, "/log/checkpoint", "Authorization", "Bearer eu")
}

func TestAClientSeesItsOwnServicesOnly(t *testing.T) {
	r := newRig(t, nil)
	r.push(map[string]string{"clients.yaml": "clients:\n  - name: pay\n    token: \"" + string(api.DigestOf([]byte("pay"))) + "\"\n    services: [payments]\n    scopes: [prod]\n"})
	r.send(200, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
	r.push(map[string]string{"services/checkout/config/http.yaml": "{"}) // checkout is rejected
	for _, path := range []string{"/v1/status", "/v1/safe-modes", "/v1/live", "/v1/changes/4"} {
		res := r.do(http.MethodGet, path, "", "Authorization", "Bearer pay")
		b, _ := io.ReadAll(res.Body)
		if bytes.Contains(b, []byte("checkout")) {
			t.Errorf("%s: %s", path, b)
		}
	}
	if st := r.Status(); len(st.SafeModes) != 1 || len(st.Rejected) != 1 {
		t.Errorf("there was nothing to hide: %+v", st)
	}
}

func TestErasureTakesNothingInForceAndNothingOfOthers(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	set, err := r.programs.set(r.store.Snapshot().State.ServiceChains("checkout")[0].Set.Digest)
	if err != nil {
		t.Fatal(err)
	}
	entry, _ := set.Find("prod", api.ModeNormal)
	object := func(service string, scope api.Scope, d api.Digest) *ledger.Signed {
		return r.f.Statement(ledger.ObjectErased, service, scope, func(s *ledger.Statement) { s.Object = d })
	}
	detail := func(service string, scope api.Scope) *ledger.Signed {
		return r.f.Statement(ledger.DetailErased, service, scope, func(s *ledger.Statement) { s.Index = 2 }) // checkout@prod's activation
	}
	r.send(422, detail("payments", "prod"))
	r.send(422, detail("checkout", "staging"))
	r.send(200, detail("checkout", "prod"))
	if b := r.send(422, detail("checkout", "prod")); !strings.Contains(string(b), "nothing to erase") { // a second time
		t.Errorf("%s", b)
	}
	r.send(422, r.f.Statement(ledger.DetailErased, "checkout", "prod", func(s *ledger.Statement) { s.Index = r.store.Snapshot().Tree.Size - 1 })) // has none
	r.send(422, object("checkout", "prod", entry.Digest))
	r.send(422, object("payments", "prod", entry.Digest))
	r.send(422, object("checkout", "prod", api.DigestOf([]byte("never"))))
	was := r.files["services/checkout/config/http.yaml"]
	r.push(map[string]string{"services/checkout/config/http.yaml": "timeout: 99\n"})
	r.send(200, object("checkout", "prod", entry.Digest))
	if b := r.send(422, object("checkout", "prod", entry.Digest)); !strings.Contains(string(b), "was erased already") {
		t.Errorf("%s", b)
	}
	r.get(410, "/v2/checkout/manifests/"+string(entry.Digest))
	before := r.store.Snapshot().State.ServiceChains("checkout")
	r.push(map[string]string{"services/checkout/config/http.yaml": was}) // the leak comes back from Git
	if after := r.store.Snapshot().State.ServiceChains("checkout"); after[0].Set.Digest != before[0].Set.Digest || !strings.Contains(fmt.Sprint(r.Status().Rejected), "E_WITHHELD") {
		t.Errorf("%v", r.Status().Rejected)
	}
}

// What a safe mode says of itself is outside the set, and still goes live by a
// change: once, and with the commit that brings it.
func TestWhatASafeModeSaysGoesLive(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	const file = "services/checkout/safe-modes/degraded/safe-mode.yaml"
	staging := func() ledger.Chain {
		c, _ := r.store.Snapshot().State.Chain(ledger.ChainKey{Lane: ledger.LaneMain, Service: "checkout", Scope: "staging"})
		return c
	}
	before := staging()
	size := r.store.Snapshot().Tree.Size
	r.push(map[string]string{"README.md": "nothing that is served\n"})
	if now := r.store.Snapshot().Tree.Size; now != size {
		t.Errorf("a README added %d entries", now-size)
	}
	r.push(map[string]string{file: strings.Replace(shop[file], "ttl: 4h", "ttl: 13h", 1)})
	after := staging()
	if after.Generation != before.Generation+1 || after.Set.Digest != before.Set.Digest || after.Release.Commit == before.Release.Commit {
		t.Errorf("staging went from %+v to %+v", before, after)
	}
	var modes api.SafeModes
	if err := json.Unmarshal(r.get(200, "/v1/safe-modes?service=checkout&scope=staging"), &modes); err != nil {
		t.Fatal(err)
	}
	if len(modes.Available) != 1 || modes.Available[0].TTL != 13*3600 {
		t.Errorf("available: %+v", modes.Available)
	}
	size = r.store.Snapshot().Tree.Size
	r.push(map[string]string{"README.md": "nothing again\n"})
	if now := r.store.Snapshot().Tree.Size; now != size {
		t.Errorf("the commit after it added %d entries", now-size)
	}
}
