package bundler

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/sealstone/sealstone/api"
)

// A Tip is what is read from the newest commit: where things run and who may
// do what. Services' content is read from releases, by Build.
type Tip struct {
	Commit       string
	Config       Layout
	Operators    []byte // operators.yaml as it is, nil when absent
	OperatorsSig []byte // operators.sig as it is, nil when absent
	Clients      []Client
	HasClients   bool // clients.yaml is there, and right
	Activations  []Activation
	Services     []string // of the tip's own tree, sorted

	scopes []*node // of sealstone.yaml, for their places
	levels []*node
	demand *node // source.require_signed
}

// A Client is one read token.
type Client struct {
	Name     string
	Token    string      // "sha256:" and the hex of the token's SHA-256
	Services []string    // "*" for all
	Scopes   []api.Scope // the empty scope, written "*", is all
	Log      bool
}

// An Activation is one entry of activations/<service>.yaml, or, with Retired,
// the file that says that the service runs nowhere on purpose.
type Activation struct {
	Service string
	Scope   api.Scope
	Release string     // 40 hex digits, or ReleaseLatest
	Expect  api.Digest // "" when not given
	Retired bool
	File    string
	Line    int
	Col     int
}

func (a Activation) at() place { return place{a.File, int32(a.Line), int32(a.Col)} }

type tipResult struct {
	tip    *Tip
	faults Faults
}

// Tip reads the part of a commit that belongs to tips. It is nil only when
// nothing at all can be said: no such commit, no usable sealstone.yaml, a
// cancelled context. Otherwise faults of one activation file, with its Service
// set, cost that file's activations alone; faults of clients.yaml leave
// HasClients false; operators.yaml is judged by ParseOperators.
func (b *Builder) Tip(ctx context.Context, commit string) (*Tip, Faults) {
	if t, ok := b.tips.get(commit); ok {
		return t.tip, slices.Clone(t.faults)
	}
	r := &reader{ctx: ctx, b: b}
	tip := r.tip(commit)
	if r.err != nil {
		return nil, asFaults(r.err)
	}
	faults := sorted(r.faults)
	b.tips.put(commit, &tipResult{tip, faults}, 1)
	return tip, slices.Clone(faults)
}

func (r *reader) tip(commit string) *Tip {
	c, err := r.b.repo.Commit(commit)
	if errors.Is(err, ErrNoCommit) {
		r.fault(ruleRelease, place{}, "%s is not a commit of this repository", quote(commit))
		return nil
	}
	if err != nil {
		r.err = err
		return nil
	}
	entries, err := r.b.repo.tree(plumbing.NewHash(c.Tree))
	if err != nil {
		r.object(".", plumbing.NewHash(c.Tree), err)
		return nil
	}
	for _, e := range entries {
		if !releaseFolders[e.name] {
			r.rootKind(e)
		}
	}
	t := &Tip{Commit: c.ID}
	if !r.layout(t, entries) {
		return nil
	}
	for _, e := range entries {
		r.tipPart(t, e)
	}
	r.activationsOf(t, entries)
	return t
}

// rootFiles are the names at the root that mean something.
var rootFiles = map[string]entryKind{
	"sealstone.yaml": kindFile, "operators.yaml": kindFile, "operators.sig": kindFile, "clients.yaml": kindFile,
	"schemas": kindDir, "common": kindDir, "services": kindDir, "activations": kindDir, "tests": kindDir,
}

// releaseFolders are those of them that a tip is not read for.
var releaseFolders = map[string]bool{"schemas": true, "common": true, "services": true, "tests": true}

// rootKind refuses a name at the root that is ours but not of its kind, or that
// is almost ours.
func (r *reader) rootKind(e entry) {
	want, ours := rootFiles[e.name]
	switch {
	case !ours:
		r.nearMiss(e)
	case e.kind == kindSymlink || e.kind == kindSubmodule:
		r.usable(e.name, e)
	case e.kind != want && want == kindFile:
		r.add(fault(ruleUnknownFile, place{file: e.name}, "%s is a folder", e.name).withFix("Make it a file, or rename the folder"))
	case e.kind != want:
		r.add(fault(ruleUnknownFile, place{file: e.name}, "%s is a file", e.name).withFix("Make it a folder, or rename the file"))
	}
}

func (r *reader) nearMiss(e entry) {
	if strings.HasPrefix(e.name, ".") {
		return
	}
	for _, k := range slices.Sorted(maps.Keys(rootFiles)) {
		if almost(e.name, k) {
			r.add(fault(ruleNearMiss, place{file: e.name}, "%s is almost %s", quote(e.name), k).withFix("Rename it to %s, or choose a name that can't be mistaken", k))
			return
		}
	}
}

// almost tells a typing error, another case or another extension. Short names
// are near too many others.
func almost(name, known string) bool {
	stem, _, _ := strings.Cut(known, ".")
	base, ext, _ := strings.Cut(strings.ToLower(name), ".")
	_, near := nearest(name, []string{known})
	return near && len(known) > 4 || base == stem && slices.Contains([]string{"yml", "yaml", "json"}, ext)
}

// layout reads sealstone.yaml, without which nothing else makes sense.
func (r *reader) layout(t *Tip, entries []entry) bool {
	i := slices.IndexFunc(entries, func(e entry) bool { return e.name == "sealstone.yaml" && e.kind == kindFile })
	if i < 0 {
		r.fault(ruleNoConfig, place{file: "sealstone.yaml"}, "commit %.12s has no sealstone.yaml", t.Commit)
		return false
	}
	n := r.own("sealstone.yaml", entries[i].hash, "sealstone")
	if n == nil {
		return false
	}
	t.Config = Layout{Version: n.whole("version"), Levels: n.texts("levels"), Scopes: n.texts("scopes")}
	if t.demand = n.get("source").get("require_signed"); t.demand != nil {
		t.Config.RequireSigned = t.demand.truth
	}
	if t.Config.Version != Contract {
		r.fault(ruleVersion, n.get("version").at, "this binary knows contract versions up to %d", Contract)
	}
	t.scopes, t.levels = n.items("scopes"), n.items("levels")
	r.scopes(t.scopes, len(t.Config.Levels))
	return true
}

// LevelsGrew reports levels that are not those of an earlier tip with more at
// the end: every path in the ledger would mean another place.
func (t *Tip) LevelsGrew(before []string) Faults {
	for i, name := range before {
		if i >= len(t.levels) {
			return Faults{fault(ruleLevels, place{file: "sealstone.yaml"}, "level %s is gone", quote(name))}
		}
		if t.levels[i].str != name {
			return Faults{fault(ruleLevels, t.levels[i].at, "level %d was %s", i+1, quote(name))}
		}
	}
	return nil
}

func (r *reader) scopes(list []*node, levels int) {
	seen := map[string]bool{}
	for _, n := range list {
		parts := strings.Split(n.str, "/")
		if len(parts) > levels {
			r.fault(ruleScopeDepth, n.at, "scope %s has %d parts, levels has %d", quote(n.str), len(parts), levels)
		}
		for _, part := range parts {
			if err := api.CheckName(part); part != "*" && err != nil {
				r.fault(ruleName, n.at, "scope %s: %s", quote(n.str), err)
			}
		}
		if seen[n.str] {
			r.fault(ruleScopeTwice, n.at, "scope %s is listed twice", quote(n.str))
		}
		seen[n.str] = true
	}
}

func (r *reader) tipPart(t *Tip, e entry) {
	switch {
	case e.name == "operators.yaml" && e.kind == kindFile:
		t.Operators, _ = r.file(e.name, e.hash)
	case e.name == "operators.sig" && e.kind == kindFile:
		t.OperatorsSig, _ = r.file(e.name, e.hash)
	case e.name == "clients.yaml" && e.kind == kindFile:
		r.clients(t, r.own(e.name, e.hash, "clients"))
	case e.name == "services" && e.kind == kindDir:
		names := map[string]plumbing.Hash{}
		r.names(names, e)
		t.Services = slices.Sorted(maps.Keys(names))
	}
}

func (r *reader) clients(t *Tip, n *node) {
	if n == nil {
		return
	}
	names, tokens := map[string]bool{}, map[string]bool{}
	for _, c := range n.items("clients") {
		one := Client{Name: c.text("name"), Token: c.text("token"), Services: c.texts("services"), Log: c.get("log") != nil && c.get("log").truth}
		for _, s := range c.texts("scopes") {
			one.Scopes = append(one.Scopes, api.Scope(strings.TrimPrefix(s, "*")))
		}
		if names[one.Name] {
			r.fault(ruleClientTwice, c.get("name").at, "client %s stands twice", quote(one.Name))
		}
		if tokens[one.Token] {
			r.fault(ruleClientTwice, c.get("token").at, "the token of client %s is another client's too", quote(one.Name))
		}
		names[one.Name], tokens[one.Token] = true, true
		t.Clients = append(t.Clients, one)
	}
	t.HasClients = true
}

// A tipFile is what one activation file says, kept by path and blob, as a tip
// usually changes one of a thousand; or what all of them say.
type tipFile struct {
	activations []Activation
	faults      Faults
}

// A folderKey is activations/ in one state under one sealstone.yaml.
type folderKey struct{ activations, layout plumbing.Hash }

// activationsOf reads activations/, or remembers it: most commits don't touch it.
func (r *reader) activationsOf(t *Tip, root []entry) {
	var key folderKey
	for _, e := range root {
		switch {
		case e.name == "activations" && e.kind == kindDir:
			key.activations = e.hash
		case e.name == "sealstone.yaml":
			key.layout = e.hash
		}
	}
	if key.activations.IsZero() {
		return
	}
	f, ok := r.b.folders.get(key)
	if !ok {
		sub := &reader{ctx: r.ctx, b: r.b}
		sub.activations(t, key.activations)
		if sub.err != nil {
			r.err = sub.err
			return
		}
		f = &tipFile{slices.Clip(t.Activations), sub.faults}
		r.b.folders.put(key, f, 1)
	}
	t.Activations = f.activations
	r.add(f.faults...)
}

func (r *reader) activations(t *Tip, h plumbing.Hash) {
	entries := r.dir("activations", h)
	if !r.within("activations", entries) {
		return
	}
	for _, e := range entries {
		path := "activations/" + e.name
		service, ok := strings.CutSuffix(e.name, ".yaml")
		if !ok || e.kind != kindFile {
			r.unknown(path, e)
			continue
		}
		if err := api.CheckName(service); err != nil {
			r.fault(ruleName, place{file: path}, "service %s", err)
			continue
		}
		f := r.activationFile(path, service, e.hash)
		if f == nil {
			return
		}
		faults := append(slices.Clone(f.faults), r.listed(t, f.activations)...)
		r.add(stamp(faults, service)...)
		if asError(faults) == nil {
			t.Activations = append(t.Activations, f.activations...)
		}
	}
}

func (r *reader) activationFile(path, service string, h plumbing.Hash) *tipFile {
	key := fileKey{path, h}
	if f, ok := r.b.tipFiles.get(key); ok {
		return f
	}
	sub := &reader{ctx: r.ctx, b: r.b}
	f := &tipFile{}
	if n := sub.own(path, h, "activations"); n != nil {
		f.activations = sub.entries(path, service, n)
	}
	if sub.err != nil {
		r.err = sub.err
		return nil
	}
	f.faults = sub.faults
	r.b.tipFiles.put(key, f, 512+200*len(f.activations))
	return f
}

// With is the tip as it would be with another text of one activation file, and
// what is wrong with that text. Activations of a file with errors are left out.
func (t *Tip) With(service string, text []byte) (*Tip, Faults) {
	r, path, next := &reader{}, "activations/"+service+".yaml", *t
	next.Activations = slices.DeleteFunc(slices.Clone(t.Activations), func(a Activation) bool { return a.Service == service })
	root, faults := readOwn(path, text, "activations")
	if root == nil {
		return &next, stamp(faults, service)
	}
	as := r.entries(path, service, root)
	faults = stamp(slices.Concat(faults, r.faults, r.listed(t, as)), service)
	if asError(faults) == nil {
		next.Activations = append(next.Activations, as...)
	}
	return &next, faults
}

func (r *reader) entries(path, service string, n *node) []Activation {
	s := n.get("service")
	if s.str != service {
		r.fault(ruleActService, s.at, "the file says service %s", quote(s.str))
	}
	if retired := n.get("retired"); retired != nil {
		return []Activation{{Service: service, Retired: true, File: path, Line: int(retired.at.line), Col: int(retired.at.col)}}
	}
	var out []Activation
	seen := map[string]bool{}
	for _, e := range n.items("activations") {
		scope := e.get("scope")
		if seen[scope.str] {
			r.fault(ruleActTwice, scope.at, "scope %s is activated twice", quote(scope.str))
		}
		seen[scope.str] = true
		if _, err := api.ParseScope(scope.str); err != nil {
			r.fault(ruleName, scope.at, "%s", err)
		}
		out = append(out, Activation{
			Service: service, Scope: api.Scope(scope.str), Release: e.text("release"), Expect: api.Digest(e.text("expect")),
			File: path, Line: int(scope.at.line), Col: int(scope.at.col),
		})
	}
	slices.SortFunc(out, func(a, b Activation) int { return strings.Compare(string(a.Scope), string(b.Scope)) })
	return out
}

// listed reports activations of scopes that sealstone.yaml doesn't list.
func (r *reader) listed(t *Tip, as []Activation) Faults {
	var out Faults
	for _, a := range as {
		if !a.Retired && !t.Config.Listed(a.Scope) {
			out = append(out, unlistedScope(t.Config, a.Scope, a.at()))
		}
	}
	return out
}

func unlistedScope(l Layout, s api.Scope, at place) Fault {
	f := fault(ruleScopeUnlisted, at, "scope %s is not listed in sealstone.yaml", quote(string(s)))
	if near := l.Nearest(string(s)); near != "" {
		f = f.withFix("The nearest listed scope is %s", near)
	}
	return f
}

// unlisted reports overlays of a set's sources whose scopes don't exist. It is
// for the tip's own tree. Pinned releases are never held to it: their scopes
// were listed when they were made.
func (c *content) unlisted(l Layout, service string) Faults {
	var out Faults
	for _, o := range c.overlays {
		if !l.Listed(o.scope) {
			out = append(out, unlistedScope(l, o.scope, place{file: o.dir}))
		}
	}
	return stamp(out, service)
}
