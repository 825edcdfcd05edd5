package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/plan"
)

// reproduced is what build --reproduce found.
type reproduced struct {
	Digest    api.Digest `json:"digest"`
	Commit    string     `json:"commit"`
	Identical bool       `json:"identical"`
	What      string     `json:"what"` // what the digest is of, or the first difference
	Builds    []string   `json:"builds,omitempty"`
}

// reproduce builds a revision and says whether it has a set or bundle of this
// digest, and if not where it first differs.
func (a *app) reproduce(ctx context.Context, dir, rev, layout string, digest api.Digest, f bundler.BuildFilter) error {
	if !digest.Valid() {
		return fmt.Errorf("--reproduce %q: write sha256: and 64 hex digits", digest)
	}
	repo, commit, err := openCommit(dir, rev)
	if err != nil {
		return err
	}
	f.Mode = ""
	built, err := a.buildAll(ctx, bundler.New(repo), commit, f)
	if err != nil {
		return err
	}
	r := reproduced{Digest: digest, Commit: commit}
	if r.What = findDigest(built, digest); r.What != "" {
		r.Identical = true
	} else if r.What, err = a.firstDifference(ctx, layout, digest, built); err != nil {
		r.What = fmt.Sprintf("no set or bundle of this revision has this digest, and the old objects can't be had: %v", err)
		for _, b := range built {
			r.Builds = append(r.Builds, fmt.Sprintf("%s@%s %s", b.Service, b.Scope, b.Digest))
		}
	}
	if err := a.print(r, r.table); err != nil || r.Identical {
		return err
	}
	return exitCode(exitFinding)
}

func (r *reproduced) table(w io.Writer) {
	verdict := "differs"
	if r.Identical {
		verdict = "identical"
	}
	fmt.Fprintf(w, "%s: %s at %s: %s\n", verdict, r.Digest.Short(), short(r.Commit), printable(r.What))
	for _, b := range r.Builds {
		fmt.Fprintf(w, "  it builds %s\n", b)
	}
}

func findDigest(built []*bundler.Built, d api.Digest) string {
	for _, b := range built {
		if b.Digest == d {
			return fmt.Sprintf("the set of %s@%s", b.Service, b.Scope)
		}
		for _, e := range b.Entries {
			if e.Digest == d {
				return fmt.Sprintf("the bundle of %s@%s in mode %s", b.Service, e.Scope, e.Mode)
			}
		}
	}
	return ""
}

// oldObjects reads a layout, or asks the server.
func (a *app) oldObjects(ctx context.Context, layout string) (of func(service string) func(api.Digest) ([]byte, error), err error) {
	if layout != "" {
		return func(string) func(api.Digest) ([]byte, error) {
			return func(d api.Digest) ([]byte, error) {
				raw, err := os.ReadFile(filepath.Join(layout, "blobs", "sha256", d.Hex()))
				if err == nil && !d.Names(raw) {
					err = fmt.Errorf("the bytes of %s are others", d.Short())
				}
				return raw, err
			}
		}, nil
	}
	if a.server == "" {
		return nil, errors.New("pass --server URL or --layout DIR to see the first difference")
	}
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	return func(service string) func(api.Digest) ([]byte, error) { return c.objects(ctx, service) }, nil
}

// firstDifference compares what the digest names with what was built of the same
// service for the same scope.
func (a *app) firstDifference(ctx context.Context, layout string, digest api.Digest, built []*bundler.Built) (string, error) {
	objects, err := a.oldObjects(ctx, layout)
	if err != nil {
		return "", err
	}
	for i, b := range built {
		if i > 0 && built[i-1].Service == b.Service {
			continue
		}
		var old *resolved
		if old, err = identify(b.Service, objects(b.Service), digest); err != nil {
			continue
		}
		var what string
		if what, err = old.differs(built); err == nil {
			return what, nil
		}
	}
	return "", err
}

// differs compares with what was built; the outermost scope comes first.
func (r *resolved) differs(built []*bundler.Built) (string, error) {
	first := *r
	if r.Set != nil {
		first.Scope, first.Mode, first.Bundle = r.Set.Entries[0].Scope, r.Set.Entries[0].Mode, r.Set.Entries[0].Digest
	}
	if _, err := first.content(); err != nil { // of another service, perhaps
		return "", err
	}
	for _, b := range built {
		if b.Service != r.Service || r.Set != nil && b.Scope != first.Scope {
			continue
		}
		if r.Set != nil {
			return r.setDiffers(b)
		}
		for _, e := range b.Entries {
			if e.Mode == r.Mode {
				return r.bundleDiffers(b, e)
			}
		}
	}
	if r.Set != nil {
		return fmt.Sprintf("it is a set of %s@%s, which nothing builds here; pass --service and --scope", r.Service, first.Scope), nil
	}
	return fmt.Sprintf("it is a bundle of %s in mode %s, which this revision has not", r.Service, r.Mode), nil
}

func (r *resolved) setDiffers(b *bundler.Built) (string, error) {
	for i, e := range b.Entries {
		if i >= len(r.Set.Entries) || r.Set.Entries[i].Scope != e.Scope || r.Set.Entries[i].Mode != e.Mode {
			return fmt.Sprintf("set %s@%s: the bundles differ from %s in mode %s on", b.Service, b.Scope, e.Scope, e.Mode), nil
		}
		if r.Set.Entries[i].Digest != e.Digest {
			old := *r
			old.Mode, old.Bundle = e.Mode, r.Set.Entries[i].Digest
			return old.bundleDiffers(b, e)
		}
	}
	return fmt.Sprintf("set %s@%s: the old one has more bundles", b.Service, b.Scope), nil
}

func (r *resolved) bundleDiffers(b *bundler.Built, e bundle.Entry) (string, error) {
	old, err := r.content()
	if err != nil {
		return "", err
	}
	now := b.Bundles[e.Digest]
	opened, err := bundle.Open(e.Digest, now.Manifest, b.Service, e.Mode, func(d api.Digest) ([]byte, error) { return now.Blobs[d], nil })
	if err != nil {
		return "", err
	}
	at := fmt.Sprintf("%s@%s in mode %s", b.Service, e.Scope, e.Mode)
	diff, err := plan.Compare(old.Files, opened.Files)
	if err != nil {
		return "", err
	}
	if len(diff) > 0 {
		return at + ": " + firstItem(diff[0]), nil
	}
	return at + ": the same documents, under another manifest", nil
}

func firstItem(i plan.Item) string {
	text := fmt.Sprintf("%s %s %s", i.Kind, i.Name, i.Change)
	if i.Change == plan.Changed && len(i.Edits) > 0 {
		e := i.Edits[0]
		text += fmt.Sprintf(": %s was %s, is %s", e.Path, dash(e.Old), dash(e.New))
	}
	return text
}
