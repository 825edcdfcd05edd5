package store

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sync"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/canon"
	"github.com/sealstone/sealstone/internal/kv"
	"github.com/sealstone/sealstone/ledger"
)

// detailFile is details.db.
type detailFile struct{ *kv.DB }

// put writes the details of the entries from base on, and drops rows that an
// append which failed later left there.
func (f detailFile) put(base int64, details map[int64]*ledger.Detail) error {
	return f.Write(func(tx *bbolt.Tx) error {
		if err := dropFrom(tx, base); err != nil {
			return err
		}
		for index, d := range details {
			row, err := encodeDetail(d)
			if err != nil {
				return err
			}
			if err := tx.Bucket(bucketDetails).Put(be64(index), row); err != nil {
				return err
			}
		}
		return nil
	})
}

// probe writes a row of an entry that never is, which each put drops; of no bytes
// it drops it as well.
func (f detailFile) probe(room int) error {
	return f.Write(func(tx *bbolt.Tx) error {
		if room == 0 {
			return dropFrom(tx, probeEntry)
		}
		return tx.Bucket(bucketDetails).Put(be64(probeEntry), make([]byte, room))
	})
}

const probeEntry = math.MaxInt64

// dropFrom deletes the rows of entries that don't exist.
func dropFrom(tx *bbolt.Tx, size int64) error {
	c := tx.Bucket(bucketDetails).Cursor()
	for k, _ := c.Seek(be64(size)); k != nil; k, _ = c.Seek(be64(size)) {
		if err := c.Delete(); err != nil {
			return err
		}
	}
	return nil
}

func (f detailFile) get(index int64) (d *ledger.Detail, err error) {
	err = f.Read(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketDetails)
		if b == nil {
			return nil
		}
		if v := b.Get(be64(index)); v != nil {
			d, err = decodeDetail(v)
		}
		return err
	})
	return d, err
}

func encodeDetail(d *ledger.Detail) ([]byte, error) {
	salt, err := base64.StdEncoding.DecodeString(d.Salt)
	if err != nil {
		return nil, err
	}
	text, err := canon.Encode(d.Text)
	return append(salt, text...), err
}

func decodeDetail(row []byte) (*ledger.Detail, error) {
	if len(row) < ledger.SaltSize {
		return nil, kv.ErrCorrupt
	}
	d := &ledger.Detail{Salt: base64.StdEncoding.EncodeToString(row[:ledger.SaltSize])}
	if err := json.Unmarshal(row[ledger.SaltSize:], &d.Text); err != nil {
		return nil, fmt.Errorf("%w: %w", kv.ErrCorrupt, err)
	}
	return d, nil
}

// Detail is what lies outside entry i's leaf: ErrNotFound when the entry never
// had one, ErrErased when it was erased, ErrCorrupt when it isn't the one that
// the leaf names.
func (s *Store) Detail(i int64) (*ledger.Detail, error) {
	c, err := s.Change(i)
	if err != nil {
		return nil, err
	}
	return s.DetailOf(i, c)
}

// lostDetails are the entries whose detail was found damaged or gone when it was
// read last, by whoever read it.
type lostDetails struct {
	mu sync.Mutex
	at map[int64]bool
}

func (l *lostDetails) note(i int64, lost bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !lost {
		delete(l.at, i)
		return
	}
	if l.at == nil {
		l.at = map[int64]bool{}
	}
	l.at[i] = true
}

// LostDetails counts the details that were found damaged or gone, though no
// change erased them, and names the first one's entry.
func (s *Store) LostDetails() (n int, first int64) {
	s.unfound.mu.Lock()
	defer s.unfound.mu.Unlock()
	for i := range s.unfound.at {
		if n == 0 || i < first {
			first = i
		}
		n++
	}
	return n, first
}

// DetailOf is the same for those who have entry i.
func (s *Store) DetailOf(i int64, c *ledger.Change) (*ledger.Detail, error) {
	d, err := s.readDetail(i, c)
	s.unfound.note(i, errors.Is(err, ErrCorrupt))
	return d, err
}

func (s *Store) readDetail(i int64, c *ledger.Change) (*ledger.Detail, error) {
	if c.Data.Detail == "" {
		return nil, fmt.Errorf("detail of entry %d: %w", i, ErrNotFound)
	}
	_, gone, err := s.ErasedBy(i)
	if err != nil {
		return nil, err
	}
	if gone {
		return nil, &api.Error{Code: api.CodeGone, Detail: fmt.Sprintf("the detail of entry %d was erased", i), Err: ErrErased}
	}
	d, err := s.details.get(i)
	if err == nil && d == nil {
		err = fmt.Errorf("the row is missing and no erasure says why: %w", ErrCorrupt)
	}
	if err == nil {
		var name api.Digest
		if name, err = d.Digest(); err == nil && name != c.Data.Detail {
			err = fmt.Errorf("the row is not the one that the leaf names: %w", ErrCorrupt)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("detail of entry %d: %w", i, err)
	}
	return d, nil
}

// detailLines are the details of entries 256·n and on, a line of JSON each. What
// was erased, or isn't the one that the leaf names, is left out.
func (s *Store) detailLines(n int64) ([]byte, error) {
	body := []byte{}
	for i := n * tileWidth; i < min((n+1)*tileWidth, s.Snapshot().Tree.Size); i++ {
		d, err := s.Detail(i)
		if errors.Is(err, ErrNotFound) || errors.Is(err, ErrErased) || errors.Is(err, ErrCorrupt) {
			continue
		}
		if err != nil {
			return nil, err
		}
		line, err := json.Marshal(ledger.DetailLine{Index: i, Salt: d.Salt, Detail: d.Text})
		if err != nil {
			return nil, err
		}
		body = append(append(body, line...), '\n')
	}
	return body, nil
}

// ErasedBy is the published change that erases entry i's detail, if one does.
func (s *Store) ErasedBy(i int64) (by int64, erased bool, err error) {
	size := s.Snapshot().Tree.Size
	err = s.ledger.Read(func(tx *bbolt.Tx) error {
		by, erased = erasedIn(tx, i, size)
		return nil
	})
	return by, erased, err
}

func erasedIn(tx *bbolt.Tx, i, size int64) (by int64, erased bool) {
	p := &termPosting{c: tx.Bucket(bucketTerms).Cursor(), prefix: termPrefix(termErased, string(be64(i)))}
	by, ok := p.from(0, true)
	return by, ok && by < size
}
