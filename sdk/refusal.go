package sdk

import (
	"bytes"
	"errors"
	"log/slog"
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
	r := Refusal{Check: refused.Check, Message: api.Clip(refused.Error(), 2048), Time: api.FormatTime(time.Now()), Server: source,
		Evidence: bytes.Clone(evidence[:min(len(evidence), maxRefusalEvidence)])}
	if !c.keepRefusal(&r) {
		return // once is enough for logs and disk
	}
	c.log.Error("sealstone: refused, the last known good stays", slog.String("check", string(r.Check)), slog.String("source", source), slog.String("error", r.Message))
	c.cache.putRefusals(c.Refusals())
	c.poke(c.reportNow)
}

// keepRefusal tells whether the refusal is news. One that comes again with every
// retry is kept as it was first, with the time of the last.
func (c *Client) keepRefusal(r *Refusal) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	r.Checkpoint = c.checkpoint
	again := slices.IndexFunc(c.refusals, func(old Refusal) bool {
		return old.Check == r.Check && old.Server == r.Server && withoutDigits(old.Message) == withoutDigits(r.Message)
	})
	list := slices.Clone(c.refusals)
	if again >= 0 {
		old := list[again]
		old.Time = r.Time
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

// Refusals are the newest things that this process, or with the same cache one
// before it, did not believe, oldest first; at most eight.
func (c *Client) Refusals() []Refusal {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.refusals)
}
