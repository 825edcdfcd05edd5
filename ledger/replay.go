package ledger

import (
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

// Replay reads a log from entry 0 as an auditor does: it checks each leaf's
// form and the node's signature, folds it, and grows the Merkle tree. It keeps
// one hash per level, whatever the size of the log.
type Replay struct {
	State  *State
	Each   func(index int64, c *Change) // called after each entry, if set
	trust  *Trust
	levels []tlog.Hash // levels[i] is the root of a full subtree of 2^i leaves
	full   []bool
}

// NewReplay starts before entry 0.
func NewReplay(t *Trust) *Replay { return &Replay{State: NewState(t.Origin), trust: t} }

// Add takes the next leaf.
func (r *Replay) Add(leaf []byte) error {
	index := r.State.Size
	c, err := ParseLeaf(leaf)
	if err != nil {
		return fmt.Errorf("entry %d: %w", index, err)
	}
	if err := r.trust.CheckNode(index, c.Envelope); err != nil {
		return fmt.Errorf("entry %d: %w", index, err)
	}
	if err := r.State.Apply(c, r.trust); err != nil {
		return err
	}
	r.grow(tlog.RecordHash(leaf))
	if r.Each != nil {
		r.Each(index, c)
	}
	return nil
}

func (r *Replay) grow(h tlog.Hash) {
	for i := 0; ; i++ {
		if i == len(r.full) {
			r.levels, r.full = append(r.levels, h), append(r.full, true)
			return
		}
		if !r.full[i] {
			r.levels[i], r.full[i] = h, true
			return
		}
		h, r.full[i] = tlog.NodeHash(r.levels[i], h), false
	}
}

// Tree is the tree of what was added.
func (r *Replay) Tree() Tree {
	if r.State.Size == 0 {
		return Tree{0, EmptyRoot()}
	}
	var root tlog.Hash
	first := true
	for i, full := range r.full {
		switch {
		case !full:
		case first:
			root, first = r.levels[i], false
		default:
			root = tlog.NodeHash(r.levels[i], root)
		}
	}
	return Tree{r.State.Size, root}
}
