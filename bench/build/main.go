// Command build measures the bundler on a generated repository, beside what
// can't be left out: cloning it and parsing the same YAML. It writes its part of
// docs/benchmarks.md.
//
//	go run ./build -o ../docs/benchmarks.md
//
// It needs git. Each subject runs in processes of its own, in turns.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sealstone/sealstone/bench/page"
)

const marks = page.Marks("make bench-build")

func main() {
	f := fleet{docs: 44}
	flag.IntVar(&f.services, "services", 1000, "services of 50 files each")
	flag.IntVar(&f.commits, "commits", 200, "commits of the history")
	rounds := flag.Int("rounds", 3, "processes for each subject; the fastest time counts")
	out := flag.String("o", "", "page whose generated part is written; empty prints it")
	one := flag.String("subject", "", "measure this one in the repository at -repo, as the processes do")
	repo := flag.String("repo", "", "see -subject")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	do := func() error { return run(ctx, f, *rounds, *out) }
	if *one != "" {
		do = func() error { return child(ctx, *one, *repo) }
	}
	if err := do(); err != nil {
		fmt.Fprintln(os.Stderr, "bench/build:", err)
		os.Exit(1)
	}
}

// A result is the fastest time of a subject and the most memory it took.
type result struct {
	Times []time.Duration
	Peak  int // KiB of this process, without its children
}

func (r *result) fastest() time.Duration { return slices.Min(r.Times) }

func child(ctx context.Context, name, repo string) error {
	i := slices.IndexFunc(subjects, func(s subject) bool { return s.name == name })
	if i < 0 {
		return fmt.Errorf("no subject %q", name)
	}
	times, err := subjects[i].run(ctx, repo)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result{times, peak()})
}

// peak is the most memory that this process had, 0 where /proc doesn't say.
func peak() int {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.Atoi(strings.Fields(text)[0])
			return kib
		}
	}
	return 0
}

func run(ctx context.Context, f fleet, rounds int, out string) error {
	tmp, err := os.MkdirTemp("", "bench-build")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	r := report{machine: page.This("../bundler", "../bundle", "../internal/canon", "../schemas", "./build"), rounds: rounds}
	r.fewServices, err = fleet{max(1, f.services/4), f.docs, f.commits}.measure(ctx, filepath.Join(tmp, "few-services"), rounds)
	if err != nil {
		return err
	}
	r.fewFiles, err = fleet{f.services, 10, f.commits}.measure(ctx, filepath.Join(tmp, "few-files"), rounds)
	if err != nil {
		return err
	}
	if r.whole, err = f.measure(ctx, filepath.Join(tmp, "whole"), rounds); err != nil {
		return err
	}
	return marks.Write(out, r.markdown())
}

// A measured is a fleet and what its subjects came to.
type measured struct {
	fleet
	results map[string]*result
}

func (f fleet) measure(ctx context.Context, dir string, rounds int) (*measured, error) {
	fmt.Fprintf(os.Stderr, "generating %d files in %d services, %d commits\n", f.files(), f.services, f.commits)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	if err := f.generate(dir); err != nil {
		return nil, err
	}
	m := &measured{f, map[string]*result{}}
	for n := range rounds {
		for _, s := range subjects {
			fmt.Fprintf(os.Stderr, "measuring (%d of %d): %s\n", n+1, rounds, s.name)
			if err := m.add(ctx, s.name, dir); err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	return m, nil
}

func (m *measured) add(ctx context.Context, name, dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "-subject", name, "-repo", dir)
	cmd.Stderr = os.Stderr
	raw, err := cmd.Output()
	if err != nil {
		return err
	}
	var got result
	if err := json.Unmarshal(raw, &got); err != nil {
		return err
	}
	if m.results[name] == nil {
		m.results[name] = &result{}
	}
	r := m.results[name]
	r.Times, r.Peak = append(r.Times, got.Times...), max(r.Peak, got.Peak)
	return nil
}
