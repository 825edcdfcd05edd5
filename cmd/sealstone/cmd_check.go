package main

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/bundler"
)

func newCheck(a *app) *cobra.Command {
	var rev, format string
	var strict bool
	cmd := &cobra.Command{
		Use:   "check [DIR]",
		Short: "Find every fault of a config repository",
		Long: "Find every fault of a config repository at a revision, in one run, with\n" +
			"file:line:col, a rule and the fix. It reads what is committed, never the work\n" +
			"tree. Exit 1 when there is an error.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.check(c.Context(), dirArg(args), rev, format, strict)
		},
	}
	cmd.Flags().StringVar(&rev, "rev", "HEAD", "revision to check")
	cmd.Flags().StringVar(&format, "format", "", "github: print workflow annotations")
	cmd.Flags().BoolVar(&strict, "strict", false, "count warnings as errors")
	return cmd
}

// checkMemory makes the collector work harder before a hostile repository takes
// 512 MiB of a CI runner. What a check holds at once is bounded by rules.
const checkMemory = 320 << 20

func (a *app) check(ctx context.Context, dir, rev, format string, strict bool) error {
	repo, commit, err := openCommit(dir, rev)
	if err != nil {
		return err
	}
	a.noteInside(dir)
	a.noteShallow(dir)
	if rev == "HEAD" {
		a.noteDirty(dir)
	}
	debug.SetMemoryLimit(checkMemory)
	b := bundler.New(repo)
	stop := a.building("checking", b)
	report, err := b.Check(ctx, commit, bundler.CheckOptions{Strict: strict})
	stop()
	if err != nil {
		return deepen(repo, err)
	}
	if err := a.printReport(report, format); err != nil {
		return err
	}
	if len(report.Faults.Errors()) > 0 {
		return exitCode(exitError)
	}
	return nil
}

func (a *app) printReport(r *bundler.Report, format string) error {
	if format == "github" {
		for _, f := range r.Faults {
			fmt.Fprintln(a.out, annotation(f))
		}
		return nil
	}
	if format != "" {
		return fmt.Errorf("unknown format %q: write github", format)
	}
	return a.print(r, func(w io.Writer) {
		for _, f := range r.Faults {
			fmt.Fprintln(w, printable(f.String()))
		}
		fmt.Fprintf(w, "%s: %s, %s, %s, %s\n", short(r.Commit), count(r.Services, "service"), count(r.Files, "file"),
			count(len(r.Faults.Errors()), "error"), count(len(r.Faults.Warnings()), "warning"))
	})
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// annotation is a workflow command of GitHub Actions (and Forgejo's): shown at
// the line, within the diff where the line was changed. A fault without a line
// is shown at the file.
func annotation(f bundler.Fault) string {
	var at []string
	if f.File != "" {
		at = append(at, "file="+escapeProperty(f.File))
	}
	if f.Line > 0 {
		at = append(at, fmt.Sprintf("line=%d,col=%d", f.Line, max(1, f.Col)))
	}
	at = append(at, "title="+f.Rule)
	return printable(fmt.Sprintf("::%s %s::%s", f.Severity, strings.Join(at, ","), escapeData(f.Message+". "+f.Fix)))
}

// A name or a value out of a repository must not end a command and begin one of
// its own. GitHub's escapes: these three in text, two more in properties.
var (
	escapeData     = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace
	escapeProperty = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C").Replace
)
