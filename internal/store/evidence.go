package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// Head signs which change is the newest of every chain of a service, as
// published. A log that is behind its anchor signs none: it knows that newer
// changes exist.
func (s *Store) Head(service string, now time.Time) ([]byte, *ledger.Head, error) {
	return s.head(s.Snapshot(), service, now)
}

func (s *Store) head(snap *Snapshot, service string, now time.Time) ([]byte, *ledger.Head, error) {
	key := s.keys.Load().head()
	if key == nil {
		return nil, nil, &api.Error{Code: api.CodeUnavailable, Detail: "the ledger is opened without a node key"}
	}
	if s.Behind() != "" {
		return nil, nil, &api.Error{Code: api.CodeUnavailable, Detail: "the log is behind its anchor, so this server does not know what is newest",
			Hint: s.hint(), Err: s.health.barred()}
	}
	h := &ledger.Head{Origin: snap.State.Origin, Service: service, Tree: snap.Tree, Issued: now.UTC().Truncate(time.Millisecond),
		Lines: snap.State.HeadLines(service)}
	if ops := snap.State.Operators; ops != nil {
		h.Operators = ledger.Ref{Index: ops.Index, Hash: ops.Hash}
	}
	b, err := h.Sign(key)
	return b, h, err
}

// Evidence is a head with all that is needed to believe it: the change of every
// line, each operators set that one cites, and the set after it, which shows
// that the cited one was in force. Changes in have, which the client has
// proven before, stay out. from is the size that it knows, 0 for none. Details
// come along when withDetail is set; erased ones don't.
func (s *Store) Evidence(service string, from int64, have []int64, withDetail bool, now time.Time) (*ledger.Evidence, error) {
	snap := s.Snapshot()
	note, h, err := s.head(snap, service, now)
	if err != nil {
		return nil, err
	}
	if from < 0 || from > snap.Tree.Size {
		return nil, rolledBack(from, snap.Tree.Size)
	}
	e := &ledger.Evidence{Head: string(note), Checkpoint: string(snap.Checkpoint), Consistency: []string{}, Changes: []ledger.EvidenceChange{}}
	err = s.ledger.Read(func(tx *bbolt.Tx) error {
		return errors.Join(addConsistency(tx, e, from, snap.Tree.Size), s.addCited(tx, e, snap, h, have))
	})
	if err == nil && withDetail {
		err = s.addDetails(e)
	}
	if err != nil {
		return nil, s.lost("an entry of this evidence", err)
	}
	return e, nil
}

func rolledBack(known, size int64) error {
	return &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("a log of %d entries is known to you, this one has %d", known, size),
		Hint: "the log was rolled back, or this is another one"}
}

// addConsistency proves that the tree of a size goes on from a smaller one.
func addConsistency(tx *bbolt.Tx, e *ledger.Evidence, from, size int64) error {
	if from == 0 || from >= size {
		return nil
	}
	p, err := tlog.ProveTree(size, from, hashReader(tx))
	if err == nil {
		e.Consistency = ledger.EncodeHashes(p)
	}
	return err
}

// addCited adds what the head cites, by index, each once.
func (s *Store) addCited(tx *bbolt.Tx, e *ledger.Evidence, snap *Snapshot, h *ledger.Head, have []int64) error {
	for _, i := range citedBy(snap.State, h) {
		if slices.Contains(have, i) {
			continue
		}
		c, err := s.proven(tx, snap.Tree.Size, i)
		if err != nil {
			return err
		}
		e.Changes = append(e.Changes, *c)
	}
	return nil
}

// citedBy lists the entries that a head's evidence needs, sorted. See
// ledger.Trust.Prove: a change is right iff the operators set it cites is the
// head's, or the next set came after the change.
func citedBy(st *ledger.State, h *ledger.Head) []int64 {
	var out []int64
	if h.Operators.Hash != "" {
		out = append(out, h.Operators.Index)
	}
	for _, c := range st.ServiceChains(h.Service) {
		if c.Lane != ledger.LaneMain && c.Lane != ledger.LaneOverride {
			continue
		}
		out = append(out, c.Index)
		if c.Cites != 0 {
			out = append(out, c.Cites)
		}
		if c.Cites == h.Operators.Index {
			continue
		}
		after := slices.IndexFunc(st.Sets, func(r ledger.Ref) bool { return r.Index > c.Cites })
		if after >= 0 {
			out = append(out, st.Sets[after].Index)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// proven is an entry with its proof in the tree of the given size.
func (s *Store) proven(tx *bbolt.Tx, size, i int64) (*ledger.EvidenceChange, error) {
	leaf, err := checkLeaf(tx, i)
	if err != nil {
		return nil, s.lost(fmt.Sprintf("entry %d", i), err)
	}
	p, err := tlog.ProveRecord(size, i, hashReader(tx))
	if err != nil {
		return nil, fmt.Errorf("prove entry %d: %w", i, err)
	}
	return &ledger.EvidenceChange{Index: i, Leaf: leaf, Proof: ledger.EncodeHashes(p)}, nil
}

func (s *Store) addDetails(e *ledger.Evidence) error {
	for k := range e.Changes {
		if err := s.addDetail(&e.Changes[k]); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) addDetail(ec *ledger.EvidenceChange) error {
	c, err := ledger.ParseLeaf(ec.Leaf)
	if err != nil || c.Data.Detail == "" {
		return err
	}
	d, err := s.DetailOf(ec.Index, c)
	if errors.Is(err, ErrErased) || errors.Is(err, ErrCorrupt) { // Verify tells; the proof needs none
		return nil
	}
	if err == nil {
		ec.Salt, ec.Detail = d.Salt, d.Text
	}
	return err
}

// provable is the snapshot that an entry can be proven in, and its checkpoint.
func (s *Store) provable(index int64) (*Snapshot, []byte, error) {
	if err := s.checkIndex(index); err != nil {
		return nil, nil, err
	}
	snap := s.Snapshot()
	cp, err := s.checkpoint(snap)
	return snap, cp, err
}

// ProofEvidence is the proof of changes, with their details: what "changes
// proof" writes. What says that a detail is erased comes along, and the operators
// sets that all of these cite. All proofs are in the tree of the given size; 0 is
// the newest, whose checkpoint comes along, with the proof that it goes on from
// the tree of size from, where that isn't 0.
func (s *Store) ProofEvidence(ctx context.Context, size, from int64, indexes ...int64) (*ledger.Evidence, error) {
	snap, cp, err := s.provable(slices.Max(indexes))
	if err != nil {
		return nil, err
	}
	e := &ledger.Evidence{Consistency: []string{}}
	switch {
	case size == 0 || size == snap.Tree.Size:
		size, e.Checkpoint = snap.Tree.Size, string(cp)
	case size > snap.Tree.Size || slices.Max(indexes) >= size:
		return nil, &api.Error{Code: api.CodeInvalid, Detail: fmt.Sprintf("size: %d does not lie between the newest of these entries and the log's size, %d", size, snap.Tree.Size)}
	}
	if from > size {
		return nil, rolledBack(from, size)
	}
	err = s.ledger.Read(func(tx *bbolt.Tx) error {
		return errors.Join(addConsistency(tx, e, from, size), s.addProofs(ctx, tx, e, size, indexes))
	})
	if err != nil {
		return nil, s.lost("an entry of this proof", err)
	}
	for k := range indexes {
		if err := s.addDetail(&e.Changes[k]); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// addProofs adds changes, after them what erases their details, and the operators
// sets that all of these cite.
func (s *Store) addProofs(ctx context.Context, tx *bbolt.Tx, e *ledger.Evidence, size int64, indexes []int64) error {
	asked := len(indexes)
	for k := 0; k < len(indexes); k++ {
		if err := ctx.Err(); err != nil { // a leaf may be large, and there may be many
			return err
		}
		ec, err := s.proven(tx, size, indexes[k])
		if err != nil {
			return err
		}
		e.Changes = append(e.Changes, *ec)
		c, err := ledger.ParseLeaf(ec.Leaf)
		if err != nil {
			return err
		}
		var also []int64
		if by, ok := erasedIn(tx, ec.Index, size); ok && k < asked {
			also = append(also, by)
		}
		if c.Data.Operators != 0 && (k < asked || c.Roots == nil) {
			also = append(also, c.Data.Operators)
		}
		for _, i := range also {
			if !slices.Contains(indexes, i) {
				indexes = append(indexes, i)
			}
		}
	}
	return nil
}

// TlogProof is the proof of one entry in the form c2sp.org/tlog-proof@v1, for
// verifiers that aren't ours.
func (s *Store) TlogProof(index int64) ([]byte, error) {
	snap, cp, err := s.provable(index)
	if err != nil {
		return nil, err
	}
	var proof tlog.RecordProof
	err = s.ledger.Read(func(tx *bbolt.Tx) (err error) {
		proof, err = tlog.ProveRecord(snap.Tree.Size, index, hashReader(tx))
		return err
	})
	if err != nil {
		return nil, err
	}
	return ledger.FormatProof(index, proof, cp), nil
}
