package server

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

// loseObjects ends the store and puts a file without objects in place of its
// own, as a recovery after its loss does.
func (r *rig) loseObjects() {
	r.t.Helper()
	cfg := r.storeConfig()
	if err := r.store.Close(); err != nil {
		r.t.Fatal(err)
	}
	fresh := cfg
	fresh.Dir = r.t.TempDir()
	if err := store.Init(fresh); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(fresh.Dir, "objects.db"), filepath.Join(cfg.Dir, "objects.db")); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) inForce(scope api.Scope) api.Digest {
	r.t.Helper()
	c, ok := r.store.Snapshot().State.Chain(ledger.ChainKey{Lane: ledger.LaneMain, Service: "checkout", Scope: scope})
	if !ok {
		r.t.Fatalf("nothing is active at %s", scope)
	}
	return c.Set.Digest
}

func TestAStartBuildsLostObjectsAgainWithoutGit(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	set, size := r.inForce("prod"), r.store.Snapshot().Tree.Size
	before := r.get(200, "/v2/checkout/manifests/prod")
	r.loseObjects()
	r.restart(filepath.Join(r.dir, "gone.git"))
	r.round(t.Context())
	if got := r.get(200, "/readyz"); string(got) != "ok\n" {
		t.Errorf("%s", got)
	}
	if got := r.get(200, "/v2/checkout/manifests/prod"); !bytes.Equal(got, before) {
		t.Errorf("another bundle: %s", got)
	}
	r.get(200, "/v2/checkout/manifests/"+string(set))
	r.send(200, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
	wantKinds(t, r, int(size), "safe-mode.entered checkout@prod")
	if report, err := r.store.Verify(t.Context(), nil); err != nil || len(report.Findings) > 0 {
		t.Errorf("%v %v", report.Findings, err)
	}
}

func TestLostObjectsShowUntilGitIsBack(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	r.loseObjects()
	if err := os.Rename(filepath.Join(r.dir, "git"), filepath.Join(r.dir, "git.lost")); err != nil {
		t.Fatal(err)
	}
	r.restart(filepath.Join(r.dir, "gone.git"))
	r.round(t.Context())
	if p := decode[api.Problem](t, r.get(503, "/readyz")); !strings.Contains(p.Detail, "could not be made whole") {
		t.Errorf("%+v", p)
	}
	damaged := decode[api.Status](t, r.get(200, "/v1/status")).Damaged
	if len(damaged) == 0 || damaged[0].Service != "checkout" || !strings.Contains(damaged[0].Why, "there is no object") {
		t.Errorf("%+v", damaged)
	}
	if m := string(r.get(200, "/metrics")); strings.Contains(m, "sealstone_damaged_sets 0") {
		t.Error("the metric says that all is well")
	}
	if r.kicked() {
		t.Error("a round waits already")
	}
	if m := decode[api.SafeModes](t, r.get(200, "/v1/safe-modes?service=checkout&scope=prod")); m.After == nil || m.Available != nil {
		t.Errorf("nobody can sign: %+v", m)
	}
	if r.kicked() {
		t.Error("reading what is known to be lost asks for rounds")
	}
	r.restart(r.url)
	r.round(t.Context())
	if got := r.get(200, "/readyz"); string(got) != "ok\n" {
		t.Errorf("%s", got)
	}
	if m := string(r.get(200, "/metrics")); !strings.Contains(m, "sealstone_damaged_sets 0") {
		t.Error("the metric says that something is lost")
	}
	r.send(200, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
}

// The file is mapped: what another process, or the disk, does to it shows at once.
func TestADamagedObjectIsFoundByItsReaderAndMended(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	r.programs.prepare(r.store.Snapshot().State) // as the publish loop does
	m, err := bundle.ParseManifest(r.get(200, "/v2/checkout/manifests/prod"))
	if err != nil {
		t.Fatal(err)
	}
	path := "/v2/checkout/blobs/" + string(m.Layers[0].Digest)
	body := r.get(200, path)
	file := filepath.Join(r.dir, "data", "objects.db")
	all, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	damaged := bytes.ReplaceAll(all, body, append([]byte{body[0] ^ 1}, body[1:]...)) // in free pages, too
	if _, err := f.WriteAt(damaged, 0); err != nil {
		t.Fatal(err)
	}
	r.get(500, path)
	if !r.kicked() {
		t.Fatal("no round was asked for")
	}
	r.round(t.Context())
	if got := r.get(200, path); !bytes.Equal(got, body) {
		t.Errorf("%s", got)
	}
}

func TestAStartShowsASetThatLostItsRows(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	set := r.inForce("prod")
	r.rows(map[string][]byte{namedRow("checkout", set): nil, modesRow(set): nil})
	r.get(404, "/v2/checkout/manifests/"+string(set))
	r.restart(r.url)
	r.round(t.Context())
	r.get(200, "/v2/checkout/manifests/"+string(set))
	if got := r.checkRows().Findings; len(got) > 0 {
		t.Error(got)
	}
}

// An emergency doesn't wait for the first round.
func TestSafeModeHealsTheSetsThatItNeeds(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	r.loseObjects()
	r.restart(filepath.Join(r.dir, "gone.git"))
	r.get(200, "/v1/safe-modes?service=checkout&scope=prod")
	r.loseObjects()
	r.restart(filepath.Join(r.dir, "gone.git"))
	r.send(200, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
}

// Objects whose name is damaged in their page are out of order there: what is
// stored again beside them isn't found either.
func TestNoRoundClaimsWhatItCannotMend(t *testing.T) {
	for _, bit := range []byte{1, 128} {
		var log bytes.Buffer
		r := newRig(t, func(c *Config) { c.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		r.sync()
		r.damageFirstName(bit)
		log.Reset()
		r.heal(t.Context())
		damaged := decode[api.Status](t, r.get(200, "/v1/status")).Damaged
		if len(damaged) == 0 {
			t.Fatal("nothing is damaged")
		}
		for _, d := range damaged {
			if !strings.Contains(d.Next, "then stop the server, move objects.db out of the data directory, then sealstone ledger recover") {
				t.Errorf("%+v", d)
			}
			if strings.Contains(log.String(), "built again from Git\" service="+d.Service+" scope="+string(d.Scope)+" ") {
				t.Errorf("claimed: %s", log.String())
			}
		}
		if report, err := r.store.Verify(t.Context(), nil); err != nil || !strings.Contains(fmt.Sprint(report.Findings), "move objects.db out") {
			t.Errorf("%v %v", report.Findings, err)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// damageFirstName flips a bit in the name of the first object, in its leaf.
func (r *rig) damageFirstName(bit byte) {
	r.t.Helper()
	file := filepath.Join(r.dir, "data", "objects.db")
	all, err := os.ReadFile(file)
	must(r.t, err)
	must(r.t, os.WriteFile(file+".copy", all, 0o600))
	db, err := bbolt.Open(file+".copy", 0o600, nil)
	must(r.t, err)
	defer db.Close()
	var name []byte
	must(r.t, db.View(func(tx *bbolt.Tx) error {
		first, _ := tx.Bucket([]byte("o")).Cursor().First()
		name = bytes.Clone(first)
		return nil
	}))
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	must(r.t, err)
	defer f.Close()
	for at := 0; ; at++ {
		i := bytes.Index(all[at:], name)
		if i < 0 {
			return
		}
		at += i
		const branch = 1
		if page := at - at%db.Info().PageSize; all[page+8] != branch {
			_, err := f.WriteAt([]byte{name[0] ^ bit}, int64(at))
			must(r.t, err)
		}
	}
}
