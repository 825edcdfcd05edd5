package bundler

import (
	"context"
	"errors"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

// maxFiles is how many files a service, or common/, may have.
const maxFiles = 10_000

// A reader reads one part of a commit (a service, common/, a file of its own)
// and gathers what is wrong with it. err is what is wrong with us: storage, a
// cancelled context; it ends the reading.
type reader struct {
	ctx context.Context
	b   *Builder
	found
	errors int  // faults of severity Error so far
	nodes  bool // are wanted, also of files that are known
	err    error
}

// What was found in a file or in a folder. It depends on its bytes and its path
// alone, so it is remembered by them.
type found struct {
	faults  Faults
	secrets []secret
	files   int
	data    int  // files of flags
	size    int  // bytes of documents and flags
	values  int  // of them
	defines int  // names, of flags files
	full    bool // more than is read: what follows is left out
}

func (f *found) weight() int { return 512 + faultWeight*len(f.faults) + 64*len(f.secrets) }

// absorb takes over what was found in a part, which lies at path.
func (r *reader) absorb(path string, part *found) {
	few := r.files <= maxFiles && part.files <= maxFiles
	r.add(part.faults...)
	r.secrets = append(r.secrets, part.secrets...)
	r.files, r.size, r.values = r.files+part.files, r.size+part.size, r.values+part.values
	if few && r.files > maxFiles {
		r.fault(ruleFilesLimit, place{file: path}, "more than %d files", maxFiles)
	}
	if !part.full && (r.size > maxServiceBytes || r.values > maxServiceValues) {
		r.fault(ruleValuesLimit, place{file: serviceOf(path)}, "more than %d values or %d bytes", maxServiceValues, maxServiceBytes)
		r.full = true
	}
	r.full = r.full || part.full
}

func (r *reader) fault(rule *Rule, at place, format string, args ...any) {
	r.add(fault(rule, at, format, args...))
}

func (r *reader) add(fs ...Fault) {
	for _, f := range fs {
		if f.Severity == Error {
			r.errors++
		}
		if len(r.faults) <= 2*maxFaults {
			r.faults = append(r.faults, f)
		}
	}
}

// stop reports whether reading on makes no sense.
func (r *reader) stop() bool {
	if r.err == nil {
		r.err = r.ctx.Err()
	}
	return r.err != nil || r.files > maxFiles || r.full
}

// dir lists a folder without what may not be there: links, submodules, names
// that clash. Markdown and dot files are for people and left out.
func (r *reader) dir(path string, h plumbing.Hash) []entry {
	if r.stop() {
		return nil
	}
	entries, err := r.b.repo.tree(h)
	if err != nil {
		r.object(path, h, err)
		return nil
	}
	r.clashes(path, entries)
	var out []entry
	for _, e := range entries {
		if r.count(path); r.stop() {
			return nil
		}
		if r.usable(path+"/"+e.name, e) {
			out = append(out, e)
		}
	}
	return out
}

func (r *reader) count(path string) {
	if r.files++; r.files == maxFiles+1 {
		r.fault(ruleFilesLimit, place{file: path}, "more than %d files", maxFiles)
	}
}

func (r *reader) object(path string, h plumbing.Hash, err error) {
	f, ok := objectFault(path, h, err)
	switch {
	case ok:
		r.add(f)
	case errors.Is(err, errTooLarge):
		r.fault(ruleFilesLimit, place{file: path}, "the folder has too many entries")
	case r.err == nil:
		r.err = err
	}
}

func (r *reader) usable(path string, e entry) bool {
	switch e.kind {
	case kindSymlink:
		r.fault(ruleSymlink, place{file: path}, "%s is a symbolic link", quote(e.name))
		return false
	case kindSubmodule:
		r.fault(ruleSubmodule, place{file: path}, "%s is a submodule", quote(e.name))
		return false
	case kindFile:
		if e.name == ".gitattributes" {
			r.attributes(path, e.hash)
		}
		return !strings.HasPrefix(e.name, ".") && !strings.HasSuffix(e.name, ".md")
	}
	return true
}

// clashes reports names that are one on a file system that folds case.
func (r *reader) clashes(path string, entries []entry) {
	seen := make(map[string]string, len(entries))
	for _, e := range entries {
		low := strings.ToLower(e.name)
		if first, twice := seen[low]; twice {
			r.fault(ruleCase, place{file: strings.TrimPrefix(path+"/"+e.name, "/")}, "%s and %s differ only in case", quote(first), quote(e.name))
		}
		seen[low] = e.name
	}
}

// file reads one file, nil and false when it can't be used.
func (r *reader) file(path string, h plumbing.Hash) ([]byte, bool) {
	raw, f, err := r.b.file(path, h)
	if f != nil {
		r.add(*f)
	}
	if err != nil && r.err == nil {
		r.err = err
	}
	return raw, f == nil && err == nil
}

// A docFile is a document of a layer. One that is known is not read before
// somebody wants its node.
type docFile struct {
	path string
	hash plumbing.Hash
	root *node
}

// document takes over what is known of a document, or else reads it.
func (r *reader) document(f *docFile) {
	key := fileKey{f.path, f.hash}
	known, ok := r.b.known.get(key)
	if !ok || r.nodes || r.stop() {
		if known = r.readDocument(f); known == nil {
			return
		}
		r.b.known.put(key, known, known.weight())
	}
	r.absorb(f.path, known)
}

// readDocument leaves a node in f, whatever is wrong with it.
func (r *reader) readDocument(f *docFile) *found {
	f.root = &node{at: place{file: f.path}}
	if r.stop() {
		return nil
	}
	d := r.parse(f.path, f.hash, forConfig)
	if d == nil {
		return nil
	}
	if d.root != nil {
		f.root = d.root
	}
	known := d.found // without the node
	return &known
}

// node reads a document that was known, when it is needed after all.
func (r *reader) node(f *docFile) *node {
	if f.root == nil {
		r.readDocument(f)
	}
	return f.root
}

// parse reads a document or flags file; nil says that there is no text.
func (r *reader) parse(path string, h plumbing.Hash, use usage) *document {
	raw, ok := r.file(path, h)
	if !ok {
		return nil
	}
	d := readDocument(path, raw, use)
	if d.root != nil && use == forConfig {
		nulls := &reader{}
		nulls.arrayNulls(d.root)
		d.faults = append(d.faults, nulls.faults...)
	}
	return d
}

// serviceOf is the folder of the service, or common, that a path lies in.
func serviceOf(path string) string {
	parts := strings.SplitN(path, "/", 3)
	if parts[0] == "services" && len(parts) == 3 {
		return parts[0] + "/" + parts[1]
	}
	return parts[0]
}

// within reports whether the files of a folder are few enough bytes to be read,
// by their headers alone.
func (r *reader) within(path string, entries []entry) bool {
	size := int64(0)
	for _, e := range entries {
		if e.kind == kindFile {
			size += r.b.repo.size(e.hash)
		}
	}
	if size > maxFolderBytes {
		r.fault(ruleValuesLimit, place{file: path}, "its files have more than %d bytes", maxFolderBytes)
	}
	return size <= maxFolderBytes
}

// own reads one of Sealstone's own files.
func (r *reader) own(path string, h plumbing.Hash, schema string) *node {
	raw, ok := r.file(path, h)
	if !ok {
		return nil
	}
	n, faults := readOwn(path, raw, schema)
	r.add(faults...)
	if n != nil && schema != "clients" {
		r.secrets = append(r.secrets, findSecrets(path, raw, n)...)
	}
	return n
}

// unknown reports a file that nobody would read.
func (r *reader) unknown(path string, e entry, known ...string) {
	what := "file"
	if e.kind == kindDir {
		what = "folder"
	}
	f := fault(ruleUnknownFile, place{file: path}, "unknown %s %s", what, quote(e.name))
	if near, ok := nearest(e.name, known); ok {
		f = f.withFix("Did you mean %s", near)
	} else if len(known) > 0 {
		f = f.withFix("Move it out of this folder; expected here: %s", strings.Join(known, ", "))
	}
	r.add(f)
}

// nearest returns the known name that a typing error would have come from.
func nearest(name string, known []string) (string, bool) {
	best, least := "", 3
	for _, k := range known {
		if d := distance(strings.ToLower(name), k); d < least && d < len(k) {
			best, least = k, d
		}
	}
	return best, best != ""
}

// distance is Levenshtein's, for short names; long ones are far from all.
func distance(a, b string) int {
	if len(a) > 80 || len(b) > 80 {
		return 80
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			up := row[j]
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(up+1, row[j-1]+1, diagonal+cost)
			diagonal = up
		}
	}
	return row[len(b)]
}

// attributes warns of lines that make a checkout differ from what is committed.
func (r *reader) attributes(path string, h plumbing.Hash) {
	raw, ok := r.file(path, h)
	if !ok {
		return
	}
	line := int32(0)
	for text := range strings.Lines(string(raw)) {
		line++
		if pattern, attr, ok := rewriting(text); ok && touches(path, pattern) {
			r.fault(ruleAttributes, place{path, line, 1}, "%s sets %s", quote(pattern), quote(attr))
		}
	}
}

func rewriting(text string) (pattern, attr string, ok bool) {
	parts := strings.Fields(text)
	if len(parts) < 2 || strings.HasPrefix(parts[0], "#") {
		return "", "", false
	}
	for _, a := range parts[1:] {
		name, value, _ := strings.Cut(a, "=")
		switch name {
		case "ident", "filter", "working-tree-encoding", "export-subst":
			return parts[0], a, true
		case "eol":
			if value == "crlf" {
				return parts[0], a, true
			}
		}
	}
	return "", "", false
}

// touches reports whether a pattern could match a file of a bundle. It errs on
// the side of a warning.
func touches(file, pattern string) bool {
	pattern = strings.TrimPrefix(pattern, "/")
	if first, _, ok := strings.Cut(pattern, "/"); ok && file == ".gitattributes" && !strings.ContainsAny(first, "*?[") {
		return first == "services" || first == "common" || first == "schemas"
	}
	if i := strings.LastIndexByte(pattern, '.'); i >= 0 && !strings.ContainsAny(pattern[i:], "*?[") {
		ext := pattern[i:]
		return ext == ".yaml" || ext == ".yml" || ext == ".json"
	}
	return true
}
