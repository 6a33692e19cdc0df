// Package drill proves a restore: what came back on another machine is compared with what was backed up, timed, and written down for
// programs and for people.
package drill

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/internal/postgres"
	"home.arpa/lab/homelab-iac/internal/restic"
	"home.arpa/lab/homelab-iac/internal/restore"
	"home.arpa/lab/homelab-iac/internal/tree"
)

// A Report is restore-report.json. Zero differences, everything proved, within the promised time: else it is red.
type Report struct {
	restore.Report
	Target   string     `json:"target"` // the machine on which it was proved
	Stages   []Stage    `json:"stages"` // of the whole drill, the restore among them
	Compared []Compared `json:"compared"`
	// Databases are those that were loaded and found equal. One that was not is the error of its service.
	Databases []Database `json:"databases"`
	// Proofs are what was done with the services once they were back, what changes data included.
	Proofs []restore.Result `json:"proofs,omitempty"`
}

// A Database that is what it was: every table has the same rows.
type Database struct {
	Service string `json:"service"`
	Name    string `json:"name"`
	Tables  int    `json:"tables"`
	Rows    int64  `json:"rows"`
}

// TakeOver reads from the steps of the restore which databases were found equal.
func (r *Report) TakeOver() {
	for _, s := range r.Services {
		for _, d := range s.Steps {
			if name, tables, rows, ok := postgres.ReadSame(d.Said); ok && d.Error == "" {
				r.Databases = append(r.Databases, Database{s.Service, name, tables, rows})
			}
		}
	}
}

// A Stage of the drill.
type Stage struct {
	Name    string    `json:"name"`
	Began   time.Time `json:"began"`
	Seconds float64   `json:"seconds"`
}

// Compared is one folder: what came back against what was there.
type Compared struct {
	Service     string            `json:"service"`
	Path        string            `json:"path"`
	Against     string            `json:"against"` // Exact or Listing
	Entries     int               `json:"entries"`
	Differences []tree.Difference `json:"differences"`
}

// What a folder can be compared with.
const (
	// Exact is a measurement of the source from before it was lost: everything is compared.
	Exact = "a measurement of the source"
	// Listing is the snapshot's own list: names, types, sizes, modes, owners, times. restic has read the content back by its hashes.
	Listing = "the snapshot's list"
)

// CompareExact compares a folder with what was measured before it was lost.
func CompareExact(service, path string, was, is []tree.Entry) Compared {
	return Compared{Service: service, Path: path, Against: Exact, Entries: len(is), Differences: tree.Diff(was, is)}
}

// CompareListing compares a folder with the snapshot's list of it. Pure.
func CompareListing(service, path string, nodes []restic.Node, is []tree.Entry) Compared {
	var was, now []tree.Entry
	for _, n := range nodes {
		if e, ok := listed(n, path); ok {
			was = append(was, e)
		}
	}
	for _, e := range is {
		if e.Type != "other" { // sockets are not backed up
			now = append(now, tree.Entry{Path: readable(e.Path), Type: e.Type, Mode: e.Mode, UID: e.UID, GID: e.GID, Size: e.Size, MTime: e.MTime})
		}
	}
	return Compared{Service: service, Path: path, Against: Listing, Entries: len(now), Differences: tree.Diff(was, now)}
}

// readable undoes the quoting of tree and does to odd bytes what JSON does.
func readable(p string) string {
	if raw, err := strconv.Unquote(p); err == nil && strings.HasPrefix(p, `"`) {
		p = raw
	}
	return strings.ToValidUTF8(p, "\uFFFD")
}

func listed(n restic.Node, root string) (tree.Entry, bool) {
	kind, ok := map[string]string{"file": "file", "dir": "dir", "symlink": "link", "fifo": "pipe"}[n.Type]
	rel, inside := strings.CutPrefix(n.Path, root)
	if !ok || !inside || rel != "" && rel[0] != '/' {
		return tree.Entry{}, false
	}
	if rel = strings.TrimPrefix(rel, "/"); rel == "" {
		rel = "."
	}
	e := tree.Entry{Path: rel, Type: kind, UID: n.UID, GID: n.GID, MTime: n.MTime.UnixNano(), Mode: fmt.Sprintf("%04o", unixMode(n.Mode))}
	switch kind {
	case "link":
		e.Mode = ""
	case "file":
		e.Size = n.Size
	}
	return e, true
}

func unixMode(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	for bit, value := range map[fs.FileMode]uint32{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&bit != 0 {
			mode |= value
		}
	}
	return mode
}

// Judge sets the verdict.
func (r *Report) Judge() {
	r.Verdict, r.Reason = "green", ""
	red := func(format string, args ...any) {
		if r.Verdict == "green" {
			r.Verdict, r.Reason = "red", fmt.Sprintf(format, args...)
		}
	}
	if len(r.Services) == 0 {
		red("nothing was restored")
	}
	for _, s := range r.Services {
		if s.Error != "" {
			red("%s: %s", s.Service, s.Error)
		}
	}
	for _, c := range r.Compared {
		if n := len(c.Differences); n > 0 {
			red("%d differences below %s, the first: %s %s", n, c.Path, c.Differences[0].Path, c.Differences[0].What)
		}
		if c.Entries == 0 {
			red("nothing came back below %s", c.Path)
		}
	}
	for _, s := range r.Proofs {
		if s.Error != "" {
			red("%s: %s", s.Service, s.Error)
		}
	}
	for _, s := range r.Services {
		if took := Seconds(s); s.RTO > 0 && took > s.RTO {
			red("%s took %.0f s, and %.0f s are promised", s.Service, took, s.RTO)
		}
	}
}

// Seconds is how long the steps of a service took, without those that only the drill does.
func Seconds(s restore.Result) float64 {
	sum := 0.0
	for _, d := range s.Steps {
		if d.Phase != restore.Compare {
			sum += d.Seconds
		}
	}
	return sum
}

// Summary is the report in one line.
func (r *Report) Summary() string {
	entries, differences := 0, 0
	for _, c := range r.Compared {
		entries, differences = entries+c.Entries, differences+len(c.Differences)
	}
	line := fmt.Sprintf("%d services restored on %s in %s: %d entries", len(r.Services), r.Target, r.Ended.Sub(r.Started).Round(time.Second), entries)
	if len(r.Databases) > 0 {
		tables, rows := 0, int64(0)
		for _, d := range r.Databases {
			tables, rows = tables+d.Tables, rows+d.Rows
		}
		line += fmt.Sprintf(", %d tables with %d rows", tables, rows)
	}
	line += fmt.Sprintf(", %d differences", differences)
	if r.Reason != "" {
		line += "; " + r.Reason
	}
	return line
}
