package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/kv"
	"github.com/sealstone/sealstone/ledger"
)

// erasure is what a change asks to be gone: the detail of an entry, or an object.
type erasure struct {
	index  int64
	object api.Digest // "" for a detail
}

// erasedObjects are withheld: built again from Git, they would come back.
type erasedObjects struct {
	mu  sync.RWMutex
	set map[api.Digest]int64 // to the index of the change that says so
}

func (e *erasedObjects) has(d api.Digest) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	_, ok := e.set[d]
	return ok
}

func (e *erasedObjects) add(d api.Digest, index int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.set == nil {
		e.set = map[api.Digest]int64{}
	}
	e.set[d] = index
}

func erasuresOf(changes []*ledger.Change) (out []erasure) {
	for _, c := range changes {
		switch c.Kind() {
		case ledger.DetailErased:
			out = append(out, erasure{index: c.Data.Index})
		case ledger.ObjectErased:
			out = append(out, erasure{object: c.Data.Object})
		}
	}
	return out
}

// erasePending deletes what published changes erase. What fails is tried again
// before the next batch, by the next Scrub and at the next start; until then it
// is withheld, and Health tells of it.
func (s *Store) erasePending() {
	if len(s.owed.erase) == 0 {
		return
	}
	for _, e := range s.owed.erase {
		if e.object != "" {
			s.erased.add(e.object, 0)
		}
	}
	err := s.step(stepErase, func() error { return s.eraseAll(s.owed.erase) })
	if err == nil {
		s.owed.erase = nil
	}
	s.health.note(taskErase, err)
}

func (s *Store) eraseAll(list []erasure) error {
	objects := map[api.Digest]bool{}
	var details []int64
	for _, e := range list {
		if e.object != "" {
			objects[e.object] = true
		} else {
			details = append(details, e.index)
		}
	}
	var errs []error
	if len(details) > 0 {
		errs = append(errs, s.details.erase(details))
	}
	if len(objects) > 0 {
		_, err := s.objects.DeleteObjects(func(d api.Digest) bool { return !objects[d] })
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// erase deletes rows; their bytes go with the next compaction.
func (f detailFile) erase(list []int64) error {
	return f.Write(func(tx *bbolt.Tx) error {
		for _, i := range list {
			if err := tx.Bucket(bucketDetails).Delete(be64(i)); err != nil {
				return err
			}
		}
		return kv.Erased(tx)
	})
}

// eachTerm goes through the terms of a kind whose values have one size.
func (s *Store) eachTerm(kind byte, size int, f func(value []byte, index int64)) error {
	return s.ledger.Read(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketTerms).Cursor()
		for k, _ := c.Seek([]byte{kind}); k != nil && k[0] == kind; k, _ = c.Next() {
			if len(k) != 1+size+1+8 {
				return fmt.Errorf("index term %x: %w", k, kv.ErrCorrupt)
			}
			f(k[1:1+size], fromBE64(k[1+size+1:]))
		}
		return nil
	})
}

// loadErased finds every erasure of the log.
func (s *Store) loadErased() error {
	return s.eachTerm(termObject, 32, func(sum []byte, index int64) { s.erased.add(api.DigestFromSum([32]byte(sum)), index) })
}

// settleDetails does at a start what a crash may have left: rows of entries that
// were never committed go, and so does what the log says is erased.
func (s *Store) settleDetails(size int64) error {
	var list []int64
	if err := s.eachTerm(termErased, 8, func(at []byte, _ int64) { list = append(list, fromBE64(at)) }); err != nil {
		return err
	}
	if n, err := s.details.stale(size, list); err != nil || n == 0 {
		return errors.Join(err, s.eraseObjects())
	}
	return s.step(stepErase, func() error {
		err := s.details.Write(func(tx *bbolt.Tx) error { return dropFrom(tx, size) })
		return errors.Join(err, s.details.erase(list), s.eraseObjects())
	})
}

// stale counts the rows that ought not to be there.
func (f detailFile) stale(size int64, erased []int64) (n int, err error) {
	err = f.Read(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketDetails)
		if b == nil {
			return fmt.Errorf("no bucket of details: %w", kv.ErrCorrupt)
		}
		if k, _ := b.Cursor().Seek(be64(size)); k != nil {
			n++
		}
		for _, i := range erased {
			if b.Get(be64(i)) != nil {
				n++
			}
		}
		return nil
	})
	return n, err
}

func (s *Store) eraseObjects() error {
	var there []erasure
	for d := range s.erased.set {
		has, err := s.objects.HasObject(d)
		if err != nil {
			return err
		}
		if has {
			there = append(there, erasure{object: d})
		}
	}
	if len(there) == 0 {
		return nil
	}
	return s.eraseAll(there)
}

// PutObjects stores objects; durable when it returns nil. Put them before the
// change that names them. Objects that the log says are erased are skipped.
func (s *Store) PutObjects(ctx context.Context, objs iter.Seq2[api.Digest, []byte]) error {
	if s.cfg.ReadOnly {
		return s.Writes()
	}
	err := s.objects.PutObjects(func(yield func(api.Digest, []byte) bool) {
		for d, b := range objs {
			if ctx.Err() != nil || !s.erased.has(d) && !yield(d, b) {
				return
			}
		}
	})
	if err == nil {
		err = ctx.Err()
	}
	if err == nil || errors.Is(err, kv.ErrCorrupt) || errors.Is(err, api.ErrDigest) || ctx.Err() != nil {
		return err
	}
	return &api.Error{Code: api.CodeStorage, Detail: "the objects could not be stored" + saying(err), Err: err}
}

// Withheld is the first of some objects that the log says is erased; "" for none.
func (s *Store) Withheld(objs iter.Seq2[api.Digest, []byte]) api.Digest {
	s.erased.mu.RLock()
	defer s.erased.mu.RUnlock()
	if len(s.erased.set) == 0 {
		return ""
	}
	for d := range objs {
		if _, ok := s.erased.set[d]; ok {
			return d
		}
	}
	return ""
}

// HasObject reports whether an object can be had, without reading it.
func (s *Store) HasObject(d api.Digest) (bool, error) {
	if s.erased.has(d) {
		return false, nil
	}
	return s.objects.HasObject(d)
}

// Object returns an object, rehashed: ErrErased when the log says that it is
// withheld, else as kv.DB.Object.
func (s *Store) Object(d api.Digest) ([]byte, error) {
	if s.erased.has(d) {
		return nil, &api.Error{Code: api.CodeGone, Detail: fmt.Sprintf("object %s was erased", d), Err: ErrErased}
	}
	b, err := s.objects.Object(d)
	if errors.Is(err, ErrNotFound) {
		err = &api.Error{Code: api.CodeNotFound, Detail: fmt.Sprintf("there is no object %s", d), Err: err}
	}
	return b, err
}
