//go:build prove

package circle_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"home.arpa/lab/homelab-iac/internal/ansible"
	"home.arpa/lab/homelab-iac/internal/drill"
	"home.arpa/lab/homelab-iac/test/circle"
	"home.arpa/lab/homelab-iac/test/lab"
)

// wheels fetches Ansible as it is pinned, for the Python of the lab's machines, which reach no package index.
func (h *household) wheels(ctx context.Context) (string, error) {
	bin, err := exec.CommandContext(ctx, filepath.Join(playbooks, "setup.sh")).Output()
	if err != nil {
		return "", fmt.Errorf("set Ansible up: %w", err)
	}
	version := h.on("drill", `python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])'`)
	cache, err := lab.Cache()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "wheels-"+version)
	cmd := exec.CommandContext(ctx, filepath.Join(strings.TrimSpace(string(bin)), "pip"), "download", "--quiet", "--disable-pip-version-check", "--require-hashes", "--only-binary=:all:",
		"--python-version", version, "--dest", dir, "--requirement", filepath.Join(playbooks, "requirements.txt"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetch Ansible for Python %s: %w: %s", version, err, out)
	}
	return dir, nil
}

// byTheClock has a machine prove restores as role restic makes it: cron starts the unit, which goes on after a drill that is red, and tells Kuma
// of each.
func (h *household) byTheClock() {
	h.t.Helper()
	l := h.Lab
	for len(h.pushes) > 0 { // of drills before
		<-h.pushes
	}
	var dir string
	h.phase("a machine that proves", func(ctx context.Context) (err error) {
		if dir, err = h.wheels(ctx); err != nil {
			return err
		}
		watcher, err := l.Add(ctx, "learning")
		if err != nil {
			return err
		}
		if err := watcher.Put(ctx, dir, "/root/wheels"); err != nil {
			return err
		}
		// What opens the clean machine from there, as an operator would lay it down.
		ssh := filepath.Join(l.Dir(), "ssh")
		for name, to := range map[string]string{"key": "/root/.ssh/key", "known_hosts": "/root/.ssh/known_hosts"} {
			if err := watcher.Put(ctx, filepath.Join(ssh, name), to); err != nil {
				return err
			}
		}
		config, err := os.ReadFile(l.SSHConfig())
		if err != nil {
			return err
		}
		if _, err := watcher.Run(ctx, "mkdir -p -m 0700 /root/.ssh; cat >/root/.ssh/lab <<'END'\n"+strings.ReplaceAll(string(config), ssh+"/", "/root/.ssh/")+"\nEND"); err != nil {
			return err
		}
		listener, err := net.Listen("tcp", net.JoinHostPort(l.State().Gateway, "0"))
		if err != nil {
			return err
		}
		kuma := h.kumaAt(listener)
		secret, err := os.ReadFile(strings.TrimPrefix(kuma.Secret, "file:"))
		if err != nil {
			return err
		}
		inventory := filepath.Join(h.Dir, "inventory-learning.json")
		here := map[string]any{"hosts": map[string]any{"learning": map[string]any{}}}
		text, err := json.Marshal(map[string]any{"all": map[string]any{
			"hosts":    map[string]any{"learning": map[string]any{"ansible_user": "root", "ansible_ssh_common_args": "-F " + l.SSHConfig()}},
			"children": map[string]any{"restic": here}}})
		if err != nil {
			return err
		}
		if err := os.WriteFile(inventory, text, 0o600); err != nil {
			return err
		}
		plays, err := ansible.Open(ctx, playbooks, h.out)
		if err != nil {
			return err
		}
		store, reach := l.Store(), `--ssh "ssh -F /root/.ssh/lab"`
		_, err = plays.Run(ctx, ansible.Run{Playbook: "site.yml", Host: "learning", Inventories: []string{inventory}, Vars: map[string]any{
			"restic_host": "dev-learning", "restic_services_source": h.Catalog, "restic_schedule": false,
			"restic_homelab_binary": h.homelab, "restic_binary": h.Restic,
			"restic_kuma": map[string]any{"url": kuma.URL, "secret": strings.TrimSpace(string(secret))},
			"restic_repositories": map[string]any{"fast": map[string]any{"url": store.Repository("fast", "restic"), "password": circle.Password,
				"keys": map[string]any{"restore": map[string]any{"env": map[string]string{"AWS_ACCESS_KEY_ID": store.Restore.ID, "AWS_SECRET_ACCESS_KEY": store.Restore.Secret}}}}},
			"restic_drill_at": "* * * * *",
			"restic_drills": []any{
				map[string]any{"of": circle.Host, "tags": "photos", "flags": "--host nobody " + reach},
				map[string]any{"of": circle.Host, "tags": "photos", "flags": "--host drill " + reach},
			},
			"restic_drill_environment": map[string]string{"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/root/wheels", "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
		}})
		return err
	})
	h.phase("drills by cron", func(ctx context.Context) error {
		for _, want := range []string{"down 0 services restored on nobody", "up 1 services restored on drill"} {
			select {
			case push := <-h.pushes:
				if !strings.HasPrefix(push, want) {
					return fmt.Errorf("Uptime Kuma was told %q, want %q\n%s", push, want, h.on("learning", "journalctl --unit homelab-drill --no-pager | tail -60"))
				}
			case <-ctx.Done():
				return fmt.Errorf("cron has started nothing that told Kuma %q\n%s", want, h.on("learning", "journalctl --unit homelab-drill --unit cron --no-pager | tail -60"))
			}
		}
		return nil
	})
	h.on("learning", "rm /etc/cron.d/homelab-drill")
	if got := h.on("learning", "journalctl --unit cron --no-pager | grep -c 'systemctl start --wait homelab-drill.service' || true"); got == "0" {
		h.t.Error("it was not cron that started it")
	}
	var report drill.Report
	if err := json.Unmarshal([]byte(h.on("learning", "cat /var/lib/homelab/proofs/"+circle.Host+"/restore-report.json")), &report); err != nil {
		h.t.Fatal(err)
	}
	if report.Verdict != "green" || len(report.Compared) != 1 || report.Compared[0].Entries < 50 || report.Host != circle.Host {
		h.t.Errorf("%s: %s", report.Verdict, report.Summary())
	}
	// It ends as the last red one did, so that systemd and who reads its mail know, too; the watch sees the last verdict.
	if got := h.on("learning", "for i in $(seq 3000); do s=$(systemctl show -P ActiveState homelab-drill); [ $s = activating ] || break; sleep 0.2; done; echo $s $(systemctl show -P ExecMainStatus homelab-drill)"); got != "failed 1" {
		h.t.Errorf("the unit is %s", got)
	}
	if got := h.on("learning", "homelab watch --no-push || true"); !strings.Contains(got, "ok       restore proved") {
		h.t.Errorf("watch says %s", got)
	}
}
