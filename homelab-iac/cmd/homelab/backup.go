package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/internal/backup"
	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/drill"
	"home.arpa/lab/homelab-iac/internal/restic"
	"home.arpa/lab/homelab-iac/internal/watch"
)

var backupCommands = []command{
	{
		name: "backup run", args: "fast|slow [flags]", summary: "back this machine's services up", json: true,
		help: `Makes one snapshot of each service of this machine: containers that must stand still do, dumps are written, restic runs, dumps
are removed, and what was stopped is started again, also after an error. A snapshot that lacks something is kept, marked, and is no
success. Where this machine holds the maintenance key, forget runs afterwards. The result goes to Uptime Kuma, the node exporter
and, when something begins to be wrong or is well again, to Discord and ntfy, where they are configured.

Examples:
  homelab backup run fast
  homelab backup run slow --json

Exit codes: 0 every service is safe, 1 some is not, 2 the configuration is wrong, 3 every service has a snapshot and some lack
something, 75 another backup is at work on this machine, 130 interrupted.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			accept := fs.Bool("accept-smaller", false, "what became much smaller since the last time is right")
			wait := fs.Duration("wait", 0, "wait this `LONG` for another backup on this machine to end: 6h")
			reference := fs.String("reference", "", "measure the folders too, while they stand still, into `FILE`: for drill --reference")
			return func(ctx context.Context) error { return c.backupRun(ctx, *accept, *wait, *reference) }
		},
	},
	{
		name: "backup catchup", args: "[flags]", summary: "after a downtime: run what was missed",
		help: `Looks into the repositories for what this machine should have backed up while it was off, and runs those tiers. Cron starts it after a boot, and
does not start by itself what was due while it slept.

Example:
  homelab backup catchup

Exit codes: 0 nothing was missed, or it is made up for; 1 some is not; 2 the configuration is wrong; 130 interrupted.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error { return c.backupCatchup },
	},
	{
		name: "backup check", args: "fast|slow [flags]", summary: "check a repository and a part of its data", json: true,
		help: `Checks the structure, and each time another part of the data: a thirtieth of the fast repository, a fifty-second of the slow one, so
that a month of days and a year of weeks have read everything.

Examples:
  homelab backup check fast
  homelab backup check slow --all --json

Exit codes: 0 nothing is wrong, 1 something is, or the repository does not answer, 2 the command line or the configuration is wrong.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			all := fs.Bool("all", false, "read all data now: after a damage, or before something is wiped")
			return func(ctx context.Context) error { return c.backupCheck(ctx, *all) }
		},
	},
	{
		name: "backup maintenance", args: "fast|slow [flags]", summary: "forget what is old, and free the space", json: true,
		help: `Needs the maintenance key. Compares the repository with what the last maintenance left, and refuses when snapshots are of the future,
backdated, too many, gone without maintenance, or suddenly small: one who stole a backup key must not have his work finished for him.
Removes exactly the snapshots that were judged.

Examples:
  homelab backup maintenance fast --prune
  homelab backup maintenance slow --accept

Exit codes: 0 done, 1 failed, 2 wrong usage, 4 refused: nothing was removed.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			prune := fs.Bool("prune", false, "free the space, too")
			accept := fs.Bool("accept", false, "I have looked at what is refused, and it is right")
			wait := fs.Duration("wait", 0, "wait this `LONG` for a backup on this machine to end: 6h")
			return func(ctx context.Context) error { return c.backupMaintenance(ctx, *prune, *accept, *wait) }
		},
	},
	{
		name: "backup init", args: "fast|slow [flags]", summary: "make a repository where there is none",
		help: `Makes the repository with the backup key. Where there is one already nothing happens.

Example:
  homelab backup init fast

Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			return func(ctx context.Context) error {
				_, repo, tier, err := c.tierRepo("backup")
				if err != nil {
					return err
				}
				ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
				defer cancel()
				there, err := repo.Exists(ctx)
				if err == nil && !there {
					err = repo.Init(ctx)
				}
				if err == nil {
					fmt.Fprintf(c.stdout, "The %s repository is there.\n", tier.Name)
				}
				return err
			}
		},
	},
	{
		name: "backup locks", args: "fast|slow [flags]", summary: "show who is at work in a repository", json: true,
		help: `Lists the locks with their age, machine and process. Every run judges locks by itself; they are never all removed.

Examples:
  homelab backup locks fast
  homelab backup locks slow --json

Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			return func(ctx context.Context) error {
				_, repo, _, err := c.tierRepo("backup")
				if err != nil {
					return err
				}
				ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
				defer cancel()
				locks, err := repo.Locks(ctx)
				if err != nil {
					return err
				}
				if c.json {
					return c.printJSON(append([]restic.Lock{}, locks...))
				}
				for _, l := range locks {
					fmt.Fprintln(c.stdout, l)
				}
				if len(locks) == 0 {
					fmt.Fprintln(c.stdout, "Nobody is at work there.")
				}
				return nil
			}
		},
	},
}

// tierRepo reads the one argument and opens its repository.
func (c *call) tierRepo(key string) (*machine, restic.Repo, catalog.Tier, error) {
	if len(c.args) != 1 {
		return nil, restic.Repo{}, catalog.Tier{}, usageError{"name the tier: fast or slow"}
	}
	tier, err := catalog.TierNamed(c.args[0])
	if err != nil {
		return nil, restic.Repo{}, tier, usageError{err.Error()}
	}
	m, err := c.machine()
	if err != nil {
		return nil, restic.Repo{}, tier, err
	}
	repo, err := m.repo(tier.Name, key)
	return m, repo, tier, err
}

func (c *call) backupRun(ctx context.Context, accept bool, wait time.Duration, reference string) error {
	m, repo, tier, err := c.tierRepo("backup")
	if m == nil {
		return err
	}
	monitor := catalog.BackupMonitor(tier.Name, m.Host)
	if err != nil {
		c.tell(ctx, m, monitor, err.Error(), err.Error(), 0)
		return err
	}
	r := &backup.Run{Tier: tier, Host: m.Host, Services: catalog.On(m.catalog, m.Host, tier.Name), Repo: repo, State: m.State, Dumps: m.Dumps,
		Compose: m.Compose, Locks: m.Locks, Bounds: m.Bounds, Accept: accept, Wait: wait, Say: c.say, Progress: c.progress()}
	if len(r.Services) == 0 {
		return usageError{fmt.Sprintf("the catalog has no service of %q in the %s tier: is host right in the configuration?", m.Host, tier.Name)}
	}
	if _, ok := m.Repositories[tier.Name].Keys["maintenance"]; ok {
		r.Retention = func(ctx context.Context) error { _, err := c.maintain(ctx, m, tier, false, false); return err }
	}
	measured := drill.Measurement{}
	if reference != "" {
		r.Measure = func(s catalog.Service) error { return measured.Add(s) }
	}
	report, err := r.Do(ctx)
	if err == nil && reference != "" {
		err = measured.Write(reference)
	}
	if err != nil {
		if !errors.Is(err, backup.ErrBusy) || wait > 0 { // who only looked whether it was free has lost nothing
			c.tell(ctx, m, monitor, err.Error(), err.Error(), 0)
		}
		return err
	}
	if m.Metrics != "" {
		path := filepath.Join(m.Metrics, "homelab-backup-"+tier.Name+".prom")
		if err := backup.WriteFile(path, []byte(report.Metrics(r.Remembered)), 0o644); err != nil {
			c.say(err.Error())
		}
	}
	c.tell(ctx, m, monitor, report.Trouble(), report.Summary(), report.Ended.Sub(report.Started))
	if c.json {
		if err := c.printJSON(report); err != nil {
			return err
		}
	} else {
		report.Print(c.stdout)
	}
	switch {
	case ctx.Err() != nil:
		return exitError(exitInterrupted)
	case report.OnlyPartial():
		return exitError(exitPartial)
	case report.Trouble() != "":
		return exitError(exitFailed)
	}
	return nil
}

func (c *call) backupCatchup(ctx context.Context) error {
	m, err := c.machine()
	if err != nil {
		return err
	}
	var failed error
	for _, tier := range catalog.Tiers {
		mine := catalog.On(m.catalog, m.Host, tier.Name)
		if _, ok := m.Repositories[tier.Name]; !ok || len(mine) == 0 {
			continue
		}
		list, err := c.patientSnapshots(ctx, m, tier.Name)
		if err != nil {
			c.tell(ctx, m, catalog.BackupMonitor(tier.Name, m.Host), err.Error(), err.Error(), 0)
			failed = errors.Join(failed, err)
			continue
		}
		if !watch.Due(mine, tier, list, time.Now()) {
			fmt.Fprintf(c.stdout, "The %s tier has missed nothing.\n", tier.Name)
			continue
		}
		fmt.Fprintf(c.stdout, "The %s tier is due.\n", tier.Name)
		one := *c
		one.args = []string{tier.Name}
		failed = errors.Join(failed, one.backupRun(ctx, false, catchupWait, ""))
	}
	return failed
}

// catchupWait is how long a missed tier waits for a run that cron started meanwhile.
const catchupWait = 6 * time.Hour

// patientSnapshots reads a repository, five times at most: after a boot the network may come late.
func (c *call) patientSnapshots(ctx context.Context, m *machine, tier string) (list []restic.Snapshot, err error) {
	for try := 1; ; try++ {
		if list, err = m.snapshots(ctx, tier); err == nil || try == 5 || ctx.Err() != nil {
			return list, err
		}
		c.say(err.Error() + ": trying again in " + m.Catchup.String())
		t := time.NewTimer(m.Catchup)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
}

// progress says every ten seconds how far a service is.
func (c *call) progress() func(string, restic.Progress) {
	last := time.Now()
	return func(service string, p restic.Progress) {
		if time.Since(last) < 10*time.Second {
			return
		}
		last = time.Now()
		c.say(fmt.Sprintf("%s: %.0f %%, %d of %d files, %s of %s", service, 100*p.Fraction, p.Files, p.TotalFiles, backup.Size(p.Bytes), backup.Size(p.TotalBytes)))
	}
}

func (c *call) backupCheck(ctx context.Context, all bool) error {
	m, repo, tier, err := c.tierRepo("backup")
	if err != nil {
		return err
	}
	begin := time.Now()
	done, err := backup.Check(ctx, repo, tier, m.State, m.Locks, all, c.say)
	return c.cared(ctx, m, tier, begin, fmt.Sprintf("the %s repository is whole; part %d of %d was read", tier.Name, done.Part, done.Of), done, err)
}

// cared tells and prints how the care of a repository went.
func (c *call) cared(ctx context.Context, m *machine, tier catalog.Tier, begin time.Time, summary string, done any, err error) error {
	trouble := ""
	if err != nil {
		trouble, summary = err.Error(), err.Error()
	}
	c.tell(ctx, m, catalog.CheckMonitor(tier.Name, m.Host), trouble, summary, time.Since(begin))
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(done)
	}
	fmt.Fprintln(c.stdout, summary)
	return nil
}

func (c *call) maintain(ctx context.Context, m *machine, tier catalog.Tier, prune, accept bool) (backup.Maintained, error) {
	repo, err := m.repo(tier.Name, "maintenance")
	if err != nil {
		return backup.Maintained{}, err
	}
	work := &backup.Maintenance{Tier: tier, Repo: repo, State: m.State, Locks: m.Locks, Prune: prune, Accept: accept, Say: c.say}
	return work.Within(ctx)
}

func (c *call) backupMaintenance(ctx context.Context, prune, accept bool, wait time.Duration) error {
	m, _, tier, err := c.tierRepo("maintenance")
	if err != nil {
		return err
	}
	release, err := backup.Hold(ctx, m.State, wait)
	if err != nil {
		if wait > 0 {
			c.tell(ctx, m, catalog.CheckMonitor(tier.Name, m.Host), err.Error(), err.Error(), 0)
		}
		return err
	}
	defer release()
	begin := time.Now()
	done, err := c.maintain(ctx, m, tier, prune, accept)
	return c.cared(ctx, m, tier, begin, fmt.Sprintf("%d snapshots kept, %d forgotten, space freed: %v", done.Kept, len(done.Removed), done.Pruned), done, err)
}

var catalogCommands = []command{
	{
		name: "catalog", args: "[flags]", summary: "show what is backed up, and what is not and why", json: true,
		help: `Reads the catalog: the one built in, or the folder named by --services. With --json everything that the catalog knows.

Examples:
  homelab catalog
  homelab catalog --host contabo --json

Exit codes: 0 printed, 1 the catalog cannot be read, 2 wrong usage.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			dir := fs.String("services", "", "a `DIR` of descriptions")
			host := fs.String("host", "", "only this machine's")
			return func(context.Context) error { return c.showCatalog(*dir, *host) }
		},
	},
	{
		name: "catalog cron", args: "--host NAME [flags]", summary: "print /etc/cron.d/homelab-backup for a machine",
		help: `Cron is the schedule that people see; the work is done by systemd units, of which each runs once at a time and is bounded.

Examples:
  homelab catalog cron --host contabo
  homelab catalog cron --host dev-learning --maintenance

Exit codes: 0 printed, 1 the catalog cannot be read, 2 wrong usage.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			dir := fs.String("services", "", "a `DIR` of descriptions")
			host := fs.String("host", "", "the `NAME` of the machine")
			idle := fs.Bool("without-services", false, "nothing of the catalog need run there: it only watches")
			maintenance := fs.Bool("maintenance", false, "it holds the maintenance keys: forget and prune, too")
			return func(context.Context) error {
				all, err := loadCatalog(*dir)
				if err != nil {
					return err
				}
				if *host == "" {
					return usageError{"name the machine with --host: " + strings.Join(hosts(all), ", ")}
				}
				if !*idle && !*maintenance { // who only cares for the repositories may have nothing of the catalog
					if err := known(all, *host); err != nil {
						return err
					}
				}
				fmt.Fprint(c.stdout, catalog.Cron(all, *host, *maintenance))
				return nil
			}
		},
	},
}

// known refuses the name of a machine on which nothing of the catalog runs.
func known(all []catalog.Service, host string) error {
	if there := hosts(all); !slices.Contains(there, host) {
		return usageError{fmt.Sprintf("--host %q: nothing of the catalog runs there; there are %s", host, strings.Join(there, ", "))}
	}
	return nil
}

func (c *call) showCatalog(dir, host string) error {
	all, err := loadCatalog(dir)
	if err != nil {
		return err
	}
	if host != "" {
		if err := known(all, host); err != nil {
			return err
		}
	}
	all = slices.DeleteFunc(all, func(s catalog.Service) bool { return host != "" && s.Host != host })
	if c.json {
		return c.printJSON(all)
	}
	for _, s := range all {
		switch {
		case s.Nothing != "":
			fmt.Fprintf(c.stdout, "%-12s %-14s nothing: %s\n", s.Name, s.Host, s.Nothing)
		default:
			fmt.Fprintf(c.stdout, "%-12s %-14s %d paths, %d dumps, at most %v old, back in %v\n", s.Name, s.Host, len(s.Backup.Paths), len(s.Backup.Dumps), s.Backup.RPO, s.Restore.RTO)
		}
	}
	return nil
}
