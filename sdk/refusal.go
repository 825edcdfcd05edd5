package sdk

import (
	"bytes"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sealstone/sealstone/api"
	"github.com/sealstone/sealstone/ledger"
)

// Refusal is something that the client was told and did not believe, with what
// it takes to show it to somebody else.
type Refusal struct {
	Check      ledger.Check `json:"check"` // the check that failed
	Message    string       `json:"message"`
	Time       string       `json:"time"`
	Ended      string       `json:"ended,omitempty"`      // when its cause was gone; "" while it stands
	Server     string       `json:"server,omitempty"`     // or file
	Evidence   []byte       `json:"evidence,omitempty"`   // what was offered, cut to 256 KiB
	Checkpoint string       `json:"checkpoint,omitempty"` // newest that was believed: on a fork, the other half of the proof

	what api.Digest // of what was offered last
	last time.Time  // when, in this process's life
}

// How much is kept of refusals, in memory and in the cache.
const (
	maxRefusals        = 8
	maxRefusalEvidence = 256 << 10
)

// refusalQuiet is how long nothing of the kind must have come from a server, and
// answers must be good, for a refusal to have ended: who watches should see it.
const refusalQuiet = 5 * time.Minute

// refuse keeps a refusal. Errors that are none, such as a network's, pass by.
func (c *Client) refuse(source string, err error, evidence []byte) {
	refused, ok := errors.AsType[*ledger.CheckError](err)
	if !ok {
		return
	}
	r := Refusal{Check: refused.Check, Message: api.Clip(refused.Error(), 2048), Time: api.FormatTime(time.Now()), Server: source,
		Evidence: bytes.Clone(evidence[:min(len(evidence), maxRefusalEvidence)]), what: api.DigestOf(evidence), last: time.Now()}
	if !c.keepRefusal(&r) {
		return // once is enough for logs and disk
	}
	c.log.Error("sealstone: refused, the last known good stays", slog.String("check", string(r.Check)), slog.String("source", source), slog.String("error", r.Message))
	c.cache.putRefusals(c.Refusals())
	c.poke(c.reportNow)
}

// keepRefusal tells whether the refusal is news. One that comes again with every
// retry is kept as it was first, with the time of the last; one that had ended is
// news.
func (c *Client) keepRefusal(r *Refusal) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.Checkpoint = c.checkpoint
	again := slices.IndexFunc(c.refusals, func(old Refusal) bool {
		return old.Ended == "" && old.Check == r.Check && old.Server == r.Server && withoutDigits(old.Message) == withoutDigits(r.Message)
	})
	list := slices.Clone(c.refusals)
	if again >= 0 {
		old := list[again]
		old.Time, old.what, old.last = r.Time, r.what, r.last
		list, r = slices.Delete(list, again, again+1), &old
	}
	list = append(list, *r)
	c.refusals = list[max(0, len(list)-maxRefusals):]
	return again < 0
}

// withoutDigits is what stays the same of a message whose times and sizes grow.
func withoutDigits(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, s)
}

// offeredAgain notes that what was refused is still there, though nobody judges
// the same bytes twice.
func (c *Client) offeredAgain(source string, what api.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.refusals {
		if r := &c.refusals[i]; r.Server == source && r.what == what {
			r.last = time.Now()
		}
	}
}

// endRefusals ends those whose cause is gone. They are kept: as evidence.
func (c *Client) endRefusals(gone func(*Refusal) bool) {
	ended := false
	c.mu.Lock()
	for i := range c.refusals {
		if r := &c.refusals[i]; r.Ended == "" && gone(r) {
			r.Ended, ended = api.FormatTime(time.Now()), true
			delete(c.seen, r.what) // should it come back, it is judged anew
			c.log.Info("sealstone: what was refused is gone", slog.String("check", string(r.Check)), slog.String("source", r.Server))
		}
	}
	c.mu.Unlock()
	if ended {
		c.cache.putRefusals(c.Refusals())
		c.poke(c.reportNow)
	}
}

// endAnswers ends refusals of what servers said, after a round that went well.
func (c *Client) endAnswers() {
	quiet := time.Now().Add(-refusalQuiet)
	c.endRefusals(func(r *Refusal) bool { return !c.isOverride(r.Server) && r.last.Before(quiet) })
}

// endFiles ends refusals of files that a pass over the override directory, begun
// then, did not meet any more.
func (c *Client) endFiles(began time.Time) {
	c.endRefusals(func(r *Refusal) bool { return c.isOverride(r.Server) && r.last.Before(began) })
}

func (c *Client) isOverride(source string) bool {
	return c.cfg.OverrideDir != "" && filepath.Dir(source) == filepath.Clean(c.cfg.OverrideDir)
}

// standing is the newest refusal whose cause isn't gone, or nil. c.mu is held.
func (c *Client) standing() *Refusal {
	for _, r := range slices.Backward(c.refusals) {
		if r.Ended == "" {
			return &r
		}
	}
	return nil
}

// Refusals are the newest things that this process, or with the same cache one
// before it, did not believe, oldest first; at most eight. Those that ended stay
// until newer ones need the room.
func (c *Client) Refusals() []Refusal {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.refusals)
}
