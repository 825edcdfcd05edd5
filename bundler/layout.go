package bundler

import (
	"path"
	"slices"
	"strings"

	"github.com/sealstone/sealstone/api"
)

// A Layout is what sealstone.yaml says: the contract's version, the names of
// the levels and the scopes that exist.
type Layout struct {
	Version       int
	Levels        []string
	Scopes        []string // as written; "*" is any name at its level
	RequireSigned bool     // source: {require_signed: true}
}

// Listed reports whether a scope exists: it is listed, matches a listed
// pattern, or lies above one.
func (l Layout) Listed(scope api.Scope) bool {
	if scope == "" {
		return false
	}
	if slices.Contains(l.Scopes, string(scope)) { // the most frequent answer, without a pattern
		return true
	}
	for _, pattern := range l.Scopes {
		if matchesPrefix(pattern, scope) {
			return true
		}
	}
	return false
}

// matchesPrefix reports whether scope matches the pattern's first parts.
func matchesPrefix(pattern string, scope api.Scope) bool {
	parts := strings.Split(pattern, "/")
	if n := scope.Depth(); n <= len(parts) {
		ok, err := path.Match(strings.Join(parts[:n], "/"), string(scope))
		return ok && err == nil
	}
	return false
}

// Nearest returns the listed scope or pattern that somebody who wrote scope may
// have meant, "" when nothing is near.
func (l Layout) Nearest(scope string) string {
	best, least := "", 80
	for _, pattern := range l.Scopes {
		parts := strings.Split(pattern, "/")
		for n := range parts {
			known := strings.Join(parts[:n+1], "/")
			if d := distance(scope, known); d < least {
				best, least = known, d
			}
		}
	}
	return best
}
