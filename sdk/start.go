package sdk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// loadCache proves and stages what an earlier process left. Without a servable
// set it may still leave what is known, below which no server can take us.
func (c *Client) loadCache(ctx context.Context) {
	if c.trust == nil || c.cache == nil {
		return
	}
	c.cache.use(c.trust.Origin, c.target)
	c.refusals = c.cache.refusals()
	c.held = c.cache.held()
	c.loadServed(ctx, c.trust)
	if c.former != nil && c.staged == nil { // of the log that succeeded it there is nothing yet
		c.loadServed(ctx, c.former)
	}
	if seen := c.cache.evidence(c.trust.Origin, c.target, recordSeen); seen != nil {
		if p, err := c.trust.Past().Prove(seen, c.target.Service, nil); err == nil && p.Tree.Size >= c.known.Tree.Size {
			c.known, c.checkpoint = p.Known(), seen.Checkpoint
			if c.proven != nil {
				c.take(p) // its modes count, on the set before
			}
		}
	}
	if c.cacheNote != "" && c.known.Tree.Size == 0 {
		c.cacheNote += "; this process remembers nothing that was proven before"
	}
}

func (c *Client) loadServed(ctx context.Context, trust *ledger.Trust) {
	served := c.cache.evidence(trust.Origin, c.target, recordServed)
	if served == nil {
		return
	}
	if err := c.loadStored(ctx, trust, served, c.cache.object); err != nil {
		c.cacheNote = "could not be used: " + err.Error()
		c.log.Warn("sealstone: the cache does not verify and is passed over", slog.String("path", c.cache.path()), slog.Any("error", err))
	}
}

// loadStored verifies stored evidence and stages its set from stored objects,
// by the same code that judges a server.
func (c *Client) loadStored(ctx context.Context, trust *ledger.Trust, e *ledger.Evidence, local func(api.Digest) ([]byte, bool)) error {
	p, err := trust.Past().Prove(e, c.target.Service, nil)
	if err != nil {
		return err
	}
	c.mu.Lock()
	if c.known.Tree.Size == 0 && trust.Origin == c.trust.Origin {
		c.known, c.checkpoint = p.Known(), e.Checkpoint
	}
	c.mu.Unlock()
	eff, ok := ledger.InEffect(p.Chains, c.target.Scope)
	if !ok {
		return notActivated(c.target, p.Chains)
	}
	s := &stager{target: c.target, local: local, fetch: notHere}
	st, err := s.stage(ctx, eff.Main)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.staged != nil {
		return nil // the servers were faster
	}
	c.staged = st
	if !c.fresh { // else a head is here, and only its set is missing
		c.proven, c.evidence, c.evidenceSet = p, e, st.main.Set.Digest
	}
	if c.cache == nil {
		c.memory = s.collected()
	}
	return nil
}

// start waits until there is something to serve: a fresh head, else the cache,
// else the fallback, else until ctx ends.
func (c *Client) start(ctx context.Context) error {
	wait := time.NewTimer(c.cfg.StartWait)
	defer wait.Stop()
	select {
	case <-c.ready:
		return nil
	case <-c.tried: // failed, so there is nothing to wait for; or it was good
	case <-wait.C:
	case <-ctx.Done():
	}
	if c.startFrom("its cache") {
		return nil
	}
	if c.cfg.Fallback != "" {
		if err := c.loadFallback(ctx); err != nil {
			c.log.Warn("sealstone: fallback", slog.Any("error", err))
		} else if c.startFrom("its fallback") {
			return nil
		}
	}
	select {
	case <-c.ready:
		return nil
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		return fmt.Errorf("no bundle for %s: %w", c.target, errors.Join(context.Cause(ctx), c.lastErr))
	}
}

// startFrom serves what is staged, if anything is.
func (c *Client) startFrom(origin string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.view.Load() == nil {
		c.origin = origin
		c.apply()
	}
	return c.view.Load() != nil
}
