package bundler

import (
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/sealstone/sealstone/api"
)

// A layer is one folder with config/ and flags/: values that lie over those of
// the layers before it.
type layer struct {
	dir        string
	base       bool                // of common or a service: where things are defined
	docs       map[string]*docFile // by document name
	flagsTree  plumbing.Hash       // of flags/, zero when there is none
	names      int                 // that flags files define
	loaded     bool                // what follows is read
	flags      map[string]*node
	evaluators map[string]*node
	metadata   map[string]*node

	files int // of config and flags

	// What can't be trusted because its file has errors: nothing is said about
	// values that are made of it.
	badDocs  map[string]bool
	badFlags bool
}

func (l *layer) hasFlags() bool { return l.names > 0 }

// A source is all that one service, or common/, says in one commit.
type source struct {
	dir      string
	base     *layer
	overlays map[api.Scope]*layer
	modes    map[api.Mode]*modeSource
	meta     *node // service.yaml
	found
}

type modeSource struct {
	SafeMode
	layer *layer
}

// SafeMode is what a safe-mode.yaml says.
type SafeMode struct {
	Description string
	Owner       string
	TTL         time.Duration
	OnExpiry    string // "hold" or "restore"
	Exit        []string
}

// The names that a folder may hold.
var (
	serviceNames = []string{"service.yaml", "config", "flags", "overlays", "safe-modes"}
	commonNames  = []string{"service.yaml", "config", "flags", "overlays"}
	layerNames   = []string{"config", "flags"}
	modeNames    = []string{"safe-mode.yaml", "config", "flags"}
)

// source reads services/<service>, or common/ when common is set.
func (r *reader) source(dir string, h plumbing.Hash, common bool) *source {
	s := &source{dir: dir, base: newLayer(dir), overlays: map[api.Scope]*layer{}, modes: map[api.Mode]*modeSource{}}
	s.base.base = true
	known, schema := serviceNames, "service"
	if common {
		known, schema = commonNames, "common"
	}
	described := false
	for _, e := range r.dir(dir, h) {
		path := dir + "/" + e.name
		switch {
		case e.name == "service.yaml" && e.kind == kindFile:
			s.meta, described = r.own(path, e.hash, schema), true
		case e.name == "overlays" && e.kind == kindDir:
			r.overlays(s, path, e.hash, "")
		case e.name == "safe-modes" && e.kind == kindDir && !common:
			r.modes(s, path, e.hash)
		case !r.layerPart(s.base, path, e):
			r.unknown(path, e, known...)
		}
	}
	if !described && !common && !r.stop() {
		r.fault(ruleFormatNeeded, place{file: dir + "/service.yaml"}, "service.yaml is missing")
	}
	s.found = r.found
	return s
}

func newLayer(dir string) *layer {
	return &layer{
		dir: dir, docs: map[string]*docFile{},
		flags: map[string]*node{}, evaluators: map[string]*node{}, metadata: map[string]*node{}, badDocs: map[string]bool{},
	}
}

// layerPart reads config/ or flags/ of a layer; false means it is neither.
func (r *reader) layerPart(l *layer, path string, e entry) bool {
	switch {
	case e.kind != kindDir:
		return false
	case e.name == "config":
		r.documents(l, path, e.hash)
	case e.name == "flags":
		r.flagFiles(l, path, e.hash)
	default:
		return false
	}
	return true
}

// maxLevels is how many levels sealstone.yaml may have. Deeper folders are not
// even looked into: a tree may hold itself a thousand times over.
const maxLevels = 8

// overlays reads a folder of scopes: config and flags are the layer of the
// scope that leads here, every other folder is its next part.
func (r *reader) overlays(s *source, dir string, h plumbing.Hash, scope api.Scope) {
	l := newLayer(dir)
	for _, e := range r.dir(dir, h) {
		path := dir + "/" + e.name
		if scope != "" && r.layerPart(l, path, e) {
			continue
		}
		if e.kind != kindDir {
			r.unknown(path, e, layerNames...)
			continue
		}
		next, err := api.ParseScope(strings.TrimPrefix(string(scope)+"/"+e.name, "/"))
		if err != nil {
			r.fault(ruleName, place{file: path}, "%s", err)
			continue
		}
		if next.Depth() > maxLevels {
			r.fault(ruleScopeDepth, place{file: path}, "scope %s has more than %d parts", quote(string(next)), maxLevels)
			continue
		}
		r.overlays(s, path, e.hash, next)
	}
	if l.files > 0 {
		s.overlays[scope] = l
	}
}

func (r *reader) modes(s *source, dir string, h plumbing.Hash) {
	for _, e := range r.dir(dir, h) {
		path := dir + "/" + e.name
		if e.kind != kindDir {
			r.unknown(path, e)
			continue
		}
		if err := api.CheckName(e.name); err != nil {
			r.fault(ruleName, place{file: path}, "safe mode %s", err)
			continue
		}
		s.modes[api.Mode(e.name)] = r.mode(path, e.hash)
	}
}

func (r *reader) mode(dir string, h plumbing.Hash) *modeSource {
	m, described := &modeSource{layer: newLayer(dir)}, false
	for _, e := range r.dir(dir, h) {
		path := dir + "/" + e.name
		switch {
		case e.name == "safe-mode.yaml" && e.kind == kindFile:
			described = true
			m.SafeMode = r.safeMode(r.own(path, e.hash, "safe-mode"))
		case !r.layerPart(m.layer, path, e):
			r.unknown(path, e, modeNames...)
		}
	}
	if !described && !r.stop() {
		r.fault(ruleFormatNeeded, place{file: dir + "/safe-mode.yaml"}, "safe-mode.yaml is missing")
	}
	return m
}

// Bounds of a safe mode's ttl.
const (
	defaultTTL = 4 * time.Hour
	minTTL     = time.Minute
	maxTTL     = 24 * time.Hour
)

func (r *reader) safeMode(n *node) SafeMode {
	if n == nil {
		return SafeMode{}
	}
	m := SafeMode{
		Description: n.text("description"), Owner: n.text("owner"), TTL: defaultTTL,
		OnExpiry: n.text("onExpiry"), Exit: n.texts("exit"),
	}
	if m.OnExpiry == "" {
		m.OnExpiry = "hold"
	}
	if t := n.get("ttl"); t != nil {
		var err error
		if m.TTL, err = time.ParseDuration(t.str); err != nil || m.TTL < minTTL || m.TTL > maxTTL || m.TTL%time.Second != 0 {
			r.fault(ruleTTL, t.at, "ttl %s is not between 1m and 24h", quote(t.str))
		}
	}
	return m
}

// documents reads config/ of a layer.
func (r *reader) documents(l *layer, dir string, h plumbing.Hash) {
	for _, e := range r.dir(dir, h) {
		path := dir + "/" + e.name
		name, ok := r.dataFile(path, e)
		if !ok {
			continue
		}
		l.files++
		before := r.errors
		f := &docFile{path: path, hash: e.hash}
		r.document(f)
		if _, twice := l.docs[name]; twice {
			r.fault(ruleTwice, place{file: path}, "document %s has another file in this folder", quote(name))
		}
		l.docs[name] = f
		l.badDocs[name] = l.badDocs[name] || r.errors > before
	}
}

// dataFile checks the name of a document or flags file and drops its extension.
func (r *reader) dataFile(path string, e entry) (string, bool) {
	name, ok := "", false
	for _, ext := range []string{".yaml", ".yml", ".json"} {
		if n, is := strings.CutSuffix(e.name, ext); is && e.kind == kindFile {
			name, ok = n, true
		}
	}
	if !ok {
		r.unknown(path, e)
		return "", false
	}
	if err := api.CheckFileName(name); err != nil {
		r.fault(ruleFileName, place{file: path}, "%s", err)
		return "", false
	}
	return name, true
}

// arrayNulls reports null members of objects that lie in lists: a list is
// replaced whole, so there is nothing that such a null could delete.
func (r *reader) arrayNulls(n *node) {
	for _, e := range n.list {
		nullMembers(e, func(m *node, name string) {
			r.fault(ruleNullBase, m.at, "%s is null inside a list", quote(name))
		})
	}
	for _, f := range n.fields {
		r.arrayNulls(f.val)
	}
}

// nullMembers visits every member of an object, at any depth, that is null.
func nullMembers(n *node, visit func(m *node, name string)) {
	for _, e := range n.list {
		nullMembers(e, visit)
	}
	for _, f := range n.fields {
		if f.val.kind == kindNull {
			visit(f.val, f.name)
			continue
		}
		nullMembers(f.val, visit)
	}
}
