package bundler

import (
	"bytes"
	"strings"

	"github.com/sealstone/sealstone/api"
)

// tests looks at tests/: only contexts/<service>.jsonl means something there.
func (r *reader) tests(dir entry) {
	entries, err := r.b.repo.tree(dir.hash)
	if err != nil {
		r.object("tests", dir.hash, err)
		return
	}
	for _, e := range entries {
		if e.name == "contexts" && e.kind == kindDir {
			r.contexts("tests/contexts", e)
		}
	}
}

func (r *reader) contexts(path string, dir entry) {
	sub := &reader{ctx: r.ctx, b: r.b}
	entries := sub.dir(path, dir.hash)
	if !sub.within(path, entries) {
		entries = nil
	}
	for _, e := range entries {
		file := path + "/" + e.name
		service, ok := strings.CutSuffix(e.name, ".jsonl")
		if !ok || e.kind != kindFile || api.CheckName(service) != nil {
			sub.add(fault(ruleUnknownFile, place{file: file}, "unknown entry %s", quote(e.name)).withFix("Recorded contexts are files tests/contexts/<service>.jsonl"))
			continue
		}
		if raw, ok := sub.file(file, e.hash); ok {
			sub.add(stamp(checkContexts(file, raw), service)...)
		}
	}
	r.add(sub.faults...)
	if r.err == nil {
		r.err = sub.err
	}
}

// checkContexts holds each line of a file to the form that eval and plan read.
func checkContexts(file string, raw []byte) Faults {
	if f, bad := checkBytes(file, raw); bad {
		return Faults{f}
	}
	var out Faults
	line := 0
	for text := range bytes.Lines(raw) {
		if text = bytes.TrimRight(text, "\r\n"); len(bytes.TrimSpace(text)) > 0 {
			out = append(out, moved(checkContext(file, text), line)...)
		}
		if line++; len(out) > maxFaults {
			break
		}
	}
	return out
}

func checkContext(file string, text []byte) Faults {
	n, faults := readJSON(file, text)
	if n == nil {
		return faults
	}
	res, err := ownSchema("contexts").Validate(n.value())
	if err != nil {
		return Faults{fault(ruleContexts, n.at, "%s", err)}
	}
	return schemaFaults(ruleContexts, n, res)
}

// moved shifts faults of one line to where the line stands.
func moved(fs Faults, lines int) Faults {
	for i := range fs {
		fs[i].Line += lines
	}
	return fs
}
