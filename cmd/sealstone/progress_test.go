package main

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// What is shown of work that takes a while, on a terminal and elsewhere.
func TestProgress(t *testing.T) {
	for _, c := range []struct {
		name string
		live bool
		took time.Duration
		want string
	}{
		{"short, plain", false, 1900 * time.Millisecond, ""},
		{"long, plain", false, 13 * time.Second, "2s\n12s\n"},
		{"short, live", true, 250 * time.Millisecond, ""},
		{"long, live", true, 600 * time.Millisecond, "\r300ms\x1b[K\r500ms\x1b[K\r\x1b[K"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				end, ended := make(chan struct{}), make(chan struct{})
				go func() {
					defer close(ended)
					report(&out, c.live, func(took time.Duration) string { return fmt.Sprint(took) }, end)
				}()
				time.Sleep(c.took)
				close(end)
				<-ended
				if out.String() != c.want {
					t.Errorf("%q, want %q", out.String(), c.want)
				}
			})
		})
	}
}

// Programs that read JSON get no lines in between.
func TestProgressIsForPeople(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for output, want := range map[string]string{"table": "working\n", "json": "", "jsonl": ""} {
			var out bytes.Buffer
			stop := (&app{err: &out, output: output}).progress(func(time.Duration) string { return "working" })
			time.Sleep(3 * time.Second)
			stop()
			if out.String() != want {
				t.Errorf("-o %s: %q, want %q", output, out.String(), want)
			}
		}
	})
}
