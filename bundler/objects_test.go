package bundler

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha1" //nolint:gosec // Git's own format
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
)

const testDoc = "services/a/config/d.yaml"

// damagedRepo is a repository of one document, with its objects in files.
func damagedRepo(t *testing.T) (r *gitRepo, doc string) {
	t.Helper()
	r = newGitRepo(t)
	r.commit("sealstone.yaml", "version: 1\nlevels: [env]\nscopes: [prod]\n", "services/a/service.yaml", "owner: x\nschemas: {'config/*': none}\n", testDoc, "a: "+strings.Repeat("x", 300)+"\n")
	return r, r.git("rev-parse", "HEAD:"+testDoc)
}

func (r *gitRepo) loose(id string) string {
	return filepath.Join(r.dir, ".git/objects", id[:2], id[2:])
}

// packedAs is the pack, or its index.
func (r *gitRepo) packedAs(ext string) string {
	r.t.Helper()
	r.git("gc", "-q")
	found, _ := filepath.Glob(filepath.Join(r.dir, ".git/objects/pack/pack-*"+ext))
	if len(found) != 1 {
		r.t.Fatalf("%d packs", len(found))
	}
	return found[0]
}

func rewrite(t *testing.T, file string, edit func([]byte) []byte) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(file, 0o644)
	if err := os.WriteFile(file, edit(raw), 0o644); err != nil {
		t.Fatal(err)
	}
}

func flipped(at int) func([]byte) []byte {
	return func(b []byte) []byte { b[at] ^= 0x55; return b }
}

func half(b []byte) []byte { return b[:len(b)/2] }

// checkDir is what a check finds, with what could not even be opened.
func checkDir(t *testing.T, dir string) Faults {
	t.Helper()
	repo, err := OpenRepo(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer repo.Close()
	commit, err := repo.Resolve("HEAD")
	if err != nil {
		return asFaults(err)
	}
	rep, err := New(repo).Check(context.Background(), commit, CheckOptions{})
	if err != nil {
		return asFaults(err)
	}
	return rep.Faults.Errors()
}

func TestDamagedObjectsAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		harm func(*testing.T, *gitRepo, string)
		want string
	}{
		"a missing file": {func(t *testing.T, r *gitRepo, doc string) { os.Remove(r.loose(doc)) }, testDoc + ": E_GIT_OBJECT object DOC is missing"},
		"a pipe that nobody writes into": {func(t *testing.T, r *gitRepo, doc string) {
			os.Remove(r.loose(doc))
			if err := exec.Command("mkfifo", r.loose(doc)).Run(); err != nil {
				t.Skip(err)
			}
		}, testDoc + ": E_GIT_OBJECT object DOC is missing"},
		"bytes that don't inflate": {func(t *testing.T, r *gitRepo, doc string) { rewrite(t, r.loose(doc), flipped(20)) },
			testDoc + ": E_GIT_OBJECT object DOC: damaged Git object: "},
		"half a file": {func(t *testing.T, r *gitRepo, doc string) { rewrite(t, r.loose(doc), half) },
			testDoc + ": E_GIT_OBJECT object DOC: damaged Git object: "},
		"another object's bytes": {func(t *testing.T, r *gitRepo, doc string) {
			other, _ := os.ReadFile(r.loose(r.git("rev-parse", "HEAD:sealstone.yaml")))
			rewrite(t, r.loose(doc), func([]byte) []byte { return other })
		}, testDoc + ": E_GIT_OBJECT object DOC: damaged Git object: the content of DOC is not what its id says"},
		"a damaged folder": {func(t *testing.T, r *gitRepo, doc string) {
			rewrite(t, r.loose(r.git("rev-parse", "HEAD:services/a")), flipped(20))
		}, "services/a: E_GIT_OBJECT object "},
		"a damaged commit": {func(t *testing.T, r *gitRepo, doc string) {
			rewrite(t, r.loose(r.git("rev-parse", "HEAD")), flipped(20))
		}, "E_GIT_OBJECT commit \"HEAD\": damaged Git object"},
		"half a pack": {func(t *testing.T, r *gitRepo, doc string) { rewrite(t, r.packedAs(".pack"), half) },
			"E_GIT_OBJECT "},
		"half an index": {func(t *testing.T, r *gitRepo, doc string) { rewrite(t, r.packedAs(".idx"), half) },
			"E_GIT_OBJECT commit \"HEAD\": pack-"},
		"an index of places beyond its pack": {func(t *testing.T, r *gitRepo, doc string) {
			rewrite(t, r.packedAs(".idx"), func(b []byte) []byte {
				for at := len(b) - indexTail - 1; at > len(b)-indexTail-4*8; at -= 4 {
					binary.BigEndian.PutUint32(b[at-3:], 1<<30)
				}
				return b
			})
		}, "E_GIT_OBJECT "},
		"an index of swapped places": {func(t *testing.T, r *gitRepo, doc string) {
			rewrite(t, r.packedAs(".idx"), func(b []byte) []byte {
				places := b[len(b)-indexTail-4*8 : len(b)-indexTail]
				first := [4]byte(places[:4])
				copy(places, places[4:])
				copy(places[len(places)-4:], first[:])
				return b
			})
		}, "E_GIT_OBJECT "},
	} {
		t.Run(name, func(t *testing.T) {
			r, doc := damagedRepo(t)
			c.harm(t, r, doc)
			faults := checkDir(t, r.dir)
			if len(faults) == 0 || !strings.Contains(faults[0].String(), strings.ReplaceAll(c.want, "DOC", doc)) || faults[0].Fix == "" {
				t.Errorf("got %v, want %s", faults, c.want)
			}
			for _, f := range faults {
				if f.Rule == "E_INTERNAL" {
					t.Errorf("%v", f)
				}
			}
		})
	}
}

// Names that the git program can't be talked into.
func TestImpossibleNamesAreNamed(t *testing.T) {
	for _, names := range [][]string{{".git"}, {".GIT"}, {".."}, {"."}, {""}, {"x/y"}, {"d.yaml", "d.yaml"}} {
		t.Run(strings.Join(names, " "), func(t *testing.T) {
			r, doc := damagedRepo(t)
			id := plumbing.NewHash(doc)
			var tree bytes.Buffer
			for _, n := range names {
				fmt.Fprintf(&tree, "100644 %s\x00%s", n, id[:])
			}
			config := r.object("tree", tree.String())
			service := r.object("tree", entryOf("40000", "config", config)+entryOf("100644", "service.yaml", r.git("rev-parse", "HEAD:services/a/service.yaml")))
			services := r.object("tree", entryOf("40000", "a", service))
			root := r.object("tree", entryOf("100644", "sealstone.yaml", r.git("rev-parse", "HEAD:sealstone.yaml"))+entryOf("40000", "services", services))
			r.git("update-ref", "HEAD", r.git("commit-tree", "-m", "x", root))
			faults := checkDir(t, r.dir)
			if len(faults) != 1 || faults[0].Rule != "E_GIT_OBJECT" || faults[0].File != "services/a/config" {
				t.Errorf("%v", faults)
			}
		})
	}
}

func entryOf(mode, name, id string) string {
	h := plumbing.NewHash(id)
	return mode + " " + name + "\x00" + string(h[:])
}

// object writes one as it is.
func (r *gitRepo) object(kind, text string) string {
	r.t.Helper()
	cmd := exec.Command("git", "hash-object", "-t", kind, "--literally", "-w", "--stdin")
	cmd.Dir, cmd.Stdin = r.dir, strings.NewReader(text)
	out, err := cmd.Output()
	if err != nil {
		r.t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func TestBorrowedObjectsAreRead(t *testing.T) {
	r, _ := damagedRepo(t)
	shared := filepath.Join(t.TempDir(), "shared")
	r.git("clone", "-q", "--shared", r.dir, shared)
	if faults := checkDir(t, shared); len(faults) > 0 {
		t.Error(faults)
	}
	list := filepath.Join(shared, ".git/objects/info/alternates")
	own := filepath.Join(shared, ".git/objects") + "\n"
	os.WriteFile(list, []byte(own+own+"/nowhere/objects\n"), 0o644)
	repo, err := OpenRepo(shared)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repo.Resolve("HEAD"); err == nil {
		t.Error("resolved without objects")
	}
}

// history has differences to differences.
func history(t *testing.T) *gitRepo {
	t.Helper()
	r := newGitRepo(t)
	var lines []string
	for i := range 30 {
		lines = append(lines, fmt.Sprintf("key%d: %s", i, strings.Repeat(fmt.Sprint(i), 40)))
		r.commit("a.yaml", strings.Join(lines, "\n"), "b/c.yaml", fmt.Sprint(i))
	}
	return r
}

// readPack indexes a pack as a fetch does.
func readPack(t *testing.T, file string) (*packReceiver, []byte) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := receivePack(bytes.NewReader(raw), int64(len(raw)), maxPackWork)
	if err != nil {
		t.Fatal(err)
	}
	var index bytes.Buffer
	if err := p.writeIndex(&index); err != nil {
		t.Fatal(err)
	}
	return p, index.Bytes()
}

func TestIndexesAreGits(t *testing.T) {
	for _, offsets := range []string{"true", "false"} {
		r := history(t)
		r.git("-c", "repack.useDeltaBaseOffset="+offsets, "repack", "-a", "-d", "-f", "-q")
		file := r.packedAs(".pack")
		p, index := readPack(t, file)
		want, err := os.ReadFile(strings.TrimSuffix(file, ".pack") + ".idx")
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(index, want) {
			t.Errorf("an index of %d objects differs from git's", len(p.objects))
		}
	}
}

// crafted is one object of a pack that no git would write.
type crafted struct {
	kind plumbing.ObjectType
	size int64  // what it says, instead of the length of its body
	to   string // what follows the head of a difference
	body string
}

func (c crafted) bytes() []byte {
	if c.size == 0 {
		c.size = int64(len(c.body))
	}
	b := bytes.NewBuffer(packedHeader(c.kind, uint64(c.size)))
	b.WriteString(c.to)
	z := zlib.NewWriter(b)
	_, _ = z.Write([]byte(c.body)) // to memory
	z.Close()
	return b.Bytes()
}

// back is how a difference right behind names it, when it is short.
func (c crafted) back() string { return string([]byte{byte(len(c.bytes()))}) }

func (c crafted) id() string {
	h := plumbing.ComputeHash(c.kind, []byte(c.body))
	return string(h[:])
}

func deltaOf(from, to uint64, ops string) string {
	return string(binary.AppendUvarint(binary.AppendUvarint(nil, from), to)) + ops
}

func craftPack(objects ...crafted) []byte {
	pack := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), uint32(len(objects)))
	for _, o := range objects {
		pack = append(pack, o.bytes()...)
	}
	return summed(append(pack, make([]byte, 20)...))
}

// summed corrects the checksum that a pack ends with.
func summed(pack []byte) []byte {
	if len(pack) < 20 {
		return pack
	}
	sum := sha1.Sum(pack[:len(pack)-20])
	return append(slices.Clone(pack[:len(pack)-20]), sum[:]...)
}

func TestHostilePacksAreRefused(t *testing.T) {
	mib := crafted{kind: plumbing.BlobObject, body: strings.Repeat("x", 1<<20)}
	copies := strings.Repeat("\xf0\xff\xff\x0f", 200) // each a MiB less one byte
	short := crafted{kind: plumbing.BlobObject, body: "some text to begin with"}
	doubling := []crafted{short}
	for i, n := 0, uint64(23); i < 40; i, n = i+1, 2*n {
		o := crafted{kind: plumbing.OFSDeltaObject, to: doubling[i].back(), body: deltaOf(n, 2*n, "")}
		for range 2 {
			for left, at := n, uint64(0); left > 0; {
				k := min(left, 0xffffff)
				o.body += "\xff" + string(binary.LittleEndian.AppendUint32(nil, uint32(at))) + string([]byte{byte(k), byte(k >> 8), byte(k >> 16)})
				left, at = left-k, at+k
			}
		}
		if len(o.bytes()) > 127 {
			break
		}
		doubling = append(doubling, o)
	}
	a, b := strings.Repeat("a", 20), strings.Repeat("b", 20)
	for name, c := range map[string]struct {
		pack []byte
		want error
	}{
		"a length that the bytes don't have": {craftPack(crafted{kind: plumbing.BlobObject, size: 1 << 40, body: "x"}), errHeavy},
		"a length that is too short":         {craftPack(crafted{kind: plumbing.BlobObject, size: 2, body: "xyz"}), errDamaged},
		"a bomb":                             {craftPack(slices.Repeat([]crafted{{kind: plumbing.BlobObject, body: mib.body}}, 70)...), errHeavy},
		"a difference that makes a GiB":      {craftPack(mib, crafted{kind: plumbing.REFDeltaObject, to: mib.id(), body: deltaOf(1<<20, 1<<30, copies)}), errHeavy},
		"a difference that makes more":       {craftPack(mib, crafted{kind: plumbing.REFDeltaObject, to: mib.id(), body: deltaOf(1<<20, 1<<10, copies)}), errDamaged},
		"a difference of another base":       {craftPack(short, crafted{kind: plumbing.REFDeltaObject, to: short.id(), body: deltaOf(22, 1, "\x01x")}), errDamaged},
		"a copy from beyond":                 {craftPack(short, crafted{kind: plumbing.REFDeltaObject, to: short.id(), body: deltaOf(23, 4, "\x91\xff\x04")}), errDamaged},
		"a difference to itself":             {craftPack(crafted{kind: plumbing.OFSDeltaObject, to: "\x00", body: deltaOf(1, 1, "\x01x")}), errDamaged},
		"a difference to nothing":            {craftPack(crafted{kind: plumbing.REFDeltaObject, to: a, body: deltaOf(1, 1, "\x01x")}), errNoBase},
		"differences to one another":         {craftPack(crafted{kind: plumbing.REFDeltaObject, to: b, body: deltaOf(1, 1, "\x01x")}, crafted{kind: plumbing.REFDeltaObject, to: a, body: deltaOf(1, 1, "\x01x")}), errNoBase},
		"differences that double, 40 times":  {craftPack(doubling...), errHeavy},
		"another kind":                       {craftPack(crafted{kind: 5, body: "x"}), errDamaged},
		"bytes behind":                       {summed(append(craftPack(short), make([]byte, 30)...)), errDamaged},
		"more objects than it has":           {summed(bytes.Replace(craftPack(short), []byte("\x00\x00\x00\x01"), []byte("\x00\x00\x00\x02"), 1)), errDamaged},
		"more objects than anybody has":      {summed(bytes.Replace(craftPack(short), []byte("\x00\x00\x00\x01"), []byte("\xff\xff\xff\xff"), 1)), errHeavy},
		"a checksum of other bytes":          {append(craftPack(short), 0), errDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := receivePack(bytes.NewReader(c.pack), int64(len(c.pack)), 64<<20)
			runtime.ReadMemStats(&after)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > 256<<20 {
				t.Errorf("it took %d MiB", took>>20)
			}
		})
	}
}

// Of small differences to one another as many are resolved as git writes.
func TestALongChainOfDifferencesIsRefused(t *testing.T) {
	base := crafted{kind: plumbing.BlobObject, body: "0"}
	first := crafted{kind: plumbing.OFSDeltaObject, to: base.back(), body: deltaOf(1, 1, "\x01x")}
	next := first
	next.to = first.back()
	start, step := len(craftPack(base, first))-20, len(next.bytes())
	pack := append(craftPack(base, first)[:start], bytes.Repeat(next.bytes(), maxChain)...)
	for n, want := range map[int]error{maxChain: nil, maxChain + 1: errHeavy} {
		p := &packFile{r: bytes.NewReader(pack), size: int64(len(pack)), room: newDeltaRoom()}
		err := p.stream(int64(start+(n-2)*step), 1, func(plumbing.ObjectType, int64, io.Reader) error { return nil })
		if !errors.Is(err, want) {
			t.Errorf("%d differences: %v, want %v", n, err, want)
		}
	}
}

// FuzzReceivePack: whatever a host sends, it ends, and what it accepts is found
// by its index, with the content that its id says.
func FuzzReceivePack(f *testing.F) {
	base := crafted{kind: plumbing.BlobObject, body: "some text to begin with"}
	f.Add(craftPack(base, crafted{kind: plumbing.OFSDeltaObject, to: base.back(), body: deltaOf(23, 7, "\x90\x04\x03abc")}))
	f.Add(craftPack(base, crafted{kind: plumbing.REFDeltaObject, to: base.id(), body: deltaOf(23, 3, "\x03abc")}))
	f.Add(craftPack())
	f.Fuzz(func(t *testing.T, pack []byte) {
		pack = summed(pack)
		p, err := receivePack(bytes.NewReader(pack), int64(len(pack)), 1<<20)
		if err != nil {
			return
		}
		var raw bytes.Buffer
		if err := p.writeIndex(&raw); err != nil {
			t.Fatal(err)
		}
		index, err := parsePackIndex(raw.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		again := packFile{r: p.r, size: p.size, index: index, room: newDeltaRoom()}
		for _, o := range p.objects {
			at, ok := index.find(o.id)
			if !ok {
				t.Fatalf("%s is not found", o.id)
			}
			work := int64(maxWork)
			if got, err := again.objectAt(at, &work); err != nil || plumbing.ComputeHash(got.kind, got.data) != o.id {
				t.Fatalf("%s: %v", o.id, err)
			}
		}
	})
}
