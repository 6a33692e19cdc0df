//go:build prove

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"home.arpa/lab/homelab-iac/internal/postgres"
	"home.arpa/lab/homelab-iac/internal/postgres/postgrestest"
	"home.arpa/lab/homelab-iac/internal/restic/restictest"
	"home.arpa/lab/homelab-iac/internal/tree"
)

func measure(t *testing.T, dir string) []tree.Entry {
	t.Helper()
	entries, err := tree.Measure(dir, func(rel string) bool { return rel == "cache" })
	if err != nil {
		t.Fatal(err)
	}
	return entries
}

func (h *household) same(was []tree.Entry, dir string) {
	h.t.Helper()
	if diff := tree.Diff(was, measure(h.t, dir)); len(diff) > 0 {
		h.t.Errorf("%d differences, the first: %v", len(diff), diff[0])
	}
}

// asked is does with somebody at the terminal.
func (h *household) asked(stdin string, code int, want string, args ...string) {
	h.t.Helper()
	got, stdout, stderr := homelab(h.t, stdin, append(args, "--config", h.config)...)
	if got != code || !strings.Contains(stdout+stderr, want) {
		h.t.Fatalf("homelab %q: exit %d, want %d with %q\n%s%s", args, got, code, want, stdout, stderr)
	}
}

func TestWhatWasLostComesBackExactly(t *testing.T) {
	t.Parallel()
	h := newHousehold(t)
	notes := h.dir + "/notes"
	restictest.Write(t, notes, map[string]string{"\xff\n odd": "x", "-rf": "y", "*": "z"})
	os.Symlink("a.md", notes+"/soft")
	os.Link(notes+"/a.md", notes+"/hard")
	unix.Setxattr(notes+"/a.md", "user.note", []byte("kept"), 0)
	unix.Chmod(notes+"/b", 0o2710)
	os.Chtimes(notes+"/b/d.md", time.Time{}, time.Unix(1e9, 5))
	was := measure(t, notes)
	restictest.Fill(t, h.repo.URL)
	h.does(0, "1 of 1 services safe", "backup", "run", "fast")
	time.Sleep(1100 * time.Millisecond) // --as-of counts in seconds
	before := time.Now().UTC().Format(time.RFC3339)
	time.Sleep(1100 * time.Millisecond)
	os.WriteFile(notes+"/a.md", []byte("first, changed"), 0o644)
	changed := measure(t, notes)
	h.does(0, "1 of 1 services safe", "backup", "run", "fast")

	h.does(0, "mv -T", "restore", "plan", "--tags", "vault")
	h.does(1, "is not backed up in that tier", "restore", "plan", "--tags", "vault", "--tier", "slow")
	h.does(1, "no good snapshot", "restore", "plan", "--tags", "vault", "--as-of", "2020-01-01")
	h.does(2, "is no time", "restore", "plan", "--tags", "vault", "--as-of", "soon")
	h.does(2, `the tag "gitea"`, "restore", "plan", "--tags", "gitea")

	// Nobody there, a no, and a no in the tree: what is in use stays as it is.
	h.asked("", 1, "nobody to ask", "restore", "run", "--tags", "vault")
	h.asked("n\n", 4, "declined", "restore", "run", "--tags", "vault")
	h.asked("2\nnotes\n\nn\n", 4, "Nothing was changed", "restore")
	h.same(changed, notes)

	os.RemoveAll(notes) // all is lost
	h.asked("2\nnotes\n\ny\ny\n", 0, "green", "restore")
	h.same(changed, notes)
	h.does(0, "green", "restore", "run", "--tags", "vault", "--as-of", before, "--yes")
	h.same(was, notes)
	kept, _ := filepath.Glob(notes + ".before-*")
	if len(kept) != 1 {
		t.Fatalf("kept: %v", kept)
	}
	h.same(changed, kept[0])
	if left, _ := filepath.Glob(h.dir + "/.homelab-restore-*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if log, _ := filepath.Glob(h.dir + "/notes-log/*restore.md"); len(log) == 0 {
		t.Error("no note was written")
	} else if text, _ := os.ReadFile(log[len(log)-1]); !strings.Contains(string(text), "# Restore of notes on here") {
		t.Errorf("the note: %s", text)
	}

	os.WriteFile(notes+"/b/d.md", []byte("spoiled"), 0o644)
	h.does(0, "was not touched", "restore", "file", notes+"/b/d.md")
	if text, _ := os.ReadFile(notes + "/b/d.md"); string(text) != "spoiled" {
		t.Error("the file in place was touched")
	}
	found, _ := filepath.Glob(notes + "/b/d.md.restored-*")
	if text, err := os.ReadFile(strings.Join(found, "")); err != nil || string(text) != "third" {
		t.Errorf("%q %v", text, err)
	}
	h.does(0, `"restored": "`+notes+"/b/d.md.restored-", "restore", "file", notes+"/b/d.md", "--json")
	h.does(2, "in no service's backup", "restore", "file", "/etc/passwd")
	h.does(1, "--as-of", "restore", "file", notes+"/never-was")
	h.does(0, "green", "restore", "run", "--tags", "all", "--yes", "--json", "--as-of", before)
}

// TestTheTreeBringsAFileBackAndAMachineByItsPlaybooks answers the questions of homelab restore as a person would.
func TestTheTreeBringsAFileBackAndAMachineByItsPlaybooks(t *testing.T) {
	h := newHousehold(t)
	h.does(0, "is there", "backup", "init", "fast")
	h.does(0, "1 of 1 services safe", "backup", "run", "fast")
	file := h.dir + "/notes/b/d.md"
	h.asked("1\n"+file+"\n\nn\n", 4, "1 entries", "restore")
	if found, _ := filepath.Glob(file + ".restored-*"); len(found) > 0 {
		t.Errorf("brought without a yes: %v", found)
	}
	h.asked("1\n"+file+"\n\ny\n", 0, "was not touched", "restore")
	found, _ := filepath.Glob(file + ".restored-*")
	if text, err := os.ReadFile(strings.Join(found, "")); err != nil || string(text) != "third" {
		t.Errorf("%q %v", text, err)
	}
	notes, _ := filepath.Glob(h.dir + "/notes-log/*restore.md")
	if text, _ := os.ReadFile(strings.Join(notes, "")); !strings.Contains(string(text), "one file or folder: `"+file+"`") {
		t.Errorf("no note of it: %v %s", notes, text)
	}
	h.asked("1\n"+h.dir+"/notes/never\n\n", 1, "name another time", "restore")
	h.asked("1\n/etc/passwd\n\n", 2, "in no service's backup", "restore")
	h.asked("4\n", 2, "none of 1, 2 and 3", "restore")

	// Without a checkout it says what to do, and goes on when that was done.
	t.Chdir(t.TempDir())
	h.asked("3\nnowhere\n", 2, `no machine "nowhere"`, "restore")
	h.asked("3\n\nn\n", 4, "Run it, then come back", "restore")
	os.RemoveAll(h.dir + "/notes")
	h.asked("3\n\ny\ny\ny\n", 0, "green", "restore")

	// With one it runs the playbooks; Ansible is one that writes down what it is told.
	restictest.Write(t, ".", map[string]string{"homelab-iac/ansible/site.yml": "", "homelab-iac/ansible/setup.sh": "#!/bin/sh\necho $PWD/bin\n", "inventory": "",
		"homelab-iac/ansible/bin/ansible-playbook": "#!/bin/sh\necho $3 $4 $5 >>" + h.dir + "/played\n"})
	os.Chmod("homelab-iac/ansible/setup.sh", 0o755)
	os.Chmod("homelab-iac/ansible/bin/ansible-playbook", 0o755)
	h.asked("3\nhere\ninventory\ns\ny\nn\n", 4, "say s to what is done", "restore")
	h.asked("3\nhere\ninventory\ns\ns\ny\n", 0, "here is back", "restore")
	h.asked("3\nhere\nnot-there\n", 2, "read inventory", "restore")
	if text, _ := os.ReadFile(h.dir + "/played"); string(text) != "site.yml --limit here\nrestore.yml --limit here\n" {
		t.Errorf("played %q", text)
	}
}

func TestADamagedSnapshotIsNotPutInPlace(t *testing.T) {
	t.Parallel()
	h := newHousehold(t)
	restictest.Fill(t, h.repo.URL)
	h.does(0, "1 of 1 services safe", "backup", "run", "fast")
	was := measure(t, h.dir+"/notes")
	filepath.WalkDir(h.repo.URL+"/data", func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			st, _ := os.Stat(p)
			os.Chmod(p, 0o600)
			os.WriteFile(p, make([]byte, st.Size()), 0o600)
		}
		return err
	})
	h.does(1, "is NOT back", "restore", "run", "--tags", "vault", "--yes")
	h.same(was, h.dir+"/notes")
}

func TestADatabaseComesBackBesideTheOldOne(t *testing.T) {
	h := newHousehold(t)
	s := postgrestest.Start(t)
	for _, kv := range s.Env {
		name, value, _ := strings.Cut(kv, "=")
		t.Setenv(name, value)
	}
	restictest.Write(t, h.dir, map[string]string{"services/shop/service.yaml": fmt.Sprintf(`about: A shop.
host: here
backup:
  rpo: {fast: 26h}
  paths: [{path: %s/shop, uid: 0, gid: 0, mode: "0755"}]
  dumps: [{name: postgres, kind: postgres, user: tester, databases: [shop], major: %d}]
restore:
  order: 2
  rto: 10m
  holds: [{what: psql answers, run: [psql, --username=tester, --dbname=shop, --command=TABLE a], contains: "999"}]
`, h.dir, s.Major), "shop/x": "x"})
	postgrestest.SQL(t, s, "postgres", "CREATE DATABASE shop")
	postgrestest.SQL(t, s, "shop", "CREATE TABLE a AS SELECT generate_series(1, 1000) n")
	was, err := s.Measure(t.Context(), "shop")
	if err != nil {
		t.Fatal(err)
	}
	restictest.Fill(t, h.repo.URL)
	h.does(0, "2 of 2 services safe", "backup", "run", "fast")

	is := func() []string {
		t.Helper()
		now, err := s.Measure(t.Context(), "shop")
		if err != nil {
			t.Fatal(err)
		}
		return postgres.Diff(was, now)
	}
	postgrestest.SQL(t, s, "shop", "DELETE FROM a")
	h.does(0, "green", "restore", "run", "--tags", "dbs", "--yes")
	if diff := is(); len(diff) > 0 {
		t.Errorf("after dbs: %v", diff)
	}
	if kept, _ := filepath.Glob(h.dir + "/shop.before-*"); len(kept) > 0 {
		t.Errorf("dbs touched files: %v", kept)
	}
	if left, _ := filepath.Glob(h.dir + "/dumps/shop/*"); len(left) > 0 {
		t.Errorf("dumps were left: %v", left)
	}
	postgrestest.SQL(t, s, "postgres", "DROP DATABASE shop")
	os.RemoveAll(h.dir + "/shop")
	os.RemoveAll(h.dir + "/notes")
	h.does(0, "green", "restore", "run", "--tags", "shop,vault", "--yes")
	if diff := is(); len(diff) > 0 {
		t.Errorf("after all was lost: %v", diff)
	}
	if text, err := os.ReadFile(h.dir + "/shop/x"); err != nil || string(text) != "x" {
		t.Errorf("%q %v", text, err)
	}
}
