package main

import "testing"

// A recovery that lost many details says so in one line.
func TestLostDetailsAreOneLine(t *testing.T) {
	for want, n := range map[string]int64{"0": 1, "0, 1, 2": 3, "0, 1, 2, 3, 4, 5, 6, 7 and more, which -o json lists": 88} {
		var list []int64
		for i := range n {
			list = append(list, i)
		}
		if got := someOf(list); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
