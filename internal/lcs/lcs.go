// Package lcs aligns two lists by what they share.
package lcs

import "slices"

// maxSteps bounds the elements that may differ, and so the memory of a search.
const maxSteps = 2000

// Pairs returns the indexes of elements that two lists share, in order: as many
// as there can be, by the algorithm of Myers. work is how many comparisons may be
// made and is counted down; a search that needs more, or whose lists differ in
// more than 2,000 elements, gives only what both begin and end with.
func Pairs[T comparable](a, b []T, work *int) [][2]int {
	start := 0
	for start < min(len(a), len(b)) && a[start] == b[start] {
		start++
	}
	end := 0
	for end < min(len(a), len(b))-start && a[len(a)-1-end] == b[len(b)-1-end] {
		end++
	}
	var out [][2]int
	for i := range start {
		out = append(out, [2]int{i, i})
	}
	ids := map[T]int32{} // long strings are compared once
	for _, p := range middle(numbered(ids, a[start:len(a)-end]), numbered(ids, b[start:len(b)-end]), work) {
		out = append(out, [2]int{p[0] + start, p[1] + start})
	}
	for i := end; i > 0; i-- {
		out = append(out, [2]int{len(a) - i, len(b) - i})
	}
	return out
}

func numbered[T comparable](ids map[T]int32, list []T) []int32 {
	out := make([]int32, len(list))
	for i, v := range list {
		id, ok := ids[v]
		if !ok {
			id = int32(len(ids))
			ids[v] = id
		}
		out[i] = id
	}
	return out
}

// middle searches for the shortest way from a to b. Row d has, for each
// diagonal k from -d to d, how far in a d edits can get.
func middle(a, b []int32, work *int) [][2]int {
	if len(a) == 0 || len(b) == 0 {
		return nil
	}
	var rows [][]int32
	row := []int32{0, 0, 0}
	for d := 0; d <= min(len(a)+len(b), maxSteps); d++ {
		next := make([]int32, 2*d+3)
		for k := -d; k <= d; k += 2 {
			x := far(row, d, k)
			for int(x) < len(a) && int(x)-k < len(b) && a[x] == b[int(x)-k] {
				x++
				*work--
			}
			next[k+d+1] = x
			if int(x) >= len(a) && int(x)-k >= len(b) {
				return back(append(rows, row), k, x)
			}
		}
		if *work -= d + 1; *work <= 0 {
			return nil
		}
		rows, row = append(rows, row), next
	}
	return nil
}

// far is where step d begins on a diagonal: after an insertion or a removal,
// whichever got further. The row is that of step d-1, with one more at each end.
func far(row []int32, d, k int) int32 {
	switch {
	case d == 0:
		return 0
	case inserts(row, d, k):
		return row[k+1+d]
	}
	return row[k-1+d] + 1
}

func inserts(row []int32, d, k int) bool {
	return k == -d || k != d && row[k-1+d] < row[k+1+d]
}

// back walks the way in reverse and collects what is shared.
func back(rows [][]int32, k int, x int32) [][2]int {
	var out [][2]int
	for d := len(rows) - 1; d >= 0; d-- {
		start := far(rows[d], d, k)
		for x > start {
			x--
			out = append(out, [2]int{int(x), int(x) - k})
		}
		if d > 0 && inserts(rows[d], d, k) {
			k, x = k+1, start
		} else {
			k, x = k-1, start-1
		}
	}
	slices.Reverse(out)
	return out
}
