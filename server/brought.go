package server

import (
	"slices"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/store"
	"github.com/sealstone/sealstone/ledger"
)

// A change names the set that it activates, not the bundles in it, which are
// what instances, spans and metrics tell. So each bundle has a row of the sets
// that brought it: those that have it where the set before did not.

// maxBrought bounds a row: a bundle that comes and goes keeps its newest sets.
const maxBrought = 64

const sumSize = len([32]byte{})

// noteBrought adds the set of an activation to the rows of its new bundles.
func (s *Server) noteBrought(rows map[string][]byte, b *bundler.Built, replaces api.Digest) error {
	sum, _ := b.Digest.Sum()
	before := s.bundlesOf(replaces)
	for _, e := range b.Entries {
		if before[e.Digest] {
			continue
		}
		key := broughtRow(e.Digest)
		row, known := rows[key]
		if !known {
			var err error
			if row, err = s.store.Row(key); err != nil {
				return err
			}
		}
		rows[key] = appendSum(row, sum)
	}
	return nil
}

// appendSum makes a sum the newest of a row.
func appendSum(row []byte, sum [32]byte) []byte {
	var out []byte
	for old := range slices.Chunk(row, sumSize) {
		if string(old) != string(sum[:]) {
			out = append(out, old...)
		}
	}
	out = append(out, sum[:]...)
	return out[max(0, len(out)-maxBrought*sumSize):]
}

// namesOf are the digests by which changes know d: itself, and where it is a
// bundle the sets that brought it.
func (s *Server) namesOf(d api.Digest) ([]api.Digest, error) {
	row, err := s.store.Row(broughtRow(d))
	return append([]api.Digest{d}, setsIn(row)...), err
}

// setsIn are the sets of a row; bytes beyond the last whole one are nobody's.
func setsIn(row []byte) (out []api.Digest) {
	for ; len(row) >= sumSize; row = row[sumSize:] {
		out = append(out, api.DigestFromSum([sumSize]byte(row)))
	}
	return out
}

// bringing drops the changes that name a set which once brought a bundle, and
// that neither bring the bundle themselves nor name it.
func (s *Server) bringing(d api.Digest, found []store.Found, sets []api.Digest) []store.Found {
	return slices.DeleteFunc(found, func(f store.Found) bool {
		if f.Change == nil {
			return false
		}
		c := &f.Change.Data
		switch f.Change.Kind() {
		case ledger.BundleActivated:
			return !slices.Contains(sets, c.Set.Digest) || s.bundlesOf(c.Replaces)[d]
		case ledger.BundleWithdrawn:
			return true
		}
		return false
	})
}

// bundlesOf are the bundles that a set lists; none of a set that is gone.
func (s *Server) bundlesOf(set api.Digest) map[api.Digest]bool {
	out := map[api.Digest]bool{}
	if set == "" {
		return out
	}
	if old, err := s.programs.set(set); err == nil {
		for _, e := range old.Entries {
			out[e.Digest] = true
		}
	}
	return out
}
