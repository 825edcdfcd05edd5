package api

import (
	"errors"
	"fmt"
	"strings"
)

// Limits of names, in bytes.
const (
	maxName = 40
	maxPath = 80
)

// MaxChains is how many main and override chains a service may have: what a
// head can list.
const MaxChains = 256

// MaxIndexes is how many entries of the log a request may name.
const MaxIndexes = 2 * MaxChains

// ErrName is returned for a name outside [a-z0-9]+(-[a-z0-9]+)* or over its limit.
var ErrName = errors.New("not a valid name: use lower-case letters, digits and single dashes, at most 40 bytes")

// CheckName holds the rule for names of services, modes and the parts of scopes.
func CheckName(s string) error {
	if s == "" || len(s) > maxName || !nameShape(s) {
		return fmt.Errorf("%q: %w", quotable(s), ErrName)
	}
	if reserved[s] {
		return fmt.Errorf("%q: reserved, choose another name", s)
	}
	return nil
}

// reserved names would collide with folders of the repository or with routes.
var reserved = map[string]bool{"config": true, "flags": true, "normal": true, "common": true, "ofrep": true}

func nameShape(s string) bool {
	dash := true // a leading dash is wrong too
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			dash = false
		case c == '-' && !dash:
			dash = true
		default:
			return false
		}
	}
	return !dash
}

// CheckFileName holds the rule for document and flag file names, without the
// extension's meaning: [a-z0-9][a-z0-9._-]*.
func CheckFileName(s string) error {
	ok := s != "" && len(s) <= maxPath && s[0] != '.' && s[0] != '_' && s[0] != '-'
	for i := range len(s) {
		c := s[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-')
	}
	if !ok {
		return fmt.Errorf("%q: not a valid file name: use lower-case letters, digits, '.', '_' and '-', starting with a letter or digit", quotable(s))
	}
	return nil
}

// Mode is "normal" or the name of a safe mode.
type Mode string

// ModeNormal is the mode of a service nobody has put into a safe mode.
const ModeNormal Mode = "normal"

// ParseMode accepts "normal" and every valid name.
func ParseMode(s string) (Mode, error) {
	if s == string(ModeNormal) {
		return ModeNormal, nil
	}
	if err := CheckName(s); err != nil {
		return "", fmt.Errorf("mode %w", err)
	}
	return Mode(s), nil
}

// Scope is a path env[/region[/pool]]; its ancestors contain it. The empty
// scope stands for "no scope" and is never written.
type Scope string

// ParseScope accepts a path of valid names, at most 80 bytes.
func ParseScope(s string) (Scope, error) {
	if len(s) > maxPath {
		return "", fmt.Errorf("scope %q: longer than %d bytes", quotable(s), maxPath)
	}
	for part := range strings.SplitSeq(s, "/") {
		if err := CheckName(part); err != nil {
			return "", fmt.Errorf("scope %q: %w", quotable(s), err)
		}
	}
	return Scope(s), nil
}

// Depth counts the parts: 0 for the empty scope, 1 for "prod".
func (s Scope) Depth() int {
	if s == "" {
		return 0
	}
	return strings.Count(string(s), "/") + 1
}

// Parent drops the last part; the parent of "prod" is the empty scope.
func (s Scope) Parent() Scope {
	i := strings.LastIndexByte(string(s), '/')
	if i < 0 {
		return ""
	}
	return s[:i]
}

// Contains reports whether t is s or lies below it. The empty scope contains
// every scope.
func (s Scope) Contains(t Scope) bool {
	return s == "" || s == t || strings.HasPrefix(string(t), string(s)+"/")
}

// Path returns the scopes from the outermost ancestor down to s itself.
func (s Scope) Path() []Scope {
	out := make([]Scope, 0, 3)
	for i := range len(s) {
		if s[i] == '/' {
			out = append(out, s[:i])
		}
	}
	if s != "" {
		out = append(out, s)
	}
	return out
}

// Tag is the scope as an OCI tag: "prod/eu-west-1" is "prod.eu-west-1", with
// "_<mode>" behind it for a safe mode.
func (s Scope) Tag(m Mode) string {
	tag := strings.ReplaceAll(string(s), "/", ".")
	if m != ModeNormal {
		tag += "_" + string(m)
	}
	return tag
}

// ParseTag is the inverse of Scope.Tag.
func ParseTag(tag string) (Scope, Mode, error) {
	path, mode, safe := strings.Cut(tag, "_")
	scope, err := ParseScope(strings.ReplaceAll(path, ".", "/"))
	if err != nil {
		return "", "", err
	}
	if !safe {
		return scope, ModeNormal, nil
	}
	if err := CheckName(mode); err != nil {
		return "", "", err
	}
	return scope, Mode(mode), nil
}

// Target is what every process is: a service at a scope, "checkout@prod/eu-west-1".
type Target struct {
	Service string
	Scope   Scope
}

// ParseTarget accepts "service@scope".
func ParseTarget(s string) (Target, error) {
	service, path, ok := strings.Cut(s, "@")
	if !ok {
		return Target{}, fmt.Errorf("target %q: write service@scope, for example checkout@prod/eu-west-1", quotable(s))
	}
	if err := CheckName(service); err != nil {
		return Target{}, fmt.Errorf("target %q: service %w", quotable(s), err)
	}
	scope, err := ParseScope(path)
	if err != nil {
		return Target{}, fmt.Errorf("target %q: %w", quotable(s), err)
	}
	return Target{service, scope}, nil
}

// String is the spelling that ParseTarget accepts; a target without a scope is
// the service alone.
func (t Target) String() string {
	if t.Scope == "" {
		return t.Service
	}
	return t.Service + "@" + string(t.Scope)
}

// MarshalText and UnmarshalText make a Target a JSON string.
func (t Target) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText accepts what MarshalText writes.
func (t *Target) UnmarshalText(b []byte) error {
	got, err := ParseTarget(string(b))
	*t = got
	return err
}
