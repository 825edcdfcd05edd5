package bundler

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// sshKeyFile makes a key pair with ssh-keygen and returns its file and the
// public key without comment.
func sshKeyFile(t *testing.T, kind string) (file, public string) {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("needs ssh-keygen")
	}
	file = filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "somebody", "-f", file).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v %s", err, out)
	}
	b, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return file, strings.Join(strings.Fields(string(b))[:2], " ")
}

func (r *gitRepo) signWith(file string) {
	r.git("config", "gpg.format", "ssh")
	r.git("config", "user.signingkey", file)
	r.git("config", "commit.gpgsign", "true")
}

func signer(t *testing.T, r *gitRepo, commit string, keys Signers) (Signer, error) {
	t.Helper()
	repo, err := OpenRepo(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close()
	return repo.Signer(commit, keys)
}

func TestGitsOwnSignaturesAreRead(t *testing.T) {
	r := newGitRepo(t)
	file, public := sshKeyFile(t, "ed25519")
	keys := Signers{public: "ada"}
	plain := r.commit("a", "1")
	r.signWith(file)
	first := r.commit("a", "2", "b", "1")
	r.git("config", "i18n.commitEncoding", "ISO-8859-1") // one more header
	second := r.commit("a", "3")
	r.git("checkout", "-q", "-b", "side", first)
	r.commit("c", "1")
	r.git("tag", "-s", "-m", "a signed tag", "v1") // its text becomes a mergetag header of several lines
	r.git("checkout", "-q", "main")
	r.git("merge", "-q", "--no-ff", "-m", "Merge", "v1")
	merge := r.git("rev-parse", "HEAD")
	if raw := r.git("cat-file", "commit", merge); !strings.Contains(raw, "\nmergetag ") || !strings.Contains(raw, "\n -----BEGIN SSH") {
		t.Fatalf("no mergetag:\n%s", raw)
	}
	for name, commit := range map[string]string{"a signature": first, "an encoding": second, "a merge": merge} {
		if by, err := signer(t, r, commit, keys); err != nil || by.Operator != "ada" || !strings.HasPrefix(by.Key, "SHA256:") {
			t.Errorf("%s: %+v, %v", name, by, err)
		}
	}
	_, other := sshKeyFile(t, "ed25519")
	for name, c := range map[string]struct {
		commit, want string
		keys         Signers
	}{
		"none":             {plain, "has no signature", keys},
		"a stranger's key": {first, "which no operator has", Signers{other: "eve"}},
		"nobody's":         {first, "which no operator has", nil},
	} {
		if _, err := signer(t, r, c.commit, c.keys); !errors.Is(err, ErrUnsigned) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOtherKindsOfKeysDontCount(t *testing.T) {
	for _, kind := range []string{"ecdsa", "rsa"} {
		r := newGitRepo(t)
		file, public := sshKeyFile(t, kind)
		r.signWith(file)
		if _, err := signer(t, r, r.commit("a", "1"), Signers{public: "ada"}); !errors.Is(err, ErrUnsigned) || !strings.Contains(err.Error(), "Ed25519") {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// resign stores a commit whose object somebody changed.
func resign(t *testing.T, r *gitRepo, raw string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "commit")
	if err := os.WriteFile(file, []byte(raw), 0o600); err != nil {
		t.Fatal(err)
	}
	return r.git("hash-object", "-t", "commit", "-w", "--literally", file)
}

func TestChangedCommitsAreNotSigned(t *testing.T) {
	r := newGitRepo(t)
	file, public := sshKeyFile(t, "ed25519")
	r.signWith(file)
	commit := r.commit("a", "1")
	raw := r.git("cat-file", "commit", commit) + "\n"
	head, body, _ := strings.Cut(raw, "\n\n")
	sig := head[strings.Index(head, "\ngpgsig ")+1:]
	other := head[strings.Index(head, "-----BEGIN"):]
	for name, c := range map[string]struct{ raw, want string }{
		"the same":                  {raw, ""},
		"another text":              {raw + "and more\n", "does not verify"},
		"another author":            {strings.Replace(raw, "author a ", "author b ", 1), "does not verify"},
		"a further header":          {head + "\nextra x\n\n" + body, "does not verify"},
		"two signatures":            {head + "\n" + sig + "\n\n" + body, "more than one"},
		"a signature in the text":   {strings.Replace(raw, sig, "", 1) + sig + "\n", "no signature"},
		"sha256's beside":           {head + "\ngpgsig-sha256 x\n y\n\n" + body, ""},
		"sha256's alone":            {strings.Replace(raw, "\ngpgsig ", "\ngpgsig-sha256 ", 1), "no signature"},
		"sha256's above the parent": {strings.Replace(raw, "\n", "\ngpgsig-sha256 x\n", 1), "among the headers"},
		"above the committer":       {strings.Replace(strings.Replace(raw, sig, "", 1), "\n", "\n"+sig, 1), "among the headers"},
		"gpg":                       {strings.Replace(raw, other, "-----BEGIN PGP SIGNATURE-----\n \n iHUEABYKAB0WIQ==\n =abcd\n -----END PGP SIGNATURE-----", 1), "another kind"},
		"x.509":                     {strings.Replace(raw, other, "-----BEGIN SIGNED MESSAGE-----\n MIIB\n -----END SIGNED MESSAGE-----", 1), "another kind"},
		"no armor":                  {strings.Replace(raw, other, "U1NIU0lH", 1), "another kind"},
		"something after the armor": {head + "\n x\n\n" + body, "another kind"},
	} {
		if raw == c.raw && c.want != "" {
			t.Fatalf("%s changes nothing", name)
		}
		by, err := signer(t, r, resign(t, r, c.raw), Signers{public: "ada"})
		if c.want == "" && (err != nil || by.Operator != "ada") || c.want != "" && (!errors.Is(err, ErrUnsigned) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %+v, %v; want %q", name, by, err, c.want)
		}
	}
}

// forge makes an armored signature with every member of the caller's choice.
func forgeSig(t *testing.T, private ed25519.PrivateKey, edit func(*sshSig), message []byte) []byte {
	t.Helper()
	key, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	s := sshSig{Version: 1, Key: key.Marshal(), Namespace: "git", Hash: "sha512"}
	edit(&s)
	sum := sha512.Sum512(message)
	signed := append([]byte(sshSigMagic), ssh.Marshal(struct{ N, R, H, S string }{s.Namespace, s.Reserved, s.Hash, string(sum[:])})...)
	if s.Signature == nil {
		s.Signature = ssh.Marshal(ssh.Signature{Format: "ssh-ed25519", Blob: ed25519.Sign(private, signed)})
	}
	return pem.EncodeToMemory(&pem.Block{Type: "SSH SIGNATURE", Bytes: append([]byte(sshSigMagic), ssh.Marshal(s)...)})
}

func TestSSHSignaturesAreHeldToTheirFormat(t *testing.T) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	message := []byte("tree x\n\nwords\n")
	for name, c := range map[string]struct {
		edit func(*sshSig)
		want string
	}{
		"right":              {func(*sshSig) {}, ""},
		"something reserved": {func(s *sshSig) { s.Reserved = "x" }, ""},
		"another version":    {func(s *sshSig) { s.Version = 2 }, "damaged"},
		"a file's":           {func(s *sshSig) { s.Namespace = "file" }, "made for"},
		"md5":                {func(s *sshSig) { s.Hash = "md5" }, "hash"},
		"the wrong hash":     {func(s *sshSig) { s.Hash = "sha256" }, "does not verify"},
		"no signature":       {func(s *sshSig) { s.Signature = []byte{} }, "does not verify"},
		"a short one":        {func(s *sshSig) { s.Signature = ssh.Marshal(ssh.Signature{Format: "ssh-ed25519", Blob: []byte("x")}) }, "does not verify"},
		"another's form":     {func(s *sshSig) { s.Signature = ssh.Marshal(ssh.Signature{Format: "ssh-rsa", Blob: make([]byte, 64)}) }, "does not verify"},
		"no key":             {func(s *sshSig) { s.Key = nil }, "Ed25519"},
	} {
		_, err := verifySSHSig(message, forgeSig(t, private, c.edit, message))
		if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, ErrUnsigned) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestHugeCommitsAreRefusedUnread: a commit of a gigabyte compresses well.
func TestHugeCommitsAreRefusedUnread(t *testing.T) {
	r := newGitRepo(t)
	first := r.commit("a", "1")
	raw := r.git("cat-file", "commit", first)
	huge := resign(t, r, raw+strings.Repeat("x", maxCommit))
	repo, err := OpenRepo(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close()
	if _, err := repo.Commit(huge); !errors.Is(err, errTooLarge) {
		t.Errorf("commit: %v", err)
	}
	if _, err := repo.Signer(huge, nil); !errors.Is(err, errTooLarge) {
		t.Errorf("signer: %v", err)
	}
	if _, err := repo.IsAncestor(t.Context(), first, huge); !errors.Is(err, errTooLarge) {
		t.Errorf("walk: %v", err)
	}
}

func FuzzSplitSignature(f *testing.F) {
	f.Add([]byte("tree x\ncommitter y\ngpgsig -----BEGIN\n abc\n -----END\nencoding y\n\nwords\n"))
	f.Add([]byte("tree x\ngpgsig-sha256 z\nparent y\ncommitter y\ngpgsig a\n\nwords\n"))
	f.Add([]byte("gpgsig x"))
	f.Add([]byte("\n\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		payload, sig, err := splitSignature(bytes.Clone(raw))
		if err != nil {
			return
		}
		if len(payload)+len(sig) > len(raw) || bytes.HasPrefix(payload, []byte("gpgsig ")) {
			t.Errorf("%q: %q and %q", raw, payload, sig)
		}
	})
}
