package bundler

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/objfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/storage"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"github.com/sealstone/sealstone/internal/durable"
)

// A fetch of at most this many objects and bytes becomes loose objects, as in
// git: one pack for each push would make every lookup search all of them.
const (
	smallObjects = 100
	smallPack    = 256 << 10
)

// objectCacheSize bounds memory; a build reads an object about once.
const objectCacheSize = 8 << 20

// storeError is a fault of our own disk.
type storeError struct{ err error }

func (e *storeError) Error() string { return "local repository: " + e.err.Error() }
func (e *storeError) Unwrap() error { return e.err }

// sharedObjects is the storage of a repository on disk, for many readers and one
// writer. Refs and the like are go-git's to read. Objects are read here, because
// go-git inflates whatever they ask for, and believes what it finds.
//
// It keeps one rule: an object that is there is there with all it refers to.
// Packs appear in one rename, loose objects are written children first. So a
// fetch may stop at whatever exists, also after a kill.
type sharedObjects struct {
	storer.ReferenceStorer
	storer.ShallowStorer
	storer.IndexStorer
	config.ConfigStorer
	storage.ModuleStorer

	dir string
	packedObjects
}

func newSharedObjects(dir string, fs billy.Filesystem) *sharedObjects {
	base := filesystem.NewStorage(fs, cache.NewObjectLRU(objectCacheSize))
	return &sharedObjects{base, base, base, base, base, dir, packedObjects{fs: fs, room: newDeltaRoom()}}
}

// The methods of storer.EncodedObjectStorer that packedObjects has not. Writing
// goes through receive only.

func (s *sharedObjects) NewEncodedObject() plumbing.EncodedObject { return &plumbing.MemoryObject{} }

func (s *sharedObjects) SetEncodedObject(plumbing.EncodedObject) (plumbing.Hash, error) {
	return plumbing.ZeroHash, errReadOnly
}

func (s *sharedObjects) AddAlternate(string) error { return errReadOnly }

var errReadOnly = errors.New("the source's repository is written by Fetch only")

func (s *sharedObjects) EncodedObject(t plumbing.ObjectType, h plumbing.Hash) (plumbing.EncodedObject, error) {
	o, err := s.read(t, h, maxDelta)
	if err != nil {
		return nil, err
	}
	return memoryObject(o), nil
}

func memoryObject(o packedObject) *plumbing.MemoryObject {
	m := &plumbing.MemoryObject{}
	m.SetType(o.kind)
	_, _ = m.Write(o.data) // to memory
	return m
}

func (s *sharedObjects) HasEncodedObject(h plumbing.Hash) error {
	if !s.has(h) {
		return plumbing.ErrObjectNotFound
	}
	return nil
}

func (s *sharedObjects) IterEncodedObjects(plumbing.ObjectType) (storer.EncodedObjectIter, error) {
	return nil, errors.New("objects are read by their ids only")
}

// receive stores a pack. Only Fetch calls it, one at a time.
func (s *sharedObjects) receive(r io.Reader) error {
	head, err := io.ReadAll(io.LimitReader(r, smallPack))
	if err != nil {
		return err
	}
	if len(head) < 12 || !bytes.HasPrefix(head, []byte("PACK")) {
		return errors.New("the host sent no pack")
	}
	if len(head) < smallPack && binary.BigEndian.Uint32(head[8:]) <= smallObjects {
		if err := s.receiveLoose(head); !errors.Is(err, errHeavy) {
			return err
		}
	}
	return s.receivePack(io.MultiReader(bytes.NewReader(head), r))
}

// receivePack writes the pack and its index, makes both durable, and then gives
// them their names: a ref must not survive a power cut that its objects don't.
func (s *sharedObjects) receivePack(r io.Reader) error {
	if err := sweepPacks(s.dir); err != nil {
		return &storeError{err}
	}
	defer removeTemp(s.dir, "objects/pack")
	pack, err := s.newTemp()
	if err != nil {
		return &storeError{err}
	}
	defer pack.Close()
	size, err := io.Copy(pack, io.LimitReader(r, maxPackBytes+1))
	if err != nil {
		return err
	}
	if size > maxPackBytes {
		return fmt.Errorf("a pack of more than %d bytes: %w", maxPackBytes, errHeavy)
	}
	p, err := receivePack(pack, size, maxPackWork)
	if err != nil {
		return err
	}
	if err := s.placePack(pack, p); err != nil {
		return &storeError{err}
	}
	return s.load()
}

func (s *sharedObjects) newTemp() (*os.File, error) {
	return os.CreateTemp(filepath.Join(s.dir, "objects", "pack"), "tmp_pack_")
}

func (s *sharedObjects) placePack(pack *os.File, p *packReceiver) error {
	idx, err := s.newTemp()
	if err != nil {
		return err
	}
	err = p.writeIndex(idx)
	if err = errors.Join(err, idx.Chmod(0o444), idx.Sync(), idx.Close(), pack.Chmod(0o444), pack.Sync()); err != nil {
		return err
	}
	name := filepath.Join(s.dir, "objects", "pack", fmt.Sprintf("pack-%x", p.sum))
	if err := os.Rename(pack.Name(), name+".pack"); err != nil {
		return err
	}
	if err := os.Rename(idx.Name(), name+".idx"); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(name))
}

func (s *sharedObjects) receiveLoose(pack []byte) error {
	r := bytes.NewReader(pack)
	p, err := receivePack(r, int64(len(pack)), maxDelta)
	if err != nil {
		return err
	}
	in := map[plumbing.Hash]packedObject{}
	for _, o := range p.objects {
		if in[o.id], err = p.objectAt(o.at, &p.work); err != nil {
			return err
		}
	}
	order, err := childrenFirst(in)
	if err != nil {
		return err
	}
	if err := s.writeLoose(in, order); err != nil {
		return &storeError{err}
	}
	return nil
}

// childrenFirst orders the objects of a small pack so that each comes after all
// it refers to.
func childrenFirst(in map[plumbing.Hash]packedObject) ([]plumbing.Hash, error) {
	var order []plumbing.Hash
	done := map[plumbing.Hash]bool{}
	var visit func(h plumbing.Hash) error
	visit = func(h plumbing.Hash) error {
		o, here := in[h]
		if !here || done[h] {
			return nil
		}
		done[h] = true
		children, err := childrenOf(o)
		for _, child := range children {
			err = errors.Join(err, visit(child))
		}
		order = append(order, h)
		return err
	}
	for h := range in {
		if err := visit(h); err != nil {
			return nil, err
		}
	}
	return order, nil
}

func childrenOf(o packedObject) ([]plumbing.Hash, error) {
	switch o.kind {
	case plumbing.CommitObject:
		c, err := object.DecodeCommit(nil, memoryObject(o))
		if err != nil {
			return nil, err
		}
		return append([]plumbing.Hash{c.TreeHash}, c.ParentHashes...), nil
	case plumbing.TreeObject:
		t, err := object.DecodeTree(nil, memoryObject(o))
		if err != nil {
			return nil, err
		}
		var out []plumbing.Hash
		for _, e := range t.Entries {
			if e.Mode != filemode.Submodule {
				out = append(out, e.Hash)
			}
		}
		return out, nil
	default:
		return nil, nil
	}
}

// writeLoose writes all files, syncs them at the same time, which costs the
// disk about one commit of its journal, and then renames them in order.
func (s *sharedObjects) writeLoose(in map[plumbing.Hash]packedObject, order []plumbing.Hash) error {
	temp := make([]string, len(order))
	defer func() {
		for _, name := range temp {
			os.Remove(name) // gone already when all went well
		}
	}()
	errs := make([]error, len(order))
	var wg sync.WaitGroup
	for i, h := range order {
		var err error
		if temp[i], err = s.writeTemp(in[h]); err != nil {
			return err
		}
		wg.Go(func() { errs[i] = durable.SyncFile(temp[i]) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for i, h := range order {
		if err := s.place(temp[i], h.String()); err != nil {
			return err
		}
	}
	return nil
}

func (s *sharedObjects) writeTemp(o packedObject) (name string, err error) {
	f, err := os.CreateTemp(filepath.Join(s.dir, "objects"), "tmp_obj_")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := objfile.NewWriter(f)
	if err := w.WriteHeader(o.kind, int64(len(o.data))); err != nil {
		return f.Name(), err
	}
	_, err = w.Write(o.data)
	return f.Name(), errors.Join(err, w.Close(), f.Chmod(0o444))
}

func (s *sharedObjects) place(temp, hex string) error {
	dir := filepath.Join(s.dir, "objects", hex[:2])
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return os.Rename(temp, filepath.Join(dir, hex[2:]))
}

// prepareBare creates what is missing of a bare repository and removes what a
// killed process left behind.
func prepareBare(dir string) error {
	for _, sub := range []string{"objects/pack", "objects/info", "refs/heads", "refs/sealstone"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	files := map[string]string{
		"HEAD":   "ref: refs/heads/none\n",
		"config": "[core]\n\trepositoryformatversion = 0\n\tbare = true\n[gc]\n\tauto = 0\n",
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Size() > 0 {
			continue
		}
		if err := durable.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	removeTemp(dir, "objects", "refs/sealstone", ".")
	return sweepPacks(dir)
}

func removeTemp(dir string, subs ...string) {
	for _, sub := range subs {
		objects, _ := filepath.Glob(filepath.Join(dir, sub, "tmp_*"))
		files, _ := filepath.Glob(filepath.Join(dir, sub, durable.Temporary))
		for _, name := range append(objects, files...) {
			os.Remove(name)
		}
	}
}

func listPacks(dir string) map[string]bool {
	names := map[string]bool{}
	found, _ := filepath.Glob(filepath.Join(dir, "objects", "pack", "pack-*.pack"))
	for _, name := range found {
		names[filepath.Base(name)] = true
	}
	return names
}

// sweepPacks removes temporary files, indexes without a pack, which go-git
// would take for good ones, and packs that were cut off.
func sweepPacks(dir string) error {
	removeTemp(dir, "objects/pack")
	packs := listPacks(dir)
	indexes, err := filepath.Glob(filepath.Join(dir, "objects", "pack", "pack-*.idx"))
	if err != nil {
		return err
	}
	for _, idx := range indexes {
		pack := strings.TrimSuffix(idx, ".idx") + ".pack"
		if packs[filepath.Base(pack)] && wholePack(pack, idx) {
			delete(packs, filepath.Base(pack))
			continue
		}
		if err := os.Remove(idx); err != nil {
			return err
		}
	}
	for name := range packs {
		if err := os.Remove(filepath.Join(dir, "objects", "pack", name)); err != nil {
			return err
		}
	}
	return nil
}

// wholePack compares the last 20 bytes of a pack with what its index says.
func wholePack(pack, idx string) bool {
	raw, err := os.ReadFile(idx)
	if err != nil {
		return false
	}
	index, err := parsePackIndex(raw)
	if err != nil {
		return false
	}
	p, err := os.Open(pack)
	if err != nil {
		return false
	}
	defer p.Close()
	var sum [20]byte
	if _, err := p.Seek(-20, io.SeekEnd); err != nil {
		return false
	}
	_, err = io.ReadFull(p, sum[:])
	return err == nil && bytes.Equal(sum[:], index.sum())
}
