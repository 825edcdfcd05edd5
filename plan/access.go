package plan

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
)

// The kinds of items that say who may do what. Their values are words, not JSON.
const (
	KindFile     Kind = "file" // one of those below, as such
	KindOperator Kind = "operator"
	KindClient   Kind = "client"
)

// accessFiles say who may do what, at the tip.
var accessFiles = []string{"operators.yaml", "operators.sig", "clients.yaml", "sealstone.yaml"}

// A holder is a file, or somebody in it, and what it says of them.
type holder struct {
	kind   Kind
	name   string
	facts  []fact
	grants map[grant]string // pointers
}

// A fact is one thing that a file says: one of a kind, or one of many.
type fact struct {
	key, value string
	pointer    string
	many       bool
}

// A grant allows one thing: to do something about a service at a scope and below.
type grant struct{ do, service, scope string }

// maxGrants bounds the grants of one holder that are told apart.
const maxGrants = 20_000

// access compares the files that say who may do what.
func (m *maker) access() error {
	for _, file := range accessFiles {
		if m.base.commit != "" && m.b.Same(m.base.commit, m.head.commit, file) {
			continue
		}
		old, err := m.register(m.base, file)
		if err != nil {
			return err
		}
		next, err := m.register(m.head, file)
		if err != nil {
			return err
		}
		if old.there || next.there {
			m.out.Access = append(m.out.Access, old.compare(next)...)
		}
	}
	return nil
}

// everybody is who reads without a token, where there is no clients.yaml.
const everybody = "everybody"

// A register is one of the files at one side.
type register struct {
	there   bool
	bad     bool // it can't be read, so what was in force stays
	version int  // of operators
	holders []holder
	place   func(pointer string) bundler.Position
}

func (m *maker) register(s *side, file string) (*register, error) {
	r := &register{}
	if s.commit == "" {
		return r, nil
	}
	raw, whole, err := m.b.File(m.ctx, s.commit, file)
	if err != nil {
		return nil, err
	}
	r.there = whole || !m.b.Same("", s.commit, file) // what is no file, or too long
	r.place = bundler.Places(file, raw)
	r.holders = []holder{{kind: KindFile, name: file}}
	switch {
	case !r.there && file == "clients.yaml":
		r.holders[0].is(everybody, "may read everything, the log too", "")
	case !r.there || file == "operators.sig":
	case file == "operators.yaml":
		ops, _ := bundler.ParseOperators(raw)
		if r.bad = ops == nil; !r.bad {
			r.operators(ops)
		}
	case s.tip == nil:
		r.bad = true
	case file == "clients.yaml":
		r.bad = !s.tip.HasClients
		r.clients(s.tip.Clients)
	case file == "sealstone.yaml":
		r.settings(s.tip.Config)
	}
	if r.bad {
		r.holders = r.holders[:1]
	}
	return r, nil
}

func (r *register) operators(ops *bundler.Operators) {
	r.version = ops.Version
	r.holders[0].is("version", strconv.Itoa(ops.Version), "/version")
	for i, o := range ops.Operators {
		at := fmt.Sprintf("/operators/%d", i)
		h := holder{kind: KindOperator, name: o.ID}
		h.is("name", o.Name, at+"/name")
		for n, k := range o.Keys {
			h.has("key", fingerprint(k), fmt.Sprintf("%s/keys/%d", at, n))
		}
		for n, may := range o.May {
			h.may(may, fmt.Sprintf("%s/may/%d", at, n))
		}
		r.holders = append(r.holders, h)
	}
}

func (r *register) clients(list []bundler.Client) {
	for i, c := range list {
		at := fmt.Sprintf("/clients/%d", i)
		h := holder{kind: KindClient, name: c.Name}
		h.is("token", api.Digest(c.Token).Short(), at+"/token")
		may := bundler.Permission{Do: []string{"read"}, Services: c.Services}
		for _, s := range c.Scopes {
			may.Scopes = append(may.Scopes, cmp.Or(string(s), "*"))
		}
		h.may(may, at+"/scopes")
		if c.Log {
			h.may(bundler.Permission{Do: []string{"read the whole log"}, Services: []string{"*"}, Scopes: []string{"*"}}, at+"/log")
		}
		r.holders = append(r.holders, h)
	}
}

func (r *register) settings(c bundler.Layout) {
	h := &r.holders[0]
	h.is("version", strconv.Itoa(c.Version), "/version")
	h.is("levels", strings.Join(c.Levels, ", "), "/levels")
	for i, s := range c.Scopes {
		h.has("scope", s, fmt.Sprintf("/scopes/%d", i))
	}
	h.is("source.require_signed", strconv.FormatBool(c.RequireSigned), "/source/require_signed")
}

// fingerprint names a key as ssh-keygen -l does.
func fingerprint(key string) string {
	_, blob, _ := strings.Cut(key, " ")
	wire, _ := base64.StdEncoding.DecodeString(blob) // ParseOperators accepted it
	sum := sha256.Sum256(wire)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

func (h *holder) is(key, value, pointer string) {
	if value != "" {
		h.facts = append(h.facts, fact{key: key, value: value, pointer: pointer})
	}
}

func (h *holder) has(key, value, pointer string) {
	h.facts = append(h.facts, fact{key: key, value: value, pointer: pointer, many: true})
}

// may adds what one entry allows. Too much to be told apart counts by its digest.
func (h *holder) may(p bundler.Permission, pointer string) {
	if h.grants == nil {
		h.grants = map[grant]string{}
	}
	if n := len(p.Do) * len(p.Services) * len(p.Scopes); n > maxGrants-len(h.grants) {
		sum := api.DigestOf(fmt.Append(nil, p))
		h.has("may", fmt.Sprintf("%d things, too many to list (%s)", n, sum.Short()), pointer)
		return
	}
	for _, do := range p.Do {
		for _, service := range p.Services {
			for _, scope := range p.Scopes {
				if g := (grant{do, service, scope}); h.grants[g] == "" {
					h.grants[g] = pointer
				}
			}
		}
	}
}

// compare tells what a file says otherwise: the file first, then those in it.
func (r *register) compare(next *register) []Item {
	file := next.holders[0]
	top := r.item(next, r.find(file.kind, file.name), &file)
	switch {
	case !r.there:
		top.Change = Added
	case !next.there:
		top.Change = Removed
	}
	switch {
	case next.bad:
		top.Edits = nil
		top.Notes = append(top.Notes, "it can't be used as it is: what is in force stays")
	case r.stale(next):
		top.Notes = append(top.Notes, "its version is not a higher one: servers keep the operators that they have")
	case r.bad && next.there:
		top.Notes = append(top.Notes, "it could not be used before: all that it says is new")
	}
	if file.name == "clients.yaml" {
		top.Notes = append(top.Notes, next.readers()...)
	}
	out := []Item{top}
	if next.bad {
		return out
	}
	for i := range r.holders {
		if h := &r.holders[i]; h.kind != KindFile && next.find(h.kind, h.name) == nil {
			out = append(out, r.item(next, h, nil))
		}
	}
	for i := range next.holders {
		h := &next.holders[i]
		if item := r.item(next, r.find(h.kind, h.name), h); h.kind != KindFile && (len(item.Edits) > 0 || item.Change == Added) {
			out = append(out, item)
		}
	}
	if len(out) == 1 && len(top.Edits) == 0 && top.Change == Changed && file.name != "operators.sig" && !r.bad {
		out[0].Notes = append([]string{"written differently, says the same"}, top.Notes...)
	}
	return out
}

// readers says of clients.yaml where what it says of everybody is not so.
func (r *register) readers() []string {
	switch {
	case !r.there:
		return []string{"a server that listens on a network without --open-reads lets nobody read"}
	case !r.bad && len(r.holders) == 1:
		return []string{"it lists no client: nobody may read, unless a server has --open-reads"}
	}
	return nil
}

// stale reports operators that no server would take after the old ones.
func (r *register) stale(next *register) bool {
	return next.version > 0 && next.version <= r.version
}

func (r *register) find(kind Kind, name string) *holder {
	for i := range r.holders {
		if h := &r.holders[i]; h.kind == kind && h.name == name {
			return h
		}
	}
	return nil
}

// item compares what two sides say of one holder; nil is nothing.
func (r *register) item(next *register, old, new *holder) Item {
	i := Item{Change: Changed}
	switch {
	case old == nil:
		i.Change, i.Kind, i.Name, old = Added, new.kind, new.name, &holder{}
	case new == nil:
		i.Change, i.Kind, i.Name, new = Removed, old.kind, old.name, &holder{}
	default:
		i.Kind, i.Name = new.kind, new.name
	}
	i.facts(old, new, r.place, next.place)
	i.grants(old, new, r.place, next.place)
	return i
}

type placer = func(string) bundler.Position

// facts lists what is said otherwise. One of a kind is replaced by the other.
func (i *Item) facts(old, new *holder, was, is placer) {
	lacks := func(list []fact, f fact) bool {
		return !slices.ContainsFunc(list, func(o fact) bool { return o.key == f.key && o.value == f.value })
	}
	for _, f := range old.facts {
		replaced := !f.many && slices.ContainsFunc(new.facts, func(o fact) bool { return o.key == f.key })
		if lacks(new.facts, f) && !replaced {
			i.say(Edit{Path: f.pointer, Key: f.key, Old: f.value}, was)
		}
	}
	for _, f := range new.facts {
		if !lacks(old.facts, f) {
			continue
		}
		e := Edit{Path: f.pointer, Key: f.key, New: f.value}
		if n := slices.IndexFunc(old.facts, func(o fact) bool { return o.key == f.key }); n >= 0 && !f.many {
			e.Old = old.facts[n].value
		}
		i.say(e, is)
	}
}

func (i *Item) say(e Edit, place placer) {
	if e.Path != "" {
		at := place(e.Path)
		e.At = &at
	}
	i.Edits = append(i.Edits, e)
}

// grants lists what is allowed newly, and what no longer: by service and scope,
// with what may be done there.
func (i *Item) grants(old, new *holder, was, is placer) {
	for _, t := range missing(new.grants, old.grants, "was allowed before") {
		i.say(Edit{Path: t.pointer, Key: "may", New: t.text}, is)
	}
	for _, t := range missing(old.grants, new.grants, "still allowed by another entry") {
		i.say(Edit{Path: t.pointer, Key: "may", Old: t.text}, was)
	}
}

type said struct{ text, mark, pointer string }

// missing are the grants that another side doesn't name, those about one target
// together. Those that it allows all the same, by a wider one, are marked.
func missing(grants, others map[grant]string, covered string) []said {
	does := map[said][]string{} // by said without what is done
	for g, pointer := range grants {
		if _, ok := others[g]; ok {
			continue
		}
		key := said{text: " on " + g.service + "@" + g.scope, pointer: pointer}
		if allows(others, g) {
			key.mark = "  (" + covered + ")"
		}
		does[key] = append(does[key], g.do)
	}
	var out []said
	for key, list := range does {
		slices.Sort(list)
		key.text = strings.Join(list, ", ") + key.text + key.mark
		out = append(out, key)
	}
	slices.SortFunc(out, func(a, b said) int { // marked ones last
		return cmp.Or(strings.Compare(a.mark, b.mark), strings.Compare(a.text, b.text))
	})
	return out
}

// allows reports whether grants have one that is as wide: of all services, or of
// a scope above.
func allows(grants map[grant]string, g grant) bool {
	for _, service := range []string{g.service, "*"} {
		for s := api.Scope(g.scope); ; s = s.Parent() {
			if _, ok := grants[grant{g.do, service, cmp.Or(string(s), "*")}]; ok {
				return true
			}
			if s == "" {
				break
			}
		}
	}
	return false
}
