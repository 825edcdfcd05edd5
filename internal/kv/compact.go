package kv

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/internal/durable"
)

// bucketErased is there while the file owes a Compact.
var bucketErased = []byte("erased")

// Erased notes, in the transaction that deletes rows, that their bytes must not
// stay: bbolt leaves them in pages that it will use again some day.
func Erased(tx *bbolt.Tx) error {
	_, err := tx.CreateBucketIfNotExists(bucketErased)
	return err
}

// Compact rewrites the file when rows were erased since the last time, so that
// nothing of them is left in it. It needs room for a copy. Reads go on
// meanwhile, writes wait. After an error the file is whole and still owes it.
func (db *DB) Compact() error {
	old, err := db.rewrite()
	if old != nil {
		err = errors.Join(err, old.Close()) // waits for its readers
	}
	return err
}

// rewrite puts a copy in the file's place, if one is owed, and returns the
// database that it replaced. The copy is open, and so locked, before it has the
// file's name.
func (db *DB) rewrite() (old *bbolt.DB, err error) {
	db.writing.Lock()
	defer db.writing.Unlock()
	if owed, err := db.owesCompact(); err != nil || !owed {
		return nil, err
	}
	tmp := db.path + ".compact"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a crash
		return nil, err
	}
	dst, err := db.copyTo(tmp)
	if err == nil {
		err = os.Rename(tmp, db.path)
	}
	if err != nil {
		if dst != nil {
			err = errors.Join(err, dst.Close())
		}
		return nil, errors.Join(err, os.Remove(tmp))
	}
	db.moved = true
	return db.bolt.Swap(dst), db.settle()
}

func (db *DB) owesCompact() (owed bool, err error) {
	err = db.Read(func(tx *bbolt.Tx) error {
		owed = tx.Bucket(bucketErased) != nil
		return nil
	})
	return owed, err
}

// copyTo writes what is in use to another file; dst may be open after an error.
func (db *DB) copyTo(path string) (dst *bbolt.DB, err error) {
	err = net(func() error {
		if dst, err = bbolt.Open(path, 0o600, boltOptions(db.opt)); err != nil {
			return err
		}
		if err := bbolt.Compact(dst, db.bolt.Load(), 4<<20); err != nil {
			return err
		}
		return dst.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket(bucketErased) })
	})
	return dst, err
}

// settle makes the name of a rewritten file durable. Until then a crash could
// bring the old file back, so nothing may be written to the new one.
func (db *DB) settle() error {
	if !db.moved {
		return nil
	}
	err := durable.SyncDir(filepath.Dir(db.path))
	db.moved = err != nil
	return err
}
