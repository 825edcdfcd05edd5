package integration_test

import (
	"bytes"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/integration/proctest"
)

// lines is a log that a test reads while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// The order of docs/operations.md, Succession: a client never leaves its safe
// mode when the mode is entered in the new log before clients reach it.
func TestSafeModeOutlivesSuccession(t *testing.T) {
	t.Parallel()
	r := proctest.New(t, examples.Shop())
	s := r.Serve()
	s.UntilTip(r.Git("rev-parse", "HEAD"))
	var said lines
	cfg := sdkConfig(t, r, eu, s.URL)
	cfg.Logger = slog.New(slog.NewTextHandler(&said, nil))
	c := openSDK(t, cfg)
	receipt(t, s, "safe-mode", "enter", "checkout", "degraded", "--scope", "prod/eu-west-1", "--reason", "INC-123")
	untilMode(t, c, "degraded")
	mirror := filepath.Join(r.Dir, "mirror")
	s.OK("mirror", s.URL, mirror, "--once", "--trust", r.Trust)
	s.Stop()

	second := filepath.Join(r.Dir, "second")
	told := r.CLI("trust", "update", "--key", r.Root, "--trust", r.Trust, "--succeed", "config.example.com/second", "--keys", second+".keys",
		"--checkpoint", filepath.Join(mirror, "log", "checkpoint"), "--out", "next.json")
	if told.Code != 0 || !strings.Contains(told.Stderr, "note: safe mode degraded of checkout@prod/eu-west-1 ends with ") {
		t.Fatalf("exit %d\n%s%s", told.Code, told.Stdout, told.Stderr)
	}
	told = r.CLI("ledger", "init", "--data", second, "--succession", "next.json", "--trust", r.Trust)
	if told.Code != 0 || !strings.Contains(told.Stderr, "next: enter each anew in the new log") {
		t.Fatalf("exit %d\n%s%s", told.Code, told.Stdout, told.Stderr)
	}
	r.OK("operators", "sign", r.Work, "--key", r.Root, "--trust", filepath.Join(second, "trust.json"))
	tip := r.Push("Operators of the second log")
	hidden := r.Serve("--data", second)
	hidden.UntilTip(tip)
	entered := receipt(t, hidden, "safe-mode", "enter", "checkout", "degraded", "--scope", "prod/eu-west-1", "--trust", r.Trust)
	hidden.Stop()

	before := said.String()
	again := r.ServeAt(s.Addr, "--data", second)
	proctest.Until(t, "the client at the second log", func() bool {
		l := c.Live()
		return l.Origin == "config.example.com/second" && l.Index == entered.Index
	})
	proctest.Until(t, "the client is READY", func() bool { return c.State() == api.StateReady })
	if live := c.Live(); live.Mode != "degraded" || live.Why != "" {
		t.Errorf("Live = %+v", live)
	}
	if log := strings.TrimPrefix(said.String(), before); strings.Contains(log, "mode=normal") || strings.Contains(log, "a safe mode ended") {
		t.Errorf("the client left its mode:\n%s", log)
	}
	again.OK("verify", "--trust", r.Trust)
}
