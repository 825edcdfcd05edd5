package integration_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/integration/proctest"
	"github.com/sealstone/sealstone/ledger"
)

// settle ends all trouble, and brings the log beyond what files say.
func (m *model) settle() {
	m.t.Helper()
	for m.full || m.down {
		if m.down {
			m.serves()
		} else {
			m.turnsDisk()
		}
	}
	if m.cut.Load() {
		m.cuts()
	}
	for _, s := range m.notes {
		if s.outcome != applied {
			m.post(s)
			m.judge(s)
		}
	}
	for _, s := range m.files {
		for m.chains[s.Scope].generation <= *s.After {
			m.enters(s.Scope, "minimal")
		}
	}
	m.sync()
}

// enters is what always works.
func (m *model) enters(scope api.Scope, mode api.Mode) {
	m.t.Helper()
	after := m.chains[scope].generation
	s := m.prepare(m.rig.Operator, false, ledger.SafeModeEntered, scope, func(st *ledger.Statement) {
		st.Mode, st.After, st.TTL, st.OnExpiry = mode, &after, 3600, "hold"
	})
	m.post(s)
	m.judge(s)
}

// agree asks everybody, before and after one more safe mode.
func (m *model) agree() {
	m.t.Helper()
	fresh := []*client{m.long, m.far}
	for _, target := range []string{eu, us, "checkout@prod", "checkout@staging"} {
		fresh = append(fresh, m.open(target, m.server.URL, ""))
	}
	m.everybody(fresh)
	m.say("one more")
	m.enters("prod/eu-west-1", pick[api.Mode](m, "degraded", "minimal"))
	m.everybody(fresh)
	m.server.OK("verify")
	m.server.Kill()
	m.rig.OK("verify", "--data", m.rig.Data)
}

// entry is a change and where it is.
type entry struct {
	*ledger.Change
	index int64
}

// everybody holds the log to the map, and all who speak of it to the log.
func (m *model) everybody(clients []*client) {
	m.t.Helper()
	newest := m.log()
	rows := m.rows()
	for scope := range m.chains {
		if got := m.inForce(newest, scope); got.mode != m.mode(scope) {
			m.t.Errorf("the log has mode %s at %s, want %s", got.mode, scope, m.mode(scope))
		}
	}
	m.head(newest)
	for scope, p := range rows {
		want := m.inForce(newest, scope)
		if p == nil || p.Mode != want.mode || p.Set != want.set || p.Index != want.index {
			m.t.Errorf("live says of %s %+v, want %+v", scope, p, want)
		}
	}
	for i, c := range clients {
		scope := c.Target().Scope
		want, n := m.inForce(newest, scope), m.prod
		if scope == "staging" {
			n = m.n
		}
		proctest.Until(m.t, fmt.Sprintf("client %d of %s: %+v, release %d", i, scope, want, n), func() bool {
			l := c.Live()
			return (effect{l.Mode, l.Set, l.Index}) == want && c.release.Get().Number == n && len(l.Pending) == 0 && c.State() == api.StateReady
		})
		if l := c.Live(); rows[scope] == nil || l.Bundle != rows[scope].Bundle {
			m.t.Errorf("client %d of %s runs %s, live says %+v", i, scope, l.Bundle, rows[scope])
		} else if l.Refusal != nil && c != m.far {
			m.t.Errorf("client %d of %s refused %+v", i, scope, l.Refusal)
		}
	}
}

// log reads the whole log: what was acknowledged is there as itself, what was
// refused is not, and each chain is as long as the map says.
func (m *model) log() map[string]entry {
	m.t.Helper()
	_, leaves := m.server.Leaves()
	newest, at := map[string]entry{}, map[string]entry{}
	for i, leaf := range leaves {
		c, err := ledger.ParseLeaf(leaf)
		m.must(err)
		e := entry{c, int64(i)}
		if c.Data.Lane == ledger.LaneMain || c.Data.Lane == ledger.LaneOverride {
			newest[fmt.Sprintf("%s %s@%s", c.Data.Lane, c.Data.Service, c.Data.Scope)] = e
		}
		if c.Statement != nil {
			at[string(c.Statement.Raw)] = e
		}
	}
	for _, s := range slices.Concat(m.sent, m.notes) {
		e, there := at[string(s.Raw)]
		switch {
		case there != (s.outcome == applied || s.outcome == late):
			m.t.Errorf("%s was answered %q; in the log: %v", m.name(s), s.outcome, there)
		case there && (s.receipt.Index >= 0 && s.receipt.Index != e.index || (e.Kind() == s.Kind) != (s.outcome == applied)):
			m.t.Errorf("%s was answered %q (%+v), and is entry %d, %s", m.name(s), s.outcome, s.receipt, e.index, e.Kind())
		}
	}
	for scope, c := range m.chains {
		if e, there := newest["override checkout@"+string(scope)]; there != (c.generation > 0) || there && e.Data.Generation != c.generation {
			m.t.Errorf("the chain of %s has %v, want %+v", scope, e.Change, c)
		}
	}
	return newest
}

// effect is what runs at a scope, and the change that put it there.
type effect struct {
	mode  api.Mode
	set   api.Digest
	index int64
}

// inForce finds it in the newest entries of the chains: the nearest counts.
func (m *model) inForce(newest map[string]entry, scope api.Scope) (out effect) {
	out.mode = api.ModeNormal
	for at := scope; at != "" && out.set == ""; at = at.Parent() {
		if e, ok := newest["main checkout@"+string(at)]; ok && e.Kind() == ledger.BundleActivated {
			out.set, out.index = e.Data.Set.Digest, e.index
		}
	}
	for at := scope; at != ""; at = at.Parent() {
		if e, ok := newest["override checkout@"+string(at)]; ok && e.Kind() != ledger.SafeModeExited {
			out.mode, out.index = e.Data.Mode, e.index
			break
		}
	}
	return out
}

// head holds the head that clients get to the chains.
func (m *model) head(newest map[string]entry) {
	m.t.Helper()
	h, err := m.rig.LoadTrust().OpenHead(m.server.Get("/v1/head?service=checkout"))
	m.must(err)
	lines := 0
	for chain := range newest {
		if strings.Contains(chain, " checkout@") {
			lines++
		}
	}
	if lines != len(h.Lines) {
		m.t.Errorf("the head has %d chains, the log %d", len(h.Lines), lines)
	}
	for _, l := range h.Lines {
		if e := newest[fmt.Sprintf("%s checkout@%s", l.Lane, l.Scope)]; e.Change == nil || e.index != l.Index || e.Hash != l.Hash {
			m.t.Errorf("the head says %+v of %s %s, the log has %v", l.Ref, l.Lane, l.Scope, e)
		}
	}
}

// rows are what live proves.
func (m *model) rows() map[api.Scope]*api.Proven {
	m.t.Helper()
	res := m.server.CLI("live", "checkout", "-o", "json")
	if res.Code != 0 || strings.Contains(res.Stderr, "server's word") {
		m.t.Fatalf("live: exit %d\n%s", res.Code, res.Stderr)
	}
	out := map[api.Scope]*api.Proven{}
	for _, s := range decode[api.Live](m.t, res.Stdout).Services[0].Scopes {
		out[s.Scope] = s.Proven
	}
	return out
}
