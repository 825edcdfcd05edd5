package sdk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

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
	raw, err := c.remote.get(ctx, s, "/v1/trust", maxTrust, askTimeout)
	if err != nil {
		return nil, err
	}
	t, err := ledger.ParseTrust(raw)
	return t, ledger.Refuse(ledger.CheckTrust, err)
}

// newerTrust looks for a higher version of the trust file when a signature by
// a log or node key did not verify, and takes it when enough of the roots that
// we trust have signed it. It returns nil when there is none.
func (c *Client) newerTrust(ctx context.Context, s *server, old *ledger.Trust, failed error) *ledger.Trust {
	refused, ok := errors.AsType[*ledger.CheckError](failed)
	if !ok || (refused.Check != ledger.CheckHead && refused.Check != ledger.CheckCheckpoint && refused.Check != ledger.CheckNodeSignature) {
		return nil
	}
	raw, err := c.remote.get(ctx, s, "/v1/trust", maxTrust, askTimeout)
	if err != nil || string(raw) == string(old.Raw) {
		return nil
	}
	if same, err := ledger.ParseTrust(raw); err == nil && same.Version <= old.Version {
		return nil // not newer: nothing is offered
	}
	t, err := old.Next(raw)
	if err != nil {
		c.refuse(s.base, ledger.Refuse(ledger.CheckTrust, err), raw)
		return nil
	}
	c.log.Info("sealstone: new version of the trust file", slog.String("origin", t.Origin), slog.Int("version", t.Version))
	c.setTrust(t, false)
	return t
}

// setTrust makes a trust file the one to verify with. With another origin, what
// was known of the log before says nothing about the new one: only what a
// process before this has proven of it does.
func (c *Client) setTrust(t *ledger.Trust, firstUse bool) {
	known, checkpoint := c.remembered(t)
	c.mu.Lock()
	if c.trust != nil && c.trust.Version >= t.Version {
		c.mu.Unlock()
		return // two servers showed it at once
	}
	if c.trust == nil || c.trust.Origin != t.Origin {
		c.known, c.checkpoint = known, checkpoint
		c.saveHeld = len(c.held) > 0 // they are still obeyed, and go by the new origin's key
	}
	c.trust, c.firstUse = t, c.firstUse || firstUse
	filed := []string{c.given, t.Origin} // by a later start with the same file, and with one of this log
	if c.firstUse {
		filed = []string{firstUseMark}
	}
	c.mu.Unlock()
	c.cache.use(t.Origin, c.target)
	c.cache.putTrust(t, slices.Compact(filed))
}

// remembered is what the cache holds of a log: the newest head that was proven.
func (c *Client) remembered(t *ledger.Trust) (known *ledger.Known, checkpoint string) {
	known = &ledger.Known{}
	for _, record := range []string{recordServed, recordSeen} {
		e := c.cache.evidence(t.Origin, c.target, record)
		if e == nil {
			continue
		}
		if p, err := t.Prove(e, c.target.Service, nil); err == nil && p.Tree.Size >= known.Tree.Size {
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
