package main

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"home.arpa/lab/homelab-iac/internal/fake"
)

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCommandsOfPipelinesSayWhatTheyLack(t *testing.T) {
	t.Setenv("CI_MERGE_REQUEST_IID", "")
	t.Setenv("PLAN_PUBLIC_KEY", "")
	t.Setenv("CI_COMMIT_SHA", "abc")
	module := filepath.Dir(file(t, "main.tf", "resource \"terraform_data\" \"x\" {}\n"))
	note := file(t, "note.md", "x")
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"terraform plan --dir /nowhere", 2, "holds no *.tf"},
		{"terraform plan --dir " + module + " --out /tmp/x", 2, "homelab terraform key"},
		{"terraform plan --dir " + module + " --program /nowhere/terraform", 1, "install Terraform"},
		{"terraform apply --dir " + module + " --sealed /nowhere", 2, "no such file"},
		{"terraform plan --dir ../../test/pipelines/trial", 2, "set TF_HTTP_ADDRESS"},
		{"terraform key", 0, "PLAN_PRIVATE_KEY=hlplan-private-"},
		{"plan-note " + note, 2, "is no number"},
		{"plan-note /nowhere.md", 2, "homelab terraform plan --out makes it"},
		{"plan-note", 2, "name one file"},
		{"plan-note --plan ../../internal/plan/testdata/terraform-1.11.json --print", 0, "### Terraform plan: prod"},
		{"image build /nowhere", 2, "no such file"},
		{"image tag x:1 y", 2, "has no digest"},
		{"image sbom main_test.go", 1, "no Go program"},
		{"deploy", 2, "name the service"},
		{"deploy x --config /nowhere", 2, "role restic writes it"},
		{"fake gitlab --listen 0.0.0.0:1", 2, "this machine only"},
		{"fake ghosts", 2, "no fake"},
		{"kuma alive --url kuma", 2, "is no address"},
		{"catalog page", 0, "# Services"},
	} {
		code, stdout, stderr := homelab(t, "", strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(stdout+stderr, c.want) {
			t.Errorf("homelab %s: exit %d, want %d with %q\n%s%s", c.args, code, c.code, c.want, stdout, stderr)
		}
		if strings.Contains(stdout+stderr, "hush") {
			t.Errorf("homelab %s tells a value", c.args)
		}
	}
}

func TestANoteIsWrittenIntoTheExampleGitLab(t *testing.T) {
	g := exampleGitLab()
	server := httptest.NewServer(g)
	t.Cleanup(server.Close)
	t.Setenv("PLAN_NOTE_TOKEN", "fake-note")
	args := []string{"plan-note", file(t, "note.md", "a summary"), "--api", server.URL + "/api/v4", "--project", "1", "--request", "1"}
	for _, want := range []string{"is made", "is written anew"} {
		if code, stdout, stderr := homelab(t, "", args...); code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("exit %d %s%s", code, stdout, stderr)
		}
	}
	t.Setenv("PLAN_NOTE_TOKEN", "")
	if code, _, stderr := homelab(t, "", args...); code != 1 || !strings.Contains(stderr, "token is missing") {
		t.Errorf("exit %d %s", code, stderr)
	}
}

func TestAnImageIsBuiltPushedAndTagged(t *testing.T) {
	registry := fake.NewRegistry()
	registry.User, registry.Password = "gitlab-ci-token", "registry-secret"
	server := httptest.NewServer(registry)
	t.Cleanup(server.Close)
	t.Setenv("CI_REGISTRY_USER", "gitlab-ci-token")
	t.Setenv("CI_REGISTRY_PASSWORD", "registry-secret")
	dir := filepath.Dir(file(t, "Dockerfile", "FROM scratch\nCOPY app /app\nENTRYPOINT [\"/app\"]\n"))
	if err := os.WriteFile(filepath.Join(dir, "app"), []byte("app"), 0o755); err != nil {
		t.Fatal(err)
	}
	name := strings.TrimPrefix(server.URL, "http://") + "/example/app"
	code, stdout, stderr := homelab(t, "", "image", "build", dir, "--push", name, "--tag", "main,1.0", "--plain-http", "--out", filepath.Join(dir, "oci"))
	pinned := strings.TrimSpace(stdout)
	if code != 0 || !strings.HasPrefix(pinned, name+"@sha256:") || strings.Contains(stderr, "registry-secret") {
		t.Fatalf("exit %d %s%s", code, stdout, stderr)
	}
	registry.Break("PUT", "/manifests/", http.StatusBadGateway) // it is sent again
	if code, stdout, stderr = homelab(t, "", "image", "tag", pinned, "deployed", "--plain-http"); code != 0 {
		t.Fatalf("exit %d %s%s", code, stdout, stderr)
	}
	for _, tag := range []string{"main", "1.0", "deployed"} {
		if got := registry.Tag("example/app", tag); name+"@"+got != pinned {
			t.Errorf("%s is %s", tag, got)
		}
	}
	t.Setenv("CI_REGISTRY_PASSWORD", "wrong-secret")
	if code, stdout, stderr = homelab(t, "", "image", "tag", pinned, "x", "--plain-http"); code != 1 || strings.Contains(stderr, "wrong-secret") {
		t.Errorf("exit %d %s%s", code, stdout, stderr)
	}
}

func TestThePipelinesKeyMayAskForDeploymentsOnly(t *testing.T) {
	for _, asked := range []string{"", "sh", "homelab backup run fast", "homelab deploy llm-runner", "homelab deploy llm-runner x@sha256:1 --health http://x", "homelab deploy llm-runner --config=/tmp/x", "cat deploy a b"} {
		t.Setenv("SSH_ORIGINAL_COMMAND", asked)
		if code, _, stderr := homelab(t, "", "deploy", "--ssh"); code != 2 || !strings.Contains(stderr, "may only ask") {
			t.Errorf("%q: exit %d %s", asked, code, stderr)
		}
	}
}

func TestKumaIsAskedFromOutside(t *testing.T) {
	var posts []string
	discord := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text := make([]byte, 4096)
		n, _ := r.Body.Read(text)
		posts = append(posts, string(text[:n]))
		_, _ = w.Write([]byte(`{"id":"1"}`))
	}))
	t.Cleanup(discord.Close)
	t.Setenv("DISCORD_WEBHOOK", discord.URL+"/api/webhooks/1/secret-part")
	well := true
	kuma := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if well {
			_, _ = w.Write([]byte(`{"type":"entryPage","entryPage":"dashboard"}`))
		}
	}))
	t.Cleanup(kuma.Close)
	book := filepath.Join(t.TempDir(), "told", "book.json")
	args := []string{"kuma", "alive", "--url", kuma.URL, "--book", book, "--pause", "1ms"}
	for i, c := range []struct {
		well  bool
		code  int
		posts int
	}{{true, 0, 0}, {false, 1, 1}, {false, 1, 1}, {true, 0, 2}, {true, 0, 2}} {
		well = c.well
		code, stdout, stderr := homelab(t, "", args...)
		if code != c.code || len(posts) != c.posts || strings.Contains(stdout+stderr, "secret-part") {
			t.Fatalf("step %d: exit %d, %d messages: %v\n%s%s", i, code, len(posts), posts, stdout, stderr)
		}
	}
	if !strings.Contains(posts[0], "docs/runbooks/kuma.md") || strings.Contains(posts[1], "runbooks") {
		t.Errorf("%q", posts)
	}
}
