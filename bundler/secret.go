package bundler

import (
	"bytes"
	"regexp"
	"strings"

	"github.com/sealstone/sealstone/internal/secrets"
)

// A secret is a value that has the shape of one and no remark that it is none.
type secret struct {
	at    place
	value string
	what  string
}

// findSecrets looks at every string of a file, keys too.
func findSecrets(file string, raw []byte, root *node) []secret {
	likely := secrets.Likely(raw)
	if likely == nil {
		return nil
	}
	h := hunt{likely: likely, allowed: allowedLines(file, raw)}
	root.walk(h.visit)
	return h.found
}

type hunt struct {
	likely  secrets.Shapes
	allowed map[int32]bool
	found   []secret
}

func (h *hunt) visit(n *node) {
	if n.kind == kindString {
		h.look(n.str, n.at)
	}
	for _, f := range n.fields {
		h.look(f.name, f.val.at)
	}
}

func (h *hunt) look(s string, at place) {
	if h.allowed[at.line] {
		return
	}
	if what := h.likely.Find(s); what != "" {
		h.found = append(h.found, secret{at, s, what})
	}
}

var notSecret = regexp.MustCompile(`(?:^|\s)# not-a-secret: \S`)

// allowedLines are those with a remark that says why a value is no secret.
// JSON has no comments and so no remarks.
func allowedLines(file string, raw []byte) map[int32]bool {
	if strings.HasSuffix(file, ".json") || !bytes.Contains(raw, []byte("not-a-secret:")) {
		return nil
	}
	allowed, line := map[int32]bool{}, int32(0)
	for text := range bytes.Lines(raw) {
		line++
		if notSecret.Match(text) {
			allowed[line] = true
		}
	}
	return allowed
}
