package server

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/api"
)

// damageEntry flips a bit of an entry in the file of the running server.
func (r *rig) damageEntry(index uint64) {
	r.t.Helper()
	file := filepath.Join(r.dir, "data", "ledger.db")
	all, err := os.ReadFile(file)
	must(r.t, err)
	must(r.t, os.WriteFile(file+".copy", all, 0o600))
	db, err := bbolt.Open(file+".copy", 0o600, nil)
	must(r.t, err)
	defer db.Close()
	var at uintptr
	must(r.t, db.View(func(tx *bbolt.Tx) error {
		v := tx.Bucket([]byte("e")).Get(binary.BigEndian.AppendUint64(nil, index))
		at = uintptr(unsafe.Pointer(&v[len(v)/2])) - db.Info().Data
		return nil
	}))
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	must(r.t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte{all[at] ^ 64}, int64(at))
	must(r.t, err)
}

// Each answer shows what is whole, and what isn't is named, or refused.
func TestADamagedEntryHidesNoOther(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	size := len(decode[api.Changes](t, r.get(200, "/v1/changes")).Changes)
	r.damageEntry(2)
	for _, query := range []string{"", "?order=asc", "?service=checkout", "?kind=bundle.activated"} {
		answer, lost := decode[api.Changes](t, r.get(200, "/v1/changes"+query)), 0
		for _, c := range answer.Changes {
			if c.Damaged != (c.Index == 2) || c.Damaged == (c.Event != nil) || c.Damaged == (c.LeafHash != "") {
				t.Errorf("%q: %+v", query, c)
			}
			if c.Damaged {
				lost++
			}
		}
		if query == "" && (lost != 1 || len(answer.Changes) != size) {
			t.Errorf("%d of %d entries, %d damaged", len(answer.Changes), size, lost)
		}
	}
	if list := decode[[]api.Annotation](t, r.get(200, "/v1/annotations")); len(list) != size-1 {
		t.Errorf("%d annotations of %d entries", len(list), size)
	}
	r.get(200, "/v1/changes/3")
	for _, path := range []string{"/v1/changes/2", "/v1/changes/2?proof=1", fmt.Sprintf("/log/tile/entries/000.p/%d", size)} {
		res := r.do(http.MethodGet, path, "")
		p := decode[api.Problem](t, r.expect(500, res))
		if p.Error().Code != api.CodeDamaged || p.Hint == "" {
			t.Errorf("%s: %+v", path, p)
		}
		if cache := res.Header.Get("Cache-Control"); path[:5] == "/log/" && cache != "no-store" {
			t.Errorf("%s: Cache-Control %q", path, cache)
		}
	}
	r.get(503, "/readyz/writes")
	if got := r.followed(1); fmt.Sprint(got) != "[2 3]" {
		t.Errorf("a follower got %v", got)
	}
}

// followed are the two entries that a follower gets behind one.
func (r *rig) followed(after int64) (got []int64) {
	r.t.Helper()
	srv := httptest.NewServer(r)
	defer srv.Close()
	ctx, cancel := context.WithTimeout(r.t.Context(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("%s/v1/changes/watch?after=%d", srv.URL, after), nil)
	must(r.t, err)
	req.Header.Set("Accept", "application/x-ndjson")
	res, err := http.DefaultClient.Do(req)
	must(r.t, err)
	defer res.Body.Close()
	for sc := bufio.NewScanner(res.Body); len(got) < 2 && sc.Scan(); {
		var rec api.Record
		if json.Unmarshal(sc.Bytes(), &rec) == nil {
			got = append(got, rec.Index)
		}
	}
	return got
}
