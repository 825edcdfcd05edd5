package main

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// shells must not be in the image, under any folder.
var shells = []string{"sh", "ash", "bash", "dash", "busybox", "toybox", "zsh", "env"}

// judgeRoot looks at the files that the last stage would hold.
func judgeRoot(b *builder) []error {
	var out []error
	last := len(b.df.stages) - 1
	root := b.at(last, "/")
	programs := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if slices.Contains(shells, d.Name()) {
			out = append(out, fmt.Errorf("a shell in the image: %s", strings.TrimPrefix(path, root)))
		}
		if isELF(path) {
			programs++
		}
		return nil
	})
	if err != nil {
		out = append(out, err)
	}
	if programs != 1 {
		out = append(out, fmt.Errorf("%d programs in the image, want one", programs))
	}
	for _, path := range b.missing {
		if !strings.HasSuffix(path, ".crt") {
			out = append(out, fmt.Errorf("%s is copied out of the base image: build it, or name why it is safe", path))
		}
	}
	return out
}

func isELF(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	f.Close()
	return true
}

// judgeBinary looks into the program: no loader, no libraries, built as the
// Dockerfile says, nothing of the machine it was built on, and it starts.
func judgeBinary(path string, foreign []string) []error {
	out := judgeELF(path)
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return append(out, err)
	}
	for _, s := range info.Settings {
		if strings.HasPrefix(s.Key, "vcs") {
			out = append(out, fmt.Errorf("the binary records %s: two clones would differ", s.Key))
		}
	}
	for key, want := range map[string]string{"CGO_ENABLED": "0", "-trimpath": "true"} {
		if got := setting(info, key); got != want {
			out = append(out, fmt.Errorf("%s is %q in the binary, want %q", key, got, want))
		}
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return append(out, err)
	}
	for _, f := range foreign {
		if bytes.Contains(raw, []byte(f)) {
			out = append(out, fmt.Errorf("the binary holds the build's path %s", f))
		}
	}
	cmd := exec.Command(path, "version")
	cmd.Env = []string{}
	if text, err := cmd.CombinedOutput(); err != nil {
		out = append(out, fmt.Errorf("the program doesn't start: %w: %s", err, bytes.TrimSpace(text)))
	}
	return out
}

func setting(info *buildinfo.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

func judgeELF(path string) []error {
	f, err := elf.Open(path)
	if err != nil {
		return []error{err}
	}
	defer f.Close()
	var out []error
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			out = append(out, fmt.Errorf("not static: the binary has a %s segment", p.Type))
		}
	}
	if f.Section(".symtab") != nil || f.Section(".debug_info") != nil || f.Section(".zdebug_info") != nil {
		out = append(out, fmt.Errorf("not stripped: build with -ldflags \"-s -w\""))
	}
	return out
}
