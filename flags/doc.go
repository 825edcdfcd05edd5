// Package flags evaluates feature flags with the semantics of flagd, the
// OpenFeature project's reference evaluator.
//
// A document is compiled once, as a whole or not at all, and evaluated many
// times, from any number of goroutines, without locks and without allocations:
//
//	set, err := flags.Compile(doc)
//	...
//	on, r := set.Boolean("new-checkout", flags.Context{"targetingKey": "user-1"}, false, time.Now())
//
// # Documents
//
// Documents are strict JSON: a member name twice, invalid UTF-8, a number beyond
// ±(2^53-1), a nesting deeper than 64 and more than a million values are faults,
// and so is everything the schemas of flagd refuse by kind: mixed variants,
// unknown states, operators, members, constants that cannot work (a weight of
// 25.5, a version "2.0.0.0"). Compile reports all faults at once, each with a
// JSON pointer.
//
// "$evaluators" are put in wherever a rule says {"$ref": NAME}, inside each other
// too, but never inside values. A set or flag whose metadata says "fractional" or
// "fractionalVersion" is "v3" (or 3) is refused: that version hashes differently
// and no evaluator ships it. Splits are fractional v2: MurmurHash3 over UTF-8.
//
// # Where evaluators differ
//
// flagd in Go and in JavaScript disagree on odd inputs. This package follows both
// where they agree, mostly flagd in Go where they do not, and never answers an
// odd attribute with an error. [Lint] names the places. In short: null equals
// null only, but counts as 0 in orders and arithmetic; texts that are no numbers
// count as 0 in arithmetic and stand in no order with numbers; dividing by zero
// is null and -0 is 0; arrays and objects equal nothing, not even themselves; loops see their
// element only; starts_with, ends_with, sem_ver and fractional are null, not
// false, when their operands do not fit; a result that names no variant is an
// error (GENERAL), and null means the default variant.
//
// An operand without an array around it is the only operand. Of these only + - *
// / % min max cat merge missing take apart an array it gives, and ! and !! look
// at its first element.
//
// # Bounds
//
// Loops end because rules are finite and arrays are, and because an evaluation
// has a budget of about a million steps; one that uses it up, or panics in a
// caller's MarshalJSON, gives GENERAL for itself alone.
package flags
