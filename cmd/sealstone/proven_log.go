package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// provenLog is what is proven of one signed state of a log: single changes, as
// they are asked for. With no tree yet, it is the newest when the first is.
type provenLog struct {
	trust      *ledger.Trust
	tree       ledger.Tree
	checkpoint string
	older      signedTree // that was proven before; the tree must go on from it
	changes    map[int64]*ledger.Change
	shown      map[int64]ledger.EvidenceChange // as they came: proofs and details
	erased     map[int64]int64                 // details, to the change that erased each
	sets       map[int64]*ledger.Operators     // that changes cite
}

// signedTree is a tree with the checkpoint that signs it.
type signedTree struct {
	ledger.Tree
	note string
}

func newProvenLog(trust *ledger.Trust) *provenLog {
	return &provenLog{trust: trust, changes: map[int64]*ledger.Change{}, shown: map[int64]ledger.EvidenceChange{}, erased: map[int64]int64{}, sets: map[int64]*ledger.Operators{}}
}

// openEvidence checks evidence by itself: with a head, or proofs of changes alone.
// The log is nil where not even its checkpoint holds.
func openEvidence(trust *ledger.Trust, e *ledger.Evidence) (*provenLog, error) {
	p := newProvenLog(trust)
	if err := p.open(e); err != nil {
		return nil, err
	}
	if e.Head == "" {
		return p, p.add(e)
	}
	head, err := trust.OpenHead([]byte(e.Head))
	if err != nil {
		return p, err
	}
	proven, err := trust.Prove(e, head.Service, nil)
	if err == nil {
		p.take(e, proven.Changes)
	}
	return p, err
}

// prove asks for the proofs of changes, many at once, and checks them. Those
// that are proven already, with their details, cost nothing.
func (p *provenLog) prove(ctx context.Context, c *client, indexes []int64) error {
	wanted := slices.DeleteFunc(slices.Clone(indexes), func(i int64) bool { return p.changes[i] != nil && !p.missing(i) })
	slices.Sort(wanted)
	for batch := range slices.Chunk(slices.Compact(wanted), api.MaxIndexes) {
		names := make([]string, len(batch))
		for k, i := range batch {
			names[k] = fmt.Sprint(i)
		}
		e, err := c.evidence(ctx, p.tree.Size, p.older.Size, names...)
		if err == nil {
			err = p.add(e)
		}
		if code := api.CodeOf(err); code == api.CodeNotFound || code == api.CodeConflict {
			err = fmt.Errorf("%w: the server shows what it does not prove: %w", errProof, err)
		}
		if err != nil {
			return fmt.Errorf("the proofs of entries %d to %d: %w", slices.Min(batch), slices.Max(batch), err)
		}
		for _, i := range batch {
			if p.changes[i] == nil {
				return fmt.Errorf("%w: what the server shows as the proof of entry %d is that of another one", errProof, i)
			}
		}
	}
	return nil
}

func (p *provenLog) add(e *ledger.Evidence) (err error) {
	if p.checkpoint == "" {
		if err = p.open(e); err != nil {
			return err
		}
		if err = p.goesOn(e); err != nil {
			return err
		}
	}
	changes, err := p.trust.ProveAlone(e, p.tree)
	if err == nil {
		p.take(e, changes)
	}
	return err
}

// goesOn holds the tree to the one that was proven before.
func (p *provenLog) goesOn(e *ledger.Evidence) error {
	if p.older.Size == 0 {
		return nil
	}
	if err := ledger.CheckConsistency(p.older.Tree, p.tree, e.Consistency); err != nil {
		if p.tree.Size > p.older.Size && len(e.Consistency) == 0 {
			err = errors.New("it shows no proof that they do, as a server older than this program")
		}
		return &forkError{p.older, signedTree{p.tree, p.checkpoint}, err}
	}
	return nil
}

// forkError is two signed checkpoints of which no one log has both.
type forkError struct {
	proven, shown signedTree
	err           error
}

func (e *forkError) Error() string {
	return fmt.Sprintf("the log forked, or was rolled back: %d entries with root %s were proven, and the server shows %d with root %s, which don't go on from them: %v",
		e.proven.Size, ledger.EncodeRoot(e.proven.Tree), e.shown.Size, ledger.EncodeRoot(e.shown.Tree), e.err)
}

func (e *forkError) Unwrap() error { return errProof }

func (p *provenLog) take(e *ledger.Evidence, changes map[int64]*ledger.Change) {
	for i, c := range changes {
		p.changes[i] = c
		if c.Kind() == ledger.DetailErased {
			p.erased[c.Data.Index] = i
		}
	}
	p.show(e)
}

func (p *provenLog) open(e *ledger.Evidence) (err error) {
	if p.tree, err = p.trust.OpenCheckpoint([]byte(e.Checkpoint)); err == nil {
		p.checkpoint = e.Checkpoint
	}
	return err
}

func (p *provenLog) show(e *ledger.Evidence) {
	for _, ec := range e.Changes {
		if p.shown[ec.Index].Detail == nil { // a set that is cited comes without
			p.shown[ec.Index] = ec
		}
	}
}

// proof is that of one change, to be kept.
func (p *provenLog) proof(index int64) *ledger.Evidence {
	e := &ledger.Evidence{Checkpoint: p.checkpoint, Consistency: []string{}, Changes: []ledger.EvidenceChange{p.shown[index]}}
	also := []int64{p.changes[index].Data.Operators}
	if by := p.erased[index]; by != 0 {
		also = append(also, by, p.changes[by].Data.Operators)
	}
	for _, i := range also {
		if i != 0 && !slices.ContainsFunc(e.Changes, func(ec ledger.EvidenceChange) bool { return ec.Index == i }) {
			one := p.shown[i]
			one.Salt, one.Detail = "", nil
			e.Changes = append(e.Changes, one)
		}
	}
	return e
}

// missing tells whether the detail that a change names did not come along, and
// nothing that is proven erased it.
func (p *provenLog) missing(index int64) bool {
	return p.changes[index].Data.Detail != "" && p.shown[index].Detail == nil && p.erased[index] == 0
}

// text is a member of a change's detail.
func (p *provenLog) text(index int64, key string) string {
	v, _ := p.shown[index].Detail[key].(string)
	return v
}

// signer is who signed a change, by the set that it cites; nobody, where none did.
func (p *provenLog) signer(index int64) ledger.By {
	c := p.changes[index]
	cited := p.changes[c.Data.Operators]
	if c.Statement == nil || cited == nil {
		return ledger.By{}
	}
	if p.sets[c.Data.Operators] == nil {
		set, err := p.trust.OperatorsAt(c.Data.Operators, cited.Data.Statement)
		if err != nil {
			return ledger.By{}
		}
		p.sets[c.Data.Operators] = set
	}
	by, _ := p.sets[c.Data.Operators].Signer(c.Statement)
	return by
}

// by is who made a change: the operator who signed it, or the commit's author.
func (p *provenLog) by(index int64) string {
	switch c := p.changes[index]; {
	case c == nil:
		return ""
	case c.Statement == nil:
		return p.text(index, "author")
	}
	return p.signer(index).Operator
}
