package plan

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
)

// A section is a part of a plan: a title and text of at most Width columns.
type section struct {
	title string
	text  string
	open  bool // shown unfolded
}

// WriteText writes the plan for a terminal.
func (p *Plan) WriteText(w io.Writer) {
	verdict := strings.ToUpper(string(p.Verdict)) + "  " + p.Summary
	if i := strings.LastIndex(verdict, "; "); len(verdict) > Width && i > 0 {
		verdict = verdict[:i+1] + "\n    " + verdict[i+2:]
	}
	fmt.Fprintln(w, verdict)
	fmt.Fprintf(w, "compared  %s\n          %s\n", p.Base.text(), p.Head.text())
	for _, s := range p.sections() {
		fmt.Fprintf(w, "\n%s\n%s", strings.ToUpper(s.title), s.text)
	}
	fmt.Fprintf(w, "\n%s\n", p.Unchanged.text())
}

func (r Revision) text() string {
	if r.Commit == "" {
		return "an empty repository"
	}
	out := r.Commit[:min(12, len(r.Commit))]
	if r.Rev != "" {
		out += "  " + visible(r.Rev)
	}
	if r.Subject != "" {
		out += fmt.Sprintf("  %q", window(visible(r.Subject), 0, maxValue))
	}
	return out
}

func (u Unchanged) text() string {
	return fmt.Sprintf("unchanged: %s, and %s of those that change", counted(u.Services, "service"), counted(u.Sets, "set"))
}

// sections are the parts that have something to say, the most urgent first.
func (p *Plan) sections() []section {
	all := []section{
		{"errors", p.errorsText(), true},
		{"who may do what", p.accessText(), true},
		{"sets", p.setsText(), true},
		{"what changes", p.itemsText(), true},
		{"recorded contexts", p.outcomesText(), true},
		{"safe modes", p.modesText(), false},
		{"warnings", p.warningsText(), false},
		{"to know", p.notesText(), true},
		{"to promote", p.commands("pinned scopes stay as they are until, on the merged branch:", func(s Set) string { return s.Promote }), true},
		{"to go back", p.commands("each pins a scope to what is in effect now:", func(s Set) string { return s.Back }), false},
		{"to build the same bytes", p.commands("", func(s Set) string { return s.Reproduce }), false},
	}
	var out []section
	for _, s := range all {
		if s.text != "" {
			out = append(out, s)
		}
	}
	return out
}

func (p *Plan) errorsText() string {
	var b strings.Builder
	for _, name := range p.Refused {
		fmt.Fprintf(&b, "%s: nothing of it goes live, the last good set stays\n", name)
	}
	faultsText(&b, p.Errors)
	return b.String()
}

func faultsText(b *strings.Builder, fs bundler.Faults) {
	for _, f := range fs {
		fmt.Fprintln(b, visible(f.String()))
	}
}

func (p *Plan) setsText() string {
	header, rows := "SERVICE SCOPE STATE SET RELEASE", [][]string{}
	for _, s := range p.Sets {
		row := s.cells()
		if s.Running != nil {
			header, row = "SERVICE SCOPE STATE SET RELEASE RUNNING", append(row, fmt.Sprint(*s.Running))
		}
		rows = append(rows, row)
	}
	if len(rows) == 0 {
		return ""
	}
	return table(header, rows)
}

// cells are a row of the table of sets.
func (s *Set) cells() []string {
	state := string(s.State)
	if s.Destructive {
		state += "!"
	}
	set, release := arrow(s.Old, s.New, func(r *Release) string { return hex12(r.Set) }), arrow(s.Old, s.New, func(r *Release) string { return r.Commit[:12] })
	return []string{s.Service, string(s.Scope), state, set, release}
}

func hex12(d api.Digest) string { return d.Hex()[:12] }

// arrow is "old → new", or what there is.
func arrow(old, next *Release, show func(*Release) string) string {
	a, b := "-", "-"
	if old != nil {
		a = show(old)
	}
	if next != nil {
		b = show(next)
	}
	if a == b {
		return a
	}
	return a + " → " + b
}

// table aligns cells; the arrow counts as one column.
func table(header string, rows [][]string) string {
	var b bytes.Buffer
	tw := tabwriter.NewWriter(&b, 0, 4, 2, ' ', 0)
	fmt.Fprintln(tw, strings.ReplaceAll(header, " ", "\t"))
	for _, r := range rows {
		for i := range r {
			r[i] = visible(r[i])
		}
		fmt.Fprintln(tw, strings.Join(r, "\t"))
	}
	_ = tw.Flush()
	return b.String()
}

func (p *Plan) accessText() string {
	var b strings.Builder
	Difference(p.Access).WriteText(&b)
	return b.String()
}

func (p *Plan) itemsText() string {
	var b strings.Builder
	var all Difference
	for _, i := range p.Items {
		all = append(all, i.Item)
	}
	for i := range p.Items {
		p.Items[i].writeText(&b, all.readers(&p.Items[i].Item))
		if at := p.Items[i].Live; len(at) > 0 {
			wrap(&b, "    live on merge: "+p.placesText(at))
		}
		if at := p.Items[i].Waits; len(at) > 0 {
			wrap(&b, "    after promotion: "+p.placesText(at))
		}
	}
	return b.String()
}

// wrap breaks a line of several words at Width.
func wrap(b *strings.Builder, line string) {
	indent := strings.Repeat(" ", margin(line))
	for utf8.RuneCountInString(line) > Width {
		i := strings.LastIndexByte(line[:Width], ' ')
		if i < len(indent) {
			break
		}
		fmt.Fprintln(b, line[:i])
		line = indent + line[i+1:]
	}
	fmt.Fprintln(b, line)
}

// maxOutcomes bounds the list of outcomes.
const maxOutcomes = 50

func (p *Plan) outcomesText() string {
	var b strings.Builder
	for i, o := range p.Outcomes {
		if i == maxOutcomes {
			fmt.Fprintf(&b, "and %d more\n", len(p.Outcomes)-i)
			break
		}
		head := fmt.Sprintf("flag %s  %d of %s:", visible(o.Flag), o.Contexts, counted(o.Of, "context"))
		at := bundler.Position{File: contexts(o.Service), Line: o.Line}
		place := where(&at)
		if o.Gone {
			place = "was " + place
		}
		lines(&b, head, []string{visible(o.From), "→ " + visible(o.To)}, place)
		wrap(&b, "    "+p.placesText(o.Places))
	}
	for i, u := range p.Unasked {
		if i == maxOutcomes {
			fmt.Fprintf(&b, "and of %s\n", counted(len(p.Unasked)-i, "service"))
			break
		}
		wrap(&b, u.text())
	}
	if p.Asked > 0 {
		dropped := ""
		if p.Dropped > 0 {
			dropped = fmt.Sprintf("; %d of them the head drops", p.Dropped)
		}
		fmt.Fprintf(&b, "evaluated: %s of services whose flags change%s\n", counted(p.Asked, "recorded context"), dropped)
	}
	return b.String()
}

// text says that what is missing is not known.
func (u Unasked) text() string {
	what := "for some scopes"
	if u.Flag != "" {
		what = "from flag " + visible(u.Flag) + " on"
	}
	return fmt.Sprintf("not evaluated: %s, %s. A plan takes %d steps at most: what these contexts give is not known", u.Service, what, maxSteps)
}

func (p *Plan) modesText() string {
	var b strings.Builder
	for _, m := range p.Modes {
		state := m.State
		if state == "valid" {
			state = "still valid"
		}
		if m.Waits {
			state += " (after promotion)"
		}
		fmt.Fprintf(&b, "%s %s: %s\n", m.Service, m.Mode, state)
		for _, n := range m.Notes {
			fmt.Fprintf(&b, "    %s\n", visible(n))
		}
	}
	return b.String()
}

func (p *Plan) warningsText() string {
	var b strings.Builder
	faultsText(&b, p.Warnings)
	if p.Others > 0 {
		fmt.Fprintf(&b, "%s of files that did not change: sealstone check\n", counted(p.Others, "warning"))
	}
	return b.String()
}

func (p *Plan) notesText() string {
	var b strings.Builder
	for _, s := range p.Sets {
		if s.Destructive {
			wrap(&b, s.target()+" is withdrawn: running clients keep what they have (STALE), new ones get 404 not-activated")
		}
	}
	if p.LiveError != "" {
		wrap(&b, "instances are not counted: "+visible(p.LiveError))
	}
	for _, n := range p.Notes {
		wrap(&b, visible(n))
	}
	return b.String()
}

// commands lists one command of each set that has it.
func (p *Plan) commands(intro string, of func(Set) string) string {
	var b strings.Builder
	for _, s := range p.Sets {
		c := of(s)
		if c != "" && b.Len() == 0 && intro != "" {
			fmt.Fprintln(&b, intro)
		}
		if c != "" {
			fmt.Fprintln(&b, c)
		}
	}
	return b.String()
}
