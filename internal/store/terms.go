package store

import (
	"encoding/binary"
	"encoding/hex"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// Kinds of index terms. A row's key is kind ‖ value ‖ NUL ‖ be64 index, its
// value is empty. Terms are derived from leaves and never decide anything.
const (
	termService = 's'
	termScope   = 'p' // a scope and each of its ancestors, so that "and below" is one list
	termKind    = 'k'
	termDigest  = 'd' // 32 raw bytes: hex would double the index
	termActor   = 'a' // operator id, and key id
	termChain   = 'c' // lane NUL service NUL scope, of a main or override chain: what changes it, or marks it overdue
	termTime    = 't' // be64 ms of the event's time; no NUL
	termErased  = 'e' // be64 index whose detail was erased
	termObject  = 'o' // 32 raw bytes of an erased object
)

func termPrefix(kind byte, value string) []byte {
	b := append(make([]byte, 0, len(value)+10), kind)
	return append(append(b, value...), 0)
}

// termsOf lists the keys of a change's terms, without the index behind them.
func termsOf(c *ledger.Change) [][]byte {
	var out [][]byte
	add := func(kind byte, value string) {
		if value != "" {
			out = append(out, termPrefix(kind, value))
		}
	}
	d := &c.Data
	add(termService, d.Service)
	for _, s := range d.Scope.Path() {
		add(termScope, string(s))
	}
	if lane := movedBy(c); lane != "" {
		add(termChain, chainTerm(lane, d.Service, d.Scope))
	}
	add(termKind, string(c.Kind()))
	add(termActor, c.By.Operator)
	add(termActor, c.By.Key)
	for _, sum := range digestsOf(c) {
		add(termDigest, string(sum[:]))
	}
	out = append(out, append([]byte{termTime}, be64(millis(c.Time))...))
	switch c.Kind() {
	case ledger.DetailErased:
		add(termErased, string(be64(d.Index)))
	case ledger.ObjectErased:
		if sum, ok := d.Object.Sum(); ok {
			add(termObject, string(sum[:]))
		}
	}
	return out
}

// movedBy is the lane of the chain whose history a change is part of; "" for
// records and trust.
func movedBy(c *ledger.Change) ledger.Lane {
	switch {
	case c.Data.Lane == ledger.LaneMain, c.Data.Lane == ledger.LaneOverride:
		return c.Data.Lane
	case c.Kind() == ledger.SafeModeOverdue:
		return ledger.LaneOverride
	}
	return ""
}

func chainTerm(lane ledger.Lane, service string, scope api.Scope) string {
	return string(lane) + "\x00" + service + "\x00" + string(scope)
}

// digestsOf lists every digest that a change names, each once.
func digestsOf(c *ledger.Change) (out [][32]byte) {
	d, seen := &c.Data, map[[32]byte]bool{}
	names := []api.Digest{d.Object, d.Replaces, d.Trust, api.Digest(d.Artifact), api.Digest(d.Image),
		api.Digest(d.BaseImage), api.Digest(d.SBOM), api.Digest(d.Plan)}
	if d.Set != nil {
		names = append(names, d.Set.Digest)
	}
	for _, r := range d.Resolved {
		names = append(names, r.Bundle)
	}
	for _, n := range names {
		if sum, ok := n.Sum(); ok && !seen[sum] {
			seen[sum] = true
			out = append(out, sum)
		}
	}
	return out
}

// timesOf is a change's row in the bucket of times.
func timesOf(c *ledger.Change) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(millis(c.Time)))
	b = binary.BigEndian.AppendUint64(b, uint64(millis(c.RecordedTime)))
	return append(b, c.By.Operator...)
}

func millis(s string) int64 {
	t, err := api.ParseTime(s)
	if err != nil {
		return 0
	}
	return t.UnixMilli()
}

// idsOf lists the ids under which a change is found again: its own, and for a
// late statement also the statement's, so that a retry isn't recorded twice. An
// id that was somebody else's before stays his.
func idsOf(c *ledger.Change) []string {
	if c.Kind() == ledger.StatementLate {
		return []string{c.ID, c.Statement.ID}
	}
	return []string{c.ID}
}

// idKey packs a UUID into its 16 bytes.
func idKey(id string) ([]byte, bool) {
	b, err := hex.DecodeString(strings.ReplaceAll(id, "-", ""))
	return b, err == nil && len(b) == 16 && id == strings.ToLower(id)
}

// writeIndex writes the terms, times and ids of the changes from base on.
func writeIndex(tx *bbolt.Tx, base int64, changes []*ledger.Change) error {
	ids, times := tx.Bucket(bucketIDs), tx.Bucket(bucketTimes)
	for i, c := range changes {
		at := be64(base + int64(i))
		for _, id := range idsOf(c) {
			key, _ := idKey(id)
			if ids.Get(key) != nil {
				continue // of a late statement that came under the id of a change
			}
			if err := ids.Put(key, at); err != nil {
				return err
			}
		}
		if err := times.Put(at, timesOf(c)); err != nil {
			return err
		}
	}
	return writeTerms(tx, base, changes)
}
