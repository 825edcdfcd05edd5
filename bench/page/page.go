// Package page writes what benchmarks measured into a page of the docs, and says
// on which machine.
package page

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// Marks names the command whose part of a page lies between two comments.
type Marks string

func (m Marks) Begin() string { return "<!-- written by " + string(m) + ": begin -->" }
func (m Marks) End() string   { return "<!-- written by " + string(m) + ": end -->" }

// Write puts body into the part of the page at path, or prints it.
func (m Marks) Write(path string, body []byte) error {
	if path == "" {
		_, err := os.Stdout.Write(body)
		return err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, ok := bytes.Cut(text, []byte(m.Begin()))
	_, after, ok2 := bytes.Cut(rest, []byte(m.End()))
	if !ok || !ok2 {
		return fmt.Errorf("%s: there is no place marked by %q and %q", path, m.Begin(), m.End())
	}
	text = bytes.Join([][]byte{before, []byte(m.Begin() + "\n\n"), body, []byte("\n" + m.End()), after}, nil)
	return os.WriteFile(path, text, 0o644)
}

// Digits shows about three digits and groups of thousands.
func Digits(f float64) string {
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

// A Machine is where and of what the report is.
type Machine struct {
	cpu, load, commit string
	at                time.Time
}

// This looks at the machine. What is measured lies in paths.
func This(paths ...string) Machine {
	return Machine{cpu: cpu(), load: load(), commit: commit(paths), at: time.Now()}
}

func (m Machine) String() string {
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
func commit(paths []string) string {
	head, err := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	changed, err := exec.Command("git", append([]string{"status", "--porcelain", "--"}, paths...)...).Output()
	if err != nil || len(changed) > 0 {
		return strings.TrimSpace(string(head)) + " with changes"
	}
	return strings.TrimSpace(string(head))
}
