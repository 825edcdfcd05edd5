package plan

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/bundler"
)

// placesOf lists the bundles of an activation's sets, before and after, that no
// narrower activation hides.
func placesOf(service string, scope api.Scope, all []api.Scope, sets ...*bundler.Built) []Place {
	hidden := func(s api.Scope) bool {
		return slices.ContainsFunc(all, func(o api.Scope) bool { return o != scope && scope.Contains(o) && o.Contains(s) })
	}
	seen := map[Place]bool{}
	var out []Place
	for _, set := range sets {
		if set == nil {
			continue
		}
		for _, e := range set.Entries {
			for _, s := range []api.Scope{scope, e.Scope} {
				p := Place{service, s, e.Mode}
				if scope.Contains(s) && !hidden(s) && !seen[p] {
					seen[p] = true
					out = append(out, p)
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b Place) int {
		return strings.Compare(string(a.Scope)+"\x00"+string(a.Mode), string(b.Scope)+"\x00"+string(b.Mode))
	})
	return out
}

// place adds an item at a place, to the same item elsewhere if there is one.
func (m *maker) place(item Item, p Place, live bool) error {
	raw, err := json.Marshal(item)
	if err != nil {
		return err
	}
	i, ok := m.placed[string(raw)]
	if !ok {
		i = len(m.out.Items)
		m.placed[string(raw)] = i
		m.out.Items = append(m.out.Items, Placed{Item: item})
	}
	if live {
		m.out.Items[i].Live = append(m.out.Items[i].Live, p)
	} else {
		m.out.Items[i].Waits = append(m.out.Items[i].Waits, p)
	}
	return nil
}

// compare finds what differs at places between what is in effect there before
// and after.
func (m *maker) compare(places []Place, old, next *bundler.Built, live bool) error {
	if old == nil || next == nil {
		return nil
	}
	m.safeModes(old, next, live)
	was, is := bundle.Set{Entries: old.Entries}, bundle.Set{Entries: next.Entries}
	for _, p := range places {
		a, had := was.Find(p.Scope, p.Mode)
		b, has := is.Find(p.Scope, p.Mode)
		if !had || !has || a.Digest == b.Digest {
			continue
		}
		c, err := m.comparison(p, old, next, a.Digest, b.Digest)
		if err != nil {
			return err
		}
		for _, item := range c.items {
			if err := m.place(item, p, live); err != nil {
				return err
			}
		}
		for _, o := range c.outcomes {
			m.outcome(o, p)
		}
	}
	return nil
}

// A comparison is what is different about two bundles.
type comparison struct {
	items    Difference
	outcomes []Outcome // none outside mode normal
}

// comparison compares two bundles, once for each pair: says which lines set the
// values, and asks both the recorded questions.
func (m *maker) comparison(p Place, old, next *bundler.Built, a, b api.Digest) (c comparison, err error) {
	pair := [2]api.Digest{a, b}
	if c, ok := m.compared[pair]; ok {
		return c, nil
	}
	was, err := contentOf(old.Bundles[a])
	if err != nil {
		return c, err
	}
	is, err := contentOf(next.Bundles[b])
	if err != nil {
		return c, err
	}
	if c.items, err = Compare(was, is); err != nil {
		return c, err
	}
	if err := m.locate(c.items, p, old.Commit, next.Commit); err != nil {
		return c, err
	}
	if p.Mode == api.ModeNormal {
		c.outcomes, err = m.evaluate(p.Service, was[bundle.FlagsTitle], is[bundle.FlagsTitle])
	}
	m.compared[pair] = c
	return c, err
}

// contentOf takes a built bundle apart.
func contentOf(b *bundle.Bundle) (Content, error) {
	m, err := bundle.ParseManifest(b.Manifest)
	if err != nil {
		return nil, err
	}
	out := Content{}
	for _, l := range m.Layers {
		out[l.Title()] = b.Blobs[l.Digest]
	}
	return out, nil
}

// locate finds the line of every edit: in the new release, or for what was
// removed in the old one.
func (m *maker) locate(d Difference, p Place, old, next string) error {
	before, after := map[string][]string{}, map[string][]string{} // pointers by title
	for i := range d {
		d[i].eachPointer(func(pointer string, gone bool, _ **bundler.Position) {
			into := after
			if gone {
				into = before
			}
			into[d[i].file()] = append(into[d[i].file()], pointer)
		})
	}
	was, err := m.where(p, old, before)
	if err != nil {
		return err
	}
	is, err := m.where(p, next, after)
	if err != nil {
		return err
	}
	for i := range d {
		d[i].eachPointer(func(pointer string, gone bool, at **bundler.Position) {
			found := is
			if gone {
				found = was
			}
			if pos, ok := found[d[i].file()][pointer]; ok && pos.File != "" {
				*at = &pos
			}
		})
	}
	return nil
}

func (m *maker) where(p Place, commit string, pointers map[string][]string) (map[string]map[string]bundler.Position, error) {
	out := map[string]map[string]bundler.Position{}
	for title, list := range pointers {
		at, err := m.b.Where(m.ctx, commit, p.Service, p.Scope, p.Mode, title, list)
		if err != nil {
			return nil, err
		}
		out[title] = at
	}
	return out, nil
}

// file is the title of the file that an item is in.
func (i *Item) file() string {
	if i.Kind == KindDocument {
		return i.Name + ".json"
	}
	return bundle.FlagsTitle
}

// eachPointer visits the places of edits and rollouts as pointers into the file.
func (i *Item) eachPointer(visit func(pointer string, gone bool, at **bundler.Position)) {
	base := map[Kind]string{KindFlag: "/flags/", KindEvaluator: "/$evaluators/", KindMetadata: "/metadata"}[i.Kind]
	if i.Kind == KindFlag || i.Kind == KindEvaluator {
		base += escapePointer.Replace(i.Name)
	}
	for n := range i.Edits {
		visit(base+i.Edits[n].Path, i.Edits[n].New == "", &i.Edits[n].At)
	}
	for n := range i.Rollouts {
		visit(base+i.Rollouts[n].Path, false, &i.Rollouts[n].At)
	}
}

var escapePointer = strings.NewReplacer("~", "~0", "/", "~1")
