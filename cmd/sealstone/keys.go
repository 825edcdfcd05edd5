package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/mod/sumdb/note"

	"github.com/sealstone/sealstone/ledger"
)

// signer opens --key: a private key file, or, for a .pub file or no file at
// all, a key in ssh-agent.
func (a *app) signer() (ledger.Signer, error) {
	if a.key == "" {
		return agentSigner("")
	}
	return openSigner(a.key)
}

// openSigner opens a key by path. For KEY.pub the private key beside it is
// taken, else the agent's; the agent also has those that need a passphrase.
func openSigner(path string) (ledger.Signer, error) {
	private, public := strings.CutSuffix(path, ".pub")
	s, err := fileSigner(private)
	if locked := (*ssh.PassphraseMissingError)(nil); errors.As(err, &locked) {
		return lockedSigner(private)
	}
	if !public && errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no key %s: --key is a private key file, or a .pub file whose key is in ssh-agent", path)
	}
	if !public || !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	line, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return agentSigner(string(line))
}

// lockedSigner asks ssh-agent for a key that has a passphrase.
func lockedSigner(path string) (ledger.Signer, error) {
	line, err := os.ReadFile(path + ".pub")
	if err == nil && os.Getenv("SSH_AUTH_SOCK") != "" {
		s, err := agentSigner(string(line))
		if err != nil {
			err = fmt.Errorf("key %s has a passphrase: %w", path, err)
		}
		return s, err
	}
	return nil, fmt.Errorf("key %s has a passphrase: start ssh-agent, add the key with ssh-add, and pass %s.pub", path, path)
}

func fileSigner(path string) (ledger.Signer, error) {
	b, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	k, err := ssh.ParseRawPrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", path, err)
	}
	switch k := k.(type) {
	case *ed25519.PrivateKey:
		return ledger.KeySigner{Private: *k}, nil
	case ed25519.PrivateKey:
		return ledger.KeySigner{Private: k}, nil
	}
	return nil, fmt.Errorf("key %s: %w: make one with ssh-keygen -t ed25519", path, ledger.ErrKey)
}

// agentKey signs through ssh-agent: for Ed25519 keys an agent returns the plain
// signature over the bytes it was given.
type agentKey struct {
	agent agent.Agent
	key   *agent.Key
	id    string
}

func (k agentKey) KeyID() string { return k.id }

func (k agentKey) Sign(msg []byte) ([]byte, error) {
	sig, err := k.agent.Sign(k.key, msg)
	if err != nil {
		return nil, fmt.Errorf("ssh-agent: %w", err)
	}
	return sig.Blob, nil
}

// agentSigner finds a public key in the agent; an empty line takes the only
// Ed25519 key there is.
func agentSigner(line string) (ledger.Signer, error) {
	sock := os.Getenv("SSH_AUTH_SOCK")
	if sock == "" {
		return nil, errors.New("which key? pass --key FILE or set SEALSTONE_KEY; no ssh-agent is running either")
	}
	conn, err := net.Dial("unix", sock)
	if err != nil {
		return nil, fmt.Errorf("ssh-agent: %w", err)
	}
	a := agent.NewClient(conn)
	keys, err := a.List()
	if err != nil {
		return nil, fmt.Errorf("ssh-agent: %w", err)
	}
	var found []agentKey
	for _, k := range keys {
		pub, err := ledger.ParseSSHKey(k.String())
		if err == nil && (line == "" || sameKey(line, pub)) {
			found = append(found, agentKey{a, k, pub.ID()})
		}
	}
	switch {
	case len(found) == 0:
		return nil, errors.New("ssh-agent does not hold that Ed25519 key: add it with ssh-add")
	case len(found) > 1:
		return nil, errors.New("ssh-agent holds several Ed25519 keys: say which with --key KEY.pub")
	}
	return found[0], nil
}

func sameKey(line string, k ledger.SSHKey) bool {
	want, err := ledger.ParseSSHKey(line)
	return err == nil && want.Equal(k)
}

// readPublic reads a KEY.pub file.
func readPublic(path string) (ledger.SSHKey, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return ledger.SSHKey{}, fmt.Errorf("root key: %w", err)
	}
	return ledger.ParseSSHKey(string(b))
}

// Names of the files that ledger init makes and serve reads, and of its clone.
const (
	gitDir      = "git"
	logKeyFile  = "log.key"
	nodeKeyFile = "node.key"
	trustFile   = "trust.json"
)

// keysDir is where a ledger's private keys are: never inside its data
// directory, so that a copy of the data holds no keys.
func keysDir(flag, data string) string {
	if flag != "" {
		return flag
	}
	return filepath.Clean(data) + ".keys"
}

// makeNoteKey writes a new private note key, 0600, and returns its vkey.
func makeNoteKey(path, name string) (vkey string, err error) {
	seed := make([]byte, ed25519.SeedSize)
	if _, err := rand.Read(seed); err != nil {
		return "", err
	}
	skey, vkey, err := ledger.NewNoteKey(name, seed)
	if err != nil {
		return "", err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", err
	}
	_, err = f.WriteString(skey + "\n")
	return vkey, errors.Join(err, f.Sync(), f.Close())
}

// readPrivate reads a private key, which nobody else may.
func readPrivate(path string) ([]byte, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("key %s can be read by others (mode %04o): chmod 600 it", path, st.Mode().Perm())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return b, nil
}

func readNoteKey(path string) (note.Signer, error) {
	b, err := readPrivate(path)
	if err != nil {
		return nil, err
	}
	s, err := note.NewSigner(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", path, err)
	}
	return s, nil
}
