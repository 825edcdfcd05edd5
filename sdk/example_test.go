package sdk_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/open-feature/go-sdk/openfeature"

	"github.com/sealstone/sealstone/flags"
	"github.com/sealstone/sealstone/sdk"
)

// A service opens a client and reads flags and documents; it never has to ask
// where they came from, because nothing unproven reaches it.
func Example() {
	server, trust := exampleServer()
	defer server.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second) // else a wrong scope waits for ever
	defer cancel()

	client, err := sdk.Open(ctx, sdk.Config{
		Servers:   []string{server.URL},
		Target:    "checkout@prod/eu",
		TrustData: trust,
		Logger:    slog.New(slog.DiscardHandler),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	// A handle, for hot paths.
	newCheckout := client.Bool("new-checkout")
	fmt.Println("new checkout in Germany:", newCheckout.Get(flags.Context{"country": "de"}, false))

	// A typed document that follows every change.
	http, err := sdk.Document[struct{ Timeout int }](client, "config/http")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("timeout:", http.Get().Timeout)

	// OpenFeature, for everything else.
	if err := openfeature.SetProviderAndWait(client.Provider()); err != nil {
		log.Fatal(err)
	}
	defer openfeature.Shutdown()
	release, err := openfeature.NewDefaultClient().IntValue(ctx, "release", 0, openfeature.EvaluationContext{})
	fmt.Println("release:", release, err)

	live := client.Live()
	fmt.Println(live.State, live.Mode, "by change", live.Index, "ready for", live.SafeModes)
	// Output:
	// new checkout in Germany: true
	// timeout: 1
	// release: 1 <nil>
	// READY normal by change 2 ready for [degraded]
}

func exampleServer() (*httptest.Server, []byte) {
	l := newFake(&testing.T{})
	l.activate("prod", 1, release(1))
	return httptest.NewServer(l), l.Trust.Raw
}
