package ledger

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/sealstone/sealstone/internal/canon"
)

// Payload types of the envelopes that Sealstone signs.
const (
	TypeChange    = "application/vnd.sealstone.change.v1+json"
	TypeStatement = "application/vnd.sealstone.statement.v1+json"
	TypeTrust     = "application/vnd.sealstone.trust.v1+json"
)

// Limits, in bytes.
const (
	MaxLeaf     = 65_535 // tlog-tiles writes a leaf's length in 16 bits
	MaxEnvelope = 128 << 10
	MaxDetail   = 16 << 10
)

// Envelope is a DSSE envelope. Payload and signatures are standard base64.
type Envelope struct {
	Payload     string      `json:"payload"`
	PayloadType string      `json:"payloadType"`
	Signatures  []Signature `json:"signatures"`
}

// Signature is one Ed25519 signature over the PAE. KeyID is a hint and decides
// nothing.
type Signature struct {
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"`
}

// ErrEnvelope is wrapped by every refusal of an envelope's form.
var ErrEnvelope = errors.New("not a canonical DSSE envelope")

// PAE is DSSE's pre-authentication encoding: what is signed.
func PAE(payloadType string, payload []byte) []byte {
	return fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
}

// Seal signs a payload. More signers than one are for trust files and
// operators only.
func Seal(payloadType string, payload []byte, signers ...Signer) (*Envelope, error) {
	e := &Envelope{Payload: base64.StdEncoding.EncodeToString(payload), PayloadType: payloadType}
	pae := PAE(payloadType, payload)
	for _, s := range signers {
		if err := e.sign(pae, s); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// AddSignature adds s's signature over the same payload.
func (e *Envelope) AddSignature(s Signer) error {
	payload, err := e.Bytes()
	if err != nil {
		return err
	}
	return e.sign(PAE(e.PayloadType, payload), s)
}

func (e *Envelope) sign(pae []byte, s Signer) error {
	sig, err := s.Sign(pae)
	if err != nil {
		return fmt.Errorf("sign with %s: %w", s.KeyID(), err)
	}
	e.Signatures = append(e.Signatures, Signature{s.KeyID(), base64.StdEncoding.EncodeToString(sig)})
	return nil
}

// Encode returns the envelope's one spelling. It is written by hand, as JCS,
// because every leaf and every statement passes here several times.
func (e *Envelope) Encode() ([]byte, error) {
	b := make([]byte, 0, len(e.Payload)+len(e.PayloadType)+64+192*len(e.Signatures))
	b, err1 := canon.Append(append(b, `{"payload":`...), e.Payload)
	b, err2 := canon.Append(append(b, `,"payloadType":`...), e.PayloadType)
	errs := []error{err1, err2}
	b = append(b, `,"signatures":`...)
	if e.Signatures == nil {
		return append(b, "null}"...), errors.Join(errs...) // as JSON has it; no reader accepts it
	}
	b = append(b, '[')
	for i, s := range e.Signatures {
		if i > 0 {
			b = append(b, ',')
		}
		b, err1 = canon.Append(append(b, `{"keyid":`...), s.KeyID)
		b, err2 = canon.Append(append(b, `,"sig":`...), s.Sig)
		b, errs = append(b, '}'), append(errs, err1, err2)
	}
	return append(b, "]}"...), errors.Join(errs...)
}

// Bytes returns the decoded payload.
func (e *Envelope) Bytes() ([]byte, error) {
	b, err := decodeBase64(e.Payload)
	if err != nil {
		return nil, fmt.Errorf("%w: payload is not standard base64", ErrEnvelope)
	}
	return b, nil
}

// decodeBase64 reads the one spelling of some bytes: standard, padded, without
// stray bits, and without the line ends that Go's decoder passes over.
func decodeBase64(s string) ([]byte, error) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, errors.New("line ends inside base64")
	}
	return base64.StdEncoding.Strict().DecodeString(s)
}

// ParseEnvelope accepts only what Encode prints, of the given payload type.
func ParseEnvelope(b []byte, payloadType string) (*Envelope, error) {
	if len(b) > MaxEnvelope {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrEnvelope, len(b), MaxEnvelope)
	}
	var e Envelope
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEnvelope, err)
	}
	if again, err := e.Encode(); err != nil || !bytes.Equal(again, b) {
		return nil, fmt.Errorf("%w: %w", ErrEnvelope, errors.Join(canon.ErrNotCanonical, err))
	}
	return &e, e.check(payloadType)
}

func (e *Envelope) check(payloadType string) error {
	if e.PayloadType != payloadType {
		return fmt.Errorf("%w: payloadType %.80q, want %s", ErrEnvelope, e.PayloadType, payloadType)
	}
	if n := len(e.Signatures); n == 0 || n > 16 {
		return fmt.Errorf("%w: %d signatures", ErrEnvelope, n)
	}
	for _, s := range e.Signatures {
		if _, err := decodeSig(s); err != nil {
			return err
		}
	}
	_, err := e.Bytes()
	return err
}

// one returns the signature of an envelope that must have exactly one.
func (e *Envelope) one() (Signature, error) {
	if len(e.Signatures) != 1 {
		return Signature{}, fmt.Errorf("%w: %d signatures, exactly one is allowed", ErrEnvelope, len(e.Signatures))
	}
	return e.Signatures[0], nil
}

// signedBy reports whether any of the envelope's signatures is k's.
func (e *Envelope) signedBy(k SSHKey) bool {
	payload, err := e.Bytes()
	if err != nil {
		return false
	}
	pae := PAE(e.PayloadType, payload)
	for _, s := range e.Signatures {
		sig, err := decodeSig(s)
		if err == nil && ed25519.Verify(k.Public, pae, sig) {
			return true
		}
	}
	return false
}

func decodeSig(s Signature) ([]byte, error) {
	sig, err := decodeBase64(s.Sig)
	if err != nil || len(sig) != ed25519.SignatureSize {
		return nil, fmt.Errorf("%w: a signature is not 64 bytes of standard base64", ErrEnvelope)
	}
	return sig, nil
}
