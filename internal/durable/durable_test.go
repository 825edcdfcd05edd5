package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

var steps = []string{"create", "write", "set the mode", "sync", "close", "rename", "sync the directory"}

func TestWriteFileDoesTheStepsInOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	var saw []string
	if err := write(path, []byte("new"), 0o640, func(s string) error { saw = append(saw, s); return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(saw, steps) {
		t.Errorf("steps %q, want %q", saw, steps)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v (%v), want 0640", info.Mode(), err)
	}
}

// A step that fails, or at which the process dies, leaves the old file or the
// new one, whole; a failure leaves nothing else.
func TestAFaultAtEachStepLeavesAWholeFile(t *testing.T) {
	fault := errors.New("fault")
	for i, step := range steps {
		for _, old := range []string{"", "old"} {
			for _, crash := range []bool{false, true} {
				t.Run(strings.Join([]string{step, old, map[bool]string{false: "fails", true: "dies"}[crash]}, " "), func(t *testing.T) {
					dir := t.TempDir()
					path := filepath.Join(dir, "f")
					if old != "" {
						if err := os.WriteFile(path, []byte(old), 0o600); err != nil {
							t.Fatal(err)
						}
					}
					err := until(path, step, fault, crash)
					if !crash && !errors.Is(err, fault) {
						t.Errorf("error %v", err)
					}
					want := old
					if i > slices.Index(steps, "rename") {
						want = "new"
					}
					if got, err := os.ReadFile(path); string(got) != want || want != "" && err != nil {
						t.Errorf("holds %q (%v), want %q", got, err, want)
					}
					left, _ := filepath.Glob(filepath.Join(dir, Temporary))
					if want := crash && step != "create" && want == old; (len(left) > 0) != want {
						t.Errorf("left behind %q", left)
					}
				})
			}
		}
	}
}

// until writes a file until before a step.
func until(path, step string, fault error, crash bool) error {
	defer func() { _ = recover() }()
	return write(path, []byte("new"), 0o600, func(s string) error {
		switch {
		case s != step:
			return nil
		case crash:
			panic("dies here")
		}
		return fault
	})
}

func TestWriteFileSaysWhatItCouldNotWrite(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		path string
		want error
	}{
		"no directory":       {filepath.Join(dir, "none", "f"), fs.ErrNotExist},
		"a directory is it":  {dir, syscall.EEXIST},
		"a file in its path": {filepath.Join(dir, "file", "f"), syscall.ENOTDIR},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			err := WriteFile(c.path, []byte("new"), 0o600)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), "write "+c.path+": ") {
				t.Errorf("error %v, want %v", err, c.want)
			}
		})
	}
}
