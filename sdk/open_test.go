package sdk_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
	"github.com/sealstone/sealstone/sdk"
)

// manyFlags is a bundle of n flags with a rule each.
func manyFlags(n, release int) map[string][]byte {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"flag-%04d":{"defaultVariant":"off","state":"ENABLED","targeting":{"if":[{"and":[{"in":[{"var":"country"},["at","de","ch"]]},`+
			`{"sem_ver":[{"var":"version"},">=","1.%d.0"]}]},"on","off"]},"variants":{"off":false,"on":true}}`, i, i)
	}
	return map[string][]byte{"flags.json": fmt.Appendf(nil, `{"flags":{%s,"release":{"defaultVariant":"v","state":"ENABLED","variants":{"v":%d}}}}`, b.String()[1:], release)}
}

func TestManyModesAreStaged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, c := running(t)
		settled(time.Second)
		all := contents{api.ModeNormal: files(2)}
		for i := range 20 {
			all[api.Mode(fmt.Sprintf("mode-%c", 'a'+i))] = files(100 + i)
		}
		bad := maps.Clone(all)
		bad["mode-c"] = map[string][]byte{"flags.json": []byte(`{"flags":{"x":{"defaultVariant":"gone","state":"ENABLED","variants":{"on":true}}}}`)}
		l.activate("prod", 2, bad)
		l.tell("head")
		settled(time.Second)
		runs(t, c, 1)
		if e := c.Live().LastError; !strings.Contains(e, "mode mode-c") {
			t.Errorf("the mode is not named: %s", e)
		}

		l.activate("prod", 3, all)
		settled(time.Minute)
		runs(t, c, 2)
		for i := range int64(20) {
			l.accept(l.SafeMode(ledger.SafeModeEntered, "checkout", "prod", api.Mode(fmt.Sprintf("mode-%c", 'a'+i)), i))
			l.tell("head")
			settled(time.Second)
			runs(t, c, 100+i)
		}
	})
}

// BenchmarkOpenFromCache is a start without a server: two modes of 1,000 flags.
func BenchmarkOpenFromCache(b *testing.B) {
	var t testing.T
	l := newFake(&t)
	l.activate("prod", 1, contents{api.ModeNormal: manyFlags(1000, 1), "degraded": manyFlags(1000, 1001)})
	cfg := l.config()
	cfg.Logger, cfg.Cache = nil, b.TempDir()
	for b.Loop() {
		c, err := sdk.Open(b.Context(), cfg)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		c.Close()
		l.down = true
		b.StartTimer()
	}
}
