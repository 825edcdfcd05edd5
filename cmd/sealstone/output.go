package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"reflect"
	"regexp"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/sealstone/sealstone/api"
)

// print writes v as JSON, JSON lines or YAML, or calls table for people.
func (a *app) print(v any, table func(w io.Writer)) error {
	switch a.output {
	case "table":
		table(clean(a.out))
		return nil
	case "json":
		enc := json.NewEncoder(filter{a.out, escaped})
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	case "jsonl":
		return printLines(a.out, v)
	case "yaml":
		return printYAML(a.out, v)
	}
	return fmt.Errorf("%w %q: write table, json, yaml or jsonl", errFormat, a.output)
}

var errFormat = errors.New("unknown output format")

// printLines writes one line for each element of a list, or one line.
func printLines(w io.Writer, v any) error {
	enc := json.NewEncoder(filter{w, escaped})
	enc.SetEscapeHTML(false)
	switch answer := v.(type) {
	case api.Changes:
		v = answer.Changes
	case *api.History:
		v = answer.Intervals
	}
	list := reflect.ValueOf(v)
	if list.Kind() != reflect.Slice {
		return enc.Encode(v)
	}
	for i := range list.Len() {
		if err := enc.Encode(list.Index(i).Interface()); err != nil {
			return err
		}
	}
	return nil
}

// printYAML goes through JSON, so that both have the same names.
func printYAML(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var tree any
	if err := yaml.Unmarshal(b, &tree); err != nil {
		return err
	}
	return yaml.NewEncoder(clean(w)).Encode(tree)
}

// table aligns rows of cells.
func table(w io.Writer, header string, rows [][]string) {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	if header != "" {
		fmt.Fprintln(tw, strings.ReplaceAll(header, " ", "\t"))
	}
	for _, r := range rows {
		for i, cell := range r {
			r[i] = printable(cell)
		}
		fmt.Fprintln(tw, strings.TrimRight(strings.Join(r, "\t"), "\t"))
	}
	_ = tw.Flush()
}

// maxWidth is what tables of wide values fit into; -o json has the whole values.
const maxWidth = 100

// fitted is a table that gives way in its last column, then where it is widest,
// until a terminal has room for it; times are shown whole. A row of one cell is a line of its own; of
// nothing it shows nothing.
func fitted(w io.Writer, header string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	rows = append([][]string{strings.Fields(header)}, rows...)
	width, total := make([]int, len(rows[0])), -2
	for _, r := range rows {
		for i, cell := range r {
			r[i] = printable(cell)
			if len(r) > 1 {
				width[i] = max(width[i], utf8.RuneCountInString(r[i]))
			}
		}
	}
	for _, n := range width {
		total += n + 2
	}
	for ; total > maxWidth; total-- {
		if last := len(width) - 1; width[last] > 20 {
			width[last]--
		} else {
			width[widest(width, rows[0])]--
		}
	}
	for _, r := range rows {
		var line strings.Builder
		for i, cell := range r {
			if len(r) > 1 {
				cell = clipCell(cell, width[i])
			}
			fmt.Fprintf(&line, "%-*s  ", width[i], cell)
		}
		fmt.Fprintln(w, strings.TrimRight(line.String(), " "))
	}
}

// widest is the widest column that may give way.
func widest(width []int, header []string) (at int) {
	for i, n := range width {
		if n > width[at] && header[i] != "TIME" {
			at = i
		}
	}
	return at
}

// clipCell cuts the end of a text, and the middle of a name: names differ at
// their ends.
func clipCell(s string, n int) string {
	r := []rune(s)
	if len(r) <= n || strings.Contains(strings.TrimSpace(s), " ") {
		return clipText(s, n)
	}
	tail := n / 3
	return string(r[:n-1-tail]) + "…" + string(r[len(r)-tail:])
}

// spelled keeps what shows, and spells what hides, ends a line or turns text around in other people's
// text, so that it does nothing to a terminal.
func spelled(s string, spell func(r rune) string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(spell(r))
		}
	}
	return b.String()
}

// printable is a text that stands in a line.
func printable(s string) string { return spelled(s, func(rune) string { return "?" }) }

// cleaned keeps lines, tabs, and the colours that colour makes.
func cleaned(s string) string {
	lines := func(r rune) string {
		if r == '\n' || r == '\t' {
			return string(r)
		}
		return "?"
	}
	out, at := "", 0
	for _, code := range ownColour.FindAllStringIndex(s, -1) {
		out += spelled(s[at:code[0]], lines) + s[code[0]:code[1]]
		at = code[1]
	}
	return out + spelled(s[at:], lines)
}

var ownColour = regexp.MustCompile("\x1b\\[(31|32|0)m")

// escaped is for JSON: what a terminal can't print is spelled \uXXXX in its
// strings, which means the same.
func escaped(s string) string {
	return spelled(s, func(r rune) string {
		if r < 0x7f {
			return string(r)
		}
		out := ""
		for _, unit := range utf16.Encode([]rune{r}) {
			out += fmt.Sprintf(`\u%04x`, unit)
		}
		return out
	})
}

// filter passes on text as one of these spells it.
type filter struct {
	io.Writer
	as func(string) string
}

func (f filter) Write(p []byte) (int, error) {
	_, err := io.WriteString(f.Writer, f.as(string(p)))
	return len(p), err
}

// sink notes the first error of standard output: what could not be written was
// not said, whoever wrote it.
type sink struct {
	io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	n, err := s.Writer.Write(p)
	if s.err == nil {
		s.err = err
	}
	return n, err
}

// writeOut writes a file that --out names; one that this made and could not fill
// goes again.
func writeOut(path string, b []byte) error {
	_, before := os.Lstat(path)
	err := os.WriteFile(path, b, 0o644)
	if err != nil && errors.Is(before, fs.ErrNotExist) {
		_ = os.Remove(path) // the first error tells
	}
	return err
}

func clean(w io.Writer) io.Writer { return filter{w, cleaned} }

// ago says how long ago a time of the API was.
func ago(s string, now time.Time) string {
	t, err := api.ParseTime(s)
	if err != nil {
		return "-"
	}
	return span(now.Sub(t)) + " ago"
}

// span rounds a duration for people.
func span(d time.Duration) string {
	switch d = d.Abs(); {
	case d < time.Millisecond:
		return d.Round(time.Microsecond).String()
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < 48*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}

// count is a number of things.
func count(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

func short(commit string) string {
	if len(commit) > 12 {
		return commit[:12]
	}
	return commit
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// colour wraps text in an ANSI colour when w is a terminal that wants it.
func colour(w io.Writer, code, text string) string {
	if os.Getenv("NO_COLOR") != "" || !terminal(w) {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// bare is what filters and sinks write to.
func bare(w io.Writer) io.Writer {
	switch f := w.(type) {
	case filter:
		return bare(f.Writer)
	case *sink:
		return bare(f.Writer)
	}
	return w
}

// terminal tells whether w is a terminal that takes escape sequences.
func terminal(w io.Writer) bool {
	f, ok := bare(w).(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
