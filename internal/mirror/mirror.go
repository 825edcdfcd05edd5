package mirror

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/durable"
	"github.com/sealstone/sealstone/ledger"
)

// Mirror keeps a copy of a log in a directory.
type Mirror struct {
	Dir      string
	Source   Source
	Shown    func(ctx context.Context) ([]byte, error) // the newest trust file that anybody shows; nil is none
	Trust    *ledger.Trust                             // Sync goes on to newer versions, where the roots lead there
	Details  bool                                      // keep details as well; the source must let them be read
	Progress func(done, total int64)                   // in entries; nil is none

	fault func(step, path string) error // tests: before each change of the directory
}

// Divergence is a log that contradicts what it signed before. Both checkpoints
// are signed by its key, and lie in Evidence.
type Divergence struct {
	Ours, Theirs ledger.Tree
	What         string // "forked" or "rolled back"
	Evidence     string // directory
}

func (d *Divergence) Error() string {
	return fmt.Sprintf("the log %s: it signed %d entries with root %s, and now %d with root %s; both checkpoints are in %s",
		d.What, d.Ours.Size, ledger.EncodeRoot(d.Ours), d.Theirs.Size, ledger.EncodeRoot(d.Theirs), d.Evidence)
}

// Sync makes the copy that of the newest checkpoint, and says whether there was
// anything to do. What it fetches is verified before it is written, and the
// checkpoint is written last: a copy that was cut off at any point is whole, of
// its old size, and the next Sync goes on.
func (m *Mirror) Sync(ctx context.Context) (tree ledger.Tree, changed bool, err error) {
	if err := m.followTrust(ctx); err != nil {
		return tree, false, err
	}
	next, err := m.newest(ctx)
	if err != nil {
		return tree, false, err
	}
	old, err := m.have(ctx)
	if err != nil {
		return tree, false, err
	}
	if err := m.compare(ctx, old, next); err != nil {
		return old.Tree, false, err
	}
	if bytes.Equal(next.Checkpoint, old.Checkpoint) && !m.lacksDetails(next) && m.keptTrust() {
		return old.Tree, false, nil
	}
	return next.Tree, true, m.copy(ctx, old, next)
}

// newest is the log as it is shown now. A page that is no signed note at all,
// of a proxy or a login, says nothing of the log.
func (m *Mirror) newest(ctx context.Context) (*Log, error) {
	cp, err := m.Source(ctx, "checkpoint")
	if err != nil {
		return nil, err
	}
	if !bytes.Contains(cp, []byte("\n\n\u2014 ")) {
		return nil, &api.Error{Code: api.CodeUnavailable, Detail: fmt.Sprintf("what is shown as the log's checkpoint is no signed note: it begins with %.40q", cp),
			Hint: "is the URL right, or does a proxy or a login page stand in between?"}
	}
	return opened(cp, m.Source, m.Trust)
}

const trustFile = "trust.json"

// ErrSucceeded says that a log has ended: the roots named another that goes on
// from it.
var ErrSucceeded = errors.New("the log was succeeded")

// Newest goes from t to the newest version that a copy in dir was made with. All
// that lies there must be whole, though t alone is believed.
func Newest(dir string, t *ledger.Trust) (*ledger.Trust, error) {
	path := filepath.Join(dir, trustFile)
	b, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err == nil {
		_, err = ledger.ParseTrust(b)
	}
	if err == nil {
		t, err = t.Follow(b)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// followTrust takes the newest version of the trust file that is kept or shown.
// A web server that shows a copy shows none, or a page, and that is no fault.
func (m *Mirror) followTrust(ctx context.Context) error {
	t, err := Newest(m.Dir, m.Trust)
	if err != nil {
		return err
	}
	if m.Shown != nil {
		if b, err := m.Shown(ctx); err == nil && bytes.HasPrefix(b, []byte("{")) {
			if t, err = t.Follow(b); err != nil {
				return fmt.Errorf("the trust file that is shown: %w", err)
			}
		}
	}
	if t.Origin != m.Trust.Origin {
		return &api.Error{Code: api.CodeConflict, Err: ErrSucceeded, Detail: fmt.Sprintf("the log %s has ended: %s succeeds it, by version %d of the trust file", m.Trust.Origin, t.Origin, t.Version),
			Hint: "keep this copy as it is, and mirror the new log into a directory of its own, with its trust file"}
	}
	m.Trust = t
	return nil
}

func (m *Mirror) keptTrust() bool {
	b, err := readFile(filepath.Join(m.Dir, trustFile))
	return err == nil && bytes.Equal(b, m.Trust.File())
}

// have is the copy that is there; an empty log when there is none. Its log key
// may have been replaced since.
func (m *Mirror) have(ctx context.Context) (*Log, error) {
	old, err := Open(ctx, Dir(m.Dir), m.Trust.Past())
	if errors.Is(err, fs.ErrNotExist) {
		return &Log{Tree: ledger.Tree{Root: ledger.EmptyRoot()}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the copy in %s: %w", m.Dir, err)
	}
	return old, nil
}

// compare demands that the log goes on from what it signed before.
func (m *Mirror) compare(ctx context.Context, old, next *Log) error {
	longer, shorter := next, old
	if next.Size < old.Size {
		longer, shorter = old, next
	}
	root, err := longer.RootAt(ctx, shorter.Size)
	switch {
	case err != nil:
		return err
	case root != shorter.Root:
		return m.diverged("forked", old, next)
	case next.Size < old.Size:
		return m.diverged("rolled back", old, next)
	}
	return nil
}

func (m *Mirror) diverged(what string, old, next *Log) error {
	d := &Divergence{Ours: old.Tree, Theirs: next.Tree, What: what}
	d.Evidence = filepath.Join(m.Dir, "evidence", strings.ReplaceAll(what, " ", "-")+"-"+hex.EncodeToString(next.Root[:6]))
	return errors.Join(d,
		m.write(filepath.Join(d.Evidence, "ours.checkpoint"), old.Checkpoint, 0o644),
		m.write(filepath.Join(d.Evidence, "theirs.checkpoint"), next.Checkpoint, 0o644))
}

// copy fetches what is new. Partial tiles of the old checkpoint stay for those
// who are just reading it; older ones go first.
func (m *Mirror) copy(ctx context.Context, old, next *Log) error {
	if err := m.sweep(old.Size); err != nil {
		return err
	}
	if err := m.write(filepath.Join(m.Dir, trustFile), m.Trust.File(), 0o644); err != nil {
		return err
	}
	next.tiles = map[string][]byte{} // those that compare read were not written
	next.save = func(path string, b []byte) error { return m.write(place(m.Dir, path), b, 0o644) }
	stale := map[int64]bool{} // pages whose details an erasure changed
	for n := old.Size / width; n < next.Pages(); n++ {
		if err := m.page(ctx, next, n, stale); err != nil {
			return err
		}
		if m.Progress != nil {
			m.Progress(min((n+1)*width, next.Size), next.Size)
		}
	}
	if err := m.details(ctx, old, next, stale); err != nil {
		return err
	}
	return m.write(place(m.Dir, "checkpoint"), next.Checkpoint, 0o644)
}

// page fetches a page, unless a run that was cut off left it, and
// with it the tile that it was verified by.
func (m *Mirror) page(ctx context.Context, next *Log, n int64, stale map[int64]bool) error {
	path := next.entriesPath(n)
	b, err := readFile(place(m.Dir, path))
	var leaves [][]byte
	if err == nil {
		leaves, err = next.checkEntries(ctx, n, b)
	}
	if err != nil {
		if b, err = m.Source(ctx, path); err != nil {
			return err
		}
		if leaves, err = next.checkEntries(ctx, n, b); err != nil {
			return err
		}
		if err := m.write(place(m.Dir, path), b, 0o644); err != nil {
			return err
		}
	}
	for _, leaf := range leaves {
		if c, err := ledger.ParseLeaf(leaf); err == nil && c.Kind() == ledger.DetailErased {
			stale[c.Data.Index/width] = true
		}
	}
	return next.saveErr
}

// write makes a file and the directories above it.
func (m *Mirror) write(path string, b []byte, mode fs.FileMode) error {
	if err := m.step("write", path); err != nil {
		return err
	}
	err := durable.WriteFile(path, b, mode)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := m.mkdir(filepath.Dir(path)); err != nil {
		return err
	}
	return durable.WriteFile(path, b, mode)
}

// mkdir makes a directory durable.
func (m *Mirror) mkdir(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	up := filepath.Dir(dir)
	if err := m.mkdir(up); err != nil {
		return err
	}
	mode := fs.FileMode(0o755)
	if filepath.Base(dir) == "details" && up == filepath.Clean(m.Dir) {
		mode = 0o700
	}
	if err := os.Mkdir(dir, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return durable.SyncDir(up)
}

func (m *Mirror) step(what, path string) error {
	if m.fault == nil {
		return nil
	}
	return m.fault(what, path)
}

// sweep removes the partial tiles that no longer belong to a tree of this size,
// and what a run that was killed left half written.
func (m *Mirror) sweep(size int64) error {
	keep := map[string]bool{}
	for level := -1; level < 7; level++ {
		hashes := size >> (height * max(0, level))
		if w := int(hashes % width); w > 0 {
			keep[place(m.Dir, tilePath(tlog.Tile{H: height, L: level, N: hashes / width, W: w}))] = true
		}
	}
	root := filepath.Join(m.Dir, "log")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		partial := filepath.Ext(filepath.Dir(path)) == ".p" && !keep[path]
		if err != nil || d.IsDir() || !partial && !strings.HasPrefix(d.Name(), ".") {
			return err
		}
		if err := m.step("remove", path); err != nil {
			return err
		}
		return os.Remove(path)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func detailsPath(n int64) string {
	return strings.Replace(tilePath(tlog.Tile{H: height, N: n, W: width}), "tile/0/", "details/", 1)
}

// lacksDetails tells whether a copy that was made without details is to get them.
func (m *Mirror) lacksDetails(l *Log) bool {
	if !m.Details || l.Size == 0 {
		return false
	}
	_, err := os.Stat(place(m.Dir, detailsPath(l.Pages()-1)))
	return err != nil
}

// details fetches the details of new entries, of those that have none yet, and
// of those that an erasure changed.
func (m *Mirror) details(ctx context.Context, old, next *Log, stale map[int64]bool) error {
	if !m.Details {
		return nil
	}
	for n := range next.Pages() {
		path := place(m.Dir, detailsPath(n))
		_, err := os.Stat(path)
		if err == nil && n < old.Size/width && !stale[n] {
			continue
		}
		b, err := m.Source(ctx, detailsPath(n))
		if err != nil {
			return fmt.Errorf("details: %w", err)
		}
		if err := m.checkDetails(next, n, b); err != nil {
			return err
		}
		if err := m.write(path, b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// checkDetails holds details to the leaves that name them.
func (m *Mirror) checkDetails(l *Log, n int64, b []byte) error {
	list, err := parseDetails(b, n)
	if err != nil {
		return err
	}
	page, err := readFile(place(m.Dir, l.entriesPath(n)))
	if err != nil {
		return err
	}
	leaves := split(page)
	for _, d := range list {
		if i := d.Index % width; i < 0 || i >= int64(len(leaves)) || !isOf(d, leaves[i]) {
			return fmt.Errorf("%w: the detail of entry %d is not the one that its leaf names", ErrDamaged, d.Index)
		}
	}
	return nil
}

func isOf(d ledger.DetailLine, leaf []byte) bool {
	c, err := ledger.ParseLeaf(leaf)
	if err != nil {
		return false
	}
	_, ok := d.Of(c.Data.Detail)
	return ok
}

// Details reads the details of page n; none where the log shows none.
// Who uses one compares it with the leaf: that is what proves it.
func (l *Log) Details(ctx context.Context, n int64) ([]ledger.DetailLine, error) {
	b, err := l.src(ctx, detailsPath(n))
	if errors.Is(err, fs.ErrNotExist) || api.CodeOf(err) == api.CodeNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseDetails(b, n)
}

func parseDetails(b []byte, n int64) (out []ledger.DetailLine, err error) {
	for line := range bytes.Lines(b) {
		var d ledger.DetailLine
		if err := json.Unmarshal(line, &d); err != nil || d.Index/width != n {
			return nil, fmt.Errorf("%w: details/%d is not a line of JSON for each entry", ErrDamaged, n)
		}
		out = append(out, d)
	}
	return out, nil
}
