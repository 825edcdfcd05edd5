package bundle

import "github.com/sealstone/sealstone/api"

// MaxResolved is how many bytes a safe-mode change may take to list scopes with
// their bundles: what is left of a leaf of the ledger beside the longest names
// and the largest statement. A test seals such a leaf.
const MaxResolved = 46_657

// ResolvedSize is what one scope takes of them.
func ResolvedSize(s api.Scope) int {
	return len(`{"bundle":"sha256:","scope":""},`) + 64 + len(s)
}

// MostResolved is what the widest safe mode of a service would list, whose sets
// are given: an outermost scope, how many scopes the sets have there, and the
// bytes. Where no set has a safe mode it is nothing.
func MostResolved(sets [][]Entry) (at api.Scope, scopes, bytes int) {
	seen, count, size, safe := map[api.Scope]bool{}, map[api.Scope]int{}, map[api.Scope]int{}, map[api.Scope]bool{}
	for _, set := range sets {
		for _, e := range set {
			top := e.Scope.Path()[0]
			safe[top] = safe[top] || e.Mode != api.ModeNormal
			if !seen[e.Scope] {
				seen[e.Scope] = true
				count[top]++
				size[top] += ResolvedSize(e.Scope)
			}
		}
	}
	for top := range safe {
		if safe[top] && (size[top] > bytes || size[top] == bytes && top < at) {
			at, scopes, bytes = top, count[top], size[top]
		}
	}
	if bytes > 0 {
		bytes += ownScope
	}
	return at, scopes, bytes
}

// ownScope is what the scope of the change takes, which it lists whether a set
// has it or not: 80 bytes at most.
var ownScope = ResolvedSize("") + 80
