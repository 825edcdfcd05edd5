package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
)

func newDemo(a *app) *cobra.Command {
	var once bool
	var dir string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Play the whole story on this machine, in under a minute",
		Long: "Play the whole story on this machine: a real Git repository, a ledger, a server and\n" +
			"services that read flags through OpenFeature. Then stay up for you to try. Needs no\n" +
			"network, no set-up and no git binary.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.demo(c.Context(), dir, once) },
	}
	cmd.Flags().BoolVar(&once, "once", false, "end after the last step")
	cmd.Flags().StringVar(&dir, "dir", "", "directory to play in (default: a temporary one)")
	return cmd
}

// demoStep is one scene: a title, and what happened.
type demoStep struct {
	title string
	play  func(*demo, context.Context) error
}

var demoSteps = []demoStep{
	{"A config repository, keys and an empty ledger", (*demo).setUp},
	{"The server builds every bundle and activates it", (*demo).startServer},
	{"Three services start, in staging and two regions", (*demo).startServices},
	{"A commit flips two flags; every service has it in staging", (*demo).flipFlag},
	{"A promotion moves that release to prod", (*demo).promote},
	{"An SRE puts checkout into safe mode in one region", (*demo).safeMode},
	{"Somebody edits the store and is found out", (*demo).tamper},
	{"An auditor verifies everything offline, trusting nobody", (*demo).audit},
	{"Five questions, five commands", (*demo).askAll},
}

func (a *app) demo(ctx context.Context, dir string, once bool) (err error) {
	if dir == "" {
		if dir, err = os.MkdirTemp("", "sealstone-demo-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	} else if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	d := &demo{app: a, out: a.out, dir: dir}
	defer func() { err = errors.Join(err, d.stop()) }()
	for i, s := range demoSteps {
		fmt.Fprintf(d.out, "%s\n", colour(d.out, "1", fmt.Sprintf("%d. %s", i+1, s.title)))
		start := time.Now()
		if err := s.play(d, ctx); err != nil {
			return fmt.Errorf("step %d (%s): %w", i+1, s.title, err)
		}
		fmt.Fprintf(d.out, "   %s\n\n", colour(d.out, "2", "took "+span(time.Since(start))))
	}
	if once {
		return nil
	}
	d.invite()
	<-ctx.Done()
	return nil
}

// say prints what happened in a step.
func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, "   "+format+"\n", args...) }

// show prints what a command printed.
func (d *demo) show(out *bytes.Buffer) {
	for line := range strings.Lines(out.String()) {
		d.say("%s", strings.TrimRight(line, "\n"))
	}
}

// invite prints commands to try while the demo stays up.
func (d *demo) invite() {
	fmt.Fprintf(d.out, "It stays up. In another terminal (a sealstone on your PATH: go build -o sealstone ./cmd/sealstone):\n\n")
	for _, line := range []string{
		"export SEALSTONE_SERVER=" + d.url,
		"export SEALSTONE_TRUST=" + d.trustPath(),
		"export SEALSTONE_KEY=" + d.path("sre"),
		"",
		"sealstone live checkout",
		"sealstone changes",
		"sealstone eval express-checkout --target checkout@prod/eu-west-1 -o json",
		"sealstone safe-mode status",
		"sealstone safe-mode exit checkout --scope prod/eu-west-1 --reason \"all clear\"",
		"sealstone verify",
		"curl -s " + d.url + "/at/checkout@prod/ofrep/v1/evaluate/flags/express-checkout -d '{}'",
	} {
		fmt.Fprintf(d.out, "  %s\n", line)
	}
	for _, s := range d.services {
		if s.target.Scope != "staging" {
			fmt.Fprintf(d.out, "  curl -s http://%s/   # %s\n", s.addr, s.target)
		}
	}
	fmt.Fprintf(d.out, "\nThe repository is %s: commit there and watch. Ctrl-C ends the demo.\n", d.path("shop"))
}

// eventually polls a condition that the rest of the system brings about.
func eventually(ctx context.Context, what string, ok func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: did not happen in time: %w", what, context.Cause(ctx))
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}

// discard is where commands that the demo calls print what it doesn't show.
var discard io.Writer = io.Discard

func mustTarget(s string) api.Target {
	t, err := api.ParseTarget(s)
	if err != nil {
		panic(err) // a constant of this file
	}
	return t
}
