package store

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	berrors "go.etcd.io/bbolt/errors"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/kv"
)

// health is why the store takes no changes, if so.
type health struct {
	mu      sync.Mutex
	finding *api.Error       // the store is not what it was: stays until somebody recovers it
	behind  string           // the anchor, and why: the log had changes that aren't here
	trouble *api.Error       // storage failed: goes when an append succeeds
	undone  map[string]error // tasks that failed and will be tried again, each with why
	since   time.Time        // the batch at work began; zero: none is
}

// hangs is how long a batch may take before storage is taken to hang.
const hangs = 5 * time.Second

func (h *health) begin(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.since = now
}

func (h *health) end() { h.begin(time.Time{}) }

// hung is the trouble of a batch that doesn't end. h.mu is held.
func (h *health) hung(now time.Time) *api.Error {
	if took := now.Sub(h.since); !h.since.IsZero() && took > hangs {
		return &api.Error{Code: api.CodeStorage, Detail: fmt.Sprintf("the disk hasn't answered for %s", took.Round(time.Second)), Hint: "look at the disk of the data directory: is it hung, or overloaded?"}
	}
	return nil
}

// Tasks that may stay undone while changes are taken.
const (
	taskErase   = "what the log says is erased is withheld, but still on disk"
	taskCompact = "what was erased may still be in the free pages of a file"
)

// note keeps how a task went; nil is well.
func (h *health) note(task string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		delete(h.undone, task)
		return
	}
	if h.undone == nil {
		h.undone = map[string]error{}
	}
	h.undone[task] = err
}

// probeHelps tells whether a write that succeeds would end something.
func (h *health) probeHelps() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.trouble != nil || h.undone[taskErase] != nil
}

func (h *health) barred() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.finding == nil {
		return nil
	}
	return h.finding
}

// Behind is why the log is known to lack entries that were published, so that
// clients may know them; "" while it isn't.
func (s *Store) Behind() string {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	return s.health.behind
}

func (h *health) set(trouble *api.Error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trouble = trouble
}

// Writes is nil while the ledger takes changes, else why not: an *api.Error with
// CodeReadOnly for a finding, which stays, or CodeStorage for trouble, which the
// next append that succeeds ends, or the next Probe; also while a disk hangs.
func (s *Store) Writes() error {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	switch {
	case s.cfg.ReadOnly:
		return &api.Error{Code: api.CodeReadOnly, Detail: "the ledger is opened for reading only", Err: ErrReadOnly}
	case s.health.finding != nil:
		return s.health.finding
	case s.health.trouble != nil:
		return s.health.trouble
	}
	if err := s.health.hung(time.Now()); err != nil {
		return err
	}
	return nil
}

// Health lists what is wrong, a line each: why no changes are taken, as Writes
// has it, and erasures that aren't done on disk yet. None is well. The lines are
// for the operator's eyes and log: they may name paths.
func (s *Store) Health() []string {
	var out []string
	if err := s.Writes(); err != nil {
		out = append(out, err.Error())
	}
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	for _, task := range slices.Sorted(maps.Keys(s.health.undone)) {
		out = append(out, fmt.Sprintf("%s: %v; it is tried again with every scrub", task, s.health.undone[task]))
	}
	return out
}

const (
	recoverCommand = "sealstone ledger recover --data DIR --mirror DIR|URL --trust FILE, see docs/operations.md"
	recoverHint    = "look with sealstone verify --data DIR; then " + recoverCommand
)

// hint is recoverHint for this store. Who asks may be anybody, so it doesn't name
// where the anchor is.
func (s *Store) hint() string {
	if s.cfg.Anchor == s.cfg.path(fileAnchor) {
		return recoverHint
	}
	return strings.ReplaceAll(recoverHint, "--data DIR", "--data DIR --anchor FILE")
}

// bar turns writes off for good. The first finding is the one that is told.
func (s *Store) bar(detail string) {
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	if s.health.finding == nil {
		s.health.finding = &api.Error{Code: api.CodeReadOnly, Detail: detail, Hint: s.hint(), Err: ErrReadOnly}
	}
}

// lost is what the reader of something that is damaged gets. It turns writes off:
// what would be signed next would stand on it.
func (s *Store) lost(what string, err error) error {
	if !kv.Damaged(err) || api.CodeOf(err) == api.CodeDamaged { // said already
		return err
	}
	s.bar(fmt.Sprintf("%s is damaged: %v", what, err))
	return &api.Error{Code: api.CodeDamaged, Detail: what + " is damaged on the server's disk", Hint: recoverHint, Err: err}
}

func (s *Store) barBehind(detail string) {
	s.bar(detail)
	s.health.mu.Lock()
	defer s.health.mu.Unlock()
	s.health.behind = detail
}

// checkpoint returns the signed checkpoint of a snapshot, where there may be one.
func (s *Store) checkpoint(snap *Snapshot) ([]byte, error) {
	if snap.Checkpoint == nil {
		return nil, &api.Error{Code: api.CodeUnavailable, Detail: "there is no signed checkpoint of what is stored here", Hint: s.hint(), Err: s.health.barred()}
	}
	return snap.Checkpoint, nil
}

// storageError is what a caller gets when a step of writing failed. The cause
// has paths in it, so it stays inside, but for what the system says of the disk.
func storageError(step string, err error) *api.Error {
	return &api.Error{Code: api.CodeStorage, Detail: "the ledger could not store the change (" + step + " failed" + saying(err) + ")",
		Hint: "send the same statement again; it counts once", Err: err}
}

// saying is what an error says of the disk, in the system's words. It is looked
// for in the text, since bbolt doesn't wrap all of them.
func saying(err error) string {
	for _, e := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO} {
		if strings.Contains(err.Error(), e.Error()) {
			return ": " + e.Error()
		}
	}
	return ""
}

// damaged says of an error that the files are not whole, and what to do.
func damaged(err error) error {
	if err == nil || !errors.Is(err, kv.ErrCorrupt) && !errors.Is(err, kv.ErrTruncated) && !errors.Is(err, kv.ErrNotFound) {
		return err
	}
	return &api.Error{Code: api.CodeReadOnly, Detail: fmt.Sprintf("the ledger's files are damaged: %v", err), Hint: recoverHint, Err: errors.Join(kv.ErrCorrupt, err)}
}

// MoveHint is what to do about a file whose pages are damaged: a recovery makes
// it anew where there is none.
func MoveHint(file string) string {
	return "stop the server, move " + file + " out of the data directory, then " + recoverCommand
}

// unopened says of a file that can't be opened what to do.
func unopened(file string, err error) error {
	switch {
	case errors.Is(err, kv.ErrFormat):
		return &api.Error{Code: api.CodeReadOnly, Detail: err.Error(), Err: err,
			Hint: "run the version of sealstone that wrote it. If no other one ever ran here, the file is damaged: " + MoveHint(file)}
	case errors.Is(err, kv.ErrStructure) && file != fileLedger: // that one is made anew wherever it is
		return &api.Error{Code: api.CodeReadOnly, Detail: fmt.Sprintf("the ledger's files are damaged: %v", err), Hint: MoveHint(file), Err: err}
	}
	return damaged(err)
}

func isClosed(err error) bool { return errors.Is(err, berrors.ErrDatabaseNotOpen) }
