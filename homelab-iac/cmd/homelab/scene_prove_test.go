//go:build prove

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/backup"
	"home.arpa/lab/homelab-iac/internal/restic"
	"home.arpa/lab/homelab-iac/internal/restic/restictest"
	"home.arpa/lab/homelab-iac/internal/tree"
	"home.arpa/lab/homelab-iac/test/lab/s3proxy"
)

// impatient is the patience of a scene: what takes hours at home takes seconds here.
var impatient = patience{Locks: restic.LockPolicy{MinAge: time.Hour, Watch: 10 * time.Millisecond}, Read: 30 * time.Second, Catchup: 200 * time.Millisecond, Push: 10 * time.Millisecond, Tell: 5 * time.Second,
	Bounds: backup.Bounds{Stop: 30 * time.Second, Dump: time.Minute, Restic: 2 * time.Minute, Still: 2 * time.Minute, Probe: time.Minute}}

// A play is what a fault of the catalogue is made of. What is not said is the usual thing.
type play struct {
	on      func(s *scene)      // where it happens: onS3, withDatabase; nil: a folder
	bounds  func(p *patience)   // how much less patient the machine is while it lasts
	begin   func(s *scene)      // it begins
	act     func(s *scene)      // what is done meanwhile; nil: a backup, which ends with code
	code    int                 // 0 means 1
	end     func(s *scene)      // its cause goes
	small   bool                // a disk stays small, and homelab watch says so
	again   []string            // what is run afterwards; nil: backup run fast
	pushed  string              // the push that Kuma hears; "": one that is down, where people are told; "-": none
	special func(s *scene) bool // checks the messages itself and says whether it was right
}

// A scene is a household with one service (files, a dump, a container that stands still) in which a fault is played.
type scene struct {
	*household
	source  string
	first   []tree.Entry
	before  restic.Snapshot
	proxy   *s3proxy.Proxy
	off     atomic.Int64 // how far the storage's clock is off, in nanoseconds
	patient patience
	bounded context.Context // of the whole scene
	shared  *shared
	db      string // in the shared PostgreSQL
}

// shared is what all scenes use.
type shared struct {
	s3   map[string]restic.Repo
	pg   database
	next atomic.Int64
}

func newScene(t *testing.T, all *shared, p play) *scene {
	s := &scene{household: newHousehold(t), patient: impatient, shared: all}
	s.source = s.dir + "/notes"
	for n := range 24 { // so that half of them can go, and more than the folders weigh
		text := make([]byte, 2000)
		rand.Read(text)
		restictest.Write(t, s.source, map[string]string{fmt.Sprintf("daily/%d.md", n): hex.EncodeToString(text)})
	}
	s.script("compose", `case "$1" in stop|start) echo "$1" >>`+s.dir+`/container;; exec) shift 3; . `+s.dir+`/pg; exec "$@";; esac`)
	s.script("dump", `[ -e `+s.dir+`/dump-instead ] && . `+s.dir+`/dump-instead; printf 'the whole dump' >"$2"`)
	s.script("restic", `[ -e `+s.dir+`/instead-restic-$1 ] && . `+s.dir+`/instead-restic-$1
if [ -e `+s.dir+`/after-restic-$1 ]; then `+s.repo.Binary+` "$@"; code=$?; touch `+s.dir+`/reached; wait_for `+s.dir+`/after-restic-$1; exit $code; fi
exec `+s.repo.Binary+` "$@"`)
	s.edit("homelab.yaml", "restic: "+s.repo.Binary, "restic: "+s.dir+"/restic\ncompose: ["+s.dir+"/compose]")
	restictest.Write(t, s.dir, map[string]string{
		"services/notes/service.yaml": fmt.Sprintf(`about: Notes.
host: here
backup:
  rpo: {fast: 26h}
  paths: [{path: %[1]s/notes, uid: %[2]d, gid: %[3]d, mode: "0755", exclude: [cache]}]
  dumps: [{name: x.db, kind: command, run: [%[1]s/dump, run, "{file}"], back: ["true"]}]
  stop: [web]
restore:
  order: 1
  rto: 10m
  holds: [{what: the notes are there, path: %[1]s/notes, least: 3}]
`, s.dir, os.Getuid(), os.Getgid()),
		"services/notes/compose.yaml": "services:\n  web:\n    image: notes:1\n    mem_limit: 64m\n    cpus: 1\n    healthcheck: {test: [CMD, \"true\"]}\n",
	})
	if p.on == nil {
		restictest.Fill(t, s.repo.URL)
	} else {
		p.on(s)
	}
	var cancel context.CancelFunc
	s.bounded, cancel = context.WithTimeout(t.Context(), 4*time.Minute)
	t.Cleanup(cancel)
	s.hurry(nil)
	return s
}

// hurry makes the machine less patient, or as patient as before.
func (s *scene) hurry(bounds func(*patience)) {
	s.patient = impatient
	if bounds != nil {
		bounds(&s.patient)
	}
	s.ctx = context.WithValue(s.bounded, patient{}, s.patient)
}

// answers lets Kuma and Discord answer something else.
func (s *scene) answers(f func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = f
}

// script writes a program that waits, once it is called with a word, for as long as a file block-NAME-WORD is there.
func (s *scene) script(name, body string) {
	text := `#!/bin/sh
wait_for() { n=0; while [ -e "$1" ] && [ $n -lt 1200 ]; do sleep 0.05; n=$((n+1)); done; }
b=` + s.dir + "/block-" + name + "-$1\n" + `if [ -e "$b" ]; then touch ` + s.dir + `/reached; wait_for "$b"; fi
` + body + "\n"
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o755); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) edit(name, old, now string) {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil || !strings.Contains(string(text), old) {
		s.t.Fatalf("%s has no %q: %v", name, old, err)
	}
	s.write(name, strings.Replace(string(text), old, now, 1))
}

func (s *scene) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) remove(names ...string) {
	for _, name := range names {
		os.RemoveAll(filepath.Join(s.dir, name))
	}
}

func (s *scene) move(from, to string) {
	s.t.Helper()
	if err := os.Rename(from, to); err != nil {
		s.t.Fatal(err)
	}
}

// process starts homelab as a process of its own, with a group of its own, as systemd does.
func (s *scene) process(args ...string) *exec.Cmd {
	s.t.Helper()
	text, err := json.Marshal(s.patient)
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], append(args, "--config", s.config)...)
	cmd.Env = append(os.Environ(), "HOMELAB_TEST_REMOTE=1", "HOMELAB_TEST_PATIENCE="+string(text))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); cmd.Wait() })
	return cmd
}

// reached waits until a script waits.
func (s *scene) reached() {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(s.dir + "/reached"); err == nil {
			os.Remove(s.dir + "/reached")
			return
		} else if time.Now().After(end) {
			s.t.Fatal("it did not get there in a minute")
		}
	}
}

// killedAt kills a command, with all that it started, where a file makes it wait.
func killedAt(file string, args ...string) play {
	if len(args) == 0 {
		args = []string{"backup", "run", "fast"}
	}
	return play{
		begin: func(s *scene) { s.write(file, "") },
		act: func(s *scene) {
			cmd := s.process(args...)
			if file == "" {
				s.stuck()
			} else {
				s.reached()
			}
			if got, out := s.try("watch"); strings.Contains(out, "killed") { // it is at work, and that is no trouble
				s.t.Errorf("while it was at work: exit %d\n%s", got, out)
			}
			s.heard()
			syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			cmd.Wait()
			if file != "" {
				s.remove(file)
			}
			s.try("watch")
		},
	}
}

// stuck waits until the storage lets something wait.
func (s *scene) stuck() {
	s.t.Helper()
	for end := time.Now().Add(time.Minute); s.proxy.Met() == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatal("the storage was not asked in a minute")
		}
	}
}

// try runs homelab and returns exit code and words.
func (s *scene) try(args ...string) (int, string) {
	var out strings.Builder
	code := run(s.ctx, append(args, "--config", s.config), strings.NewReader(""), &out, &out)
	return code, out.String()
}

// onS3 puts the repository on the shared S3 server, behind a proxy of its own.
func onS3(s *scene) {
	backing := strings.TrimPrefix(strings.Split(s.shared.s3["backup"].URL, "/"+restictest.Bucket)[0], "s3:")
	upstream, err := url.Parse(backing)
	if err != nil {
		s.t.Fatal(err)
	}
	var keys []s3proxy.Key
	for role, grants := range map[string][]s3proxy.Grant{"backup": s3proxy.Backup, "maintenance": s3proxy.Maintenance, "restore": s3proxy.Restore} {
		keys = append(keys, s3proxy.Key{ID: role, Role: role, Grants: grants})
		s.write(role+".env", "AWS_ACCESS_KEY_ID="+role+"\nAWS_SECRET_ACCESS_KEY="+restictest.Secret(role)+"\n")
		s.edit("homelab.yaml", role+": {file: "+s.dir+"/key.env}", role+": {file: "+s.dir+"/"+role+".env}")
	}
	// A transport of its own: connections that a fault leaves hanging are nobody else's.
	s.proxy = s3proxy.New(s3proxy.Config{Upstream: upstream, Keys: keys, Transport: &http.Transport{}, Now: func() time.Time { return time.Now().Add(time.Duration(s.off.Load())) }})
	srv := httptest.NewServer(s.proxy)
	s.t.Cleanup(srv.CloseClientConnections)
	s.t.Cleanup(s.proxy.Heal)
	old := s.repo.URL
	s.repo.URL = "s3:" + srv.URL + "/" + restictest.Bucket + fmt.Sprint("/", s.shared.next.Add(1), "/restic")
	s.repo.Env = []string{"AWS_ACCESS_KEY_ID=backup", "AWS_SECRET_ACCESS_KEY=" + restictest.Secret("backup")}
	s.edit("homelab.yaml", "url: "+old, "url: "+s.repo.URL)
	restictest.FillS3(s.t, s.repo)
}

// inject lets the storage fail.
func inject(faults ...s3proxy.Fault) func(*scene) {
	return func(s *scene) {
		for _, f := range faults {
			if _, err := s.proxy.Inject(f); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

func healed(s *scene) { s.proxy.Heal() }

// comesBack restores a snapshot and compares.
func (s *scene) comesBack(what, id string, want []tree.Entry) {
	s.t.Helper()
	into := s.t.TempDir()
	if _, err := s.repo.Run(s.bounded, restic.Restore{Snapshot: id, Path: s.source, Target: into}.Args(), nil); err != nil {
		s.t.Errorf("%s does not come back: %v", what, err)
		return
	}
	if diff := tree.Diff(want, measure(s.t, into+"/notes")); len(diff) > 0 {
		s.t.Errorf("%s comes back with %d differences, the first: %v", what, len(diff), diff[0])
	}
}

// newest is the newest snapshot that counts.
func (s *scene) newest() restic.Snapshot {
	s.t.Helper()
	list, err := s.repo.Snapshots(s.t.Context(), "tier:fast", "svc:notes")
	if err != nil {
		s.t.Fatal(err)
	}
	good := slices.DeleteFunc(restic.Good(list), func(c restic.Snapshot) bool { return c.Time.After(time.Now()) })
	if len(good) == 0 {
		s.t.Fatal("no snapshot counts")
	}
	return good[len(good)-1]
}

func (s *scene) nothingIsLeft() {
	s.t.Helper()
	for _, pattern := range []string{"/dumps/notes/*", "/state/running-*", "/state/.part-*"} {
		if left, _ := filepath.Glob(s.dir + pattern); len(left) > 0 {
			s.t.Errorf("left: %v", left)
		}
	}
	text, _ := os.ReadFile(s.dir + "/container")
	if words := strings.Fields(string(text)); len(words) > 0 && words[len(words)-1] != "start" {
		s.t.Errorf("the container stands still: %v", words)
	}
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		if _, err := s.repo.Run(s.bounded, []string{"unlock"}, nil); err != nil { // what a killed restic left; never all
			s.t.Error(err)
		}
		c, err := s.repo.Check(s.bounded, 1, 1)
		if err == nil && c.Errors == 0 {
			return
		}
		if restic.CodeOf(err) != restic.CodeLocked || time.Now().After(end) { // until the killed one is reaped it counts as alive
			s.t.Errorf("the repository: %+v %v", c, err)
			return
		}
	}
}
