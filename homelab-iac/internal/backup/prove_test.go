//go:build prove

package backup

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/postgres/postgrestest"
	"home.arpa/lab/homelab-iac/internal/restic"
)

func TestAnInterruptedRunCleansUp(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.touch(t, "block-restic-backup")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(b.Dir + "/reached"); err == nil {
				cancel()
			}
			time.Sleep(20 * time.Millisecond)
		}
	}()
	report, err := b.run().Do(ctx)
	if err != nil || !strings.Contains(report.Trouble(), "exit code 130") {
		t.Errorf("%+v %v", report, err)
	}
	b.clean(t)
}

func TestMaintenanceKeepsWhatIsDueAndRefusesAfterAnIntruder(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	fast := b.run().Tier
	fast.Within = "2d"
	src := b.run().Services[0].Backup.Paths[0].Path
	snapshot := func(at time.Time, paths ...string) {
		t.Helper()
		if _, err := b.Repo.Backup(t.Context(), restic.Backup{Host: "h", Tags: []string{"tier:fast", "svc:x"}, Paths: paths, Time: at}, nil); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	for d := range 12 {
		snapshot(now.AddDate(0, 0, -12+d), src)
	}
	m := &Maintenance{Tier: fast, Repo: b.Repo, State: b.Dir + "/state", Prune: true, Say: func(string) {}}
	done, err := m.Within(t.Context())
	if err != nil || len(done.Removed) == 0 || !done.Pruned {
		t.Fatalf("%+v %v", done, err)
	}
	before, err := b.Repo.Snapshots(t.Context())
	if err != nil || len(before) != done.Kept {
		t.Fatalf("%d snapshots, %d kept: %v", len(before), done.Kept, err)
	}
	// An intruder with a key that can only add: snapshots of nothing, with times that would push out the real ones.
	for d := range 12 {
		snapshot(now.AddDate(0, 0, d-6), b.Dir+"/compose")
	}
	var refusal *Refusal
	if _, err := m.Within(t.Context()); !errors.As(err, &refusal) {
		t.Fatalf("maintenance after forged snapshots: %v", err)
	}
	after, err := b.Repo.Snapshots(t.Context())
	if err != nil || len(after) != len(before)+12 {
		t.Fatalf("%d snapshots: %v", len(after), err)
	}
	for _, s := range before {
		if _, err := b.Repo.Run(t.Context(), restic.Restore{Snapshot: s.ID, Path: src, Target: t.TempDir()}.Args(), nil); err != nil {
			t.Errorf("restore what was there before: %v", err)
		}
	}
}

func TestADatabaseIsPartOfTheSnapshot(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	s := postgrestest.Start(t)
	postgrestest.SQL(t, s, "postgres", "CREATE DATABASE shop")
	postgrestest.SQL(t, s, "shop", "CREATE TABLE a AS SELECT generate_series(1, 1000) n")
	r := b.run()
	r.Postgres = s.Env
	r.Services[0].Backup.Dumps = append(r.Services[0].Backup.Dumps, catalog.Dump{Name: "postgres", Kind: "postgres", User: "tester", Major: s.Major, Databases: []string{"shop"}})
	report := b.do(t, r)
	if trouble := report.Trouble(); trouble != "" || report.Services[0].Files != 16 || report.Services[0].Dumps["postgres"] < 1000 {
		t.Errorf("%s %+v", trouble, report.Services[0])
	}
	postgrestest.SQL(t, s, "shop", "DROP TABLE a")
	if trouble := b.do(t, r).Trouble(); !strings.Contains(trouble, "the last time") {
		t.Errorf("after a table was lost: %q", trouble)
	}
}

func TestADamagedRepositoryIsNoticedByTheCheck(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if trouble := b.do(t, b.run()).Trouble(); trouble != "" {
		t.Fatal(trouble)
	}
	check := func() (Checked, error) {
		return Check(t.Context(), b.Repo, b.run().Tier, b.Dir+"/state", restic.LockPolicy{}, false, func(string) {})
	}
	if c, err := check(); err != nil || c.Part < 1 || c.Part > 30 {
		t.Fatalf("%+v %v", c, err)
	}
	packs, err := exec.Command("find", b.Repo.URL+"/data", "-type", "f").Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(strings.Fields(string(packs))[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := check(); err == nil {
		t.Error("a missing pack was not noticed")
	}
	if c := LastCheck(b.Dir+"/state", "fast"); c.Error == "" {
		t.Errorf("it is not remembered: %+v", c)
	}
}

func TestASourceThatChangesMeanwhileIsBackedUp(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range 300 {
			os.WriteFile(b.Dir+"/src/a", []byte(strings.Repeat("x", n*100)), 0o644)
			os.Rename(b.Dir+"/src/b", b.Dir+"/src/c")
			os.Rename(b.Dir+"/src/c", b.Dir+"/src/b")
			time.Sleep(5 * time.Millisecond)
		}
	}()
	report := b.do(t, b.run())
	<-done
	// A file that went between listing and reading makes the snapshot partial, which is the truth; nothing else may happen.
	if trouble := report.Trouble(); trouble != "" && !report.OnlyPartial() {
		t.Error(trouble)
	}
	if trouble := b.do(t, b.run()).Trouble(); trouble != "" {
		t.Errorf("the next run: %s", trouble)
	}
}
