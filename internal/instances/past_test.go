package instances

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/api"
)

// What an instance ran before is found in the file and in memory, newest first
// and without a gap between one run and the next.
func TestPastOfAnInstance(t *testing.T) {
	path := t.TempDir() + "/instances.db"
	table, err := Open(path, start)
	if err != nil {
		t.Fatal(err)
	}
	in := api.Instance{Target: api.Target{Service: "checkout", Scope: "prod"}, ID: "pod-1", State: api.StateReady}
	for i, version := range []string{"1", "2", "3"} {
		in.Version = version
		for n := range 3 {
			if _, err := table.Put(&in, "", start.Add(time.Duration(i*30+n*10)*time.Second)); err != nil {
				t.Fatal(err)
			}
		}
		if version == "2" {
			if err := table.Flush(start.Add(time.Minute)); err != nil {
				t.Fatal(err)
			}
		}
	}
	past, err := table.Past(in.Target, "pod-1", 10)
	if err != nil || len(past) != 2 || past[0].Facts.Version != "2" || past[1].Facts.Version != "1" {
		t.Fatalf("%+v, %v", past, err)
	}
	if gap := past[0].Since - past[1].Seen; gap != 1 {
		t.Errorf("%d ms between two runs, want 1", gap)
	}
	if one, err := table.Past(in.Target, "pod-1", 1); err != nil || len(one) != 1 || one[0].Facts.Version != "2" {
		t.Errorf("%+v, %v", one, err)
	}
	if none, err := table.Past(api.Target{Service: "checkout", Scope: "staging"}, "pod-1", 10); err != nil || len(none) != 0 {
		t.Errorf("%+v, %v", none, err)
	}
	if err := table.Close(start.Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
}

// story is a random life of a few instances, and what the table said at times.
type story struct {
	t     *testing.T
	rng   *rand.Rand
	path  string
	table *Table
	now   time.Time
	alive map[string]*api.Instance
	said  []saying
}

type saying struct {
	at   time.Time
	rows map[string]seenRow
}

type seenRow struct {
	facts       Facts
	since, seen int64
	lease       string
}

func placeOf(r *Row) string { return r.Facts.Target.String() + " " + r.ID }

func (s *story) step() {
	name := fmt.Sprint("pod-", s.rng.IntN(6))
	in := s.alive[name]
	switch s.rng.IntN(24) {
	case 0, 1:
		delete(s.alive, name)
	case 2, 3:
		s.alive[name] = instance([]string{"checkout@prod", "checkout@prod/eu", "pay@prod"}[s.rng.IntN(3)], name, nil)
	case 4:
		if in != nil {
			in.Bundle = api.Digest(digest(fmt.Sprint(s.rng.IntN(3))))
		}
	case 5:
		s.reopen()
	case 6:
		s.now = s.now.Add(time.Duration(s.rng.IntN(30)) * time.Hour)
	case 7:
		if err := s.table.Flush(s.now); err != nil {
			s.t.Fatal(err)
		}
	case 8, 9:
		s.say()
	default:
		if in != nil {
			report(s.t, s.table, in, s.now)
		}
		return
	}
	s.now = s.now.Add(time.Duration(s.rng.IntN(20_000)) * time.Millisecond)
}

func (s *story) reopen() {
	if err := s.table.Close(s.now); err != nil {
		s.t.Fatal(err)
	}
	s.table = open(s.t, s.path)
}

// say notes what the table says, as the server does: whoever is forgotten by now
// is dropped before.
func (s *story) say() {
	s.table.Forget(s.now)
	rows := map[string]seenRow{}
	s.table.Scan("", func(r *Row) { rows[placeOf(r)] = seenRow{*r.Facts, r.Since, r.Seen, s.table.Lease(r, s.now)} })
	s.said = append(s.said, saying{s.now, rows})
}

// What the table said at each moment of any story, it says again about that
// moment later. Only a short silence that an instance came back from is not kept.
func TestThePastIsWhatWasSaidThen(t *testing.T) {
	seeds := uint64(40)
	if testing.Short() {
		seeds = 5
	}
	for seed := range seeds {
		s := &story{t: t, rng: rand.New(rand.NewPCG(seed, 6)), path: filepath.Join(t.TempDir(), "instances.db"), now: start, alive: map[string]*api.Instance{}}
		s.table = open(t, s.path)
		for range 300 {
			s.step()
		}
		for _, was := range s.said {
			s.compare(seed, was)
		}
		if err := s.table.Close(s.now); err != nil {
			t.Fatal(err)
		}
	}
}

func (s *story) compare(seed uint64, was saying) {
	s.t.Helper()
	n := 0
	err := s.table.At(was.at, "", func(r *Row) {
		n++
		want, got := was.rows[placeOf(r)], seenRow{*r.Facts, r.Since, r.Seen, s.table.Lease(r, was.at)}
		if got.seen == was.at.UnixMilli() && want.lease != "gone" { // it went on
			want.lease, want.seen = "live", got.seen
		}
		if got != want {
			s.t.Fatalf("seed %d at %v: %s: %+v, want %+v", seed, was.at, placeOf(r), got, want)
		}
	})
	if err != nil || n != len(was.rows) {
		s.t.Fatalf("seed %d at %v: %d instances, want %d, %v", seed, was.at, n, len(was.rows), err)
	}
}

// A client that makes up changes loses its own past, not that of others.
func TestAClientCantPushOutThePastOfOthers(t *testing.T) {
	table := open(t, filepath.Join(t.TempDir(), "instances.db"))
	turn := func(client, id string, n int) {
		in := instance("checkout@prod", id, func(in *api.Instance) { in.Version = fmt.Sprint(n % 2) })
		if _, err := table.Put(in, client, start.Add(time.Duration(n)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 10 {
		turn("good", "a", n)
	}
	for n := range 100 {
		turn("bad", "b", n)
	}
	if err := table.Flush(start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := table.db.Write(func(tx *bbolt.Tx) error { return trim(tx, nil, 40) }); err != nil {
		t.Fatal(err)
	}
	count := func(id string) (n int) {
		past, err := table.Past(api.Target{Service: "checkout", Scope: "prod"}, id, 1000)
		if err != nil {
			t.Fatal(err)
		}
		return len(past)
	}
	if a, b := count("a"), count("b"); a != 9 || b != 31 {
		t.Errorf("%d and %d intervals are left, want 9 and 31", a, b)
	}
	if err := table.Close(start.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
}

// What is too much is counted, and the reports go on.
func TestDroppedIntervalsAreCounted(t *testing.T) {
	table := open(t, "")
	for n := range 3 * endedBurst { // between facts that two others hold
		for i := range 3 {
			in := instance("checkout@prod", fmt.Sprint(i), func(in *api.Instance) { in.Version = fmt.Sprint(min(i, 1+n%2) % 2) })
			report(t, table, in, start.Add(time.Duration(n)*10*time.Millisecond))
		}
	}
	want := int64(3*endedBurst - 1 - endedBurst - 4*3 - 30*endedRate)
	if got := table.Dropped(); got < want-10 || got > want+20 {
		t.Errorf("%d intervals were dropped, want about %d", got, want)
	}
}

// One client's lists leave room for those of others.
func TestListsOfAClientAreBounded(t *testing.T) {
	table := open(t, "")
	send := func(client string, n int) (want bool) {
		list := make([]string, 3000)
		for i := range list {
			list[i] = fmt.Sprintf("pkg:npm/%0400d@%d", i, n)
		}
		in := instance("checkout@prod", fmt.Sprint(client, n), func(in *api.Instance) { in.Deps, in.DepList = api.DependenciesDigest(list), list })
		if _, err := table.Put(in, client, start); err != nil {
			t.Fatal(err)
		}
		return table.lists[in.Deps] != nil
	}
	n := 0
	for n < 50 && send("bad", n) {
		n++
	}
	if n == 50 || !send("good", 0) {
		t.Errorf("%d lists were taken of one client, and none of another", n)
	}
	table.Forget(start.Add(48 * time.Hour))
	if table.listSize != 0 || table.client("bad").lists != 0 {
		t.Errorf("%d bytes of lists are left", table.listSize)
	}
}
