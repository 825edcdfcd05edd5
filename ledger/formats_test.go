package ledger_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/mod/sumdb/note"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
)

func TestSSHKeysAreReadAsOpenSSHWritesThem(t *testing.T) {
	private := ed25519.NewKeyFromSeed(make([]byte, 32))
	pub, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	line := string(ssh.MarshalAuthorizedKey(pub))
	k, err := ledger.ParseSSHKey(strings.TrimSpace(line) + " somebody@host\n")
	if err != nil {
		t.Fatal(err)
	}
	if k.ID() != ssh.FingerprintSHA256(pub) || k.String()+"\n" != line || !k.Equal(ledger.NewSSHKey(private.Public().(ed25519.PublicKey))) {
		t.Errorf("%s %s", k.ID(), k)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil || !strings.Contains(string(pem.EncodeToMemory(block)), "OPENSSH") {
		t.Error(err)
	}
	for _, bad := range []string{"", "ssh-rsa AAAA", "ssh-ed25519", "ssh-ed25519 !!!", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA==", strings.TrimSpace(line)[:60]} {
		if _, err := ledger.ParseSSHKey(bad); !errors.Is(err, ledger.ErrKey) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestNoteKeysAreThoseOfTheNoteFormat(t *testing.T) {
	skey, vkey, err := ledger.NewNoteKey("log.example/x", make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	v, err := note.NewVerifier(vkey)
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(skey)
	if err != nil || s.KeyHash() != v.KeyHash() || s.Name() != v.Name() {
		t.Fatal(err)
	}
	if got, err := ledger.VKeyOf(skey + "\n"); err != nil || got != vkey {
		t.Errorf("%s, %v", got, err)
	}
}

func TestHeadHasOneSpelling(t *testing.T) {
	l := story(t)
	note := l.headOf(nil)
	h, err := l.f.Trust.OpenHead([]byte(note))
	if err != nil {
		t.Fatal(err)
	}
	body := h.Body()
	lines := strings.Split(body, "\n")
	if lines[0] != "sealstone head v1" || lines[1] != l.f.Origin || lines[2] != "checkout" || !strings.HasPrefix(lines[3], "log 6 ") ||
		lines[4] != "issued "+api.FormatTime(l.now) || !strings.HasPrefix(lines[5], "operators 1 sha256:") || !strings.HasPrefix(lines[6], "main prod 5 sha256:") ||
		!strings.HasPrefix(lines[8], "override prod/eu-west-1 4 sha256:") {
		t.Errorf("%s", body)
	}
	for name, bad := range map[string]string{
		"other version":     strings.Replace(body, "v1", "v2", 1),
		"size with a zero":  strings.Replace(body, "log 6", "log 06", 1),
		"time without ms":   strings.Replace(body, ".000Z", "Z", 1),
		"unsorted":          strings.Join(append(append(append([]string{}, lines[:6]...), lines[7], lines[6]), lines[8:]...), "\n"),
		"a line twice":      strings.Replace(body, lines[6]+"\n", lines[6]+"\n"+lines[6]+"\n", 1),
		"record lane":       strings.Replace(body, "main prod", "record prod", 1),
		"upper-case digest": strings.Replace(body, "sha256:", "SHA256:", 1),
		"no last newline":   strings.TrimSuffix(body, "\n"),
		"double space":      strings.Replace(body, "main prod", "main  prod", 1),
		"cut short":         strings.Join(lines[:4], "\n") + "\n",
	} {
		if _, err := ledger.ParseHeadBody(bad); !errors.Is(err, ledger.ErrHead) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTrustGoesOnlyWhereItsRootsLead(t *testing.T) {
	f := ledgertest.New(t)
	second := ledger.KeySigner{Private: f.Key("second root")}
	st := f.Trust.TrustStatement
	st.Version, st.From, st.Roots = 2, 1, []string{ledgertest.SSHLine(second.Private)}
	sign := func(st ledger.TrustStatement, by ...ledger.Signer) []byte {
		b, err := ledger.SignTrust(st, by...)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if n, err := f.Trust.Next(sign(st, f.Root, second)); err != nil || n.Version != 2 {
		t.Errorf("signed by both: %v", err)
	}
	if _, err := f.Trust.Next(sign(st, second)); !errors.Is(err, ledger.ErrTrust) {
		t.Errorf("without the old root: %v", err)
	}
	if _, err := f.Trust.Next(sign(st, f.Root)); !errors.Is(err, ledger.ErrTrust) {
		t.Errorf("without its own root: %v", err)
	}
	same := st
	same.Version, same.From = 1, 0
	if _, err := f.Trust.Next(sign(same, f.Root, second)); !errors.Is(err, ledger.ErrTrust) {
		t.Errorf("same version: %v", err)
	}
	if _, err := ledger.ParseTrust(sign(f.Trust.TrustStatement, slices.Repeat([]ledger.Signer{f.Root}, 17)...)); !errors.Is(err, ledger.ErrTrust) {
		t.Errorf("with 17 signatures: %v", err)
	}
	itself := st
	itself.From, itself.Succeeds = 0, &ledger.Succeeds{Origin: st.Origin, Root: ledger.EncodeRoot(ledger.Tree{Root: ledger.EmptyRoot()})}
	if _, err := f.Trust.Next(sign(itself, f.Root, second)); !errors.Is(err, ledger.ErrTrust) {
		t.Errorf("a log that succeeds itself: %v", err)
	}
	both := st
	both.Roots, both.Threshold = append([]string{ledgertest.SSHLine(f.RootKey)}, st.Roots...), 2
	if _, err := ledger.ParseTrust(sign(both, f.Root, f.Root)); !errors.Is(err, ledger.ErrTrust) {
		t.Errorf("one root twice is not two: %v", err)
	}
	twice := f.Trust.TrustStatement
	twice.Roots, twice.Threshold = append([]string{twice.Roots[0]}, twice.Roots...), 2
	if _, err := ledger.ParseTrust(sign(twice, f.Root)); !errors.Is(err, ledger.ErrTrust) {
		t.Errorf("one root listed twice is not two: %v", err)
	}
	other := ledgertest.For(t, "elsewhere.example")
	for name, edit := range map[string]func(*ledger.TrustStatement){
		"log key's name":    func(s *ledger.TrustStatement) { s.Log = []string{other.LogVKey} },
		"node key's name":   func(s *ledger.TrustStatement) { s.Node[0].VKey = other.NodeVKey },
		"threshold 0":       func(s *ledger.TrustStatement) { s.Threshold = 0 },
		"no node":           func(s *ledger.TrustStatement) { s.Node = nil },
		"other log name":    func(s *ledger.TrustStatement) { s.Origin = "elsewhere.example" },
		"root with comment": func(s *ledger.TrustStatement) { s.Roots = []string{s.Roots[0] + " me"} },
		"a node of nothing": func(s *ledger.TrustStatement) { until := int64(0); s.Node[0].Until = &until },
	} {
		bad := f.Trust.TrustStatement
		bad.Node = append([]ledger.NodeKey{}, bad.Node...)
		edit(&bad)
		if _, err := ledger.ParseTrust(sign(bad, f.Root)); !errors.Is(err, ledger.ErrTrust) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestStatementsAreClosed(t *testing.T) {
	f := ledgertest.New(t)
	after := int64(0)
	base := func() *ledger.Statement {
		return &ledger.Statement{ID: ledgertest.NewID(start), Kind: ledger.SafeModeEntered, Log: f.Origin, Service: "checkout", Scope: "prod",
			Time: api.FormatTime(start), After: &after, Fields: ledger.Fields{Mode: "degraded", TTL: 3600, OnExpiry: "hold"}}
	}
	if err := base().Check(); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*ledger.Statement){
		"no mode":              func(s *ledger.Statement) { s.Mode = "" },
		"mode normal":          func(s *ledger.Statement) { s.Mode = "normal" },
		"ttl over a day":       func(s *ledger.Statement) { s.TTL = 86401 },
		"ttl of seconds":       func(s *ledger.Statement) { s.TTL = 5 },
		"odd expiry":           func(s *ledger.Statement) { s.OnExpiry = "explode" },
		"says when it expires": func(s *ledger.Statement) { s.Expires = s.Time },
		"names a bundle":       func(s *ledger.Statement) { s.Resolved = []ledger.Resolved{} },
		"another kind's field": func(s *ledger.Statement) { s.PURL = "pkg:go/x" },
		"no after":             func(s *ledger.Statement) { s.After = nil },
		"no scope":             func(s *ledger.Statement) { s.Scope = "" },
		"odd scope":            func(s *ledger.Statement) { s.Scope = "prod//x" },
		"node's kind":          func(s *ledger.Statement) { s.Kind = ledger.BundleActivated },
		"unknown kind":         func(s *ledger.Statement) { s.Kind = "safe-mode.maybe" },
		"UUIDv4":               func(s *ledger.Statement) { s.ID = "5328c37f-bb7e-4bb7-84ea-9f5f85e4a7ce" },
		"upper-case id":        func(s *ledger.Statement) { s.ID = strings.ToUpper(s.ID) },
		"time without ms":      func(s *ledger.Statement) { s.Time = "2026-11-01T12:00:00Z" },
		"odd detail":           func(s *ledger.Statement) { s.Detail = "sha256:00" },
	} {
		s := base()
		edit(s)
		if err := s.Check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	raw, err := base().Sign(f.Operator)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{
		"white space":    strings.Replace(string(raw), ",", ", ", 1),
		"unknown member": strings.Replace(string(raw), `{"payload"`, `{"more":1,"payload"`, 1),
		"other type":     strings.Replace(string(raw), "statement.v1", "change.v1", 1),
		"two signatures": strings.Replace(string(raw), `"signatures":[`, `"signatures":[{"keyid":"","sig":"`+strings.Repeat("A", 86)+`=="},`, 1),
		"cut":            string(raw[:len(raw)-1]),
	} {
		if _, err := ledger.ParseStatement([]byte(bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestDetailIsNamedBySaltAndText(t *testing.T) {
	d, name, err := ledger.NewDetail(map[string]any{"reason": "INC-1"})
	if err != nil {
		t.Fatal(err)
	}
	other, otherName, _ := ledger.NewDetail(map[string]any{"reason": "INC-1"})
	if name == otherName || d.Salt == other.Salt {
		t.Error("two details of one text have one name: a guess could be confirmed")
	}
	d.Text["reason"] = "INC-2"
	if again, _ := d.Digest(); again == name {
		t.Error("another text has the same name")
	}
	if _, _, err := ledger.NewDetail(map[string]any{"reason": strings.Repeat("x", ledger.MaxDetail)}); err == nil {
		t.Error("an oversized detail was taken")
	}
}

func TestPendingStatementsAreObeyedUntilTheLogGoesOn(t *testing.T) {
	f := ledgertest.New(t)
	now := time.Now()
	staged := func(m api.Mode) bool { return m == "degraded" }
	main := ledger.Chain{Lane: ledger.LaneMain, Scope: "prod", Kind: ledger.BundleActivated, Generation: 3}
	mode := func(pending ...*ledger.Signed) api.Mode {
		e, _ := ledger.InEffect(ledger.WithPending([]ledger.Chain{main}, "checkout", pending, f.OperatorsSet, staged, now), "prod/eu-west-1")
		return e.Mode
	}
	enter := f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0)
	exit := f.SafeMode(ledger.SafeModeExited, "checkout", "prod", "degraded", 1)
	if mode(enter) != "degraded" {
		t.Error("a right statement is not obeyed")
	}
	if mode(enter, exit) != api.ModeNormal || mode(exit, enter) != api.ModeNormal {
		t.Error("the highest after wins")
	}
	for name, st := range map[string]*ledger.Signed{
		"another service": f.SafeMode(ledger.SafeModeEntered, "payments", "prod", "degraded", 0),
		"another scope":   f.SafeMode(ledger.SafeModeEntered, "checkout", "staging", "degraded", 0),
		"not staged":      f.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "other", 0),
		"another log":     ledgertest.For(t, "other.example/log").SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0),
		"a stranger": f.StatementBy(f.Stranger, ledger.SafeModeEntered, "checkout", "prod", func(s *ledger.Statement) {
			after := int64(0)
			s.Mode, s.TTL, s.OnExpiry, s.After = "degraded", 3600, "hold", &after
		}),
	} {
		if mode(st) != api.ModeNormal {
			t.Errorf("%s: obeyed", name)
		}
	}
	over := ledger.Chain{Lane: ledger.LaneOverride, Scope: "prod", Kind: ledger.SafeModeExited, Generation: 1}
	chains := ledger.WithPending([]ledger.Chain{main, over}, "checkout", []*ledger.Signed{enter}, f.OperatorsSet, staged, now)
	if e, _ := ledger.InEffect(chains, "prod"); e.Mode != api.ModeNormal {
		t.Error("obeyed after the log went beyond it")
	}
	if e, _ := ledger.InEffect(ledger.WithPending([]ledger.Chain{main}, "checkout", []*ledger.Signed{enter}, f.OperatorsSet, staged, now.Add(25*time.Hour)), "prod"); e.Mode != api.ModeNormal {
		t.Error("obeyed after a day")
	}
}

func TestInEffect(t *testing.T) {
	main := func(scope api.Scope, kind ledger.Kind) ledger.Chain {
		return ledger.Chain{Lane: ledger.LaneMain, Scope: scope, Kind: kind, Generation: 1}
	}
	over := func(scope api.Scope, kind ledger.Kind, mode api.Mode) ledger.Chain {
		return ledger.Chain{Lane: ledger.LaneOverride, Scope: scope, Kind: kind, Mode: mode, Generation: 1}
	}
	a, w := ledger.BundleActivated, ledger.BundleWithdrawn
	in, out, re := ledger.SafeModeEntered, ledger.SafeModeExited, ledger.SafeModeRenewed
	cases := map[string]struct {
		chains []ledger.Chain
		scope  api.Scope
		main   api.Scope // "" for nothing in effect
		mode   api.Mode
	}{
		"nothing":                             {nil, "prod", "", ""},
		"nearest above":                       {[]ledger.Chain{main("prod", a), main("prod/eu", a)}, "prod/eu/canary", "prod/eu", "normal"},
		"not a sibling":                       {[]ledger.Chain{main("prod/eu", a)}, "prod/eu-west", "", ""},
		"not from below":                      {[]ledger.Chain{main("prod/eu", a)}, "prod", "", ""},
		"withdrawn falls to the outer":        {[]ledger.Chain{main("prod", a), main("prod/eu", w)}, "prod/eu", "prod", "normal"},
		"withdrawn alone":                     {[]ledger.Chain{main("prod", w)}, "prod", "", ""},
		"outer mode, inner main":              {[]ledger.Chain{main("prod/eu", a), over("prod", in, "low")}, "prod/eu", "prod/eu", "low"},
		"nearest mode wins":                   {[]ledger.Chain{main("prod", a), over("prod", in, "low"), over("prod/eu", re, "off")}, "prod/eu", "prod", "off"},
		"an exit below does not lift above":   {[]ledger.Chain{main("prod", a), over("prod", in, "low"), over("prod/eu", out, "off")}, "prod/eu", "prod", "low"},
		"a mode elsewhere":                    {[]ledger.Chain{main("prod", a), over("prod/us", in, "low")}, "prod/eu", "prod", "normal"},
		"a mode without a main has no bundle": {[]ledger.Chain{over("prod", in, "low")}, "prod", "", ""},
	}
	for name, c := range cases {
		e, ok := ledger.InEffect(c.chains, c.scope)
		if ok != (c.main != "") || ok && (e.Main.Scope != c.main || e.Mode != c.mode) {
			t.Errorf("%s: %+v, %v", name, e, ok)
		}
	}
}

func FuzzParseLeaf(f *testing.F) {
	fx := ledgertest.New(f)
	e := ledger.NewEvent(fx.Origin, ledger.LedgerCreated, ledgertest.NewID(start), start, start, ledger.Data{Generation: 1, Fields: ledger.Fields{Trust: fx.Trust.Digest}})
	leaf, err := e.Leaf(ledger.NodeSigner{Signer: fx.Node})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(leaf)
	f.Add(fx.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0).Raw)
	f.Add(fx.Trust.Raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := ledger.ParseLeaf(b); err == nil {
			if again, err := c.Envelope.Encode(); err != nil || string(again) != string(b) {
				t.Fatalf("accepted a leaf that it would spell otherwise: %s", b)
			}
		}
		_, _ = ledger.ParseStatement(b)
		_, _ = ledger.ParseTrust(b)
		_, _ = ledger.ParseHeadBody(string(b))
		_, _ = ledger.ParseCheckpointBody(string(b), fx.Origin)
	})
}

// Key ids have 32 bits, so another key with the id of ours can be found. The
// signature decides, not the id.
func TestACollidingKeyIDIsNotTheKey(t *testing.T) {
	f := ledgertest.New(t)
	mine, err := note.NewVerifier(f.LogVKey)
	if err != nil {
		t.Fatal(err)
	}
	forged := collider{ledgertest.For(t, "other.example.com/log").Log, f.Origin, mine.KeyHash()}
	cp, err := ledger.SignCheckpoint(f.Origin, ledger.Tree{Root: ledger.EmptyRoot()}, forged)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Trust.OpenCheckpoint(cp); !errors.Is(err, ledger.ErrSignature) {
		t.Errorf("a checkpoint by a key with our key's id: %v", err)
	}
	if cp, err = ledger.SignCheckpoint(f.Origin, ledger.Tree{Root: ledger.EmptyRoot()}, f.Log); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Trust.OpenCheckpoint(cp); err != nil {
		t.Errorf("our own: %v", err)
	}
}

// collider signs with one key under the name and id of another.
type collider struct {
	note.Signer
	name string
	id   uint32
}

func (c collider) Name() string    { return c.name }
func (c collider) KeyHash() uint32 { return c.id }

// An envelope's type is signed, its signatures are counted, and each leaf and
// statement has exactly one.
func TestEnvelopesAreWhatWasSigned(t *testing.T) {
	f := ledgertest.New(t)
	good := f.Statement(ledger.NoteAdded, "checkout", "prod", nil).Raw
	edit := func(change func(e *ledger.Envelope)) []byte {
		var e ledger.Envelope
		if err := json.Unmarshal(good, &e); err != nil {
			t.Fatal(err)
		}
		change(&e)
		b, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, raw := range map[string][]byte{
		"another type": edit(func(e *ledger.Envelope) { e.PayloadType = ledger.TypeTrust }),
		"no signature": edit(func(e *ledger.Envelope) { e.Signatures = nil }),
		"one twice":    edit(func(e *ledger.Envelope) { e.Signatures = append(e.Signatures, e.Signatures[0]) }),
		"a leaf's":     edit(func(e *ledger.Envelope) { e.PayloadType = ledger.TypeChange }),
		"huge":         []byte(strings.Repeat("x", 1<<20)),
		"empty":        {},
		"odd UTF-8":    bytes.Replace(good, []byte(`"payload":"`), []byte("\"payload\":\"\xff\xfe"), 1),
	} {
		if _, err := ledger.ParseStatement(raw); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	trust, err := ledger.ParseStatement(edit(func(e *ledger.Envelope) {
		payload, _ := e.Bytes()
		sealed, err := ledger.Seal(ledger.TypeTrust, payload, f.Operator) // signed as something else
		if err != nil {
			t.Fatal(err)
		}
		*e = *sealed
		e.PayloadType = ledger.TypeStatement
	}))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.OperatorsSet.Judge(trust); !errors.Is(err, ledger.ErrSignature) {
		t.Errorf("signed as another type: %v", err)
	}
	if st, err := ledger.ParseStatement(good); err != nil {
		t.Error(err)
	} else if _, err := f.OperatorsSet.Judge(st); err != nil {
		t.Errorf("the untouched one: %v", err)
	}
}

// Line ends that a decoder passes over would make one statement many leaves.
func TestBase64HasOneSpelling(t *testing.T) {
	f := ledgertest.New(t)
	whole := f.Statement(ledger.NoteAdded, "checkout", "prod", nil).Envelope
	spell := func(payload, sig func(string) string) []byte {
		e := ledger.Envelope{Payload: payload(whole.Payload), PayloadType: whole.PayloadType, Signatures: slices.Clone(whole.Signatures)}
		e.Signatures[0].Sig = sig(e.Signatures[0].Sig)
		b, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	same := func(s string) string { return s }
	if _, err := ledger.ParseStatement(spell(same, same)); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]func(string) string{
		"a line end":     func(s string) string { return s + "\n" },
		"one in front":   func(s string) string { return "\n" + s },
		"one inside":     func(s string) string { return s[:4] + "\r\n" + s[4:] },
		"19,000 of them": func(s string) string { return s + strings.Repeat("\n", 19000) },
		"a space":        func(s string) string { return s + " " },
		"no padding":     func(s string) string { return strings.TrimRight(s, "=") + "A" },
	} {
		for where, b := range map[string][]byte{"payload": spell(bad, same), "sig": spell(same, bad)} {
			if _, err := ledger.ParseStatement(b); !errors.Is(err, ledger.ErrEnvelope) {
				t.Errorf("%s in %s: %v", name, where, err)
			}
		}
	}
	d, _, err := ledger.NewDetail(map[string]any{"reason": "x"})
	if err != nil {
		t.Fatal(err)
	}
	d.Salt += "\n"
	if _, err := d.Digest(); err == nil {
		t.Error("a salt with a line end")
	}
}
