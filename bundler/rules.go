package bundler

// A Rule is one thing that a repository is held to. The table is the one place
// that names rules; the documentation is made from it.
type Rule struct {
	ID       string
	Severity Severity
	Doc      string // one sentence: what is wrong
	Fix      string // one sentence: what to do
}

var table []*Rule

// Rules lists every rule, in the order of the documentation.
func Rules() []Rule {
	out := make([]Rule, len(table))
	for i, r := range table {
		out[i] = *r
	}
	return out
}

func rule(id, doc, fix string) *Rule {
	r := &Rule{ID: id, Severity: Error, Doc: doc, Fix: fix}
	if id[0] == 'W' {
		r.Severity = Warning
	}
	table = append(table, r)
	return r
}

// The repository and its files.
var (
	ruleNoConfig     = rule("E_SEALSTONE_MISSING", "There is no sealstone.yaml at the root", "Add one with version, levels and scopes; `sealstone init` writes a first one")
	ruleVersion      = rule("E_VERSION", "The contract version is not one that this binary knows", "Use a version that it knows, or upgrade sealstone")
	ruleObject       = rule("E_GIT_OBJECT", "A Git object is missing or damaged", FetchObjects)
	ruleUnknownFile  = rule("E_FILE_UNKNOWN", "A file or folder that Sealstone doesn't know lies where it would be overlooked", "Move it out of this folder, or correct its name")
	ruleNearMiss     = rule("E_FILE_NEAR_MISS", "A name at the root is almost one that Sealstone reads", "Rename it as shown, or choose a name that can't be mistaken")
	ruleFileName     = rule("E_FILE_NAME", "A file name has characters that are not allowed", "Use [a-z0-9][a-z0-9._-]* and .yaml, .yml or .json")
	ruleName         = rule("E_NAME", "A name is not of the form [a-z0-9]+(-[a-z0-9]+)*, is too long, or is reserved", "Choose lower-case letters, digits and single dashes, at most 40 bytes")
	ruleTwice        = rule("E_FILE_TWICE", "A document has two files in one layer", "Keep one of them")
	ruleCase         = rule("E_CASE_CLASH", "Two names differ only in case, so one of them is lost on some file systems", "Rename one of them")
	ruleSymlink      = rule("E_SYMLINK", "A symbolic link stands where a file is expected", "Replace it by a copy of the file")
	ruleSubmodule    = rule("E_SUBMODULE", "A submodule stands where a file or folder is expected", "Copy the content into this repository")
	ruleLFS          = rule("E_LFS_POINTER", "A file is a Git LFS pointer, not its content", "Stop tracking it with LFS and commit the content")
	ruleEncoding     = rule("E_ENCODING", "A file is not plain UTF-8: it has a byte order mark, a NUL, invalid bytes, or characters that hide lines or turn text around", "Save it as UTF-8 without a byte order mark")
	ruleFileLimit    = rule("E_LIMIT_FILE", "A file is larger than 1 MiB", "Split it, or keep the data elsewhere and refer to it")
	ruleFilesLimit   = rule("E_LIMIT_FILES", "A service has more than 10,000 files", "Split the service")
	ruleDepthLimit   = rule("E_LIMIT_DEPTH", "A value is nested more than 64 levels deep", "Flatten it")
	ruleValuesLimit  = rule("E_LIMIT_VALUES", "A file, a folder, a service or a repository holds more bytes or values than are read", "Split it")
	ruleDocLimit     = rule("E_LIMIT_DOCUMENT", "A resolved document is larger than 1 MiB", "Split it")
	ruleBundleLimit  = rule("E_LIMIT_BUNDLE", "A bundle is larger than 16 MiB", "Split the service")
	ruleSetLimit     = rule("E_LIMIT_SET", "A set has too many bundles or bytes", "Use fewer overlays or safe modes, or activate narrower scopes")
	ruleBuildLimit   = rule("E_LIMIT_BUILD", "All sets of a repository together have too many bundles, values or bytes", "Use fewer overlays, first of all in common/, which are in the sets of every service; fewer safe modes or activations; or split the repository")
	ruleModesLimit   = rule("E_LIMIT_SAFE_MODE", "A safe mode would list more scopes than a change of the ledger holds", "Use fewer overlays of deeper scopes, or split the service")
	ruleTooMany      = rule("E_TOO_MANY_FAULTS", "There are more faults than a report shows", "Correct the ones shown and run again")
	ruleInternal     = rule("E_INTERNAL", "The repository could not be read to the end", "Run again; if it stays, check the repository with git fsck")
	ruleAttributes   = rule("W_GITATTRIBUTES", "A .gitattributes line changes files of bundles on checkout; Sealstone reads what is committed", "Remove the attribute for these paths, so that a checkout shows what is served")
	ruleFormat       = rule("E_FILE_FORMAT", "One of Sealstone's own files breaks its schema", "Correct it; schemas/ has the published schema")
	ruleFormatNeeded = rule("E_FILE_MISSING", "A file that a folder needs is not there", "Add it")
)

// Text of YAML and JSON.
var (
	ruleYAML        = rule("E_YAML_SYNTAX", "A file is not well-formed YAML", "Correct it at this place")
	ruleJSON        = rule("E_JSON_SYNTAX", "A file is not strict JSON", "Correct it at this place")
	ruleDuplicate   = rule("E_DUPLICATE_KEY", "A key stands twice in one object", "Keep one of them")
	ruleAnchor      = rule("E_YAML_ANCHOR", "An anchor or alias makes a value depend on another place", "Write the value out")
	ruleMergeKey    = rule("E_YAML_MERGE_KEY", "A merge key (<<) makes an object depend on another place", "Write the members out, or use an overlay")
	ruleTag         = rule("E_YAML_TAG", "A tag overrides the type of a value", "Remove the tag; quote the value if it is a string")
	ruleDocuments   = rule("E_YAML_DOCUMENTS", "A file holds several documents", "Split it into files")
	ruleDirective   = rule("E_YAML_DIRECTIVE", "A file begins with a YAML directive", "Remove the line; files are YAML 1.2 without directives")
	ruleKey         = rule("E_YAML_KEY", "A key is not a string", "Put the key in quotes")
	ruleNumber      = rule("E_YAML_NUMBER", "A scalar looks like a number in a spelling that would not print back", "Write the decimal number, or quote it if it is a string")
	ruleDate        = rule("E_YAML_DATE", "A scalar looks like a date or time, which some parsers turn into one", "Quote it")
	ruleBool        = rule("E_YAML_BOOL", "A scalar is a boolean to some parsers and a string to others", "Write true or false, or quote it if it is a string")
	ruleEmpty       = rule("E_YAML_EMPTY", "A value is left empty or spelled other than null", `Write null, or "" for an empty string`)
	ruleNumberRange = rule("E_NUMBER_RANGE", "A number is beyond ±(2^53-1), infinite or not a number", "Write it as a string")
	ruleDecimal     = rule("W_DECIMAL", "A decimal does not print back as written, and no schema says that it is a number", "Quote it if it is a version or another string")
)

// Documents, flags and layers.
var (
	ruleNullBase    = rule("E_NULL", "A null stands where there is nothing to delete", "Remove the member, or give it a value")
	ruleSecret      = rule("E_SECRET", "A value looks like a secret", "Keep secrets in a secret store and revoke this one; if it is none, say so with `# not-a-secret: REASON` on the line")
	ruleFlagFile    = rule("E_FLAG_FILE", "A flags file is not of the form {flags, $evaluators, metadata}", "Follow the flag-definition schema")
	ruleFlagTwice   = rule("E_FLAG_TWICE", "A flag, evaluator or metadata name is defined twice in one layer", "Keep one of them")
	ruleFlagMember  = rule("E_FLAG_MEMBER", "A flag has a member that flags don't have", "Use state, variants, defaultVariant, targeting, metadata")
	ruleFlagUnknown = rule("E_FLAG_UNKNOWN", "A layer changes or removes a flag, evaluator or metadata name that no lower layer defines", "Define it below, or give the whole flag here")
	ruleFlag        = rule("E_FLAG", "A flag definition is wrong", "Correct it; docs/flags.md has the rules")
	ruleBinding     = rule("E_SCHEMA_BINDING", "A document has no schema, or two patterns bind it", "Bind it in service.yaml under schemas; say `none` for a document without a schema")
	ruleSchemaName  = rule("E_SCHEMA_UNKNOWN", "A binding names a schema that is neither in schemas/ nor built in", "Add schemas/<name>.schema.json, or correct the name")
	ruleSchemaRef   = rule("E_SCHEMA_REF", "A schema refers to something outside; nothing is ever fetched or opened", "Copy the referenced schema into schemas/ and refer to it by file name")
	ruleSchemaBad   = rule("E_SCHEMA_INVALID", "A schema is not a valid JSON Schema", "Correct the schema")
	ruleSchemaCost  = rule("E_SCHEMA_COST", "A schema asks for more steps than a document deserves", "Simplify nested allOf, anyOf, oneOf and $ref")
	ruleSchema      = rule("E_SCHEMA", "A resolved document breaks its schema", "Correct the value, or the schema")
	ruleFlagLint    = rule("W_FLAG", "A rule is one on which implementations of flag evaluation differ", "Write it in a way that all of them read alike")
	ruleNoEffect    = rule("W_OVERLAY_NO_EFFECT", "An overlay or safe mode changes nothing", "Remove it")
)

// Services, scopes, activations.
var (
	ruleScopeDepth    = rule("E_SCOPE_DEPTH", "A scope has more parts than sealstone.yaml has levels", "Shorten it, or add a level at the end of levels")
	ruleScopeTwice    = rule("E_SCOPE_TWICE", "A scope is listed twice", "Keep one of them")
	ruleScopeUnlisted = rule("E_SCOPE_UNLISTED", "A scope is not listed in sealstone.yaml", "List it there, or correct it")
	ruleScopeIdle     = rule("W_SCOPE_IDLE", "Nothing is activated at or above a listed scope", "Activate a service there, or drop the scope")
	ruleDependsOn     = rule("E_DEPENDS_ON", "A service depends on one that is not in this repository", "Correct the name")
	ruleTTL           = rule("E_SAFE_MODE_TTL", "The ttl of a safe mode is not between 1m and 24h", "Write a duration such as 30m or 4h")
	ruleActService    = rule("E_ACTIVATION_SERVICE", "The service in an activation file is not the file's name", "Name the file activations/<service>.yaml")
	ruleActTwice      = rule("E_ACTIVATION_TWICE", "A scope is activated twice in one file", "Keep one of them")
	ruleActGone       = rule("E_ACTIVATION_GONE", "An activation file vanished", "Restore it; to retire the service for good, write `retired: true` in it")
	ruleServiceGone   = rule("E_SERVICE_UNKNOWN", "The release has no such service", "Correct the service, or choose a release that has it")
	ruleRelease       = rule("E_RELEASE_UNKNOWN", "The repository has no such commit", "Name a commit that the branch contains")
	ruleUnreachable   = rule("E_RELEASE_UNREACHABLE", "The release is not reachable from the tip", "Name a commit that the branch contains")
	ruleUnsigned      = rule("E_UNSIGNED", "sealstone.yaml asks for signed commits, and no operator signed this one", "Sign it with an operator's Ed25519 key: git commit -S with gpg.format=ssh; merge on a machine that holds the key")
	ruleLevels        = rule("E_LEVELS", "levels of sealstone.yaml changed otherwise than by growing at the end", "Keep the levels that there were, in their order; add new ones at the end")
	ruleExpect        = rule("E_EXPECT", "The set's digest is not the expected one", "Review the difference, then write the new digest")
	ruleOpKey         = rule("E_OPERATORS_KEY", "An operator's key is not an Ed25519 SSH public key", "Paste the line of an id_ed25519.pub")
	ruleOpTwice       = rule("E_OPERATORS_TWICE", "An operator id or key stands twice", "Keep one of them")
	ruleOpSig         = rule("E_OPERATORS_SIGNATURE", "operators.sig is missing or is not for this operators.yaml", "Sign it: sealstone operators sign --key ROOT")
	ruleContexts      = rule("E_CONTEXTS", "A line of recorded contexts is not of the form {flag, type, context}", `Write one JSON object a line, such as {"flag":"new-cart","context":{"country":"NL"}}; flag and type may be left out`)
	ruleClientTwice   = rule("E_CLIENT_TWICE", "A client name or token stands twice", "Keep one of them")
)
