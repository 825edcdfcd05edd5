package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// mirrored copies a store as a mirror does.
func (f *fixture) mirrored(details bool) Copy {
	f.t.Helper()
	snap := f.Snapshot()
	var bundles [][][]byte
	var lines [][]ledger.DetailLine
	for n := int64(0); n*tileWidth < snap.Tree.Size; n++ {
		var leaves [][]byte
		var list []ledger.DetailLine
		for i := n * tileWidth; i < min((n+1)*tileWidth, snap.Tree.Size); i++ {
			leaf, err := f.Leaf(i)
			if err != nil {
				f.t.Fatal(err)
			}
			leaves = append(leaves, leaf)
			if d, err := f.Detail(i); err == nil && details {
				list = append(list, ledger.DetailLine{Index: i, Salt: d.Salt, Detail: d.Text})
			}
		}
		bundles, lines = append(bundles, leaves), append(lines, list)
	}
	roots := map[int64]tlog.Hash{0: ledger.EmptyRoot()}
	grown := &tree{}
	for _, leaves := range bundles {
		for _, leaf := range leaves {
			grown.add(tlog.RecordHash(leaf), map[tileKey][]byte{})
			roots[grown.size] = grown.root()
		}
	}
	return Copy{Tree: snap.Tree, Checkpoint: snap.Checkpoint,
		RootAt:  func(_ context.Context, size int64) (tlog.Hash, error) { return roots[size], nil },
		Entries: func(_ context.Context, n int64) ([][]byte, error) { return bundles[n], nil },
		Details: func(_ context.Context, n int64) ([]ledger.DetailLine, error) { return lines[n], nil },
	}
}

// recoverable is a store with every kind of content, its copy, and a backup of
// the directory from before the last changes.
func recoverable(t *testing.T) (f *fixture, from Copy, backup string) {
	t.Helper()
	f = newFixture(t, func(c *Config) { c.Anchor = filepath.Join(filepath.Dir(c.Dir), "anchor"); c.noSync = true })
	f.put(f.operators(1, f.OperatorsSig), f.note("before"), f.activate("checkout", "prod", 1))
	backup = f.cfg.Dir + ".backup"
	f.closeFor(func() { copyDir(t, f.cfg.Dir, backup) })
	f.put(f.note("after"), f.activate("checkout", "prod", 2))
	set := f.content("payments", "prod", 1)
	for range 3 {
		var drafts []Draft
		for n := range 100 {
			d := activation("payments", "prod", n)
			d.Data.Set = set
			drafts = append(drafts, d)
		}
		f.put(drafts...)
	}
	f.put(f.enter("checkout", "prod", "degraded", 0))
	return f, f.mirrored(true), backup
}

// recovered demands that the store is what it was, and takes changes.
func (f *fixture) recovered(from Copy) {
	f.t.Helper()
	f.open()
	if f.Snapshot().Tree != from.Tree {
		f.t.Fatalf("%v after the recovery, want %v", f.Snapshot().Tree, from.Tree)
	}
	f.content("checkout", "prod", 2) // as the server does, out of Git
	f.content("payments", "prod", 1)
	r := f.check()
	if r.Details != 2 {
		f.t.Errorf("%d details, want 2", r.Details)
	}
}

// damages are what may have happened to a data directory.
func damages(t *testing.T, f *fixture, backup string) map[string]func() {
	path := filepath.Join(f.cfg.Dir, fileLedger)
	return map[string]func(){
		"rolled back":        func() { copyDir(t, backup, f.cfg.Dir) },
		"disk gone":          func() { must(t, os.RemoveAll(f.cfg.Dir)) },
		"disk and anchor":    func() { must(t, errors.Join(os.RemoveAll(f.cfg.Dir), os.Remove(f.cfg.Anchor))) },
		"ledger.db gone":     func() { must(t, os.Remove(path)) },
		"details.db gone":    func() { must(t, os.Remove(filepath.Join(f.cfg.Dir, fileDetails))) },
		"cut off":            func() { must(t, os.Truncate(path, 40_000)) },
		"no database at all": func() { must(t, os.WriteFile(path, []byte(strings.Repeat("x", 20_000)), 0o600)) },
		"a leaf edited":      func() { f.rows(func(tx *bbolt.Tx) error { return flip(tx, bucketEntries, be64(100), 40) }) },
		"a tile edited":      func() { f.rows(func(tx *bbolt.Tx) error { return flip(tx, bucketTiles, tileKey{0, 0}.bytes(), 5) }) },
		"the fold edited":    func() { f.rows(redirect) },
		"the index edited":   func() { f.rows(dropTerm) },
		"a detail edited": func() {
			f.file(fileDetails, formatDetails, func(tx *bbolt.Tx) error { return flip(tx, bucketDetails, be64(2), 45) })
		},
		"the anchor gone":   func() { must(t, os.Remove(f.cfg.Anchor)) },
		"the anchor edited": func() { must(t, os.WriteFile(f.cfg.Anchor, []byte("x"), 0o600)) },
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Every way in which a data directory is lost, rolled back or edited is mended
// from a mirror, and what a dry run says changes nothing.
func TestRecover(t *testing.T) {
	f, from, backup := recoverable(t)
	must(t, f.Close())
	whole, anchor := f.cfg.Dir+".whole", f.cfg.Anchor+".whole"
	copyDir(t, f.cfg.Dir, whole)
	copyFile(t, f.cfg.Anchor, anchor)
	for name, damage := range damages(t, f, backup) {
		t.Run(name, func(t *testing.T) {
			f.t = t
			copyDir(t, whole, f.cfg.Dir)
			copyFile(t, anchor, f.cfg.Anchor)
			damage()
			_, gone := os.Stat(filepath.Join(f.cfg.Dir, fileLedger))
			dry, err := Recover(t.Context(), f.cfg, from, RecoverOptions{DryRun: true})
			must(t, err)
			if _, err := os.Stat(filepath.Join(f.cfg.Dir, fileBuilding)); err == nil {
				t.Error("a dry run wrote")
			}
			r, err := Recover(t.Context(), f.cfg, from, RecoverOptions{})
			must(t, err)
			if fmt.Sprint(dry.Steps) != fmt.Sprint(r.Steps) || r.Size != from.Tree.Size || len(r.Missing) > 0 {
				t.Errorf("said %q, then did %q: %+v", dry.Steps, r.Steps, r)
			}
			if _, err := os.Stat(filepath.Join(f.cfg.Dir, fileReplaced)); (err == nil) != (gone == nil) {
				t.Errorf("the old file is not kept: %v", err)
			}
			f.recovered(from)
			f.put(f.activate("payments", "prod", 7))
			f.reopen()
			must(t, f.Close())
		})
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	must(t, errors.Join(err, os.WriteFile(to, b, 0o600)))
}

// A recovery that fails before or after any step is begun again, and ends as one
// that didn't; until then the store takes no changes.
func TestRecoverFailingSteps(t *testing.T) {
	for _, what := range []string{"rolled back", "disk gone"} {
		for _, step := range []string{stepBuild, stepCommit, stepFill, stepKnown, stepSwap} {
			for _, after := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%s/after=%v", what, step, after), func(t *testing.T) {
					f, from, backup := recoverable(t)
					must(t, f.Close())
					damages(t, f, backup)[what]()
					x := &faults{step: step, after: after}
					x.armed.Store(true)
					cut := f.cfg
					cut.fault = x.hook
					if _, err := Recover(t.Context(), cut, from, RecoverOptions{}); !errors.Is(err, errFault) {
						t.Fatalf("Recover: %v", err)
					}
					if s, err := Open(f.cfg); err == nil {
						if swapped := step == stepSwap && after; (s.Writes() == nil) != swapped {
							t.Errorf("Writes = %v", s.Writes())
						}
						must(t, s.Close())
					}
					_, err := Recover(t.Context(), f.cfg, from, RecoverOptions{})
					must(t, err)
					f.recovered(from)
				})
			}
		}
	}
}

// What can't be proven to be the log is refused, and nothing is changed.
func TestRecoverRefuses(t *testing.T) {
	f, from, backup := recoverable(t)
	short := f.mirrored(true)
	f.put(f.note("newer than the copy"))
	newest := f.Snapshot().Tree
	bare := f.mirrored(false)
	running, err := Recover(t.Context(), f.cfg, from, RecoverOptions{})
	if !errors.Is(err, ErrLocked) || running != nil {
		t.Errorf("under a running server: %v", err)
	}
	other := newFixture(t, func(c *Config) { c.noSync = true })
	other.put(other.operators(1, other.OperatorsSig))
	for range 4 {
		var drafts []Draft
		for n := range 100 {
			drafts = append(drafts, activation("payments", "prod", n))
		}
		other.put(drafts...)
	}
	fork := other.mirrored(true)
	broken := bare
	broken.Entries = func(ctx context.Context, n int64) ([][]byte, error) {
		leaves, err := bare.Entries(ctx, n)
		return append([][]byte{leaves[1]}, leaves[1:]...), err
	}
	lying := bare
	lying.Details = func(ctx context.Context, n int64) ([]ledger.DetailLine, error) {
		lines, err := from.Details(ctx, n)
		for i := range lines {
			lines[i].Detail = map[string]any{"text": "another"}
		}
		return lines, err
	}
	crossed := bare
	crossed.Entries = fork.Entries
	must(t, f.Close())
	copyDir(t, backup, f.cfg.Dir)
	for name, c := range map[string]struct {
		from Copy
		opt  RecoverOptions
		want string
	}{
		"shorter than the anchor":    {from: short, want: "were published"},
		"a fork":                     {from: fork, want: "another root"},
		"shorter than what was seen": {from: bare, opt: RecoverOptions{Known: []ledger.Tree{{Size: newest.Size + 1}}}, want: "were published"},
		"without details":            {from: bare, want: "the details of 2 entries"},
		"entries of something else":  {from: broken, want: "entry 0"},
		"entries of a fork":          {from: crossed, want: "hash to another root"},
		"details of something else":  {from: lying, want: "the details of 2 entries"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Recover(t.Context(), f.cfg, c.from, c.opt)
			if !errors.Is(err, ErrNoCopy) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, want %q", err, c.want)
			}
		})
	}
	f.open()
	if f.Snapshot().Tree.Size != 4 || api.CodeOf(f.Writes()) != api.CodeReadOnly {
		t.Errorf("a refused recovery changed something: %d entries, %v", f.Snapshot().Tree.Size, f.Writes())
	}
	must(t, f.Close())
	r, err := Recover(t.Context(), f.cfg, bare, RecoverOptions{WithoutDetails: true})
	if err != nil || len(r.Missing) != 2 {
		t.Fatalf("without details: %+v, %v", r, err)
	}
	f.open()
	if v, err := f.Verify(t.Context(), nil); err != nil || len(v.Findings) < 2 || v.Details != 1 {
		t.Errorf("missing details are passed over: %v, %v", v.Findings, err)
	}
	must(t, f.Close())
	must(t, os.Remove(f.cfg.Anchor))
	if _, err := Recover(t.Context(), f.cfg, short, RecoverOptions{}); !errors.Is(err, ErrNoCopy) || !strings.Contains(err.Error(), "the data directory has") {
		t.Errorf("shorter than the directory: %v", err)
	}
}

// Where neither the anchor nor ledger.db says how long the log was, the details
// beside them do.
func TestRecoverHeedsDetails(t *testing.T) {
	f, from, _ := recoverable(t)
	f.put(f.note("newer than the copy"))
	must(t, f.Close())
	must(t, os.Remove(f.cfg.Anchor))
	must(t, os.Truncate(filepath.Join(f.cfg.Dir, fileLedger), 40_000))
	ready := func() error { t.Error("a refused recovery is ready"); return nil }
	_, err := Recover(t.Context(), f.cfg, from, RecoverOptions{Ready: ready})
	if want := fmt.Sprintf("has the detail of entry %d", from.Tree.Size); !errors.Is(err, ErrNoCopy) || !strings.Contains(err.Error(), want) {
		t.Fatalf("%v, want %q", err, want)
	}
	must(t, os.Remove(filepath.Join(f.cfg.Dir, fileDetails)))
	_, err = Recover(t.Context(), f.cfg, from, RecoverOptions{})
	must(t, err)
	f.recovered(from)
}
