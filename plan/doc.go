// Package plan says what a revision would change, for reviewers.
//
// [Compare] tells two bundles apart by what they mean: documents by key, flags
// by state, variants, rules and shares of splits. [Make] does so for every set
// that a revision moves, and says which line sets each new value, what waits for
// a promotion and how to go back. Both are read by people first: as text, as
// Markdown for a pull request, and as JSON.
package plan
