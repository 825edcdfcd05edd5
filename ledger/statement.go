package ledger

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/canon"
)

// Statement is what a person or pipeline signs to cause a change. Its members
// beside the common ones are those of its kind.
type Statement struct {
	After   *int64     `json:"after,omitempty"`  // override chain's generation the signer saw; safe-mode kinds
	Detail  api.Digest `json:"detail,omitempty"` // see DetailDigest
	ID      string     `json:"id"`               // UUIDv7; the idempotency key
	Kind    Kind       `json:"kind"`
	Log     string     `json:"log"` // origin of the log it is meant for
	Scope   api.Scope  `json:"scope,omitempty"`
	Service string     `json:"service,omitempty"`
	Time    string     `json:"time"`
	Fields
}

// Signed is a statement with its envelope, checked in form but not yet judged:
// see [Operators.Judge].
type Signed struct {
	Statement
	Envelope *Envelope
	Raw      []byte // the envelope's bytes
}

// ErrStatement is wrapped by every refusal of a statement's form.
var ErrStatement = errors.New("bad statement")

var uuidV7 = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// ParseStatement reads a statement's envelope and holds it to the closed form
// of its kind. It does not judge the signature.
func ParseStatement(b []byte) (*Signed, error) {
	e, err := ParseEnvelope(b, TypeStatement)
	if err != nil {
		return nil, err
	}
	if _, err := e.one(); err != nil {
		return nil, err
	}
	s := &Signed{Envelope: e, Raw: b}
	payload, err := e.Bytes()
	if err != nil {
		return nil, err
	}
	if err := canon.Unmarshal(payload, &s.Statement); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStatement, err)
	}
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrStatement, s.Kind, err)
	}
	return s, nil
}

// SameStatement reports whether two envelopes hold the same statement by the
// same signature. The key id is a hint outside the signature, so a copy with
// another one is no other statement.
func SameStatement(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	x, err1 := ParseEnvelope(a, TypeStatement)
	y, err2 := ParseEnvelope(b, TypeStatement)
	return err1 == nil && err2 == nil && x.Payload == y.Payload && len(x.Signatures) == 1 && len(y.Signatures) == 1 && x.Signatures[0].Sig == y.Signatures[0].Sig
}

// Check holds a statement to its kind's closed form.
func (s *Statement) Check() error {
	r, ok := rules[s.Kind]
	if !ok || !s.Kind.Signed() {
		return fmt.Errorf("unknown kind, or one that nobody signs: %.64q", string(s.Kind))
	}
	if !uuidV7.MatchString(s.ID) {
		return fmt.Errorf("id %.64q: write a lower-case UUIDv7", s.ID)
	}
	if err := CheckOrigin(s.Log); err != nil {
		return fmt.Errorf("log: %w", err)
	}
	if _, err := api.ParseTime(s.Time); err != nil {
		return err
	}
	if s.Detail != "" && !s.Detail.Valid() {
		return fmt.Errorf("detail: %w", api.ErrDigest)
	}
	if needs := r.lane == LaneOverride; needs != (s.After != nil) {
		return errors.New("member \"after\" goes with safe-mode.entered, renewed and exited, and only with those")
	}
	if s.After != nil && *s.After < 0 {
		return errors.New("member \"after\" is negative")
	}
	if err := r.checkPlace(s.Service, s.Scope); err != nil {
		return err
	}
	return r.checkFields(&s.Fields, true)
}

// Sign checks a statement and signs it, returning the envelope's bytes.
func (s *Statement) Sign(k Signer) ([]byte, error) {
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStatement, err)
	}
	payload, err := canon.Marshal(s)
	if err != nil {
		return nil, err
	}
	e, err := Seal(TypeStatement, payload, k)
	if err != nil {
		return nil, err
	}
	return e.Encode()
}

// At is the statement's time.
func (s *Statement) At() time.Time {
	t, _ := api.ParseTime(s.Time)
	return t
}

// SaltSize is how many random bytes are hashed before a detail, so that a
// guess at its text can't be confirmed from the leaf.
const SaltSize = 32

// Detail is what lies outside the leaf and can be erased: names, words, links.
type Detail struct {
	Salt string         // 32 bytes, standard base64
	Text map[string]any // its JCS bytes are hashed
}

// DetailLine is a line of a log's details/<N> files, of which each has those of
// 256 entries.
type DetailLine struct {
	Index  int64          `json:"index"`
	Salt   string         `json:"salt"`
	Detail map[string]any `json:"detail"`
}

// Of returns the detail if it is the one that a change names so.
func (l DetailLine) Of(want api.Digest) (*Detail, bool) {
	d := &Detail{Salt: l.Salt, Text: l.Detail}
	name, err := d.Digest()
	return d, err == nil && name == want
}

// NewDetail salts a detail; nil text gives nil.
func NewDetail(text map[string]any) (*Detail, api.Digest, error) {
	if len(text) == 0 {
		return nil, "", nil
	}
	salt := make([]byte, SaltSize)
	if _, err := rand.Read(salt); err != nil {
		return nil, "", err
	}
	d := &Detail{base64.StdEncoding.EncodeToString(salt), text}
	name, err := d.Digest()
	return d, name, err
}

// Digest is sha256(salt ‖ JCS of the text), as the leaf holds it.
func (d *Detail) Digest() (api.Digest, error) {
	salt, err := decodeBase64(d.Salt)
	if err != nil || len(salt) != SaltSize {
		return "", fmt.Errorf("salt is not %d bytes of standard base64", SaltSize)
	}
	text, err := canon.Encode(d.Text)
	if err != nil {
		return "", fmt.Errorf("detail: %w", err)
	}
	if len(text) > MaxDetail {
		return "", fmt.Errorf("detail of %d bytes, limit %d", len(text), MaxDetail)
	}
	return api.DigestOf(append(salt, text...)), nil
}
