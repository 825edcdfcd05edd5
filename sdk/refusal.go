package sdk

import (
	"bytes"
	"errors"
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
	Server     string       `json:"server,omitempty"`     // or file
	Evidence   []byte       `json:"evidence,omitempty"`   // what was offered, cut to 256 KiB
	Checkpoint string       `json:"checkpoint,omitempty"` // newest that was believed: on a fork, the other half of the proof
}

// How much is kept of refusals, in memory and in the cache.
const (
	maxRefusals        = 8
	maxRefusalEvidence = 256 << 10
)

// refuse keeps a refusal. Errors that are none, such as a network's, pass by.
func (c *Client) refuse(source string, err error, evidence []byte) {
	refused, ok := errors.AsType[*ledger.CheckError](err)
	if !ok {
		return
	}
	r := Refusal{Check: refused.Check, Message: clip(refused.Error(), 2048), Time: api.FormatTime(time.Now()), Server: source,
		Evidence: bytes.Clone(evidence[:min(len(evidence), maxRefusalEvidence)])}
	if !c.keepRefusal(&r) {
		return // the same as last time: once is enough for logs and disk
	}
	c.log.Error("sealstone: refused, the last known good stays", "check", string(r.Check), "source", source, "error", r.Message)
	c.cache.putRefusals(c.Refusals())
	c.poke(c.reportNow)
}

// keepRefusal tells whether the refusal is news.
func (c *Client) keepRefusal(r *Refusal) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.Checkpoint = c.checkpoint
	if n := len(c.refusals); n > 0 {
		if last := &c.refusals[n-1]; last.Check == r.Check && last.Message == r.Message && last.Server == r.Server {
			last.Time = r.Time
			return false
		}
	}
	c.refusals = append(c.refusals, *r)
	c.refusals = c.refusals[max(0, len(c.refusals)-maxRefusals):]
	return true
}

// Refusals are the newest things that this process, or with the same cache one
// before it, did not believe, oldest first; at most eight.
func (c *Client) Refusals() []Refusal {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Refusal(nil), c.refusals...)
}

func clip(s string, limit int) string {
	if len(s) > limit {
		return s[:limit-3] + "..."
	}
	return s
}

func isRefusal(err error) bool {
	_, ok := errors.AsType[*ledger.CheckError](err)
	return ok
}
