package bundler_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing/object"
	"go.yaml.in/yaml/v3"

	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/internal/gittest"
)

// fleet is a repository of services with 50 files each, about 400 bytes a file.
func fleet(services int) map[string]string {
	files := map[string]string{
		"sealstone.yaml":           "version: 1\nlevels: [env, region, pool]\nscopes: [staging, prod, prod/eu-west-1, prod/us-east-1]\n",
		"schemas/http.schema.json": `{"type":"object","required":["timeout"],"properties":{"timeout":{"type":"integer"}}}`,
		"common/service.yaml":      "schemas: {config/log: none}\n",
		"common/config/log.yaml":   "level: info\n",
	}
	for s := range services {
		dir := fmt.Sprintf("services/svc-%04d/", s)
		files[dir+"service.yaml"] = "owner: x\nschemas: {'config/*': http}\n"
		for d := range 44 {
			files[fmt.Sprintf("%sconfig/doc-%02d.yaml", dir, d)] = document(s, d)
		}
		files[dir+"overlays/prod/config/doc-00.yaml"] = "timeout: 5\n"
		files[dir+"overlays/prod/eu-west-1/config/doc-01.yaml"] = "timeout: 6\n"
		files[dir+"safe-modes/calm/safe-mode.yaml"] = "description: x\nowner: y\n"
		files[dir+"safe-modes/calm/config/doc-02.yaml"] = "timeout: 7\n"
		files[dir+"flags/flags.yaml"] = "flags:\n  a: {state: ENABLED, variants: {on: true, off: false}, defaultVariant: off}\n"
		files[fmt.Sprintf("activations/svc-%04d.yaml", s)] = fmt.Sprintf("service: svc-%04d\nactivations:\n  - {scope: staging, release: latest}\n  - {scope: prod, release: latest}\n", s)
	}
	return files
}

func document(s, d int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "timeout: %d\n", s*100+d)
	for i := range 12 {
		fmt.Fprintf(&b, "setting-%02d: \"value of %d and %d\"\n", i, s, d)
	}
	return b.String()
}

// fleetSize is 20,000 files; SEALSTONE_BENCH_SERVICES=1000 makes it 50,000.
func fleetSize() int {
	n := 400
	fmt.Sscan(os.Getenv("SEALSTONE_BENCH_SERVICES"), &n)
	return n
}

// diskFleet commits the fleet through the ordinary storage, packed by a clone.
func diskFleet(b *testing.B) (dir string, files map[string]string) {
	files = fleet(fleetSize())
	mem := gittest.New(b)
	gittest.Commit(b, mem, files)
	gittest.Next(b, mem, files, map[string]string{"services/svc-0000/config/doc-03.yaml": "timeout: 1\n"})
	dir = b.TempDir()
	pack(b, mem, dir)
	return dir, files
}

func BenchmarkColdBuild(b *testing.B) {
	dir, _ := diskFleet(b)
	b.Run("build", func(b *testing.B) {
		for b.Loop() {
			build(b, dir)
		}
	})
	b.Run("check", func(b *testing.B) {
		for b.Loop() {
			repo, _ := bundler.OpenRepo(dir)
			commit, _ := repo.Resolve("HEAD")
			rep, err := bundler.New(repo).Check(context.Background(), commit, bundler.CheckOptions{})
			if err != nil || len(rep.Faults) > 0 {
				b.Fatal(err, rep)
			}
		}
	})
	b.Run("clone+parse", func(b *testing.B) {
		for b.Loop() {
			cloneAndParse(b, dir, filepath.Join(b.TempDir(), "c"))
		}
	})
	b.Run("go-git read", func(b *testing.B) {
		for b.Loop() {
			readAll(b, dir, func([]byte) {})
		}
	})
}

func build(b *testing.B, dir string) (*bundler.Builder, string) {
	repo, err := bundler.OpenRepo(dir)
	if err != nil {
		b.Fatal(err)
	}
	commit, err := repo.Resolve("HEAD")
	if err != nil {
		b.Fatal(err)
	}
	built := bundler.New(repo)
	if all, faults := built.BuildAll(context.Background(), commit, bundler.BuildFilter{}); len(faults) > 0 || len(all) == 0 {
		b.Fatal(faults)
	}
	return built, commit
}

func cloneAndParse(b *testing.B, from, to string) {
	if _, err := git.PlainClone(to, true, &git.CloneOptions{URL: from}); err != nil {
		b.Fatal(err)
	}
	readAll(b, to, func(raw []byte) {
		var n yaml.Node
		if err := yaml.Unmarshal(raw, &n); err != nil {
			b.Fatal(err)
		}
	})
}

func readAll(b *testing.B, dir string, use func([]byte)) {
	repo, err := git.PlainOpen(dir)
	if err != nil {
		b.Fatal(err)
	}
	head, err := repo.Head()
	if err != nil {
		b.Fatal(err)
	}
	c, err := repo.CommitObject(head.Hash())
	if err != nil {
		b.Fatal(err)
	}
	tree, err := c.Tree()
	if err != nil {
		b.Fatal(err)
	}
	if err := tree.Files().ForEach(func(f *object.File) error {
		s, err := f.Contents()
		if strings.HasSuffix(f.Name, ".yaml") {
			use([]byte(s))
		}
		return err
	}); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkBuildAfterOneFile goes to and fro between two commits that differ in
// one file. The tips' memory is what makes it cheap, so each run is a new pair.
func BenchmarkBuildAfterOneFile(b *testing.B) {
	ctx := context.Background()
	repo := gittest.New(b)
	files := fleet(fleetSize())
	commit := gittest.Commit(b, repo, files)
	built := bundler.New(bundler.NewRepo(repo))
	if _, faults := built.BuildAll(ctx, commit, bundler.BuildFilter{}); len(faults) > 0 {
		b.Fatal(faults)
	}
	n := 0
	for b.Loop() {
		b.StopTimer()
		n++
		commit, files = gittest.Next(b, repo, files, map[string]string{"services/svc-0007/config/doc-09.yaml": fmt.Sprintf("timeout: %d\n", n)})
		b.StartTimer()
		if all, faults := built.BuildAll(ctx, commit, bundler.BuildFilter{}); len(faults) > 0 || len(all) != 2*fleetSize() {
			b.Fatal(faults)
		}
	}
}
