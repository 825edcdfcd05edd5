package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"reflect"

	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/internal/kv"
	"github.com/sealstone/sealstone/ledger"
)

// Report is the outcome of Verify.
type Report struct {
	Tree     ledger.Tree
	Objects  int64 // that the sets in force need
	Details  int64 // that are there and are what their leaf names
	Erased   int64 // details that a change says are erased
	Findings []Finding
}

// Finding is one thing that is not as it must be.
type Finding struct {
	Where string // "entry 12", "tile 1/0", "index", "anchor", ...
	What  string
}

func (f Finding) String() string { return f.Where + ": " + f.What }

// maxFindings bounds a report; a store with more is as broken as one with these.
const maxFindings = 1000

// Verify reads everything and believes nothing: it rehashes every leaf, builds
// the tiles again, folds from entry 0 into a fresh state with every signature
// and permission, and compares tiles, folded rows, index, details, objects and
// anchor with what is stored. Findings are listed, not returned as an error; an
// error means that the check itself could not go on. It may run while the
// store is in use, in steps that hold no transaction long.
func (s *Store) Verify(ctx context.Context, progress func(done, total int64)) (Report, error) {
	v := &verifier{s: s, edge: &tree{}, state: ledger.NewState(s.cfg.Trust.Origin), deleted: map[int64]bool{}, withheld: map[api.Digest]bool{}}
	if progress == nil {
		progress = func(int64, int64) {}
	}
	total := s.Snapshot().Tree.Size
	for v.edge.size < total {
		if err := ctx.Err(); err != nil {
			return v.Report, err
		}
		if err := s.ledger.Read(func(tx *bbolt.Tx) error { return v.entries(tx, min(total, v.edge.size+tileWidth)) }); err != nil {
			return v.stopped(err)
		}
		progress(v.edge.size, total)
	}
	if err := s.ledger.Read(v.rest); err != nil {
		return v.stopped(err)
	}
	if !s.cfg.NoAnchor {
		v.checkAnchor()
	}
	if err := v.checkObjects(); err != nil {
		return v.stopped(err)
	}
	if len(v.Findings) > 0 {
		s.bar("verify: " + v.Findings[0].String())
	}
	return v.Report, nil
}

type verifier struct {
	Report
	s        *Store
	edge     *tree // of the leaves read so far
	audit    ledger.Audit
	state    *ledger.State       // folded so far
	broken   bool                // the fold stopped
	deleted  map[int64]bool      // details
	withheld map[api.Digest]bool // objects
	terms    int64               // rows that the index must have
	ids      int64
	tiles    int64
	pending  []detailCheck
}

type detailCheck struct {
	index int64
	name  api.Digest
}

func (v *verifier) find(where, format string, args ...any) {
	if len(v.Findings) < maxFindings {
		v.Findings = append(v.Findings, Finding{where, fmt.Sprintf(format, args...)})
	}
}

// stopped ends a verification that can't go on: damage is a finding, the rest
// an error.
func (v *verifier) stopped(err error) (Report, error) {
	if isClosed(err) {
		return v.Report, ErrClosed
	}
	if !errors.Is(err, kv.ErrCorrupt) {
		return v.Report, err
	}
	v.find(fmt.Sprintf("entry %d and later", v.edge.size), "can't be read: %v", err)
	v.s.bar("verify: " + v.Findings[0].String())
	return v.Report, nil
}

// entries takes the entries up to end.
func (v *verifier) entries(tx *bbolt.Tx, end int64) error {
	first, dirty := v.edge.size, map[tileKey][]byte{}
	leaves := make([][]byte, 0, end-first)
	for i := first; i < end; i++ {
		leaf, hash := v.leaf(tx, i)
		leaves = append(leaves, leaf)
		v.edge.add(hash, dirty)
	}
	v.foldAll(tx, first, leaves)
	tiles := tx.Bucket(bucketTiles)
	for k, want := range dirty {
		have := tiles.Get(k.bytes())
		if len(want) == tileWidth*tlog.HashSize {
			v.tiles++
		}
		if len(have) < len(want) || !bytes.Equal(have[:len(want)], want) {
			v.find(fmt.Sprintf("tile %d/%d", k.level, k.n), "does not follow from the entries")
		}
	}
	return nil
}

// leaf reads an entry and returns the hash to build the tree with: where the
// leaf isn't what its tile says, the tile's, so that one fault is one finding.
func (v *verifier) leaf(tx *bbolt.Tx, i int64) ([]byte, tlog.Hash) {
	where := fmt.Sprintf("entry %d", i)
	leaf, err := readLeaf(tx, i)
	if err != nil {
		v.find(where, "is missing")
	}
	hash := tlog.RecordHash(leaf)
	if want, err := hashReader(tx).ReadHashes([]int64{tlog.StoredHashIndex(0, i)}); err != nil {
		v.find(where, "its tile has no hash for it")
	} else if want[0] != hash {
		v.find(where, "does not have the hash in its tile")
		hash = want[0]
	}
	return leaf, hash
}

// foldAll applies leaves and checks what is derived from them.
func (v *verifier) foldAll(tx *bbolt.Tx, first int64, leaves [][]byte) {
	if v.broken {
		return
	}
	for k, l := range v.s.Trusted().ParseLeaves(first, leaves) {
		i := first + int64(k)
		err := l.Err
		if err == nil {
			err = v.audit.Check(v.state, l.Change)
		}
		if err == nil {
			err = v.state.Apply(l.Change, v.s.Trusted())
		}
		if err != nil && leaves[k] != nil {
			v.find(fmt.Sprintf("entry %d", i), "%v; entries after it were not folded", err)
		}
		if err != nil {
			v.broken = true
			return
		}
		v.derived(tx, i, l.Change)
	}
}

func (v *verifier) derived(tx *bbolt.Tx, i int64, c *ledger.Change) {
	switch c.Kind() {
	case ledger.DetailErased:
		v.deleted[c.Data.Index] = true
	case ledger.ObjectErased:
		v.withheld[c.Data.Object] = true
	}
	if c.Data.Detail != "" {
		v.pending = append(v.pending, detailCheck{i, c.Data.Detail})
	}
	v.index(tx, i, c)
}

func (v *verifier) index(tx *bbolt.Tx, i int64, c *ledger.Change) {
	where, at := fmt.Sprintf("index of entry %d", i), be64(i)
	places, terms, tail := tx.Bucket(bucketTerms).Cursor(), termsOf(c), tailRow(tx, i)
	if tail != nil && !bytes.Equal(tail, packTerms(terms)) {
		v.find(where, "its terms differ")
	}
	for _, t := range terms {
		v.terms++
		if (tail == nil || inPlace(t)) && !hasKey(places, append(t, at...)) {
			v.find(where, "term %q is missing", t)
		}
	}
	for _, id := range idsOf(c) {
		key, _ := idKey(id)
		leads := tx.Bucket(bucketIDs).Get(key)
		if id != c.ID && leads != nil && bytes.Compare(leads, at) < 0 {
			continue // the id of the change there, which counts it
		}
		v.ids++
		if !bytes.Equal(leads, at) {
			v.find(where, "id %s leads elsewhere", id)
		}
	}
	if !bytes.Equal(tx.Bucket(bucketTimes).Get(at), timesOf(c)) {
		v.find(where, "times or operator differ")
	}
}

func hasKey(c *bbolt.Cursor, key []byte) bool {
	k, _ := c.Seek(key)
	return bytes.Equal(k, key)
}

// rest takes what was appended meanwhile, then compares, in one transaction,
// all that is kept once: head, folded rows, and that nothing is there too much.
func (v *verifier) rest(tx *bbolt.Tx) error {
	head, err := readHead(tx)
	if err != nil {
		return err
	}
	if err := v.entries(tx, head.Size); err != nil {
		return err
	}
	v.Tree = ledger.Tree{Size: v.edge.size, Root: v.edge.root()}
	if v.Tree != head {
		v.find("head", "the entries have another root than the head row")
	}
	for _, tile := range v.edge.edge {
		if len(tile) > 0 {
			v.tiles++
		}
	}
	v.count(tx, bucketEntries, head.Size)
	v.count(tx, bucketTiles, v.tiles)
	if v.broken {
		return nil
	}
	v.count(tx, bucketTimes, head.Size)
	v.count(tx, bucketTail, tailSize(tx, head.Size))
	v.count(tx, bucketTerms, v.terms-int64(len(tailKeys(tx.Bucket(bucketTail)))))
	v.count(tx, bucketIDs, v.ids)
	v.checkFold(tx, head)
	v.checkTrustRow(tx)
	return v.checkDetails()
}

var bucketNames = map[string]string{"e": "entries", "t": "tiles", "w": "times", "x": "index terms", "y": "newest index terms", "i": "ids"}

func (v *verifier) count(tx *bbolt.Tx, bucket []byte, want int64) {
	n := int64(0)
	for range rowsOf(tx.Bucket(bucket)) {
		n++
	}
	if n != want {
		v.find(bucketNames[string(bucket)], "%d rows, the entries account for %d", n, want)
	}
}

// checkFold compares the folded rows, and what is published, with the fold.
func (v *verifier) checkFold(tx *bbolt.Tx, head ledger.Tree) {
	have, err := readFold(tx, v.s.Trusted(), head.Size)
	if err != nil {
		v.find("folded state", "%v", err)
		return
	}
	v.compareState("folded state", have)
	if snap := v.s.Snapshot(); snap.State.Size == v.state.Size {
		v.compareState("published state", snap.State)
	}
}

// checkTrustRow holds the note of the trust file in use to the versions that are
// known; a newer one than was passed is its own proof.
func (v *verifier) checkTrustRow(tx *bbolt.Tx) {
	row := tx.Bucket(bucketRows).Get([]byte(rowTrust))
	version, digest := parseTrustRow(row)
	for _, t := range v.s.Trusted().Versions() {
		if row == nil || version > v.s.Trusted().Version || t.Version == version && t.Digest == digest {
			return
		}
	}
	v.find("row "+rowTrust, "names no version of the trust file")
}

func (v *verifier) compareState(where string, have *ledger.State) {
	want := v.state
	if have.Origin != want.Origin || have.Trust != want.Trust || have.Size != want.Size || !reflect.DeepEqual(have.Sets, want.Sets) {
		v.find(where, "origin, trust, size or operators sets do not follow from the entries")
	}
	for name, svc := range want.Services {
		if h := have.Services[name]; h == nil || !reflect.DeepEqual(h.Chains, svc.Chains) {
			v.find(where, "the chains of service %q do not follow from the entries", name)
		}
	}
	for name := range have.Services {
		if want.Services[name] == nil {
			v.find(where, "service %q is in no entry", name)
		}
	}
}

// checkDetails comes last: an erasure is a later entry than what it erases.
func (v *verifier) checkDetails() error {
	for _, p := range v.pending {
		d, err := v.s.details.get(p.index)
		if err != nil && !errors.Is(err, kv.ErrCorrupt) {
			return err
		}
		where := fmt.Sprintf("detail of entry %d", p.index)
		switch {
		case v.deleted[p.index]:
			v.Erased++
			if d != nil {
				v.find(where, "is erased by the log, and still there")
			}
		case err != nil:
			v.find(where, "%v", err)
		case d == nil:
			v.find(where, "is missing, and no erasure says why")
		default:
			v.Details++
			if name, err := d.Digest(); err != nil || name != p.name {
				v.find(where, "is not the one that the leaf names")
			}
		}
	}
	return nil
}

func (v *verifier) checkAnchor() {
	anchor, _, err := v.s.readAnchor()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		path := v.s.cfg.Anchor
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			path = e.Path // where a note says that it is
		}
		v.find("anchor", "the file %s is missing; pass it with --anchor where it lies elsewhere, or --anchor '' for a copy that was kept without one", path)
	case err != nil:
		v.find("anchor", "%v", err)
	case anchor.Size > v.s.Snapshot().Tree.Size: // not v.Tree: appends may have moved both meanwhile
		v.find("anchor", "%d entries were published, the log has %d", anchor.Size, v.Tree.Size)
	default:
		if err := v.s.containsTree(anchor); err != nil {
			v.find("anchor", "%v", err)
		}
	}
}

// checkObjects rehashes what is stored, and follows the sets in force.
func (v *verifier) checkObjects() error {
	bad, err := v.s.objects.CheckObjects()
	if errors.Is(err, kv.ErrStructure) {
		v.find(fileObjects, "%v; %s", err, MoveHint(fileObjects))
		return nil
	}
	if err != nil {
		return err
	}
	for d := range v.withheld {
		there, err := v.s.objects.HasObject(d)
		if err != nil {
			return err
		}
		if there {
			v.find("object "+string(d), "is erased by the log, and still there")
		}
	}
	for _, d := range bad {
		v.find("object "+string(d), "the bytes are not the ones that the digest names")
	}
	seen := map[api.Digest]bool{}
	for _, c := range v.state.Active() {
		v.set(c.Set.Digest, seen)
	}
	return nil
}

func (v *verifier) set(d api.Digest, seen map[api.Digest]bool) {
	b := v.object(d, seen)
	if b == nil {
		return
	}
	set, err := bundle.ParseSet(b)
	if err != nil {
		v.find("set "+string(d), "%v", err)
		return
	}
	for _, e := range set.Entries {
		v.manifest(e.Digest, seen)
	}
}

func (v *verifier) manifest(d api.Digest, seen map[api.Digest]bool) {
	b := v.object(d, seen)
	if b == nil {
		return
	}
	m, err := bundle.ParseManifest(b)
	if err != nil {
		v.find("bundle "+string(d), "%v", err)
		return
	}
	for _, o := range m.Objects() {
		v.object(o, seen)
	}
}

// object reads an object once; nil when it was seen, is withheld, or is bad.
func (v *verifier) object(d api.Digest, seen map[api.Digest]bool) []byte {
	if seen[d] || v.s.erased.has(d) {
		return nil
	}
	seen[d] = true
	v.Objects++
	b, err := v.s.objects.Object(d)
	if errors.Is(err, kv.ErrNotFound) {
		v.find("object "+string(d), "is missing, and a set in force needs it")
	}
	return b
}
