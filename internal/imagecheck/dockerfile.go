package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// dockerfile is what the check understands of one: enough for ours, and an
// error for the rest, so that a new instruction is noticed.
type dockerfile struct {
	args   map[string]string // before the first stage
	stages []*stage
}

type stage struct {
	name, from string
	steps      []step
	user       string
	entry      string // the ENTRYPOINT, raw
}

type step struct {
	line int
	verb string
	args string
}

func (d *dockerfile) final() *stage { return d.stages[len(d.stages)-1] }

// entrypoint is the program that the image runs, "" unless it is in exec form.
func (d *dockerfile) entrypoint() string {
	var words []string
	if json.Unmarshal([]byte(d.final().entry), &words) != nil || len(words) == 0 {
		return ""
	}
	return words[0]
}

func parse(text string) (*dockerfile, error) {
	d := &dockerfile{args: map[string]string{}}
	for _, s := range logicalLines(text) {
		if err := d.add(s); err != nil {
			return nil, fmt.Errorf("line %d: %w", s.line, err)
		}
	}
	if len(d.stages) == 0 {
		return nil, fmt.Errorf("no FROM")
	}
	return d, nil
}

// logicalLines joins continued lines and drops comments.
func logicalLines(text string) []step {
	var out []step
	var open string
	start := 0
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "#") || line == "" {
			continue
		}
		if open == "" {
			start = i + 1
		}
		if rest, more := strings.CutSuffix(line, `\`); more {
			open += rest
			continue
		}
		verb, args, _ := strings.Cut(open+line, " ")
		out = append(out, step{start, strings.ToUpper(verb), strings.TrimSpace(args)})
		open = ""
	}
	return out
}

func (d *dockerfile) add(s step) error {
	if s.verb == "FROM" {
		return d.from(s.args)
	}
	if len(d.stages) == 0 {
		if s.verb != "ARG" {
			return fmt.Errorf("%s before FROM", s.verb)
		}
		name, value, _ := strings.Cut(s.args, "=")
		d.args[name] = value
		return nil
	}
	at := d.final()
	switch s.verb {
	case "USER":
		at.user = s.args
	case "ENTRYPOINT":
		at.entry = s.args
	case "WORKDIR", "COPY", "RUN", "ARG", "ENV":
		at.steps = append(at.steps, s)
	case "EXPOSE", "LABEL":
	default:
		return fmt.Errorf("%s is unknown to image-check: teach it, or leave it out", s.verb)
	}
	return nil
}

func (d *dockerfile) from(args string) error {
	words := strings.Fields(args)
	switch {
	case len(words) == 1:
		words = append(words, "AS", "")
	case len(words) != 3 || !strings.EqualFold(words[1], "as"):
		return fmt.Errorf("FROM %s", args)
	}
	d.stages = append(d.stages, &stage{from: expand(words[0], d.args), name: words[2]})
	return nil
}

// expand puts values in for $NAME and ${NAME}.
func expand(s string, values map[string]string) string {
	return os.Expand(s, func(name string) string { return values[name] })
}

var absolutePath = regexp.MustCompile(`(^|[\s=:"'])/[A-Za-z0-9]`)

var numericUser = regexp.MustCompile(`^[1-9][0-9]*(:[1-9][0-9]*)?$`)

// judgeDockerfile says what is wrong before anything is built.
func judgeDockerfile(d *dockerfile) []error {
	var out []error
	bad := func(format string, args ...any) { out = append(out, fmt.Errorf(format, args...)) }
	last := d.final()
	if last.from != "scratch" {
		bad("the last stage is FROM %s, want scratch: anything else brings files nobody reviewed", last.from)
	}
	if !numericUser.MatchString(last.user) {
		bad("USER %q: want a numeric user above 0, which needs no /etc/passwd and can't be root", last.user)
	}
	if d.entrypoint() == "" {
		bad("ENTRYPOINT %q: want the exec form, [\"/program\"]: the other one needs a shell", last.entry)
	}
	for _, s := range last.steps {
		if s.verb == "RUN" {
			bad("line %d: RUN in the last stage needs a shell there", s.line)
		}
	}
	for _, st := range d.stages {
		for _, s := range st.steps {
			if s.verb == "RUN" && absolutePath.MatchString(s.args) {
				bad("line %d: RUN with an absolute path can't be checked without an engine", s.line)
			}
		}
	}
	return out
}
