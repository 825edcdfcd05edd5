package api

import (
	"cmp"
	"encoding/json"
	"strings"
)

// Pending is the answer of GET /v1/pending: statements that the server holds
// valid and the log doesn't have yet, each a DSSE envelope, verbatim.
type Pending struct {
	Statements []json.RawMessage `json:"statements"`
}

// Submission is the long form of POST /v1/changes: a statement with the detail
// that its digest names. The body may also be the bare envelope.
type Submission struct {
	Statement json.RawMessage `json:"statement"`
	Salt      string          `json:"salt,omitempty"` // 32 bytes, base64
	Detail    map[string]any  `json:"detail,omitempty"`
}

// Receipt is what a write answers: where the change is in the log. Unrecorded
// says that the log could not take it yet and it is served as pending, Volatile
// that it could not be kept on disk either, so a restart forgets it; Late
// that it came too late to count and was kept as statement.late; Behind why the
// log is known to lack entries: clients that know a newer change of the chain
// pass over the statement.
type Receipt struct {
	Index      int64  `json:"index"` // -1 while unrecorded
	LeafHash   Digest `json:"leafHash,omitempty"`
	ID         string `json:"id"`
	Kind       string `json:"kind"`
	Generation int64  `json:"generation,omitempty"`
	Repeated   bool   `json:"repeated,omitempty"` // the id was in the log before
	Unrecorded bool   `json:"unrecorded,omitempty"`
	Volatile   bool   `json:"volatile,omitempty"`
	Late       bool   `json:"late,omitempty"`
	Behind     string `json:"behind,omitempty"`
	Narrower   []Held `json:"narrower,omitempty"` // safe modes below the scope that stay in force
	Outer      []Held `json:"outer,omitempty"`    // after an exit: safe modes above the scope that still hold there
}

// Held is a safe mode in force somewhere.
type Held struct {
	Service    string `json:"service"`
	Scope      Scope  `json:"scope"`
	Mode       Mode   `json:"mode"`
	Generation int64  `json:"generation"`
	Index      int64  `json:"index"` // -1 for a pending statement
	Entered    string `json:"entered,omitempty"`
	Expires    string `json:"expires,omitempty"`
	OnExpiry   string `json:"onExpiry,omitempty"`
	Overdue    bool   `json:"overdue,omitempty"`
	Pending    bool   `json:"pending,omitempty"`
	TTL        int64  `json:"ttl,omitempty"` // of a pending one, in seconds from when it is recorded
	By         string `json:"by,omitempty"`
	Reason     string `json:"reason,omitempty"`
}

// SafeModes is the answer of GET /v1/safe-modes.
type SafeModes struct {
	Time      string     `json:"time"`                // the server's, for stamping statements
	InForce   []Held     `json:"safeModes"`           // of the service asked for, or of all
	Available []SafeMode `json:"available,omitempty"` // with service= and scope=: what can be entered there
	After     *int64     `json:"after,omitempty"`     // with service= and scope=: what a statement must carry
	Behind    string     `json:"behind,omitempty"`    // why the log lacks entries that clients may know: more may be in force on them, and after is more
}

// SafeMode is a mode that a scope's set has, as its safe-mode.yaml describes it.
type SafeMode struct {
	Mode        Mode     `json:"mode"`
	Bundle      Digest   `json:"bundle"`
	Description string   `json:"description,omitempty"`
	Owner       string   `json:"owner,omitempty"`
	TTL         int64    `json:"ttl"` // seconds, unless the statement says otherwise
	OnExpiry    string   `json:"onExpiry"`
	Exit        []string `json:"exit,omitempty"` // criteria, in words
}

// Record is one change in the answer of /v1/changes.
type Record struct {
	Index    int64           `json:"index"`
	LeafHash Digest          `json:"leafHash,omitempty"`
	Event    json.RawMessage `json:"event,omitempty"`    // the CloudEvent
	Operator string          `json:"operator,omitempty"` // who signed the statement, by the operators set cited
	Detail   map[string]any  `json:"detail,omitempty"`
	Erased   bool            `json:"erased,omitempty"`
	ErasedBy int64           `json:"erasedBy,omitempty"` // index of the change that erased the detail
	Missing  bool            `json:"missing,omitempty"`  // the detail is damaged, lost or kept back: no change erased it
	Late     bool            `json:"late,omitempty"`     // a fact that was recorded more than a minute after its time
	Damaged  bool            `json:"damaged,omitempty"`  // on the server's disk: all that is known is where it stands
}

// By is who made the change: the operator that signed it, or the commit's author.
func (r Record) By() string {
	author, _ := r.Detail["author"].(string)
	return cmp.Or(r.Operator, author)
}

// Changes is the answer of GET /v1/changes.
type Changes struct {
	Size    int64       `json:"size"` // of the log that was asked
	Changes []Record    `json:"changes"`
	Chains  []ChainSpan `json:"chains"`         // each that the answer has changes of
	Next    *int64      `json:"next,omitempty"` // ask again with before= this index (after= when oldest first); nil at the end
}

// History is the answer of GET /v1/history: what was in effect for a target,
// newest first.
type History struct {
	Target    Target     `json:"target"`
	Size      int64      `json:"size"` // of the log that was asked
	Intervals []Interval `json:"intervals"`
	Next      *int64     `json:"next,omitempty"` // ask again with before= this index; nil at the end
}

// Interval is a time in which one main change, under one override change or
// none, was in effect for a target. Times are those at which the log recorded
// the changes.
type Interval struct {
	From    string `json:"from"`
	To      string `json:"to,omitempty"`      // "" while it is in effect
	Index   int64  `json:"index"`             // of the change that began it; By to DetailMissing are about this one
	Kind    string `json:"kind"`              // its kind
	EndedBy *int64 `json:"endedBy,omitempty"` // index of the change that ended it

	By      string `json:"by,omitempty"` // operator, else commit author
	Subject string `json:"subject,omitempty"`
	Reason  string `json:"reason,omitempty"`

	Erased        bool  `json:"erased,omitempty"`        // the change's detail, so author, subject and reason, was erased
	ErasedBy      int64 `json:"erasedBy,omitempty"`      // by this change
	DetailMissing bool  `json:"detailMissing,omitempty"` // it is damaged, lost or kept back: no change erased it

	Mode     Mode      `json:"mode"`
	Bundle   Digest    `json:"bundle,omitempty"` // "" when the set can't be read: see Missing
	Missing  string    `json:"missing,omitempty"`
	Set      Digest    `json:"set"`
	Commit   string    `json:"commit"`
	Tree     string    `json:"tree"`
	Main     ChainRef  `json:"main"`
	Override *ChainRef `json:"override,omitempty"` // the one in force; Mode is normal all the same where the set has no such mode
}

// ChainRef names a change by its place in the log and in its chain.
type ChainRef struct {
	Scope      Scope `json:"scope"`
	Index      int64 `json:"index"`
	Generation int64 `json:"generation"`
}

// ChainSpan tells how much of a chain an answer shows, so that what a filter or
// a page left out is seen: generations run from 1 to Length without a gap.
type ChainSpan struct {
	Lane     string `json:"lane"`
	Service  string `json:"service,omitempty"`
	Scope    Scope  `json:"scope,omitempty"`
	First    int64  `json:"first"`    // lowest generation in the answer
	Last     int64  `json:"last"`     // highest
	Shown    int64  `json:"shown"`    // how many are in the answer
	Length   int64  `json:"length"`   // of the whole chain, at size
	Complete bool   `json:"complete"` // all of it is in the answer
}

// Annotation is a change as graphs show it, in the answer of GET
// /v1/annotations. Times are Unix milliseconds.
type Annotation struct {
	Time    int64    `json:"time"`
	TimeEnd int64    `json:"timeEnd,omitempty"` // of a safe mode, or a deploy
	Title   string   `json:"title"`
	Text    string   `json:"text"`
	Tags    []string `json:"tags"`
}

// State of a client, in OpenFeature's words.
type State string

// The states of a client.
const (
	StateReady    State = "READY"
	StateStale    State = "STALE"
	StateError    State = "ERROR"
	StateNotReady State = "NOT_READY"
)

// Instance is the body of POST /v1/instances: what a process says of itself.
// Names follow OpenTelemetry's resource attributes where it has one. An empty
// member is unknown and shown so.
type Instance struct {
	Target    Target   `json:"target"`
	ID        string   `json:"service.instance.id"`
	Version   string   `json:"service.version,omitempty"`
	Revision  string   `json:"vcs.ref.head.revision,omitempty"`
	Modified  bool     `json:"sealstone.vcs.modified,omitempty"`
	Artifact  string   `json:"sealstone.artifact.digest,omitempty"` // sha256 of the executable, or as given
	Image     string   `json:"oci.manifest.digest,omitempty"`
	BaseImage string   `json:"org.opencontainers.image.base.digest,omitempty"`
	SBOM      string   `json:"sealstone.sbom.digest,omitempty"`
	Deps      Digest   `json:"sealstone.dependencies.digest,omitempty"` // see DependenciesDigest
	DepList   []string `json:"sealstone.dependencies,omitempty"`        // package URLs, sorted; sent when the server asks for them
	SDK       string   `json:"sealstone.sdk.version,omitempty"`
	Started   string   `json:"process.creation.time,omitempty"`
	Bundle    Digest   `json:"sealstone.bundle.digest,omitempty"`
	Set       Digest   `json:"sealstone.set.digest,omitempty"`
	Mode      Mode     `json:"sealstone.mode,omitempty"`
	Index     int64    `json:"sealstone.change.index"` // of the change that is in effect; -1 none or pending
	LogSize   int64    `json:"sealstone.log.size"`
	HeadAt    string   `json:"sealstone.head.issued,omitempty"`
	State     State    `json:"sealstone.state"`
	SafeModes []Mode   `json:"sealstone.safe_modes.ready,omitempty"`
	Refusal   *Refusal `json:"sealstone.refusal,omitempty"`
	FirstUse  bool     `json:"sealstone.trust.first_use,omitempty"`
}

// ReportAnswer is the body of a report's answer, when it has one: members that
// the server lacks and the next report should carry.
type ReportAnswer struct {
	Want []string `json:"want"`
}

// WantDependencies asks for the list behind a report's dependency digest.
const WantDependencies = "sealstone.dependencies"

// DependenciesDigest names a list of package URLs: the sha256 of its lines,
// sorted, each ended by a newline.
func DependenciesDigest(list []string) Digest {
	return DigestOf([]byte(strings.Join(list, "\n") + "\n"))
}

// Refusal is the newest thing that a client does not believe, while its cause
// is there.
type Refusal struct {
	Check   string `json:"check"`
	Message string `json:"message"`
	Time    string `json:"time"`
	Source  string `json:"source,omitempty"` // address of a server, or path of a file
}

// OfFile tells whether it was no server that offered it.
func (r *Refusal) OfFile() bool { return r.Source != "" && !strings.Contains(r.Source, "://") }

// Live is the answer of GET /v1/live.
type Live struct {
	Time     string        `json:"time"` // that it is about: now, or as asked with at=
	Size     int64         `json:"size"` // of the log at that time
	Services []LiveService `json:"services"`
	Behind   string        `json:"behind,omitempty"` // why the log lacks entries that clients may know
	Next     string        `json:"next,omitempty"`   // more instances: ask again with after= this
}

// LiveService is what is live of one service.
type LiveService struct {
	Service string      `json:"service"`
	Scopes  []LiveScope `json:"scopes"`
	Omitted int         `json:"omitted,omitempty"` // scopes that instances report from, nothing names, and the answer has no room for
}

// LiveScope sets what the log proves beside what instances report.
type LiveScope struct {
	Scope     Scope          `json:"scope"`
	Proven    *Proven        `json:"proven,omitempty"` // nil: nothing is activated here
	Drift     []string       `json:"drift,omitempty"`  // in words, empty when all agree
	Counts    []LiveCount    `json:"counts,omitempty"` // reported: all instances, by what they run
	Instances []LiveInstance `json:"instances"`        // reported: a page of them; null, so unknown, for a time that is longer ago than reports are kept
}

// LiveCount is how many instances of a scope report the same.
type LiveCount struct {
	Artifact  string   `json:"artifact,omitempty"`
	Version   string   `json:"version,omitempty"`
	Revision  string   `json:"revision,omitempty"`
	Bundle    Digest   `json:"bundle,omitempty"`
	Mode      Mode     `json:"mode,omitempty"`
	State     State    `json:"state,omitempty"`
	Lease     string   `json:"lease,omitempty"`
	Drift     []string `json:"drift,omitempty"`
	Instances int      `json:"instances"`
	Omitted   bool     `json:"omitted,omitempty"` // the sum of counts that the answer has no room for
}

// Proven is what the log says is in effect at a scope.
type Proven struct {
	Bundle  Digest `json:"bundle"`
	Set     Digest `json:"set"`
	Mode    Mode   `json:"mode"`
	Release string `json:"release"`
	Index   int64  `json:"index"` // of the change that put it into effect; -1 while that waits for the log
	Since   string `json:"since"`
	By      string `json:"by,omitempty"`
	Expires string `json:"expires,omitempty"`
	Overdue bool   `json:"overdue,omitempty"`
	Missing string `json:"missing,omitempty"` // why there is no bundle: the set was erased
}

// LiveInstance is a process as it last reported.
type LiveInstance struct {
	Instance
	Lease    string   `json:"lease"`           // live, suspect or gone
	Since    string   `json:"since,omitempty"` // it reports this artifact and bundle
	LastSeen string   `json:"lastSeen"`
	Drift    []string `json:"drift,omitempty"`
	Client   string   `json:"client,omitempty"` // whose token the report came with

	Past []PastRun `json:"past,omitempty"` // newest first, when this instance is asked for
}

// PastRun is what an instance reported from one time to another.
type PastRun struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Mode     Mode   `json:"mode,omitempty"`
	Bundle   Digest `json:"bundle,omitempty"`
	Index    int64  `json:"index"`
	Version  string `json:"version,omitempty"`
	Revision string `json:"revision,omitempty"`
	Artifact string `json:"artifact,omitempty"`
	Image    string `json:"image,omitempty"`
}

// Artifacts is the answer of GET /v1/live/artifacts: who runs an image, or
// something with a dependency. Instances that are gone don't count.
type Artifacts struct {
	Time    string     `json:"time"`
	Found   []Artifact `json:"artifacts"`
	Omitted int        `json:"omitted,omitempty"` // artifacts that the answer has no room for
	Unknown int        `json:"unknown"`           // instances that don't say what was asked about
}

// Artifact is what some instances of a target run.
type Artifact struct {
	Target     Target `json:"target"`
	Version    string `json:"service.version,omitempty"`
	Revision   string `json:"vcs.ref.head.revision,omitempty"`
	Digest     string `json:"sealstone.artifact.digest,omitempty"`
	Image      string `json:"oci.manifest.digest,omitempty"`
	BaseImage  string `json:"org.opencontainers.image.base.digest,omitempty"`
	SBOM       string `json:"sealstone.sbom.digest,omitempty"`
	Dependency string `json:"dependency,omitempty"` // the package URL that fits
	Unordered  bool   `json:"unordered,omitempty"`  // its version is no semantic version: it may be below or not
	Instances  int    `json:"instances"`
}

// LiveFlags is the answer of GET /v1/flags: every flag that is in effect for a
// target, with the change that last touched it.
type LiveFlags struct {
	Time   string     `json:"time"`
	Size   int64      `json:"size"`
	Target Target     `json:"target"`
	Proven *Proven    `json:"proven"`
	Flags  []LiveFlag `json:"flags"`
}

// LiveFlag is a flag's definition in short.
type LiveFlag struct {
	Key     string      `json:"key"`
	State   string      `json:"state"` // ENABLED or DISABLED
	Default string      `json:"default,omitempty"`
	Rules   int         `json:"rules"`
	Changed *FlagChange `json:"changed,omitempty"` // nil: not since entry Since, and the answer looked no further
	Since   int64       `json:"since,omitempty"`
}

// FlagChange is the change that gave a flag its present definition.
type FlagChange struct {
	Index  int64  `json:"index"` // -1 for a statement that isn't in the log
	Kind   string `json:"kind"`
	Time   string `json:"time"`
	By     string `json:"by,omitempty"`
	Commit string `json:"commit,omitempty"`
	Why    string `json:"why,omitempty"` // subject of the commit, or reason of the statement
}

// Status is the answer of GET /v1/status.
type Status struct {
	Version     string            `json:"version"`
	Origin      string            `json:"origin"`
	Time        string            `json:"time"`
	Started     string            `json:"started"`
	Size        int64             `json:"size"`
	Root        string            `json:"root"`
	Trust       int               `json:"trust"`               // version of the trust file in use
	TrustFile   string            `json:"trustFile,omitempty"` // why the trust file in the data directory is not the one in use
	Operators   int               `json:"operators"`           // version in force, 0 before the first
	Source      SourceStatus      `json:"source"`
	Writes      string            `json:"writes"`           // "ok", or why the ledger takes none
	Behind      string            `json:"behind,omitempty"` // why the log lacks entries that clients may know
	Pending     int               `json:"pending"`
	PendingFile string            `json:"pendingFile,omitempty"` // why statements that wait don't survive a restart, or did not
	Watchers    int               `json:"watchers"`
	Instances   int               `json:"instances"`
	Failing     int               `json:"failing,omitempty"`          // instances in state ERROR, or that refused an answer, and are not gone
	Dropped     int64             `json:"intervalsDropped,omitempty"` // of instances, since the start: too many to keep
	SafeModes   []Held            `json:"safeModes"`
	Rejected    []RejectedService `json:"rejected"`
	Damaged     []DamagedSet      `json:"damaged,omitempty"` // sets in effect that clients can't fetch whole
	Details     string            `json:"details,omitempty"` // which details were found damaged or lost
	ClockSkew   string            `json:"clockSkew,omitempty"`
}

// DamagedSet is a set in effect of which objects are missing or damaged, and
// that could not be made whole.
type DamagedSet struct {
	Service string `json:"service"`
	Scope   Scope  `json:"scope"`
	Set     Digest `json:"set"`
	Why     string `json:"why"`
	Next    string `json:"next,omitempty"` // what to do; "" while a round may mend it
}

// SourceStatus is how the Git source does.
type SourceStatus struct {
	Repository  string `json:"repository"`
	Branch      string `json:"branch"`
	Tip         string `json:"tip,omitempty"`  // newest accepted commit
	Seen        string `json:"seen,omitempty"` // newest commit fetched
	LastSuccess string `json:"lastSuccess,omitempty"`
	LastError   string `json:"lastError,omitempty"`
	Refused     string `json:"refused,omitempty"`   // a rewrite that was refused
	Unsigned    string `json:"unsigned,omitempty"`  // a tip that was refused because no operator signed it
	Operators   string `json:"operators,omitempty"` // why the tip's operators are not in force
	Clients     string `json:"clients,omitempty"`   // why the tip's clients.yaml is not
}

// RejectedService is a service that stays at its last good set.
type RejectedService struct {
	Service string   `json:"service"`
	Commit  string   `json:"commit"`
	Faults  []string `json:"faults"`
	Total   int      `json:"total"`
}
