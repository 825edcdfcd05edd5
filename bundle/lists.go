package bundle

import (
	"encoding/json"
	"strings"

	"github.com/sealstone/sealstone/internal/lcs"
)

// lists compares two lists by element: first what was removed, then what takes
// its place, in the order of the new list.
func (d *differ) lists(was, is spot, old, new []any) {
	a, b := d.identify(old, new)
	origins, moved := d.origins(a, b)
	kept := make([]bool, len(old))
	for _, i := range origins {
		if i >= 0 {
			kept[i] = true
		}
	}
	next := 0
	gone := func(end int) {
		for ; next < end && !d.full(); next++ {
			if !kept[next] {
				d.removed(was.element(next, a.name(next)), old[next])
			}
		}
	}
	for j, i := range origins {
		if i >= 0 && !moved[j] {
			gone(i)
		}
		if d.full() {
			return
		}
		to := is.element(j, b.name(j))
		if i < 0 {
			d.add(Edit{Path: to.path, Key: to.key, New: d.encode(new[j])})
			continue
		}
		from := was.element(i, a.name(i))
		if moved[j] {
			d.add(Edit{Path: to.path, Key: to.key, From: from.path})
		}
		if a.member != "" || a.ids[i] != b.ids[j] {
			d.values(from, to, old[i], new[j])
		}
	}
	gone(len(old))
}

// origins finds for each new element the old one that it was, or -1: those in
// order; of those with names also the ones that moved; and of others what stands
// in the same place between two that stay.
func (d *differ) origins(a, b identities) (from []int, moved []bool) {
	from, moved = make([]int, len(b.ids)), make([]bool, len(b.ids))
	for j := range from {
		from[j] = -1
	}
	i, j := 0, 0
	for _, p := range append(lcs.Pairs(a.ids, b.ids, &d.work), [2]int{len(a.ids), len(b.ids)}) {
		for ; a.member == "" && i < p[0] && j < p[1]; i, j = i+1, j+1 {
			from[j] = i
		}
		if p[1] < len(from) {
			from[p[1]] = p[0]
		}
		i, j = p[0]+1, p[1]+1
	}
	if a.member == "" {
		return from, moved
	}
	at := map[string]int{}
	for i, id := range a.ids {
		at[id] = i
	}
	for j, id := range b.ids {
		if i, ok := at[id]; ok && from[j] < 0 {
			from[j], moved[j] = i, true
		}
	}
	return from, moved
}

// identities tell the elements of a list apart.
type identities struct {
	ids    []string // canonical JSON: of the member, or of the element
	member string   // "" when elements are known by their values
}

// name is what people read in place of an index; nothing for what would be
// misread.
func (n identities) name(i int) string {
	var s string
	switch id := n.ids[i]; {
	case n.member == "" || len(id) > 40:
		return ""
	case id[0] != '"':
		return n.member + "=" + id
	case json.Unmarshal([]byte(id), &s) != nil || KeyOf(s) != s || strings.Contains(s, "="):
		return ""
	}
	return n.member + "=" + s
}

func (d *differ) identify(old, new []any) (a, b identities) {
	for _, member := range []string{"name", "id", "key"} {
		x, ok := d.named(old, member)
		y, also := d.named(new, member)
		if ok && also {
			return identities{x, member}, identities{y, member}
		}
	}
	return identities{ids: d.encodeAll(old)}, identities{ids: d.encodeAll(new)}
}

func (d *differ) encodeAll(list []any) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = string(d.encode(v))
	}
	return out
}

// named returns a member of every element, when all have it, each another one.
func (d *differ) named(list []any, member string) ([]string, bool) {
	var out []any
	seen := map[any]bool{}
	for _, v := range list {
		m, _ := v.(map[string]any)
		id := m[member]
		switch id.(type) {
		case string, float64:
		default:
			return nil, false
		}
		if seen[id] {
			return nil, false
		}
		seen[id] = true
		out = append(out, id)
	}
	return d.encodeAll(out), true
}
