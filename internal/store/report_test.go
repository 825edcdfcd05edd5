package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// What is between these lines of docs/benchmarks.md belongs to this test.
const (
	reportBegin = "<!-- written by make bench-ledger: begin -->"
	reportEnd   = "<!-- written by make bench-ledger: end -->"
)

// TestReport is "make bench-ledger": it measures and writes the ledger's section
// of the page that SEALSTONE_BENCH_LEDGER names. SEALSTONE_BENCH_CHANGES is the
// size of the large log.
func TestReport(t *testing.T) {
	page := os.Getenv("SEALSTONE_BENCH_LEDGER")
	if page == "" {
		t.Skip("make bench-ledger runs it: it takes minutes")
	}
	size := 1_000_000
	if s := os.Getenv("SEALSTONE_BENCH_CHANGES"); s != "" {
		var err error
		if size, err = strconv.Atoi(s); err != nil || size < 10_000 {
			t.Fatalf("SEALSTONE_BENCH_CHANGES=%s: a number from 10000 on", s)
		}
	}
	var out strings.Builder
	commit, _ := exec.Command("git", "rev-parse", "--short", "HEAD").Output()
	fmt.Fprintf(&out, "\n%d cores, %s/%s, %s; commit %s, %s. Absolute times are this machine's, shared and noisy: compare ratios.\n",
		runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), bytes.TrimSpace(commit), time.Now().UTC().Format(time.DateOnly))
	reportAppends(t, &out)
	reportSlowDisks(t, &out)
	reportLarge(t, &out, size)
	writeSection(t, page, out.String())
}

func writeSection(t *testing.T, page, text string) {
	t.Helper()
	b, err := os.ReadFile(page)
	must(t, err)
	before, rest, ok1 := strings.Cut(string(b), reportBegin)
	_, after, ok2 := strings.Cut(rest, reportEnd)
	if !ok1 || !ok2 {
		t.Fatalf("%s lacks the lines %s and %s", page, reportBegin, reportEnd)
	}
	must(t, os.WriteFile(page, []byte(before+reportBegin+"\n"+text+"\n"+reportEnd+after), 0o644))
}

// lane is one way of writing that takes turns with the others.
type lane struct {
	name  string
	run   func(n int) // n changes
	n     int         // changes a turn
	took  []time.Duration
	stops func()
}

// each is the time of one change in the median turn.
func (l *lane) each() time.Duration {
	return slices.Sorted(slices.Values(l.took))[len(l.took)/2] / time.Duration(l.n)
}

// takeTurns compares writers in one run, in turns, so that what else the machine
// does hits all of them.
func takeTurns(turns int, lanes []*lane) {
	for range turns {
		for _, l := range lanes {
			start := time.Now()
			l.run(l.n)
			l.took = append(l.took, time.Since(start))
		}
	}
	for _, l := range lanes {
		l.stops()
	}
}

func reportAppends(t *testing.T, out *strings.Builder) {
	lanes := []*lane{bareLane(t, 0)}
	for _, callers := range []int{1, 8, 64, 512} {
		lanes = append(lanes, appendLane(t, callers, 0))
	}
	takeTurns(15, lanes)
	fmt.Fprintf(out, "\n### Durable append\n\nMedian of 15 turns each. Every change is signed, folded, indexed and on disk, its checkpoint signed and published, before its caller is answered; callers that wait together share a commit.\n\n"+
		"| | a change | changes/s | × one at a time | × bare commit |\n|---|---|---|---|---|\n")
	bare, one := lanes[0].each(), lanes[1].each()
	for _, l := range lanes {
		fmt.Fprintf(out, "| %s | %s | %.0f | %.1f | %.2f |\n", l.name, short(l.each()), float64(time.Second)/float64(l.each()), float64(one)/float64(l.each()), float64(l.each())/float64(bare))
	}
}

// reportSlowDisks is the same on disks whose sync takes longer: no sync is made,
// and each one that would be sleeps.
func reportSlowDisks(t *testing.T, out *strings.Builder) {
	fmt.Fprintf(out, "\n### Durable append on slower disks\n\nMedian of 5 turns each. No sync reaches the disk; each one sleeps instead: two of a bbolt commit, and the anchor's. "+
		"What an append computes counts less the slower the disk is, so that one tends to 1.5 bare commits, three syncs to two, and 64 callers to as many changes a commit as there are callers.\n\n"+
		"| a sync takes | a bare bbolt commit | append, 1 caller | × bare commit | append, 64 callers | × one at a time |\n|---|---|---|---|---|---|\n")
	for _, delay := range []time.Duration{time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond} {
		lanes := []*lane{bareLane(t, delay), appendLane(t, 1, delay), appendLane(t, 64, delay)}
		takeTurns(5, lanes)
		bare, one, many := lanes[0].each(), lanes[1].each(), lanes[2].each()
		fmt.Fprintf(out, "| %s | %s | %s | %.2f | %s | %.1f |\n", delay, short(bare), short(one), float64(one)/float64(bare), short(many), float64(one)/float64(many))
	}
}

func short(d time.Duration) string {
	switch {
	case d > 10*time.Second:
		return fmt.Sprintf("%.0f s", d.Seconds())
	case d > 10*time.Millisecond:
		return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond))
	case d > time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond))
	}
	return fmt.Sprintf("%.0f µs", float64(d)/float64(time.Microsecond))
}

// bareLane puts a row of a leaf's size into bbolt and nothing else. delay is how
// long a sync sleeps; 0 makes it.
func bareLane(t *testing.T, delay time.Duration) *lane {
	db, err := bbolt.Open(filepath.Join(t.TempDir(), "bare.db"), 0o600, &bbolt.Options{NoSync: delay > 0})
	must(t, err)
	value, at := make([]byte, 1400), int64(0)
	return &lane{name: "a bare bbolt commit of one row", n: 50, stops: func() { _ = db.Close() }, run: func(n int) {
		for range n {
			at++
			must(t, db.Update(func(tx *bbolt.Tx) error {
				b, err := tx.CreateBucketIfNotExists([]byte("e"))
				if err != nil {
					return err
				}
				return b.Put(be64(at), value)
			}))
			time.Sleep(2 * delay)
		}
	}}
}

func appendLane(t *testing.T, callers int, delay time.Duration) *lane {
	f := newFixture(t, func(c *Config) { c.noSync = delay > 0 })
	if delay > 0 {
		must(t, f.Close())
		f.cfg.fault = func(step string, after bool) error {
			if step == stepCommit && after {
				time.Sleep(2 * delay)
			}
			return nil
		}
		f.open()
		f.anchor.sync = func(*os.File) error { time.Sleep(delay); return nil }
	}
	f.put(f.operators(1, f.OperatorsSig))
	l := &lane{name: fmt.Sprintf("append, %d callers", callers), n: max(50, 4*callers), stops: func() { _ = f.Store.Close() }}
	if callers == 1 {
		l.name = "append, 1 caller"
	}
	l.run = func(n int) {
		var wg sync.WaitGroup
		for c := range callers {
			wg.Go(func() {
				for k := c; k < n; k += callers {
					if _, err := f.try(activation(fmt.Sprintf("svc-%d", k%16), "prod", k)); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	return l
}

// largeLog is a log of n activations, 200 services in three scopes over a year,
// written as a server writes, but without fsync.
func largeLog(t *testing.T, n int) *fixture {
	at := start
	f := newFixture(t, func(c *Config) {
		c.noSync = true
		c.Now = func() time.Time { return at }
	})
	f.put(f.operators(1, f.OperatorsSig))
	scopes := []api.Scope{"staging", "prod", "prod/eu-west-1"}
	for i := 0; i < n; {
		var drafts []Draft
		for ; len(drafts) < min(2000, n/500) && i < n; i++ { // at least one batch a day
			d := activation(fmt.Sprintf("svc-%d", i%200), scopes[i/200%3], i)
			detail, name, err := ledger.NewDetail(map[string]any{"author": fmt.Sprint("Ada Editor ", i%50), "subject": fmt.Sprint("Raise the limit to ", i)})
			must(t, err)
			d.Detail, d.Data.Detail = detail, name
			drafts = append(drafts, d)
		}
		at = at.Add(365 * 24 * time.Hour / time.Duration(n) * time.Duration(len(drafts)))
		f.put(drafts...)
	}
	return f
}

func reportLarge(t *testing.T, out *strings.Builder, n int) {
	f := largeLog(t, n)
	info, err := os.Stat(filepath.Join(f.cfg.Dir, fileLedger))
	must(t, err)
	size := f.Snapshot().Tree.Size
	fmt.Fprintf(out, "\n### A log of %d changes\n\n| | |\n|---|---|\n", size)
	row := func(name, value string) { fmt.Fprintf(out, "| %s | %s |\n", name, value) }
	row("on disk, a change", fmt.Sprintf("%d bytes", info.Size()/size))
	proof, err := f.ProofEvidence(t.Context(), 0, 0, size/2)
	must(t, err)
	text, err := json.Marshal(proof)
	must(t, err)
	row("evidence of one activation, offline", fmt.Sprintf("%d bytes", len(text)))
	must(t, f.Close())
	f.cfg.noSync = false
	began := time.Now()
	f.open()
	_, _, err = f.Head("svc-1", time.Now())
	must(t, err)
	row("a restart, until the first head is signed (budget 2 s)", short(time.Since(began)))
	middle := start.Add(180 * 24 * time.Hour)
	for _, m := range []struct {
		name string
		do   func() error
	}{
		{"sign a head", func() error { _, _, err := f.Head("svc-1", time.Now()); return err }},
		{"evidence of a service, cold", func() error { _, err := f.Evidence("svc-1", 0, nil, false, time.Now()); return err }},
		{"proof of one entry", func() error { _, err := f.TlogProof(size / 3); return err }},
		{"query: newest 20 of a service", f.asking(Query{Service: "svc-1", Limit: 20})},
		{"query: 20 of a service in a scope, of a kind", f.asking(Query{Service: "svc-7", Scope: "prod/eu-west-1", Kinds: []ledger.Kind{ledger.BundleActivated}, Limit: 20})},
		{"query: 1,000 of a day in the middle of the year", f.asking(Query{From: middle, To: middle.Add(24 * time.Hour), Limit: 1000})},
		{"query: what named a digest", f.asking(Query{Digests: []api.Digest{setRef(n / 2).Digest}, Limit: 20})},
		{"query: newest 20 with two words in their details", f.asking(Query{Text: "editor limit", Limit: 20})},
		{"query: a word that is nowhere in a service's details", f.askingNothing(Query{Service: "svc-1", Text: "nowhere", Limit: 20})},
		{"query: a word that is nowhere: 10,000 details, and where to go on", f.askingNothing(Query{Text: "nowhere", Limit: 20})},
		{"query: a kind that never was", f.askingNothing(Query{Kinds: []ledger.Kind{ledger.InfraChanged}, Limit: 20})},
	} {
		row(m.name, short(median(t, m.do)))
	}
	began = time.Now()
	r, err := f.Verify(t.Context(), nil)
	must(t, err)
	row("verify everything, a 100,000 changes", short(time.Since(began)*100_000/time.Duration(size)))
	for _, x := range r.Findings {
		if !strings.HasPrefix(x.Where, "object ") { // nobody stored the sets
			t.Errorf("finding: %s", x)
		}
	}
}

func (f *fixture) asking(q Query) func() error {
	return func() error {
		found, _, err := f.Query(f.t.Context(), q)
		if err == nil && len(found) == 0 {
			err = errors.New("nothing was found: that is no measure of finding")
		}
		return err
	}
}

func (f *fixture) askingNothing(q Query) func() error {
	return func() error { _, _, err := f.Query(f.t.Context(), q); return err }
}

func median(t *testing.T, do func() error) time.Duration {
	t.Helper()
	var took []time.Duration
	for range 21 {
		began := time.Now()
		must(t, do())
		took = append(took, time.Since(began))
	}
	return slices.Sorted(slices.Values(took))[len(took)/2]
}
