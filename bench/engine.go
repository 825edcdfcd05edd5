package main

// An engine evaluates the 1,000 flags.
type engine struct {
	name string
	note string // what to know of it when reading the tables
	// for1 prepares to ask for one user; nothing of that is measured.
	for1 func(user map[string]any) asker
}

// An asker answers for one user. Its methods make a loop for one goroutine: n
// evaluations, giving how many flags were on. A nil one is not offered by the
// engine.
type asker struct {
	one func(key string) loop
	all func() loop
}

type loop func(n int) (on int)

// each is the loop of an engine that has no call for all flags. ask tells
// whether a flag is on.
func each(keys []string, ask func(key string) bool) loop {
	return func(n int) (on int) {
		for range n {
			for _, k := range keys {
				if ask(k) {
					on++
				}
			}
		}
		return on
	}
}
