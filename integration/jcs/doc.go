// Package jcs holds the canonical encoder against an implementation of RFC 8785
// that is not ours. Every difference has a name in known.
package jcs
