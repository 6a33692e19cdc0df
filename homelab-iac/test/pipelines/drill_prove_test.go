//go:build prove

package pipelines

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"home.arpa/lab/homelab-iac/internal/drill"
	"home.arpa/lab/homelab-iac/internal/fake"
	"home.arpa/lab/homelab-iac/internal/restic/restictest"
)

// household backs notes up with a key that the pipeline never sees, and leaves DRILL_CONFIG. It returns the folders of the notes and of the
// repository, and what a Kuma is pushed. The machine that may be wiped is this one, by the stand-in for ssh.
func household(b *bench) (notes, repository string, pushes chan string) {
	b.t.Helper()
	pushes = make(chan string, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pushes <- r.URL.Query().Get("status") + " " + r.URL.Query().Get("msg")
		io.WriteString(w, `{"ok":true}`)
	}))
	b.t.Cleanup(server.Close)
	repo := restictest.Repo(b.t)
	restictest.Fill(b.t, repo.URL)
	dir := filepath.Join(b.aside, "household")
	notes = filepath.Join(dir, "notes")
	config := fmt.Sprintf(`host: here
state: %[1]s/state
cache: %[1]s/cache
dumps: %[1]s/dumps
services: %[1]s/services
restic: %[2]s
repositories:
  fast: {url: %[3]s, password: %[4]s, keys: {restore: {file: %[1]s/restore.env}}}
kuma: {url: %[5]q, secret: "file:%[1]s/kuma"}
`, dir, repo.Binary, repo.URL, repo.PasswordFile, server.URL)
	canaries["the key that restores"], canaries["the secret of Kuma"] = "canary-restore-key-c91d", "canary-kuma-secret-77b0"
	restictest.Write(b.t, dir, map[string]string{
		"services/notes/service.yaml": fmt.Sprintf(`about: Notes.
host: here
backup:
  rpo: {fast: 26h}
  paths: [{path: %s, uid: %d, gid: %d, mode: "0755"}]
restore:
  order: 1
  rto: 10m
  holds: [{what: the notes are there, path: %[1]s, least: 2}]
`, notes, os.Getuid(), os.Getgid()),
		"notes/a.md": "first", "notes/b/ü c.md": "second",
		"backup.env": "AWS_SECRET_ACCESS_KEY=canary-backup-key-01fe\n", "restore.env": "AWS_SECRET_ACCESS_KEY=" + canaries["the key that restores"] + "\n", "kuma": canaries["the secret of Kuma"],
		"backup.yaml": strings.Replace(config, "keys: {", "keys: {backup: {file: "+dir+"/backup.env}, ", 1),
	})
	canaries["the key that backs up"] = "canary-backup-key-01fe"
	b.run(filepath.Join(b.aside, "homelab"), "backup", "run", "fast", "--config", filepath.Join(dir, "backup.yaml"))
	<-pushes // of the backup
	b.gitlab.Set(fake.Variable{Key: "DRILL_CONFIG", Value: config, Type: "file", Protected: true})
	return notes, repo.URL, pushes
}

// TestTheDrillByTheClock runs the job that restores every week: green where all is there, red and loud where it is not, its report left each time.
func TestTheDrillByTheClock(t *testing.T) {
	if os.Getenv("HOMELAB_PROVE") == "" {
		t.Skip("it takes minutes: HOMELAB_PROVE=1")
	}
	b := build(t)
	b.run("go", "build", "-trimpath", "-o", filepath.Join(b.aside, "homelab"), "./homelab-iac/cmd/homelab")
	b.write("bin/ssh", "#!/bin/sh\n# A stand-in for ssh: the machine that may be wiped is this one.\nwhile [ \"$1\" != \"${1#-}\" ]; do shift 2; done\n[ \"$1\" = root@dev-learning ] || exit 255\nexec sh -c \"$2\"\n")
	notes, repository, pushes := household(b)

	drilled := func() (r run, report drill.Report, pushed string) {
		t.Helper()
		if err := os.RemoveAll(notes); err != nil { // the machine is clean
			t.Fatal(err)
		}
		r = b.pipeline("schedule", "main", 0, operator, map[string]string{"SCHEDULE": "drill"})
		if got := slices.Sorted(slices.Values(r.jobs)); !slices.Equal(got, []string{"build:homelab", "drill"}) || !r.before("build:homelab", "drill") {
			t.Fatalf("ran %v\n%s", r.jobs, r.out)
		}
		if err := json.Unmarshal(r.left["drill"]["drill/restore-report.json"], &report); err != nil {
			t.Fatalf("the job left no report: %v\n%s", err, r.out)
		}
		if page := string(r.left["drill"]["drill/restore-report.html"]); !strings.Contains(page, "is <b>"+report.Verdict) {
			t.Errorf("the page does not say %s", report.Verdict)
		}
		select {
		case pushed = <-pushes:
		default:
		}
		return r, report, pushed
	}

	r, report, pushed := drilled()
	if len(r.failed) > 0 || report.Verdict != "green" || len(report.Compared) != 1 || report.Compared[0].Entries < 3 || !strings.HasPrefix(pushed, "up 1 services restored on root@dev-learning") {
		t.Errorf("failed %v, %s, pushed %q\n%s", r.failed, report.Summary(), pushed, r.out)
	}
	if text, err := os.ReadFile(filepath.Join(notes, "b", "ü c.md")); err != nil || string(text) != "second" {
		t.Errorf("%q %v", text, err)
	}
	if slices.Contains(r.env["drill"], "APPLY_AWS_SECRET_ACCESS_KEY") || !slices.Contains(r.env["drill"], "DRILL_CONFIG") {
		t.Errorf("the job sees %v", r.env["drill"])
	}

	// The packs of the repository are gone: nothing comes back, and the job says so.
	packs, err := filepath.Glob(filepath.Join(repository, "data", "*", "*"))
	if err != nil || len(packs) == 0 {
		t.Fatal("there is no pack", err)
	}
	for _, p := range packs {
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
	r, report, pushed = drilled()
	if !slices.Equal(r.failed, []string{"drill"}) || report.Verdict != "red" || !strings.HasPrefix(pushed, "down ") {
		t.Errorf("failed %v, %s, pushed %q\n%s", r.failed, report.Summary(), pushed, r.out)
	}
	for name, secret := range canaries {
		for _, where := range b.leaks(secret) {
			t.Errorf("%s is seen in %s", name, where)
		}
	}
}
