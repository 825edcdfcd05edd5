package server

import (
	"bytes"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

// rolledBack gives the rig a store that is behind its anchor: it serves, and
// takes no changes. What was lost is a note and the given statements; recovered
// brings it back, as from a mirror.
func rolledBack(r *rig, lost ...*ledger.Signed) (recovered func()) {
	r.t.Helper()
	data, old, whole := filepath.Join(r.dir, "data"), filepath.Join(r.dir, "old"), filepath.Join(r.dir, "whole")
	must(r.t, r.store.Close())
	must(r.t, os.CopyFS(old, os.DirFS(data)))
	r.restart(r.url)
	for _, st := range append(lost, r.f.Statement(ledger.NoteAdded, "checkout", "prod", nil)) {
		r.send(200, st)
	}
	swap := func(to, from string, pendingFile string) {
		r.t.Helper()
		must(r.t, r.store.Close())
		_ = r.cfg.Source.Close()
		must(r.t, os.Rename(data, to))
		must(r.t, os.Rename(from, data))
		anchor, err := os.ReadFile(filepath.Join(to, "anchor"))
		must(r.t, err)
		must(r.t, os.WriteFile(filepath.Join(data, "anchor"), anchor, 0o600))
		r.open(r.url, func(c *Config) { c.PendingFile = pendingFile })
	}
	pending := filepath.Join(r.dir, "pending")
	swap(whole, old, pending)
	return func() { r.t.Helper(); swap(old, whole, pending) }
}

func TestALogThatTakesNoChangesStillServesSafeModes(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	rolledBack(r)
	r.get(503, "/readyz") // no client can start from a server that signs no heads
	if why := string(r.get(503, "/readyz/writes")); !strings.Contains(why, "its anchor says that") || !strings.Contains(why, "sealstone ledger recover") {
		t.Errorf("it doesn't say why: %s", why)
	}
	r.send(507, r.f.Statement(ledger.NoteAdded, "checkout", "prod", nil))

	enter := r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0)
	got := decode[api.Receipt](t, r.send(202, enter))
	if !got.Unrecorded || got.Index != -1 {
		t.Errorf("%+v", got)
	}
	r.send(202, enter)
	r.send(403, r.f.StatementBy(r.f.Stranger, ledger.SafeModeEntered, "checkout", "prod", func(s *ledger.Statement) {
		after := int64(0)
		s.Mode, s.TTL, s.OnExpiry, s.After = "degraded", 3600, "hold", &after
	}))
	pending := decode[api.Pending](t, r.get(200, "/v1/pending?service=checkout"))
	if len(pending.Statements) != 1 || string(pending.Statements[0]) != string(enter.Raw) {
		t.Errorf("pending: %s", pending.Statements)
	}
	b := r.expect(200, r.do(http.MethodPost, "/at/checkout@prod/ofrep/v1/evaluate/flags/express", "{}"))
	if !strings.Contains(string(b), `"mode":"degraded"`) {
		t.Errorf("%s", b)
	}
	if st := r.Status(); st.Writes == "ok" || st.Pending != 1 || len(st.SafeModes) != 1 || !st.SafeModes[0].Pending ||
		st.SafeModes[0].By != "alex" || st.SafeModes[0].TTL != enter.TTL {
		t.Errorf("%+v", st)
	}
	answer := decode[api.Live](t, r.get(200, "/v1/live?service=checkout"))
	modes := decode[api.SafeModes](t, r.get(200, "/v1/safe-modes"))
	for _, why := range []string{got.Behind, answer.Behind, modes.Behind, r.Status().Behind} {
		if !strings.HasPrefix(why, "the log has 4 entries, its anchor says that 5 were published") {
			t.Errorf("behind: %q", why)
		}
	}
	live := answer.Services[0].Scopes[0]
	if live.Proven.Mode != "degraded" || live.Proven.Index != -1 {
		t.Errorf("%+v", live.Proven)
	}
}

// What the lost entries were about is not known: who signs goes by what a client
// has proven. When the log is back, what fits is appended in its order.
func TestWhileTheLogIsBehindAClientsNumberIsTaken(t *testing.T) {
	const entered, exited, late = "safe-mode.entered checkout@prod", "safe-mode.exited checkout@prod", "statement.late checkout@prod"
	type step struct {
		kind   ledger.Kind
		after  int64
		status int
	}
	for name, c := range map[string]struct {
		steps []step
		want  []string // behind the note
		stay  int
		mode  api.Mode
	}{
		"the number of the log that is left":    {[]step{{ledger.SafeModeEntered, 0, 202}}, []string{late}, 0, "degraded"},
		"a mode of the lost entries is left":    {[]step{{ledger.SafeModeExited, 0, 422}, {ledger.SafeModeExited, 1, 202}}, []string{exited}, 0, "normal"},
		"it is left and entered":                {[]step{{ledger.SafeModeExited, 1, 202}, {ledger.SafeModeEntered, 2, 202}}, []string{exited, entered}, 0, "degraded"},
		"with a number too low before":          {[]step{{ledger.SafeModeEntered, 0, 202}, {ledger.SafeModeExited, 1, 202}}, []string{late, exited}, 0, "normal"},
		"too low after the right one":           {[]step{{ledger.SafeModeExited, 1, 202}, {ledger.SafeModeEntered, 0, 409}}, []string{exited}, 0, "normal"},
		"a number that nobody has stays":        {[]step{{ledger.SafeModeExited, 7, 202}}, nil, 1, "normal"},
		"what stays doesn't hold up what fits":  {[]step{{ledger.SafeModeExited, 1, 202}, {ledger.SafeModeEntered, 7, 202}}, []string{exited}, 1, "degraded"},
		"a mode that no set has is not entered": {[]step{{ledger.SafeModeRenewed, 0, 422}}, nil, 0, "degraded"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.sync()
			recovered := rolledBack(r, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
			for _, s := range c.steps {
				b := r.send(s.status, r.f.SafeMode(s.kind, "checkout", "prod", "degraded", s.after))
				if s.status == 202 && decode[api.Receipt](t, b).Behind == "" || s.status != 202 && !strings.Contains(string(b), "sign with --after GENERATION") {
					t.Errorf("%+v: %s", s, b)
				}
			}
			recovered()
			must(t, r.settlePending(t.Context()))
			r.send(200, r.f.Statement(ledger.NoteAdded, "checkout", "prod", nil)) // nothing holds others up
			wantKinds(t, r, 4, slices.Concat([]string{entered, "note.added checkout@prod"}, c.want, []string{"note.added checkout@prod"})...)
			if n := r.Status().Pending; n != c.stay {
				t.Errorf("%d wait, want %d", n, c.stay)
			}
			if eff, err := r.resolve(api.Target{Service: "checkout", Scope: "prod"}); err != nil || eff.Mode != c.mode {
				t.Errorf("%+v, %v", eff, err)
			}
		})
	}
}

// One that was signed after more than its chain has is obeyed, so it is served
// until the chain has come so far, or its signer may not sign any more.
func TestWhatStaysEndsWithItsSignerOrItsTurn(t *testing.T) {
	stuck := func(t *testing.T) (*rig, *ledger.Signed) {
		r := newRig(t, nil)
		r.sync()
		recovered := rolledBack(r)
		st := r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 2)
		r.send(202, st)
		recovered()
		if after := decode[api.SafeModes](t, r.get(200, "/v1/safe-modes?service=checkout&scope=prod")).After; *after != 3 {
			t.Errorf("the next one must carry %d", *after)
		}
		return r, st
	}
	t.Run("turn", func(t *testing.T) {
		r, _ := stuck(t)
		r.send(202, r.f.SafeMode(ledger.SafeModeExited, "checkout", "prod", "degraded", 3)) // on top of it
		r.send(200, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
		r.send(200, r.f.SafeMode(ledger.SafeModeExited, "checkout", "prod", "degraded", 1))
		must(t, r.settlePending(t.Context()))
		wantKinds(t, r, 5, "safe-mode.entered checkout@prod", "safe-mode.exited checkout@prod", "safe-mode.entered checkout@prod", "safe-mode.exited checkout@prod")
	})
	t.Run("signer", func(t *testing.T) {
		r, st := stuck(t)
		r.push(byStranger(r))
		must(t, r.settlePending(t.Context()))
		wantKinds(t, r, 5, "operators.changed", "statement.late checkout@prod")
		if got := decode[api.Receipt](t, r.send(200, st)); !got.Late || r.Status().Pending != 0 {
			t.Errorf("%+v", got)
		}
	})
	t.Run("signer, while it was away", func(t *testing.T) {
		r, _ := stuck(t)
		list := r.pending.list
		r.pending.list = nil
		r.push(byStranger(r))
		r.pending.list = list
		must(t, r.writePending(r.pending.all()))
		must(t, r.store.Close())
		_ = r.cfg.Source.Close()
		r.open(r.url, func(c *Config) { c.PendingFile = filepath.Join(r.dir, "pending") })
		must(t, r.settlePending(t.Context()))
		wantKinds(t, r, 5, "operators.changed", "statement.late checkout@prod")
	})
}

// byStranger are operators without the one who signs everything else.
func byStranger(r *rig) map[string]string {
	yaml := strings.Replace(strings.Replace(r.files["operators.yaml"], "version: 1", "version: 2", 1), ledgertest.SSHLine(r.f.OperatorKey), ledgertest.SSHLine(r.f.Stranger.Private), 1)
	op := ledger.Operator{ID: ledgertest.OperatorID, Keys: []string{ledgertest.SSHLine(r.f.Stranger.Private)}, May: []ledger.Grant{ledgertest.Everything()}}
	return map[string]string{"operators.yaml": yaml, "operators.sig": string(r.f.SignOperators(2, []byte(yaml), op)) + "\n"}
}

func TestAHeldStatementIsAppendedWhenTheLogIsBack(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	enter := r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0)
	exit := r.f.SafeMode(ledger.SafeModeExited, "checkout", "prod", "degraded", 1)
	for _, st := range []*ledger.Signed{enter, exit, exit} {
		if _, err := r.hold(st, nil, os.ErrClosed); err != nil {
			t.Fatal(err)
		}
	}
	if after := decode[api.SafeModes](t, r.get(200, "/v1/safe-modes?service=checkout&scope=prod")).After; after == nil || *after != 2 {
		t.Errorf("a third statement must carry %v", after)
	}
	if _, err := r.hold(r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0), nil, os.ErrClosed); api.CodeOf(err) != api.CodeConflict {
		t.Errorf("a rival: %v", err)
	}
	third := r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 2)
	if got := decode[api.Receipt](t, r.send(200, third)); got.Generation != 3 {
		t.Errorf("signed on top of what waits: %+v", got)
	}
	wantKinds(t, r, 4, "safe-mode.entered checkout@prod", "safe-mode.exited checkout@prod", "safe-mode.entered checkout@prod")
	if n := len(r.pending.all()); n != 0 {
		t.Errorf("%d still pending", n)
	}
}

// What waits was judged by a state that knows nothing newer, so nothing newer
// gets in before it.
func TestWhatWaitsGoesIntoTheLogFirst(t *testing.T) {
	for name, c := range map[string]struct {
		then func(r *rig)
		kind string
	}{
		"operators without its signer": {func(r *rig) { r.push(byStranger(r)) }, "operators.changed"},
		"a set without its mode": {func(r *rig) {
			r.push(map[string]string{"services/checkout/safe-modes/degraded/safe-mode.yaml": "", "services/checkout/safe-modes/degraded/config/http.yaml": ""})
		}, "bundle.rejected checkout"},
		"a rival": {func(r *rig) { r.send(409, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0)) }, ""},
		"a fact":  {func(r *rig) { r.send(200, r.f.Statement(ledger.NoteAdded, "checkout", "prod", nil)) }, "note.added checkout@prod"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			r.sync()
			want := []string{"safe-mode.entered checkout@prod", "safe-mode.renewed checkout@prod"}
			for after, kind := range []ledger.Kind{ledger.SafeModeEntered, ledger.SafeModeRenewed} {
				if _, err := r.hold(r.f.SafeMode(kind, "checkout", "prod", "degraded", int64(after)), nil, os.ErrClosed); err != nil {
					t.Fatal(err)
				}
			}
			if c.then(r); c.kind != "" {
				want = append(want, c.kind)
			}
			wantKinds(t, r, 4, want...)
		})
	}
}

// A set that can't be read now says nothing about the modes that it has: what
// waits goes on waiting, and holds up nobody else.
func TestWhatWaitsIsNotJudgedByASetThatCantBeRead(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pending")
	keep := func(c *Config) { c.PendingFile = file }
	r := newRig(t, keep)
	r.sync()
	for after, kind := range []ledger.Kind{ledger.SafeModeEntered, ledger.SafeModeRenewed} {
		if _, err := r.hold(r.f.SafeMode(kind, "checkout", "prod", "degraded", int64(after)), nil, os.ErrClosed); err != nil {
			t.Fatal(err)
		}
	}
	r.loseObjects()
	if err := os.Rename(filepath.Join(r.dir, "git"), filepath.Join(r.dir, "git.lost")); err != nil {
		t.Fatal(err)
	}
	r.open(filepath.Join(r.dir, "gone.git"), keep)
	r.round(t.Context())
	r.send(200, r.f.Statement(ledger.NoteAdded, "checkout", "prod", nil))
	r.send(409, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
	wantKinds(t, r, 4, "note.added checkout@prod")
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
	r.open(r.url, keep)
	r.round(t.Context())
	if err := r.settlePending(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantKinds(t, r, 5, "safe-mode.entered checkout@prod", "safe-mode.renewed checkout@prod")
}

// A statement may come under the id of a change that is on its way into the log.
func TestAnIDStaysThatOfTheFirst(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	note := r.f.Statement(ledger.NoteAdded, "checkout", "prod", nil)
	enter := r.f.Statement(ledger.SafeModeEntered, "checkout", "prod", func(s *ledger.Statement) {
		after := int64(0)
		s.ID, s.Mode, s.TTL, s.OnExpiry, s.After = note.ID, "degraded", 3600, "hold", &after
	})
	r.pending.add(held{enter, nil}) // as hold does while the note hangs in its commit
	if _, err := r.store.Append(t.Context(), func(*ledger.State, time.Time) (store.Decision, error) {
		return store.Decision{Drafts: []store.Draft{store.DraftOf(note, nil)}}, nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := r.settlePending(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantKinds(t, r, 4, "note.added checkout@prod", "statement.late checkout@prod")
	if got := decode[api.Receipt](t, r.send(200, note)); !got.Repeated || got.Index != 4 {
		t.Errorf("sent again: %+v", got)
	}
	r.send(409, enter)
	if report, err := r.store.Verify(t.Context(), nil); err != nil || len(report.Findings) > 0 {
		t.Errorf("%v, %v", report.Findings, err)
	}
}

func TestWhatNoLongerWaitsLeavesNothingInTheFile(t *testing.T) {
	f := pendingFile(filepath.Join(t.TempDir(), "pending"))
	for _, words := range []string{"secret one", "secret two", ""} {
		list := []api.Submission{}
		if words != "" {
			list = append(list, api.Submission{Statement: []byte(strconv.Quote(words))})
		}
		if err := errors.Join(f.take(), f.write(list)); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(string(f))
	if list, _, bad := f.read(); err != nil || bad != nil || len(list) > 0 || strings.Contains(string(b), "secret") {
		t.Errorf("%v, %v, %s", err, bad, list)
	}
}

// A disk that hangs answers nobody; an emergency waits for no disk.
func TestADiskThatHangsMakesSafeModesPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.sync()
		r.pending.file = pendingFile(filepath.Join(r.dir, "pending"))
		stuck, release, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			_, _ = r.store.Append(t.Context(), func(*ledger.State, time.Time) (store.Decision, error) {
				close(stuck)
				<-release
				return store.Decision{}, nil
			})
		}()
		<-stuck
		fact := make(chan int)
		go func() {
			fact <- r.do(http.MethodPost, "/v1/changes", string(r.f.Statement(ledger.NoteAdded, "checkout", "prod", nil).Raw)).StatusCode
		}()
		synctest.Wait()                                             // it came when nothing waited, and is next
		if err := r.pending.keeping.take(t.Context()); err != nil { // a write of the file that doesn't return
			t.Fatal(err)
		}
		enter := r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0)
		if got := decode[api.Receipt](t, r.send(202, enter)); !got.Unrecorded || !got.Volatile {
			t.Errorf("%+v", got)
		}
		if eff, err := r.resolve(api.Target{Service: "checkout", Scope: "prod"}); err != nil || eff.Mode != "degraded" {
			t.Errorf("%+v, %v", eff, err)
		}
		if why := string(r.get(503, "/readyz/writes")); !strings.Contains(why, "the disk hasn't answered for") {
			t.Error(why)
		}
		close(release)
		<-done
		if code := <-fact; code != http.StatusInsufficientStorage {
			t.Errorf("a fact got in before the safe mode that was acknowledged: %d", code)
		}
		synctest.Wait()
		r.get(200, "/readyz/writes")
		r.pending.keeping.leave()
		if err := r.settlePending(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantKinds(t, r, 4, "safe-mode.entered checkout@prod")
		if err := r.store.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Many at once wait for a disk that hangs side by side, and not for each other.
func TestAnswersWaitForAHungFileSideBySide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.sync()
		rolledBack(r)
		r.pending.file = pendingFile(filepath.Join(r.dir, "pending"))
		if err := r.pending.keeping.take(t.Context()); err != nil { // a write that doesn't return
			t.Fatal(err)
		}
		start := time.Now()
		var all sync.WaitGroup
		for _, scope := range []api.Scope{"prod", "staging", "prod/eu-west-1"} {
			all.Go(func() {
				st := r.f.SafeMode(ledger.SafeModeEntered, "checkout", scope, "degraded", 0)
				if got, err := r.hold(st, nil, os.ErrClosed); err != nil || !got.Volatile {
					t.Errorf("%s: %+v, %v", scope, got, err)
				}
			})
		}
		all.Wait()
		if took := time.Since(start); took > keepTimeout {
			t.Errorf("the last answer came after %s", took)
		}
		r.pending.keeping.leave()
		if err := r.store.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Objects that can't be read, beside a file of theirs that hangs, hold up no
// emergency: clients obey what they have staged.
func TestHungObjectsMakeSafeModesPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.sync()
		if err := r.whole.turn.take(t.Context()); err != nil { // a look that doesn't return
			t.Fatal(err)
		}
		r.whole.doubt.Store(true)
		r.send(200, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "staging", "degraded", 0)) // its sets are readable
		size := r.store.Snapshot().Tree.Size
		r.loseObjects()
		r.open(r.url, nil)
		if err := r.whole.turn.take(t.Context()); err != nil {
			t.Fatal(err)
		}
		enter := r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0)
		if got := decode[api.Receipt](t, r.send(202, enter)); !got.Unrecorded {
			t.Errorf("%+v", got)
		}
		r.send(409, r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0)) // what needs no set is judged
		if err := r.settlePending(t.Context()); err != nil || r.store.Snapshot().Tree.Size != size {
			t.Errorf("settled by sets that nobody can read: %v", err)
		}
		r.whole.turn.leave()
		r.round(t.Context())
		if err := r.settlePending(t.Context()); err != nil {
			t.Error(err)
		}
		wantKinds(t, r, int(size), "safe-mode.entered checkout@prod")
		if err := r.store.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestWaitingStatementsSurviveARestartAndADay(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	file := filepath.Join(r.dir, "pending")
	r.pending.file = pendingFile(file)
	enter := r.f.Statement(ledger.SafeModeEntered, "checkout", "prod", aged(-23*time.Hour))
	for name, st := range map[string]*ledger.Signed{
		"unknown mode":    r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "no-such", 0),
		"unlisted scope":  r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod/eu-west-9", "degraded", 0),
		"exit of nothing": r.f.SafeMode(ledger.SafeModeExited, "checkout", "prod", "degraded", 0),
	} {
		if _, err := r.hold(st, nil, os.ErrClosed); api.CodeOf(err) != api.CodeUnprocessable {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.hold(enter, nil, os.ErrClosed); err != nil {
		t.Fatal(err)
	}
	r.ahead = 3 * time.Hour // of the store: the statement is more than a day old by now
	if err := r.store.Close(); err != nil {
		t.Fatal(err)
	}
	r.open(r.url, func(c *Config) { c.PendingFile = file })
	if eff, err := r.resolve(api.Target{Service: "checkout", Scope: "prod"}); err != nil || eff.Mode != "degraded" {
		t.Fatalf("after a restart: %+v, %v", eff, err)
	}
	if err := r.settlePending(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantKinds(t, r, 4, "safe-mode.entered checkout@prod")
}

// A file that can't be had must show in the answer, and nothing else: whoever
// waits for a safe mode gets it.
func TestAnAnswerPromisesNoMoreThanTheFileKeeps(t *testing.T) {
	r := newRig(t, nil)
	r.sync()
	rolledBack(r)
	r.pending.file = pendingFile(filepath.Join(r.dir, "nowhere", "pending"))
	enter := r.f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0)
	if got := decode[api.Receipt](t, r.send(202, enter)); !got.Volatile {
		t.Errorf("%+v", got)
	}
	if eff, err := r.resolve(api.Target{Service: "checkout", Scope: "prod"}); err != nil || eff.Mode != "degraded" {
		t.Errorf("%+v, %v", eff, err)
	}
	r.pending.file = pendingFile(filepath.Join(r.dir, "pending"))
	if got := decode[api.Receipt](t, r.send(202, enter)); got.Volatile {
		t.Errorf("sent again when there is room: %+v", got)
	}
}

// A file that can't keep what waits is told before it is needed.
func TestAPendingFileThatCannotBeUsedShows(t *testing.T) {
	for name, c := range map[string]struct {
		make func(path string) error
		want string
	}{
		"another size": {func(p string) error { return os.WriteFile(p, make([]byte, 100), 0o600) }, "has 100 bytes, not the 4194304"},
		"a directory":  {func(p string) error { return os.Mkdir(p, 0o700) }, "not the 4194304"},
		"a pipe":       {func(p string) error { return syscall.Mkfifo(p, 0o600) }, "has 0 bytes, not the 4194304"},
		"torn":         {func(p string) error { return os.WriteFile(p, bytes.Repeat([]byte("x"), 2*pendingSlot), 0o600) }, "what waited at the last stop can't be read: "},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			file := filepath.Join(r.dir, "pending")
			must(t, c.make(file))
			must(t, r.store.Close())
			must(t, r.cfg.Source.Close())
			r.open(r.url, func(c *Config) { c.PendingFile = file })
			if got := r.Status().PendingFile; !strings.Contains(got, c.want) {
				t.Errorf("status says %q, want %q", got, c.want)
			}
			must(t, os.Rename(file, file+".kept"))
			r.keepPending() // as pendingLoop does
			if got := r.Status().PendingFile; (got != "") != (r.pending.lost != "") {
				t.Errorf("after it was moved away status says %q", got)
			}
			must(t, r.pending.file.take())
		})
	}
}

func TestThePendingFileTakesTurns(t *testing.T) {
	f := pendingFile(filepath.Join(t.TempDir(), "pending"))
	if err := f.take(); err != nil {
		t.Fatal(err)
	}
	if list, number, err := f.read(); len(list) != 0 || number != 0 || err != nil {
		t.Fatalf("a new file: %s %d %v", list, number, err)
	}
	of := func(n int) []api.Submission {
		return slices.Repeat([]api.Submission{{Statement: []byte(strconv.Itoa(n))}}, n)
	}
	for n := range 5 {
		if err := f.write(of(n)); err != nil {
			t.Fatal(err)
		}
		if list, number, err := f.read(); len(list) != n || number != uint64(n+1) || err != nil {
			t.Fatalf("after %d: %s %d %v", n, list, number, err)
		}
	}
	whole, err := os.ReadFile(string(f))
	if err != nil {
		t.Fatal(err)
	}
	for cut := range 120 { // the newest, number 5, is in the first slot: any flip brings back number 4
		torn := slices.Clone(whole)
		torn[cut] ^= 1
		if err := os.WriteFile(string(f), torn, 0o600); err != nil {
			t.Fatal(err)
		}
		if list, number, err := f.read(); len(list) != 3 || number != 4 || err != nil {
			t.Fatalf("byte %d: %s %d %v", cut, list, number, err)
		}
	}
	if err := f.write(of(2)); err != nil {
		t.Fatal(err)
	}
	if list, number, err := f.read(); len(list) != 2 || number != 5 || err != nil {
		t.Errorf("written over a torn slot: %s %d %v", list, number, err)
	}
	if err := f.write(slices.Repeat(of(1), pendingSlot/16)); err == nil {
		t.Error("a list beyond the room")
	}
	if err := os.WriteFile(string(f), make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.write(of(1)); err == nil {
		t.Error("a file of another size")
	}
}
