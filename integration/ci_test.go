package integration_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/integration/proctest"
	"github.com/sealstone/sealstone/ledger"
)

// thread is the comments of one pull request, as three forges' APIs show them.
type thread struct {
	*httptest.Server
	mu       sync.Mutex
	comments []map[string]any
	wrote    []string // method and path
}

func newThread(t *testing.T, token string) *thread {
	f := &thread{comments: []map[string]any{comment(1, "mallory", "<!-- sealstone-plan -->\nI was here first")}}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.Header.Get("Authorization"), " "+token) && r.Header.Get("PRIVATE-TOKEN") != token {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		var in struct{ Body string }
		if r.Method != http.MethodGet {
			f.wrote = append(f.wrote, r.Method+" "+r.URL.Path)
			if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
				t.Errorf("%s %s: %v", r.Method, r.URL, err)
			}
		}
		_ = json.NewEncoder(w).Encode(f.answer(r, in.Body))
	}))
	t.Cleanup(f.Close)
	return f
}

func comment(id int, user, body string) map[string]any {
	return map[string]any{"id": id, "body": body, "user": map[string]string{"login": user}, "author": map[string]string{"username": user}}
}

func (f *thread) answer(r *http.Request, body string) any {
	switch {
	case strings.HasSuffix(r.URL.Path, "/user"):
		return map[string]string{"username": "bot"}
	case r.Method == http.MethodPost:
		f.comments = append(f.comments, comment(len(f.comments)+1, "bot", body))
	case r.Method == http.MethodPatch, r.Method == http.MethodPut:
		for _, c := range f.comments {
			if strings.HasSuffix(r.URL.Path, fmt.Sprintf("/%d", c["id"])) {
				c["body"] = body
			}
		}
	case r.URL.Query().Get("page") > "1":
		return []any{}
	}
	return f.comments
}

type workflow struct {
	Jobs map[string]struct {
		Env   map[string]string
		Steps []struct {
			Name, Run string
			Env       map[string]string
		}
	}
}

var expression = regexp.MustCompile(`\$\{\{ *([^ }]+)[^}]*\}\}`)

// runSteps runs the shell steps of a workflow in a clone, as a runner does: the
// next step runs also after a failure, and each has the environment it asks for
// and nothing else.
func runSteps(t *testing.T, dir, file string, values map[string]string, more []string) (ok bool, out string) {
	t.Helper()
	var w workflow
	if err := yaml.Unmarshal([]byte(proctest.ReadFile(t, file)), &w); err != nil {
		t.Fatal(err)
	}
	ok = true
	for _, job := range w.Jobs {
		for _, step := range job.Steps {
			if step.Run == "" || step.Name == "Install" {
				continue
			}
			if strings.Contains(step.Run, "${{") {
				t.Errorf("%s: a branch's name or a title could end up in the script of %q", file, step.Name)
			}
			env := more
			for _, part := range []map[string]string{job.Env, step.Env} {
				for k, v := range part {
					env = append(env, k+"="+expression.ReplaceAllStringFunc(v, func(e string) string {
						value, known := values[expression.FindStringSubmatch(e)[1]]
						if !known {
							t.Fatalf("%s: %s has no value here", file, e)
						}
						return value
					}))
				}
			}
			text, err := shell(dir, step.Run, env)
			ok = ok && err == nil
			out += "== " + step.Name + "\n" + text
		}
	}
	return ok, out
}

func shell(dir, script string, env []string) (string, error) {
	cmd := exec.Command("sh", "-e", "-c", script)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + filepath.Dir(proctest.Program()) + ":" + os.Getenv("PATH"), "HOME=" + dir}, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// The example pipelines do what their README says: a plan as one comment that is
// replaced, never anybody else's, and a failure for a refused head.
func TestExamplePipelines(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"curl", "jq"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("needs %s, which is not installed", tool)
		}
	}
	r := proctest.New(t, examples.Shop())
	base := r.Push("Start")
	r.Git("switch", "-q", "-c", "faster")
	r.Edit("services/catalog/config/search.yaml", "cacheSeconds: 60", "cacheSeconds: 30")
	stolen := filepath.Join(r.Dir, "stolen")
	for _, name := range []string{"plan.md", "comment.json", "page.json"} {
		if err := os.Symlink(stolen, filepath.Join(r.Work, name)); err != nil {
			t.Fatal(err)
		}
	}
	r.Git("add", "-A")
	good := r.Commit("Cache less")
	r.Edit("services/catalog/config/search.yaml", "cacheSeconds: 30", "cacheSeconds: 10")
	better := r.Commit("Cache even less")
	r.Edit("services/catalog/config/search.yaml", "cacheSeconds: 10", "cacheSeconds: 0x10")
	bad := r.Commit("Cache oddly")
	r.Git("push", "-q", "origin", "faster")

	ci := filepath.Join("..", "examples", "ci")
	for _, c := range []struct{ name, update string }{
		{"github", "PATCH /repos/shop/config/issues/comments/2"},
		{"forgejo", "PATCH /api/v1/repos/shop/config/issues/comments/2"},
		{"gitlab", "PUT /api/projects/7/merge_requests/5/notes/2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newThread(t, "s3cret")
			run := func(head string) (bool, string) {
				dir := filepath.Join(t.TempDir(), "clone")
				proctest.Git(t, r.Dir, "clone", "-q", "--no-local", "file://"+r.Bare, dir)
				proctest.Git(t, dir, "checkout", "-q", head)
				if c.name == "gitlab" {
					return runGitLab(t, dir, filepath.Join(ci, "gitlab", "sealstone.yml"), []string{
						"CI_COMMIT_SHA=" + head, "CI_MERGE_REQUEST_DIFF_BASE_SHA=" + base, "SEALSTONE_BOT_TOKEN=s3cret",
						"CI_API_V4_URL=" + f.URL + "/api", "CI_PROJECT_ID=7", "CI_MERGE_REQUEST_IID=5"})
				}
				return runSteps(t, dir, filepath.Join(ci, c.name, "sealstone.yml"), map[string]string{
					"github.event.pull_request.base.sha": base, "github.event.pull_request.head.sha": head, "github.event.pull_request.number": "5",
					"github.token": "s3cret", "secrets.SEALSTONE_BOT_TOKEN": "s3cret", "vars.SEALSTONE_BOT": "bot",
					"github.api_url": f.URL, "github.server_url": f.URL, "github.repository": "shop/config",
				}, []string{"GITHUB_STEP_SUMMARY=" + filepath.Join(dir, "summary.md")})
			}
			for _, step := range []struct {
				head, says string
				ok         bool
			}{{good, "60 → 30", true}, {better, "60 → 10", true}, {bad, "E_YAML_NUMBER", false}} {
				ok, out := run(step.head)
				if ok != step.ok {
					t.Fatalf("ok is %v:\n%s", ok, out)
				}
				f.mu.Lock() // nobody writes any more; the race detector can't know
				body := fmt.Sprint(f.comments[len(f.comments)-1]["body"])
				f.mu.Unlock()
				if len(f.comments) != 2 || !strings.HasPrefix(body, "<!-- sealstone-plan -->\n") || !strings.Contains(body, step.says) {
					t.Fatalf("%d comments, the last %s\n%s", len(f.comments), body, out)
				}
			}
			if _, err := os.Lstat(stolen); err == nil {
				t.Error("a link of the branch is written through")
			}
			if len(f.wrote) != 3 || !strings.HasPrefix(f.wrote[0], "POST ") || f.wrote[1] != c.update || f.wrote[2] != c.update {
				t.Errorf("wrote %q", f.wrote)
			}
		})
	}
}

func runGitLab(t *testing.T, dir, file string, env []string) (bool, string) {
	t.Helper()
	var jobs map[string]struct{ Script []string }
	if err := yaml.Unmarshal([]byte(proctest.ReadFile(t, file)), &jobs); err != nil {
		t.Fatal(err)
	}
	out, err := shell(dir, strings.Join(jobs["sealstone"].Script, "\n"), env)
	return err == nil, out
}

// A deployment that a pipeline records is a signed change.
func TestExampleRecordsADeployment(t *testing.T) {
	t.Parallel()
	r := proctest.New(t, examples.Shop())
	s := r.Serve()
	s.UntilTip(r.Git("rev-parse", "HEAD"))
	artifact := filepath.Join(r.Dir, "checkout.tar")
	proctest.WriteFile(t, artifact, "what was deployed", 0o644)
	script, err := filepath.Abs(filepath.Join("..", "examples", "ci", "record-deploy.sh"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := shell(r.Dir, script, []string{"SEALSTONE_SERVER=" + s.URL, "SEALSTONE_TRUST=" + r.Trust, "RECORD_KEY=" + proctest.ReadFile(t, r.SRE),
		"SERVICE=checkout", "SCOPE=prod", "ARTIFACT=" + artifact, "VERSION=v1.2.3"})
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	found := s.Changes(ledger.DeployFinished)
	if len(found) != 1 || found[0].Event.Data.Artifact != string(api.DigestOf([]byte("what was deployed"))) || found[0].Event.Data.Version != "v1.2.3" {
		t.Errorf("recorded %+v", found)
	}
}
