package server

import (
	"context"
	"fmt"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

const manyPools = 600

// widen puts a set into force that lists more scopes than a safe-mode change
// can: bundlers before E_LIMIT_SAFE_MODE made such.
func widen(r *rig) {
	r.t.Helper()
	was, _ := r.store.Snapshot().State.Chain(ledger.ChainKey{Lane: ledger.LaneMain, Service: "checkout", Scope: "prod"})
	set, err := r.programs.set(was.Set.Digest)
	if err != nil {
		r.t.Fatal(err)
	}
	entries := set.Entries
	for i := range manyPools {
		for _, mode := range []api.Mode{api.ModeNormal, "degraded"} {
			e, _ := set.Find("prod", mode)
			e.Scope = api.Scope(fmt.Sprintf("prod/eu-west-1/pool-%d", i))
			entries = append(entries, e)
		}
	}
	raw, err := bundle.BuildSet(entries)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, name := context.Background(), api.DigestOf(raw)
	if err := r.store.PutObjects(ctx, maps.All(map[api.Digest][]byte{name: raw})); err != nil {
		r.t.Fatal(err)
	}
	data := ledger.Data{Service: "checkout", Scope: "prod", Fields: ledger.Fields{Set: &ledger.SetRef{Digest: name, Size: int64(len(raw))}, Contract: 1, Release: was.Release, Replaces: was.Set.Digest}}
	_, err = r.store.Append(ctx, func(*ledger.State, time.Time) (store.Decision, error) {
		return store.Decision{Drafts: []store.Draft{draftOf(ledger.BundleActivated, data, nil)}}, nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func newest(r *rig) *ledger.Change {
	r.t.Helper()
	c, err := r.store.Change(r.store.Snapshot().Tree.Size - 1)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// A set whose safe modes no change could list is not taken.
func TestASetTooWideForItsSafeModesIsRejected(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	wide := map[string]string{"sealstone.yaml": strings.Replace(shop["sealstone.yaml"], "prod/us-east-1]", "prod/us-east-1, prod/eu-west-1/*]", 1)}
	for i := range manyPools {
		wide[fmt.Sprintf("services/checkout/overlays/prod/eu-west-1/pool-%d/config/http.yaml", i)] = fmt.Sprintf("timeout: %d\n", i+100)
	}
	r.push(wide)
	wantKinds(t, r, 4, "bundle.rejected checkout")
	if st := r.Status(); len(st.Rejected) != 1 || !strings.Contains(st.Rejected[0].Faults[0], "activations/checkout.yaml: E_LIMIT_SAFE_MODE a safe mode at prod would list 602 scopes") {
		t.Errorf("%+v", st.Rejected)
	}
	for i := range manyPools / 2 {
		wide[fmt.Sprintf("services/checkout/overlays/prod/eu-west-1/pool-%d/config/http.yaml", i)] = ""
	}
	r.push(wide)
	wantKinds(t, r, 5, "bundle.activated checkout@prod")
	r.send(200, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
}

// Where one is in force already, a mode can be left, and ends when its time is
// over; it can't be entered, and nobody is told that it was.
func TestASafeModeOfAWideSetCanBeLeft(t *testing.T) {
	for name, leave := range map[string]func(r *rig){
		"by a statement": func(r *rig) { r.send(200, r.f.SafeMode(ledger.SafeModeExited, "checkout", "prod", "degraded", 1)) },
		"while the log took nothing": func(r *rig) {
			if _, err := r.hold(r.f.SafeMode(ledger.SafeModeExited, "checkout", "prod", "degraded", 1), nil, os.ErrClosed); err != nil {
				r.t.Fatal(err)
			}
			if err := r.settlePending(context.Background()); err != nil {
				r.t.Fatal(err)
			}
		},
		"by its time": func(r *rig) {
			r.ahead = 2 * time.Hour
			for _, d := range r.store.Snapshot().State.Deadlines() {
				if err := r.expire(context.Background(), d); err != nil {
					r.t.Fatal(err)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.sync()
			after := int64(0)
			r.send(200, r.f.Statement(ledger.SafeModeEntered, "checkout", "prod", func(s *ledger.Statement) {
				s.Mode, s.TTL, s.OnExpiry, s.After = "degraded", 3600, "restore", &after
			}))
			widen(r)
			r.send(413, r.f.SafeMode(ledger.SafeModeRenewed, "checkout", "prod", "degraded", 1))
			leave(r)
			if c := newest(r); c.Kind() != ledger.SafeModeExited || c.Data.Resolved != nil {
				t.Fatalf("the newest change is %s and lists %d scopes", c.Kind(), len(c.Data.Resolved))
			}
			if e, _ := ledger.InEffect(r.prove(nil).Chains, "prod/eu-west-1/pool-7"); e.Mode != api.ModeNormal {
				t.Errorf("clients are in %s", e.Mode)
			}
			enter := r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 2)
			if why := string(r.send(413, enter)); !strings.Contains(why, "602 scopes at and below prod") {
				t.Errorf("%s", why)
			}
			if _, err := r.hold(enter, nil, os.ErrClosed); api.CodeOf(err) != api.CodeTooLarge || len(r.pending.all()) != 0 {
				t.Errorf("held, and could never be appended: %v", err)
			}
			r.send(200, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod/us-east-1", "degraded", 0))
		})
	}
}
