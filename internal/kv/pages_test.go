package kv

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"go.etcd.io/bbolt"
)

// treeFile is a file whose buckets have levels of branch pages, and free pages;
// random when r is set.
func treeFile(t *testing.T, r *rand.Rand) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "x.db")
	db := open(t, path, Options{NoSync: true})
	for round := range 12 {
		err := db.Write(func(tx *bbolt.Tx) error {
			for _, name := range []string{"long keys", "long values", "few"} {
				pad := 700
				if name != "long keys" {
					pad = 8
				}
				b, err := tx.CreateBucketIfNotExists([]byte(name))
				if err != nil {
					return err
				}
				for i := range 60 {
					key := fmt.Appendf(nil, "%0*d", pad, r.IntN(2000))
					if name == "few" && i > 0 || round%3 == 2 {
						err = b.Delete(key)
					} else {
						err = b.Put(key, make([]byte, r.IntN(9000)*len(name)/11))
					}
					if err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// walked is what a walk over a file took, and the branch pages among it.
func walked(t *testing.T, path string) (w *pages, branches []uint64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	m, ok := newest(f)
	if !ok {
		t.Fatal("no meta page")
	}
	w = &pages{meta: m, f: f, whole: true, taken: make([]uint64, m.highWater/64+1)}
	if err := w.all(); err != nil {
		t.Fatal(err)
	}
	all := w.taken
	w.taken = make([]uint64, len(all)) // without the free pages
	if err := w.tree(m.root, true); err != nil {
		t.Fatal(err)
	}
	for id := range m.highWater {
		if w.has(id) {
			if p, err := w.read(id, pageHeader); err == nil && p.flags() == pageBranch {
				branches = append(branches, id)
			}
		}
	}
	w.taken = all
	return w, branches
}

func (w *pages) has(id uint64) bool { return w.taken[id/64]>>(id%64)&1 != 0 }

// A whole file passes, and its pages are those in use and those that are free.
func TestAWalkComesByEveryPage(t *testing.T) {
	for seed := range uint64(8) {
		w, _ := walked(t, treeFile(t, rand.New(rand.NewPCG(seed, 0))))
		for id := range w.highWater {
			if !w.has(id) {
				t.Errorf("seed %d: page %d of %d was not reached", seed, id, w.highWater)
			}
		}
	}
}

// edit puts bytes into a file and returns how to take them out.
func edit(t *testing.T, path string, at uint64, b []byte) (undo func()) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	old := make([]byte, len(b))
	_, err = f.ReadAt(old, int64(at))
	_, err2 := f.WriteAt(b, int64(at))
	if err := errors.Join(err, err2, f.Close()); err != nil {
		t.Fatal(err)
	}
	return func() { edit(t, path, at, old) }
}

func u64(n uint64) []byte { return ne.AppendUint64(nil, n) }
func u16(n uint16) []byte { return ne.AppendUint16(nil, n) }

// A pointer that leads back, or to no page of its tree, is refused in words: bbolt
// would go round in circles until the process is killed.
func TestADamagedPointerOpensNothing(t *testing.T) {
	path := treeFile(t, rand.New(rand.NewPCG(1, 2)))
	w, branches := walked(t, path)
	if len(branches) < 3 {
		t.Fatalf("%d branch pages", len(branches))
	}
	refuse := func(what string, at uint64, b []byte) {
		t.Helper()
		undo := edit(t, path, at, b)
		defer undo()
		if err := look(path, false); !errors.Is(err, ErrStructure) {
			t.Errorf("%s: %v", what, err)
		}
	}
	last, above := branches[len(branches)-1], map[uint64]uint64{}
	for _, id := range branches {
		p, err := w.read(id, w.pageSize)
		if err != nil {
			t.Fatal(err)
		}
		for i := range p.count() {
			above[ne.Uint64(p.element(i)[8:])] = id
		}
	}
	for _, id := range branches {
		p, err := w.read(id, w.pageSize)
		if err != nil {
			t.Fatal(err)
		}
		head := id * w.pageSize
		for i := range p.count() {
			nowhere := []uint64{0, w.root, w.freelist, w.highWater, 1 << 63}
			for up, ok := id, true; ok; up, ok = above[up] {
				nowhere = append(nowhere, up)
			}
			for _, to := range nowhere {
				refuse(fmt.Sprintf("pointer %d of page %d to %d", i, id, to), head+pageHeader+i*pageElement+8, u64(to))
			}
		}
		refuse("a key beyond its page", head+pageHeader+4, u16(0xF000))
		refuse("a page of no kind", head+8, u16(pageBranch|pageLeaf))
		refuse("more elements than there is room for", head+10, u16(0xFFF0))
		refuse("no elements", head+10, u16(0))
		refuse("another page's number", head, u64(id+1))
	}
	list := w.freelist * w.pageSize
	free, err := w.read(w.freelist, w.pageSize)
	if err != nil {
		t.Fatal(err)
	}
	refuse("a free page in use", list+pageHeader, u64(last))
	refuse("a page that is free twice", list+pageHeader, u64(ne.Uint64(free[pageHeader+8:])))
	refuse("a free page beyond the file", list+pageHeader, u64(1<<40))
	refuse("a freelist without room for what it counts", list+10, u16(maxFew-1))
	refuse("a freelist that counts more than memory holds", list+10, slices.Concat(u16(maxFew), make([]byte, 4), u64(1<<40)))
	refuse("a freelist that is none", list+8, u16(pageLeaf))
	refuse("a root page that is none", w.root*w.pageSize+8, u16(pageFree))
	edit(t, path, last*w.pageSize+pageHeader+8, u64(last))
	for _, opt := range []Options{{}, {ReadOnly: true}} {
		if _, err := Open(path, opt); !errors.Is(err, ErrStructure) {
			t.Errorf("%+v: %v", opt, err)
		}
	}
}

// A leaf page that says it branches is found by those who read all of the file.
func TestALeafThatBranchesIsFoundByAWholeLook(t *testing.T) {
	path := treeFile(t, rand.New(rand.NewPCG(1, 2)))
	w, branches := walked(t, path)
	for _, id := range branches {
		p, err := w.read(id, w.pageSize)
		if err != nil {
			t.Fatal(err)
		}
		if to := ne.Uint64(p.element(1)[8:]); !slices.Contains(branches, to) {
			edit(t, path, to*w.pageSize+8, u16(pageBranch))
			break
		}
	}
	if _, err := Open(path, Options{ReadOnly: true, Whole: true}); !errors.Is(err, ErrStructure) {
		t.Fatal(err)
	}
}
