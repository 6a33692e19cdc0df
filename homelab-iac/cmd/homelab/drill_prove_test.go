//go:build prove

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"home.arpa/lab/homelab-iac/internal/drill"
	"home.arpa/lab/homelab-iac/internal/restic/restictest"
)

// TestADrillIsGreenOnlyWhenEverythingIsEqual proves a restore on this machine in the role of another: what was backed up is moved
// away, so that it is as clean as a new one, and "ssh" is a shell.
func TestADrillIsGreenOnlyWhenEverythingIsEqual(t *testing.T) {
	t.Parallel()
	h := newHousehold(t)
	restictest.Fill(t, h.repo.URL)
	h.does(0, "1 of 1 services safe", "backup", "run", "fast")
	reference := h.dir + "/reference.json"
	if err := os.WriteFile(reference, []byte(h.does(0, "ü c.md", "measure", "--tags", "vault")), 0o600); err != nil {
		t.Fatal(err)
	}
	h.heard()
	ssh := h.dir + "/ssh"
	if err := os.WriteFile(ssh, []byte("#!/bin/sh\nshift\nexec env -u HOMELAB_CONFIG HOMELAB_TEST_REMOTE=1 sh -c \"$1\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	run := func(code int, want string, args ...string) drill.Report {
		t.Helper()
		os.Rename(h.dir+"/notes", h.dir+"/source")
		defer func() { os.RemoveAll(h.dir + "/notes"); os.Rename(h.dir+"/source", h.dir+"/notes") }()
		h.does(code, want, append([]string{"drill", "--host", "other", "--ssh", ssh, "--tags", "vault", "--out", h.dir + "/out"}, args...)...)
		var report drill.Report
		text, err := os.ReadFile(h.dir + "/out/restore-report.json")
		if err != nil || json.Unmarshal(text, &report) != nil {
			t.Fatal(err)
		}
		if page, err := os.ReadFile(h.dir + "/out/restore-report.html"); err != nil || !strings.Contains(string(page), "is <b>"+report.Verdict) {
			t.Errorf("the page does not say %s: %v", report.Verdict, err)
		}
		if left, _ := filepath.Glob("/root/.homelab-drill-*"); len(left) > 0 {
			t.Errorf("the kit was left: %v", left)
		}
		return report
	}
	if r := run(0, "0 differences", "--reference", reference); r.Compared[0].Against != drill.Exact || r.Compared[0].Entries != 5 {
		t.Errorf("%+v", r.Compared)
	}
	if r := run(0, "0 differences"); r.Compared[0].Against != drill.Listing || r.Compared[0].Entries != 5 {
		t.Errorf("%+v", r.Compared)
	}
	if pushes, posts := h.heard(); strings.Count(pushes, "up 1 services restored on other") != 2 || posts != "" {
		t.Errorf("pushed %q, posted %q", pushes, posts)
	}
	os.WriteFile(h.dir+"/notes/a.md", []byte("newer than the backup"), 0o644)
	newer := h.dir + "/newer.json"
	os.WriteFile(newer, []byte(h.does(0, "", "measure", "--tags", "vault")), 0o600)
	if r := run(1, "size: was 21, is 5", "--reference", newer); r.Verdict != "red" || len(r.Compared[0].Differences) == 0 {
		t.Errorf("%+v", r)
	}
	h.does(1, "red: 0 services", "drill", "--host", "other", "--ssh", "false", "--tags", "vault")
	h.does(1, "its verdict is red", "watch")
}
