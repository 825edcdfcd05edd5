package integration_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/integration/proctest"
	"github.com/sealstone/sealstone/ledger"
)

// A mirror is killed again and again while it copies, and a recovery from it
// while it runs. What a killed mirror leaves is whole, of the size that it had;
// a killed recovery has replaced nothing or all; and the next run ends each.
func TestKilledMirrorsAndRecoveriesGoOn(t *testing.T) {
	t.Parallel()
	rounds := 8
	if testing.Short() || proctest.Race() {
		rounds = 3
	}
	r := proctest.New(t, examples.Shop())
	s := r.Serve()
	s.UntilTip(r.Git("rev-parse", "HEAD"))
	s.Stop()
	files := []string{"ledger.db", "details.db"}
	copyFiles(t, files, r.Data, filepath.Join(r.Dir, "backup"))
	s = r.Serve()
	random := rand.New(rand.NewPCG(11, 11))
	mirror := filepath.Join(r.Dir, "mirror")
	postNotes(t, r, s.URL, 1000)
	began := time.Now()
	r.OK("mirror", s.URL, filepath.Join(r.Dir, "whole"), "--once", "--details")
	whole, cut := time.Since(began), 0
	for n := range rounds {
		postNotes(t, r, s.URL, 100)
		if n%4 == 3 {
			r.OK("mirror", s.URL, mirror, "--once", "--details") // the next ones have more to lose
		}
		if r.Killed(time.Duration(random.Int64N(int64(whole))), "mirror", s.URL, mirror, "--once", "--details") {
			cut++
		}
		if _, err := os.Stat(filepath.Join(mirror, "log", "checkpoint")); err == nil {
			r.OK("verify", "--mirror", mirror)
		}
	}
	r.OK("mirror", s.URL, mirror, "--once", "--details")
	size := s.Status().Size
	s.Stop()
	if out := r.OK("verify", "--mirror", mirror); !strings.Contains(out, fmt.Sprintf(": %d entries", size)) {
		t.Fatalf("the log has %d entries: %s", size, out)
	}
	t.Logf("%d of %d mirrors were killed before they ended, at %d entries in the end", cut, rounds, size)

	mirrors := cut

	again := []string{"ledger", "recover", "--data", r.Data, "--mirror", mirror}
	began, cut = time.Now(), 0
	r.OK(append(again, "--dry-run")...)
	whole = time.Since(began)
	for range rounds {
		copyFiles(t, files, filepath.Join(r.Dir, "backup"), r.Data)
		killed := r.Killed(time.Duration(random.Int64N(int64(whole))), again...)
		res := r.CLI("verify", "--data", r.Data)
		if killed {
			cut++
		}
		if whole := strings.HasPrefix(res.Stdout, "VERIFIED"); whole != (res.Code == 0) || !whole && !strings.Contains(res.Stdout, "were published") {
			t.Fatalf("after a kill, neither what was there nor what was recovered: %s%s", res.Stdout, res.Stderr)
		}
		r.OK(again...)
		if out := r.OK("verify", "--data", r.Data); !strings.Contains(out, fmt.Sprintf(": %d entries", size)) {
			t.Fatalf("recovered to something else than %d entries: %s", size, out)
		}
	}
	t.Logf("%d of %d recoveries were killed before they ended", cut, rounds)
	if mirrors+cut == 0 {
		t.Error("nothing was killed, so nothing was tried")
	}
	s = r.Serve()
	postNotes(t, r, s.URL, 1)
	s.OK("verify")
}

func copyFiles(t *testing.T, names []string, from, to string) {
	t.Helper()
	for _, name := range names {
		proctest.WriteFile(t, filepath.Join(to, name), proctest.ReadFile(t, filepath.Join(from, name)), 0o600)
	}
}

// postNotes records notes with details, many at once.
func postNotes(t *testing.T, r *proctest.Rig, url string, n int) {
	t.Helper()
	todo := make(chan int, n)
	for i := range n {
		todo <- i
	}
	close(todo)
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			for i := range todo {
				postNote(t, r, url, fmt.Sprint("note ", i))
			}
		})
	}
	wg.Wait()
}

func postNote(t *testing.T, r *proctest.Rig, url, text string) {
	detail, name, err := ledger.NewDetail(map[string]any{"reason": text})
	if err != nil {
		t.Error(err)
		return
	}
	st := r.Statement(ledger.NoteAdded, "checkout", "prod", func(st *ledger.Statement) { st.Detail = name })
	body, err := json.Marshal(api.Submission{Statement: st.Raw, Salt: detail.Salt, Detail: detail.Text})
	if err != nil {
		t.Error(err)
		return
	}
	if status, answer, err := ask(t.Context(), http.MethodPost, url+"/v1/changes", body); err != nil || status != http.StatusOK {
		t.Errorf("%d %s, %v", status, answer, err)
	}
}
