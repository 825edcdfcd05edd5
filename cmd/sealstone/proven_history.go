package main

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"net/url"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// provenPast is the past of a target's chains, out of changes that are proven one
// by one. Each chain is whole from its newest change, which the head names, down
// to where the answer ends: a change that a server keeps back leaves a gap.
type provenPast struct {
	*provenService
	chains map[ledger.ChainKey][]ledger.Chain // newest first
	proofs map[int64]*ledger.Evidence
}

func (p *provenPast) chain(lane ledger.Lane, scope api.Scope) []ledger.Chain {
	return p.chains[ledger.ChainKey{Lane: lane, Service: p.service, Scope: scope}]
}

// Last is a chain as it was before entry below.
func (p *provenPast) Last(lane ledger.Lane, scope api.Scope, below int64) (ledger.Chain, bool) {
	for _, c := range p.chain(lane, scope) {
		if c.Index < below {
			return c, true
		}
	}
	return ledger.Chain{}, false
}

// Next is the first change of a chain at or above from.
func (p *provenPast) Next(lane ledger.Lane, scope api.Scope, from int64) (int64, bool) {
	next, ok := int64(0), false
	for _, c := range p.chain(lane, scope) {
		if c.Index >= from {
			next, ok = c.Index, true
		}
	}
	return next, ok
}

// prove fetches the proof of a change and checks it.
func (p *provenPast) prove(ctx context.Context, c *client, index int64) (*ledger.Change, error) {
	e, err := c.evidence(ctx, fmt.Sprint(index))
	if err != nil {
		return nil, err
	}
	tree, err := p.trust.OpenCheckpoint([]byte(e.Checkpoint))
	if err == nil {
		err = p.trust.ProveAlone(e, tree)
	}
	if err != nil {
		return nil, fmt.Errorf("the proof of entry %d: %w", index, err)
	}
	for _, ec := range e.Changes {
		change, err := ledger.ParseLeaf(ec.Leaf)
		if err != nil {
			return nil, err
		}
		p.Changes[ec.Index], p.details[ec.Index] = change, ec.Detail
	}
	p.proofs[index] = e
	if p.Changes[index] == nil {
		return nil, fmt.Errorf("%w: what the server shows as the proof of entry %d is that of another one", errProof, index)
	}
	return p.Changes[index], nil
}

// walk proves the chains that decide for a target, each from its newest change
// on until one lies below entry low.
func (p *provenPast) walk(ctx context.Context, c *client, scope api.Scope, low int64) error {
	open := map[ledger.ChainKey]api.Digest{} // what the next one of each must be
	for _, ch := range p.Chains {
		if ch.Scope.Contains(scope) {
			open[ledger.ChainKey{Lane: ch.Lane, Service: p.service, Scope: ch.Scope}] = ch.Hash
		}
	}
	for r, err := range c.chainChanges(ctx, p.service) {
		if err != nil {
			return err
		}
		if len(open) == 0 {
			return nil
		}
		if _, wanted := open[r.ChainKey]; !wanted || r.Index >= p.Tree.Size { // newer than the head that is proven
			continue
		}
		change, err := p.prove(ctx, c, r.Index)
		switch {
		case err != nil:
			return err
		case change.Hash != open[r.ChainKey]:
			return fmt.Errorf("%w: the server keeps back a change of chain %s: entry %d is not the one before", errProof, r.ChainKey, r.Index)
		}
		p.chains[r.ChainKey] = append(p.chains[r.ChainKey], ledger.ChainOf(r.Index, change))
		if open[r.ChainKey] = change.Data.Prev; change.Data.Prev == "" || r.Index < low {
			delete(open, r.ChainKey)
		}
	}
	for key := range open {
		return fmt.Errorf("%w: the server keeps back changes of chain %s", errProof, key)
	}
	return nil
}

// chainChange is where a change says that it stands.
type chainChange struct {
	ledger.ChainKey
	Index int64
}

// chainChanges lists the changes of a service's main and override chains, newest
// first, as the server says.
func (c *client) chainChanges(ctx context.Context, service string) iter.Seq2[chainChange, error] {
	q := url.Values{"service": {service}, "limit": {"1000"}, "kind": {"bundle.activated,bundle.withdrawn,safe-mode.entered,safe-mode.renewed,safe-mode.exited"}}
	return func(yield func(chainChange, error) bool) {
		for {
			var page api.Changes
			err := c.get(ctx, "/v1/changes", q, &page)
			if err != nil {
				yield(chainChange{}, err)
				return
			}
			for _, r := range page.Changes {
				var event struct{ Data ledger.Data }
				if json.Unmarshal(r.Event, &event) != nil {
					continue
				}
				if !yield(chainChange{ledger.ChainKey{Lane: event.Data.Lane, Service: service, Scope: event.Data.Scope}, r.Index}, nil) {
					return
				}
			}
			if page.Next == nil || len(page.Changes) == 0 || q.Get("before") == fmt.Sprint(*page.Next) {
				return
			}
			q.Set("before", fmt.Sprint(*page.Next))
		}
	}
}

// interval is a row as the log proves it.
func (p *provenPast) interval(scope api.Scope, iv ledger.Interval, said *api.Interval) (*api.Interval, error) {
	began := p.Changes[iv.Began]
	text := func(key string) string { v, _ := p.details[iv.Began][key].(string); return v }
	out := &api.Interval{From: began.RecordedTime, Index: iv.Began, Kind: string(began.Kind()), By: p.by(iv.Began), Subject: text("subject"), Reason: text("reason"),
		Erased: began.Data.Detail != "" && p.details[iv.Began] == nil, Mode: iv.Mode, Set: iv.Main.Set.Digest, Commit: iv.Main.Release.Commit, Tree: iv.Main.Release.Tree,
		Main: api.ChainRef{Scope: iv.Main.Scope, Index: iv.Main.Index, Generation: iv.Main.Generation}, Missing: said.Missing}
	if o := iv.Override; o != nil {
		out.Override = &api.ChainRef{Scope: o.Scope, Index: o.Index, Generation: o.Generation}
	}
	if iv.Ended >= 0 {
		out.To, out.EndedBy = p.Changes[iv.Ended].RecordedTime, &iv.Ended
	}
	if said.Missing != "" { // the set is withheld, so nothing is said of its bundle
		return out, nil
	}
	e, digest, err := p.bundle(iv.Effect, scope)
	out.Mode, out.Bundle = e.Mode, digest
	return out, err
}

// provenHistory asks for a target's history and holds each row to the log, and
// the rows to what lies between them.
func (a *app) provenHistory(ctx context.Context, c *client, trust *ledger.Trust, q url.Values, o historyOptions) (h *api.History, p *provenPast, err error) {
	for range provenTries {
		if h, err = c.history(ctx, maps.Clone(q), o.limit); err != nil || trust == nil {
			return h, nil, err
		}
		if p, err = a.proveHistory(ctx, c, trust, h, o); err == nil || codeOf(err) != exitProof {
			break
		}
	}
	return h, p, err
}

func (a *app) proveHistory(ctx context.Context, c *client, trust *ledger.Trust, h *api.History, o historyOptions) (*provenPast, error) {
	head, err := a.provenOf(ctx, c, trust, h.Target.Service)
	if err != nil {
		return nil, err
	}
	p := &provenPast{head, map[ledger.ChainKey][]ledger.Chain{}, map[int64]*ledger.Evidence{}}
	low := int64(0)
	if n := len(h.Intervals); h.Next != nil && n > 0 { // there is more, that nobody asked for
		low = min(h.Intervals[n-1].Index, *h.Next)
	}
	if err := p.walk(ctx, c, h.Target.Scope, low); err != nil {
		return p, err
	}
	return p, p.compare(h, o)
}

// compare goes through what was in effect beside what the server says.
func (p *provenPast) compare(h *api.History, o historyOptions) error {
	below := p.Tree.Size
	if o.before > 0 {
		below = o.before
	}
	rows := h.Intervals
	for iv := range ledger.Intervals(p, h.Target.Scope, below) {
		switch {
		case iv.Began < 0 || p.Changes[iv.Began] == nil:
			return fmt.Errorf("%w: nothing proves when entry %d came into effect", errProof, iv.Main.Index)
		case o.to != "" && !p.at(iv.Began).Before(mustTime(o.to)):
			continue
		case len(rows) == 0 && o.from != "" && iv.Ended >= 0 && !p.at(iv.Ended).After(mustTime(o.from)):
			return nil
		case len(rows) == 0:
			return fmt.Errorf("%w: the server hides what entry %d brought", errProof, iv.Began)
		}
		want, err := p.interval(h.Target.Scope, iv, &rows[0])
		if err != nil {
			return err
		}
		if err := sameRow("the row from "+rows[0].From, rows[0], want); err != nil {
			return err
		}
		if rows = rows[1:]; len(rows) == 0 && h.Next != nil {
			return nil // there is more, which isn't shown
		}
	}
	if len(rows) > 0 {
		return fmt.Errorf("%w: nothing proves the row of entry %d, from %s", errProof, rows[0].Index, rows[0].From)
	}
	return nil
}

func (p *provenPast) at(index int64) time.Time { return p.Changes[index].Recorded() }

// mustTime is a time that was read before.
func mustTime(s string) time.Time {
	t, _ := parseTime("", s)
	return t
}
