package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealstone/sealstone/internal/kv"
	"github.com/sealstone/sealstone/ledger"
)

// Steps of an append, in order. Tests fail each of them before and after.
const (
	stepTrust   = "trust"
	stepDetails = "details"
	stepCommit  = "commit"
	stepSign    = "sign"
	stepAnchor  = "anchor"
	stepErase   = "erase"
)

// debt is what a failed step left undone. It is paid before the next batch.
type debt struct {
	trust   bool // the row that says which trust file is in use
	reload  bool // the outcome of a commit is unknown
	publish bool // committed, not signed
	anchor  bool // published, anchor older
	settle  bool // changes may have been committed whose erasures weren't done
	details bool // rows of details whose entries were never committed
	erase   []erasure
}

func (s *Store) step(name string, f func() error) error {
	if s.cfg.fault == nil {
		return f()
	}
	if err := s.cfg.fault(name, false); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	return s.cfg.fault(name, true)
}

// ready tells whether a batch may start: no finding, and all debts paid.
func (s *Store) ready() error {
	if err := s.health.barred(); err != nil {
		return err
	}
	return s.payDebts()
}

// payDebts does what a failed step left undone, in the order of an append. When
// it succeeds storage works again, unless only a commit can show that.
func (s *Store) payDebts() error {
	for _, d := range []struct {
		owed bool
		step string
		pay  func() error
	}{
		{s.owed.reload, stepCommit, s.resolve},
		{s.owed.trust, stepTrust, s.noteTrust},
		{s.owed.reload || s.owed.publish, stepSign, s.publishWork},
		{s.owed.reload || s.owed.publish || s.owed.anchor, stepAnchor, s.writeAnchor},
		{s.owed.reload || s.owed.settle, stepErase, s.settle},
		{s.owed.details, stepDetails, s.dropDetails},
	} {
		if !d.owed {
			continue
		}
		if err := d.pay(); err != nil {
			return s.failed(d.step, err)
		}
		if d.step == stepAnchor && !s.owed.settle { // else a commit failed before
			s.health.set(nil)
		}
	}
	s.erasePending()
	return nil
}

// settle erases what changes say whose commit nobody was sure of.
func (s *Store) settle() error {
	if err := s.loadErased(); err != nil {
		return err
	}
	if err := s.settleDetails(s.work.Size); err != nil {
		return err
	}
	s.owed.settle = false
	return nil
}

func (s *Store) dropDetails() error {
	if err := s.step(stepDetails, func() error { return s.details.put(s.work.Size, nil) }); err != nil {
		return err
	}
	s.owed.details = false
	return nil
}

func (s *Store) failed(step string, err error) error {
	e := storageError(step, err)
	trouble := *e
	trouble.Hint = "free the disk of the data directory, or mend it: the first write that works ends this"
	s.health.set(&trouble)
	return e
}

// commit makes a batch durable and visible, in this order: details, leaves with
// all that follows from them, checkpoint, snapshot, anchor.
func (s *Store) commit(b *batch) error {
	if len(b.changes) == 0 && len(b.rows) == 0 {
		return nil
	}
	if len(b.details) > 0 {
		s.owed.details = true
		if err := s.step(stepDetails, func() error { return s.details.put(b.base, b.details) }); err != nil {
			s.work = s.Snapshot().State.Clone()
			return s.failed(stepDetails, err)
		}
	}
	next, tree, err := s.write(b)
	if err != nil {
		return s.ambiguous(b, tree, err)
	}
	s.edge = next
	s.owed.details = false
	return s.announce(b)
}

// announce publishes a batch that is committed. An anchor that can't be written
// is no reason to tell the caller that the change isn't there; it is one to take
// no more.
func (s *Store) announce(b *batch) error {
	if len(b.changes) > 0 {
		s.owed.erase = append(s.owed.erase, erasuresOf(b.changes)...)
		if err := s.publishWork(); err != nil {
			return s.failed(stepSign, err)
		}
		if err := s.writeAnchor(); err != nil {
			_ = s.failed(stepAnchor, err)
			return nil
		}
	}
	s.health.set(nil)
	s.erasePending()
	return nil
}

// ambiguous settles a commit that returned an error: bbolt may have written it
// all the same. What the disk says, and a successful fsync, decide.
func (s *Store) ambiguous(b *batch, tree ledger.Tree, cause error) error {
	s.owed.reload = true
	if err := s.resolve(); err != nil {
		return s.failed(stepCommit, errors.Join(cause, err))
	}
	if len(b.changes) == 0 || s.edge.size != tree.Size {
		return s.failed(stepCommit, cause)
	}
	s.owed.details = false
	return s.announce(b)
}

// resolve learns from the disk what is committed. The sync comes first: pages
// that only the kernel has are not committed.
func (s *Store) resolve() error {
	if err := s.ledger.Sync(); err != nil {
		return err
	}
	head, err := s.reload()
	if err != nil {
		return err
	}
	s.owed.reload, s.owed.settle = false, true
	s.owed.publish = s.owed.publish || head != s.Snapshot().Tree
	s.owed.anchor = s.owed.anchor || s.owed.publish
	return nil
}

// write puts a batch into one transaction.
func (s *Store) write(b *batch) (next *tree, head ledger.Tree, err error) {
	next, dirty := s.edge.clone(), map[tileKey][]byte{}
	for _, c := range b.changes {
		sum, _ := c.Hash.Sum()
		next.add(tlog.Hash(sum), dirty)
	}
	head = ledger.Tree{Size: next.size, Root: next.root()}
	err = s.step(stepCommit, func() error {
		return s.ledger.Write(func(tx *bbolt.Tx) error { return b.write(tx, head, dirty) })
	})
	return next, head, err
}

func (b *batch) write(tx *bbolt.Tx, head ledger.Tree, dirty map[tileKey][]byte) error {
	if have, err := readHead(tx); err != nil || have.Size != b.base {
		return errors.Join(err, fmt.Errorf("the file has %d entries, expected %d: %w", have.Size, b.base, kv.ErrCorrupt))
	}
	entries := tx.Bucket(bucketEntries)
	entries.FillPercent = 0.95 // indexes only grow
	for i, c := range b.changes {
		if err := entries.Put(be64(b.base+int64(i)), c.Leaf); err != nil {
			return err
		}
	}
	if err := writeIndex(tx, b.base, b.changes); err != nil {
		return err
	}
	for k, data := range dirty {
		if err := tx.Bucket(bucketTiles).Put(k.bytes(), data); err != nil {
			return err
		}
	}
	if err := b.writeRows(tx); err != nil || len(b.changes) == 0 {
		return err
	}
	if err := writeFold(tx, b.st, b.changes); err != nil {
		return err
	}
	return tx.Bucket(bucketHead).Put(keyHead, encodeHead(head))
}

func (b *batch) writeRows(tx *bbolt.Tx) error {
	rows := tx.Bucket(bucketRows)
	for k, v := range b.rows {
		var err error
		if v == nil {
			err = rows.Delete([]byte(k))
		} else {
			err = rows.Put([]byte(k), v)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// publishWork signs and publishes what the loop has committed.
func (s *Store) publishWork() error {
	s.owed.publish = true
	if err := s.publish(ledger.Tree{Size: s.edge.size, Root: s.edge.root()}); err != nil {
		return err
	}
	s.owed.publish = false
	return nil
}

// publish signs a checkpoint of the tree, unless the log is known not to be the
// one that was published before: a second one would prove a fork.
func (s *Store) publish(t ledger.Tree) error {
	var cp []byte
	err := s.step(stepSign, func() (err error) {
		if s.Behind() == "" {
			cp, err = ledger.SignCheckpoint(s.cfg.Trust.Origin, t, s.keys.Load().log...)
		}
		return err
	})
	if err != nil {
		return err
	}
	s.snap.Store(&Snapshot{State: s.work.Clone(), Tree: t, Checkpoint: cp})
	ch := make(chan struct{})
	close(*s.changed.Swap(&ch))
	return nil
}

// newID makes a UUIDv7.
func newID(now time.Time) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	ms := now.UnixMilli()
	for i := range 6 {
		b[i] = byte(ms >> (40 - 8*i))
	}
	b[6], b[8] = b[6]&0x0f|0x70, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Probe tries whether storage that failed works again. It writes nothing while
// all is well, or where only a recovery helps. Writes tells of its outcome.
func (s *Store) Probe(ctx context.Context) {
	if !s.cfg.ReadOnly && s.health.barred() == nil && s.health.probeHelps() {
		_ = s.probe(ctx)
	}
}

// probeRoom is what a probe writes to each file: more than any one change needs.
// A full file has small pages to spare, and takes a small row when it takes no
// change any more.
const probeRoom = 256 << 10

// probe writes what needs as much room as a change, where one is written, and
// gives the room back: when it can, the trouble of a full disk ends, and what is
// owed is done.
func (s *Store) probe(ctx context.Context) error {
	for _, room := range []int{probeRoom, 0} {
		_, err := s.Append(ctx, func(*ledger.State, time.Time) (Decision, error) {
			if err := s.step(stepDetails, func() error { return s.details.probe(room) }); err != nil {
				return Decision{}, s.failed(stepDetails, err)
			}
			return Decision{Rows: map[string][]byte{rowProbe: make([]byte, room)}}, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

const rowProbe = "store/probe"
