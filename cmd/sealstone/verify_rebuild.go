package main

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundler"
)

// rebuild builds every set that the log named from Git again. A repository that
// can't be read says nothing about the log: that is an error, not a finding.
func (a *app) rebuild(ctx context.Context, url string, v *verification) error {
	branch := "main"
	if len(v.activations) > 0 {
		branch = strings.TrimPrefix(v.activations[0].data.Release.Ref, "refs/heads/")
	}
	repo, closeRepo, err := openAnyRepo(ctx, url, branch)
	if err != nil {
		return &api.Error{Detail: "--rebuild: " + err.Error(), Err: err, Hint: "pass --repo with the path or URL of the repository that the log was built from"}
	}
	defer closeRepo()
	b := bundler.New(repo)
	count, stop := a.counting("verifying", "sets")
	defer stop()
	for i, act := range v.activations {
		count(int64(i), int64(len(v.activations)))
		rel := act.data.Release
		built, err := b.Rebuild(ctx, rel.Commit, act.data.Service, act.data.Scope)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			v.find("entry %d: commit %s can't be built: %v", act.index, short(rel.Commit), err)
		case built.Digest != act.data.Set.Digest:
			v.find("entry %d: %s at %s was activated as %s, but commit %s builds to %s", act.index, act.data.Service, act.data.Scope,
				act.data.Set.Digest, short(rel.Commit), built.Digest)
		default:
			v.Rebuilt++
		}
	}
	return nil
}

// openAnyRepo opens a local repository, or fetches a remote one for this run.
func openAnyRepo(ctx context.Context, url, branch string) (*bundler.Repo, func(), error) {
	if url == "" {
		return nil, nil, errors.New("which repository? pass --repo URL")
	}
	if !strings.Contains(url, "://") {
		repo, err := bundler.OpenRepo(url)
		return repo, func() {}, err
	}
	dir, err := os.MkdirTemp("", "sealstone-rebuild-")
	if err != nil {
		return nil, nil, err
	}
	cleanup := func() { _ = os.RemoveAll(dir) }
	src, err := bundler.OpenSource(bundler.SourceConfig{URL: url, Branch: branch, Dir: dir})
	if err == nil {
		_, err = src.Fetch(ctx)
	}
	if err != nil {
		cleanup()
		return nil, nil, err
	}
	return bundler.NewRepo(src.Git()), func() { _ = src.Close(); cleanup() }, nil
}
