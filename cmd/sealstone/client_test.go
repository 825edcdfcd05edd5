package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sealstone/sealstone/api"
)

type silentServer struct{}

func (silentServer) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// A server that takes connections and says nothing is given up on, in a sentence
// and with a next step, sooner for a question than for a change.
func TestSilentServerIsGivenUpOn(t *testing.T) {
	for method, want := range map[string]time.Duration{http.MethodGet: readWait, http.MethodPost: writeWait} {
		synctest.Test(t, func(t *testing.T) {
			c := &client{base: "http://silent", http: &http.Client{Transport: silentServer{}}}
			began := time.Now()
			_, err := c.do(t.Context(), method, "/v1/status", nil)
			e, ok := errors.AsType[*api.Error](err)
			if !ok || e.Code != api.CodeUnavailable || e.Hint != reachHint || !strings.Contains(e.Detail, "http://silent does not answer within") {
				t.Errorf("%v", err)
			}
			if d := time.Since(began); d != want {
				t.Errorf("%s: after %s", method, d)
			}
		})
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// What can't be written to standard output is an error, whichever command says it.
func TestLostOutputIsAnError(t *testing.T) {
	for _, args := range [][]string{{"token", "new"}, {"version"}, {"context"}, {"context", "-o", "json"}, {"help"}} {
		t.Setenv("XDG_CONFIG_HOME", t.TempDir())
		var stderr bytes.Buffer
		if code := run(context.Background(), args, strings.NewReader(""), fullDisk{}, &stderr); code != exitError || !strings.Contains(stderr.String(), "no space left on device") {
			t.Errorf("%s: exit %d, %s", args, code, stderr.String())
		}
		if code := run(context.Background(), args, strings.NewReader(""), io.Discard, io.Discard); code != exitOK {
			t.Errorf("%s: exit %d with room", args, code)
		}
	}
}

// A file that could not be filled stays where it was there before.
func TestFailedOutLeavesWhatWasThere(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip(err)
	}
	full := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/dev/full", full); err != nil {
		t.Skip(err)
	}
	if err := writeOut(full, []byte("x")); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(full); err != nil {
		t.Error(err)
	}
}
