package kv

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"

	"go.etcd.io/bbolt"
)

// Tx is a transaction over records. Values that it returns are copies.
type Tx struct{ tx *bbolt.Tx }

// recordBucket keeps records apart from objects and from the store's own rows.
func recordBucket(name string) []byte { return []byte("r/" + name) }

// Get returns a record: ErrNotFound when it isn't there.
func (t *Tx) Get(bucket, key string) ([]byte, error) {
	v := lookup(t.tx, recordBucket(bucket), []byte(key))
	if v == nil {
		return nil, fmt.Errorf("record %s %.80q: %w", bucket, key, ErrNotFound)
	}
	return bytes.Clone(v), nil
}

// Put writes a record; a nil value is stored as an empty one.
func (t *Tx) Put(bucket, key string, value []byte) error {
	b, err := t.tx.CreateBucketIfNotExists(recordBucket(bucket))
	if err != nil {
		return err
	}
	return b.Put([]byte(key), value)
}

// GetJSON reads a record into a value.
func (t *Tx) GetJSON(bucket, key string, into any) error {
	b, err := t.Get(bucket, key)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("record %s %.80q: %w: %w", bucket, key, ErrCorrupt, err)
	}
	return nil
}

// PutJSON writes a value as a record.
func (t *Tx) PutJSON(bucket, key string, value any) error {
	b, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return t.Put(bucket, key, b)
}

// All walks a bucket's records whose key starts with prefix, in order. The
// bucket must not be written meanwhile.
func (t *Tx) All(bucket, prefix string) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		b := t.tx.Bucket(recordBucket(bucket))
		if b == nil {
			return
		}
		c := b.Cursor()
		for k, v := c.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, v = c.Next() {
			if !yield(string(k), bytes.Clone(v)) {
				return
			}
		}
	}
}

// View reads records as of one moment. Don't write to a network inside: an
// open transaction keeps every page that was freed since.
func (db *DB) View(f func(*Tx) error) error {
	return db.Read(func(tx *bbolt.Tx) error { return f(&Tx{tx}) })
}

// Update changes records, all or none; durable when it returns nil.
func (db *DB) Update(f func(*Tx) error) error {
	return db.Write(func(tx *bbolt.Tx) error { return f(&Tx{tx}) })
}

// Put writes one record durably.
func (db *DB) Put(bucket, key string, value []byte) error {
	return db.Update(func(tx *Tx) error { return tx.Put(bucket, key, value) })
}
