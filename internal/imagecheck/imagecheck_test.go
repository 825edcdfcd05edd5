package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const goodDockerfile = `ARG GO=golang
FROM ${GO}:1 AS build
WORKDIR /src
COPY . .
ARG VERSION=v1
ENV CGO_ENABLED=0
RUN go build -trimpath -ldflags "-s -w -buildid= -X main.v=${VERSION}" \
    -o out/hello .
FROM scratch
COPY --from=build /etc/ssl/ca.crt /etc/ssl/ca.crt
COPY --from=build /src/out/hello /hello
USER 65532:65532
ENTRYPOINT ["/hello"]
`

// project writes a small Go program with a Dockerfile into a Git repository.
func project(t *testing.T, dockerfile string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"Dockerfile": dockerfile,
		"go.mod":     "module example.org/hello\n\ngo 1.26\n",
		"main.go":    "package main\n\nvar v string\n\nfunc main() { print(v) }\n",
		".gitignore": "secret.go\n",
		"secret.go":  "this must not reach the build",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("git", "-C", dir, "init", "-q").CombinedOutput(); err != nil {
		t.Skipf("needs git: %s", out)
	}
	return filepath.Join(dir, "Dockerfile")
}

func TestGoodImagePasses(t *testing.T) {
	if testing.Short() {
		t.Skip("builds twice")
	}
	t.Setenv("GOFLAGS", "-buildvcs=false")
	var out strings.Builder
	if err := run(project(t, goodDockerfile), true, &out); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"sha256:", "user 65532:65532", "taken on trust"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}

func TestBuiltFaultsAreFound(t *testing.T) {
	if testing.Short() {
		t.Skip("builds")
	}
	t.Setenv("GOFLAGS", "-buildvcs=false")
	for _, c := range []struct{ name, old, new, want string }{
		{"build path", "-trimpath", "", "-trimpath"},
		{"symbols", "-s -w ", "", "not stripped"},
		{"random bytes", "v=${VERSION}", "v=$(od -An -N8 -tx8 ../../../../../../../../../dev/urandom | tr -d ' ')", "two builds differ"},
		{"a shell", "/hello /hello", "/hello /hello\nCOPY --from=build /src/go.mod /bin/sh", "a shell"},
		{"a base program", "/etc/ssl/ca.crt /etc", "/bin/cat /etc", "/bin/cat is copied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.Replace(goodDockerfile, c.old, c.new, 1)
			err := run(project(t, text), true, io.Discard)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q in it", err, c.want)
			}
		})
	}
}

func TestDockerfileFaultsAreFound(t *testing.T) {
	for _, c := range []struct{ name, old, new, want string }{
		{"root", "USER 65532:65532", "USER 0", "numeric user"},
		{"a named user", "USER 65532:65532", "USER nobody", "numeric user"},
		{"no user", "USER 65532:65532", "", "numeric user"},
		{"root's group", "USER 65532:65532", "USER 65532:0", "numeric user"},
		{"a distribution", "FROM scratch", "FROM alpine", "want scratch"},
		{"shell form", `["/hello"]`, "/hello", "exec form"},
		{"late RUN", "USER", "RUN true\nUSER", "needs a shell"},
		{"absolute path", "-o out/hello", "-o /out/hello", "absolute path"},
	} {
		t.Run(c.name, func(t *testing.T) {
			df, err := parse(strings.Replace(goodDockerfile, c.old, c.new, 1))
			if err != nil {
				t.Fatal(err)
			}
			var all []string
			for _, err := range judgeDockerfile(df) {
				all = append(all, err.Error())
			}
			if len(all) != 1 || !strings.Contains(all[0], c.want) {
				t.Errorf("got %q, want %q", all, c.want)
			}
		})
	}
	if _, err := parse(strings.Replace(goodDockerfile, "USER", "HEALTHCHECK", 1)); err == nil {
		t.Error("an unknown instruction is taken")
	}
}

func TestOurDockerfileIsWellFormed(t *testing.T) {
	text, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	df, err := parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range judgeDockerfile(df) {
		t.Error(err)
	}
}
