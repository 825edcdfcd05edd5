package ledger

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/canon"
)

// OperatorsStatement is what the roots sign: which keys may do what. Names of
// people stay in Git.
type OperatorsStatement struct {
	Log       string     `json:"log"`
	Operators []Operator `json:"operators"`
	SHA256    api.Digest `json:"sha256"` // of operators.yaml's bytes
	Version   int        `json:"version"`
}

// Operator is somebody, or something, that signs statements.
type Operator struct {
	ID   string   `json:"id"`
	Keys []string `json:"keys"` // "ssh-ed25519 AAAA...", without comment
	May  []Grant  `json:"may"`
}

// Grant allows actions at services and scopes. Scopes match as prefixes; "*"
// is every service or scope.
type Grant struct {
	Do       []string    `json:"do"`
	Scopes   []api.Scope `json:"scopes"`
	Services []string    `json:"services"`
}

// Verbs are what a grant's do may hold.
var Verbs = []string{"erase", "record", "safe-mode", "source"}

// Operators is a root-signed set, ready to judge statements.
type Operators struct {
	OperatorsStatement
	Index int64      // of its operators.changed; 0 before it is in a log
	Hash  api.Digest // leaf hash of that change
	keys  []operatorKey
}

type operatorKey struct {
	SSHKey
	op *Operator
}

// ErrOperators is wrapped by every refusal of an operators set.
var ErrOperators = errors.New("bad operators set")

// NewOperators checks a set: ids, keys, grants. One key belongs to one operator.
func NewOperators(st OperatorsStatement) (*Operators, error) {
	o := &Operators{OperatorsStatement: st}
	var errs []error
	if st.Version < 1 {
		errs = append(errs, errors.New("version must be 1 or more"))
	}
	if !st.SHA256.Valid() {
		errs = append(errs, fmt.Errorf("sha256: %w", api.ErrDigest))
	}
	ids := map[string]bool{}
	for i := range o.OperatorsStatement.Operators {
		op := &o.OperatorsStatement.Operators[i]
		if ids[op.ID] {
			errs = append(errs, fmt.Errorf("operator %q is there twice", op.ID))
		}
		ids[op.ID] = true
		errs = append(errs, o.add(op)...)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOperators, err)
	}
	return o, nil
}

func (o *Operators) add(op *Operator) (errs []error) {
	if err := api.CheckName(op.ID); err != nil {
		errs = append(errs, fmt.Errorf("operator id %w", err))
	}
	if len(op.Keys) == 0 {
		errs = append(errs, fmt.Errorf("operator %q has no keys", op.ID))
	}
	for _, line := range op.Keys {
		k, err := ParseSSHKey(line)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("operator %q: %w", op.ID, err))
			continue
		case k.String() != line:
			errs = append(errs, fmt.Errorf("operator %q: write the key without a comment", op.ID))
		case slices.ContainsFunc(o.keys, func(x operatorKey) bool { return x.Equal(k) }):
			errs = append(errs, fmt.Errorf("operator %q: key %s is there twice", op.ID, k.ID()))
		}
		o.keys = append(o.keys, operatorKey{k, op})
	}
	for _, g := range op.May {
		errs = append(errs, g.check(op.ID)...)
	}
	return errs
}

func (g Grant) check(id string) (errs []error) {
	for _, do := range g.Do {
		if !slices.Contains(Verbs, do) {
			errs = append(errs, fmt.Errorf("operator %q: unknown action %.32q, know %v", id, do, Verbs))
		}
	}
	for _, s := range g.Services {
		if s != "*" && api.CheckName(s) != nil {
			errs = append(errs, fmt.Errorf("operator %q: service %.64q", id, s))
		}
	}
	for _, s := range g.Scopes {
		if _, err := api.ParseScope(string(s)); s != "*" && err != nil {
			errs = append(errs, fmt.Errorf("operator %q: %w", id, err))
		}
	}
	if len(g.Do) == 0 || len(g.Services) == 0 || len(g.Scopes) == 0 {
		errs = append(errs, fmt.Errorf("operator %q: a grant needs do, services and scopes", id))
	}
	return errs
}

// Allows tells whether the grant covers an action at a place. Leaving a service
// or scope out asks for all of them, and only a grant for all covers that; but
// the source has no scopes, and a fact about a service as a whole moves nothing.
func (g Grant) Allows(do, service string, scope api.Scope) bool {
	if !slices.Contains(g.Do, do) {
		return false
	}
	if !slices.Contains(g.Services, "*") && (service == "" || !slices.Contains(g.Services, service)) {
		return false
	}
	if scope == "" && (do == "source" || do == "record" && service != "") {
		return true
	}
	return slices.ContainsFunc(g.Scopes, func(s api.Scope) bool { return s == "*" || scope != "" && s.Contains(scope) })
}

// ErrSignature and ErrPermission tell apart who can't be believed and who may not.
var (
	ErrSignature  = errors.New("signature does not verify")
	ErrPermission = errors.New("not permitted")
)

// By is who signed a statement: an operator's id and the fingerprint of the key
// that verified, which the envelope's own keyid need not tell.
type By struct{ Operator, Key string }

// Signer finds whose signature a statement bears, whatever that operator may do.
func (o *Operators) Signer(s *Signed) (By, error) {
	if o == nil {
		return By{}, fmt.Errorf("%w: there is no operators set", ErrSignature)
	}
	op, key, err := o.signer(s.Envelope)
	if err != nil {
		return By{}, err
	}
	return By{op.ID, key.ID()}, nil
}

// Judge finds whose signature a statement bears and whether that operator may
// do it. A nil set has no operators.
func (o *Operators) Judge(s *Signed) (By, error) {
	if o == nil {
		return By{}, fmt.Errorf("%w: there is no root-signed operators set yet; make one with sealstone operators sign", ErrPermission)
	}
	op, key, err := o.signer(s.Envelope)
	if err != nil {
		return By{}, err
	}
	if s.Log != o.Log {
		return By{}, fmt.Errorf("%w: the statement is meant for log %.64q, the operators serve %q", ErrPermission, s.Log, o.Log)
	}
	do := s.Kind.Do()
	for _, g := range op.May {
		if g.Allows(do, s.Service, s.Scope) {
			return By{op.ID, key.ID()}, nil
		}
	}
	where := ""
	if s.Service != "" {
		where = " at " + strings.TrimSuffix(api.Target{Service: s.Service, Scope: s.Scope}.String(), "@")
	}
	return By{}, fmt.Errorf("%w: operator %q (%s) may not %s%s by operators version %d", ErrPermission, op.ID, key.ID(), do, where, o.Version)
}

func (o *Operators) signer(e *Envelope) (*Operator, SSHKey, error) {
	one, err := e.one()
	if err != nil {
		return nil, SSHKey{}, err
	}
	payload, err := e.Bytes()
	if err != nil {
		return nil, SSHKey{}, err
	}
	sig, err := decodeSig(one)
	if err != nil {
		return nil, SSHKey{}, err
	}
	pae := PAE(e.PayloadType, payload)
	for _, k := range o.keys {
		if ed25519.Verify(k.Public, pae, sig) {
			return k.op, k.SSHKey, nil
		}
	}
	return nil, SSHKey{}, fmt.Errorf("%w: no key of operators version %d made it (it says key %.64q)", ErrSignature, o.Version, one.KeyID)
}

// KeyOwner is the operator that holds a key, "" when none does.
func (o *Operators) KeyOwner(id string) string {
	if o == nil {
		return ""
	}
	for _, k := range o.keys {
		if k.ID() == id {
			return k.op.ID
		}
	}
	return ""
}

// OperatorsAt reads operators.sig, or the statement of an operators.changed, and
// checks that enough roots signed it whose version counts at a log index: that
// of the change, or for one that isn't in the log yet, the log's size.
func (t *Trust) OperatorsAt(index int64, b []byte) (*Operators, error) {
	e, err := ParseEnvelope(b, TypeStatement)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOperators, err)
	}
	payload, err := e.Bytes()
	if err != nil {
		return nil, err
	}
	var st OperatorsStatement
	if err := canon.Unmarshal(payload, &st); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOperators, err)
	}
	if st.Log != t.Origin {
		return nil, fmt.Errorf("%w: signed for log %.64q, this is %q", ErrOperators, st.Log, t.Origin)
	}
	if err := t.rootsSigned(index, e); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOperators, err)
	}
	return NewOperators(st)
}

// rootsSigned holds an envelope to the roots of a version that counts at index.
func (t *Trust) rootsSigned(index int64, e *Envelope) error {
	n := countRoots(e, t.rootKeys)
	if n >= t.Threshold {
		return nil
	}
	for v, until := range t.older() {
		if index < until && countRoots(e, v.rootKeys) >= v.Threshold {
			return nil
		}
	}
	return fmt.Errorf("%w: %d of %d needed root signatures, by version %d of the trust file", ErrSignature, n, t.Threshold, t.Version)
}

func countRoots(e *Envelope, roots []SSHKey) int {
	n := 0
	for _, k := range roots {
		if e.signedBy(k) {
			n++
		}
	}
	return n
}
