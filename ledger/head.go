package ledger

import (
	"cmp"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/sealstone/sealstone/api"
)

const headVersion = "sealstone head v1"

// StaleAfter is the age at which a head stops being news.
const StaleAfter = 5 * time.Minute

// Head is the node's statement of the newest change of every main and override
// chain of a service.
type Head struct {
	Origin    string
	Service   string
	Tree      Tree
	Issued    time.Time
	Operators Ref // zero before the first set
	Lines     []Line
}

// Ref cites a change by index and leaf hash.
type Ref struct {
	Index int64
	Hash  api.Digest
}

// Line is the newest change of one chain.
type Line struct {
	Lane  Lane
	Scope api.Scope
	Ref
}

// ErrHead is wrapped by every refusal of a head.
var ErrHead = errors.New("bad head")

// Body is the head's text: what the node signs as a note.
func (h *Head) Body() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n%s\nlog %d %s\nissued %s\n", headVersion, h.Origin, h.Service, h.Tree.Size,
		base64.StdEncoding.EncodeToString(h.Tree.Root[:]), api.FormatTime(h.Issued))
	if h.Operators.Hash != "" {
		fmt.Fprintf(&b, "operators %d %s\n", h.Operators.Index, h.Operators.Hash)
	}
	b.WriteString(h.ChainLines())
	return b.String()
}

// ChainLines is the part of the body that changes only when a chain does: what
// an ETag covers.
func (h *Head) ChainLines() string {
	var b strings.Builder
	for _, l := range h.Lines {
		fmt.Fprintf(&b, "%s %s %d %s\n", l.Lane, l.Scope, l.Index, l.Hash)
	}
	return b.String()
}

// Sign returns the signed note.
func (h *Head) Sign(node note.Signer) ([]byte, error) {
	slices.SortFunc(h.Lines, compareLines)
	if len(h.Lines) > api.MaxChains {
		return nil, fmt.Errorf("%w: %d chains, limit %d", ErrHead, len(h.Lines), api.MaxChains)
	}
	return note.Sign(&note.Note{Text: h.Body()}, node)
}

func compareLines(a, b Line) int {
	return cmp.Or(cmp.Compare(a.Lane, b.Lane), cmp.Compare(a.Scope, b.Scope))
}

// OpenHead verifies a signed head.
func (t *Trust) OpenHead(b []byte) (*Head, error) {
	if len(b) > MaxEnvelope {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrHead, len(b), MaxEnvelope)
	}
	return openStored(t, func(v *Trust) (*Head, int64, error) { return v.openHead(b) })
}

func (t *Trust) openHead(b []byte) (*Head, int64, error) {
	n, err := openNote(b, t.headKeys())
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrHead, err)
	}
	h, err := ParseHeadBody(n.Text)
	if err != nil {
		return nil, 0, err
	}
	if h.Origin != t.Origin {
		return nil, 0, fmt.Errorf("%w: origin %.64q, want %q", ErrHead, h.Origin, t.Origin)
	}
	return h, h.Tree.Size, nil
}

// ParseHeadBody accepts exactly what Body prints.
func ParseHeadBody(text string) (*Head, error) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if len(lines) < 5 || lines[0] != headVersion {
		return nil, fmt.Errorf("%w: does not start with %q and four more lines", ErrHead, headVersion)
	}
	h := &Head{Origin: lines[1], Service: lines[2]}
	errs := []error{api.CheckName(h.Service), h.parseLog(lines[3]), h.parseIssued(lines[4])}
	rest := lines[5:]
	if len(rest) > 0 && strings.HasPrefix(rest[0], "operators ") {
		ref, err := parseRef(strings.TrimPrefix(rest[0], "operators "))
		h.Operators, errs, rest = ref, append(errs, err), rest[1:]
	}
	if len(rest) > api.MaxChains {
		return nil, fmt.Errorf("%w: %d chains, limit %d", ErrHead, len(rest), api.MaxChains)
	}
	for _, s := range rest {
		l, err := parseLine(s)
		h.Lines, errs = append(h.Lines, l), append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHead, err)
	}
	if !strictlySorted(h.Lines) || h.Body() != text {
		return nil, fmt.Errorf("%w: not in its one spelling", ErrHead)
	}
	return h, nil
}

func strictlySorted(lines []Line) bool {
	for i := 1; i < len(lines); i++ {
		if compareLines(lines[i-1], lines[i]) >= 0 {
			return false
		}
	}
	return true
}

func (h *Head) parseLog(s string) error {
	f := strings.Split(s, " ")
	if len(f) != 3 || f[0] != "log" {
		return fmt.Errorf("line %.64q, want \"log <size> <root>\"", s)
	}
	size, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil || size < 0 {
		return fmt.Errorf("log size %.32q", f[1])
	}
	root, err := decodeHash(f[2])
	h.Tree = Tree{size, root}
	return err
}

func (h *Head) parseIssued(s string) (err error) {
	at, ok := strings.CutPrefix(s, "issued ")
	if !ok {
		return fmt.Errorf("line %.64q, want \"issued <time>\"", s)
	}
	h.Issued, err = api.ParseTime(at)
	return err
}

func parseRef(s string) (Ref, error) {
	f := strings.Split(s, " ")
	if len(f) != 2 {
		return Ref{}, fmt.Errorf("%.80q is not \"<index> <hash>\"", s)
	}
	index, err := strconv.ParseInt(f[0], 10, 64)
	if err != nil || index < 0 {
		return Ref{}, fmt.Errorf("index %.32q", f[0])
	}
	hash, err := api.ParseDigest(f[1])
	return Ref{index, hash}, err
}

func parseLine(s string) (Line, error) {
	f := strings.SplitN(s, " ", 3)
	if len(f) != 3 || (Lane(f[0]) != LaneMain && Lane(f[0]) != LaneOverride) {
		return Line{}, fmt.Errorf("line %.80q, want \"<lane> <scope> <index> <hash>\"", s)
	}
	scope, err1 := api.ParseScope(f[1])
	ref, err2 := parseRef(f[2])
	return Line{Lane(f[0]), scope, ref}, errors.Join(err1, err2)
}
