package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// What is between these lines of the page belongs to this program.
const (
	begin = "<!-- written by make bench: begin -->"
	end   = "<!-- written by make bench: end -->"
)

type report struct {
	machine machine
	meter   meter
	lineup  *lineup
	rows    []row
}

// write puts the report into the page, or prints it.
func (r *report) write(path string) error {
	body := r.markdown()
	if path == "" {
		_, err := os.Stdout.Write(body)
		return err
	}
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(page, []byte(begin))
	_, after, ok2 := bytes.Cut(rest, []byte(end))
	if !ok || !ok2 {
		return fmt.Errorf("%s: there is no place marked by %q and %q", path, begin, end)
	}
	page = bytes.Join([][]byte{before, []byte(begin + "\n\n"), body, []byte("\n" + end), after}, nil)
	return os.WriteFile(path, page, 0o644)
}

func (r *report) markdown() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n\nTimes are the fastest of %d runs of about %s, engines taking turns; the median run took up to %.1f times that. "+
		"With two goroutines, time is per evaluation over both.\n", r.machine, r.meter.rounds, r.meter.run, r.noise())
	b.WriteString("\n## Budgets\n\n| Budget | Measured | |\n|---|---|---|\n")
	for _, x := range r.budgets() {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", x.what, x.measured, x.verdict())
	}
	r.causes(&b)
	for i := range r.rows {
		r.rows[i].markdown(&b)
	}
	b.WriteString("\n## Who is measured\n\n")
	for _, e := range append(r.lineup.engines, r.lineup.openFeature...) {
		fmt.Fprintf(&b, "- %s: %s.\n", e.name, e.note)
	}
	fmt.Fprintf(&b, "\nVersions: %s.\n", versions())
	return b.Bytes()
}

// causes explains each shortfall, once.
func (r *report) causes(b *bytes.Buffer) {
	seen := map[string]bool{}
	for _, x := range r.budgets() {
		if !x.met && !seen[x.cause] {
			seen[x.cause] = true
			fmt.Fprintf(b, "\nNot met: %s\n", x.cause)
		}
	}
}

// noise is how far the limits' median runs are from their fastest.
func (r *report) noise() float64 {
	worst := 1.0
	for _, x := range r.rows {
		l := x.result(x.limit)
		worst = max(worst, l.median/l.ns1)
	}
	return worst
}

func (x *row) result(name string) *result {
	for i := range x.results {
		if x.results[i].name == name {
			return &x.results[i]
		}
	}
	panic("bench: no line " + name) // names are ours
}

func (x *row) ours() *result { return &x.results[0] }

func (x *row) markdown(b *bytes.Buffer) {
	unit, scale := "ns", 1.0
	if x.unit != "" {
		unit, scale = x.unit, 1000
	}
	limit := x.result(x.limit)
	fmt.Fprintf(b, "\n## %s\n\n%s\n\n| | %s | × ours | × limit | B | allocs | %s, 2 goroutines | speed-up |\n|---|--:|--:|--:|--:|--:|--:|--:|\n", x.title, x.about, unit, unit)
	for _, r := range x.results {
		fmt.Fprintf(b, "| %s | %s | %s | %s | %.0f | %.0f | %s | %.1f |\n", r.name,
			digits(r.ns1/scale), digits(r.ns1/x.ours().ns1), digits(r.ns1/limit.ns1), r.bytes, r.allocs, digits(r.ns2/scale), r.scaling())
	}
}

// digits shows about three digits and groups of thousands.
func digits(f float64) string {
	switch {
	case f < 1:
		return strconv.FormatFloat(f, 'f', 2, 64)
	case f < 100:
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	s := strconv.FormatFloat(f, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// A machine is where and of what the report is.
type machine struct {
	cpu, load, commit string
	at                time.Time
}

func thisMachine() machine {
	return machine{cpu: cpu(), load: load(), commit: commit(), at: time.Now()}
}

func (m machine) String() string {
	return fmt.Sprintf("%s, %d cores, load %s before the run, %s/%s, %s; commit %s, %s.",
		m.cpu, runtime.GOMAXPROCS(0), m.load, runtime.GOOS, runtime.GOARCH, runtime.Version(), m.commit, m.at.UTC().Format(time.DateOnly))
}

func cpu() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}

func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	one, _, _ := strings.Cut(string(b), " ")
	if err != nil {
		return "unknown"
	}
	return one
}

// commit is what was measured, and whether something was changed since.
func commit() string {
	head, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	changed, err := exec.Command("git", "status", "--porcelain", "--", "../flags", "../sdk", ".").Output()
	if err != nil || len(changed) > 0 {
		return strings.TrimSpace(string(head)) + " with changes"
	}
	return strings.TrimSpace(string(head))
}

// versions lists the modules that are compared.
func versions() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	var out []string
	for _, d := range info.Deps {
		switch d.Path {
		case "github.com/open-feature/flagd/core", "github.com/open-feature/go-sdk", "github.com/launchdarkly/go-server-sdk/v7",
			"github.com/growthbook/growthbook-golang", "github.com/diegoholiveira/jsonlogic/v3":
			out = append(out, "`"+d.Path+"` "+d.Version)
		}
	}
	return strings.Join(out, ", ")
}
