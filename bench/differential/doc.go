// Package differential holds a test: random rules for random contexts, evaluated
// by flagd's evaluator in Go and by ours. Where the answers differ, the test
// looks for the innermost rule that gives something else although its operands
// are the same. That must be a known difference, and ours must be what a plain
// model of our decision gives. Most of them are kinds of values that make flagd
// in Go fail with PARSE_ERROR.
//
//	go test ./differential -v                                  # what differs, and how often
//	go test ./differential -evaluations 1000000 -stream 7      # other ones
//	go test ./differential -run '^$' -fuzz FuzzRuleSameAsFlagd # any rule
package differential
