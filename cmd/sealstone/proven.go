package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/ledger"
)

// A server's tables are its word. With a trust file each row is worked out again
// from changes that the log proves, and a row that differs ends the command.

// provenTries is how often a row and its proof are asked for, since a statement
// may come to wait for the log, or no longer, between the two.
const provenTries = 3

// provenService is what the newest head of a service proves.
type provenService struct {
	*provenLog
	*ledger.Proven
	service string
	object  func(api.Digest) ([]byte, error)
	bundles map[api.Digest]*bundle.Set
	waiting map[string]waiting // statements that wait for the log, by id
}

// waiting is what a pending statement says of itself.
type waiting struct {
	by  string
	ttl int64
}

// provenOf asks for a service's evidence and proves it.
func provenOf(ctx context.Context, c *client, trust *ledger.Trust, service string) (*provenService, error) {
	var e ledger.Evidence
	if err := c.get(ctx, "/v1/evidence", url.Values{"service": {service}}, &e); err != nil {
		return nil, err
	}
	proven, err := trust.Prove(&e, service, nil)
	if err != nil {
		return nil, err
	}
	log := newProvenLog(trust)
	log.tree, log.checkpoint = proven.Tree, e.Checkpoint
	log.take(&e, proven.Changes)
	return &provenService{log, proven, service, c.objects(ctx, service), map[api.Digest]*bundle.Set{}, map[string]waiting{}}, nil
}

// noteOld says that a server shows no head of now.
func (a *app) noteOld(p *provenService) {
	if p == nil {
		return
	}
	switch age := time.Since(p.Head.Issued); {
	case age > ledger.StaleAfter:
		fmt.Fprintf(a.err, "note: the newest head of %s is of %s: nothing proves what came after it\n", p.service, api.FormatTime(p.Head.Issued))
	case age < -ledger.StaleAfter:
		fmt.Fprintf(a.err, "note: the newest head of %s is of %s, %s ahead of this clock: one of the clocks is wrong, so nothing proves that it is the newest\n",
			p.service, api.FormatTime(p.Head.Issued), span(-age))
	}
}

// withPending lays the statements over the chains that the server says wait for
// the log: each proves itself.
func (p *provenService) withPending(ctx context.Context, c *client) error {
	var pending api.Pending
	if err := c.get(ctx, "/v1/pending", url.Values{"service": {p.service}}, &pending); err != nil {
		return err
	}
	for _, raw := range pending.Statements {
		st, err := ledger.ParseStatement(raw)
		if err != nil {
			return fmt.Errorf("%w: a pending statement: %w", errProof, err)
		}
		by, _ := p.Operators.Signer(st) // without a good signature it isn't laid over
		p.waiting[st.ID] = waiting{by.Operator, st.TTL}
		p.Chains = ledger.WithPending(p.Chains, p.service, []*ledger.Signed{st}, p.Operators, func(api.Mode) bool { return true }, st.At())
	}
	return nil
}

// bundle is the one that an effect means at a scope. A set that lacks the mode
// stays normal.
func (p *provenService) bundle(e ledger.Effect, scope api.Scope) (ledger.Effect, api.Digest, error) {
	d := e.Main.Set.Digest
	if p.bundles[d] == nil {
		raw, err := p.object(d)
		if err != nil {
			return e, "", err
		}
		if p.bundles[d], err = bundle.ParseSet(raw); err != nil {
			return e, "", err
		}
	}
	if _, ok := p.bundles[d].Find(scope, e.Mode); !ok {
		e.Mode, e.Override = api.ModeNormal, nil
	}
	entry, _ := p.bundles[d].Find(scope, e.Mode)
	return e, entry.Digest, nil
}

// live is the row of a scope as the log proves it; nil where nothing is activated.
// What no head says is taken as said: that a mode is overdue, and that a set was
// erased, so that its bundle can't be named.
func (p *provenService) live(scope api.Scope, said *api.Proven) (*api.Proven, error) {
	e, ok := ledger.InEffect(p.Chains, scope)
	if !ok {
		return nil, nil
	}
	row := &api.Proven{Set: e.Main.Set.Digest, Release: e.Main.Release.Commit, Index: e.Main.Index, Since: e.Main.Recorded}
	if said != nil && said.Set == row.Set {
		row.Missing = said.Missing
	}
	if row.Missing == "" {
		var err error
		if e, row.Bundle, err = p.bundle(e, scope); err != nil {
			return nil, err
		}
	}
	row.Mode = e.Mode
	if o := e.Override; o != nil {
		row.Index, row.Since, row.Expires = o.Index, max(o.Recorded, row.Since), o.Expires
		if o.Pending {
			row.Index, row.Since, row.By = -1, o.Time, p.waiting[o.ID].by
		}
		row.Overdue = said != nil && said.Index == row.Index && said.Overdue
	}
	row.By = cmp.Or(row.By, p.by(row.Index))
	return row, nil
}

// movedSince tells whether what decides for a scope has changes from entry size on.
func (p *provenService) movedSince(size int64, scope api.Scope) bool {
	return slices.ContainsFunc(p.Chains, func(ch ledger.Chain) bool { return !ch.Pending && ch.Index >= size && ch.Scope.Contains(scope) })
}

// proveLive holds the rows of a service to what the log proves; where the log
// went on from the answer's size, the row is what it proves now. whole asks for
// a row of every scope that is activated.
func proveLive(ctx context.Context, c *client, trust *ledger.Trust, s *api.LiveService, size int64, whole bool) (*provenService, error) {
	p, err := provenOf(ctx, c, trust, s.Service)
	said := slices.ContainsFunc(s.Scopes, func(row api.LiveScope) bool { return row.Proven != nil })
	if api.CodeOf(err) == api.CodeNotActivated && !said { // instances report from there, and that is all
		return nil, nil
	}
	if err == nil {
		err = p.withPending(ctx, c)
	}
	if err != nil {
		return nil, err
	}
	for _, ch := range p.Chains {
		shown := slices.ContainsFunc(s.Scopes, func(row api.LiveScope) bool { return row.Scope == ch.Scope })
		switch {
		case shown || !whole || ch.Lane != ledger.LaneMain || ch.Kind != ledger.BundleActivated:
		case ch.Index < size:
			return nil, fmt.Errorf("%w: the server hides %s@%s, which entry %d activated", errProof, s.Service, ch.Scope, ch.Index)
		default:
			s.Scopes = append(s.Scopes, api.LiveScope{Scope: ch.Scope, Instances: []api.LiveInstance{}})
		}
	}
	for i := range s.Scopes {
		row := &s.Scopes[i]
		proven, err := p.live(row.Scope, row.Proven)
		if err == nil && !p.movedSince(size, row.Scope) {
			err = sameRow(fmt.Sprintf("%s@%s", s.Service, row.Scope), row.Proven, proven)
		}
		if err != nil {
			return nil, err
		}
		row.Proven = proven
	}
	return p, nil
}

// provenAtOnce is how many services are asked about at once.
const provenAtOnce = 16

// atOnce calls f for each of n, some at once, and returns the first error.
func atOnce(n int, f func(i int) error) error {
	errs, slots := make([]error, n), make(chan struct{}, provenAtOnce)
	var all sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		all.Go(func() {
			errs[i] = f(i)
			<-slots
		})
	}
	all.Wait()
	return cmp.Or(errs...)
}

func (a *app) proveAllLive(ctx context.Context, c *client, trust *ledger.Trust, live *api.Live, whole bool) error {
	proven := make([]*provenService, len(live.Services))
	err := atOnce(len(proven), func(i int) (err error) {
		proven[i], err = proveLive(ctx, c, trust, &live.Services[i], live.Size, whole)
		return err
	})
	if err != nil {
		return err
	}
	for _, p := range proven {
		a.noteOld(p)
	}
	return nil
}

// sameRow says in what a row differs from what is proven.
func sameRow(name string, said, proven any) error {
	a, b := members(said), members(proven)
	for _, k := range slices.Sorted(maps.Keys(merged(a, b))) {
		if !reflect.DeepEqual(a[k], b[k]) {
			return fmt.Errorf("%w: %s, entry %v: the server says that its %s is %s, the log proves %s", errProof, name, either(a["index"], b["index"]), k, inWords(a[k]), inWords(b[k]))
		}
	}
	return nil
}

func members(v any) (out map[string]any) {
	b, err := json.Marshal(v)
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		return nil
	}
	return out
}

func merged(a, b map[string]any) map[string]any {
	out := maps.Clone(b)
	if out == nil {
		out = map[string]any{}
	}
	maps.Copy(out, a)
	return out
}

func either(a, b any) any {
	if a == nil {
		return b
	}
	return a
}

func inWords(v any) string {
	if v == nil {
		return "nothing"
	}
	return api.Clip(plain(v), 128)
}

// plain is a value out of JSON in words: JSON again, but for a text.
func plain(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	b, _ := json.Marshal(v)
	return string(b)
}
