package main

import (
	"bytes"
	"fmt"

	"github.com/sealstone/sealstone/bench/page"
)

type report struct {
	machine page.Machine
	rounds  int

	fewServices, fewFiles, whole *measured
}

func (r *report) markdown() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\n\n", r.machine)
	b.WriteString("### Budgets of building\n\n| Budget | Measured | |\n|---|---|---|\n")
	for _, x := range r.budgets() {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", x.what, x.measured, x.verdict())
	}
	r.cause(&b)
	for _, m := range []*measured{r.whole, r.fewFiles, r.fewServices} {
		m.table(&b)
	}
	fmt.Fprintf(&b, "\nTimes are the fastest of %d processes, and within one of %d commits in a row where that is what is timed. "+
		"The peak is VmHWM; of a subject with `git` in its name it is that of the process that parses, without git's own. "+
		"A build returns all sets, two for each service.\n", r.rounds, edits-1)
	return b.Bytes()
}

// cause says what a further service costs, since budgets want it to cost nothing.
func (r *report) cause(b *bytes.Buffer) {
	sets := float64(r.whole.activated() - r.fewServices.activated())
	fmt.Fprintf(b, "\nA further set that did not change costs %.1f µs: it is asked for, and looked up by its Git ids. "+
		"Its files are not looked at; what more files still cost is the comparison of larger folders, which the bare comparison pays as well.\n", 1e6*(r.whole.time(subFind)-r.fewServices.time(subFind))/sets)
}

func (m *measured) time(name string) float64 { return m.results[name].fastest().Seconds() }

func (m *measured) table(b *bytes.Buffer) {
	fmt.Fprintf(b, "\n### %s files in %s services, %d commits\n\n| | ms | %% of cold | peak, MiB |\n|---|--:|--:|--:|\n",
		count(m.files()), count(m.services), m.commits)
	for _, s := range subjects {
		fmt.Fprintf(b, "| %s | %s | %s | %d |\n", s.name, page.Digits(1000*m.time(s.name)), page.Digits(100*m.time(s.name)/m.time(subCold)), m.results[s.name].Peak/1024)
	}
}

// A budget is what docs promise of a measurement, and what came of it.
type budget struct {
	what, measured string
	met            bool
}

func (b budget) verdict() string {
	if b.met {
		return "met"
	}
	return "**not met**"
}

func (r *report) budgets() []budget {
	w := r.whole
	return []budget{
		w.ratio("finding what changed", subFind, "a hash-pruned tree comparison", subPruned, 3),
		w.flat(r.fewFiles, "finding what changed", subFind),
		{"build after a one-file commit: ≤ 2 % of cold", fmt.Sprintf("%.2f %%", 100*w.time(subFile)/w.time(subCold)), w.time(subFile) <= 0.02*w.time(subCold)},
		w.flat(r.fewServices, "build after a one-file commit", subFile),
		w.ratio("cold build", subCold, "clone + parse the same YAML, both by the libraries of the builder", subClone, 2),
	}
}

func (m *measured) ratio(what, ours, than, theirs string, most float64) budget {
	got := m.time(ours) / m.time(theirs)
	return budget{fmt.Sprintf("%s: ≤ %g× %s", what, most, than), fmt.Sprintf("%.2f×", got), got <= most}
}

// flat holds that what is small in one way takes as long as the whole.
func (m *measured) flat(small *measured, what, name string) budget {
	got := m.time(name) / small.time(name)
	return budget{
		fmt.Sprintf("%s: %s of %s files as fast as %s of %s", what, services(m), count(m.files()), services(small), count(small.files())),
		fmt.Sprintf("%.2f×", got), got <= 1.2,
	}
}

func services(m *measured) string { return count(m.services) + " services" }

func count(n int) string {
	if n < 100 {
		return fmt.Sprint(n)
	}
	return page.Digits(float64(n))
}
