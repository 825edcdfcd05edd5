package plan

import (
	"fmt"
	"strings"
)

// Marker begins every Markdown plan, so that a bot finds the comment to update.
const Marker = "<!-- sealstone-plan -->"

// MaxMarkdown is how long a comment may be at the forges, in bytes here and in
// characters there.
const MaxMarkdown = 65536

// Markdown writes the plan as a comment on a pull request: the verdict, the
// sets, and the rest folded. Whatever comes out of the repository stands in
// code blocks, where it means nothing. What doesn't fit is cut, and the comment
// says so.
func (p *Plan) Markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n### Sealstone: %s\n\n%s\n\n", Marker, p.Verdict, p.Summary)
	b.WriteString(block(fmt.Sprintf("compared  %s\n          %s\n", p.Base.text(), p.Head.text())))
	tail := "\n" + p.Unchanged.text() + "\n"
	all := p.sections()
	for i, s := range all {
		s.markdown(&b, MaxMarkdown-b.Len()-len(tail)-reserve(all[i+1:]), p.command())
	}
	b.WriteString(tail)
	return b.String()
}

// reserve keeps room for what follows a long section.
func reserve(rest []section) int {
	n := 0
	for _, s := range rest {
		n += min(len(s.text)+256, 4096)
	}
	return n
}

// command is what shows the whole plan.
func (p *Plan) command() string {
	if p.Base.Commit == "" {
		return "sealstone plan --head " + p.Head.Commit
	}
	return "sealstone plan --base " + p.Base.Commit + " --head " + p.Head.Commit
}

// maxOpen is how many lines a section may have and still be unfolded.
const maxOpen = 40

func (s section) markdown(b *strings.Builder, room int, command string) {
	open := ""
	if s.open && strings.Count(s.text, "\n") <= maxOpen {
		open = " open"
	}
	head, foot := fmt.Sprintf("\n<details%s><summary>%s</summary>\n\n", open, s.title), "\n</details>\n"
	note := "Cut here: %d more lines. All of it: `" + command + "`\n"
	whole := head + block(s.text) + foot
	if len(whole) <= room {
		b.WriteString(whole)
		return
	}
	kept, cut := fit(s.text, room-len(head)-len(foot)-len(note)-2*len(fence(s.text))-32)
	if kept != "" {
		b.WriteString(head + block(kept) + "\n" + fmt.Sprintf(note, cut) + foot)
		return
	}
	if short := fmt.Sprintf("\nLeft out: %s. All of it: `%s`\n", s.title, command); len(short) <= room {
		b.WriteString(short)
	}
}

// fit keeps whole lines of at most room bytes and counts the others.
func fit(text string, room int) (kept string, cut int) {
	end := 0
	for {
		i := strings.IndexByte(text[end:], '\n')
		if i < 0 || end+i+1 > room {
			break
		}
		end += i + 1
	}
	return text[:end], strings.Count(text[end:], "\n")
}

// block is a code block that its own content can't end.
func block(text string) string {
	f := fence(text)
	return f + "text\n" + text + f + "\n"
}

func fence(text string) string {
	most, run := 0, 0
	for i := range len(text) {
		if text[i] != '`' {
			run = 0
			continue
		}
		run++
		most = max(most, run)
	}
	return strings.Repeat("`", max(3, most+1))
}
