package main

import (
	"context"
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
	changes    map[int64]*ledger.Change
	shown      map[int64]ledger.EvidenceChange // as they came: proofs and details
	sets       map[int64]*ledger.Operators     // that changes cite
}

func newProvenLog(trust *ledger.Trust) *provenLog {
	return &provenLog{trust: trust, changes: map[int64]*ledger.Change{}, shown: map[int64]ledger.EvidenceChange{}, sets: map[int64]*ledger.Operators{}}
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
		p.changes = proven.Changes
	}
	return p, err
}

// prove asks for the proofs of changes, many at once, and checks them. Those
// that are proven already cost nothing.
func (p *provenLog) prove(ctx context.Context, c *client, indexes []int64) error {
	wanted := slices.DeleteFunc(slices.Clone(indexes), func(i int64) bool { return p.changes[i] != nil })
	for batch := range slices.Chunk(wanted, api.MaxIndexes) {
		names := make([]string, len(batch))
		for k, i := range batch {
			names[k] = fmt.Sprint(i)
		}
		e, err := c.evidence(ctx, p.tree.Size, names...)
		if err == nil {
			err = p.add(e)
		}
		if api.CodeOf(err) == api.CodeNotFound {
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
	}
	changes, err := p.trust.ProveAlone(e, p.tree)
	for i, c := range changes {
		p.changes[i] = c
	}
	if err == nil {
		p.show(e)
	}
	return err
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
	if cited := p.changes[index].Data.Operators; cited != 0 {
		set := p.shown[cited]
		set.Salt, set.Detail = "", nil
		e.Changes = append(e.Changes, set)
	}
	return e
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
