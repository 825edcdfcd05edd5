package main

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sealstone/sealstone/api"
)

// Other people's text neither commands a terminal nor reads as another one.
func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"Zoë, 山田 → ok": "Zoë, 山田 → ok", "a\x1b[2Jb": "a?[2Jb", "a\r\nb\tc": "a??b?c", "a\u009bb": "a?b",
		"gpj.\u202eexe": "gpj.?exe", "pay\u200bments": "pay?ments", "a\u2028b": "a?b",
	} {
		if got := printable(text); got != want {
			t.Errorf("%q is shown as %q, want %q", text, got, want)
		}
	}
}

// However long names are, tables of what is live fit a terminal: texts lose their
// end, names their middle, numbers nothing.
func TestTablesFitATerminal(t *testing.T) {
	long, at := strings.Repeat("long-", 7)+"name", "2026-11-20T10:00:00.000Z"
	digest := api.DigestOf([]byte("bundle"))
	target := api.Target{Service: long, Scope: api.Scope("prod/" + long + "/canary")}
	proven := &api.Proven{Bundle: digest, Mode: api.Mode(long), Release: strings.Repeat("4f", 20), Index: 1234567, Since: at, By: "Somebody With A Long Name"}
	in := api.LiveInstance{Instance: api.Instance{Target: target, ID: long + "-" + long, Bundle: digest, Mode: api.Mode(long), State: api.StateNotReady}, Lease: "suspect", Since: at, LastSeen: at,
		Drift: []string{"runs " + digest.Short() + ", active is " + digest.Short(), "silent since " + at}}
	live := api.Live{Time: at, Services: []api.LiveService{{Service: long, Omitted: 3, Scopes: []api.LiveScope{{Scope: target.Scope, Proven: proven, Drift: []string{"1 of 1 instances differ"}, Instances: []api.LiveInstance{in}}}}}}
	var out strings.Builder
	showLive(&out, live, liveOptions{})
	fitted(&out, "FLAG STATE DEFAULT RULES CHANGED ENTRY BY WHY", [][]string{{long, "DISABLED", long, "12", "23h59m ago", "1234567", "Somebody With A Long Name", "a reason that goes on and on and on"}})
	fitted(&out, "TARGET COUNT VERSION REVISION BASE DEPENDENCY", [][]string{append(programCells(api.Artifact{Target: target, Version: "v1.2.3-0.20250101000000-0123456789ab+dirty", Revision: strings.Repeat("4f", 20), Instances: 100000}),
		"24dbb8773cf2", "pkg:golang/github.com/"+long+"@v0.39.0")})
	for line := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > maxWidth {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, want := range []string{digest.Hex()[:12], "4f4f4f4f4f4f", "1234567", "\n    ! silent since " + at + "\n", "…-name", "0.39.0"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is lost in\n%s", want, out.String())
		}
	}
}
