package main

import (
	"context"
	"fmt"
	"net/url"
	"slices"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// provenModes asks which safe modes are in force, and holds the answer to what
// the log proves. Whoever asks this may be in a hurry: where nothing can be proven
// in time, the answer stands as the server's word, and that is said.
func (a *app) provenModes(ctx context.Context, c *client, q url.Values) (answer api.SafeModes, err error) {
	if err = c.get(ctx, "/v1/safe-modes", q, &answer); err != nil {
		return answer, err
	}
	soon, cancel := context.WithTimeout(ctx, fileTimeout)
	defer cancel()
	trust, err := a.rowsTrust(soon, c, false)
	if err == nil && trust != nil {
		err = a.proveModes(soon, c, trust, q.Get("service"), answer.InForce)
	}
	for try := 1; try < provenTries && codeOf(err) == exitProof; try++ { // one may have come or gone meanwhile
		answer = api.SafeModes{}
		if err = c.get(soon, "/v1/safe-modes", q, &answer); err == nil {
			err = a.proveModes(soon, c, trust, q.Get("service"), answer.InForce)
		}
	}
	if err == nil || codeOf(err) == exitProof || ctx.Err() != nil {
		return answer, err
	}
	fmt.Fprintf(a.err, "note: the rows are the server's word: nothing could be proven: %v\n", err)
	return answer, nil
}

// proveModes proves what is in force of a service, or of all that the server
// names.
func (a *app) proveModes(ctx context.Context, c *client, trust *ledger.Trust, service string, said []api.Held) error {
	services := []string{service}
	if service == "" {
		all, err := c.services(ctx)
		if err != nil {
			return err
		}
		services = serviceNames(all)
		for _, h := range said {
			services = append(services, h.Service)
		}
		slices.Sort(services)
		services = slices.Compact(services)
	}
	proven := make([]*provenService, len(services))
	err := atOnce(len(services), func(i int) (err error) {
		of := slices.DeleteFunc(slices.Clone(said), func(h api.Held) bool { return h.Service != services[i] })
		proven[i], err = proveModesOf(ctx, c, trust, services[i], of)
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

// proveModesOf holds the modes of a service that are said to be in force to the
// newest changes of its override chains. A statement that waits is shown by whom
// it is asked from only: that none is kept back nothing proves.
func proveModesOf(ctx context.Context, c *client, trust *ledger.Trust, service string, said []api.Held) (*provenService, error) {
	p, err := provenOf(ctx, c, trust, service)
	if api.CodeOf(err) == api.CodeNotActivated && len(said) == 0 {
		return nil, nil
	}
	if err == nil {
		err = p.withPending(ctx, c)
	}
	if err != nil {
		return nil, err
	}
	for _, ch := range p.Chains {
		if ch.Lane != ledger.LaneOverride || ch.Kind == ledger.SafeModeExited {
			continue
		}
		at := slices.IndexFunc(said, func(h api.Held) bool { return h.Scope == ch.Scope })
		switch {
		case at >= 0:
			if err := sameRow(fmt.Sprintf("safe mode at %s@%s", service, ch.Scope), said[at], p.held(ch, said[at])); err != nil {
				return nil, err
			}
			said = slices.Delete(said, at, at+1)
		case !ch.Pending:
			return nil, fmt.Errorf("%w: the server hides safe mode %s at %s@%s, in force since entry %d", errProof, ch.Mode, service, ch.Scope, ch.Index)
		}
	}
	for _, h := range said {
		return nil, fmt.Errorf("%w: nothing proves that safe mode %s is in force at %s@%s", errProof, h.Mode, service, h.Scope)
	}
	return p, nil
}

// held is a safe mode as it is proven. What no head says is taken as said: that it
// is overdue, and the words of a statement that waits.
func (p *provenService) held(ch ledger.Chain, said api.Held) api.Held {
	h := api.Held{Service: p.service, Scope: ch.Scope, Mode: ch.Mode, Generation: ch.Generation, Index: ch.Index, Entered: ch.Recorded,
		Expires: ch.Expires, OnExpiry: ch.OnExpiry, Overdue: said.Overdue, Pending: ch.Pending}
	if ch.Pending {
		st := p.waiting[ch.ID]
		h.Index, h.Entered, h.By, h.TTL, h.Reason = -1, ch.Time, st.by, st.ttl, said.Reason
		return h
	}
	h.By, h.Reason = p.by(ch.Index), p.text(ch.Index, "reason")
	return h
}
