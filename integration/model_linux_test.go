package integration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/examples"
	"github.com/sealstone/sealstone/integration/proctest"
	"github.com/sealstone/sealstone/internal/ledgertest"
	"github.com/sealstone/sealstone/ledger"
	"github.com/sealstone/sealstone/sdk"
)

const (
	modelSteps = 60
	seedEnv    = "SEALSTONE_MODEL_SEED" // the first seed
	runsEnv    = "SEALSTONE_MODEL_RUNS" // how many
)

// Two operators enter, renew and leave safe modes by what they saw last, or by
// less, or by more; the branch moves and drops one of them; the disk is full; the
// server is killed; clients start again, are cut off, and find files. A map says
// what must come of it. When all is settled, everybody who can be asked says that.
func TestSafeModesAgainstAModel(t *testing.T) {
	t.Parallel()
	number := func(env string, otherwise int) int {
		if n, err := strconv.Atoi(os.Getenv(env)); err == nil {
			return n
		}
		return otherwise
	}
	runs := 3
	if testing.Short() || proctest.Race() {
		runs = 1
	}
	first := number(seedEnv, 1)
	for seed := first; seed < first+number(runsEnv, runs); seed++ {
		t.Run(strconv.Itoa(seed), func(t *testing.T) {
			m := newModel(t, uint64(seed))
			for range modelSteps {
				m.step()
			}
			m.settle()
			m.agree()
		})
	}
}

// model is what must be, as far as anybody was told.
type model struct {
	t     *testing.T
	rig   *proctest.Rig
	rand  *rand.Rand
	steps []string

	server     *proctest.Server
	url        atomic.Pointer[url.URL] // of the server, for those who look for it
	down, full bool
	fill, free func()

	chains     map[api.Scope]*override
	past       map[string]api.Mode // by scope and generation
	sent       []*sent             // safe modes
	notes      []*sent
	unanswered []*sent // a kill cut the answer off

	tip       string
	operators int           // version pushed; sam is in those that are even
	sam       bool          // may act, by the branch
	was       map[bool]bool // the same by what may be in the log by now
	n, prod   int           // of config/release.yaml at staging, and at prod
	pinned    bool

	long, far *client // one that lives long, and one that is cut off now and then, and has a folder for files
	gate      *httptest.Server
	cut       atomic.Bool
	files     []*sent // in that folder
}

// override is a chain of safe modes, with what waits for the log.
type override struct {
	generation int64
	mode       api.Mode // "" when none is in force
}

// Answers that are not the status of a refusal.
const (
	applied = "applied" // recorded, or waiting for it
	late    = "late"
)

// sent is a statement, and what was said of it.
type sent struct {
	*ledger.Signed
	sam     bool
	body    []byte
	answer  string   // the last time it was sent; "" is none
	before  []string // refusals that were right when it was sent
	outcome string   // the last answer that was judged
	receipt api.Receipt
}

// client is one that can be closed and opened again on its cache.
type client struct {
	*sdk.Client
	cfg     sdk.Config
	release *sdk.Doc[struct{ Number int }]
}

func newModel(t *testing.T, seed uint64) *model {
	t.Helper()
	r := proctest.New(t, examples.Shop())
	m := &model{t: t, rig: r, rand: rand.New(rand.NewPCG(seed, 0)), operators: 1, past: map[string]api.Mode{at("prod", 0): "", at("prod/eu-west-1", 0): ""},
		chains: map[api.Scope]*override{"prod": {}, "prod/eu-west-1": {}}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s=%d %s=1; the steps:\n%s", seedEnv, seed, runsEnv, strings.Join(m.steps, "\n"))
		}
	})
	modes := filepath.Join(r.Work, "services/checkout/safe-modes")
	m.must(os.CopyFS(filepath.Join(modes, "minimal"), os.DirFS(filepath.Join(modes, "degraded"))))
	r.Edit("services/checkout/safe-modes/minimal/config/limits.yaml", `perSecond: \d+`, "perSecond: 100")
	r.Edit("services/checkout/service.yaml", "schemas:", "schemas:\n  config/release: none")
	m.fill, m.free = smallDisk(t, r)
	m.employ(true)
	m.promote()
	m.tip = r.Push("Begin")
	m.serve()
	m.sync()
	m.openClients()
	return m
}

func (m *model) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *model) say(format string, args ...any) {
	m.steps = append(m.steps, fmt.Sprintf(format, args...))
}

// once is true once in n times.
func (m *model) once(n int) bool { return m.rand.IntN(n) == 0 }

func pick[T any](m *model, list ...T) T { return list[m.rand.IntN(len(list))] }

func (m *model) scope() api.Scope { return pick[api.Scope](m, "prod", "prod/eu-west-1") }

// step does one thing.
func (m *model) step() {
	m.t.Helper()
	do := []func(){m.sends, m.sends, m.sends, m.sends, m.sends, m.races, m.repeats, m.records, m.kills, m.turnsDisk, m.pushes, m.reopens, m.cuts, m.drops, m.looks, m.looks}
	if m.down {
		do = []func(){m.serves, m.serves, m.pushes, m.reopens, m.cuts, m.drops, m.looks}
	}
	pick(m, do...)()
}

func (m *model) serve() {
	m.t.Helper()
	m.server, m.down = m.rig.Serve(), false
	to, err := url.Parse(m.server.URL)
	m.must(err)
	m.url.Store(to)
}

// serves starts the server again, and asks it for what the kill left open.
func (m *model) serves() {
	m.t.Helper()
	m.say("the server starts")
	m.serve()
	for _, s := range m.unanswered {
		if m.post(s); s.answer == applied {
			m.judge(s)
		}
	}
	for _, s := range m.unanswered {
		if s.before = nil; s.answer != applied { // of two, the other may have won before the kill
			m.post(s)
			m.judge(s)
		}
	}
	m.unanswered = nil
	m.sync()
}

// sync waits until the log has all that it can get.
func (m *model) sync() {
	m.t.Helper()
	if m.full || m.down {
		return
	}
	proctest.Until(m.t, "what waits in the log, and the tip "+m.tip, func() bool {
		st := m.server.Status()
		if len(st.Rejected) > 0 {
			m.t.Fatalf("%+v", st.Rejected)
		}
		return st.Pending == 0 && st.Source.Tip == m.tip
	})
	m.was = map[bool]bool{m.sam: true}
}

// openClients gives each client a way to the server, wherever that is.
func (m *model) openClients() {
	way := func(cut *atomic.Bool) *httptest.Server {
		gate := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			if cut.Load() {
				panic(http.ErrAbortHandler)
			}
			proxy := httputil.NewSingleHostReverseProxy(m.url.Load())
			proxy.FlushInterval, proxy.ErrorLog = -1, log.New(io.Discard, "", 0)
			proxy.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
			proxy.ServeHTTP(w, req)
		}))
		gate.Config.ErrorLog = log.New(io.Discard, "", 0)
		gate.Start()
		m.t.Cleanup(func() { gate.CloseClientConnections(); gate.Close() })
		return gate
	}
	m.gate = way(&m.cut)
	m.long = m.open(eu, way(new(atomic.Bool)).URL, "")
	m.far = m.open(eu, m.gate.URL, filepath.Join(m.rig.Dir, "overrides"))
}

func (m *model) open(target, server, files string) *client {
	m.t.Helper()
	c := &client{cfg: sdkConfig(m.t, m.rig, target, server)}
	c.cfg.Poll, c.cfg.ReportEvery, c.cfg.OverrideDir = 200*time.Millisecond, -1, files
	if m.long == nil {
		c.cfg.Poll = time.Hour // all is announced
	}
	m.start(c)
	m.t.Cleanup(func() { c.Close() })
	return c
}

func (m *model) start(c *client) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), proctest.Patience)
	defer cancel()
	var err error
	c.Client, err = sdk.Open(ctx, c.cfg)
	m.must(err)
	c.release, err = sdk.Document[struct{ Number int }](c.Client, "config/release")
	m.must(err)
}

// sign makes a statement that may be right, or come too late or too soon.
func (m *model) sign(scope api.Scope, after int64) *sent {
	m.t.Helper()
	chain := m.chains[scope]
	kind, mode := ledger.SafeModeEntered, pick[api.Mode](m, "degraded", "minimal")
	if !m.once(3) && chain.mode != "" {
		kind, mode = pick(m, ledger.SafeModeRenewed, ledger.SafeModeExited), chain.mode
	} else if m.once(10) {
		kind = pick(m, ledger.SafeModeRenewed, ledger.SafeModeExited)
	}
	key, sam := m.rig.Operator, m.once(2)
	if sam {
		key = m.rig.Stranger
	}
	old := m.once(4)
	return m.prepare(key, sam, kind, scope, func(st *ledger.Statement) {
		st.Mode, st.After = mode, &after
		if kind != ledger.SafeModeExited {
			st.TTL, st.OnExpiry = 3600, "hold"
		}
		if old {
			st.Time = api.FormatTime(time.Now().Add(-2 * ledger.LateAfter))
		}
	})
}

func (m *model) prepare(key ledger.Signer, sam bool, kind ledger.Kind, scope api.Scope, edit func(*ledger.Statement)) *sent {
	m.t.Helper()
	words := 10
	if kind == ledger.NoteAdded {
		words = 12000 // it fills the disk up
	}
	detail, name, err := ledger.NewDetail(map[string]any{"reason": strings.Repeat("x", words)})
	m.must(err)
	s := &sent{sam: sam}
	s.Signed = m.rig.StatementBy(key, kind, "checkout", scope, func(st *ledger.Statement) { st.Detail = name; edit(st) })
	s.body, err = json.Marshal(api.Submission{Statement: s.Raw, Salt: detail.Salt, Detail: detail.Text})
	m.must(err)
	if kind == ledger.NoteAdded {
		m.notes = append(m.notes, s)
	} else {
		m.sent = append(m.sent, s)
	}
	return s
}

// saw is the generation that a signer saw: the newest, mostly.
func (m *model) saw(scope api.Scope) int64 {
	now := m.chains[scope].generation
	switch m.rand.IntN(8) {
	case 0:
		return now + 1 + m.rand.Int64N(2)
	case 1, 2:
		return max(0, now-1-m.rand.Int64N(2))
	}
	return now
}

func (m *model) sends() {
	m.t.Helper()
	scope := m.scope()
	m.postAll(m.sign(scope, m.saw(scope)))
}

// races sends two statements at once.
func (m *model) races() {
	m.t.Helper()
	scope := m.scope()
	now := m.chains[scope].generation
	m.postAll(m.sign(scope, now), m.sign(scope, now))
}

func (m *model) repeats() {
	m.t.Helper()
	list := m.sent
	if m.once(4) {
		list = m.notes
	}
	if len(list) > 0 {
		m.postAll(pick(m, list...))
	}
}

func (m *model) records() { m.t.Helper(); m.postAll(m.note()) }

func (m *model) note() *sent {
	m.t.Helper()
	return m.prepare(m.rig.Operator, false, ledger.NoteAdded, "prod", func(*ledger.Statement) {})
}

// postAll sends statements at once, and kills the server beside them now and then.
func (m *model) postAll(list ...*sent) {
	m.t.Helper()
	var wg sync.WaitGroup
	for _, s := range list {
		wg.Go(func() { m.post(s) })
	}
	if m.once(8) {
		time.Sleep(time.Duration(m.rand.IntN(6000)) * time.Microsecond) // anywhere in what it does
		m.kills()
	}
	wg.Wait()
	for _, s := range list { // each may have been the first to be judged
		s.before = slices.DeleteFunc(m.want(s), func(a string) bool { return a == applied })
	}
	lost := slices.ContainsFunc(list, func(s *sent) bool { return s.answer == "" })
	if len(list) == 2 && list[1].answer == applied { // by the answer, it was the first
		list[0], list[1] = list[1], list[0]
	}
	for _, s := range list {
		if lost && s.answer != applied { // it may have met one of which nobody knows yet
			m.say("%s gets no answer that counts", m.name(s))
			m.unanswered = append(m.unanswered, s)
		} else {
			m.judge(s)
		}
	}
}

// post sends a statement once.
func (m *model) post(s *sent) {
	was := s.receipt
	s.answer, s.receipt = "", api.Receipt{Index: -1}
	status, b, err := ask(context.Background(), http.MethodPost, m.server.URL+"/v1/changes", s.body)
	switch {
	case err != nil:
		s.receipt = was
		return
	case status != http.StatusOK && status != http.StatusAccepted:
		s.answer = strconv.Itoa(status)
		return
	case json.Unmarshal(b, &s.receipt) != nil || s.receipt.Volatile || s.receipt.Unrecorded != (status == http.StatusAccepted):
		m.t.Errorf("%s: %d %s", m.name(s), status, b)
	case was.ID != "" && was.Index >= 0 && (was.Index != s.receipt.Index || was.LeafHash != s.receipt.LeafHash):
		m.t.Errorf("%s was entry %d, and is %s now", m.name(s), was.Index, b)
	}
	s.answer = applied
	if s.receipt.Late && s.Kind.Lane() == ledger.LaneOverride {
		s.answer = late
	}
}

// judge holds an answer to what the map says, and changes the map.
func (m *model) judge(s *sent) {
	m.t.Helper()
	want := append(m.want(s), s.before...)
	m.say("%s: %s", m.name(s), s.answer)
	if !slices.Contains(want, s.answer) {
		m.t.Fatalf("%s got %q (%+v), want one of %q; its chain is %+v, full %v, operator %v", m.name(s), s.answer, s.receipt, want, m.chains[s.Scope], m.full, m.was)
	}
	if s.answer == applied && s.outcome != applied && s.After != nil {
		if !s.receipt.Unrecorded && s.receipt.Generation != *s.After+1 {
			m.t.Errorf("%s: %+v", m.name(s), s.receipt)
		}
		*m.chains[s.Scope] = override{*s.After + 1, s.Mode}
		if s.Kind == ledger.SafeModeExited {
			m.chains[s.Scope].mode = ""
		}
		m.past[at(s.Scope, *s.After+1)] = m.chains[s.Scope].mode
	}
	s.outcome = s.answer
}

func at(scope api.Scope, generation int64) string { return fmt.Sprint(scope, " ", generation) }

func (m *model) name(s *sent) string {
	by, after := "alex", int64(-1)
	if s.sam {
		by = "sam"
	}
	if s.After != nil {
		after = *s.After
	}
	return fmt.Sprintf("%s %s@%s %s by %s after %d", s.ID, s.Kind, s.Scope, s.Mode, by, after)
}

// want lists the answers that are right.
func (m *model) want(s *sent) (list []string) {
	if s.outcome == applied || s.outcome == late {
		return []string{s.outcome}
	}
	if s.sam && m.was[false] {
		list = []string{"403"}
	}
	if s.sam && !m.was[true] {
		return list
	}
	if s.After == nil {
		if m.full {
			list = append(list, "507")
		}
		return append(list, applied)
	}
	chain, age := m.chains[s.Scope], time.Since(s.At())
	switch {
	case *s.After < chain.generation:
		if age > ledger.LateAfter*5/6 {
			list = append(list, late)
		}
		if age < ledger.LateAfter*7/6 || m.full {
			list = append(list, "409")
		}
		return list
	case *s.After > chain.generation:
		return append(list, "409")
	case s.Kind != ledger.SafeModeEntered && s.Mode != chain.mode:
		return append(list, "422")
	}
	return append(list, applied)
}

func (m *model) kills() {
	m.say("the server is killed")
	m.server.Kill()
	m.down = true
}

// turnsDisk fills the disk up, or makes room again.
func (m *model) turnsDisk() {
	m.t.Helper()
	if m.full {
		m.say("the disk has room")
		m.free()
		m.full = false
		for n := m.rand.IntN(3); n > 0 && !m.down; n-- { // what waits goes first
			pick(m, m.records, m.sends)()
		}
		m.sync()
		return
	}
	m.say("the disk is full")
	m.fill()
	m.full = true
	for range 400 { // until the free pages of the files are used up
		s := m.note()
		m.post(s)
		m.judge(s)
		if s.answer != applied {
			return
		}
	}
	m.t.Fatal("a full disk takes all")
}

func (m *model) pushes() {
	m.t.Helper()
	what := ""
	if m.once(2) {
		m.employ(!m.sam)
		what = fmt.Sprintf("sam may act: %v. ", m.sam)
	}
	switch m.rand.IntN(3) {
	case 0:
		m.pinned, m.prod = true, m.n
		m.activate(m.tip)
	case 1:
		m.pinned, m.prod = false, m.n
		m.activate("latest")
	}
	m.promote()
	what += fmt.Sprintf("release %d, %d at prod", m.n, m.prod)
	m.say("push: %s", what)
	m.tip = m.rig.Push(what)
	m.was[m.sam] = true
	m.sync()
}

func (m *model) promote() {
	if m.n++; !m.pinned {
		m.prod = m.n
	}
	m.rig.Write("services/checkout/config/release.yaml", fmt.Sprintf("number: %d\n", m.n))
}

func (m *model) activate(release string) {
	m.rig.Write("activations/checkout.yaml", "service: checkout\nactivations:\n  - scope: staging\n    release: latest\n  - scope: prod\n    release: "+release+"\n")
}

// employ makes sam an operator beside alex, or dismisses him.
func (m *model) employ(sam bool) {
	m.t.Helper()
	m.operators, m.sam = m.operators+1, sam
	yaml := strings.Replace(string(m.rig.OperatorsYAML), "version: 1", fmt.Sprintf("version: %d", m.operators), 1)
	list := []ledger.Operator{{ID: ledgertest.OperatorID, Keys: []string{ledgertest.SSHLine(m.rig.OperatorKey)}, May: []ledger.Grant{ledgertest.Everything()}}}
	if sam {
		key := ledgertest.SSHLine(m.rig.Stranger.Private)
		yaml += fmt.Sprintf("  - id: sam\n    keys: [%q]\n    may: [{do: [erase, record, safe-mode, source], services: [\"*\"], scopes: [\"*\"]}]\n", key)
		list = append(list, ledger.Operator{ID: "sam", Keys: []string{key}, May: []ledger.Grant{ledgertest.Everything()}})
	}
	m.rig.Write("operators.yaml", yaml)
	m.rig.Write("operators.sig", string(m.rig.SignOperators(m.operators, []byte(yaml), list...))+"\n")
}

// reopens starts a client again, from its cache. When it hears from nobody, it
// is where it was.
func (m *model) reopens() {
	m.t.Helper()
	c, alone := m.long, m.down
	if m.once(2) {
		c, alone = m.far, m.down || m.cut.Load()
	}
	m.say("%s starts again, alone: %v", m.who(c), alone)
	m.reads()
	c.Close()
	was := c.Live()
	m.start(c)
	is := c.Live()
	if alone && (is.Mode != was.Mode || is.Set != was.Set || !slices.Equal(ids(is), ids(was)) || !slices.Equal(is.Overrides, was.Overrides)) {
		m.t.Fatalf("%s started again, and is\n%+v\nwas\n%+v", m.who(c), is, was)
	}
	for _, o := range was.Overrides {
		if generationAt(is, o.Scope) < o.Generation {
			m.t.Fatalf("%s went back at %s: %+v, was %+v", m.who(c), o.Scope, is.Overrides, o)
		}
	}
}

func (m *model) who(c *client) string {
	switch c {
	case m.long:
		return "the client"
	case m.far:
		return "the far client"
	}
	return "a new client"
}

func ids(l sdk.Live) (list []string) {
	for _, p := range l.Pending {
		list = append(list, p.ID)
	}
	return list
}

func generationAt(l sdk.Live, scope api.Scope) int64 {
	for _, o := range l.Overrides {
		if o.Scope == scope {
			return o.Generation
		}
	}
	return 0
}

// cuts takes the far client off the network, or puts it back.
func (m *model) cuts() {
	m.cut.Store(!m.cut.Load())
	m.say("the far client is cut off: %v", m.cut.Load())
	m.gate.CloseClientConnections()
}

// drops gives the far client a file, of a statement that was sent or not.
func (m *model) drops() {
	m.t.Helper()
	scope := m.scope()
	s := m.sign(scope, m.saw(scope))
	if m.once(2) {
		s = pick(m, m.sent...)
	}
	m.say("file %s", m.name(s))
	path := filepath.Join(m.far.cfg.OverrideDir, s.ID+".dsse")
	proctest.WriteFile(m.t, path+".new", string(s.Raw), 0o644)
	m.must(os.Rename(path+".new", path))
	m.files = append(m.files, s)
	m.reads()
}

// reads waits until the far client has seen its files.
func (m *model) reads() {
	m.t.Helper()
	for _, s := range m.files {
		proctest.Until(m.t, "the file "+s.ID+" is obeyed", func() bool {
			l := m.far.Live()
			return slices.Contains(ids(l), s.ID) || generationAt(l, s.Scope) > *s.After || s.sam && l.Operators%2 == 1
		})
	}
}

// looks waits until clients obey what they have, and all that was acknowledged,
// and asks the server what that is.
func (m *model) looks() {
	m.t.Helper()
	want := m.mode("prod/eu-west-1")
	m.say("mode %s", want)
	for _, c := range []*client{m.long, m.far} {
		proctest.Until(m.t, m.who(c)+" obeys what it has", func() bool { return m.obeys(c.Live()) })
	}
	if m.down {
		return
	}
	m.runs(m.long, want)
	if !m.cut.Load() && !m.misled() {
		m.runs(m.far, want)
	}
	if m.once(4) {
		c := m.open(eu, m.server.URL, "")
		m.runs(c, want)
		c.Close()
	}
	for scope, c := range m.chains {
		var said api.SafeModes
		if m.server.JSON("/v1/safe-modes?service=checkout&scope="+string(scope), &said); said.After == nil || *said.After != c.generation {
			m.t.Fatalf("the next statement at %s is told to carry %v, its chain is %+v", scope, said.After, c)
		}
	}
	if m.once(3) {
		for scope, p := range m.rows() {
			if p == nil || p.Mode != m.mode(scope) {
				m.t.Fatalf("live says of %s %+v, want mode %s", scope, p, m.mode(scope))
			}
		}
	}
}

// runs waits until a client has what the server has.
func (m *model) runs(c *client, want api.Mode) {
	m.t.Helper()
	proctest.Until(m.t, fmt.Sprintf("%s in mode %s", m.who(c), want), func() bool {
		l := c.Live()
		return l.Mode == want && (m.full || len(l.Pending) == 0 && generationAt(l, "prod") == m.chains["prod"].generation)
	})
}

// obeys tells whether a client is in the mode of what it has: the log up to some
// generation, and of statements that are not in it the one with the highest after,
// then of the latest time.
func (m *model) obeys(l sdk.Live) bool {
	for scope := l.Target.Scope; scope != ""; scope = scope.Parent() {
		mode, known := m.past[at(scope, generationAt(l, scope))]
		best := sdk.PendingMode{After: -1}
		for _, p := range l.Pending {
			switch {
			case p.Scope != scope || p.After < best.After || p.After == best.After && p.Time < best.Time:
			case p.After == best.After && p.Time == best.Time:
				return true // the hash decides
			default:
				best, mode, known = p, p.Mode, true
			}
		}
		if best.Kind == ledger.SafeModeExited {
			mode = ""
		}
		if !known {
			return true // a kill left open what became of it
		}
		if mode != "" {
			return l.Mode == mode
		}
	}
	return l.Mode == api.ModeNormal
}

// misled tells whether files may say something else than the log.
func (m *model) misled() bool {
	return slices.ContainsFunc(m.files, func(s *sent) bool { return m.full || *s.After >= m.chains[s.Scope].generation })
}

// mode is what must be in force.
func (m *model) mode(scope api.Scope) api.Mode {
	for ; scope != ""; scope = scope.Parent() {
		if c := m.chains[scope]; c != nil && c.mode != "" {
			return c.mode
		}
	}
	return api.ModeNormal
}
