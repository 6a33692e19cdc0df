//go:build prove

package online_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/test/lab"
	"home.arpa/lab/homelab-iac/test/online"
	"home.arpa/lab/homelab-iac/test/verify"
)

// A desk is the lab of this test as its operator has it: labctl, in a folder and a slot of its own.
type desk struct {
	t      *testing.T
	root   string
	labctl string
	env    []string
	state  lab.State
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	if os.Getenv(lab.Without) == "1" {
		t.Skip(lab.Without + "=1: this machine is not meant to run labs")
	}
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := os.Getenv("HOMELAB_LAB_DIR")
	if dir == "" {
		dir = "/var/tmp/homelab-lab" // as labctl has it: what a killed test leaves there goes with the next lab
	}
	slot := lab.Slots - 1
	for ; slot > 30; slot-- { // the others begin from below
		if _, err := net.InterfaceByName(fmt.Sprintf("hlab%d", slot)); err != nil && lab.Owner(dir, slot) == 0 {
			break
		}
	}
	d := &desk{t: t, root: root, labctl: filepath.Join(t.TempDir(), "labctl"),
		env: append(os.Environ(), "HOMELAB_LAB_DIR="+dir, fmt.Sprint("HOMELAB_LAB_SLOT=", slot), fmt.Sprint("HOMELAB_LAB_UNTIL=", os.Getpid()))}
	t.Cleanup(func() {
		if _, err := d.run(time.Minute, "down"); err != nil {
			t.Error(err)
		}
	})
	build := exec.Command("make", "--no-print-directory", "build")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	build = exec.Command("go", "build", "-trimpath", "-o", d.labctl, "./homelab-iac/test/labctl")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build labctl: %v\n%s", err, out)
	}
	d.state.Dir = filepath.Join(dir, fmt.Sprint(slot))
	return d
}

// in is the same desk for a part of the test.
func (d *desk) in(t *testing.T) *desk {
	part := *d
	part.t = t
	return &part
}

// run runs labctl to its end and returns what it printed.
func (d *desk) run(within time.Duration, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.labctl, args...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = d.root, d.env, 5*time.Second
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("labctl %v: %w: %s", args, err, said.String())
	}
	return out.String(), nil
}

// zero runs labctl zero. With a stage named it is killed that long after the stage began.
func (d *desk) zero(stage string, after time.Duration) (done []string, killed bool) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 14*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, d.labctl, "zero")
	cmd.Dir, cmd.Env, cmd.WaitDelay = d.root, d.env, 5*time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	for s := bufio.NewScanner(out); s.Scan(); {
		d.t.Log(s.Text())
		words := strings.Fields(s.Text())
		switch {
		case len(words) > 3 && words[2] == "done":
			done = append(done, words[1])
		case len(words) > 2 && words[1] == stage && words[len(words)-1] == "...":
			time.AfterFunc(after, func() { syscall.Kill(cmd.Process.Pid, syscall.SIGKILL) }) //nolint:errcheck // it may have ended
			killed = true
		}
	}
	err = cmd.Wait()
	if (err == nil) == (stage != "") {
		d.t.Fatalf("zero ended with %v, to be killed in %q: %s\n%s", err, stage, said.String(), d.log(4000))
	}
	return done, killed
}

// log returns the end of what Ansible wrote.
func (d *desk) log(n int) string {
	text, _ := os.ReadFile(filepath.Join(d.state.Dir, "zero.log"))
	return string(text[max(0, len(text)-n):])
}

// on runs a script on a machine.
func (d *desk) on(machine, script string) string {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 2*time.Minute)
	defer cancel()
	out, err := online.On(ctx, d.state, machine, script)
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

// headscale runs one of the control server's own commands.
func (d *desk) headscale(args ...string) string {
	d.t.Helper()
	cache, err := lab.Cache()
	if err != nil {
		d.t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(cache, "tailnet/headscale"), append([]string{"--config", filepath.Join(d.state.Dir, "tailnet/config.yaml"), "--output", "json"}, args...)...).Output()
	if err != nil {
		d.t.Fatal(args, err)
	}
	return string(out)
}

// play runs a playbook and returns what it wrote.
func (d *desk) play(playbook string, args ...string) (changed map[string]string, text string, err error) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 8*time.Minute)
	defer cancel()
	var out bytes.Buffer
	p, err := online.NewPlay(ctx, d.root, filepath.Join(d.state.Dir, "state.json"), &out, "HOMELAB_LAB_IMAGES="+online.ImagesFile(d.state), "HOMELAB_BIN="+filepath.Join(d.root, "bin/homelab"))
	if err != nil {
		d.t.Fatal(err)
	}
	changed, err = p.Run(ctx, playbook, args...)
	return changed, out.String(), err
}

func TestAnEmptyLabBecomesThreeServingMachines(t *testing.T) {
	d := newDesk(t)
	dice := rand.New(rand.NewPCG(20261129, 0)) //nolint:gosec // no secret

	// Killed twice, it goes on: what was done is not done again, what was under way is.
	d.zero("docker", time.Duration(dice.IntN(8000))*time.Millisecond)
	if done, _ := d.zero("services", time.Duration(dice.IntN(15000))*time.Millisecond); !slices.Contains(done, "base") || slices.Contains(done, "docker") {
		t.Errorf("killed in docker, it takes as done: %v", done)
	}
	if done, _ := d.zero("", 0); !slices.Contains(done, "nginx") || slices.Contains(done, "services") {
		t.Errorf("killed in services, it takes as done: %v", done)
	}
	state, err := online.ReadState(filepath.Join(d.state.Dir, "state.json"))
	if err != nil {
		t.Fatal(err)
	}
	d.state = state

	changed, text, err := d.play("site.yml")
	if err != nil {
		t.Fatalf("the second run: %v\n%s", err, text[max(0, len(text)-4000):])
	}
	for _, host := range online.Hosts {
		if changed[host] != "0" {
			t.Errorf("the second run changed %s things on %s: %s", changed[host], host, strings.Join(regexp.MustCompile(`(?m)^TASK.*|^changed: .*`).FindAllString(text, -1), "\n"))
		}
	}

	t.Run("every project is understood, and runs healthily on addresses that only the machine or the tailnet has", d.running)
	t.Run("no secret is told or left behind", d.quiet)
	t.Run("nginx speaks TLS, with sane headers", d.nginx)
	t.Run("the tailnet opens to the right tag and to nobody else", d.tailnet)
	t.Run("the gate says which lines are missing", d.gate)
	t.Run("nothing is open to the internet, and an open port would be found", d.scan)
	t.Run("after a reboot it is all there again", d.reboot)
}

func (d *desk) running(t *testing.T) {
	d = d.in(t)
	nginx, err := os.ReadFile(filepath.Join(d.root, "homelab-iac/services/nginx/compose.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	d.on("contabo", "docker compose -f - config --quiet <<'END'\n"+string(nginx)+"END")
	needs, err := online.Needs()
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range online.Hosts {
		tailnet := d.on(host, "tailscale ip -4")
		for _, project := range strings.Fields(d.on(host, "cd /opt/homelab/services; for d in */compose.yaml; do echo ${d%%/*}; done")) {
			var resolved struct {
				Services map[string]struct {
					Ports []struct {
						HostIP    string `json:"host_ip"`
						Published string `json:"published"`
					} `json:"ports"`
				} `json:"services"`
			}
			if err := json.Unmarshal([]byte(d.on(host, "cd /opt/homelab/services/"+project+"; docker compose config --format json")), &resolved); err != nil {
				t.Fatalf("%s: %v", project, err)
			}
			for name, s := range resolved.Services {
				for _, p := range s.Ports {
					if p.HostIP != "127.0.0.1" && p.HostIP != tailnet {
						t.Errorf("%s: %s publishes %s on %q", project, name, p.Published, p.HostIP)
					}
				}
			}
		}
		if sick := d.on(host, "docker ps -a --format '{{.Names}} {{.Status}}' | grep -v '(healthy)' || true"); sick != "" {
			t.Errorf("%s: %s", host, sick)
		}
		made := map[string]string{}
		for _, line := range strings.Split(d.on(host, `docker ps -a --format '{{.Image}}|{{.Label "lab.what"}}'`), "\n") {
			image, what, _ := strings.Cut(line, "|")
			made[image] = what
		}
		if got := slices.Sorted(maps.Keys(made)); !slices.Equal(got, needs[host]) {
			t.Errorf("%s runs %v, and the catalog says %v", host, got, needs[host])
		}
		for _, image := range slices.Sorted(maps.Keys(made)) {
			t.Logf("%s: %s is %s", host, image, made[image])
		}
		for _, at := range strings.Fields(d.on(host, "ss -Hltn | awk '{print $4}'")) {
			addr, port, _ := strings.Cut(strings.ReplaceAll(at, "[::1]", "127.0.0.1"), ":")
			if port != "22" && !strings.HasPrefix(addr, "127.") && addr != tailnet && !strings.HasPrefix(at, "[fd7a:115c:a1e0:") && at != "[::]:22" {
				t.Errorf("%s listens on %s", host, at)
			}
		}
	}
	// What is real answers as itself.
	for what, c := range map[string]struct{ host, script, want string }{
		"PostgreSQL":   {"prod-services", "cd /opt/homelab/services/infisical; docker compose exec -T postgres psql -U infisical -Atc 'show server_version_num' | cut -c1-2", "17"},
		"Redis":        {"prod-services", "cd /opt/homelab/services/infisical; docker compose exec -T redis redis-cli ping", "PONG"},
		"Prometheus":   {"dev-learning", "curl -fsS http://127.0.0.1:9090/api/v1/targets | jq -r .status", "success"},
		"its numbers":  {"prod-services", "curl -fsS http://$(tailscale ip -4):9100/metrics | grep -c '^node_exporter_build_info'", "1"},
		"the vault":    {"contabo", "stat -c '%u %a' /srv/vault/notes; docker exec vault-copy-syncthing-1 ls -A /var/syncthing/notes | grep -c _queue", "1000 750\n1"},
		"llm-runner":   {"contabo", "curl -sS -o /dev/null -w '%{http_code}' http://127.0.0.1:8080/", "401"},
		"Ollama":       {"contabo", "curl -fsS http://127.0.0.1:11434/api/version | jq -r 'has(\"version\")'", "true"},
		"one public":   {"contabo", "curl -fsS http://127.0.0.1:2000/ingress | grep -c 'runner.example.org leads to https://127.0.0.1:443'", "1"},
		"owned data":   {"dev-learning", "stat -c '%u %g' /srv/prometheus", "1000 1000"},
		"first config": {"contabo", "stat -c '%u %a' /srv/llm-runner/config/runner.yaml", "1000 640"},
	} {
		if got := d.on(c.host, c.script); got != c.want {
			t.Errorf("%s: got %q, want %q", what, got, c.want)
		}
	}
}

func (d *desk) quiet(t *testing.T) {
	d = d.in(t)
	log, err := os.ReadFile(filepath.Join(d.state.Dir, "zero.log"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(log, []byte(d.state.Tailnet.Secret)) || bytes.Contains(log, []byte(d.state.Infisical.ClientSecret)) {
		t.Error("the log holds a secret of the tailnet or of Infisical")
	}
	keys := regexp.MustCompile(`"key": "([^"]+)"`).FindAllStringSubmatch(d.headscale("preauthkeys", "list", "--user", "1"), -1)
	if len(keys) != len(online.Hosts) {
		t.Errorf("%d keys were minted", len(keys))
	}
	for _, key := range keys {
		if bytes.Contains(log, []byte(key[1])) {
			t.Error("the log holds a key of the tailnet")
		}
	}
	values := 0
	for _, host := range online.Hosts {
		for _, line := range strings.Split(d.on(host, "cat /etc/homelab/*.env"), "\n") {
			name, value, _ := strings.Cut(line, "=")
			value = strings.Trim(value, "'")
			if name == "TAILNET_ADDRESS" || len(value) < 8 || strings.HasPrefix(line, "#") {
				continue
			}
			values++
			if bytes.Contains(log, []byte(value)) {
				t.Errorf("the log holds %s", name)
			}
		}
		if got := d.on(host, "stat -c '%U %a' /etc/homelab/*.env | sort -u; ls /run/homelab-* 2>/dev/null || true"); got != "root 600" {
			t.Errorf("%s: %s", host, got)
		}
		if got := d.on(host, "grep -rlF "+d.state.Tailnet.Secret+" /etc /run /root /var/lib/tailscale /var/tmp 2>/dev/null || true"); got != "" {
			t.Errorf("%s holds the OAuth client's secret in %s", host, got)
		}
	}
	if values < 5 {
		t.Errorf("%d secrets were looked for", values)
	}
}

func (d *desk) nginx(t *testing.T) {
	d = d.in(t)
	head := strings.ToLower(d.on("contabo", "curl -sS -o /dev/null -D - --cacert /etc/nginx/homelab.pem --resolve runner.example.org:443:127.0.0.1 https://runner.example.org/"))
	for _, want := range []string{"http/2 401", "strict-transport-security: max-age=31536000", "x-content-type-options: nosniff", "referrer-policy: same-origin", "x-frame-options: sameorigin"} {
		if strings.Count(head, want) != 1 {
			t.Errorf("the answer has not one %q:\n%s", want, head)
		}
	}
	if strings.Contains(head, "server: nginx/") {
		t.Errorf("the answer tells nginx's version:\n%s", head)
	}
	if got := d.on("contabo", "curl -sS -o /dev/null -w '%{http_code} %{redirect_url}' --resolve runner.example.org:80:127.0.0.1 http://runner.example.org/x"); got != "301 https://runner.example.org/x" {
		t.Errorf("without TLS: %s", got)
	}
	if got := d.on("contabo", "curl -sS -o /dev/null -w '%{http_code}' -H 'Host: other.example' http://127.0.0.1/ 2>/dev/null || true"); got != "000" {
		t.Errorf("nginx answered %s for a name that nobody named", got)
	}
	if got := d.on("contabo", "stat -c '%U %a' /etc/nginx/homelab.key"); got != "root 600" {
		t.Errorf("the key: %s", got)
	}
}

// reach tells whether a machine connects to an address.
func (d *desk) reach(from, address, port, want string) string {
	seconds := "3"
	if want == "open" { // on a busy machine this takes a while; what is shut says nothing at all
		seconds = "20"
	}
	return d.on(from, "timeout "+seconds+" bash -c 'exec 3<>/dev/tcp/"+address+"/"+port+"' 2>/dev/null && echo open || echo shut")
}

func (d *desk) tailnet(t *testing.T) {
	d = d.in(t)
	searxng := d.on("prod-services", "tailscale ip -4")
	for _, c := range []struct{ from, address, port, want, why string }{
		{"contabo", searxng, "8888", "open", "tag:control may search"},
		{"contabo", "prod-services", "8888", "open", "by its name in the tailnet"},
		{"contabo", searxng, "22", "shut", "and nothing else"},
		{"contabo", searxng, "3000", "shut", "and nothing else"},
		{"dev-learning", searxng, "8888", "shut", "tag:learning may not"},
		{"dev-learning", searxng, "3001", "open", "but it may push to Kuma"},
		{"dev-learning", "contabo", "9100", "open", "Prometheus reads the node exporter"},
		{"dev-learning", "contabo", "443", "open", "and llm-runner"},
		{"contabo", "prod-services", "22000", "open", "the vault on the VPS"},
		{"contabo", searxng, "9100", "shut", "nobody else reads the node exporter"},
		{"prod-services", searxng, "8888", "open", "it listens there"},
		{"contabo", d.state.Machines["prod-services"], "8888", "shut", "not on the LAN"},
		{"dev-learning", d.state.Machines["prod-services"], "8888", "shut", "not on the LAN"},
		{"dev-learning", d.state.Machines["contabo"], "443", "shut", "not on the LAN"},
	} {
		if got := d.reach(c.from, c.address, c.port, c.want); got != c.want {
			t.Errorf("from %s to %s:%s is %s, want %s: %s", c.from, c.address, c.port, got, c.want, c.why)
		}
	}

	// Each machine came with a key of its own, good for an hour, used once, and is known by its tag.
	var nodes []struct {
		Name string   `json:"given_name"`
		Tags []string `json:"valid_tags"`
		More []string `json:"forced_tags"`
		Key  struct {
			Reusable  bool `json:"reusable"`
			Ephemeral bool `json:"ephemeral"`
			Used      bool `json:"used"`
			Expires   struct {
				Seconds int64 `json:"seconds"`
			} `json:"expiration"`
			Created struct {
				Seconds int64 `json:"seconds"`
			} `json:"created_at"`
		} `json:"pre_auth_key"`
	}
	text := d.headscale("nodes", "list")
	if err := json.Unmarshal([]byte(text), &nodes); err != nil {
		t.Fatal(err)
	}
	tags := map[string]string{}
	for _, n := range nodes {
		tags[n.Name] = strings.Join(append(n.Tags, n.More...), " ")
		if n.Key.Reusable || n.Key.Ephemeral || !n.Key.Used || n.Key.Expires.Seconds-n.Key.Created.Seconds > 3605 {
			t.Errorf("%s came with a key that is not one-off or lasts too long: %+v", n.Name, n.Key)
		}
	}
	want := map[string]string{"contabo": "tag:control", "prod-services": "tag:services", "dev-learning": "tag:learning"}
	for name, tag := range want {
		if !strings.Contains(tags[name], tag) {
			t.Errorf("%s has the tags %q\n%s", name, tags[name], text)
		}
	}
	if len(nodes) != len(want) {
		t.Errorf("the tailnet has %d nodes: a killed or second run joined again\n%s", len(nodes), text)
	}

	// A setting that differs is set, without "up"; the same again changes nothing.
	for _, expect := range []string{"1", "0"} {
		changed, out, err := d.play("site.yml", "--tags", "tailscale", "--limit", "dev-learning", "-e", "tailscale_accept_routes=true")
		if err != nil || changed["dev-learning"] != expect {
			t.Errorf("another setting: %v changed, want %s, %v\n%s", changed, expect, err, out[max(0, len(out)-2000):])
		}
	}
}

func (d *desk) gate(t *testing.T) {
	d = d.in(t)
	settings := "/opt/homelab/services/searxng/settings.yml"
	d.on("prod-services", "cp "+settings+" /tmp/settings; grep -v -e '- json' /tmp/settings >/tmp/without; cat /tmp/without >"+settings) // the container has this very file
	_, text, err := d.play("gate.yml")
	if err == nil || !strings.Contains(text, "answers programs with 403") || !strings.Contains(text, "formats: [html, json]") || !strings.Contains(text, "search:") {
		t.Errorf("without the format json: %v\n%s", err, text)
	}
	d.on("prod-services", "cat /tmp/settings >"+settings)
	if _, text, err := d.play("gate.yml"); err != nil {
		t.Errorf("with it: %v\n%s", err, text)
	}
}

func (d *desk) scan(t *testing.T) {
	d = d.in(t)
	found := func(machines ...string) map[string][]int {
		t.Helper()
		out, err := d.run(4*time.Minute, append([]string{"scan", "--json"}, machines...)...)
		open := map[string][]int{}
		if err == nil {
			err = json.Unmarshal([]byte(out), &open)
		}
		if err != nil {
			t.Fatal(err)
		}
		return open
	}
	// One port is opened by hand, so that the scan is seen to find something. A container that publishes on all addresses stays shut.
	d.on("dev-learning", "systemd-run --quiet --unit=opened python3 -m http.server 44444; nft insert rule inet homelab input tcp dport 44444 accept")
	image := d.on("dev-learning", "docker ps --format '{{.Image}}' | grep grafana")
	// The image's stand-in listens on loopback, for the host's network; as portainer's it listens on all addresses of a container.
	d.on("dev-learning", "docker run -d --name leaky --entrypoint /lab/standin -p 0.0.0.0:3999:9000 "+image+" portainer >/dev/null; for i in $(seq 100); do curl -fsS -o /dev/null http://127.0.0.1:3999/api/system/status && exit 0; sleep 0.1; done; exit 1")
	began := time.Now()
	open := found(online.Hosts...)
	t.Logf("scanned every TCP port of %d machines in %.0f s", len(online.Hosts), time.Since(began).Seconds())
	if len(open["contabo"])+len(open["prod-services"]) > 0 || !slices.Equal(open["dev-learning"], []int{44444}) {
		t.Errorf("open to anybody: %v, want 44444 of dev-learning alone", open)
	}
	d.on("dev-learning", "docker rm -f leaky >/dev/null; systemctl stop opened; systemctl restart nftables")
	if open := found("dev-learning"); len(open["dev-learning"]) > 0 {
		t.Errorf("still open: %v", open)
	}
}

func (d *desk) reboot(t *testing.T) {
	d = d.in(t)
	before := d.on("prod-services", "cut -d' ' -f22 /proc/1/stat") // when the system's first process began (proc_pid_stat(5))
	d.on("prod-services", "systemd-run --quiet --on-active=1 systemctl reboot")
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	for {
		got, err := online.On(ctx, d.state, "prod-services", "cut -d' ' -f22 /proc/1/stat; test \"$(docker ps -q | wc -l)\" -gt 5; ! docker ps -a --format '{{.Status}}' | grep -qv '(healthy)'")
		if err == nil && got != before {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatalf("after a reboot: %s\n%v", d.on("prod-services", "docker ps -a --format '{{.Names}} {{.Status}}'; systemctl --failed --no-legend"), err)
		case <-time.After(500 * time.Millisecond):
		}
	}
	all, err := verify.All()
	if err != nil {
		t.Fatal(err)
	}
	ask := func(ctx context.Context, command string) (string, error) {
		return online.On(ctx, d.state, "prod-services", command)
	}
	for _, r := range verify.Ask(ctx, verify.Of(all, []string{"docker", "tailnet", "nginx", "services"}), ask) { // the lab has no schedule of backups, which restic asks for
		if !r.OK {
			t.Errorf("after a reboot: %s: got %q, want %q", r.What, r.Got, r.Want)
		}
	}
	if _, text, err := d.play("gate.yml"); err != nil {
		t.Errorf("after a reboot SearXNG is not reached: %v\n%s", err, text)
	}
}
