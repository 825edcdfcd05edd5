// Package ofrep has no code: its tests let OpenFeature's own OFREP providers,
// for web pages and for Go, evaluate flags of a running server.
//
//	go -C integration/ofrep test ./...
//
// The web provider runs in Node, with packages that npm installs as
// web/package-lock.json pins them; without node and npm its tests are skipped.
package ofrep
