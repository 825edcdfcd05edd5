package integration_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/integration/proctest"
	"github.com/sealstone/sealstone/ledger"
	"github.com/sealstone/sealstone/sdk"
)

const (
	eu = "checkout@prod/eu-west-1"
	us = "checkout@prod/us-east-1"
)

// running is a server that has accepted its tip, with clients of two regions.
func running(t *testing.T) (*proctest.Rig, *proctest.Server, map[string]*sdk.Client) {
	t.Helper()
	r := proctest.New(t, examples.Shop())
	s := r.Serve()
	s.UntilTip(r.Git("rev-parse", "HEAD"))
	clients := map[string]*sdk.Client{}
	for _, target := range []string{eu, us, "checkout@prod/eu-west-1/canary", "catalog@prod/eu-west-1"} {
		cfg := sdkConfig(t, r, target, s.URL)
		cfg.OverrideDir = filepath.Join(r.Dir, "overrides")
		clients[target] = openSDK(t, cfg)
	}
	return r, s, clients
}

func TestSafeModeByKeyFile(t *testing.T) {
	t.Parallel()
	_, s, clients := running(t)
	entered := receipt(t, s, "safe-mode", "enter", "checkout", "degraded", "--scope", "prod/eu-west-1", "--reason", "INC-123")
	untilMode(t, clients[eu], "degraded")
	untilMode(t, clients["checkout@prod/eu-west-1/canary"], "degraded")
	proctest.Until(t, "the change's proof on the client", func() bool { return clients[eu].Live().Index == entered.Index })
	for _, target := range []string{us, "catalog@prod/eu-west-1"} {
		if m := clients[target].Live().Mode; m != api.ModeNormal {
			t.Errorf("%s is in mode %s", target, m)
		}
	}
	if out := s.OK("safe-mode", "status", "checkout"); !strings.Contains(out, "INC-123") || !strings.Contains(out, "degraded") {
		t.Errorf("status:\n%s", out)
	}

	outer := s.CLI("safe-mode", "enter", "checkout", "degraded", "--scope", "prod", "-o", "json")
	if r := decode[api.Receipt](t, outer.Stdout); outer.Code != 2 || len(r.Narrower) != 1 {
		t.Errorf("a narrower mode stays: exit %d, %+v", outer.Code, r)
	}
	untilMode(t, clients[us], "degraded")
	s.OK("safe-mode", "exit", "checkout", "--scope", "prod/eu-west-1")
	receipt(t, s, "safe-mode", "exit", "checkout", "--scope", "prod")
	for _, c := range clients {
		untilMode(t, c, api.ModeNormal)
		wantReady(t, c)
	}
	s.OK("verify")
}

// A key that never leaves ssh-agent signs as well.
func TestSafeModeByAgent(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"ssh-agent", "ssh-add", "ssh-keygen"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s, which is not installed", tool)
		}
	}
	r, s, clients := running(t)
	key := filepath.Join(r.Dir, "agent-key")
	command(t, nil, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "agent@shop.example", "-f", key)
	pub := strings.TrimSpace(proctest.ReadFile(t, key+".pub"))
	r.Write("operators.yaml", "version: 2\noperators:\n  - id: sam\n    keys: ["+quote(pub)+"]\n    may: [{do: [safe-mode], services: [checkout], scopes: [prod]}]\n")
	r.OK("operators", "sign", r.Work, "--key", r.Root)
	s.UntilTip(r.Push("Let Sam enter safe modes"))

	env := []string{"SSH_AUTH_SOCK=" + startAgent(t)}
	command(t, env, "ssh-add", "-q", key)
	if err := os.Remove(key); err != nil { // only the agent has it now
		t.Fatal(err)
	}
	for _, flag := range [][]string{nil, {"--key", key + ".pub"}} {
		for _, args := range [][]string{{"enter", "checkout", "degraded"}, {"exit", "checkout"}} {
			full := append(append([]string{"safe-mode"}, args...), append(flag, "--scope", "prod/eu-west-1", "--server", s.URL, "-o", "json")...)
			res := r.CLIWith(env, full...)
			if res.Code != 0 {
				t.Fatalf("%v: exit %d\n%s", full, res.Code, res.Stderr)
			}
			want := map[string]api.Mode{"enter": "degraded", "exit": api.ModeNormal}[args[0]]
			untilMode(t, clients[eu], want)
		}
	}
	if by := s.Changes(ledger.SafeModeEntered)[0].Operator; by != "sam" {
		t.Errorf("signed by %q", by)
	}
	if res := r.CLIWith(env, "safe-mode", "enter", "catalog", "catalog-static", "--scope", "prod", "--server", s.URL); res.Code != 4 {
		t.Errorf("without permission: exit %d\n%s", res.Code, res.Stderr)
	}
	s.OK("verify")
}

// startAgent runs ssh-agent in the foreground and returns its socket.
func startAgent(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") //nolint:usetesting // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(dir, "s")
	cmd := exec.Command("ssh-agent", "-D", "-a", sock)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = os.RemoveAll(dir)
	})
	proctest.Until(t, "the agent's socket", func() bool {
		conn, err := net.Dial("unix", sock)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
	return sock
}

func command(t *testing.T, env []string, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

func quote(s string) string { return `"` + s + `"` }

// pendingIDs are the statements that a client obeys though the log lacks them.
func pendingIDs(c *sdk.Client) (ids []string) {
	for _, p := range c.Live().Pending {
		ids = append(ids, p.ID)
	}
	return ids
}

// With the server gone, a file does what the server would: it is obeyed at
// once, and becomes a change when the server is back.
func TestSafeModeByFileWhileTheServerIsDown(t *testing.T) {
	t.Parallel()
	r, s, clients := running(t)
	s.Kill()
	drop := filepath.Join(r.Dir, "overrides", "enter.dsse")
	if err := os.MkdirAll(filepath.Dir(drop), 0o755); err != nil {
		t.Fatal(err)
	}
	signed := filepath.Join(r.Dir, "enter.dsse")
	r.OK("safe-mode", "enter", "checkout", "degraded", "--scope", "prod/eu-west-1", "--after", "0", "--key", r.SRE, "--out", signed)
	if err := os.Rename(signed, drop); err != nil {
		t.Fatal(err)
	}
	untilMode(t, clients[eu], "degraded")
	if l := clients[eu].Live(); len(l.Pending) != 1 || l.Index != -1 || !l.Override.Pending {
		t.Errorf("pending: %+v", l.Pending)
	}
	if m := clients[us].Live().Mode; m != api.ModeNormal {
		t.Errorf("%s is in mode %s", us, m)
	}

	s = r.ServeAt(s.Addr)
	sent := receipt(t, s, "changes", "send", drop)
	if sent.Late || sent.Generation != 1 {
		t.Errorf("sent: %+v", sent)
	}
	proctest.Until(t, "the statement is proven", func() bool { return clients[eu].Live().Index == sent.Index })
	if ids := pendingIDs(clients[eu]); len(ids) != 0 || clients[eu].Live().Mode != "degraded" {
		t.Errorf("pending did not end: %v", ids)
	}
	if again := receipt(t, s, "changes", "send", drop); !again.Repeated || again.Index != sent.Index {
		t.Errorf("sent again: %+v", again)
	}
	s.OK("safe-mode", "exit", "checkout", "--scope", "prod/eu-west-1")
	untilMode(t, clients[eu], api.ModeNormal) // though the file is still there
	for _, c := range clients {
		wantReady(t, c)
	}
}

// A file whose signer was overtaken is kept as evidence and moves nothing.
func TestAFileThatWasOvertakenIsLate(t *testing.T) {
	t.Parallel()
	r, s, clients := running(t)
	old := r.Statement(ledger.SafeModeEntered, "checkout", "prod/eu-west-1", hoursAgo(1))
	drop := filepath.Join(r.Dir, "overrides", "old.dsse.json")
	proctest.WriteFile(t, drop, string(old.Raw)+"\n", 0o644)
	untilMode(t, clients[eu], "degraded")

	s.OK("safe-mode", "enter", "checkout", "degraded", "--scope", "prod/eu-west-1")
	s.OK("safe-mode", "exit", "checkout", "--scope", "prod/eu-west-1")
	untilMode(t, clients[eu], api.ModeNormal) // the log has passed the statement
	proctest.Until(t, "pending ends", func() bool { return len(pendingIDs(clients[eu])) == 0 })
	late := receipt(t, s, "changes", "send", drop)
	if !late.Late || late.Kind != string(ledger.StatementLate) {
		t.Errorf("%+v", late)
	}
	proctest.Until(t, "the newer head", func() bool { return clients[eu].Live().LogSize >= late.Index })
	if l := clients[eu].Live(); l.Mode != api.ModeNormal || len(l.Pending) != 0 {
		t.Errorf("the late statement moved something: %+v", l)
	}
	s.OK("verify")
}

// A server whose store was put back from an old copy doesn't know how far a chain
// has come: it says so, and a client's own number moves the clients.
func TestSafeModeWhileTheStoreIsBehindItsAnchor(t *testing.T) {
	t.Parallel()
	r, s, clients := running(t)
	restart := func(files func()) {
		s.Stop()
		files()
		s = r.ServeAt(s.Addr)
	}
	copied, anchor := filepath.Join(r.Dir, "copy"), filepath.Join(r.Data, "anchor")
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	restart(func() { check(os.CopyFS(copied, os.DirFS(r.Data))) })
	mode := []string{"checkout", "degraded", "--scope", "prod/eu-west-1"}
	s.OK(append([]string{"safe-mode", "enter"}, mode...)...)
	s.OK(append([]string{"safe-mode", "exit"}, mode...)...)
	generation := func() int64 {
		for _, o := range clients[eu].Live().Overrides {
			return o.Generation
		}
		return 0
	}
	proctest.Until(t, "the exit on the client", func() bool { return generation() == 2 })
	restart(func() {
		published := proctest.ReadFile(t, anchor)
		check(os.Rename(r.Data, r.Data+".broken"))
		check(os.Rename(copied, r.Data))
		proctest.WriteFile(t, anchor, published, 0o600)
	})

	got := s.CLI(append([]string{"safe-mode", "enter"}, mode...)...)
	if got.Code != 2 || !strings.Contains(got.Stderr, "who obeys is not known") || strings.Contains(got.Stdout, "every client") {
		t.Errorf("%+v", got)
	}
	if got := s.CLI(append([]string{"safe-mode", "enter", "--after", "2"}, mode...)...); got.Code != 2 {
		t.Errorf("%+v", got)
	}
	untilMode(t, clients[eu], "degraded")
	if got := s.CLI(append([]string{"safe-mode", "exit"}, mode...)...); got.Code != 2 { // the server counts what waits
		t.Errorf("%+v", got)
	}
	untilMode(t, clients[eu], api.ModeNormal)
}
