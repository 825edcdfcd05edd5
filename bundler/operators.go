package bundler

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"strings"

	"github.com/sealstone/sealstone/api"
)

// Operators is what operators.yaml says. It gives nobody anything by itself: a
// root signs it, and the signed statement is what counts.
type Operators struct {
	Version   int
	Operators []Operator
}

// An Operator is a person or pipeline with keys.
type Operator struct {
	ID   string
	Name string
	Keys []string // "ssh-ed25519 <base64>", without comment
	May  []Permission
}

// A Permission allows statements of some kinds about services ("*" for all) at
// or below scopes ("*" for all).
type Permission struct {
	Do       []string
	Services []string
	Scopes   []string
}

// ParseOperators reads operators.yaml. Operators is nil when there are errors.
func ParseOperators(raw []byte) (*Operators, Faults) {
	const file = "operators.yaml"
	n, faults := readOwn(file, raw, "operators")
	if n == nil {
		return nil, sorted(faults)
	}
	r := &reader{found: found{faults: faults}}
	out := &Operators{Version: n.whole("version")}
	ids, keys := map[string]bool{}, map[string]bool{}
	for _, o := range n.items("operators") {
		out.Operators = append(out.Operators, r.operator(o, ids, keys))
	}
	if asError(r.faults) != nil {
		return nil, sorted(r.faults)
	}
	return out, sorted(r.faults)
}

func (r *reader) operator(n *node, ids, keys map[string]bool) Operator {
	o := Operator{ID: n.text("id"), Name: n.text("name")}
	if ids[o.ID] {
		r.fault(ruleOpTwice, n.get("id").at, "operator %s stands twice", quote(o.ID))
	}
	ids[o.ID] = true
	for _, k := range n.items("keys") {
		key, ok := sshKey(k.str)
		switch {
		case !ok:
			r.fault(ruleOpKey, k.at, "a key of operator %s is not an Ed25519 SSH public key", quote(o.ID))
		case keys[key]:
			r.fault(ruleOpTwice, k.at, "a key of operator %s stands twice", quote(o.ID))
		}
		keys[key] = true
		o.Keys = append(o.Keys, key)
	}
	for _, m := range n.items("may") {
		r.scopesOf(m)
		o.May = append(o.May, Permission{Do: m.texts("do"), Services: m.texts("services"), Scopes: m.texts("scopes")})
	}
	return o
}

func (r *reader) scopesOf(m *node) {
	for _, s := range m.items("scopes") {
		if _, err := api.ParseScope(s.str); err != nil && s.str != "*" {
			r.fault(ruleName, s.at, "%s", err)
		}
	}
}

// sshKey accepts the line of an id_ed25519.pub and drops the comment.
func sshKey(line string) (string, bool) {
	parts := strings.Fields(line)
	if len(parts) < 2 || parts[0] != "ssh-ed25519" {
		return "", false
	}
	wire, err := base64.StdEncoding.Strict().DecodeString(parts[1])
	if err != nil {
		return "", false
	}
	kind, rest := wireString(wire)
	key, rest := wireString(rest)
	return parts[0] + " " + parts[1], string(kind) == "ssh-ed25519" && len(key) == 32 && len(rest) == 0
}

// wireString cuts a length-prefixed string (RFC 4251) off.
func wireString(b []byte) (s, rest []byte) {
	if len(b) < 4 {
		return nil, b
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n) > uint64(len(b)-4) {
		return nil, b
	}
	return b[4 : 4+n], b[4+n:]
}

// checkOperatorsSig reports a signature file that can't be for this
// operators.yaml. Whether a root made it is for those who have the trust file.
func (r *reader) checkOperatorsSig(t *Tip) {
	at := place{file: "operators.sig"}
	if t.Operators == nil {
		if t.OperatorsSig != nil {
			r.fault(ruleOpSig, at, "operators.sig has no operators.yaml beside it")
		}
		return
	}
	if t.OperatorsSig == nil {
		r.fault(ruleOpSig, place{file: "operators.yaml"}, "operators.sig is missing, so the file gives nobody anything")
		return
	}
	var envelope struct{ Payload []byte }
	var statement struct{ SHA256 string }
	if json.Unmarshal(bytes.TrimSpace(t.OperatorsSig), &envelope) != nil || json.Unmarshal(envelope.Payload, &statement) != nil {
		r.fault(ruleOpSig, at, "operators.sig is not a signed statement")
		return
	}
	if strings.TrimPrefix(statement.SHA256, "sha256:") != api.DigestOf(t.Operators).Hex() {
		r.fault(ruleOpSig, at, "operators.sig is for another version of operators.yaml")
	}
}
