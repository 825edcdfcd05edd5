package plan

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/canon"
)

// Width is how many columns the text form takes, unless a single value or path
// is longer.
const Width = 100

// WriteText writes the difference for people: a line for each item, the values
// below it, and where each new one is set.
func (d Difference) WriteText(w io.Writer) {
	for i := range d {
		d[i].writeText(w, d.readers(&d[i]))
	}
}

// readers names the flags that change through an evaluator.
func (d Difference) readers(evaluator *Item) []string {
	var out []string
	for _, i := range d {
		if evaluator.Kind == KindEvaluator && slices.Contains(i.Through, evaluator.Name) && !slices.Contains(out, i.Name) {
			out = append(out, i.Name)
		}
	}
	return out
}

func (i *Item) writeText(w io.Writer, readers []string) {
	fmt.Fprintln(w, i.title())
	for _, line := range i.notes(readers) {
		fmt.Fprintf(w, "    %s\n", line)
	}
	for _, r := range i.Rollouts {
		lines(w, "  ~ "+visible(r.Key), []string{r.String()}, where(r.At))
	}
	for n := range i.Edits {
		if n == maxShown {
			fmt.Fprintf(w, "    and %s: -o json has them\n", counted(len(i.Edits)-n, "more value"))
			break
		}
		i.Edits[n].writeText(w)
	}
}

// title names an item and what became of it.
func (i *Item) title() string {
	name := visible(i.Name)
	switch i.Kind {
	case KindDocument, KindFile:
	case KindMetadata:
		name = "metadata of all flags"
	default:
		name = string(i.Kind) + " " + name
	}
	if i.common() {
		return name + "  " + string(i.Change) + " through common/"
	}
	return name + "  " + string(i.Change)
}

// common reports whether common/ set any of it.
func (i *Item) common() bool {
	in := func(at *bundler.Position) bool { return at != nil && strings.HasPrefix(at.File, "common/") }
	return slices.ContainsFunc(i.Edits, func(e Edit) bool { return in(e.At) }) ||
		slices.ContainsFunc(i.Rollouts, func(r Rollout) bool { return in(r.At) })
}

func (i *Item) notes(readers []string) []string {
	var out []string
	if len(i.Through) > 0 {
		out = append(out, "its rule reads "+visible(strings.Join(i.Through, ", "))+", which changed")
	}
	switch {
	case i.Kind != KindEvaluator:
	case len(readers) == 0:
		out = append(out, "no flag changes through it")
	default:
		out = append(out, "changes through it: "+visible(firstOf(readers, 6)))
	}
	if i.Reworded {
		out = append(out, "written differently, means the same")
	}
	return append(out, i.Notes...)
}

// lines writes what fits into one line, and else one thing a line.
func lines(w io.Writer, head string, values []string, place string) {
	one := strings.TrimRight(head+"  "+strings.Join(values, " ")+"  "+place, " ")
	if utf8.RuneCountInString(one) <= Width {
		fmt.Fprintln(w, one)
		return
	}
	short := head + "  " + strings.Join(values, " ")
	if utf8.RuneCountInString(short) <= Width {
		values = nil
		head = short
	}
	fmt.Fprintln(w, head)
	for _, v := range values {
		fmt.Fprintf(w, "%*s%s\n", margin(head), "", v)
	}
	if place != "" {
		fmt.Fprintf(w, "%*s%s\n", margin(head), "", place)
	}
}

// margin is where lines that belong to head begin.
func margin(head string) int { return len(head) - len(strings.TrimLeft(head, " ")) + 4 }

func where(at *bundler.Position) string {
	if at == nil || at.File == "" {
		return ""
	}
	if at.Line == 0 {
		return visible(at.File)
	}
	return visible(at.File) + ":" + strconv.Itoa(at.Line)
}

// String is "a 10 % → 25 %, b 90 % → 75 %; 15 % of subjects move".
func (r *Rollout) String() string {
	const most = 8
	var was, is uint64
	for _, s := range r.Shares {
		was, is = was+s.OldWeight, is+s.NewWeight
	}
	var parts []string
	for i, s := range r.Shares {
		if i == most {
			parts = append(parts, fmt.Sprintf("%d more", len(r.Shares)-most))
			break
		}
		old, next := percentText(s.Old), percentText(s.New)
		text := fmt.Sprintf("%s %s → %s", visible(s.Variant), old, next)
		if old == next && s.OldWeight*is != s.NewWeight*was {
			text += fmt.Sprintf(" (%d of %d → %d of %d)", s.OldWeight, was, s.NewWeight, is)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ") + "; " + percentText(r.Moves) + " of subjects move"
}

func percentText(f float64) string {
	if 0 < f && f < 0.01 {
		return "less than 0.01 %"
	}
	return strconv.FormatFloat(f, 'f', -1, 64) + " %"
}

// keyPath writes a JSON pointer as people write keys: with dots, and in quotes
// what would be misread. In a rule, numbers are indexes.
func keyPath(pointer string, rule bool) string {
	if pointer == "" {
		return ""
	}
	out := ""
	for _, part := range strings.Split(pointer, "/")[1:] {
		part = canon.UnescapePointer(part)
		if _, err := strconv.Atoi(part); err == nil && rule {
			out += "[" + part + "]"
			continue
		}
		out = joinKeys(out, bundle.KeyOf(part))
	}
	return out
}

// visible shows what would otherwise hide, end a line or turn text around.
func visible(s string) string {
	if !strings.ContainsFunc(s, hides) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if hides(r) {
			fmt.Fprintf(&b, `\u%04x`, r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func hides(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }
