package bundler

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
)

// errDamaged is an object, a pack or an index that isn't what Git writes.
var errDamaged = errors.New("damaged Git object")

// errHeavy is an object, or a pack, that takes more to read than it may.
var errHeavy = errors.New("over the limit")

// errNoBase is a difference to an object that is not in the same pack.
var errNoBase = fmt.Errorf("%w", errDamaged)

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errDamaged, fmt.Errorf(format, args...))
}

// objectFault says what is wrong with an object that a repository has, or
// should have. ok is false when it is something else.
func objectFault(path string, h plumbing.Hash, err error) (f Fault, ok bool) {
	at := place{file: path}
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		return fault(ruleObject, at, "object %s is missing", h), true
	}
	return badObject(at, fmt.Errorf("object %s: %w", h, err))
}

// badObject says what to do about an object that is there and can't be read.
func badObject(at place, err error) (f Fault, ok bool) {
	f = fault(ruleObject, at, "%s", err)
	switch {
	case errors.Is(err, errDamaged):
		return f.withFix("See what `git fsck --full` says, and take a clone that it finds nothing in"), true
	case errors.Is(err, errHeavy):
		return f.withFix("Store it otherwise: git repack -a -d -f; take files of more than %d MiB out of the history", maxDelta>>20), true
	}
	return f, false
}

// packedObjects are the objects of one repository: those in packs, those in
// files of their own, and those of the repositories that it borrows from. It is
// safe for concurrent use, and sees packs that appear later.
type packedObjects struct {
	fs    billy.Filesystem // of the .git folder
	depth int              // of borrowing
	room  *deltaRoom

	mu    sync.RWMutex
	asOf  time.Time // when objects/pack changed last, as far as was read
	known bool      // whether packs was ever read
	packs map[string]*openPack
	other []*packedObjects // borrowed from
}

type openPack struct {
	packFile
	file billy.File
}

// maxBorrowing is how far one repository may borrow from another that borrows,
// which is Git's own limit.
const maxBorrowing = 5

// A spot is where an object is.
type spot struct {
	pack *openPack
	at   int64
	file billy.File // of a loose one
}

func (s *packedObjects) has(h plumbing.Hash) bool {
	at, err := s.find(h)
	if at.file != nil {
		at.file.Close()
	}
	return err == nil
}

// find looks into the packs, then for a file, and then whether there are new
// packs. Who gets a file closes it.
func (s *packedObjects) find(h plumbing.Hash) (spot, error) {
	if at, ok := s.inPacks(h); ok {
		return at, nil
	}
	name := h.String()
	if f, err := s.open(path.Join("objects", name[:2], name[2:])); err == nil {
		return spot{file: f}, nil
	}
	if news, err := s.loadNews(); err != nil {
		return spot{}, err
	} else if news {
		if at, ok := s.inPacks(h); ok {
			return at, nil
		}
	}
	for _, o := range s.borrowed() {
		if at, err := o.find(h); err == nil {
			return at, nil
		}
	}
	return spot{}, plumbing.ErrObjectNotFound
}

func (s *packedObjects) inPacks(h plumbing.Hash) (spot, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, p := range s.packs {
		if at, ok := p.index.find(h); ok {
			return spot{pack: p, at: at}, true
		}
	}
	return spot{}, false
}

func (s *packedObjects) borrowed() []*packedObjects {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.other
}

// loadNews reads the list of packs when it was never read or changed since.
func (s *packedObjects) loadNews() (bool, error) {
	var now time.Time
	if info, err := s.fs.Stat("objects/pack"); err == nil {
		now = info.ModTime()
	}
	s.mu.RLock()
	same := s.known && now.Equal(s.asOf)
	s.mu.RUnlock()
	if same {
		return false, nil
	}
	return true, s.load()
}

// load opens packs that are new, and lets go of those that are gone.
func (s *packedObjects) load() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if info, err := s.fs.Stat("objects/pack"); err == nil {
		s.asOf = info.ModTime()
	}
	files, _ := s.fs.ReadDir("objects/pack") // none is no packs
	packs := map[string]*openPack{}
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".idx")
		if !ok {
			continue
		}
		p, err := s.packs[name], error(nil)
		if p == nil {
			p, err = s.openPack(name)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		packs[name] = p
	}
	s.packs = packs
	if !s.known {
		s.other = s.alternates()
	}
	s.known = true
	return nil
}

// maxIndex is the most bytes of an index: of 16 million objects.
const maxIndex = 512 << 20

func (s *packedObjects) openPack(name string) (*openPack, error) {
	raw, err := s.whole("objects/pack/"+name+".idx", maxIndex)
	if err != nil {
		return nil, err
	}
	p := &openPack{}
	if p.index, err = parsePackIndex(raw); err != nil {
		return nil, err
	}
	info, err := s.fs.Stat("objects/pack/" + name + ".pack")
	if err != nil {
		return nil, damaged("%w", err)
	}
	if p.file, err = s.open("objects/pack/" + name + ".pack"); err != nil {
		return nil, err
	}
	p.r, p.size, p.room = p.file, info.Size(), s.room
	return p, nil
}

// open opens no pipe, which would wait for ever for somebody to write.
func (s *packedObjects) open(name string) (billy.File, error) {
	if info, err := s.fs.Stat(name); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, damaged("%s is not a regular file", name)
	}
	return s.fs.Open(name)
}

func (s *packedObjects) whole(name string, limit int64) ([]byte, error) {
	f, err := s.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(raw)) > limit {
		err = damaged("%s has more than %d bytes", name, limit)
	}
	return raw, err
}

// alternates opens the repositories that this one borrows objects from, as
// `git clone --shared` makes it. One that is gone is left out: what it had is
// missing then.
func (s *packedObjects) alternates() []*packedObjects {
	list, err := s.whole("objects/info/alternates", 64<<10)
	if err != nil || s.depth >= maxBorrowing {
		return nil
	}
	var out []*packedObjects
	for line := range strings.Lines(string(list)) {
		dir := strings.TrimSpace(line)
		if dir == "" || strings.HasPrefix(dir, "#") || len(out) >= maxBorrowing {
			continue
		}
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(s.fs.Root(), "objects", dir)
		}
		out = append(out, &packedObjects{fs: osfs.New(filepath.Dir(dir)), depth: s.depth + 1, room: s.room})
	}
	return out
}

// Close closes packs. Reading meanwhile is a mistake.
func (s *packedObjects) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, p := range s.packs {
		errs = append(errs, p.file.Close())
	}
	for _, o := range s.other {
		errs = append(errs, o.Close())
	}
	s.packs, s.other, s.known = nil, nil, false
	return errors.Join(errs...)
}

// EncodedObjectSize reads no more than the head of an object.
func (s *packedObjects) EncodedObjectSize(h plumbing.Hash) (size int64, err error) {
	at, err := s.find(h)
	switch {
	case err != nil:
		return 0, err
	case at.pack != nil:
		return at.pack.sizeAt(at.at)
	}
	defer at.file.Close()
	_, err = inflate(at.file, func(r io.Reader) error {
		_, size, err = looseHeader(r)
		return err
	})
	return size, err
}

// read returns an object of at most limit bytes and holds it to its id. A larger
// one is refused by its head.
func (s *packedObjects) read(t plumbing.ObjectType, h plumbing.Hash, limit int64) (o packedObject, err error) {
	err = s.stream(h, limit, func(kind plumbing.ObjectType, size int64, r io.Reader) error {
		if t != plumbing.AnyObject && kind != t {
			return damaged("it is a %s and not a %s", kind, t)
		}
		if size > limit {
			return fmt.Errorf("%d bytes: %w", size, errTooLarge)
		}
		o.kind = kind
		o.data, err = exactly(r, size)
		return err
	})
	if err == nil && plumbing.ComputeHash(o.kind, o.data) != h {
		err = damaged("the content of %s is not what its id says", h)
	}
	return o, err
}

// stream lends f the kind, size and bytes of an object. One that is stored as a
// difference is resolved in memory, if it has at most limit bytes.
func (s *packedObjects) stream(h plumbing.Hash, limit int64, f func(plumbing.ObjectType, int64, io.Reader) error) error {
	at, err := s.find(h)
	if err != nil {
		return err
	}
	if at.pack != nil {
		return at.pack.stream(at.at, limit, f)
	}
	defer at.file.Close()
	_, err = inflate(at.file, func(r io.Reader) error {
		kind, size, err := looseHeader(r)
		if err != nil {
			return err
		}
		return f(kind, size, r)
	})
	return err
}

// looseHeader reads "blob 12" and a NUL.
func looseHeader(r io.Reader) (plumbing.ObjectType, int64, error) {
	var b [32]byte
	for n := range b {
		if _, err := io.ReadFull(r, b[n:n+1]); err != nil {
			return 0, 0, damaged("%w", err)
		}
		if b[n] != 0 {
			continue
		}
		name, digits, _ := strings.Cut(string(b[:n]), " ")
		kind, err := plumbing.ParseObjectType(name)
		size, notANumber := strconv.ParseUint(digits, 10, 62)
		if err != nil || notANumber != nil {
			break
		}
		return kind, int64(size), nil
	}
	return 0, 0, damaged("no kind and size")
}

// HashesWithPrefix lists the objects whose ids begin with some bytes, so that go-git
// resolves abbreviated commits.
func (s *packedObjects) HashesWithPrefix(prefix []byte) ([]plumbing.Hash, error) {
	if _, err := s.loadNews(); err != nil || len(prefix) == 0 {
		return nil, err
	}
	var out []plumbing.Hash
	s.mu.RLock()
	for _, p := range s.packs {
		for i := p.index.from(prefix); i < p.index.n && bytes.HasPrefix(p.index.id(i), prefix); i++ {
			out = append(out, plumbing.Hash(p.index.id(i)))
		}
	}
	s.mu.RUnlock()
	first := hex.EncodeToString(prefix[:1])
	files, _ := s.fs.ReadDir("objects/" + first) // none is no objects
	for _, f := range files {
		if h := plumbing.NewHash(first + f.Name()); bytes.HasPrefix(h[:], prefix) {
			out = append(out, h)
		}
	}
	for _, o := range s.borrowed() {
		more, err := o.HashesWithPrefix(prefix)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	slices.SortFunc(out, func(a, b plumbing.Hash) int { return bytes.Compare(a[:], b[:]) })
	return slices.Compact(out), nil
}
