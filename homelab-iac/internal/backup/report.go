package backup

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// A Report is how a run went.
type Report struct {
	Tier     string    `json:"tier"`
	Host     string    `json:"host"`
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended"`
	Services []Outcome `json:"services"`
	Stages   []Stage   `json:"stages"`
	Errors   []string  `json:"errors,omitempty"` // of the run as a whole
}

// A Stage with how long it took.
type Stage struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

// An Outcome is how it went with one service.
type Outcome struct {
	Service  string           `json:"service"`
	Snapshot string           `json:"snapshot,omitempty"`
	Files    int64            `json:"files"`
	Bytes    int64            `json:"bytes"`
	Added    int64            `json:"added"` // bytes sent to the repository
	Seconds  float64          `json:"seconds"`
	Stages   []Stage          `json:"stages,omitempty"`
	Dumps    map[string]int64 `json:"dumps,omitempty"`
	Partial  bool             `json:"partial,omitempty"` // there is a snapshot, marked, that lacks something
	Errors   []string         `json:"errors,omitempty"`
	Warnings []string         `json:"warnings,omitempty"` // what would be restored as it is, and is not as the catalog says
}

// Good says whether the service is as safe as the tier promises.
func (o Outcome) Good() bool { return len(o.Errors) == 0 && o.Snapshot != "" }

func (o *Outcome) trouble(err error) {
	if err == nil {
		return
	}
	o.Errors = append(o.Errors, err.Error())
}

func (o *Outcome) stage(name string, f func()) { timed(&o.Stages, name, f) }

func (r *Report) stage(name string, f func()) { timed(&r.Stages, name, f) }

func timed(stages *[]Stage, name string, f func()) {
	begin := time.Now()
	f()
	*stages = append(*stages, Stage{name, time.Since(begin).Seconds()})
}

func (r *Report) fail(err error) {
	if err != nil {
		r.Errors = append(r.Errors, err.Error())
	}
}

// Trouble is the first thing that went wrong, or "".
func (r *Report) Trouble() string {
	for _, o := range r.Services {
		switch {
		case o.Partial:
			return "PARTIAL " + o.Service + ": " + o.Errors[0]
		case !o.Good():
			return o.Service + ": " + o.Errors[0]
		}
	}
	if len(r.Errors) > 0 {
		return r.Errors[0]
	}
	return ""
}

// OnlyPartial says whether every service has a snapshot, and some lack something.
func (r *Report) OnlyPartial() bool {
	partial := false
	for _, o := range r.Services {
		if !o.Good() && !o.Partial {
			return false
		}
		partial = partial || o.Partial
	}
	return partial && len(r.Errors) == 0
}

// Summary is the report in one line, for a monitor.
func (r *Report) Summary() string {
	good := 0
	var bytes, added int64
	for _, o := range r.Services {
		if o.Good() {
			good++
		}
		bytes, added = bytes+o.Bytes, added+o.Added
	}
	line := fmt.Sprintf("%s backup of %s: %d of %d services safe, %s, %s new, %s", r.Tier, r.Host, good, len(r.Services), Size(bytes), Size(added), r.Ended.Sub(r.Started).Round(time.Second))
	if t := r.Trouble(); t != "" {
		line += "; " + t
	}
	return line
}

// Print writes the report for people.
func (r *Report) Print(w io.Writer) {
	fmt.Fprintln(w, r.Summary())
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, o := range r.Services {
		state := "safe"
		switch {
		case o.Partial:
			state = "PARTIAL"
		case !o.Good():
			state = "FAILED"
		}
		fmt.Fprintf(t, "  %s\t%s\t%d files\t%s\t%s new\t%s\t%.8s\n", o.Service, state, o.Files, Size(o.Bytes), Size(o.Added), seconds(o.Seconds), o.Snapshot)
		for _, e := range append(slices.Clone(o.Errors), o.Warnings...) {
			fmt.Fprintf(t, "  \t  %s\n", e)
		}
	}
	t.Flush() //nolint:errcheck // a report that cannot be printed was printed before to who matters
	for _, e := range r.Errors {
		fmt.Fprintf(w, "  %s\n", e)
	}
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(100 * time.Millisecond).String()
}

// Size writes a number of bytes for people.
func Size(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.1f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	}
	return fmt.Sprintf("%d bytes", n)
}

// Metrics is the report for the node exporter's textfile collector. The time of the last good backup of a service that failed now
// is the remembered one.
func (r *Report) Metrics(remembered func(service string) time.Time) string {
	var b strings.Builder
	family := func(name, help string, value func(Outcome) (float64, bool)) {
		fmt.Fprintf(&b, "# HELP homelab_backup_%s %s\n# TYPE homelab_backup_%s gauge\n", name, help, name)
		for _, o := range r.Services {
			if v, ok := value(o); ok {
				fmt.Fprintf(&b, "homelab_backup_%s{tier=%q,service=%q} %g\n", name, r.Tier, o.Service, v)
			}
		}
	}
	family("good", "1 when the last run made a whole snapshot.", func(o Outcome) (float64, bool) { return map[bool]float64{true: 1}[o.Good()], true })
	family("last_good_timestamp_seconds", "When the last whole snapshot was made.", func(o Outcome) (float64, bool) {
		at := remembered(o.Service)
		return float64(at.Unix()), !at.IsZero()
	})
	family("files", "Files in the last snapshot.", func(o Outcome) (float64, bool) { return float64(o.Files), o.Snapshot != "" })
	family("bytes", "Bytes in the last snapshot.", func(o Outcome) (float64, bool) { return float64(o.Bytes), o.Snapshot != "" })
	family("added_bytes", "Bytes that the last run sent.", func(o Outcome) (float64, bool) { return float64(o.Added), o.Snapshot != "" })
	family("seconds", "How long the last run took.", func(o Outcome) (float64, bool) { return o.Seconds, true })
	fmt.Fprintf(&b, "# HELP homelab_backup_run_timestamp_seconds When the last run ended.\n# TYPE homelab_backup_run_timestamp_seconds gauge\nhomelab_backup_run_timestamp_seconds{tier=%q} %d\n", r.Tier, r.Ended.Unix())
	return b.String()
}

// Remembered is when the last good backup of a service was, for Metrics.
func (r *Run) Remembered(service string) time.Time { return Dumped(r.State, r.Tier.Name, service) }
