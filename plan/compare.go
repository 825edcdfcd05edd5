package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/flags"
)

// Content is what a bundle holds: canonical JSON by title, as bundle.Content has
// it in Files. A title that is not there is an absent document.
type Content = map[string][]byte

// A Difference is what two bundles don't share, empty when they have the same
// content: documents first, then flags, evaluators and the set's metadata.
type Difference []Item

// Kind says what an item is.
type Kind string

// The kinds of items.
const (
	KindDocument  Kind = "document"
	KindFlag      Kind = "flag"
	KindEvaluator Kind = "evaluator"
	KindMetadata  Kind = "metadata" // of all flags
)

// Change says what became of an item.
type Change string

// The changes of items.
const (
	Added   Change = "added"
	Removed Change = "removed"
	Changed Change = "changed"
)

// An Item is one document, flag or evaluator that differs.
type Item struct {
	Kind     Kind      `json:"kind"`
	Name     string    `json:"name,omitempty"` // config/http, or a key; none for metadata
	Change   Change    `json:"change"`
	Edits    []Edit    `json:"edits,omitempty"`
	Rollouts []Rollout `json:"rollouts,omitempty"`
	Through  []string  `json:"through,omitempty"`  // changed evaluators that change this flag
	Reworded bool      `json:"reworded,omitempty"` // a flag that means what it meant before
	Notes    []string  `json:"notes,omitempty"`
}

// An Edit is one value that was added, removed or replaced, or an element of a
// list that moved.
type Edit struct {
	Path string            `json:"path"`           // JSON pointer below the item; of what was removed, in its old state
	Key  string            `json:"key"`            // the same for people: pools[2].size
	From string            `json:"from,omitempty"` // JSON pointer to where an element that moved was
	Old  string            `json:"old,omitempty"`  // JSON, unless cut
	New  string            `json:"new,omitempty"`
	Cut  int               `json:"cut,omitempty"` // bytes of old and new that are left out here
	At   *bundler.Position `json:"at,omitempty"`  // what sets the new value, or set the removed one
}

// A Rollout is a split whose shares changed, in percent.
type Rollout struct {
	Path   string            `json:"path"`
	Key    string            `json:"key"`
	Shares []flags.Share     `json:"shares"` // those that changed first
	Moves  float64           `json:"moves"`  // percent of subjects that get another variant
	At     *bundler.Position `json:"at,omitempty"`
}

// Compare tells the contents of two bundles apart. The error is about content
// that is no JSON, which no built or opened bundle holds.
func Compare(old, new Content) (Difference, error) {
	var out Difference
	for _, title := range titles(old, new) {
		if title == bundle.FlagsTitle {
			continue
		}
		item, err := document(title, old[title], new[title])
		if err != nil {
			return nil, err
		}
		if item != nil {
			out = append(out, *item)
		}
	}
	items, err := flagItems(old[bundle.FlagsTitle], new[bundle.FlagsTitle])
	return append(out, items...), err
}

func titles(old, new Content) []string {
	all := map[string]bool{}
	for _, c := range []Content{old, new} {
		for title := range c {
			all[title] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

func document(title string, old, new []byte) (*Item, error) {
	item := &Item{Kind: KindDocument, Name: strings.TrimSuffix(title, ".json"), Change: Changed}
	var edits []bundle.Edit
	var err error
	switch {
	case old == nil:
		item.Change = Added
		edits, err = bundle.Leaves(new)
	case new == nil:
		item.Change = Removed
	default:
		edits, err = bundle.Diff(old, new)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", title, err)
	}
	for _, e := range edits {
		item.edit(Edit{Path: e.Path, Key: e.Key, From: e.From}, string(e.Old), string(e.New))
	}
	if item.Change == Changed && len(edits) == 0 {
		return nil, nil
	}
	return item, nil
}

// edit adds an edit, with values that are cut when they are very long.
func (i *Item) edit(e Edit, old, new string) {
	e.Old, e.New = old, new
	e.cut(maxWhole)
	i.Edits = append(i.Edits, e)
}

// cut keeps what lies around the place where two long values part.
func (e *Edit) cut(size int) {
	from, was := sharedStart(e.Old, e.New), len(e.Old)+len(e.New)
	e.Old, e.New = window(e.Old, from, size), window(e.New, from, size)
	e.Cut += was - len(e.Old) - len(e.New)
}

// shorten cuts all long values of an item.
func (i *Item) shorten() {
	i.Edits = slices.Clone(i.Edits)
	for n := range i.Edits {
		i.Edits[n].cut(maxValue)
	}
}

// flagEdit adds an edit of a flag or evaluator: what is no rule is compared as
// documents are, and so are the lists in one.
func (i *Item) flagEdit(e flags.Edit) {
	rule := i.Kind == KindEvaluator || i.Kind == KindFlag && strings.HasPrefix(e.Path, "/targeting")
	key := keyPath(e.Path, rule)
	if e.Old != "" && e.New != "" && (!rule || e.Old[0] == '[') {
		if parts, err := bundle.Diff([]byte(e.Old), []byte(e.New)); err == nil && len(parts) > 0 {
			for _, p := range parts {
				i.edit(Edit{Path: e.Path + p.Path, Key: joinKeys(key, p.Key), From: under(e.Path, p.From)}, string(p.Old), string(p.New))
			}
			return
		}
	}
	i.edit(Edit{Path: e.Path, Key: key}, e.Old, e.New)
}

func joinKeys(a, b string) string {
	if a == "" || b == "" || b[0] == '[' {
		return a + b
	}
	return a + "." + b
}

func under(path, from string) string {
	if from == "" {
		return ""
	}
	return path + from
}

var noFlags = []byte(`{"flags":{}}`)

func flagItems(old, new []byte) (Difference, error) {
	if old == nil {
		old = noFlags
	}
	if new == nil {
		new = noFlags
	}
	d, err := flags.Diff(old, new)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", bundle.FlagsTitle, err)
	}
	var out Difference
	for _, c := range d.Flags {
		out = append(out, itemOf(KindFlag, c))
	}
	for _, c := range d.Evaluators {
		out = append(out, itemOf(KindEvaluator, c))
	}
	if len(d.Metadata) > 0 {
		out = append(out, itemOf(KindMetadata, flags.Changes{Edits: d.Metadata}))
	}
	return out, nil
}

func itemOf(kind Kind, c flags.Changes) Item {
	item := Item{Kind: kind, Name: c.Key, Change: Changed, Through: c.Through, Reworded: c.Reworded}
	switch {
	case c.Added:
		item.Change = Added
	case c.Removed:
		item.Change = Removed
	}
	for _, e := range c.Edits {
		item.flagEdit(e)
	}
	for _, r := range c.Rollouts {
		item.Rollouts = append(item.Rollouts, Rollout{Path: r.Path, Key: keyPath(r.Path, true), Shares: r.Shares, Moves: r.Moves})
	}
	return item
}
