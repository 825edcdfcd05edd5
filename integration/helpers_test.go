package integration_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/flags"
	"github.com/sealstone/sealstone/integration/proctest"
	"github.com/sealstone/sealstone/ledger"
	"github.com/sealstone/sealstone/sdk"
)

func TestMain(m *testing.M) {
	if config := os.Getenv(serviceEnv); config != "" {
		if err := runService(config); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	proctest.Main(m)
}

// Files of the shop that tests change.
const (
	commonFlags   = "common/flags/common.yaml"
	checkoutFlags = "services/checkout/flags/checkout.yaml"
	checkoutHTTP  = "services/checkout/config/http.yaml"
	catalogHTTP   = "services/catalog/config/http.yaml"
)

// expressOn turns checkout's express-checkout on, or off again.
func expressOn(r *proctest.Rig, on bool) {
	from, to := "off", "on"
	if !on {
		from, to = to, from
	}
	r.Edit(checkoutFlags, `(?s)(express-checkout:.*?defaultVariant: )`+from, "${1}"+to)
}

// sdkConfig is a client of a server or proxy, with a cache of its own.
func sdkConfig(t *testing.T, r *proctest.Rig, target string, servers ...string) sdk.Config {
	return sdk.Config{Servers: servers, Target: target, Trust: r.Trust, Cache: t.TempDir(), Logger: slog.New(slog.DiscardHandler)}
}

// openSDK opens a client for the length of a test.
func openSDK(t *testing.T, cfg sdk.Config) *sdk.Client {
	t.Helper()
	c, err := sdk.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// express is the flag as a client evaluates it.
func express(c *sdk.Client) bool { return c.Bool("express-checkout").Get(flags.Context{}, false) }

// untilExpress waits for the flag on a client.
func untilExpress(t *testing.T, c *sdk.Client, want bool) {
	t.Helper()
	proctest.Until(t, c.Target().String()+" evaluates the flag anew", func() bool { return express(c) == want })
}

// untilMode waits until a client runs a mode.
func untilMode(t *testing.T, c *sdk.Client, want api.Mode) {
	t.Helper()
	proctest.Until(t, c.Target().String()+" runs mode "+string(want), func() bool { return c.Live().Mode == want })
}

// wantReady holds a client to READY, with nothing refused.
func wantReady(t *testing.T, c *sdk.Client) {
	t.Helper()
	proctest.Until(t, c.Target().String()+" is READY", func() bool { return c.State() == api.StateReady })
	if l := c.Live(); l.Refusal != nil {
		t.Errorf("%s refused %+v", c.Target(), l.Refusal)
	}
}

func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

// receipt runs a command that writes and returns what it printed.
func receipt(t *testing.T, s *proctest.Server, args ...string) api.Receipt {
	t.Helper()
	return decode[api.Receipt](t, s.OK(append(args, "-o", "json")...))
}

// hoursAgo makes a statement that enters checkout's safe mode, and that was
// signed some hours ago after generation 0.
func hoursAgo(n int) func(*ledger.Statement) {
	return func(st *ledger.Statement) {
		after := int64(0)
		st.Mode, st.TTL, st.OnExpiry, st.After = "degraded", 3600, "hold", &after
		st.Time = api.FormatTime(time.Now().Add(-time.Duration(n) * time.Hour))
	}
}
