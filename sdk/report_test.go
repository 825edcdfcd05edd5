package sdk_test

import (
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
	"github.com/sealstone/sealstone/sdk"
)

func TestReportsWhatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFake(t)
		set := l.activate("prod", 1, release(1))
		cfg := l.config()
		image := string(api.DigestOf([]byte("image")))
		cfg.Instance = sdk.Instance{ID: "pod-1", Version: "v1.2.3", Revision: "abc", Image: image, SBOM: image}
		c := open(t, cfg)
		settled(time.Second)
		first := l.reported()[0]
		if first.ID != "pod-1" || first.Version != "v1.2.3" || first.Revision != "abc" || first.Image != image || first.SBOM != image || !api.Digest(first.Artifact).Valid() ||
			first.Bundle != c.Live().Bundle || first.Set != set.Digest || first.Index != 2 || first.Started == "" || !slices.Equal(first.SafeModes, []api.Mode{"degraded"}) {
			t.Errorf("report %+v", first)
		}
		second := l.reported()[1] // the server asked for the list, once
		if first.DepList != nil || !slices.ContainsFunc(second.DepList, isStdlib) || second.Deps != api.DependenciesDigest(second.DepList) || second.Deps != first.Deps {
			t.Errorf("dependencies %s, %s %q", first.Deps, second.Deps, second.DepList)
		}
		settled(time.Minute)
		if n := len(l.reported()); n < 5 || n > 8 || slices.ContainsFunc(l.reported()[2:], func(i api.Instance) bool { return i.DepList != nil }) {
			t.Errorf("%d reports in the first minute", n)
		}
		before := len(l.reported())
		l.accept(l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
		l.tell("head")
		settled(100 * time.Millisecond)
		if all := l.reported(); len(all) == before || all[len(all)-1].Mode != "degraded" {
			t.Error("the change was not reported at once")
		}
		l.locked(func() { l.evidence = func(e *ledger.Evidence) { e.Head = swap64(e.Head) } })
		l.tell("head")
		settled(time.Second)
		all := l.reported()
		if last := all[len(all)-1]; last.State != api.StateError || last.Refusal == nil || last.Refusal.Check != "head" {
			t.Errorf("report %+v", last)
		}
	})
}

func TestDependenciesOfABuild(t *testing.T) {
	got := sdk.Dependencies(&debug.BuildInfo{GoVersion: "go1.26.8 X:none", Deps: []*debug.Module{
		{Path: "golang.org/x/net", Version: "v0.39.0"},
		{Path: "example.com/old", Version: "v2.0.0+incompatible"},
		{Path: "example.com/forked", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/fork", Version: "v1.1.0"}},
		{Path: "example.com/here", Version: "v1.0.0", Replace: &debug.Module{Path: "../here"}},
	}})
	want := []string{"pkg:golang/example.com/fork@v1.1.0", "pkg:golang/example.com/forked@", "pkg:golang/example.com/here@", "pkg:golang/example.com/old@v2.0.0%2Bincompatible",
		"pkg:golang/golang.org/x/net@v0.39.0", "pkg:golang/stdlib@v1.26.8"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func isStdlib(url string) bool { return strings.HasPrefix(url, "pkg:golang/stdlib@v1.") }

func TestTokenFileIsReadAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(path, []byte("one\n"), 0o600))
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		cfg.TokenFile = path
		tokens := map[string]int{}
		cfg.HTTPClient = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			l.locked(func() { tokens[r.Header.Get("Authorization")]++ })
			return l.RoundTrip(r)
		})}
		open(t, cfg)
		must(t, os.WriteFile(path, []byte("two\n"), 0o600))
		settled(time.Minute)
		if len(tokens) != 2 || tokens["Bearer two"] == 0 {
			t.Errorf("tokens %v", tokens)
		}
	})
}

// TestSilentWatchIsGivenUp: a stream without even a keep-alive is dead, whatever
// TCP says.
func TestSilentWatchIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cfg := released(t)
		opened := 0
		cfg.HTTPClient = &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path != "/v1/watch" {
				return l.RoundTrip(r)
			}
			opened++
			<-r.Context().Done()
			return nil, r.Context().Err()
		})}
		open(t, cfg)
		settled(5 * time.Minute)
		if opened < 3 || opened > 7 {
			t.Errorf("the stream was opened %d times in five minutes", opened)
		}
	})
}
