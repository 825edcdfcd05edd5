package main

import (
	"context"
	"fmt"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// proveChanges holds records to what the log proves of their entries; without a
// trust file to nothing. That none was left out it can't show. Of a detail that
// didn't come they say afterwards what the log does: see lostDetails. The tree
// that they are proven in goes on from an older one, if that is given.
func proveChanges(ctx context.Context, c *client, trust *ledger.Trust, older signedTree, records []api.Record) (signedTree, error) {
	var indexes []int64
	for _, r := range records {
		if !r.Damaged {
			indexes = append(indexes, r.Index)
		}
	}
	if trust == nil || len(indexes) == 0 {
		return older, nil
	}
	p := newProvenLog(trust)
	p.older = older
	if err := p.prove(ctx, c, indexes); err != nil {
		return older, err
	}
	for i := range records {
		if records[i].Damaged {
			continue
		}
		if err := p.hold(&records[i]); err != nil {
			return older, err
		}
	}
	return signedTree{p.tree, p.checkpoint}, nil
}

// hold holds a record to what is proven. Its detail may have been erased since.
func (p *provenLog) hold(r *api.Record) error {
	proven, err := p.record(r.Index)
	if err != nil {
		return err
	}
	if proven.Erased || proven.Missing {
		r.Detail, r.Erased, r.ErasedBy, r.Missing = nil, proven.Erased, proven.ErasedBy, proven.Missing
	}
	return sameRow("a row", r, proven)
}

// record is a change as the log proves it.
func (p *provenLog) record(index int64) (*api.Record, error) {
	c, by := p.changes[index], p.erased[index]
	event, err := c.Envelope.Bytes()
	return &api.Record{Index: index, LeafHash: c.Hash, Event: event, Operator: p.signer(index).Operator, Detail: p.shown[index].Detail,
		Erased: by != 0, ErasedBy: by, Missing: p.missing(index), Late: c.Late()}, err
}

// lostDetails says that rows lack words which nothing erased: exit 3 where they
// were to be proven.
func lostDetails(trust *ledger.Trust, missing []int64) error {
	if trust == nil || len(missing) == 0 {
		return nil
	}
	return &api.Error{Code: api.CodeInternal, Err: errProof, Detail: fmt.Sprintf("the server doesn't show %s that no erasure in the log explains; the first is that of entry %d", count(len(missing), "detail"), missing[0]),
		Hint: "sealstone status says whether the server lost it; if it didn't, it keeps it back"}
}

func missingDetails(records []api.Record) (list []int64) {
	for _, r := range records {
		if r.Missing {
			list = append(list, r.Index)
		}
	}
	return list
}

// noteComplete says what proven rows leave open.
func (a *app) noteComplete(trust *ledger.Trust) {
	if trust != nil {
		fmt.Fprintln(a.err, "note: each row is proven, not that none is left out: sealstone history shows that of a target, sealstone mirror of the log")
	}
}
