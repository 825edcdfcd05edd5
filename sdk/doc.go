// Package sdk lets a service read flags and configuration of which it can prove
// where they came from.
//
//	client, err := sdk.Open(ctx, sdk.Config{
//		Servers: []string{"https://config.example.com"},
//		Target:  "checkout@prod/eu-west-1",
//		Trust:   "/etc/sealstone/trust.json",
//		Cache:   "/var/cache/checkout",
//	})
//	if err != nil { ... }
//	defer client.Close()
//
//	openfeature.SetProviderAndWait(client.Provider())       // OpenFeature, or
//	newCheckout := client.Bool("new-checkout")               // a handle for hot paths
//	http, err := sdk.Document[HTTPConfig](client, "config/http") // a typed document
//
// # What it believes
//
// A client is given one trust file and believes nothing else for being sent. In
// this order it verifies: the head's signature and age, the log's consistency
// with what was known, every change and the statement inside it, that no chain
// went back or away, the set, the manifests, the objects, and that all rules
// compile. Only then readers see any of it, by one swap of one pointer. What
// fails is refused by a named check (see [Refusal]), the last known good stays,
// and the next server is asked.
//
// # What goes on working
//
// After [Open] no read fails or blocks. Without servers the client goes on with
// what it has and says STALE. Safe modes are staged beforehand, so entering one
// takes a signed statement and nothing else: by a server, another server that passes it on, or a file in
// [Config.OverrideDir]. A statement is obeyed until the log has moved on from
// what its signer saw; taking the file away doesn't end the mode, an exit does.
package sdk
