package ofrep

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealstone/sealstone/integration/proctest"
)

// installWeb puts the script and its packages into a folder of the test.
func installWeb(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s, which is not installed: the web provider is not tested", tool)
		}
	}
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", "client.mjs"} {
		b, err := os.ReadFile(filepath.Join("web", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	return dir
}

// page is a running client.mjs.
type page struct {
	t      *testing.T
	in     io.WriteCloser
	events chan event
	seen   []event
}

// event is a line that the script prints.
type event struct {
	Event   string
	Message string

	Status      int // of a fetch
	Query, ETag string
	IfNoneMatch string
	Flags       []string // that changed
	Mismatch    string
	Values      map[string]any
	Express     details
	Missing     details
}

type details struct {
	Value                      any
	Reason, Variant, ErrorCode string
	Metadata                   map[string]any
	FlagMetadata               map[string]any
}

func openPage(t *testing.T, dir, base, detection, context string) *page {
	t.Helper()
	cmd := exec.Command("node", "client.mjs", base, detection, context)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &page{t: t, in: in, events: make(chan event, 10000)}
	go func() {
		defer close(p.events)
		for sc := bufio.NewScanner(out); sc.Scan(); {
			var e event
			if err := json.Unmarshal(sc.Bytes(), &e); err != nil {
				e = event{Event: "unreadable", Message: sc.Text()}
			}
			p.events <- e
		}
	}()
	t.Cleanup(func() {
		fmt.Fprintln(in, "end")
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		for range p.events {
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the page ended with %v", err)
		}
	})
	return p
}

// until reads what the page prints until an event is what is waited for.
func (p *page) until(what string, ok func(event) bool) event {
	p.t.Helper()
	for deadline := time.After(proctest.Patience); ; {
		select {
		case e, more := <-p.events:
			if !more || e.Event == "failed" || e.Event == "unreadable" {
				p.t.Fatalf("waiting for %s, the page ended or failed: %+v; before: %+v", what, e, p.seen)
			}
			p.seen = append(p.seen, e)
			if ok(e) {
				return e
			}
		case <-deadline:
			p.t.Fatalf("waited in vain for %s; seen: %+v", what, p.seen)
		}
	}
}

func (p *page) next(name string) event {
	p.t.Helper()
	return p.until(name, func(e event) bool { return e.Event == name })
}

func (p *page) context(json string) event {
	p.t.Helper()
	fmt.Fprintln(p.in, "context "+json)
	return p.next("context")
}

const base = "/at/checkout@prod/eu-west-1"

func webReadsItsFlags(t *testing.T, dir string, _ *proctest.Rig, s *proctest.Server) {
	p := openPage(t, dir, s.URL+base, "none", `{"targetingKey":"user-1","country":"FR"}`)
	e := p.next("ready")
	for name, want := range map[string]any{"express": false, "flow": "classic", "shipping": 5000.0, "codeDefault": "the code", "disabled": true} {
		if e.Values[name] != want {
			t.Errorf("%s is %v, want %v", name, e.Values[name], want)
		}
	}
	if got := fmt.Sprint(e.Values["object"]); got != "map[columns:2 parts:[a b]]" {
		t.Errorf("object %s", got)
	}
	md := e.Express.Metadata
	if e.Express.Reason != "STATIC" || e.Express.Variant != "off" || md["flagSetId"] != "checkout" || md["mode"] != "normal" || md["owner"] != "team-checkout" || !strings.HasPrefix(fmt.Sprint(md["version"]), "sha256:") {
		t.Errorf("express: %+v", e.Express)
	}
	if e.Missing.ErrorCode != "FLAG_NOT_FOUND" || e.Missing.Value != true || e.Missing.FlagMetadata["version"] != md["version"] || e.Missing.FlagMetadata["headAge"] != 0.0 {
		t.Errorf("missing: %+v", e.Missing)
	}
	if e.Mismatch != "TYPE_MISMATCH" {
		t.Errorf("mismatch: %s", e.Mismatch)
	}

	// The targeting key stays, so the provider sends the old context's tag.
	e = p.context(`{"targetingKey":"user-1","country":"DE"}`)
	last := p.seen[len(p.seen)-2]
	if e.Values["shipping"] != 2500.0 || last.Event != "fetch" || last.IfNoneMatch == "" || last.Status != 200 {
		t.Errorf("another country: %v after %+v", e.Values, last)
	}
}

func webIsToldNothingChanged(t *testing.T, dir string, _ *proctest.Rig, s *proctest.Server) {
	p := openPage(t, dir, s.URL+base, "polling", `{"targetingKey":"user-1"}`)
	first := p.until("the first answer", func(e event) bool { return e.Event == "fetch" && e.Status == 200 })
	p.next("ready")
	for range 3 {
		e := p.next("fetch")
		if e.Status != 304 || e.IfNoneMatch != first.ETag || e.ETag != first.ETag {
			t.Errorf("polling: %+v, first %s", e, first.ETag)
		}
	}
}

func webIsToldOfChanges(t *testing.T, dir string, r *proctest.Rig, s *proctest.Server) {
	p := openPage(t, dir, s.URL+base, "sse", `{"targetingKey":"user-1"}`)
	p.next("ready")
	r.Edit(checkoutFlags, `(?s)(express-checkout:.*?defaultVariant: )off`, "${1}on")
	r.Push("Express checkout for all")
	e := p.next("changed")
	if e.Values["express"] != true || !slices.Contains(e.Flags, "express-checkout") {
		t.Errorf("after a push: %+v", e)
	}
	fetched := p.seen[len(p.seen)-2]
	if !strings.Contains(fetched.Query, "flagConfigEtag=") || !strings.Contains(fetched.Query, "flagConfigLastModified=") {
		t.Errorf("the event's version was not sent: %+v", fetched)
	}

	s.OK("safe-mode", "enter", "checkout", "degraded", "--scope", "prod", "--reason", "INC-123")
	if e := p.next("changed"); e.Express.Metadata["mode"] != "degraded" {
		t.Errorf("in safe mode: %+v", e.Express)
	}
}

// After a restart the address that the page has is worth nothing: it must get a
// new one although no flag has changed.
func webFindsItsWayBack(t *testing.T, dir string, r *proctest.Rig, s *proctest.Server) {
	p := openPage(t, dir, s.URL+base, "sse", `{"targetingKey":"user-2"}`)
	if e := p.next("ready"); e.Express.Metadata["mode"] != "degraded" {
		t.Fatalf("%+v", e)
	}
	s.Kill()
	p.next("stale")
	s = r.ServeAt(s.Addr)
	p.until("a whole answer", func(e event) bool { return e.Event == "fetch" && e.Status == 200 && e.IfNoneMatch != "" })
	s.OK("safe-mode", "exit", "checkout", "--scope", "prod")
	p.until("normal mode", func(e event) bool { return e.Event == "changed" && e.Express.Metadata["mode"] == "normal" })
}
