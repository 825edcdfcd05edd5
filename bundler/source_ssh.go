package bundler

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"golang.org/x/crypto/ssh"
)

// sshSession runs git-upload-pack on a host. It replaces go-git's transport,
// which reads the user's ssh_config and can't be interrupted in a handshake.
type sshSession struct {
	client  *ssh.Client
	session *ssh.Session
	in      io.WriteCloser
	out     io.Reader
	stderr  limitedBuffer
	stop    func() bool
}

func dialSSH(ctx context.Context, end *transport.Endpoint, keyFile, knownHosts string) (*sshSession, error) {
	addr := net.JoinHostPort(strings.Trim(end.Host, "[]"), strconv.Itoa(cmpPort(end.Port)))
	config, err := sshConfig(end.User, addr, keyFile, knownHosts)
	if err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	// The ssh package knows no contexts: closing the connection ends any wait.
	s := &sshSession{stop: context.AfterFunc(ctx, func() { conn.Close() })}
	c, channels, requests, err := ssh.NewClientConn(conn, addr, config)
	if err != nil {
		s.stop()
		conn.Close()
		return nil, err
	}
	s.client = ssh.NewClient(c, channels, requests)
	if err := s.start(end.Path); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func cmpPort(port int) int {
	if port == 0 {
		return 22
	}
	return port
}

func sshConfig(user, addr, keyFile, knownHosts string) (*ssh.ClientConfig, error) {
	var files []string
	if knownHosts != "" {
		files = append(files, knownHosts)
	}
	hosts, err := gitssh.NewKnownHostsDb(files...)
	if err != nil {
		return nil, fmt.Errorf("known_hosts: %w", err)
	}
	if user == "" {
		user = "git"
	}
	config := &ssh.ClientConfig{User: user, HostKeyCallback: hosts.HostKeyCallback(), HostKeyAlgorithms: hosts.HostKeyAlgorithms(addr)}
	if keyFile == "" {
		agent, err := gitssh.NewSSHAgentAuth(user)
		if err != nil {
			return nil, fmt.Errorf("no SSH key file given, and no ssh-agent: %w", err)
		}
		config.Auth = []ssh.AuthMethod{ssh.PublicKeysCallback(agent.Callback)}
		return config, nil
	}
	signer, err := readSSHKey(keyFile)
	if err != nil {
		return nil, err
	}
	config.Auth = []ssh.AuthMethod{ssh.PublicKeys(signer)}
	return config, nil
}

func readSSHKey(file string) (ssh.Signer, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("SSH key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(b)
	if err != nil {
		return nil, fmt.Errorf("SSH key %s: %w", file, err)
	}
	return signer, nil
}

func (s *sshSession) start(path string) error {
	session, err := s.client.NewSession()
	if err != nil {
		return err
	}
	if s.in, err = session.StdinPipe(); err != nil {
		return err
	}
	if s.out, err = session.StdoutPipe(); err != nil {
		return err
	}
	s.session, session.Stderr = session, &s.stderr
	return session.Start("git-upload-pack " + shellQuote(path))
}

// shellQuote keeps the path one word: the host runs the command in a shell.
func shellQuote(s string) string {
	return "'" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(s) + "'"
}

func (s *sshSession) AdvertisedReferences() (*packp.AdvRefs, error) {
	return s.AdvertisedReferencesContext(context.Background())
}

func (s *sshSession) AdvertisedReferencesContext(context.Context) (*packp.AdvRefs, error) {
	adv := packp.NewAdvRefs()
	if err := adv.Decode(s.out); err != nil {
		if errors.Is(err, packp.ErrEmptyAdvRefs) {
			return nil, transport.ErrEmptyRemoteRepository
		}
		return nil, s.withStderr(err)
	}
	transport.FilterUnsupportedCapabilities(adv.Capabilities)
	return adv, nil
}

func (s *sshSession) UploadPack(_ context.Context, req *packp.UploadPackRequest) (*packp.UploadPackResponse, error) {
	if err := writeRequest(s.in, req); err != nil {
		return nil, s.withStderr(err)
	}
	res := packp.NewUploadPackResponse(req)
	if err := res.Decode(io.NopCloser(s.out)); err != nil {
		return nil, s.withStderr(err)
	}
	return res, nil
}

// withStderr adds what the host said, for example that there is no such
// repository. That may come after the end of its output, so it waits a little
// for the program's end, which is the end of both.
func (s *sshSession) withStderr(err error) error {
	ended := make(chan struct{})
	go func() { s.session.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(time.Second):
	}
	if said := s.stderr.String(); said != "" {
		return fmt.Errorf("%w; the host says: %s", err, said)
	}
	return err
}

func (s *sshSession) Close() error {
	s.stop()
	return s.client.Close()
}

// limitedBuffer keeps the first 512 bytes.
type limitedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *limitedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Write(p[:min(len(p), max(0, 512-l.b.Len()))])
	return len(p), nil
}

func (l *limitedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
