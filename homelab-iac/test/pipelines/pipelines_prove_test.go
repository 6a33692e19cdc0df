//go:build prove

package pipelines

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/fake"
)

// The canaries: secrets that are planted where secrets are, and must be seen nowhere.
var canaries = map[string]string{
	"PLAN_AWS_SECRET_ACCESS_KEY":  "canary-plan-key-5b1c7e",
	"APPLY_AWS_SECRET_ACCESS_KEY": "canary-apply-key-8d20fa",
	"PLAN_TF_VAR_token":           "canary-token-in-the-state-91ee",
	"APPLY_TF_VAR_token":          "canary-token-in-the-state-91ee",
	"PLAN_TF_VAR_plain":           "canary-plain-value-40ab",
	"APPLY_TF_VAR_plain":          "canary-plain-value-40ab",
	"PLAN_NOTE_TOKEN":             "glpat-canary-note-63cd9a",
	"APPLY_GITLAB_TOKEN":          "glpat-canary-read-2f7b10",
}

var (
	contributor = fake.Token{User: "contributor", Role: fake.Developer}
	operator    = fake.Token{User: "operator", Role: fake.Maintainer}
)

// checks are the jobs of every pipeline that a change starts.
var checks = []string{"lint:go", "lint:shell", "lint:yaml", "lint:ansible", "lint:terraform", "test:homelab", "runner:test", "build:homelab", "runner:build"}

// settle sets the project's variables as module gitlab_project does: PLAN_ ones for every pipeline, APPLY_ ones and the private key for main's.
func settle(b *bench) {
	b.t.Helper()
	for name, value := range canaries {
		apply := strings.HasPrefix(name, "APPLY_")
		b.gitlab.Set(fake.Variable{Key: name, Value: value, Masked: true, Hidden: apply, Protected: apply})
	}
	b.gitlab.Add(fake.Token{Value: canaries["PLAN_NOTE_TOKEN"], User: "project_1_bot_note", Role: fake.Reporter, Scopes: []string{"api"}})
	b.gitlab.Add(fake.Token{Value: canaries["APPLY_GITLAB_TOKEN"], User: "project_1_bot_read", Role: fake.Developer, Scopes: []string{"read_api"}})
	var pair struct{ Public, Private string }
	if err := json.Unmarshal([]byte(b.run("go", "run", "-trimpath", "./homelab-iac/cmd/homelab", "terraform", "key", "--json")), &pair); err != nil {
		b.t.Fatal(err)
	}
	canaries["PLAN_PRIVATE_KEY"] = pair.Private
	b.gitlab.Set(fake.Variable{Key: "PLAN_PUBLIC_KEY", Value: pair.Public})
	b.gitlab.Set(fake.Variable{Key: "PLAN_PRIVATE_KEY", Value: pair.Private, Masked: true, Hidden: true, Protected: true})
	b.gitlab.Set(fake.Variable{Key: "DEPLOY_SSH_KEY", Value: "canary-ssh-key-77aa31", Type: "file", Protected: true})
	b.gitlab.Set(fake.Variable{Key: "DEPLOY_KNOWN_HOSTS", Value: "contabo ssh-ed25519 AAAA", Type: "file", Protected: true})
	canaries["DEPLOY_SSH_KEY"] = "canary-ssh-key-77aa31"
	b.gitlab.OpenRequest(7)
}

// machine makes the machine that is deployed to: a stand-in for ssh runs the command here, as the key's line in authorized_keys would, and a
// stand-in for Docker pulls from the fake registry and runs the real program. It returns where the program listens.
func machine(b *bench) string {
	b.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	home := filepath.Join(b.aside, "machine")
	name := b.host + "/example/homelab/llm-runner"
	service := filepath.Join(home, "services", "llm-runner")
	if err := os.MkdirAll(service, 0o755); err != nil {
		b.t.Fatal(err)
	}
	docker := filepath.Join(b.aside, "dockerlike")
	b.run("go", "build", "-trimpath", "-o", docker, "./homelab-iac/test/dockerlike")
	files, err := filepath.Glob(filepath.Join(b.dir, "homelab-iac/services/llm-runner/*.*"))
	if err != nil || len(files) == 0 {
		b.t.Fatal("the service has no folder", err)
	}
	here := strings.NewReplacer("registry.gitlab.com/example/homelab/llm-runner", name, "http://127.0.0.1:8080", "http://"+address, "host: contabo", "host: here")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil {
			err = os.WriteFile(filepath.Join(service, filepath.Base(file)), []byte(here.Replace(string(text))), 0o644)
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
	config := b.write("machine/homelab.yaml", fmt.Sprintf("host: here\nstate: %s/state\nservices: %s/services\ncompose: [%s, compose, --file, \"%s/services/{service}/compose.yaml\"]\n", home, home, docker, home))
	b.write("bin/ssh", fmt.Sprintf(`#!/bin/sh
# A stand-in for ssh: the command is what the key may ask for, and runs here.
while [ "$1" != "${1#-}" ]; do shift 2; done
shift
unset RUNNER_IMAGE DEPLOY_SSH_KEY
export SSH_ORIGINAL_COMMAND="$*" HOMELAB_CONFIG=%s DOCKERLIKE_DIR=%s DOCKERLIKE_IMAGE=%s:deployed
export DOCKERLIKE_ARGS="serve --data %s/data --listen %s"
exec bin/homelab deploy --ssh --wait 60s
`, config, home, name, home, address))
	b.t.Cleanup(b.stop)
	// Stand-ins for linters that make lint runs for real; they take minutes to install and to start.
	b.extra["GOLANGCI_LINT"] = b.write("bin/golangci-lint", "#!/bin/sh\necho \"a stand-in for golangci-lint was asked: $*\"\n")
	b.extra["ANSIBLE_LINT"] = b.write("bin/ansible-lint", "#!/bin/sh\necho \"a stand-in for ansible-lint was asked: $*\"\n")
	return address
}

func (r run) mustPass(t *testing.T, want ...string) {
	t.Helper()
	if len(r.failed) > 0 {
		t.Fatalf("failed: %v\n%s", r.failed, r.out)
	}
	got, all := slices.Sorted(slices.Values(r.jobs)), slices.Sorted(slices.Values(want))
	if !slices.Equal(got, all) {
		t.Fatalf("ran  %v\nwant %v\n%s", got, all, r.out)
	}
}

func TestPipelinesDoWhatTheirKindIsFor(t *testing.T) {
	if os.Getenv("HOMELAB_PROVE") == "" {
		t.Skip("it takes minutes: HOMELAB_PROVE=1")
	}
	b := build(t)
	settle(b)
	address := machine(b)

	// What a push to a branch without a merge request starts.
	r := b.pipeline("push", "change", 0, contributor, nil)
	r.mustPass(t, checks...)
	digest := string(r.left["runner:build"]["dist/digest"])
	if !strings.HasPrefix(digest, "sha256:") || !strings.Contains(string(r.left["runner:build"]["dist/sbom/llm-runner-linux-amd64.cdx.json"]), "pkg:golang/modernc.org/sqlite@") {
		t.Errorf("the image is %q, and its list %.200s", digest, r.left["runner:build"]["dist/sbom/llm-runner-linux-amd64.cdx.json"])
	}
	for job, names := range r.env {
		if i := slices.IndexFunc(names, func(n string) bool {
			return strings.HasPrefix(n, "APPLY_") || n == "PLAN_PRIVATE_KEY" || n == "DEPLOY_SSH_KEY"
		}); i >= 0 {
			t.Errorf("%s sees %s in a branch's pipeline", job, names[i])
		}
	}

	// The same push once there is a merge request: nothing, since that has a pipeline of its own.
	r = b.pipeline("push", "change", 7, contributor, nil)
	if len(r.jobs) > 0 {
		t.Errorf("a branch with a merge request has two pipelines: %v", r.jobs)
	}

	// The merge request's own, twice: one note.
	r = b.pipeline("merge_request_event", "change", 7, contributor, nil)
	r.mustPass(t, append(slices.Clone(checks), "terraform:plan", "terraform:note")...)
	if again := string(r.left["runner:build"]["dist/digest"]); again != digest {
		t.Errorf("the same commit is another image: %s and %s", digest, again)
	}
	if !r.before("build:homelab", "terraform:plan") || !r.before("terraform:plan", "terraform:note") {
		t.Errorf("the order is %v", r.jobs)
	}
	for job, names := range r.env {
		for _, n := range names {
			if strings.HasPrefix(n, "APPLY_") || n == "PLAN_PRIVATE_KEY" || n == "DEPLOY_SSH_KEY" || n == "CI_COMMIT_BRANCH" {
				t.Errorf("%s sees %s in a merge request's pipeline", job, n)
			}
		}
	}
	if !slices.Contains(r.env["terraform:plan"], "PLAN_AWS_SECRET_ACCESS_KEY") {
		t.Error("the plan has no credentials", r.env["terraform:plan"])
	}
	notes := plans(b)
	if len(notes) != 1 || !strings.Contains(notes[0], "`terraform_data.settings`") || !strings.Contains(notes[0], "Create 2.") || !strings.Contains(notes[0], "+3.00 EUR") {
		t.Fatalf("%q", notes)
	}
	if b.gitlab.State("prod") != nil || b.gitlab.Locked("prod") != "" {
		t.Error("a plan has touched the state")
	}

	// It is merged: the same commit is main's now. Several platforms this time.
	r = b.pipeline("push", "main", 0, operator, map[string]string{"PLATFORMS": "linux/amd64,linux/arm64"})
	r.mustPass(t, append(slices.Clone(checks), "terraform:apply", "runner:deploy")...)
	for _, job := range []string{"lint:go", "lint:terraform", "lint:ansible", "test:homelab", "build:homelab"} {
		if !r.before(job, "terraform:apply") {
			t.Errorf("%s comes after apply: %v", job, r.jobs)
		}
	}
	if !r.before("runner:test", "runner:deploy") || !r.before("runner:build", "runner:deploy") {
		t.Errorf("the order is %v", r.jobs)
	}
	if !slices.Contains(r.env["terraform:apply"], "APPLY_AWS_SECRET_ACCESS_KEY") {
		t.Error("apply has no credentials")
	}
	if !strings.Contains(r.out, "what was read in the merge request is applied") || !strings.Contains(string(b.gitlab.State("prod")), canaries["APPLY_TF_VAR_token"]) {
		t.Errorf("the plan was not applied:\n%s", r.logs[safe("terraform:apply")])
	}
	digest = b.registry.Tag("example/homelab/llm-runner", "deployed")
	if digest == "" || digest != b.registry.Tag("example/homelab/llm-runner", "main") {
		t.Errorf("deployed is %q, main is %q", digest, b.registry.Tag("example/homelab/llm-runner", "main"))
	}
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get("http://" + address + "/health")
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("what was deployed is not healthy: %v", err)
	}
	resp.Body.Close()

	// A change of the configuration by somebody who does not go through a merge request: it stops, and nothing is done.
	file := filepath.Join(b.dir, "homelab-iac/test/pipelines/trial/main.tf")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), "default     = 1", "default     = 2", 1)), 0o644); err != nil {
		t.Fatal(err)
	}
	b.commit("change past everybody")
	before := string(b.gitlab.State("prod"))
	r = b.pipeline("push", "main", 0, operator, nil)
	if !slices.Contains(r.failed, "terraform:apply") || string(b.gitlab.State("prod")) != before || !strings.Contains(r.out, "PLAN_ACCEPT=") || b.gitlab.Locked("prod") != "" {
		t.Fatalf("failed %v\n%s", r.failed, r.logs[safe("terraform:apply")])
	}

	// By the clock. Drift is there now, since what was merged is not applied; Kuma does not answer.
	told := make(chan string, 10)
	discord := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var sent struct{ Content string }
		_ = json.NewDecoder(r.Body).Decode(&sent)
		told <- sent.Content
		fmt.Fprint(w, `{"id":"1"}`)
	}))
	t.Cleanup(discord.Close)
	b.gitlab.Set(fake.Variable{Key: "DISCORD_WEBHOOK", Value: discord.URL + "/api/webhooks/1/canary-webhook-15fe", Masked: true})
	canaries["DISCORD_WEBHOOK"] = "canary-webhook-15fe"
	b.extra["KUMA_URL"] = "http://127.0.0.1:1"
	for kind, job := range map[string]string{"drift": "terraform:drift", "watch": "watch:kuma"} {
		r = b.pipeline("schedule", "main", 0, operator, map[string]string{"SCHEDULE": kind})
		if got := slices.Sorted(slices.Values(r.jobs)); !slices.Equal(got, []string{"build:homelab", job}) || !slices.Equal(r.failed, []string{job}) {
			t.Errorf("%s: ran %v, failed %v\n%s", kind, got, r.failed, r.out)
		}
		select {
		case text := <-told:
			if !strings.Contains(text, "docs/runbooks/") {
				t.Errorf("%s leads to no runbook: %s", kind, text)
			}
		default:
			t.Errorf("%s has told nobody\n%s", kind, r.out)
		}
	}

	for name, secret := range canaries {
		for _, where := range b.leaks(secret) {
			t.Errorf("%s is seen in %s", name, where)
		}
	}
	if len(b.said) < 40 {
		t.Errorf("only %d logs and artifacts were searched", len(b.said))
	}
}

var isPlan = regexp.MustCompile(`^<!-- homelab-iac:plan:prod -->`)

func plans(b *bench) (found []string) {
	for _, n := range b.gitlab.Notes(7) {
		if isPlan.MatchString(n.Body) {
			found = append(found, n.Body)
		}
	}
	return found
}
