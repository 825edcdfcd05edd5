package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Audit holds a log to what a fold keeps no memory of: that no id and no
// statement counts twice, that late evidence was signed by somebody who was an
// operator, that what is erased was there. For those who read a log from entry 0;
// a server's store has an index instead.
type Audit struct {
	said map[[16]byte]uint64 // by id of a change or statement: what was signed under it; 0 is the node's
	sets []*Operators        // that were in force, oldest first
}

// Check judges the next change by the state before it.
func (a *Audit) Check(s *State, c *Change) error {
	if s.Operators != nil && (len(a.sets) == 0 || a.sets[len(a.sets)-1] != s.Operators) {
		a.sets = append(a.sets, s.Operators)
	}
	if err := errors.Join(a.once(c), a.wasOperator(c), a.erases(s, c)); err != nil {
		return fmt.Errorf("entry %d: %w: %w", s.Size, ErrFold, err)
	}
	return nil
}

// once refuses an id that another change has, and a statement that took effect
// already. A late statement may have the id of a change, which came first then,
// and may be there twice: it has no effect.
func (a *Audit) once(c *Change) error {
	if a.said == nil {
		a.said = map[[16]byte]uint64{}
	}
	own, signed := idOf(c.ID), uint64(0)
	if c.Statement != nil {
		signed = payloadSum(c.Statement.Envelope)
	}
	if _, known := a.said[own]; known {
		return fmt.Errorf("id %s is that of an earlier change", c.ID)
	}
	if c.Kind() != StatementLate {
		a.said[own] = signed
		return nil
	}
	a.said[own] = 0
	other, known := a.said[idOf(c.Statement.ID)]
	if known && other == signed {
		return fmt.Errorf("statement %s is in the log already", c.Statement.ID)
	}
	if !known {
		a.said[idOf(c.Statement.ID)] = 0
	}
	return nil
}

// idOf is a UUID's bytes; the form was checked before.
func idOf(id string) (b [16]byte) {
	n := 0
	for i := range len(id) {
		if id[i] == '-' {
			continue
		}
		d := id[i] - '0'
		if id[i] >= 'a' {
			d = id[i] - 'a' + 10
		}
		b[n/2] |= d << (4 - n%2*4)
		n++
	}
	return b
}

func payloadSum(e *Envelope) uint64 {
	sum := sha256.Sum256([]byte(e.Payload))
	return binary.BigEndian.Uint64(sum[:]) | 1
}

// wasOperator demands of a late statement, which needs no permission any more,
// that a set which was in force had the key.
func (a *Audit) wasOperator(c *Change) error {
	if c.Kind() != StatementLate {
		return nil
	}
	err := fmt.Errorf("%w: there was no operators set yet", ErrSignature)
	for _, o := range slices.Backward(a.sets) {
		if _, err = o.Signer(c.Statement); err == nil {
			return nil
		}
	}
	return err
}

// erases holds an erasure to what is there.
func (a *Audit) erases(s *State, c *Change) error {
	if c.Kind() == DetailErased && (c.Data.Index < 0 || c.Data.Index >= s.Size) {
		return fmt.Errorf("erases the detail of entry %d, which isn't before it", c.Data.Index)
	}
	return nil
}
