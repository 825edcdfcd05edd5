package bundler

import (
	"crypto/ed25519"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

func testSSHKey(t *testing.T) string {
	t.Helper()
	file, _ := newSSHKey(t)
	return file
}

func newSSHKey(t *testing.T) (file string, key ssh.Signer) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(t.TempDir(), "id_ed25519")
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	if key, err = ssh.NewSignerFromKey(private); err != nil {
		t.Fatal(err)
	}
	return file, key
}

// sshHost is a host that lets one key run git-upload-pack.
func sshHost(t *testing.T, hostKey ssh.Signer, client ssh.PublicKey) string {
	t.Helper()
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if string(key.Marshal()) != string(client.Marshal()) {
			return nil, errors.New("unknown key")
		}
		return nil, nil
	}}
	config.AddHostKey(hostKey)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serveSSH(conn, config)
		}
	}()
	return l.Addr().String()
}

func serveSSH(conn net.Conn, config *ssh.ServerConfig) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for c := range channels {
		if channel, requests, err := c.Accept(); err == nil {
			go runSSH(channel, requests)
		}
	}
}

func runSSH(channel ssh.Channel, requests <-chan *ssh.Request) {
	defer channel.Close()
	for r := range requests {
		var exe struct{ Command string }
		ok := r.Type == "exec" && ssh.Unmarshal(r.Payload, &exe) == nil && strings.HasPrefix(exe.Command, "git-upload-pack ")
		r.Reply(ok, nil)
		if !ok {
			continue
		}
		cmd := exec.Command("sh", "-c", exe.Command)
		cmd.Stdout, cmd.Stderr = channel, channel.Stderr()
		in, err := cmd.StdinPipe() // as a reader, Run would wait for its end
		if err != nil {
			return
		}
		go io.Copy(in, channel)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*")
		cmd.Run()
		return
	}
}

func knownHostsFile(t *testing.T, addr string, key ssh.PublicKey) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(file, []byte(knownhosts.Line([]string{addr}, key)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestFetchOverSSH(t *testing.T) {
	r := newGitRepo(t)
	file, key := newSSHKey(t)
	_, hostKey := newSSHKey(t)
	addr := sshHost(t, hostKey, key.PublicKey())
	bare := filepath.Join(t.TempDir(), "it's bare.git")
	r.git("init", "-q", "--bare", "-b", "main", bare)
	s := openTestSource(t, SourceConfig{URL: "ssh://git@" + addr + bare, SSHKeyFile: file,
		KnownHostsFile: knownHostsFile(t, addr, hostKey.PublicKey())})
	if _, err := s.Fetch(t.Context()); !errors.Is(err, errEmptyRepository) {
		t.Fatalf("empty repository: %v", err)
	}
	exercise(t, r, s, func() { r.git("push", "-q", "-f", bare, "main") })
}

func TestSSHFaultsAreNamed(t *testing.T) {
	r := newGitRepo(t)
	r.commit("a", "1")
	file, key := newSSHKey(t)
	_, hostKey := newSSHKey(t)
	_, otherKey := newSSHKey(t)
	addr := sshHost(t, hostKey, key.PublicKey())
	right := knownHostsFile(t, addr, hostKey.PublicKey())
	for _, c := range []struct{ name, path, key, hosts, want string }{
		{"unknown host", r.dir, file, knownHostsFile(t, "other.example.org", hostKey.PublicKey()), "key is unknown"},
		{"changed host key", r.dir, file, knownHostsFile(t, addr, otherKey.PublicKey()), "key mismatch"},
		{"wrong key", r.dir, testSSHKey(t), right, "unable to authenticate"},
		{"no key", r.dir, "/nowhere/key", right, "no such file"},
		{"no repository", "/nowhere/x.git", file, right, "the host says"},
		{"no known_hosts", r.dir, file, "/nowhere/known_hosts", "known_hosts"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openTestSource(t, SourceConfig{URL: fmt.Sprintf("ssh://git@%s%s", addr, c.path), SSHKeyFile: c.key, KnownHostsFile: c.hosts})
			_, err := s.Fetch(t.Context())
			if !errors.Is(err, errUnreachable) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestSCPLikeURL(t *testing.T) {
	end, err := parseSourceURL("git@host.example:team/config.git")
	if err != nil || end.Protocol != "ssh" || end.Host != "host.example" || end.Path != "team/config.git" {
		t.Errorf("%+v, %v", end, err)
	}
}
