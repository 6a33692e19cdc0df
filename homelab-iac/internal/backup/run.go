// Package backup makes the snapshots of one machine, keeps the repositories in order, and says honestly how it went. A snapshot
// that lacks something is kept, marked, and never counts as one.
package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/postgres"
	"home.arpa/lab/homelab-iac/internal/restic"
)

// A Run backs up the services of one machine in one tier.
type Run struct {
	Tier     catalog.Tier
	Host     string
	Services []catalog.Service
	Repo     restic.Repo // with the key that may only add
	State    string
	Dumps    string
	Compose  []string // how Docker Compose is called for {service}
	Postgres []string // environment for PostgreSQL's programs; nil in production
	Locks    restic.LockPolicy
	Accept   bool          // take what became much smaller for good
	Wait     time.Duration // for another run on this machine to end
	Bounds   Bounds
	// Measure, where it is not nil, is told of each service after its snapshot, while it still stands still.
	Measure func(catalog.Service) error
	// Retention, where this machine holds the maintenance key, runs after the backup.
	Retention func(context.Context) error
	Say       func(string)                  // what happens, one line each
	Progress  func(string, restic.Progress) // how far restic is with a service; may be nil
}

// Bounds are what other programs may take. The zero value means Usual.
type Bounds struct {
	Stop   time.Duration // stopping or starting a service's containers
	Dump   time.Duration // all dumps of a service
	Restic time.Duration // restic, for one service
	Still  time.Duration // the same, while a service stands still
	Probe  time.Duration // whether the repository answers: restic itself would try for fifteen minutes
}

// Usual is what holds when nobody says otherwise.
var Usual = Bounds{Stop: 5 * time.Minute, Dump: 2 * time.Hour, Restic: resticTime, Still: time.Hour, Probe: 2 * time.Minute}

const resticTime = 12 * time.Hour

// Do runs the stages: plan, then for each service dump and backup, then retention, report. The repository is not read again here,
// which would cost as much as a backup of nothing: homelab watch does that within five minutes, with another key. The error says
// that nothing could be done at all (ErrBusy: another run is at work); what went wrong with a service is in the report.
func (r *Run) Do(ctx context.Context) (*Report, error) {
	if r.Bounds == (Bounds{}) {
		r.Bounds = Usual
	}
	release, err := Hold(ctx, r.State, r.Wait)
	if err != nil {
		return nil, err
	}
	defer release()
	memory, err := recall(r.State, r.Tier.Name)
	if err != nil {
		return nil, err
	}
	report := &Report{Tier: r.Tier.Name, Host: r.Host, Started: time.Now().UTC()}
	j := &journal{path: filepath.Join(r.State, "running-"+r.Tier.Name+".json"), Started: report.Started, PID: os.Getpid()}
	report.stage("plan", func() { report.fail(r.heal(ctx, j)) })
	if err := j.write(); err != nil {
		return nil, err
	}
	unfit := r.Repo.Suits(ctx)
	sure := false // that the repository answers
	for _, s := range r.Services {
		if ctx.Err() != nil {
			report.fail(fmt.Errorf("interrupted before %s: run it again", s.Name))
			break
		}
		j.Service = s.Name
		report.fail(j.write())
		if unfit != nil {
			report.Services = append(report.Services, Outcome{Service: s.Name, Errors: []string{unfit.Error()}})
			continue
		}
		// Nobody stands still, and nothing is dumped, for a repository that does not answer. Where neither is needed and nothing
		// went wrong yet, restic finds out by itself: to ask costs as much as a backup of nothing.
		if !sure && (len(s.Backup.Stop) > 0 || len(report.Services) > 0 && report.Services[len(report.Services)-1].Snapshot == "") {
			if err := r.probe(ctx); err != nil {
				report.Services = append(report.Services, Outcome{Service: s.Name, Errors: []string{err.Error()}})
				continue
			}
			sure = true
		}
		o := r.service(ctx, s, memory.Services[s.Name], j)
		sure = sure && o.Snapshot != ""
		report.Services = append(report.Services, o)
	}
	if r.Retention != nil && ctx.Err() == nil && slices.ContainsFunc(report.Services, func(o Outcome) bool { return o.Snapshot != "" }) {
		report.stage("retention", func() { report.fail(r.Retention(ctx)) })
	}
	report.Ended = time.Now().UTC()
	memory.learn(report)
	report.fail(errors.Join(memory.save(), j.remove()))
	return report, nil
}

// probe asks whether the repository answers and the password opens it.
func (r *Run) probe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.Bounds.Probe)
	defer cancel()
	there, err := r.Repo.Exists(ctx)
	if err == nil && !there {
		return errors.New("there is no repository: check the URL; make a new one with homelab backup init")
	}
	return err
}

// service backs one service up. Whatever happens, its dumps go and its containers run again.
func (r *Run) service(ctx context.Context, s catalog.Service, before Remembered, j *journal) (o Outcome) {
	o = Outcome{Service: s.Name, Dumps: map[string]int64{}}
	begin := time.Now()
	defer func() { o.Seconds = time.Since(begin).Seconds() }()
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.Bounds.Stop)
		defer cancel()
		o.trouble(errors.Join(r.removeDumps(s.Name), r.resume(clean, s, j)))
	}()
	if err := r.quiesce(ctx, s, j); err != nil {
		o.trouble(err) // the files are copied all the same, and the snapshot is marked
	}
	paths := []string{}
	for _, p := range s.Backup.Paths {
		if _, err := os.Lstat(p.Path); err != nil {
			o.trouble(fmt.Errorf("read source: %w: is the disk mounted?", err))
			continue
		}
		if w := owners(p); w != "" {
			o.Warnings = append(o.Warnings, w)
		}
		paths = append(paths, p.Path)
	}
	if len(s.Backup.Dumps) > 0 {
		o.stage("dump", func() { o.trouble(r.dump(ctx, s, before, &o)) })
		if len(o.Dumps) > 0 {
			paths = append(paths, r.dumpDir(s.Name))
		}
	}
	if len(paths) == 0 {
		o.trouble(errors.New("there is nothing to read: no snapshot was made"))
		return o
	}
	o.stage("backup", func() { r.backup(ctx, s, paths, before, &o) })
	if r.Measure != nil {
		o.stage("measure", func() { o.trouble(r.Measure(s)) })
	}
	return o
}

// owners compares a folder with what its contract says. It is no error: the snapshot keeps what is there, and so does a restore.
func owners(p catalog.Path) string {
	st, err := os.Lstat(p.Path)
	if err != nil || p.Mode == "" {
		return ""
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	if is := fmt.Sprintf("%04o", sys.Mode&0o7777); ok && (int(sys.Uid) != p.UID || int(sys.Gid) != p.GID || is != p.Mode) {
		return fmt.Sprintf("%s is %d:%d %s, and the catalog says %d:%d %s: correct one of them", p.Path, sys.Uid, sys.Gid, is, p.UID, p.GID, p.Mode)
	}
	return ""
}

func (r *Run) backup(ctx context.Context, s catalog.Service, paths []string, before Remembered, o *Outcome) {
	b := restic.Backup{Host: r.Host, Tags: s.Tags(r.Tier.Name), Paths: paths}
	for _, p := range s.Backup.Paths {
		for _, e := range p.Exclude {
			b.Excludes = append(b.Excludes, filepath.Join(p.Path, e))
		}
	}
	if r.Tier.Name == "slow" {
		b.PackSize = restic.ColdPackSize
	}
	known := len(o.Errors) > 0
	if known { // it is known now that something is missing
		b.Tags = append(b.Tags, restic.Partial)
		o.Partial = true
	}
	limit := r.Bounds.Restic
	if len(s.Backup.Stop) > 0 {
		limit = min(limit, r.Bounds.Still)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var sum restic.Summary
	err := r.Repo.Past(ctx, r.Locks, r.Say, func() (err error) {
		sum, err = r.Repo.Backup(ctx, b, func(p restic.Progress) {
			if r.Progress != nil {
				r.Progress(s.Name, p)
			}
		})
		return err
	})
	o.Snapshot, o.Files, o.Bytes, o.Added = sum.Snapshot, sum.Files, sum.Bytes, sum.Added
	o.trouble(err)
	if err == nil && !known && !r.Accept && before.Files >= 10 && sum.Files*2 < before.Files {
		o.trouble(fmt.Errorf("%d files, and %d the last time: is everything mounted? If it is right, run it with --accept-smaller", sum.Files, before.Files))
	}
	if len(o.Errors) > 0 && !known && sum.Snapshot != "" {
		o.Partial = true
		if err := r.Repo.Tag(ctx, sum.Snapshot, restic.Partial); err != nil {
			// The key may not delete, so the unmarked twin stays; restic.Good knows it by the new one's Original.
			r.Say("marked beside the unmarked snapshot: " + err.Error())
		}
	}
}

func (r *Run) dumpDir(service string) string { return filepath.Join(r.Dumps, service) }

// removeDumps empties the service's folder and leaves the folder: it may be mounted into a container.
func (r *Run) removeDumps(service string) error {
	entries, err := os.ReadDir(r.dumpDir(service))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		err = errors.Join(err, os.RemoveAll(filepath.Join(r.dumpDir(service), e.Name())))
	}
	if err != nil {
		return fmt.Errorf("remove dumps: %w", err)
	}
	return nil
}

// quiesce stops containers. The journal is written first, so that a killed run's containers are started by the next one.
func (r *Run) quiesce(ctx context.Context, s catalog.Service, j *journal) error {
	if len(s.Backup.Stop) == 0 {
		return nil
	}
	j.Stopped = append(j.Stopped, s.Name)
	if err := j.write(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, r.Bounds.Stop)
	defer cancel()
	r.Say(s.Name + ": standing still")
	return command(ctx, nil, s.Expand(append([]string{"{compose}", "stop"}, s.Backup.Stop...), r.Compose, ""))
}

func (r *Run) resume(ctx context.Context, s catalog.Service, j *journal) error {
	if len(s.Backup.Stop) == 0 {
		return nil
	}
	if err := command(ctx, nil, s.Expand(append([]string{"{compose}", "start"}, s.Backup.Stop...), r.Compose, "")); err != nil {
		return fmt.Errorf("%w: %s stands still: start it by hand; the next run tries again", err, s.Name)
	}
	j.forget(s.Name)
	return j.write()
}

// dump writes the service's dumps, each whole or not at all, and none much smaller than the last time.
func (r *Run) dump(ctx context.Context, s catalog.Service, before Remembered, o *Outcome) error {
	ctx, cancel := context.WithTimeout(ctx, r.Bounds.Dump)
	defer cancel()
	dir := r.dumpDir(s.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the dump's place: %w", err)
	}
	if err := r.removeDumps(s.Name); err != nil {
		return err
	}
	var all error
	for _, d := range s.Backup.Dumps {
		r.Say(s.Name + ": dumping " + d.Name)
		n, err := r.dumpOne(ctx, s, d, filepath.Join(dir, d.Name))
		if err == nil && !r.Accept && n*2 < before.Dumps[d.Name] {
			err = fmt.Errorf("it has %d bytes, and had %d the last time; if that is right, run it with --accept-smaller", n, before.Dumps[d.Name])
		}
		if err != nil {
			all = errors.Join(all, fmt.Errorf("dump %s: %w", d.Name, err))
			continue
		}
		o.Dumps[d.Name] = n
	}
	return all
}

func (r *Run) dumpOne(ctx context.Context, s catalog.Service, d catalog.Dump, file string) (int64, error) {
	if d.Kind == "postgres" {
		server := postgres.Server{Exec: s.Inside(r.Compose, d.Container), User: d.User, Major: d.Major, Env: r.Postgres}
		m, err := server.Dump(ctx, file, d.Databases)
		n := m.Globals.Bytes
		for _, db := range m.Databases {
			n += db.File.Bytes
		}
		return n, err
	}
	if d.Kind == "fact" {
		said, err := output(ctx, s.Expand(d.Run, r.Compose, file))
		if err == nil {
			err = WriteFile(file, said, 0o600)
		}
		return 0, err // it may be as short as it likes
	}
	if err := command(ctx, nil, s.Expand(d.Run, r.Compose, file)); err != nil {
		return 0, err
	}
	st, err := os.Stat(file)
	switch {
	case err != nil:
		return 0, fmt.Errorf("the command ended well and wrote no %s", file)
	case st.Size() == 0:
		return 0, fmt.Errorf("%s is empty", file)
	}
	return st.Size(), nil
}

// output runs one command and returns what it printed.
func output(ctx context.Context, argv []string) ([]byte, error) {
	var out, said bytes.Buffer
	err := run(ctx, nil, argv, &out, &said)
	return out.Bytes(), err
}

// command runs one command and returns its last words when it fails.
func command(ctx context.Context, env, argv []string) error {
	var said bytes.Buffer
	return run(ctx, env, argv, &said, &said)
}

func run(ctx context.Context, env, argv []string, stdout, stderr *bytes.Buffer) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 15 * time.Second
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := cmd.Run()
	if err == nil {
		return nil
	}
	said := strings.TrimSpace(stderr.String())
	if at := strings.LastIndexByte(said, '\n'); at >= 0 {
		said = said[at+1:]
	}
	if len(said) > 300 {
		said = said[len(said)-300:]
	}
	return fmt.Errorf("run %s: %w: %s", strings.Join(argv[:min(len(argv), 8)], " "), err, said)
}
