package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start is the time of every test's first entry.
var start = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

// fixture is a ledger in a temporary directory that can be closed and opened
// again.
type fixture struct {
	*ledgertest.Fixture
	*Store
	t   testing.TB
	cfg Config
}

func newFixture(t testing.TB, edit ...func(*Config)) *fixture {
	t.Helper()
	lt := ledgertest.New(t)
	f := &fixture{Fixture: lt, t: t, cfg: Config{Dir: filepath.Join(t.TempDir(), "data"), Log: lt.Log, Node: lt.Node, Trust: lt.Trust}}
	for _, e := range edit {
		e(&f.cfg)
	}
	cfg := f.cfg
	cfg.fault = nil
	if err := Init(cfg); err != nil {
		t.Fatal(err)
	}
	f.open()
	t.Cleanup(func() { _ = f.Store.Close() })
	return f
}

func (f *fixture) open() {
	f.t.Helper()
	s, err := Open(f.cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Store = s
}

func (f *fixture) reopen() {
	f.t.Helper()
	if err := f.Close(); err != nil {
		f.t.Fatal(err)
	}
	f.open()
}

// put appends drafts as one decision and fails the test when that fails.
func (f *fixture) put(drafts ...Draft) []Receipt {
	f.t.Helper()
	r, err := f.try(drafts...)
	if err != nil {
		f.t.Fatal(err)
	}
	return r
}

func (f *fixture) try(drafts ...Draft) ([]Receipt, error) {
	return f.Append(f.t.Context(), func(*ledger.State, time.Time) (Decision, error) { return Decision{Drafts: drafts}, nil })
}

func (f *fixture) operators(version int, sig []byte) Draft {
	return Draft{Kind: ledger.OperatorsChanged, Data: ledger.Data{Statement: sig,
		Fields: ledger.Fields{Version: fmt.Sprint(version), Commit: ledgertest.Release(version).Commit}}}
}

// activate is an activation of a real set.
func (f *fixture) activate(service string, scope api.Scope, n int) Draft {
	d := activation(service, scope, n)
	d.Data.Set = f.content(service, scope, n)
	return d
}

// activation is one whose set nobody stored.
func activation(service string, scope api.Scope, n int) Draft {
	return Draft{Kind: ledger.BundleActivated, Data: ledger.Data{Service: service, Scope: scope, Fields: ledger.Fields{
		Release: ledgertest.Release(n), Set: setRef(n), Contract: 1}}}
}

func setRef(n int) *ledger.SetRef {
	return &ledger.SetRef{Digest: api.DigestOf(fmt.Appendf(nil, "set %d", n)), Size: 1000}
}

// enter is a safe-mode draft, with what the node adds.
func (f *fixture) enter(service string, scope api.Scope, mode api.Mode, after int64) Draft {
	d := DraftOf(f.SafeMode(ledger.SafeModeEntered, service, scope, mode, after), nil)
	d.Data.Expires = api.FormatTime(d.At.Add(time.Hour))
	return d
}

func TestAppendIsProvenByTheTrustFile(t *testing.T) {
	f := newFixture(t)
	f.put(f.operators(1, f.OperatorsSig))
	f.put(f.activate("checkout", "prod", 1), f.activate("checkout", "staging", 2))
	f.put(f.enter("checkout", "prod", "degraded", 0))
	known := f.prove("checkout", nil)
	if len(known.Chains) != 3 {
		t.Fatalf("proved %d chains, want 3", len(known.Chains))
	}
	f.put(f.activate("checkout", "prod", 3))
	f.reopen()
	again := f.prove("checkout", known)
	if got := again.Tree.Size; got != 6 {
		t.Fatalf("size %d, want 6", got)
	}
	if r := f.check(); r.Objects != 8 {
		t.Errorf("Verify looked at %d objects, want 8", r.Objects)
	}
}

// prove verifies a service's evidence as a client does.
func (f *fixture) prove(service string, known *ledger.Known) *ledger.Known {
	f.t.Helper()
	from, have := int64(0), []int64(nil)
	if known != nil {
		from = known.Tree.Size
		for i := range known.Changes {
			have = append(have, i)
		}
	}
	e, err := f.Evidence(service, from, have, true, time.Now())
	if err != nil {
		f.t.Fatal(err)
	}
	p, err := f.Trust.Prove(e, service, known)
	if err != nil {
		f.t.Fatal(err)
	}
	return p.Known()
}

// The log's order is by index: a clock that goes back undoes no newer change.
func TestAClockThatGoesBackOrdersNothing(t *testing.T) {
	now := time.Now()
	f := newFixture(t, func(c *Config) { c.Now = func() time.Time { return now } })
	f.put(f.operators(1, f.OperatorsSig), f.activate("checkout", "prod", 1))
	known := f.prove("checkout", nil)
	now = now.Add(-time.Hour)
	next := f.activate("checkout", "prod", 2)
	r := f.put(next)[0]
	for range 2 {
		c, _ := f.Snapshot().State.Chain(ledger.ChainKey{Lane: ledger.LaneMain, Service: "checkout", Scope: "prod"})
		if r.Index != 3 || r.Generation != 2 || c.Index != 3 || c.Set.Digest != next.Data.Set.Digest {
			t.Errorf("receipt %+v, chain %+v", r, c)
		}
		f.prove("checkout", known)
		f.check()
		f.reopen()
	}
}

func TestInitRefusesWhatIsThere(t *testing.T) {
	f := newFixture(t)
	if err := Init(f.cfg); !errors.Is(err, ErrExists) {
		t.Fatalf("Init over a ledger: %v", err)
	}
	none := f.cfg
	none.Dir = t.TempDir()
	if _, err := Open(none); !errors.Is(err, ErrNoLedger) {
		t.Fatalf("Open of nothing: %v", err)
	}
}

func TestRefusedCallerSpoilsNobody(t *testing.T) {
	f := newFixture(t)
	refuse := errors.New("no")
	_, err := f.Append(context.Background(), func(*ledger.State, time.Time) (Decision, error) { return Decision{}, refuse })
	if !errors.Is(err, refuse) {
		t.Fatalf("err = %v", err)
	}
	// The second draft of this decision can't follow, so the first must not stay.
	bad := activation("checkout", "prod", 2)
	bad.Data.Set = nil
	if _, err := f.try(activation("checkout", "prod", 1), bad); api.CodeOf(err) != api.CodeUnprocessable {
		t.Fatalf("err = %v", err)
	}
	if r := f.put(f.activate("checkout", "prod", 3)); r[0].Index != 1 || r[0].Generation != 1 {
		t.Fatalf("receipt %+v", r[0])
	}
}

// check runs the store's own verification and fails the test on a finding.
func (f *fixture) check() Report {
	f.t.Helper()
	r, err := f.Verify(f.t.Context(), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, x := range r.Findings {
		f.t.Errorf("finding: %s", x)
	}
	return r
}

// content stores a real set of one bundle and returns a reference to it.
func (f *fixture) content(service string, scope api.Scope, n int) *ledger.SetRef {
	f.t.Helper()
	b, err := bundle.Build(bundle.Config{Contract: 1, Mode: api.ModeNormal, Service: service}, map[string][]byte{
		"flags.json": []byte(`{"flags":{}}`), "config/http.json": fmt.Appendf(nil, `{"port":%d}`, n)})
	if err != nil {
		f.t.Fatal(err)
	}
	set, err := bundle.BuildSet([]bundle.Entry{{Scope: scope, Mode: api.ModeNormal, Digest: b.Digest, Size: int64(len(b.Manifest))}})
	if err != nil {
		f.t.Fatal(err)
	}
	ref := &ledger.SetRef{Digest: api.DigestOf(set), Size: int64(len(set))}
	objs := maps.Clone(b.Blobs)
	objs[b.Digest], objs[ref.Digest] = b.Manifest, set
	if err := f.PutObjects(f.t.Context(), maps.All(objs)); err != nil {
		f.t.Fatal(err)
	}
	return ref
}

var (
	sshLine    = ledgertest.SSHLine
	everything = ledgertest.Everything
)
