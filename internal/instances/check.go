package instances

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sealstone/sealstone/api"
)

// Bounds of one report.
const (
	maxID      = 128
	maxMember  = 256
	maxModes   = 64
	maxMessage = 512
)

// check bounds a report, and cleans what people will read of it.
func check(in *api.Instance, now time.Time) error {
	if in.ID == "" || len(in.ID) > maxID || in.Target.Service == "" || in.Target.Scope == "" {
		return invalid("target and service.instance.id are needed, the id of at most %d bytes", maxID)
	}
	for name, s := range map[string]*string{"service.instance.id": &in.ID, "service.version": &in.Version, "vcs.ref.head.revision": &in.Revision,
		"sealstone.artifact.digest": &in.Artifact, "oci.manifest.digest": &in.Image, "org.opencontainers.image.base.digest": &in.BaseImage,
		"sealstone.sbom.digest": &in.SBOM, "sealstone.sdk.version": &in.SDK} {
		if len(*s) > maxMember || strings.ContainsFunc(*s, control) {
			return invalid("member %s is longer than %d bytes, or has control characters", name, maxMember)
		}
	}
	for name, d := range map[string]api.Digest{"sealstone.bundle.digest": in.Bundle, "sealstone.set.digest": in.Set, "sealstone.dependencies.digest": in.Deps} {
		if d != "" && !d.Valid() {
			return invalid("member %s is sha256: and 64 hex digits", name)
		}
	}
	for name, s := range map[string]string{"sealstone.artifact.digest": in.Artifact, "oci.manifest.digest": in.Image, "org.opencontainers.image.base.digest": in.BaseImage, "sealstone.sbom.digest": in.SBOM} {
		if strings.HasPrefix(s, "sha256:") && !api.Digest(s).Valid() {
			return invalid("member %s is sha256: and 64 hex digits, or of another kind", name)
		}
	}
	if in.Index < -1 || in.LogSize < 0 {
		return invalid("sealstone.change.index is -1 or an index, sealstone.log.size is not negative")
	}
	return checkState(in, now)
}

func checkState(in *api.Instance, now time.Time) error {
	for name, s := range map[string]string{"process.creation.time": in.Started, "sealstone.head.issued": in.HeadAt} {
		if t, err := time.Parse(time.RFC3339, s); s != "" && (err != nil || len(s) > 64 || t.Sub(now) > 24*time.Hour) {
			return invalid("member %s is no RFC 3339 time, or one that is more than a day ahead", name)
		}
	}
	if !slices.Contains([]api.State{api.StateReady, api.StateStale, api.StateError, api.StateNotReady}, in.State) {
		return invalid("sealstone.state is needed: READY, STALE, ERROR or NOT_READY")
	}
	notName := func(m api.Mode) bool { return api.CheckName(string(m)) != nil }
	if len(in.SafeModes) > maxModes || slices.ContainsFunc(in.SafeModes, notName) || in.Mode != "" && in.Mode != api.ModeNormal && notName(in.Mode) {
		return invalid("modes are names, at most %d of them", maxModes)
	}
	if r := in.Refusal; r != nil {
		if len(r.Check) > 64 || len(r.Time) > 64 || len(r.Message) > 4*maxMessage || len(r.Source) > maxMessage {
			return invalid("a refusal's check and time are at most 64 bytes, its message %d, its source %d", 4*maxMessage, maxMessage)
		}
		r.Check, r.Message, r.Time, r.Source = clean(r.Check), clean(r.Message), clean(r.Time), clean(r.Source)
	}
	return checkList(in)
}

func control(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 }

// clean makes one short line of a text.
func clean(s string) string {
	s = strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if control(r) {
			return ' '
		}
		return r
	}, s), "?")
	if len(s) > maxMessage {
		s = strings.ToValidUTF8(s[:maxMessage], "")
	}
	return s
}

func invalid(format string, args ...any) error {
	return &api.Error{Code: api.CodeInvalid, Detail: "instance report: " + fmt.Sprintf(format, args...), Hint: "docs/formats.md shows one"}
}
