package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/internal/backup"
	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/restic"
	"home.arpa/lab/homelab-iac/internal/site"
	"home.arpa/lab/homelab-iac/internal/watch"
	"home.arpa/lab/internal/kuma"
)

var watchCommands = []command{
	{
		name: "watch", args: "[flags]", summary: "read the repositories and say how safe this machine is", json: true,
		help: `Reads the repositories with the restore key: how old the newest good snapshot of each of this machine's services is, when a check and a
proved restore were last, how full the disks are, when keys end. Each state is pushed to its monitor in Uptime Kuma; Discord and ntfy, where
they are configured, hear once when something begins to be wrong and once when it is well again. Meant to run every five minutes; it ends
before the next one begins.

Examples:
  homelab watch
  homelab watch --no-push --json

Exit codes: 0 all is well, 1 something is not, 2 the configuration is wrong.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			quiet := fs.Bool("no-push", false, "only print")
			return func(ctx context.Context) error { return c.watch(ctx, !*quiet) }
		},
	},
	{
		name: "kuma sync", args: "[flags]", summary: "make the monitors in Uptime Kuma", json: true,
		help: `Makes a push monitor for everything that homelab pushes to, and corrects those that differ; others are left alone. Monitors that the catalog no
longer has are paused, not deleted. A second run changes nothing.

Examples:
  homelab kuma sync
  homelab kuma sync --json

Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error { return c.kumaSync },
	},
}

func (c *call) watch(ctx context.Context, push bool) error {
	m, err := c.machine()
	if err != nil {
		return err
	}
	states := m.states(ctx)
	if push {
		c.pushStates(ctx, m, states)
		if all := proofs(m.State); m.Metrics != "" && len(all) > 0 {
			if err := backup.WriteFile(filepath.Join(m.Metrics, "homelab-drill.prom"), []byte(drillMetrics(all, m.Host)), 0o644); err != nil {
				c.say(err.Error())
			}
		}
	}
	bad := slices.ContainsFunc(states, func(s watch.State) bool { return s.Trouble != "" })
	if c.json {
		if err := c.printJSON(states); err != nil {
			return err
		}
	} else {
		for _, s := range states {
			mark := "ok     "
			if s.Trouble != "" {
				mark = "TROUBLE"
			}
			fmt.Fprintf(c.stdout, "%s  %-34s %s\n", mark, s.Monitor, s.Summary)
		}
	}
	if bad {
		return exitError(exitFailed)
	}
	return nil
}

func (m *machine) states(ctx context.Context) []watch.State {
	var out []watch.State
	now := time.Now()
	for _, tier := range catalog.Tiers {
		mine := catalog.On(m.catalog, m.Host, tier.Name)
		repository, ok := m.Repositories[tier.Name]
		var tended *watch.Done
		if _, holds := repository.Keys["maintenance"]; holds {
			last := backup.LastMaintenance(m.State, tier.Name)
			tended = &watch.Done{At: last.At, Error: last.Error}
		}
		if !ok || len(mine) == 0 {
			if tended != nil { // it only tends the repository
				out = append(out, watch.Tended(tier.Name, m.Host, *tended, now))
			}
			continue
		}
		r := watch.Repository{Tier: tier.Name, Cut: backup.Unfinished(m.State, tier.Name), Dumps: m.Dumps}
		r.Snapshots, r.Err = m.snapshots(ctx, tier.Name)
		out = append(out, watch.Fresh(mine, m.Host, r, now)...)
		if began, service, cut := backup.Cut(m.State, tier.Name); cut {
			out = append(out, watch.CutShort(tier.Name, m.Host, service, began, now))
		}
		last := backup.LastCheck(m.State, tier.Name)
		out = append(out, watch.Checked(tier.Name, m.Host, watch.Done{At: last.At, Error: last.Error}, tended, now))
	}
	if all := proofs(m.State); len(all) > 0 {
		out = append(out, proved(all, now))
	}
	disks := map[string]watch.Disk{m.State: watch.DiskOf(m.State), m.Dumps: watch.DiskOf(m.Dumps)}
	return append(out, watch.Host(m.Host, disks, m.Repositories, m.skews(ctx), now))
}

// skews is how far the clock is ahead of the storages'. One that does not answer is told of elsewhere.
func (m *machine) skews(ctx context.Context) map[string]time.Duration {
	ctx, cancel := context.WithTimeout(ctx, m.Read/6)
	defer cancel()
	ahead := map[string]time.Duration{}
	for tier, r := range m.Repositories {
		if off, ok, err := (restic.Repo{URL: r.URL}).Skew(ctx); ok && err == nil {
			ahead[tier] = off
		}
	}
	return ahead
}

// snapshots reads a tier's repository with the key that may only read.
func (m *machine) snapshots(ctx context.Context, tier string) ([]restic.Snapshot, error) {
	repo, err := m.repo(tier, "restore")
	if err != nil {
		return nil, err
	}
	repo.RetryLock = 0
	ctx, cancel := context.WithTimeout(ctx, m.Read)
	defer cancel()
	return repo.Snapshots(ctx, "tier:"+tier)
}

// A proof is the last drill of one machine's data that ran from this machine.
type proof struct {
	of     string // the machine; "": this one
	at     time.Time
	failed string
}

// proofDir is where the report of a drill is kept: this machine's own in its state, another's in a folder of that name.
func proofDir(state, host, of string) string {
	if of == "" || of == host {
		return state
	}
	return filepath.Join(state, "proofs", of)
}

// proofs are the last drills, this machine's own first. A green one of one machine says nothing about another.
func proofs(state string) (all []proof) {
	files, _ := filepath.Glob(filepath.Join(state, "proofs", "*", "restore-report.json"))
	for _, file := range append([]string{filepath.Join(state, "restore-report.json")}, files...) {
		var report struct {
			Ended   time.Time `json:"ended"`
			Verdict string    `json:"verdict"`
			Reason  string    `json:"reason"`
		}
		text, err := os.ReadFile(file)
		if err != nil || json.Unmarshal(text, &report) != nil {
			continue
		}
		p := proof{at: report.Ended}
		if dir := filepath.Dir(file); dir != filepath.Clean(state) {
			p.of = filepath.Base(dir)
		}
		if report.Verdict != "green" {
			p.failed = "its verdict is " + report.Verdict + ": " + report.Reason
		}
		all = append(all, p)
	}
	return all
}

// drillMetrics are the last drills for the node exporter's textfile collector.
func drillMetrics(all []proof, host string) string {
	var good, at strings.Builder
	for _, p := range all {
		labels := fmt.Sprintf("{machine=%q}", cmp.Or(p.of, host))
		fmt.Fprintf(&good, "homelab_drill_good%s %d\n", labels, map[bool]int{true: 1}[p.failed == ""])
		fmt.Fprintf(&at, "homelab_drill_timestamp_seconds%s %d\n", labels, p.at.Unix())
	}
	return "# HELP homelab_drill_good 1 when the last restore of the machine's data on another one was the same.\n# TYPE homelab_drill_good gauge\n" + good.String() +
		"# HELP homelab_drill_timestamp_seconds When that restore ended.\n# TYPE homelab_drill_timestamp_seconds gauge\n" + at.String()
}

// proved is what is watched about all of them: the oldest, and what was not green.
func proved(all []proof, now time.Time) watch.State {
	var last time.Time
	var failed []string
	for _, p := range all {
		if last.IsZero() || p.at.Before(last) {
			last = p.at
		}
		if p.failed != "" && p.of != "" {
			failed = append(failed, p.of+": "+p.failed)
		} else if p.failed != "" {
			failed = append(failed, p.failed)
		}
	}
	return watch.Proved(last, strings.Join(failed, "; "), now)
}

func (c *call) pushStates(ctx context.Context, m *machine, states []watch.State) {
	troubles := map[string]string{}
	there := catalog.Monitors(m.catalog) // a machine with nothing to back up has none of its own
	kumaBroken := 0
	for _, s := range states {
		key := s.Incident
		if key == "" {
			key = s.Monitor
		}
		if troubles[key] == "" {
			troubles[key] = s.Trouble
		}
		if kumaBroken < 2 && slices.Contains(there, s.Monitor) { // when it is away it is away for all of them
			if err := m.push(ctx, s.Monitor, s.Trouble == "", s.Summary, 0); err != nil {
				kumaBroken++
				c.say(err.Error())
			}
		}
	}
	for _, tier := range catalog.Tiers { // an incident that is over has no state of its own
		if key := "the " + tier.Name + " repository, read from " + m.Host; troubles[key] == "" {
			troubles[key] = ""
		}
	}
	if m.Kuma.URL != "" {
		troubles["Uptime Kuma, pushed from "+m.Host] = map[bool]string{true: "it does not take pushes, so silence means nothing: look at it"}[kumaBroken > 1]
	}
	if err := m.note(ctx, troubles); err != nil {
		c.say(err.Error())
	}
}

func (c *call) kumaSync(ctx context.Context) error {
	m, err := c.machine()
	if err != nil {
		return err
	}
	secret, err := site.Secret(m.Kuma.Secret)
	if err != nil {
		return err
	}
	password, err := site.Secret(m.Kuma.Password)
	if err != nil {
		return err
	}
	if m.Kuma.URL == "" || secret == "" || password == "" {
		return usageError{"the configuration lacks kuma.url, kuma.secret, kuma.user or kuma.password"}
	}
	want := []kuma.Monitor{}
	for _, name := range catalog.Monitors(m.catalog) {
		monitor := kuma.Monitor{Name: name, Token: kuma.Token([]byte(secret), name), Interval: kuma.Often}
		if catalog.Rare(name) {
			monitor.Interval = kuma.Rare
		}
		want = append(want, monitor)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	done, err := kuma.Sync(ctx, m.Kuma.URL, m.Kuma.User, password, want)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(done)
	}
	fmt.Fprintf(c.stdout, "%d monitors made, %d corrected, %d paused, %d as they were.\n", len(done.Made), len(done.Corrected), len(done.Paused), done.Same)
	return nil
}
