package plan

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sealstone/sealstone/internal/lcs"
)

// How much of a value the text form shows. JSON has all of it, up to maxWhole.
const (
	maxValue   = 64       // bytes of one that stands in a line
	maxWindows = 3        // places of a long one where it differs
	maxRows    = 12       // changed lines of a text
	maxShown   = 50       // values of an item
	maxWhole   = 64 << 10 // bytes in JSON
	maxWork    = 1 << 18  // comparisons of lines or words
)

// writeText writes what became of a value, on one line if it fits.
func (e *Edit) writeText(w io.Writer) {
	at := where(e.At)
	switch {
	case e.From != "":
		lines(w, "  ~ "+e.key(), []string{fmt.Sprintf("moved: %s → %s", place(e.From), place(e.Path))}, at)
	case e.Old == "":
		e.write(w, "  + ", at)
	case e.New == "":
		e.write(w, "  - ", strings.TrimSuffix("was "+at, "was "))
	default:
		e.write(w, "  ~ ", at)
	}
}

func (e *Edit) write(w io.Writer, sign, at string) {
	old, new, ok := texts(e.Old, e.New)
	if !ok {
		lines(w, sign+e.key(), values(e.Old, e.New), at)
		return
	}
	rows, gone, came := textRows(old, new)
	var count []string
	if gone > 0 {
		count = append(count, fmt.Sprintf("-%d", gone))
	}
	if came > 0 {
		count = append(count, fmt.Sprintf("+%d", came))
	}
	lines(w, sign+e.key(), []string{strings.Join(count, " ") + " lines"}, at)
	for _, row := range rows[:min(len(rows), maxRows)] {
		fmt.Fprintf(w, "    %s\n", row)
	}
	if more := len(rows) - maxRows; more > 0 {
		fmt.Fprintf(w, "         and %s\n", counted(more, "more line"))
	}
}

func (e *Edit) key() string {
	if e.Key == "" {
		return "(all of it)"
	}
	key := e.Key
	if len(key) > 2*maxValue {
		key = window(key, 0, maxValue) + strings.TrimPrefix(window(key, len(key), maxValue), ellipsis)
	}
	return visible(key)
}

// place is a pointer's last part, an index, as people count.
func place(pointer string) string {
	i, _ := strconv.Atoi(pointer[strings.LastIndexByte(pointer, '/')+1:])
	return "place " + strconv.Itoa(i+1)
}

// values shows a value that came or went, or both and where they part.
func values(old, new string) []string {
	switch {
	case old == "" || new == "":
		return wrapped(old + new)
	case len(old) <= maxValue && len(new) <= maxValue:
		return []string{visible(old), "→ " + visible(new)}
	}
	places := parts(words(old), words(new))
	if old[0] != new[0] { // of another type
		places = []hunk{{0, len(old), 0, len(new)}}
	}
	var out []string
	for i, p := range places {
		if i == maxWindows {
			return append(out, "and "+counted(len(places)-i, "more place"))
		}
		out = append(out, visible(window(old, p.old, maxValue)), "→ "+visible(window(new, p.new, maxValue)))
	}
	return out
}

// wrapped breaks a value into some lines.
func wrapped(v string) (out []string) {
	const size = Width - 10
	for len(v) > size && len(out) < maxWindows {
		end := size
		for !utf8.RuneStart(v[end]) {
			end--
		}
		out, v = append(out, visible(v[:end])), v[end:]
	}
	if len(v) > size {
		return append(out, fmt.Sprintf("and %d bytes more", len(v)))
	}
	return append(out, visible(v))
}

// texts are two strings, one of which has several lines. Nothing, too, is a
// string, of no lines.
func texts(old, new string) (a, b string, ok bool) {
	for _, v := range []struct {
		json string
		into *string
	}{{old, &a}, {new, &b}} {
		if v.json != "" && (v.json[0] != '"' || json.Unmarshal([]byte(v.json), v.into) != nil) {
			return "", "", false
		}
		ok = ok || strings.Contains(strings.TrimSuffix(*v.into, "\n"), "\n")
	}
	return a, b, ok
}

// textRows are the lines of a text that differ, with their numbers.
func textRows(old, new string) (rows []string, gone, came int) {
	a, b := linesOf(old), linesOf(new)
	// That the last line does not end shows where it is what differs.
	ends := old == "" || new == "" || strings.HasSuffix(old, "\n") == strings.HasSuffix(new, "\n")
	row := func(n int, sign byte, line, other string) {
		text, ended := strings.CutSuffix(line, "\n")
		text = visible(window(text, sharedStart(text, other), Width-30))
		if !ended && !ends {
			text += "  (no line end)"
		}
		rows = append(rows, fmt.Sprintf("%5d %c %s", n+1, sign, text))
	}
	for _, h := range hunks(a, b) {
		gone, came = gone+h.oldEnd-h.old, came+h.newEnd-h.new
		paired := h.oldEnd-h.old == h.newEnd-h.new
		for i := h.old; i < h.oldEnd; i++ {
			row(i, '-', a[i], at(b, h.new+i-h.old, paired))
		}
		for i := h.new; i < h.newEnd; i++ {
			row(i, '+', b[i], at(a, h.old+i-h.new, paired))
		}
	}
	return rows, gone, came
}

func at(list []string, i int, ok bool) string {
	if !ok {
		return ""
	}
	return list[i]
}

func linesOf(s string) []string {
	return slices.Collect(strings.Lines(s))
}

// sharedStart is how many bytes two strings begin with alike.
func sharedStart(a, b string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}

// A hunk is where two lists differ.
type hunk struct{ old, oldEnd, new, newEnd int }

func hunks(a, b []string) []hunk {
	work := maxWork
	var out []hunk
	i, j := 0, 0
	for _, p := range append(lcs.Pairs(a, b, &work), [2]int{len(a), len(b)}) {
		if i < p[0] || j < p[1] {
			out = append(out, hunk{i, p[0], j, p[1]})
		}
		i, j = p[0]+1, p[1]+1
	}
	return out
}

// parts are the hunks of two lists of words in bytes; those that would stand in
// one window are one.
func parts(a, b []string) []hunk {
	from, to := offsets(a), offsets(b)
	var out []hunk
	for _, h := range hunks(a, b) {
		h = hunk{from[h.old], from[h.oldEnd], to[h.new], to[h.newEnd]}
		if n := len(out) - 1; n >= 0 && h.oldEnd-out[n].old < maxValue/2 && h.newEnd-out[n].new < maxValue/2 {
			out[n].oldEnd, out[n].newEnd = h.oldEnd, h.newEnd
			continue
		}
		out = append(out, h)
	}
	return out
}

// offsets are where words begin, and where the last one ends.
func offsets(words []string) []int {
	out := make([]int, len(words)+1)
	for i, w := range words {
		out[i+1] = out[i] + len(w)
	}
	return out
}

// words splits text where people would.
func words(s string) []string {
	var out []string
	start, was := 0, false
	for i, r := range s {
		is := unicode.IsLetter(r) || unicode.IsDigit(r)
		if i > start && !(is && was) {
			out = append(out, s[start:i])
			start = i
		}
		was = is
	}
	return append(out, s[start:])
}

const ellipsis = "…"

// window cuts a long value to size bytes that begin a little before a place.
func window(s string, at, size int) string {
	if len(s) <= size {
		return s
	}
	const lead = 12
	room := size - 2*len(ellipsis)
	start := max(0, min(at-lead, len(s)-room))
	for start > 0 && !utf8.RuneStart(s[start]) {
		start--
	}
	end := min(len(s), start+room)
	for end < len(s) && !utf8.RuneStart(s[end]) {
		end--
	}
	out := s[start:end]
	if start > 0 {
		out = ellipsis + out
	}
	if end < len(s) {
		out += ellipsis
	}
	return out
}
