// Command imagecheck runs a Dockerfile's build steps without a container engine
// and judges the image that would come out: one static binary, the same bytes
// from two builds, a numeric user that isn't root, no shell.
//
// The steps come out of the Dockerfile itself, so the check can't drift from
// it. What it can't do without an engine, it refuses instead of skipping: RUN
// lines in the last stage, and absolute paths in RUN lines. The base image of
// the build stage is the one thing taken on trust; this machine's Go stands in
// for it.
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

func main() {
	file := flag.String("f", "Dockerfile", "the Dockerfile; its folder is the build context")
	quick := flag.Bool("quick", false, "share the build cache between both builds: faster, proves less")
	flag.Parse()
	if err := run(*file, *quick, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "image-check:", err)
		os.Exit(1)
	}
}

func run(file string, quick bool, out io.Writer) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	df, err := parse(string(text))
	if err != nil {
		return err
	}
	problems := judgeDockerfile(df)
	digest, more, err := buildTwice(df, filepath.Dir(file), quick, out)
	if err != nil {
		return errors.Join(append(problems, err)...)
	}
	if problems = append(problems, more...); len(problems) > 0 {
		return errors.Join(problems...)
	}
	_, err = fmt.Fprintf(out, "image-check: static, reproducible, user %s, no shell\nsha256:%s  %s\n", df.final().user, digest, df.entrypoint())
	return err
}

// buildTwice builds in two folders of different names and depths, the second
// time with another time zone, home and umask, and without a build cache.
func buildTwice(df *dockerfile, context string, quick bool, out io.Writer) (digest string, problems []error, err error) {
	temp, err := os.MkdirTemp("", "imagecheck")
	if err != nil {
		return "", nil, err
	}
	defer removeAll(temp)
	first := &builder{df: df, context: context, root: filepath.Join(temp, "a"), log: out}
	second := &builder{df: df, context: context, root: filepath.Join(temp, "elsewhere", "b"), log: out,
		env: []string{"TZ=Pacific/Kiritimati", "LC_ALL=C", "USER=somebody"}, umask: "077"}
	if !quick {
		second.env = append(second.env, "GOCACHE="+filepath.Join(temp, "cache"))
	}
	var sums [2]string
	for i, b := range []*builder{first, second} {
		fmt.Fprintf(out, "image-check: build %d\n", i+1)
		if err := b.build(); err != nil {
			return "", nil, fmt.Errorf("build %d: %w", i+1, err)
		}
		if sums[i], err = sumFile(b.binary()); err != nil {
			return "", nil, err
		}
	}
	problems = append(problems, judgeRoot(first)...)
	problems = append(problems, judgeBinary(first.binary(), []string{temp})...)
	if sums[0] != sums[1] {
		problems = append(problems, fmt.Errorf("two builds differ: sha256 %s and %s", sums[0], sums[1]))
	}
	return sums[0], problems, nil
}

// removeAll also removes folders that a build made read-only.
func removeAll(dir string) {
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			os.Chmod(path, 0o700)
		}
		return nil
	})
	os.RemoveAll(dir)
}

func sumFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
