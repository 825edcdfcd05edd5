package kv

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/api"
)

func open(t *testing.T, path string, opt Options) *DB {
	t.Helper()
	db, err := Open(path, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func objects(n int) map[api.Digest][]byte {
	out := map[api.Digest][]byte{}
	for i := range n {
		b := fmt.Appendf(nil, "object %d", i)
		out[api.DigestOf(b)] = b
	}
	return out
}

func TestObjectsComeBackAfterReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db, want := open(t, path, Options{}), objects(50)
	want[api.DigestOf(nil)] = []byte{}
	if err := db.PutObjects(maps.All(want)); err != nil {
		t.Fatal(err)
	}
	if err := db.PutObjects(maps.All(want)); err != nil {
		t.Fatalf("the same again: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, path, Options{ReadOnly: true})
	for d, b := range want {
		if got, err := db.Object(d); err != nil || string(got) != string(b) {
			t.Fatalf("Object(%s) = %q, %v", d, got, err)
		}
	}
	if _, err := db.Object(api.DigestOf([]byte("none"))); !errors.Is(err, ErrNotFound) {
		t.Fatalf("missing object: %v", err)
	}
}

func TestObjectsThatTheirDigestDoesNotName(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "x.db"), Options{})
	d, good := api.DigestOf([]byte("good")), []byte("good")
	if err := db.PutObjects(maps.All(map[api.Digest][]byte{d: []byte("evil")})); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("put: %v", err)
	}
	if err := db.PutObjects(maps.All(map[api.Digest][]byte{"sha256:x": good})); !errors.Is(err, api.ErrDigest) {
		t.Fatalf("put under a bad name: %v", err)
	}
	if err := db.PutObjects(maps.All(map[api.Digest][]byte{d: good})); err != nil {
		t.Fatal(err)
	}
	key, _ := d.Sum()
	if err := db.Write(func(tx *bbolt.Tx) error { return tx.Bucket(bucketObjects).Put(key[:], []byte("evil")) }); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Object(d); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("damaged object: %v", err)
	}
	if bad, err := db.CheckObjects(); err != nil || len(bad) != 1 || bad[0] != d {
		t.Fatalf("CheckObjects = %v, %v", bad, err)
	}
	if err := db.PutObjects(maps.All(map[api.Digest][]byte{d: good})); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Object(d); err != nil {
		t.Fatalf("putting it again did not heal it: %v", err)
	}
}

func TestDeleteObjects(t *testing.T) {
	db, all := open(t, filepath.Join(t.TempDir(), "x.db"), Options{}), objects(10)
	if err := db.PutObjects(maps.All(all)); err != nil {
		t.Fatal(err)
	}
	keep := api.DigestOf([]byte("object 3"))
	if n, err := db.DeleteObjects(func(d api.Digest) bool { return d == keep }); n != 9 || err != nil {
		t.Fatalf("DeleteObjects = %d, %v", n, err)
	}
	for d := range all {
		if has, err := db.HasObject(d); err != nil || has != (d == keep) {
			t.Fatalf("HasObject(%s) = %v, %v", d, has, err)
		}
	}
}

func TestCompactOnlyWhenItIsOwed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db := open(t, path, Options{Format: "one"})
	secret, kept := []byte("a word that must go"), []byte{}
	if err := db.PutObjects(maps.All(map[api.Digest][]byte{api.DigestOf(secret): secret, api.DigestOf(kept): kept})); err != nil {
		t.Fatal(err)
	}
	file := func() os.FileInfo {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	before := file()
	if err := db.Compact(); err != nil || !os.SameFile(before, file()) {
		t.Fatalf("nothing was erased, and the file was rewritten (%v)", err)
	}
	if _, err := db.DeleteObjects(func(d api.Digest) bool { return d == api.DigestOf(kept) }); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".compact", []byte("left by a crash"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := db.Compact(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || bytes.Contains(b, secret) {
		t.Fatalf("the object's bytes are still there (%v)", err)
	}
	if _, err := Open(path, Options{Format: "one"}); !errors.Is(err, ErrLocked) {
		t.Fatalf("the new file is not locked: %v", err)
	}
	before = file()
	if err := db.Compact(); err != nil || !os.SameFile(before, file()) {
		t.Fatalf("rewritten twice (%v)", err)
	}
	if err := db.Put("b", "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.Compact(); err == nil {
		t.Fatal("a closed file was rewritten")
	}
	db = open(t, path, Options{Format: "one", MustExist: true})
	v, err := record(db, "k")
	has, err2 := db.HasObject(api.DigestOf(kept))
	if string(v) != "v" || !has || errors.Join(err, err2) != nil {
		t.Fatalf("after reopening: %q, %v, %v", v, has, errors.Join(err, err2))
	}
}

func TestFileThatWasCutOffIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db := open(t, path, Options{})
	if err := db.PutObjects(maps.All(objects(2000))); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{len(whole) / 2, len(whole) / 4, 3 * 4096, 2 * 4096, 4096 + 100} {
		if err := os.WriteFile(path, whole[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		if db, err := Open(path, Options{}); err == nil {
			t.Errorf("%d of %d bytes: opened", size, len(whole))
			_ = db.Close()
		} else if !errors.Is(err, ErrTruncated) && !errors.Is(err, ErrCorrupt) {
			t.Errorf("%d of %d bytes: %v", size, len(whole), err)
		}
	}
	torn := append(make([]byte, 4096), whole[4096:len(whole)/2]...) // first meta page lost as well
	if err := os.WriteFile(path, torn, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{}); !errors.Is(err, ErrTruncated) {
		t.Errorf("torn first page: %v", err)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.db")
	if _, err := Open(path, Options{MustExist: true}); !errors.Is(err, ErrNotFound) {
		t.Errorf("missing: %v", err)
	}
	open(t, path, Options{})
	if _, err := Open(path, Options{}); !errors.Is(err, ErrLocked) {
		t.Errorf("locked: %v", err)
	}
	other := filepath.Join(dir, "y.db")
	db := open(t, other, Options{Format: "one"})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(other, Options{Format: "two"}); !errors.Is(err, ErrFormat) {
		t.Errorf("format: %v", err)
	}
	nameless := filepath.Join(dir, "nameless.db")
	db = open(t, nameless, Options{})
	if err := errors.Join(db.Write(func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketFormat) }), db.Close()); err != nil {
		t.Fatal(err)
	}
	for _, opt := range []Options{{MustExist: true}, {ReadOnly: true}} {
		if _, err := Open(nameless, opt); !errors.Is(err, ErrStructure) || errors.Is(err, ErrFormat) {
			t.Errorf("a file that names no format, %+v: %v", opt, err)
		}
	}
	garbage := filepath.Join(dir, "z.db")
	if err := os.WriteFile(garbage, make([]byte, 16<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(garbage, Options{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("garbage: %v", err)
	}
}

// A flipped byte anywhere in the file must give right answers or errors, and
// never end the process.
func TestFlippedBytesNeverCrash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	db, all := open(t, path, Options{}), objects(300)
	if err := db.PutObjects(maps.All(all)); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	step := 211
	if testing.Short() {
		step = 2011
	}
	for at := 0; at < len(whole); at += step {
		bad := append([]byte{}, whole...)
		bad[at] ^= 0x41
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := Open(path, Options{ReadOnly: true})
		if err != nil {
			continue
		}
		for d, b := range all {
			if got, err := db.Object(d); err == nil && string(got) != string(b) {
				t.Fatalf("byte %d flipped: %s is %q", at, d, got)
			}
		}
		_ = db.Close()
	}
}

func record(db *DB, key string) (v []byte, err error) {
	err = db.View(func(tx *Tx) error { v, err = tx.Get("b", key); return err })
	return v, err
}

func TestRecords(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "x.db"), Options{})
	if _, err := record(db, "k"); !errors.Is(err, ErrNotFound) {
		t.Fatalf("missing: %v", err)
	}
	if err := db.Put("b", "k", []byte("v")); err != nil {
		t.Fatal(err)
	}
	undo := errors.New("undo")
	err := db.Update(func(tx *Tx) error {
		if err := tx.PutJSON("b", "j1", 7); err != nil {
			return err
		}
		return errors.Join(tx.Put("b", "k", nil), undo)
	})
	if !errors.Is(err, undo) {
		t.Fatal(err)
	}
	if v, err := record(db, "k"); string(v) != "v" || err != nil {
		t.Fatalf("after a failed update: %q, %v", v, err)
	}
	err = db.Update(func(tx *Tx) error {
		return errors.Join(tx.PutJSON("b", "j1", 7), tx.PutJSON("b", "j2", 8))
	})
	if err != nil {
		t.Fatal(err)
	}
	sum := 0
	err = db.View(func(tx *Tx) error {
		for k := range tx.All("b", "j") {
			var n int
			if err := tx.GetJSON("b", k, &n); err != nil {
				return err
			}
			sum += n
		}
		return nil
	})
	if sum != 15 || err != nil {
		t.Fatalf("sum = %d, %v", sum, err)
	}
}
