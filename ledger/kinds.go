package ledger

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sealstone/sealstone/api"
)

// Lane is which of the four sequences of a (service, scope) a change is in.
type Lane string

// The lanes.
const (
	LaneMain     Lane = "main"     // moved by Git
	LaneOverride Lane = "override" // safe mode
	LaneRecord   Lane = "record"   // facts; never moves state
	LaneTrust    Lane = "trust"    // keys, operators, the source's lineage
)

// Kind is what a change says, without the "dev.sealstone." prefix.
type Kind string

// The kinds of changes.
const (
	LedgerCreated    Kind = "ledger.created"
	OperatorsChanged Kind = "operators.changed"
	SourceRefused    Kind = "source.refused"
	SourceAccepted   Kind = "source.accepted"

	BundleActivated Kind = "bundle.activated"
	BundleWithdrawn Kind = "bundle.withdrawn"
	BundleRejected  Kind = "bundle.rejected"

	SafeModeEntered Kind = "safe-mode.entered"
	SafeModeRenewed Kind = "safe-mode.renewed"
	SafeModeExited  Kind = "safe-mode.exited"
	SafeModeOverdue Kind = "safe-mode.overdue"
	SafeModeDrilled Kind = "safe-mode.drilled"

	DeployStarted     Kind = "deploy.started"
	DeployFinished    Kind = "deploy.finished"
	DeployRolledBack  Kind = "deploy.rolled-back"
	SecretRotated     Kind = "secret.rotated"
	InfraChanged      Kind = "infra.changed"
	DependencyChanged Kind = "dependency.changed"
	NoteAdded         Kind = "note.added"

	StatementLate Kind = "statement.late"
	DetailErased  Kind = "detail.erased"
	ObjectErased  Kind = "object.erased"
)

// TypePrefix stands before a kind in an event's type.
const TypePrefix = "dev.sealstone."

// who says which kinds need somebody's statement.
type who uint8

const (
	byNode      who = iota // the node's own word
	byStatement            // always caused by a signed statement
	byEither               // a statement, or the node when a timer ran out
	byRoots                // carries a root-signed envelope
)

// rule is one row of the table of kinds.
type rule struct {
	lane     Lane
	who      who
	do       string   // what an operator's may must grant
	required []string // kind fields of the event
	optional []string
	// nodeOnly fields are in the event but not in the statement.
	nodeOnly []string
	place    place
}

// place says which of service and scope a kind names.
type place uint8

const (
	placeNone place = iota
	placeBoth
	placeService // the scope is optional
	placeAny     // both are optional
)

var artifactFields = []string{"artifact", "baseImage", "image", "name", "sbom", "version"}

var rules = map[Kind]rule{
	LedgerCreated:    {LaneTrust, byNode, "", []string{"trust"}, nil, nil, placeNone},
	OperatorsChanged: {LaneTrust, byRoots, "", []string{"version", "commit"}, nil, nil, placeNone},
	SourceRefused:    {LaneTrust, byNode, "", []string{"from", "to"}, nil, nil, placeNone},
	SourceAccepted:   {LaneTrust, byStatement, "source", []string{"from", "to"}, nil, nil, placeNone},

	BundleActivated: {LaneMain, byNode, "", []string{"release", "set", "contract"}, []string{"replaces"}, nil, placeBoth},
	BundleWithdrawn: {LaneMain, byNode, "", []string{"release", "replaces"}, nil, nil, placeBoth},
	BundleRejected:  {LaneRecord, byNode, "", []string{"release", "faults", "total"}, nil, nil, placeService},

	SafeModeEntered: {LaneOverride, byStatement, "safe-mode", []string{"mode", "ttl", "onExpiry", "expires", "resolved"}, nil, []string{"expires", "resolved"}, placeBoth},
	SafeModeRenewed: {LaneOverride, byStatement, "safe-mode", []string{"mode", "ttl", "onExpiry", "expires", "resolved"}, nil, []string{"expires", "resolved"}, placeBoth},
	SafeModeExited:  {LaneOverride, byEither, "safe-mode", []string{"mode", "resolved"}, nil, []string{"resolved"}, placeBoth},
	SafeModeOverdue: {LaneRecord, byNode, "", []string{"mode", "expires"}, nil, nil, placeBoth},
	SafeModeDrilled: {LaneRecord, byStatement, "safe-mode", []string{"mode"}, nil, nil, placeBoth},

	DeployStarted:     {LaneRecord, byStatement, "record", nil, artifactFields, nil, placeService},
	DeployFinished:    {LaneRecord, byStatement, "record", nil, artifactFields, nil, placeService},
	DeployRolledBack:  {LaneRecord, byStatement, "record", nil, artifactFields, nil, placeService},
	SecretRotated:     {LaneRecord, byStatement, "record", []string{"name", "version"}, nil, nil, placeAny},
	InfraChanged:      {LaneRecord, byStatement, "record", nil, []string{"name", "plan", "version"}, nil, placeAny},
	DependencyChanged: {LaneRecord, byStatement, "record", []string{"purl"}, []string{"version"}, nil, placeAny},
	NoteAdded:         {LaneRecord, byStatement, "record", nil, nil, nil, placeAny},

	StatementLate: {LaneRecord, byStatement, "", []string{"late"}, nil, []string{"late"}, placeAny},
	DetailErased:  {LaneRecord, byStatement, "erase", []string{"index"}, nil, nil, placeAny},
	ObjectErased:  {LaneRecord, byStatement, "erase", []string{"object"}, nil, nil, placeAny},
}

// Kinds lists every kind, sorted.
func Kinds() []Kind {
	out := make([]Kind, 0, len(rules))
	for k := range rules {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// Lane is the lane of a kind, "" for an unknown one.
func (k Kind) Lane() Lane { return rules[k].lane }

// Known reports whether the kind exists.
func (k Kind) Known() bool { _, ok := rules[k]; return ok }

// Signed reports whether a person's or pipeline's statement causes this kind.
func (k Kind) Signed() bool {
	r := rules[k]
	return (r.who == byStatement || r.who == byEither) && k != StatementLate
}

// Members are those that a statement of the kind has, or may have, of its own.
func (k Kind) Members() []string {
	r := rules[k]
	out := slices.DeleteFunc(slices.Concat(r.required, r.optional), func(name string) bool { return slices.Contains(r.nodeOnly, name) })
	slices.Sort(out)
	return out
}

// Do is what an operator must be allowed to do to sign a statement of the kind.
func (k Kind) Do() string { return rules[k].do }

// Fields are the kind's own members, the same in a statement and in the event
// it causes. Which kind has which is the table's business.
type Fields struct {
	Artifact  string       `json:"artifact,omitempty"`
	BaseImage string       `json:"baseImage,omitempty"`
	Commit    string       `json:"commit,omitempty"`
	Contract  int          `json:"contract,omitempty"`
	Expires   string       `json:"expires,omitempty"`
	Faults    []FaultPlace `json:"faults,omitempty"`
	From      string       `json:"from,omitempty"`
	Image     string       `json:"image,omitempty"`
	Index     int64        `json:"index,omitempty"`
	Late      string       `json:"late,omitempty"`
	Mode      api.Mode     `json:"mode,omitempty"`
	Name      string       `json:"name,omitempty"`
	Object    api.Digest   `json:"object,omitempty"`
	OnExpiry  string       `json:"onExpiry,omitempty"`
	Plan      string       `json:"plan,omitempty"`
	PURL      string       `json:"purl,omitempty"`
	Release   *Release     `json:"release,omitempty"`
	Replaces  api.Digest   `json:"replaces,omitempty"`
	Resolved  []Resolved   `json:"resolved,omitempty"`
	SBOM      string       `json:"sbom,omitempty"`
	Set       *SetRef      `json:"set,omitempty"`
	To        string       `json:"to,omitempty"`
	Total     int          `json:"total,omitempty"`
	Trust     api.Digest   `json:"trust,omitempty"`
	TTL       int64        `json:"ttl,omitempty"` // seconds
	Version   string       `json:"version,omitempty"`
}

// Release is where a main change came from.
type Release struct {
	Commit     string `json:"commit"`
	Ref        string `json:"ref"`
	Repository string `json:"repository"`
	Skipped    int    `json:"skipped"` // commits passed over since the last accepted tip
	Tree       string `json:"tree"`
}

// SetRef names a set.
type SetRef struct {
	Digest api.Digest `json:"digest"`
	Size   int64      `json:"size"`
}

// Resolved tells which bundle a mode means at a scope.
type Resolved struct {
	Bundle api.Digest `json:"bundle"`
	Scope  api.Scope  `json:"scope"`
}

// FaultPlace is a fault of the repository without its words.
type FaultPlace struct {
	Column int    `json:"column,omitempty"`
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Rule   string `json:"rule"`
}

// present lists the names of the members that are set.
func (f *Fields) present() []string {
	var out []string
	add := func(name string, set bool) {
		if set {
			out = append(out, name)
		}
	}
	add("artifact", f.Artifact != "")
	add("baseImage", f.BaseImage != "")
	add("commit", f.Commit != "")
	add("contract", f.Contract != 0)
	add("expires", f.Expires != "")
	add("faults", f.Faults != nil)
	add("from", f.From != "")
	add("image", f.Image != "")
	add("index", f.Index != 0)
	add("late", f.Late != "")
	add("mode", f.Mode != "")
	add("name", f.Name != "")
	add("object", f.Object != "")
	add("onExpiry", f.OnExpiry != "")
	add("plan", f.Plan != "")
	add("purl", f.PURL != "")
	add("release", f.Release != nil)
	add("replaces", f.Replaces != "")
	add("resolved", f.Resolved != nil)
	add("sbom", f.SBOM != "")
	add("set", f.Set != nil)
	add("to", f.To != "")
	add("total", f.Total != 0)
	add("trust", f.Trust != "")
	add("ttl", f.TTL != 0)
	add("version", f.Version != "")
	return out
}

// checkFields holds the closed list of members of a kind.
func (r rule) checkFields(f *Fields, inStatement bool) error {
	have := f.present()
	for _, name := range have {
		known := slices.Contains(r.required, name) || slices.Contains(r.optional, name)
		if !known || inStatement && slices.Contains(r.nodeOnly, name) {
			return fmt.Errorf("member %q is not part of this kind", name)
		}
	}
	for _, name := range r.required {
		if !slices.Contains(have, name) && !(inStatement && slices.Contains(r.nodeOnly, name)) && name != "resolved" {
			return fmt.Errorf("member %q is missing", name)
		}
	}
	return f.check()
}

// Bounds of a safe mode's time to live, in seconds.
const (
	MinTTL = 60
	MaxTTL = 24 * 3600
)

func (f *Fields) check() error {
	for _, d := range []api.Digest{f.Object, f.Replaces, f.Trust} {
		if d != "" && !d.Valid() {
			return fmt.Errorf("%.80q: %w", string(d), api.ErrDigest)
		}
	}
	for _, d := range []string{f.Artifact, f.Image, f.BaseImage, f.SBOM, f.Plan} {
		if d != "" && !api.Digest(d).Valid() {
			return fmt.Errorf("%.80q: %w", d, api.ErrDigest)
		}
	}
	if f.OnExpiry != "" && f.OnExpiry != "hold" && f.OnExpiry != "restore" {
		return fmt.Errorf("onExpiry %.32q: write hold or restore", f.OnExpiry)
	}
	if f.TTL != 0 && (f.TTL < MinTTL || f.TTL > MaxTTL) {
		return fmt.Errorf("ttl of %d seconds: write 60 (1m) to 86400 (24h)", f.TTL)
	}
	if f.Mode != "" {
		if err := api.CheckName(string(f.Mode)); err != nil {
			return fmt.Errorf("mode %w", err)
		}
	}
	if f.Expires != "" {
		if _, err := api.ParseTime(f.Expires); err != nil {
			return err
		}
	}
	return f.checkText()
}

// checkText keeps free text out of leaves: names and versions are short and
// have no spaces or control characters.
func (f *Fields) checkText() error {
	for name, s := range map[string]string{"name": f.Name, "version": f.Version, "purl": f.PURL, "from": f.From, "to": f.To, "commit": f.Commit} {
		if len(s) > 256 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
			return fmt.Errorf("member %q: at most 256 bytes without spaces; put words into the detail", name)
		}
	}
	if f.Set != nil && (!f.Set.Digest.Valid() || f.Set.Size <= 0) {
		return fmt.Errorf("set: %w", api.ErrDigest)
	}
	if f.Release != nil && (!api.IsCommit(f.Release.Commit) || !api.IsCommit(f.Release.Tree)) {
		return fmt.Errorf("release: commit and tree are 40 lower-case hex digits")
	}
	for _, r := range f.Resolved {
		if !r.Bundle.Valid() {
			return fmt.Errorf("resolved: %w", api.ErrDigest)
		}
	}
	return nil
}

func (r rule) checkPlace(service string, scope api.Scope) error {
	switch {
	case r.place == placeNone && (service != "" || scope != ""):
		return fmt.Errorf("this kind names neither service nor scope")
	case r.place == placeBoth && (service == "" || scope == ""):
		return fmt.Errorf("this kind names a service and a scope")
	case r.place == placeService && service == "":
		return fmt.Errorf("this kind names a service")
	case service == "" && scope != "":
		return fmt.Errorf("a scope needs a service")
	}
	if service != "" {
		if err := api.CheckName(service); err != nil {
			return fmt.Errorf("service %w", err)
		}
	}
	if scope != "" {
		if _, err := api.ParseScope(string(scope)); err != nil {
			return err
		}
	}
	return nil
}
