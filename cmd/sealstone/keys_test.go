package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/sealstone/sealstone/ledger"
)

// A key with a passphrase is signed with by ssh-agent; without one, the error
// says what to do, and doesn't ask which key was meant.
func TestAKeyWithAPassphraseGoesThroughTheAgent(t *testing.T) {
	pub, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "enc")
	line := ledger.NewSSHKey(pub).String() + " enc\n"
	for name, b := range map[string][]byte{path: pem.EncodeToMemory(block), path + ".pub": []byte(line)} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("SSH_AUTH_SOCK", "")
	want := "key " + path + " has a passphrase: start ssh-agent, add the key with ssh-add, and pass " + path + ".pub"
	for _, name := range []string{path, path + ".pub"} {
		if _, err := openSigner(name); err == nil || err.Error() != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	keys := serveAgent(t)
	if _, err := openSigner(path); err == nil || !strings.Contains(err.Error(), "has a passphrase: ssh-agent does not hold that Ed25519 key") {
		t.Errorf("an agent without it: %v", err)
	}
	if err := keys.Add(agent.AddedKey{PrivateKey: private}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, path + ".pub"} {
		s, err := openSigner(name)
		if err != nil {
			t.Fatal(err)
		}
		if sig, err := s.Sign([]byte("x")); err != nil || !ed25519.Verify(pub, []byte("x"), sig) {
			t.Errorf("%s: signed wrong: %v", name, err)
		}
	}
}

// serveAgent is an empty ssh-agent for the time of the test.
func serveAgent(t *testing.T) agent.Agent {
	t.Helper()
	sock := filepath.Join(t.TempDir(), "agent")
	ln, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	t.Setenv("SSH_AUTH_SOCK", sock)
	keys := agent.NewKeyring()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.ServeAgent(keys, conn) }()
		}
	}()
	return keys
}
