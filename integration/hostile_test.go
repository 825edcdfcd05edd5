package integration_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1" //nolint:gosec // Git's own format
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/integration/proctest"
	"github.com/sealstone/sealstone/internal/gittest"
)

// mostMemory is what a check of anything may take at its peak, in the whole
// process.
const mostMemory = 512 << 20

// mostCPU is ten seconds of two processors. Time on a wall would be that of
// everything else on the machine.
const mostCPU = 20 * time.Second

const hostileRoot = "version: 1\nlevels: [env, region, pool]\nscopes: [prod, 'prod/*/*']\n"

// trees builds a repository out of objects that hold one another many times
// over, which no work tree could be made of.
type trees struct {
	t    *testing.T
	repo *git.Repository
	dir  string
}

func newTrees(t *testing.T) *trees {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "hostile.git")
	repo, err := git.PlainInitWithOptions(dir, &git.PlainInitOptions{Bare: true, InitOptions: git.InitOptions{DefaultBranch: gittest.Branch}})
	if err != nil {
		t.Fatal(err)
	}
	return &trees{t, repo, dir}
}

func (r *trees) blob(text string) object.TreeEntry {
	return object.TreeEntry{Mode: filemode.Regular, Hash: gittest.Blob(r.t, r.repo.Storer, text)}
}

func (r *trees) put(encode func(plumbing.EncodedObject) error) plumbing.Hash {
	r.t.Helper()
	o := r.repo.Storer.NewEncodedObject()
	if err := encode(o); err != nil {
		r.t.Fatal(err)
	}
	h, err := r.repo.Storer.SetEncodedObject(o)
	if err != nil {
		r.t.Fatal(err)
	}
	return h
}

// folder is names and what they hold, in turn.
func (r *trees) folder(members ...any) object.TreeEntry {
	r.t.Helper()
	var tree object.Tree
	for i := 0; i < len(members); i += 2 {
		e := members[i+1].(object.TreeEntry)
		e.Name = members[i].(string)
		tree.Entries = append(tree.Entries, e)
	}
	sort.Sort(object.TreeEntrySorter(tree.Entries))
	return object.TreeEntry{Mode: filemode.Dir, Hash: r.put(tree.Encode)}
}

// many is n names, all of one thing.
func (r *trees) many(n int, format string, one object.TreeEntry) object.TreeEntry {
	members := make([]any, 0, 2*n)
	for i := range n {
		members = append(members, fmt.Sprintf(format, i), one)
	}
	return r.folder(members...)
}

func (r *trees) commit(services object.TreeEntry, more ...any) {
	r.t.Helper()
	root := r.folder(append([]any{"sealstone.yaml", r.blob(hostileRoot), "services", services}, more...)...)
	who := object.Signature{Name: "a", Email: "a@example.com", When: gittest.Start}
	h := r.put((&object.Commit{Author: who, Committer: who, TreeHash: root.Hash}).Encode)
	if err := r.repo.Storer.SetReference(plumbing.NewHashReference(gittest.Branch, h)); err != nil {
		r.t.Fatal(err)
	}
}

// packed writes one pack of a blob of n zeros, and of one stored as a difference
// to it: five bytes, for whose sake all of the first is read, several times over.
// Forges refuse files of more than 100 MiB.
func (r *trees) packed(n int64) (huge, small object.TreeEntry) {
	r.t.Helper()
	proctest.NeedGit(r.t)
	huge, small = object.TreeEntry{Mode: filemode.Regular, Hash: zeros(n)}, object.TreeEntry{Mode: filemode.Regular}
	text := []byte("a: 1\n")
	small.Hash = plumbing.ComputeHash(plumbing.BlobObject, text)
	delta := append(binary.AppendUvarint(binary.AppendUvarint(nil, uint64(n)), uint64(len(text))), append([]byte{byte(len(text))}, text...)...)
	path := filepath.Join(r.dir, "objects", "pack", "hostile.pack")
	f, err := os.Create(path)
	if err != nil {
		r.t.Fatal(err)
	}
	sum := sha1.New() //nolint:gosec // Git's own format
	w := io.MultiWriter(f, sum)
	fmt.Fprintf(w, "PACK\x00\x00\x00\x02\x00\x00\x00\x02")
	w.Write(packHeader(plumbing.BlobObject, uint64(n)))
	deflate(w, io.LimitReader(zeroReader{}, n))
	w.Write(packHeader(plumbing.REFDeltaObject, uint64(len(delta))))
	w.Write(huge.Hash[:])
	deflate(w, bytes.NewReader(delta))
	f.Write(sum.Sum(nil))
	if err := f.Close(); err != nil {
		r.t.Fatal(err)
	}
	named := filepath.Join(filepath.Dir(path), fmt.Sprintf("pack-%x.pack", sum.Sum(nil)))
	if err := os.Rename(path, named); err != nil {
		r.t.Fatal(err)
	}
	proctest.Git(r.t, r.dir, "index-pack", named)
	return huge, small
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func zeros(n int64) plumbing.Hash {
	h := plumbing.NewHasher(plumbing.BlobObject, n)
	_, _ = io.Copy(h, io.LimitReader(zeroReader{}, n))
	return h.Sum()
}

func deflate(w io.Writer, r io.Reader) {
	z, _ := zlib.NewWriterLevel(w, zlib.BestSpeed)
	_, _ = io.Copy(z, r)
	z.Close()
}

// packHeader is the type in three bits and the size: four bits in the first
// byte, seven in each further one.
func packHeader(kind plumbing.ObjectType, size uint64) []byte {
	first := byte(kind)<<4 | byte(size&15)
	if size >>= 4; size == 0 {
		return []byte{first}
	}
	return binary.AppendUvarint([]byte{first | 0x80}, size)
}

// common is one document, and an overlay of it for each of n scopes.
func (r *trees) common(n int, document string) object.TreeEntry {
	scopes := r.many(n, "r%04d", r.folder("config", r.folder("d.json", r.blob(`{"k":1}`))))
	return r.folder("config", r.folder("d.json", r.blob(document)), "service.yaml", r.blob("schemas: {'config/*': none}\n"),
		"overlays", r.folder("prod", scopes))
}

const looseMeta = "owner: x\nschemas: {'config/*': none}\n"

// TestHostileRepositoriesEnd checks repositories that were made to do harm with
// the real program. The kernel says what it took at most.
func TestHostileRepositoriesEnd(t *testing.T) {
	if testing.Short() || proctest.Race() {
		t.Skip("slow, and the race detector takes memory of its own")
	}
	dense := "a: [" + strings.Repeat("1,", 1<<19-10) + "1]\n"
	keys := func() string {
		var b strings.Builder
		for i := 0; b.Len() < 1<<20-20; i++ {
			fmt.Fprintf(&b, "k%d: 1\n", i)
		}
		return b.String()
	}()
	for name, make := range map[string]func(*trees){
		"sixteen dense documents": func(r *trees) {
			s := r.folder("config", r.many(16, "d%03d.yaml", r.blob(dense)), "service.yaml", r.blob(looseMeta))
			r.commit(r.folder("s", s))
		},
		"nine thousand dense documents": func(r *trees) {
			s := r.folder("config", r.many(9000, "d%04d.yaml", r.blob(dense)), "service.yaml", r.blob(looseMeta))
			r.commit(r.folder("s", s))
		},
		"nine thousand documents of many keys": func(r *trees) {
			s := r.folder("config", r.many(9000, "d%04d.yaml", r.blob(keys)), "service.yaml", r.blob(looseMeta))
			r.commit(r.folder("s", s))
		},
		"a thousand services of a hundred documents": func(r *trees) {
			s := r.folder("config", r.many(100, "d%04d.yaml", r.blob(keys)), "service.yaml", r.blob(looseMeta))
			r.commit(r.many(1000, "s%04d", s))
		},
		"a service that holds itself ten times, ten levels deep": func(r *trees) {
			level := r.folder("d.yaml", r.blob("a: 1\n"))
			for range 10 {
				level = r.many(10, "n%d", level)
			}
			r.commit(r.folder("x", r.folder("config", level, "service.yaml", r.blob(looseMeta))))
		},
		"a million names": func(r *trees) {
			r.commit(r.folder("x", r.folder("config", r.many(1_000_000, "d%06d.yaml", r.blob("a: 1\n")), "service.yaml", r.blob(looseMeta))))
		},
		"a million services": func(r *trees) {
			r.commit(r.many(1_000_000, "s%06d", r.folder("service.yaml", r.blob(looseMeta))))
		},
		"eighty thousand services": func(r *trees) {
			r.commit(r.many(80_000, "s%06d", r.folder("config", r.folder("d.yaml", r.blob("a: 1\n")), "service.yaml", r.blob(looseMeta))))
		},
		"activations without end": func(r *trees) {
			r.commit(r.folder("s", r.folder("service.yaml", r.blob(looseMeta))), "activations", r.many(9_000, "s%04d.yaml", r.blob("service: s\nactivations:\n"+strings.Repeat("  - {scope: prod, release: latest}\n", 20_000))))
		},
		"schemas without end": func(r *trees) {
			big := `{"enum":[` + strings.Repeat("1,", 1<<19-100) + `1]}`
			r.commit(r.folder("s", r.folder("service.yaml", r.blob(looseMeta))), "schemas", r.many(9_000, "s%04d.schema.json", r.blob(big)))
		},
		"contexts without end": func(r *trees) {
			r.commit(r.folder("s", r.folder("service.yaml", r.blob(looseMeta))), "tests", r.folder("contexts", r.many(9_000, "s%04d.jsonl", r.blob(strings.Repeat("{\"context\":{}}\n", 69_000)))))
		},
		"a document of 64 MiB": func(r *trees) {
			huge, _ := r.packed(64 << 20)
			r.commit(r.folder("s", r.folder("config", r.folder("d.yaml", huge), "service.yaml", r.blob(looseMeta))))
		},
		"five bytes of 256 MiB": func(r *trees) {
			_, small := r.packed(256 << 20)
			r.commit(r.folder("s", r.folder("config", r.folder("d.yaml", small), "service.yaml", r.blob(looseMeta))))
		},
		"three thousand scopes of common, in 150 services": func(r *trees) {
			r.commit(r.many(150, "s%03d", r.folder("service.yaml", r.blob("owner: x\n"))), "common", r.common(3000, `{"a":1}`))
		},
		"four hundred scopes of a dense document of common, in 150 services": func(r *trees) {
			r.commit(r.many(150, "s%03d", r.folder("service.yaml", r.blob("owner: x\n"))), "common", r.common(400, `{"a":[`+strings.Repeat("1,", 131_000)+`1]}`))
		},
		"flags without end": func(r *trees) {
			var b strings.Builder
			b.WriteString("flags:\n")
			for i := 0; b.Len() < 1<<20-200; i++ {
				fmt.Fprintf(&b, "  f%d: {state: ENABLED, variants: {a: 1}, defaultVariant: a, targeting: {if: [{\"==\": [{var: x}, %d]}, a, null]}}\n", i, i)
			}
			r.commit(r.many(200, "s%04d", r.folder("flags", r.folder("f.yaml", r.blob(b.String())), "service.yaml", r.blob("owner: x\n"))))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newTrees(t)
			make(r)
			ends(t, "check", r.dir)
			if strings.Contains(name, "scopes of") {
				ends(t, "plan", r.dir, "--head", "HEAD")
			}
		})
	}
}

// TestAHostilePushIsRefused: what a server would have to inflate is bounded when
// it fetches, too. It says so, and serves what it had.
func TestAHostilePushIsRefused(t *testing.T) {
	if testing.Short() || proctest.Race() {
		t.Skip("slow, and the race detector takes memory of its own")
	}
	r := proctest.New(t, examples.Shop())
	newForge(t, r)
	s := r.Serve()
	good := r.Git("rev-parse", "HEAD")
	s.UntilTip(good)
	repo, err := git.PlainOpen(r.Bare)
	if err != nil {
		t.Fatal(err)
	}
	bare := &trees{t, repo, r.Bare}
	huge, small := bare.packed(256 << 20)
	bare.commit(bare.folder("s", bare.folder("config", bare.folder("d.yaml", small, "huge.yaml", huge), "service.yaml", bare.blob(looseMeta))))
	proctest.Until(t, "the refusal", func() bool { return strings.Contains(s.Status().Source.LastError, "over the limit") })
	if st := s.Status().Source; st.Tip != good || !strings.Contains(st.LastError, "take files of more than 64 MiB out") {
		t.Errorf("status: %+v", st)
	}
	if most := s.PeakMemory(); most > mostMemory {
		t.Errorf("it took %d MiB", most>>20)
	} else {
		t.Logf("%d MiB", most>>20)
	}
	proctest.Git(t, r.Bare, "update-ref", "refs/heads/main", good)
	proctest.Until(t, "a status without the error", func() bool { return s.Status().Source.LastError == "" })
}

// TestATipThatAsksForTooMuchIsRefused: a push of a few hundred files that ask
// for more bundles than a server builds stops nobody, and is mended by the next.
func TestATipThatAsksForTooMuchIsRefused(t *testing.T) {
	if testing.Short() || proctest.Race() {
		t.Skip("slow, and more so under the race detector")
	}
	r := proctest.New(t, examples.Shop())
	newForge(t, r)
	s := r.Serve()
	good := r.Git("rev-parse", "HEAD")
	s.UntilTip(good)
	c := openSDK(t, sdkConfig(t, r, "checkout@prod", s.URL))
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(r.Work, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		proctest.WriteFile(t, path, text, 0o644)
	}
	for i := range 400 {
		write(fmt.Sprintf("common/overlays/prod/us-east-1/p%d/config/telemetry.yaml", i), "traces: {samplePercent: 50}\n")
	}
	for i := range 350 {
		write(fmt.Sprintf("services/s%d/service.yaml", i), "owner: x\n")
		write(fmt.Sprintf("activations/s%d.yaml", i), fmt.Sprintf("service: s%d\nactivations:\n  - {scope: prod, release: latest}\n", i))
	}
	bad := r.Push("Ask for too much")
	proctest.Until(t, "the refusal", func() bool { return strings.Contains(s.Status().Source.LastError, "E_LIMIT_BUILD") })
	if st := s.Status(); st.Source.Tip != good || st.Source.Seen != bad || !strings.Contains(st.Source.LastError, "Use fewer overlays") {
		t.Errorf("status: %+v", st.Source)
	}
	wantReady(t, c)
	r.Git("revert", "--no-edit", "HEAD")
	s.UntilTip(r.Push("Mend it"))
	proctest.Until(t, "a status without the error", func() bool { return s.Status().Source.LastError == "" })
	if st := s.Status(); len(st.Rejected) != 0 {
		t.Errorf("status: %+v", st)
	}
}

func ends(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute) // a guard against hanging: how long a busy machine takes says nothing
	defer cancel()
	cmd := exec.CommandContext(ctx, proctest.Program(), args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	err := cmd.Run()
	use, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		t.Skip("this system doesn't say what a process took")
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	t.Logf("%s, cpu %s, %d MiB, %v: %.300s", time.Since(start).Round(time.Millisecond), cmd.ProcessState.UserTime(), use.Maxrss>>10, err, lines[len(lines)-1])
	if ctx.Err() != nil {
		t.Error("it did not end")
	}
	if cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(); cpu > mostCPU {
		t.Errorf("it took %s of CPU", cpu)
	}
	if most := use.Maxrss << 10; most > mostMemory {
		t.Errorf("it took %d MiB", most>>20)
	}
}
