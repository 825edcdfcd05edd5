package api

import (
	"fmt"
	"time"
)

// timeLayout is RFC 3339 in UTC with exactly three decimals.
const timeLayout = "2006-01-02T15:04:05.000Z"

// FormatTime prints the one spelling of a time in Sealstone's formats:
// RFC 3339, UTC, milliseconds, "Z".
func FormatTime(t time.Time) string { return t.UTC().Format(timeLayout) }

// ParseTime accepts only what FormatTime prints.
func ParseTime(s string) (time.Time, error) {
	t, err := time.Parse(timeLayout, s)
	if err != nil || FormatTime(t) != s {
		return time.Time{}, fmt.Errorf("time %q: write RFC 3339 in UTC with milliseconds, for example 2026-11-20T10:03:00.000Z", quotable(s))
	}
	return t, nil
}
