// Package differential holds a test: random rules for random contexts, evaluated
// by flagd's evaluator in Go and by ours. Wherever the answers differ, the test
// looks for the innermost rule that gives something else although its operands
// are the same, and that must be one of the known differences. Each of those is
// where flagd in Go answers with an error or differs from flagd in JavaScript
// and from other evaluators; flags/doc.go and docs/flags.md say what we do.
package differential
