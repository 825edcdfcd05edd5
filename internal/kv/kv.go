// Package kv keeps objects by digest and small records in one bbolt file. The
// server's store and the SDK's cache both stand on it.
//
//	db, err := kv.Open("cache.db", kv.Options{})
//	if err != nil { ... }
//	defer db.Close()
//	err = db.PutObjects(maps.All(objects)) // durable when it returns
//	b, err := db.Object(name)              // rehashed on every read
//
// bbolt has no checksums on data pages and maps its file without looking at its
// size, so this package adds what keeps a damaged file from being believed: a
// look at its size and at the pages that lead to others before the file is mapped,
// a rehash of every object that is read, and a net under every transaction that
// turns a fault on a damaged page into [ErrStructure].
package kv

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// Errors that callers branch on.
var (
	ErrNotFound  = errors.New("not found")
	ErrCorrupt   = errors.New("the stored bytes are damaged")
	ErrTruncated = errors.New("the file is shorter than its own first pages say: it was cut off")
	ErrLocked    = errors.New("another process has the file open")
	ErrFormat    = errors.New("the file is of another format version")

	// ErrStructure is an ErrCorrupt of the pages that hold the file together: what
	// is put again doesn't mend it.
	ErrStructure = fmt.Errorf("%w, those that hold the file together", ErrCorrupt)
)

// Damaged tells errors about what a file holds from those about getting at it.
func Damaged(err error) bool {
	return errors.Is(err, ErrCorrupt) || errors.Is(err, ErrTruncated) || errors.Is(err, ErrFormat)
}

// Options of Open. The zero value creates the file when it is missing and
// doesn't wait for another process.
type Options struct {
	Timeout   time.Duration // for the file's lock; 0 doesn't wait
	ReadOnly  bool          // many readers may share the file; nothing is created
	MustExist bool          // a missing or empty file is an error instead of a new one
	Format    string        // first value of a new file, demanded of an old one; "" is defaultFormat
	NoSync    bool          // no fsync: for tests only, a crash loses data
	MaxSize   int           // bytes the file may grow to; 0 is no limit
	Whole     bool          // look at each page's head first: for those who read all of it anyway
}

// defaultFormat is the format of a file of objects and records.
const defaultFormat = "sealstone kv v1"

// Buckets of every file.
var (
	bucketFormat  = []byte("format")
	bucketObjects = []byte("o")
	keyFormat     = []byte("v")
)

// DB is an open file. Its methods are safe for concurrent use; a write is
// durable when its method returns nil.
type DB struct {
	path string
	opt  Options
	bolt atomic.Pointer[bbolt.DB] // Compact puts another in its place

	writing sync.Mutex // held by the one writer, and by Compact from the copy to the swap
	moved   bool       // under writing: see settle
}

// Open opens or creates the file at path, mode 0600. A file shorter than its
// meta page says is refused with ErrTruncated before it is mapped, and one whose
// pages don't make trees with ErrStructure: what bbolt does on them kills the
// process.
func Open(path string, opt Options) (*DB, error) {
	if opt.Format == "" {
		opt.Format = defaultFormat
	}
	if err := guard(path, opt); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	db := &DB{path: path, opt: opt}
	err := net(func() error {
		b, err := bbolt.Open(path, 0o600, boltOptions(opt))
		db.bolt.Store(b)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, openError(err))
	}
	if err := db.format(opt); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return db, nil
}

func boltOptions(opt Options) *bbolt.Options {
	o := *bbolt.DefaultOptions
	o.Timeout, o.ReadOnly, o.NoSync, o.MaxSize, o.NoStatistics = opt.Timeout, opt.ReadOnly, opt.NoSync, opt.MaxSize, true
	if o.Timeout <= 0 {
		o.Timeout = time.Nanosecond // bbolt's 0 waits for ever
	}
	return &o
}

func openError(err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return ErrLocked
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return fmt.Errorf("%w: %w", ErrStructure, err)
	}
	return err
}

// format writes the format into a new file and demands it of an old one.
func (db *DB) format(opt Options) error {
	var have []byte
	err := db.Read(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(bucketFormat); b != nil {
			have = append(have, b.Get(keyFormat)...)
		}
		return nil
	})
	if err != nil || string(have) == opt.Format {
		return err
	}
	if have != nil {
		return fmt.Errorf("%w: it says %.64q, this program reads %q", ErrFormat, have, opt.Format)
	}
	nameless := fmt.Errorf("%w: the root page names no format, and in a whole file it names %q", ErrStructure, opt.Format)
	if opt.ReadOnly || opt.MustExist {
		return nameless
	}
	return db.Write(func(tx *bbolt.Tx) error {
		if k, _ := tx.Cursor().First(); k != nil {
			return nameless
		}
		b, err := tx.CreateBucket(bucketFormat)
		if err != nil {
			return err
		}
		return b.Put(keyFormat, []byte(opt.Format))
	})
}

// Close waits for transactions that are under way and gives the file free.
func (db *DB) Close() error {
	db.writing.Lock()
	defer db.writing.Unlock()
	return db.bolt.Load().Close()
}

// Sync makes durable what earlier writes gave to the kernel, even those that
// returned an error.
func (db *DB) Sync() error { return db.bolt.Load().Sync() }

// Path is the file's name.
func (db *DB) Path() string { return db.path }

// Read and Write are bbolt's transactions over a package's own buckets, under
// the net.
func (db *DB) Read(f func(*bbolt.Tx) error) error {
	for {
		b := db.bolt.Load()
		err := net(func() error { return b.View(f) })
		if !errors.Is(err, berrors.ErrDatabaseNotOpen) || b == db.bolt.Load() {
			return err
		} // else Compact closed it before the transaction began
	}
}

// Write commits what f did, or nothing when it fails; durable when it returns nil.
func (db *DB) Write(f func(*bbolt.Tx) error) error {
	db.writing.Lock()
	defer db.writing.Unlock()
	if err := db.settle(); err != nil {
		return err
	}
	err := net(func() error { return db.bolt.Load().Update(f) })
	if errors.Is(err, berrors.ErrIncompatibleValue) { // no record is a bucket, unless its page says so
		err = fmt.Errorf("%w: %w", ErrStructure, err)
	}
	return err
}

// net turns a panic of bbolt on a damaged page, and a memory fault on a page
// that is gone, into ErrStructure: one bad page must not take the process and all
// that it still serves along.
func net(f func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(old)
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", ErrStructure, r)
		}
	}()
	return f()
}

// exists tells a file that holds something from one that open would create.
func exists(path string) (bool, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && info.Size() > 0, err
}
