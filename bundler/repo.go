package bundler

import (
	"bytes"
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"

	"github.com/sealstone/sealstone/api"
)

// A Repo is a Git repository read as objects of commits. It is safe for
// concurrent use: go-git's storage is not, so one lock guards every read, but
// for those of blobs and trees in a storage that is made for many readers.
type Repo struct {
	git *git.Repository

	mu sync.Mutex // guards git.Storer

	lacks atomic.Bool // a file or folder that was asked for
}

// Errors of Repo, for errors.Is.
var (
	ErrNoCommit = errors.New("no such commit")
	ErrShallow  = errors.New("history is not complete (a shallow or partial clone)")
)

// OpenRepo opens the repository at dir, a work tree, a folder of one, or bare.
func OpenRepo(dir string) (*Repo, error) {
	_, r, err := openStore(dir, false)
	if errors.Is(err, git.ErrRepositoryNotExists) {
		_, r, err = openStore(dir, true)
	}
	if err != nil {
		return nil, fmt.Errorf("open Git repository %s: %w", dir, err)
	}
	return NewRepo(r), nil
}

// Close closes what OpenRepo opened.
func (r *Repo) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c, ok := r.git.Storer.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// NewRepo reads through r, whatever its storage. Nobody else uses r meanwhile,
// unless it is a [Source]'s.
func NewRepo(r *git.Repository) *Repo { return &Repo{git: r} }

// Resolve finds the commit that rev names: a branch, a tag, HEAD, or 7 to 40
// hex digits of a commit. The answer has 40.
func (r *Repo) Resolve(rev string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.named(rev)
	if found, err := r.git.ResolveRevision(plumbing.Revision(rev)); err == nil {
		h = *found
	}
	c, err := r.boundedCommit(h)
	if err != nil {
		return "", noCommit(fmt.Sprintf("%q", rev), err)
	}
	return c.Hash.String(), nil
}

// named is what a revision says by itself. go-git finds no more than that there
// is no such revision when what it names is damaged.
func (r *Repo) named(rev string) plumbing.Hash {
	if api.IsCommit(rev) {
		return plumbing.NewHash(rev)
	}
	for _, format := range plumbing.RefRevParseRules {
		if ref, err := storer.ResolveReference(r.git.Storer, plumbing.ReferenceName(fmt.Sprintf(format, rev))); err == nil {
			return ref.Hash()
		}
	}
	return plumbing.ZeroHash
}

// A Commit is what Sealstone keeps of one: content by Tree, the rest for people.
type Commit struct {
	ID      string
	Tree    string
	Parents []string
	Author  string
	Email   string
	Subject string
}

// Commit reads a commit by its 40 hex digits.
func (r *Repo) Commit(id string) (Commit, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, err := r.commit(id)
	if err != nil {
		return Commit{}, err
	}
	out := Commit{
		ID: c.Hash.String(), Tree: c.TreeHash.String(), Author: c.Author.Name, Email: c.Author.Email,
	}
	out.Subject, _, _ = strings.Cut(strings.TrimSpace(c.Message), "\n")
	for _, p := range c.ParentHashes {
		out.Parents = append(out.Parents, p.String())
	}
	return out, nil
}

// commit reads with r.mu held.
func (r *Repo) commit(id string) (*object.Commit, error) {
	if !api.IsCommit(id) {
		return nil, fmt.Errorf("%q: %w", id, ErrNoCommit)
	}
	c, err := r.boundedCommit(plumbing.NewHash(id))
	if err != nil {
		return nil, noCommit(id, err)
	}
	return c, nil
}

// noCommit tells a commit that isn't there from one that can't be read.
func noCommit(rev string, err error) error {
	if errors.Is(err, errTooLarge) || errors.Is(err, errDamaged) || errors.Is(err, errHeavy) {
		return fmt.Errorf("commit %s: %w", rev, err)
	}
	return fmt.Errorf("%s: %w", rev, ErrNoCommit)
}

// maxCommit is the most bytes of one commit object, message and signature
// included.
const maxCommit = 1 << 20

// boundedCommit reads with r.mu held; a larger one is refused by its header,
// before it is inflated.
func (r *Repo) boundedCommit(h plumbing.Hash) (*object.Commit, error) {
	o, err := readObject(r.git.Storer, plumbing.CommitObject, h, maxCommit)
	if err != nil {
		return nil, err
	}
	return object.DecodeCommit(r.git.Storer, memoryObject(o))
}

// An entry is one name in a tree.
type entry struct {
	name string
	kind entryKind
	hash plumbing.Hash
}

type entryKind uint8

const (
	kindFile entryKind = iota
	kindDir
	kindSymlink
	kindSubmodule
)

// maxTree is the most bytes of one tree object: 10,000 names with room.
const maxTree = 4 << 20

var errTooLarge = errors.New("object is over its limit")

// tree lists a folder by its id.
func (r *Repo) tree(h plumbing.Hash) ([]entry, error) {
	raw, err := r.object(plumbing.TreeObject, h, maxTree)
	if err != nil {
		return nil, err
	}
	return parseTree(raw)
}

// parseTree reads "mode name NUL id" records.
func parseTree(raw []byte) ([]entry, error) {
	var out []entry
	names := map[string]bool{}
	for len(raw) > 0 {
		nul := bytes.IndexByte(raw[:min(len(raw), 4096)], 0)
		if nul < 0 || len(raw) < nul+21 {
			return nil, damaged("a tree that was cut off")
		}
		mode, name, ok := strings.Cut(string(raw[:nul]), " ")
		if !ok || impossible(name) || names[name] {
			return nil, damaged("a tree with the name %s, which Git would not write, or not twice", quote(name))
		}
		e := entry{name: name, kind: kindOf(mode)}
		copy(e.hash[:], raw[nul+1:])
		names[name] = true
		out = append(out, e)
		raw = raw[nul+21:]
	}
	return out, nil
}

// impossible tells names that Git refuses to put into a tree.
func impossible(name string) bool {
	return name == "" || name == "." || name == ".." || strings.EqualFold(name, ".git") || strings.Contains(name, "/")
}

func kindOf(mode string) entryKind {
	switch strings.TrimLeft(mode, "0") {
	case "40000":
		return kindDir
	case "120000":
		return kindSymlink
	case "160000":
		return kindSubmodule
	}
	return kindFile
}

// blob reads a file of at most limit bytes; a larger one is refused before it
// is inflated.
func (r *Repo) blob(h plumbing.Hash, limit int64) ([]byte, error) {
	return r.object(plumbing.BlobObject, h, limit)
}

func (r *Repo) object(t plumbing.ObjectType, h plumbing.Hash, limit int64) ([]byte, error) {
	if _, ok := r.git.Storer.(*sharedObjects); !ok {
		r.mu.Lock()
		defer r.mu.Unlock()
	}
	o, err := readObject(r.git.Storer, t, h, limit)
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		r.lacks.Store(true)
	}
	return o.data, err
}

// readObject refuses an object of more than limit bytes before it is inflated.
// A storage that isn't ours has its objects in memory.
func readObject(s storer.EncodedObjectStorer, t plumbing.ObjectType, h plumbing.Hash, limit int64) (packedObject, error) {
	if s, ok := s.(*sharedObjects); ok {
		return s.read(t, h, limit)
	}
	o, err := s.EncodedObject(t, h)
	if err != nil {
		return packedObject{}, err
	}
	if o.Size() > limit {
		return packedObject{}, fmt.Errorf("%d bytes: %w", o.Size(), errTooLarge)
	}
	data, err := contents(o)
	return packedObject{o.Type(), data}, err
}

// size of an object, 0 when it isn't there: whoever reads it says so.
func (r *Repo) size(h plumbing.Hash) int64 {
	if _, ok := r.git.Storer.(*sharedObjects); !ok {
		r.mu.Lock()
		defer r.mu.Unlock()
	}
	n, _ := r.git.Storer.EncodedObjectSize(h)
	return n
}

func contents(o plumbing.EncodedObject) ([]byte, error) {
	rd, err := o.Reader()
	if err != nil {
		return nil, err
	}
	defer rd.Close()
	b := make([]byte, o.Size())
	if _, err := io.ReadFull(rd, b); err != nil {
		return nil, err
	}
	return b, nil
}

// IsAncestor reports whether old is new or an ancestor of it. It walks both
// histories from the newest commit down and stops when every commit left to
// visit is an ancestor of old: none of those can lead to old, whatever their
// times say.
func (r *Repo) IsAncestor(ctx context.Context, old, new string) (bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w, err := r.walker(func(c colour) bool { return c == below }, old, new)
	if err != nil {
		return false, err
	}
	found := func() bool { return w.colours[plumbing.NewHash(old)]&below != 0 }
	err = w.run(ctx, func() bool { return w.open > 0 && !found() }, func(*object.Commit) {})
	return err == nil && found(), err
}

// MergeBases finds the commits that both histories have and that lead to no
// other such commit, newest first. Histories that were merged into each other
// may have several, unrelated ones have none.
func (r *Repo) MergeBases(ctx context.Context, a, b string) ([]string, error) {
	met, err := r.meeting(ctx, a, b)
	if err != nil {
		return nil, err
	}
	return r.independent(ctx, met)
}

// meeting walks down both histories until all that is left lies below a commit
// that both have. What it returns holds every merge base, and where times lie
// perhaps an ancestor of one.
func (r *Repo) meeting(ctx context.Context, a, b string) ([]*object.Commit, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w, err := r.walker(func(c colour) bool { return c&beneath == 0 }, a, b)
	if err != nil {
		return nil, err
	}
	var met []*object.Commit
	err = w.run(ctx, func() bool { return w.open > 0 }, func(c *object.Commit) {
		if w.colours[c.Hash] == above|below {
			met = append(met, c)
			w.colours[c.Hash] |= beneath
		}
	})
	slices.SortFunc(met, func(x, y *object.Commit) int {
		return cmp.Or(y.Committer.When.Compare(x.Committer.When), strings.Compare(x.Hash.String(), y.Hash.String()))
	})
	return met, err
}

// independent leaves out those that are ancestors of another.
func (r *Repo) independent(ctx context.Context, commits []*object.Commit) ([]string, error) {
	var out []string
	for i, c := range commits {
		above := false
		for j := 0; j < len(commits) && !above; j++ {
			var err error
			if i != j {
				above, err = r.IsAncestor(ctx, c.Hash.String(), commits[j].Hash.String())
			}
			if err != nil {
				return nil, err
			}
		}
		if !above {
			out = append(out, c.Hash.String())
		}
	}
	return out, nil
}

// Ways to get what a clone left out.
const (
	FetchCommits = "Fetch the full history: git fetch --unshallow, or fetch-depth: 0 in a checkout step"
	FetchObjects = "Fetch what is missing: git fetch --refetch --no-filter in a partial clone, git fetch --unshallow in a shallow one"
)

// Lacks reports whether a file or folder that was read so far is not there, as
// in a partial clone.
func (r *Repo) Lacks() bool { return r.lacks.Load() }

// Shallow reports whether the clone ends before the history does.
func (r *Repo) Shallow() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	commits, err := r.git.Storer.Shallow()
	return err == nil && len(commits) > 0
}

// CountBetween counts the commits that new has and old hasn't, at most
// maxBetween.
func (r *Repo) CountBetween(ctx context.Context, old, new string) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w, err := r.walker(func(c colour) bool { return c != above|below }, old, new)
	if err != nil {
		return 0, err
	}
	n := 0
	err = w.run(ctx, func() bool { return w.open > 0 && n < maxBetween }, func(*object.Commit) { n++ })
	if err == nil {
		err = w.settle()
	}
	if err != nil {
		return 0, err
	}
	count := 0
	for _, c := range w.colours {
		if c == below {
			count++
		}
	}
	return count, nil
}

const maxBetween = 100_000

// A colour says from where a commit was reached.
type colour uint8

const (
	above   colour = 1 << iota // old, and its ancestors
	below                      // new, and its ancestors
	beneath                    // ancestors of a commit that both have
)

// A walker visits ancestors of two commits, newest first, and again when they
// turn out to have a further colour.
type walker struct {
	repo    *Repo
	colours map[plumbing.Hash]colour
	queue   commitQueue
	queued  map[plumbing.Hash]bool
	asks    func(colour) bool // commits of these colours keep the walk going
	open    int               // those of them that are queued
}

// walker stands at old and new.
func (r *Repo) walker(asks func(colour) bool, old, new string) (*walker, error) {
	w := &walker{repo: r, colours: map[plumbing.Hash]colour{}, queued: map[plumbing.Hash]bool{}, asks: asks}
	if err := w.push(plumbing.NewHash(old), above); err != nil {
		return nil, err
	}
	return w, w.push(plumbing.NewHash(new), below)
}

// run visits commits while more says so.
func (w *walker) run(ctx context.Context, more func() bool, visit func(*object.Commit)) error {
	for more() {
		if err := ctx.Err(); err != nil {
			return err
		}
		c := w.pop()
		visit(c)
		if err := w.expand(c); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) asking(c colour) int {
	if w.asks(c) {
		return 1
	}
	return 0
}

// push adds a colour to a commit and queues it if that is news.
func (w *walker) push(h plumbing.Hash, c colour) error {
	was := w.colours[h]
	now := was | c
	if now == was {
		return nil
	}
	w.colours[h] = now
	if w.queued[h] {
		w.open += w.asking(now) - w.asking(was)
		return nil
	}
	commit, err := w.repo.boundedCommit(h)
	if err != nil {
		return fmt.Errorf("%s: %w", h, missing(err))
	}
	w.queued[h] = true
	w.open += w.asking(now)
	heap.Push(&w.queue, commit)
	return nil
}

func missing(err error) error {
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		return ErrShallow
	}
	return err
}

func (w *walker) pop() *object.Commit {
	c := heap.Pop(&w.queue).(*object.Commit)
	w.queued[c.Hash] = false
	w.open -= w.asking(w.colours[c.Hash])
	return c
}

func (w *walker) expand(c *object.Commit) error {
	for _, p := range c.ParentHashes {
		if err := w.push(p, w.colours[c.Hash]); err != nil {
			return err
		}
	}
	return nil
}

// settle colours what was seen before an ancestor that is older by its time, and
// reads no further.
func (w *walker) settle() error {
	for len(w.queue) > 0 {
		c := w.pop()
		for _, p := range c.ParentHashes {
			if w.colours[p] == 0 {
				continue
			}
			if err := w.push(p, w.colours[c.Hash]); err != nil {
				return err
			}
		}
	}
	return nil
}

type commitQueue []*object.Commit

func (q commitQueue) Len() int           { return len(q) }
func (q commitQueue) Less(i, j int) bool { return q[i].Committer.When.After(q[j].Committer.When) }
func (q commitQueue) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *commitQueue) Push(x any)        { *q = append(*q, x.(*object.Commit)) }
func (q *commitQueue) Pop() any {
	old := *q
	last := old[len(old)-1]
	*q = old[:len(old)-1]
	return last
}

// ReachableFrom says which of the commits are tip or ancestors of it. One walk
// finds those that are; a commit that the walk passed by without meeting gets
// a walk of its own, because times of commits may lie.
func (r *Repo) ReachableFrom(ctx context.Context, tip string, commits []string) (map[string]bool, error) {
	out := make(map[string]bool, len(commits))
	wanted, oldest, err := r.wanted(commits)
	if err != nil {
		return nil, err
	}
	if err := r.meet(ctx, tip, wanted, oldest, out); err != nil {
		return nil, err
	}
	for h := range wanted {
		if out[h.String()], err = r.IsAncestor(ctx, h.String(), tip); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// wanted returns the commits that exist, and the time of the oldest.
func (r *Repo) wanted(commits []string) (map[plumbing.Hash]bool, time.Time, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	wanted := map[plumbing.Hash]bool{}
	var oldest time.Time
	for _, id := range commits {
		c, err := r.boundedCommit(plumbing.NewHash(id))
		if errors.Is(err, plumbing.ErrObjectNotFound) {
			continue
		}
		if err != nil {
			return nil, oldest, err
		}
		wanted[c.Hash] = true
		if oldest.IsZero() || c.Committer.When.Before(oldest) {
			oldest = c.Committer.When
		}
	}
	return wanted, oldest, nil
}

// meet walks down from tip, moving commits from wanted to out, until none is
// wanted or the history is older than all of them.
func (r *Repo) meet(ctx context.Context, tip string, wanted map[plumbing.Hash]bool, oldest time.Time, out map[string]bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	w, err := r.walker(func(colour) bool { return false }, tip, tip)
	if err != nil {
		return err
	}
	more := func() bool {
		return len(w.queue) > 0 && len(wanted) > 0 && !w.queue[0].Committer.When.Before(oldest)
	}
	return w.run(ctx, more, func(c *object.Commit) {
		if wanted[c.Hash] {
			delete(wanted, c.Hash)
			out[c.Hash.String()] = true
		}
	})
}
