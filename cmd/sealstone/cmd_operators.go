package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/canon"
	"github.com/sealstone/sealstone/ledger"
)

func newOperators(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "operators", Short: "Say who may do what, signed by the roots"}
	sign := &cobra.Command{
		Use:   "sign [DIR] --key ROOT",
		Short: "Sign operators.yaml of DIR as a root",
		Long: "Sign operators.yaml of DIR and write operators.sig beside it. Commit both. Its\n" +
			"version must be above the signed one. A further root signs the same version again\n" +
			"to add its signature.",
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error { return a.operatorsSign(c.Context(), dirArg(args)) },
	}
	cmd.AddCommand(sign)
	return cmd
}

func (a *app) operatorsSign(ctx context.Context, dir string) error {
	trust, err := a.signingTrust(ctx)
	if err != nil {
		return err
	}
	origin := trust.Origin
	key, err := a.signer()
	if err != nil {
		return err
	}
	if !trust.IsRoot(key.KeyID()) {
		return fmt.Errorf("key %s is not a root of %s: only roots sign operators; sealstone trust shows them", key.KeyID(), origin)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "operators.yaml"))
	if err != nil {
		return err
	}
	st, err := a.operatorsStatement(origin, raw)
	if err != nil {
		return err
	}
	env, err := signOperators(filepath.Join(dir, "operators.sig"), st, key)
	if err != nil {
		return err
	}
	b, err := env.Encode()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "operators.sig"), append(b, '\n'), 0o644); err != nil {
		return err
	}
	return a.print(st, func(w io.Writer) {
		fmt.Fprintf(w, "signed operators version %d (%s, %s) for %s\n", st.Version, count(len(st.Operators), "operator"), count(len(env.Signatures), "signature"), origin)
		if missing := trust.Threshold - len(env.Signatures); missing > 0 {
			fmt.Fprintf(w, "missing root signatures: %d; have the other roots run the same command\n", missing)
			return
		}
		fmt.Fprintln(w, "next: commit operators.yaml and operators.sig, and push")
	})
}

// operatorsStatement turns operators.yaml into what the roots sign: names and
// key comments stay in the file.
func (a *app) operatorsStatement(origin string, raw []byte) (*ledger.OperatorsStatement, error) {
	ops, faults := bundler.ParseOperators(raw)
	if len(faults.Errors()) > 0 {
		return nil, a.faultsError(faults)
	}
	st := &ledger.OperatorsStatement{Log: origin, SHA256: api.DigestOf(raw), Version: ops.Version, Operators: []ledger.Operator{}}
	for _, op := range ops.Operators {
		o := ledger.Operator{ID: op.ID, May: []ledger.Grant{}}
		for _, line := range op.Keys {
			k, err := ledger.ParseSSHKey(line)
			if err != nil {
				return nil, fmt.Errorf("operators.yaml: operator %q: %w", op.ID, err)
			}
			o.Keys = append(o.Keys, k.String())
		}
		for _, m := range op.May {
			g := ledger.Grant{Do: m.Do, Services: m.Services}
			for _, s := range m.Scopes {
				g.Scopes = append(g.Scopes, api.Scope(s))
			}
			o.May = append(o.May, g)
		}
		st.Operators = append(st.Operators, o)
	}
	_, err := ledger.NewOperators(*st)
	return st, err
}

// signOperators makes a new envelope, or adds a signature to one that is over
// the very same statement.
func signOperators(path string, st *ledger.OperatorsStatement, key ledger.Signer) (*ledger.Envelope, error) {
	payload, err := canon.Marshal(st)
	if err != nil {
		return nil, err
	}
	old, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ledger.Seal(ledger.TypeStatement, payload, key)
	}
	if err != nil {
		return nil, err
	}
	env, err := ledger.ParseEnvelope([]byte(strings.TrimSuffix(string(old), "\n")), ledger.TypeStatement)
	if err != nil {
		return nil, fmt.Errorf("%s: %w (delete it to start over)", path, err)
	}
	signed, err := env.Bytes()
	if err != nil {
		return nil, err
	}
	if string(signed) == string(payload) {
		for _, s := range env.Signatures {
			if s.KeyID == key.KeyID() {
				return nil, fmt.Errorf("%s: this key signed version %d already", path, st.Version)
			}
		}
		return env, env.AddSignature(key)
	}
	var before ledger.OperatorsStatement
	if err := canon.Unmarshal(signed, &before); err == nil && before.Log == st.Log && before.Version >= st.Version {
		return nil, fmt.Errorf("operators.yaml has version %d, version %d is signed already: raise version and sign again", st.Version, before.Version)
	}
	return ledger.Seal(ledger.TypeStatement, payload, key)
}

func (a *app) fetchTrust(ctx context.Context) (*ledger.Trust, error) {
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	b, err := c.trust(ctx)
	if err != nil {
		return nil, err
	}
	return ledger.ParseTrust(b)
}

func newToken(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Make a read token for clients.yaml"}
	cmd.AddCommand(&cobra.Command{
		Use: "new", Short: "Print a new token and the line for clients.yaml", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b := make([]byte, 32)
			if _, err := rand.Read(b); err != nil {
				return err
			}
			token := "sst_" + base64.RawURLEncoding.EncodeToString(b)
			answer := map[string]string{"token": token, "sha256": string(api.DigestOf([]byte(token)))}
			return a.print(answer, func(w io.Writer) {
				fmt.Fprintln(w, token)
				fmt.Fprintf(a.err, "in clients.yaml: token: %q\n", answer["sha256"])
			})
		},
	})
	return cmd
}
