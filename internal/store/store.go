package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/note"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/durable"
	"github.com/sealstone/sealstone/internal/kv"
	"github.com/sealstone/sealstone/ledger"
)

// Config says where a ledger lies and who signs in it.
type Config struct {
	Dir    string           // data directory
	Anchor string           // path of the anchor file, better on another disk; "" is Dir/anchor
	Log    note.Signer      // signs checkpoints; nil only with ReadOnly
	Node   note.Signer      // signs leaves and heads; nil only with ReadOnly
	More   []note.Signer    // further keys that the trust file names, while one is replaced
	Trust  *ledger.Trust    // the newest version, with those before it
	Now    func() time.Time // nil is time.Now

	// ReadOnly opens for looking and Verify: nothing is written, several
	// processes may do it, none while a server runs.
	ReadOnly bool
	NoAnchor bool // for Verify: a copy that was kept without its anchor

	noSync   bool                                // tests: no fsync
	maxSize  int                                 // tests: how far ledger.db may grow
	listed   int                                 // tests: how long a list of times between reads; 0 is maxListed
	searched int                                 // tests: how many details a query for a text reads; 0 is maxSearched
	fault    func(step string, after bool) error // tests: fail before or after a step
}

// Errors that callers branch on.
var (
	ErrNoLedger  = errors.New("there is no ledger here")
	ErrExists    = errors.New("a ledger is here already")
	ErrReadOnly  = errors.New("the ledger takes no changes")
	ErrClosed    = errors.New("the store is closed")
	ErrErased    = errors.New("erased")
	ErrNotFound  = kv.ErrNotFound
	ErrCorrupt   = kv.ErrCorrupt
	ErrStructure = kv.ErrStructure
	ErrLocked    = kv.ErrLocked
)

// Snapshot is what is published: nothing beyond it may be served. It is
// immutable and stays valid while newer ones are published.
type Snapshot struct {
	State      *ledger.State // read only
	Tree       ledger.Tree
	Checkpoint []byte // signed note; nil while behind the anchor, or opened ReadOnly without an anchor of this size
}

// Store is an open ledger. Its methods are safe for concurrent use.
type Store struct {
	cfg     Config
	ledger  *kv.DB
	objects *kv.DB
	details detailFile
	keys    atomic.Pointer[keyring] // replaced by the append loop

	snap    atomic.Pointer[Snapshot]
	changed atomic.Pointer[chan struct{}]
	health  health
	erased  erasedObjects
	unfound lostDetails
	scrub   scrubber

	reqs chan *request
	quit chan struct{} // closed by Close
	done chan struct{} // closed when the append loop has ended
	once sync.Once

	// Owned by the append loop.
	work *ledger.State // committed state, or that of the batch being made
	edge *tree         // committed tree
	owed debt

	anchor anchorFile
}

func (c *Config) validate() error {
	var errs []error
	if c.Dir == "" {
		errs = append(errs, errors.New("no data directory"))
	}
	if c.Trust == nil {
		errs = append(errs, errors.New("no trust file"))
	}
	if !c.ReadOnly && (c.Log == nil || c.Node == nil) {
		errs = append(errs, errors.New("no log key or no node key"))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.searched == 0 {
		c.searched = maxSearched
	}
	if c.listed == 0 {
		c.listed = maxListed
	}
	if c.Anchor == "" {
		c.Anchor = c.path(fileAnchor)
	}
	return nil
}

func (c *Config) path(name string) string { return filepath.Join(c.Dir, name) }

// Names of the files in the data directory.
const (
	fileLedger  = "ledger.db"
	fileDetails = "details.db"
	fileObjects = "objects.db"
	fileAnchor  = "anchor" // unless Config.Anchor says where
)

func noLedger(dir string) error {
	if _, err := os.Stat(filepath.Join(dir, fileAnchor)); err == nil { // only a whole ledger has one
		return &api.Error{Code: api.CodeReadOnly, Detail: fmt.Sprintf("%s has an anchor, but no %s: the ledger was lost", dir, fileLedger), Hint: recoverHint, Err: ErrCorrupt}
	}
	return &api.Error{Code: api.CodeNotFound, Detail: fmt.Sprintf("there is no ledger in %s", dir),
		Hint: "make one with: sealstone ledger init", Err: ErrNoLedger}
}

// Init makes a ledger: entry 0, its checkpoint and the anchor. It refuses with
// ErrExists where a ledger is, or where an anchor says that one was. A crash on
// the way leaves nothing that a second Init doesn't finish.
func Init(cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	if cfg.Trust.Version != 1 && cfg.Trust.Succeeds == nil {
		return fmt.Errorf("store: a new ledger starts from version 1 of a trust file, this is version %d", cfg.Trust.Version)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return err
	}
	if _, err := os.Stat(cfg.Anchor); err == nil {
		return &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("%s is the anchor of a ledger", cfg.Anchor), Err: ErrExists,
			Hint: "if its data directory is lost, make it from a mirror: sealstone ledger recover --data DIR --mirror DIR|URL --trust FILE"}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := createFiles(&cfg); err != nil {
		return err
	}
	return create(cfg)
}

// createFiles makes the three files; ledger.db, which says that there is a
// ledger, last.
func createFiles(cfg *Config) error {
	for _, f := range []struct {
		name, format string
		buckets      [][]byte
	}{{fileObjects, formatObjects, nil}, {fileDetails, formatDetails, [][]byte{bucketDetails}}, {fileLedger, formatLedger, ledgerBuckets}} {
		db, err := kv.Open(cfg.path(f.name), kv.Options{Format: f.format, NoSync: cfg.noSync})
		if err != nil {
			return err
		}
		err = db.Write(func(tx *bbolt.Tx) error { return createBuckets(tx, f.buckets...) })
		if err := errors.Join(err, db.Close()); err != nil {
			return err
		}
	}
	return durable.SyncDir(cfg.Dir)
}

func create(cfg Config) (err error) {
	s, err := open(cfg, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if s.Snapshot().Tree.Size != 0 {
		return &api.Error{Code: api.CodeConflict, Detail: fmt.Sprintf("a ledger is in %s", cfg.Dir), Err: ErrExists}
	}
	_, err = s.Append(background, func(*ledger.State, time.Time) (Decision, error) {
		d := ledger.Data{Fields: ledger.Fields{Trust: cfg.Trust.Digest}}
		return Decision{Drafts: []Draft{{Kind: ledger.LedgerCreated, Data: d}}}, nil
	})
	return err
}

// Open opens a ledger for serving. It compares the files with one another and
// with the anchor; where they disagree it opens for reading only, and Writes
// says why. It never makes a ledger: ErrNoLedger says how to.
func Open(cfg Config) (*Store, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	return open(cfg, false)
}

func open(cfg Config, fresh bool) (*Store, error) {
	if _, err := os.Stat(cfg.path(fileLedger)); errors.Is(err, fs.ErrNotExist) {
		return nil, noLedger(cfg.Dir)
	}
	keys, err := cfg.keyring()
	if err != nil {
		return nil, err
	}
	s := &Store{cfg: cfg, reqs: make(chan *request), quit: make(chan struct{}), done: make(chan struct{})}
	s.keys.Store(keys)
	ch := make(chan struct{})
	s.changed.Store(&ch)
	if err = s.openFiles(); err == nil {
		err = s.load(fresh)
	}
	if err != nil {
		return nil, errors.Join(err, s.closeFiles())
	}
	if cfg.ReadOnly {
		close(s.done)
	} else {
		go s.loop()
	}
	return s, nil
}

func (s *Store) openFiles() (err error) {
	opt := kv.Options{ReadOnly: s.cfg.ReadOnly, Whole: s.cfg.ReadOnly, MustExist: true, NoSync: s.cfg.noSync, Format: formatLedger, MaxSize: s.cfg.maxSize}
	if s.ledger, err = kv.Open(s.cfg.path(fileLedger), opt); err != nil {
		return unopened(fileLedger, err)
	}
	opt.MaxSize, opt.Format = 0, formatDetails
	if s.details.DB, err = kv.Open(s.cfg.path(fileDetails), opt); err != nil {
		return unopened(fileDetails, err)
	}
	opt.Format = formatObjects
	s.objects, err = kv.Open(s.cfg.path(fileObjects), opt)
	return unopened(fileObjects, err)
}

// load reads what is committed, holds it against itself and the anchor, and
// publishes it.
func (s *Store) load(fresh bool) error {
	head, err := s.reload()
	if err != nil {
		return damaged(err)
	}
	if head.Size == 0 && !fresh {
		return noLedger(s.cfg.Dir)
	}
	if head.Size > 0 && s.work.Origin != s.cfg.Trust.Origin {
		return fmt.Errorf("store: the ledger is of log %q, the trust file of %q", s.work.Origin, s.cfg.Trust.Origin)
	}
	if t := s.cfg.Trust; head.Size > 0 && t.Version == 1 && t.Digest != s.work.Trust {
		return fmt.Errorf("store: the ledger was created under trust file %s, this is %s", s.work.Trust, t.Digest)
	}
	if head.Size > 0 {
		if err := s.takeTrust(head.Size); err != nil {
			return err
		}
		s.compareAnchor(head)
	}
	if err := s.loadErased(); err != nil {
		return damaged(err)
	}
	if s.cfg.ReadOnly {
		s.snap.Store(&Snapshot{State: s.work.Clone(), Tree: head, Checkpoint: s.anchorAt(head)})
		return nil
	}
	if err := s.settleDetails(head.Size); errors.Is(err, kv.ErrCorrupt) {
		return damaged(err)
	} else if err != nil { // a full disk: reads go on, none of what is left over, and the rest is owed
		s.owed.settle = true
		_ = s.failed(stepErase, err)
	}
	if err := s.publish(head); err != nil {
		return err
	}
	if head.Size > 0 && s.health.barred() == nil {
		err := s.writeAnchor()
		if err == nil && !fresh {
			err = s.pointAnchor()
		}
		if err != nil { // a full disk: reads go on, and the anchor is owed
			_ = s.failed(stepAnchor, err)
		}
	}
	return nil
}

// reload makes the loop's state that of the disk.
func (s *Store) reload() (head ledger.Tree, err error) {
	err = s.ledger.Read(func(tx *bbolt.Tx) error {
		if head, err = readHead(tx); err != nil {
			return err
		}
		if s.edge, err = loadTree(tx, head); err != nil {
			return err
		}
		if head.Size == 0 {
			s.work = ledger.NewState(s.cfg.Trust.Origin)
			return nil
		}
		if s.work, err = readFold(tx, s.Trusted(), head.Size); err != nil {
			return err
		}
		if err := checkLast(tx, s.work, head); err != nil { // reads go on with what was folded when it was whole
			s.bar(err.Error())
		}
		return nil
	})
	if err == nil || head.Size == 0 || s.edge == nil {
		return head, err
	}
	return head, s.refold(head, err)
}

// refold builds the state from the leaves when its rows can't be used. Rows of
// another version are written anew; damaged ones are a finding.
func (s *Store) refold(head ledger.Tree, cause error) error {
	var changes []*ledger.Change
	err := s.ledger.Read(func(tx *bbolt.Tx) (err error) {
		s.work, err = fold(tx, s.Trusted(), head.Size, func(c *ledger.Change) { changes = append(changes, c) })
		return err
	})
	if err != nil {
		return errors.Join(cause, err)
	}
	if !errors.Is(cause, errRefold) {
		s.bar("the folded state does not follow from the entries: " + cause.Error())
		return nil
	}
	if s.cfg.ReadOnly {
		return nil
	}
	return s.ledger.Write(func(tx *bbolt.Tx) error {
		if err := errors.Join(dropBuckets(tx, bucketState, bucketTail, bucketTerms, bucketIDs), createBuckets(tx, bucketState, bucketTerms, bucketIDs)); err != nil {
			return err
		}
		if err := writeIndex(tx, 0, changes); err != nil { // the version covers the index too
			return err
		}
		return writeFold(tx, s.work, changes)
	})
}

// Close ends the append loop and waits for it; changes that were taken are
// answered first.
func (s *Store) Close() error {
	var err error
	s.once.Do(func() {
		close(s.quit)
		<-s.done
		err = s.closeFiles()
	})
	return err
}

func (s *Store) closeFiles() error {
	var errs []error
	for _, db := range []*kv.DB{s.objects, s.ledger, s.details.DB} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	errs = append(errs, s.anchor.close())
	return errors.Join(errs...)
}

// Snapshot returns what is published; never nil.
func (s *Store) Snapshot() *Snapshot { return s.snap.Load() }

// Changed returns a channel that is closed at the next publish. Get it before
// the snapshot: then no change falls between.
func (s *Store) Changed() <-chan struct{} { return *s.changed.Load() }
