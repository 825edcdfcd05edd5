package bundler

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/crypto/ssh"

	"github.com/sealstone/sealstone/api"
)

// A Signer is who signed a commit: an operator's id, and the fingerprint of the
// key as ssh-keygen -l prints it.
type Signer struct{ Operator, Key string }

// Signers says whose each key is: "ssh-ed25519 AAAA..." without comment, to an
// operator's id.
type Signers map[string]string

// ErrUnsigned is wrapped by every reason not to take a commit as signed.
var ErrUnsigned = errors.New("not signed by an operator")

func unsigned(format string, args ...any) error {
	return &unsignedError{fmt.Sprintf(format, args...)}
}

type unsignedError struct{ why string }

func (e *unsignedError) Error() string { return e.why }
func (e *unsignedError) Unwrap() error { return ErrUnsigned }

// Signer finds out which of keys signed a commit. Only Git's SSH signatures by
// Ed25519 keys count.
func (r *Repo) Signer(id string, keys Signers) (Signer, error) {
	if !api.IsCommit(id) {
		return Signer{}, fmt.Errorf("%q: %w", id, ErrNoCommit)
	}
	raw, err := r.object(plumbing.CommitObject, plumbing.NewHash(id), maxCommit)
	if err != nil {
		return Signer{}, err
	}
	payload, sig, err := splitSignature(raw)
	if err != nil {
		return Signer{}, err
	}
	key, err := verifySSHSig(payload, sig)
	if err != nil {
		return Signer{}, err
	}
	operator, ok := keys[strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))]
	if !ok {
		return Signer{}, unsigned("is signed with key %s, which no operator has", ssh.FingerprintSHA256(key))
	}
	return Signer{operator, ssh.FingerprintSHA256(key)}, nil
}

// splitSignature takes the signature out of a commit object. What was signed is
// the object without it, byte for byte: git adds the header afterwards. A
// signature over the commit's SHA-256 form is left out as well, as git does. Both
// stand behind the committer: above, git would not see the parents that follow.
func splitSignature(raw []byte) (payload, sig []byte, err error) {
	name, found, committed := "", 0, false
	for len(raw) > 0 && raw[0] != '\n' {
		line := raw[:lineEnd(raw)]
		raw = raw[len(line):]
		value, more := bytes.CutPrefix(line, []byte(" "))
		if !more {
			name, value = cutHeader(line)
			committed = committed || name == "committer"
		}
		if !committed && strings.HasPrefix(name, "gpgsig") {
			return nil, nil, unsigned("has a signature among the headers that say what it holds; git reads parents below it as none")
		}
		switch {
		case name == "gpgsig":
			sig = append(sig, value...)
			if !more {
				found++
			}
		case name != "gpgsig-sha256":
			payload = append(payload, line...)
		}
	}
	switch {
	case found == 0:
		return nil, nil, unsigned("has no signature")
	case found > 1:
		return nil, nil, unsigned("has more than one signature")
	}
	return append(payload, raw...), sig, nil
}

func lineEnd(b []byte) int {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return i + 1
	}
	return len(b)
}

func cutHeader(line []byte) (name string, value []byte) {
	n, value, _ := bytes.Cut(line, []byte(" "))
	return string(n), value
}

// An sshSig is the blob inside an SSH signature, after its magic. The format is
// OpenSSH's PROTOCOL.sshsig.
type sshSig struct {
	Version                   uint32
	Key                       []byte
	Namespace, Reserved, Hash string
	Signature                 []byte
}

const sshSigMagic = "SSHSIG"

// verifySSHSig returns the key that made an armored signature over a message.
func verifySSHSig(message, armored []byte) (ssh.PublicKey, error) {
	block, rest := pem.Decode(armored)
	if block == nil || block.Type != "SSH SIGNATURE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, unsigned("has a signature of another kind than SSH, such as GPG or X.509")
	}
	var s sshSig
	blob, ok := bytes.CutPrefix(block.Bytes, []byte(sshSigMagic))
	if !ok || ssh.Unmarshal(blob, &s) != nil || s.Version != 1 {
		return nil, unsigned("has a damaged signature")
	}
	if s.Namespace != "git" {
		return nil, unsigned("has a signature that was made for %s, not for git", quote(s.Namespace))
	}
	key, err := ssh.ParsePublicKey(s.Key)
	if err != nil || key.Type() != ssh.KeyAlgoED25519 {
		return nil, unsigned("is signed with a key that is not a plain Ed25519 key")
	}
	return key, s.verify(key, message)
}

func (s *sshSig) verify(key ssh.PublicKey, message []byte) error {
	var hash []byte
	switch s.Hash {
	case "sha256":
		sum := sha256.Sum256(message)
		hash = sum[:]
	case "sha512":
		sum := sha512.Sum512(message)
		hash = sum[:]
	default:
		return unsigned("has a signature over a hash %s, not sha256 or sha512", quote(s.Hash))
	}
	signed := append([]byte(sshSigMagic), ssh.Marshal(struct{ Namespace, Reserved, Hash, Sum string }{s.Namespace, s.Reserved, s.Hash, string(hash)})...)
	var sig ssh.Signature
	if ssh.Unmarshal(s.Signature, &sig) != nil || len(sig.Rest) > 0 || key.Verify(signed, &sig) != nil {
		return unsigned("has a signature that does not verify")
	}
	return nil
}

// SignedTip is nil when one of keys signed the tip; the error is Faults, or
// about storage.
func (b *Builder) SignedTip(t *Tip, keys Signers) error {
	at := place{file: "sealstone.yaml"}
	if t.demand != nil {
		at = t.demand.at
	}
	return b.signed(t.Commit, keys, at, "")
}

// SignedReleases is SignedTip of the releases that a tip pins, but for those in
// known: what somebody accepted stays accepted when its signer leaves. The
// faults are of the services.
func (b *Builder) SignedReleases(t *Tip, keys Signers, known func(Activation) bool) error {
	var out Faults
	for _, a := range t.Activations {
		if a.Retired || a.Release == ReleaseLatest || a.Release == t.Commit || known(a) {
			continue
		}
		err := b.signed(a.Release, keys, a.at(), a.Service)
		fs, ok := FaultsOf(err)
		if err != nil && !ok && !missingCommit(err) { // a build says so
			return err
		}
		out = append(out, fs...)
	}
	return asError(out)
}

func missingCommit(err error) bool { return errors.Is(err, plumbing.ErrObjectNotFound) }

func (b *Builder) signed(commit string, keys Signers, at place, service string) error {
	_, err := b.repo.Signer(commit, keys)
	if !errors.Is(err, ErrUnsigned) {
		return err
	}
	f := fault(ruleUnsigned, at, "commit %.12s %s", commit, err)
	if len(keys) == 0 {
		f = f.withFix("There are no operators yet: add operators.yaml and operators.sig, then sign the commit with the key of one")
	}
	return stamp(Faults{f}, service)
}
