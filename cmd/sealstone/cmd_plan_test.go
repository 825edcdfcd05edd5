package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/sealstone/sealstone/examples"
)

// A server that lies, or answers what is no answer, stops no plan: what it says
// is not believed, and shows as what could not be counted.
func TestPlanWithAHostileServer(t *testing.T) {
	dir := shopRepository(t)
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"an error with escapes": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusInternalServerError)
			_, _ = w.Write([]byte(`{"error":{"code":"internal","detail":"\u001b[31mmine"}}`))
		}, "instances are not counted: "},
		"a page":          {text("text/html", "<h1>Sign in</h1>"), "instances are not counted: "},
		"nothing":         {text("application/json", ""), "instances are not counted: "},
		"another type":    {text("application/json", `{"services": 5, "inForce": "x"}`), "instances are not counted: "},
		"deep":            {text("application/json", `{"services": `+strings.Repeat("[", 20000)), "instances are not counted: "},
		"a tip of no use": {text("application/json", `{"source": {"tip": "--upload-pack=\u001b]0;x\u0007"}}`), `the server accepted --upload-pac`},
		"a tip elsewhere": {text("application/json", `{"source": {"tip": "`+strings.Repeat("ab", 20)+`"}}`), "the server accepted abababababab, which is not in this clone"},
		"proofs of nothing": {text("application/json", `{"services": [{"service": "checkout", "scopes": [{"scope": "prod", "proven": {"set": "x", "release": "x"}}, {"scope": "../..", "proven": null}]}],
			"inForce": [{"service": "checkout", "scope": "prod", "mode": "\u001b"}], "rejected": [{"service": "\u001b"}]}`), "NONE  nothing that is served changes"},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(c.answer)
			defer s.Close()
			var out, errs bytes.Buffer
			code := run(t.Context(), []string{"plan", dir, "--server", s.URL, "--base", "HEAD", "--head", "HEAD"}, nil, &out, &errs)
			if code != 0 || !strings.Contains(out.String(), c.want) || strings.ContainsRune(out.String()+errs.String(), '\x1b') {
				t.Errorf("exit %d, no %q in\n%s%s", code, c.want, out.String(), errs.String())
			}
		})
	}
}

func text(kind, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		_, _ = w.Write([]byte(body))
	}
}

// shopRepository is the example's files in one commit.
func shopRepository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	repo, err := git.PlainInit(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, examples.Shop()); err != nil {
		t.Fatal(err)
	}
	tree, err := repo.Worktree()
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.AddWithOptions(&git.AddOptions{All: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Commit("Start", &git.CommitOptions{Author: &object.Signature{Name: "Ada", Email: "ada@shop.example"}}); err != nil {
		t.Fatal(err)
	}
	return dir
}
