package sealstone_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sealstone/sealstone"

// arrows says which of our packages, and which modules of others, a package may
// import. Data flows one way: Git → bundler → bundle → ledger → server → SDK →
// evaluation.
var arrows = map[string]string{
	"api":                "",
	"flags":              "",
	"internal/canon":     "",
	"internal/lcs":       "",
	"bundle":             "api internal/canon internal/lcs",
	"ledger":             "api internal/canon golang.org/x/mod",
	"schemas":            "api internal/canon github.com/santhosh-tekuri/jsonschema/v5",
	"internal/durable":   "",
	"internal/kv":        "api internal/durable go.etcd.io/bbolt",
	"internal/instances": "api internal/kv go.etcd.io/bbolt golang.org/x/mod",
	"internal/mirror":    "api ledger internal/durable golang.org/x/mod",
	"internal/secrets":   "",
	"internal/store":     "api bundle ledger internal/canon internal/durable internal/kv go.etcd.io/bbolt golang.org/x/mod",
	"bundler":            "api bundle flags internal/canon internal/durable internal/secrets schemas github.com/go-git/go-git/v5 github.com/go-git/go-billy/v5 go.yaml.in/yaml/v3 golang.org/x/crypto",
	"plan":               "api bundle bundler flags internal/canon internal/lcs",
	"sdk":                "api bundle flags ledger internal/canon internal/kv github.com/open-feature/go-sdk",
	"sdk/telemetry":      "api sdk github.com/open-feature/go-sdk go.opentelemetry.io github.com/felixge/httpsnoop github.com/prometheus/client_golang",
	"server": "api bundle bundler flags ledger schemas internal/canon internal/durable internal/instances internal/secrets internal/store " +
		"github.com/labstack/echo/v4 github.com/prometheus/client_golang",
	"examples": "",
}

// pure packages touch no file, no network and no logger.
var (
	pure      = []string{"api", "flags", "bundle", "ledger", "internal/canon", "internal/lcs", "internal/secrets"}
	forbidden = []string{"os", "log", "log/slog", "net", "os/exec", "path/filepath", "syscall"}
)

type listed struct {
	ImportPath string
	Imports    []string
}

func TestImportArrows(t *testing.T) {
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		allowed, known := arrows[name]
		if !known {
			if !strings.HasPrefix(name, "cmd/") && !strings.HasSuffix(name, "test") && !slices.Contains([]string{module, "integration", "internal/imagecheck"}, name) {
				t.Errorf("package %s has no arrows: add it to the table, with a reason in docs/architecture.md", name)
			}
			continue
		}
		for _, imp := range p.Imports {
			check(t, name, imp, strings.Fields(allowed))
		}
	}
}

func check(t *testing.T, name, imp string, allowed []string) {
	t.Helper()
	ours, isOurs := strings.CutPrefix(imp, module+"/")
	switch {
	case isOurs && !slices.Contains(allowed, ours):
		t.Errorf("%s must not import %s", name, ours)
	case isOurs:
	case !strings.Contains(strings.Split(imp, "/")[0], "."):
		if slices.Contains(pure, name) && slices.Contains(forbidden, imp) {
			t.Errorf("%s is pure and must not import %s", name, imp)
		}
		if slices.Contains(pure, name) && imp == "net/http" && name != "api" {
			t.Errorf("%s is pure and must not import %s", name, imp)
		}
	case !slices.ContainsFunc(allowed, func(a string) bool { return imp == a || strings.HasPrefix(imp, a+"/") }):
		t.Errorf("%s must not import %s", name, imp)
	}
}

// The table of docs/architecture.md names every package once, with one sentence
// that needs no "and", and the same imports of ours as the arrows.
func TestArchitectureNamesEveryPackage(t *testing.T) {
	text, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	missing := map[string]bool{"bench": true} // a module of its own
	for _, p := range list(t) {
		if name, ours := strings.CutPrefix(p.ImportPath, module+"/"); ours {
			missing[name] = true
		}
	}
	_, table, _ := strings.Cut(string(text), "| Package | What it does |")
	table, _, _ = strings.Cut(table, "\n\n")
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) < 5 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		name, what, ours := strings.Trim(cells[1], " `"), strings.TrimSpace(cells[2]), strings.TrimSpace(cells[3])
		if !missing[name] {
			t.Errorf("%s is no package, or stands twice", name)
		}
		delete(missing, name)
		if strings.Contains(what, " and ") || strings.Count(what, ". ") > 0 || !strings.HasSuffix(what, ".") {
			t.Errorf("%s: %q is not one sentence without an and", name, what)
		}
		arrow, known := arrows[name]
		want := slices.DeleteFunc(strings.Fields(arrow), func(imp string) bool { return strings.Contains(imp, ".") })
		got := strings.FieldsFunc(ours, func(r rune) bool { return r == ',' || r == ' ' })
		slices.Sort(want)
		if slices.Sort(got); known && !slices.Equal(got, want) {
			t.Errorf("%s: the table has imports %q, the arrows %q", name, got, want)
		}
	}
	for name := range missing {
		t.Errorf("docs/architecture.md does not name %s", name)
	}
}

// The SDK lives in other people's processes: what it drags in is theirs too.
func TestSDKDoesNotReachTheServerSide(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", module+"/sdk").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, dep := range strings.Fields(string(out)) {
		for _, bad := range []string{module + "/server", module + "/bundler", module + "/internal/store", module + "/schemas", "github.com/go-git/", "github.com/labstack/", "github.com/santhosh-tekuri/", "go.opentelemetry.io/", "github.com/prometheus/"} {
			if strings.HasPrefix(dep, bad) {
				t.Errorf("sdk reaches %s", dep)
			}
		}
	}
}

func list(t *testing.T) []listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var p listed
		if err := dec.Decode(&p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < len(arrows) {
		t.Fatalf("go list names %d packages, the table %d", len(all), len(arrows))
	}
	return all
}
