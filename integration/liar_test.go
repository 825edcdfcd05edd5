package integration_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/integration/proctest"
	"github.com/sealstone/sealstone/ledger"
)

// lie changes what a server answered. nil is the truth.
type lie func(f *forger, req *http.Request, body []byte) []byte

// forever is the answer of a lie that never ends.
var forever = []byte("forever")

// liar is a proxy that stands between a client and the real server.
type liar struct {
	*httptest.Server
	forger *forger
	lie    atomic.Pointer[lie]
}

func newLiar(t *testing.T, f *forger) *liar {
	t.Helper()
	to, err := url.Parse(f.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	l := &liar{forger: f}
	proxy := httputil.NewSingleHostReverseProxy(to)
	proxy.ModifyResponse, proxy.ErrorLog = l.answer, log.New(io.Discard, "", 0) // clients that hang up
	l.Server = httptest.NewServer(proxy)
	t.Cleanup(func() { l.CloseClientConnections(); l.Close() })
	return l
}

func (l *liar) answer(res *http.Response) error {
	tell := l.lie.Load()
	if tell == nil || res.StatusCode != http.StatusOK || res.Request.URL.Path == "/v1/watch" {
		return nil
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	body = (*tell)(l.forger, res.Request, body)
	res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if &body[0] == &forever[0] {
		res.Body, res.ContentLength = io.NopCloser(spaces{}), -1
	}
	res.Header.Del("Content-Length")
	return nil
}

// spaces is a body without end.
type spaces struct{}

func (spaces) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// honest ends the lying and makes the client look.
func (l *liar) honest() {
	l.lie.Store(nil)
	l.CloseClientConnections()
}

// forger is the worst case: somebody who kept every answer and stole the
// node's and the log's key, so that only the log's own past, the operators'
// keys and the roots' stand against them.
type forger struct {
	t        *testing.T
	server   *proctest.Server
	trust    *ledger.Trust
	node     note.Signer
	log      note.Signer
	stranger ledger.Signer
	old      *ledger.Evidence // genuine, from before the clients' time
	oldTree  ledger.Tree
}

func newForger(t *testing.T, r *proctest.Rig, s *proctest.Server) *forger {
	t.Helper()
	f := &forger{t: t, server: s, trust: r.LoadTrust(), stranger: r.Stranger, old: s.Evidence("checkout")}
	f.node, f.log = noteKey(t, r, "node.key"), noteKey(t, r, "log.key")
	f.oldTree, _ = s.Leaves()
	return f
}

func noteKey(t *testing.T, r *proctest.Rig, name string) note.Signer {
	t.Helper()
	s, err := note.NewSigner(strings.TrimSpace(proctest.ReadFile(t, filepath.Join(r.Data+".keys", name))))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// forged is a whole log of the forger's own.
type forged struct {
	*forger
	head   *ledger.Head // the genuine one, to be edited
	leaves [][]byte
	hashes []tlog.Hash
}

// copyLog starts from what the server has.
func (f *forger) copyLog() *forged {
	text, _, _ := strings.Cut(f.server.Evidence("checkout").Head, "\n\n")
	_, leaves := f.server.Leaves() // after the head: the log may grow between the two
	head, err := ledger.ParseHeadBody(text + "\n")
	if err != nil {
		f.t.Error(err)
	}
	head.Issued = time.Now().UTC().Truncate(time.Millisecond)
	return &forged{forger: f, head: head, leaves: leaves[:head.Tree.Size]}
}

// newest is the index of the newest leaf of a kind, -1 without one.
func (g *forged) newest(kind ledger.Kind) int64 {
	for i := len(g.leaves) - 1; i >= 0; i-- {
		if c, err := ledger.ParseLeaf(g.leaves[i]); err == nil && c.Kind() == kind && c.Data.Service != "" {
			return int64(i)
		}
	}
	return -1
}

// rewrite replaces a leaf by one that says something else, signed by a node,
// and lets the head cite it.
func (g *forged) rewrite(index int64, node note.Signer, edit func(e *ledger.Event)) {
	c, err := ledger.ParseLeaf(g.leaves[index])
	if err != nil {
		g.t.Error(err)
		return
	}
	edit(&c.Event)
	leaf, err := c.Event.Leaf(ledger.NodeSigner{Signer: node})
	if err != nil {
		g.t.Error(err)
		return
	}
	g.leaves[index] = leaf
	for i, l := range g.head.Lines {
		if l.Index == index {
			g.head.Lines[i].Hash = ledger.LeafHash(leaf)
		}
	}
}

func (g *forged) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, n := range indexes {
		out[i] = g.hashes[n]
	}
	return out, nil
}

// evidence proves all that the head cites, from a tree of a size on.
func (g *forged) evidence(from int64) []byte {
	for i, leaf := range g.leaves {
		more, err := tlog.StoredHashes(int64(i), leaf, g)
		g.must(err)
		g.hashes = append(g.hashes, more...)
	}
	size := int64(len(g.leaves))
	root, err := tlog.TreeHash(size, g)
	g.must(err)
	g.head.Tree = ledger.Tree{Size: size, Root: root}
	e := ledger.Evidence{Consistency: []string{}}
	head, err := g.head.Sign(g.node)
	g.must(err)
	checkpoint, err := ledger.SignCheckpoint(g.trust.Origin, g.head.Tree, g.log)
	g.must(err)
	e.Head, e.Checkpoint = string(head), string(checkpoint)
	if from > 0 && from < size {
		proof, err := tlog.ProveTree(size, from, g)
		g.must(err)
		e.Consistency = ledger.EncodeHashes(proof)
	}
	e.Changes = append(e.Changes, g.change(size, g.head.Operators.Index))
	for _, l := range g.head.Lines {
		e.Changes = append(e.Changes, g.change(size, l.Index))
	}
	b, err := json.Marshal(e)
	g.must(err)
	return b
}

func (g *forged) change(size, index int64) ledger.EvidenceChange {
	proof, err := tlog.ProveRecord(size, index, g)
	g.must(err)
	return ledger.EvidenceChange{Index: index, Leaf: g.leaves[index], Proof: ledger.EncodeHashes(proof)}
}

func (g *forged) must(err error) {
	if err != nil {
		g.t.Error(err)
	}
}

// withKeys lies with a whole log, whose edits may find that there is nothing to
// edit yet.
func withKeys(edit func(g *forged) bool) lie {
	return func(f *forger, req *http.Request, body []byte) []byte {
		if req.URL.Path != "/v1/evidence" {
			return body
		}
		g := f.copyLog()
		if !edit(g) {
			return body
		}
		from, _ := strconv.ParseInt(req.URL.Query().Get("from"), 10, 64)
		return g.evidence(from)
	}
}

// onEvidence lies about evidence.
func onEvidence(edit func(f *forger, e *ledger.Evidence)) lie {
	return func(f *forger, req *http.Request, body []byte) []byte {
		var e ledger.Evidence
		if req.URL.Path != "/v1/evidence" || json.Unmarshal(body, &e) != nil {
			return body
		}
		edit(f, &e)
		out, err := json.Marshal(e)
		if err != nil {
			f.t.Error(err)
		}
		return out
	}
}

// onObject lies about the manifests or blobs for which is holds.
func onObject(kind string, is func(body []byte) bool, edit func(body []byte) []byte) lie {
	return func(_ *forger, req *http.Request, body []byte) []byte {
		if !strings.Contains(req.URL.Path, "/"+kind+"/") || !is(body) {
			return body
		}
		return edit(slices.Clone(body))
	}
}

func isIndex(b []byte) bool {
	return bytes.Contains(b, []byte(`"application/vnd.oci.image.index.v1+json"`))
}
func anything([]byte) bool { return true }

// flip changes one bit in the middle.
func flip(b []byte) []byte { b[len(b)/2] ^= 1; return b }

// flipHash changes one bit of a hash in base64.
func flipHash(s string) string {
	b, _ := base64.StdEncoding.DecodeString(s)
	return base64.StdEncoding.EncodeToString(flip(b))
}

// editNote changes a signed note's text and leaves its signature.
func editNote(s, from, to string) string {
	text, sig, _ := strings.Cut(s, "\n\n")
	return strings.Replace(text, from, to, 1) + "\n\n" + sig
}

// scopeLine finds a line of a head.
func scopeLine(h *ledger.Head, lane ledger.Lane, scope api.Scope) int {
	return slices.IndexFunc(h.Lines, func(l ledger.Line) bool { return l.Lane == lane && l.Scope == scope })
}
