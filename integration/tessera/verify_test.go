// Package tessera judges a running server by verifiers of others, unmodified:
// the fsck of Tessera over the whole log, and the DSSE library of in-toto over
// every signature in it.
package tessera

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"golang.org/x/crypto/ssh"

	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/integration/proctest"
	"github.com/sealstone/sealstone/ledger"
)

func TestMain(m *testing.M) { proctest.Main(m) }

// notes fill the first entry bundle and more than begin the next.
const notes = 300

// grown is a server whose log has a full tile, a partial one, and every sort of
// signature.
func grown(t *testing.T) (*proctest.Rig, *proctest.Server) {
	t.Helper()
	r := proctest.New(t, examples.Shop())
	s := r.Serve()
	s.UntilTip(r.Git("rev-parse", "HEAD"))
	var wg sync.WaitGroup
	slots := make(chan struct{}, 16)
	for range notes {
		st := r.Statement(ledger.NoteAdded, "checkout", "prod", nil)
		slots <- struct{}{}
		wg.Go(func() { post(t, s, st); <-slots })
	}
	wg.Wait()
	post(t, s, r.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0))
	return r, s
}

func post(t *testing.T, s *proctest.Server, st *ledger.Signed) {
	res, err := http.Post(s.URL+"/v1/changes", "application/json", bytes.NewReader(st.Raw))
	if err != nil {
		t.Error(err)
		return
	}
	defer res.Body.Close()
	if b, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK {
		t.Errorf("%s: %s", res.Status, b)
	}
}

func TestThirdPartyVerifiers(t *testing.T) {
	r, s := grown(t)
	trust := readTrust(t, r)
	t.Run("fsck", func(t *testing.T) { logs(t, r, s, trust) })
	t.Run("DSSE", func(t *testing.T) { signatures(t, r, s, trust) })
	t.Run("a new log key", func(t *testing.T) { newLogKey(t, r, s, trust) })
}

// trustFile is as much of it as an auditor reads, without our code.
type trustFile struct {
	Origin string
	Log    []string
	Node   []struct{ VKey string }
	Roots  []string
}

func readTrust(t *testing.T, r *proctest.Rig) (f trustFile) {
	t.Helper()
	var env dsse.Envelope
	mustJSON(t, []byte(proctest.ReadFile(t, r.Trust)), &env)
	mustJSON(t, payload(t, &env), &f)
	return f
}

func mustJSON(t *testing.T, b []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(b, v); err != nil {
		t.Fatal(err)
	}
}

func payload(t *testing.T, e *dsse.Envelope) []byte {
	t.Helper()
	b, err := e.DecodeB64Payload()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// spoiled is what a proxy may do to a log.
var spoiled = []struct {
	name  string
	path  string // of what is spoiled
	ours  bool   // sealstone verify --server reads it, so must find it
	spoil func(b []byte) []byte
}{
	{"a byte of a leaf", "/log/tile/entries/000", true, flipMiddle},
	{"a byte of a partial bundle", "/log/tile/entries/001.p/", true, flipMiddle},
	{"the last entry missing", "/log/tile/entries/001.p/", true, func(b []byte) []byte { return join(split(b)[:len(split(b))-1]) }},
	{"two entries swapped", "/log/tile/entries/000", true, func(b []byte) []byte {
		e := split(b)
		e[20], e[21] = e[21], e[20]
		return join(e)
	}},
	{"a hash of a tile", "/log/tile/0/000", true, flipMiddle},
	{"a hash of an upper tile", "/log/tile/1/000.p/1", true, flipMiddle},
	{"the size in the checkpoint", "/log/checkpoint", true, func(b []byte) []byte { return bytes.Replace(b, []byte("\n3"), []byte("\n2"), 1) }},
}

func flipMiddle(b []byte) []byte { b[len(b)/2] ^= 1; return b }

// split takes an entry bundle apart.
func split(b []byte) (entries [][]byte) {
	for len(b) >= 2 {
		n := 2 + int(b[0])<<8 + int(b[1])
		entries, b = append(entries, b[:n]), b[n:]
	}
	return entries
}

func join(entries [][]byte) []byte { return bytes.Join(entries, nil) }

func logs(t *testing.T, r *proctest.Rig, s *proctest.Server, trust trustFile) {
	key := filepath.Join(r.Dir, "log.vkey")
	proctest.WriteFile(t, key, trust.Log[0], 0o644)
	fsck := buildFsck(t)
	if out, ok := runFsck(t, fsck, s.URL, key); !ok {
		t.Fatalf("an untouched log:\n%s", out)
	}
	t.Run("a mirror's files", func(t *testing.T) { mirrored(t, r, s, fsck, key) })
	for _, c := range spoiled {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url, touched := proxy(t, s.URL, c.path, c.spoil)
			out, ok := runFsck(t, fsck, url, key)
			if ok || !touched() {
				t.Errorf("passed, or was never read: %s", out)
			}
			if res := r.CLI("verify", "--server", url); c.ours && res.Code != 3 {
				t.Errorf("sealstone verify: exit %d\n%s%s", res.Code, res.Stdout, res.Stderr)
			}
		})
	}
}

// newLogKey replaces the log key under the server: who was told the old one and
// who was told the new one both pass until the old one is retired.
func newLogKey(t *testing.T, r *proctest.Rig, s *proctest.Server, old trustFile) {
	fsck := buildFsck(t)
	install := func(flag string) trustFile {
		t.Helper()
		next := filepath.Join(t.TempDir(), "next.json")
		r.OK("trust", "update", "--server", s.URL, "--trust", r.Trust, "--key", r.Root, "--keys", r.Data+".keys", flag, "--out", next)
		r.OK("trust", "install", next, "--data", r.Data)
		want := proctest.ReadFile(t, r.Trust)
		proctest.Until(t, "the new trust file", func() bool { return string(s.Get("/v1/trust")) == want })
		lines := strings.Split(strings.TrimSpace(want), "\n")
		var env dsse.Envelope
		var f trustFile
		mustJSON(t, []byte(lines[len(lines)-1]), &env)
		mustJSON(t, payload(t, &env), &f)
		return f
	}
	judge := func(vkey string) bool {
		t.Helper()
		key := filepath.Join(t.TempDir(), "log.vkey")
		proctest.WriteFile(t, key, vkey, 0o644)
		out, ok := runFsck(t, fsck, s.URL, key)
		t.Log(out)
		return ok
	}
	both := install("--rotate-log")
	if len(both.Log) != 2 || !judge(old.Log[0]) || !judge(both.Log[1]) {
		t.Errorf("with %d log keys", len(both.Log))
	}
	one := install("--retire-log")
	if len(one.Log) != 1 || !judge(one.Log[0]) || judge(old.Log[0]) {
		t.Errorf("after the old key was retired: %v", one.Log)
	}
}

// mirrored lets fsck read what a plain file server shows of a mirror, of two
// sizes: the second run adds to the first.
func mirrored(t *testing.T, r *proctest.Rig, s *proctest.Server, fsck, key string) {
	dir := t.TempDir()
	files := http.NewServeMux()
	files.Handle("/log/", http.StripPrefix("/log/", http.FileServer(http.Dir(filepath.Join(dir, "log")))))
	web := httptest.NewServer(files)
	defer web.Close()
	for range 2 {
		if res := r.CLI("mirror", s.URL, dir, "--once"); res.Code != 0 {
			t.Fatalf("mirror: %s", res.Stderr)
		}
		if out, ok := runFsck(t, fsck, web.URL, key); !ok {
			t.Errorf("%s", out)
		}
		if res := r.CLI("verify", "--mirror", web.URL); res.Code != 0 {
			t.Errorf("verify: %s%s", res.Stdout, res.Stderr)
		}
		s.OK("changes", "record", "note.added", "--service", "checkout", "--scope", "prod", "--note", "one more")
	}
	b := flipMiddle([]byte(proctest.ReadFile(t, filepath.Join(dir, "log/tile/entries/000"))))
	proctest.WriteFile(t, filepath.Join(dir, "log/tile/entries/000"), string(b), 0o644)
	if out, ok := runFsck(t, fsck, web.URL, key); ok {
		t.Errorf("a flipped byte passed: %s", out)
	}
	if res := r.CLI("verify", "--mirror", web.URL); res.Code != 3 {
		t.Errorf("verify of a flipped byte: exit %d", res.Code)
	}
}

// proxy serves a log with one spoiled resource.
func proxy(t *testing.T, to, path string, spoil func([]byte) []byte) (string, func() bool) {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	touched := make(chan struct{})
	p := httputil.NewSingleHostReverseProxy(target)
	p.ModifyResponse = func(res *http.Response) error {
		if !strings.HasPrefix(res.Request.URL.Path, path) {
			return nil
		}
		b, err := io.ReadAll(res.Body)
		if err != nil {
			return err
		}
		out := spoil(bytes.Clone(b))
		if bytes.Equal(out, b) {
			return errors.New("nothing was spoiled")
		}
		once.Do(func() { close(touched) })
		res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(out)), int64(len(out))
		res.Header.Set("Content-Length", fmt.Sprint(len(out)))
		return nil
	}
	srv := httptest.NewServer(p)
	t.Cleanup(srv.Close)
	return srv.URL, func() bool {
		select {
		case <-touched:
			return true
		default:
			return false
		}
	}
}

// buildFsck builds Tessera's own command, of the version in go.mod.
func buildFsck(t *testing.T) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "fsck")
	if text, err := exec.Command("go", "build", "-o", out, "github.com/transparency-dev/tessera/cmd/fsck").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return out
}

// runFsck judges by the line of success: the command ends with 0 whatever it
// found, and may panic on what it didn't expect.
func runFsck(t *testing.T, bin, url, key string) (string, bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, "--ui=false", "--N=64", "--storage_url="+url+"/log/", "--public_key="+key)
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	out, err := cmd.CombinedOutput()
	return string(out), err == nil && bytes.Contains(out, []byte("Successfully fsck'd log with size"))
}

// key is a public key in the DSSE library's terms.
type key struct {
	id     string
	public ed25519.PublicKey
}

func (k key) KeyID() (string, error)   { return k.id, nil }
func (k key) Public() crypto.PublicKey { return k.public }
func (k key) Verify(_ context.Context, data, sig []byte) error {
	if !ed25519.Verify(k.public, data, sig) {
		return errors.New("bad signature")
	}
	return nil
}

// noteKey reads name+hash+key, as C2SP writes verifier keys.
func noteKey(t *testing.T, vkey string) key {
	t.Helper()
	parts := strings.SplitN(vkey, "+", 3)
	b, err := base64.StdEncoding.DecodeString(parts[2])
	if err != nil || len(b) != 33 || b[0] != 1 {
		t.Fatalf("%s: %v", vkey, err)
	}
	return key{parts[0] + "+" + parts[1], b[1:]}
}

// sshKey reads an SSH public key. Its id is the fingerprint, which the library
// works out by itself.
func sshKey(t *testing.T, line string) key {
	t.Helper()
	pub, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	return key{"", pub.(ssh.CryptoPublicKey).CryptoPublicKey().(ed25519.PublicKey)}
}

func verify(t *testing.T, e *dsse.Envelope, k key) error {
	t.Helper()
	v, err := dsse.NewEnvelopeVerifier(k)
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.Verify(t.Context(), e)
	return err
}

func signatures(t *testing.T, r *proctest.Rig, s *proctest.Server, trust trustFile) {
	node, root := noteKey(t, trust.Node[0].VKey), sshKey(t, trust.Roots[0])
	operator := sshKey(t, proctest.ReadFile(t, r.SRE+".pub"))
	var env dsse.Envelope
	mustJSON(t, []byte(proctest.ReadFile(t, r.Trust)), &env)
	wantSigned(t, "the trust file", env, root, operator)
	_, leaves := s.Leaves()
	signed := map[string]int{}
	for i, leaf := range leaves {
		var env dsse.Envelope
		mustJSON(t, leaf, &env)
		wantSigned(t, fmt.Sprintf("entry %d", i), env, node, operator)
		var event struct {
			Type string
			Data struct{ Statement *dsse.Envelope }
		}
		mustJSON(t, payload(t, &env), &event)
		if event.Data.Statement == nil {
			continue
		}
		by, other := operator, root
		if event.Type == "dev.sealstone.operators.changed" {
			by, other = root, operator
		}
		wantSigned(t, fmt.Sprintf("the statement in entry %d", i), *event.Data.Statement, by, other)
		signed[event.Type]++
	}
	if len(leaves) <= notes || signed["dev.sealstone.note.added"] < notes || signed["dev.sealstone.operators.changed"] != 1 || signed["dev.sealstone.safe-mode.entered"] != 1 {
		t.Errorf("%d entries, statements %v", len(leaves), signed)
	}
}

// wantSigned holds an envelope to its key, its type and its bytes.
func wantSigned(t *testing.T, what string, e dsse.Envelope, by, other key) {
	t.Helper()
	if err := verify(t, &e, by); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	other.id = by.id // so that it isn't passed over for its id alone
	if verify(t, &e, other) == nil {
		t.Errorf("%s: another key made it as well", what)
	}
	retyped, edited := e, e
	retyped.PayloadType = "application/vnd.in-toto+json"
	edited.Payload = base64.StdEncoding.EncodeToString(append(payload(t, &e), ' '))
	if verify(t, &retyped, by) == nil || verify(t, &edited, by) == nil {
		t.Errorf("%s: another type or payload passes", what)
	}
}
