package web

import (
	"net/http"
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"home.arpa/lab/llm-runner/internal/route"
)

// newMetrics returns /metrics: what the ledger, the router and the conversations know, read when it is asked for.
func newMetrics(c Config) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(collector{c}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
}

type collector struct{ Config }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("llm_runner_"+name, help, labels, nil)
}

var (
	buildInfo     = desc("build_info", "The running program.", "version", "go")
	requests      = desc("requests_total", "Attempts that have ended since the start.", "provider", "model", "outcome")
	tokens        = desc("tokens_total", "Tokens that providers told of since the start.", "provider", "model", "direction")
	cost          = desc("cost_usd_total", "What attempts with a known price cost since the start.", "provider", "model")
	providerUp    = desc("provider_up", "Whether a provider answers; no sample while nothing is known.", "provider", "kind")
	active        = desc("provider_active", "Requests under way.", "provider")
	waiting       = desc("provider_waiting", "Requests in line.", "provider")
	quotaLeft     = desc("quota_remaining", "What is left of a rate limit.", "provider", "model", "dimension")
	quotaMax      = desc("quota_limit", "A rate limit.", "provider", "model", "dimension")
	turns         = desc("turns_running", "Answers of conversations under way.")
	ledgerBroken  = desc("ledger_broken", "1 while attempts cannot be written down.")
	allMetricDesc = []*prometheus.Desc{buildInfo, requests, tokens, cost, providerUp, active, waiting, quotaLeft, quotaMax, turns, ledgerBroken}
)

func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range allMetricDesc {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	gauge(buildInfo, 1, c.Version, runtime.Version())
	for s, t := range c.Ledger.Since() {
		counter(requests, float64(t.Requests-t.Errors-t.Busy-t.Cancelled), s.Provider, s.Model, "ok")
		counter(requests, float64(t.Errors), s.Provider, s.Model, "error")
		counter(requests, float64(t.Busy), s.Provider, s.Model, "busy")
		counter(requests, float64(t.Cancelled), s.Provider, s.Model, "cancelled")
		counter(tokens, float64(t.InputTokens), s.Provider, s.Model, "input")
		counter(tokens, float64(t.OutputTokens), s.Provider, s.Model, "output")
		counter(cost, float64(t.CostMicroUSD)/1e6, s.Provider, s.Model)
	}
	for _, r := range c.Router.Reports() {
		if r.Health.Status != route.Unknown {
			gauge(providerUp, truth(r.Health.Status == route.Up), r.Name, r.Kind)
		}
		gauge(active, float64(r.Active), r.Name)
		gauge(waiting, float64(r.Waiting), r.Name)
		for _, q := range r.Quota {
			if n, known := q.Remaining.Get(); known {
				gauge(quotaLeft, float64(n), r.Name, q.Model, q.Dimension)
			}
			if n, known := q.Max.Get(); known {
				gauge(quotaMax, float64(n), r.Name, q.Model, q.Dimension)
			}
		}
	}
	gauge(turns, float64(c.Chats.Running()))
	gauge(ledgerBroken, truth(c.Ledger.Broken() != nil))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
