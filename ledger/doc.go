// Package ledger holds the formats of evidence and the rules that judge them:
// keys, DSSE envelopes, statements, changes, the trust file, operators and what
// they may do, heads, checkpoints, proofs, and the fold from changes to state.
//
// The package is pure. It takes bytes, times and keys, and returns values or an
// error; it opens no file, reads no clock and logs nothing. Server, SDK and
// command line call the same functions, so they can't judge a change
// differently.
//
// # The way of a change
//
// Somebody signs a [Statement]. The node checks it against its [State], wraps it
// into an [Event] and signs that as one DSSE envelope: the leaf. Leaves are
// hashed into a Merkle tree (RFC 6962) whose root the log key signs as a C2SP
// checkpoint. A [Head] is the node's short-lived word on which change is the
// newest of every chain of a service; [Evidence] is a head with all that is
// needed to believe it, starting from a [Trust] file.
package ledger
