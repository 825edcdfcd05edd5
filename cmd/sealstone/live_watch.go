package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sealstone/sealstone/api"
)

// Pauses of live --watch. Reports of instances are no events, so it looks from
// time to time as well.
const (
	lookEvery = 2 * time.Second
	lookGap   = 200 * time.Millisecond
)

// watchLive shows what is live again and again, until ctx ends or the server
// refuses.
func (a *app) watchLive(ctx context.Context, args []string, o liveOptions) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	trust, err := a.rowsTrust(ctx, c, false)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed := make(chan struct{}, 1)
	go c.follow(ctx, args, func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	show, shown := a.watchOutput(o), ""
	for first := true; ; first = false {
		live, _, err := a.provenLive(ctx, c, trust, args, o)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && (first || api.CodeOf(err) != api.CodeUnavailable):
			return err
		case err != nil:
			fmt.Fprintln(a.err, err)
		default:
			if now := essence(live); now != shown || terminal(a.out) {
				shown = now
				if err := show(live); err != nil {
					return err
				}
			}
		}
		wait(ctx, lookGap, nil)
		wait(ctx, lookEvery, changed)
	}
}

func wait(ctx context.Context, d time.Duration, changed <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-changed:
	case <-t.C:
	}
}

// watchOutput redraws a terminal; elsewhere each state is a line of JSON.
func (a *app) watchOutput(o liveOptions) func(api.Live) error {
	if a.output == "table" && terminal(a.out) {
		return func(live api.Live) error {
			var b strings.Builder
			showLive(&b, live, o)
			_, err := fmt.Fprint(a.out, "\x1b[H\x1b[2J", printable(live.Time), "\n", b.String())
			return err
		}
	}
	if a.output == "table" || a.output == "json" {
		a.output = "jsonl"
	}
	return func(live api.Live) error { return a.print(live, func(io.Writer) {}) }
}

// essence is what makes an answer worth a new line: not who was just seen.
func essence(live api.Live) string {
	var b strings.Builder
	enc := json.NewEncoder(&b)
	for _, s := range live.Services {
		for _, sc := range s.Scopes {
			_ = enc.Encode([]any{s.Service, sc.Scope, sc.Proven, sc.Drift, sc.Counts})
		}
	}
	return b.String()
}

// follow calls notify at each event of the server's stream: a service's own, or
// that of all changes. Without the right to one, looking from time to time does.
func (c *client) follow(ctx context.Context, args []string, notify func()) {
	path := "/v1/changes/watch"
	if len(args) > 0 {
		path = "/v1/watch?" + url.Values{"service": {args[0]}}.Encode()
	}
	for ctx.Err() == nil {
		if c.stream(ctx, path, notify) != nil {
			return
		}
		wait(ctx, time.Second, nil)
	}
}

// stream reads one event stream to its end. An error says that trying again is
// no use.
func (c *client) stream(ctx context.Context, path string, notify func()) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+path, nil)
	if err != nil {
		return err
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := (&http.Client{Transport: c.http.Transport}).Do(req)
	if err != nil {
		return nil
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusForbidden || res.StatusCode == http.StatusUnauthorized {
		return fmt.Errorf("%s answered %s", path, res.Status)
	}
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "event:") {
			notify()
		}
	}
	return nil
}
