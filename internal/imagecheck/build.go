package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// builder runs the stages, each below a folder that stands for its file system.
type builder struct {
	df      *dockerfile
	context string
	root    string
	env     []string // on top of this machine's
	umask   string   // of RUN, "" for this machine's
	log     io.Writer

	missing []string // copied from a base image that isn't here
}

// at is where a path of a stage lies on this machine.
func (b *builder) at(stage int, p string) string {
	return filepath.Join(b.root, fmt.Sprint(stage), filepath.FromSlash(path.Clean("/"+p)))
}

func (b *builder) binary() string { return b.at(len(b.df.stages)-1, b.df.entrypoint()) }

func (b *builder) build() error {
	for i := range b.df.stages {
		if err := os.MkdirAll(b.at(i, "/"), 0o755); err != nil {
			return err
		}
		if err := b.stage(i); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) stage(i int) error {
	vars := map[string]string{} // ARG and ENV, for expansion
	env := map[string]string{}
	dir := "/"
	for _, s := range b.df.stages[i].steps {
		args := s.args
		if s.verb != "RUN" {
			args = expand(args, vars)
		}
		var err error
		switch s.verb {
		case "WORKDIR":
			if dir = args; !path.IsAbs(dir) {
				err = fmt.Errorf("WORKDIR must be absolute")
			} else {
				err = os.MkdirAll(b.at(i, dir), 0o755)
			}
		case "ARG":
			name, value, _ := strings.Cut(args, "=")
			vars[name], env[name] = value, value
		case "ENV":
			for word := range strings.FieldsSeq(args) {
				name, value, _ := strings.Cut(word, "=")
				vars[name], env[name] = value, value
			}
		case "COPY":
			err = b.copy(i, dir, args)
		case "RUN":
			err = b.run(b.at(i, dir), args, env)
		}
		if err != nil {
			return fmt.Errorf("line %d: %s %s: %w", s.line, s.verb, args, err)
		}
	}
	return nil
}

func (b *builder) run(dir, command string, env map[string]string) error {
	if b.umask != "" {
		command = "umask " + b.umask + "; " + command
	}
	cmd := exec.Command("sh", "-ec", command)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), b.env...)
	for _, name := range slices.Sorted(maps.Keys(env)) {
		cmd.Env = append(cmd.Env, name+"="+env[name])
	}
	cmd.Stdout, cmd.Stderr = b.log, b.log
	return cmd.Run()
}

// copy does COPY [--from=STAGE] [--chown=...] SOURCE... DEST.
func (b *builder) copy(at int, dir, args string) error {
	from := -1
	var words []string
	for word := range strings.FieldsSeq(args) {
		if name, ok := strings.CutPrefix(word, "--from="); ok {
			from = slices.IndexFunc(b.df.stages, func(s *stage) bool { return s.name == name })
			if from < 0 || from >= at {
				return fmt.Errorf("no earlier stage %q", name)
			}
		} else if !strings.HasPrefix(word, "--") {
			words = append(words, word)
		}
	}
	if len(words) < 2 {
		return fmt.Errorf("want sources and a destination")
	}
	dest := words[len(words)-1]
	for _, source := range words[:len(words)-1] {
		if err := b.copyOne(at, from, dir, source, dest); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) copyOne(stage, from int, dir, source, dest string) error {
	to := path.Join(dir, dest)
	if path.IsAbs(dest) {
		to = dest
	}
	if from < 0 {
		return b.copyContext(b.at(stage, to), source, strings.HasSuffix(dest, "/"))
	}
	src := b.at(from, source)
	info, err := os.Stat(src)
	switch {
	case os.IsNotExist(err):
		b.missing = append(b.missing, source)
		fmt.Fprintf(b.log, "image-check: %s comes from the base image %s, which is taken on trust\n", source, b.df.stages[from].from)
		return nil
	case err != nil:
		return err
	case info.IsDir():
		if err := os.MkdirAll(b.at(stage, to), 0o755); err != nil {
			return err
		}
		return os.CopyFS(b.at(stage, to), os.DirFS(src))
	}
	return copyFile(b.at(stage, to), src)
}

// copyContext copies what an engine would be sent: the files that Git knows or
// would add. Anything else on this machine must not change the image.
func (b *builder) copyContext(to, source string, intoFolder bool) error {
	out, err := exec.Command("git", "-c", "safe.directory=*", "-C", b.context, "ls-files", "-z",
		"--cached", "--others", "--exclude-standard", "--", source).Output()
	if err != nil {
		return fmt.Errorf("git ls-files: %w", err)
	}
	names := strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 })
	if len(names) == 0 {
		return fmt.Errorf("%s is not in the build context", source)
	}
	info, err := os.Stat(filepath.Join(b.context, source))
	if err != nil {
		return err
	}
	for _, name := range names {
		target := filepath.Join(to, name)
		if !info.IsDir() && !intoFolder {
			target = to
		}
		if err := copyFile(target, filepath.Join(b.context, name)); err != nil && !os.IsNotExist(err) {
			return err // a deleted file is listed until the deletion is added
		}
	}
	return nil
}

func copyFile(to, from string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, b, info.Mode().Perm())
}
