package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/internal/mirror"
	"github.com/sealstone/sealstone/ledger"
)

func newMirror(a *app) *cobra.Command {
	var once, details bool
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "mirror URL DIR --trust FILE",
		Short: "Keep a verified copy of a server's log",
		Long: "Follow a server's log and keep a copy in DIR. Everything is verified before it is\n" +
			"written: the checkpoint by the trust file, tiles and entries by the checkpoint, and\n" +
			"that the log goes on from what it signed before. DIR/log is what any web server can\n" +
			"show as /log/; sealstone verify --mirror checks it, and sealstone ledger recover\n" +
			"starts a server from it, for which --details is wanted as well.\n\n" +
			"A log that forked or was rolled back ends the command with exit 3; both checkpoints\n" +
			"lie in DIR/evidence. What is no checkpoint at all, such as a proxy's page, is said\n" +
			"once and asked for again; what is wrongly signed or damaged ends it at the third time.",
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if interval < 100*time.Millisecond {
				return fmt.Errorf("--interval %s: at least 100ms", interval)
			}
			m, err := a.openMirror(args[0], args[1], details)
			if err != nil {
				return err
			}
			if once {
				return a.mirrorOnce(c.Context(), m)
			}
			return a.follow(c.Context(), m, interval)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&once, "once", false, "copy what there is, and end")
	f.DurationVar(&interval, "interval", 10*time.Second, "time between looks at the checkpoint")
	f.BoolVar(&details, "details", false, "keep details as well, in DIR/details: names, reasons, links; erased ones go from the copy too")
	return cmd
}

func (a *app) openMirror(url, dir string, details bool) (*mirror.Mirror, error) {
	trust, err := a.ownTrust("which trust file? pass --trust FILE or set SEALSTONE_TRUST: a mirror that believes its server is of no use")
	if err != nil {
		return nil, err
	}
	c, err := a.clientFor(url)
	if err != nil {
		return nil, err
	}
	return &mirror.Mirror{Dir: dir, Source: c.log, Shown: c.trust, Trust: trust, Details: details}, nil
}

// mirrored is what mirror prints when the copy grew.
type mirrored struct {
	Origin string `json:"origin"`
	Size   int64  `json:"size"`
	Root   string `json:"root"`
	Dir    string `json:"dir"`
}

// sync copies what is new, and shows how far it is.
func (a *app) sync(ctx context.Context, m *mirror.Mirror) (ledger.Tree, bool, error) {
	count, stop := a.counting("mirroring", "entries")
	defer stop()
	m.Progress = count
	return m.Sync(ctx)
}

func (a *app) mirrorOnce(ctx context.Context, m *mirror.Mirror) error {
	tree, _, err := a.sync(ctx, m)
	if err != nil {
		return err
	}
	return a.printMirrored(m, tree)
}

func (a *app) printMirrored(m *mirror.Mirror, tree ledger.Tree) error {
	return a.print(mirrored{m.Trust.Origin, tree.Size, ledger.EncodeRoot(tree), m.Dir}, func(w io.Writer) {
		fmt.Fprintf(w, "mirrored %s: %d entries, root %s\n", m.Trust.Origin, tree.Size, ledger.EncodeRoot(tree))
	})
}

// maxWrong is how often in a row a follower is shown what is not signed, or not
// what was signed, until it takes that for more than a passing fault.
const maxWrong = 3

// follow looks again and again. A server that doesn't answer is said once, and
// asked again; one that contradicts itself ends it, and so does ctx.
func (a *app) follow(ctx context.Context, m *mirror.Mirror, interval time.Duration) error {
	silent, wrong := false, 0
	for first := true; ; first = false {
		tree, changed, err := a.sync(ctx, m)
		_, diverged := errors.AsType[*mirror.Divergence](err)
		if wrong++; codeOf(err) != exitProof {
			wrong = 0
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case diverged, wrong == maxWrong, errors.Is(err, mirror.ErrSucceeded):
			return err
		case err != nil && !silent:
			printError(a.err, err)
		case err == nil && (first || changed):
			if err := a.printMirrored(m, tree); err != nil {
				return err
			}
		}
		silent = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(interval):
		}
	}
}
