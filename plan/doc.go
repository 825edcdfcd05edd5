// Package plan says what a revision would change, for reviewers.
//
// [Compare] tells two bundles apart by what they mean: documents by key, flags
// by state, variants, rules and shares of splits.
package plan
