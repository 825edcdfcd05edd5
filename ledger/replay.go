package ledger

import (
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/mod/sumdb/tlog"
)

// Replay reads a log from entry 0 as an auditor does: it checks each leaf's
// form and the node's signature, audits and folds it, and grows the Merkle tree,
// of which it keeps one hash per level.
type Replay struct {
	State  *State
	Each   func(index int64, c *Change) // called after each entry, if set
	Audit  *Audit                       // nil: fold only
	trust  *Trust
	levels []tlog.Hash // levels[i] is the root of a full subtree of 2^i leaves
	full   []bool
}

// NewReplay starts before entry 0.
func NewReplay(t *Trust) *Replay {
	return &Replay{State: NewState(t.Origin), Audit: &Audit{}, trust: t}
}

// Add takes the next leaves, up to the first that is wrong.
func (r *Replay) Add(leaves ...[]byte) error {
	for _, l := range r.trust.ParseLeaves(r.State.Size, leaves) {
		if l.Err != nil {
			return l.Err
		}
		index := r.State.Size
		if r.Audit != nil {
			if err := r.Audit.Check(r.State, l.Change); err != nil {
				return err
			}
		}
		if err := r.State.Apply(l.Change, r.trust); err != nil {
			return err
		}
		r.grow(tlog.RecordHash(l.Change.Leaf))
		if r.Each != nil {
			r.Each(index, l.Change)
		}
	}
	return nil
}

// Parsed is a leaf that was taken apart, or why it could not be.
type Parsed struct {
	Change *Change
	Err    error
}

// ParseLeaves takes leaves apart, the first of which has the given index, and
// checks the node's signature of each. It is most of the work of an auditor, and
// needs no order: all cores share it.
func (t *Trust) ParseLeaves(first int64, leaves [][]byte) []Parsed {
	out := make([]Parsed, len(leaves))
	workers := min(runtime.GOMAXPROCS(0), len(leaves))
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < len(leaves); i += workers {
				out[i] = t.parseLeaf(first+int64(i), leaves[i])
			}
		})
	}
	wg.Wait()
	return out
}

func (t *Trust) parseLeaf(index int64, leaf []byte) Parsed {
	c, err := ParseLeaf(leaf)
	if err == nil {
		err = t.CheckNode(index, c.Envelope)
	}
	if err != nil {
		return Parsed{Err: fmt.Errorf("entry %d: %w", index, err)}
	}
	return Parsed{Change: c}
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
