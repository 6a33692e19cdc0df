//go:build prove

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"home.arpa/lab/homelab-iac/internal/restic"
	"home.arpa/lab/homelab-iac/internal/restic/restictest"
)

// A household is one machine with one service, and a Kuma and a Discord that write down what they hear.
type household struct {
	t      *testing.T
	dir    string
	config string
	repo   restic.Repo
	mu     sync.Mutex
	pushes []string
	posts  []string
	away   bool // Kuma answers 502, Discord 429 to the first post of each
	busy   int
	answer func(w http.ResponseWriter, r *http.Request) bool // answers instead, where it says so; may be nil
	ctx    context.Context
}

func newHousehold(t *testing.T) *household {
	t.Helper()
	dir, err := os.MkdirTemp("", "household") // without the test's name, which has words that YAML and shells read
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &household{t: t, dir: dir, repo: restictest.Repo(t), ctx: t.Context()}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		answer := h.answer
		h.mu.Unlock()
		if answer != nil && answer(w, r) {
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.away && strings.HasPrefix(r.URL.Path, "/api/push/") {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		if h.busy++; h.away && h.busy%2 == 1 {
			w.WriteHeader(http.StatusTooManyRequests)
			io.WriteString(w, `{"retry_after": 0.05}`)
			return
		}
		if strings.HasPrefix(r.URL.Path, "/api/push/") {
			h.pushes = append(h.pushes, r.URL.Query().Get("status")+" "+r.URL.Query().Get("msg"))
			io.WriteString(w, `{"ok":true}`)
			return
		}
		var post struct{ Content string }
		json.NewDecoder(r.Body).Decode(&post)
		h.posts = append(h.posts, post.Content)
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(srv.Close)
	restictest.Write(t, h.dir, map[string]string{
		"services/notes/README.md": "notes",
		"services/notes/service.yaml": fmt.Sprintf(`about: Notes.
host: here
backup:
  rpo: {fast: 26h}
  paths: [{path: %s/notes, uid: %d, gid: %d, mode: "0755", exclude: [cache]}]
restore:
  order: 1
  rto: 10m
  tags: [vault]
  holds: [{what: the notes are there, path: %s/notes, least: 3}]
`, h.dir, os.Getuid(), os.Getgid(), h.dir),
		"notes/a.md": "first", "notes/b/ü c.md": "second", "notes/b/d.md": "third", "notes/cache/x": "left out",
		"key.env": "A=b\n", "discord": srv.URL + "/hook", "kuma": "a secret",
		"homelab.yaml": fmt.Sprintf(`host: here
state: %[1]s/state
dumps: %[1]s/dumps
cache: %[1]s/cache
services: %[1]s/services
restic: %[2]s
metrics: %[1]s/metrics
notes: %[1]s/notes-log
repositories:
  fast:
    url: %[3]s
    password: %[4]s
    keys:
      backup: {file: %[1]s/key.env}
      maintenance: {file: %[1]s/key.env}
      restore: {file: %[1]s/key.env}
kuma: {url: "%[5]s", secret: "file:%[1]s/kuma"}
discord: file:%[1]s/discord
`, h.dir, h.repo.Binary, h.repo.URL, h.repo.PasswordFile, srv.URL),
	})
	h.config = filepath.Join(h.dir, "homelab.yaml")
	return h
}

// does runs homelab and checks the exit code and some words of what it says.
func (h *household) does(code int, want string, args ...string) string {
	h.t.Helper()
	var out, said bytes.Buffer
	got := run(h.ctx, append(args, "--config", h.config), strings.NewReader(""), &out, &said)
	stdout, stderr := out.String(), said.String()
	if got != code || !strings.Contains(stdout+stderr, want) {
		h.t.Fatalf("homelab %q: exit %d, want %d with %q\n%s%s", args, got, code, want, stdout, stderr)
	}
	return stdout
}

// heard returns what Kuma and Discord heard since the last time.
func (h *household) heard() (pushes, posts string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	pushes, posts = strings.Join(h.pushes, "\n"), strings.Join(h.posts, "\n")
	h.pushes, h.posts = nil, nil
	return pushes, posts
}

func TestADayOfAHousehold(t *testing.T) {
	t.Parallel()
	h := newHousehold(t)
	h.does(1, "there is no repository", "backup", "run", "fast")
	if pushes, posts := h.heard(); !strings.HasPrefix(pushes, "down ") || strings.Count(posts, "🔴") != 1 {
		t.Errorf("pushed %q, posted %q", pushes, posts)
	}
	h.does(0, "is there", "backup", "init", "fast")
	h.does(0, "is there", "backup", "init", "fast")
	h.does(0, "1 of 1 services safe", "backup", "catchup")
	h.does(0, "has missed nothing", "backup", "catchup")
	if pushes, posts := h.heard(); !strings.HasPrefix(pushes, "up fast backup of here") || strings.Count(posts, "🟢") != 1 {
		t.Errorf("pushed %q, posted %q", pushes, posts)
	}
	if text, err := os.ReadFile(h.dir + "/metrics/homelab-backup-fast.prom"); err != nil || !strings.Contains(string(text), `homelab_backup_good{tier="fast",service="notes"} 1`) {
		t.Errorf("%s %v", text, err)
	}
	h.does(1, "was never done", "watch")
	h.does(0, "is whole", "backup", "check", "fast")
	h.does(0, "3 files", "watch")
	if pushes, posts := h.heard(); strings.Contains(pushes, "\ndown fresh") || !strings.Contains(posts, "🟢 check fast on here") {
		t.Errorf("pushed %q, posted %q", pushes, posts)
	}

	os.Chmod(h.dir+"/notes", 0o700)
	h.does(0, "0700, and the catalog says", "backup", "run", "fast")
	os.Chmod(h.dir+"/notes", 0o755)
	h.heard()
	os.Rename(h.dir+"/notes", h.dir+"/away")
	h.does(1, "no snapshot was made", "backup", "run", "fast")
	h.does(1, "no snapshot was made", "backup", "run", "fast", "--json")
	if pushes, posts := h.heard(); strings.Count(pushes, "down") != 2 || strings.Count(posts, "🔴") != 1 {
		t.Errorf("pushed %q, posted %q", pushes, posts)
	}
	h.does(0, "3 files", "watch") // yesterday's snapshot is young enough
	os.Rename(h.dir+"/away", h.dir+"/notes")
	h.does(0, "1 of 1 services safe", "backup", "run", "fast")
	if _, posts := h.heard(); strings.Count(posts, "🟢") != 1 {
		t.Errorf("posted %q", posts)
	}
	h.does(0, "snapshots kept", "backup", "maintenance", "fast", "--prune")
	h.does(0, "Nobody is at work", "backup", "locks", "fast")

	os.Rename(h.repo.URL, h.repo.URL+"-away")
	h.does(1, "cannot be read", "watch")
	if pushes, posts := h.heard(); !strings.Contains(pushes, "down the fast repository cannot be read") || strings.Count(posts, "🔴") != 1 {
		t.Errorf("pushed %q, posted %q", pushes, posts)
	}
}

func TestKumaAwayAndDiscordBusyDoNotSpoilABackup(t *testing.T) {
	t.Parallel()
	h := newHousehold(t)
	restictest.Fill(t, h.repo.URL)
	h.mu.Lock()
	h.away, h.busy = true, 0
	h.mu.Unlock()
	h.does(0, "1 of 1 services safe", "backup", "run", "fast")
	h.does(0, "is whole", "backup", "check", "fast")
	h.does(0, "3 files", "watch")
	if _, posts := h.heard(); !strings.Contains(posts, "🔴 Uptime Kuma, pushed from here") || strings.Count(posts, "🔴") != 1 {
		t.Errorf("posted %q", posts)
	}
	h.mu.Lock()
	h.away = false
	h.mu.Unlock()
	h.does(0, "3 files", "watch")
	if pushes, posts := h.heard(); !strings.Contains(posts, "🟢 Uptime Kuma") || !strings.Contains(pushes, "up ") {
		t.Errorf("pushed %q, posted %q", pushes, posts)
	}
}
