package backup

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/catalog"
	"home.arpa/lab/homelab-iac/internal/restic"
	"home.arpa/lab/homelab-iac/internal/restic/restictest"
)

// A bench is a machine with one service: files, a dump that a command writes, and a container that stands still meanwhile.
type bench struct {
	Dir  string
	Repo restic.Repo
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{Dir: t.TempDir(), Repo: restictest.Inited(t)}
	for n := range 12 {
		restictest.Write(t, b.Dir+"/src", map[string]string{string(rune('a' + n)): strings.Repeat("text ", n), "log/x": "left out"})
	}
	// Both scripts wait where a file says so, until they are killed.
	script := func(name, body string) {
		text := "#!/bin/sh\nif [ -e " + b.Dir + "/block-" + name + "-$1 ]; then touch " + b.Dir + "/reached; exec sleep 60; fi\n" + body + "\n"
		if err := os.WriteFile(b.Dir+"/"+name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	script("compose", "echo \"$1\" >>"+b.Dir+"/container")
	script("restic", "exec "+b.Repo.Binary+` "$@"`)
	script("dump", "[ -e "+b.Dir+"/no-dump ] && { echo the program is broken >&2; exit 7; }\n[ -e "+b.Dir+"/half ] && { printf half >$2; exit 0; }\n[ -e "+b.Dir+"/empty ] && { : >$2; exit 0; }\n[ -e "+b.Dir+"/lazy ] || printf 'the whole dump' >$2")
	b.Repo.Binary = b.Dir + "/restic"
	return b
}

func (b *bench) run() *Run {
	fast, err := catalog.TierNamed("fast")
	if err != nil {
		panic(err)
	}
	s := catalog.Service{Name: "x", Host: "h", Compose: catalog.Compose{}}
	s.Backup.Paths = []catalog.Path{{Path: b.Dir + "/src", Exclude: []string{"log"}}}
	s.Backup.Dumps = []catalog.Dump{{Name: "x.db", Kind: "command", Run: []string{b.Dir + "/dump", "run", "{file}"}}}
	s.Backup.Stop = []string{"web"}
	return &Run{Tier: fast, Host: "h", Services: []catalog.Service{s}, Repo: b.Repo, State: b.Dir + "/state", Dumps: b.Dir + "/dumps",
		Compose: []string{b.Dir + "/compose"}, Locks: restic.LockPolicy{}, Say: func(string) {}}
}

func (b *bench) touch(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(b.Dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// clean says what a run must leave behind: no dump, a container that runs, no journal.
func (b *bench) clean(t testing.TB) {
	t.Helper()
	if left, _ := filepath.Glob(b.Dir + "/dumps/x/*"); len(left) > 0 {
		t.Errorf("dumps were left: %v", left)
	}
	text, _ := os.ReadFile(b.Dir + "/container")
	if words := strings.Fields(string(text)); len(words) > 0 && words[len(words)-1] != "start" {
		t.Errorf("the container stands still: %v", words)
	}
	if j, _ := filepath.Glob(b.Dir + "/state/running-*"); len(j) > 0 {
		t.Errorf("a journal was left: %v", j)
	}
}

func (b *bench) do(t testing.TB, r *Run) *Report {
	t.Helper()
	report, err := r.Do(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.clean(t)
	return report
}

func TestARunMakesAWholeSnapshotAndLeavesNothing(t *testing.T) {
	b := newBench(t)
	report := b.do(t, b.run())
	if trouble := report.Trouble(); trouble != "" {
		t.Fatal(trouble)
	}
	if o := report.Services[0]; o.Files != 13 || o.Dumps["x.db"] != 14 { // twelve and the dump; log is left out
		t.Errorf("%+v", o)
	}
	list, err := b.Repo.Snapshots(t.Context(), "tier:fast", "svc:x")
	if err != nil || len(restic.Good(list)) != 1 || list[0].Host != "h" {
		t.Errorf("%+v %v", list, err)
	}
	if text, _ := os.ReadFile(b.Dir + "/container"); string(text) != "stop\nstart\n" {
		t.Errorf("the container: %q", text)
	}
	if m, err := recall(b.Dir+"/state", "fast"); err != nil || m.Services["x"].Snapshot != list[0].ID || m.Services["x"].Files != 13 {
		t.Errorf("%+v %v", m, err)
	}
}

func TestTwoRunsDoNotWorkAtOnce(t *testing.T) {
	state := t.TempDir()
	release, err := Hold(t.Context(), state, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&Run{State: state}).Do(context.Background()); err != ErrBusy {
		t.Errorf("the second run: %v", err)
	}
	patient := make(chan error)
	go func() {
		release, err := Hold(t.Context(), state, time.Minute)
		if err == nil {
			release()
		}
		patient <- err
	}()
	release()
	if err := <-patient; err != nil {
		t.Errorf("one that waits: %v", err)
	}
}

func TestAKilledRunIsKnownAndOneAtWorkIsNot(t *testing.T) {
	state := t.TempDir()
	if _, _, cut := Cut(state, "fast"); cut {
		t.Error("cut short, where there was none")
	}
	j := &journal{path: filepath.Join(state, "running-fast.json"), Started: time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC), Service: "x"}
	if err := j.write(); err != nil {
		t.Fatal(err)
	}
	release, err := Hold(t.Context(), state, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, cut := Cut(state, "fast"); cut {
		t.Error("a run at work was held to be killed")
	}
	release()
	if began, service, cut := Cut(state, "fast"); !cut || began != j.Started || service != "x" {
		t.Errorf("%v %q %v", began, service, cut)
	}
	if err := os.WriteFile(j.path, []byte("{ha"), 0o600); err != nil {
		t.Fatal(err)
	}
	if began, _, cut := Cut(state, "fast"); !cut || began.IsZero() || Unfinished(state, "fast") != began {
		t.Errorf("half a journal: %v %v", began, cut)
	}
}

// TestMain lets more proofs run at once.
func TestMain(m *testing.M) {
	flag.Parse()
	if os.Getenv("HOMELAB_PROVE") != "" { // programs that wait for disks and for each other: more at once than there are processors
		flag.Set("test.parallel", "6") //nolint:errcheck // it is a number
	}
	os.Exit(m.Run())
}
