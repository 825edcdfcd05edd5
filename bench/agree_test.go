package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestEnginesAgree checks what makes the comparison fair, without measuring.
func TestEnginesAgree(t *testing.T) {
	l, err := assemble()
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	if err := agree(l.engines); err != nil {
		t.Error(err)
	}
	if err := agreeThroughSDK(l.engines[0], l.openFeature[0]); err != nil {
		t.Error(err)
	}
}

// TestHandleAllocatesNothing holds the exact part of the budgets.
func TestHandleAllocatesNothing(t *testing.T) {
	l, err := assemble()
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	u := user(1)
	for _, e := range l.engines[:3] {
		for _, key := range []string{keyStatic, keyOne, keyTen} {
			ask := e.for1(u).one(key)
			if n := testing.AllocsPerRun(100, func() { ask(1) }); n != 0 {
				t.Errorf("%s, %s: %v allocations", e.name, key, n)
			}
		}
	}
	all := l.engines[0].for1(u).all()
	if n := testing.AllocsPerRun(20, func() { all(1) }); n > 1 {
		t.Errorf("all flags: %v allocations", n)
	}
	var through [2]float64
	for i, e := range l.openFeature[:2] {
		ask := e.for1(u).one(keyTen)
		through[i] = testing.AllocsPerRun(100, func() { ask(1) })
	}
	if through[0] != through[1] {
		t.Errorf("our provider: %v allocations, one that gives a constant: %v", through[0], through[1])
	}
}

// TestReportReplacesItsPartOnly runs everything, too briefly to mean anything.
func TestReportReplacesItsPartOnly(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	if err := os.WriteFile(page, []byte("before\n"+marks.Begin()+"\nold\n"+marks.End()+"\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), meter{run: time.Microsecond, rounds: 1}, page); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(got, []byte("before\n")) || !bytes.HasSuffix(got, []byte("\nafter\n")) || bytes.Contains(got, []byte("\nold\n")) {
		t.Errorf("the page became\n%s", got)
	}
	for _, want := range []string{"## Budgets", "| handle, ten rules: ≤ 3× written by hand |", "| flagd core |", "## Loading 1,000 flags", "flagd/core` v0.16.1"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("nothing says %q", want)
		}
	}
}
