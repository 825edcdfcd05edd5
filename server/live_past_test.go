package server

import (
	"fmt"
	"math/rand/v2"
	"net/url"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/instances"
	"github.com/sealstone/sealstone/ledger"
)

// liveStory is a random day of a server, and what it answered at each moment.
type liveStory struct {
	*rig
	rng     *rand.Rand
	alive   map[string]api.Instance
	entered int64 // changes of prod's override chain
	said    []api.Live
}

func (s *liveStory) keep(c *Config) {
	var err error
	if c.Instances, err = instances.Open(s.dir+"/instances.db", time.Now()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *liveStory) stop() {
	if err := s.cfg.Instances.Close(time.Now()); err != nil {
		s.t.Fatal(err)
	}
	_ = s.store.Close()
	_ = s.cfg.Source.Close()
}

func (s *liveStory) restart() {
	s.stop()
	s.open(s.url, s.keep)
	s.sync()
}

// instance is one that runs what is in effect, or something that the log never
// named.
func (s *liveStory) instance(scope api.Scope) api.Instance {
	in := api.Instance{Target: api.Target{Service: "checkout", Scope: scope}, Version: fmt.Sprint("v", s.rng.IntN(3)), Mode: api.ModeNormal, State: api.StateReady, FirstUse: s.rng.IntN(5) == 0}
	if eff, err := s.resolve(in.Target); err == nil && s.rng.IntN(5) > 0 {
		in.Bundle, in.Mode, in.Index = eff.Entry.Digest, eff.Mode, eff.index()
	} else {
		in.Bundle = api.DigestOf([]byte("nowhere"))
	}
	return in
}

func (s *liveStory) step(n int) {
	id := fmt.Sprint("pod-", s.rng.IntN(8))
	switch in, alive := s.alive[id]; s.rng.IntN(30) {
	case 0:
		s.push(map[string]string{"services/checkout/config/http.yaml": fmt.Sprintf("timeout: %d\n", 100+n)})
	case 1:
		kind := []ledger.Kind{ledger.SafeModeEntered, ledger.SafeModeExited}[s.entered%2]
		s.send(200, s.f.SafeMode(kind, "checkout", "prod", "degraded", s.entered))
		s.entered++
	case 2:
		s.restart()
	case 3, 4:
		delete(s.alive, id)
	case 5, 6, 7, 8:
		s.alive[id] = s.instance([]api.Scope{"prod", "prod/eu-west-1", "prod/eu-west-1/canary", "staging"}[s.rng.IntN(4)])
	case 9:
		time.Sleep(time.Duration(s.rng.IntN(4)) * time.Hour)
	case 10, 11, 12:
		s.live.Forget(time.Now())
		s.said = append(s.said, decode[api.Live](s.t, s.get(200, "/v1/live")))
	default:
		if alive {
			s.reportOne(204, in.Target.Scope, id, func(out *api.Instance) { *out = in; out.ID = id })
		}
	}
	time.Sleep(time.Duration(s.rng.IntN(12_000)) * time.Millisecond)
}

// What the server answered at each moment of a random story, it answers again
// when it is asked about that moment.
func TestLiveAtEachMomentOfAStory(t *testing.T) {
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(time.Until(time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)))
			s := &liveStory{rig: newRig(t, nil), rng: rand.New(rand.NewPCG(seed, 6)), alive: map[string]api.Instance{}}
			_ = s.store.Close()
			_ = s.cfg.Source.Close()
			s.open(s.url, s.keep)
			s.sync()
			for n := range 250 {
				s.step(n)
			}
			for i, was := range s.said {
				now := decode[api.Live](t, s.get(200, "/v1/live?at="+url.QueryEscape(was.Time)))
				compareLive(t, fmt.Sprintf("seed %d, moment %d, %s", seed, i, was.Time), now, was)
			}
			s.stop()
		})
	}
}

func compareLive(t *testing.T, when string, got, want api.Live) {
	t.Helper()
	if got.Size != want.Size || got.Time != want.Time || len(got.Services) != len(want.Services) {
		t.Fatalf("%s: %+v, want %+v", when, got, want)
	}
	for i := range want.Services {
		g, w := got.Services[i].Scopes, want.Services[i].Scopes
		if len(g) != len(w) {
			t.Fatalf("%s: %d scopes, want %d", when, len(g), len(w))
		}
		for j := range w {
			if g[j].Scope != w[j].Scope || !reflect.DeepEqual(g[j].Proven, w[j].Proven) || len(g[j].Instances) != len(w[j].Instances) {
				t.Fatalf("%s\ngot  %+v\nwant %+v", when, g[j], w[j])
			}
			for k := range w[j].Instances {
				compareInstance(t, when, g[j].Instances[k], w[j].Instances[k])
			}
		}
	}
}

// compareInstance leaves out what is not kept: the state, and a silence that the
// instance came back from.
func compareInstance(t *testing.T, when string, got, want api.LiveInstance) {
	t.Helper()
	want.State = ""
	if got.Lease == "live" && want.Lease == "suspect" {
		want.Lease, want.Drift = "live", want.Drift[:len(want.Drift)-1]
		if got.FirstUse { // its words come after those of silence
			want.Drift = got.Drift
		}
	}
	if got.Lease == "live" {
		want.LastSeen = got.LastSeen
	}
	if len(want.Drift) == 0 {
		want.Drift = nil
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s\ngot  %+v\nwant %+v", when, got, want)
	}
}
