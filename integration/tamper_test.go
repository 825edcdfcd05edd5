package integration_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/integration/proctest"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
	"github.com/sealstone/sealstone/sdk"
)

// tampering is one thing that somebody between server and client changes, and
// the check that must find it.
type tampering struct {
	name string
	want ledger.Check
	lie  lie
}

var tamperings = []tampering{
	{"object", ledger.CheckObject, onObject("blobs", anything, flip)},
	{"object of another size", ledger.CheckObject, onObject("blobs", anything, func(b []byte) []byte { return b[:len(b)-1] })},
	{"object without end", ledger.CheckObject, onObject("blobs", anything, func([]byte) []byte { return forever })},
	{"manifest", ledger.CheckManifest, onObject("manifests", func(b []byte) bool { return !isIndex(b) }, flip)},
	{"set", ledger.CheckSet, onObject("manifests", isIndex, flip)},
	{"set without end", ledger.CheckSet, onObject("manifests", isIndex, func([]byte) []byte { return forever })},

	{"evidence without end", ledger.CheckHead, func(_ *forger, req *http.Request, body []byte) []byte {
		if req.URL.Path == "/v1/evidence" {
			return forever
		}
		return body
	}},
	{"evidence cut off", ledger.CheckHead, func(_ *forger, req *http.Request, body []byte) []byte {
		if req.URL.Path == "/v1/evidence" {
			return body[:len(body)/2]
		}
		return body
	}},
	{"leaf", ledger.CheckIncluded, onEvidence(func(_ *forger, e *ledger.Evidence) {
		for i := range e.Changes {
			e.Changes[i].Leaf = flip(e.Changes[i].Leaf)
		}
	})},
	{"statement inside a leaf", ledger.CheckIncluded, onEvidence(func(_ *forger, e *ledger.Evidence) {
		for i := range e.Changes {
			e.Changes[i].Leaf = inPayload(e.Changes[i].Leaf, "safe-mode.entered", "safe-mode.renewed")
		}
	})},
	{"change kept back", ledger.CheckIncluded, onEvidence(func(_ *forger, e *ledger.Evidence) {
		if n := len(e.Changes); n > 0 { // the newest is news to the client
			newest := slices.MaxFunc(e.Changes, func(a, b ledger.EvidenceChange) int { return int(a.Index - b.Index) }).Index
			e.Changes = slices.DeleteFunc(e.Changes, func(c ledger.EvidenceChange) bool { return c.Index == newest })
		}
	})},
	{"inclusion proof", ledger.CheckIncluded, onEvidence(func(_ *forger, e *ledger.Evidence) {
		for _, c := range e.Changes {
			if len(c.Proof) > 0 {
				c.Proof[0] = flipHash(c.Proof[0])
			}
		}
	})},
	{"index of a change", ledger.CheckIncluded, onEvidence(func(_ *forger, e *ledger.Evidence) {
		for i := range e.Changes {
			e.Changes[i].Index--
		}
	})},
	{"consistency proof", ledger.CheckConsistent, onEvidence(func(_ *forger, e *ledger.Evidence) {
		for i := range e.Consistency {
			e.Consistency[i] = flipHash(e.Consistency[i])
		}
	})},
	{"consistency proof kept back", ledger.CheckConsistent, onEvidence(func(_ *forger, e *ledger.Evidence) { e.Consistency = nil })},

	{"head edited", ledger.CheckHead, onEvidence(func(_ *forger, e *ledger.Evidence) { e.Head = editNote(e.Head, "main prod ", "main staging ") })},
	{"head of another service", ledger.CheckHead, onEvidence(func(f *forger, e *ledger.Evidence) { e.Head = f.server.Evidence("payments").Head })},
	{"head from before", ledger.CheckHeadRollback, onEvidence(func(f *forger, e *ledger.Evidence) { e.Head = f.old.Head })},
	{"all from before", ledger.CheckHeadRollback, onEvidence(func(f *forger, e *ledger.Evidence) { *e = *f.old })},
	{"checkpoint edited", ledger.CheckCheckpoint, onEvidence(func(_ *forger, e *ledger.Evidence) { e.Checkpoint = editNote(e.Checkpoint, "\n1", "\n9") })},
	{"checkpoint from before", ledger.CheckCheckpoint, onEvidence(func(f *forger, e *ledger.Evidence) { e.Checkpoint = f.old.Checkpoint })},

	// From here on with the node's and the log's keys.
	{"log shrunk and signed anew", ledger.CheckHeadRollback, withKeys(func(g *forged) bool {
		g.leaves = g.leaves[:g.oldTree.Size]
		g.head.Lines = slices.DeleteFunc(g.head.Lines, func(l ledger.Line) bool { return l.Index >= g.oldTree.Size })
		return true
	})},
	{"history rewritten", ledger.CheckConsistent, withKeys(func(g *forged) bool {
		g.rewrite(2, g.node, func(e *ledger.Event) { e.RecordedTime = e.Time[:len(e.Time)-4] + "000Z" })
		return true
	})},
	{"chain hidden", ledger.CheckChains, withKeys(func(g *forged) bool {
		g.head.Lines = slices.Delete(g.head.Lines, scopeLine(g.head, ledger.LaneMain, "prod"), scopeLine(g.head, ledger.LaneMain, "prod")+1)
		return true
	})},
	{"chain of another scope", ledger.CheckScope, withKeys(func(g *forged) bool {
		g.head.Lines[scopeLine(g.head, ledger.LaneMain, "prod")].Ref = g.head.Lines[scopeLine(g.head, ledger.LaneMain, "staging")].Ref
		return true
	})},
	{"statement by a stranger", ledger.CheckStatementSignature, withKeys(func(g *forged) bool {
		return g.enteredBy(g.stranger)
	})},
	{"change by another node", ledger.CheckNodeSignature, withKeys(func(g *forged) bool {
		at := g.newest(ledger.SafeModeEntered)
		if at >= 0 {
			g.rewrite(at, ledgertest.For(g.t, "other.example/log").Node, func(*ledger.Event) {})
		}
		return at >= 0
	})},
	{"change of another log", ledger.CheckLog, withKeys(func(g *forged) bool {
		at := g.newest(ledger.BundleActivated)
		if at < g.oldTree.Size {
			return false
		}
		g.rewrite(at, g.node, func(e *ledger.Event) { e.Source = "other.example/log" })
		return true
	})},
}

// inPayload edits a leaf's payload.
func inPayload(leaf []byte, from, to string) []byte {
	var e ledger.Envelope
	if json.Unmarshal(leaf, &e) != nil {
		return leaf
	}
	payload, err := e.Bytes()
	if err != nil {
		return leaf
	}
	e.Payload = base64.StdEncoding.EncodeToString(bytes.ReplaceAll(payload, []byte(from), []byte(to)))
	out, err := e.Encode()
	if err != nil {
		return leaf
	}
	return out
}

// enteredBy replaces the statement of the newest safe mode by the same one with
// another signature.
func (g *forged) enteredBy(key ledger.Signer) bool {
	at := g.newest(ledger.SafeModeEntered)
	if at < 0 {
		return false
	}
	g.rewrite(at, g.node, func(e *ledger.Event) {
		st, err := ledger.ParseStatement(e.Data.Statement)
		g.must(err)
		e.Data.Statement, err = st.Sign(key)
		g.must(err)
	})
	return true
}

// victim is a client behind a liar of its own.
type victim struct {
	tampering
	liar   *liar
	client *sdk.Client
}

// Clients behind proxies that each tamper with one thing refuse it by the right
// check, go on with what they have, and go on with the server once it is
// straight. A client behind a proxy that changes nothing notices nothing.
func TestTamperingIsRefused(t *testing.T) {
	t.Parallel()
	r := proctest.New(t, examples.Shop())
	s := r.Serve()
	s.UntilTip(r.Git("rev-parse", "HEAD"))
	f := newForger(t, r, s)
	s.OK("changes", "record", "note.added", "--service", "checkout", "--note", "the forger's copy is from before this")
	control := openSDK(t, sdkConfig(t, r, us, newLiar(t, f).URL))
	var victims []*victim
	for _, a := range tamperings {
		v := &victim{a, newLiar(t, f), nil}
		v.client = openSDK(t, sdkConfig(t, r, us, v.liar.URL))
		wantReady(t, v.client)
		victims = append(victims, v)
	}
	for _, v := range victims {
		v.liar.lie.Store(&v.tampering.lie)
	}
	s.OK("safe-mode", "enter", "checkout", "degraded", "--scope", "prod/eu-west-1")
	expressOn(r, true)
	s.UntilTip(r.Push("Sell faster"))
	untilExpress(t, control, true)
	wantReady(t, control)
	for _, v := range victims {
		t.Run(v.name, v.refuses)
	}
	for _, v := range victims {
		v.liar.honest()
	}
	for _, v := range victims {
		t.Run(v.name+", then straight", v.recovers)
	}
}

func (v *victim) refuses(t *testing.T) {
	refused := func() bool { r := v.client.Live().Refusal; return r != nil && r.Check == v.want }
	defer func() {
		if t.Failed() {
			t.Logf("refused: %+v", v.client.Live().Refusal)
		}
	}()
	proctest.Until(t, "a refusal by check "+string(v.want), refused)
	proctest.Until(t, "the client in ERROR", func() bool { return v.client.State() == api.StateError })
	if express(v.client) {
		t.Error("the last good value is gone")
	}
	for _, r := range v.client.Refusals() {
		if r.Check != v.want || r.Server != v.liar.URL || r.Checkpoint == "" {
			t.Errorf("refused by %q at %s: %s", r.Check, r.Server, r.Message)
		}
	}
}

func (v *victim) recovers(t *testing.T) {
	untilExpress(t, v.client, true)
	proctest.Until(t, "READY", func() bool { return v.client.State() == api.StateReady })
	if l := v.client.Live(); l.Refusal == nil || l.LastError != "" {
		t.Errorf("what was refused is forgotten, or the error is not: %+v", l)
	}
}

// A statement that no operator signed is refused wherever it comes from, and
// the truth beside it goes on being applied.
func TestAForgedPendingStatementMovesNothing(t *testing.T) {
	t.Parallel()
	r := proctest.New(t, examples.Shop())
	s := r.Serve()
	s.UntilTip(r.Git("rev-parse", "HEAD"))
	forgedBy := r.StatementBy(r.Stranger, ledger.SafeModeEntered, "checkout", "prod", hoursAgo(0))
	var pending lie = func(_ *forger, req *http.Request, body []byte) []byte {
		if req.URL.Path != "/v1/pending" {
			return body
		}
		b, err := json.Marshal(api.Pending{Statements: []json.RawMessage{forgedBy.Raw}})
		if err != nil {
			t.Error(err)
		}
		return b
	}
	l := newLiar(t, newForger(t, r, s))
	l.lie.Store(&pending)
	c := openSDK(t, sdkConfig(t, r, us, l.URL))
	expressOn(r, true)
	r.Push("Sell faster")
	untilExpress(t, c, true)
	proctest.Until(t, "the refusal", func() bool { return c.Live().Refusal != nil })
	if live := c.Live(); live.Refusal.Check != ledger.CheckStatementSignature || live.Mode != api.ModeNormal || len(live.Pending) != 0 || live.State != api.StateReady {
		t.Errorf("%+v", live)
	}
}

// The next server is as good as the first, where the first lies.
func TestAnHonestServerBesideALiar(t *testing.T) {
	t.Parallel()
	r := proctest.New(t, examples.Shop())
	s := r.Serve()
	s.UntilTip(r.Git("rev-parse", "HEAD"))
	for _, name := range []string{"object", "leaf", "evidence cut off"} {
		t.Run(name, func(t *testing.T) {
			l := newLiar(t, newForger(t, r, s))
			for i := range tamperings {
				if tamperings[i].name == name {
					l.lie.Store(&tamperings[i].lie)
				}
			}
			cfg := sdkConfig(t, r, us, l.URL, s.URL)
			cfg.Poll = 100 * time.Millisecond // where the first server is slow, it isn't waited for
			c := openSDK(t, cfg)
			proctest.Until(t, "a refusal", func() bool { return c.Live().Refusal != nil })
			if live := c.Live(); live.State != api.StateReady || live.Refusal.Server != l.URL {
				t.Errorf("%+v", live)
			}
		})
	}
}
