package kv

import (
	"fmt"
	"iter"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/api"
)

// maxBatch bounds one transaction of PutObjects, in bytes: enough that fsync is
// not the cost, little enough that memory is not.
const maxBatch = 8 << 20

type object struct {
	key  [32]byte
	body []byte
}

// PutObjects stores objects under their digests and skips those it has. All of
// them are durable when it returns nil; after an error some may be. Bytes that
// their digest doesn't name are refused.
func (db *DB) PutObjects(objs iter.Seq2[api.Digest, []byte]) error {
	var batch []object
	size := 0
	for name, body := range objs {
		key, ok := name.Sum()
		if !ok {
			return fmt.Errorf("put object %.80q: %w", string(name), api.ErrDigest)
		}
		if !name.Names(body) {
			return fmt.Errorf("put object %s: the bytes are those of %s: %w", name, api.DigestOf(body), ErrCorrupt)
		}
		batch, size = append(batch, object{key, body}), size+len(body)
		if size >= maxBatch {
			if err := db.putBatch(batch); err != nil {
				return err
			}
			batch, size = batch[:0], 0
		}
	}
	return db.putBatch(batch)
}

func (db *DB) putBatch(batch []object) error {
	missing, err := db.missing(batch)
	if err != nil || len(missing) == 0 {
		return err
	}
	return db.Write(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucketObjects)
		if err != nil {
			return err
		}
		for _, o := range missing {
			if err := b.Put(o.key[:], o.body); err != nil {
				return err
			}
		}
		return nil
	})
}

// missing leaves out what is there, so that putting the same again costs no
// commit. An object that is there but damaged is missing: putting it heals it.
func (db *DB) missing(batch []object) (out []object, err error) {
	err = db.Read(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketObjects)
		for _, o := range batch {
			if b == nil || string(b.Get(o.key[:])) != string(o.body) || len(o.body) == 0 && b.Get(o.key[:]) == nil {
				out = append(out, o)
			}
		}
		return nil
	})
	return out, err
}

// Object returns a copy of the object that d names, rehashed: ErrNotFound when
// it isn't there, ErrCorrupt when the bytes aren't the ones that d names.
func (db *DB) Object(d api.Digest) (body []byte, err error) {
	key, ok := d.Sum()
	if !ok {
		return nil, fmt.Errorf("object %.80q: %w", string(d), api.ErrDigest)
	}
	err = db.Read(func(tx *bbolt.Tx) error {
		v := lookup(tx, bucketObjects, key[:])
		if v == nil {
			return ErrNotFound
		}
		body = append([]byte{}, v...)
		return nil
	})
	if err == nil && !d.Names(body) {
		body, err = nil, ErrCorrupt
	}
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", d, err)
	}
	return body, nil
}

// HasObject reports whether there is an object under d, without reading it.
func (db *DB) HasObject(d api.Digest) (has bool, err error) {
	key, ok := d.Sum()
	if !ok {
		return false, fmt.Errorf("object %.80q: %w", string(d), api.ErrDigest)
	}
	err = db.Read(func(tx *bbolt.Tx) error {
		has = lookup(tx, bucketObjects, key[:]) != nil
		return nil
	})
	return has, err
}

// DeleteObjects removes every object that keep doesn't want and returns how
// many those were. Their bytes stay in the file until the next Compact.
func (db *DB) DeleteObjects(keep func(api.Digest) bool) (n int, err error) {
	var gone [][32]byte
	err = db.eachObject(func(key [32]byte, _ []byte) {
		if !keep(api.DigestFromSum(key)) {
			gone = append(gone, key)
		}
	})
	if err != nil || len(gone) == 0 {
		return 0, err
	}
	err = db.Write(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketObjects)
		for _, key := range gone {
			if err := b.Delete(key[:]); err != nil {
				return err
			}
		}
		return Erased(tx)
	})
	if err != nil {
		return 0, err
	}
	return len(gone), nil
}

// CheckObjects rehashes every object and returns the digests of the damaged
// ones, sorted.
func (db *DB) CheckObjects() (bad []api.Digest, err error) {
	err = db.eachObject(func(key [32]byte, body []byte) {
		if d := api.DigestFromSum(key); !d.Names(body) {
			bad = append(bad, d)
		}
	})
	return bad, err
}

// eachObject walks the objects in order; body is bbolt's and ends with f. Keys
// that are out of order are found by nobody, whatever is put beside them.
func (db *DB) eachObject(f func(key [32]byte, body []byte)) error {
	return db.Read(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketObjects)
		if b == nil {
			return nil
		}
		var last []byte
		return b.ForEach(func(k, v []byte) error {
			if len(k) != 32 || v == nil || string(k) <= string(last) {
				return fmt.Errorf("%w: object %x is no object, or not in its place", ErrStructure, k)
			}
			last = k
			f([32]byte(k), v)
			return nil
		})
	})
}

func lookup(tx *bbolt.Tx, bucket, key []byte) []byte {
	b := tx.Bucket(bucket)
	if b == nil {
		return nil
	}
	return b.Get(key)
}
