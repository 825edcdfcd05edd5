package main

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
)

// question is one that an operator has, and the command that answers it.
type question struct {
	words, command string
	ask            func(*app, context.Context) error
}

// questions are the five that Sealstone is there for.
var questions = []question{
	{"Which artifact serves each region?", "live images --service checkout", func(a *app, ctx context.Context) error {
		return a.liveArtifacts(ctx, url.Values{"service": {"checkout"}})
	}},
	{"Which bundle is active?", "live checkout", func(a *app, ctx context.Context) error {
		_, err := a.live(ctx, []string{"checkout"}, liveOptions{instances: -1})
		return err
	}},
	{"Which flags are on?", "live flags " + demoTarget, func(a *app, ctx context.Context) error { return a.liveFlags(ctx, demoTarget) }},
	{"Which dependency versions and base images are live?", "live deps stdlib --service payments", func(a *app, ctx context.Context) error {
		return a.liveArtifacts(ctx, url.Values{"service": {"payments"}, "dependency": {"stdlib"}})
	}},
	{"Which change goes with the impact?", "history " + demoTarget, func(a *app, ctx context.Context) error {
		return a.history(ctx, demoTarget, historyOptions{limit: historyRows})
	}},
}

const demoTarget = "checkout@prod/eu-west-1"

// askAll asks the questions, once all instances reported the newest state.
func (d *demo) askAll(ctx context.Context) error {
	settled := func() bool {
		var out bytes.Buffer
		drifts, err := d.sre(&out).live(ctx, nil, liveOptions{instances: -1})
		return err == nil && !drifts && len(d.node.server.Status().SafeModes) == 1
	}
	if err := eventually(ctx, "instances report what the log proves", settled); err != nil {
		return err
	}
	for _, q := range questions {
		d.say("# %s", q.words)
		d.say("$ sealstone %s", q.command)
		var out bytes.Buffer
		if err := q.ask(d.sre(&out), ctx); err != nil {
			return err
		}
		d.show(&out)
	}
	return d.sayImpact(ctx)
}

// sayImpact shows, beside the changes, what buyers saw under each bundle: the
// service's own metric, as Prometheus scrapes it.
func (d *demo) sayImpact(ctx context.Context) error {
	c, err := d.client()
	if err != nil {
		return err
	}
	h, err := c.history(ctx, url.Values{"target": {demoTarget}}, historyRows)
	if err != nil {
		return err
	}
	counts, err := d.service(demoTarget).requests()
	if err != nil {
		return err
	}
	d.say("sealstone_requests_total of its /metrics, by bundle")
	var rows [][]string
	for _, i := range h.Intervals {
		n := counts[i.Bundle.Hex()[:12]]
		rows = append(rows, []string{i.Bundle.Short(), fmt.Sprint(i.Index), fmt.Sprint(n.all), fmt.Sprint(n.failed)})
	}
	var out bytes.Buffer
	table(&out, "BUNDLE ENTRY REQUESTS FAILED", rows)
	d.show(&out)
	return nil
}

type requestCount struct{ all, failed int }

// requests counts what a service answered, by the bundle it ran.
func (s *demoService) requests() (map[string]requestCount, error) {
	families, err := s.metrics.Gather()
	counts := map[string]requestCount{}
	for _, f := range families {
		if f.GetName() != "sealstone_requests_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			n, c := int(m.GetCounter().GetValue()), counts[labels["bundle"]]
			c.all += n
			if labels["outcome"] == "server_error" {
				c.failed += n
			}
			counts[labels["bundle"]] = c
		}
	}
	return counts, err
}
