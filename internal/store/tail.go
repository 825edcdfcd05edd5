package store

import (
	"bytes"
	"encoding/binary"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/ledger"
)

// maxTail is how many changes' terms lie in the tail at most. Each term has its
// place in a page of its own, so putting them there one change at a time dirtied
// more pages than all the rest of an append. The terms of the newest changes lie
// together instead, a row each, until there are so many that moving them to
// their places, in order, is cheap.
const maxTail = 256

// inPlace tells the terms that never lie in the tail: they are few, and are
// looked for often.
func inPlace(term []byte) bool { return term[0] == termErased || term[0] == termObject }

// packTerms is a change's row in the tail: each term behind its length.
func packTerms(terms [][]byte) (row []byte) {
	for _, t := range terms {
		if !inPlace(t) {
			row = append(binary.AppendUvarint(row, uint64(len(t))), t...)
		}
	}
	return row
}

// unpack cuts the first term off a row of the tail; nil at its end, or where it
// is damaged.
func unpack(row []byte) (term, rest []byte) {
	n, w := binary.Uvarint(row)
	if w <= 0 || n > uint64(len(row)-w) {
		return nil, nil
	}
	return row[w : w+int(n)], row[w+int(n):]
}

// writeTerms writes the index terms of the changes from base on.
func writeTerms(tx *bbolt.Tx, base int64, changes []*ledger.Change) error {
	tail, err := tx.CreateBucketIfNotExists(bucketTail)
	if err != nil {
		return err
	}
	var keys [][]byte
	move := tailSize(tx, base)+int64(len(changes)) >= maxTail
	for i, c := range changes {
		at, terms := be64(base+int64(i)), termsOf(c)
		if !move {
			if err := tail.Put(at, packTerms(terms)); err != nil {
				return err
			}
		}
		for _, t := range terms {
			if move || inPlace(t) {
				keys = append(keys, append(t, at...))
			}
		}
	}
	if move {
		keys = append(keys, tailKeys(tail)...)
		if err := tx.DeleteBucket(bucketTail); err != nil {
			return err
		}
	}
	slices.SortFunc(keys, bytes.Compare)
	for _, k := range keys {
		if err := tx.Bucket(bucketTerms).Put(k, nil); err != nil {
			return err
		}
	}
	return nil
}

// tailKeys are the index's keys of all that is in the tail.
func tailKeys(tail *bbolt.Bucket) (keys [][]byte) {
	for at, row := range rowsOf(tail) {
		for t, rest := unpack(row); t != nil; t, rest = unpack(rest) {
			keys = append(keys, slices.Concat(t, at))
		}
	}
	return keys
}

// tailSize is how many changes' terms are in the tail of a log of some size.
func tailSize(tx *bbolt.Tx, size int64) int64 {
	for first := range rowsOf(tx.Bucket(bucketTail)) {
		return size - fromBE64(first)
	}
	return 0
}

// tailRow is a change's row in the tail; nil where it has none.
func tailRow(tx *bbolt.Tx, index int64) []byte {
	if b := tx.Bucket(bucketTail); b != nil {
		return b.Get(be64(index))
	}
	return nil
}

// rowsOf walks over a bucket; over nothing where there is none.
func rowsOf(b *bbolt.Bucket) func(yield func(k, v []byte) bool) {
	return func(yield func(k, v []byte) bool) {
		if b == nil {
			return
		}
		c := b.Cursor()
		for k, v := c.First(); k != nil && yield(k, v); k, v = c.Next() {
		}
	}
}

func hasTerm(row, term []byte) bool {
	for t, rest := unpack(row); t != nil; t, rest = unpack(rest) {
		if bytes.Equal(t, term) {
			return true
		}
	}
	return false
}

// postingOf is the list of one term, from its place and from the tail.
func postingOf(tx *bbolt.Tx, term []byte) posting {
	p := &termPosting{tx.Bucket(bucketTerms).Cursor(), term}
	var newest list
	for at, row := range rowsOf(tx.Bucket(bucketTail)) {
		if hasTerm(row, term) {
			newest = append(newest, fromBE64(at))
		}
	}
	if newest == nil {
		return p
	}
	return union{p, newest}
}
