package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/bundler"
	"github.com/sealstone/sealstone/ledger"
)

// refForms is how references are written.
const refForms = "write sha256:..., log:INDEX, a commit of 7 to 40 hex digits, service@scope, or service@scope~TIME"

// refOptions say what a reference doesn't.
type refOptions struct {
	service, scope, mode string
	repo                 string // for commits
	ask                  string // how to say service and scope
}

// resolved is what a reference names: one bundle, or a set that a bundle can be
// picked from.
type resolved struct {
	Ref     string
	Service string
	Scope   api.Scope // of the target, activation or entry; "" when unknown
	Mode    api.Mode  // "" for a set
	Bundle  api.Digest
	Digest  api.Digest  // of the set; "" for a bundle that was named by its own digest
	Set     *bundle.Set // nil where it isn't known
	Proven  *api.Proven // of a target: the change that explains it
	Release string      // the commit that it was built of; "" when unknown

	object func(api.Digest) ([]byte, error)
	ask    string
}

// resolver reads references, from a server or a repository.
type resolver struct {
	a *app
	o refOptions
}

// resolve finds what a reference names. Everything it reads is checked by its
// digest.
func (r *resolver) resolve(ctx context.Context, ref string) (*resolved, error) {
	var out *resolved
	var err error
	switch {
	case strings.HasPrefix(ref, "sha256:"):
		out, err = r.digest(ctx, ref)
	case strings.HasPrefix(ref, "log:"):
		out, err = r.entry(ctx, strings.TrimPrefix(ref, "log:"))
	case strings.Contains(ref, "@"):
		out, err = r.target(ctx, ref)
	case isRev(ref):
		out, err = r.commit(ctx, ref)
	default:
		return nil, notReference(ref)
	}
	if err != nil {
		return nil, err
	}
	out.Ref, out.ask = ref, r.o.ask
	return out, nil
}

func notReference(ref string) error { return fmt.Errorf("%.80q is no reference: %s", ref, refForms) }

// isRev tells whether a reference is a revision, for Git to find.
func isRev(s string) bool { return s != "" && !strings.ContainsAny(s, "@:") }

func isHex(s string) bool {
	return len(s) >= 7 && len(s) <= 40 && strings.Trim(s, "0123456789abcdef") == ""
}

// wholeDigest refuses what tables show of a digest.
func wholeDigest(s string) (api.Digest, error) {
	d, err := api.ParseDigest(s)
	if err != nil {
		err = &api.Error{Code: api.CodeInvalid, Detail: err.Error(), Err: err, Hint: "tables show the first 12 digits only; the same command with -o json, and changes show INDEX, have all 64"}
	}
	return d, err
}

// digest finds the service that has a set or bundle.
func (r *resolver) digest(ctx context.Context, ref string) (*resolved, error) {
	d, err := wholeDigest(ref)
	if err != nil {
		return nil, err
	}
	c, err := r.a.client()
	if err != nil {
		return nil, err
	}
	names := []string{r.o.service}
	if r.o.service == "" {
		all, err := c.services(ctx)
		if err != nil {
			return nil, err
		}
		names = serviceNames(all)
	}
	for _, name := range names {
		out, err := identify(name, c.objects(ctx, name), d)
		if api.CodeOf(err) != api.CodeNotFound {
			return out, err
		}
	}
	return nil, &api.Error{Code: api.CodeNotFound, Detail: fmt.Sprintf("no activation of %s names %s", dash(strings.Join(names, ", ")), d), Hint: "sealstone history and sealstone changes show digests; what only Git has is named by its commit"}
}

// identify tells whether a digest is a set's or a bundle's.
func identify(service string, object func(api.Digest) ([]byte, error), d api.Digest) (*resolved, error) {
	out := &resolved{Service: service, object: object}
	b, err := out.object(d)
	if err != nil {
		return nil, err
	}
	if set, err := bundle.ParseSet(b); err == nil {
		out.Digest, out.Set = d, set
		return out, nil
	}
	out.Bundle = d
	out.Mode, err = modeOf(b, out.object)
	return out, err
}

// objects reads sets, manifests and blobs of a service, held to their digests:
// the server has all of them as blobs.
func (c *client) objects(ctx context.Context, service string) func(api.Digest) ([]byte, error) {
	return func(d api.Digest) ([]byte, error) {
		b, err := c.do(ctx, http.MethodGet, "/v2/"+service+"/blobs/"+string(d), nil)
		switch api.CodeOf(err) {
		case api.CodeGone:
			return nil, &api.Error{Code: api.CodeGone, Err: err, Detail: fmt.Sprintf("%s was erased, the server withholds it", d),
				Hint: "sealstone changes --digest " + string(d) + " shows by whose change; name the commit instead of the digest to build it from Git"}
		case api.CodeNotFound:
			return nil, &api.Error{Code: api.CodeNotFound, Err: err, Detail: fmt.Sprintf("no activation of %s names %s", service, d), Hint: "name another service with --service, or the commit to build it from Git"}
		}
		if err == nil && !d.Names(b) {
			err = fmt.Errorf("%w: the server answered other bytes for %s", bundle.ErrDigest, d)
		}
		return b, err
	}
}

// entry is what a change of the log brought.
func (r *resolver) entry(ctx context.Context, index string) (*resolved, error) {
	c, err := r.a.client()
	if err != nil {
		return nil, err
	}
	var rec api.Record
	if err := c.get(ctx, "/v1/changes/"+url.PathEscape(index), nil, &rec); err != nil {
		return nil, err
	}
	e := eventOf(rec)
	out := &resolved{Service: e.Data.Service, Scope: e.Data.Scope, object: c.objects(ctx, e.Data.Service), ask: r.o.ask}
	switch kind := e.Kind(); {
	case kind == ledger.BundleActivated:
		out.Digest, out.Release = e.Data.Set.Digest, e.Data.Release.Commit
		return out, out.readSet()
	case kind.Lane() == ledger.LaneOverride:
		return out, out.pickResolved(r.o.scope, &e)
	}
	return nil, fmt.Errorf("log:%s is %s, which puts no bundle into effect: name an activation or a safe-mode change, or a target", index, e.Kind())
}

// pickResolved takes the bundle that a safe-mode change says it brought to a
// scope: its own, unless another one is asked for.
func (r *resolved) pickResolved(scope string, e *ledger.Event) error {
	if scope != "" {
		r.Scope = api.Scope(scope)
	}
	best := ledger.Resolved{}
	for _, x := range e.Data.Resolved {
		if x.Scope.Contains(r.Scope) && x.Scope.Depth() >= best.Scope.Depth() {
			best = x
		}
	}
	if best.Bundle == "" {
		return fmt.Errorf("the safe-mode change names no bundle for %s: %s", dash(string(r.Scope)), r.ask)
	}
	manifest, err := r.object(best.Bundle)
	if err != nil {
		return err
	}
	r.Bundle = best.Bundle
	r.Mode, err = modeOf(manifest, r.object)
	return err
}

// target is what is in effect for service@scope, now or at a time.
func (r *resolver) target(ctx context.Context, ref string) (*resolved, error) {
	name, when, past := strings.Cut(ref, "~")
	t, err := api.ParseTarget(name)
	if err != nil {
		return nil, err
	}
	var at time.Time
	if past {
		if at, err = parseTime(ref+": time", when); err != nil {
			return nil, err
		}
	}
	c, err := r.a.client()
	if err != nil {
		return nil, err
	}
	p, err := r.a.provenAt(ctx, c, t, at)
	if err != nil {
		return nil, err
	}
	return &resolved{Service: t.Service, Scope: t.Scope, Mode: p.Mode, Bundle: p.Bundle, Digest: p.Set, Proven: p, Release: p.Release, object: c.objects(ctx, t.Service)}, nil
}

// commit builds a service's set from a repository.
func (r *resolver) commit(ctx context.Context, rev string) (*resolved, error) {
	dir := r.o.repo
	if dir == "" {
		dir = "."
	}
	repo, commit, err := openCommit(dir, rev)
	if err != nil && !isHex(rev) {
		if repo == nil {
			return nil, fmt.Errorf("%w; for a branch or tag pass --repo DIR, or run this inside a clone", notReference(rev))
		}
		return nil, notReference(rev)
	}
	if r.o.service == "" || r.o.scope == "" {
		return nil, fmt.Errorf("commit %s: of which service, at which scope? %s", rev, r.o.ask)
	}
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w: pass --repo DIR, or run this inside a clone", rev, err)
	}
	built, err := bundler.New(repo).Rebuild(ctx, commit, r.o.service, api.Scope(r.o.scope))
	if faults, ok := errors.AsType[bundler.Faults](err); ok {
		return nil, r.a.faultsError(faults)
	}
	if err != nil {
		return nil, err
	}
	objects := map[api.Digest][]byte{}
	for d, b := range built.Objects() {
		objects[d] = b
	}
	out := &resolved{Service: built.Service, Scope: built.Scope, Digest: built.Digest, Release: built.Commit}
	out.object = func(d api.Digest) ([]byte, error) {
		if b, ok := objects[d]; ok {
			return b, nil
		}
		return nil, fmt.Errorf("commit %s builds no %s", short(commit), d)
	}
	return out, out.readSet()
}

func (r *resolved) readSet() error {
	if r.Set != nil {
		return nil
	}
	b, err := r.object(r.Digest)
	if err != nil {
		return err
	}
	r.Set, err = bundle.ParseSet(b)
	return err
}

// pick narrows a reference to the bundle of a scope in a mode; an empty one is
// the reference's own, and the normal mode.
func (r *resolved) pick(scope api.Scope, mode api.Mode) error {
	switch same := mode == "" || mode == r.Mode; {
	case r.Bundle != "" && same && (scope == "" || scope == r.Scope):
		return nil
	case r.Digest == "" && same:
		return nil // whatever scope: it was named itself
	case r.Digest == "":
		return fmt.Errorf("%s is a bundle in mode %s, not %s", r.Ref, r.Mode, mode)
	}
	if scope == "" {
		scope = r.Scope
	}
	if mode == "" {
		mode = api.ModeNormal
	}
	if scope == "" {
		return fmt.Errorf("%s is a set: which of its bundles? %s", r.Ref, r.ask)
	}
	if err := r.readSet(); err != nil {
		return err
	}
	e, ok := r.Set.Find(scope, mode)
	if !ok {
		return fmt.Errorf("set %s of %s has no bundle for %s in mode %s", r.Digest.Short(), r.Service, scope, mode)
	}
	r.Scope, r.Mode, r.Bundle = scope, mode, e.Digest
	return nil
}

// content reads the bundle that a reference names.
func (r *resolved) content() (*bundle.Content, error) {
	manifest, err := r.object(r.Bundle)
	if err != nil {
		return nil, err
	}
	return bundle.Open(r.Bundle, manifest, r.Service, r.Mode, r.object)
}

// provenAt is what is in effect for a target, proven where there is a trust file;
// or was at a time, as the server says. The zero time is now, with what is pending.
func (a *app) provenAt(ctx context.Context, c *client, t api.Target, at time.Time) (*api.Proven, error) {
	var trust *ledger.Trust
	if a.trust != "" {
		var err error
		if trust, err = a.rowsTrust(ctx, c, !at.IsZero()); err != nil {
			return nil, err
		}
	}
	if at.IsZero() {
		return a.provenNow(ctx, c, trust, t)
	}
	var h api.History
	if err := c.get(ctx, "/v1/history", url.Values{"target": {t.String()}, "at": {at.Format(time.RFC3339Nano)}}, &h); err != nil {
		return nil, err
	}
	if len(h.Intervals) != 1 {
		return nil, fmt.Errorf("the server knows %d answers for %s at %s", len(h.Intervals), t, api.FormatTime(at))
	}
	iv := h.Intervals[0]
	if iv.Missing != "" {
		return nil, &api.Error{Code: api.CodeGone, Detail: fmt.Sprintf("%s ran set %s then, which can't be read: %s", t, iv.Set, iv.Missing),
			Hint: "it can be built from commit " + iv.Commit + ": name that instead (to eval: as --bundle, with --target " + t.String() + "), and the repository with --repo"}
	}
	return &api.Proven{Bundle: iv.Bundle, Set: iv.Set, Mode: iv.Mode, Release: iv.Commit, Index: iv.Index, Since: iv.From, By: iv.By}, nil
}

func (a *app) provenNow(ctx context.Context, c *client, trust *ledger.Trust, t api.Target) (*api.Proven, error) {
	live, _, err := a.provenLive(ctx, c, trust, []string{t.Service}, liveOptions{})
	if err != nil {
		return nil, err
	}
	var best *api.LiveScope
	for _, s := range live.Services {
		for _, sc := range s.Scopes {
			if sc.Proven != nil && sc.Scope.Contains(t.Scope) && (best == nil || sc.Scope.Depth() > best.Scope.Depth()) {
				best = &sc
			}
		}
	}
	if best == nil {
		return nil, &api.Error{Code: api.CodeNotActivated, Detail: "nothing is activated for " + t.String(), Hint: "sealstone live shows what is"}
	}
	return best.Proven, nil
}
