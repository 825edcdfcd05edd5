package ledger

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealstone/sealstone/api"
)

// Tree is a size and its root.
type Tree struct {
	Size int64
	Root tlog.Hash
}

// checkpointBody is a C2SP checkpoint's text: origin, size, root, no extension
// lines, because some cosignatures don't cover those.
func checkpointBody(origin string, t Tree) string {
	return fmt.Sprintf("%s\n%d\n%s\n", origin, t.Size, base64.StdEncoding.EncodeToString(t.Root[:]))
}

// SignCheckpoint returns the note, signed by each key: two while one replaces the
// other. Sign only what is durably committed:
// a signed checkpoint that is later lost is a fork.
func SignCheckpoint(origin string, t Tree, log ...note.Signer) ([]byte, error) {
	return note.Sign(&note.Note{Text: checkpointBody(origin, t)}, log...)
}

// ErrCheckpoint is wrapped by every refusal of a checkpoint.
var ErrCheckpoint = errors.New("bad checkpoint")

// ParseCheckpointBody accepts exactly what checkpointBody prints.
func ParseCheckpointBody(text, origin string) (Tree, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return Tree{}, fmt.Errorf("%w: not three lines", ErrCheckpoint)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 {
		return Tree{}, fmt.Errorf("%w: size %.32q", ErrCheckpoint, lines[1])
	}
	root, err := decodeHash(lines[2])
	if err != nil {
		return Tree{}, fmt.Errorf("%w: root: %w", ErrCheckpoint, err)
	}
	t := Tree{size, root}
	if lines[0] != origin {
		return Tree{}, fmt.Errorf("%w: origin %.64q, want %q", ErrCheckpoint, lines[0], origin)
	}
	if checkpointBody(origin, t) != text {
		return Tree{}, fmt.Errorf("%w: not in its one spelling", ErrCheckpoint)
	}
	return t, nil
}

func decodeHash(s string) (tlog.Hash, error) {
	var h tlog.Hash
	b, err := decodeBase64(s)
	if err != nil || len(b) != len(h) {
		return h, errors.New("not 32 bytes of standard base64")
	}
	copy(h[:], b)
	return h, nil
}

func decodeHashes(list []string) ([]tlog.Hash, error) {
	if len(list) > 64 {
		return nil, fmt.Errorf("a proof of %d hashes; no log is that deep", len(list))
	}
	out := make([]tlog.Hash, 0, len(list))
	for _, s := range list {
		h, err := decodeHash(s)
		if err != nil {
			return nil, err
		}
		out = append(out, h)
	}
	return out, nil
}

// EncodeHashes spells a proof for Evidence.
func EncodeHashes(list []tlog.Hash) []string {
	out := make([]string, 0, len(list))
	for _, h := range list {
		out = append(out, base64.StdEncoding.EncodeToString(h[:]))
	}
	return out
}

// LeafHash is the RFC 6962 hash of a leaf, as changes cite it.
func LeafHash(leaf []byte) api.Digest { return api.DigestFromSum(tlog.RecordHash(leaf)) }

// CheckConsistency tells whether newer extends older. Equal sizes need equal
// roots: another root is a fork.
func CheckConsistency(older, newer Tree, proof []string) error {
	switch {
	case newer.Size < older.Size:
		return fmt.Errorf("the log shrank from %d to %d entries", older.Size, newer.Size)
	case newer.Size == older.Size && newer.Root != older.Root:
		return fmt.Errorf("two roots for %d entries: the log forked", older.Size)
	case newer.Size == older.Size, older.Size == 0:
		return nil
	}
	hashes, err := decodeHashes(proof)
	if err != nil {
		return err
	}
	return tlog.CheckTree(hashes, newer.Size, newer.Root, older.Size, older.Root)
}

// CheckInclusion tells whether leaf is entry index of the tree.
func CheckInclusion(t Tree, index int64, leaf []byte, proof []string) error {
	hashes, err := decodeHashes(proof)
	if err != nil {
		return err
	}
	if index < 0 || index >= t.Size {
		return fmt.Errorf("index %d is outside the tree of %d entries", index, t.Size)
	}
	return tlog.CheckRecord(hashes, t.Size, t.Root, index, tlog.RecordHash(leaf))
}

// EncodeRoot spells a tree's root as checkpoints do.
func EncodeRoot(t Tree) string { return base64.StdEncoding.EncodeToString(t.Root[:]) }

// FormatProof prints that an entry is in the tree of a signed checkpoint, in the
// form c2sp.org/tlog-proof@v1.
func FormatProof(index int64, proof tlog.RecordProof, checkpoint []byte) []byte {
	out := fmt.Appendf(nil, "c2sp.org/tlog-proof@v1\nindex %d\n", index)
	for _, h := range proof {
		out = fmt.Appendln(out, base64.StdEncoding.EncodeToString(h[:]))
	}
	return append(append(out, '\n'), checkpoint...)
}
