package sdk

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/open-feature/go-sdk/openfeature"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/flags"
	"github.com/sealstone/sealstone/ledger"
)

// program is one bundle, verified and compiled. It is never written after it
// is made, so readers share it without a lock.
type program struct {
	bundle  api.Digest
	mode    api.Mode
	flags   *flags.Set
	entries map[string]*entry
	missing openfeature.FlagMetadata // of a flag that isn't there
	docs    map[string][]byte        // "config/http" → JSON
}

// entry is a flag with all that evaluating it needs.
type entry struct {
	flag     *flags.Flag
	usesTime bool
	metadata openfeature.FlagMetadata
}

// now reads the clock only for rules that ask for it.
func (e *entry) now() time.Time {
	if e.usesTime {
		return time.Now()
	}
	return time.Time{}
}

// compile is the dry run: every rule is compiled and every document parsed
// before anything of the bundle is used.
func compile(service string, c *bundle.Content) (p *program, err error) {
	defer func() {
		if r := recover(); r != nil { // content that breaks the compiler must not break the service
			p, err = nil, ledger.Refuse(ledger.CheckDryRun, fmt.Errorf("bundle %s: panic: %v", c.Digest.Short(), r))
		}
	}()
	set, err := flags.Compile(c.Files[bundle.FlagsTitle])
	if err != nil {
		return nil, ledger.Refuse(ledger.CheckDryRun, fmt.Errorf("bundle %s: %w", c.Digest.Short(), err))
	}
	p = &program{bundle: c.Digest, mode: c.Config.Mode, flags: set, docs: map[string][]byte{}}
	for title, b := range c.Files {
		if title != bundle.FlagsTitle { // bundle.Open has parsed it: it is canonical JSON
			p.docs[strings.TrimSuffix(title, ".json")] = b
		}
	}
	p.prebuild(service)
	return p, nil
}

// prebuild makes the entry of every flag, so that evaluating allocates nothing.
// Which set and which bundle answered is ours to say, whatever the flags' own
// metadata claims.
func (p *program) prebuild(service string) {
	with := func(md map[string]any) openfeature.FlagMetadata {
		out := make(openfeature.FlagMetadata, len(md)+2)
		maps.Copy(out, md)
		out["flagSetId"], out["version"] = service, string(p.bundle)
		return out
	}
	ofSet := p.flags.Metadata()
	p.missing, p.entries = with(ofSet), make(map[string]*entry, p.flags.Len())
	for _, key := range p.flags.Keys() {
		e := &entry{flag: p.flags.Flag(key), usesTime: p.flags.UsesTime(key), metadata: p.missing}
		if md := e.flag.Metadata(); !maps.EqualFunc(md, ofSet, equalScalar) {
			e.metadata = with(md) // all others share one map
		}
		p.entries[key] = e
	}
}

// equalScalar compares metadata values, which are strings, numbers or booleans.
func equalScalar(a, b any) bool { return a == b }
