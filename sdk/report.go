package sdk

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"log/slog"
	"net/url"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/sealstone/sealstone/api"
)

// Version of the SDK, as reports and requests tell it.
const Version = "0.1.0"

// report tells a server what runs here: at the start, when something changed,
// and as a heartbeat. What is reported is an observation, not evidence, and
// losing a report loses nothing else.
func (c *Client) report(ctx context.Context) {
	me, deps := c.identity()
	for {
		select {
		case <-c.ready:
			c.sendReport(ctx, me, deps)
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

// sendReport tells the first server that listens. The list of dependencies
// goes along only when that server doesn't know it yet.
func (c *Client) sendReport(ctx context.Context, me api.Instance, deps []string) {
	in := c.describe(me)
	for _, s := range c.remote.servers {
		if ctx.Err() != nil {
			return
		}
		want, err := c.postReport(ctx, s, in)
		if err == nil && want {
			in.DepList = deps
			_, err = c.postReport(ctx, s, in)
		}
		if err == nil {
			return
		}
		c.log.Debug("sealstone: report", slog.String("server", s.base), slog.Any("error", err))
	}
}

func (c *Client) postReport(ctx context.Context, s *server, in api.Instance) (wantDeps bool, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return false, err
	}
	b, err := c.remote.post(ctx, s, "/v1/instances", body)
	var answer api.ReportAnswer
	if err != nil || len(b) == 0 || json.Unmarshal(b, &answer) != nil { // an older server, or no Sealstone at all
		return false, err
	}
	return slices.Contains(answer.Want, api.WantDependencies), nil
}

// identity is what doesn't change in the life of the process, and the list of
// dependencies that its digest names.
func (c *Client) identity() (me api.Instance, deps []string) {
	i := c.cfg.Instance
	me = api.Instance{Target: c.target, ID: i.ID, Version: i.Version, Revision: i.Revision, Artifact: i.Artifact, Image: i.Image,
		BaseImage: i.BaseImage, SBOM: i.SBOM, SDK: Version, Started: api.FormatTime(time.Now())}
	if me.Artifact == "" {
		me.Artifact = executableDigest()
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return me, nil
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
	deps = dependencies(info)
	me.Deps = api.DependenciesDigest(deps)
	return me, deps
}

// dependencies lists what the build says that it is made of, as package URLs. A
// module that is replaced stands there without a version, beside what replaces it.
func dependencies(info *debug.BuildInfo) []string {
	goVersion, _, _ := strings.Cut(strings.TrimPrefix(info.GoVersion, "go"), " ")
	list := []string{"pkg:golang/stdlib@v" + goVersion}
	for _, d := range info.Deps {
		if r := d.Replace; r != nil { // whoever asks for the name must not find nothing
			list = append(list, "pkg:golang/"+d.Path+"@")
			if d = r; r.Version == "" { // a folder
				continue
			}
		}
		list = append(list, "pkg:golang/"+d.Path+"@"+strings.ReplaceAll(d.Version, "+", "%2B"))
	}
	slices.Sort(list)
	return list
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
		me.Refusal = &api.Refusal{Check: string(r.Check), Message: api.Clip(r.Message, 512), Time: r.Time, Source: api.Clip(redacted(r.Server), 256)}
	}
	return me
}

// redacted takes the password out of a server's address.
func redacted(source string) string {
	if u, err := url.Parse(source); err == nil && u.User != nil {
		return u.Redacted()
	}
	return source
}
