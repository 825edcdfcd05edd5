package bundler

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
)

// CheckOptions say how strict a check is.
type CheckOptions struct {
	Strict   bool     // warnings are errors
	Services []string // look into these alone, beside what all share; nil is all
	Since    string   // the commit that this one follows; "" is its first parent
}

// A Report is every fault of one commit.
type Report struct {
	Commit   string `json:"commit"`
	Faults   Faults `json:"faults"`
	Services int    `json:"services"`
	Files    int    `json:"files"`
}

// Check finds all faults of everything in a commit, in one run: its files, and
// every set that its activations ask for or that a promotion of it would make.
// It reads the commit alone, never the work tree. The error is about storage or
// ctx; faults are in the report.
func (b *Builder) Check(ctx context.Context, commit string, opt CheckOptions) (*Report, error) {
	r := &reader{ctx: ctx, b: b}
	rep := &Report{Commit: commit}
	r.repository(rep, opt)
	if r.err != nil {
		return nil, r.err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	rep.Faults = sorted(shared(r.faults))
	if opt.Strict {
		for i := range rep.Faults {
			rep.Faults[i].Severity = Error
		}
	}
	return rep, nil
}

// shared keeps one of the faults that several services have in common, such as
// those of common/ and of schemas, and takes the service from it.
func shared(fs Faults) Faults {
	first := map[Fault]int{}
	out := fs[:0]
	for _, f := range fs {
		key := f
		key.Service = ""
		i, seen := first[key]
		if !seen {
			first[key] = len(out)
			out = append(out, f)
		} else if out[i].Service != f.Service {
			out[i].Service = ""
		}
	}
	return out
}

func (r *reader) repository(rep *Report, opt CheckOptions) {
	tip, faults := r.b.Tip(r.ctx, rep.Commit)
	r.add(faults...)
	all := r.b.Batch()
	rel, err := r.b.release(r.ctx, rep.Commit)
	if err != nil || rel == nil {
		r.err = err
		return
	}
	var pinned map[string][][]bundle.Entry
	r.rootNames(plumbing.NewHash(rel.tree))
	r.add(rel.schemaFaults...)
	r.everySchema(rel)
	if tip == nil {
		tip = &Tip{Commit: rep.Commit, Services: slices.Sorted(maps.Keys(rel.services))}
	} else {
		r.since(tip, opt.Since)
		pinned = r.pins(tip, opt.Services, all)
		r.idleScopes(tip)
		r.checkOperatorsSig(tip)
		if tip.Operators != nil {
			_, faults := ParseOperators(tip.Operators)
			r.add(faults...)
		}
	}
	r.everyService(rep, rel, tip, opt.Services, &readSoFar{sets: all, pinned: pinned})
	r.add(all.Over()...)
}

// rootNames looks at the root for what only a check cares about.
func (r *reader) rootNames(tree plumbing.Hash) {
	entries, err := r.b.repo.tree(tree)
	if err != nil {
		r.object(".", tree, err)
		return
	}
	r.clashes("", entries)
	for _, e := range entries {
		switch {
		case e.name == ".gitattributes" && e.kind == kindFile:
			r.attributes(e.name, e.hash)
		case e.name == "services" && e.kind == kindDir:
			r.serviceNames(e)
		case e.name == "tests" && e.kind == kindDir:
			r.tests(e)
		default:
			r.rootKind(e)
		}
	}
}

// serviceNames looks at what lies in services/ beside services.
func (r *reader) serviceNames(dir entry) {
	for _, e := range r.dir("services", dir.hash) {
		path := "services/" + e.name
		if e.kind != kindDir {
			r.unknown(path, e)
			continue
		}
		if err := api.CheckName(e.name); err != nil {
			r.fault(ruleName, place{file: path}, "service %s", err)
		}
	}
}

// schemaFiles lists schemas/.
func (r *reader) schemaFiles(f *schemaFolder, h plumbing.Hash) {
	entries := r.dir("schemas", h)
	if !r.within("schemas", entries) {
		return
	}
	for _, e := range entries {
		path := "schemas/" + e.name
		name, ok := strings.CutSuffix(e.name, ".schema.json")
		if !ok || e.kind != kindFile {
			r.add(fault(ruleUnknownFile, place{file: path}, "unknown entry %s", quote(e.name)).
				withFix("Schemas are files schemas/<name>.schema.json"))
			continue
		}
		if err := api.CheckFileName(name); err != nil || name == noSchema {
			r.fault(ruleFileName, place{file: path}, "%s can't be the name of a schema", quote(name))
			continue
		}
		f.files[name] = e.hash
	}
}

// everySchema compiles all of schemas/, bound or not.
func (r *reader) everySchema(rel *release) {
	names := slices.Sorted(maps.Keys(rel.schemas.files))
	results := make([]*compiledSchema, len(names))
	errs := make([]error, len(names))
	each(r.ctx, len(names), func(i int) { results[i], errs[i] = rel.schemas.compile(r.ctx, names[i]) })
	for i, c := range results {
		if errs[i] != nil {
			r.err = errs[i]
			return
		}
		if c != nil && c.err != nil {
			r.add(schemaError(c.err, place{file: "schemas/" + names[i] + ".schema.json"}))
		}
	}
}

// pins builds what pinned activations ask for, and returns it by service.
func (r *reader) pins(tip *Tip, only []string, all *Batch) map[string][][]bundle.Entry {
	var pinned []Activation
	for _, a := range tip.Activations {
		if only != nil && !slices.Contains(only, a.Service) {
			continue
		}
		if !a.Retired && a.Release != ReleaseLatest {
			pinned = append(pinned, a)
		}
		if _, ok := slices.BinarySearch(tip.Services, a.Service); !ok && a.Release == ReleaseLatest {
			f := fault(ruleServiceGone, a.at(), "there is no services/%s", a.Service)
			r.add(stamp(Faults{f}, a.Service)...)
		}
	}
	built, failed := make([]*Built, len(pinned)), make([]error, len(pinned))
	each(r.ctx, len(pinned), func(i int) { built[i], failed[i] = all.Build(r.ctx, tip, pinned[i]) })
	out := map[string][][]bundle.Entry{}
	for i, err := range failed {
		r.pinned(pinned[i], err)
		if b := built[i]; b != nil {
			out[b.Service] = append(out[b.Service], b.Entries)
		}
	}
	return out
}

// pinned reports a pin that can't be built. What is wrong inside an old commit
// has positions there, not here, so the pin's line is what the fault cites.
func (r *reader) pinned(a Activation, err error) {
	fs, ok := FaultsOf(err)
	if err != nil && !ok {
		r.err = err
	}
	for _, f := range fs.Errors() {
		if f.RefusesAll() {
			continue // said once, of all
		}
		if f.File != a.File {
			f.Message = "release " + a.Release[:12] + ": " + f.File + ":" + strconv.Itoa(f.Line) + ": " + f.Message
			f.File, f.Line, f.Col = a.File, a.Line, a.Col
		}
		r.add(f)
	}
}

// idleScopes warns of listed scopes that nothing is activated for, once all
// activations are known.
func (r *reader) idleScopes(tip *Tip) {
	if slices.ContainsFunc(r.faults, func(f Fault) bool { return strings.HasPrefix(f.File, "activations/") && f.Severity == Error }) {
		return
	}
	for _, n := range tip.scopes {
		active := slices.ContainsFunc(tip.Activations, func(a Activation) bool {
			return !a.Retired && (matchesPrefix(n.str, a.Scope) || a.Scope.Contains(api.Scope(n.str)))
		})
		if !active && len(tip.Services) > 0 {
			r.fault(ruleScopeIdle, n.at, "nothing is activated at, above or below %s", quote(n.str))
		}
	}
}

// since compares a tip with old, or its first parent, as the server does with the last
// accepted tip.
func (r *reader) since(tip *Tip, old string) {
	before := &Tip{}
	if c, err := r.b.repo.Commit(tip.Commit); old == "" && err == nil && len(c.Parents) > 0 {
		old = c.Parents[0]
	}
	if old != "" {
		r.add(r.b.vanished(r.ctx, old, tip.Commit)...)
		if t, _ := r.b.Tip(r.ctx, old); t != nil { // a shallow clone has none
			before = t
		}
	}
	r.add(tip.LevelsGrew(before.Config.Levels)...)
	if tip.Config.RequireSigned || before.Config.RequireSigned {
		r.signatures(tip, before)
	}
}

// signatures judges by the tip's own operators.yaml. Whether a root signed that
// is for those who have the trust file.
func (r *reader) signatures(tip, before *Tip) {
	keys := tip.keys()
	known := func(a Activation) bool {
		return slices.ContainsFunc(before.Activations, func(o Activation) bool {
			return o.Service == a.Service && o.Scope == a.Scope && o.Release == a.Release
		})
	}
	for _, err := range []error{r.b.SignedTip(tip, keys), r.b.SignedReleases(tip, keys, known)} {
		fs, ok := FaultsOf(err)
		if err != nil && !ok && r.err == nil {
			r.err = err
		}
		r.add(fs...)
	}
}

// vanished reports activation files that old has and new hasn't. A file that
// only says that a service is retired may go.
func (b *Builder) vanished(ctx context.Context, old, new string) Faults {
	r := &reader{ctx: ctx, b: b}
	before, after := r.activationNames(old), r.activationNames(new)
	var out Faults
	for _, name := range slices.Sorted(maps.Keys(before)) {
		service, ok := strings.CutSuffix(name, ".yaml")
		if _, still := after[name]; still || !ok || api.CheckName(service) != nil || r.retired(name, before[name]) {
			continue
		}
		f := fault(ruleActGone, place{file: "activations/" + name}, "the file was there in %.12s", old)
		f.Service = service
		out = append(out, f)
	}
	return append(out, asFaults(r.err)...)
}

// retired reports whether an activation file said that its service is retired.
func (r *reader) retired(name string, h plumbing.Hash) bool {
	sub := &reader{ctx: r.ctx, b: r.b}
	n := sub.own("activations/"+name, h, "activations")
	return n != nil && n.get("retired") != nil
}

func (r *reader) activationNames(commit string) map[string]plumbing.Hash {
	out := map[string]plumbing.Hash{}
	h, ok, err := r.b.idAt(commit, "activations")
	if !ok || err != nil {
		return out // a shallow clone has no parent to compare with
	}
	files, _ := r.b.repo.tree(h)
	for _, f := range files {
		if f.kind == kindFile {
			out[f.name] = f.hash
		}
	}
	return out
}

// everyService reads all services of the commit and builds what a promotion of
// it would: the set of each scope where the service is activated, and of each
// outermost scope that its overlays are for; with neither, of every env.
func (r *reader) everyService(rep *Report, rel *release, tip *Tip, only []string, read *readSoFar) {
	names := slices.Sorted(maps.Keys(rel.services))
	rep.Services = len(names)
	if only != nil {
		names = slices.DeleteFunc(names, func(name string) bool { return !slices.Contains(only, name) })
	}
	r.b.done.wanted.Add(int64(len(names)))
	for part := range slices.Chunk(names, 16*runtime.GOMAXPROCS(0)) {
		if r.stop() || len(r.faults) > 2*maxFaults {
			break // the report is full; reading on would only cost memory
		}
		r.someServices(rep, rel, tip, part, read)
	}
	if read.full() {
		r.fault(ruleValuesLimit, place{file: "services"}, "more than %d values or %d bytes; not all services were looked at", maxCheckValues, maxCheckBytes)
	}
	r.commonAlone(rep, rel)
}

// readSoFar is what the services of one check have in all.
type readSoFar struct {
	values, bytes atomic.Int64
	sets          *Batch
	pinned        map[string][][]bundle.Entry // sets of activations of other releases, by service
}

func (s *readSoFar) full() bool {
	return s.values.Load() > maxCheckValues || s.bytes.Load() > maxCheckBytes
}

func (r *reader) someServices(rep *Report, rel *release, tip *Tip, names []string, read *readSoFar) {
	found := make([]Faults, len(names))
	files := make([]int, len(names))
	errs := make([]error, len(names))
	each(r.ctx, len(names), func(i int) {
		if !read.full() && read.sets.Over() == nil {
			found[i], files[i], errs[i] = r.b.checkService(r.ctx, rel, tip, names[i], read)
		}
	})
	for i := range names {
		r.add(found[i]...)
		rep.Files += files[i]
		if errs[i] != nil && r.err == nil {
			r.err = errs[i]
		}
	}
}

// commonAlone reads common/ for a repository that has no service yet.
func (r *reader) commonAlone(rep *Report, rel *release) {
	if rel.common.IsZero() || r.err != nil {
		return
	}
	s, err := r.b.commonSource(r.ctx, rel.common)
	if err != nil {
		r.err = err
		return
	}
	rep.Files += s.files
	for _, f := range s.faults {
		if rep.Services == 0 {
			r.add(f)
		}
	}
}

func (b *Builder) checkService(ctx context.Context, rel *release, tip *Tip, name string, read *readSoFar) (Faults, int, error) {
	defer b.done.services.Add(1)
	p, err := b.project(ctx, rel, name)
	if err != nil {
		return nil, 0, err
	}
	s := p.service
	read.values.Add(int64(s.values))
	read.bytes.Add(int64(s.size))
	if s.full {
		return stamp(slices.Clone(s.faults), name), s.files, nil
	}
	var out Faults
	effects, bytes := map[string]bool{}, 0
	var promoted [][]bundle.Entry
	live := slices.Clone(read.pinned[name])
	for i, scope := range checkScopes(tip, s) {
		if read.sets.Over() != nil {
			return out, s.files, nil
		}
		c, err := b.content(ctx, rel, name, scope)
		if err != nil {
			return nil, 0, err
		}
		read.sets.count(c)
		out = append(out, c.faults...)
		promoted = append(promoted, c.entries)
		if tip.follows(name, scope) {
			live = append(live, c.entries)
		}
		if bytes += c.bytes; bytes > 2*maxSetBytes {
			out = append(out, stamp(Faults{fault(ruleSetLimit, place{file: s.dir}, "its sets have more than %d bytes of distinct files and manifests", 2*maxSetBytes)}, name)...)
			break
		}
		if i == 0 && len(tip.Config.Scopes) > 0 {
			out = append(out, c.unlisted(tip.Config, name)...)
		}
		for file, did := range c.effects {
			effects[file] = effects[file] || did
		}
	}
	if f, wide := modesLimit(name, place{file: activationFile(name)}, live); wide {
		out = append(out, f)
	} else if f, wide := modesLimit(name, place{file: s.dir}, promoted); wide {
		out = append(out, f)
	}
	out = append(out, idle(effects, name)...)
	out = append(out, dependencies(rel, s)...)
	return out, s.files, nil
}

// follows reports whether an activation follows the branch.
func (t *Tip) follows(service string, scope api.Scope) bool {
	return slices.ContainsFunc(t.Activations, func(a Activation) bool {
		return a.Service == service && a.Scope == scope && a.Release == ReleaseLatest
	})
}

func idle(effects map[string]bool, service string) Faults {
	var out Faults
	for file, did := range effects {
		if !did && strings.HasPrefix(file, "services/") {
			out = append(out, fault(ruleNoEffect, place{file: file}, "every value in it is what lower layers say already"))
		}
	}
	return stamp(out, service)
}

func dependencies(rel *release, s *source) Faults {
	r := &reader{}
	for _, d := range s.meta.items("depends_on") {
		if _, ok := rel.services[d.str]; !ok {
			r.fault(ruleDependsOn, d.at, "there is no service %s", quote(d.str))
		}
	}
	return stamp(r.faults, strings.TrimPrefix(s.dir, "services/"))
}

func checkScopes(tip *Tip, s *source) []api.Scope {
	var out []api.Scope
	for _, a := range tip.Activations {
		if a.Service == strings.TrimPrefix(s.dir, "services/") && !a.Retired {
			out = append(out, a.Scope)
		}
	}
	covered := func(scope api.Scope) bool {
		return slices.ContainsFunc(out, func(o api.Scope) bool { return o.Contains(scope) })
	}
	for _, scope := range slices.Sorted(maps.Keys(s.overlays)) { // outer ones sort first
		if !covered(scope) {
			out = append(out, scope)
		}
	}
	if len(out) > 0 {
		return out
	}
	for _, pattern := range tip.Config.Scopes {
		env, _, _ := strings.Cut(pattern, "/")
		if scope := api.Scope(env); !slices.Contains(out, scope) {
			out = append(out, scope)
		}
	}
	if len(out) == 0 {
		out = []api.Scope{"unlisted"}
	}
	return out
}
