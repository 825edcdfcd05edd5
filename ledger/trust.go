package ledger

import (
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/canon"
)

// TrustStatement is the payload of a trust file: which keys a client believes.
type TrustStatement struct {
	From      int64     `json:"from,omitempty"` // log index from which the versions before this one count no more; see Trust.older
	Log       []string  `json:"log"`            // vkeys
	Node      []NodeKey `json:"node"`
	Origin    string    `json:"origin"`
	Roots     []string  `json:"roots"` // "ssh-ed25519 AAAA..."
	Succeeds  *Succeeds `json:"succeeds,omitempty"`
	Threshold int       `json:"threshold"`
	Version   int       `json:"version"`
}

// NodeKey is a node's vkey and the log indexes it may sign: from inclusive,
// until exclusive; without until it also signs heads.
type NodeKey struct {
	From  int64  `json:"from"`
	Until *int64 `json:"until,omitempty"`
	VKey  string `json:"vkey"`
}

// Succeeds names the log that this one goes on from.
type Succeeds struct {
	Origin string `json:"origin"`
	Root   string `json:"root"`
	Size   int64  `json:"size"`
}

// Trust is a version of a trust file, checked and ready to verify with, and
// those before it that are known.
type Trust struct {
	TrustStatement
	Raw      []byte     // the bytes of this version's envelope; File has all versions
	Digest   api.Digest // of the DSSE payload, as ledger.created cites it
	Envelope *Envelope

	prev     *Trust // the version before, nil for the first that is known
	past     bool   // see Past
	log      []note.Verifier
	node     []note.Verifier
	rootKeys []SSHKey
}

// ErrTrust is wrapped by every refusal of a trust file.
var ErrTrust = errors.New("bad trust file")

// SignTrust makes a trust file. From version 2 on the signers must include the
// previous version's threshold.
func SignTrust(st TrustStatement, roots ...Signer) ([]byte, error) {
	payload, err := canon.Marshal(st)
	if err != nil {
		return nil, err
	}
	e, err := Seal(TypeTrust, payload, roots...)
	if err != nil {
		return nil, err
	}
	return e.Encode()
}

// parseVersion reads one version, in form: nobody's signature is counted.
func parseVersion(b []byte) (*Trust, error) {
	t, err := parseEnvelopeOf(b)
	if err == nil {
		err = t.check()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTrust, err)
	}
	return t, nil
}

func parseEnvelopeOf(b []byte) (*Trust, error) {
	e, err := ParseEnvelope(b, TypeTrust)
	if err != nil {
		return nil, err
	}
	payload, err := e.Bytes()
	if err != nil {
		return nil, err
	}
	t := &Trust{Raw: b, Digest: api.DigestOf(payload), Envelope: e}
	return t, canon.Unmarshal(payload, &t.TrustStatement)
}

func (t *Trust) check() error {
	errs := []error{CheckOrigin(t.Origin)}
	if t.Version < 1 {
		errs = append(errs, errors.New("version must be 1 or more"))
	}
	if first := t.Version == 1 || t.Succeeds != nil; first != (t.From == 0) || t.From < 0 {
		errs = append(errs, errors.New("member \"from\" is an index above 0 in every version but a log's first, which has none"))
	}
	for _, line := range t.Roots {
		k, err := ParseSSHKey(line)
		if err == nil && k.String() != line {
			err = errors.New("write root keys without a comment")
		}
		for _, other := range t.rootKeys {
			if err == nil && other.Equal(k) {
				err = errors.New("a root key is there twice")
			}
		}
		t.rootKeys, errs = append(t.rootKeys, k), append(errs, err)
	}
	if t.Threshold < 1 || t.Threshold > len(t.Roots) {
		errs = append(errs, fmt.Errorf("threshold %d of %d roots", t.Threshold, len(t.Roots)))
	}
	if len(t.Log) == 0 || len(t.Node) == 0 {
		errs = append(errs, errors.New("a log key and a node key are needed"))
	}
	return errors.Join(append(errs, t.checkNotes())...)
}

func (t *Trust) checkNotes() error {
	var errs []error
	for _, k := range t.Log {
		v, err := note.NewVerifier(k)
		if err == nil && v.Name() != t.Origin {
			err = fmt.Errorf("log key is named %.64q, want the origin", v.Name())
		}
		t.log, errs = append(t.log, v), append(errs, err)
	}
	for _, k := range t.Node {
		v, err := note.NewVerifier(k.VKey)
		if err == nil && v.Name() != NodeName(t.Origin) {
			err = fmt.Errorf("node key is named %.64q, want %q", v.Name(), NodeName(t.Origin))
		}
		if k.From < 0 || k.Until != nil && *k.Until <= k.From {
			err = errors.New("node key: from and until name no index")
		}
		t.node, errs = append(t.node, v), append(errs, err)
	}
	if s := t.Succeeds; s != nil {
		_, err := decodeHash(s.Root)
		errs = append(errs, err, CheckOrigin(s.Origin))
	}
	return errors.Join(errs...)
}

// NodeName is the note name of a log's node keys.
func NodeName(origin string) string { return origin + "/node" }

// CheckNode tells whether the node that was in charge of index signed the leaf.
func (t *Trust) CheckNode(index int64, e *Envelope) error {
	one, err := e.one()
	if err != nil {
		return err
	}
	payload, err := e.Bytes()
	if err != nil {
		return err
	}
	sig, err := decodeSig(one)
	if err != nil {
		return err
	}
	pae := PAE(e.PayloadType, payload)
	for i, k := range t.Node {
		if index >= k.From && (k.Until == nil || index < *k.Until) && t.node[i].Verify(pae, sig) {
			return nil
		}
	}
	return fmt.Errorf("%w: no node key for entry %d made it (it says key %.80q)", ErrSignature, index, one.KeyID)
}

// headKeys are the node keys that may sign heads: those without until.
func (t *Trust) headKeys() []note.Verifier {
	var out []note.Verifier
	for i, k := range t.Node {
		if k.Until == nil {
			out = append(out, t.node[i])
		}
	}
	return out
}

func openNote(b []byte, keys []note.Verifier) (*note.Note, error) {
	n, err := note.Open(b, note.VerifierList(keys...))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return n, nil
}

// EmptyRoot is the root of a log without entries.
func EmptyRoot() tlog.Hash {
	h, err := tlog.TreeHash(0, nil)
	if err != nil {
		panic(err) // reads nothing, so can't fail
	}
	return h
}
