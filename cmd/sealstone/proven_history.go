package main

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/url"
	"slices"
	"sort"
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
}

func (p *provenPast) chain(lane ledger.Lane, scope api.Scope) []ledger.Chain {
	return p.chains[ledger.ChainKey{Lane: lane, Service: p.service, Scope: scope}]
}

// newestBelow is the place in a chain of its newest change before entry below.
func newestBelow(chain []ledger.Chain, below int64) int {
	return sort.Search(len(chain), func(i int) bool { return chain[i].Index < below })
}

// Last is a chain as it was before entry below.
func (p *provenPast) Last(lane ledger.Lane, scope api.Scope, below int64) (ledger.Chain, bool) {
	chain := p.chain(lane, scope)
	if i := newestBelow(chain, below); i < len(chain) {
		return chain[i], true
	}
	return ledger.Chain{}, false
}

// Next is the first change of a chain at or above from.
func (p *provenPast) Next(lane ledger.Lane, scope api.Scope, from int64) (int64, bool) {
	chain := p.chain(lane, scope)
	if i := newestBelow(chain, from); i > 0 {
		return chain[i-1].Index, true
	}
	return 0, false
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
	said := map[ledger.ChainKey]bool{} // chains of which the server said all that is wanted
	for page, err := range c.chainChanges(ctx, p.service, p.tree.Size) {
		if err != nil {
			return err
		}
		var wanted []int64
		page = slices.DeleteFunc(page, func(r chainChange) bool { _, ok := open[r.ChainKey]; return !ok || said[r.ChainKey] })
		for _, r := range page {
			if !said[r.ChainKey] {
				wanted, said[r.ChainKey] = append(wanted, r.Index), r.Index < low
			}
		}
		if err := p.prove(ctx, c, wanted); err != nil {
			return err
		}
		for _, r := range page {
			if err := p.follow(open, r, low); err != nil {
				return err
			}
		}
		if len(open) == 0 {
			return nil
		}
	}
	for key := range open {
		return fmt.Errorf("%w: the server keeps back changes of chain %s", errProof, key)
	}
	return nil
}

// follow goes one change down a chain that is still open.
func (p *provenPast) follow(open map[ledger.ChainKey]api.Digest, r chainChange, low int64) error {
	want, ok := open[r.ChainKey]
	change := p.changes[r.Index]
	switch {
	case !ok:
		return nil
	case change.Hash != want:
		return fmt.Errorf("%w: the server keeps back a change of chain %s: entry %d is not the one before", errProof, r.ChainKey, r.Index)
	}
	p.chains[r.ChainKey] = append(p.chains[r.ChainKey], ledger.ChainOf(r.Index, change))
	if open[r.ChainKey] = change.Data.Prev; change.Data.Prev == "" || r.Index < low {
		delete(open, r.ChainKey)
	}
	return nil
}

// chainChange is where a change says that it stands.
type chainChange struct {
	ledger.ChainKey
	Index int64
}

// chainChanges lists the changes of a service's main and override chains before
// an entry, newest first, as the server says.
func (c *client) chainChanges(ctx context.Context, service string, before int64) iter.Seq2[[]chainChange, error] {
	q := url.Values{"service": {service}, "limit": {"1000"}, "kind": {"bundle.activated,bundle.withdrawn,safe-mode.entered,safe-mode.renewed,safe-mode.exited"}}
	return func(yield func([]chainChange, error) bool) {
		for {
			q.Set("before", fmt.Sprint(before))
			var page api.Changes
			err := c.get(ctx, "/v1/changes", q, &page)
			if err != nil {
				yield(nil, err)
				return
			}
			var list []chainChange
			for _, r := range page.Changes {
				var event struct{ Data ledger.Data }
				if json.Unmarshal(r.Event, &event) == nil {
					list = append(list, chainChange{ledger.ChainKey{Lane: event.Data.Lane, Service: service, Scope: event.Data.Scope}, r.Index})
				}
			}
			if !yield(list, nil) || page.Next == nil || len(page.Changes) == 0 || *page.Next >= before {
				return
			}
			before = *page.Next
		}
	}
}

// interval is a row as the log proves it.
func (p *provenPast) interval(scope api.Scope, iv ledger.Interval, said *api.Interval) (*api.Interval, error) {
	began := p.changes[iv.Began]
	out := &api.Interval{From: began.RecordedTime, Index: iv.Began, Kind: string(began.Kind()), By: p.by(iv.Began), Subject: p.text(iv.Began, "subject"), Reason: p.text(iv.Began, "reason"),
		Erased: p.erased[iv.Began] != 0, ErasedBy: p.erased[iv.Began], DetailMissing: p.missing(iv.Began), Mode: iv.Mode, Set: iv.Main.Set.Digest, Commit: iv.Main.Release.Commit, Tree: iv.Main.Release.Tree,
		Main: api.ChainRef{Scope: iv.Main.Scope, Index: iv.Main.Index, Generation: iv.Main.Generation}, Missing: said.Missing}
	if o := iv.Override; o != nil {
		out.Override = &api.ChainRef{Scope: o.Scope, Index: o.Index, Generation: o.Generation}
	}
	if iv.Ended >= 0 {
		out.To, out.EndedBy = p.changes[iv.Ended].RecordedTime, &iv.Ended
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
func (a *app) provenHistory(ctx context.Context, c *client, trust *ledger.Trust, q url.Values, o historyOptions) (*api.History, *provenPast, error) {
	h, err := c.history(ctx, q, o.limit)
	if err != nil || trust == nil {
		return h, nil, err
	}
	head, err := provenOf(ctx, c, trust, h.Target.Service)
	if err != nil {
		return h, nil, err
	}
	a.noteOld(head)
	p := &provenPast{head, map[ledger.ChainKey][]ledger.Chain{}}
	low := int64(0)
	if n := len(h.Intervals); h.Next != nil && n > 0 { // there is more, that nobody asked for
		low = min(h.Intervals[n-1].Index, *h.Next)
	}
	if err := p.walk(ctx, c, h.Target.Scope, low); err != nil {
		return h, p, err
	}
	newer, err := p.compare(h, o)
	h.Intervals = append(newer, h.Intervals...)
	if n := o.limit; n > 0 && len(h.Intervals) > n {
		h.Intervals, h.Next = h.Intervals[:n], &h.Intervals[n-1].Index
	}
	return h, p, err
}

// compare goes through what was in effect beside what the server says. It returns
// the rows of what came after the server's answer, and ends the row that was the
// newest in it.
func (p *provenPast) compare(h *api.History, o historyOptions) (newer []api.Interval, err error) {
	below := p.tree.Size
	if o.before > 0 {
		below = o.before
	}
	rows := h.Intervals
	for iv := range ledger.Intervals(p, h.Target.Scope, below) {
		over := o.from != "" && iv.Ended >= 0 && p.changes[iv.Ended] != nil && !p.at(iv.Ended).After(mustTime(o.from))
		switch {
		case iv.Began < 0 || p.changes[iv.Began] == nil:
			return nil, fmt.Errorf("%w: nothing proves when entry %d came into effect", errProof, iv.Main.Index)
		case o.to != "" && !p.at(iv.Began).Before(mustTime(o.to)):
			continue
		case len(rows) == 0 && over:
			return newer, nil
		case iv.Began >= h.Size && !over:
			want, err := p.interval(h.Target.Scope, iv, &api.Interval{})
			if err != nil {
				return nil, err
			}
			newer = append(newer, *want)
			continue
		case len(rows) == 0:
			return nil, fmt.Errorf("%w: the server hides what entry %d brought", errProof, iv.Began)
		}
		want, err := p.interval(h.Target.Scope, iv, &rows[0])
		if err != nil {
			return nil, err
		}
		if iv.Ended >= h.Size || rows[0].EndedBy != nil && *rows[0].EndedBy >= h.Size {
			rows[0].To, rows[0].EndedBy = want.To, want.EndedBy
		}
		if want.Erased || want.DetailMissing { // perhaps since
			rows[0].Erased, rows[0].ErasedBy, rows[0].DetailMissing = want.Erased, want.ErasedBy, want.DetailMissing
			rows[0].By, rows[0].Subject, rows[0].Reason = want.By, want.Subject, want.Reason
		}
		if err := sameRow("the row from "+rows[0].From, rows[0], want); err != nil {
			return nil, err
		}
		if rows = rows[1:]; len(rows) == 0 && h.Next != nil {
			return newer, nil // there is more, which isn't shown
		}
	}
	if len(rows) > 0 {
		return nil, fmt.Errorf("%w: nothing proves the row of entry %d, from %s", errProof, rows[0].Index, rows[0].From)
	}
	return newer, nil
}

func (p *provenPast) at(index int64) time.Time { return p.changes[index].Recorded() }

// mustTime is a time that was read before.
func mustTime(s string) time.Time {
	t, _ := parseTime("", s)
	return t
}
