package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/internal/secrets"
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

// shown is a command of a page with the lines that it prints.
type shown struct {
	command string
	lines   []string
}

// tourOf takes the commands out of the console blocks of a page's section.
func tourOf(t *testing.T, page, section string) []shown {
	t.Helper()
	_, tour, ok := strings.Cut(readDoc(t, page), "\n## "+section+"\n")
	if !ok {
		t.Fatalf("%s has no section %q", page, section)
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
// every line that the README shows. So are the sections of docs/time-travel.md.
func TestREADMETour(t *testing.T) {
	holdToScript(t, "README.md", "A tour of five minutes", "tour.txtar", 10)
	holdToScript(t, "docs/time-travel.md", "What was in effect", "history.txtar", 4)
	holdToScript(t, "docs/time-travel.md", "What differs", "diff.txtar", 4)
}

func holdToScript(t *testing.T, page, section, name string, least int) {
	script := strings.Split(readDoc(t, "cmd/sealstone/testdata/script/"+name), "\n")
	at, n := 0, 0
	for _, c := range tourOf(t, page, section) {
		words, ok := strings.CutPrefix(c.command, "sealstone ")
		if !ok {
			continue // git, ssh-keygen and the shell, which the script does by other means
		}
		n++
		words = strings.TrimSuffix(words, " &")
		i := slices.IndexFunc(script[at:], func(l string) bool {
			l = strings.TrimPrefix(l, "! ")
			return l == "exec sealstone "+words || strings.HasPrefix(l, "exec sealstone "+words+" ")
		})
		if i < 0 {
			t.Fatalf("%s does not run, or not in this place: sealstone %s", name, words)
		}
		at += i + 1
		for _, line := range c.lines {
			if script[at] != "stdout '"+pattern(line)+"'" && script[at] != "stderr '"+pattern(line)+"'" {
				t.Errorf("after sealstone %s\n%s has  %s\n%s needs    stdout '%s'", words, name, script[at], page, pattern(line))
			}
			at++
		}
	}
	if n < least {
		t.Errorf("only %d commands were found in %s: %s", n, page, section)
	}
}

// What the README shows of the demo is in the demo's output, line by line.
func TestREADMEDemo(t *testing.T) {
	_, shown, ok := strings.Cut(readDoc(t, "README.md"), "`demo --once`, shortened; a test holds it:\n\n```\n")
	shown, _, end := strings.Cut(shown, "```\n")
	if !ok || !end {
		t.Fatal("the README shows no demo")
	}
	var out bytes.Buffer
	a := &app{out: &out, err: discard, output: "table"}
	if err := a.demo(t.Context(), t.TempDir(), true); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	rest := slices.Collect(strings.Lines(out.String()))
	for line := range strings.Lines(shown) {
		want := regexp.MustCompile(pattern(strings.TrimRight(line, "\n")))
		n := slices.IndexFunc(rest, func(l string) bool { return want.MatchString(strings.TrimRight(l, "\n")) })
		if n < 0 {
			t.Fatalf("the demo does not go on with\n%s\nbut with\n%s", line, strings.Join(rest, ""))
		}
		rest = rest[n+1:]
	}
}

// What a tour leaves behind must not be in the way of its next commit.
func TestToursLeaveNoBackups(t *testing.T) {
	for _, page := range []string{"README.md", "docs/time-travel.md", "docs/operations.md", "docs/config-repository.md"} {
		doc := readDoc(t, page)
		if strings.Count(doc, "sed -i.bak ") != strings.Count(doc, "$ rm ") {
			t.Errorf("%s leaves a .bak file", page)
		}
	}
}

var ruleID = regexp.MustCompile("`([EW]_[A-Z_]+)`")

// Every rule of the bundler is in the documentation with its own words, and the
// documentation has no other. Rules that only a running server can break are in
// a table of their own.
func TestDocsListEveryRule(t *testing.T) {
	doc := readDoc(t, "docs/config-repository.md")
	known := map[string]bool{"E_MODE_IN_FORCE": true, "E_TOO_MANY_CHAINS": true, "E_WITHHELD": true}
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
	for _, kind := range secrets.Kinds() {
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
	codeBlock = regexp.MustCompile("(?s)```.*?```")
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
		for _, m := range docLink.FindAllStringSubmatch(codeBlock.ReplaceAllString(string(b), ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
			}
		}
	}
}

// The worked examples of docs/formats.md are real: made here from fixed keys
// and times, in the way the node makes them. SEALSTONE_UPDATE=1 writes them.
func TestDocsWorkedExamples(t *testing.T) { holdExamples(t, "docs/formats.md", workedExamples(t)) }

// The plans that docs/plan.md shows are the golden files of package plan.
func TestDocsShowGoldenPlans(t *testing.T) {
	shown := map[string]string{}
	for _, m := range regexp.MustCompile(`<!-- example (\S+) -->`).FindAllStringSubmatch(readDoc(t, "docs/plan.md"), -1) {
		shown[m[1]] = readDoc(t, "plan/testdata/"+m[1])
	}
	if len(shown) < 4 {
		t.Errorf("only %d plans are shown", len(shown))
	}
	holdExamples(t, "docs/plan.md", shown)
}

// holdExamples holds the blocks of a page that are marked as examples to texts
// by name.
func holdExamples(t *testing.T, page string, examples map[string]string) {
	t.Helper()
	doc := readDoc(t, page)
	got := doc
	for name, text := range examples {
		block := regexp.MustCompile("(?s)(<!-- example " + regexp.QuoteMeta(name) + " -->\n```[a-z]*\n).*?```\n")
		if !block.MatchString(doc) {
			t.Errorf("%s has no example %s", page, name)
		}
		got = block.ReplaceAllStringFunc(got, func(old string) string {
			return block.FindStringSubmatch(old)[1] + strings.TrimSuffix(text, "\n") + "\n```\n"
		})
	}
	switch {
	case got == doc:
	case os.Getenv("SEALSTONE_UPDATE") != "":
		if err := os.WriteFile(filepath.Join("..", "..", filepath.FromSlash(page)), []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Errorf("%s shows other bytes than the code makes; SEALSTONE_UPDATE=1 writes them", page)
	}
}

// exampleLog is a log of four entries about one service.
type exampleLog struct {
	t      *testing.T
	f      *ledgertest.Fixture
	replay *ledger.Replay
	leaves [][]byte
}

var exampleTime = time.Date(2026, 11, 20, 10, 3, 0, 0, time.UTC)

func exampleID(n int) string { return fmt.Sprintf("019aa0ff-5ea0-7000-8000-%012d", n) }

func (l *exampleLog) append(kind ledger.Kind, d ledger.Data) *ledger.Change {
	d.Lane = kind.Lane()
	l.replay.State.Next(&d)
	n := len(l.leaves)
	at := exampleTime.Add(time.Duration(n) * time.Second)
	e := ledger.NewEvent(l.f.Origin, kind, exampleID(n), at, at, d)
	leaf, err := e.Leaf(ledger.NodeSigner{Signer: l.f.Node})
	l.must(err)
	l.must(l.replay.Add(leaf))
	l.leaves = append(l.leaves, leaf)
	c, err := ledger.ParseLeaf(leaf)
	l.must(err)
	return c
}

func (l *exampleLog) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func workedExamples(t *testing.T) map[string]string {
	l := &exampleLog{t: t, f: ledgertest.For(t, "shop.example/sealstone")}
	l.replay = ledger.NewReplay(l.f.Trust)
	out := map[string]string{}
	payload := func(e *ledger.Envelope) string {
		b, err := e.Bytes()
		l.must(err)
		return string(b)
	}

	config := bundle.Config{Contract: 1, Mode: "normal", Service: "checkout"}
	b, err := bundle.Build(config, map[string][]byte{"flags.json": []byte(`{"flags":{}}`), "config/http.json": []byte(`{"listen":":8080"}`)})
	l.must(err)
	config.Mode = "degraded"
	safe, err := bundle.Build(config, map[string][]byte{"flags.json": []byte(`{"flags":{}}`), "config/http.json": []byte(`{"listen":":8080"}`)})
	l.must(err)
	set, err := bundle.BuildSet([]bundle.Entry{{Scope: "prod", Mode: "normal", Digest: b.Digest, Size: int64(len(b.Manifest))},
		{Scope: "prod", Mode: "degraded", Digest: safe.Digest, Size: int64(len(safe.Manifest))}})
	l.must(err)
	out["manifest"], out["set"] = string(b.Manifest), string(set)
	out["bundle-digests"] = fmt.Sprintf("bundle (normal)    %s  %d bytes\nbundle (degraded)  %s  %d bytes\nset                %s  %d bytes",
		b.Digest, len(b.Manifest), safe.Digest, len(safe.Manifest), api.DigestOf(set), len(set))

	out["trust"] = payload(l.f.Trust.Envelope)
	out["keys"] = fmt.Sprintf("log key    %s\nnode key   %s\nroot key   %s\n           %s", l.f.LogVKey, l.f.NodeVKey, ledgertest.SSHLine(l.f.RootKey), l.f.Root.KeyID())
	l.append(ledger.LedgerCreated, ledger.Data{Fields: ledger.Fields{Trust: l.f.Trust.Digest}})
	commit, tree := strings.Repeat("4f2a9c0d", 5), strings.Repeat("77e0", 10)
	ops := l.append(ledger.OperatorsChanged, ledger.Data{Statement: l.f.OperatorsSig, Fields: ledger.Fields{Version: "1", Commit: commit}})
	out["operators"] = payload(ops.Roots)
	l.append(ledger.BundleActivated, ledger.Data{Service: "checkout", Scope: "prod", Fields: ledger.Fields{Contract: 1,
		Set: &ledger.SetRef{Digest: api.DigestOf(set), Size: int64(len(set))}, Release: &ledger.Release{Commit: commit, Ref: "refs/heads/main", Repository: "https://git.shop.example/config", Tree: tree}}})

	detail := ledger.Detail{Salt: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", Text: map[string]any{"reason": "INC-123"}}
	name, err := detail.Digest()
	l.must(err)
	out["detail"] = fmt.Sprintf("salt    %s\ntext    {\"reason\":\"INC-123\"}\ndigest  %s", detail.Salt, name)
	after := int64(0)
	at := exampleTime.Add(3 * time.Second)
	st := &ledger.Statement{ID: exampleID(3), Kind: ledger.SafeModeEntered, Log: l.f.Origin, Service: "checkout", Scope: "prod", Time: api.FormatTime(at),
		After: &after, Detail: name, Fields: ledger.Fields{Mode: "degraded", TTL: 14400, OnExpiry: "hold"}}
	raw, err := st.Sign(l.f.Operator)
	l.must(err)
	signed, err := ledger.ParseStatement(raw)
	l.must(err)
	out["statement"] = payload(signed.Envelope)
	out["pae"] = string(ledger.PAE(ledger.TypeStatement, []byte(payload(signed.Envelope)))[:80]) + "..."
	out["envelope"] = string(raw)
	fields := st.Fields
	fields.Expires, fields.Resolved = api.FormatTime(at.Add(4*time.Hour)), []ledger.Resolved{{Bundle: safe.Digest, Scope: "prod"}}
	c := l.append(ledger.SafeModeEntered, ledger.Data{Service: "checkout", Scope: "prod", Detail: name, Statement: raw, Fields: fields})
	out["event"] = strings.Replace(payload(c.Envelope), string(raw), "<the envelope above>", 1)
	out["leaf-hash"] = string(c.Hash)

	checkpoint, err := ledger.SignCheckpoint(l.f.Origin, l.replay.Tree(), l.f.Log)
	l.must(err)
	head := &ledger.Head{Origin: l.f.Origin, Service: "checkout", Tree: l.replay.Tree(), Issued: exampleTime.Add(time.Minute),
		Operators: ledger.Ref{Index: 1, Hash: ops.Hash}, Lines: l.replay.State.HeadLines("checkout")}
	note, err := head.Sign(l.f.Node)
	l.must(err)
	out["checkpoint"], out["head"] = string(checkpoint), string(note)
	return out
}

var testName = regexp.MustCompile("`(Test[A-Z]\\w+)`")

// Each attack of the page names tests that there are.
func TestDocsNameTheTestOfEachAttack(t *testing.T) {
	page, err := os.ReadFile("../../docs/attacks.md")
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	for _, pattern := range []string{"../../*/*_test.go", "../../*/*/*_test.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range testFunc.FindAllStringSubmatch(string(b), -1) {
				there[m[1]] = true
			}
		}
	}
	for line := range strings.Lines(string(page)) {
		names := testName.FindAllStringSubmatch(line, -1)
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| Attack") && len(names) == 0 {
			t.Errorf("no test for %s", line)
		}
		for _, m := range names {
			if !there[m[1]] {
				t.Errorf("there is no %s", m[1])
			}
		}
	}
}

var testFunc = regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)

var (
	inFile   = regexp.MustCompile(` in ((?:\w+/)*\w+\.go)`)
	codeWord = regexp.MustCompile("`(?:\\w+\\.)?(\\w+)`")
)

// Each function that meets an attack is in the file that the page says.
func TestDocsNameWhereEachAttackIsMet(t *testing.T) {
	n := 0
	for line := range strings.Lines(readDoc(t, "docs/attacks.md")) {
		cells := strings.Split(line, "|")
		if len(cells) < 5 {
			continue
		}
		where, begin := cells[3], 0
		for _, m := range inFile.FindAllStringSubmatchIndex(where, -1) {
			file := where[m[2]:m[3]]
			for _, name := range codeWord.FindAllStringSubmatch(where[begin:m[0]], -1) {
				n++
				if !regexp.MustCompile(`(?m)^func (\([^)]*\) )?` + name[1] + `[\[(]`).MatchString(readDoc(t, file)) {
					t.Errorf("there is no func %s in %s", name[1], file)
				}
			}
			begin = m[1]
		}
	}
	if n < 60 {
		t.Errorf("only %d functions were found", n)
	}
}
