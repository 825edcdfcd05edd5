// Package gittest makes tiny Git repositories in memory for tests.
//
// Commits have fixed authors and times, so the same files have the same commit
// ids on every run.
package gittest

import (
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/pem"
	"io"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/storage/memory"
	"golang.org/x/crypto/ssh"
)

// Branch is what HEAD points to.
const Branch = plumbing.ReferenceName("refs/heads/main")

// Start is the time of the first commit; each further one is a minute later.
var Start = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// New returns an empty bare repository in memory whose HEAD is Branch.
func New(t testing.TB) *git.Repository {
	t.Helper()
	repo, err := git.InitWithOptions(memory.NewStorage(), nil, git.InitOptions{DefaultBranch: Branch})
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

// Commit makes files the whole content of a new commit on Branch and returns
// its id. Paths use slashes. A path that ends in "@link" is a symbolic link, in
// "@module" a submodule (its content is ignored), in "@exec" an executable; the
// suffix is no part of the name.
func Commit(t testing.TB, repo *git.Repository, files map[string]string) string {
	t.Helper()
	return CommitSaying(t, repo, files, "test commit")
}

// CommitSaying is Commit with a message.
func CommitSaying(t testing.TB, repo *git.Repository, files map[string]string, message string) string {
	t.Helper()
	var parents []plumbing.Hash
	if ref, err := repo.Reference(Branch, true); err == nil {
		parents = []plumbing.Hash{ref.Hash()}
	}
	h := commit(t, repo, files, after(repo, parents), message, parents...)
	if err := repo.Storer.SetReference(plumbing.NewHashReference(Branch, h)); err != nil {
		t.Fatal(err)
	}
	return h.String()
}

// Next is Commit of the branch's files with some changed: a value replaces a
// file, the empty string removes it.
func Next(t testing.TB, repo *git.Repository, before map[string]string, change map[string]string) (commit string, files map[string]string) {
	t.Helper()
	files = With(before, change)
	return Commit(t, repo, files), files
}

// With returns a copy of files with changes laid over; "" removes a file.
func With(files, change map[string]string) map[string]string {
	out := make(map[string]string, len(files)+len(change))
	for p, c := range files {
		out[p] = c
	}
	for p, c := range change {
		if c == "" {
			delete(out, p)
			continue
		}
		out[p] = c
	}
	return out
}

// CommitOn makes a commit with the given parents and moves no branch. Its time
// is one minute after the newest parent's.
func CommitOn(t testing.TB, repo *git.Repository, files map[string]string, parents ...plumbing.Hash) plumbing.Hash {
	t.Helper()
	return CommitAt(t, repo, files, after(repo, parents), parents...)
}

// after is one minute after the newest parent.
func after(repo *git.Repository, parents []plumbing.Hash) time.Time {
	when := Start
	for _, p := range parents {
		if c, err := repo.CommitObject(p); err == nil && !c.Committer.When.Before(when) {
			when = c.Committer.When.Add(time.Minute)
		}
	}
	return when
}

// CommitAt is CommitOn at a time of the caller's choice.
func CommitAt(t testing.TB, repo *git.Repository, files map[string]string, when time.Time, parents ...plumbing.Hash) plumbing.Hash {
	t.Helper()
	return commit(t, repo, files, when, "test commit", parents...)
}

func commit(t testing.TB, repo *git.Repository, files map[string]string, when time.Time, message string, parents ...plumbing.Hash) plumbing.Hash {
	t.Helper()
	who := object.Signature{Name: "Test", Email: "test@example.com", When: when}
	c := &object.Commit{
		Author: who, Committer: who, Message: message + "\n", TreeHash: tree(t, repo.Storer, files), ParentHashes: parents,
	}
	return store(t, repo.Storer, c.Encode)
}

// Sign replaces the branch's newest commit by one with key's signature, as
// `git commit -S` with gpg.format=ssh makes it, and returns its id.
func Sign(t testing.TB, repo *git.Repository, key ed25519.PrivateKey) string {
	t.Helper()
	ref, err := repo.Reference(Branch, true)
	if err != nil {
		t.Fatal(err)
	}
	c, err := repo.CommitObject(ref.Hash())
	if err != nil {
		t.Fatal(err)
	}
	payload := &plumbing.MemoryObject{}
	if err := c.EncodeWithoutSignature(payload); err != nil {
		t.Fatal(err)
	}
	r, _ := payload.Reader()
	message, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	c.PGPSignature = sshSignature(t, key, message)
	h := store(t, repo.Storer, c.Encode)
	if err := repo.Storer.SetReference(plumbing.NewHashReference(Branch, h)); err != nil {
		t.Fatal(err)
	}
	return h.String()
}

// sshSignature follows OpenSSH's PROTOCOL.sshsig.
func sshSignature(t testing.TB, key ed25519.PrivateKey, message []byte) string {
	t.Helper()
	public, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	sum := sha512.Sum512(message)
	signed := ssh.Marshal(struct{ Namespace, Reserved, Hash, Sum string }{"git", "", "sha512", string(sum[:])})
	sig := ssh.Marshal(ssh.Signature{Format: ssh.KeyAlgoED25519, Blob: ed25519.Sign(key, append([]byte("SSHSIG"), signed...))})
	blob := ssh.Marshal(struct {
		Version                        uint32
		Key, Namespace, Reserved, Hash string
		Signature                      []byte
	}{1, string(public.Marshal()), "git", "", "sha512", sig})
	return string(pem.EncodeToMemory(&pem.Block{Type: "SSH SIGNATURE", Bytes: append([]byte("SSHSIG"), blob...)}))
}

// tree stores files as a tree and returns its id.
func tree(t testing.TB, s storer.EncodedObjectStorer, files map[string]string) plumbing.Hash {
	t.Helper()
	var out object.Tree
	dirs := map[string]map[string]string{}
	for path, content := range files {
		first, rest, nested := strings.Cut(path, "/")
		if !nested {
			out.Entries = append(out.Entries, fileEntry(t, s, path, content))
			continue
		}
		if dirs[first] == nil {
			dirs[first] = map[string]string{}
		}
		dirs[first][rest] = content
	}
	for name, sub := range dirs {
		out.Entries = append(out.Entries, object.TreeEntry{Name: name, Mode: filemode.Dir, Hash: tree(t, s, sub)})
	}
	sort.Sort(object.TreeEntrySorter(out.Entries))
	return store(t, s, out.Encode)
}

func fileEntry(t testing.TB, s storer.EncodedObjectStorer, name, content string) object.TreeEntry {
	t.Helper()
	e := object.TreeEntry{Name: name, Mode: filemode.Regular}
	for suffix, mode := range map[string]filemode.FileMode{"@link": filemode.Symlink, "@module": filemode.Submodule, "@exec": filemode.Executable} {
		if n, ok := strings.CutSuffix(name, suffix); ok {
			e.Name, e.Mode = n, mode
		}
	}
	if e.Mode == filemode.Submodule {
		e.Hash = plumbing.NewHash(strings.Repeat("12", 20))
		return e
	}
	e.Hash = Blob(t, s, content)
	return e
}

// Blob stores content.
func Blob(t testing.TB, s storer.EncodedObjectStorer, content string) plumbing.Hash {
	t.Helper()
	return store(t, s, func(o plumbing.EncodedObject) error {
		o.SetType(plumbing.BlobObject)
		w, err := o.Writer()
		if err != nil {
			return err
		}
		_, err = w.Write([]byte(content))
		return err
	})
}

func store(t testing.TB, s storer.EncodedObjectStorer, encode func(plumbing.EncodedObject) error) plumbing.Hash {
	t.Helper()
	o := s.NewEncodedObject()
	if err := encode(o); err != nil {
		t.Fatal(err)
	}
	h, err := s.SetEncodedObject(o)
	if err != nil {
		t.Fatal(err)
	}
	return h
}
