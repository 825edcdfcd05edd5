package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// A fleet is a repository of services, with files of about 400 bytes. The same
// fleet has the same commit ids on every machine.
type fleet struct {
	services int
	docs     int // of a service, at least 10; there are 6 other files
	commits  int
}

// The last commits are what is measured, each with a tag: the edits of each
// kind follow one another.
const (
	edits   = 5 // of each kind
	teams   = 20
	started = 1_767_268_800 // 2026-01-01T12:00:00Z
)

// kinds are the edits, in the order of their commits.
var kinds = []string{"file", "schema", "common"}

func ref(kind string, n int) string { return fmt.Sprintf("refs/tags/%s-%d", kind, n) }

// generate makes the bare repository at dir: history by git fast-import, then
// one pack, as a host would send it.
func (f fleet) generate(dir string) error {
	if err := git(dir, "init", "-q", "--bare", "-b", "main", "."); err != nil {
		return err
	}
	cmd := exec.Command("git", "fast-import", "--quiet", "--date-format=raw")
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	w := bufio.NewWriterSize(in, 1<<20)
	f.history(w)
	err = w.Flush()
	if cerr := in.Close(); err == nil {
		err = cerr
	}
	if werr := cmd.Wait(); werr != nil {
		return werr
	}
	if err != nil {
		return err
	}
	return git(dir, "repack", "-adfq", "--threads=1")
}

func git(dir string, args ...string) error {
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("git %s: %w", args[0], err)
	}
	return nil
}

func (f fleet) history(w io.Writer) {
	early := f.commits - edits*len(kinds)
	for n := range early {
		name := "refs/heads/main"
		commit(w, name, n)
		if n == 0 {
			f.everything(w)
			continue
		}
		file(w, docPath(n*37%f.services, n%f.docs), document(n*37%f.services, n%f.docs, n))
	}
	for k, kind := range kinds {
		for i := range edits {
			n := early + k*edits + i
			commit(w, "refs/heads/main", n)
			f.edit(w, kind, n)
			fmt.Fprintf(w, "reset %s\nfrom refs/heads/main\n\n", ref(kind, i))
		}
	}
}

func (f fleet) edit(w io.Writer, kind string, n int) {
	switch kind {
	case "file":
		s := editedService(f.services, n-(f.commits-edits*len(kinds)))
		file(w, docPath(s, 9), document(s, 9, n))
	case "schema":
		file(w, schemaPath(n%teams), schema(n))
	case "common":
		file(w, "common/config/log.yaml", fmt.Sprintf("level: info\nsample: %d\n", n))
	}
}

// editedService is the one that the n-th edit of a file is in.
func editedService(services, n int) int { return (n*37 + 11) % services }

func commit(w io.Writer, name string, n int) {
	fmt.Fprintf(w, "commit %s\ncommitter Ada <ada@example.com> %d +0000\ndata %d\n%s\n", name, started+60*n, len(fmt.Sprint(n)), fmt.Sprint(n))
}

func file(w io.Writer, path, text string) {
	fmt.Fprintf(w, "M 100644 inline %s\ndata %d\n%s\n", path, len(text), text)
}

func (f fleet) everything(w io.Writer) {
	file(w, "sealstone.yaml", "version: 1\nlevels: [env, region, pool]\nscopes: [staging, prod, prod/eu-west-1, prod/us-east-1]\n")
	for t := range teams {
		file(w, schemaPath(t), schema(0))
	}
	file(w, "common/service.yaml", "schemas: {config/log: none}\n")
	file(w, "common/config/log.yaml", "level: info\n")
	for s := range f.services {
		f.service(w, s)
	}
}

func (f fleet) service(w io.Writer, s int) {
	name := fmt.Sprintf("svc-%04d", s)
	dir := "services/" + name + "/"
	file(w, dir+"service.yaml", fmt.Sprintf("owner: team-%02d\nschemas: {'config/*': team-%02d}\n", s%teams, s%teams))
	for d := range f.docs {
		file(w, docPath(s, d), document(s, d, 0))
	}
	file(w, dir+"overlays/prod/config/doc-00.yaml", "timeout: 5\n")
	file(w, dir+"overlays/prod/eu-west-1/config/doc-01.yaml", "timeout: 6\n")
	file(w, dir+"safe-modes/calm/safe-mode.yaml", "description: less work\nowner: on-call\n")
	file(w, dir+"safe-modes/calm/config/doc-02.yaml", "timeout: 7\n")
	file(w, dir+"flags/flags.yaml", "flags:\n  a: {state: ENABLED, variants: {on: true, off: false}, defaultVariant: off}\n")
	file(w, "activations/"+name+".yaml", "service: "+name+"\nactivations:\n  - {scope: staging, release: latest}\n  - {scope: prod, release: latest}\n")
}

func docPath(s, d int) string  { return fmt.Sprintf("services/svc-%04d/config/doc-%02d.yaml", s, d) }
func schemaPath(t int) string  { return fmt.Sprintf("schemas/team-%02d.schema.json", t) }
func (f fleet) files() int     { return f.services * (f.docs + 6) }
func (f fleet) activated() int { return 2 * f.services }
func schema(edit int) string {
	return fmt.Sprintf(`{"type":"object","required":["timeout"],"properties":{"timeout":{"type":"integer","maximum":%d}}}`, 1_000_000_000+edit)
}

func document(s, d, edit int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "timeout: %d\n", s*100+d+edit*1000)
	for i := range 12 {
		fmt.Fprintf(&b, "setting-%02d: \"value of %d and %d\"\n", i, s, d)
	}
	return b.String()
}
