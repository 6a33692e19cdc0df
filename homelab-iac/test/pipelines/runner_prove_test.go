//go:build prove

// Package pipelines runs the pipelines of both rooms, job by job, with gitlab-ci-local against a fake GitLab and a fake registry.
package pipelines

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"home.arpa/lab/homelab-iac/internal/fake"
)

// A bench is a checkout of this repository, a GitLab and a registry for it, and what a runner needs.
type bench struct {
	t        *testing.T
	dir      string // the checkout
	aside    string // stand-ins, records, the machine that is deployed to
	gitlab   *fake.GitLab
	url      string
	registry *fake.Registry
	host     string // of the registry
	extra    map[string]string
	said     []string // everything that jobs have printed and left
}

func cache() string {
	if dir := os.Getenv("XDG_CACHE_HOME"); dir != "" {
		return dir
	}
	return filepath.Join(os.Getenv("HOME"), ".cache")
}

func build(t *testing.T) *bench {
	t.Helper()
	root := t.TempDir()
	b := &bench{t: t, dir: filepath.Join(root, "homelab"), aside: filepath.Join(root, "aside"), gitlab: fake.NewGitLab(1, "example/homelab"), registry: fake.NewRegistry(), extra: map[string]string{}}
	server := httptest.NewServer(b.gitlab)
	t.Cleanup(server.Close)
	b.url = server.URL + "/api/v4"
	images := httptest.NewServer(b.registry)
	t.Cleanup(images.Close)
	b.host = strings.TrimPrefix(images.URL, "http://")
	b.checkOut()
	for _, dir := range []string{"bin", "seen", "home"} {
		if err := os.MkdirAll(filepath.Join(b.aside, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// What every job's shell does first: it writes down which variables it sees.
	b.write("record.sh", "if [ -n \"${CI_JOB_NAME:-}\" ]; then compgen -e >\""+b.aside+"/seen/${CI_JOB_NAME//[:\\/]/_}\"; fi\n")
	return b
}

func (b *bench) write(name, text string) string {
	b.t.Helper()
	file := filepath.Join(b.aside, name)
	if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
		b.t.Fatal(err)
	}
	return file
}

// run runs a command in the checkout.
func (b *bench) run(name string, args ...string) string {
	b.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = b.dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// checkOut makes a repository of what stands here, whether it is committed or not.
func (b *bench) checkOut() {
	b.t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		b.t.Fatal(err)
	}
	list, err := exec.Command("git", "-C", root, "ls-files", "-co", "--exclude-standard", "-z").Output()
	if err != nil {
		b.t.Fatal(err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(list), "\x00"), "\x00") {
		from, to := filepath.Join(root, name), filepath.Join(b.dir, name)
		info, err := os.Lstat(from)
		if err != nil || !info.Mode().IsRegular() {
			continue // deleted and not committed yet
		}
		text, err := os.ReadFile(from)
		if err == nil {
			if err = os.MkdirAll(filepath.Dir(to), 0o755); err == nil {
				err = os.WriteFile(to, text, info.Mode().Perm())
			}
		}
		if err != nil {
			b.t.Fatal(err)
		}
	}
	b.run("git", "init", "-q", "-b", "main")
	b.run("git", "remote", "add", "origin", "git@gitlab.example:example/homelab.git")
	b.commit("begin")
}

func (b *bench) commit(what string) string {
	b.t.Helper()
	b.run("git", "add", "-A")
	b.run("git", "-c", "user.name=test", "-c", "user.email=test@example.invalid", "commit", "-q", "--allow-empty", "-m", what)
	return b.run("git", "rev-parse", "HEAD")
}

// A run is one pipeline that has ended.
type run struct {
	pipeline *fake.Pipeline
	jobs     []string // those that began, in the order in which they did
	failed   []string
	logs     map[string]string
	env      map[string][]string // the names of variables that each job saw
	left     map[string]map[string][]byte
	out      string
}

func (r run) ran(name string) bool { return slices.Contains(r.jobs, name) }

// before says whether one job had begun before another.
func (r run) before(a, b string) bool {
	return r.ran(a) && r.ran(b) && slices.Index(r.jobs, a) < slices.Index(r.jobs, b)
}

var (
	begins = regexp.MustCompile(`(?m)^(\S+)\s+starting `)
	ends   = regexp.MustCompile(`(?m)^\s*(PASS|FAIL|WARN)\s+(\S+)`)
)

// pipeline starts one as GitLab would, and does a runner's work with gitlab-ci-local.
func (b *bench) pipeline(source, branch string, request int, starter fake.Token, extra map[string]string) run {
	b.t.Helper()
	sha := b.run("git", "rev-parse", "HEAD")
	p, predefined, project := b.gitlab.Start(source, branch, sha, request, starter)
	if !created(b.t, filepath.Join(b.dir, ".gitlab-ci.yml"), predefined) {
		return run{pipeline: p}
	}
	token := predefined["CI_JOB_TOKEN"]
	b.registry.User, b.registry.Password, b.registry.Public = "gitlab-ci-token", token, true // the machine that pulls needs no login here

	maps.Copy(predefined, map[string]string{
		"CI_API_V4_URL": b.url, "CI_PIPELINE_URL": "https://gitlab.example/example/homelab/-/pipelines/1", "CI_REGISTRY": b.host,
		"CI_REGISTRY_IMAGE": b.host + "/example/homelab", "CI_REGISTRY_USER": "gitlab-ci-token", "CI_REGISTRY_PASSWORD": token,
		"REGISTRY_FLAGS": "--plain-http", "BASH_ENV": filepath.Join(b.aside, "record.sh"), "HOME": filepath.Join(b.aside, "home"),
		"PATH":           filepath.Join(b.aside, "bin") + ":" + os.Getenv("PATH"),
		"XDG_CACHE_HOME": cache(), "GOCACHE": b.goEnv("GOCACHE"), "GOMODCACHE": b.goEnv("GOMODCACHE"), "GOPROXY": b.goEnv("GOPROXY"), "GOSUMDB": b.goEnv("GOSUMDB"), "GOFLAGS": "-trimpath",
		"TF_CLI_CONFIG_FILE": "/dev/null", "TERRAFORM_DIR": "homelab-iac/test/pipelines/trial", "PLATFORMS": "linux/amd64",
		// Tests and linters of everything run elsewhere; here they only have to run.
		"HOMELAB_TEST_PACKAGES": "./internal/strict", "RUNNER_TEST_PACKAGES": "./llm-runner/internal/sse", "LINT_PACKAGES": "./internal/strict", "LINT_PLAYBOOKS": "roles/docker",
	})
	maps.Copy(predefined, b.extra)
	maps.Copy(predefined, extra)
	file := map[string]any{}
	for _, v := range project {
		file[v.Key] = map[string]any{"type": map[string]string{"env_var": "variable", "file": "file"}[v.Type], "values": map[string]string{v.Environment: v.Value}}
	}
	text, err := yaml.Marshal(file)
	if err != nil {
		b.t.Fatal(err)
	}
	b.write("variables.yml", string(text))
	state := filepath.Join(b.dir, ".gitlab-ci-local")
	for _, dir := range []string{state, filepath.Join(b.aside, "seen")} {
		if err := os.RemoveAll(dir); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(b.aside, "seen"), 0o755); err != nil {
		b.t.Fatal(err)
	}
	args := []string{filepath.Join(cache(), "homelab/gitlab-ci-local/node_modules/.bin/gitlab-ci-local"), "--force-shell-executor", "--shell-isolation",
		"--variables-file", "../aside/variables.yml", "--concurrency", "2"}
	if len(b.said) > 0 { // the files are valid since the first time
		args = append(args, "--no-json-schema-validation")
	}
	if predefined["CI_COMMIT_BRANCH"] == "" {
		args = append(args, "--unset-variable", "CI_COMMIT_BRANCH")
	}
	for _, name := range slices.Sorted(maps.Keys(predefined)) {
		args = append(args, "--variable", name+"="+predefined[name])
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = b.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // its own jobs, too
	cmd.WaitDelay = 5 * time.Second
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(b.aside, "home"), "FORCE_COLOR=0", "NO_COLOR=1", "LANG=C.UTF-8"}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		b.t.Fatalf("gitlab-ci-local: %v\n%s", err, out)
	}
	r := run{pipeline: p, logs: map[string]string{}, env: map[string][]string{}, left: map[string]map[string][]byte{}, out: string(out)}
	for _, m := range begins.FindAllStringSubmatch(r.out, -1) {
		r.jobs = append(r.jobs, m[1])
	}
	for _, m := range ends.FindAllStringSubmatch(r.out, -1) {
		if m[1] == "FAIL" {
			r.failed = append(r.failed, m[2])
		}
	}
	b.gather(&r, state)
	b.gitlab.Finish(p, token, err == nil)
	if err != nil && len(r.failed) == 0 {
		r.failed = []string{"gitlab-ci-local itself"}
	}
	return r
}

func (b *bench) goEnv(name string) string {
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// gather takes up what the jobs left, as a runner uploads it.
func (b *bench) gather(r *run, state string) {
	b.t.Helper()
	b.said = append(b.said, r.out)
	for _, job := range r.jobs {
		artifacts := map[string][]byte{}
		at := filepath.Join(state, "artifacts", safe(job))
		err := filepath.WalkDir(at, func(file string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			text, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			name, err := filepath.Rel(at, file)
			artifacts[filepath.ToSlash(name)] = text
			b.said = append(b.said, string(text))
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			b.t.Fatal(err)
		}
		if names, err := os.ReadFile(filepath.Join(b.aside, "seen", strings.NewReplacer(":", "_", "/", "_").Replace(job))); err == nil {
			r.env[job] = strings.Fields(string(names))
		}
		r.left[job] = artifacts
		b.gitlab.Leave(r.pipeline, job, !slices.Contains(r.failed, job), artifacts)
	}
	logs, err := filepath.Glob(filepath.Join(state, "output", "*.log"))
	if err != nil {
		b.t.Fatal(err)
	}
	for _, log := range logs {
		text, err := os.ReadFile(log)
		if err != nil {
			b.t.Fatal(err)
		}
		r.logs[strings.TrimSuffix(filepath.Base(log), ".log")] = string(text)
		b.said = append(b.said, string(text))
	}
}

// safe is how gitlab-ci-local writes a job's name in a path: what has no place there, in base64.
func safe(job string) string { return strings.ReplaceAll(job, ":", "Og") }

// leaks are the places in which a secret stands: what jobs printed and left, notes, and requests.
func (b *bench) leaks(secret string) (where []string) {
	for _, text := range b.said {
		if at := strings.Index(text, secret); at >= 0 {
			where = append(where, fmt.Sprintf("what a job printed or left: ...%.80s", strings.ToValidUTF8(text[max(0, at-60):], "?")))
		}
	}
	for _, n := range b.gitlab.Notes(7) {
		if strings.Contains(n.Body, secret) {
			where = append(where, "a note")
		}
	}
	for _, s := range b.gitlab.Requests() {
		if strings.Contains(s.Path, secret) {
			where = append(where, "the address of a request: "+s.Path)
		}
	}
	return where
}

// stop ends what the machine that is deployed to has started.
func (b *bench) stop() {
	text, err := os.ReadFile(filepath.Join(b.aside, "machine", "container.pid"))
	if err != nil {
		return
	}
	var pid int
	if _, err := fmt.Fscan(bytes.NewReader(text), &pid); err == nil && pid > 1 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}
