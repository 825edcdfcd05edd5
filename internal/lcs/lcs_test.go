package lcs

import "testing"

// longest is the length of a longest common list, by the table.
func longest(a, b []byte) int {
	row := make([]int, len(b)+1)
	for i := range a {
		diagonal := 0
		for j := range b {
			up := row[j+1]
			if a[i] == b[j] {
				row[j+1] = diagonal + 1
			} else {
				row[j+1] = max(up, row[j])
			}
			diagonal = up
		}
	}
	return row[len(b)]
}

// FuzzPairs: pairs are equal, in order, and as many as the table says.
func FuzzPairs(f *testing.F) {
	for _, s := range [][2]string{{"", "a"}, {"abc", "abc"}, {"abcabba", "cbabac"}, {"xaxbx", "axbxx"}, {"aab", "baa"}, {"abcdef", "uvwxyz"}} {
		f.Add([]byte(s[0]), []byte(s[1]))
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if len(a)+len(b) > maxSteps {
			return
		}
		work := 1 << 30
		pairs, last := Pairs(a, b, &work), [2]int{-1, -1}
		for _, p := range pairs {
			if p[0] <= last[0] || p[1] <= last[1] || a[p[0]] != b[p[1]] {
				t.Fatalf("%q %q: %v", a, b, pairs)
			}
			last = p
		}
		if len(pairs) != longest(a, b) {
			t.Fatalf("%q %q: %d pairs, not %d", a, b, len(pairs), longest(a, b))
		}
	})
}

func TestPairsKeepsToItsBounds(t *testing.T) {
	a, b := make([]int, 200_000), make([]int, 200_000)
	for i := range a {
		a[i], b[i] = i, -i-1
	}
	a[0], b[0] = 7, 7
	for work, most := range map[int]int{1 << 10: 1<<10 + maxSteps, 1 << 30: maxSteps * (maxSteps + 3)} {
		left := work
		if got := Pairs(a, b, &left); len(got) != 1 {
			t.Errorf("%d pairs", len(got))
		}
		if work-left > most {
			t.Errorf("of %d, %d comparisons were made", work, work-left)
		}
	}
}
