package sdk

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// held is a safe-mode statement that isn't in the log yet, and that was good
// when it came. It stays until a proven head shows its chain beyond what its
// signer saw, or is of another log, or its operator is no longer one: taking the
// file away, a server that goes silent, or time passing don't end a mode.
type held struct {
	*ledger.Signed
	source string
}

// Bounds on statements from elsewhere.
const (
	maxHeld  = 64
	maxFiles = 64
	maxSeen  = 256
)

// chains are the proven chains with the held statements laid over them, the
// strongest last. Each is laid by its own time: how old it may be was asked
// when it came. c.mu is held.
func (c *Client) chains() []ledger.Chain {
	chains := c.proven.Chains
	for _, h := range c.heldInOrder() {
		chains = ledger.WithPending(chains, c.target.Service, []*ledger.Signed{h.Signed}, c.proven.Operators, c.hasMode, h.At())
	}
	return chains
}

// heldInOrder sorts rivals as section "pending" of the format prescribes:
// highest after, then time, then hash wins, so comes last.
func (c *Client) heldInOrder() []*held {
	list := make([]*held, 0, len(c.held))
	for _, h := range c.held {
		list = append(list, h)
	}
	slices.SortFunc(list, func(a, b *held) int {
		return cmp.Or(cmp.Compare(*a.After, *b.After), cmp.Compare(a.Time, b.Time), cmp.Compare(api.DigestOf(a.Raw), api.DigestOf(b.Raw)))
	})
	return list
}

func (c *Client) hasMode(m api.Mode) bool { return c.staged != nil && c.staged.modes[m] != nil }

// forgetPending drops statements that the log has passed, those for a log that
// this one succeeds, since its chains begin anew, and those of who may sign them
// no more: a key that is let in again brings none back. c.mu is held.
func (c *Client) forgetPending() {
	for name, h := range c.held {
		_, err := c.proven.Operators.Judge(h.Signed)
		if err != nil || h.Log != c.trust.Origin || *h.After < generation(c.proven.Chains, h.Scope) {
			delete(c.held, name)
			c.saveHeld = true
		}
	}
}

func generation(chains []ledger.Chain, scope api.Scope) int64 {
	for _, ch := range chains {
		if ch.Lane == ledger.LaneOverride && ch.Scope == scope {
			return ch.Generation
		}
	}
	return 0
}

// passedOver is why a statement means nothing to this process: no fault of
// anybody's, but whoever signed it waits for something to happen.
type passedOver struct {
	why  string
	ours bool // it is for this process, and the chain has gone on
}

func (p passedOver) Error() string { return p.why }

// offer takes a statement from a server or a file, and obeys it when it is one
// for us and good. The error says why it isn't.
func (c *Client) offer(raw []byte, source string) error {
	c.mu.Lock()
	s, err := c.judgeOffer(raw, time.Now())
	if s != nil {
		c.held[api.DigestOf(raw)] = &held{s, source}
		c.saveHeld = true
		if c.view.Load() != nil {
			c.apply()
		}
	}
	cold, staged := c.staged == nil, s != nil && (s.Kind == ledger.SafeModeExited || c.hasMode(s.Mode))
	c.mu.Unlock()
	if s != nil {
		text := "sealstone: obeying a safe-mode statement that is not in the log yet"
		switch {
		case cold:
			text = "sealstone: a safe-mode statement that is not in the log yet: it is obeyed from the first set on, if that has the mode"
		case !staged:
			text = "sealstone: a safe-mode statement names a mode that the set lacks: it changes nothing until a set has it"
		}
		c.log.Warn(text, slog.String("kind", string(s.Kind)), slog.String("mode", string(s.Mode)), slog.String("scope", string(s.Scope)), slog.String("source", source))
	}
	what := api.DigestOf(raw)
	switch _, passed := errors.AsType[passedOver](err); {
	case s != nil || passed: // good now, or nothing to it any more
		c.endRefusals(func(r *Refusal) bool { return r.what == what })
	case err == nil:
		c.offeredAgain(source, what)
	}
	c.refuse(source, err, raw)
	return err
}

// errNotNow is in refusals that time, or room, can turn: a client whose clock was
// wrong must obey once it is right.
var errNotNow = errors.New("it isn't taken now")

// verdict is how a statement was judged: by which operators, and whether only
// for now. For good, nothing else can change it.
type verdict struct {
	operators api.Digest
	notNow    bool
}

// judgeOffer returns nil, nil for what is held, or was judged so before. c.mu is held.
func (c *Client) judgeOffer(raw []byte, now time.Time) (*ledger.Signed, error) {
	name := api.DigestOf(raw)
	if c.proven == nil || c.held[name] != nil {
		return nil, nil
	}
	var ops api.Digest
	if o := c.proven.Operators; o != nil {
		ops = o.Hash
	}
	before, again := c.seen[name]
	again = again && before.operators == ops
	if again && !before.notNow {
		return nil, nil
	}
	s, err := c.parseOffer(raw, now)
	if len(c.seen) >= maxSeen {
		clear(c.seen)
	}
	c.seen[name] = verdict{ops, errors.Is(err, errNotNow)}
	if again && c.seen[name] == before {
		return nil, nil // it was said once
	}
	return s, err
}

func (c *Client) parseOffer(raw []byte, now time.Time) (*ledger.Signed, error) {
	s, err := ledger.ParseStatement(raw)
	if err != nil {
		return nil, ledger.Refuse(ledger.CheckChange, err)
	}
	if s.Kind.Lane() != ledger.LaneOverride || s.Service != c.target.Service || !s.Scope.Contains(c.target.Scope) {
		return nil, passedOver{why: fmt.Sprintf("it is for %s@%s, this process is %s", s.Service, s.Scope, c.target)}
	}
	if now := generation(c.proven.Chains, s.Scope); *s.After < now {
		return nil, passedOver{fmt.Sprintf("it was signed after generation %d, the override chain at %s is at %d: sign it anew with --after %d", *s.After, s.Scope, now, now), true}
	}
	if err := c.checkOffer(s, now); err != nil {
		return nil, err
	}
	return s, nil
}

func (c *Client) checkOffer(s *ledger.Signed, now time.Time) error {
	if s.Log != c.trust.Origin {
		return ledger.Refuse(ledger.CheckLog, fmt.Errorf("statement %s is meant for log %.64q, this is %q", s.ID, s.Log, c.trust.Origin))
	}
	if _, err := c.proven.Operators.Judge(s); errors.Is(err, ledger.ErrSignature) {
		return ledger.Refuse(ledger.CheckStatementSignature, err)
	} else if err != nil {
		return ledger.Refuse(ledger.CheckPermission, err)
	}
	if d := now.Sub(s.At()); d > ledger.MaxPendingAge || d < -ledger.MaxPendingAge {
		return ledger.Refuse(ledger.CheckChange, fmt.Errorf("%w: statement %s is of %s, more than a day from now", errNotNow, s.ID, s.Time))
	}
	if len(c.held) >= maxHeld {
		return ledger.Refuse(ledger.CheckChange, fmt.Errorf("%w: %d pending statements are held", errNotNow, maxHeld))
	}
	return nil
}

// askPending reads the statements that a server holds for its log. Many servers
// have no such list, a static copy for one; that is no failure.
func (c *Client) askPending(ctx context.Context, s *server) {
	raw, err := c.remote.get(ctx, s, "/v1/pending?"+url.Values{"service": {c.target.Service}}.Encode(), maxPending, askTimeout)
	var p api.Pending
	if err == nil {
		err = json.Unmarshal(raw, &p)
	}
	if err != nil {
		c.log.Debug("sealstone: no pending statements", slog.String("server", s.base), slog.Any("error", err))
		return
	}
	for _, st := range p.Statements[:min(len(p.Statements), maxHeld)] {
		why, _ := errors.AsType[passedOver](c.offer(st, s.base)) // refusals are kept; what isn't for us is no news here
		if why.ours {
			c.log.Warn("sealstone: a pending safe-mode statement is passed over", slog.String("server", s.base), slog.String("why", why.why))
		}
	}
	c.keepHeld()
}

// pendingTimeout bounds a look at a server that gave no good evidence: one that
// can't be reached at all is asked here as well.
const pendingTimeout = 2 * time.Second

// askPendingAnyway asks servers that aren't believed, or can't sign heads now: a
// statement proves itself.
func (c *Client) askPendingAnyway(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, pendingTimeout)
	defer cancel()
	for _, s := range c.remote.servers {
		c.askPending(ctx, s)
	}
}

// readOverrides offers what lies in the override directory.
func (c *Client) readOverrides() {
	if c.cfg.OverrideDir == "" {
		return
	}
	began := time.Now()
	entries, err := os.ReadDir(c.cfg.OverrideDir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		c.log.Debug("sealstone: override directory", slog.Any("error", err))
	} else {
		defer c.endFiles(began)
	}
	n := 0
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".dsse") && !strings.HasSuffix(e.Name(), ".dsse.json") {
			continue
		}
		if n++; n > maxFiles {
			break
		}
		path := filepath.Join(c.cfg.OverrideDir, e.Name())
		if b, err := readBounded(path, ledger.MaxEnvelope); err == nil && !halfWritten(path, b) {
			c.offerFile(path, b)
		}
	}
	c.keepHeld()
}

func (c *Client) offerFile(path string, b []byte) {
	why, passed := errors.AsType[passedOver](c.offer(bytes.TrimSuffix(b, []byte("\n")), path))
	if passed {
		c.log.Warn("sealstone: a safe-mode file is passed over", slog.String("file", path), slog.String("why", why.why))
	}
}

// halfWritten tells a file that somebody is writing just now from a bad one.
func halfWritten(path string, b []byte) bool {
	info, err := os.Stat(path)
	return err != nil || !json.Valid(b) && time.Since(info.ModTime()) < 2*overrideEvery
}

// keepHeld writes the held statements to the cache when they changed.
func (c *Client) keepHeld() {
	c.mu.Lock()
	dirty := c.saveHeld
	c.saveHeld = false
	list := c.heldInOrder()
	c.mu.Unlock()
	if dirty {
		c.cache.putHeld(list)
	}
}

// readBounded reads a regular file of at most limit bytes; anything else, such
// as a pipe that would make us wait, is not opened.
func readBounded(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err == nil && (!info.Mode().IsRegular() || info.Size() > limit) {
		err = fmt.Errorf("%s: not a regular file of at most %d bytes", path, limit)
	}
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}
