package restore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/postgres"
	"home.arpa/lab/homelab-iac/internal/restic"
)

// A Report is how a restore went. A drill adds what it compared.
type Report struct {
	Host     string    `json:"host"`
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended"`
	Verdict  string    `json:"verdict"` // green or red
	Reason   string    `json:"reason,omitempty"`
	Services []Result  `json:"services"`
}

// A Result is how it went with one service.
type Result struct {
	Service  string    `json:"service"`
	Tier     string    `json:"tier"`
	Snapshot string    `json:"snapshot"`
	Made     time.Time `json:"made"`
	Bytes    int64     `json:"bytes"`
	Files    int64     `json:"files"`
	RTO      float64   `json:"rto_seconds"`
	Steps    []Done    `json:"steps"`
	Kept     []string  `json:"kept,omitempty"`
	Error    string    `json:"error,omitempty"`
}

// Done is one step that was run.
type Done struct {
	Phase   string    `json:"phase"`
	What    string    `json:"what"`
	Line    string    `json:"line"`
	Began   time.Time `json:"began"`
	Seconds float64   `json:"seconds"`
	Said    string    `json:"said,omitempty"` // the last line that the command printed
	Error   string    `json:"error,omitempty"`
}

// A Runner runs plans.
type Runner struct {
	Host string
	Env  func(tier string) []string // for restic and PostgreSQL; it holds the key and is never shown
	Say  func(string)
	Ask  func(Plan) (bool, error) // before what is in use is touched; nil: go on
}

// ErrDeclined means that a person said no. What is in use was not touched.
var ErrDeclined = errors.New("declined: what is in use was not touched")

// Run runs the plans: everything is fetched and verified first, then, once asked, one service after the other is put in place.
// A service that fails does not keep the others from coming back.
func (r Runner) Run(ctx context.Context, plans []Plan) Report {
	report := Report{Host: r.Host, Started: time.Now().UTC()}
	results := make([]Result, len(plans))
	for i, p := range plans {
		results[i] = Result{Service: p.Service, Tier: p.Tier, Snapshot: p.Snapshot, Made: p.Made, Bytes: p.Bytes, Files: p.Files, RTO: p.RTO.Seconds()}
		if err := r.phases(ctx, p, &results[i], func(s Step) bool { return s.Phase == Fetch || s.Phase == Verify }); err != nil {
			results[i].Error = err.Error()
		}
	}
	for i, p := range plans {
		if results[i].Error != "" {
			continue
		}
		if err := r.place(ctx, p, &results[i]); err != nil {
			results[i].Error = err.Error()
		}
	}
	report.Services, report.Ended, report.Verdict = results, time.Now().UTC(), "green"
	for _, s := range results {
		if s.Error != "" {
			report.Verdict, report.Reason = "red", s.Service+": "+s.Error
			break
		}
	}
	return report
}

func (r Runner) place(ctx context.Context, p Plan, result *Result) error {
	if r.Ask != nil && slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Ask }) {
		yes, err := r.Ask(p)
		if err != nil {
			return err
		}
		if !yes {
			return ErrDeclined
		}
	}
	result.Kept = p.Kept
	return r.phases(ctx, p, result, func(s Step) bool { return s.Phase != Fetch && s.Phase != Verify })
}

func (r Runner) phases(ctx context.Context, p Plan, result *Result, want func(Step) bool) error {
	for _, s := range p.Steps {
		if !want(s) {
			continue
		}
		r.Say(p.Service + ": " + s.What + "\n  $ " + s.Line())
		began := time.Now()
		said, err := r.step(ctx, s, r.Env(p.Tier))
		d := Done{Phase: s.Phase, What: s.What, Line: s.Line(), Began: began.UTC(), Seconds: time.Since(began).Seconds(), Said: said}
		if err != nil {
			d.Error = err.Error()
			result.Steps = append(result.Steps, d)
			return fmt.Errorf("%s: %w", s.What, err)
		}
		result.Steps = append(result.Steps, d)
	}
	return nil
}

// step runs one command and returns the last line that it printed.
func (r Runner) step(ctx context.Context, s Step, env []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.Limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.Argv[0], s.Argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second
	if s.Stdin != "" {
		f, err := os.Open(s.Stdin)
		if err != nil {
			return "", err
		}
		defer f.Close()
		cmd.Stdin = f
	}
	out, err := cmd.CombinedOutput()
	said := bytes.TrimSpace(out)
	if err == nil {
		last := said[bytes.LastIndexByte(said, '\n')+1:]
		return strings.ToValidUTF8(string(last[:min(len(last), 300)]), "\uFFFD"), nil
	}
	if len(said) > 600 {
		said = said[len(said)-600:]
	}
	if ctx.Err() != nil {
		return "", fmt.Errorf("%w after %s: %s", ctx.Err(), s.Limit, said)
	}
	return "", fmt.Errorf("%w: %s", err, said)
}

// Rate is how fast files came back, in bytes a second, over all fetches; zero where less than ten megabytes did.
func (r Report) Rate() float64 {
	bytes, seconds := int64(0), 0.0
	for _, s := range r.Services {
		if s.Error != "" {
			continue
		}
		bytes += s.Bytes
		for _, d := range s.Steps {
			if d.Phase == Fetch {
				seconds += d.Seconds
			}
		}
	}
	if bytes < 10e6 || seconds <= 0 {
		return 0
	}
	return float64(bytes) / seconds
}

// ReadReport reads what restore run --report wrote.
func ReadReport(text []byte) (r Report, err error) {
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("read report of a restore: %w", err)
	}
	return r, nil
}

// Find chooses the snapshot of a service: the newest good one, not younger than asOf where that is set, in the tier that is asked
// for, else in the fast one if it has any. repo opens a tier.
func Find(ctx context.Context, s catalog.Service, tier string, asOf time.Time, dumps string, repo func(tier string) (restic.Repo, error)) (Source, error) {
	var none error
	for _, t := range catalog.Tiers {
		if tier != "" && tier != t.Name || !s.In(t.Name) {
			continue
		}
		r, err := repo(t.Name)
		if err != nil {
			none = errors.Join(none, err)
			continue
		}
		list, err := r.Snapshots(ctx, s.Tags(t.Name)...)
		if err != nil {
			none = errors.Join(none, err)
			continue
		}
		list = slices.DeleteFunc(list, func(c restic.Snapshot) bool { return c.Host != s.Host })
		found, ok := restic.AsOf(restic.Good(list), asOf)
		if !ok {
			none = errors.Join(none, fmt.Errorf("the %s repository has no good snapshot of %s on %s that old; it has %d in all", t.Name, s.Name, s.Host, len(list)))
			continue
		}
		from := Source{Tier: t.Name, Snapshot: found, Manifests: map[string]postgres.Manifest{}}
		for _, d := range s.Databases() {
			m, err := manifest(ctx, r, found.ID, path.Join(dumps, s.Name, d.Name, postgres.ManifestName))
			if err != nil {
				return from, err
			}
			from.Manifests[d.Name] = m
		}
		return from, nil
	}
	if none == nil {
		none = fmt.Errorf("%s is not backed up in that tier", s.Name)
	}
	return Source{}, fmt.Errorf("find a snapshot of %s: %w", s.Name, none)
}

func manifest(ctx context.Context, r restic.Repo, snapshot, file string) (m postgres.Manifest, err error) {
	text, err := r.Run(ctx, []string{"dump", "--no-lock", snapshot, file}, nil)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("read the manifest in snapshot %.8s: %w: take another with --as-of", snapshot, err)
	}
	return m, nil
}

// Estimate is how long plans will take and what reading costs, for a rate in bytes a second and a price in dollars a gigabyte.
func Estimate(plans []Plan, rate float64, price func(tier string) float64) (time.Duration, float64) {
	seconds, dollars := 0.0, 0.0
	for _, p := range plans {
		seconds += 60 + float64(p.Bytes)/rate // a minute for stopping, starting and proving
		dollars += float64(p.Bytes) / 1e9 * price(p.Tier)
	}
	return time.Duration(seconds) * time.Second, dollars
}

// Note is the report as a note for the vault.
func (r Report) Note() string {
	var b strings.Builder
	names := []string{}
	for _, s := range r.Services {
		names = append(names, s.Service)
	}
	fmt.Fprintf(&b, "---\ntype: session\nkind: restore\ndate: %s\nhost: %s\nverdict: %s\n---\n\n# Restore of %s on %s\n\n", r.Started.Format(time.RFC3339), r.Host, r.Verdict, strings.Join(names, ", "), r.Host)
	if r.Reason != "" {
		fmt.Fprintf(&b, "**It did not end well:** %s\n\n", r.Reason)
	}
	fmt.Fprintf(&b, "It took %s.\n\n", r.Ended.Sub(r.Started).Round(time.Second))
	for _, s := range r.Services {
		fmt.Fprintf(&b, "## %s\n\nFrom the %s repository, snapshot `%.8s` of %s; %d files.\n\n", s.Service, s.Tier, s.Snapshot, s.Made.UTC().Format("2006-01-02 15:04 MST"), s.Files)
		for _, d := range s.Steps {
			mark := "x"
			if d.Error != "" {
				mark = " "
			}
			fmt.Fprintf(&b, "* [%s] %s (%.1f s)\n", mark, d.What, d.Seconds)
		}
		if s.Error != "" {
			fmt.Fprintf(&b, "\nError: %s\n", s.Error)
		}
		if len(s.Kept) > 0 {
			fmt.Fprintf(&b, "\nWhat stood there, if anything did, is kept as `%s`: yours to delete.\n", strings.Join(s.Kept, "`, `"))
		}
		b.WriteString("\n")
	}
	return b.String()
}
