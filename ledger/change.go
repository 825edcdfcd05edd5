package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/canon"
)

// Event is one change: a CloudEvents 1.0 event, the payload of a leaf.
type Event struct {
	Data         Data   `json:"data"`
	ID           string `json:"id"`
	RecordedTime string `json:"recordedtime"`
	Source       string `json:"source"` // log origin
	SpecVersion  string `json:"specversion"`
	Subject      string `json:"subject,omitempty"`
	Time         string `json:"time"`
	Type         string `json:"type"`
}

// Data is where a change stands in its chain, and what it says.
type Data struct {
	Detail     api.Digest      `json:"detail,omitempty"`
	Generation int64           `json:"generation"`
	Lane       Lane            `json:"lane"`
	Operators  int64           `json:"operators,omitempty"` // index; absent before the first set
	Prev       api.Digest      `json:"prev,omitempty"`      // leaf hash of the chain's previous change
	Scope      api.Scope       `json:"scope,omitempty"`
	Service    string          `json:"service,omitempty"`
	Statement  json.RawMessage `json:"statement,omitempty"` // DSSE envelope, verbatim
	Fields
}

// ChainKey names a chain.
type ChainKey struct {
	Lane    Lane
	Service string
	Scope   api.Scope
}

func (k ChainKey) String() string {
	return string(k.Lane) + " " + api.Target{Service: k.Service, Scope: k.Scope}.String()
}

// Chain is the chain that the change is part of.
func (d *Data) Chain() ChainKey { return ChainKey{d.Lane, d.Service, d.Scope} }

// Kind is the event's type without its prefix.
func (e *Event) Kind() Kind { return Kind(strings.TrimPrefix(e.Type, TypePrefix)) }

// Recorded is when the node accepted the change.
func (e *Event) Recorded() time.Time {
	t, _ := api.ParseTime(e.RecordedTime)
	return t
}

// ErrChange is wrapped by every refusal of a leaf's form.
var ErrChange = errors.New("bad change")

// ErrTooLarge is wrapped where a leaf would be over MaxLeaf.
var ErrTooLarge = errors.New("too large")

// NewEvent frames a change; the caller fills in generation, prev and operators
// from its state. A safe mode's expiry is its time to live from when it is
// recorded, so that nobody but the signer says how long it lasts.
func NewEvent(origin string, kind Kind, id string, at, recorded time.Time, d Data) *Event {
	d.Lane = kind.Lane()
	if kind == SafeModeEntered || kind == SafeModeRenewed {
		d.Expires = expiry(recorded, d.TTL)
	}
	e := &Event{Data: d, ID: id, RecordedTime: api.FormatTime(recorded), Source: origin, SpecVersion: "1.0",
		Time: api.FormatTime(at), Type: TypePrefix + string(kind)}
	if d.Service != "" {
		e.Subject = api.Target{Service: d.Service, Scope: d.Scope}.String()
	}
	return e
}

// Leaf signs an event as the node and returns the leaf's exact bytes.
func (e *Event) Leaf(node Signer) ([]byte, error) {
	c, err := e.Seal(node, nil)
	if err != nil {
		return nil, err
	}
	return c.Leaf, nil
}

// Seal signs an event as the node and returns the change that ParseLeaf would
// read from the leaf's bytes, without reading them again. st is data.statement
// where the caller has parsed it already, else nil.
func (e *Event) Seal(node Signer, st *Signed) (*Change, error) {
	if err := e.Check(); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrChange, e.Kind(), err)
	}
	payload, err := canon.Marshal(e)
	if err != nil {
		return nil, err
	}
	c := &Change{Event: *e}
	if c.Envelope, err = Seal(TypeChange, payload, node); err != nil {
		return nil, err
	}
	if c.Leaf, err = c.Envelope.Encode(); err != nil {
		return nil, err
	}
	if len(c.Leaf) > MaxLeaf {
		return nil, fmt.Errorf("%w: %w: leaf of %d bytes, limit %d", ErrChange, ErrTooLarge, len(c.Leaf), MaxLeaf)
	}
	c.Hash = LeafHash(c.Leaf)
	if err := c.attach(st); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrChange, e.Kind(), err)
	}
	return c, nil
}

// Change is a leaf taken apart and held to its kind's closed form.
type Change struct {
	Event
	Leaf      []byte
	Hash      api.Digest // RFC 6962 leaf hash
	Envelope  *Envelope
	Statement *Signed // nil where nobody signed a statement
	Roots     *Envelope
	By        By // who signed the statement; State.Apply fills it in
}

// LateAfter is how long after its time a fact is recorded for it to be late.
const LateAfter = time.Minute

// Late tells whether a fact was recorded long after its time.
func (c *Change) Late() bool {
	return c.Data.Lane == LaneRecord && c.Statement != nil && c.Recorded().Sub(c.Statement.At()) > LateAfter
}

// ParseLeaf reads a leaf's exact bytes. It checks form, not signatures: see
// [Trust.CheckNode] and [Operators.Judge].
func ParseLeaf(leaf []byte) (*Change, error) {
	if len(leaf) > MaxLeaf {
		return nil, fmt.Errorf("%w: leaf of %d bytes, limit %d", ErrChange, len(leaf), MaxLeaf)
	}
	env, err := ParseEnvelope(leaf, TypeChange)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrChange, err)
	}
	if _, err := env.one(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrChange, err)
	}
	payload, err := env.Bytes()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrChange, err)
	}
	c := &Change{Leaf: leaf, Hash: LeafHash(leaf), Envelope: env}
	if err := canon.Unmarshal(payload, &c.Event); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrChange, err)
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%w: %.64s: %w", ErrChange, c.Kind(), err)
	}
	return c, nil
}

// Check holds an event to its kind's closed form.
func (e *Event) Check() error {
	kind := e.Kind()
	r, ok := rules[kind]
	switch {
	case !ok || e.Type != TypePrefix+string(kind):
		return errors.New("unknown type")
	case e.SpecVersion != "1.0":
		return errors.New("specversion is not 1.0")
	case !uuidV7.MatchString(e.ID):
		return errors.New("id is not a lower-case UUIDv7")
	case e.Data.Lane != r.lane:
		return fmt.Errorf("lane %.16q, want %s", string(e.Data.Lane), r.lane)
	case e.Data.Generation < 1 || (e.Data.Generation == 1) != (e.Data.Prev == ""):
		return errors.New("generation and prev don't fit: generation 1 has no prev, later ones do")
	case e.Data.Prev != "" && !e.Data.Prev.Valid(), e.Data.Detail != "" && !e.Data.Detail.Valid():
		return api.ErrDigest
	case e.Data.Operators < 0:
		return errors.New("operators is negative")
	}
	return errors.Join(e.checkFrame(), r.checkPlace(e.Data.Service, e.Data.Scope), r.checkFields(&e.Data.Fields, false))
}

func (e *Event) checkFrame() error {
	want := ""
	if e.Data.Service != "" {
		want = api.Target{Service: e.Data.Service, Scope: e.Data.Scope}.String()
	}
	if e.Subject != want {
		return fmt.Errorf("subject %.64q, want %q", e.Subject, want)
	}
	_, err1 := api.ParseTime(e.Time)
	_, err2 := api.ParseTime(e.RecordedTime)
	return errors.Join(err1, err2, CheckOrigin(e.Source))
}

func (c *Change) check() error {
	if err := c.Event.Check(); err != nil {
		return err
	}
	return c.attach(nil)
}

// attach takes data.statement apart, as the kind asks for one; st is it, already
// parsed, or nil.
func (c *Change) attach(st *Signed) error {
	raw := []byte(c.Data.Statement)
	switch rules[c.Kind()].who {
	case byNode:
		if raw != nil {
			return errors.New("this kind carries no statement")
		}
	case byRoots:
		var err error
		if c.Roots, err = ParseEnvelope(raw, TypeStatement); err != nil {
			return fmt.Errorf("statement: %w", err)
		}
	case byStatement:
		if raw == nil {
			return errors.New("the statement that caused it is missing")
		}
	}
	if raw == nil || c.Roots != nil {
		return nil
	}
	if st == nil || !bytes.Equal(st.Raw, raw) {
		var err error
		if st, err = ParseStatement(raw); err != nil {
			return err
		}
	}
	c.Statement = st
	return c.checkStatement()
}

// checkStatement holds a change to what its statement says: the node may add
// members of its own, and change none.
func (c *Change) checkStatement() error {
	s := c.Statement
	if c.Kind() == StatementLate {
		if s.ID == c.ID {
			return errors.New("a late statement's change has an id of its own")
		}
		if s.Service != c.Data.Service || s.Scope != c.Data.Scope || s.Log != c.Source {
			return errors.New("statement and change name different things")
		}
		return nil
	}
	said := c.Data.Fields
	said.Expires, said.Resolved = "", nil
	a, err1 := canon.Marshal(said)
	b, err2 := canon.Marshal(s.Fields)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if s.ID != c.ID || s.Time != c.Time || s.Kind != c.Kind() || s.Service != c.Data.Service ||
		s.Scope != c.Data.Scope || s.Log != c.Source || s.Detail != c.Data.Detail || string(a) != string(b) {
		return errors.New("statement and change name different things")
	}
	return nil
}

// CheckSafeMode holds a safe-mode change to what its signer saw and asked for:
// the generation it was signed after, and the time to live from when it was
// recorded. A node that replays or shortens a mode breaks one of them.
func (c *Change) CheckSafeMode() error {
	if c.Data.Lane != LaneOverride || c.Statement == nil || c.Kind() == StatementLate {
		return nil
	}
	if after := c.Statement.After; after == nil || *after != c.Data.Generation-1 {
		return fmt.Errorf("its statement was not signed after generation %d", c.Data.Generation-1)
	}
	if c.Kind() == SafeModeExited {
		return nil
	}
	if want := expiry(c.Recorded(), c.Data.TTL); c.Data.Expires != want {
		return fmt.Errorf("expires %s is not ttl after recordedtime, %s", c.Data.Expires, want)
	}
	return nil
}

func expiry(recorded time.Time, ttl int64) string {
	return api.FormatTime(recorded.Add(time.Duration(ttl) * time.Second))
}
