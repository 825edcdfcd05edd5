package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/ledger"
)

// A server's tables are its word. With a trust file each row is worked out again
// from changes that the log proves, and a row that differs ends the command.

// provenTries is how often an answer and its proof are asked for, since the log
// may go on between the two.
const provenTries = 3

// provenService is what the newest head of a service proves.
type provenService struct {
	*ledger.Proven
	trust   *ledger.Trust
	service string
	details map[int64]map[string]any
	object  func(api.Digest) ([]byte, error)
	sets    map[api.Digest]*bundle.Set
}

// provenOf asks for a service's evidence and proves it.
func (a *app) provenOf(ctx context.Context, c *client, trust *ledger.Trust, service string) (*provenService, error) {
	var e ledger.Evidence
	if err := c.get(ctx, "/v1/evidence", url.Values{"service": {service}}, &e); err != nil {
		return nil, err
	}
	proven, err := trust.Prove(&e, service, nil)
	if err != nil {
		return nil, err
	}
	if time.Since(proven.Head.Issued) > ledger.StaleAfter {
		fmt.Fprintf(a.err, "note: the newest head of %s is of %s: nothing proves what came after it\n", service, api.FormatTime(proven.Head.Issued))
	}
	p := &provenService{Proven: proven, trust: trust, service: service, details: map[int64]map[string]any{}, object: c.objects(ctx, service), sets: map[api.Digest]*bundle.Set{}}
	for _, ec := range e.Changes {
		p.details[ec.Index] = ec.Detail
	}
	return p, nil
}

// withPending lays the statements over the chains that the server says wait for
// the log: each proves itself.
func (p *provenService) withPending(ctx context.Context, c *client) error {
	var waiting api.Pending
	if err := c.get(ctx, "/v1/pending", url.Values{"service": {p.service}}, &waiting); err != nil {
		return err
	}
	for _, raw := range waiting.Statements {
		st, err := ledger.ParseStatement(raw)
		if err != nil {
			return fmt.Errorf("%w: a pending statement: %w", errProof, err)
		}
		p.Chains = ledger.WithPending(p.Chains, p.service, []*ledger.Signed{st}, p.Operators, func(api.Mode) bool { return true }, st.At())
	}
	return nil
}

// bundle is the one that an effect means at a scope. A set that lacks the mode
// stays normal.
func (p *provenService) bundle(e ledger.Effect, scope api.Scope) (ledger.Effect, api.Digest, error) {
	d := e.Main.Set.Digest
	if p.sets[d] == nil {
		raw, err := p.object(d)
		if err != nil {
			return e, "", err
		}
		if p.sets[d], err = bundle.ParseSet(raw); err != nil {
			return e, "", err
		}
	}
	if _, ok := p.sets[d].Find(scope, e.Mode); !ok {
		e.Mode, e.Override = api.ModeNormal, nil
	}
	entry, _ := p.sets[d].Find(scope, e.Mode)
	return e, entry.Digest, nil
}

// by is who made a change: the operator who signed it, or the commit's author.
func (p *provenService) by(index int64) string {
	c := p.Changes[index]
	if c == nil {
		return ""
	}
	if c.Statement == nil {
		author, _ := p.details[index]["author"].(string)
		return author
	}
	cited := p.Changes[c.Data.Operators]
	if cited == nil {
		return ""
	}
	ops, err := p.trust.OperatorsAt(c.Data.Operators, cited.Data.Statement)
	if err != nil {
		return ""
	}
	by, _ := ops.Judge(c.Statement)
	return by.Operator
}

// live is the row of a scope as the log proves it; nil where nothing is activated.
// What no head says is taken as said: that a mode is overdue, and that a set was
// erased, so that its bundle can't be named.
func (p *provenService) live(scope api.Scope, said *api.Proven) (*api.Proven, error) {
	e, ok := ledger.InEffect(p.Chains, scope)
	if !ok {
		return nil, nil
	}
	if said == nil {
		said = &api.Proven{}
	}
	var digest api.Digest
	var err error
	if said.Missing == "" {
		if e, digest, err = p.bundle(e, scope); err != nil {
			return nil, err
		}
	}
	row := &api.Proven{Missing: said.Missing, Overdue: said.Overdue, Bundle: digest, Set: e.Main.Set.Digest, Mode: e.Mode, Release: e.Main.Release.Commit, Index: e.Main.Index, Since: e.Main.Recorded}
	if o := e.Override; o != nil {
		row.Index, row.Since, row.Expires = o.Index, max(o.Recorded, row.Since), o.Expires
		if o.Pending {
			row.Index, row.Since = -1, o.Time
		}
	}
	row.By = p.by(row.Index)
	return row, nil
}

// proveLive holds the rows of a service to what the log proves. whole asks for a
// row of every scope that is activated.
func (a *app) proveLive(ctx context.Context, c *client, trust *ledger.Trust, s *api.LiveService, whole bool) error {
	p, err := a.provenOf(ctx, c, trust, s.Service)
	if err == nil {
		err = p.withPending(ctx, c)
	}
	if err != nil {
		return err
	}
	shown := map[api.Scope]bool{}
	for _, row := range s.Scopes {
		shown[row.Scope] = true
		want, err := p.live(row.Scope, row.Proven)
		if err != nil {
			return err
		}
		if err := sameRow(fmt.Sprintf("%s@%s", s.Service, row.Scope), row.Proven, want); err != nil {
			return err
		}
	}
	for _, ch := range p.Chains {
		if ch.Lane == ledger.LaneMain && ch.Kind == ledger.BundleActivated && whole && !shown[ch.Scope] {
			return fmt.Errorf("%w: the server hides %s@%s, which entry %d activated", errProof, s.Service, ch.Scope, ch.Index)
		}
	}
	return nil
}

func (a *app) proveAllLive(ctx context.Context, c *client, trust *ledger.Trust, live *api.Live, whole bool) error {
	for i := range live.Services {
		if err := a.proveLive(ctx, c, trust, &live.Services[i], whole); err != nil {
			return err
		}
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
	return api.Clip(fmt.Sprint(v), 128)
}
