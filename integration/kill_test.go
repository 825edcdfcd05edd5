package integration_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/bundle"
	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/integration/proctest"
	"github.com/sealstone/sealstone/ledger"
)

const posters = 4

// A server is killed again and again while people sign statements and push.
// Whatever it acknowledged or showed is there afterwards, at its place, and is
// served while Git is away.
func TestKillLosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	rounds := 30
	if testing.Short() || proctest.Race() {
		rounds = 12
	}
	d := newDrill(t)
	for n := range rounds {
		d.kills(n)
		if t.Failed() {
			t.Fatalf("round %d", n)
		}
	}
	acked, late, size := len(d.acks), d.repeated, d.known.Tree.Size
	t.Logf("%d kills: %d acknowledged statements, %d found recorded though the kill had cut their answer off, %d activations at staging, %d entries",
		rounds, acked, late, d.activations, size)
	if acked < rounds || d.activations < rounds/4 {
		t.Errorf("the drill did too little: %d acknowledged, %d activations", acked, d.activations)
	}
}

// drill is what outlives the server.
type drill struct {
	t    *testing.T
	rig  *proctest.Rig
	rand *rand.Rand // seeded: says after how many acknowledgements to kill
	away string     // where the repository is while Git is away

	mu          sync.Mutex
	acks        []api.Receipt
	unanswered  []*ledger.Signed // the kill cut the answer off: recorded or not, both are right
	known       *ledger.Known    // newest state that was shown and proven
	repeated    int
	activations int
	enough      chan struct{} // closed when a round has its acknowledgements
	left        int
}

func newDrill(t *testing.T) *drill {
	r := proctest.New(t, examples.Shop())
	s := r.Serve()
	s.UntilTip(r.Git("rev-parse", "HEAD"))
	d := &drill{t: t, rig: r, rand: rand.New(rand.NewPCG(7, 7)), away: r.Bare + ".away"}
	d.see(s)
	s.Kill()
	return d
}

// kills is one round: what the last one left is held against what was
// promised, with Git away; then work, until the kill.
func (d *drill) kills(n int) {
	d.t.Helper()
	d.move(d.rig.Bare, d.away)
	d.rig.Git("remote", "set-url", "--push", "origin", d.away)
	s := d.rig.Serve("--poll", "10ms")
	d.see(s)
	d.wantAcks(s)
	d.wantServed(s)
	d.sendAgain(s)
	d.work(s, n)
	d.rig.OK("verify", "--data", d.rig.Data)
}

func (d *drill) move(from, to string) {
	d.t.Helper()
	if err := os.Rename(from, to); err != nil {
		d.t.Fatal(err)
	}
}

// see proves what the server shows against what it showed before: nothing may
// have gone back.
func (d *drill) see(s *proctest.Server) {
	d.t.Helper()
	p, err := d.rig.LoadTrust().Prove(evidence(d.t, s.URL, d.size()), "checkout", d.known)
	if err != nil {
		d.t.Fatalf("after a kill: %v", err)
	}
	d.known = p.Known()
	for _, c := range d.known.Chains {
		if c.Lane == ledger.LaneMain && c.Scope == "staging" {
			d.activations = int(c.Generation)
		}
	}
}

func (d *drill) size() int64 {
	if d.known == nil {
		return 0
	}
	return d.known.Tree.Size
}

// evidence is asked as a client asks that has proven a tree of a size.
func evidence(t *testing.T, url string, from int64) *ledger.Evidence {
	t.Helper()
	e, err := askEvidence(t.Context(), url, from)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func askEvidence(ctx context.Context, url string, from int64) (*ledger.Evidence, error) {
	path := url + "/v1/evidence?service=checkout"
	if from > 0 {
		path += "&from=" + strconv.FormatInt(from, 10)
	}
	status, b, err := ask(ctx, http.MethodGet, path, nil)
	if err != nil || status != http.StatusOK {
		return nil, fmt.Errorf("%s: %d, %w: %s", path, status, err, b)
	}
	var e ledger.Evidence
	return &e, json.Unmarshal(b, &e)
}

func ask(ctx context.Context, method, url string, body []byte) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, b, err
}

// wantAcks looks for every acknowledged statement at the index and with the
// leaf hash of its receipt.
func (d *drill) wantAcks(s *proctest.Server) {
	d.t.Helper()
	_, leaves := s.Leaves()
	for _, a := range d.acks {
		if a.Index >= int64(len(leaves)) {
			d.t.Errorf("entry %d was acknowledged, the log has %d", a.Index, len(leaves))
			continue
		}
		c, err := ledger.ParseLeaf(leaves[a.Index])
		if err != nil || c.ID != a.ID || c.Hash != a.LeafHash {
			d.t.Errorf("entry %d: %v, want id %s and leaf hash %s", a.Index, err, a.ID, a.LeafHash)
		}
	}
}

// wantServed pulls the sets and bundles that the log puts into effect.
func (d *drill) wantServed(s *proctest.Server) {
	d.t.Helper()
	for _, c := range d.known.Chains {
		if c.Lane != ledger.LaneMain {
			continue
		}
		set, err := bundle.ParseSet(d.object(s, c.Set.Digest))
		if err != nil {
			d.t.Fatal(err)
		}
		for _, e := range set.Entries {
			d.object(s, e.Digest)
		}
	}
}

func (d *drill) object(s *proctest.Server, name api.Digest) []byte {
	d.t.Helper()
	b := s.Get("/v2/checkout/manifests/" + string(name))
	if !name.Names(b) {
		d.t.Errorf("%s is not served as itself", name)
	}
	return b
}

// sendAgain repeats what got no answer. Whether the first try was recorded or
// not, there is one entry in the end.
func (d *drill) sendAgain(s *proctest.Server) {
	d.t.Helper()
	for _, st := range d.unanswered {
		r, ok := d.post(s.URL, st)
		if !ok && st.Kind.Lane() != ledger.LaneOverride {
			d.t.Errorf("%s %s was not taken at the second try", st.Kind, st.ID)
		}
		if ok && r.Repeated {
			d.repeated++
		}
	}
	d.unanswered = nil
}

// post sends a statement. It tells whether that was acknowledged.
func (d *drill) post(url string, st *ledger.Signed) (r api.Receipt, ok bool) {
	status, b, err := ask(context.Background(), http.MethodPost, url+"/v1/changes", st.Raw)
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err != nil:
		d.unanswered = append(d.unanswered, st)
		return r, false
	case status == http.StatusOK && json.Unmarshal(b, &r) == nil:
		d.acks = append(d.acks, r)
		if d.left--; d.left == 0 {
			close(d.enough)
		}
		return r, true
	case status != http.StatusConflict && status != http.StatusUnprocessableEntity: // a safe mode that lost its race
		d.t.Errorf("%s: %d %s", st.Kind, status, b)
	}
	return r, false
}

// work runs people against the server and kills it between them: in one half of
// the rounds while a push is on its way to being live, in the other when it is.
func (d *drill) work(s *proctest.Server, n int) {
	d.t.Helper()
	d.rig.Edit(checkoutHTTP, `readMs: \d+`, fmt.Sprintf("readMs: %d", 1000+n))
	commit := d.rig.Push(fmt.Sprintf("Change %d", n))
	d.move(d.away, d.rig.Bare)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for i := range posters {
		wg.Go(func() { d.sign(s.URL, i, stop) })
	}
	wg.Go(func() { d.watch(s.URL, stop) })
	if n%2 == 1 {
		s.UntilTip(commit)
	}
	proctest.Await(d.t, "acknowledgements", d.acknowledged(1+d.rand.IntN(30)))
	s.Kill()
	close(stop)
	wg.Wait()
}

// acknowledged is closed after n more acknowledgements.
func (d *drill) acknowledged(n int) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.enough, d.left = make(chan struct{}), n
	return d.enough
}

// sign posts until the server is gone: safe modes from one, notes from all
// others.
func (d *drill) sign(url string, who int, stop <-chan struct{}) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		st := d.rig.Statement(ledger.NoteAdded, "checkout", "prod", nil)
		if who == 0 {
			st = d.override(url)
		}
		if st == nil {
			return
		}
		if _, ok := d.post(url, st); !ok && d.lost(st) {
			return
		}
	}
}

// override signs the next safe-mode statement: in, out, in again.
func (d *drill) override(url string) *ledger.Signed {
	e, err := askEvidence(context.Background(), url, 0)
	if err != nil {
		return nil
	}
	p, err := d.rig.LoadTrust().Prove(e, "checkout", nil)
	if err != nil {
		d.t.Error(err)
		return nil
	}
	for _, c := range p.Chains {
		if c.Lane == ledger.LaneOverride && c.Kind == ledger.SafeModeEntered {
			return d.rig.SafeMode(ledger.SafeModeExited, "checkout", "prod", "degraded", c.Generation)
		} else if c.Lane == ledger.LaneOverride {
			return d.rig.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", c.Generation)
		}
	}
	return d.rig.SafeMode(ledger.SafeModeEntered, "checkout", "prod", "degraded", 0)
}

// lost tells whether a statement got no answer: the server is gone.
func (d *drill) lost(st *ledger.Signed) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, u := range d.unanswered {
		if u == st {
			return true
		}
	}
	return false
}

// watch proves what the server shows as long as it lives.
func (d *drill) watch(url string, stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		e, err := askEvidence(context.Background(), url, d.size())
		if err != nil {
			return
		}
		p, err := d.rig.LoadTrust().Prove(e, "checkout", d.known)
		if err != nil {
			d.t.Error(err)
			return
		}
		d.known = p.Known()
	}
}
