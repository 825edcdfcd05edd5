package sdk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/sealstone/sealstone/ledger"
)

// needTrust takes a trust file over the network, where that was asked for and
// nothing better is there.
func (c *Client) needTrust(ctx context.Context) error {
	c.mu.Lock()
	have := c.trust != nil
	c.mu.Unlock()
	if have {
		return nil
	}
	t, err := firstGood(ctx, c.remote.servers, c.askTrust)
	if err != nil {
		return fmt.Errorf("first use of a trust file: %w", err)
	}
	c.log.Warn("sealstone: believing the first trust file that a server showed", slog.String("origin", t.Origin), slog.Int("version", t.Version))
	c.setTrust(t, true)
	return nil
}

func (c *Client) askTrust(ctx context.Context, s *server) (*ledger.Trust, error) {
	raw, err := c.remote.get(ctx, s, "/v1/trust", ledger.MaxTrustFile, askTimeout)
	if err != nil {
		return nil, err
	}
	t, err := ledger.ParseTrust(raw)
	return t, ledger.Refuse(ledger.CheckTrust, err)
}

// newerTrust looks for higher versions of the trust file, and takes them when
// each is signed by enough of the roots of the one before. It returns nil when
// there is none.
func (c *Client) newerTrust(ctx context.Context, s *server, old *ledger.Trust) *ledger.Trust {
	raw, err := c.remote.get(ctx, s, "/v1/trust", ledger.MaxTrustFile, askTimeout)
	if err != nil {
		return nil
	}
	t, err := old.Follow(raw)
	if err != nil {
		c.refuse(s.base, ledger.Refuse(ledger.CheckTrust, err), raw)
		return nil
	}
	if t.Version == old.Version {
		return nil
	}
	c.log.Info("sealstone: new version of the trust file", slog.String("origin", t.Origin), slog.Int("version", t.Version))
	return c.setTrust(t, false)
}

// trustIsDue tells, once in a while, that it is time to look for a newer trust
// file though nothing was refused: what the roots took away from an old key must
// reach those who never meet that key.
func (c *Client) trustIsDue() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	due := time.Since(c.trustAsked) >= fullEvery
	if due {
		c.trustAsked = time.Now()
	}
	return due
}

// rotated tells whether another version of the trust file may believe what this
// one refused: a signature by a key that it doesn't know.
func rotated(failed error) bool {
	refused, ok := errors.AsType[*ledger.CheckError](failed)
	return ok && slices.Contains([]ledger.Check{ledger.CheckHead, ledger.CheckCheckpoint, ledger.CheckNodeSignature, ledger.CheckStatementSignature}, refused.Check)
}

// setTrust makes a trust file the one to verify with, and returns the one that is.
// With another origin, what was known of the log before says nothing about the new
// one: only what a process before this has proven of it does.
func (c *Client) setTrust(t *ledger.Trust, firstUse bool) *ledger.Trust {
	known, checkpoint := c.remembered(t)
	c.mu.Lock()
	if newer := c.trust; newer != nil && newer.Version >= t.Version {
		c.mu.Unlock()
		return newer // another server was faster
	}
	if c.trust == nil || c.trust.Origin != t.Origin {
		c.known, c.checkpoint = known, checkpoint
		c.saveHeld = len(c.held) > 0 // they are still obeyed, and go by the new origin's key
	}
	from := 0
	if c.trust != nil {
		from = c.trust.Version
	}
	c.trust, c.firstUse = t, c.firstUse || firstUse
	filed := []string{c.given, t.Origin} // by a later start with the same file, and with one of this log
	if c.firstUse {
		filed = []string{firstUseMark}
	}
	c.mu.Unlock()
	c.cache.use(t.Origin, c.target)
	c.cache.putTrust(t, from, slices.Compact(filed))
	return t
}

// remembered is what the cache holds of a log: the newest head that was proven.
func (c *Client) remembered(t *ledger.Trust) (known *ledger.Known, checkpoint string) {
	known = &ledger.Known{}
	for _, record := range []string{recordServed, recordSeen} {
		e := c.cache.evidence(t.Origin, c.target, record)
		if e == nil {
			continue
		}
		if p, err := t.Past().Prove(e, c.target.Service, nil); err == nil && p.Tree.Size >= known.Tree.Size {
			known, checkpoint = p.Known(), e.Checkpoint
		}
	}
	return known, checkpoint
}

// startTrust is the given trust file, or the cached one of an earlier first
// use, moved on by every newer version that the cache has.
func (c *Client) startTrust() error {
	given, err := c.cfg.trustBytes()
	if err != nil {
		return err
	}
	if given != nil {
		if c.trust, err = ledger.ParseTrust(given); err != nil {
			return fmt.Errorf("the trust file given: %w", err)
		}
		c.given = c.trust.Origin
	}
	for _, raw := range c.cache.trustFiles(cmp.Or(c.given, firstUseMark)) {
		switch {
		case c.trust != nil:
			if next, err := c.trust.Next(raw); err == nil { // what doesn't follow is of no use
				if next.Origin != c.trust.Origin {
					c.former = c.trust
				}
				c.trust = next
			}
		case c.cfg.TrustOnFirstUse:
			if t, err := ledger.ParseTrust(raw); err == nil {
				c.trust, c.firstUse = t, true
			}
		}
	}
	return nil
}
