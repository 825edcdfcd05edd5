package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/storage/memory"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/gittest"
)

// testdata/rules has a repository for each rule that breaks it and nothing
// else, and what check says of it, as an archive:
//
//	what is wrong, in words
//	! remove PATH            a file of base.txtar that is not there
//	! fill PATH BYTES        a file of one long string
//	! more PATH BYTES        the same with another key
//	! faults PATH COUNT      a file of many faults
//	! many FORMAT COUNT      files whose names have a number
//	! drop PATH              the file's object is missing
//	! last N                 show.txt has the last lines only
//	-- before: PATH --       a file of the first commit alone; $FIRST is its id,
//	                         $SIDE one of another branch
//	-- PATH --               a file; @link, @module as gittest has them
//	-- show.txt --           what check prints; show.json, show.github: -o json, --format github
//
// Files lie over those of base.txtar. SEALSTONE_UPDATE=1 rewrites what is shown.

// neverShown are rules that check can't report, or not soon.
var neverShown = map[string]string{
	"E_INTERNAL":    "a build that was cancelled; a check returns an error then",
	"E_LIMIT_BUILD": "it takes 131,072 bundles; TestAllSetsTogetherAreBounded of bundler and the hostile repositories of integration have it",
}

func TestEveryRuleHasAGolden(t *testing.T) {
	base := readArchive(t, "base")
	for _, rule := range bundler.Rules() {
		if neverShown[rule.ID] != "" {
			continue
		}
		t.Run(rule.ID, func(t *testing.T) {
			t.Parallel()
			g := goldenOf(t, base, readArchive(t, rule.ID))
			g.check(t)
			if !strings.Contains(g.shows["show.txt"], rule.ID+" ") {
				t.Errorf("testdata/rules/%s.txtar does not show its rule", rule.ID)
			}
		})
	}
}

func readArchive(t *testing.T, name string) *txtar.Archive {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("testdata", "rules", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// A golden is one archive, read.
type golden struct {
	archive       *txtar.Archive
	first, second map[string]string
	shows         map[string]string
	drop          []string
	last          int
}

func goldenOf(t *testing.T, base, a *txtar.Archive) *golden {
	t.Helper()
	g := &golden{archive: a, first: map[string]string{}, second: map[string]string{}, shows: map[string]string{}}
	for _, f := range base.Files {
		g.second[f.Name] = string(f.Data)
	}
	for line := range strings.Lines(string(a.Comment)) {
		if words := strings.Fields(line); len(words) > 2 && words[0] == "!" {
			g.directive(t, words[1], words[2:])
		}
	}
	for _, f := range a.Files {
		if strings.HasPrefix(f.Name, "show.") {
			g.shows[f.Name] = string(f.Data)
		} else if name, before := strings.CutPrefix(f.Name, "before: "); before {
			g.first[name] = string(f.Data)
		} else {
			g.second[f.Name] = string(f.Data)
		}
	}
	return g
}

func (g *golden) directive(t *testing.T, do string, args []string) {
	t.Helper()
	number := func() int {
		n, err := strconv.Atoi(args[len(args)-1])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	switch do {
	case "remove":
		delete(g.second, args[0])
	case "fill":
		g.second[args[0]] = "a: " + strings.Repeat("x", number()) + "\n"
	case "more":
		g.second[args[0]] = "b: " + strings.Repeat("x", number()) + "\n"
	case "faults":
		g.second[args[0]] = strings.Repeat("- yes\n", number())
	case "many":
		for i := range number() {
			g.second[fmt.Sprintf(args[0], i)] = manyText(args[0], i)
		}
	case "drop":
		g.drop = append(g.drop, args[0])
	case "last":
		g.last = number()
	default:
		t.Fatalf("unknown directive %q", do)
	}
}

func manyText(name string, i int) string {
	if filepath.Base(name) == "safe-mode.yaml" {
		return "description: x\nowner: y\n"
	}
	return fmt.Sprintf("v: %d\n", i)
}

// check compares what is printed with what the archive shows.
func (g *golden) check(t *testing.T) {
	t.Helper()
	r := g.report(t)
	for name, want := range g.shows {
		got := g.printed(t, r, name)
		if got == want {
			continue
		}
		if os.Getenv("SEALSTONE_UPDATE") == "" {
			t.Errorf("%s is\n%s\nwant\n%s", name, got, want)
			continue
		}
		g.update(t, name, got)
	}
}

func (g *golden) report(t *testing.T) *bundler.Report {
	t.Helper()
	repo := gittest.New(t)
	ids := []string{"$SIDE", gittest.CommitOn(t, repo, g.second).String()}
	if len(g.first) > 0 {
		ids = append(ids, "$FIRST", gittest.Commit(t, repo, gittest.With(g.second, g.first)))
	}
	for name, text := range g.second {
		g.second[name] = strings.NewReplacer(ids...).Replace(text)
	}
	commit := gittest.Commit(t, repo, g.second)
	for _, name := range g.drop {
		h := plumbing.ComputeHash(plumbing.BlobObject, []byte(g.second[name]))
		objects := repo.Storer.(*memory.Storage)
		delete(objects.Objects, h)
		delete(objects.Blobs, h)
	}
	r, err := bundler.New(bundler.NewRepo(repo)).Check(context.Background(), commit, bundler.CheckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (g *golden) printed(t *testing.T, r *bundler.Report, name string) string {
	t.Helper()
	var out bytes.Buffer
	a, format := &app{out: &out, output: "table"}, ""
	switch name {
	case "show.json":
		a.output = "json"
	case "show.github":
		format = "github"
	}
	if err := a.printReport(r, format); err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(strings.TrimSuffix(out.String(), "\n"), "\n")
	if g.last > 0 {
		lines = lines[len(lines)-g.last:]
	}
	return strings.Join(lines, "") + "\n"
}

func (g *golden) update(t *testing.T, name, text string) {
	t.Helper()
	for i, f := range g.archive.Files {
		if f.Name == name {
			g.archive.Files[i].Data = []byte(text)
		}
	}
	if err := os.WriteFile(filepath.Join("testdata", "rules", strings.TrimPrefix(t.Name(), "TestEveryRuleHasAGolden/")+".txtar"), txtar.Format(g.archive), 0o644); err != nil {
		t.Fatal(err)
	}
}
