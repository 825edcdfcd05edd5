package integration_test

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/integration/proctest"
	"github.com/sealstone/sealstone/ledger"
)

// onRows lies about the answer of one path.
func onRows[T any](path string, edit func(*T)) lie {
	return func(f *forger, req *http.Request, body []byte) []byte {
		var v T
		if req.URL.Path != path || json.Unmarshal(body, &v) != nil {
			return body
		}
		edit(&v)
		b, err := json.Marshal(v)
		if err != nil {
			f.t.Error(err)
		}
		return b
	}
}

// The tables of live and history are held to the log, row by row, and so is that
// none is kept back.
func TestRowsAreHeldToTheLog(t *testing.T) {
	t.Parallel()
	r := proctest.New(t, examples.Shop())
	s := r.Serve()
	s.UntilTip(r.Git("rev-parse", "HEAD"))
	s.OK("safe-mode", "enter", "checkout", "degraded", "--scope", "prod/eu-west-1", "--reason", "INC-1")
	s.OK("safe-mode", "exit", "checkout", "--scope", "prod/eu-west-1")
	entered := receipt(t, s, "safe-mode", "enter", "checkout", "degraded", "--scope", "prod", "--reason", "INC-2").Index
	expressOn(r, true)
	s.UntilTip(r.Push("Sell faster"))
	l := newLiar(t, newForger(t, r, s))
	live := func(edit func(*api.LiveService)) lie {
		return onRows("/v1/live", func(v *api.Live) { edit(&v.Services[min(1, len(v.Services)-1)]) })
	}
	row := func(edit func(*api.Proven)) lie {
		return live(func(s *api.LiveService) {
			for i := range s.Scopes {
				if s.Scopes[i].Proven != nil {
					edit(s.Scopes[i].Proven)
				}
			}
		})
	}
	past := func(edit func(*api.History)) lie { return onRows("/v1/history", edit) }
	forged := api.DigestOf([]byte("forged"))
	live1, history, list := []string{"live"}, []string{"history", eu}, []string{"changes", "list"}
	changes := func(edit func(*api.Record)) lie {
		return onRows("/v1/changes", func(v *api.Changes) { edit(&v.Changes[1]) })
	}
	for _, c := range []struct {
		name string
		lie  lie
		args []string
		says string
	}{
		{"a bundle", row(func(p *api.Proven) { p.Bundle = forged }), live1, "its bundle is"},
		{"who did it", row(func(p *api.Proven) { p.By = "mallory" }), live1, "its by is mallory"},
		{"a mode", row(func(p *api.Proven) { p.Mode = "normal" }), live1, "its mode is"},
		{"a set", row(func(p *api.Proven) { p.Set = forged }), live1, "its set is"},
		{"since when", row(func(p *api.Proven) { p.Since = "2020-01-01T00:00:00.000Z" }), live1, "its since is"},
		{"nothing there", live(func(s *api.LiveService) { s.Scopes[0].Proven = nil }), live1, "is nothing"},
		{"a scope hidden", live(func(s *api.LiveService) { s.Scopes = nil }), live1, "hides checkout@"},
		{"what is evaluated", row(func(p *api.Proven) { p.Bundle = forged }), []string{"eval", "express-checkout", "--target", eu, "--context", "{}"}, "its bundle is"},
		{"what is compared", row(func(p *api.Proven) { p.Bundle, p.Set = forged, forged }), []string{"diff", eu, "checkout@staging"}, "its bundle is"},
		{"a row's bundle", past(func(h *api.History) { h.Intervals[1].Bundle = forged }), history, "its bundle is"},
		{"a row's author", past(func(h *api.History) { h.Intervals[0].By = "mallory" }), history, "its by is mallory"},
		{"a row's reason", past(func(h *api.History) { h.Intervals[0].Reason = "all is well" }), history, "its reason is all is well"},
		{"a row's words erased", past(func(h *api.History) { h.Intervals[0].Erased, h.Intervals[0].Reason = true, "" }), history, "its erased is"},
		{"a row's end", past(func(h *api.History) { h.Intervals[1].To = "2030-01-01T00:00:00.000Z" }), history, "its to is"},
		{"the newest hidden", past(func(h *api.History) { h.Intervals = h.Intervals[1:] }), history, "the log proves"},
		{"one between hidden", past(func(h *api.History) { h.Intervals = append(h.Intervals[:1], h.Intervals[2:]...) }), history, "the log proves"},
		{"the oldest hidden", past(func(h *api.History) { h.Intervals = h.Intervals[:len(h.Intervals)-1] }), history, "the server hides what entry"},
		{"one too many", past(func(h *api.History) { h.Intervals = append(h.Intervals, h.Intervals[0]) }), history, "nothing proves the row"},
		{"changes hidden", onRows("/v1/changes", func(v *api.Changes) {
			v.Changes = slices.DeleteFunc(v.Changes, func(r api.Record) bool { return r.Index == entered })
		}), history, "keeps back"},
		{"a change's operator", changes(func(r *api.Record) { r.Operator = "mallory" }), list, "its operator is mallory"},
		{"a change's words", changes(func(r *api.Record) { r.Detail = map[string]any{"reason": "all is well"} }), list, "its detail is {\"reason\":\"all is well\"}"},
		{"a change's words erased", changes(func(r *api.Record) { r.Detail, r.Erased = nil, true }), list, "its detail is nothing"},
		{"a change itself", changes(func(r *api.Record) { r.Event = json.RawMessage(`{"type":"dev.sealstone.note.added"}`) }), list, "its event is {\"type\":\"dev.sealstone.note.added\"}"},
		{"a change that isn't", changes(func(r *api.Record) { r.Index = 1 << 40 }), list, "shows what it does not prove"},
		{"another change", changes(func(r *api.Record) { r.Index-- }), list, "the server says that its"},
		{"a change in time", changes(func(r *api.Record) { r.Late = true }), list, "its late is true"},
		{"a row with proofs", past(func(h *api.History) { h.Intervals[0].By = "mallory" }), append(history, "--proofs", filepath.Join(r.Dir, "proofs")), "its by is mallory"},
	} {
		l.lie.Store(nil)
		if res := s.CLI(append(c.args, "--server", l.URL)...); res.Code != 0 || strings.Contains(res.Stderr, "server's word") {
			t.Fatalf("%v of an honest server: exit %d\n%s%s", c.args, res.Code, res.Stdout, res.Stderr)
		}
		l.lie.Store(&c.lie)
		res := s.CLI(append(c.args, "--server", l.URL)...)
		if res.Code != 3 || !strings.Contains(res.Stderr, c.says) || res.Stdout != "" {
			t.Errorf("%s: exit %d, want 3 and %q\n%s%s", c.name, res.Code, c.says, res.Stdout, res.Stderr)
		}
		if bare := s.CLI(append(c.args, "--server", l.URL, "--trust", "")...); len(c.args) < 3 && (bare.Code != 0 || !strings.Contains(bare.Stderr, "the rows are the server's word")) {
			t.Errorf("%s, without a trust file: exit %d\n%s", c.name, bare.Code, bare.Stderr)
		}
	}
	l.tellsOfThePast(s, forged)
	l.lie.Store(nil)
	all := s.OK("history", eu, "-o", "csv", "--server", l.URL)
	rows := strings.Split(strings.TrimSpace(all), "\n")[1:]
	mid := strings.Split(rows[len(rows)/2], ",")[0]
	for _, args := range [][]string{{"--limit", "1"}, {"--limit", "2"}, {"--from", mid}, {"--to", mid}, {"--before", strings.Split(rows[1], ",")[2]}, {"-o", "json"}} {
		s.OK(append([]string{"history", eu, "--server", l.URL}, args...)...)
	}
}

// tellsOfThePast lies with rows and says that the log went on from there: what is
// shown then is what the log proves.
func (l *liar) tellsOfThePast(s *proctest.Server, forged api.Digest) {
	t := l.forger.t
	t.Helper()
	args := []string{"history", eu, "-o", "csv", "--server", l.URL}
	l.lie.Store(nil)
	honest, live := s.OK(args...), decode[api.Live](t, s.OK("live", "-o", "json", "--server", l.URL))
	old := onRows("/v1/history", func(h *api.History) { h.Size, h.Intervals = 1, nil })
	l.lie.Store(&old)
	if got := s.OK(args...); got != honest {
		t.Errorf("history of a server that tells of the past:\n%s\nwant\n%s", got, honest)
	}
	old = onRows("/v1/live", func(v *api.Live) {
		v.Size = 1
		for _, s := range v.Services {
			for i := range s.Scopes {
				s.Scopes[i].Proven = &api.Proven{Bundle: forged, Mode: "normal"}
			}
		}
	})
	l.lie.Store(&old)
	got := decode[api.Live](t, s.OK("live", "-o", "json", "--server", l.URL))
	for i, s := range live.Services {
		for k, row := range s.Scopes {
			if p := got.Services[i].Scopes[k].Proven; !reflect.DeepEqual(p, row.Proven) {
				t.Errorf("%s@%s of a server that tells of the past: %+v, want %+v", s.Service, row.Scope, p, row.Proven)
			}
		}
	}
}

// What is live, and was, is proven while others write into the same chains.
func TestRowsAreProvenBesideWriters(t *testing.T) {
	t.Parallel()
	r := proctest.New(t, examples.Shop())
	s := r.Serve()
	s.UntilTip(r.Git("rev-parse", "HEAD"))
	end := writeUntil(t, r, s.URL)
	stop := make(chan struct{})
	var renewals sync.WaitGroup
	renewals.Go(func() {
		for n := int64(0); ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			kind := ledger.SafeModeRenewed
			if n == 0 {
				kind = ledger.SafeModeEntered
			}
			if status, b, err := ask(t.Context(), http.MethodPost, s.URL+"/v1/changes", r.SafeMode(kind, "checkout", "prod", "degraded", n).Raw); err != nil || status != http.StatusOK {
				t.Error(status, string(b), err)
				return
			}
		}
	})
	runs := 5
	if testing.Short() || proctest.Race() {
		runs = 2
	}
	for range runs {
		for _, args := range [][]string{{"live"}, {"live", "checkout"}, {"history", eu}, {"history", "checkout@prod", "--limit", "3"}, {"history", "checkout@prod", "-o", "json"}} {
			if res := s.CLI(args...); res.Code != 0 {
				t.Errorf("%v beside writers: exit %d\n%s", args, res.Code, res.Stderr)
			}
		}
	}
	close(stop)
	renewals.Wait()
	end()
	t.Logf("%d entries", s.Status().Size)
}
