package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
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

// An oldObject gets what is named by a digest; kind is manifests or blobs.
type oldObject func(ctx context.Context, service, kind string, d api.Digest) ([]byte, error)

// oldObjects reads a layout, or asks the server.
func (a *app) oldObjects(layout string) (oldObject, error) {
	if layout != "" {
		return func(_ context.Context, _, _ string, d api.Digest) ([]byte, error) {
			return os.ReadFile(filepath.Join(layout, "blobs", "sha256", d.Hex()))
		}, nil
	}
	if a.server == "" {
		return nil, errors.New("pass --server URL or --layout DIR to see the first difference")
	}
	c, err := a.client()
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, service, kind string, d api.Digest) ([]byte, error) {
		return c.do(ctx, http.MethodGet, "/v2/"+service+"/"+kind+"/"+string(d), nil)
	}, nil
}

// firstDifference compares what the digest names with what was built of the same
// service for the same scope.
func (a *app) firstDifference(ctx context.Context, layout string, digest api.Digest, built []*bundler.Built) (string, error) {
	fetch, err := a.oldObjects(layout)
	if err != nil {
		return "", err
	}
	var errs error
	for i, b := range built {
		if i > 0 && built[i-1].Service == b.Service {
			continue
		}
		c := comparison{ctx, fetch, b.Service, built}
		what, err := c.object(digest)
		if err == nil {
			return what, nil
		}
		errs = err
	}
	return "", errs
}

type comparison struct {
	ctx     context.Context
	fetch   oldObject
	service string
	built   []*bundler.Built
}

func (c *comparison) get(kind string, d api.Digest) ([]byte, error) {
	raw, err := c.fetch(c.ctx, c.service, kind, d)
	if err == nil && !d.Names(raw) {
		err = fmt.Errorf("the bytes of %s are others", d.Short())
	}
	return raw, err
}

func (c *comparison) object(d api.Digest) (string, error) {
	raw, err := c.get("manifests", d)
	if err != nil {
		return "", err
	}
	if set, err := bundle.ParseSet(raw); err == nil {
		return c.set(set)
	}
	old, config, err := c.open(d)
	if err != nil {
		return "", err
	}
	for _, b := range c.built {
		for _, e := range b.Entries {
			if b.Service == c.service && e.Mode == config.Mode { // the outermost scope comes first
				return c.bundle(old, b, e)
			}
		}
	}
	return fmt.Sprintf("it is a bundle of %s in mode %s, which this revision has not", config.Service, config.Mode), nil
}

// set compares by scope and mode; the first entry is the outermost scope's.
func (c *comparison) set(old *bundle.Set) (string, error) {
	if _, _, err := c.open(old.Entries[0].Digest); err != nil {
		return "", err
	}
	for _, b := range c.built {
		if b.Service == c.service && b.Scope == old.Entries[0].Scope {
			return c.entries(old, b)
		}
	}
	return fmt.Sprintf("it is a set of %s@%s, which nothing builds here; pass --service and --scope", c.service, old.Entries[0].Scope), nil
}

func (c *comparison) entries(old *bundle.Set, b *bundler.Built) (string, error) {
	for i, e := range b.Entries {
		if i >= len(old.Entries) || old.Entries[i].Scope != e.Scope || old.Entries[i].Mode != e.Mode {
			return fmt.Sprintf("set %s@%s: the bundles differ from %s in mode %s on", b.Service, b.Scope, e.Scope, e.Mode), nil
		}
		if old.Entries[i].Digest == e.Digest {
			continue
		}
		content, _, err := c.open(old.Entries[i].Digest)
		if err != nil {
			return "", err
		}
		return c.bundle(content, b, e)
	}
	return fmt.Sprintf("set %s@%s: the old one has more bundles", b.Service, b.Scope), nil
}

// open reads an old bundle of the service, whatever its mode.
func (c *comparison) open(d api.Digest) (map[string][]byte, *bundle.Config, error) {
	raw, err := c.get("manifests", d)
	if err != nil {
		return nil, nil, err
	}
	m, err := bundle.ParseManifest(raw)
	if err != nil {
		return nil, nil, err
	}
	text, err := c.get("blobs", m.Config.Digest)
	if err != nil {
		return nil, nil, err
	}
	var config bundle.Config
	err = json.Unmarshal(text, &config) // bundle.Open is strict about the rest
	if err == nil && config.Service != c.service {
		err = fmt.Errorf("%s is of service %s", d.Short(), config.Service)
	}
	if err != nil {
		return nil, nil, err
	}
	opened, err := bundle.Open(d, raw, c.service, config.Mode, func(d bundle.Descriptor) ([]byte, error) { return c.get("blobs", d.Digest) })
	if err != nil {
		return nil, nil, err
	}
	return opened.Files, &config, nil
}

func (c *comparison) bundle(old map[string][]byte, b *bundler.Built, e bundle.Entry) (string, error) {
	now := b.Bundles[e.Digest]
	opened, err := bundle.Open(e.Digest, now.Manifest, b.Service, e.Mode, func(d bundle.Descriptor) ([]byte, error) { return now.Blobs[d.Digest], nil })
	if err != nil {
		return "", err
	}
	at := fmt.Sprintf("%s@%s in mode %s", b.Service, e.Scope, e.Mode)
	diff, err := plan.Compare(old, opened.Files)
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
