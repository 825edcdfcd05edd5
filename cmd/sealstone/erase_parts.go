package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
)

// madeOf is an object that a set or a bundle is made of.
type madeOf struct {
	digest api.Digest
	name   string
}

// maxParts bounds the list that people are shown.
const maxParts = 20

// partsOf lists what an object is made of; none where that can't be told.
func (a *app) partsOf(ctx context.Context, service string, d api.Digest) (out []madeOf) {
	c, err := a.client()
	if err != nil || service == "" || !d.Valid() {
		return nil
	}
	b, err := c.objects(ctx, service)(d)
	if err != nil {
		return nil
	}
	seen := map[api.Digest]bool{}
	add := func(d api.Digest, name string) {
		if !seen[d] {
			seen[d] = true
			out = append(out, madeOf{d, name})
		}
	}
	if set, err := bundle.ParseSet(b); err == nil {
		for _, e := range set.Entries {
			add(e.Digest, fmt.Sprintf("%s, %s", e.Scope, e.Mode))
		}
	}
	if m, err := bundle.ParseManifest(b); err == nil {
		for _, l := range m.Layers {
			add(l.Digest, l.Title())
		}
	}
	return out
}

// tellServed says which parts of an erased object readers can still have: each
// is an object of its own, and may be part of others.
func (a *app) tellServed(ctx context.Context, at api.Target, parts []madeOf) {
	c, err := a.client()
	if err != nil {
		return
	}
	told, place := 0, "--service "+at.Service
	if at.Scope != "" {
		place += " --scope " + string(at.Scope)
	}
	for _, p := range parts {
		if _, err := c.do(ctx, http.MethodHead, "/v2/"+at.Service+"/blobs/"+string(p.digest), nil); err != nil {
			continue
		}
		switch told++; {
		case told == 1:
			fmt.Fprintln(a.err, "what it is made of is still served; to withhold that as well, as far as nothing in force is made of it:")
		case told > maxParts:
			fmt.Fprintln(a.err, "  ... and more")
			return
		}
		fmt.Fprintf(a.err, "  sealstone changes erase --object %s %s    # %s\n", p.digest, place, printable(p.name))
	}
}
