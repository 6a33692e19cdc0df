package restic

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Snapshot as restic lists it.
type Snapshot struct {
	ID       string    `json:"id"`
	Time     time.Time `json:"time"`
	Host     string    `json:"hostname"`
	Tags     []string  `json:"tags"`
	Tree     string    `json:"tree"`
	Paths    []string  `json:"paths"`
	Original string    `json:"original"` // the snapshot that this one took the place of, when its tags were changed
	Summary  struct {
		Files int64 `json:"total_files_processed"`
		Bytes int64 `json:"total_bytes_processed"`
	} `json:"summary"`
}

// Short is how people and restic abbreviate an ID.
func (s Snapshot) Short() string { return s.ID[:min(8, len(s.ID))] }

// Has says whether the snapshot carries a tag.
func (s Snapshot) Has(tag string) bool { return slices.Contains(s.Tags, tag) }

// Snapshots lists the snapshots that carry all of tags, oldest first.
func (r Repo) Snapshots(ctx context.Context, tags ...string) ([]Snapshot, error) {
	out, err := r.Run(ctx, SnapshotsArgs(tags...), nil)
	if err != nil {
		return nil, err
	}
	return parseSnapshots(out)
}

func parseSnapshots(out []byte) ([]Snapshot, error) {
	var list []Snapshot
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, fmt.Errorf("read restic's list of snapshots: %w", err)
	}
	slices.SortStableFunc(list, func(a, b Snapshot) int { return a.Time.Compare(b.Time) })
	return list, nil
}

// A Group is what forget says about the snapshots of one host and set of tags.
type Group struct {
	Host   string     `json:"host"`
	Tags   []string   `json:"tags"`
	Keep   []Snapshot `json:"keep"`
	Remove []Snapshot `json:"remove"`
}

// WouldForget asks what a policy would remove.
func (r Repo) WouldForget(ctx context.Context, p Policy, tags ...string) ([]Group, error) {
	out, err := r.Run(ctx, WouldForgetArgs(p, tags...), nil)
	if err != nil {
		return nil, err
	}
	return parseGroups(out)
}

func parseGroups(out []byte) ([]Group, error) {
	var list []Group
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, fmt.Errorf("read restic's plan to forget: %w", err)
	}
	return list, nil
}

// A Summary is the end of a backup.
type Summary struct {
	Snapshot string  `json:"snapshot_id"`
	Files    int64   `json:"total_files_processed"`
	Bytes    int64   `json:"total_bytes_processed"`
	New      int64   `json:"files_new"`
	Changed  int64   `json:"files_changed"`
	Added    int64   `json:"data_added_packed"` // bytes sent
	Seconds  float64 `json:"total_duration"`
}

// Progress is how far a backup is.
type Progress struct {
	Fraction   float64 `json:"percent_done"`
	Files      int64   `json:"files_done"`
	TotalFiles int64   `json:"total_files"`
	Bytes      int64   `json:"bytes_done"`
	TotalBytes int64   `json:"total_bytes"`
	Errors     int64   `json:"error_count"`
}

// Backup makes a snapshot. With exit code 3 both are returned: the summary of what there is, and the error.
func (r Repo) Backup(ctx context.Context, b Backup, progress func(Progress)) (Summary, error) {
	var sum Summary
	var found bool
	_, err := r.Run(ctx, b.Args(), func(line []byte) {
		if p, ok := parseBackupLine(line, &sum, &found); ok && progress != nil {
			progress(p)
		}
	})
	if err == nil && (!found || sum.Snapshot == "") {
		return sum, fmt.Errorf("read restic's summary: it exited with 0 and named no snapshot: look with restic snapshots")
	}
	return sum, err
}

func parseBackupLine(line []byte, sum *Summary, found *bool) (p Progress, ok bool) {
	var kind struct {
		Type string `json:"message_type"`
	}
	if json.Unmarshal(line, &kind) != nil {
		return p, false
	}
	switch kind.Type {
	case "summary":
		*found = json.Unmarshal(line, sum) == nil
	case "status":
		return p, json.Unmarshal(line, &p) == nil
	}
	return p, false
}

// Exists says whether there is a repository behind the URL that the password opens. Any other failure is an error.
func (r Repo) Exists(ctx context.Context) (bool, error) {
	_, err := r.Run(ctx, []string{"cat", "config", "--no-lock"}, nil)
	if CodeOf(err) == CodeNoRepo {
		return false, nil
	}
	return err == nil, err
}

// Init makes the repository.
func (r Repo) Init(ctx context.Context) error {
	_, err := r.Run(ctx, []string{"init"}, nil)
	return err
}

// Tag adds a tag to a snapshot. A key that may not delete gets an error and leaves two snapshots, of which the new one names
// the old as its Original: Good understands that.
func (r Repo) Tag(ctx context.Context, id, tag string) error {
	_, err := r.Run(ctx, []string{"tag", "--add", tag, id}, nil)
	return err
}

// A Check is the end of restic's check.
type Check struct {
	Errors      int64    `json:"num_errors"`
	BrokenPacks []string `json:"broken_packs"`
	RepairIndex bool     `json:"suggest_repair_index"`
}

// Check checks the structure and part n of t of the data.
func (r Repo) Check(ctx context.Context, n, t int) (Check, error) {
	var c Check
	_, err := r.Run(ctx, CheckArgs(n, t), func(line []byte) {
		if strings.Contains(string(line), `"summary"`) {
			json.Unmarshal(line, &c) //nolint:errcheck // the exit code decides; this only explains
		}
	})
	if err == nil && c.Errors > 0 {
		err = fmt.Errorf("check repository: %d errors, %d broken packs: stop the jobs and follow docs/restore.md, A damaged repository", c.Errors, len(c.BrokenPacks))
	}
	return c, err
}

// Partial marks a snapshot of a backup that could not read everything.
const Partial = "partial"

// Good leaves out the snapshots that are known to lack something: those marked partial, and those that a marked one took the
// place of.
func Good(list []Snapshot) []Snapshot {
	bad := map[string]bool{}
	for _, s := range list {
		if s.Has(Partial) {
			bad[s.ID], bad[s.Original] = true, true
		}
	}
	return slices.DeleteFunc(slices.Clone(list), func(s Snapshot) bool { return bad[s.ID] })
}

// AsOf is the newest snapshot that is not younger than t (zero: no bound) and its place; ok is false where there is none.
func AsOf(list []Snapshot, t time.Time) (s Snapshot, ok bool) {
	for _, c := range list {
		if (t.IsZero() || !c.Time.After(t)) && (!ok || c.Time.After(s.Time)) {
			s, ok = c, true
		}
	}
	return s, ok
}
