package instances

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/mod/semver"

	"github.com/sealstone/sealstone/api"
)

// Bounds of lists of dependencies.
const (
	maxDeps     = 4096 // lines of one list
	maxDep      = 512  // bytes of a line
	maxListSize = 48 << 20
	maxListOf   = maxListSize / 4 // of those that one client sent
)

// list is the dependencies of a build, held once for all that run it: package
// URLs, sorted, so that a name is found by halving.
type list struct {
	lines []string
	types []string // "pkg:golang/", ...
	size  int
	from  string // the client that sent it
}

func newList(lines []string, from string) *list {
	l := &list{lines: slices.Clone(lines), from: from}
	for _, line := range lines {
		l.size += len(line) + 32
		if kind, _, ok := strings.Cut(strings.TrimPrefix(line, "pkg:"), "/"); ok && !slices.Contains(l.types, "pkg:"+kind+"/") {
			l.types = append(l.types, "pkg:"+kind+"/")
		}
	}
	return l
}

// checkList checks a list that came along against its digest.
func checkList(in *api.Instance) error {
	if in.DepList == nil {
		return nil
	}
	if len(in.DepList) > maxDeps || !slices.IsSorted(in.DepList) {
		return invalid("sealstone.dependencies is sorted and has at most %d lines", maxDeps)
	}
	for _, line := range in.DepList {
		if len(line) > maxDep || !strings.HasPrefix(line, "pkg:") || strings.ContainsFunc(line, control) {
			return invalid("sealstone.dependencies has package URLs of at most %d bytes, such as pkg:golang/golang.org/x/net@v0.40.0", maxDep)
		}
	}
	if api.DependenciesDigest(in.DepList) != in.Deps {
		return invalid("sealstone.dependencies.digest is not the sha256 of the list's lines")
	}
	return nil
}

// learn keeps the list of a report, and tells whether one is wanted.
func (t *Table) learn(in *api.Instance, client string) (want bool) {
	if in.Deps == "" || t.lists[in.Deps] != nil || t.listSize >= maxListSize || t.client(client).lists >= maxListOf {
		return false
	}
	if in.DepList == nil {
		return true
	}
	l := newList(in.DepList, client)
	t.keep(in.Deps, l)
	t.unsaved.lists[in.Deps] = l
	return false
}

func (t *Table) keep(d api.Digest, l *list) {
	t.lists[d] = l
	t.listSize += l.size
	t.client(l.from).lists += l.size
}

func (t *Table) forgetLists() {
	used := map[api.Digest]bool{}
	for f := range t.groups {
		used[f.Deps] = true
	}
	for d, l := range t.lists {
		if !used[d] {
			delete(t.lists, d)
			t.listSize -= l.size
			t.client(l.from).lists -= l.size
		}
	}
}

// Hit is a dependency of a list that was asked for.
type Hit struct {
	URL       string
	Unordered bool // its version can't be compared
}

// Dependency finds the lists that have a package, given by name or package URL,
// in the version that it names or in one below another; "" is any. known has the digests of
// all lists that would name it.
func (t *Table) Dependency(name, below string) (hits map[api.Digest][]Hit, known map[api.Digest]bool) {
	t.mu.RLock()
	lists := maps.Clone(t.lists)
	t.mu.RUnlock()
	hits, known = map[api.Digest][]Hit{}, map[api.Digest]bool{}
	name, exact := splitVersion(name)
	for d, l := range lists {
		h := l.find(name, exact, below)
		if len(h) > 0 {
			hits[d] = h
		}
		known[d] = len(h) > 0 || l.complete() || strings.HasSuffix(name, "stdlib")
	}
	return hits, known
}

// complete tells a list from what Go says of a test, or of a program that wasn't
// built from modules: nothing but its own version.
func (l *list) complete() bool {
	return len(l.lines) != 1 || !strings.HasPrefix(l.lines[0], "pkg:golang/stdlib@")
}

func (l *list) find(name, exact, below string) (hits []Hit) {
	for _, p := range l.prefixes(name) {
		at, _ := slices.BinarySearch(l.lines, p)
		for ; at < len(l.lines) && strings.HasPrefix(l.lines[at], p); at++ {
			version, _, _ := strings.Cut(l.lines[at][len(p):], "?")
			if exact != "" && version != exact {
				continue
			}
			if less, ordered := lessThan(version, below); less || !ordered || revised(p, version) {
				hits = append(hits, Hit{l.lines[at], !ordered || below != "" && revised(p, version)})
			}
		}
	}
	return hits
}

// splitVersion takes the version off a name or package URL. A scope of npm stands
// in front, and qualifiers behind.
func splitVersion(name string) (bare, version string) {
	name, _, _ = strings.Cut(name, "?")
	if at := strings.LastIndex(name, "@"); at > 0 && at > strings.LastIndex(name, "/") && !strings.HasSuffix(name[:at], "/") {
		return name[:at], name[at+1:]
	}
	return name, ""
}

// prefixes are the ways to write a name in package URLs: as it is, with npm's @
// escaped, and in lower case, which some tools prefer.
func (l *list) prefixes(name string) (out []string) {
	types := l.types
	if rest, ok := strings.CutPrefix(name, "pkg:"); ok {
		kind, n, _ := strings.Cut(rest, "/")
		types, name = []string{"pkg:" + kind + "/"}, n
	}
	if strings.HasPrefix(name, "@") {
		name = "%40" + name[1:]
	}
	for _, t := range types {
		out = append(out, t+name+"@")
		if lower := strings.ToLower(name); lower != name {
			out = append(out, t+lower+"@")
		}
	}
	return out
}

// revised tells whether a version has a distribution's own revision behind it,
// which semantic versions would take for a pre-release.
func revised(prefix, version string) bool {
	return strings.Contains(version, "-") && (strings.HasPrefix(prefix, "pkg:deb/") || strings.HasPrefix(prefix, "pkg:rpm/") || strings.HasPrefix(prefix, "pkg:apk/"))
}

// lessThan compares semantic versions, with or without a leading v, as package
// URLs write them.
func lessThan(version, below string) (less, ordered bool) {
	if below == "" {
		return true, true
	}
	if plain, err := url.PathUnescape(version); err == nil {
		version = plain
	}
	a, b := canonical(version), canonical(below)
	return semver.Compare(a, b) < 0, semver.IsValid(a)
}

// ValidVersion tells whether a version can be compared with.
func ValidVersion(s string) bool { return semver.IsValid(canonical(s)) }

func canonical(s string) string { return "v" + strings.TrimPrefix(s, "v") }
