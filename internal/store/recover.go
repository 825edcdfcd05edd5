package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/durable"
	"github.com/sealstone/sealstone/internal/kv"
	"github.com/sealstone/sealstone/ledger"
)

// Copy is a signed log to recover from: a mirror.
type Copy struct {
	Tree       ledger.Tree
	Checkpoint []byte
	RootAt     func(ctx context.Context, size int64) (tlog.Hash, error)
	Entries    func(ctx context.Context, n int64) ([][]byte, error) // leaves from 256·n on
	Details    func(ctx context.Context, n int64) ([]ledger.DetailLine, error)
}

// Recovery is what Recover did, or would do.
type Recovery struct {
	Had     int64    `json:"had"`     // entries that could be read here
	Anchor  int64    `json:"anchor"`  // entries that are known to have been published; 0: nobody knows
	Size    int64    `json:"size"`    // entries after it
	Steps   []string `json:"steps"`   // in words
	Missing []int64  `json:"missing"` // entries whose details neither side has
}

// ErrNoCopy says that a copy doesn't hold what the log is known to hold.
var ErrNoCopy = errors.New("this copy can't stand for the log")

// Steps of a recovery, in order. Tests fail each of them before and after.
const (
	stepBuild = "build"
	stepFill  = "fill"
	stepKnown = "known"
	stepSwap  = "swap"
)

// Names of what a recovery makes.
const (
	fileBuilding = "ledger.db.recovering"
	fileReplaced = "ledger.db.replaced"
)

// RecoverOptions of Recover.
type RecoverOptions struct {
	Known          []ledger.Tree // that somebody saw signed: the copy must go on from them
	WithoutDetails bool          // go on where neither side has the detail of an entry
	DryRun         bool          // read and check everything, change nothing

	Rows  func(map[string][]byte) // changes the server's rows before they are taken over; nil changes none
	Ready func() error            // called when all is checked and built, before anything of the directory changes; may be nil
}

// Recover makes the ledger anew from a copy. The copy must go on from the anchor,
// from what else is known, and must not be shorter than what can be read here.
// Each entry is checked and folded as Verify does; tiles, fold and index follow;
// details and the server's rows are taken over from here, details that are
// missing from the copy. The new file takes the place of the old one, which is
// kept, in one step: a run that is cut off has changed nothing that counts, and
// is begun again.
//
// No server may run on the directory. The log's keys must be those of the trust
// file: who lost them needs a succession.
func Recover(ctx context.Context, cfg Config, from Copy, opt RecoverOptions) (*Recovery, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	keys, err := cfg.keyring()
	if err != nil {
		return nil, err
	}
	r := &recovery{Recovery: Recovery{Size: from.Tree.Size, Steps: []string{}, Missing: []int64{}}, s: &Store{cfg: cfg}, from: from, opt: opt}
	r.s.keys.Store(keys)
	old, err := r.openOld()
	if err != nil {
		return nil, err
	}
	if old != nil {
		defer old.Close()
	}
	if err := r.judge(ctx, old); err != nil {
		return &r.Recovery, err
	}
	if err := r.build(ctx, old); err != nil || opt.DryRun {
		return &r.Recovery, err
	}
	if opt.Ready != nil {
		if err := opt.Ready(); err != nil {
			return &r.Recovery, err
		}
	}
	return &r.Recovery, r.put()
}

type recovery struct {
	Recovery
	s     *Store // with the config alone; gets the new file
	audit ledger.Audit
	from  Copy
	opt   RecoverOptions
}

func (r *recovery) say(format string, args ...any) {
	r.Steps = append(r.Steps, fmt.Sprintf(format, args...))
}

// openOld opens what is there; nil when it can't be read. It keeps others from
// opening it meanwhile.
func (r *recovery) openOld() (*kv.DB, error) {
	path := r.s.cfg.path(fileLedger)
	db, err := kv.Open(path, kv.Options{MustExist: true, Whole: true, Format: formatLedger, NoSync: r.s.cfg.noSync})
	switch {
	case errors.Is(err, kv.ErrLocked):
		return nil, fmt.Errorf("%s: %w: stop the server first", r.s.cfg.Dir, err)
	case errors.Is(err, kv.ErrFormat):
		return nil, unopened(fileLedger, err)
	case errors.Is(err, fs.ErrNotExist):
		r.say("there is no %s", fileLedger)
	case err != nil:
		r.say("%s can't be read: %v", fileLedger, err)
	default:
		return db, nil
	}
	return nil, nil
}

// judge decides whether the copy may stand for the log.
func (r *recovery) judge(ctx context.Context, old *kv.DB) error {
	known := r.opt.Known
	anchor, _, err := r.s.readAnchor()
	switch {
	case err == nil:
		r.Anchor = anchor.Size
		known = append([]ledger.Tree{anchor}, known...)
	case !errors.Is(err, fs.ErrNotExist):
		r.say("the anchor %s %v", r.s.cfg.Anchor, err)
	}
	if err != nil && !r.canRead(old) {
		if err := r.outlasts(); err != nil {
			return err
		}
	}
	if len(known) == 0 {
		r.say("no anchor and no checkpoint says how long the log was: the copy is believed")
	}
	for _, t := range known {
		if err := r.covers(ctx, t); err != nil {
			return err
		}
	}
	if err := r.compare(ctx, old); err != nil {
		return err
	}
	r.say("make %d entries with tiles, fold and index from the copy", r.from.Tree.Size)
	return nil
}

// covers demands that the copy goes on from a tree that was published.
func (r *recovery) covers(ctx context.Context, t ledger.Tree) error {
	if t.Size > r.from.Tree.Size {
		return &api.Error{Code: api.CodeConflict, Err: ErrNoCopy, Detail: fmt.Sprintf("the copy has %d entries, and %d were published", r.from.Tree.Size, t.Size), Hint: successionHint}
	}
	root, err := r.from.RootAt(ctx, t.Size)
	if err != nil {
		return err
	}
	if root != t.Root {
		return &api.Error{Code: api.CodeConflict, Err: ErrNoCopy, Detail: fmt.Sprintf("the copy has another root for %d entries than was published: one of the two is a fork", t.Size),
			Hint: "keep both checkpoints; compare with what clients and other mirrors hold"}
	}
	return nil
}

const successionHint = "find a longer mirror; if there is none, the log ends here: the roots sign a trust file of a new origin that succeeds this one, see docs/operations.md"

func (r *recovery) canRead(db *kv.DB) bool {
	if db == nil {
		return false
	}
	_, err := r.readable(db)
	return err == nil
}

// outlasts refuses a copy that ends before the details beside it do, where
// nothing else says how long the log was: a detail is written just before its entry.
func (r *recovery) outlasts() error {
	db, err := kv.Open(r.s.cfg.path(fileDetails), kv.Options{ReadOnly: true, MustExist: true, Whole: true, Format: formatDetails})
	if err != nil {
		return nil // gone or damaged: it says nothing, and the build says what to do about it
	}
	defer db.Close()
	size := int64(0)
	_ = db.Read(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(bucketDetails); b != nil {
			if k, _ := b.Cursor().Last(); len(k) == 8 {
				size = fromBE64(k) + 1
			}
		}
		return nil
	})
	if size <= r.from.Tree.Size {
		return nil
	}
	return &api.Error{Code: api.CodeConflict, Err: ErrNoCopy, Detail: fmt.Sprintf("the copy has %d entries, and %s has the detail of entry %d: the log was longer", r.from.Tree.Size, fileDetails, size-1),
		Hint: "find a longer mirror, or the anchor; if that detail is not of a published entry, move " + fileDetails + " away first: its details must come from a mirror then"}
}

// readable is the tree that a file holds, if its last entries are whole.
func (r *recovery) readable(db *kv.DB) (head ledger.Tree, err error) {
	err = db.Read(func(tx *bbolt.Tx) error {
		if head, err = readHead(tx); err != nil || head.Size == 0 {
			return err
		}
		if _, err := loadTree(tx, head); err != nil {
			return err
		}
		st, err := readFold(tx, r.s.Trusted(), head.Size)
		if err != nil {
			return err
		}
		return checkLast(tx, st, head)
	})
	return head, err
}

// compare holds what is here against the copy.
func (r *recovery) compare(ctx context.Context, old *kv.DB) error {
	if old == nil {
		return nil
	}
	have, err := r.readable(old)
	if err != nil {
		r.say("%s is damaged: %v", fileLedger, err)
		return nil
	}
	r.Had = have.Size
	if have.Size > r.from.Tree.Size {
		return &api.Error{Code: api.CodeConflict, Err: ErrNoCopy, Detail: fmt.Sprintf("the data directory has %d entries, the copy %d", have.Size, r.from.Tree.Size),
			Hint: "take a longer copy; if those entries are not the log's, move " + fileLedger + " away first"}
	}
	root, err := r.from.RootAt(ctx, have.Size)
	switch {
	case err != nil:
		return err
	case root != have.Root:
		r.say("the %d entries here are not those that were published", have.Size)
	case have.Size < r.from.Tree.Size:
		r.say("entries %d to %d are missing here", have.Size, r.from.Tree.Size-1)
	}
	return nil
}

// build makes the new file beside the old one, through the same functions that
// write a batch.
func (r *recovery) build(ctx context.Context, old *kv.DB) error {
	s := r.s
	s.work, s.edge = ledger.NewState(s.Trusted().Origin), &tree{}
	err := s.step(stepBuild, func() error {
		if err := r.openNew(); err != nil {
			return err
		}
		for n := int64(0); s.work.Size < r.from.Tree.Size; n++ {
			if err := r.page(ctx, n); err != nil {
				return err
			}
		}
		if s.edge.root() != r.from.Tree.Root {
			return fmt.Errorf("%w: its entries hash to another root than its checkpoint's", ErrNoCopy)
		}
		if r.opt.DryRun {
			return nil
		}
		if len(r.Missing) > 0 && !r.opt.WithoutDetails {
			return &api.Error{Code: api.CodeConflict, Err: ErrNoCopy, Detail: fmt.Sprintf("the details of %d entries are neither here nor in the copy, the first is that of entry %d", len(r.Missing), r.Missing[0]),
				Hint: "take a mirror that was made with --details, or go on --without-details"}
		}
		return errors.Join(r.rows(old), s.ledger.Sync())
	})
	return errors.Join(err, s.closeFiles())
}

func (r *recovery) openNew() (err error) {
	s := r.s
	if r.opt.DryRun {
		return nil
	}
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return err
	}
	if err := os.Remove(s.cfg.path(fileBuilding)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Without fsync: the file counts from the moment it is renamed, and is synced before.
	if s.ledger, err = kv.Open(s.cfg.path(fileBuilding), kv.Options{Format: formatLedger, NoSync: true}); err != nil {
		return err
	}
	if err := s.ledger.Write(func(tx *bbolt.Tx) error { return createBuckets(tx, ledgerBuckets...) }); err != nil {
		return err
	}
	s.details.DB, err = kv.Open(s.cfg.path(fileDetails), kv.Options{Whole: true, Format: formatDetails, NoSync: s.cfg.noSync})
	if err != nil {
		return noDetails(err)
	}
	if err := s.details.Write(func(tx *bbolt.Tx) error { return createBuckets(tx, bucketDetails) }); err != nil {
		return err
	}
	s.objects, err = kv.Open(s.cfg.path(fileObjects), kv.Options{Whole: true, Format: formatObjects, NoSync: s.cfg.noSync})
	if err == nil {
		_, err = s.objects.CheckObjects() // single ones are built again, the pages between them are not
	}
	if err != nil {
		err = fmt.Errorf("%s: %w: move it away; the sets in force are built again from Git", fileObjects, err)
	}
	return err
}

// noDetails says what to do about a file of details that can't be used.
func noDetails(err error) error {
	return fmt.Errorf("%s: %w: move it away; the details come from the copy", fileDetails, err)
}

// page checks, folds and writes the entries of one page, and fills in their
// details.
func (r *recovery) page(ctx context.Context, n int64) error {
	s := r.s
	leaves, err := r.from.Entries(ctx, n)
	if err != nil {
		return err
	}
	b := &batch{s: s, base: s.work.Size, st: s.work}
	for _, l := range s.Trusted().ParseLeaves(b.base, leaves) {
		if l.Err == nil {
			l.Err = r.audit.Check(s.work, l.Change)
		}
		if l.Err == nil {
			l.Err = s.work.Apply(l.Change, s.Trusted())
		}
		if l.Err != nil {
			return fmt.Errorf("%w: %w", ErrNoCopy, l.Err)
		}
		b.changes = append(b.changes, l.Change)
	}
	if r.opt.DryRun {
		for _, c := range b.changes {
			sum, _ := c.Hash.Sum()
			s.edge.add(sum, map[tileKey][]byte{})
		}
		return nil
	}
	next, _, err := s.write(b)
	if err != nil {
		return err
	}
	s.edge = next
	return s.step(stepFill, func() error { return r.fill(ctx, n, b) })
}

// fill puts in place the details that the copy has and this side hasn't, or has
// damaged. What the log erases later goes at the next start.
func (r *recovery) fill(ctx context.Context, n int64, b *batch) error {
	lines, err := r.from.Details(ctx, n)
	if err != nil {
		return err
	}
	shown := map[int64]ledger.DetailLine{}
	for _, l := range lines {
		shown[l.Index] = l
	}
	err = r.s.details.Write(func(tx *bbolt.Tx) error {
		rows := tx.Bucket(bucketDetails)
		for k, c := range b.changes {
			if c.Kind() == ledger.DetailErased {
				r.erased(c.Data.Index)
			}
			i := b.base + int64(k)
			if c.Data.Detail == "" || isDetail(rows.Get(be64(i)), c.Data.Detail) {
				continue
			}
			line, ok := shown[i]
			d, right := line.Of(c.Data.Detail)
			if !ok || !right {
				r.Missing = append(r.Missing, i)
				continue
			}
			row, err := encodeDetail(d)
			if err != nil {
				return err
			}
			if err := rows.Put(be64(i), row); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, kv.ErrStructure) {
		err = noDetails(err)
	}
	return err
}

// erased takes an entry off the list of those whose detail is missing.
func (r *recovery) erased(index int64) {
	r.Missing = slices.DeleteFunc(r.Missing, func(i int64) bool { return i == index })
}

func isDetail(row []byte, want api.Digest) bool {
	if row == nil {
		return false
	}
	d, err := decodeDetail(row)
	if err != nil {
		return false
	}
	name, err := d.Digest()
	return err == nil && name == want
}

// rows takes over the server's own rows. They are memories, not evidence: a
// server that has none reads them out of Git again. The version of the trust file
// is noted anew: without it a start would hold the log to the first one's keys.
func (r *recovery) rows(old *kv.DB) error {
	all := map[string][]byte{}
	err := readRows(old, all)
	if err != nil && !errors.Is(err, kv.ErrCorrupt) {
		return err
	}
	if r.opt.Rows != nil {
		r.opt.Rows(all)
	}
	version, _ := parseTrustRow(all[rowTrust])
	if t := r.s.Trusted(); t.Version > version { // every entry was judged by it
		all[rowTrust] = trustRow(t)
	}
	return r.s.ledger.Write(func(tx *bbolt.Tx) error { return (&batch{rows: all}).writeRows(tx) })
}

func readRows(old *kv.DB, all map[string][]byte) error {
	if old == nil {
		return nil
	}
	return old.Read(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketRows)
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error {
			all[string(k)] = bytes.Clone(v)
			return nil
		})
	})
}

// put moves the anchor, then the file: cut off between the two, the old file is
// behind its anchor, so it takes no changes and is recovered again.
func (r *recovery) put() error {
	s := r.s
	err := s.step(stepKnown, func() error {
		if r.Anchor == r.from.Tree.Size {
			return nil
		}
		return durable.WriteFile(s.cfg.Anchor, r.from.Checkpoint, 0o600)
	})
	if err != nil {
		return err
	}
	return s.step(stepSwap, func() error {
		kept := s.cfg.path(fileReplaced)
		if err := os.Remove(kept); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Link(s.cfg.path(fileLedger), kept); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := os.Rename(s.cfg.path(fileBuilding), s.cfg.path(fileLedger)); err != nil {
			return err
		}
		return durable.SyncDir(s.cfg.Dir)
	})
}
