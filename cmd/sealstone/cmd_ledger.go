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
	"golang.org/x/mod/sumdb/note"

	"github.com/sealstone/sealstone/internal/durable"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

func newLedger(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "ledger", Short: "Create a ledger, or recover one"}
	var data, keys, origin, root, succession string
	initCmd := &cobra.Command{
		Use:   "init --data DIR --origin NAME --root KEY.pub",
		Short: "Create an empty ledger, its keys, and version 1 of the trust file",
		Long: "Create an empty ledger, its log and node keys, and version 1 of the trust file,\n" +
			"signed with the root key: the private key beside KEY.pub, or ssh-agent.\n\n" +
			"Keys go to DIR.keys (or --keys), never into the data directory. Give the trust\n" +
			"file to every client by a way you trust: it is all they need to verify the rest.\n\n" +
			"With --succession instead of --origin and --root it makes the log that goes on from\n" +
			"a lost one: FILE is what trust update --succeed made and the roots signed, --trust\n" +
			"the lost log's trust file, --keys the directory with the new keys.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.ledgerInit(c.Context(), data, keys, origin, root, succession)
		},
	}
	initCmd.Flags().StringVar(&data, "data", "", "data directory to create (required)")
	initCmd.Flags().StringVar(&keys, "keys", "", "directory for private keys (default DATA.keys)")
	initCmd.Flags().StringVar(&origin, "origin", "", "name of the log, a URL prefix without scheme such as config.example.com/sealstone")
	initCmd.Flags().StringVar(&root, "root", "", "root key, an Ed25519 SSH public key")
	initCmd.Flags().StringVar(&succession, "succession", "", "signed next version of a lost log's trust file")
	_ = initCmd.MarkFlagRequired("data")
	initCmd.MarkFlagsRequiredTogether("origin", "root")
	initCmd.MarkFlagsOneRequired("origin", "succession")
	initCmd.MarkFlagsMutuallyExclusive("origin", "succession")
	cmd.AddCommand(initCmd, newRecover(a))
	return cmd
}

func (a *app) ledgerInit(ctx context.Context, data, keys, origin, root, succession string) (err error) {
	var l *created
	if keys = keysDir(keys, data); succession != "" {
		l, err = a.initSuccession(ctx, data, keys, succession)
	} else {
		l, err = createLedger(data, keys, origin, root)
	}
	if err != nil {
		return err
	}
	return a.print(l, func(w io.Writer) {
		fmt.Fprintf(w, "created ledger %s\n", l.Origin)
		rows := [][]string{{"data", l.Data}, {"keys", l.Keys + "  (back them up; they are not in the data)"}, {"trust file", l.Trust}}
		if l.Root != "" { // a succession has those of the log before
			rows = append(rows, []string{"root key", l.Root})
		}
		table(w, "", rows)
		fmt.Fprintf(w, "next: sealstone serve --repo URL --data %s\n", l.Data)
	})
}

// created is what ledger init prints.
type created struct {
	Origin string `json:"origin"`
	Data   string `json:"data"`
	Keys   string `json:"keys"`
	Trust  string `json:"trust"`
	Root   string `json:"root,omitempty"`
}

// createLedger makes keys, trust file and the first entry, in an order in which
// an interrupted run can be started again.
func createLedger(data, keys, origin, root string) (*created, error) {
	if err := errors.Join(ledger.CheckOrigin(origin), checkKeysDir(data, keys)); err != nil {
		return nil, err
	}
	pub, err := readPublic(root)
	if err != nil {
		return nil, err
	}
	signer, err := openSigner(root)
	if err != nil {
		return nil, fmt.Errorf("the root key must sign the trust file: %w (put the private key beside %s, or add it to ssh-agent)", err, root)
	}
	if signer.KeyID() != pub.ID() {
		return nil, fmt.Errorf("the private key beside %s is another key", root)
	}
	if _, err := os.Stat(filepath.Join(data, trustFile)); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: a ledger is there already; a new one needs an empty directory", data)
	}
	for _, dir := range []string{data, keys} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	trust, err := makeTrust(keys, origin, pub, signer)
	if err != nil {
		return nil, err
	}
	return finishLedger(data, keys, trust, pub.ID())
}

func finishLedger(data, keys string, trust *ledger.Trust, root string) (*created, error) {
	cfg, err := storeConfig(data, keys, trust)
	if err != nil {
		return nil, err
	}
	if err := store.Init(cfg); err != nil {
		return nil, err
	}
	path := filepath.Join(data, trustFile)
	return &created{trust.Origin, data, keys, path, root}, durable.WriteFile(path, trust.File(), 0o644)
}

func makeTrust(keys, origin string, root ledger.SSHKey, signer ledger.Signer) (*ledger.Trust, error) {
	logKey, err := makeNoteKey(filepath.Join(keys, logKeyFile), origin)
	if err != nil {
		return nil, fmt.Errorf("log key: %w", err)
	}
	nodeKey, err := makeNoteKey(filepath.Join(keys, nodeKeyFile), ledger.NodeName(origin))
	if err != nil {
		return nil, fmt.Errorf("node key: %w", err)
	}
	raw, err := ledger.SignTrust(ledger.TrustStatement{
		Log: []string{logKey}, Node: []ledger.NodeKey{{VKey: nodeKey}}, Origin: origin,
		Roots: []string{root.String()}, Threshold: 1, Version: 1,
	}, signer)
	if err != nil {
		return nil, err
	}
	return ledger.ParseTrust(raw)
}

func checkKeysDir(data, keys string) error {
	if inside, err := filepath.Rel(data, keys); err == nil && filepath.IsLocal(inside) {
		return fmt.Errorf("keys in %s: private keys don't belong into the data directory, whose copies go to others", keys)
	}
	return nil
}

// storeConfig opens the private keys of a ledger. Which of them sign, the trust
// file says.
func storeConfig(data, keys string, trust *ledger.Trust) (store.Config, error) {
	cfg := store.Config{Dir: data, Trust: trust}
	if err := checkKeysDir(data, keys); err != nil {
		return cfg, err
	}
	for file, first := range map[string]*note.Signer{logKeyFile: &cfg.Log, nodeKeyFile: &cfg.Node} {
		paths, err := keyFiles(keys, file)
		if err != nil {
			return cfg, err
		}
		for i, path := range paths {
			key, err := readNoteKey(path)
			if err != nil {
				return cfg, err
			}
			if i == 0 {
				*first = key
			}
			cfg.More = append(cfg.More, key)
		}
	}
	return cfg, nil
}

// dataTrust reads the trust file of a data directory.
func dataTrust(data string) (*ledger.Trust, error) {
	b, err := os.ReadFile(filepath.Join(data, trustFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s holds no ledger: create one with sealstone ledger init --data %s --origin NAME --root KEY.pub", data, strings.TrimSuffix(data, "/"))
	}
	if err != nil {
		return nil, err
	}
	return ledger.ParseTrust(b)
}
