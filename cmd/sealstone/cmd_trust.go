package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/durable"
	"github.com/sealstone/sealstone/internal/mirror"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

func newTrust(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trust",
		Short: "Print the trust file, or make its next version",
		Long: "Print the trust file of --trust FILE, or of --server URL, with a summary on stderr.\n" +
			"Compare the root's fingerprint with its owner before you hand the file to clients.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.printTrust(c.Context()) },
	}
	cmd.AddCommand(newTrustUpdate(a), newTrustSign(a), newTrustInstall(a))
	return cmd
}

// trustEdit is what trust update changes.
type trustEdit struct {
	from                              int64
	addRoots, dropRoots               []string
	threshold                         int
	rotateNode, rotateLog, retireLogs bool
	succeed, checkpoint               string
	keys, out                         string
}

// fromMargin is how many entries a log may grow while a version is handed around.
const fromMargin = 64

func newTrustUpdate(a *app) *cobra.Command {
	var o trustEdit
	cmd := &cobra.Command{
		Use:   "update --key ROOT",
		Short: "Make the next version of the trust file and sign it as a root",
		Long: "Make the next version of the trust file (--trust, or the server's) and sign it as a\n" +
			"root. Where more signatures are needed, each further root runs trust sign on the\n" +
			"file; trust install then gives it to the server, and clients follow by themselves.\n\n" +
			"From log index --from on only the new version's keys count. New private keys go\n" +
			"to --keys, which the server reads; leave the old ones there until then.\n\n" +
			"With --succeed the version is that of a new log, for one whose disk is lost:\n" +
			"--checkpoint is the old one's last known checkpoint, from an anchor or a mirror.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return a.trustUpdate(c.Context(), o) },
	}
	f := cmd.Flags()
	f.Int64Var(&o.from, "from", 0, "log index from which older keys count no more (default: the log's proven size + 64)")
	f.StringSliceVar(&o.addRoots, "add-root", nil, "public key file of a new root; repeat for more")
	f.StringSliceVar(&o.dropRoots, "drop-root", nil, "fingerprint or public key file of a root to drop; repeat for more")
	f.IntVar(&o.threshold, "threshold", 0, "how many roots must sign (default: as before)")
	f.BoolVar(&o.rotateNode, "rotate-node", false, "make a new node key; the old one ends at --from")
	f.BoolVar(&o.rotateLog, "rotate-log", false, "make a new log key; checkpoints bear both signatures")
	f.BoolVar(&o.retireLogs, "retire-log", false, "drop every log key but the newest")
	f.StringVar(&o.succeed, "succeed", "", "origin of a new log that goes on from this one")
	f.StringVar(&o.checkpoint, "checkpoint", "", "with --succeed: file with the old log's last known checkpoint")
	f.StringVar(&o.keys, "keys", "", "directory for new private keys: the server's, such as DATA.keys")
	f.StringVar(&o.out, "out", "", "file to write (default trust-VERSION.json)")
	return cmd
}

func (a *app) trustUpdate(ctx context.Context, o trustEdit) error {
	old, err := a.signingTrust(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(o.freshOut(old.Version+1), a.chooseFrom(ctx, old, &o)); err != nil {
		return err
	}
	if o.succeed == "" && o.from < old.From {
		return &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("version %d counts from entry %d, version %d from %d: from never goes back", old.Version+1, o.from, old.Version, old.From),
			Hint: fmt.Sprintf("make it with --from %d; after a theft fill the log up to there: docs/operations.md, After a theft", old.From)}
	}
	st := old.Successor(o.from)
	if err := errors.Join(o.editRoots(&st), o.editKeys(old, &st)); err != nil {
		return err
	}
	key, err := a.signer()
	if err != nil {
		return err
	}
	raw, err := ledger.SignTrust(st, key)
	if err != nil {
		return err
	}
	if err := a.keepProposal(old, raw, key, o.out); err != nil || o.succeed == "" {
		return err
	}
	a.tellEnding(ctx, old, o.checkpoint)
	return nil
}

// freshOut names the file to write, and overwrites none: it may be a version
// that is handed around, or installed.
func (o *trustEdit) freshOut(version int) error {
	if o.out == "" {
		o.out = fmt.Sprintf("trust-%d.json", version)
	}
	if _, err := os.Stat(o.out); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is there already, and two versions %d would be two histories: add a signature with sealstone trust sign, or move the file away", o.out, version)
	}
	return nil
}

// chooseFrom asks the server, where there is one, whether old is the newest
// version, and for an index that the log reaches after the next one is installed.
func (a *app) chooseFrom(ctx context.Context, old *ledger.Trust, o *trustEdit) error {
	known := o.from > 0 || o.succeed != ""
	c, err := a.client()
	if err != nil {
		if known {
			return nil
		}
		return fmt.Errorf("from which entry on? pass --from, or --server to ask for the log's size: %w", err)
	}
	var st api.Status
	if err := c.get(ctx, "/v1/status", nil, &st); err != nil {
		if known { // it may be stopped, or gone
			fmt.Fprintf(a.err, "note: the server does not say whether version %d is its newest: %v\n", old.Version, err)
			return nil
		}
		return err
	}
	if st.Origin == old.Origin && st.Trust > old.Version {
		return &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("the trust file is version %d, and the server has version %d: a second version %d would be another history", old.Version, st.Trust, old.Version+1),
			Hint: "go on from the newest: sealstone trust --trust '' >FILE, then --trust FILE"}
	}
	if o.succeed != "" {
		return nil
	}
	return a.fromProven(ctx, c, old, o)
}

// fromProven goes by the size that the log has signed, and by nothing that a
// server merely says: what a root signs can't be taken back, and until that
// entry the old keys count.
func (a *app) fromProven(ctx context.Context, c *client, old *ledger.Trust, o *trustEdit) error {
	log, err := mirror.Open(ctx, c.log, old)
	switch {
	case err == nil && o.from == 0:
		o.from = max(log.Size+fromMargin, old.From)
		return nil
	case err == nil:
		return notTooFar(o.from, log.Size)
	case o.from == 0:
		return fmt.Errorf("from which entry on? The server does not prove the log's size, so pass --from: %w", err)
	}
	fmt.Fprintf(a.err, "note: the server does not prove the log's size, so nothing shows how long older keys count with --from %d: %v\n", o.from, err)
	return nil
}

// maxFrom is how far beyond its end a log may be when only new keys count.
const maxFrom = 1 << 20

// notTooFar refuses a version under which the old keys, perhaps stolen, would
// count for ever.
func notTooFar(from, size int64) error {
	if from-size <= maxFrom {
		return nil
	}
	return fmt.Errorf("the version would count alone from entry %d on, and the log has %d entries: until it is that long, older keys count as well; make it with --from %d or so", from, size, size+fromMargin)
}

func (o *trustEdit) editRoots(st *ledger.TrustStatement) error {
	for _, path := range o.addRoots {
		k, err := readPublic(path)
		if err != nil {
			return err
		}
		st.Roots = append(st.Roots, k.String())
	}
	for _, drop := range o.dropRoots {
		if k, err := readPublic(drop); err == nil {
			drop = k.ID()
		}
		n := len(st.Roots)
		st.Roots = slices.DeleteFunc(st.Roots, func(line string) bool {
			k, err := ledger.ParseSSHKey(line)
			return err == nil && k.ID() == drop
		})
		if len(st.Roots) == n {
			return fmt.Errorf("--drop-root %s: no such root; sealstone trust shows them", drop)
		}
	}
	if o.threshold != 0 {
		st.Threshold = o.threshold
	}
	return nil
}

func (o *trustEdit) editKeys(old *ledger.Trust, st *ledger.TrustStatement) error {
	if o.keys == "" && (o.rotateNode || o.rotateLog || o.succeed != "") {
		return errors.New("where do new private keys go? pass --keys DIR, the directory that serve reads them from")
	}
	if o.succeed != "" {
		return o.editSuccession(old, st)
	}
	if o.rotateNode {
		vkey, err := noteKeyAt(o.keys, fmt.Sprintf("node-%d.key", st.Version), ledger.NodeName(st.Origin))
		if err != nil {
			return err
		}
		st.RotateNode(vkey)
	}
	if o.rotateLog {
		vkey, err := noteKeyAt(o.keys, fmt.Sprintf("log-%d.key", st.Version), st.Origin)
		if err != nil {
			return err
		}
		st.Log = append(st.Log, vkey)
	}
	if o.retireLogs {
		st.Log = st.Log[len(st.Log)-1:]
	}
	return nil
}

func (o *trustEdit) editSuccession(old *ledger.Trust, st *ledger.TrustStatement) error {
	if err := ledger.CheckOrigin(o.succeed); err != nil {
		return err
	}
	last, err := store.ReadAnchor(o.checkpoint, old)
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("--checkpoint: %w: the old log's last known checkpoint says what is lost and what is not", err)
	}
	if err != nil {
		return fmt.Errorf("--checkpoint %s: %w", o.checkpoint, err)
	}
	logKey, err1 := noteKeyAt(o.keys, logKeyFile, o.succeed)
	nodeKey, err2 := noteKeyAt(o.keys, nodeKeyFile, ledger.NodeName(o.succeed))
	st.Succeed(o.succeed, logKey, nodeKey, last)
	return errors.Join(err1, err2)
}

// noteKeyAt makes a private key, or takes the one that an interrupted run made.
func noteKeyAt(dir, file, name string) (vkey string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	path := filepath.Join(dir, file)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return makeNoteKey(path, name)
	}
	s, err := readNoteKey(path)
	if err != nil {
		return "", err
	}
	if s.Name() != name {
		return "", fmt.Errorf("key %s is there already, and is of %s", path, s.Name())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	return ledger.VKeyOf(string(b))
}

// proposed is what update and sign print.
type proposed struct {
	File            string `json:"file"`
	Version         int    `json:"version"`
	From            int64  `json:"from"`
	Signatures      int    `json:"signatures"`
	OwnMissing      int    `json:"ownMissing"`
	PreviousMissing int    `json:"previousMissing"`
}

// keepProposal writes a next version, if key had any business to sign it.
func (a *app) keepProposal(old *ledger.Trust, raw []byte, key ledger.Signer, path string) error {
	p, err := old.Propose(raw)
	if err != nil {
		return err
	}
	if !old.IsRoot(key.KeyID()) && !p.IsRoot(key.KeyID()) {
		return fmt.Errorf("key %s is a root neither of version %d nor of version %d: its signature counts for nothing", key.KeyID(), old.Version, p.Version)
	}
	if err := durable.WriteFile(path, append(raw, '\n'), 0o600); err != nil {
		return err
	}
	answer := proposed{path, p.Version, p.From, len(p.Envelope.Signatures), p.OwnMissing, p.PreviousMissing}
	return a.print(answer, func(w io.Writer) {
		fmt.Fprintf(w, "signed version %d of the trust file, which counts alone from entry %d on: %s\n", p.Version, p.From, path)
		switch {
		case p.OwnMissing+p.PreviousMissing > 0:
			fmt.Fprintf(w, "missing signatures: %d by its own roots, %d by the previous ones\nnext, by another root: sealstone trust sign %s --key ROOT\n", p.OwnMissing, p.PreviousMissing, path)
		case p.Succeeds != nil:
			fmt.Fprintf(w, "next: sealstone ledger init --data NEW --keys KEYS --succession %s\n", path)
		default:
			fmt.Fprintf(w, "next: sealstone trust install %s --data DIR\n", path)
		}
	})
}

func newTrustSign(a *app) *cobra.Command {
	return &cobra.Command{Use: "sign FILE --key ROOT", Short: "Add a root's signature to what trust update made", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			old, err := a.signingTrust(c.Context())
			if err != nil {
				return err
			}
			p, err := a.readProposal(old, args[0])
			if err != nil {
				return err
			}
			key, err := a.signer()
			if err != nil {
				return err
			}
			if slices.ContainsFunc(p.Envelope.Signatures, func(s ledger.Signature) bool { return s.KeyID == key.KeyID() }) {
				return fmt.Errorf("%s: this key signed version %d already", args[0], p.Version)
			}
			if err := p.Envelope.AddSignature(key); err != nil {
				return err
			}
			raw, err := p.Envelope.Encode()
			if err != nil {
				return err
			}
			return a.keepProposal(old, raw, key, args[0])
		}}
}

func (a *app) readProposal(old *ledger.Trust, path string) (*ledger.Proposal, error) {
	b, err := a.readFile(path)
	if err != nil {
		return nil, err
	}
	return old.Propose(bytes.TrimSuffix(b, []byte("\n")))
}

func newTrustInstall(a *app) *cobra.Command {
	var data, anchor string
	cmd := &cobra.Command{Use: "install FILE --data DIR", Short: "Give a signed next version to a server", Args: cobra.ExactArgs(1),
		Long: "Put a version that trust update made, and enough roots signed, into DIR/trust.json.\n" +
			"A running server takes it within its --poll, if its ledger takes changes, a stopped\n" +
			"one when it starts. With --server the server is asked whether it can; exit 2 says\n" +
			"that it can't now.",
		RunE: func(c *cobra.Command, args []string) error { return a.trustInstall(c.Context(), args[0], data, anchor) }}
	cmd.Flags().StringVar(&data, "data", "", "the server's data directory (required)")
	cmd.Flags().StringVar(&anchor, "anchor", "", "the server's anchor file (default DATA/anchor)")
	_ = cmd.MarkFlagRequired("data")
	return cmd
}

func (a *app) trustInstall(ctx context.Context, path, data, anchor string) error {
	old, err := dataTrust(data)
	if err != nil {
		return err
	}
	b, err := a.readFile(path)
	if err != nil {
		return err
	}
	if bytes.Equal(bytes.TrimSuffix(b, []byte("\n")), old.Raw) {
		return a.printInstalled(ctx, old, filepath.Join(data, trustFile)) // an earlier run did it
	}
	t, err := old.Next(b)
	if err != nil {
		return err
	}
	if t.Succeeds != nil {
		return fmt.Errorf("%s is of a new log: make that with sealstone ledger init --succession %s", path, path)
	}
	if anchor == "" {
		anchor = filepath.Join(data, "anchor")
	}
	if tree, err := store.ReadAnchor(anchor, old); err == nil {
		if tree.Size > t.From {
			return fmt.Errorf("version %d counts alone from entry %d on, but the log has %d entries by older keys: make it again with a higher --from", t.Version, t.From, tree.Size)
		}
		if err := notTooFar(t.From, tree.Size); err != nil {
			return err
		}
	}
	if err := durable.WriteFile(filepath.Join(data, trustFile), t.File(), 0o644); err != nil {
		return err
	}
	return a.printInstalled(ctx, t, filepath.Join(data, trustFile))
}

// installed is what install prints. InUse and Hindrance are the server's words,
// where one answers.
type installed struct {
	Version   int    `json:"version"`
	File      string `json:"file"`
	InUse     int    `json:"inUse,omitempty"`
	Hindrance string `json:"hindrance,omitempty"`
}

func (a *app) printInstalled(ctx context.Context, t *ledger.Trust, path string) error {
	answer := installed{Version: t.Version, File: path}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var st api.Status
	if err := a.get(ctx, "/v1/status", nil, &st); err == nil && st.Origin == t.Origin {
		answer.InUse = st.Trust
		if st.Writes != "ok" && st.Trust < t.Version {
			answer.Hindrance = st.Writes
		}
	}
	err := a.print(answer, func(w io.Writer) {
		fmt.Fprintf(w, "version %d lies in %s\n", t.Version, path)
		if answer.Hindrance != "" {
			fmt.Fprintf(w, "NOT IN USE: the server stays at version %d while its ledger takes no changes: %s\n", st.Trust, printable(answer.Hindrance))
		}
		fmt.Fprintf(w, "next: sealstone status, until its trust file is version %d; give it to new clients then, not before\n", t.Version)
	})
	if err == nil && answer.Hindrance != "" {
		return exitCode(exitFinding)
	}
	return err
}

func (a *app) printTrust(ctx context.Context) error {
	t, err := a.loadTrust()
	if err == nil && t == nil {
		t, err = a.fetchTrust(ctx)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(a.err, "origin     %s\nversion    %d\nthreshold  %d of %d roots\n", t.Origin, t.Version, t.Threshold, len(t.Roots))
	for _, line := range t.Roots {
		if k, err := ledger.ParseSSHKey(line); err == nil {
			fmt.Fprintf(a.err, "root       %s\n", k.ID())
		}
	}
	for _, vkey := range t.Log {
		fmt.Fprintf(a.err, "log key    %s\n", vkey)
	}
	if terminal(a.out) {
		fmt.Fprintln(a.err, "next: sealstone trust >trust.json writes the file itself")
		return nil
	}
	_, err = fmt.Fprint(a.out, string(t.File()))
	return err
}

// initSuccession makes the log that a signed next version names.
func (a *app) initSuccession(ctx context.Context, data, keys, path string) (*created, error) {
	old, err := a.ownTrust("which log does it succeed? pass its trust file with --trust")
	if err != nil {
		return nil, err
	}
	b, err := a.readFile(path)
	if err != nil {
		return nil, err
	}
	t, err := old.Next(b)
	if err != nil {
		return nil, err
	}
	if t.Succeeds == nil {
		return nil, fmt.Errorf("%s succeeds no log: give it to the server with sealstone trust install", path)
	}
	l, err := finishLedger(data, keys, t, "")
	if err == nil {
		a.tellEnding(ctx, old, "")
	}
	return l, err
}

// keyFiles lists the files of a directory that may hold a private key: log.key,
// and log-3.key, which trust update made for version 3.
func keyFiles(dir, name string) ([]string, error) {
	main := filepath.Join(dir, name)
	more, err := filepath.Glob(filepath.Join(dir, strings.TrimSuffix(name, ".key")+"-*.key"))
	if _, missing := os.Stat(main); missing != nil && len(more) > 0 {
		return more, err // the first one was thrown away after its time
	}
	return append([]string{main}, more...), err
}
