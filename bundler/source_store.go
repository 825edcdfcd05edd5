package bundler

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/objfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/storage"
	"github.com/go-git/go-git/v5/storage/filesystem"
	"github.com/go-git/go-git/v5/storage/memory"

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
// writer. go-git's own is for one goroutine; here each call borrows one out of a
// pool, and a new pack makes them all read the list of packs again.
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

	dir   string
	fs    billy.Filesystem // of dir
	cache cache.Object
	packs atomic.Int64 // counts received packs

	mu   sync.Mutex
	free []*pooledStorage // owned by mu
}

type pooledStorage struct {
	*filesystem.Storage
	packs int64 // sharedObjects.packs at its last look
}

func newSharedObjects(dir string, fs billy.Filesystem) *sharedObjects {
	s := &sharedObjects{dir: dir, fs: fs, cache: cache.NewObjectLRU(objectCacheSize)}
	base := s.open()
	s.ReferenceStorer, s.ShallowStorer, s.IndexStorer, s.ConfigStorer, s.ModuleStorer = base, base, base, base, base
	return s
}

func (s *sharedObjects) open() *pooledStorage {
	return &pooledStorage{
		Storage: filesystem.NewStorageWithOptions(s.fs, s.cache, filesystem.Options{KeepDescriptors: true, LargeObjectThreshold: maxTree}),
		packs:   s.packs.Load(),
	}
}

// with lends f a storage that knows every pack received so far.
func (s *sharedObjects) with(f func(*filesystem.Storage) error) error {
	p := s.borrow()
	defer s.giveBack(p)
	if n := s.packs.Load(); p.packs != n {
		p.packs = n
		p.Reindex()
	}
	return f(p.Storage)
}

func (s *sharedObjects) borrow() *pooledStorage {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.free); n > 0 {
		p := s.free[n-1]
		s.free = s.free[:n-1]
		return p
	}
	return s.open()
}

func (s *sharedObjects) giveBack(p *pooledStorage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, p)
}

// Close closes packs that no read is using.
func (s *sharedObjects) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, p := range s.free {
		errs = append(errs, p.Close())
	}
	s.free = nil
	return errors.Join(errs...)
}

func (s *sharedObjects) has(h plumbing.Hash) bool { return s.HasEncodedObject(h) == nil }

// The methods of storer.EncodedObjectStorer. Writing goes through receive only.

func (s *sharedObjects) NewEncodedObject() plumbing.EncodedObject { return &plumbing.MemoryObject{} }

func (s *sharedObjects) SetEncodedObject(plumbing.EncodedObject) (plumbing.Hash, error) {
	return plumbing.ZeroHash, errReadOnly
}

func (s *sharedObjects) AddAlternate(string) error { return errReadOnly }

var errReadOnly = errors.New("the source's repository is written by Fetch only")

func (s *sharedObjects) EncodedObject(t plumbing.ObjectType, h plumbing.Hash) (o plumbing.EncodedObject, err error) {
	err = s.with(func(st *filesystem.Storage) error {
		o, err = st.EncodedObject(t, h)
		return err
	})
	return o, err
}

func (s *sharedObjects) HasEncodedObject(h plumbing.Hash) error {
	return s.with(func(st *filesystem.Storage) error { return st.HasEncodedObject(h) })
}

func (s *sharedObjects) EncodedObjectSize(h plumbing.Hash) (size int64, err error) {
	err = s.with(func(st *filesystem.Storage) error {
		size, err = st.EncodedObjectSize(h)
		return err
	})
	return size, err
}

// HashesWithPrefix lets go-git resolve abbreviated commits.
func (s *sharedObjects) HashesWithPrefix(prefix []byte) (found []plumbing.Hash, err error) {
	err = s.with(func(st *filesystem.Storage) error {
		found, err = st.HashesWithPrefix(prefix)
		return err
	})
	return found, err
}

// IterEncodedObjects gives the iterator a storage of its own, as it outlives
// the call.
func (s *sharedObjects) IterEncodedObjects(t plumbing.ObjectType) (storer.EncodedObjectIter, error) {
	return filesystem.NewStorage(s.fs, s.cache).IterEncodedObjects(t)
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
		return s.receiveLoose(head)
	}
	return s.receivePack(io.MultiReader(bytes.NewReader(head), r))
}

// receivePack lets go-git store and index the pack, and then makes it durable:
// a ref must not survive a power cut that its objects don't.
func (s *sharedObjects) receivePack(r io.Reader) error {
	if err := sweepPacks(s.dir); err != nil {
		return &storeError{err}
	}
	before := listPacks(s.dir)
	err := s.with(func(st *filesystem.Storage) error { return packfile.WritePackfileToObjectStorage(st, r) })
	if err != nil {
		return err
	}
	for name := range listPacks(s.dir) {
		if !before[name] {
			if err := syncPack(filepath.Join(s.dir, "objects", "pack", name)); err != nil {
				return &storeError{err}
			}
		}
	}
	s.packs.Add(1)
	return nil
}

func syncPack(pack string) error {
	idx := strings.TrimSuffix(pack, ".pack") + ".idx"
	return errors.Join(durable.SyncFile(pack), durable.SyncFile(idx), durable.SyncDir(filepath.Dir(pack)))
}

func (s *sharedObjects) receiveLoose(pack []byte) error {
	in := memory.NewStorage()
	p, err := packfile.NewParserWithStorage(packfile.NewScanner(bytes.NewReader(pack)), in)
	if err != nil {
		return err
	}
	if _, err := p.Parse(); err != nil {
		return err
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
func childrenFirst(in *memory.Storage) ([]plumbing.Hash, error) {
	var order []plumbing.Hash
	done := map[plumbing.Hash]bool{}
	var visit func(h plumbing.Hash) error
	visit = func(h plumbing.Hash) error {
		o, here := in.Objects[h]
		if !here || done[h] {
			return nil
		}
		done[h] = true
		children, err := childrenOf(in, o)
		for _, child := range children {
			err = errors.Join(err, visit(child))
		}
		order = append(order, h)
		return err
	}
	for h := range in.Objects {
		if err := visit(h); err != nil {
			return nil, err
		}
	}
	return order, nil
}

func childrenOf(in *memory.Storage, o plumbing.EncodedObject) ([]plumbing.Hash, error) {
	switch o.Type() {
	case plumbing.CommitObject:
		c, err := object.DecodeCommit(in, o)
		if err != nil {
			return nil, err
		}
		return append([]plumbing.Hash{c.TreeHash}, c.ParentHashes...), nil
	case plumbing.TreeObject:
		t, err := object.DecodeTree(in, o)
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
func (s *sharedObjects) writeLoose(in *memory.Storage, order []plumbing.Hash) error {
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
		if temp[i], err = s.writeTemp(in.Objects[h]); err != nil {
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

func (s *sharedObjects) writeTemp(o plumbing.EncodedObject) (name string, err error) {
	f, err := os.CreateTemp(filepath.Join(s.dir, "objects"), "tmp_obj_")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	r, err := o.Reader()
	if err != nil {
		return f.Name(), err
	}
	defer r.Close()
	w := objfile.NewWriter(f)
	if err := w.WriteHeader(o.Type(), o.Size()); err != nil {
		return f.Name(), err
	}
	if _, err := io.Copy(w, r); err != nil {
		return f.Name(), err
	}
	return f.Name(), errors.Join(w.Close(), f.Chmod(0o444))
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
	f, err := os.Open(idx)
	if err != nil {
		return false
	}
	defer f.Close()
	var index idxfile.MemoryIndex
	if err := idxfile.NewDecoder(f).Decode(&index); err != nil {
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
	return err == nil && sum == index.PackfileChecksum
}
