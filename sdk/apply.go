package sdk

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/open-feature/go-sdk/openfeature"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/flags"
	"github.com/sealstone/sealstone/ledger"
)

// view is all that readers see, behind one pointer: flags, documents and what
// proves them change together or not at all. It is never written after it is
// stored.
type view struct {
	*program
	staged  *staged
	effect  ledger.Effect // Main is the change that named the staged set
	pending string        // time of the statement that the log doesn't have yet, if one made the effect
	docs    []any         // decoded documents, a *T for each Document, in order of registration
}

// effect is what the newest proven chains, and pending statements over them,
// put into effect for the target. c.mu is held.
func (c *Client) effect() (ledger.Effect, bool) {
	if c.proven == nil {
		return ledger.Effect{Mode: api.ModeNormal}, false
	}
	eff, covered := ledger.InEffect(c.chains(), c.target.Scope)
	if !covered && c.before != nil {
		eff, _ = ledger.InEffect(c.before, c.target.Scope)
	}
	return eff, covered
}

// take makes a head the newest that is believed. What the log before had in
// effect, if this one is of another, stays so until this one has something. c.mu
// is held.
func (c *Client) take(p *ledger.Proven) {
	if c.proven != nil && c.proven.Head.Origin != p.Head.Origin {
		c.before = c.chains()
	}
	c.proven = p
}

// succeeded tells which safe mode ended with its log: nobody signed an exit, and
// nobody may have meant one. c.mu is held.
func (c *Client) succeeded(now api.Mode) {
	was, _ := ledger.InEffect(c.before, c.target.Scope)
	c.before = nil
	if was.Mode == api.ModeNormal || was.Mode == now {
		return
	}
	c.ended = fmt.Sprintf("mode %s ended with its log, which %s succeeds: enter it anew if it is needed", was.Mode, c.proven.Head.Origin)
	c.log.Warn("sealstone: a safe mode ended with its log", slog.String("target", c.target.String()), slog.String("mode", string(was.Mode)), slog.String("succeeded_by", c.proven.Head.Origin))
}

// apply makes what is in effect what readers see. c.mu is held.
func (c *Client) apply() {
	if c.staged == nil {
		return
	}
	eff, covered := c.effect()
	c.uncovered, c.lacking = !covered, ""
	if eff.Mode != api.ModeNormal {
		c.ended = ""
	}
	if covered && c.before != nil {
		c.succeeded(eff.Mode)
	}
	c.behind = covered && eff.Main.Set.Digest != c.staged.main.Set.Digest
	pending := c.pendingSince(eff)
	eff.Main = c.staged.main // the set that is there, until a newer one is
	p := c.staged.modes[eff.Mode]
	if p == nil {
		c.lacking = eff.Mode
		eff.Override, eff.Mode, p = nil, api.ModeNormal, c.staged.modes[api.ModeNormal]
		pending = ""
	}
	changed, news := c.swap(&view{program: p, staged: c.staged, effect: eff, pending: pending})
	c.refresh()
	if news {
		c.provider.emit(openfeature.ProviderConfigChange, openfeature.ProviderEventDetails{
			Message: fmt.Sprintf("%s runs %s in mode %s", c.target, p.bundle.Short(), p.mode), FlagChanges: changed})
	}
}

// swap stores the view. news tells that readers may see a difference, and
// changed in which flags. c.mu is held.
func (c *Client) swap(v *view) (changed []string, news bool) {
	old := c.view.Load()
	after := c.decodeDocs(old, v)
	c.view.Store(v)
	if old == nil {
		close(c.ready)
		c.poke(c.reportNow)
		return nil, false
	}
	if old.program == v.program && old.index() == v.index() {
		return nil, false
	}
	c.log.Info("sealstone: applied", slog.String("target", c.target.String()), slog.String("bundle", v.bundle.Short()),
		slog.String("mode", string(v.mode)), slog.Int64("change", v.index()))
	c.poke(c.reportNow)
	if old.program == v.program {
		return nil, false
	}
	c.callbacks.add(after)
	return flags.Changed(old.flags, v.flags), true
}

// index of the change that put the view into effect, -1 for a pending statement.
func (v *view) index() int64 {
	switch {
	case v.pending != "":
		return -1
	case v.effect.Override != nil:
		return v.effect.Override.Index
	}
	return v.effect.Main.Index
}

// since is when that change was recorded, or the pending statement signed.
func (v *view) since() string {
	switch {
	case v.pending != "":
		return v.pending
	case v.effect.Override != nil:
		return v.effect.Override.Recorded
	}
	return v.effect.Main.Recorded
}

// pendingSince is the time of the statement that makes the effect another one
// than the log alone would, "" when none does. c.mu is held.
func (c *Client) pendingSince(eff ledger.Effect) string {
	if o := eff.Override; o != nil {
		if o.Pending {
			return o.Time
		}
		return ""
	}
	logged, _ := ledger.InEffect(c.proven.Chains, c.target.Scope)
	if logged.Override == nil {
		return ""
	}
	for _, h := range c.heldInOrder() { // an exit, of the scope whose mode it ends
		if h.Scope == logged.Override.Scope && h.Kind == ledger.SafeModeExited {
			return h.Time
		}
	}
	return ""
}

// settle notes how a round ended.
func (c *Client) settle(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tell(err)
	c.lastErr = err
	c.refresh()
}

// tell says once that no server gives a good answer, and once that one does
// again: a process that waits to start, or lives on what it has, must not do so
// in silence. c.mu is held.
func (c *Client) tell(err error) {
	switch {
	case err == nil && c.lastErr != nil:
		c.log.Info("sealstone: a server answers again", slog.String("target", c.target.String()))
	case err != nil && (c.lastErr == nil || c.lastErr.Error() != err.Error()):
		c.log.Warn("sealstone: no server gave a good answer; trying again", slog.String("target", c.target.String()), slog.Any("error", err))
	}
}

// refresh works out the state anew and announces a change of it. c.mu is held.
func (c *Client) refresh() {
	state, why := c.judgeState(time.Now())
	if state == c.state && why == c.why {
		return
	}
	was := c.state
	c.state, c.why = state, why
	if state != was && was != api.StateNotReady {
		c.provider.announce(state, why)
		c.log.Info("sealstone: state", slog.String("target", c.target.String()), slog.String("state", string(state)), slog.String("why", why))
	}
	c.poke(c.reportNow)
}

func (c *Client) judgeState(now time.Time) (api.State, string) {
	refused, isRefused := errors.AsType[*ledger.CheckError](c.lastErr)
	switch {
	case c.view.Load() == nil:
		return api.StateNotReady, ""
	case isRefused && lagging(c.lastErr):
		return api.StateStale, "the servers that can be reached are behind: " + api.Clip(refused.Error(), 512)
	case isRefused:
		return api.StateError, "what the servers say was refused: " + api.Clip(refused.Error(), 512)
	case !c.fresh:
		return api.StateStale, "no head since the start of this process: running from " + c.origin
	case now.Sub(c.news).Abs() > ledger.StaleAfter:
		return api.StateStale, c.whyOld(now)
	case c.uncovered:
		return api.StateStale, "no activation covers " + c.target.String() + " any more: keeping what ran last"
	case c.behind && c.lastErr != nil:
		return api.StateStale, "the newest set could not be fetched yet: " + api.Clip(c.lastErr.Error(), 512)
	case c.lacking != "":
		return api.StateReady, fmt.Sprintf("mode %s is in force, but the set has no bundle for it: staying in normal mode", c.lacking)
	}
	return api.StateReady, cmp.Or(c.notObeyed(), c.ended)
}

// hear takes a head's time for what it shows: that the log had nothing newer
// then. The best of all heads counts, so that one with an older time, of a server
// whose clock is behind or replayed by somebody, takes nothing away. One of this
// clock's future shows nothing of now: kept for later it would hide a freeze.
// c.mu is held.
func (c *Client) hear(issued, now time.Time) {
	now = now.Round(0) // by the wall, since clocks are set
	if c.news.After(now) {
		c.news = time.Time{} // this machine's clock was set back
	}
	at := issued
	if at.After(now) {
		at = now
	}
	if issued.Sub(now) <= ledger.StaleAfter && at.After(c.news) {
		c.news = at
	}
}

// whyOld says why no head is news. It names no time that moves with every head,
// since a new text is told and reported. c.mu is held.
func (c *Client) whyOld(now time.Time) string {
	issued := c.proven.Head.Issued
	switch {
	case issued.Sub(now) > ledger.StaleAfter:
		return "heads are of a time that this machine's clock has not reached: its clock is wrong, or the server's"
	case c.lastErr == nil:
		return "servers answer, with heads that are old by this machine's clock: they hold back what is new, or a clock is wrong"
	}
	return "no head since " + api.FormatTime(issued)
}

// notObeyed says which pending statement changes nothing, since its mode isn't
// staged. c.mu is held.
func (c *Client) notObeyed() string {
	for _, h := range c.heldInOrder() {
		if h.Kind != ledger.SafeModeExited && !c.hasMode(h.Mode) {
			return fmt.Sprintf("the statement of %s names mode %s, for which the set has no bundle: it changes nothing until a set has it", h.source, h.Mode)
		}
	}
	return ""
}

// State is READY, STALE or ERROR, in OpenFeature's sense; reads are served in
// every one of them.
func (c *Client) State() api.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}
