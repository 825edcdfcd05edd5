package sdk

import (
	"encoding/base64"
	"maps"
	"slices"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// Live is what this process runs, and what of it the process can prove. It
// encodes as JSON for a debug endpoint.
type Live struct {
	Target api.Target `json:"target"`
	State  api.State  `json:"state"`
	Why    string     `json:"why,omitempty"` // the state, in words

	// Proven by a chain of signatures from the trust file down.
	Bundle    api.Digest      `json:"bundle"`
	Set       api.Digest      `json:"set"`
	Mode      api.Mode        `json:"mode"`
	Index     int64           `json:"index"` // of the change that put the bundle into effect; -1 for a pending statement
	Since     string          `json:"since"` // when that change was recorded
	Release   *ledger.Release `json:"release,omitempty"`
	Override  *ledger.Chain   `json:"override,omitempty"` // the safe mode in force, nil in normal mode
	Overrides []OverrideChain `json:"overrides"`          // at or above the target, ended ones too; a scope that is missing is at 0
	LogSize   int64           `json:"logSize"`
	LogRoot   string          `json:"logRoot"` // standard base64
	Issued    string          `json:"headIssued"`
	HeadAge   time.Duration   `json:"headAge"`   // nanoseconds, by this machine's clock; negative when it is behind the server's
	Operators int             `json:"operators"` // version, 0 before the first set

	Origin       string `json:"origin"`
	TrustVersion int    `json:"trustVersion"`
	FirstUse     bool   `json:"firstUse"` // the trust file was taken from a server: it proves continuity, not origin

	SafeModes []api.Mode        `json:"safeModes"`           // staged: entering one needs nothing more
	Pending   []PendingMode     `json:"pending,omitempty"`   // statements obeyed before the log has them
	Refusal   *Refusal          `json:"refusal,omitempty"`   // the newest of Refusals that stands
	Documents map[string]string `json:"documents,omitempty"` // those that keep an older value, and why
	Servers   []ServerStatus    `json:"servers"`
	LastError string            `json:"lastError,omitempty"` // of the last round
	Cache     string            `json:"cache,omitempty"`     // path of the slot
	CacheNote string            `json:"cacheNote,omitempty"` // what is wrong with it
}

// OverrideChain is how far the safe modes of a scope have come: a statement
// that is signed without a server must carry the generation.
type OverrideChain struct {
	Scope      api.Scope   `json:"scope"`
	Generation int64       `json:"generation"`
	Kind       ledger.Kind `json:"kind"` // of the newest change
}

// PendingMode is a safe-mode statement that isn't in the log yet.
type PendingMode struct {
	ID       string      `json:"id"`
	Kind     ledger.Kind `json:"kind"`
	Scope    api.Scope   `json:"scope"`
	Mode     api.Mode    `json:"mode"`
	Time     string      `json:"time"`
	After    int64       `json:"after"`
	Operator string      `json:"operator,omitempty"` // "" when the newest operators have none of this key: not obeyed
	Staged   bool        `json:"staged"`             // false: the mode isn't in the set, so not obeyed
	Source   string      `json:"source"`             // server or file
}

// ServerStatus is how a server did last.
type ServerStatus struct {
	URL       string `json:"url"`
	LastOK    string `json:"lastOK,omitempty"`
	LastError string `json:"lastError,omitempty"`
}

// Live tells what runs and what proves it, as of now.
func (c *Client) Live() Live {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, h := c.view.Load(), c.proven.Head
	l := Live{
		Target: c.target, State: c.state, Why: c.why,
		Bundle: v.bundle, Set: v.staged.main.Set.Digest, Mode: v.mode, Index: v.index(), Since: v.since(),
		Release: v.effect.Main.Release, Override: v.effect.Override, Overrides: c.overrideChains(),
		LogSize: h.Tree.Size, LogRoot: base64.StdEncoding.EncodeToString(h.Tree.Root[:]),
		Issued: api.FormatTime(h.Issued), HeadAge: time.Since(h.Issued),
		Origin: c.trust.Origin, TrustVersion: c.trust.Version, FirstUse: c.firstUse,
		SafeModes: slices.DeleteFunc(v.staged.modeNames(), func(m api.Mode) bool { return m == api.ModeNormal }),
		Pending:   c.pendingModes(), Servers: c.remote.status(), Cache: c.cache.path(), CacheNote: c.cacheNote,
	}
	if c.proven.Operators != nil {
		l.Operators = c.proven.Operators.Version
	}
	l.Refusal = c.standing()
	if c.lastErr != nil {
		l.LastError = c.lastErr.Error()
	}
	l.Documents = c.docErrors()
	return l
}

func (c *Client) overrideChains() []OverrideChain {
	list := []OverrideChain{}
	for _, ch := range c.proven.Chains {
		if ch.Lane == ledger.LaneOverride && ch.Scope.Contains(c.target.Scope) {
			list = append(list, OverrideChain{ch.Scope, ch.Generation, ch.Kind})
		}
	}
	return list
}

func (c *Client) pendingModes() (list []PendingMode) {
	for _, h := range c.heldInOrder() {
		by, _ := c.proven.Operators.Judge(h.Signed) // "" is the answer when nobody may
		list = append(list, PendingMode{ID: h.ID, Kind: h.Kind, Scope: h.Scope, Mode: h.Mode, Time: h.Time, After: *h.After,
			Operator: by.Operator, Staged: h.Kind == ledger.SafeModeExited || c.hasMode(h.Mode), Source: h.source})
	}
	return list
}

func (c *Client) docErrors() map[string]string {
	out := map[string]string{}
	for _, e := range c.docs {
		if e.err != nil {
			out[e.name] = e.err.Error()
		}
	}
	return out
}

func (s *staged) modeNames() []api.Mode { return slices.Sorted(maps.Keys(s.modes)) }

func (r *remote) status() (list []ServerStatus) {
	for _, s := range r.servers {
		s.mu.Lock()
		st := ServerStatus{URL: s.base, LastError: s.lastErr}
		if !s.lastOK.IsZero() {
			st.LastOK = api.FormatTime(s.lastOK)
		}
		s.mu.Unlock()
		list = append(list, st)
	}
	return list
}
