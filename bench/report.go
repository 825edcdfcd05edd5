package main

import (
	"bytes"
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/sealstone/sealstone/bench/page"
)

// marks is the part of the page that belongs to this program.
const marks = page.Marks("make bench")

type report struct {
	machine page.Machine
	meter   meter
	lineup  *lineup
	rows    []row
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
			page.Digits(r.ns1/scale), page.Digits(r.ns1/x.ours().ns1), page.Digits(r.ns1/limit.ns1), r.bytes, r.allocs, page.Digits(r.ns2/scale), r.scaling())
	}
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
