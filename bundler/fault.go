package bundler

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
)

// Severity says whether a fault stops a build.
type Severity string

// The severities.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// A Fault is one thing that is wrong with a repository: where, which rule, one
// sentence, and what to do. Line and Col count from 1; 0 means the whole file.
// Message and Fix never quote values of more than 64 bytes.
type Fault struct {
	Rule     string   `json:"rule"`
	Severity Severity `json:"severity"`
	File     string   `json:"file,omitempty"`
	Line     int      `json:"line,omitempty"`
	Col      int      `json:"col,omitempty"`
	Service  string   `json:"service,omitempty"`
	Message  string   `json:"message"`
	Fix      string   `json:"fix,omitempty"`
}

// String is "file:line:col: E_RULE message. fix".
func (f Fault) String() string {
	var b strings.Builder
	if f.File != "" {
		b.WriteString(f.File)
		if f.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", f.Line, max(1, f.Col))
		}
		b.WriteString(": ")
	}
	fmt.Fprintf(&b, "%s %s", f.Rule, f.Message)
	if f.Fix != "" {
		b.WriteString(". " + f.Fix)
	}
	return b.String()
}

// Faults is an error that carries every fault of a run, sorted by file, line,
// column and rule.
type Faults []Fault

func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// Errors returns the faults that stop a build.
func (fs Faults) Errors() Faults { return fs.only(func(f Fault) bool { return f.Severity == Error }) }

// Warnings returns the faults that don't.
func (fs Faults) Warnings() Faults {
	return fs.only(func(f Fault) bool { return f.Severity == Warning })
}

func (fs Faults) only(is func(Fault) bool) Faults {
	var out Faults
	for _, f := range fs {
		if is(f) {
			out = append(out, f)
		}
	}
	return out
}

// FaultsOf returns the faults that err carries; ok is false when err is
// something else, such as a storage error or a cancelled context.
func FaultsOf(err error) (fs Faults, ok bool) {
	fs, ok = errors.AsType[Faults](err)
	return fs, ok
}

// maxFaults bounds one report: a repository with more is hostile, or the first
// thousands say enough.
const maxFaults = 2000

// sorted puts faults into their order, drops repeats and bounds their number.
func sorted(fs Faults) Faults {
	slices.SortFunc(fs, compareFaults)
	fs = slices.CompactFunc(fs, func(a, b Fault) bool { return a == b })
	if len(fs) > maxFaults {
		fs = append(fs[:maxFaults:maxFaults], fault(ruleTooMany, place{}, "only the first %d faults are shown", maxFaults))
	}
	return fs
}

func compareFaults(a, b Fault) int {
	return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col),
		cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Service, b.Service), cmp.Compare(a.Message, b.Message))
}

// asError returns the errors among fs as an error, nil when there are none.
func asError(fs Faults) error {
	if errs := fs.Errors(); len(errs) > 0 {
		return sorted(errs)
	}
	return nil
}

// A place is where something was written.
type place struct {
	file      string
	line, col int32
}

func (p place) position() Position { return Position{p.file, int(p.line), int(p.col)} }

// fault states one breach of a rule. Arguments go through quote before they get
// here when they are values out of a repository.
func fault(r *Rule, at place, format string, args ...any) Fault {
	return Fault{
		Rule: r.ID, Severity: r.Severity, File: at.file, Line: int(at.line), Col: int(at.col),
		Message: fmt.Sprintf(format, args...), Fix: r.Fix,
	}
}

// RuleModeInForce is the rule that waits: leaving the mode mends it.
const RuleModeInForce = "E_MODE_IN_FORCE"

// What a server finds beside what is in effect already. The words are here
// because a plan foresees some of it.

// ActivationGone is the fault of a service that runs, and that the tip is
// silent about.
func ActivationGone(service string) Fault {
	return served(service, ruleActGone.ID, ruleActGone.Fix, "an activation file vanished")
}

// ModeInForce is the fault of a unit that would take away a safe mode from
// under those who are in it.
func ModeInForce(service string, mode api.Mode, at api.Scope) Fault {
	return served(service, RuleModeInForce, "leave the mode first, or keep safe-modes/"+string(mode),
		"safe mode %q is in force at %s, and nothing would have it there", mode, at)
}

// TooManyChains is the fault of a service with more chains than a head lists.
func TooManyChains(service string) Fault {
	return served(service, "E_TOO_MANY_CHAINS", "activate an outer scope instead",
		"a service has at most %d main and override chains", api.MaxChains)
}

// SafeModesTooWide is the fault of a service that no safe mode could be entered
// or left for, as its sets stand together.
func SafeModesTooWide(service string, sets []*Built) (Fault, bool) {
	var entries [][]bundle.Entry
	for _, b := range sets {
		entries = append(entries, b.Entries)
	}
	return modesLimit(service, place{file: activationFile(service)}, entries)
}

// modesLimit holds the sets of a service to what a safe-mode change can list.
func modesLimit(service string, at place, sets [][]bundle.Entry) (Fault, bool) {
	scope, n, bytes := bundle.MostResolved(sets)
	if bytes <= bundle.MaxResolved {
		return Fault{}, false
	}
	f := fault(ruleModesLimit, at, "a safe mode at %s would list %d scopes with their bundles in %d bytes, the limit is %d", scope, n, bytes, bundle.MaxResolved)
	f.Service = service
	return f, true
}

// ObjectWithheld is the fault of a set that nobody could fetch.
func ObjectWithheld(service string, at api.Scope, object api.Digest) Fault {
	return served(service, "E_WITHHELD", "activate a release whose content is another",
		"the set at %s needs object %s, which was erased", at, object.Short())
}

func served(service, rule, fix, format string, args ...any) Fault {
	return Fault{
		Rule: rule, Severity: Error, Service: service, File: activationFile(service),
		Message: fmt.Sprintf(format, args...), Fix: fix,
	}
}

func activationFile(service string) string { return "activations/" + service + ".yaml" }

// withFix replaces the rule's general advice by a specific one.
func (f Fault) withFix(format string, args ...any) Fault {
	f.Fix = fmt.Sprintf(format, args...)
	return f
}

// quote shows a name or value in a message, at most 64 bytes of it.
func quote(s string) string {
	if len(s) > 64 {
		return fmt.Sprintf("a value of %d bytes", len(s))
	}
	return fmt.Sprintf("%q", s)
}

// stamp marks faults as being about a service.
func stamp(fs Faults, service string) Faults {
	for i := range fs {
		if fs[i].Service == "" {
			fs[i].Service = service
		}
	}
	return fs
}
