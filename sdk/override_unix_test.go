//go:build unix

package sdk_test

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/sealstone/sealstone/sdk"
)

// A pipe in the override directory would be waited for until somebody writes.
func TestAPipeIsNotOpened(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe.dsse")
	must(t, syscall.Mkfifo(path, 0o600))
	done := make(chan error, 1)
	go func() { _, err := sdk.ReadBounded(path, 1<<10); done <- err }()
	select {
	case err := <-done:
		if err == nil {
			t.Error("a pipe was read")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the pipe was opened, and nobody writes")
	}
}
