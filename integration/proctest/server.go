package proctest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// Server is a running sealstone serve.
type Server struct {
	t    testing.TB
	rig  *Rig
	cmd  *exec.Cmd
	done chan struct{}
	log  safeBuffer

	Addr string
	URL  string
}

// safeBuffer collects what a process prints while others read it.
type safeBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// Serve starts a server that looks for pushes all the time. Further arguments
// come last, so they win.
func (r *Rig) Serve(args ...string) *Server { r.t.Helper(); return r.ServeAt("127.0.0.1:0", args...) }

// ServeAt is Serve at an address, for a server that comes back where its
// clients look for it.
func (r *Rig) ServeAt(addr string, args ...string) *Server {
	r.t.Helper()
	r.count++
	file := filepath.Join(r.Dir, fmt.Sprintf("addr-%d", r.count))
	s := &Server{t: r.t, rig: r, done: make(chan struct{})}
	s.cmd = exec.Command(bin, append([]string{"serve", "--repo", r.URL, "--data", r.Data, "--listen", addr, "--addr-file", file, "--poll", "50ms"}, args...)...)
	s.cmd.Dir, s.cmd.Env, s.cmd.Stdout, s.cmd.Stderr = r.Dir, r.env(), &s.log, &s.log
	if err := s.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() { _ = s.cmd.Wait(); close(s.done) }() // its code is read from the process state
	r.t.Cleanup(s.cleanup)
	Until(r.t, "the server's address", func() bool {
		b, err := os.ReadFile(file)
		s.Addr = strings.TrimSpace(string(b))
		if s.ended() {
			r.t.Fatalf("the server ended:\n%s", s.log.String())
		}
		return err == nil && bytes.HasSuffix(b, []byte("\n"))
	})
	s.URL = "http://" + s.Addr
	return s
}

func (s *Server) ended() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// cleanup ends the server and looks at its log for what no test may cause.
func (s *Server) cleanup() {
	s.Kill()
	text := s.log.String()
	for _, bad := range []string{"DATA RACE", "panic"} {
		if strings.Contains(text, bad) {
			s.t.Errorf("the server's log has %q", bad)
		}
	}
	if s.t.Failed() {
		s.t.Logf("log of the server at %s:\n%s", s.Addr, text)
	}
}

// PeakMemory is the most bytes of memory that the server had so far, as Linux
// says; the test is skipped elsewhere.
func (s *Server) PeakMemory() int64 {
	s.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Skip("this system doesn't say what a process took")
	}
	_, rest, _ := strings.Cut(string(b), "VmHWM:")
	var kib int64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		s.t.Fatalf("no VmHWM in %s", b)
	}
	return kib << 10
}

// Log is what the server printed so far.
func (s *Server) Log() string { return s.log.String() }

// Kill ends the server as a lost machine would: kill -9.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.done
}

// Stop ends the server as an init system does.
func (s *Server) Stop() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	select {
	case <-s.done:
	case <-time.After(Patience):
		_ = s.cmd.Process.Signal(syscall.SIGQUIT) // its goroutines go to the log
		<-s.done
		s.t.Fatalf("the server goes on %s after SIGTERM", Patience)
	}
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		s.t.Errorf("after SIGTERM the server ended with %d", code)
	}
}

// CLI runs a command against the server, with the SRE's key.
func (s *Server) CLI(args ...string) Result {
	s.t.Helper()
	return s.rig.CLIWith([]string{"SEALSTONE_SERVER=" + s.URL, "SEALSTONE_KEY=" + s.rig.SRE}, args...)
}

// OK is CLI of a command that must succeed.
func (s *Server) OK(args ...string) string {
	s.t.Helper()
	res := s.CLI(args...)
	if res.Code != 0 {
		s.t.Fatalf("sealstone %s: exit %d\n%s%s", strings.Join(args, " "), res.Code, res.Stdout, res.Stderr)
	}
	return res.Stdout
}

// Get reads a path that must answer 200.
func (s *Server) Get(path string) []byte {
	s.t.Helper()
	res, err := http.Get(s.URL + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		s.t.Fatalf("GET %s: %s, %v: %s", path, res.Status, err, b)
	}
	return b
}

// JSON decodes a path's answer.
func (s *Server) JSON(path string, v any) {
	s.t.Helper()
	if b := s.Get(path); json.Unmarshal(b, v) != nil {
		s.t.Fatalf("GET %s: no %T: %s", path, v, b)
	}
}

// Status asks how the server is.
func (s *Server) Status() (st api.Status) {
	s.t.Helper()
	s.JSON("/v1/status", &st)
	return st
}

// UntilTip waits until a commit is the accepted tip.
func (s *Server) UntilTip(commit string) {
	s.t.Helper()
	Until(s.t, "the tip "+commit, func() bool { return s.Status().Source.Tip == commit })
}

// Changes lists the changes of a kind, newest first.
func (s *Server) Changes(kind ledger.Kind) []Change {
	s.t.Helper()
	var answer api.Changes
	s.JSON("/v1/changes?limit=1000&kind="+string(kind), &answer)
	out := make([]Change, len(answer.Changes))
	for i, r := range answer.Changes {
		out[i].Record = r
		if err := json.Unmarshal(r.Event, &out[i].Event); err != nil {
			s.t.Fatal(err)
		}
	}
	return out
}

// Change is an entry of the log with its event.
type Change struct {
	api.Record
	Event ledger.Event
}

// Evidence reads a service's evidence whole.
func (s *Server) Evidence(service string) *ledger.Evidence {
	s.t.Helper()
	var e ledger.Evidence
	s.JSON("/v1/evidence?service="+service, &e)
	return &e
}

// LoadTrust parses the trust file.
func (r *Rig) LoadTrust() *ledger.Trust {
	r.t.Helper()
	trust, err := ledger.ParseTrust([]byte(ReadFile(r.t, r.Trust)))
	if err != nil {
		r.t.Fatal(err)
	}
	return trust
}

// Leaves reads the whole log as any C2SP client does, up to its checkpoint.
func (s *Server) Leaves() (ledger.Tree, [][]byte) {
	s.t.Helper()
	tree, err := s.rig.LoadTrust().OpenCheckpoint(s.Get("/log/checkpoint"))
	if err != nil {
		s.t.Fatal(err)
	}
	var leaves [][]byte
	for n := int64(0); n*256 < tree.Size; n++ {
		path := fmt.Sprintf("/log/tile/entries/%03d", n)
		if width := min(256, tree.Size-n*256); width < 256 {
			path += fmt.Sprintf(".p/%d", width)
		}
		b := s.Get(path)
		for len(b) >= 2 {
			n := int(b[0])<<8 | int(b[1])
			leaves, b = append(leaves, b[2:2+n]), b[2+n:]
		}
	}
	return tree, leaves
}
