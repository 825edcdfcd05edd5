package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/mod/sumdb/note"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// keyring is a trust file with the private keys that it lets sign. It is never
// written after it is made; the append loop replaces it whole.
type keyring struct {
	trust *ledger.Trust
	log   []note.Signer // each signs checkpoints
	node  []nodeKey
}

type nodeKey struct {
	ledger.NodeKey
	signer note.Signer // nil: not ours, or no longer here
}

func (c *Config) keyring() (*keyring, error) {
	if c.ReadOnly {
		return &keyring{trust: c.Trust}, nil
	}
	return newKeyring(c.Trust, append([]note.Signer{c.Log, c.Node}, c.More...))
}

// newKeyring finds the private key of each public one of the newest version.
// Keys that it doesn't name are left alone: they may be of the version to come.
func newKeyring(t *ledger.Trust, signers []note.Signer) (*keyring, error) {
	k := &keyring{trust: t}
	for _, vkey := range t.Log {
		if s := signerOf(vkey, signers); s != nil {
			k.log = append(k.log, s)
		}
	}
	for _, n := range t.Node {
		k.node = append(k.node, nodeKey{n, signerOf(n.VKey, signers)})
	}
	if len(k.log) == 0 {
		return nil, fmt.Errorf("store: the log key is not one of version %d of the trust file", t.Version)
	}
	if k.head() == nil {
		return nil, fmt.Errorf("store: the node key is not one that version %d of the trust file lets sign heads", t.Version)
	}
	return k, nil
}

func signerOf(vkey string, signers []note.Signer) note.Signer {
	v, err := note.NewVerifier(vkey)
	if err != nil {
		return nil
	}
	for _, s := range signers {
		if s == nil || s.Name() != v.Name() || s.KeyHash() != v.KeyHash() {
			continue
		}
		if sig, err := s.Sign([]byte(vkey)); err == nil && v.Verify([]byte(vkey), sig) { // key hashes can collide
			return s
		}
	}
	return nil
}

// head is the key that signs heads: the one without until; nil when it isn't here.
func (k *keyring) head() note.Signer {
	for _, n := range k.node {
		if n.Until == nil && n.signer != nil {
			return n.signer
		}
	}
	return nil
}

// leaf is the key that signs the entry of an index.
func (k *keyring) leaf(index int64) (ledger.NodeSigner, error) {
	for _, n := range k.node {
		if index >= n.From && (n.Until == nil || index < *n.Until) && n.signer != nil {
			return ledger.NodeSigner{Signer: n.signer}, nil
		}
	}
	return ledger.NodeSigner{}, &api.Error{Code: api.CodeReadOnly, Detail: fmt.Sprintf("no node key that is here may sign entry %d", index),
		Hint: "keep the old node key in the keys directory until the log has reached the new one's from"}
}

// Trusted is the newest version that is in use.
func (s *Store) Trusted() *ledger.Trust { return s.keys.Load().trust }

// OwnRows is the prefix of the store's rows; the others are the server's.
const OwnRows = "store/"

// rowTrust holds version and digest of the trust file that was in use last.
const rowTrust = OwnRows + "trust"

// mayTake refuses versions that would count for entries that exist: what the
// keys before them signed there would be nobody's. since is the newest version
// that was in use.
func mayTake(t *ledger.Trust, since api.Digest, size int64) error {
	versions := t.Versions()
	for i := len(versions) - 1; i >= 0; i-- {
		v := versions[i]
		if v.Digest == since || v.Origin != t.Origin {
			return nil
		}
		if v.From > 0 && v.From < size {
			return fmt.Errorf("version %d of the trust file counts from entry %d, but the log has %d entries by older keys: take it out of the file and sign one with a higher from",
				v.Version, v.From, size)
		}
	}
	if versions[0].Version == 1 {
		return errors.New("the trust file does not go on from the one that was in use")
	}
	return nil
}

// takeTrust holds the version that the store is opened with to the one before,
// and notes it.
func (s *Store) takeTrust(size int64) error {
	row, err := s.Row(rowTrust)
	if err != nil {
		return err
	}
	version, since, t := 1, s.work.Trust, s.Trusted()
	if row != nil {
		if version, since = parseTrustRow(row); version == 0 {
			return fmt.Errorf("row %s: %w", rowTrust, ErrCorrupt)
		}
	}
	switch {
	case since == t.Digest || s.cfg.ReadOnly:
		return nil
	case t.Version < version:
		return fmt.Errorf("store: version %d of the trust file was in use here, this is version %d", version, t.Version)
	}
	if err := mayTake(t, since, size); err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if err := s.noteTrust(); err != nil { // a full disk: reads go on, and the row is owed
		s.owed.trust = true
		_ = s.failed(stepTrust, err)
	}
	return nil
}

// noteTrust makes it durable that the version in use is in use.
func (s *Store) noteTrust() error {
	err := s.step(stepTrust, func() error {
		return s.ledger.Write(func(tx *bbolt.Tx) error { return tx.Bucket(bucketRows).Put([]byte(rowTrust), trustRow(s.Trusted())) })
	})
	if err == nil {
		s.owed.trust = false
	}
	return err
}

func trustRow(t *ledger.Trust) []byte { return fmt.Appendf(nil, "%d %s", t.Version, t.Digest) }

// parseTrustRow returns version 0 for what is no such row.
func parseTrustRow(row []byte) (version int, digest api.Digest) {
	if _, err := fmt.Sscanf(string(row), "%d %s", &version, &digest); err != nil {
		return 0, ""
	}
	return version, digest
}

// Rotate takes a newer version of the trust file while the store is open.
// signers are all private keys that are at hand. It returns when a checkpoint
// by the new log keys is published and anchored.
func (s *Store) Rotate(ctx context.Context, t *ledger.Trust, signers []note.Signer) error {
	t, err := s.Trusted().Follow(t.File())
	if err != nil {
		return err
	}
	k, err := newKeyring(t, signers)
	if err != nil {
		return err
	}
	if err := s.probe(ctx); err != nil { // else new keys would be in use, beside a checkpoint by the old ones
		return err
	}
	_, err = s.Append(ctx, func(st *ledger.State, _ time.Time) (Decision, error) {
		old := s.Trusted()
		if t.Origin != old.Origin || t.Version <= old.Version {
			return Decision{}, errors.New("store: not a newer version of this log's trust file")
		}
		if err := mayTake(t, old.Digest, st.Size); err != nil {
			return Decision{}, err
		}
		s.keys.Store(k) // under the append lock: the next entry, and the next checkpoint, are by these
		s.owed.trust, s.owed.publish, s.owed.anchor = true, true, true
		return Decision{Rows: map[string][]byte{rowTrust: trustRow(t)}}, nil
	})
	if err != nil {
		return err // if the commit failed, the row is owed: no entry comes before it, or a restart would refuse these keys
	}
	return s.probe(ctx) // pays what is owed: checkpoint and anchor
}
