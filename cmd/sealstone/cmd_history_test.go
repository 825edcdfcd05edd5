package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sealstone/sealstone/api"
)

func longInterval(from, to string, index int64, ended *int64) api.Interval {
	return api.Interval{From: from, To: to, Index: index, EndedBy: ended, Kind: "bundle.activated", By: "Ada Lovelace, Countess of King-Noel", Subject: "=HYPERLINK(\"http://x\")\n" + strings.Repeat("long ", 30),
		Mode: "a-safe-mode-with-a-name-of-forty-bytes-x", Bundle: api.DigestOf(nil), Set: api.DigestOf(nil), Commit: strings.Repeat("4f2a9c0d", 5), Main: api.ChainRef{Scope: "prod", Index: index, Generation: 3}}
}

// The widest history fits a terminal of 100 columns, and shows its gaps: one in
// between, and one that lasts.
func TestHistoryTableFits(t *testing.T) {
	h := &api.History{Intervals: []api.Interval{
		longInterval("2026-11-21T10:00:00.000Z", "2026-11-25T10:00:00.000Z", 1_234_567, new(int64(1_999_999))),
		longInterval("2026-11-19T10:00:00.000Z", "2026-11-20T10:00:00.000Z", 1_000_000, new(int64(1_200_000))),
	}}
	for untilNow, want := range map[bool][]string{true: {"to now", "4d", "24h0m", "24h0m"}, false: {"4d", "24h0m", "24h0m"}} {
		var b strings.Builder
		historyTable(&b, h, untilNow)
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")[1:]
		if len(lines) != len(want) {
			t.Fatalf("until now %v: %d rows, want %d\n%s", untilNow, len(lines), len(want), b.String())
		}
		for i, line := range lines {
			if n := utf8.RuneCountInString(line); n > tableWidth {
				t.Errorf("%d columns: %s", n, line)
			}
			if !strings.Contains(line, "  "+want[i]+"  ") {
				t.Errorf("row %d lasted %s: %s", i, want[i], line)
			}
		}
	}
}

func TestCSVHoldsNoFormulas(t *testing.T) {
	var b strings.Builder
	h := &api.History{Intervals: []api.Interval{longInterval("2026-11-21T10:00:00.000Z", "", 1, nil)}}
	if err := historyCSV(&b, h); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(b.String(), `"'=HYPERLINK(""http://x"")`) {
		t.Error(b.String())
	}
}
