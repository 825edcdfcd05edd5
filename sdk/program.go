package sdk

import (
	"fmt"
	"maps"
	"strings"

	"github.com/open-feature/go-sdk/openfeature"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/flags"
	"github.com/sealstone/sealstone/ledger"
)

// program is one bundle, verified and compiled. It is never written after it
// is made, so readers share it without a lock.
type program struct {
	bundle   api.Digest
	mode     api.Mode
	flags    *flags.Set
	docs     map[string][]byte                   // "config/http" → JSON
	metadata map[string]openfeature.FlagMetadata // of flags that have metadata of their own
	missing  openfeature.FlagMetadata            // of all others, there or not
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

// prebuild makes the metadata of every flag, so that evaluating allocates
// nothing. Which set and which bundle answered is ours to say, whatever the
// flags' own metadata claims.
func (p *program) prebuild(service string) {
	with := func(md map[string]any) openfeature.FlagMetadata {
		out := make(openfeature.FlagMetadata, len(md)+2)
		maps.Copy(out, md)
		out["flagSetId"], out["version"] = service, string(p.bundle)
		return out
	}
	p.missing = with(p.flags.Metadata())
	p.metadata = map[string]openfeature.FlagMetadata{}
	for _, key := range p.flags.Keys() {
		if md := p.flags.Flag(key).Metadata(); !maps.EqualFunc(md, p.flags.Metadata(), equalScalar) {
			p.metadata[key] = with(md) // the others share one map
		}
	}
}

// equalScalar compares metadata values, which are strings, numbers or booleans.
func equalScalar(a, b any) bool { return a == b }

func (p *program) metadataOf(key string) openfeature.FlagMetadata {
	if md, ok := p.metadata[key]; ok {
		return md
	}
	return p.missing
}
