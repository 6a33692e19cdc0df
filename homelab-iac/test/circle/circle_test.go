//go:build prove

package circle_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/ansible"
	"home.arpa/lab/homelab-iac/internal/drill"
	"home.arpa/lab/homelab-iac/internal/restore"
	"home.arpa/lab/homelab-iac/internal/site"
	"home.arpa/lab/homelab-iac/test/circle"
	"home.arpa/lab/homelab-iac/test/lab"
	"home.arpa/lab/homelab-iac/test/verify"
)

const playbooks = "../../ansible"

// program returns a program of this repository: from an environment variable, or built.
func program(t *testing.T, variable, pkg string) string {
	t.Helper()
	if file := os.Getenv(variable); file != "" {
		return file
	}
	file := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-trimpath", "-o", file, "home.arpa/lab/"+pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return file
}

// said keeps what Ansible wrote, for when something fails.
type said struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// household is a circle with what the test needs around it.
type household struct {
	*circle.Circle
	t       *testing.T
	out     *said
	homelab string
	config  string
	pushes  chan string
	phases  []string // what took how long, a row of a table each
}

func open(t *testing.T, o circle.Options) *household {
	t.Helper()
	if os.Getenv(lab.Without) == "1" {
		t.Skip(lab.Without + "=1: this machine is not meant to run labs")
	}
	h := &household{t: t, out: &said{}, homelab: program(t, "HOMELAB_BIN", "homelab-iac/cmd/homelab"), pushes: make(chan string, 100)}
	var err error
	if o.Restic, err = lab.Tool("restic"); err != nil {
		t.Fatal(err)
	}
	o.Homelab, o.Playbooks, o.Out, o.Say = h.homelab, playbooks, h.out, func(s string) { t.Log(s) }
	h.phase("images and the lab", func(ctx context.Context) error {
		h.Circle, err = circle.Open(ctx, o)
		return err
	})
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		if keep := os.Getenv("HOMELAB_PROOF"); keep != "" { // what Ansible wrote, for who looks where the time goes (ANSIBLE_CALLBACKS_ENABLED)
			h.out.mu.Lock()
			defer h.out.mu.Unlock()
			if err := errors.Join(os.MkdirAll(keep, 0o755), os.WriteFile(filepath.Join(keep, "ansible.log"), []byte(h.out.text.String()), 0o600)); err != nil {
				t.Error(err)
			}
		}
		t.Logf("time by phase:\n| Phase | Seconds |\n|---|--:|\n%s", strings.Join(h.phases, "\n"))
	})
	return h
}

// phase runs a part of the way within a quarter of an hour and writes down how long it took.
func (h *household) phase(name string, f func(context.Context) error) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 15*time.Minute)
	defer cancel()
	began := time.Now()
	err := f(ctx)
	took := time.Since(began).Seconds()
	h.phases = append(h.phases, fmt.Sprintf("| %s | %.1f |", name, took))
	h.t.Logf("%s: %.1f s", name, took)
	if err != nil {
		h.out.mu.Lock()
		text := h.out.text.String()
		h.out.mu.Unlock()
		h.t.Fatalf("%s: %v\n%s", name, err, text[max(0, len(text)-6000):])
	}
}

// kuma is one that writes down what it is pushed.
func (h *household) kuma() site.Kuma {
	h.t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	return h.kumaAt(listener)
}

func (h *household) kumaAt(listener net.Listener) site.Kuma {
	h.t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case h.pushes <- r.URL.Query().Get("status") + " " + r.URL.Query().Get("msg"):
		default:
		}
		io.WriteString(w, `{"ok":true}`)
	}))
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	h.t.Cleanup(server.Close)
	secret := filepath.Join(h.t.TempDir(), "kuma")
	if err := os.WriteFile(secret, []byte("a secret"), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return site.Kuma{URL: server.URL, Secret: "file:" + secret}
}

// fire throws the source away, and writes the configuration of who is left with the kit.
func (h *household) fire() {
	h.t.Helper()
	h.phase("throw the machine away", func(context.Context) error { return h.Destroy() })
	var err error
	if h.config, err = h.Config(filepath.Join(h.t.TempDir(), "state"), h.kuma()); err != nil {
		h.t.Fatal(err)
	}
}

// drill proves a restore with the program, as a person would, on a machine that is called drill.
func (h *household) drill(out string, args ...string) drill.Report {
	h.t.Helper()
	var report drill.Report
	h.phase("drill: all of it", func(ctx context.Context) error {
		if h.Lab.Machine("drill") == nil {
			if _, err := h.Lab.Add(ctx, "drill"); err != nil {
				return err
			}
		}
		var err error
		report, err = h.reported(ctx, out, append([]string{"--host", "drill", "--ssh", "ssh -F " + h.Lab.SSHConfig(), "--keep", "--playbooks", playbooks, "--images", h.Images, "--vars", h.Vars}, args...)...)
		return err
	})
	for _, s := range report.Stages {
		h.phases = append(h.phases, fmt.Sprintf("| drill: %s | %.1f |", s.Name, s.Seconds))
	}
	return report
}

// reported runs homelab drill with the kit, compared with the measurement of the source, and reads its report.
func (h *household) reported(ctx context.Context, out string, args ...string) (report drill.Report, err error) {
	cmd := exec.CommandContext(ctx, h.homelab, append([]string{"drill", "--config", h.config, "--reference", h.Reference, "--out", out}, args...)...)
	cmd.WaitDelay = 10 * time.Second
	said, err := cmd.CombinedOutput()
	h.out.Write(said)
	text, unread := os.ReadFile(filepath.Join(out, "restore-report.json"))
	if unread == nil {
		unread = json.Unmarshal(text, &report)
	}
	return report, errors.Join(err, unread)
}

func (h *household) on(machine, script string) string {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), 2*time.Minute)
	defer cancel()
	out, err := h.Lab.Machine(machine).Run(ctx, script)
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// reboot lets the source reboot by itself, and returns when everything on it runs again and is what site.yml says, by the assertion tool.
func (h *household) reboot(ctx context.Context) error {
	m := h.Lab.Machine(circle.Source)
	before := h.on(circle.Source, began)
	h.on(circle.Source, "systemd-run --quiet --on-active=1 systemctl reboot")
	for {
		running, err := m.Run(ctx, began+`; test "$(docker ps -q | wc -l)" -ge 4; ! docker ps -a --format '{{.Status}}' | grep -qv '(healthy)'`)
		if err == nil && strings.TrimSpace(running) != before {
			break
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not everything runs again: %w: %w", context.Cause(ctx), err)
		case <-time.After(500 * time.Millisecond):
		}
	}
	all, err := verify.All()
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range verify.Ask(ctx, verify.Of(all, []string{"docker", "services"}), m.Run) {
		if !r.OK {
			errs = append(errs, fmt.Errorf("%s: got %q, want %q", r.What, r.Got, r.Want))
		}
	}
	return errors.Join(errs...)
}

// began prints when the system's first process did (proc_pid_stat(5)): it is another one after a reboot.
const began = "cut -d' ' -f22 /proc/1/stat"

// conversation reads the newest conversation of a machine's llm-runner.
func (h *household) conversation(machine string) string {
	h.t.Helper()
	return h.on(machine, `get() { curl -fsS --max-time 20 -H "Authorization: Bearer `+circle.Token+`" "http://127.0.0.1:8080$1"; }
get "/chats/$(get /api/chats | jq -r '.[0].id')/export.md"`)
}

func TestTheWholeCircle(t *testing.T) {
	gitea, err := exec.Command("../tools/gitea/setup.sh").Output()
	if err != nil {
		t.Fatalf("build Gitea: %v", err)
	}
	h := open(t, circle.Options{Services: circle.Services, Files: 10_000, Gitea: strings.TrimSpace(string(gitea)), Runner: program(t, "LLM_RUNNER_BIN", "llm-runner")})
	h.phase("site.yml", func(ctx context.Context) error { _, err := h.Converge(ctx); return err })
	h.phase("site.yml again", func(ctx context.Context) error {
		r, err := h.Converge(ctx)
		if err == nil && r.Changed != 0 {
			err = fmt.Errorf("the second run changed %d things", r.Changed)
		}
		return err
	})
	h.phase("fill", h.Fill)
	talked := h.conversation(circle.Source)
	h.phase("reboot, and ask the machine what it is", h.reboot)
	if got := h.conversation(circle.Source); got != talked {
		t.Errorf("after a reboot the conversation is\n%s\nwas\n%s", got, talked)
	}
	h.phase("back up", func(ctx context.Context) error { return h.Backup(ctx, "fast") })
	h.fire()

	out := t.TempDir()
	if keep := os.Getenv("HOMELAB_PROOF"); keep != "" {
		out = keep // for who wants to look at the page
	}
	report := h.drill(out, "--tags", "all")
	h.judge(report)
	if got := h.conversation("drill"); got != talked || !strings.Contains(got, "Ollama") {
		t.Errorf("the conversation is not what it was:\n%s\nwas\n%s", got, talked)
	}
	select {
	case push := <-h.pushes:
		if !strings.HasPrefix(push, "up 4 services restored on drill") {
			t.Errorf("Uptime Kuma was told %q", push)
		}
	default:
		t.Error("Uptime Kuma was told nothing")
	}
	for _, q := range h.Lab.Store().Proxy.Requests() {
		if q.Role == "maintenance" {
			t.Errorf("somebody came with the key of %q", q.Role)
		}
	}
	if got := h.on("drill", "ls /etc/homelab/keys; test -e /etc/cron.d/homelab-backup && echo scheduled || true"); strings.Contains(got, "backup") || strings.Contains(got, "scheduled") {
		t.Errorf("the machine has more than the kit, or backs up: %s", got)
	}
	h.eachTag()
	h.inAnotherLab()
	h.byTheClock()
}

// inAnotherLab has the program make a machine by itself, which reaches the storage through the lab's proxy and gets only the kit.
func (h *household) inAnotherLab() {
	h.t.Helper()
	out := h.t.TempDir()
	var report drill.Report
	h.phase("drill --lab --tags photos, by the kit alone", func(ctx context.Context) error {
		var err error
		report, err = h.reported(ctx, out, "--lab", "--tags", "photos")
		return err
	})
	if report.Verdict != "green" || len(report.Compared) != 1 || report.Compared[0].Entries < 200 || report.Compared[0].Against != drill.Exact {
		h.t.Errorf("%s: %s", report.Verdict, report.Summary())
	}
}

// judge looks at the report of a drill of everything.
func (h *household) judge(r drill.Report) {
	h.t.Helper()
	if r.Verdict != "green" || len(r.Services) != len(circle.Services) {
		h.t.Errorf("%s: %s", r.Verdict, r.Summary())
	}
	exact := map[string]int{}
	for _, c := range r.Compared {
		if c.Against != drill.Exact || len(c.Differences) > 0 {
			h.t.Errorf("%s against %s: %v", c.Path, c.Against, c.Differences[:min(5, len(c.Differences))])
		}
		exact[c.Path] = c.Entries
	}
	if exact["/srv/vault/notes"] < 10_000 || exact["/srv/photos"] < 200 || exact["/srv/gitea/data"] < 100 || exact["/srv/llm-runner/config"] < 2 {
		h.t.Errorf("compared %v", exact)
	}
	if len(r.Databases) != 1 || r.Databases[0].Tables < 50 || r.Databases[0].Rows < 100 {
		h.t.Errorf("databases: %+v", r.Databases)
	}
	proved := map[string]bool{}
	for _, s := range append(r.Services, r.Proofs...) {
		for _, d := range s.Steps {
			if d.Phase == restore.Prove && d.Error == "" {
				proved[d.What] = true
			}
		}
	}
	for _, what := range []string{"every repository is whole", "Gitea finds nothing wrong", "compare refs.txt with what it was", "Syncthing answers", "the newest conversation can be read",
		"a push to a repository is taken, and Gitea's hooks write it into the database"} {
		if !proved[what] {
			h.t.Errorf("it is not proved that %s", what)
		}
	}
}

// eachTag loses one thing after the other, and brings it back alone.
func (h *household) eachTag() {
	plays, err := ansible.Open(h.t.Context(), playbooks, h.out)
	if err != nil {
		h.t.Fatal(err)
	}
	inventory := filepath.Join(h.t.TempDir(), "inventory.json")
	text := fmt.Sprintf(`{"all": {"hosts": {"drill": {"ansible_user": "root", "ansible_ssh_common_args": %q}}, "children": {"restic": {"hosts": {"drill": {}}}}}}`, "-F "+h.Lab.SSHConfig())
	if err := os.WriteFile(inventory, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
	was, err := drill.ReadMeasurement(h.Reference)
	if err != nil {
		h.t.Fatal(err)
	}
	psql := "docker compose --project-directory /opt/homelab/services/gitea exec -T postgres psql --username=gitea --no-align --tuples-only gitea "
	issues := h.on("drill", psql+"--command='SELECT count(*) FROM issue'")
	for _, c := range []struct {
		tag, lose string
		paths     map[string]string // that are back, by service
		check     func()
	}{
		{"vault", "rm -rf /srv/vault/notes/*", map[string]string{"vault": "/srv/vault/notes"}, nil},
		{"photos", "rm -rf /srv/photos/20*", map[string]string{"photos": "/srv/photos"}, nil},
		{"dbs", psql + "--quiet --command='DELETE FROM issue; DROP TABLE release'", nil, func() {
			if got := h.on("drill", psql+"--command='SELECT count(*) FROM issue'"); got != issues || issues == "0" {
				h.t.Errorf("%s issues are back of %s", got, issues)
			}
		}},
		{"gitea", "rm -rf /srv/gitea/data/git/repositories/*; " + psql + "--quiet --command='DROP SCHEMA public CASCADE; CREATE SCHEMA public'", map[string]string{"gitea": "/srv/gitea/data"}, nil},
	} {
		h.on("drill", c.lose+"; rm -rf /root/back; mkdir /root/back")
		var report restore.Report
		h.phase("restore.yml --tags "+c.tag, func(ctx context.Context) error {
			_, err := plays.Run(ctx, ansible.Run{Playbook: "restore.yml", Host: "drill", Inventories: []string{inventory}, Tags: []string{c.tag},
				Vars: map[string]any{"restore_confirmed": true, "restore_measure": "/root/back", "restore_report": "/root/back/report"}})
			if err == nil {
				report, err = restore.ReadReport([]byte(h.on("drill", "cat /root/back/report")))
			}
			return err
		})
		if report.Verdict != "green" || len(report.Services) != 1 {
			h.t.Errorf("%s: %s %s, %d services", c.tag, report.Verdict, report.Reason, len(report.Services))
		}
		for service, path := range c.paths {
			back := drill.Measurement{}
			if err := json.Unmarshal([]byte(h.on("drill", "cat /root/back/"+service+".json")), &back); err != nil {
				h.t.Fatal(err)
			}
			if got := drill.CompareExact(service, path, was[path], back[path]); got.Entries < 100 || len(got.Differences) > 0 {
				h.t.Errorf("%s alone: %d entries, %v", c.tag, got.Entries, got.Differences[:min(5, len(got.Differences))])
			}
		}
		if c.check != nil {
			c.check()
		}
	}
}

// TestAnyAmountComesBack measures a restore as large as HOMELAB_CIRCLE_BYTES says, for docs/bench.md.
func TestAnyAmountComesBack(t *testing.T) {
	bytes, _ := strconv.ParseInt(os.Getenv("HOMELAB_CIRCLE_BYTES"), 10, 64)
	if bytes <= 0 {
		t.Skip("HOMELAB_CIRCLE_BYTES=1000000000 measures a restore of a gigabyte")
	}
	h := open(t, circle.Options{Services: []string{"photos"}, Files: 1000, Extra: bytes})
	h.phase("site.yml", func(ctx context.Context) error { _, err := h.Converge(ctx); return err })
	h.phase("fill", h.Fill)
	h.phase("back up", func(ctx context.Context) error { return h.Backup(ctx, "fast") })
	h.fire()
	out := t.TempDir()
	report := h.drill(out, "--tags", "all")
	if report.Verdict != "green" || report.Services[0].Bytes < bytes || report.Compared[0].Against != drill.Exact {
		t.Errorf("%s: %d bytes of %d", report.Verdict, report.Services[0].Bytes, bytes)
	}
	for _, s := range report.Services {
		for _, d := range s.Steps {
			h.phases = append(h.phases, fmt.Sprintf("| %s: %s | %.1f |", s.Service, d.What, d.Seconds))
		}
	}
	h.byTheClock()
}
