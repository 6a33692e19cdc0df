package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// The workloads, in the order of each round. One client measures latency, many measure throughput.
var (
	oneJSON    = workload{name: "json_1", concurrency: 1, requests: 1000, limit: 1500 * time.Millisecond}
	oneStream  = workload{name: "stream_1", stream: true, concurrency: 1, requests: 1000, limit: 1500 * time.Millisecond}
	manyJSON   = workload{name: "json_64", concurrency: 64, limit: 1500 * time.Millisecond}
	manyStream = workload{name: "stream_64", stream: true, concurrency: 64, limit: 1500 * time.Millisecond}

	workloads = []workload{oneJSON, oneStream, manyJSON, manyStream}
)

// A slice is one round of one workload on one contestant. Times are in microseconds.
type slice struct {
	Requests int           `json:"requests"`
	Broken   int           `json:"broken"`
	Median   float64       `json:"median_us"`
	P99      float64       `json:"p99_us"`
	First    float64       `json:"first_byte_us"` // median
	Rate     float64       `json:"requests_per_s"`
	CPU      time.Duration `json:"cpu_ns"` // of the contestant's processes
}

// An entry is all that is known of one contestant.
type entry struct {
	Name    string             `json:"name"`
	Version string             `json:"version,omitempty"`
	Absent  string             `json:"absent,omitempty"` // why it did not take part
	Slices  map[string][]slice `json:"slices,omitempty"` // by workload, one a round
	Rest    int64              `json:"bytes_at_rest"`
	Peak    int64              `json:"bytes_under_load"`
	Problem string             `json:"problem,omitempty"` // of the first broken answer

	contestant *contestant
}

// A result is a whole run.
type result struct {
	Machine machine  `json:"machine"`
	Command string   `json:"command"`
	Rounds  int      `json:"rounds"`
	Entries []*entry `json:"entries"`
}

// measure starts the upstream and the contestants, warms them up, and measures them round after round: each round goes
// through all of them, beginning with another, so that whatever changes on the machine meanwhile hits all alike.
func (b *bench) measure(ctx context.Context, rounds int, only []string) (*result, error) {
	if err := b.startUpstream(ctx); err != nil {
		return nil, err
	}
	r := &result{Machine: thisMachine(), Command: commandLine(), Rounds: rounds}
	var present []*entry
	for _, e := range entrants {
		if !chosen(e.name, only) {
			continue
		}
		progress("starting %s", e.name)
		c, err := b.enter(ctx, e)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		x := &entry{Name: e.name, Slices: map[string][]slice{}, contestant: c}
		r.Entries = append(r.Entries, x)
		if err != nil {
			progress("%s does not take part: %v", e.name, err)
			x.Absent = err.Error()
			continue
		}
		x.Version = c.version
		x.note(&x.Rest)
		present = append(present, x)
	}
	for _, x := range present {
		for _, w := range workloads {
			w.requests, w.limit = 500, time.Second
			w.run(x.contestant) // to warm up: not counted
		}
	}
	for round := range rounds {
		progress("round %d of %d", round+1, rounds)
		for _, w := range workloads {
			for i := range present {
				x := present[(i+round)%len(present)]
				x.Slices[w.name] = append(x.Slices[w.name], x.measure(w))
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
			}
		}
	}
	return r, nil
}

func (b *bench) startUpstream(ctx context.Context) error {
	address, err := freeAddress()
	if err != nil {
		return err
	}
	p, err := b.launchSelf("upstream", "upstream", address)
	if err != nil {
		return err
	}
	b.processes = append(b.processes, p)
	b.upstream = address
	_, err = b.enter(ctx, entrants[0])
	return err
}

// measure runs one slice of a workload.
func (x *entry) measure(w workload) slice {
	c := x.contestant
	var before, after time.Duration
	if c.process != nil {
		before, _ = c.process.cost()
	}
	s := w.run(c)
	if c.process != nil {
		after, _ = c.process.cost()
		x.note(&x.Peak)
	}
	if s.problem != nil && x.Problem == "" {
		x.Problem = s.problem.Error()
	}
	slices.Sort(s.whole)
	slices.Sort(s.first)
	return slice{
		Requests: len(s.whole), Broken: s.broken,
		Median: quantile(s.whole, 0.5), P99: quantile(s.whole, 0.99), First: quantile(s.first, 0.5),
		Rate: s.rate(), CPU: after - before,
	}
}

// note keeps the largest memory seen.
func (x *entry) note(most *int64) {
	if x.contestant.process != nil {
		_, resident := x.contestant.process.cost()
		*most = max(*most, resident)
	}
}

// quantile returns the q-th part of sorted times in microseconds: the smallest time that at least that part does not
// exceed.
func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	i := int(q*float64(len(sorted)) + 0.999999) // rounded up
	return float64(sorted[min(max(i, 1), len(sorted))-1].Nanoseconds()) / 1000
}

// median returns the middle of values, of two middles their mean.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

var errAbsent = errors.New("did not take part")

// find returns an entry that took part.
func (r *result) find(name string) (*entry, error) {
	for _, x := range r.Entries {
		if x.Name == name && x.Absent == "" {
			return x, nil
		}
	}
	return nil, fmt.Errorf("%s: %w", name, errAbsent)
}
