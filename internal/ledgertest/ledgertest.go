// Package ledgertest makes what tests of the ledger, the store, the server and
// the SDK need: keys, a trust file, a root-signed operators set, and signed
// statements.
//
//	f := ledgertest.New(t)
//	err := store.Init(store.Config{Dir: t.TempDir(), Log: f.Log, Node: f.Node, Trust: f.Trust})
//	enter := f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0)
//
// Keys are derived from the origin, so two fixtures of one origin are the same
// and a failing test fails again.
package ledgertest

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/canon"
	"github.com/sealstone/sealstone/ledger"
)

// Origin is the origin of the log of New.
const Origin = "log.example.com/sealstone"

// OperatorID is the operator of every fixture, who may do everything everywhere.
const OperatorID = "alex"

// Fixture is one log's keys and who may act in it.
type Fixture struct {
	Origin string

	Log, Node          note.Signer
	LogSKey, LogVKey   string // as key files and trust files hold them
	NodeSKey, NodeVKey string
	RootKey            ed25519.PrivateKey
	OperatorKey        ed25519.PrivateKey
	Root, Operator     ledger.KeySigner
	Stranger           ledger.KeySigner // a good key that no operator holds
	Trust              *ledger.Trust    // version 1, of one root
	OperatorsYAML      []byte           // operators.yaml
	OperatorsSig       []byte           // operators.sig: version 1 with OperatorID
	OperatorsSet       *ledger.Operators
	now                func() time.Time
	t                  testing.TB
}

// New is a fixture for Origin.
func New(t testing.TB) *Fixture { return For(t, Origin) }

// For is a fixture for a log of another origin.
func For(t testing.TB, origin string) *Fixture {
	t.Helper()
	f := &Fixture{Origin: origin, t: t, now: time.Now}
	f.LogSKey, f.LogVKey, f.Log = f.noteKey(origin, "log")
	f.NodeSKey, f.NodeVKey, f.Node = f.noteKey(ledger.NodeName(origin), "node")
	f.RootKey, f.OperatorKey = f.Key("root"), f.Key("operator")
	f.Root, f.Operator = ledger.KeySigner{Private: f.RootKey}, ledger.KeySigner{Private: f.OperatorKey}
	f.Stranger = ledger.KeySigner{Private: f.Key("stranger")}
	f.Trust = f.TrustFile(1, nil)
	op := ledger.Operator{ID: OperatorID, Keys: []string{SSHLine(f.OperatorKey)}, May: []ledger.Grant{Everything()}}
	f.OperatorsYAML = fmt.Appendf(nil, "version: 1\noperators:\n  - id: %s\n    keys: [%q]\n    may: [{do: [erase, record, safe-mode, source], services: [\"*\"], scopes: [\"*\"]}]\n", OperatorID, SSHLine(f.OperatorKey))
	f.OperatorsSig = f.SignOperators(1, f.OperatorsYAML, op)
	f.OperatorsSet = must(f.Trust.OperatorsAt(1, f.OperatorsSig))(t)
	return f
}

// At makes the fixture stamp its statements by another clock.
func (f *Fixture) At(now func() time.Time) *Fixture {
	f.now = now
	return f
}

// Key derives a private key from the origin and a role.
func (f *Fixture) Key(role string) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(f.seed(role))
}

func (f *Fixture) seed(role string) []byte {
	sum := sha256.Sum256([]byte("ledgertest " + f.Origin + " " + role))
	return sum[:]
}

func (f *Fixture) noteKey(name, role string) (skey, vkey string, s note.Signer) {
	f.t.Helper()
	skey, vkey, err := ledger.NewNoteKey(name, f.seed(role))
	if err != nil {
		f.t.Fatal(err)
	}
	return skey, vkey, must(note.NewSigner(skey))(f.t)
}

// SSHLine is a key as operators.yaml and trust files hold it.
func SSHLine(k ed25519.PrivateKey) string {
	return ledger.NewSSHKey(k.Public().(ed25519.PublicKey)).String()
}

// Everything grants everything everywhere.
func Everything() ledger.Grant {
	return ledger.Grant{Do: ledger.Verbs, Scopes: []api.Scope{"*"}, Services: []string{"*"}}
}

// TrustFile makes a version of the trust file, signed by the root; edit may
// change it first.
func (f *Fixture) TrustFile(version int, edit func(*ledger.TrustStatement)) *ledger.Trust {
	f.t.Helper()
	st := ledger.TrustStatement{Origin: f.Origin, Version: version, Threshold: 1, Log: []string{f.LogVKey},
		Node: []ledger.NodeKey{{VKey: f.NodeVKey}}, Roots: []string{SSHLine(f.RootKey)}}
	if edit != nil {
		edit(&st)
	}
	if version > 1 && st.Succeeds == nil && st.From == 0 {
		st.From = 1
	}
	return must(ledger.ParseTrust(must(ledger.SignTrust(st, f.Root))(f.t)))(f.t)
}

// SignOperators makes the envelope of an operators set, root-signed.
func (f *Fixture) SignOperators(version int, yaml []byte, ops ...ledger.Operator) []byte {
	f.t.Helper()
	payload := must(canon.Marshal(ledger.OperatorsStatement{Log: f.Origin, Version: version, SHA256: api.DigestOf(yaml), Operators: ops}))(f.t)
	e := must(ledger.Seal(ledger.TypeStatement, payload, f.Root))(f.t)
	return must(e.Encode())(f.t)
}

// Statement makes a signed statement by the fixture's operator; edit may change
// it before it is signed.
func (f *Fixture) Statement(kind ledger.Kind, service string, scope api.Scope, edit func(*ledger.Statement)) *ledger.Signed {
	f.t.Helper()
	return f.StatementBy(f.Operator, kind, service, scope, edit)
}

// StatementBy is Statement with another key.
func (f *Fixture) StatementBy(key ledger.Signer, kind ledger.Kind, service string, scope api.Scope, edit func(*ledger.Statement)) *ledger.Signed {
	f.t.Helper()
	now := f.now()
	st := &ledger.Statement{ID: NewID(now), Kind: kind, Log: f.Origin, Service: service, Scope: scope, Time: api.FormatTime(now)}
	if edit != nil {
		edit(st)
	}
	return must(ledger.ParseStatement(must(st.Sign(key))(f.t)))(f.t)
}

// SafeMode makes a safe-mode statement: entered and renewed get one hour and
// "hold". after is the generation of the override chain that the signer saw.
func (f *Fixture) SafeMode(kind ledger.Kind, service string, scope api.Scope, mode api.Mode, after int64) *ledger.Signed {
	f.t.Helper()
	return f.Statement(kind, service, scope, func(st *ledger.Statement) {
		st.Mode, st.After = mode, &after
		if kind != ledger.SafeModeExited {
			st.TTL, st.OnExpiry = 3600, "hold"
		}
	})
}

// Release is a plausible release; n tells several apart.
func Release(n int) *ledger.Release {
	return &ledger.Release{Commit: fmt.Sprintf("%040x", n+1), Tree: fmt.Sprintf("%040x", n+1<<20), Ref: "refs/heads/main", Repository: "https://git.example.com/config"}
}

// NewID makes a UUIDv7.
func NewID(now time.Time) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	ms := uint64(now.UnixMilli())
	for i := range 6 {
		b[i] = byte(ms >> (40 - 8*i))
	}
	b[6], b[8] = b[6]&0x0f|0x70, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
