package integration_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/integration/proctest"
	"github.com/sealstone/sealstone/ledger"
)

// followed are the changes that changes --follow -o jsonl has shown so far.
func followed(t *testing.T, out string) (list []api.Record) {
	t.Helper()
	for line := range strings.Lines(out) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		list = append(list, decode[api.Record](t, line))
	}
	return list
}

// A server is killed again and again while others write. Whoever follows it sees
// each entry once, and in order.
func TestAFollowerOutlivesKills(t *testing.T) {
	t.Parallel()
	rounds := 6
	if testing.Short() || proctest.Race() {
		rounds = 3
	}
	r := proctest.New(t, examples.Shop())
	s := r.Serve()
	s.UntilTip(r.Git("rev-parse", "HEAD"))
	out, stderr := r.Start("changes", "--follow", "-o", "jsonl", "--limit", "1", "--server", s.URL)
	proctest.Until(t, "the first entry", func() bool { return out() != "" })
	for range rounds {
		shown := strings.Count(out(), "\n")
		end := writeUntil(t, r, s.URL)
		proctest.Until(t, "entries to be shown", func() bool { return strings.Count(out(), "\n") > shown+20 })
		said := strings.Count(stderr(), "asking again")
		s.Kill()
		proctest.Until(t, "the follower to notice", func() bool { return strings.Count(stderr(), "asking again") > said })
		end()
		s = r.ServeAt(s.Addr)
	}
	_, leaves := s.Leaves()
	last := int64(len(leaves) - 1)
	proctest.Until(t, "the newest entry", func() bool {
		list := followed(t, out())
		return list[len(list)-1].Index >= last
	})
	list := followed(t, out())
	for i, c := range list {
		want, err := ledger.ParseLeaf(leaves[c.Index])
		if c.Index != list[0].Index+int64(i) || err != nil || c.LeafHash != want.Hash {
			t.Fatalf("line %d is entry %d, and the first one was entry %d: %v", i, c.Index, list[0].Index, err)
		}
	}
	t.Logf("%d entries over %d kills", len(list), rounds)
}

// writeUntil adds notes, about a hundred a second, until end is called or the
// server is gone.
func writeUntil(t *testing.T, r *proctest.Rig, url string) (end func()) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(30 * time.Millisecond):
				}
				if _, _, err := ask(t.Context(), http.MethodPost, url+"/v1/changes", r.Statement(ledger.NoteAdded, "checkout", "prod", nil).Raw); err != nil {
					return
				}
			}
		})
	}
	return func() { close(stop); wg.Wait() }
}
