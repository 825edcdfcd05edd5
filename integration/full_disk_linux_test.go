package integration_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/integration/proctest"
	"github.com/sealstone/sealstone/ledger"
)

// smallDisk puts the data directory on a file system of its own, and returns what
// fills that and empties it.
func smallDisk(t *testing.T, r *proctest.Rig) (fill, free func()) {
	t.Helper()
	kept := r.Data + ".kept"
	if err := os.Rename(r.Data, kept); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(r.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", r.Data, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(r.Data, syscall.MNT_DETACH) })
	if err := os.CopyFS(r.Data, os.DirFS(kept)); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(r.Data, "filler")
	fill = func() {
		f, err := os.Create(filler)
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		_ = f.Close()
	}
	return fill, func() {
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}
}

// What was answered with 202 while the disk is full is still there after kill -9,
// on the full disk, and in the log when there is room.
func TestAKillOnAFullDiskLosesNoPendingStatement(t *testing.T) {
	t.Parallel()
	r := proctest.New(t, examples.Shop())
	fill, free := smallDisk(t, r)
	s := r.Serve()
	s.UntilTip(r.Git("rev-parse", "HEAD"))
	fill()
	unsent := ""
	for n := 0; ; n++ { // until the free pages of the ledger's file are used up
		res := s.CLI("changes", "record", "note.added", "--service", "checkout", "--note", strings.Repeat("x", 4000))
		if strings.Contains(res.Stderr, "could not store") {
			unsent = sendAgain(t, res.Stderr)
			break
		} else if res.Code != 0 || n > 200 {
			t.Fatalf("%d: %+v", n, res)
		}
	}
	for scope, reason := range map[string]string{"prod/eu-west-1": "INC-1", "prod/us-east-1": "INC-2"} {
		got := receipt(t, s, "safe-mode", "enter", "checkout", "degraded", "--scope", scope, "--reason", reason)
		if !got.Unrecorded || got.Volatile {
			t.Fatalf("%+v", got)
		}
	}
	if why := s.Status().Writes; !strings.Contains(why, "no space left on device") || strings.Contains(why, r.Data) {
		t.Errorf("the status says %q", why)
	}
	if log := s.Log(); !strings.Contains(log, "can't store changes") || !strings.Contains(log, r.Data) {
		t.Errorf("the log doesn't say why:\n%s", log)
	}
	s.Kill()
	s = r.Serve()
	if n := s.Status().Pending; n != 2 {
		t.Fatalf("%d statements wait after a kill, 2 were acknowledged:\n%s", n, s.Log())
	}
	var pending api.Pending
	if s.JSON("/v1/pending?service=checkout", &pending); len(pending.Statements) != 2 {
		t.Errorf("%d are served", len(pending.Statements))
	}
	free()
	proctest.Until(t, "the statements in the log", func() bool { return len(s.Changes(ledger.SafeModeEntered)) == 2 })
	s.Get("/readyz/writes")
	notes := len(s.Changes(ledger.NoteAdded))
	s.OK("changes", "send", unsent)
	s.OK("changes", "send", unsent)
	if n := len(s.Changes(ledger.NoteAdded)); n != notes+1 {
		t.Errorf("%d notes, after %d and one that was sent twice", n, notes)
	}
	if out := s.OK("safe-mode", "status", "checkout"); !strings.Contains(out, "INC-1") || !strings.Contains(out, "INC-2") {
		t.Errorf("a reason is lost:\n%s", out)
	}
}

// sendAgain is the file that an error names, and says is to be sent.
func sendAgain(t *testing.T, stderr string) string {
	t.Helper()
	_, rest, ok := strings.Cut(stderr, "next: when the server has room: sealstone changes send ")
	path, _, also := strings.Cut(rest, ";")
	if !ok || !also || !strings.Contains(stderr, "no space left on device") {
		t.Fatalf("it says\n%s", stderr)
	}
	t.Cleanup(func() { _ = os.Remove(path) })
	return path
}
