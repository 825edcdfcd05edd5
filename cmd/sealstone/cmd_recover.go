package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/durable"
	"github.com/sealstone/sealstone/internal/mirror"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
	"github.com/sealstone/sealstone/server"
)

// recoverOptions are the flags of ledger recover.
type recoverOptions struct {
	data, keys, anchor, mirror string
	checkpoints                []string
	withoutDetails, dryRun     bool
}

func newRecover(a *app) *cobra.Command {
	var o recoverOptions
	cmd := &cobra.Command{
		Use:   "recover --data DIR --mirror DIR|URL --trust FILE",
		Short: "Make a lost, rolled-back or edited ledger whole from a mirror",
		Long: "Make the ledger of a data directory anew from a mirror, with the same keys. The\n" +
			"mirror must hold every entry that was published, as the anchor and each --checkpoint\n" +
			"say; all of it is verified from entry 0 first. Details and the server's notes are\n" +
			"taken over from the directory, details that it lacks from the mirror; bundles are\n" +
			"built again from Git when the server starts. The old ledger.db is kept as\n" +
			"ledger.db.replaced. A run that is cut off is begun again.\n\n" +
			"Where no mirror is long enough the log ends: never go on from a shorter one.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.recover(c.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.data, "data", "", "data directory of a server that is not running (required)")
	f.StringVar(&o.mirror, "mirror", "", "directory that sealstone mirror made, or the URL of a server or web server that shows the log (required)")
	f.StringVar(&o.keys, "keys", "", "directory with log.key and node.key (default DATA.keys)")
	f.StringVar(&o.anchor, "anchor", "", "file with the last published checkpoint (default DATA/anchor)")
	f.StringSliceVar(&o.checkpoints, "checkpoint", nil, "file with a checkpoint that somebody saw: a client, another mirror; repeat for more")
	f.BoolVar(&o.withoutDetails, "without-details", false, "go on where neither side has the detail of an entry")
	f.BoolVar(&o.dryRun, "dry-run", false, "verify, say what would be done, and change nothing")
	_ = cmd.MarkFlagRequired("data")
	_ = cmd.MarkFlagRequired("mirror")
	return cmd
}

// recovered is what ledger recover prints.
type recovered struct {
	*store.Recovery
	Origin string `json:"origin"`
	Root   string `json:"root"`
	DryRun bool   `json:"dryRun,omitempty"`
}

func (a *app) recover(ctx context.Context, o recoverOptions) error {
	trust, err := a.ownTrust("which trust file? pass --trust FILE or set SEALSTONE_TRUST; the one in a damaged directory proves nothing")
	if err != nil {
		return err
	}
	l, trust, err := a.openCopy(ctx, o.mirror, trust)
	if err != nil {
		return fmt.Errorf("the mirror: %w", err)
	}
	cfg, err := storeConfig(o.data, keysDir(o.keys, o.data), trust)
	if errors.Is(err, fs.ErrNotExist) {
		err = &api.Error{Code: api.CodeNotFound, Detail: err.Error(), Err: err,
			Hint: "put the keys back; without them this log can't go on, and the roots sign a trust file of a new origin that succeeds it"}
	}
	if err != nil {
		return err
	}
	cfg.Anchor = o.anchor
	opt := store.RecoverOptions{WithoutDetails: o.withoutDetails, DryRun: o.dryRun, Rows: server.RecoverRows}
	if opt.Known, err = openCheckpoints(trust, o.checkpoints); err != nil {
		return err
	}
	count, stop := a.counting("recovering", "entries")
	defer stop()
	from := copyOf(l, count)
	place, err := placeTrust(o.data, trust)
	if err != nil {
		return err
	}
	opt.Ready = place
	r, err := store.Recover(ctx, cfg, from, opt)
	stop()
	if err != nil {
		return err
	}
	return a.printRecovered(recovered{r, trust.Origin, ledger.EncodeRoot(from.Tree), o.dryRun}, o)
}

func (a *app) printRecovered(r recovered, o recoverOptions) error {
	return a.print(r, func(w io.Writer) {
		verb := "recovered"
		if r.DryRun {
			verb = "would recover"
		}
		for _, s := range r.Steps {
			fmt.Fprintln(w, "  "+printable(s))
		}
		fmt.Fprintf(w, "%s %s: %d entries, root %s\n", verb, r.Origin, r.Size, r.Root)
		if n := len(r.Missing); n > 0 {
			fmt.Fprintf(w, "the details of %s are lost, of entry %s; say so in the log with sealstone changes erase INDEX, for each\n", count(n, "change"), someOf(r.Missing))
		}
		if !r.DryRun {
			fmt.Fprintf(w, "next: sealstone serve --repo URL --data %s%s, then sealstone verify\n", o.data, given("keys", o.keys)+given("anchor", o.anchor))
		}
	})
}

// given is a flag that serve must be given as well.
func given(flag, value string) string {
	if value == "" {
		return ""
	}
	return " --" + flag + " " + value
}

// maxShown is how many entries a line names.
const maxShown = 8

func someOf(list []int64) string {
	text := strings.ReplaceAll(strings.Trim(fmt.Sprint(list[:min(len(list), maxShown)]), "[]"), " ", ", ")
	if len(list) > maxShown {
		text += " and more, which -o json lists"
	}
	return text
}

func openCheckpoints(trust *ledger.Trust, files []string) (known []ledger.Tree, err error) {
	for _, path := range files {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("checkpoint: %w", err)
		}
		t, err := trust.Past().OpenCheckpoint(b)
		if err != nil {
			return nil, fmt.Errorf("checkpoint %s: %w", path, err)
		}
		known = append(known, t)
	}
	return known, nil
}

// copyOf is a mirror for a recovery.
func copyOf(l *mirror.Log, count func(done, total int64)) store.Copy {
	return store.Copy{Tree: l.Tree, Checkpoint: l.Checkpoint, RootAt: l.RootAt, Details: l.Details,
		Entries: func(ctx context.Context, n int64) ([][]byte, error) {
			count(min((n+1)*256, l.Size), l.Size)
			return l.Entries(ctx, n)
		},
	}
}

// placeTrust is what gives the directory the trust file, unless it has a newer
// version: serve reads it there.
func placeTrust(data string, trust *ledger.Trust) (place func() error, err error) {
	path := filepath.Join(data, trustFile)
	if have, err := dataTrust(data); err == nil {
		newer, err := have.Follow(trust.File())
		if err != nil {
			return nil, fmt.Errorf("%s is not of this log, move it away: %w", path, err)
		}
		if newer == have {
			return nil, nil
		}
	}
	return func() error { return durable.WriteFile(path, trust.File(), 0o644) }, nil
}
