package api

import (
	"strings"
	"testing"
)

func TestClip(t *testing.T) {
	for in, want := range map[string]string{
		"":                       "",
		"as long":                "as long",
		strings.Repeat("x", 10):  "xxxxxxxxxx",
		strings.Repeat("x", 11):  "xxxxxxx...",
		strings.Repeat("é", 6):   "ééé...",
		"\xff" + "much too long": "much t...",
	} {
		if got := Clip(in, 10); got != want {
			t.Errorf("Clip(%q) = %q, want %q", in, got, want)
		}
	}
}
