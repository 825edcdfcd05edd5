package server

import (
	"cmp"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/sealstone/sealstone/api"
)

// metrics are made from the published snapshot when scraped; only what has no
// home there is counted as it happens.
type metrics struct {
	registry     *prometheus.Registry
	rounds       *prometheus.CounterVec
	roundSeconds prometheus.Histogram
	requests     *prometheus.CounterVec
	seconds      *prometheus.HistogramVec
}

func newMetrics(s *Server) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		rounds: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sealstone_source_rounds_total",
			Help: "Rounds of the reconcile loop by outcome."}, []string{"outcome"}),
		roundSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "sealstone_source_round_seconds",
			Help: "Duration of successful rounds, fetch to publish, in seconds.", Buckets: prometheus.ExponentialBuckets(0.002, 2, 14)}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sealstone_http_requests_total",
			Help: "Answers by route and status."}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "sealstone_http_request_seconds",
			Help: "Duration of requests in seconds, streams aside.", Buckets: prometheus.ExponentialBuckets(0.0005, 3, 10)}, []string{"route"}),
	}
	m.registry.MustRegister(m.rounds, m.roundSeconds, m.requests, m.seconds, &collector{s},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// count is the middleware. Routes, not paths, are labels: they are bounded.
func (m *metrics) count(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		start := time.Now()
		err := next(c)
		if err != nil {
			c.Error(err)
		}
		route := c.Path()
		m.requests.WithLabelValues(route, strconv.Itoa(c.Response().Status)).Inc()
		if t := c.Response().Header().Get(echo.HeaderContentType); t != eventStream.contentType && t != jsonLines.contentType {
			m.seconds.WithLabelValues(route).Observe(time.Since(start).Seconds())
		}
		return nil
	}
}

// collector reads the server at scrape time.
type collector struct{ s *Server }

var (
	descSuccess  = prometheus.NewDesc("sealstone_source_last_success_timestamp_seconds", "Unix time of the last successful round; 0 before the first.", nil, nil)
	descSize     = prometheus.NewDesc("sealstone_ledger_size", "Changes in the published log.", nil, nil)
	descWrites   = prometheus.NewDesc("sealstone_ledger_writable", "1 when the ledger takes changes.", nil, nil)
	descDamaged  = prometheus.NewDesc("sealstone_damaged_sets", "Sets in effect that lack objects, or have damaged ones, and could not be made whole.", nil, nil)
	descDetails  = prometheus.NewDesc("sealstone_damaged_details", "Details of changes that were found damaged or lost when they were read last, though nothing erased them.", nil, nil)
	descPending  = prometheus.NewDesc("sealstone_pending_statements", "Safe-mode statements that the log could not take yet.", nil, nil)
	descWatch    = prometheus.NewDesc("sealstone_watchers", "Open watch streams.", nil, nil)
	descReject   = prometheus.NewDesc("sealstone_bundle_rejected", "1 for a service that stays at its last good set.", []string{"service"}, nil)
	descActive   = prometheus.NewDesc("sealstone_bundle_activated_timestamp_seconds", "Unix time at which the set in force was activated.", []string{"service", "scope", "set"}, nil)
	descMode     = prometheus.NewDesc("sealstone_safe_mode", "1 for a safe mode in force, 2 when it is overdue.", []string{"service", "scope", "mode"}, nil)
	descLive     = prometheus.NewDesc("sealstone_instances", "Instances that report, by target, state and lease.", []string{"service", "scope", "state", "lease"}, nil)
	descLiveInfo = prometheus.NewDesc("sealstone_live_info", "Instances that are not gone, by what they report to run.", []string{"service", "scope", "mode", "bundle", "artifact"}, nil)
	descDrift    = prometheus.NewDesc("sealstone_drift", "Instances that differ from what the log proves, by kind of difference.", []string{"service", "scope", "kind"}, nil)
	descDropped  = prometheus.NewDesc("sealstone_instance_intervals_dropped_total", "Intervals of instances that were too many to keep: the past has gaps.", nil, nil)
	descInfo     = prometheus.NewDesc("sealstone_build_info", "1, with the server's version.", []string{"version"}, nil)
)

// Describe sends nothing: series come and go with services.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { ch <- descSize }

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s := c.s
	snap := s.store.Snapshot()
	src := s.source.snapshot()
	gauge(descSize, float64(snap.Tree.Size))
	gauge(descSuccess, unix(src.success))
	gauge(descWrites, flag(s.store.Writes() == nil))
	gauge(descDamaged, float64(len(s.damaged())))
	lost, _ := s.store.LostDetails()
	gauge(descDetails, float64(lost))
	gauge(descPending, float64(len(s.pending.all())))
	gauge(descWatch, float64(s.hub.count()))
	gauge(descInfo, 1, s.cfg.Version)
	ch <- prometheus.MustNewConstMetric(descDropped, prometheus.CounterValue, float64(s.live.Dropped()))
	for _, r := range src.now.Rejected {
		gauge(descReject, 1, r.Service)
	}
	for name, chain := range snap.State.Active() {
		at, _ := api.ParseTime(chain.Recorded)
		gauge(descActive, unix(at), name, string(chain.Scope), chain.Set.Digest.Hex()[:12])
	}
	for _, h := range s.held("") {
		gauge(descMode, 1+flag(h.Overdue), h.Service, string(h.Scope), string(h.Mode))
	}
	c.instances(gauge)
}

// instances counts what is reported, and how it differs from what is proven.
func (c *collector) instances(gauge func(*prometheus.Desc, float64, ...string)) {
	type key [5]string
	byLease, info, drift := map[key]int{}, map[key]int{}, map[key]int{}
	st := c.s.store.Snapshot().State
	seen, _ := c.s.observe(&liveView{st: st, now: time.Now()}, "", func(string) bool { return true }) // of now, nothing can fail
	for service, scopes := range seen.scopes {
		for scope, reports := range scopes {
			t := api.Target{Service: service, Scope: scope}
			var proven *api.Proven
			if eff, err := c.s.resolveIn(c.s.pending.over(st, service), t); err == nil {
				proven = &api.Proven{Bundle: eff.Entry.Digest}
			}
			at := [2]string{service, string(scope)}
			for r, n := range reports {
				byLease[key{at[0], at[1], string(r.state), r.lease}] += n
				if r.lease != "gone" {
					info[key{at[0], at[1], string(r.facts.Mode), label(r.facts.Bundle), label(api.Digest(r.facts.Artifact))}] += n
				}
				for _, d := range c.s.drift(seen, proven, r) {
					drift[key{at[0], at[1], d.kind}] += n
				}
			}
		}
	}
	emit := func(d *prometheus.Desc, m map[key]int, labels int) {
		for k, n := range capped(m) {
			gauge(d, float64(n), k[:labels]...)
		}
	}
	emit(descLive, byLease, 4)
	emit(descLiveInfo, info, 5)
	emit(descDrift, drift, 3)
}

// maxSeries bounds the series of a metric that reports can add to: the rest is
// one series of others.
const maxSeries = 1000

func capped[K ~[5]string](m map[K]int) map[K]int {
	if len(m) <= maxSeries {
		return m
	}
	out, other := map[K]int{}, K{"other", "other", "other", "other", "other"}
	keys := slices.SortedFunc(maps.Keys(m), func(a, b K) int { return cmp.Or(cmp.Compare(m[b], m[a]), slices.Compare(a[:], b[:])) })
	for i, k := range keys {
		if i >= maxSeries {
			k = other
		}
		out[k] += m[keys[i]]
	}
	return out
}

// label shortens a digest to 12 hex digits. What is no digest is not passed on.
func label(d api.Digest) string {
	if !d.Valid() {
		return "unknown"
	}
	return d.Hex()[:12]
}

func unix(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
