package telemetry_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/open-feature/go-sdk/openfeature"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/propagation"

	"github.com/sealstone/sealstone/sdk"
	"github.com/sealstone/sealstone/sdk/telemetry"
)

// A service tells everywhere which bundle it runs: to those who scrape it, on
// its spans, and to the services that it calls.
func Example() {
	client, err := sdk.Open(context.Background(), sdk.Config{
		Servers:  []string{"https://config.example.com"},
		Target:   "checkout@prod/eu-west-1",
		Trust:    "/etc/sealstone/trust.json",
		Instance: sdk.Instance{Artifact: os.Getenv("ARTIFACT")}, // what the pipeline records; else the executable's digest
	})
	if err != nil {
		log.Fatal(err)
	}
	tel, err := telemetry.New(client, telemetry.Config{})
	if err != nil {
		log.Fatal(err)
	}
	openfeature.AddHooks(tel.Hook())

	catalog := &http.Client{Transport: tel.Transport(nil)}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /buy", func(w http.ResponseWriter, r *http.Request) {
		ask, _ := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://catalog/stock", nil)
		res, err := catalog.Do(ask)
		if err != nil {
			http.Error(w, "no catalog", http.StatusBadGateway)
			return
		}
		res.Body.Close()
	})
	http.Handle("/metrics", promhttp.Handler())
	http.Handle("/", tel.Edge(mux)) // customers are strangers; between own services it is Middleware
	log.Fatal(http.ListenAndServe(":8080", nil))
}

// A message carries its trace, and the bundle of who sent it, in its headers.
func ExampleTelemetry_Inject() {
	checkout, payments := telemetry.NewProcess("checkout@prod"), telemetry.NewProcess("payments@prod")

	headers := map[string]string{}
	ctx, span := checkout.Start(context.Background(), "place order")
	checkout.Inject(ctx, propagation.MapCarrier(headers))
	span.End()
	fmt.Println(headers["baggage"])

	ctx, settled := payments.Start(payments.Extract(context.Background(), propagation.MapCarrier(headers)), "settle order")
	defer settled.End()
	fmt.Println("one trace:", settled.SpanContext().TraceID() == span.SpanContext().TraceID())
	_ = ctx // what the consumer does goes on under it
	// Output:
	// sealstone.b=checkout:5d2475af8b9c
	// one trace: true
}

// Requests are counted by the bundle and the artifact that served them.
func ExampleTelemetry_Middleware() {
	checkout := telemetry.NewProcess("checkout@prod/eu-west-1")
	s := httptest.NewServer(checkout.Middleware(http.NotFoundHandler()))
	defer s.Close()
	res, err := http.Get(s.URL)
	if err != nil {
		log.Fatal(err)
	}
	res.Body.Close()
	fmt.Println(strings.Join(checkout.Scrape("sealstone_requests_total"), "\n"))
	// Output:
	// sealstone_requests_total{artifact="c7c5c1d70c5d",bundle="5d2475af8b9c",env="prod",outcome="client_error",pool="",region="eu-west-1",service="checkout"} 1
}
