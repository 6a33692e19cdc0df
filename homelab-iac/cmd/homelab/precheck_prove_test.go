//go:build prove

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/precheck"
	"home.arpa/lab/homelab-iac/internal/restic/restictest"
)

// ready makes a household fit for precheck: everything around it is configured, the kit is there, and a drill was green.
func ready(t *testing.T) *household {
	t.Helper()
	h := newHousehold(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/state":
			io.WriteString(w, `{"version":4,"serial":3,"lineage":"l","resources":["`+canary+`"]}`)
		case "/api/v1/auth/universal-auth/login":
			io.WriteString(w, `{"accessToken":"t"}`)
		case "/api/v3/secrets/raw":
			io.WriteString(w, `{"secrets":[{"secretKey":"A","secretValue":"`+canary+`"}]}`)
		}
	}))
	t.Cleanup(srv.Close)
	password, err := os.ReadFile(h.repo.PasswordFile)
	if err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile(h.config)
	if err != nil {
		t.Fatal(err)
	}
	restictest.Write(t, h.dir, map[string]string{
		"homelab.yaml": string(config) + fmt.Sprintf(`terraform: {state: "%[2]s/state", user: me, token: "file:%[1]s/token", key: "file:%[1]s/kit/state.key"}
precheck:
  kit: %[1]s/kit
  files: 2
  ways: [{what: SSH, run: ["true"]}, {what: the console, run: ["true"]}]
  infisical: {url: "%[2]s", client: "file:%[1]s/token", secret: "file:%[1]s/token", project: p, environment: prod}
`, h.dir, srv.URL),
		"token": "t", "kit/state.key": strings.Repeat("k", 40), "kit/fast.password": string(password), "kit/fast.env": "A=b\n",
		"kit/infisical.json": `[{"key":"A","value":"` + canary + `"}]`, "kit/infisical.env": "ENCRYPTION_KEY=" + strings.Repeat("e", 32) + "\nAUTH_SECRET=" + strings.Repeat("a", 32) + "\n",
		"services/terraform-state/service.yaml": fmt.Sprintf(`about: The state.
host: here
backup:
  rpo: {fast: 26h}
  dumps: [{name: prod.tfstate.sealed, kind: command, run: [%q, state, export, "{file}"], back: ["true"]}]
restore:
  order: 2
  rto: 10m
  holds: [{what: it is there, run: ["true"]}]
`, os.Args[0]),
		"state/restore-report.json": fmt.Sprintf(`{"ended":%q,"verdict":"green","host":"here","services":[{"service":"notes"},{"service":"terraform-state"}]}`, time.Now().UTC().Format(time.RFC3339)),
	})
	t.Setenv("HOMELAB_CONFIG", h.config) // for the dump, which calls this program
	h.does(0, "is there", "backup", "init", "fast")
	h.does(0, "2 of 2 services safe", "backup", "run", "fast")
	h.does(0, "is whole", "backup", "check", "fast")
	return h
}

func TestAMachineIsWipedAfterTwelveSignOffsAndItsName(t *testing.T) {
	h := ready(t)
	h.heard()
	if _, err := os.Stat(h.dir + "/dumps/terraform-state/prod.tfstate.sealed"); err == nil {
		t.Error("the dump was left")
	}

	// Another name, and none.
	h.asked("there\n", 4, `"there" was typed, and this is here`, "precheck")
	code, stdout, stderr := homelab(t, "here\n", "precheck", "--json", "--address", "aws_s3_bucket_versioning.x", "--config", h.config)
	var report precheck.Report
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != 0 || len(report.SignOffs) != 12 || len(report.Missing()) != 0 || len(report.Snapshots) != 2 {
		t.Fatalf("exit %d, %v: %s\n%s", code, err, stdout, stderr)
	}
	if strings.Contains(stdout+stderr, canary) {
		t.Error("a secret is printed")
	}
	if _, posts := h.heard(); strings.Count(posts, "Test alert") != 2 {
		t.Errorf("Discord heard %q", posts)
	}

	// The token opens the gates of this machine, and no other's.
	h.asked(report.Token, 0, "here may be wiped until", "precheck", "verify", "--token", "-")
	h.asked(report.Token[:len(report.Token)-4]+"AAAA", 4, "refused", "precheck", "verify", "--token", "-")
	h.asked("", 4, "it is not a token", "precheck", "verify")
	h.write("token.txt", report.Token)
	h.write("trusted", h.does(0, "here ", "precheck", "key"))
	plan := strings.NewReplacer(`display_name":"contabo`, `display_name":"here`, `vps[\"contabo\"]`, `vps[\"here\"]`)
	text, err := os.ReadFile(wipes(t, losesVersions))
	if err != nil {
		t.Fatal(err)
	}
	h.write("plan.json", plan.Replace(string(text)))
	h.does(0, "signed for, by here", "plan-check", h.dir+"/plan.json", "--token", h.dir+"/token.txt", "--trusted", h.dir+"/trusted")
	h.does(4, "1 of 2 findings", "plan-check", wipes(t, losesVersions), "--token", h.dir+"/token.txt", "--trusted", h.dir+"/trusted")

	h.playbooks(report.Token)

	// A snapshot that the token names goes within its hour.
	if _, err := h.repo.Run(t.Context(), []string{"forget", report.Snapshots[0]}, nil); err != nil {
		t.Fatal(err)
	}
	h.asked(report.Token, 4, "is in no repository", "precheck", "verify", "--token", "-")
	h.asked("here\n", 1, "must not be wiped", "precheck")
}

func (h *household) write(name, text string) {
	h.t.Helper()
	restictest.Write(h.t, h.dir, map[string]string{name: text})
}

func TestTheStateComesBackFromItsCopy(t *testing.T) {
	h := ready(t)
	h.does(0, "", "state", "export", h.dir+"/copy")
	sealed, err := os.ReadFile(h.dir + "/copy")
	if err != nil || strings.Contains(string(sealed), canary) {
		t.Fatalf("%v: the copy is not sealed", err)
	}
	h.does(0, `"serial":3`, "state", "open", h.dir+"/copy", "--key", h.dir+"/kit/state.key")
	h.does(1, "another key", "state", "open", h.dir+"/copy", "--key", h.dir+"/kit/infisical.env")
}

// playbooks runs precheck.yml and wipe.yml on this machine, which is called here.
func (h *household) playbooks(token string) {
	h.t.Helper()
	tools, err := exec.Command("../../ansible/setup.sh").Output()
	if err != nil {
		h.t.Fatalf("set Ansible up: %v", err)
	}
	h.write("hosts.yml", "all: {hosts: {here: {ansible_connection: local}, there: {ansible_connection: local}}, children: {restic: {hosts: {here: {}}}}}\n")
	name, installed := "another", ""
	contabo := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.URL.Path == "/token" && r.FormValue("password") == canary:
			io.WriteString(w, `{"access_token":"t"}`)
		case r.Header.Get("Authorization") != "Bearer t" || r.Header.Get("X-Request-Id") == "" || r.URL.Path != "/v1/compute/instances/7":
			w.WriteHeader(http.StatusForbidden)
		case r.Method == http.MethodPut:
			body, _ := io.ReadAll(r.Body)
			installed = string(body)
			io.WriteString(w, `{"data":[{"instanceId":7}]}`)
		default:
			io.WriteString(w, `{"data":[{"instanceId":7,"displayName":"`+name+`","sshKeys":[5],"defaultUser":"admin"}]}`)
		}
	}))
	defer contabo.Close()
	play := func(want string, args ...string) {
		h.t.Helper()
		cmd := exec.CommandContext(h.t.Context(), "timeout", append([]string{"5m", filepath.Join(strings.TrimSpace(string(tools)), "ansible-playbook"), "-i", h.dir + "/hosts.yml",
			"-e", "ansible_become=false", "-e", "ansible_python_interpreter=python3"}, args...)...)
		cmd.Dir, cmd.Env = "../../ansible", append(os.Environ(), "ANSIBLE_NOCOLOR=1", "HOME="+h.dir, "ANSIBLE_HOME="+h.dir+"/.ansible",
			"CNTB_OAUTH2_TOKEN_URL="+contabo.URL+"/token", "CNTB_API="+contabo.URL, "CNTB_OAUTH2_PASS="+canary)
		out, err := cmd.CombinedOutput()
		if (err == nil) != (want == "") || !strings.Contains(string(out), want) || strings.Contains(string(out), canary) || strings.Contains(string(out), "homelab1.ey") {
			h.t.Errorf("ansible-playbook %q: %v, want %q\n%s", args, err, want, out)
		}
	}
	wipe := []string{"wipe.yml", "-e", "wipe_how=command", "-e", `{"wipe_command": ["touch", "` + h.dir + `/wiped"]}`, "-e", "wipe_homelab=" + os.Args[0]}
	kept := func() bool { _, err := os.Stat(h.dir + "/wiped"); return err != nil }
	play("one machine with --limit", wipe...)
	play("it is not a token", append(wipe, "--limit", "here")...)
	h.write(".cache/homelab/tokens/there", token) // a token of another machine
	play("run precheck.yml", append(wipe, "--limit", "there")...)
	if !kept() {
		h.t.Fatal("it was wiped without a token")
	}
	play("must not be wiped", "precheck.yml", "--tags", "sign", "--limit", "here", "-e", "precheck_homelab="+os.Args[0], "-e", "precheck_typed=there")
	play("", "precheck.yml", "--tags", "sign", "--limit", "here", "-e", "precheck_homelab="+os.Args[0], "-e", "precheck_typed=here")
	play("", append(wipe, "--limit", "here")...)
	if kept() {
		h.t.Error("it was not wiped with one")
	}
	if _, err := os.Stat(h.dir + "/.cache/homelab/tokens/here"); err == nil {
		h.t.Error("the token was not spent")
	}
	h.write(".cache/homelab/tokens/here", token)
	rented := []string{"wipe.yml", "--limit", "here", "-e", "wipe_homelab=" + os.Args[0], "-e", "wipe_instance=7", "-e", "wipe_image=an-image"}
	play("is called otherwise", rented...)
	if installed != "" {
		h.t.Errorf("another server was installed again: %s", installed)
	}
	name = "here"
	play("", rented...)
	if !strings.Contains(installed, `"imageId": "an-image"`) || !strings.Contains(installed, `"sshKeys": [5]`) || strings.Contains(installed, "userData") {
		h.t.Errorf("Contabo was told %q", installed)
	}
}
