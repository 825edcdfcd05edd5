package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sealstone/sealstone/api"
)

// inProcess sends requests to a handler.
type inProcess struct{ http.Handler }

func (h inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	res := w.Result()
	res.Request = r
	return res, nil
}

// serveIn answers every request of a test by a function.
func serveIn(t *testing.T, f http.HandlerFunc) {
	old := http.DefaultTransport
	t.Cleanup(func() { http.DefaultTransport = old })
	http.DefaultTransport = inProcess{f}
}

// Whoever asks something else than a Sealstone server is told so.
func TestAnotherServerIsNamed(t *testing.T) {
	for _, status := range []int{http.StatusNotFound, http.StatusOK} {
		serveIn(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status); _, _ = w.Write([]byte("<html>")) })
		var said bytes.Buffer
		if run(t.Context(), []string{"live", "--server", "http://server/x"}, nil, &said, &said) != exitError || !strings.Contains(said.String(), "next: is that a Sealstone server?") {
			t.Errorf("%d: %s", status, said.String())
		}
	}
}

// A search for words goes on where an answer found none, until one finds some,
// or there is nothing more; not for ever with a server that goes nowhere.
func TestSearchGoesOn(t *testing.T) {
	for name, c := range map[string]struct {
		next  []int64
		found bool
		asked string
	}{
		"found":     {[]int64{20_000, 10_000}, true, "[ 20000 10000]"},
		"not there": {[]int64{10_000}, false, "[ 10000]"},
		"nowhere":   {[]int64{10_000, 10_000, 10_000}, false, "[ 10000]"},
	} {
		t.Run(name, func(t *testing.T) {
			var asked []string
			serveIn(t, func(w http.ResponseWriter, r *http.Request) {
				n := len(asked)
				asked = append(asked, r.URL.Query().Get("before"))
				answer := api.Changes{Size: 30_000}
				if n < len(c.next) {
					answer.Next = &c.next[n]
				} else if c.found {
					answer.Changes = []api.Record{{Index: 7, Event: json.RawMessage("{}")}}
				}
				_ = json.NewEncoder(w).Encode(answer)
			})
			a := &app{server: "http://server"}
			asks, err := a.client()
			if err != nil {
				t.Fatal(err)
			}
			answer, err := asks.searchChanges(t.Context(), url.Values{"text": {"word"}})
			if err != nil || (len(answer.Changes) == 1) != c.found || fmt.Sprint(asked) != c.asked {
				t.Errorf("asked %q, %d changes, %v", asked, len(answer.Changes), err)
			}
		})
	}
}

// A follower shows the newest, oldest first, then each change once, over an
// answer that fails and one that is cut into pages.
func TestFollowShowsEachChangeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		record := func(i int64) api.Record { return api.Record{Index: i, Event: json.RawMessage("{}")} }
		answers := []any{
			api.Changes{Size: 3, Changes: []api.Record{record(2), record(0)}, Next: new(int64(0))},
			errors.New("not now"),
			api.Changes{Size: 6, Changes: []api.Record{record(3)}, Next: new(int64(3))},
			api.Changes{Size: 6, Changes: []api.Record{record(5)}},
			api.Changes{Size: 6},
		}
		var asked []string
		serveIn(t, func(w http.ResponseWriter, r *http.Request) {
			asked = append(asked, r.URL.Query().Get("after"))
			n := len(asked) - 1
			if n == len(answers)-1 {
				defer cancel()
			}
			if _, bad := answers[n].(error); bad {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			_ = json.NewEncoder(w).Encode(answers[n])
		})
		var out, stderr strings.Builder
		a := &app{out: &out, err: &stderr, output: "jsonl", server: "http://server"}
		if err := a.followChanges(ctx, url.Values{}); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		var shown []int64
		for line := range strings.Lines(out.String()) {
			var r api.Record
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatal(err)
			}
			shown = append(shown, r.Index)
		}
		if fmt.Sprint(shown) != "[0 2 3 5]" || fmt.Sprint(asked) != "[ 2 2 3 5]" || strings.Count(stderr.String(), "asking again") != 1 {
			t.Errorf("shown %v, asked after %q, said %q", shown, asked, stderr.String())
		}
	})
}

// A log that got shorter under a follower was rolled back, also for one without a
// trust file, and after an answer that failed.
func TestFollowEndsWhereTheLogGotShorter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sizes := []int64{3, 4, 0, 3}
		asked := 0
		serveIn(t, func(w http.ResponseWriter, _ *http.Request) {
			size := sizes[asked]
			if asked++; size == 0 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			_ = json.NewEncoder(w).Encode(api.Changes{Size: size})
		})
		var out, stderr strings.Builder
		a := &app{out: &out, err: &stderr, output: "jsonl", server: "http://server"}
		err := a.followChanges(t.Context(), url.Values{})
		if codeOf(err) != exitProof || !strings.Contains(err.Error(), "it had 4 entries, and the server says it has 3") || asked != len(sizes) {
			t.Errorf("asked %d times: %v", asked, err)
		}
	})
}
