package server

import (
	"fmt"
	"strings"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

// Activated is a set that the log says was activated for a service.
type Activated struct {
	Service string
	Set     api.Digest
}

// CheckRows holds the rows that say who may fetch what to the log: what is in
// force must be there, and nothing that no activation of the service names. It
// returns findings.
func CheckRows(st *store.Store, log []Activated) (findings []string, err error) {
	keys, err := st.RowKeys("named/")
	if err != nil {
		return nil, err
	}
	have, named := map[string]bool{}, map[string]bool{}
	for _, k := range keys {
		have[k] = true
	}
	for _, a := range log {
		for d := range reachable(st, a.Set) {
			named[namedRow(a.Service, d)] = true
		}
	}
	for _, k := range keys {
		service, hex, _ := strings.Cut(strings.TrimPrefix(k, "named/"), "/")
		d := api.Digest("sha256:" + hex)
		if _, err := st.Object(d); err == nil && !named[k] {
			findings = append(findings, fmt.Sprintf("object %s is shown to readers of %q, and no activation of it names it", d, service))
		}
	}
	for service := range st.Snapshot().State.Services {
		for _, c := range st.Snapshot().State.ServiceChains(service) {
			if c.Kind == ledger.BundleActivated && c.Set != nil && !have[namedRow(service, c.Set.Digest)] {
				findings = append(findings, fmt.Sprintf("set %s is in force, and not shown to readers of %q; the next start shows it", c.Set.Digest, service))
			}
		}
	}
	return findings, nil
}

// reachable is what a set names: itself, its bundles and their objects, as far as
// they are stored.
func reachable(st *store.Store, set api.Digest) map[api.Digest]bool {
	out := map[api.Digest]bool{set: true}
	b, err := st.Object(set)
	if err != nil {
		return out
	}
	s, err := bundle.ParseSet(b)
	if err != nil {
		return out
	}
	for _, e := range s.Entries {
		out[e.Digest] = true
		b, err := st.Object(e.Digest)
		if err != nil {
			continue
		}
		if m, err := bundle.ParseManifest(b); err == nil {
			out[m.Config.Digest] = true
			for _, l := range m.Layers {
				out[l.Digest] = true
			}
		}
	}
	return out
}
