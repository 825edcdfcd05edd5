package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/kv"
	"github.com/sealstone/sealstone/ledger"
)

// attacked is a log of some size, 600 being two full tiles and some, that edits
// are tried on.
func attacked(t *testing.T, size int64) *fixture {
	t.Helper()
	f := newFixture(t, func(c *Config) { c.noSync = true })
	f.put(f.operators(1, f.OperatorsSig), f.note("a note"), f.enter("checkout", "prod", "degraded", 0))
	ref := f.content("checkout", "prod", 1)
	for f.Snapshot().Tree.Size < size {
		var drafts []Draft
		for n := range 50 {
			d := activation("checkout", "prod", n)
			d.Data.Set = ref
			drafts = append(drafts, d)
		}
		f.put(drafts...)
	}
	return f
}

// rows edits a closed store's ledger.db.
func (f *fixture) rows(edit func(tx *bbolt.Tx) error) {
	f.t.Helper()
	f.file(fileLedger, formatLedger, edit)
}

func (f *fixture) file(name, format string, edit func(tx *bbolt.Tx) error) {
	f.t.Helper()
	db, err := kv.Open(filepath.Join(f.cfg.Dir, name), kv.Options{Format: format, NoSync: true})
	if err != nil {
		f.t.Fatal(err)
	}
	if err := errors.Join(db.Write(edit), db.Close()); err != nil {
		f.t.Fatal(err)
	}
}

// flip changes one byte of a row.
func flip(tx *bbolt.Tx, bucket, key []byte, at int) error {
	v := append([]byte{}, tx.Bucket(bucket).Get(key)...)
	v[at] ^= 1
	return tx.Bucket(bucket).Put(key, v)
}

// Somebody edits the file. Every edit must be found by verify, at the place
// where it is, and the log without it must pass.
func TestEditsAreFound(t *testing.T) {
	f := attacked(t, 350) // the last 50 are in the tail
	f.check()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	whole := f.cfg.Dir + ".whole"
	copyDir(t, f.cfg.Dir, whole)
	for name, x := range edits() {
		t.Run(name, func(t *testing.T) {
			copyDir(t, whole, f.cfg.Dir)
			f.t = t
			if x.file == "" {
				f.rows(x.edit)
			} else {
				f.file(x.file, x.format, x.edit)
			}
			f.finds(x.where)
		})
	}
	copyDir(t, whole, f.cfg.Dir)
	f.t = t
	f.open()
	f.check()
}

type edit struct {
	edit         func(tx *bbolt.Tx) error
	where        string
	file, format string
}

func edits() map[string]edit {
	return map[string]edit{
		"a byte of a leaf":            {edit: func(tx *bbolt.Tx) error { return flip(tx, bucketEntries, be64(100), 40) }, where: "entry 100"},
		"a leaf is gone":              {edit: func(tx *bbolt.Tx) error { return tx.Bucket(bucketEntries).Delete(be64(100)) }, where: "entry 100"},
		"a leaf too many":             {edit: func(tx *bbolt.Tx) error { return tx.Bucket(bucketEntries).Put(be64(5000), []byte("x")) }, where: "entries"},
		"two leaves swapped":          {edit: swapLeaves(10), where: "entry 10"},
		"two leaves and their hashes": {edit: swapWhole(10), where: "tile 1/0"},
		"a tile too many":             {edit: func(tx *bbolt.Tx) error { return tx.Bucket(bucketTiles).Put(tileKey{0, 50}.bytes(), []byte("x")) }, where: "tiles"},
		"a tile of level 0":           {edit: func(tx *bbolt.Tx) error { return flip(tx, bucketTiles, tileKey{0, 0}.bytes(), 5) }, where: "entry 0"},
		"a tile of level 1":           {edit: func(tx *bbolt.Tx) error { return flip(tx, bucketTiles, tileKey{1, 0}.bytes(), 5) }, where: "open"},
		"the head's root":             {edit: func(tx *bbolt.Tx) error { return flip(tx, bucketHead, keyHead, 20) }, where: "open"},
		"a chain's folded row":        {edit: redirect, where: "folded state"},
		"a chain that isn't there":    {edit: inventChain, where: "folded state"},
		"an old chain is put back":    {edit: forgetOverride, where: "folded state"},
		"a service that isn't there":  {edit: inventService, where: "folded state"},
		"the operators are gone":      {edit: func(tx *bbolt.Tx) error { return tx.Bucket(bucketState).Delete(append([]byte("o"), be64(1)...)) }, where: "folded state"},
		"a time too many":             {edit: func(tx *bbolt.Tx) error { return tx.Bucket(bucketTimes).Put(be64(5000), make([]byte, 16)) }, where: "times"},
		"an id too many":              {edit: func(tx *bbolt.Tx) error { return tx.Bucket(bucketIDs).Put(make([]byte, 16), be64(77)) }, where: "ids"},
		"an index term is gone":       {edit: dropTerm, where: "index of entry 2"},
		"an index term too many":      {edit: addTerm, where: "index terms"},
		"a new term":                  {edit: func(tx *bbolt.Tx) error { return flip(tx, bucketTail, be64(340), 3) }, where: "index of entry 340"},
		"a new term is gone":          {edit: func(tx *bbolt.Tx) error { return tx.Bucket(bucketTail).Delete(be64(340)) }, where: "index of entry 340"},
		"a term of a new one, twice":  {edit: placeTail, where: "index terms"},
		"new terms too many":          {edit: func(tx *bbolt.Tx) error { return tx.Bucket(bucketTail).Put(be64(5000), nil) }, where: "newest index terms"},
		"an id leads elsewhere":       {edit: moveID, where: "index of entry"},
		"who signed":                  {edit: func(tx *bbolt.Tx) error { return flip(tx, bucketTimes, be64(2), 17) }, where: "index of entry 2"},
		"a detail":                    {func(tx *bbolt.Tx) error { return flip(tx, bucketDetails, be64(2), 45) }, "detail of entry 2", fileDetails, formatDetails},
		"a detail is gone":            {func(tx *bbolt.Tx) error { return tx.Bucket(bucketDetails).Delete(be64(2)) }, "detail of entry 2", fileDetails, formatDetails},
		"an object": {func(tx *bbolt.Tx) error {
			k, _ := tx.Bucket([]byte("o")).Cursor().First()
			return flip(tx, []byte("o"), k, 0)
		}, "object", fileObjects, formatObjects},
		"an object is gone": {func(tx *bbolt.Tx) error {
			k, _ := tx.Bucket([]byte("o")).Cursor().First()
			return tx.Bucket([]byte("o")).Delete(k)
		}, "object", fileObjects, formatObjects},
	}
}

// swapLeaves swaps an entry with the next one.
func swapLeaves(i int64) func(tx *bbolt.Tx) error {
	return func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketEntries)
		x, y := append([]byte{}, b.Get(be64(i))...), append([]byte{}, b.Get(be64(i+1))...)
		return errors.Join(b.Put(be64(i), y), b.Put(be64(i+1), x))
	}
}

// swapWhole swaps their hashes in the tile as well.
func swapWhole(i int64) func(tx *bbolt.Tx) error {
	return func(tx *bbolt.Tx) error {
		b, key := tx.Bucket(bucketTiles), tileKey{0, i / tileWidth}.bytes()
		v := append([]byte{}, b.Get(key)...)
		at := i % tileWidth * tlog.HashSize
		x := append([]byte{}, v[at:at+tlog.HashSize]...)
		copy(v[at:], v[at+tlog.HashSize:at+2*tlog.HashSize])
		copy(v[at+tlog.HashSize:], x)
		return errors.Join(swapLeaves(i)(tx), b.Put(key, v))
	}
}

// redirect points the active set elsewhere.
func redirect(tx *bbolt.Tx) error {
	key := chainKey(ledger.ChainKey{Lane: ledger.LaneMain, Service: "checkout", Scope: "prod"})
	var c ledger.Chain
	if err := json.Unmarshal(tx.Bucket(bucketState).Get(key), &c); err != nil {
		return err
	}
	c.Set.Digest = api.DigestOf([]byte("mine"))
	return putJSON(tx.Bucket(bucketState), key, c)
}

func inventChain(tx *bbolt.Tx) error {
	c := ledger.Chain{Lane: ledger.LaneOverride, Scope: "staging", Mode: "degraded", Kind: ledger.SafeModeEntered, Index: 3, Generation: 1}
	return putJSON(tx.Bucket(bucketState), chainKey(ledger.ChainKey{Lane: c.Lane, Service: "checkout", Scope: c.Scope}), c)
}

func inventService(tx *bbolt.Tx) error {
	c := ledger.Chain{Lane: ledger.LaneMain, Scope: "prod", Kind: ledger.BundleActivated, Index: 3, Generation: 1}
	return putJSON(tx.Bucket(bucketState), chainKey(ledger.ChainKey{Lane: c.Lane, Service: "mallory", Scope: c.Scope}), c)
}

func forgetOverride(tx *bbolt.Tx) error {
	return tx.Bucket(bucketState).Delete(chainKey(ledger.ChainKey{Lane: ledger.LaneOverride, Service: "checkout", Scope: "prod"}))
}

func dropTerm(tx *bbolt.Tx) error {
	return tx.Bucket(bucketTerms).Delete(append(termPrefix(termActor, "alex"), be64(2)...))
}

func addTerm(tx *bbolt.Tx) error {
	return tx.Bucket(bucketTerms).Put(append(termPrefix(termActor, "mallory"), be64(2)...), nil)
}

func placeTail(tx *bbolt.Tx) error {
	return tx.Bucket(bucketTerms).Put(tailKeys(tx.Bucket(bucketTail))[0], nil)
}

func moveID(tx *bbolt.Tx) error {
	k, _ := tx.Bucket(bucketIDs).Cursor().First()
	return tx.Bucket(bucketIDs).Put(append([]byte{}, k...), be64(77))
}

// finds opens the edited store and demands the finding; "open" says that it must
// not open at all.
func (f *fixture) finds(where string) {
	f.t.Helper()
	s, err := Open(f.cfg)
	if where == "open" {
		if err == nil {
			_ = s.Close()
			f.t.Fatal("opened")
		}
		if api.CodeOf(err) != api.CodeReadOnly {
			f.t.Fatalf("Open: %v", err)
		}
		return
	}
	if err != nil {
		f.t.Fatal(err)
	}
	f.Store = s
	r, err := s.Verify(f.t.Context(), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	found := false
	for _, x := range r.Findings {
		found = found || strings.HasPrefix(x.Where, where)
	}
	if !found {
		f.t.Errorf("findings %v, want one at %s", r.Findings, where)
	}
	if !errors.Is(s.Writes(), ErrReadOnly) {
		f.t.Error("a finding did not turn writes off")
	}
	if err := s.Close(); err != nil {
		f.t.Fatal(err)
	}
}

// What a start would refuse or mend is found where it happens under a running
// server.
func TestEditsUnderARunningStoreAreFound(t *testing.T) {
	for where, edit := range map[string]func(f *fixture){
		"head": func(f *fixture) {
			f.rowsOpen(func(tx *bbolt.Tx) error { return flip(tx, bucketHead, keyHead, 20) })
		},
		"published state": func(f *fixture) {
			svc := f.Snapshot().State.Services["checkout"]
			svc.Chains[0].Mode = "degraded"
		},
		"detail of entry 2": func(f *fixture) {
			f.put(DraftOf(f.Statement(ledger.DetailErased, "", "", func(st *ledger.Statement) { st.Index = 2 }), nil))
			d, _, err := ledger.NewDetail(map[string]any{"text": "back again"})
			must(f.t, err)
			row, err := encodeDetail(d)
			must(f.t, err)
			must(f.t, f.details.Write(func(tx *bbolt.Tx) error { return tx.Bucket(bucketDetails).Put(be64(2), row) }))
		},
		"row " + rowTrust: func(f *fixture) {
			another := []byte("1 " + api.DigestOf([]byte("another")))
			f.rowsOpen(func(tx *bbolt.Tx) error { return tx.Bucket(bucketRows).Put([]byte(rowTrust), another) })
		},
	} {
		t.Run(where, func(t *testing.T) {
			f := attacked(t, 20)
			f.check()
			edit(f)
			r, err := f.Verify(t.Context(), nil)
			if err != nil || len(r.Findings) != 1 || r.Findings[0].Where != where || !errors.Is(f.Writes(), ErrReadOnly) {
				t.Errorf("findings %v, %v; Writes = %v", r.Findings, err, f.Writes())
			}
		})
	}
}

// A start alone finds damage of the newest entries.
func TestNewestEntriesAreCheckedAtStart(t *testing.T) {
	f := newFixture(t)
	f.put(f.activate("checkout", "prod", 1))
	f.closeFor(func() { f.rows(func(tx *bbolt.Tx) error { return flip(tx, bucketEntries, be64(1), 60) }) })
	f.refuses("entry 1")
	if _, _, err := f.Head("checkout", start); err != nil {
		t.Errorf("reads stopped: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f.rows(func(tx *bbolt.Tx) error { return errors.Join(flip(tx, bucketEntries, be64(1), 60), redirect(tx)) })
	f.finds("folded state")
}

// With the fold goes the index, which a version may add terms to.
func TestFoldOfAnotherVersionIsMadeAnew(t *testing.T) {
	f := attacked(t, 50)
	want := f.Snapshot().State
	f.closeFor(func() {
		f.rows(func(tx *bbolt.Tx) error {
			terms := tx.Bucket(bucketTerms).Cursor() // version 1 had no terms of chains
			for k, _ := terms.Seek([]byte{termChain}); k != nil && k[0] == termChain; k, _ = terms.Seek([]byte{termChain}) {
				if err := terms.Delete(); err != nil {
					return err
				}
			}
			return tx.Bucket(bucketState).Put(keyMeta, []byte(`{"version":1}`))
		})
	})
	if got := f.Snapshot().State; got.Size != want.Size || f.Writes() != nil {
		t.Fatalf("size %d, want %d; Writes %v", got.Size, want.Size, f.Writes())
	}
	f.put(f.activate("checkout", "prod", 2))
	f.reopen()
	f.check()
}

func TestScrubFindsAFlippedByteWhileServing(t *testing.T) {
	for name, edit := range map[string]func(tx *bbolt.Tx) error{
		"leaf":                func(tx *bbolt.Tx) error { return flip(tx, bucketEntries, be64(300), 9) },
		"full tile":           func(tx *bbolt.Tx) error { return flip(tx, bucketTiles, tileKey{0, 1}.bytes(), 99) },
		"swapped with hashes": swapWhole(10),
		"at the edge":         swapWhole(520),
	} {
		t.Run(name, func(t *testing.T) {
			f := attacked(t, 600)
			for range 7 {
				if err := f.Scrub(t.Context()); err != nil {
					t.Fatalf("scrub of a whole store: %v", err)
				}
			}
			f.rowsOpen(edit)
			var err error
			for range 4 {
				err = errors.Join(err, f.Scrub(t.Context()))
			}
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("scrub: %v", err)
			}
			f.refuses("scrub")
			if _, _, err := f.Head("checkout", start); err != nil {
				t.Errorf("reads stopped: %v", err)
			}
		})
	}
}

// What is damaged is said of its entry alone: lists go on behind it, and files that
// caches keep for ever don't have it.
func TestADamagedEntryStandsAlone(t *testing.T) {
	for name, damage := range map[string]func(*fixture){
		"a bit of a leaf": func(f *fixture) {
			f.rowsOpen(func(tx *bbolt.Tx) error { return flip(tx, bucketEntries, be64(300), 700) })
		},
		"an entry that is gone": func(f *fixture) {
			f.rowsOpen(func(tx *bbolt.Tx) error { return tx.Bucket(bucketEntries).Delete(be64(300)) })
		},
		"the head of its page": func(f *fixture) { f.breakPage(300) },
	} {
		t.Run(name, func(t *testing.T) {
			f := attacked(t, 600)
			damage(f)
			found, next, err := f.Query(t.Context(), Query{Limit: MaxLimit})
			if err != nil || next != nil || int64(len(found)) != f.Snapshot().Tree.Size {
				t.Fatalf("%d found, next %v: %v", len(found), next, err)
			}
			lost := 0
			for _, x := range found {
				if x.Change == nil {
					lost++
				}
				if (x.Change == nil) != (x.Damage != nil) || x.Index == 300 && api.CodeOf(x.Damage) != api.CodeDamaged {
					t.Errorf("entry %d: %v", x.Index, x.Damage)
				}
			}
			if lost < 1 || lost > 9 {
				t.Errorf("%d entries are lost", lost)
			}
			_, err = f.Change(300)
			_, err2 := f.ProofEvidence(t.Context(), 0, 0, 300)
			_, _, _, err3 := f.LogFile("tile/entries/001")
			for _, err := range []error{err, err2, err3} {
				if api.CodeOf(err) != api.CodeDamaged {
					t.Errorf("read: %v", err)
				}
			}
			if _, _, immutable, err := f.LogFile("tile/entries/000"); err != nil || !immutable {
				t.Errorf("entries that are whole: %v", err)
			}
			f.refuses("entry")
		})
	}
}

// breakPage damages the head of the page that an entry lies in, under the store.
func (f *fixture) breakPage(index int64) {
	f.t.Helper()
	must(f.t, f.ledger.Read(func(tx *bbolt.Tx) error {
		v, info := tx.Bucket(bucketEntries).Get(be64(index)), tx.DB().Info()
		at := int(uintptr(unsafe.Pointer(&v[0]))-info.Data) / info.PageSize
		file, err := os.OpenFile(f.cfg.path(fileLedger), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer file.Close()
		for {
			var head [16]byte
			if _, err := file.ReadAt(head[:], int64(at*info.PageSize)); err != nil {
				return err
			}
			if binary.NativeEndian.Uint64(head[:]) == uint64(at) {
				_, err = file.WriteAt([]byte{0xFF}, int64(at*info.PageSize+8))
				return err
			}
			at--
		}
	}))
}

// rowsOpen edits rows under a running store, as a bad disk would.
func (f *fixture) rowsOpen(edit func(tx *bbolt.Tx) error) {
	f.t.Helper()
	if err := f.ledger.Write(edit); err != nil {
		f.t.Fatal(err)
	}
}

func TestFileThatWasCutOffDoesNotOpen(t *testing.T) {
	f := attacked(t, 600)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(f.cfg.Dir, fileLedger)
	whole, err := os.ReadFile(path)
	must(t, err)
	must(t, os.Truncate(path, int64(len(whole)/2)))
	if _, err := Open(f.cfg); !errors.Is(err, kv.ErrTruncated) || api.CodeOf(err) != api.CodeReadOnly {
		t.Fatalf("Open: %v", err)
	}
	must(t, os.WriteFile(path, whole, 0o600))
	f.open()
	f.check()
}

func TestTwoServersOnOneLedger(t *testing.T) {
	f := newFixture(t)
	if _, err := Open(f.cfg); !errors.Is(err, ErrLocked) {
		t.Fatalf("second Open: %v", err)
	}
	f.put(f.activate("checkout", "prod", 1))
	f.reopen() // once the first one has gone
	f.check()
}

// tiles reads a store's tiles as a tlog client does; raw, as they lie in the file.
type tiles struct {
	f   *fixture
	raw bool
}

func (tiles) Height() int                     { return tileHeight }
func (tiles) SaveTiles([]tlog.Tile, [][]byte) {}
func (r tiles) ReadTiles(list []tlog.Tile) (out [][]byte, err error) {
	for _, t := range list {
		path := strings.Replace(t.Path(), "tile/8/", "tile/", 1)
		b, _, _, err := r.f.LogFile(path)
		if r.raw {
			err = r.f.ledger.Read(func(tx *bbolt.Tx) error {
				b = bytes.Clone(tx.Bucket(bucketTiles).Get(tileKey{t.L, t.N}.bytes())[:t.W*tlog.HashSize])
				return nil
			})
		}
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

func (f *fixture) clientReads(raw bool, indexes ...int64) error {
	tree := tlog.Tree{N: f.Snapshot().Tree.Size, Hash: f.Snapshot().Tree.Root}
	var want []tlog.Hash
	var at []int64
	for _, i := range indexes {
		leaf, err := f.Leaf(i)
		if err != nil {
			return err
		}
		want, at = append(want, tlog.RecordHash(leaf)), append(at, tlog.StoredHashIndex(0, i))
	}
	got, err := tlog.TileHashReader(tree, tiles{f, raw}).ReadHashes(at)
	if err != nil {
		return err
	}
	for k := range got {
		if got[k] != want[k] {
			return errors.New("another hash")
		}
	}
	return nil
}

func TestTilesVerifyWithATlogClient(t *testing.T) {
	f := attacked(t, 600)
	for i := range f.Snapshot().Tree.Size {
		if err := f.clientReads(false, i); err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
	}
}

// Two swapped records with their hashes: clients with x/mod up to v0.39.0
// (CVE-2026-56865) believed this.
func TestClientFindsSwappedRecords(t *testing.T) {
	f := attacked(t, 600)
	if err := f.clientReads(false, 10, 11); err != nil {
		t.Fatal(err)
	}
	f.rowsOpen(swapWhole(10))
	if err := f.clientReads(false, 10, 11); api.CodeOf(err) != api.CodeDamaged {
		t.Fatalf("served: %v", err)
	}
	if err := f.clientReads(true, 10, 11); err == nil || !strings.Contains(err.Error(), "inconsistent tile") {
		t.Fatalf("a tlog client believed swapped records: %v", err)
	}
	if err := f.clientReads(false, 300); err != nil {
		t.Fatalf("an entry that nobody touched: %v", err)
	}
}
