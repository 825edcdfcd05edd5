package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/kv"
	"github.com/sealstone/sealstone/ledger"
)

// Folded state lies in rows so that a start needs no refold: "meta", one row
// for every chain, "c" service NUL lane NUL scope, and one for every operators
// set, "o" be64 index. They are written in the transaction of the leaves that
// caused them, and can be built again from the leaves.
type foldMeta struct {
	Version int        `json:"version"` // stateVersion; another one means refold
	Origin  string     `json:"origin"`
	Trust   api.Digest `json:"trust"`
	Size    int64      `json:"size"`
}

const stateVersion = 3 // 2: index terms of chains; 3: the tail, without which both are the same

var keyMeta = []byte("meta")

func chainKey(k ledger.ChainKey) []byte {
	return []byte("c" + k.Service + "\x00" + string(k.Lane) + "\x00" + string(k.Scope))
}

func parseChainKey(b []byte) (ledger.ChainKey, bool) {
	parts := strings.Split(string(b[1:]), "\x00")
	if len(parts) != 3 {
		return ledger.ChainKey{}, false
	}
	return ledger.ChainKey{Service: parts[0], Lane: ledger.Lane(parts[1]), Scope: api.Scope(parts[2])}, true
}

// writeFold writes the rows of the chains that changes touched.
func writeFold(tx *bbolt.Tx, st *ledger.State, changes []*ledger.Change) error {
	b := tx.Bucket(bucketState)
	touched := map[ledger.ChainKey]bool{}
	for _, c := range changes {
		touched[c.Data.Chain()] = true
		if c.Kind() == ledger.SafeModeOverdue { // marks the override chain
			touched[ledger.ChainKey{Lane: ledger.LaneOverride, Service: c.Data.Service, Scope: c.Data.Scope}] = true
		}
	}
	for k := range touched {
		c, ok := st.Chain(k)
		if !ok {
			continue
		}
		if err := putJSON(b, chainKey(k), c); err != nil {
			return err
		}
	}
	for _, ref := range st.Sets {
		if ref.Index < st.Size-int64(len(changes)) {
			continue
		}
		if err := b.Put(append([]byte("o"), be64(ref.Index)...), []byte(ref.Hash)); err != nil {
			return err
		}
	}
	return putJSON(b, keyMeta, foldMeta{stateVersion, st.Origin, st.Trust, st.Size})
}

func putJSON(b *bbolt.Bucket, key []byte, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return b.Put(key, text)
}

// errRefold says that the folded rows are those of another version.
var errRefold = errors.New("folded state is of another version")

// readFold builds the state from its rows.
func readFold(tx *bbolt.Tx, t *ledger.Trust, size int64) (*ledger.State, error) {
	b := tx.Bucket(bucketState)
	if b == nil {
		return nil, errRefold
	}
	var m foldMeta
	if err := json.Unmarshal(b.Get(keyMeta), &m); err != nil {
		return nil, fmt.Errorf("folded state: %w: %w", kv.ErrCorrupt, err)
	}
	if m.Version != stateVersion && (m.Version != 2 || tx.Bucket(bucketTail) != nil) {
		return nil, errRefold
	}
	if m.Size != size {
		return nil, fmt.Errorf("folded state is of %d entries, the log has %d: %w", m.Size, size, kv.ErrCorrupt)
	}
	st := ledger.NewState(m.Origin)
	st.Trust, st.Size = m.Trust, m.Size
	if err := b.ForEach(func(k, v []byte) error { return readFoldRow(st, k, v) }); err != nil {
		return nil, err
	}
	return st, readOperators(tx, st, t)
}

func readFoldRow(st *ledger.State, k, v []byte) error {
	switch {
	case k[0] == 'c':
		key, ok := parseChainKey(k)
		var c ledger.Chain
		if err := json.Unmarshal(v, &c); !ok || err != nil || c.Lane != key.Lane || c.Scope != key.Scope {
			return fmt.Errorf("folded chain %.120q: %w", k, kv.ErrCorrupt)
		}
		svc := st.Services[key.Service]
		if svc == nil {
			svc = &ledger.Service{}
			st.Services[key.Service] = svc
		}
		svc.Chains = append(svc.Chains, c) // rows come sorted by lane and scope
	case k[0] == 'o':
		st.Sets = append(st.Sets, ledger.Ref{Index: fromBE64(k[1:]), Hash: api.Digest(v)})
	}
	return nil
}

// readOperators makes the set in force from its change.
func readOperators(tx *bbolt.Tx, st *ledger.State, t *ledger.Trust) error {
	if len(st.Sets) == 0 {
		return nil
	}
	ref := st.Sets[len(st.Sets)-1]
	leaf, err := readLeaf(tx, ref.Index)
	if err != nil {
		return err
	}
	c, err := ledger.ParseLeaf(leaf)
	if err != nil || c.Hash != ref.Hash || c.Roots == nil {
		return fmt.Errorf("operators set at entry %d: %w", ref.Index, errors.Join(kv.ErrCorrupt, err))
	}
	ops, err := t.OperatorsAt(ref.Index, c.Data.Statement)
	if err != nil {
		return fmt.Errorf("operators set at entry %d: %w", ref.Index, err)
	}
	ops.Index, ops.Hash = ref.Index, ref.Hash
	st.Operators = ops
	return nil
}
