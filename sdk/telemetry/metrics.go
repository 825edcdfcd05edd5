package telemetry

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sealstone/sealstone/api"
)

// Other is the label of bundles that have none of their own any more.
const Other = "other"

// requests are the metrics of what this process serves and calls. Only the
// newest bundles have series of their own, so that a process that lives through
// any number of changes has a bounded number of series; the series of older
// ones are dropped, and what they still finish is counted as Other.
type requests struct {
	server, client meter

	mu     sync.RWMutex // held for reading while counting, for writing to drop series
	max    int
	newest []string // labels, newest last
}

type meter struct {
	all     *requests
	total   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

func newRequests(cfg *Config, me api.Instance) (*requests, error) {
	reg := cfg.Registerer
	if reg == nil {
		reg = prometheus.DefaultRegisterer
	}
	r := &requests{max: cfg.MaxBundles}
	labels := constLabels(me)
	r.server = r.meter("sealstone_requests", "requests that this process served", labels, cfg.Buckets)
	r.client = r.meter("sealstone_client_requests", "requests that this process sent to other services", labels, cfg.Buckets)
	for _, c := range []prometheus.Collector{r.server.total, r.server.seconds, r.client.total, r.client.seconds} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("telemetry of %s: %w; make one for each target, or give each a registry of its own", me.Target, err)
		}
	}
	return r, nil
}

func (r *requests) meter(name, what string, labels prometheus.Labels, buckets []float64) meter {
	vary := []string{"outcome", "bundle"}
	return meter{
		all:     r,
		total:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: name + "_total", Help: "Number of " + what + ".", ConstLabels: labels}, vary),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name + "_seconds", Help: "Duration of " + what + ".", ConstLabels: labels, Buckets: buckets}, vary),
	}
}

// constLabels are what doesn't change in the life of a process. A scope that is
// deeper than a pool counts to the pool's name.
func constLabels(me api.Instance) prometheus.Labels {
	place := strings.SplitN(string(me.Target.Scope), "/", 3)
	place = append(place, "", "")
	return prometheus.Labels{"service": me.Target.Service, "env": place[0], "region": place[1], "pool": place[2], "artifact": short(api.Digest(me.Artifact))}
}

// admit gives a bundle a label of its own.
func (r *requests) admit(label string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.newest = append(slices.DeleteFunc(r.newest, func(l string) bool { return l == label }), label)
	for len(r.newest) > r.max {
		gone := prometheus.Labels{"bundle": r.newest[0]}
		for _, m := range []meter{r.server, r.client} {
			m.total.DeletePartialMatch(gone)
			m.seconds.DeletePartialMatch(gone)
		}
		r.newest = r.newest[1:]
	}
}

// observe counts a request that ended with a status code, 0 for none.
func (m *meter) observe(label string, code int, took time.Duration) {
	m.all.mu.RLock()
	defer m.all.mu.RUnlock()
	if !slices.Contains(m.all.newest, label) {
		label = Other
	}
	m.total.WithLabelValues(outcome(code), label).Inc()
	m.seconds.WithLabelValues(outcome(code), label).Observe(took.Seconds())
}

func outcome(code int) string {
	switch {
	case code == 0:
		return "no_answer"
	case code < 400:
		return "success"
	case code < 500:
		return "client_error"
	}
	return "server_error"
}
