package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"home.arpa/lab/homelab-iac/internal/backup"
	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/drill"
	"home.arpa/lab/homelab-iac/internal/restore"
)

var drillCommands = []command{
	{
		name: "drill", args: "--host SSH --tags TAGS [flags] | --lab --tags TAGS [flags] | --lab --sample [flags]", summary: "prove a restore on another, clean machine", json: true,
		help: `Restores on a clean machine what the tags name, with nothing but the kit (addresses, passwords, the keys that may only read), compares it,
uses it, and writes restore-report.json and restore-report.html. The machine is one that you name (--host), or one that is made here and
thrown away (--lab). With --playbooks it is made by site.yml and the data come back by restore.yml, as after a fire; without, the
program goes over and restores, which is enough for services that are folders.

Folders are compared entry by entry, before a program touches them, with a measurement of the source (--reference), else with the
snapshot's own list, while restic reads all content back; databases table by table with what was measured when they were dumped; and
what the catalog calls a fact with what it was. Then the services are used: pages, checks, a push. Zero differences, everything
proved, within the promised time: green. Anything else is red. A machine that is called like the one that was backed up is refused.

A machine of the lab has no way out but to your storage, so that what comes back to life there sends nothing and syncs with nobody. One
that you name may have: keep it off your network.

Examples:
  homelab drill --lab --sample
  homelab drill --lab --playbooks homelab-iac/ansible --inventory homelab-iac/ansible/inventory/example --tags all
  homelab drill --host root@dev-learning --tags vault
  homelab drill --host root@10.0.0.5 --ssh "ssh -i key -p 2222" --tags all --playbooks homelab-iac/ansible

Exit codes: 0 green, 1 red or failed, 2 wrong usage.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			var d drillCall
			return d.setup(fs, c)
		},
	},
	{
		name: "measure", args: "--tags TAGS [flags]", summary: "measure the folders of services: what a drill compares",
		help: `Prints as JSON every entry of the folders that are backed up: path, type, mode, owners, times, size, SHA-256, link target, hard links, extended
attributes. What the backup leaves out is left out.

Example:
  homelab measure --tags vault --to vault.json

Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			var w wanted
			w.flags(fs)
			to := fs.String("to", "", "write it into `FILE`")
			return func(context.Context) error {
				m, err := c.machine()
				if err != nil {
					return err
				}
				chosen, _, err := w.services(m)
				if err != nil {
					return err
				}
				measured, err := drill.Measure(chosen)
				if err != nil {
					return err
				}
				if *to != "" {
					return measured.Write(*to)
				}
				return json.NewEncoder(c.stdout).Encode(measured)
			}
		},
	},
}

// A drillCall is what the flags say.
type drillCall struct {
	wanted
	host, ssh, before, reference, out    string
	lab, sample, keep                    bool
	playbooks, inventory, images, varsIn string
	of, reach                            string
	here                                 string // what this machine is called
}

func (d *drillCall) setup(fs *flag.FlagSet, c *call) func(context.Context) error {
	d.wanted.flags(fs)
	fs.StringVar(&d.host, "host", "", "the clean machine, as `SSH` knows it")
	fs.StringVar(&d.ssh, "ssh", "ssh -o BatchMode=yes -o ConnectTimeout=10", "how it is reached: a `COMMAND` that takes the host and a command line")
	fs.StringVar(&d.of, "of", "", "the `MACHINE` of the catalog whose data are proved; empty: this one")
	fs.StringVar(&d.reach, "reach", "", "with --lab: more `HOSTS` that the machine may reach, with commas: your registries")
	fs.BoolVar(&d.lab, "lab", false, "on a machine that is made for it here and thrown away (as root, on Linux)")
	fs.BoolVar(&d.sample, "sample", false, "with --lab: make sample data, back them up to a storage of the lab, and prove that")
	fs.BoolVar(&d.keep, "keep", false, "leave keys and services on the machine; with --lab it is not thrown away until Ctrl-C")
	fs.StringVar(&d.playbooks, "playbooks", "", "make the machine by site.yml and restore by restore.yml of this `DIR` (homelab-iac/ansible)")
	fs.StringVar(&d.inventory, "inventory", "", "an Ansible `INVENTORY` whose variables hold for all machines")
	fs.StringVar(&d.varsIn, "vars", "", "a `FILE` of more variables for the playbooks")
	fs.StringVar(&d.images, "images", "", "`FILES` of docker save, with commas, for a machine that reaches no registry")
	fs.StringVar(&d.before, "before", "", "a `COMMAND` that makes the machine ready, run here")
	fs.StringVar(&d.reference, "reference", "", "a `FILE` of homelab measure, or of backup run --reference, to compare with")
	fs.StringVar(&d.out, "out", "", "a `DIR` for the report; empty: the state's folder")
	return func(ctx context.Context) error {
		if err := d.check(); err != nil {
			return err
		}
		switch {
		case d.sample && !d.lab:
			return usageError{"--sample is for --lab: it makes data of its own and throws them away"}
		case d.lab && d.host != "":
			return usageError{"--lab makes a machine, and --host names one: say one of them"}
		case d.host == "" && !d.lab:
			return usageError{"name the clean machine with --host, or make one with --lab; what is restored there takes the place of what stands there"}
		case d.sample:
			return c.drillSample(ctx, *d)
		case d.lab:
			return c.drillLab(ctx, *d)
		}
		m, err := c.drilled(d)
		if err != nil {
			return err
		}
		return c.drill(ctx, m, *d, nil)
	}
}

// check finds what is wrong with the flags before a machine is made or touched.
func (d drillCall) check() error {
	if len(strings.Fields(d.ssh)) == 0 {
		return usageError{"--ssh is empty: name a program that takes the host and a command line, such as \"ssh -i KEY\""}
	}
	files := map[string]string{"vars": d.varsIn, "inventory": d.inventory, "reference": d.reference}
	if d.playbooks != "" {
		files["playbooks"] = filepath.Join(d.playbooks, "site.yml")
	}
	for _, flag := range slices.Sorted(maps.Keys(files)) {
		if _, err := os.Stat(files[flag]); files[flag] != "" && err != nil {
			return usageError{fmt.Sprintf("--%s: %v", flag, err)}
		}
	}
	for file := range strings.SplitSeq(d.images, ",") {
		if _, err := os.Stat(file); file != "" && err != nil {
			return usageError{fmt.Sprintf("--images: %v: make it with docker save", err)}
		}
	}
	return nil
}

// drilled is the machine whose data are proved.
func (c *call) drilled(d *drillCall) (*machine, error) {
	m, err := c.machine()
	if err != nil {
		return nil, err
	}
	d.here = m.Host
	if d.of == "" {
		return m, nil
	}
	if !slices.Contains(hosts(m.catalog), d.of) {
		return nil, usageError{fmt.Sprintf("--of %q: the catalog knows no such machine; there are %s", d.of, strings.Join(hosts(m.catalog), ", "))}
	}
	return m.on(d.of), nil
}

// drill proves a restore on the machine of d. clean, where it is not nil, is a stage before all others that makes it.
func (c *call) drill(ctx context.Context, m *machine, d drillCall, clean func(context.Context) error) error {
	chosen, tags, err := d.services(m)
	if err != nil {
		return err
	}
	var reference drill.Measurement
	if d.reference != "" {
		if reference, err = drill.ReadMeasurement(d.reference); err != nil {
			return err
		}
	}
	report := &drill.Report{Target: d.host}
	report.Host, report.Started = m.Host, time.Now().UTC()
	t := &trial{c: c, m: m, d: d, report: report, chosen: chosen, tags: tags, reference: reference, clean: clean}
	t.remote = &remote{c: c, argv: append(strings.Fields(d.ssh), d.host)}
	began := time.Now()
	err = t.run(ctx)
	report.Ended = time.Now().UTC()
	report.Judge()
	if failed := slices.ContainsFunc(report.Services, func(s restore.Result) bool { return s.Error != "" }); err != nil && !failed {
		report.Verdict, report.Reason = "red", err.Error() // else the service's own words say more
	}
	if d.out == "" {
		d.out = proofDir(m.State, d.here, m.Host)
	}
	if err := writeReport(report, d.out); err != nil {
		return err
	}
	trouble, summary := "", report.Summary()
	if report.Verdict != "green" {
		trouble = report.Reason
	} else { // one monitor hears of all: it is well when all are
		others := slices.DeleteFunc(proofs(m.State), func(p proof) bool { return p.failed == "" || p.of == m.Host || p.of == "" && m.Host == d.here })
		if len(others) > 0 {
			trouble = proved(others, time.Now()).Trouble
			summary += "; but " + trouble
		}
	}
	c.tell(ctx, m, catalog.DrillMonitor, trouble, summary, time.Since(began))
	if c.json {
		if err := c.printJSON(report); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(c.stdout, "%s: %s\n%s\n", report.Verdict, report.Summary(), filepath.Join(d.out, "restore-report.html"))
	}
	if report.Verdict != "green" {
		return exitError(exitFailed)
	}
	return nil
}

func writeReport(report *drill.Report, dir string) error {
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	if err := backup.WriteFile(filepath.Join(dir, "restore-report.json"), text, 0o644); err != nil {
		return err
	}
	var page bytes.Buffer
	if err := report.Page(&page); err != nil {
		return fmt.Errorf("write page: %w", err)
	}
	return backup.WriteFile(filepath.Join(dir, "restore-report.html"), page.Bytes(), 0o644)
}

// A trial is one drill on its way.
type trial struct {
	c         *call
	m         *machine
	d         drillCall
	remote    *remote
	report    *drill.Report
	chosen    []catalog.Service
	tags      []string
	reference drill.Measurement
	clean     func(context.Context) error
}

// stage runs a part of the drill and writes down how long it took.
func (t *trial) stage(name string, f func() error) error {
	t.c.say("drill: " + name)
	s := drill.Stage{Name: name, Began: time.Now().UTC()}
	err := f()
	s.Seconds = time.Since(s.Began).Seconds()
	t.report.Stages = append(t.report.Stages, s)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	t.c.say(fmt.Sprintf("drill: %s: done in %.1f s", name, s.Seconds))
	return nil
}

// run goes through the stages. What was found out before an error is in the report.
func (t *trial) run(ctx context.Context) error {
	if t.clean != nil {
		if err := t.stage("start a clean machine", func() error { return t.clean(ctx) }); err != nil {
			return err
		}
	}
	if t.d.before != "" {
		if err := t.stage("make the machine ready", func() error { return t.c.local(ctx, t.d.before) }); err != nil {
			return err
		}
	}
	if err := t.stage("look who it is", func() error { return t.remote.refuse(ctx, t.chosen) }); err != nil {
		return err
	}
	back := t.byKit
	if t.d.playbooks != "" {
		back = t.byPlaybooks
	}
	leave, err := back(ctx)
	defer leave()
	if err != nil {
		return err
	}
	t.report.TakeOver()
	err = t.stage("compare", func() error {
		there, err := t.remote.measurement(ctx, t.withFolders())
		if err != nil {
			return err
		}
		for _, s := range t.withFolders() {
			if err := t.c.compare(ctx, t.m, t.report, s, t.reference, there); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return t.stage("use it", func() error { return t.remote.prove(ctx, t.d.wanted, t.report) })
}

// withFolders are the services of which more than databases is brought back.
func (t *trial) withFolders() []catalog.Service {
	return slices.DeleteFunc(slices.Clone(t.chosen), func(s catalog.Service) bool { return restore.OnlyDatabases(s, t.tags) })
}

// byKit restores with nothing but what is brought over SSH.
func (t *trial) byKit(ctx context.Context) (leave func(), err error) {
	r := t.remote
	r.dir = "/root/.homelab-drill-" + t.report.Started.Format("20060102t150405z")
	r.measured = r.dir + "/measured"
	leave = func() { r.forget(ctx) }
	if err := t.stage("bring the kit", func() error { return r.bring(ctx, t.m) }); err != nil {
		return leave, err
	}
	return leave, t.stage("restore", func() error { return r.restore(ctx, t.d.wanted, t.report) })
}

func (c *call) compare(ctx context.Context, m *machine, report *drill.Report, s catalog.Service, reference, there drill.Measurement) error {
	for _, p := range s.Backup.Paths {
		if was, ok := reference[p.Path]; ok {
			report.Compared = append(report.Compared, drill.CompareExact(s.Name, p.Path, was, there[p.Path]))
			continue
		}
		for _, back := range report.Services {
			if back.Service != s.Name || back.Error != "" {
				continue
			}
			repo, err := m.restoreRepo(back.Tier)
			if err != nil {
				return err
			}
			list, cancel := context.WithTimeout(ctx, findTime)
			nodes, err := repo.List(list, back.Snapshot, p.Path)
			cancel()
			if err != nil {
				return err
			}
			report.Compared = append(report.Compared, drill.CompareListing(s.Name, p.Path, nodes, there[p.Path]))
		}
	}
	return nil
}

// local runs a command line of the operator's here, with its output on stderr.
func (c *call) local(ctx context.Context, line string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Hour)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.Stdout, cmd.Stderr = c.stderr, c.stderr
	cmd.WaitDelay = 10 * time.Second
	return cmd.Run()
}
