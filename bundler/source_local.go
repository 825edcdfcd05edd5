package bundler

import (
	"bufio"
	"compress/zlib"
	"context"
	"crypto/sha1" //nolint:gosec // Git's own format
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// localSession serves a repository on this machine out of its own files, so
// that a path needs no git program. It is git-upload-pack with one shortcut:
// it asks the receiver directly what it has.
type localSession struct {
	store *sharedObjects
	has   func(plumbing.Hash) bool
}

func openLocal(path string, has func(plumbing.Hash) bool) (*localSession, error) {
	store, _, err := openStore(path, false)
	if errors.Is(err, git.ErrRepositoryNotExists) {
		return nil, fmt.Errorf("%w at %s", transport.ErrRepositoryNotFound, path)
	}
	if err != nil {
		return nil, err
	}
	return &localSession{store: store, has: has}, nil
}

func (s *localSession) Close() error {
	return s.store.Close()
}

func (s *localSession) AdvertisedReferences() (*packp.AdvRefs, error) {
	return s.AdvertisedReferencesContext(context.Background())
}

func (s *localSession) AdvertisedReferencesContext(context.Context) (*packp.AdvRefs, error) {
	adv := packp.NewAdvRefs()
	var err error
	if adv.Shallows, err = s.store.Shallow(); err != nil {
		return nil, err
	}
	iter, err := s.store.IterReferences()
	if err != nil {
		return nil, err
	}
	err = iter.ForEach(func(r *plumbing.Reference) error {
		if r.Type() == plumbing.HashReference {
			adv.References[r.Name().String()] = r.Hash()
		}
		return nil
	})
	return adv, err
}

// UploadPack streams a pack of what the wants need and the receiver lacks.
func (s *localSession) UploadPack(ctx context.Context, req *packp.UploadPackRequest) (*packp.UploadPackResponse, error) {
	walk := localWalk{from: s.store, has: s.has, seen: map[plumbing.Hash]bool{}}
	for _, want := range req.Wants {
		if err := walk.commits(ctx, want); err != nil {
			return nil, err
		}
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(writePack(ctx, w, s.store, walk.list)) }()
	return packp.NewUploadPackResponseWithPackfile(req, r), nil
}

// localWalk lists the objects that the receiver lacks. It stops wherever the
// receiver has something: see sharedObjects on why that is complete below.
type localWalk struct {
	from *sharedObjects
	has  func(plumbing.Hash) bool
	seen map[plumbing.Hash]bool
	list []plumbing.Hash
}

func (w *localWalk) missing(h plumbing.Hash) bool {
	if w.seen[h] {
		return false
	}
	w.seen[h] = true
	if w.has(h) {
		return false
	}
	w.list = append(w.list, h)
	return true
}

func (w *localWalk) commits(ctx context.Context, tip plumbing.Hash) error {
	for todo := []plumbing.Hash{tip}; len(todo) > 0; {
		h := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !w.missing(h) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		c, err := object.GetCommit(w.from, h)
		if err != nil {
			return fmt.Errorf("commit %s: %w", h, err)
		}
		if err := w.tree(c.TreeHash); err != nil {
			return err
		}
		todo = append(todo, c.ParentHashes...)
	}
	return nil
}

func (w *localWalk) tree(root plumbing.Hash) error {
	for todo := []plumbing.Hash{root}; len(todo) > 0; {
		h := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !w.missing(h) {
			continue
		}
		t, err := object.GetTree(w.from, h)
		if err != nil {
			return fmt.Errorf("tree %s: %w", h, err)
		}
		for _, e := range t.Entries {
			switch e.Mode {
			case filemode.Submodule: // a commit of another repository
			case filemode.Dir:
				todo = append(todo, e.Hash)
			default:
				w.missing(e.Hash)
			}
		}
	}
	return nil
}

// writePack encodes objects one after the other, whole. go-git's encoder holds
// all of them in memory.
func writePack(ctx context.Context, out io.Writer, from *sharedObjects, list []plumbing.Hash) error {
	sum := sha1.New() //nolint:gosec // Git's own format
	w := bufio.NewWriterSize(io.MultiWriter(out, sum), 32<<10)
	header := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), uint32(len(list)))
	if _, err := w.Write(header); err != nil {
		return err
	}
	z, err := zlib.NewWriterLevel(io.Discard, zlib.BestSpeed)
	if err != nil {
		return err
	}
	for _, h := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := writePacked(w, z, from, h); err != nil {
			return fmt.Errorf("object %s: %w", h, err)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err = out.Write(sum.Sum(nil))
	return err
}

func writePacked(w io.Writer, z *zlib.Writer, from *sharedObjects, h plumbing.Hash) error {
	return from.stream(h, maxDelta, func(kind plumbing.ObjectType, size int64, r io.Reader) error {
		if _, err := w.Write(packedHeader(kind, uint64(size))); err != nil {
			return err
		}
		z.Reset(w)
		if err := copyExactly(z, r, size); err != nil {
			return err
		}
		return z.Close()
	})
}

// packedHeader is the type in three bits and the size in a varint: four bits
// in the first byte, seven in each further one.
func packedHeader(t plumbing.ObjectType, size uint64) []byte {
	first := byte(t)<<4 | byte(size&15)
	if size >>= 4; size == 0 {
		return []byte{first}
	}
	return binary.AppendUvarint([]byte{first | 0x80}, size)
}
