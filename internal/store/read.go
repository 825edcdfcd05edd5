package store

import (
	"bytes"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

func (s *Store) checkIndex(i int64) error {
	if size := s.Snapshot().Tree.Size; i < 0 || i >= size {
		return &api.Error{Code: api.CodeNotFound, Detail: fmt.Sprintf("there is no entry %d; the log has %d", i, size), Err: ErrNotFound}
	}
	return nil
}

// Leaf returns the exact bytes of entry i, held to its hash.
func (s *Store) Leaf(i int64) (leaf []byte, err error) {
	if err := s.checkIndex(i); err != nil {
		return nil, err
	}
	err = s.ledger.Read(func(tx *bbolt.Tx) error {
		leaf, err = checkLeaf(tx, i)
		return err
	})
	if err != nil {
		return nil, s.lost(fmt.Sprintf("entry %d", i), err)
	}
	return leaf, nil
}

// Change returns entry i, taken apart. Its signatures are not verified again.
func (s *Store) Change(i int64) (*ledger.Change, error) {
	leaf, err := s.Leaf(i)
	if err != nil {
		return nil, err
	}
	return ledger.ParseLeaf(leaf)
}

// change is the same within a transaction.
func (s *Store) change(tx *bbolt.Tx, i int64) (*ledger.Change, error) {
	leaf, err := checkLeaf(tx, i)
	if err != nil {
		return nil, s.lost(fmt.Sprintf("entry %d", i), err)
	}
	return ledger.ParseLeaf(leaf)
}

// ByID finds the published change with an id, or the one that kept a statement
// with that id as late.
func (s *Store) ByID(id string) (index int64, ok bool) {
	key, valid := idKey(id)
	if !valid {
		return 0, false
	}
	size := s.Snapshot().Tree.Size
	err := s.ledger.Read(func(tx *bbolt.Tx) error {
		if v := tx.Bucket(bucketIDs).Get(key); v != nil {
			index = fromBE64(v)
			ok = index >= 0 && index < size
		}
		return nil
	})
	return index, ok && err == nil
}

// Row returns a row that a Decision wrote; nil when there is none.
func (s *Store) Row(key string) (value []byte, err error) {
	err = s.ledger.Read(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(bucketRows); b != nil {
			value = bytes.Clone(b.Get([]byte(key)))
		}
		return nil
	})
	return value, err
}

// RowKeys lists the rows whose key has a prefix.
func (s *Store) RowKeys(prefix string) (keys []string, err error) {
	err = s.ledger.Read(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketRows).Cursor()
		for k, _ := c.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, _ = c.Next() {
			keys = append(keys, string(k))
		}
		return nil
	})
	return keys, err
}
