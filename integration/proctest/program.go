// Package proctest runs the real sealstone program, as a process of its own,
// over repositories that the real git made.
//
//	func TestMain(m *testing.M) { proctest.Main(m) }
//
//	r := proctest.New(t, examples.Shop())
//	s := r.Serve()
//	r.Edit("common/flags/common.yaml", "defaultVariant: off", "defaultVariant: on")
//	r.Push("Show the banner")
//
// It is shared by the tests of integration/ and by those of the modules below
// it. Nothing here waits by sleeping for a while and hoping: see [Until].
package proctest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"
)

// Module is the module that the program is in.
const Module = "github.com/sealstone/sealstone"

// bin is the program under test; Main builds it.
var bin string

// Main builds the program once, runs the tests, and ends the process.
// SEALSTONE_BIN names a program to take instead.
func Main(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if bin = os.Getenv("SEALSTONE_BIN"); bin != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "sealstone-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = filepath.Join(dir, "sealstone")
	if err := Build(bin); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// Build writes the program to a file. It has the race detector when the tests
// have it.
func Build(out string) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	args := []string{"build", "-C", root, "-buildvcs=false", "-o", out}
	if Race() {
		args = append(args, "-race")
	}
	if text, err := exec.Command("go", append(args, "./cmd/sealstone")...).CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, text)
	}
	return nil
}

func moduleRoot() (string, error) {
	text, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", Module).Output()
	if err != nil {
		return "", fmt.Errorf("where is %s: %w", Module, err)
	}
	return strings.TrimSpace(string(text)), nil
}

// touch opens every folder of the module, once and inside a test: that is how
// the go command learns that a result must not come from its cache when a
// source of the program changed.
var touch = sync.OnceValue(func() error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != root && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir
		}
		return err
	})
})

// GORACE is for the environment of programs that have the race detector: by
// itself it lets each of them sleep a second before it exits.
const GORACE = "atexit_sleep_ms=10"

// Race tells whether the tests, and so the program, have the race detector.
func Race() bool {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

// Result is how a command ended.
type Result struct {
	Code           int
	Stdout, Stderr string
}

// runBin runs the program to its end.
func runBin(t testing.TB, dir string, env []string, args ...string) Result {
	t.Helper()
	cmd := exec.Command(bin, args...)
	var out, stderr bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, &out, &stderr
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	return Result{cmd.ProcessState.ExitCode(), out.String(), stderr.String()}
}

// Await receives from a channel, and names what did not come.
func Await[T any](t testing.TB, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(Patience):
		t.Fatalf("waited %s in vain for %s", Patience, what)
		panic("unreachable")
	}
}

// Patience is how long conditions are waited for: far above what a slow, busy
// machine needs, because passing tests never wait it out.
const Patience = time.Minute

// Until polls a condition that other processes bring about.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain for %s", Patience, what)
		}
	}
}

// Program is the path of the program under test.
func Program() string { return bin }
