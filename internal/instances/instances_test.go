package instances

import (
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
)

var start = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

func instance(target, id string, edit func(*api.Instance)) *api.Instance {
	t, err := api.ParseTarget(target)
	if err != nil {
		panic(err)
	}
	in := &api.Instance{Target: t, ID: id, Version: "v1.2.3", Revision: strings.Repeat("4f2a9c0d", 5), Artifact: digest("program"), Image: digest("image"), BaseImage: digest("base"),
		SDK: "0.1.0", Started: api.FormatTime(start), Bundle: api.Digest(digest("bundle")), Set: api.Digest(digest("set")), Mode: api.ModeNormal, Index: 2, LogSize: 3,
		HeadAt: api.FormatTime(start), State: api.StateReady, SafeModes: []api.Mode{"degraded", "read-only"}}
	if edit != nil {
		edit(in)
	}
	return in
}

func digest(s string) string { return string(api.DigestOf([]byte(s))) }

func report(t testing.TB, table *Table, in *api.Instance, at time.Time) (want bool) {
	t.Helper()
	want, err := table.Put(in, "eu", at)
	if err != nil {
		t.Fatal(err)
	}
	return want
}

func open(t testing.TB, path string) *Table {
	t.Helper()
	table, err := Open(path, start)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func at(t *testing.T, table *Table, when time.Time) (list []string) {
	t.Helper()
	err := table.At(when, "", func(r *Row) {
		list = append(list, fmt.Sprintf("%s %s %s %s", r.ID, r.Facts.Version, Time(r.Since)[11:19], table.Lease(r, when)))
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestLease(t *testing.T) {
	table, r := newTable(), Row{Seen: start.UnixMilli()}
	for after, want := range map[time.Duration]string{0: "live", 35 * time.Second: "live", 36 * time.Second: "suspect", 60 * time.Second: "suspect", 61 * time.Second: "gone"} {
		if got := table.Lease(&r, start.Add(after)); got != want {
			t.Errorf("after %v: %s, want %s", after, got, want)
		}
	}
}

// A restart knows what it knew: rows, intervals, lists, and when each was seen.
func TestKeepsIntervalsOverARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "instances.db")
	table := open(t, path)
	v2 := func(in *api.Instance) { in.Version = "v2.0.0" }
	deps := []string{"pkg:golang/golang.org/x/net@v0.39.0"}
	withDeps := func(in *api.Instance) { in.Deps = api.DependenciesDigest(deps) }
	if !report(t, table, instance("checkout@prod", "a", withDeps), start) {
		t.Error("the list isn't wanted")
	}
	if report(t, table, instance("checkout@prod", "a", func(in *api.Instance) { withDeps(in); in.DepList = deps }), start) {
		t.Error("the list is wanted again")
	}
	report(t, table, instance("checkout@prod", "b", nil), start)
	for s := range 4 {
		report(t, table, instance("checkout@prod", "a", withDeps), start.Add(time.Duration(15*s)*time.Second))
	}
	report(t, table, instance("checkout@prod", "a", v2), start.Add(time.Minute))
	report(t, table, instance("checkout@prod", "a", v2), start.Add(2*time.Minute))
	report(t, table, instance("checkout@prod", "b", nil), start.Add(10*time.Minute)) // it was gone
	check := func(when string) {
		t.Helper()
		same(t, when+" before", at(t, table, start.Add(-time.Second)))
		same(t, when+" first", at(t, table, start.Add(40*time.Second)), "a v1.2.3 10:00:00 live", "b v1.2.3 10:00:00 suspect")
		same(t, when+" second", at(t, table, start.Add(90*time.Second)), "a v2.0.0 10:01:00 live", "b v1.2.3 10:00:00 gone")
		same(t, when+" back", at(t, table, start.Add(10*time.Minute)), "a v2.0.0 10:01:00 gone", "b v1.2.3 10:10:00 live")
	}
	check("in memory")
	for _, step := range []string{"flushed", "opened again", "opened twice"} {
		if err := table.Close(start.Add(10 * time.Minute)); err != nil {
			t.Fatal(err)
		}
		table = open(t, path)
		check(step)
	}
	rows := table.Find("a")
	if len(rows) != 1 || rows[0].Seen != start.Add(2*time.Minute).UnixMilli() || rows[0].State != api.StateReady || rows[0].Report().SafeModes[1] != "read-only" {
		t.Errorf("after the restart: %+v", rows)
	}
	if n := table.Len(); n != 2 || !table.Reports("checkout", "prod") || table.Reports("checkout", "staging") {
		t.Errorf("%d rows", n)
	}
	if hits, known := table.Dependency("golang.org/x/net", "v0.40.0"); len(hits) != 0 || len(known) != 0 {
		t.Errorf("nobody runs it any more: %v", hits)
	}
	if err := table.Prune(start.Add(91 * 24 * time.Hour)); err != nil {
		t.Fatal(err)
	}
	same(t, "pruned", at(t, table, start.Add(40*time.Second)))
	report(t, table, instance("checkout@prod/eu", "c", nil), start.Add(time.Hour))
	if err := table.Close(start); err != nil {
		t.Fatal(err)
	}
}

func TestForgetsWhoIsGone(t *testing.T) {
	table := open(t, "")
	report(t, table, instance("checkout@prod/eu", "a", nil), start)
	report(t, table, instance("checkout@prod/eu", "a", nil), start.Add(30*time.Second))
	report(t, table, instance("pay@prod", "b", nil), start.Add(23*time.Hour))
	table.Forget(start.Add(25 * time.Hour))
	if table.Len() != 1 || table.Reports("checkout", "prod") || !table.Reports("pay", "prod") || len(table.groups) != 1 {
		t.Errorf("%d rows, %d groups", table.Len(), len(table.groups))
	}
	same(t, "what it ran", at(t, table, start.Add(10*time.Second)), "a v1.2.3 10:00:00 live")
}

func TestDependencies(t *testing.T) {
	table := open(t, "")
	list := []string{"pkg:golang/golang.org/x/net/v2@v2.0.0", "pkg:golang/golang.org/x/net@v0.39.0", "pkg:golang/stdlib@v1.26.0", "pkg:npm/net@1.0.0", "pkg:npm/odd@latest",
		"pkg:golang/pseudo@v0.0.0-20250101000000-0123456789ab", "pkg:golang/after@v0.40.1-0.20250101000000-0123456789ab", "pkg:golang/old@v2.0.0%2Bincompatible", "pkg:golang/replaced@",
		"pkg:npm/%40angular/core@16.2.0", "pkg:golang/github.com/azure/x@v1.0.0", "pkg:pypi/requests@2.31.0", "pkg:pypi/post@2.0.post1", "pkg:deb/debian/openssl@3.0.9-1?arch=amd64"}
	slices.Sort(list)
	report(t, table, instance("checkout@prod", "a", func(in *api.Instance) { in.Deps, in.DepList = api.DependenciesDigest(list), list }), start)
	for _, c := range []struct{ name, below, want string }{
		{"golang.org/x/net", "", "pkg:golang/golang.org/x/net@v0.39.0"},
		{"golang.org/x/net", "v0.40.0", "pkg:golang/golang.org/x/net@v0.39.0"},
		{"golang.org/x/net", "0.40.0", "pkg:golang/golang.org/x/net@v0.39.0"},
		{"golang.org/x/net", "v0.39.0", ""},
		{"golang.org/x", "v9.0.0", ""},
		{"pkg:npm/net", "2.0.0", "pkg:npm/net@1.0.0"},
		{"net", "2.0.0", "pkg:npm/net@1.0.0"},
		{"odd", "2.0.0", "pkg:npm/odd@latest ?"},
		{"stdlib", "1.26.1", "pkg:golang/stdlib@v1.26.0"},
		{"pseudo", "v0.40.0", "pkg:golang/pseudo@v0.0.0-20250101000000-0123456789ab"},
		{"pseudo", "v0.0.0-20240101000000-0123456789ab", ""},
		{"after", "v0.40.1", "pkg:golang/after@v0.40.1-0.20250101000000-0123456789ab"},
		{"after", "v0.40.0", ""},
		{"old", "v3.0.0", "pkg:golang/old@v2.0.0%2Bincompatible"},
		{"old", "v2.0.0", ""},
		{"replaced", "v0.1.0", "pkg:golang/replaced@ ?"},
		{"@angular/core", "17", "pkg:npm/%40angular/core@16.2.0"},
		{"pkg:npm/@angular/core", "16", ""},
		{"github.com/Azure/x", "v2.0.0", "pkg:golang/github.com/azure/x@v1.0.0"},
		{"requests", "2.32", "pkg:pypi/requests@2.31.0"},
		{"post", "2.0", "pkg:pypi/post@2.0.post1 ?"},
		{"debian/openssl", "3.0.1", "pkg:deb/debian/openssl@3.0.9-1 ?"},
		{"debian/openssl", "", "pkg:deb/debian/openssl@3.0.9-1"},
		{"pkg:deb/debian/openssl@3.0.9-1?arch=amd64", "", "pkg:deb/debian/openssl@3.0.9-1"}, // as a table shows it
		{"pkg:pypi/requests@2.31.0", "", "pkg:pypi/requests@2.31.0"},
		{"requests@2.32.0", "", ""},
		{"@angular/core@16.2.0", "", "pkg:npm/%40angular/core@16.2.0"},
		{"pkg:npm/%40angular/core@16.2.0", "", "pkg:npm/%40angular/core@16.2.0"},
		{"pkg:npm/@angular/core@16.2", "", ""},
	} {
		hits, known := table.Dependency(c.name, c.below)
		got := ""
		for _, h := range hits[api.DependenciesDigest(list)] {
			got += strings.TrimSuffix(h.URL, "?arch=amd64")
			if h.Unordered {
				got += " ?"
			}
		}
		if got != c.want || len(known) != 1 {
			t.Errorf("%s below %s: %q, want %q", c.name, c.below, got, c.want)
		}
	}
}

// A test, or a program that wasn't built from modules, says its Go version only:
// nothing is known of what else it is made of.
func TestOnlyTheGoVersionIsKnown(t *testing.T) {
	table := open(t, "")
	list := []string{"pkg:golang/stdlib@v1.26.0"}
	report(t, table, instance("checkout@prod", "a", func(in *api.Instance) { in.Deps, in.DepList = api.DependenciesDigest(list), list }), start)
	for name, want := range map[string]bool{"golang.org/x/mod": false, "stdlib": true, "pkg:golang/stdlib": true, "stdlib@v1.26.0": true} {
		if _, known := table.Dependency(name, "v0.1.0"); known[api.DependenciesDigest(list)] != want {
			t.Errorf("%s: known %v, want %v", name, !want, want)
		}
	}
}

func TestHostileReports(t *testing.T) {
	table := open(t, "")
	long := strings.Repeat("x", 300)
	for name, edit := range map[string]func(*api.Instance){
		"no id":           func(in *api.Instance) { in.ID = "" },
		"long id":         func(in *api.Instance) { in.ID = long },
		"control":         func(in *api.Instance) { in.Version = "v1\x1b[2J" },
		"no scope":        func(in *api.Instance) { in.Target.Scope = "" },
		"long member":     func(in *api.Instance) { in.Image = long },
		"bundle":          func(in *api.Instance) { in.Bundle = "sha256:1" },
		"artifact":        func(in *api.Instance) { in.Artifact = "sha256:xx" },
		"index":           func(in *api.Instance) { in.Index = -5 },
		"log size":        func(in *api.Instance) { in.LogSize = -1 },
		"a head to come":  func(in *api.Instance) { in.HeadAt = "9999-01-01T00:00:00.000Z" },
		"state":           func(in *api.Instance) { in.State = "FINE" },
		"time":            func(in *api.Instance) { in.Started = "yesterday" },
		"mode":            func(in *api.Instance) { in.Mode = "No Mode" },
		"modes":           func(in *api.Instance) { in.SafeModes = make([]api.Mode, 65) },
		"refusal":         func(in *api.Instance) { in.Refusal = &api.Refusal{Check: long} },
		"list, other":     func(in *api.Instance) { in.Deps, in.DepList = api.Digest(digest("x")), []string{"pkg:npm/a@1"} },
		"list, unsorted":  func(in *api.Instance) { in.DepList = []string{"pkg:npm/b@1", "pkg:npm/a@1"} },
		"list, no url":    func(in *api.Instance) { in.DepList = []string{"a"} },
		"list, long":      func(in *api.Instance) { in.DepList = slices.Repeat([]string{"pkg:npm/a@1"}, maxDeps+1) },
		"list, long line": func(in *api.Instance) { in.DepList = []string{"pkg:npm/a@" + strings.Repeat("1", maxDep)} },
	} {
		if _, err := table.Put(instance("checkout@prod", "a", edit), "eu", start); api.CodeOf(err) != api.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	if table.Len() != 0 {
		t.Errorf("%d rows", table.Len())
	}
}

// A client that floods is stopped; others go on.
func TestAFloodIsBounded(t *testing.T) {
	table := open(t, "")
	var err error
	n := 0
	for ; err == nil && n < 2*factsBurst; n++ {
		_, err = table.Put(instance("checkout@prod", "a", func(in *api.Instance) { in.Version = fmt.Sprint(n) }), "bad", start)
	}
	if api.CodeOf(err) != api.CodeTooMany || n != factsBurst+1 {
		t.Errorf("new facts: %v after %d", err, n)
	}
	for err = nil; err == nil && n < 3*reportBurst; n++ {
		_, err = table.Put(instance("checkout@prod", "a", func(in *api.Instance) { in.Version = "0" }), "bad", start)
	}
	if api.CodeOf(err) != api.CodeTooMany || n > reportBurst+10 {
		t.Errorf("reports: %v after %d", err, n)
	}
	report(t, table, instance("checkout@prod", "b", nil), start)
	if _, err := table.Put(instance("checkout@prod", "a", func(in *api.Instance) { in.Version = "0" }), "bad", start.Add(time.Second)); err != nil {
		t.Errorf("a second later: %v", err)
	}
}

// fill reports n instances of 20 targets, three versions, ids as pods have.
func fill(t testing.TB, table *Table, n int, when time.Time) {
	t.Helper()
	for i := range n {
		in := instance(fmt.Sprintf("svc-%d@prod/eu-west-%d", i%10, i%2), fmt.Sprintf("checkout-7d9f8c6b5d-%08x", i), func(in *api.Instance) { in.Version = fmt.Sprint("v1.2.", i%3) })
		if _, err := table.Put(in, fmt.Sprint("c", i%100), when); err != nil {
			t.Fatal(err)
		}
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestAHundredThousandFitInMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("fills the table")
	}
	before := heap()
	table := open(t, filepath.Join(t.TempDir(), "instances.db"))
	fill(t, table, Max, start)
	if _, err := table.Put(instance("checkout@prod", "one more", nil), "c1", start); api.CodeOf(err) != api.CodeTooMany {
		t.Errorf("beyond the limit: %v", err)
	}
	report(t, table, instance("checkout@prod", "one of few", nil), start) // of a client that has fewer
	if err := table.Flush(start); err != nil {
		t.Fatal(err)
	}
	used := heap() - before
	t.Logf("%d instances: %.1f MB, %d groups", table.Len(), float64(used)/1e6, len(table.groups))
	if used > 200e6 {
		t.Errorf("%d instances hold %d bytes", table.Len(), used)
	}
	report(t, table, instance("checkout@prod", "new", nil), start.Add(11*time.Minute)) // who is gone gives way
	if err := table.Close(start); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkHeartbeat(b *testing.B) {
	for _, n := range []int{1000, Max} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			table := open(b, "")
			fill(b, table, n, start)
			in := instance("svc-1@prod/eu-west-1", "checkout-7d9f8c6b5d-00000001", func(in *api.Instance) { in.Version = "v1.2.1" })
			now := start
			for b.Loop() {
				now = now.Add(time.Millisecond)
				if _, err := table.Put(in, "c1", now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkFlush(b *testing.B) {
	table := open(b, filepath.Join(b.TempDir(), "instances.db"))
	fill(b, table, Max, start)
	if err := table.Flush(start); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		b.StopTimer()
		for i := range table.unsavedPages() {
			table.unsaved.pulses[i] = true
		}
		b.StartTimer()
		if err := table.Flush(start); err != nil {
			b.Fatal(err)
		}
	}
}

func (t *Table) unsavedPages() uint32 { return uint32(len(t.rows)+pulsePage-1) / pulsePage }
