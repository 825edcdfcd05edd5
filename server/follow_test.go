package server

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sealstone/sealstone/ledger"
)

// stuck is a connection that takes some writes and then no more.
type stuck struct {
	*httptest.ResponseRecorder
	left     int
	deadline time.Time
}

func newStuck(left int) *stuck {
	return &stuck{ResponseRecorder: httptest.NewRecorder(), left: left}
}

func (w *stuck) SetWriteDeadline(at time.Time) error { w.deadline = at; return nil }

func (w *stuck) Write(b []byte) (int, error) {
	if w.left--; w.left < 0 {
		time.Sleep(time.Until(w.deadline))
		return 0, os.ErrDeadlineExceeded
	}
	return w.ResponseRecorder.Write(b)
}

// A follower that reads no more is dropped, whatever the log does meanwhile, and
// finds the rest when it comes back.
func TestAStuckFollowerIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, nil)
		r.sync()
		size := r.store.Snapshot().Tree.Size
		ctx, ended := context.WithCancel(t.Context()) // as a server's request, whose context ends with its handler
		w, began := newStuck(3), time.Now()
		done := make(chan struct{})
		go func() {
			r.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/changes/watch?after=0", nil).WithContext(ctx))
			ended()
			close(done)
		}()
		synctest.Wait()
		for range 5 {
			r.send(200, r.f.Statement(ledger.NoteAdded, "checkout", "prod", nil))
		}
		if n := r.hub.count(); n != 1 {
			t.Errorf("%d streams are open", n)
		}
		<-done
		if took := time.Since(began); took != writeTimeout || r.hub.count() != 0 {
			t.Errorf("dropped after %s, %d streams are open", took, r.hub.count())
		}
		if got := w.Body.String(); strings.Count(got, "event: ") != 2 || !strings.Contains(got, "id: 2\n") {
			t.Errorf("it was told\n%s", got)
		}
		again := newStuck(100)
		req := httptest.NewRequest(http.MethodGet, "/v1/changes/watch", nil)
		req.Header.Set("Last-Event-ID", "2")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r.ServeHTTP(again, req.WithContext(ctx))
		if got := again.Body.String(); strings.Count(got, "event: ") != int(size)+5-3 || !strings.Contains(got, "id: 3\n") {
			t.Errorf("it was told\n%s", got)
		}
		_ = r.store.Close()
		_ = r.cfg.Source.Close()
	})
}

// A client has a bounded number of followers; another one has its own.
func TestFollowersAreBounded(t *testing.T) {
	r := newRig(t, nil)
	var leave []func()
	for range maxFollowed {
		l, err := r.hub.follow("anonymous")
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, l)
	}
	res := r.do(http.MethodGet, "/v1/changes/watch", "")
	if body := r.expect(http.StatusTooManyRequests, res); res.Header.Get("Retry-After") != "1" || !strings.Contains(string(body), "follows the log 64 times") {
		t.Errorf("%s\n%s", res.Header, body)
	}
	if other, err := r.hub.follow("auditor"); err != nil {
		t.Error(err)
	} else {
		other()
	}
	for _, l := range leave {
		l()
	}
	if r.hub.count() != 0 || len(r.hub.followed) != 0 {
		t.Errorf("%d streams are counted", r.hub.count())
	}
}
