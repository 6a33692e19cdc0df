//go:build prove

// Package site proves the playbooks: a machine that nobody prepared becomes what site.yml says, a second run changes
// nothing, and what it became is asked of the machine itself, by other tools than those that wrote it.
package site

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/test/lab"
	"home.arpa/lab/homelab-iac/test/verify"
)

const (
	ansible = "../../ansible"
	secret  = "hello-s3cr3t-of-the-service"
)

// a play runs playbooks against a lab.
type play struct {
	t   *testing.T
	bin string // where Ansible is
	env []string
	ext string          // a file with variables
	all strings.Builder // what every run wrote
}

func newPlay(t *testing.T, l *lab.Lab, vars map[string]any) *play {
	t.Helper()
	out, err := exec.Command(filepath.Join(ansible, "setup.sh")).Output()
	if err != nil {
		t.Fatalf("set Ansible up: %v", err)
	}
	if err := l.WriteState(); err != nil {
		t.Fatal(err)
	}
	p := &play{t: t, bin: strings.TrimSpace(string(out)), ext: filepath.Join(t.TempDir(), "extra.json")}
	b, err := json.Marshal(vars)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p.ext, b, 0o600); err != nil {
		t.Fatal(err)
	}
	p.env = append(os.Environ(), "HOMELAB_LAB_STATE="+filepath.Join(l.Dir(), "state.json"), "ANSIBLE_NOCOLOR=1",
		"ANSIBLE_CALLBACKS_ENABLED=ansible.posix.profile_tasks", "PATH="+p.bin+":"+os.Getenv("PATH"))
	return p
}

var recap = regexp.MustCompile(`(?m)^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)`)

// run runs a playbook on one machine, and returns how many tasks changed something.
func (p *play) run(playbook, machine string, args ...string) (changed string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), 12*time.Minute)
	defer cancel()
	began := time.Now()
	// timeout(1) ends it too when this test is killed.
	cmd := exec.CommandContext(ctx, "timeout", append([]string{"--kill-after=10", "11m", filepath.Join(p.bin, "ansible-playbook"), "-i", "inventory/lab", playbook, "--limit", machine, "-e", "@" + p.ext}, args...)...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = ansible, p.env, 10*time.Second
	out, err := cmd.CombinedOutput()
	p.all.Write(out)
	found := recap.FindStringSubmatch(string(out))
	if err != nil || found == nil {
		p.t.Fatalf("%s %v: %v\n%s", playbook, args, err, out)
	}
	p.t.Logf("%s %v on %s: ok=%s changed=%s in %.0f s", playbook, args, machine, found[2], found[3], time.Since(began).Seconds())
	return found[3]
}

// on runs a script on a machine and returns what it printed.
func on(t *testing.T, m *lab.Machine, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := m.Run(ctx, script)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// archive packs an Ollama as its releases do. `make prove` has built one before.
func archive(t *testing.T) (file, sum string) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	built, _ := filepath.Glob(filepath.Join(cache, "llm-runner", "ollama-*", "ollama"))
	if len(built) == 0 {
		t.Fatal("no Ollama was built: run llm-runner/test/setup.sh")
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", built[len(built)-1], filepath.Join(dir, "bin", "ollama")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	file = filepath.Join(dir, "ollama.tgz")
	if out, err := exec.Command("tar", "-C", dir, "-czf", file, "bin").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return file, fmt.Sprintf("%x", sha256.Sum256(b))
}

// program returns homelab as it is installed: HOMELAB_BIN, or built from here.
func program(t *testing.T) string {
	t.Helper()
	if file := os.Getenv("HOMELAB_BIN"); file != "" {
		return file
	}
	file := filepath.Join(t.TempDir(), "homelab")
	cmd := exec.Command("go", "build", "-trimpath", "-o", file, "home.arpa/lab/homelab-iac/cmd/homelab")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build homelab: %v\n%s", err, out)
	}
	return file
}

func TestACleanMachineBecomesWhatThePlaybookSays(t *testing.T) {
	l := lab.Start(t, lab.Options{Machines: []string{"alpha", "beta"}, Storage: true})
	alpha, beta := l.Machine("alpha"), l.Machine("beta")
	image := filepath.Join(t.TempDir(), "hello.tar")
	if err := lab.WriteImage(image, "lab/hello:1"); err != nil {
		t.Fatal(err)
	}
	services, err := filepath.Abs("services")
	if err != nil {
		t.Fatal(err)
	}
	ollama, sum := archive(t)
	p := newPlay(t, l, map[string]any{
		"docker_images":    []any{map[string]any{"name": "lab/hello:1", "archive": image}},
		"services_source":  services,
		"services_secrets": map[string]any{"hello": map[string]any{"HELLO_SECRET": secret}},
		"nginx_sites":      []any{map[string]any{"name": "hello.lab", "upstream": "http://127.0.0.1:8081"}},
		"ollama_archive":   ollama, "ollama_sha256": sum,
		"restic_services_source": services, "restic_homelab_binary": program(t),
	})

	if p.run("site.yml", "alpha", "--check") == "0" {
		t.Error("--check says that a machine with nothing on it needs nothing")
	}
	if got := on(t, alpha, "command -v docker nginx restic || echo nothing"); got != "nothing" {
		t.Errorf("--check installed %s", got)
	}
	p.run("site.yml", "alpha")
	if changed := p.run("site.yml", "alpha"); changed != "0" {
		t.Errorf("the second run changed %s things", changed)
	}
	if changed := p.run("site.yml", "alpha", "--check"); changed != "0" {
		t.Errorf("--check after it would change %s things", changed)
	}
	for _, hidden := range []string{secret, l.Store().Backup.Secret, l.Store().Restore.Secret, "correct horse battery staple"} {
		if strings.Contains(p.all.String(), hidden) {
			t.Error("a secret is in what Ansible wrote")
		}
	}
	assertions(t, l, alpha, beta)

	// The way back: without a yes it is a plan, with one the file is there again.
	on(t, alpha, "rm /srv/hello/index.html")
	p.run("restore.yml", "alpha", "--tags", "vault")
	if got := on(t, alpha, "ls /srv/hello"); got != "" {
		t.Errorf("the plan alone brought %s back", got)
	}
	p.run("restore.yml", "alpha", "--tags", "vault", "-e", "restore_confirmed=true")
	if got := on(t, alpha, "cat /srv/hello/index.html; stat -c '%u %g' /srv/hello"); got != "hello from the vault\n4711 4712" {
		t.Errorf("restored: %s", got)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	alpha.Cut()
	if err := alpha.Boot(ctx); err != nil {
		t.Fatal(err)
	}
	if got := on(t, alpha, "systemctl is-system-running --wait || systemctl --failed --no-legend"); got != "running" {
		t.Errorf("after a power cut the machine is %s", got)
	}
	assertions(t, l, alpha, beta)
}

// assertions asks the machine what it became, from inside and from another machine.
func assertions(t *testing.T, l *lab.Lab, alpha, beta *lab.Machine) {
	t.Helper()
	on(t, alpha, "echo hello from the vault >/srv/hello/index.html; for i in $(seq 50); do curl -fsS http://127.0.0.1:8081/index.html >/dev/null 2>&1 && exit 0; sleep 0.2; done; exit 1")

	// The page is there through nginx, for who calls it by its name.
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(on(t, alpha, "cat /etc/nginx/homelab.pem")))
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "hello.lab"}}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+alpha.Addr+"/index.html", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "hello.lab"
	resp, err := client.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("the page through nginx: %v %v", resp, err)
	} else {
		resp.Body.Close()
	}
	req.Host = "other.lab"
	if resp, err := client.Do(req); err == nil {
		resp.Body.Close()
		t.Errorf("nginx answered for a name that nobody named: %s", resp.Status)
	}

	// A container that publishes on all addresses, past the input chain, is still reached by nobody from outside.
	on(t, alpha, "docker rm -f leaky >/dev/null 2>&1 || true; docker run -d --name leaky -p 0.0.0.0:8082:8080 lab/hello:1 httpd -f -p 8080 -h / >/dev/null; for i in $(seq 50); do curl -sS -o /dev/null http://127.0.0.1:8082/ && exit 0; sleep 0.2; done; exit 1")
	for port, open := range map[string]bool{"22": true, "80": true, "443": true, "8081": false, "8082": false, "11434": false} {
		got := on(t, beta, "timeout 3 bash -c 'exec 3<>/dev/tcp/"+alpha.Addr+"/"+port+"' 2>/dev/null && echo open || echo shut")
		if (got == "open") != open {
			t.Errorf("from another machine, port %s is %s", port, got)
		}
	}
	on(t, alpha, "docker rm -f leaky >/dev/null")

	all, err := verify.All()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range verify.Ask(t.Context(), verify.Of(all, []string{"docker", "metrics", "nginx", "ollama", "services", "restic"}), alpha.Run) {
		if !r.OK {
			t.Errorf("%s: got %q, want %q", r.What, r.Got, r.Want)
		}
	}
	for what, c := range map[string]struct{ script, want string }{
		"containers that are well":    {"docker ps --filter health=healthy --format '{{.Names}}'", "hello-hello-1"},
		"owners of data":              {"stat -c '%u %g %a' /srv/hello", "4711 4712 755"},
		"secrets for root only":       {"stat -c '%U %a' /etc/homelab/hello.env /etc/homelab/keys/* | sort -u", "root 600"},
		"a schedule":                  {"grep -c 'systemctl start --wait homelab-backup-fast.service' /etc/cron.d/homelab-backup", "1"},
		"a service that is described": {"systemctl show -P LoadState homelab-backup-fast.service homelab-backup-slow.service homelab-check-fast.service homelab-prune-slow.service homelab-watch.service | sort -u | xargs", "loaded"},
	} {
		if got := on(t, alpha, c.script); got != c.want {
			t.Errorf("%s: got %q, want %q", what, got, c.want)
		}
	}

	// What cron starts works: a backup by the unit, with the append-only key, to real S3, and a file back from it.
	on(t, alpha, "timeout 120 systemctl start --wait homelab-backup-fast.service || { journalctl -u homelab-backup-fast --no-pager | tail -30 >&2; exit 1; }")
	if got := on(t, alpha, "grep -c '^homelab_backup_good.* 1$' /var/lib/prometheus/node-exporter/homelab-backup-fast.prom"); got != "1" {
		t.Errorf("%s good backups are written for the node exporter", got)
	}
	if got := on(t, alpha, "curl -fsS http://127.0.0.1:9100/metrics | grep -c '^homelab_backup_good{.*tier=\"fast\".* 1$'"); got != "1" { // the slow one may have been made up for after the boot
		t.Errorf("the node exporter tells of %s good fast backups", got)
	}
	on(t, alpha, `set -a; . /etc/homelab/keys/fast-restore.key; set +a
export RESTIC_REPOSITORY=s3:`+l.Store().Endpoint+`/fast/restic RESTIC_PASSWORD_FILE=/etc/homelab/keys/fast.password HOME=/root
rm -rf /tmp/back; timeout 60 restic --no-lock --no-cache restore latest --target /tmp/back >/dev/null; cmp /srv/hello/index.html /tmp/back/srv/hello/index.html`)
	for _, q := range l.Store().Proxy.Requests() {
		if q.Role == "" && q.Status == http.StatusForbidden {
			continue // the storage's clock is asked for without a key
		}
		if q.Role != "backup" && q.Role != "restore" && q.Role != "unlimited" {
			t.Errorf("the machine came with the key of %q", q.Role)
		}
	}
	if c, err := net.DialTimeout("tcp", net.JoinHostPort(alpha.Addr, "9100"), time.Second); err == nil {
		c.Close()
		t.Error("a port that nobody named is open")
	}
}
