// Package api is the vocabulary that every part of Sealstone shares: names,
// scopes, targets, digests, times, the error table, and the shapes of requests
// and answers. It imports the standard library only and holds no behaviour
// beyond parsing and printing, so that a client, a server and a verifier in
// one process can't disagree about what a word means.
package api
