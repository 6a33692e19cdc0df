package web

import (
	"cmp"
	"context"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/usage"
)

// newMetrics returns /metrics: what the ledger, the router and the others know, read when it is asked for. Labels have few values: providers
// and limits are configured, models of a provider are bounded by the ledger.
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
	buildInfo    = desc("build_info", "The running program.", "version", "go")
	requests     = desc("requests_total", "Attempts that have ended since the start.", "provider", "model", "outcome")
	faults       = desc("errors_total", "Attempts that failed or were refused since the start, by the kind of error.", "provider", "model", "kind")
	tokens       = desc("tokens_total", "Tokens that providers told of since the start.", "provider", "model", "direction")
	cost         = desc("cost_usd_total", "What attempts with a known price cost since the start.", "provider", "model")
	duration     = desc("request_duration_seconds", "How long whole answers took.", "provider", "model")
	firstToken   = desc("first_token_seconds", "How long it took until an answer began.", "provider", "model")
	providerUp   = desc("provider_up", "Whether a provider answers; no sample while nothing is known.", "provider", "kind")
	active       = desc("provider_active", "Requests under way.", "provider")
	waiting      = desc("provider_waiting", "Requests in line.", "provider")
	quotaLeft    = desc("quota_remaining", "What is left of a rate limit.", "provider", "model", "dimension")
	quotaMax     = desc("quota_limit", "A rate limit.", "provider", "model", "dimension")
	turns        = desc("turns_running", "Answers of conversations under way.")
	ledgerBroken = desc("ledger_broken", "1 while attempts cannot be written down.")
	dbBroken     = desc("database_broken", "1 while the database cannot be written, or does not answer.")

	jobCount  = desc("jobs", "Jobs that have not ended, by state and by the provider that held ones wait for.", "state", "waits_for")
	jobOldest = desc("jobs_oldest_seconds", "How long the oldest of them has been in its state.", "state", "waits_for")

	libraryNotes   = desc("library_notes", "Notes in the index.")
	librarySkipped = desc("library_skipped", "Files that are left out, or of which a part is.")
	librarySynced  = desc("library_synced_timestamp_seconds", "When the index was last as the folder is.")
	libraryBroken  = desc("library_broken", "1 while the folder cannot be read.")

	incidentsOpen = desc("incidents_open", "Incidents that last, by the first word of their key.", "kind")

	agentOverdue = desc("agent_overdue_seconds", "How long ago the oldest time was due that nothing has come of yet; 0 where the agent keeps up or rests.", "agent")
	agentDone    = desc("agent_last_success_timestamp_seconds", "When a run of it ended well, dry ones aside.", "agent")
	undelivered  = desc("alerts_undelivered", "Alerts that are to be told and are not yet, by who passes them on.", "sink")

	tracesSent    = desc("traces_sent_total", "Spans that the receiver has taken since the start.")
	tracesDropped = desc("traces_dropped_total", "Spans that were lost since the start.")
	tracesWaiting = desc("traces_waiting", "Spans that wait to be sent.")

	allMetricDesc = []*prometheus.Desc{buildInfo, requests, faults, tokens, cost, duration, firstToken, providerUp, active, waiting, quotaLeft, quotaMax, turns, ledgerBroken,
		dbBroken, jobCount, jobOldest, libraryNotes, librarySkipped, librarySynced, libraryBroken, incidentsOpen, agentOverdue, agentDone, undelivered, tracesSent, tracesDropped, tracesWaiting}
)

func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range allMetricDesc {
		ch <- d
	}
}

// A sink of metrics.
type sink chan<- prometheus.Metric

func (ch sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (ch sink) counter(d *prometheus.Desc, v float64, labels ...string) {
	ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func (ch sink) histogram(d *prometheus.Desc, h usage.Histogram, labels ...string) {
	buckets := make(map[float64]uint64, len(usage.Bounds))
	for i, bound := range usage.Bounds {
		buckets[bound] = h.Upto[i]
	}
	ch <- prometheus.MustNewConstHistogram(d, h.Count, h.Seconds, buckets, labels...)
}

func (c collector) Collect(metrics chan<- prometheus.Metric) {
	ch := sink(metrics)
	ch.gauge(buildInfo, 1, c.Version, runtime.Version())
	c.attempts(ch)
	c.providers(ch)
	if c.Chats != nil {
		ch.gauge(turns, float64(c.Chats.Running()))
	}
	ch.gauge(ledgerBroken, truth(c.Ledger.Broken() != nil))
	ch.gauge(dbBroken, truth(c.DB != nil && cmp.Or(c.DB.Trouble(), c.DB.Away()) != nil))
	c.jobs(ch)
	c.agents(ch)
	if c.Library != nil {
		s := c.Library.Status()
		ch.gauge(libraryNotes, float64(s.Notes))
		ch.gauge(librarySkipped, float64(len(s.Skipped)+len(s.Partly)))
		ch.gauge(libraryBroken, truth(s.Error != ""))
		if !s.Synced.IsZero() {
			ch.gauge(librarySynced, float64(s.Synced.Unix()))
		}
	}
	c.told(ch)
	if s, ok := c.Traces.Stats(); ok {
		ch.counter(tracesSent, float64(s.Sent))
		ch.counter(tracesDropped, float64(s.Dropped))
		ch.gauge(tracesWaiting, float64(s.Waiting))
	}
}

func (c collector) attempts(ch sink) {
	for s, t := range c.Ledger.Since() {
		ch.counter(requests, float64(t.Requests-t.Errors-t.Busy-t.Cancelled), s.Provider, s.Model, "ok")
		ch.counter(requests, float64(t.Errors), s.Provider, s.Model, "error")
		ch.counter(requests, float64(t.Busy), s.Provider, s.Model, "busy")
		ch.counter(requests, float64(t.Cancelled), s.Provider, s.Model, "cancelled")
		ch.counter(tokens, float64(t.InputTokens), s.Provider, s.Model, "input")
		ch.counter(tokens, float64(t.OutputTokens), s.Provider, s.Model, "output")
		ch.counter(cost, float64(t.CostMicroUSD)/1e6, s.Provider, s.Model)
		for kind, n := range t.Kinds {
			ch.counter(faults, float64(n), s.Provider, s.Model, string(kind))
		}
		ch.histogram(duration, t.Total, s.Provider, s.Model)
		ch.histogram(firstToken, t.First, s.Provider, s.Model)
	}
}

func (c collector) providers(ch sink) {
	for _, r := range c.Router.Reports() {
		if r.Health.Status != route.Unknown {
			ch.gauge(providerUp, truth(r.Health.Status == route.Up), r.Name, r.Kind)
		}
		ch.gauge(active, float64(r.Active), r.Name)
		ch.gauge(waiting, float64(r.Waiting), r.Name)
		for _, q := range r.Quota {
			if n, known := q.Remaining.Get(); known {
				ch.gauge(quotaLeft, float64(n), r.Name, q.Model, q.Dimension)
			}
			if n, known := q.Max.Get(); known {
				ch.gauge(quotaMax, float64(n), r.Name, q.Model, q.Dimension)
			}
		}
	}
}

// jobs asks the database, for a moment: with several processes no memory knows. A database that does not answer leaves them out.
func (c collector) jobs(ch sink) {
	if c.Jobs == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	depths, err := c.Jobs.Depths(ctx)
	if err != nil {
		return
	}
	for _, d := range depths {
		ch.gauge(jobCount, float64(d.Jobs), string(d.State), d.WaitsFor)
		age := 0.0
		if d.Jobs > 0 {
			age = max(time.Since(d.Oldest), 0).Seconds()
		}
		ch.gauge(jobOldest, age, string(d.State), d.WaitsFor)
	}
}

// agents asks the database and the files, for a moment, as jobs does.
func (c collector) agents(ch sink) {
	if c.Agents == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	all, err := c.Agents.Standings(ctx)
	if err != nil {
		return
	}
	for _, x := range all {
		ch.gauge(agentOverdue, x.Overdue.Seconds(), x.Agent)
		if !x.Done.IsZero() {
			ch.gauge(agentDone, float64(x.Done.UnixMilli())/1000, x.Agent)
		}
	}
}

func (c collector) told(ch sink) {
	if c.Incidents == nil {
		return
	}
	if c.Undelivered != nil {
		for name, n := range c.Undelivered() {
			ch.gauge(undelivered, float64(n), name)
		}
	}
	open := map[string]int{}
	for _, i := range c.Incidents() {
		open[i.Kind()]++
	}
	for kind, n := range open {
		ch.gauge(incidentsOpen, float64(n), kind)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
