package store

import (
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealstone/sealstone/internal/kv"
	"github.com/sealstone/sealstone/ledger"
)

// checkedAtStart is how many of the last entries a start holds against tiles
// and folded state. The rest is the scrub's work.
const checkedAtStart = 32

func checkLast(tx *bbolt.Tx, st *ledger.State, head ledger.Tree) error {
	chains := map[int64]ledger.Chain{}
	for _, svc := range st.Services {
		for _, c := range svc.Chains {
			chains[c.Index] = c
		}
	}
	for i := max(0, head.Size-checkedAtStart); i < head.Size; i++ {
		leaf, err := checkLeaf(tx, i)
		if err != nil {
			return err
		}
		if c, ok := chains[i]; ok && c.Hash != ledger.LeafHash(leaf) {
			return fmt.Errorf("entry %d is not the one of the folded chain: %w", i, kv.ErrCorrupt)
		}
	}
	return nil
}

// checkLeaf holds a leaf against its hash in the tiles and returns it.
func checkLeaf(tx *bbolt.Tx, i int64) ([]byte, error) {
	leaf, err := readLeaf(tx, i)
	if err != nil {
		return nil, errors.Join(kv.ErrCorrupt, err)
	}
	want, err := hashReader(tx).ReadHashes([]int64{tlog.StoredHashIndex(0, i)})
	if err != nil {
		return nil, err
	}
	if tlog.RecordHash(leaf) != want[0] {
		return nil, fmt.Errorf("entry %d does not have the hash in its tile: %w", i, kv.ErrCorrupt)
	}
	return leaf, nil
}

// fold builds the state from the leaves, with every check of signatures,
// permissions and chains; each sees every change after it was applied.
func fold(tx *bbolt.Tx, t *ledger.Trust, size int64, each func(*ledger.Change)) (*ledger.State, error) {
	r := ledger.NewReplay(t)
	r.Audit = nil // the index of ids does its work
	r.Each = func(_ int64, c *ledger.Change) { each(c) }
	for i := range size {
		leaf, err := readLeaf(tx, i)
		if err != nil {
			return nil, err
		}
		if err := r.Add(leaf); err != nil {
			return nil, err
		}
	}
	return r.State, nil
}
