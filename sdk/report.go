package sdk

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/sealstone/sealstone/api"
)

// Version of the SDK, as reports and requests tell it.
const Version = "0.1.0"

// report tells a server what runs here: at the start, when something changed,
// and as a heartbeat. What is reported is an observation, not evidence, and
// losing a report loses nothing else.
func (c *Client) report(ctx context.Context) {
	me := c.identity()
	for {
		select {
		case <-c.ready:
			c.sendReport(ctx, me)
		default: // nothing runs yet
		}
		t := time.NewTimer(jitter(c.cfg.ReportEvery))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-c.reportNow:
		case <-t.C:
		}
		t.Stop()
		if !sleep(ctx, minGap) { // what happens together is told together
			return
		}
	}
}

func (c *Client) sendReport(ctx context.Context, me api.Instance) {
	body, err := json.Marshal(c.describe(me))
	for _, s := range c.remote.servers {
		if err != nil || ctx.Err() != nil {
			break
		}
		e := c.remote.post(ctx, s, "/v1/instances", body)
		if e == nil {
			return
		}
		c.log.Debug("sealstone: report", slog.String("server", s.base), slog.Any("error", e))
	}
}

// identity is what doesn't change in the life of the process.
func (c *Client) identity() api.Instance {
	i := c.cfg.Instance
	me := api.Instance{Target: c.target, ID: i.ID, Version: i.Version, Revision: i.Revision, Artifact: i.Artifact, Image: i.Image,
		BaseImage: i.BaseImage, SDK: Version, Started: api.FormatTime(time.Now())}
	if me.Artifact == "" {
		me.Artifact = executableDigest()
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return me
	}
	if me.Version == "" && info.Main.Version != "(devel)" {
		me.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision" && me.Revision == "":
			me.Revision = s.Value
		case s.Key == "vcs.modified":
			me.Modified = s.Value == "true"
		}
	}
	return me
}

// executableDigest names the running file; "" when it can't be read.
func executableDigest() string {
	path, err := os.Executable()
	if err != nil {
		return ""
	}
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return ""
	}
	return string(api.DigestFromSum([32]byte(h.Sum(nil))))
}

// describe adds what runs now.
func (c *Client) describe(me api.Instance) api.Instance {
	l := c.Live()
	me.Bundle, me.Set, me.Mode, me.Index, me.LogSize, me.HeadAt = l.Bundle, l.Set, l.Mode, l.Index, l.LogSize, l.Issued
	me.State, me.SafeModes, me.FirstUse = l.State, l.SafeModes, l.FirstUse
	if r := l.Refusal; r != nil {
		me.Refusal = &api.Refusal{Check: string(r.Check), Message: clip(r.Message, 512), Time: r.Time}
	}
	return me
}
