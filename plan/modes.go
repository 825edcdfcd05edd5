package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
)

// A Mode is what becomes of a safe mode where its service changes.
type Mode struct {
	Service string   `json:"service"`
	Mode    api.Mode `json:"mode"`
	State   string   `json:"state"` // valid, changed, added or removed
	Notes   []string `json:"notes,omitempty"`
	Waits   bool     `json:"waits,omitempty"` // not before a promotion
}

// States of safe modes, from the least.
var modeStates = []string{"valid", "changed", "added", "removed"}

// safeModes notes what two sets say of each safe mode. What was built is valid:
// every mode was resolved, validated and compiled.
func (m *maker) safeModes(old, next *bundler.Built, live bool) {
	all := maps.Clone(old.SafeModes)
	maps.Copy(all, next.SafeModes)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		was, had := old.SafeModes[name]
		is, has := next.SafeModes[name]
		one := Mode{Service: next.Service, Mode: name, State: "valid", Waits: !live}
		switch {
		case !had:
			one.State = "added"
		case !has:
			one.State = "removed"
		case !m.b.SameMode(m.ctx, old.Commit, next.Commit, next.Service, name):
			one.State, one.Notes = "changed", modeNotes(was, is)
		}
		m.mode(one)
	}
}

// mode keeps the gravest state of a mode, and that it is live if it is anywhere.
func (m *maker) mode(one Mode) {
	i := slices.IndexFunc(m.out.Modes, func(o Mode) bool { return o.Service == one.Service && o.Mode == one.Mode })
	if i < 0 {
		m.out.Modes = append(m.out.Modes, one)
		return
	}
	have := &m.out.Modes[i]
	if slices.Index(modeStates, one.State) > slices.Index(modeStates, have.State) {
		one.Waits = one.Waits && have.Waits
		*have = one
		return
	}
	have.Waits = have.Waits && one.Waits
}

// modeNotes says what safe-mode.yaml says otherwise.
func modeNotes(was, is bundler.SafeMode) []string {
	var out []string
	add := func(what, a, b string) {
		if a != b {
			from := sharedStart(a, b)
			out = append(out, fmt.Sprintf("%s %s → %s", what, window(a, from, maxValue), window(b, from, maxValue)))
		}
	}
	add("ttl", was.TTL.String(), is.TTL.String())
	add("onExpiry", was.OnExpiry, is.OnExpiry)
	add("owner", was.Owner, is.Owner)
	add("description", was.Description, is.Description)
	add("exit", strings.Join(was.Exit, "; "), strings.Join(is.Exit, "; "))
	return out
}
