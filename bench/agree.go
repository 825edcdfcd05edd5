package main

import (
	"fmt"
)

// agree checks, before anything is measured, that all engines evaluate the same
// flags: each rule holds and fails for whom it should, and a split that is said
// to be even is. Those that share flagd's hash must pick the very same users.
func agree(engines []engine) error {
	const users = 1000
	var same []bool // whom the first engine's split picks
	for _, e := range engines {
		split := make([]bool, users)
		count := 0
		for i := range users {
			a := e.for1(user(i))
			split[i] = a.one(keyTen)(1) == 1
			if split[i] {
				count++
			}
			if i < 20 {
				if err := certain(e, i); err != nil {
					return err
				}
			}
		}
		if count < users*45/100 || count > users*55/100 {
			return fmt.Errorf("%s: rule 10 splits %d users into %d on, not into halves", e.name, users, count)
		}
		if same == nil {
			same = split
		}
		for i := range split {
			if sameHash[e.name] && split[i] != same[i] {
				return fmt.Errorf("%s and %s split user %d differently", engines[0].name, e.name, i)
			}
		}
	}
	return nil
}

// sameHash are the engines that split as flagd does, besides the first.
var sameHash = map[string]bool{
	"written by hand": true, "flagd core": true, "bare JsonLogic library": true,
	"sealstone, handle with details": true, "sealstone, set by key": true,
}

// certain checks what needs no split.
func certain(e engine, i int) error {
	known, unknown := e.for1(user(i)), e.for1(stranger(i))
	for _, c := range []struct {
		what string
		l    loop
		want int
	}{
		{"a static flag", known.one(keyStatic), 0},
		{"the email rule for somebody it holds for", known.one(keyOne), 1},
		{"the email rule for a stranger", unknown.one(keyOne), 0},
		{"the ten rules for a stranger", unknown.one(keyTen), 0},
	} {
		if c.l == nil {
			continue
		}
		if got := c.l(1); got != c.want {
			return fmt.Errorf("%s: %s is on %d times, not %d", e.name, c.what, got, c.want)
		}
	}
	if known.all == nil {
		return nil
	}
	want := numFlags*3/10 + known.one(keyTen)(1)*numFlags/10
	if got := known.all()(1); !perFlagSplit[e.name] && got != want {
		return fmt.Errorf("%s: %d of all flags are on, not %d", e.name, got, want)
	}
	return nil
}

// perFlagSplit are the engines that hash the flag's key too, so that each flag
// splits another half.
var perFlagSplit = map[string]bool{"LaunchDarkly Go SDK": true}
