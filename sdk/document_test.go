package sdk_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/sdk"
)

type httpConfig struct{ Timeout int }

// withDoc is a release whose document is as given; "" leaves it out.
func withDoc(n int, doc string) contents {
	c := release(n)
	for _, files := range c {
		if files["config/http.json"] = []byte(doc); doc == "" {
			delete(files, "config/http.json")
		}
	}
	return c
}

func TestDocumentIsLiveAndTyped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, c := running(t)
		doc, err := sdk.Document[httpConfig](c, "config/http")
		must(t, err)
		var mu sync.Mutex
		var calls []string
		cancel := doc.OnChange(func(old, new httpConfig) {
			mu.Lock()
			defer mu.Unlock()
			calls = append(calls, fmt.Sprint(old.Timeout, "→", new.Timeout))
		})
		is := func(want int, wantCalls ...string) {
			t.Helper()
			mu.Lock()
			defer mu.Unlock()
			if got := doc.Get().Timeout; got != want || !slices.Equal(calls, wantCalls) {
				t.Errorf("timeout %d, want %d; calls %q, want %q", got, want, calls, wantCalls)
			}
		}
		next := func(n int, doc string) {
			t.Helper()
			l.activate("prod", n, withDoc(n, doc))
			l.tell("head")
			settled(time.Second)
			runs(t, c, int64(n))
		}
		is(1)
		next(2, `{"timeout":2}`)
		is(2, "1→2")
		next(3, `{"timeout":"soon"}`)
		is(2, "1→2")
		if e := c.Live().Documents["config/http"]; e == "" || c.State() != api.StateReady {
			t.Errorf("the fault is not reported: %+v", c.Live())
		}
		next(4, "")
		is(2, "1→2")
		next(5, `{"more":true,"timeout":5}`)
		is(5, "1→2", "2→5")
		if d := c.Live().Documents; len(d) != 0 {
			t.Errorf("still reported: %v", d)
		}
		cancel()
		next(6, `{"timeout":6}`)
		is(6, "1→2", "2→5")
		if string(c.Raw("config/http")) != `{"timeout":6}` || c.Raw("config/none") != nil {
			t.Errorf("raw %s", c.Raw("config/http"))
		}
	})
}

func TestDocumentThatIsNotThereOrDoesNotFit(t *testing.T) {
	_, c := running(t)
	if _, err := sdk.Document[httpConfig](c, "config/none"); err == nil {
		t.Error("a document that isn't there was opened")
	}
	if _, err := sdk.Document[[]string](c, "config/http"); err == nil {
		t.Error("a document was decoded into what it isn't")
	}
}

// TestFlagsAndDocumentsSwapTogether reads both behind one swap, from two
// handles, while releases change: a reader that sees the newer document never
// sees older flags after it.
func TestFlagsAndDocumentsSwapTogether(t *testing.T) {
	l, c := running(t)
	doc, err := sdk.Document[httpConfig](c, "config/http")
	must(t, err)
	h := c.Int("release")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if d, f := int64(doc.Get().Timeout), h.Get(nil, 0); f < d {
					t.Errorf("document of release %d, then flags of %d", d, f)
					return
				}
				if f, d := h.Get(nil, 0), int64(doc.Get().Timeout); d < f {
					t.Errorf("flags of release %d, then a document of %d", f, d)
					return
				}
			}
		})
	}
	for n := 2; n < 12; n++ {
		l.activate("prod", n, release(n))
		l.tell("head")
		for deadline := time.Now().Add(5 * time.Second); h.Get(nil, 0) != int64(n) && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
	}
	close(stop)
	wg.Wait()
	runs(t, c, 11)
}
