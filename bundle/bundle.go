// Package bundle encodes and checks bundles and sets. A bundle is an OCI image
// manifest around resolved documents and flags of one service in one mode; a
// set is an OCI image index over the bundles of one activation. Both are JCS
// bytes named by their SHA-256: encoded once here, opaque to everyone after.
// [Diff] says what two documents don't share.
//
// The package is pure: it takes and returns bytes.
package bundle

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/canon"
)

// Media and artifact types, as registries see them.
const (
	TypeManifest = "application/vnd.oci.image.manifest.v1+json"
	TypeIndex    = "application/vnd.oci.image.index.v1+json"
	TypeBundle   = "application/vnd.sealstone.bundle.v1"
	TypeSet      = "application/vnd.sealstone.set.v1"
	TypeConfig   = "application/vnd.sealstone.bundle.config.v1+json"
	TypeFlags    = "application/vnd.sealstone.flags.v1+json"
	TypeDocument = "application/vnd.sealstone.document.v1+json"

	AnnotationTitle = "org.opencontainers.image.title"
	AnnotationScope = "dev.sealstone.scope"
	AnnotationMode  = "dev.sealstone.mode"
)

// Limits, in bytes. A document is one layer; a bundle is the sum of its layers.
const (
	MaxDocument = 1 << 20
	MaxBundle   = 16 << 20
	MaxManifest = 4 << 20 // also of a set
)

// FlagsTitle is the layer that every bundle has.
const FlagsTitle = "flags.json"

// ErrFormat is wrapped by every refusal of bytes that aren't a bundle or a set
// in the one form this package writes.
var ErrFormat = errors.New("not in the bundle format")

// Descriptor points to bytes by digest and size.
type Descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      api.Digest        `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Title is the path of a layer inside the bundle.
func (d Descriptor) Title() string { return d.Annotations[AnnotationTitle] }

// Manifest is the decoded form of a bundle's name-giving bytes.
type Manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	ArtifactType  string       `json:"artifactType"`
	Config        Descriptor   `json:"config"`
	Layers        []Descriptor `json:"layers"`
}

// Objects are the digests of all that the manifest points to.
func (m *Manifest) Objects() []api.Digest {
	out := []api.Digest{m.Config.Digest}
	for _, l := range m.Layers {
		out = append(out, l.Digest)
	}
	return out
}

// Flags is the digest of flags.json, the title that sorts last.
func (m *Manifest) Flags() api.Digest { return m.Layers[len(m.Layers)-1].Digest }

// Config is what a bundle says of itself, so that one service's bundle, or a
// normal one, can't pass for another.
type Config struct {
	Contract int      `json:"contract"`
	Mode     api.Mode `json:"mode"`
	Service  string   `json:"service"`
}

// Bundle is a built bundle: its name, the bytes that the name covers, and every
// blob the manifest points to.
type Bundle struct {
	Digest   api.Digest
	Manifest []byte
	Blobs    map[api.Digest][]byte // config and layers
	Size     int64                 // of the layers
}

// Build encodes a bundle from files by title, each JCS bytes: "flags.json" and
// "config/<name>.json". The same input gives the same bytes anywhere.
func Build(c Config, files map[string][]byte) (*Bundle, error) {
	config, err := canon.Marshal(c)
	if err != nil {
		return nil, err
	}
	b := &Bundle{Blobs: map[api.Digest][]byte{}}
	m := Manifest{SchemaVersion: 2, MediaType: TypeManifest, ArtifactType: TypeBundle, Config: b.add(TypeConfig, config)}
	for _, title := range slices.Sorted(maps.Keys(files)) {
		d := b.add(layerType(title), files[title])
		d.Annotations = map[string]string{AnnotationTitle: title}
		m.Layers = append(m.Layers, d)
		b.Size += d.Size
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	if b.Manifest = m.canonical(); len(b.Manifest) > MaxManifest {
		return nil, fmt.Errorf("%w: manifest of %d bytes, limit %d", ErrFormat, len(b.Manifest), MaxManifest)
	}
	b.Digest = api.DigestOf(b.Manifest)
	return b, nil
}

// canonical writes a manifest that check has passed, so nothing needs escaping.
// It is what canon.Marshal writes, which a test holds it to, in a small part of
// the time: a build writes thousands.
func (m *Manifest) canonical() []byte {
	b := make([]byte, 0, 512+320*len(m.Layers))
	b = append(b, `{"artifactType":"`+m.ArtifactType+`","config":`...)
	b = m.Config.append(b)
	b = append(b, `,"layers":[`...)
	for i, d := range m.Layers {
		if i > 0 {
			b = append(b, ',')
		}
		b = d.append(b)
	}
	b = append(b, `],"mediaType":"`+m.MediaType+`","schemaVersion":`...)
	return append(strconv.AppendInt(b, int64(m.SchemaVersion), 10), '}')
}

func (d Descriptor) append(b []byte) []byte {
	b = append(b, '{')
	if title := d.Title(); title != "" {
		b = append(append(append(b, `"annotations":{"`+AnnotationTitle+`":"`...), title...), `"},`...)
	}
	b = append(append(append(b, `"digest":"`...), d.Digest...), `","mediaType":"`...)
	b = append(append(append(b, d.MediaType...), `","size":`...), strconv.FormatInt(d.Size, 10)...)
	return append(b, '}')
}

func (b *Bundle) add(mediaType string, blob []byte) Descriptor {
	d := Descriptor{MediaType: mediaType, Digest: api.DigestOf(blob), Size: int64(len(blob))}
	b.Blobs[d.Digest] = blob
	return d
}

func layerType(title string) string {
	if title == FlagsTitle {
		return TypeFlags
	}
	return TypeDocument
}

// ParseManifest accepts exactly what Build writes: canonical, closed, sorted,
// within the limits.
func ParseManifest(b []byte) (*Manifest, error) {
	if len(b) > MaxManifest {
		return nil, fmt.Errorf("%w: manifest of %d bytes, limit %d", ErrFormat, len(b), MaxManifest)
	}
	var m Manifest
	if err := canon.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%w: manifest: %w", ErrFormat, err)
	}
	return &m, m.check()
}

// check holds what encoding can't: types, sizes, titles, order.
func (m *Manifest) check() error {
	if m.SchemaVersion != 2 || m.MediaType != TypeManifest || m.ArtifactType != TypeBundle {
		return fmt.Errorf("%w: not a manifest of artifact type %s", ErrFormat, TypeBundle)
	}
	if m.Config.MediaType != TypeConfig || m.Config.Annotations != nil || !validBlob(m.Config, 1024) {
		return fmt.Errorf("%w: wrong config descriptor", ErrFormat)
	}
	return checkLayers(m.Layers)
}

func checkLayers(layers []Descriptor) error {
	total, last, flags := int64(0), "", false
	for _, d := range layers {
		title := d.Title()
		if len(d.Annotations) != 1 || d.MediaType != layerType(title) || !validBlob(d, MaxDocument) {
			return fmt.Errorf("%w: wrong descriptor of layer %.64q", ErrFormat, title)
		}
		if err := checkTitle(title); err != nil {
			return err
		}
		if title <= last {
			return fmt.Errorf("%w: layers are not sorted by title, or one is there twice", ErrFormat)
		}
		last, flags, total = title, flags || title == FlagsTitle, total+d.Size
	}
	if !flags {
		return fmt.Errorf("%w: no %s", ErrFormat, FlagsTitle)
	}
	if total > MaxBundle {
		return fmt.Errorf("%w: layers of %d bytes, limit %d", ErrFormat, total, MaxBundle)
	}
	return nil
}

func checkTitle(title string) error {
	if title == FlagsTitle {
		return nil
	}
	name, ok := strings.CutPrefix(title, "config/")
	if base, json := strings.CutSuffix(name, ".json"); ok && json && api.CheckFileName(base) == nil {
		return nil
	}
	return fmt.Errorf("%w: layer title %.64q", ErrFormat, title)
}

func validBlob(d Descriptor, limit int64) bool {
	return d.Digest.Valid() && d.Size > 0 && d.Size <= limit
}

// Content is a bundle opened and checked to the last byte.
type Content struct {
	Digest   api.Digest
	Manifest *Manifest
	Config   Config
	Files    map[string][]byte // by title
}

// Open checks a manifest against its name and identity and reads every blob by
// get, which may return anything: size and digest are checked here. A service
// or mode other than the wanted one is refused.
func Open(name api.Digest, manifest []byte, service string, mode api.Mode, get func(api.Digest) ([]byte, error)) (*Content, error) {
	if !name.Names(manifest) {
		return nil, fmt.Errorf("%w: manifest bytes are not %s", ErrDigest, name.Short())
	}
	m, err := ParseManifest(manifest)
	if err != nil {
		return nil, err
	}
	c := &Content{Digest: name, Manifest: m, Files: make(map[string][]byte, len(m.Layers))}
	raw, err := read(m.Config, get)
	if err != nil {
		return nil, err
	}
	if err := canon.Unmarshal(raw, &c.Config); err != nil {
		return nil, fmt.Errorf("%w: config: %w", ErrFormat, err)
	}
	if c.Config.Service != service || c.Config.Mode != mode {
		return nil, fmt.Errorf("%w: bundle %s is %s in mode %s, wanted %s in mode %s", ErrIdentity, name.Short(),
			c.Config.Service, c.Config.Mode, service, mode)
	}
	for _, d := range m.Layers {
		if c.Files[d.Title()], err = read(d, get); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Refusals of Open, for errors.Is.
var (
	ErrDigest   = errors.New("digest mismatch")
	ErrIdentity = errors.New("another service's or mode's bundle")
)

func read(d Descriptor, get func(api.Digest) ([]byte, error)) ([]byte, error) {
	b, err := get(d.Digest)
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", d.Digest.Short(), err)
	}
	if int64(len(b)) != d.Size || !d.Digest.Names(b) {
		return nil, fmt.Errorf("%w: object %s has other bytes", ErrDigest, d.Digest.Short())
	}
	if err := canon.Check(b); err != nil {
		return nil, fmt.Errorf("%w: object %s: %w", ErrFormat, d.Digest.Short(), err)
	}
	return b, nil
}
