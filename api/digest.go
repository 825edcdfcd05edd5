package api

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Digest names bytes: "sha256:" and 64 lower-case hex digits. The zero value
// names nothing.
type Digest string

const digestPrefix = "sha256:"

// ErrDigest is returned for a digest that isn't spelled "sha256:<64 lower hex>".
var ErrDigest = errors.New("not a digest of the form sha256:<64 lower-case hex>")

// DigestOf names b.
func DigestOf(b []byte) Digest {
	sum := sha256.Sum256(b)
	return DigestFromSum(sum)
}

// DigestFromSum spells a SHA-256 sum.
func DigestFromSum(sum [32]byte) Digest {
	return Digest(digestPrefix + hex.EncodeToString(sum[:]))
}

// ParseDigest accepts the one spelling that DigestOf prints.
func ParseDigest(s string) (Digest, error) {
	if d := Digest(s); d.Valid() {
		return d, nil
	}
	return "", fmt.Errorf("%q: %w", quotable(s), ErrDigest)
}

// Valid reports whether d is spelled canonically.
func (d Digest) Valid() bool {
	rest, ok := strings.CutPrefix(string(d), digestPrefix)
	return ok && len(rest) == 64 && isLowerHex(rest)
}

// Sum returns the 32 bytes that d spells; ok is false when d is not valid.
func (d Digest) Sum() (sum [32]byte, ok bool) {
	if !d.Valid() {
		return sum, false
	}
	_, err := hex.Decode(sum[:], []byte(d[len(digestPrefix):]))
	return sum, err == nil
}

// Hex returns the 64 digits without the algorithm.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), digestPrefix) }

// Short is for people: "sha256:" and the first 12 digits.
func (d Digest) Short() string {
	if len(d) < len(digestPrefix)+12 {
		return string(d)
	}
	return string(d[:len(digestPrefix)+12])
}

// Names reports whether b is what d names.
func (d Digest) Names(b []byte) bool { return DigestOf(b) == d }

func isLowerHex(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// IsCommit reports whether s is a full Git commit id: 40 lower-case hex digits.
func IsCommit(s string) bool { return len(s) == 40 && isLowerHex(s) }

// Clip shortens a text to most bytes, dots included; what it cuts stays UTF-8.
func Clip(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-3], "") + "..."
}

// quotable keeps hostile values out of messages.
func quotable(s string) string { return Clip(s, 64) }
