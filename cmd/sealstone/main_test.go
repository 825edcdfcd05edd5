package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/rogpeppe/go-internal/testscript"
	"go.etcd.io/bbolt"

	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/integration/proctest"
)

func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "6"); err != nil { // scripts mostly wait for the disk; go test -parallel wins
		panic(err)
	}
	testscript.Main(m, map[string]func(){
		"sealstone": func() {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
			stop()
			os.Exit(code)
		},
	})
}

// Every command and every error, as a user sees them. SEALSTONE_UPDATE=1
// rewrites the golden files inside the scripts.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       os.Getenv("SEALSTONE_UPDATE") != "",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("NO_COLOR", "1")
			e.Setenv("GORACE", proctest.GORACE)
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("XDG_CONFIG_HOME", e.WorkDir+"/.config")
			for _, name := range []string{"SEALSTONE_SERVER", "SEALSTONE_KEY", "SEALSTONE_TRUST", "SEALSTONE_TOKEN_FILE", "SEALSTONE_CONTEXT", "SSH_AUTH_SOCK"} {
				e.Setenv(name, "")
			}
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"shop": cmdShop, "commit": cmdCommit, "keygen": cmdKeygen, "waitfor": cmdWaitFor, "setvar": cmdSetVar, "jsonvar": cmdJSONVar, "edit": cmdEdit, "until": cmdUntil, "rewrite": cmdRewrite, "post": cmdPost,
			"damage": cmdDamage, "relay": cmdRelay,
		},
	})
}

// shop DIR writes the example repository.
func cmdShop(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(os.CopyFS(ts.MkAbs(args[0]), examples.Shop()))
}

// commit DIR MESSAGE commits everything with a fixed author and time. It makes
// the repository when there is none.
func cmdCommit(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	repo, err := git.PlainOpen(dir)
	if err != nil {
		repo, err = git.PlainInitWithOptions(dir, &git.PlainInitOptions{InitOptions: git.InitOptions{DefaultBranch: plumbing.NewBranchReferenceName("main")}})
		ts.Check(err)
	}
	tree, err := repo.Worktree()
	ts.Check(err)
	ts.Check(tree.AddWithOptions(&git.AddOptions{All: true}))
	n := 0
	if head, err := repo.Head(); err == nil {
		log, err := repo.Log(&git.LogOptions{From: head.Hash()})
		ts.Check(err)
		ts.Check(log.ForEach(func(*object.Commit) error { n++; return nil }))
	}
	who := &object.Signature{Name: "Ada Editor", Email: "ada@shop.example", When: time.Date(2026, 11, 1, 9, n, 0, 0, time.UTC)}
	h, err := tree.Commit(args[1], &git.CommitOptions{Author: who, Committer: who})
	ts.Check(err)
	ts.Setenv("COMMIT", h.String())
}

// rewrite DIR MESSAGE replaces the newest commit by another one, as a force push
// does.
func cmdRewrite(ts *testscript.TestScript, _ bool, args []string) {
	repo, err := git.PlainOpen(ts.MkAbs(args[0]))
	ts.Check(err)
	tree, err := repo.Worktree()
	ts.Check(err)
	who := &object.Signature{Name: "Ada Editor", Email: "ada@shop.example", When: time.Date(2026, 11, 2, 9, 0, 0, 0, time.UTC)}
	h, err := tree.Commit(args[1], &git.CommitOptions{Author: who, Committer: who, Amend: true})
	ts.Check(err)
	ts.Setenv("COMMIT", h.String())
}

// keygen NAME writes an Ed25519 SSH key pair.
func cmdKeygen(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(writeSSHKey(ts.MkAbs(args[0]), args[0]))
}

// waitfor FILE waits until another process wrote a file.
func cmdWaitFor(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	for range 2000 {
		if b, err := os.ReadFile(path); err == nil && strings.HasSuffix(string(b), "\n") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("%s did not appear", args[0])
}

// setvar NAME FILE [PREFIX] puts a file's text into a variable.
func cmdSetVar(ts *testscript.TestScript, _ bool, args []string) {
	text := strings.TrimSpace(ts.ReadFile(args[1]))
	if len(args) > 2 {
		text = args[2] + text
	}
	ts.Setenv(args[0], text)
}

// jsonvar NAME PATH reads a dotted path out of the last command's JSON output.
func cmdJSONVar(ts *testscript.TestScript, _ bool, args []string) {
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &v))
	for part := range strings.SplitSeq(args[1], ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[part]
		case []any:
			var i int
			_, err := fmt.Sscan(part, &i)
			ts.Check(err)
			v = x[i]
		}
	}
	ts.Setenv(args[0], fmt.Sprint(v))
}

// edit FILE REGEXP REPLACEMENT changes a file.
func cmdEdit(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	old := ts.ReadFile(args[0])
	text := regexp.MustCompile(args[1]).ReplaceAllString(old, args[2])
	if text == old {
		ts.Fatalf("%s has nothing like %q", args[0], args[1])
	}
	ts.Check(os.WriteFile(filepath.Clean(path), []byte(text), 0o644))
}

// until REGEXP COMMAND ARG... repeats a command until its output matches: what
// a person does who waits for a server.
func cmdUntil(ts *testscript.TestScript, _ bool, args []string) {
	want := regexp.MustCompile(args[0])
	for range 1000 {
		if ts.Exec(args[1], args[2:]...) == nil && want.MatchString(ts.ReadFile("stdout")) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("%q never printed %q: %s", args[1:], args[0], ts.ReadFile("stderr"))
}

// damage FILE BUCKET flips a bit in the page that a bucket of a bbolt file starts
// at; without BUCKET, in the name that the root page has first; with an INDEX
// behind it, in the value of that row.
func cmdDamage(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	whole := filepath.Join(ts.Getenv("WORK"), "damage.db") // a server may have the file itself locked
	ts.Check(os.WriteFile(whole, []byte(ts.ReadFile(args[0])), 0o600))
	db, err := bbolt.Open(whole, 0o600, nil)
	ts.Check(err)
	defer db.Close()
	ts.Check(db.View(func(tx *bbolt.Tx) error {
		page := int64(tx.Cursor().Bucket().Root()) * int64(db.Info().PageSize)
		at := page + int64(bytes.Index([]byte(ts.ReadFile(args[0]))[page:], []byte("format")))
		if len(args) > 1 {
			at = int64(tx.Bucket([]byte(args[1])).Root())*int64(db.Info().PageSize) + 8 // its flags
		}
		if len(args) > 2 {
			index, err := strconv.ParseUint(args[2], 10, 64)
			ts.Check(err)
			v := tx.Bucket([]byte(args[1])).Get(binary.BigEndian.AppendUint64(nil, index))
			at = int64(uintptr(unsafe.Pointer(&v[len(v)/2])) - db.Info().Data)
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		var b [1]byte
		_, err1 := f.ReadAt(b[:], at)
		b[0] ^= 1
		_, err2 := f.WriteAt(b[:], at)
		return errors.Join(err1, err2)
	}))
}

// post PATH FILE sends a file to the server as JSON; its answer is the stdout.
func cmdPost(ts *testscript.TestScript, _ bool, args []string) {
	res, err := http.Post(ts.Getenv("SEALSTONE_SERVER")+args[0], "application/json", strings.NewReader(ts.ReadFile(args[1])))
	ts.Check(err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	ts.Check(err)
	if res.StatusCode >= 300 {
		ts.Fatalf("%s: %s", res.Status, b)
	}
	_, _ = ts.Stdout().Write(b)
}
