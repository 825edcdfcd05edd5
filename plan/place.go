package plan

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/canon"
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
func (m *maker) place(item keyedItem, p Place, live bool) {
	i, ok := m.placed[item.key]
	if !ok {
		i = len(m.out.Items)
		m.placed[item.key] = i
		m.out.Items = append(m.out.Items, Placed{Item: item.Item})
	}
	if live {
		m.out.Items[i].Live = append(m.out.Items[i].Live, p)
	} else {
		m.out.Items[i].Waits = append(m.out.Items[i].Waits, p)
	}
}

// A keyedItem is an item with the digest of its JSON.
type keyedItem struct {
	Item
	key api.Digest
}

// maxItems is how many bytes the items of a plan have before their values are
// cut.
const maxItems = 16 << 20

func (m *maker) keyed(items Difference) ([]keyedItem, error) {
	out := make([]keyedItem, len(items))
	for n, i := range items {
		raw, err := json.Marshal(i)
		if err != nil {
			return nil, err
		}
		key := api.DigestOf(raw)
		if _, ok := m.placed[key]; !ok {
			m.shown += len(raw)
		}
		if m.shown > maxItems {
			i.shorten()
		}
		out[n] = keyedItem{i, key}
	}
	return out, nil
}

// compare finds what differs at places between what is in effect there before
// and after.
func (m *maker) compare(places []Place, old, next *bundler.Built, live bool) error {
	if old == nil || next == nil {
		return nil
	}
	m.safeModes(old, next, live)
	for _, p := range places {
		a, had := old.Find(p.Scope, p.Mode)
		b, has := next.Find(p.Scope, p.Mode)
		if !had || !has || a.Digest == b.Digest {
			continue
		}
		c, err := m.comparison(p, old, next, a.Digest, b.Digest)
		if err != nil {
			return err
		}
		for _, item := range c.items {
			m.place(item, p, live)
		}
		for _, o := range c.outcomes {
			m.outcome(o, p)
		}
	}
	return nil
}

// A comparison is what is different about two bundles.
type comparison struct {
	items    []keyedItem
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
	d, err := Compare(was, is)
	if err != nil {
		return c, err
	}
	if err := Locate(m.ctx, m.b, d, Origin{old.Commit, p}, Origin{next.Commit, p}); err != nil {
		return c, err
	}
	if c.items, err = m.keyed(d); err != nil {
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

// An Origin is the release, and the place there, that a bundle was built of.
type Origin struct {
	Commit string // "" when it isn't known
	Place
}

// Locate finds the line of every edit: in the new release, or for what was
// removed in the old one.
func Locate(ctx context.Context, b *bundler.Builder, d Difference, old, new Origin) error {
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
	was, err := old.where(ctx, b, before)
	if err != nil {
		return err
	}
	is, err := new.where(ctx, b, after)
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

func (o Origin) where(ctx context.Context, b *bundler.Builder, pointers map[string][]string) (map[string]map[string]bundler.Position, error) {
	out := map[string]map[string]bundler.Position{}
	for title, list := range pointers {
		if o.Commit == "" {
			break
		}
		at, err := b.Where(ctx, o.Commit, o.Service, o.Scope, o.Mode, title, list)
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
		base += canon.EscapePointer(i.Name)
	}
	for n := range i.Edits {
		visit(base+i.Edits[n].Path, i.Edits[n].New == "" && i.Edits[n].From == "", &i.Edits[n].At)
	}
	for n := range i.Rollouts {
		visit(base+i.Rollouts[n].Path, false, &i.Rollouts[n].At)
	}
}
