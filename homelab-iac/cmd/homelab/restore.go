package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/internal/backup"
	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/postgres"
	"home.arpa/lab/homelab-iac/internal/restic"
	"home.arpa/lab/homelab-iac/internal/restore"
)

// wanted is what the flags of the restore commands say.
type wanted struct {
	tags, tier, asOf string
	yes              bool
	here             bool   // only services of this machine
	report           string // a file for the report as JSON
	measure          string // a folder for measurements of what came back
}

func (w *wanted) flags(fs *flag.FlagSet) {
	fs.StringVar(&w.tags, "tags", "", "`TAGS` of what to bring back, with commas: vault,gitea,dbs,photos,all or a service")
	fs.StringVar(&w.tier, "tier", "", "fast or slow; empty: the fast one where it has it")
	fs.StringVar(&w.asOf, "as-of", "", "the newest snapshot not younger than this `TIME`: 2026-01-30 or 2026-01-30T12:00:00Z")
}

var restoreCommands = []command{
	{
		name: "restore", args: "[flags]", summary: "bring back what is missing: asks what that is",
		help: `Without arguments it asks what is missing (a file, a service, a machine), says how long bringing it back will take and what it will
cost, and does it. The other restore commands do one of these without asking.

Example:
  homelab restore

Exit codes: 0 everything is back, 1 something is not, 2 wrong usage or nobody to ask, 4 declined.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error { return c.restoreTree },
	},
	{
		name: "restore plan", args: "--tags TAGS [flags]", summary: "print what a restore would do, command by command", json: true,
		help: `Looks for the snapshots with the key that may only read, and prints the commands that restore run would run. Nothing is changed.

Examples:
  homelab restore plan --tags vault
  homelab restore plan --tags gitea,dbs --as-of 2026-01-30 --json

Exit codes: 0 printed, 1 a snapshot is missing or cannot be read, 2 the command line or the configuration is wrong.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			var w wanted
			w.flags(fs)
			fs.BoolVar(&w.here, "here", false, "only services of this machine")
			return func(ctx context.Context) error { return c.restorePlan(ctx, w) }
		},
	},
	{
		name: "restore run", args: "--tags TAGS [flags]", summary: "bring services back", json: true,
		help: `Brings everything into staging and verifies it, asks, and only then puts it in place; what stood there is kept until you delete it.
A service that fails does not keep the others from coming back. A note about it goes into the vault.

Examples:
  homelab restore run --tags vault
  homelab restore run --tags gitea,photos --as-of 2026-01-30
  homelab restore run --tags dbs --yes --json

Exit codes: 0 everything is back, 1 something is not, 2 wrong usage or nobody to ask, 4 declined.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			var w wanted
			w.flags(fs)
			fs.BoolVar(&w.yes, "yes", false, "do not ask")
			fs.BoolVar(&w.here, "here", false, "only services of this machine; if there are none with these tags, nothing is done")
			fs.StringVar(&w.report, "report", "", "a `FILE` for the report as JSON")
			fs.StringVar(&w.measure, "measure", "", "a `DIR` for measurements of what came back, before a program touches it: for drills")
			return func(ctx context.Context) error { return c.restoreRun(ctx, w) }
		},
	},
	{
		name: "restore file", args: "PATH [flags]", summary: "bring one file or folder back, beside the place where it was", json: true,
		help: `Puts it beside the place where it was, with the ending .restored-TIME. Nothing is replaced.

Examples:
  homelab restore file /srv/vault/notes/daily/2026-01-31.md
  homelab restore file /srv/vault/notes/projects --as-of 2026-01-30 --json

Exit codes: 0 it is back, 1 it is not, 2 the command line or the configuration is wrong.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			var w wanted
			w.flags(fs)
			return func(ctx context.Context) error { return c.restoreFile(ctx, w) }
		},
	},
	{
		name: "restore guide", args: "[flags]", summary: "print docs/restore.md",
		help: `The plans of all services, as a person reads them at three in the morning.

Example:
  homelab restore guide >docs/restore.md

Exit codes: 0 printed, 1 the catalog cannot be read, 2 wrong usage.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			dir := fs.String("services", "", "a `DIR` of descriptions")
			return func(context.Context) error {
				all, err := loadCatalog(*dir)
				if err == nil {
					fmt.Fprint(c.stdout, restore.Guide(all))
				}
				return err
			}
		},
	},
	{
		name: "restore verify-dump", args: "DIR", summary: "compare a PostgreSQL dump with its manifest", json: true,
		help: `Reads every file of the dump: it is there, as long and with the same hash as when it was written.

Examples:
  homelab restore verify-dump /var/lib/homelab/dumps/gitea/postgres
  homelab restore verify-dump /var/lib/homelab/dumps/gitea/postgres --json

Exit codes: 0 the dump is whole, 1 it is not, 2 wrong usage.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			return func(context.Context) error {
				if len(c.args) != 1 {
					return usageError{"name the dump's folder"}
				}
				m, err := postgres.Verify(c.args[0])
				if err == nil && c.json {
					return c.printJSON(m)
				}
				if err == nil {
					fmt.Fprintf(c.stdout, "The dump of PostgreSQL %s made %s is whole: %d databases.\n", m.Server, m.Made.Format(time.RFC3339), len(m.Databases))
				}
				return err
			}
		},
	},
	{
		name: "restore compare-database", args: "SERVICE DUMP DATABASE NOW", summary: "compare a restored database with its dump's manifest",
		help: `Counts and hashes every table of database NOW and compares it with what DATABASE was when it was dumped.

Example:
  homelab restore compare-database gitea postgres gitea gitea_restoring

Exit codes: 0 they are the same, 1 they differ, 2 the command line or the configuration is wrong.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error { return c.compareDatabase },
	},
}

// services chooses by tags. "all" means all of this machine.
func (w wanted) services(m *machine) ([]catalog.Service, []string, error) {
	tags := strings.FieldsFunc(w.tags, func(r rune) bool { return r == ',' || r == ' ' })
	if len(tags) == 0 {
		return nil, nil, usageError{"say what to bring back with --tags: " + strings.Join(restore.Tags(m.catalog), ", ")}
	}
	from := m.catalog
	for _, tag := range tags {
		if w.here && !slices.Contains(restore.Tags(from), tag) {
			return nil, nil, usageError{fmt.Sprintf("there is no tag %q; there are %s", tag, strings.Join(restore.Tags(from), ", "))}
		}
	}
	if w.here || slices.Contains(tags, "all") {
		from = slices.DeleteFunc(slices.Clone(from), func(s catalog.Service) bool { return s.Host != m.Host })
	}
	if w.here {
		tags = slices.DeleteFunc(tags, func(tag string) bool {
			return !slices.ContainsFunc(from, func(s catalog.Service) bool { return s.HasTag(tag) })
		})
	}
	chosen, err := restore.Choose(from, tags)
	if err != nil {
		return nil, nil, usageError{err.Error()}
	}
	return chosen, tags, nil
}

// time reads --as-of. A day means its end.
func (w wanted) time() (time.Time, error) {
	if w.asOf == "" {
		return time.Time{}, nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, w.asOf, time.Local); err == nil {
		return t.AddDate(0, 0, 1).Add(-time.Second), nil
	}
	t, err := time.Parse(time.RFC3339, w.asOf)
	if err != nil {
		return t, usageError{fmt.Sprintf("--as-of %q is no time: write 2026-01-30 or 2026-01-30T12:00:00Z", w.asOf)}
	}
	return t, nil
}

// stamp goes into the names of what is kept: to the millisecond, so that two restores in one second keep two things.
func stamp(at time.Time) string {
	return strings.Replace(at.UTC().Format("20060102t150405.000z"), ".", "", 1)
}

func (m *machine) site() (restore.Site, error) {
	self, err := os.Executable()
	return restore.Site{Dumps: m.Dumps, Compose: m.Compose, Restic: m.Restic, Homelab: []string{self}, Stamp: stamp(time.Now())}, err
}

func (m *machine) restoreRepo(tier string) (restic.Repo, error) {
	r, err := m.repo(tier, "restore")
	r.RetryLock = 0
	return r, err
}

// findTime bounds the looking for one snapshot.
const findTime = 5 * time.Minute

// plans makes the plans; what has no snapshot is an error that names all that lack one.
func (m *machine) plans(ctx context.Context, w wanted) ([]restore.Plan, error) {
	chosen, tags, err := w.services(m)
	if err != nil {
		return nil, err
	}
	asOf, err := w.time()
	if err != nil {
		return nil, err
	}
	at, err := m.site()
	if err != nil {
		return nil, err
	}
	at.Measure = w.measure
	var plans []restore.Plan
	var missing error
	for _, s := range chosen {
		one, cancel := context.WithTimeout(ctx, findTime)
		from, err := restore.Find(one, s, w.tier, asOf, m.Dumps, m.restoreRepo)
		cancel()
		if err != nil {
			missing = errors.Join(missing, err)
			continue
		}
		from.DatabasesOnly = restore.OnlyDatabases(s, tags)
		plans = append(plans, restore.For(s, from, at))
	}
	return plans, missing
}

func (c *call) restorePlan(ctx context.Context, w wanted) error {
	m, err := c.machine()
	if err != nil {
		return err
	}
	plans, err := m.plans(ctx, w)
	if err != nil {
		return err
	}
	if c.json {
		return c.printJSON(plans)
	}
	if len(plans) == 0 {
		fmt.Fprintln(c.stdout, "# "+m.nothingHere(w))
		return nil
	}
	for _, p := range plans {
		fmt.Fprintf(c.stdout, "# %s: snapshot %.8s of %s in the %s repository, %d files, %s\n", p.Service, p.Snapshot, p.Made.Local().Format("2006-01-02 15:04"), p.Tier, p.Files, backup.Size(p.Bytes))
		for _, s := range p.Steps {
			fmt.Fprintf(c.stdout, "# %s: %s\n%s\n", s.Phase, s.What, s.Line())
		}
	}
	fmt.Fprintln(c.stdout, "# "+m.estimate(plans))
	return nil
}

// usualRate is how fast restores are taken to be before one was measured: bytes a second, a slow household's line.
const usualRate = 5e6

// rate is how fast the last proved restore of this machine's data was, in bytes a second, and where that is known from.
func (m *machine) rate() (float64, string) {
	text, err := os.ReadFile(filepath.Join(m.State, "proofs", m.Host, "restore-report.json"))
	if err != nil {
		text, err = os.ReadFile(filepath.Join(m.State, "restore-report.json"))
	}
	if err != nil {
		return usualRate, "a guess; a drill measures it"
	}
	last, err := restore.ReadReport(text)
	if rate := last.Rate(); err == nil && rate > 0 {
		return rate, "as in the drill of " + last.Ended.Local().Format(time.DateOnly)
	}
	return usualRate, "a guess; the last drill brought too little"
}

func (m *machine) estimate(plans []restore.Plan) string {
	rate, why := m.rate()
	took, dollars := restore.Estimate(plans, rate, func(tier string) float64 { return m.Repositories[tier].Price })
	return fmt.Sprintf("about %s at %s a second (%s), about $%.2f for reading", took.Round(time.Minute), backup.Size(int64(rate)), why, dollars)
}

func (c *call) restoreRun(ctx context.Context, w wanted) error {
	m, err := c.machine()
	if err != nil {
		return err
	}
	plans, err := m.plans(ctx, w)
	if err != nil {
		return err
	}
	if len(plans) == 0 {
		fmt.Fprintln(c.stdout, m.nothingHere(w))
		return nil
	}
	runner, err := c.runner(m, w.yes)
	if err != nil {
		return err
	}
	release, err := backup.Hold(ctx, m.State, 0) // a backup must not read what is being swapped
	if err != nil {
		return err
	}
	defer release()
	report := runner.Run(ctx, plans)
	if w.report != "" {
		text, err := json.MarshalIndent(report, "", "  ")
		if err == nil {
			err = backup.WriteFile(w.report, text, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return c.finish(m, report)
}

func (m *machine) nothingHere(w wanted) string {
	return fmt.Sprintf("Nothing on %s has the tags %s.", m.Host, w.tags)
}

func (c *call) runner(m *machine, yes bool) (restore.Runner, error) {
	r := restore.Runner{Host: m.Host, Say: c.say, Env: m.environ}
	if yes {
		return r, nil
	}
	in := bufio.NewReader(c.stdin)
	r.Ask = func(p restore.Plan) (bool, error) {
		fmt.Fprintf(c.stderr, "\n%s is fetched and verified. The next steps touch what is in use:\n", p.Service)
		for _, s := range p.Steps {
			if s.Ask {
				fmt.Fprintf(c.stderr, "  * %s\n", s.What)
			}
		}
		fmt.Fprintf(c.stderr, "What stands there is kept. Go on with %s? [y/N] ", p.Service)
		line, err := in.ReadString('\n')
		if err != nil && line == "" {
			return false, usageError{"there is nobody to ask: say --yes"}
		}
		answer := strings.ToLower(strings.TrimSpace(line))
		return answer == "y" || answer == "yes", nil
	}
	return r, nil
}

// environ is what restic and our own steps need; it holds the key that may only read.
func (m *machine) environ(tier string) []string {
	env := []string{"HOMELAB_CONFIG=" + m.path}
	if r, err := m.restoreRepo(tier); err == nil {
		env = append(env, r.Environ()...)
	}
	return env
}

// log writes the session's note into the vault, where the configuration names a folder of it. file is the one that was wanted, if it was one.
func (c *call) log(m *machine, report restore.Report, file string) {
	if m.Notes == "" {
		return
	}
	note := report.Note()
	if file != "" {
		note += "It was about one file or folder: `" + file + "`. Nothing was replaced.\n"
	}
	name := report.Started.Format("2006-01-02 150405") + " restore.md"
	if err := backup.WriteFile(filepath.Join(m.Notes, name), []byte(note), 0o644); err != nil {
		c.say("write session note: " + err.Error())
	}
}

// finish writes the note and says how it went.
func (c *call) finish(m *machine, report restore.Report) error {
	c.log(m, report, "")
	if c.json {
		if err := c.printJSON(report); err != nil {
			return err
		}
	} else {
		printReport(c.stdout, report)
	}
	for _, s := range report.Services {
		if s.Error == restore.ErrDeclined.Error() {
			return exitError(exitRefused)
		}
	}
	if report.Verdict != "green" {
		return exitError(exitFailed)
	}
	return nil
}

func printReport(w io.Writer, report restore.Report) {
	for _, s := range report.Services {
		state := "is back"
		if s.Error != "" {
			state = "is NOT back: " + s.Error
		}
		seconds := 0.0
		for _, d := range s.Steps {
			seconds += d.Seconds
		}
		fmt.Fprintf(w, "%s %s (%d files, %s, %.1f s)\n", s.Service, state, s.Files, backup.Size(s.Bytes), seconds)
		for _, k := range s.Kept {
			fmt.Fprintf(w, "  what stood there, if anything did: %s\n", k)
		}
	}
	fmt.Fprintf(w, "%s after %s\n", report.Verdict, report.Ended.Sub(report.Started).Round(time.Second))
	if report.Verdict == "green" {
		fmt.Fprintln(w, "Now look yourself: read something, compare, open the program.")
	}
}

func (c *call) restoreFile(ctx context.Context, w wanted) error {
	if len(c.args) != 1 {
		return usageError{"name one file or folder"}
	}
	m, err := c.machine()
	if err != nil {
		return err
	}
	return c.bringFile(ctx, m, w, c.args[0])
}

func (c *call) bringFile(ctx context.Context, m *machine, w wanted, file string) error {
	file, err := filepath.Abs(file)
	if err != nil {
		return err
	}
	s, ok := restore.Owning(m.catalog, file)
	if !ok {
		return usageError{fmt.Sprintf("%s is in no service's backup; homelab catalog shows what is", file)}
	}
	asOf, err := w.time()
	if err != nil {
		return err
	}
	find, cancel := context.WithTimeout(ctx, findTime)
	defer cancel()
	from, err := restore.Find(find, s, w.tier, asOf, m.Dumps, m.restoreRepo)
	if err != nil {
		return err
	}
	at, err := m.site()
	if err != nil {
		return err
	}
	runner, err := c.runner(m, true)
	if err != nil {
		return err
	}
	plan := restore.File(s, from, at, file)
	report := runner.Run(ctx, []restore.Plan{plan})
	made := from.Snapshot.Time.Local().Format("2006-01-02 15:04")
	if report.Verdict == "green" {
		if _, err := os.Lstat(plan.Kept[0]); err != nil {
			report.Verdict, report.Reason = "red", file+" was not in the snapshot of "+made
		}
	}
	c.log(m, report, file)
	if report.Verdict != "green" {
		return fmt.Errorf("%s: was it there on %s? Another time can be named with --as-of", report.Reason, made)
	}
	if c.json {
		return c.printJSON(map[string]any{"path": file, "restored": plan.Kept[0], "snapshot": from.Snapshot.ID, "made": from.Snapshot.Time})
	}
	fmt.Fprintf(c.stdout, "%s\n  is from %s; what is at %s was not touched\n", plan.Kept[0], made, file)
	return nil
}

func (c *call) compareDatabase(ctx context.Context) error {
	if len(c.args) != 4 {
		return usageError{"name service, dump, database and what it is called now"}
	}
	m, err := c.machine()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(m.catalog, func(s catalog.Service) bool { return s.Name == c.args[0] })
	if i < 0 {
		return usageError{fmt.Sprintf("the catalog has no service %q", c.args[0])}
	}
	s := m.catalog[i]
	for _, d := range s.Databases() {
		if d.Name != c.args[1] {
			continue
		}
		dump, err := postgres.Verify(filepath.Join(m.Dumps, s.Name, d.Name))
		if err != nil {
			return err
		}
		for _, was := range dump.Databases {
			if was.Name == c.args[2] {
				return c.printDifferences(ctx, postgres.Server{Exec: s.Inside(m.Compose, d.Container), User: d.User, Major: d.Major}, was, c.args[3])
			}
		}
	}
	return usageError{fmt.Sprintf("%s has no dump %q with a database %q", c.args[0], c.args[1], c.args[2])}
}

func (c *call) printDifferences(ctx context.Context, server postgres.Server, was postgres.Database, now string) error {
	is, err := server.Measure(ctx, now)
	if err != nil {
		return err
	}
	differences := postgres.Diff(was, is)
	if len(differences) > 0 {
		return fmt.Errorf("compare database: %d differences: %s", len(differences), strings.Join(differences[:min(5, len(differences))], "; "))
	}
	var rows int64
	for _, t := range was.Tables {
		rows += t.Rows
	}
	fmt.Fprintln(c.stdout, postgres.Same(now, was.Name, len(was.Tables), rows))
	return nil
}
