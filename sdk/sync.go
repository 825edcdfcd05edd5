package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// answer is evidence that was believed, and who gave it.
type answer struct {
	evidence *ledger.Evidence
	proven   *ledger.Proven
	server   *server
	full     bool // stands alone: proves itself to somebody who knows nothing
	raw      []byte
}

// follow is the loop that keeps the client at the newest head. It ends with ctx.
func (c *Client) follow(ctx context.Context) {
	var retry backoff
	var lastFull time.Time
	full := true
	for {
		err := c.round(ctx, full)
		c.firstRound.Do(func() { close(c.tried) })
		wait := jitter(c.cfg.Poll)
		switch {
		case err != nil:
			wait = retry.next()
			c.log.Debug("sealstone: round failed", slog.Any("error", err), slog.Duration("retry_in", wait))
		case full:
			lastFull = time.Now()
			fallthrough
		default:
			retry = backoff{}
		}
		woken, ok := c.rest(ctx, wait)
		if !ok {
			return
		}
		full = woken || err != nil || time.Since(lastFull) >= fullEvery
	}
}

// rest waits for a notification, at most d. The gap before it keeps a server
// that announces all the time from making us ask all the time.
func (c *Client) rest(ctx context.Context, d time.Duration) (woken, ok bool) {
	if !sleep(ctx, min(d, minGap)) {
		return false, false
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false, false
	case <-c.wake:
		return true, true
	case <-t.C:
		return false, true
	}
}

// round asks, verifies and applies once.
func (c *Client) round(ctx context.Context, full bool) error {
	err := c.needTrust(ctx)
	var a *answer
	if err == nil {
		a, err = firstGood(ctx, c.remote.servers, func(ctx context.Context, s *server) (*answer, error) { return c.ask(ctx, s, full) })
	}
	if err == nil {
		err = c.believe(a)
	}
	if err == nil {
		c.askPending(ctx, a.server)
		err = c.adopt(ctx, a)
	} else {
		c.askPendingAnyway(ctx)
	}
	if err == nil {
		c.endAnswers()
	}
	if ctx.Err() == nil {
		c.settle(err)
	}
	return err
}

// ask gets evidence from one server and verifies it. Evidence that names what
// we have costs little; when it turns out that something changed, it is asked
// for whole, since only that can be kept.
func (c *Client) ask(ctx context.Context, s *server, full bool) (*answer, error) {
	c.mu.Lock()
	known, trust := c.known, c.trust
	c.mu.Unlock()
	a, err := c.askWith(ctx, s, trust, known, full)
	if rotated(err) || err == nil && c.trustIsDue() {
		if newer := c.newerTrust(ctx, s, trust); newer != nil {
			c.mu.Lock()
			known = c.known // nothing, if the log is another one now
			c.mu.Unlock()
			a, err = c.askWith(ctx, s, newer, known, true)
		}
	}
	if err != nil {
		c.refuse(s.base, err, a.raw) // not before newer keys were tried
		return nil, err
	}
	if !a.full && !sameChains(known.Chains, a.proven.Chains) {
		return c.ask(ctx, s, true)
	}
	forgetDetails(a.evidence)
	return a, nil
}

// askWith returns an answer with what came also when it isn't believed.
func (c *Client) askWith(ctx context.Context, s *server, trust *ledger.Trust, known *ledger.Known, full bool) (*answer, error) {
	full = full || len(known.Changes) == 0 || len(known.Changes) > maxHave
	raw, err := c.remote.get(ctx, s, evidencePath(c.target.Service, known, full), maxEvidence, askTimeout)
	if errors.Is(err, errConflict) { // it has fewer entries than we know: let it show them, so that it can be refused for it
		full = true
		raw, err = c.remote.get(ctx, s, evidencePath(c.target.Service, &ledger.Known{}, true), maxEvidence, askTimeout)
	}
	if errors.Is(err, errTooLong) {
		err = ledger.Refuse(ledger.CheckHead, err)
	}
	a := &answer{evidence: &ledger.Evidence{}, server: s, full: full, raw: raw}
	if err == nil {
		err = ledger.Refuse(ledger.CheckHead, json.Unmarshal(raw, a.evidence))
	}
	if err == nil {
		a.proven, err = trust.Prove(a.evidence, c.target.Service, known)
		err = c.orBehind(err, a, trust, known)
	}
	if err == nil && full {
		err = a.proven.StandsAlone(a.evidence)
	}
	return a, err
}

// maxHave is how many changes are named as known; servers take 512.
const maxHave = 500

// errConflict is how a server says that it can't show consistency with our tree.
var errConflict = &api.Error{Code: api.CodeConflict}

// forgetDetails drops names and words, which can be erased from the log's side
// of the world and therefore are not kept on ours.
func forgetDetails(e *ledger.Evidence) {
	for i := range e.Changes {
		e.Changes[i].Salt, e.Changes[i].Detail = "", nil
	}
}

func evidencePath(service string, known *ledger.Known, full bool) string {
	q := url.Values{"service": {service}, "detail": {"0"}} // what can be erased is not kept here
	if known.Tree.Size > 0 {
		q.Set("from", strconv.FormatInt(known.Tree.Size, 10))
	}
	if !full {
		var have []string
		for _, i := range slices.Sorted(maps.Keys(known.Changes)) {
			have = append(have, strconv.FormatInt(i, 10))
		}
		q.Set("have", strings.Join(have, ","))
	}
	return "/v1/evidence?" + q.Encode()
}

func sameChains(a, b []ledger.Chain) bool {
	return slices.EqualFunc(a, b, func(x, y ledger.Chain) bool { return x.Hash == y.Hash && x.Index == y.Index })
}

// believe makes an answer what is known: from here on nothing older counts.
// A safe mode that it enters is in force at once, on the set that is staged,
// however long the objects of a newer set take.
func (c *Client) believe(a *answer) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a.proven.Head.Origin != c.trust.Origin { // another server showed its successor just now
		return fmt.Errorf("a head of log %q, but trust moved to %q", a.proven.Head.Origin, c.trust.Origin)
	}
	c.take(a.proven)
	c.known, c.checkpoint, c.fresh = a.proven.Known(), a.evidence.Checkpoint, true
	if a.full {
		c.evidence, c.evidenceSet = a.evidence, ""
		if eff, ok := ledger.InEffect(a.proven.Chains, c.target.Scope); ok {
			c.evidenceSet = eff.Main.Set.Digest
		}
	}
	c.hear(a.proven.Head.Issued, time.Now())
	c.forgetPending()
	c.refresh() // a head of today ends STALE
	if eff, _ := c.effect(); eff.Mode != api.ModeNormal && c.view.Load() != nil {
		c.apply()
	}
	return nil
}

// adopt stages the set that is in effect and swaps to it.
func (c *Client) adopt(ctx context.Context, a *answer) error {
	st, objects, err := c.stageNew(ctx, a)
	if err == nil && objects != nil {
		c.cache.putObjects(objects) // durable before it is used
	}
	c.mu.Lock()
	if err == nil {
		c.staged, c.lastErr = st, nil
		if c.cache == nil && objects != nil {
			c.memory = objects
		}
	}
	c.apply()
	c.mu.Unlock()
	if a.full {
		c.cache.putEvidence(a.evidence, err == nil)
	}
	if err == nil && objects != nil {
		c.cache.retain(st)
	}
	if errors.Is(err, errNotActivated) && c.view.Load() != nil {
		return nil // withdrawn: what runs stays, and asking faster doesn't help
	}
	return err
}

// errNotActivated is the state of a target that no activation covers.
var errNotActivated = &api.Error{Code: api.CodeNotActivated, Hint: "list the scope, or one above it, in activations/<service>.yaml"}

// notActivated says which scopes of the service are.
func notActivated(t api.Target, chains []ledger.Chain) error {
	var scopes []string
	for _, ch := range chains {
		if ch.Lane == ledger.LaneMain && ch.Kind != ledger.BundleWithdrawn {
			scopes = append(scopes, string(ch.Scope))
		}
	}
	return fmt.Errorf("no activation covers %s; %s is activated at [%s]: %w", t, t.Service, api.Clip(strings.Join(scopes, " "), 512), errNotActivated)
}

// stageNew returns the staged set that the proven chains ask for. objects is
// nil when nothing had to be staged.
func (c *Client) stageNew(ctx context.Context, a *answer) (*staged, map[api.Digest][]byte, error) {
	eff, ok := ledger.InEffect(a.proven.Chains, c.target.Scope)
	if !ok {
		return nil, nil, notActivated(c.target, a.proven.Chains)
	}
	c.mu.Lock()
	old := c.staged
	c.mu.Unlock()
	if old != nil && old.main.Set.Digest == eff.Main.Set.Digest {
		same := *old
		same.main = eff.Main
		return &same, nil, nil
	}
	s := &stager{target: c.target, old: old, local: c.object, fetch: func(ctx context.Context, o object) ([]byte, error) {
		return c.fetch(ctx, a.server, o)
	}}
	st, err := s.stage(ctx, eff.Main)
	if err != nil {
		if _, ok := errors.AsType[*fetchError](err); !ok { // those were refused server by server
			proof, _ := json.Marshal(a.evidence) // that the log does name what can't be used
			c.refuse(a.server.base, err, proof)
		}
		return nil, nil, err
	}
	return st, s.collected(), nil
}

// fetch gets an object from the server that gave the evidence, then from the
// others: whoever has the right bytes will do.
func (c *Client) fetch(ctx context.Context, first *server, o object) ([]byte, error) {
	order := append([]*server{first}, slices.DeleteFunc(slices.Clone(c.remote.servers), func(s *server) bool { return s == first })...)
	kind := "blobs"
	if o.check != ledger.CheckObject {
		kind = "manifests"
	}
	path := "/v2/" + c.target.Service + "/" + kind + "/" + string(o.digest)
	var errs []error
	for _, s := range order {
		b, err := c.remote.get(ctx, s, path, o.size, objectTimeout)
		if err == nil || errors.Is(err, errTooLong) {
			err = o.verify(b)
		}
		if err == nil {
			return b, nil
		}
		c.refuse(s.base, err, b)
		errs = append(errs, fmt.Errorf("%s: %w", s.base, err))
	}
	return nil, &fetchError{errors.Join(errs...)}
}

// fetchError is what every server said to one object.
type fetchError struct{ error }

func (e *fetchError) Unwrap() error { return e.error }

// object reads what an earlier round left, on disk or in memory.
func (c *Client) object(d api.Digest) ([]byte, bool) {
	if c.cache != nil {
		return c.cache.object(d)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b, ok := c.memory[d]
	return b, ok
}

// backoff spaces retries: doubling, bounded, with jitter so that clients that
// failed together don't come back together.
type backoff struct{ last time.Duration }

func (b *backoff) next() time.Duration {
	b.last = min(max(2*b.last, retryMin), retryMax)
	return b.last/2 + rand.N(b.last)
}

// jitter is d ±20 %.
func jitter(d time.Duration) time.Duration { return d*4/5 + rand.N(max(d*2/5, 1)) }

// sleep waits, and tells whether it wasn't ctx that ended it.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
