package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// A machine is where a run took place, and how busy it was with other things.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory string `json:"memory"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	Date   string `json:"date"`
	Load   string `json:"load"` // average of the minute before the run: processes that wanted to run
}

func thisMachine() machine {
	read := func(path string) string {
		b, _ := os.ReadFile(path) // "" where there is none
		return strings.TrimSpace(string(b))
	}
	after := func(text, key string) string {
		_, rest, _ := strings.Cut(text, key)
		line, _, _ := strings.Cut(rest, "\n")
		return strings.TrimSpace(strings.TrimLeft(line, " \t:"))
	}
	load, _, _ := strings.Cut(read("/proc/loadavg"), " ")
	kernel, _, _ := strings.Cut(read("/proc/sys/kernel/osrelease"), "-") // what a builder adds says nothing to others
	var kb int64
	_, _ = fmt.Sscan(after(read("/proc/meminfo"), "MemTotal"), &kb)
	return machine{
		CPU: after(read("/proc/cpuinfo"), "model name"), Cores: runtime.NumCPU(), Memory: fmt.Sprintf("%.0f GB", float64(kb)/(1<<20)),
		Kernel: kernel, Go: strings.TrimPrefix(runtime.Version(), "go"),
		Date: time.Now().UTC().Format("2006-01-02 15:04 UTC"), Load: load,
	}
}

// commandLine is how this run was started, as one would type it.
func commandLine() string {
	return strings.Join(append([]string{"go run ./llm-runner/bench"}, os.Args[1:]...), " ")
}

// markdown renders the result for docs/bench.md.
func (r *result) markdown() string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "%s, `%s`, %d rounds.\n%s, %d cores, %s, Linux %s, Go %s; load average before the run %s.\n",
		m.Date, r.Command, r.Rounds, m.CPU, m.Cores, m.Memory, m.Kernel, m.Go, m.Load)
	direct, err := r.find("direct")
	if err != nil {
		return b.String()
	}
	fmt.Fprintf(&b, "\nOne client, one request after the other: milliseconds added to the direct way (%.3f for JSON, %.3f for a stream).\n\n",
		direct.middle(oneJSON, whole)/1000, direct.middle(oneStream, whole)/1000)
	b.WriteString("| | JSON, median | JSON, p99 | stream's first byte, median | whole stream, median | whole stream, p99 |\n|---|--:|--:|--:|--:|--:|\n")
	for _, x := range r.Entries {
		switch {
		case x.Absent != "":
			fmt.Fprintf(&b, "| %s | did not take part | | | | |\n", x.Name)
		case x != direct:
			fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", x.title(), x.added(direct, oneJSON, whole), x.added(direct, oneJSON, worst),
				x.added(direct, oneStream, first), x.added(direct, oneStream, whole), x.added(direct, oneStream, worst))
		}
	}
	b.WriteString("\n64 clients at once, and what it costs.\n\n")
	b.WriteString("| | JSON/s | streams/s | CPU µs a JSON | CPU µs a stream | MB at rest | MB under load | answers | broken |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, x := range r.Entries {
		if x.Absent != "" {
			continue
		}
		answers, broken := x.count()
		fmt.Fprintf(&b, "| %s | %.0f | %.0f | %s | %s | %s | %s | %d | %d |\n", x.title(), x.middle(manyJSON, rate), x.middle(manyStream, rate),
			x.cpu(manyJSON), x.cpu(manyStream), megabytes(x.Rest), megabytes(x.Peak), answers, broken)
	}
	b.WriteString(r.remarks(direct))
	return b.String()
}

// remarks are the sentences below the tables: our promise, who broke what, who stayed away.
func (r *result) remarks(direct *entry) string {
	var b strings.Builder
	ours, err1 := r.find("llm-runner")
	yard, err2 := r.find("reverseproxy")
	if err1 == nil && err2 == nil {
		ratio := func(w workload) float64 { return ours.surplus(direct, w, whole) / yard.surplus(direct, w, whole) }
		flow := func(w workload) float64 { return ours.against(yard, w, rate) }
		fmt.Fprintf(&b, "\nllm-runner next to the yardstick: %.2f times its added median for JSON and %.2f for streams (goal: at most 1.5); "+
			"%.2f times its throughput for JSON and %.2f for streams (goal: at least 0.7).\n",
			ratio(oneJSON), ratio(oneStream), flow(manyJSON), flow(manyStream))
	}
	for _, x := range r.Entries {
		problem, _, _ := strings.Cut(x.Problem+x.Absent, "\n")
		switch {
		case x.Absent != "":
			fmt.Fprintf(&b, "\n%s did not take part: %.200s.\n", x.Name, problem)
		case x.Problem != "":
			fmt.Fprintf(&b, "\nThe first broken answer of %s: %.200s.\n", x.Name, problem)
		}
	}
	return b.String()
}

// What of a slice is looked at.
func whole(s slice) float64 { return s.Median }
func worst(s slice) float64 { return s.P99 }
func first(s slice) float64 { return s.First }
func rate(s slice) float64  { return s.Rate }

// middle is the median of the rounds.
func (x *entry) middle(w workload, of func(slice) float64) float64 {
	var v []float64
	for _, s := range x.Slices[w.name] {
		v = append(v, of(s))
	}
	return median(v)
}

// surplus is the median of the rounds' differences to the direct way in the same round, in microseconds.
func (x *entry) surplus(direct *entry, w workload, of func(slice) float64) float64 {
	var v []float64
	for i, s := range x.Slices[w.name] {
		v = append(v, of(s)-of(direct.Slices[w.name][i]))
	}
	return median(v)
}

// against is the median of the rounds' ratios to another contestant in the same round.
func (x *entry) against(other *entry, w workload, of func(slice) float64) float64 {
	var v []float64
	for i, s := range x.Slices[w.name] {
		v = append(v, of(s)/of(other.Slices[w.name][i]))
	}
	return median(v)
}

func (x *entry) added(direct *entry, w workload, of func(slice) float64) string {
	return fmt.Sprintf("%.3f", x.surplus(direct, w, of)/1000)
}

// cpu is the contestant's processor time per answer in microseconds.
func (x *entry) cpu(w workload) string {
	var used time.Duration
	n := 0
	for _, s := range x.Slices[w.name] {
		used += s.CPU
		n += s.Requests
	}
	if used == 0 || n == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f", float64(used.Microseconds())/float64(n))
}

func (x *entry) count() (answers, broken int) {
	for _, rounds := range x.Slices {
		for _, s := range rounds {
			answers += s.Requests
			broken += s.Broken
		}
	}
	return answers, broken
}

func (x *entry) title() string {
	if x.Version == "" {
		return x.Name
	}
	return x.Name + " (" + x.Version + ")"
}

func megabytes(bytes int64) string {
	if bytes == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f", float64(bytes)/1e6)
}
