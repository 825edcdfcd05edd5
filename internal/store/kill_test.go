package store

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
)

const (
	envKilled = "SEALSTONE_TEST_KILLED_DIR"
	envRounds = "SEALSTONE_TEST_KILL_ROUNDS" // more of them
	writers   = 16
)

// TestKilledWriters is the child of TestKill: 16 writers that append until they
// are killed, and print what was acknowledged.
func TestKilledWriters(t *testing.T) {
	dir := os.Getenv(envKilled)
	if dir == "" {
		t.Skip("the child of TestKill")
	}
	lt := ledgertest.New(t)
	s, err := Open(Config{Dir: dir, Log: lt.Log, Node: lt.Node, Trust: lt.Trust})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for w := range writers {
		wg.Go(func() {
			for {
				d := noteBy(t, lt, fmt.Sprintf("svc-%d", w))
				r, err := s.Append(context.Background(), func(*ledger.State, time.Time) (Decision, error) { return Decision{Drafts: []Draft{d}}, nil })
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				fmt.Printf("ack %d %s %s\n", r[0].Index, r[0].ID, r[0].Hash)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func noteBy(t *testing.T, lt *ledgertest.Fixture, service string) Draft {
	d, name, err := ledger.NewDetail(map[string]any{"text": "words"})
	if err != nil {
		t.Fatal(err)
	}
	return DraftOf(lt.Statement(ledger.NoteAdded, service, "prod", func(st *ledger.Statement) { st.Detail = name }), d)
}

// A server that is killed at any instant loses nothing that it acknowledged,
// and starts again by itself.
func TestKill(t *testing.T) {
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	if v, err := strconv.Atoi(os.Getenv(envRounds)); err == nil {
		rounds = v
	}
	f := newFixture(t)
	f.put(f.operators(1, f.OperatorsSig))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	acked := map[int64]string{}
	for range rounds {
		f.killRound(acked)
		f.open()
		f.check()
		for index, want := range acked {
			c, err := f.Change(index)
			if err != nil {
				t.Fatalf("acknowledged entry %d: %v", index, err)
			}
			if got := c.ID + " " + string(c.Hash); got != want {
				t.Fatalf("entry %d is %s, acknowledged was %s", index, got, want)
			}
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d acknowledged in %d rounds", len(acked), rounds)
	f.open()
}

// killRound runs the child for a while, kills it, and collects what it said.
func (f *fixture) killRound(acked map[int64]string) {
	f.t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKilledWriters$")
	cmd.Env = append(os.Environ(), envKilled+"="+f.cfg.Dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		f.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	timer := time.AfterFunc(150*time.Millisecond+rand.N(400*time.Millisecond), func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	n := len(acked)
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var index int64
		var id, hash string
		if k, _ := fmt.Sscanf(lines.Text(), "ack %d %s %s", &index, &id, &hash); k == 3 && strings.HasPrefix(hash, "sha256:") && len(hash) == 71 {
			acked[index] = id + " " + hash
		}
	}
	_ = cmd.Wait() // killed
	if len(acked) == n {
		f.t.Log("killed before the first acknowledgement")
	}
}
