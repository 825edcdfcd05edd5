package bundler

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/sealstone/sealstone/internal/gittest"
)

const hostileRoot = "version: 1\nlevels: [env, region, pool]\nscopes: [prod, 'prod/*/*']\n"

// TestHostileRepositories holds a check of whole repositories to a time and to
// memory. What is alive at the end of a check is what it kept; the peak is
// sampled while it runs.
func TestHostileRepositories(t *testing.T) {
	if testing.Short() {
		t.Skip("slow")
	}
	big := "a: " + strings.Repeat("x", 1<<20-100) + "\n"
	for name, make := range map[string]func(map[string]string){
		"a large document under many overlays": func(f map[string]string) {
			f["services/s/service.yaml"] = "owner: x\nschemas: {'config/*': none}\n"
			f["services/s/config/d.yaml"] = big
			for i := range 3000 {
				f[fmt.Sprintf("services/s/overlays/prod/r%d/config/d.yaml", i)] = fmt.Sprintf("b: %d\n", i)
			}
		},
		"many safe modes and overlays": func(f map[string]string) {
			f["services/s/service.yaml"] = "owner: x\nschemas: {'config/*': none}\n"
			f["services/s/config/d.yaml"] = "a: 1\n"
			for i := range 90 {
				f[fmt.Sprintf("services/s/overlays/prod/r%d/config/d.yaml", i)] = fmt.Sprintf("b: %d\n", i)
				f[fmt.Sprintf("services/s/safe-modes/m%d/safe-mode.yaml", i)] = "description: x\nowner: y\n"
				f[fmt.Sprintf("services/s/safe-modes/m%d/config/d.yaml", i)] = fmt.Sprintf("c: %d\n", i)
			}
		},
		"many faults in many services": func(f map[string]string) {
			bad := strings.Repeat("- yes\n", 20000)
			for i := range 300 {
				f[fmt.Sprintf("services/s%d/service.yaml", i)] = "owner: x\n"
				f[fmt.Sprintf("services/s%d/config/d.yaml", i)] = bad
			}
		},
		"many services without anything": func(f map[string]string) {
			for i := range 20000 {
				f[fmt.Sprintf("services/s%d/x", i)] = "x"
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			files := map[string]string{"sealstone.yaml": hostileRoot}
			make(files)
			repo := gittest.New(t)
			bounded(t, repo, gittest.Commit(t, repo, files))
		})
	}
}

// TestATreeBomb: trees that hold one tree a thousand times over, level by level.
func TestATreeBomb(t *testing.T) {
	repo := gittest.New(t)
	dir := planter(t, repo)
	level := dir(object.TreeEntry{Name: "config", Mode: filemode.Dir, Hash: dir(object.TreeEntry{Name: "d.yaml", Mode: filemode.Regular, Hash: gittest.Blob(t, repo.Storer, "a: 1\n")})})
	for range 30 {
		var wide []object.TreeEntry
		for i := range 1000 {
			wide = append(wide, object.TreeEntry{Name: fmt.Sprintf("n%04d", i), Mode: filemode.Dir, Hash: level})
		}
		level = dir(wide...)
	}
	bounded(t, repo, plant(t, repo, object.TreeEntry{Name: "overlays", Mode: filemode.Dir, Hash: level}))
}

// A folder of more bytes than all names that may be there is not read.
func TestAFolderIsBoundedInBytes(t *testing.T) {
	repo := gittest.New(t)
	blob := gittest.Blob(t, repo.Storer, "a: 1\n")
	var long []object.TreeEntry
	for i := range 17_000 {
		long = append(long, object.TreeEntry{Name: fmt.Sprintf("%0225d.yaml", i), Mode: filemode.Regular, Hash: blob})
	}
	commit := plant(t, repo, object.TreeEntry{Name: "config", Mode: filemode.Dir, Hash: planter(t, repo)(long...)})
	rep, err := New(NewRepo(repo)).Check(context.Background(), commit, CheckOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(rep.Faults.Error(), "E_LIMIT_FILES the folder has too many entries") {
		t.Errorf("%v", rep.Faults)
	}
}

// planter makes trees that no work tree would become.
func planter(t *testing.T, repo *git.Repository) func(...object.TreeEntry) plumbing.Hash {
	return func(entries ...object.TreeEntry) plumbing.Hash {
		return put(t, repo, (&object.Tree{Entries: entries}).Encode)
	}
}

func put(t *testing.T, repo *git.Repository, encode func(plumbing.EncodedObject) error) plumbing.Hash {
	t.Helper()
	o := repo.Storer.NewEncodedObject()
	if err := encode(o); err != nil {
		t.Fatal(err)
	}
	h, err := repo.Storer.SetEncodedObject(o)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// plant commits a service that has one more folder.
func plant(t *testing.T, repo *git.Repository, folder object.TreeEntry) string {
	t.Helper()
	dir := planter(t, repo)
	service := dir(folder, object.TreeEntry{Name: "service.yaml", Mode: filemode.Regular, Hash: gittest.Blob(t, repo.Storer, "owner: x\n")})
	root := dir(
		object.TreeEntry{Name: "sealstone.yaml", Mode: filemode.Regular, Hash: gittest.Blob(t, repo.Storer, hostileRoot)},
		object.TreeEntry{Name: "services", Mode: filemode.Dir, Hash: dir(object.TreeEntry{Name: "s", Mode: filemode.Dir, Hash: service})},
	)
	who := object.Signature{Name: "a", Email: "a@example.com", When: gittest.Start}
	return put(t, repo, (&object.Commit{Author: who, Committer: who, TreeHash: root}).Encode).String()
}

func bounded(t *testing.T, repo *git.Repository, commit string) {
	t.Helper()
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	done, peak := make(chan struct{}), make(chan uint64)
	go func() {
		most := uint64(0)
		for {
			select {
			case <-done:
				peak <- most
				return
			case <-time.After(20 * time.Millisecond):
				var now runtime.MemStats
				runtime.ReadMemStats(&now)
				most = max(most, now.HeapAlloc-min(now.HeapAlloc, before.HeapAlloc))
			}
		}
	}()
	start := time.Now()
	rep, err := New(NewRepo(repo)).Check(context.Background(), commit, CheckOptions{})
	took := time.Since(start)
	close(done)
	if err != nil {
		t.Fatal(err)
	}
	most := <-peak
	t.Logf("%s, at most %d MiB, %d faults", took, most>>20, len(rep.Faults))
	if most > 512<<20 {
		t.Errorf("took %d MiB", most>>20)
	}
}
