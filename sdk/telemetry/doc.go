// Package telemetry ties what users see to what runs. It puts the bundle and
// the artifact of this process on spans, on request metrics and into flag
// evaluation events, and tells the services it calls which bundle called them.
//
//	tel, err := telemetry.New(client, telemetry.Config{})
//	openfeature.AddHooks(tel.Hook())
//	http.ListenAndServe(addr, tel.Middleware(mux))          // or tel.Edge(mux), where strangers call
//	payments := &http.Client{Transport: tel.Transport(nil)} // for services of our own only
//	tel.Inject(ctx, propagation.MapCarrier(msg.Headers))    // a queue's producer
//	ctx, span := tel.Start(tel.Extract(ctx, propagation.MapCarrier(msg.Headers)), "ship order") // and its consumer
//
// A digest seen on a span or in a label is what /v1/changes?digest= of a server
// asks for: the answer is the change that brought it.
//
// It is a package of its own so that the SDK needs no OpenTelemetry.
package telemetry
