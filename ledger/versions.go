package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/sealstone/sealstone/api"
)

// MaxTrustFile bounds a trust file with all its versions, in bytes.
const MaxTrustFile = 1 << 20

// ParseTrust reads a trust file that somebody was handed: one version a line,
// each but the first signed by enough roots of the one before it. That its own
// roots signed the first proves that it is whole, not that it is the right one.
func ParseTrust(file []byte) (*Trust, error) {
	first, rest, _ := bytes.Cut(file, []byte("\n"))
	if len(file) > MaxTrustFile {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrTrust, len(file), MaxTrustFile)
	}
	t, err := parseVersion(first)
	if err != nil {
		return nil, err
	}
	if missing := t.Threshold - countRoots(t.Envelope, t.rootKeys); missing > 0 {
		return nil, fmt.Errorf("%w: %w: root signatures are missing: %d", ErrTrust, ErrSignature, missing)
	}
	for _, line := range versionLines(rest) {
		if t, err = t.Next(line); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func versionLines(b []byte) [][]byte {
	if b = bytes.TrimSuffix(b, []byte("\n")); len(b) == 0 {
		return nil
	}
	return bytes.Split(b, []byte("\n"))
}

// Follow walks from this version to the newest of a trust file that anybody may
// have shown, step by step. Versions up to this one are passed over; where
// there is none above it, t itself is returned.
func (t *Trust) Follow(file []byte) (*Trust, error) {
	if len(file) > MaxTrustFile {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrTrust, len(file), MaxTrustFile)
	}
	for _, line := range versionLines(file) {
		v, err := parseEnvelopeOf(line)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrTrust, err)
		}
		if v.Version <= t.Version {
			continue
		}
		if t, err = t.Next(line); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// Next reads the version after this one, which enough of its own roots and of
// this version's must have signed.
func (t *Trust) Next(b []byte) (*Trust, error) {
	p, err := t.Propose(b)
	if err != nil {
		return nil, err
	}
	if p.OwnMissing+p.PreviousMissing > 0 {
		return nil, fmt.Errorf("%w: %w: version %d lacks %d signatures by its own roots and %d by those of version %d",
			ErrTrust, ErrSignature, p.Version, p.OwnMissing, p.PreviousMissing, t.Version)
	}
	return p.Trust, nil
}

// Proposal is a next version, and how many signatures it lacks.
type Proposal struct {
	*Trust
	OwnMissing, PreviousMissing int
}

// Propose reads a next version that may lack signatures. Nothing may be
// verified with it before Next accepts it.
func (t *Trust) Propose(b []byte) (*Proposal, error) {
	n, err := parseVersion(bytes.TrimSuffix(b, []byte("\n")))
	if err != nil {
		return nil, err
	}
	if err := t.precedes(n); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTrust, err)
	}
	n.prev = t
	return &Proposal{n, max(0, n.Threshold-countRoots(n.Envelope, n.rootKeys)), max(0, t.Threshold-countRoots(n.Envelope, t.rootKeys))}, nil
}

func (t *Trust) precedes(n *Trust) error {
	switch same := n.Origin == t.Origin; {
	case n.Version != t.Version+1:
		return fmt.Errorf("version %d does not follow version %d: every version in between must be shown", n.Version, t.Version)
	case !same && (n.Succeeds == nil || n.Succeeds.Origin != t.Origin):
		return fmt.Errorf("origin changes from %q to %q without saying that it succeeds it", t.Origin, n.Origin)
	case same && n.Succeeds != nil:
		return errors.New("a log can't succeed itself")
	case same && n.From < t.From:
		return fmt.Errorf("version %d counts from entry %d, version %d from %d", n.Version, n.From, t.Version, t.From)
	}
	return nil
}

// Versions are the known versions, oldest first; the last one is t.
func (t *Trust) Versions() []*Trust {
	var out []*Trust
	for v := t; v != nil; v = v.prev {
		out = append(out, v)
	}
	slices.Reverse(out)
	return out
}

// File is the trust file with every known version, a line each.
func (t *Trust) File() []byte {
	var out []byte
	for _, v := range t.Versions() {
		out = append(append(out, v.Raw...), '\n')
	}
	return out
}

// older yields the versions of this log before t, newest first, each with the
// index from which its keys count no more: the from of the version after it.
// Below it they count beside the newer ones, so that a version can be handed
// around while the log grows; what they signed above it is nobody's.
func (t *Trust) older() iter.Seq2[*Trust, int64] {
	return func(yield func(*Trust, int64) bool) {
		for next := t; next.prev != nil && next.prev.Origin == t.Origin; next = next.prev {
			if !yield(next.prev, next.From) {
				return
			}
		}
	}
}

// Past is t for what was signed and stored before t came: it also believes
// checkpoints and heads by keys of older versions, over trees that end before
// those keys did. Don't believe a server with it: who stole an old key could
// show an old tree as the newest.
func (t *Trust) Past() *Trust {
	p := *t
	p.past = true
	return &p
}

// openStored opens something signed by a log or node key with t's keys or, for
// what lies in the past, with those of an older version.
func openStored[T any](t *Trust, open func(*Trust) (T, int64, error)) (T, error) {
	out, _, err := open(t)
	if err == nil || !t.past {
		return out, err
	}
	for v, until := range t.older() {
		if old, size, e := open(v); e == nil && size <= until {
			return old, nil
		}
	}
	return out, err
}

// OpenCheckpoint verifies a signed checkpoint.
func (t *Trust) OpenCheckpoint(b []byte) (Tree, error) {
	if name, _, _ := strings.Cut(string(b), "\n"); name != t.Origin && CheckOrigin(name) == nil {
		return Tree{}, fmt.Errorf("%w: it is of log %q, the trust file of log %q: one of the two is the wrong one", ErrCheckpoint, name, t.Origin)
	}
	return openStored(t, func(v *Trust) (Tree, int64, error) {
		n, err := openNote(b, v.log)
		if err != nil {
			return Tree{}, 0, fmt.Errorf("%w: %w", ErrCheckpoint, err)
		}
		tree, err := ParseCheckpointBody(n.Text, v.Origin)
		return tree, tree.Size, err
	})
}

// created holds the digest in ledger.created to the log's first version, where
// that is known.
func (t *Trust) created(d api.Digest) error {
	for _, v := range t.Versions() {
		if v.Origin == t.Origin && v.From == 0 && v.Digest != d {
			return fmt.Errorf("the log was created under trust file %s, this one begins with %s", d, v.Digest)
		}
	}
	return nil
}

// Successor is the statement of the next version, to be changed and signed: the
// same keys, which from index from on count alone.
func (t *Trust) Successor(from int64) TrustStatement {
	st := t.TrustStatement
	st.Version, st.From, st.Succeeds = t.Version+1, from, nil
	st.Log, st.Node, st.Roots = slices.Clone(t.Log), slices.Clone(t.Node), slices.Clone(t.Roots)
	return st
}

// RotateNode puts another node key in charge from the statement's from on. One
// that was to begin there never signs an entry, and goes.
func (st *TrustStatement) RotateNode(vkey string) {
	st.Node = slices.DeleteFunc(st.Node, func(k NodeKey) bool { return k.From >= st.From })
	for i, k := range st.Node {
		if k.Until == nil {
			until := st.From
			st.Node[i].Until = &until
		}
	}
	st.Node = append(st.Node, NodeKey{From: st.From, VKey: vkey})
}

// Succeed makes the statement that of a new log, with keys of its own, which
// goes on from the old one's last known tree.
func (st *TrustStatement) Succeed(origin, logKey, nodeKey string, last Tree) {
	st.Succeeds = &Succeeds{Origin: st.Origin, Root: EncodeRoot(last), Size: last.Size}
	st.Origin, st.From = origin, 0
	st.Log, st.Node = []string{logKey}, []NodeKey{{VKey: nodeKey}}
}

// IsRoot reports whether a key, by its id, is one of the version's roots.
func (t *Trust) IsRoot(id string) bool {
	return slices.ContainsFunc(t.rootKeys, func(k SSHKey) bool { return k.ID() == id })
}
