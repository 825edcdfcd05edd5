package mirror

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
)

// fakeLog is a log in memory: real leaves, tiles and checkpoints.
type fakeLog struct {
	*ledgertest.Fixture
	t      *testing.T
	leaves [][]byte
	hashes []tlog.Hash
	state  *ledger.State
	files  map[string][]byte
	reads  []string
	detail map[int64]ledger.DetailLine
}

func newFakeLog(t *testing.T) *fakeLog {
	f := &fakeLog{Fixture: ledgertest.New(t), t: t, detail: map[int64]ledger.DetailLine{}}
	f.state = ledger.NewState(f.Origin)
	f.add(ledger.LedgerCreated, ledger.Data{Fields: ledger.Fields{Trust: f.Trust.Digest}})
	return f
}

var start = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

func (f *fakeLog) add(kind ledger.Kind, d ledger.Data) {
	f.t.Helper()
	d.Lane = kind.Lane()
	f.state.Next(&d)
	c, err := ledger.NewEvent(f.Origin, kind, ledgertest.NewID(start), start, start, d).Seal(ledger.NodeSigner{Signer: f.Node}, nil)
	f.must(err)
	f.must(f.state.Apply(c, f.Trust))
	f.leaves = append(f.leaves, c.Leaf)
	h, err := tlog.StoredHashes(int64(len(f.leaves)-1), c.Leaf, f)
	f.must(err)
	f.hashes = append(f.hashes, h...)
}

func (f *fakeLog) ReadHashes(at []int64) (out []tlog.Hash, err error) {
	for _, i := range at {
		out = append(out, f.hashes[i])
	}
	return out, nil
}

func (f *fakeLog) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// grow adds activations up to a size and publishes.
func (f *fakeLog) grow(size int) *fakeLog {
	f.t.Helper()
	for len(f.leaves) < size {
		n := len(f.leaves)
		d, name, err := ledger.NewDetail(map[string]any{"author": fmt.Sprint("author ", n)})
		f.must(err)
		f.detail[int64(n)] = ledger.DetailLine{Index: int64(n), Salt: d.Salt, Detail: d.Text}
		f.add(ledger.BundleActivated, ledger.Data{Service: "checkout", Scope: "prod", Detail: name, Fields: ledger.Fields{
			Release: ledgertest.Release(n), Set: &ledger.SetRef{Digest: api.DigestOf(fmt.Append(nil, n)), Size: 1}, Contract: 1}})
	}
	return f.publish()
}

func (f *fakeLog) tree() ledger.Tree {
	root, err := tlog.TreeHash(int64(len(f.leaves)), f)
	f.must(err)
	return ledger.Tree{Size: int64(len(f.leaves)), Root: root}
}

func (f *fakeLog) publish() *fakeLog {
	f.t.Helper()
	f.files = map[string][]byte{}
	f.sign(f.Log)
	for _, tile := range tlog.NewTiles(height, 0, int64(len(f.leaves))) {
		b, err := tlog.ReadTileData(tile, f)
		f.must(err)
		f.files[tilePath(tile)] = b
		if tile.L > 0 {
			continue
		}
		var body, lines []byte
		for i := tile.N * width; i < tile.N*width+int64(tile.W); i++ {
			leaf := f.leaves[i]
			body = append(append(body, byte(len(leaf)>>8), byte(len(leaf))), leaf...)
			if d, ok := f.detail[i]; ok {
				lines = fmt.Appendf(lines, `{"index":%d,"salt":%q,"detail":{"author":%q}}`+"\n", i, d.Salt, d.Detail["author"])
			}
		}
		f.files[tilePath(tlog.Tile{H: height, L: -1, N: tile.N, W: tile.W})] = body
		f.files[detailsPath(tile.N)] = lines
	}
	return f
}

// sign puts a checkpoint by some keys.
func (f *fakeLog) sign(keys ...note.Signer) {
	f.t.Helper()
	cp, err := ledger.SignCheckpoint(f.Origin, f.tree(), keys...)
	f.must(err)
	f.files["checkpoint"] = cp
}

func (f *fakeLog) source(_ context.Context, path string) ([]byte, error) {
	f.reads = append(f.reads, path)
	b, ok := f.files[path]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return bytes.Clone(b), nil
}

func (f *fakeLog) mirror() *Mirror {
	return &Mirror{Dir: filepath.Join(f.t.TempDir(), "mirror"), Source: f.source, Trust: f.Trust, Details: true}
}

func (f *fakeLog) sync(m *Mirror) {
	f.t.Helper()
	tree, _, err := m.Sync(f.t.Context())
	f.must(err)
	if tree != f.tree() {
		f.t.Fatalf("mirrored %v, the log is %v", tree, f.tree())
	}
	f.complete(m)
}

// complete demands that the directory proves every entry by itself.
func (f *fakeLog) complete(m *Mirror) {
	f.t.Helper()
	l, err := Open(f.t.Context(), Dir(m.Dir), f.Trust)
	f.must(err)
	for n := range l.Pages() {
		leaves, err := l.Entries(f.t.Context(), n)
		f.must(err)
		for i, leaf := range leaves {
			if !bytes.Equal(leaf, f.leaves[int(n)*width+i]) {
				f.t.Fatalf("entry %d differs", int(n)*width+i)
			}
		}
		details, err := l.Details(f.t.Context(), n)
		f.must(err)
		if want := bytes.Count(f.files[detailsPath(n)], []byte("\n")); m.Details && len(details) != want && l.Size == int64(len(f.leaves)) {
			f.t.Fatalf("page %d has %d details, want %d", n, len(details), want)
		}
	}
}

func TestMirrorFollows(t *testing.T) {
	f := newFakeLog(t)
	m := f.mirror()
	for _, size := range []int{1, 2, 255, 256, 257, 300, 511, 512, 700, 1300} {
		f.grow(size)
		f.sync(m)
		f.reads = nil
		if _, changed, err := m.Sync(t.Context()); changed || err != nil || len(f.reads) != 1 {
			t.Fatalf("nothing new: changed %v, %v, read %v", changed, err, f.reads)
		}
	}
	partial := 0
	err := filepath.WalkDir(m.Dir, func(path string, d fs.DirEntry, err error) error {
		if strings.Contains(path, ".p/") {
			partial++
		}
		return err
	})
	if err != nil || partial > 2*3 {
		t.Errorf("%d partial tiles stay, %v", partial, err)
	}
	info, err := os.Stat(filepath.Join(m.Dir, "details"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("details may be read by others: %v, %v", info.Mode(), err)
	}
}

// A mirror that is killed before any of its writes is whole, and goes on.
func TestMirrorGoesOnAfterACut(t *testing.T) {
	f := newFakeLog(t).grow(300)
	short := f.files
	f.grow(600)
	long := f.files
	errCut := errors.New("cut")
	for at := 1; at > 0; at++ {
		m := f.mirror()
		n := 0
		m.fault = func(string, string) error {
			if n++; n == at {
				return errCut
			}
			return nil
		}
		f.files = short
		_, _, err := m.Sync(t.Context())
		f.files = long
		if err == nil {
			_, _, err = m.Sync(t.Context())
		}
		switch {
		case err == nil && at < 15:
			t.Fatalf("%d steps only", n)
		case err == nil:
			at = -1 // all steps were cut
		case !errors.Is(err, errCut):
			t.Fatalf("step %d: %v", at, err)
		}
		if _, err := os.Stat(filepath.Join(m.Dir, "log", "checkpoint")); err == nil {
			f.complete(m)
		}
		f.sync(m)
	}
}

// A fork and a rollback are told from damage, and leave both checkpoints.
func TestMirrorSaysHowALogContradictsItself(t *testing.T) {
	f := newFakeLog(t).grow(300)
	m := f.mirror()
	f.sync(m)
	ours := f.files["checkpoint"]
	for _, c := range []struct {
		name, what string
		size       int
		other      bool
	}{
		{"shorter", "rolled back", 200, false}, {"shorter, of another history", "forked", 200, true},
		{"equal size", "forked", 300, true}, {"longer", "forked", 400, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := newFakeLog(t)
			if !c.other { // else the ids differ
				g.leaves, g.hashes, g.state = f.leaves[:c.size:c.size], f.hashes[:tlog.StoredHashCount(int64(c.size))], f.state
			}
			g.grow(c.size)
			m.Source = g.source
			_, _, err := m.Sync(t.Context())
			d, ok := errors.AsType[*Divergence](err)
			if !ok || d.What != c.what {
				t.Fatalf("%v, want %q", err, c.what)
			}
			for name, want := range map[string][]byte{"ours": ours, "theirs": g.files["checkpoint"]} {
				if got, err := os.ReadFile(filepath.Join(d.Evidence, name+".checkpoint")); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%s: %q, %v", name, got, err)
				}
			}
			f.complete(m)
		})
	}
	m.Source = f.source
	f.grow(301)
	f.sync(m)
}

// Nothing that isn't what the checkpoint signs is ever written over what is
// there.
func TestMirrorTakesNothingDamaged(t *testing.T) {
	f := newFakeLog(t).grow(300)
	short := f.files
	f.grow(700)
	long := f.files
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	cut := func(b []byte) []byte { return b[:len(b)-1] }
	for _, c := range []struct {
		name, path string
		spoil      func([]byte) []byte
	}{
		{"a checkpoint", "checkpoint", flip},
		{"a tile", "tile/0/001", flip},
		{"a tile cut off", "tile/0/001", cut},
		{"a tile at the edge", "tile/0/002.p/188", flip},
		{"a tile above", "tile/1/000.p/2", flip},
		{"an entry", "tile/entries/001", func(b []byte) []byte { b[100] ^= 1; return b }},
		{"an entry short", "tile/entries/001", func(b []byte) []byte { return b[:len(b)-2-len(f.leaves[511])] }},
		{"entries cut off", "tile/entries/002.p/188", cut},
		{"a detail", "details/001", func(b []byte) []byte { return bytes.Replace(b, []byte("author 300"), []byte("author 301"), 1) }},
		{"details that are no JSON", "details/002", func(b []byte) []byte { return append(b, "{"...) }},
		{"a detail under the index of another page", "details/002", func(b []byte) []byte { return bytes.Replace(b, []byte(`"index":512`), []byte(`"index":256`), 1) }},
		{"details of other entries", "details/002", func(b []byte) []byte { return append(b, long["details/001"]...) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := f.mirror()
			m.Details = strings.HasPrefix(c.path, "details/") // else they would find what entries hide
			f.files = short
			if _, _, err := m.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			f.files = long
			m.Source = func(ctx context.Context, p string) ([]byte, error) {
				b, err := f.source(ctx, p)
				if err == nil && p == c.path {
					b = c.spoil(b)
				}
				return b, err
			}
			_, _, err := m.Sync(t.Context())
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ledger.ErrCheckpoint) {
				t.Fatalf("%v", err)
			}
			if strings.HasPrefix(c.path, "tile/") && !strings.Contains(c.path, "entries") && !strings.Contains(err.Error(), c.path) {
				t.Errorf("%v does not name %s", err, c.path)
			}
			l, err := Open(t.Context(), Dir(m.Dir), f.Trust)
			if err != nil || l.Size != 300 {
				t.Fatalf("the copy: %v, %v", l, err)
			}
			f.complete(m)
			m.Source = f.source
			f.sync(m)
		})
	}
}

// rotate is the next version of the trust file, with another log key.
func (f *fakeLog) rotate(from int64) (*ledger.Trust, note.Signer) {
	f.t.Helper()
	skey, vkey, err := ledger.NewNoteKey(f.Origin, make([]byte, 32))
	f.must(err)
	key, err := note.NewSigner(skey)
	f.must(err)
	st := f.Trust.Successor(from)
	st.Log = []string{vkey}
	line, err := ledger.SignTrust(st, f.Root)
	f.must(err)
	next, err := f.Trust.Next(line)
	f.must(err)
	return next, key
}

// What a copy's trust file begins with is passed over, and must be whole all the same.
func TestNewestNeedsAWholeTrustFile(t *testing.T) {
	f := newFakeLog(t)
	next, _ := f.rotate(1)
	dir, line := t.TempDir(), next.Raw
	for name, c := range map[string]struct {
		first []byte
		ok    bool
	}{"its own": {f.Trust.Raw, true}, "another log's": {ledgertest.For(t, "elsewhere.example").Trust.Raw, false}} {
		f.must(os.WriteFile(filepath.Join(dir, trustFile), append(append(append(bytes.Clone(c.first), '\n'), line...), '\n'), 0o600))
		if got, err := Newest(dir, f.Trust); (err == nil) != c.ok || c.ok && got.Version != 2 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A log key is replaced while the mirror is off. It reads what it has by the key
// that signed it, up to where that key counted; believes the log by the newest
// version alone; and keeps a copy that needs no old key.
func TestMirrorFollowsARotation(t *testing.T) {
	for until, ok := range map[int64]bool{300: true, 299: false} {
		f := newFakeLog(t).grow(300)
		m := f.mirror()
		f.sync(m)
		next, key := f.rotate(until)
		f.sign(key)
		if _, _, err := m.Sync(t.Context()); !errors.Is(err, ledger.ErrCheckpoint) {
			t.Fatalf("a key that no known version names: %v", err)
		}
		m.Shown = func(context.Context) ([]byte, error) { return next.File(), nil }
		_, changed, err := m.Sync(t.Context())
		if ok != (err == nil) || ok != changed {
			t.Fatalf("the old key counted below %d: changed %v, %v", until, changed, err)
		}
		if !ok {
			continue
		}
		if _, err := Open(t.Context(), Dir(m.Dir), next); err != nil {
			t.Errorf("the copy is not signed by the new key: %v", err)
		}
		told := &Mirror{Dir: m.Dir, Source: f.source, Trust: f.Trust} // the old version, and nobody shows another
		if _, changed, err := told.Sync(t.Context()); changed || err != nil || told.Trust.Version != 2 {
			t.Errorf("changed %v, version %d, %v", changed, told.Trust.Version, err)
		}
		f.grow(301)
		if _, _, err := m.Sync(t.Context()); !errors.Is(err, ledger.ErrCheckpoint) {
			t.Errorf("the replaced key signs the newest: %v", err)
		}
		f.sign(key)
		if _, _, err := m.Sync(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func TestMirrorEndsWithItsLog(t *testing.T) {
	f := newFakeLog(t).grow(3)
	m := f.mirror()
	f.sync(m)
	other := ledgertest.For(t, "second.example.com/log")
	st := f.Trust.Successor(0)
	st.Succeed(other.Origin, other.LogVKey, other.NodeVKey, f.tree())
	line, err := ledger.SignTrust(st, f.Root)
	f.must(err)
	m.Shown = func(context.Context) ([]byte, error) { return append(f.Trust.File(), line...), nil }
	if _, _, err := m.Sync(t.Context()); err == nil || !strings.Contains(err.Error(), "second.example.com/log succeeds it") {
		t.Fatalf("%v", err)
	}
	f.complete(m)
	m.Shown = func(context.Context) ([]byte, error) { return []byte(`{"payload":""}`), nil }
	if _, _, err := m.Sync(t.Context()); !errors.Is(err, ledger.ErrTrust) {
		t.Fatalf("no trust file: %v", err)
	}
	m.Shown = func(context.Context) ([]byte, error) { return []byte("<html>"), nil } // a page of something in between
	f.sync(m)
}

func TestMirrorTellsAPageFromACheckpoint(t *testing.T) {
	f := newFakeLog(t).grow(3)
	m := f.mirror()
	f.sync(m)
	for _, page := range []string{"", "<html>\n\n<form>", strings.Repeat("x", 1<<20)} {
		f.files["checkpoint"] = []byte(page)
		if _, _, err := m.Sync(t.Context()); api.CodeOf(err) != api.CodeUnavailable || errors.Is(err, ledger.ErrCheckpoint) || len(err.Error()) > 500 {
			t.Errorf("%.20q: %v", page, err)
		}
	}
	f.publish()
	f.sync(m)
}

func TestMirrorTakesCheckpointsOfItsLogOnly(t *testing.T) {
	f := newFakeLog(t).grow(3)
	m := f.mirror()
	other := ledgertest.For(t, "other.example.com/log")
	for name, sign := range map[string]func() ([]byte, error){
		"another key":    func() ([]byte, error) { return ledger.SignCheckpoint(f.Origin, f.tree(), other.Log) },
		"another origin": func() ([]byte, error) { return ledger.SignCheckpoint(other.Origin, f.tree(), other.Log) },
		"by our own key": func() ([]byte, error) { return ledger.SignCheckpoint(other.Origin, f.tree(), f.Log) },
	} {
		cp, err := sign()
		f.must(err)
		f.files["checkpoint"] = cp
		if _, _, err := m.Sync(t.Context()); !errors.Is(err, ledger.ErrCheckpoint) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f.publish()
	f.sync(m)
}
