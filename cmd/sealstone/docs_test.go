package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/ledger"
)

func readDoc(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// shown is a command of the README's tour with the lines that it prints.
type shown struct {
	command string
	lines   []string
}

// tourOf takes the commands out of the console blocks of the README's tour.
func tourOf(t *testing.T) []shown {
	t.Helper()
	_, tour, ok := strings.Cut(readDoc(t, "README.md"), "\n## A tour of five minutes\n")
	if !ok {
		t.Fatal("README.md has no tour")
	}
	tour, _, _ = strings.Cut(tour, "\n## ")
	var out []shown
	for i, part := range strings.Split(tour, "```") {
		body, console := strings.CutPrefix(part, "console\n")
		if i%2 == 0 || !console {
			continue
		}
		for line := range strings.SplitSeq(strings.TrimSuffix(body, "\n"), "\n") {
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				out = append(out, shown{command: command})
			} else if n := len(out); n > 0 {
				out[n-1].lines = append(out[n-1].lines, line)
			}
		}
	}
	return out
}

var (
	wildcard = regexp.MustCompile(`<[a-z]+>`)
	gap      = regexp.MustCompile(` {2,}`)
)

// pattern is the expression that the script holds a shown line against: <word>
// stands for anything, and columns may have any width.
func pattern(line string) string {
	s := regexp.QuoteMeta(line)
	s = wildcard.ReplaceAllStringFunc(s, func(w string) string {
		if w == "<time>" {
			return ".+"
		}
		return `\S+`
	})
	return "^" + gap.ReplaceAllString(s, " +") + "$"
}

// The README's tour is the script: each of its commands, in order, each with
// every line that the README shows.
func TestREADMETour(t *testing.T) {
	script := strings.Split(readDoc(t, "cmd/sealstone/testdata/script/tour.txtar"), "\n")
	at, n := 0, 0
	for _, c := range tourOf(t) {
		words, ok := strings.CutPrefix(c.command, "sealstone ")
		if !ok {
			continue // git, ssh-keygen and the shell, which the script does by other means
		}
		n++
		words = strings.TrimSuffix(words, " &")
		i := slices.IndexFunc(script[at:], func(l string) bool {
			return l == "exec sealstone "+words || strings.HasPrefix(l, "exec sealstone "+words+" ")
		})
		if i < 0 {
			t.Fatalf("tour.txtar does not run, or not in this place: sealstone %s", words)
		}
		at += i + 1
		for _, line := range c.lines {
			if script[at] != "stdout '"+pattern(line)+"'" && script[at] != "stderr '"+pattern(line)+"'" {
				t.Errorf("after sealstone %s\ntour.txtar has  %s\nREADME needs    stdout '%s'", words, script[at], pattern(line))
			}
			at++
		}
	}
	if n < 10 {
		t.Errorf("only %d commands were found in the README's tour", n)
	}
}

var ruleID = regexp.MustCompile("`([EW]_[A-Z_]+)`")

// Every rule of the bundler is in the documentation with its own words, and the
// documentation has no other. Rules that only a running server can break are in
// a table of their own.
func TestDocsListEveryRule(t *testing.T) {
	doc := readDoc(t, "docs/config-repository.md")
	known := map[string]bool{"E_MODE_IN_FORCE": true, "E_TOO_MANY_CHAINS": true}
	for _, r := range bundler.Rules() {
		known[r.ID] = true
		row := "| `" + r.ID + "` | " + cell(r.Doc) + " | " + cell(r.Fix) + " |"
		if !strings.Contains(doc, row+"\n") {
			t.Errorf("docs/config-repository.md lacks the row\n%s", row)
		}
	}
	for _, m := range ruleID.FindAllStringSubmatch(doc, -1) {
		if !known[m[1]] {
			t.Errorf("docs/config-repository.md has rule %s, which nothing checks", m[1])
		}
	}
	for _, kind := range bundler.SecretKinds() {
		if !strings.Contains(doc, strings.SplitN(kind, " ", 2)[1]) {
			t.Errorf("docs/config-repository.md does not say that %s is recognised", kind)
		}
	}
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

// Every kind of change and every check has a row in the formats.
func TestDocsListKindsAndChecks(t *testing.T) {
	doc := readDoc(t, "docs/formats.md")
	for _, k := range ledger.Kinds() {
		if !strings.Contains(doc, "\n| `"+string(k)+"` |") {
			t.Errorf("docs/formats.md has no row for kind %s", k)
		}
	}
	src := readDoc(t, "ledger/evidence.go")
	for _, m := range regexp.MustCompile(`Check\w+ +Check = "([a-z-]+)"`).FindAllStringSubmatch(src, -1) {
		if !strings.Contains(doc, "`"+m[1]+"`") {
			t.Errorf("docs/formats.md does not explain check %q", m[1])
		}
	}
}

var (
	routeCall = regexp.MustCompile(`\b(e|v1|g)\.(GET|POST|Match|OPTIONS)\((?:get, )?"([^"]*)"`)
	metric    = regexp.MustCompile(`"(sealstone_[a-z_]+)"`)
	docLink   = regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)
)

// Every route that the server registers stands in the API's page, and every
// metric in the operators'.
func TestDocsListRoutesAndMetrics(t *testing.T) {
	api, ops := readDoc(t, "docs/http-api.md"), readDoc(t, "docs/operations.md")
	prefix := map[string]string{"e": "", "v1": "/v1", "g": "/v2"}
	n := 0
	for _, file := range []string{"server/http.go", "server/oci.go", "server/ofrep.go"} {
		for _, m := range routeCall.FindAllStringSubmatch(readDoc(t, file), -1) {
			route := prefix[m[1]] + m[3]
			n++
			if !strings.Contains(api, "`"+route+"`") {
				t.Errorf("docs/http-api.md does not have the route %s of %s", route, file)
			}
		}
	}
	if n < 20 {
		t.Errorf("only %d routes were found in the server", n)
	}
	for _, m := range metric.FindAllStringSubmatch(readDoc(t, "server/metrics.go"), -1) {
		if !strings.Contains(ops, "`"+m[1]+"`") {
			t.Errorf("docs/operations.md does not have the metric %s", m[1])
		}
	}
}

// Links between pages lead somewhere.
func TestDocsLinks(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob("../../docs/decisions/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(append(pages, more...), "../../README.md", "../../CHANGELOG.md", "../../CONTRIBUTING.md") {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range docLink.FindAllStringSubmatch(string(b), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
			}
		}
	}
}
