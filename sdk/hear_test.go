package sdk

import (
	"testing"
	"time"
)

// When a machine's own clock is set, what it heard by the wrong one must neither
// hide a freeze nor cost it what it hears next.
func TestHearByAClockThatIsSet(t *testing.T) {
	noon := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	type heard struct{ issued, now time.Duration }
	for name, tt := range map[string]struct {
		heads []heard
		want  time.Duration
	}{
		"both clocks right":                  {[]heard{{0, 1}, {10, 11}}, 10},
		"an older one after a newer one":     {[]heard{{10, 11}, {5, 12}}, 10},
		"a little ahead counts until now":    {[]heard{{60, 1}}, 1},
		"far ahead counts for nothing":       {[]heard{{0, 1}, {3600, 11}}, 0},
		"our clock was ahead, and set back":  {[]heard{{3600, 3601}, {10, 11}}, 10},
		"our clock was behind, and set on":   {[]heard{{0, -3600}, {10, 11}}, 10},
		"our clock is behind, by a little":   {[]heard{{100, 0}, {110, 10}}, 10},
		"set back to where heads are future": {[]heard{{3600, 3600}, {3610, 10}, {20, 20}}, 20},
	} {
		c := &Client{}
		for _, h := range tt.heads {
			c.hear(noon.Add(h.issued*time.Second), noon.Add(h.now*time.Second))
		}
		if got := c.news.Sub(noon); got != tt.want*time.Second {
			t.Errorf("%s: news until %v, want %v", name, got, tt.want*time.Second)
		}
	}
}
