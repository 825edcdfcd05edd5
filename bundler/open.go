package bundler

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/storage/filesystem/dotgit"
)

// openStore opens the repository of a folder: a work tree, or bare; with up, also
// that of the nearest folder above.
func openStore(dir string, up bool) (*sharedObjects, *git.Repository, error) {
	at, err := gitDir(dir, up)
	if err != nil {
		return nil, nil, err
	}
	common, err := pathIn(filepath.Join(at, "commondir"), "")
	if errors.Is(err, fs.ErrNotExist) {
		common = at
	} else if err != nil {
		return nil, nil, err
	}
	files := dotgit.NewRepositoryFilesystem(osfs.New(at), osfs.New(common))
	store := newSharedObjects(files.Root(), files)
	r, err := git.Open(store, nil)
	return store, r, err
}

// gitDir finds what holds the objects of a work tree: .git, or where the file of
// that name points to, as in a further work tree or a submodule.
func gitDir(dir string, up bool) (string, error) {
	path, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for at := path; ; at = filepath.Dir(at) {
		dot := filepath.Join(at, git.GitDirName)
		info, err := os.Stat(dot)
		switch {
		case err == nil && info.IsDir():
			return dot, nil
		case err == nil:
			return pathIn(dot, "gitdir: ")
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		case !up || at == filepath.Dir(at):
			return path, nil
		}
	}
}

// pathIn reads a small file that names a path, relative to its own folder.
func pathIn(file, prefix string) (string, error) {
	f, err := openRegular(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	path, ok := strings.CutPrefix(line, prefix)
	if path = strings.TrimSpace(path); !ok || path == "" {
		return "", fmt.Errorf("%s names no folder: %w", file, git.ErrRepositoryNotExists)
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(file), path)
	}
	return path, nil
}

// openRegular opens no pipe and no device: the first waits for ever for somebody
// to write, the second has no end.
func openRegular(file string) (*os.File, error) {
	if info, err := os.Stat(file); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", file)
	}
	return os.Open(file)
}

// harmless are the extensions of Git's format that change nothing about refs and
// objects. A sparse checkout sets the first one, a partial clone the second.
var harmless = []string{"worktreeConfig", "partialClone", "preciousObjects", "relativeWorktrees"}

// Config leaves the harmless extensions out: go-git refuses a repository that has
// any.
func (s *sharedObjects) Config() (*config.Config, error) {
	cfg, err := s.ConfigStorer.Config()
	if err != nil || !cfg.Raw.HasSection("extensions") {
		return cfg, err
	}
	for _, name := range harmless {
		cfg.Raw.Section("extensions").RemoveOption(name)
	}
	return cfg, nil
}
