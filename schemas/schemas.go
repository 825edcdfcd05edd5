// Package schemas holds the JSON Schemas of Sealstone's files, embedded, and
// compiles them and the schemas of a config repository without ever fetching or
// opening anything.
//
// A schema may refer to the built-in ones by file name and to its neighbours by
// theirs; every other reference is refused with a [*RefError]. Regular
// expressions are RE2, so they run in linear time; the work of one validation
// is counted and bounded, because a schema of a few hundred bytes can ask for
// 2^64 steps.
package schemas

import (
	"embed"
	"io/fs"
	"strings"
)

//go:embed *.schema.json flagd/*.schema.json
var files embed.FS

// Suffix ends the name of every schema file.
const Suffix = ".schema.json"

// flagdBase is the $id folder of the flag-definition schemas.
const flagdBase = "https://flagd.dev/schema/v0/"

// Builtin returns the bytes of an embedded schema by its name without Suffix:
// "service", "flags", "targeting".
func Builtin(name string) ([]byte, bool) {
	for _, dir := range []string{"", "flagd/"} {
		if b, err := files.ReadFile(dir + name + Suffix); err == nil {
			return b, true
		}
	}
	return nil, false
}

// Names lists the built-in schemas.
func Names() []string {
	var names []string
	for _, pattern := range []string{"*" + Suffix, "flagd/*" + Suffix} {
		found, _ := fs.Glob(files, pattern) // the pattern is well formed
		for _, f := range found {
			names = append(names, strings.TrimSuffix(strings.TrimPrefix(f, "flagd/"), Suffix))
		}
	}
	return names
}
