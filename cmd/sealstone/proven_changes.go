package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// proveChanges holds records to what the log proves of their entries; without a
// trust file to nothing. That none was left out it can't show.
func proveChanges(ctx context.Context, c *client, trust *ledger.Trust, records []api.Record) error {
	if trust == nil {
		return nil
	}
	records = slices.DeleteFunc(slices.Clone(records), func(r api.Record) bool { return r.Damaged })
	p, indexes := newProvenLog(trust), make([]int64, len(records))
	for i, r := range records {
		indexes[i] = r.Index
	}
	if err := p.prove(ctx, c, indexes); err != nil {
		return err
	}
	for _, r := range records {
		proven, err := p.record(r.Index)
		if err == nil {
			err = sameRow("a row", r, proven)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// record is a change as the log proves it. A detail that didn't come is erased.
func (p *provenLog) record(index int64) (*api.Record, error) {
	c, detail := p.changes[index], p.shown[index].Detail
	event, err := c.Envelope.Bytes()
	return &api.Record{Index: index, LeafHash: c.Hash, Event: event, Operator: p.signer(index).Operator, Detail: detail,
		Erased: c.Data.Detail != "" && detail == nil, Late: c.Late()}, err
}

// noteComplete says what proven rows leave open.
func (a *app) noteComplete(trust *ledger.Trust) {
	if trust != nil {
		fmt.Fprintln(a.err, "note: each row is proven, not that none is left out: sealstone history shows that of a target, sealstone mirror of the log")
	}
}
