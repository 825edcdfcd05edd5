package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
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

// An annotation is one line that commands nothing but itself, not even the log
// that shows it.
func TestAnnotationIsOneCommand(t *testing.T) {
	f := bundler.Fault{Severity: bundler.Error, Rule: "E_X", File: "a\x1b[31m,line=9:\u202e.yaml", Line: 2, Message: "50 %\n::error::no\a", Fix: "stop"}
	if got, want := annotation(f), "::error file=a?[31m%2Cline=9%3A?.yaml,line=2,col=1,title=E_X::50 %25%0A::error::no?. stop"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// What a server says reaches a terminal as text, whatever the format; JSON means
// the same as before.
func TestServersCommandNoTerminal(t *testing.T) {
	evil := "a\x1b]0;owned\x07\x1b[2J\u009b2Jb\nsealstone: all is well\u202egpj.\u200b\U000e0041\x7f"
	serveIn(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/safe-modes" {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusConflict)
			_ = json.NewEncoder(w).Encode(api.Problem{Type: "urn:sealstone:error:conflict", Title: evil, Status: 409, Detail: evil, Hint: evil})
			return
		}
		_ = json.NewEncoder(w).Encode(api.Changes{Changes: []api.Record{{Event: json.RawMessage(`{"subject":"x"}`), Operator: evil, Detail: map[string]any{"note": evil}}}})
	})
	for _, args := range [][]string{{"safe-mode", "status"}, {"changes"}, {"changes", "-o", "json"}, {"changes", "-o", "jsonl"}, {"changes", "-o", "yaml"}} {
		var out, said bytes.Buffer
		run(t.Context(), append(args, "--server", "http://server"), nil, &out, &said)
		for _, r := range out.String() + said.String() {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Errorf("%v: shows %q in\n%s%s", args, r, out.String(), said.String())
				break
			}
		}
		if strings.Contains(said.String(), "\nsealstone: all is well") {
			t.Errorf("%v: speaks for us:\n%s", args, said.String())
		}
		if args[len(args)-1] == "json" {
			var back api.Changes
			if err := json.Unmarshal(out.Bytes(), &back); err != nil || back.Changes[0].Detail["note"] != evil {
				t.Errorf("%v, %+v", err, back)
			}
		}
	}
	if got := cleaned("\x1b[31mWRONG\x1b[0m\x1b[8m"); got != "\x1b[31mWRONG\x1b[0m?[8m" {
		t.Errorf("our own colours: %q", got)
	}
}

// Nobody leaves a mode whose time ran out, and a table says so; a pending one has
// all of its time from when it is recorded.
func TestTablesSayWhyAModeEnds(t *testing.T) {
	exit := ledger.NewEvent("shop.example/sealstone", ledger.SafeModeExited, "0", time.Time{}, time.Time{}, ledger.Data{Service: "checkout", Scope: "prod", Fields: ledger.Fields{Mode: "degraded"}})
	event, err := json.Marshal(exit)
	if err != nil {
		t.Fatal(err)
	}
	row := changeRow(api.Record{Event: event})
	if got := row[len(row)-1]; got != ranOut {
		t.Errorf("changes: %q", got)
	}
	row = historyRow(api.Interval{Kind: string(ledger.SafeModeExited)})
	if got := row[len(row)-1]; got != ranOut {
		t.Errorf("history: %q", got)
	}
	if got := ends(api.Held{Pending: true, TTL: 7200, OnExpiry: "hold"}, time.Now()); got != "2h0m after it is recorded, then hold" {
		t.Errorf("pending: %q", got)
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
	event, err := json.Marshal(ledger.Event{Type: ledger.TypePrefix + string(ledger.DependencyChanged), Subject: target.String(), RecordedTime: at,
		Data: ledger.Data{Fields: ledger.Fields{PURL: "pkg:golang/github.com/" + long + "@v0.39.0"}}})
	if err != nil {
		t.Fatal(err)
	}
	serveIn(t, func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(api.Changes{Changes: []api.Record{{Index: 1234567, Event: event, Operator: "Somebody With A Long Name", Detail: map[string]any{"note": strings.Repeat("a long reason ", 20)}}}})
	})
	if run(t.Context(), []string{"changes", "--server", "http://server"}, nil, &out, &out) != exitOK {
		t.Error(out.String())
	}
	for line := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > maxWidth {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, want := range []string{digest.Hex()[:12], "4f4f4f4f4f4f", "1234567", "2026-11-20 10:00:00Z", "\n       a long reason a long", "\n    ! silent since " + at + "\n", "…-name", "0.39.0"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is lost in\n%s", want, out.String())
		}
	}
}

// The row of a late statement says what was late, and when that was signed.
func TestALateStatementSaysWhatItWas(t *testing.T) {
	f := ledgertest.New(t)
	st := f.SafeMode(ledger.SafeModeExited, "checkout", "prod", "degraded", 4)
	at := st.At().Add(2 * time.Minute)
	event, err := json.Marshal(ledger.NewEvent(f.Origin, ledger.StatementLate, ledgertest.NewID(at), at, at, ledger.Data{
		Service: "checkout", Scope: "prod", Statement: st.Raw, Fields: ledger.Fields{Late: "superseded"}}))
	if err != nil {
		t.Fatal(err)
	}
	r := api.Record{Event: event, Late: true, Detail: map[string]any{"reason": "INC-7"}}
	if row := strings.Join(changeRow(r), "|"); !strings.HasSuffix(row, "|superseded|-|safe-mode.exited degraded, of "+strings.TrimSuffix(st.Time, ".000Z")+"  INC-7") {
		t.Errorf("%s", row)
	}
	var b strings.Builder
	showChange(&b, r)
	for _, want := range []string{`statement\.kind +safe-mode\.exited\n`, `statement\.time +` + st.Time + `\n`, `statement\.after +4\n`, `statement\.mode +degraded\n`, `late +superseded\n`} {
		if !regexp.MustCompile(want).MatchString(b.String()) {
			t.Errorf("no %s in\n%s", want, b.String())
		}
	}
}

// A next step must lead somewhere: check knows nothing of what only a server finds.
func TestWhatToDoAboutARejectedService(t *testing.T) {
	withheld, syntax := bundler.ObjectWithheld("checkout", "prod", "sha256:00").String(), "services/a/config/d.yaml:1:1: E_YAML_SYNTAX no"
	for name, c := range map[string]struct {
		faults []string
		want   string
	}{
		"an erased object":  {[]string{withheld, withheld}, "sealstone changes --kind object.erased says"},
		"a mode in force":   {[]string{bundler.ModeInForce("checkout", "degraded", "prod").String()}, "sealstone safe-mode exit"},
		"too many chains":   {[]string{bundler.TooManyChains("checkout").String()}, "activate outer scopes"},
		"a fault of a file": {[]string{withheld, syntax}, "sealstone check DIR --rev 0123"},
		"nothing known":     {nil, "sealstone check DIR --rev 0123"},
	} {
		if got := rejectedNext(api.RejectedService{Commit: "0123", Faults: c.faults}); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}
