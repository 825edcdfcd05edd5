package ledger

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

const sshEd25519 = "ssh-ed25519"

// SSHKey is a person's or a root's Ed25519 public key, as ssh-keygen writes it.
type SSHKey struct {
	Public ed25519.PublicKey
	blob   []byte // SSH wire form, what the fingerprint covers
}

// ErrKey is wrapped by every refusal of a key.
var ErrKey = errors.New("not an Ed25519 key")

// ParseSSHKey reads "ssh-ed25519 AAAA... [comment]".
func ParseSSHKey(line string) (SSHKey, error) {
	fields := strings.Fields(line)
	if len(fields) < 2 || fields[0] != sshEd25519 {
		return SSHKey{}, fmt.Errorf("%w: write it as \"ssh-ed25519 AAAA...\"; make one with ssh-keygen -t ed25519", ErrKey)
	}
	blob, err := decodeBase64(fields[1])
	if err != nil {
		return SSHKey{}, fmt.Errorf("%w: bad base64", ErrKey)
	}
	kind, rest, ok1 := sshString(blob)
	pub, rest, ok2 := sshString(rest)
	if !ok1 || !ok2 || string(kind) != sshEd25519 || len(pub) != ed25519.PublicKeySize || len(rest) != 0 {
		return SSHKey{}, fmt.Errorf("%w: damaged key", ErrKey)
	}
	return SSHKey{ed25519.PublicKey(pub), blob}, nil
}

// NewSSHKey wraps a public key.
func NewSSHKey(pub ed25519.PublicKey) SSHKey {
	blob := binary.BigEndian.AppendUint32(nil, uint32(len(sshEd25519)))
	blob = append(blob, sshEd25519...)
	blob = binary.BigEndian.AppendUint32(blob, uint32(len(pub)))
	return SSHKey{pub, append(blob, pub...)}
}

func sshString(b []byte) (s, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n) > uint64(len(b)-4) {
		return nil, nil, false
	}
	return b[4 : 4+n], b[4+n:], true
}

// String is the key without a comment.
func (k SSHKey) String() string {
	return sshEd25519 + " " + base64.StdEncoding.EncodeToString(k.blob)
}

// ID is the fingerprint that ssh-keygen -l prints: "SHA256:" and 43 digits.
func (k SSHKey) ID() string {
	sum := sha256.Sum256(k.blob)
	return "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
}

// Equal compares two keys.
func (k SSHKey) Equal(o SSHKey) bool { return bytes.Equal(k.blob, o.blob) }

// Signer signs a message with an Ed25519 key that it may hold, or reach through
// an agent. KeyID is only a hint for people and look-ups.
type Signer interface {
	KeyID() string
	Sign(msg []byte) ([]byte, error)
}

// KeySigner signs with a private key in memory.
type KeySigner struct {
	ID      string
	Private ed25519.PrivateKey
}

// KeyID returns the id given, or the SSH fingerprint.
func (s KeySigner) KeyID() string {
	if s.ID != "" {
		return s.ID
	}
	return NewSSHKey(s.Private.Public().(ed25519.PublicKey)).ID()
}

// Sign returns the raw Ed25519 signature.
func (s KeySigner) Sign(msg []byte) ([]byte, error) { return ed25519.Sign(s.Private, msg), nil }

// NodeSigner is a node or log key in the note format: one key type for leaves,
// heads and checkpoints.
type NodeSigner struct{ note.Signer }

// KeyID is the note spelling, name+hash.
func (s NodeSigner) KeyID() string { return noteID(s.Name(), s.KeyHash()) }

func noteID(name string, hash uint32) string { return fmt.Sprintf("%s+%08x", name, hash) }

// NewNoteKey makes a key pair for a name from a 32-byte seed: the private key
// and the vkey that trust files hold.
func NewNoteKey(name string, seed []byte) (skey, vkey string, err error) {
	if len(seed) != ed25519.SeedSize {
		return "", "", errors.New("note key: the seed must be 32 bytes")
	}
	pub := ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey)
	pubBytes := append([]byte{algEd25519}, pub...)
	id := noteID(name, noteHash(name, pubBytes))
	skey = "PRIVATE+KEY+" + id + "+" + base64.StdEncoding.EncodeToString(append([]byte{algEd25519}, seed...))
	vkey = id + "+" + base64.StdEncoding.EncodeToString(pubBytes)
	if _, err = note.NewSigner(skey); err != nil {
		return "", "", fmt.Errorf("note key %q: %w", name, err)
	}
	return skey, vkey, nil
}

const algEd25519 = 1

// noteHash is the key id of a signed note: SHA-256(name ‖ "\n" ‖ key)[:4].
func noteHash(name string, key []byte) uint32 {
	h := sha256.New()
	h.Write([]byte(name + "\n"))
	h.Write(key)
	return binary.BigEndian.Uint32(h.Sum(nil))
}

// VKeyOf is the vkey of a private note key.
func VKeyOf(skey string) (string, error) {
	parts := strings.Split(strings.TrimSpace(skey), "+")
	if len(parts) < 5 || parts[0] != "PRIVATE" || parts[1] != "KEY" {
		return "", errors.New("not a note private key: it starts with PRIVATE+KEY+")
	}
	seed, err := decodeBase64(strings.Join(parts[4:], "+"))
	if err != nil || len(seed) != 1+ed25519.SeedSize || seed[0] != algEd25519 {
		return "", errors.New("not an Ed25519 note private key")
	}
	_, vkey, err := NewNoteKey(parts[2], seed[1:])
	if err == nil && !strings.Contains(vkey, "+"+parts[3]+"+") {
		_, hexErr := hex.DecodeString(parts[3])
		return "", fmt.Errorf("note private key: its key id does not fit: %w", errors.Join(ErrKey, hexErr))
	}
	return vkey, err
}

// CheckOrigin holds the rule for log origins: a schema-less URL prefix, which
// is also the log's key name.
func CheckOrigin(s string) error {
	bad := s == "" || len(s) > 200 || strings.ContainsAny(s, " +\t\r\n\"\\") || strings.Contains(s, "://") ||
		strings.HasPrefix(s, "/") || strings.HasSuffix(s, "/")
	for _, r := range s {
		bad = bad || r <= ' ' || r > '~'
	}
	if bad {
		return fmt.Errorf("origin %.64q: write a URL prefix without a scheme, spaces or '+', for example config.example.com/sealstone", s)
	}
	return nil
}
