//go:build prove

package terraform

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/plan"
)

const (
	code   = "../../terraform"
	canary = "canary-hush-43"
)

// tool is Terraform, or what TERRAFORM names: OpenTofu.
func tool(t *testing.T) string {
	t.Helper()
	names := []string{"terraform"}
	if cache, err := os.UserCacheDir(); err == nil {
		names = append(names, filepath.Join(cache, "homelab", "terraform", "tofu"))
	}
	if name := os.Getenv("TERRAFORM"); name != "" {
		names = []string{name}
	}
	for _, name := range names {
		if found, err := exec.LookPath(name); err == nil {
			return found
		}
	}
	t.Fatalf("%s is missing: install Terraform 1.11, or let homelab-iac/test/terraform/setup.sh build OpenTofu", names[0])
	return ""
}

// run runs a command in a folder for two minutes at the most.
func run(t *testing.T, dir string, env []string, argv ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	cmd.WaitDelay = 10 * time.Second
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	if err != nil {
		return out.String() + said.String(), err
	}
	return out.String(), nil
}

func TestTheConfigurationIsWellFormedAndItsTestsPass(t *testing.T) {
	out, err := run(t, code, nil, "./test.sh")
	if err != nil || !regexp.MustCompile(`Success! \d{2,} passed, 0 failed`).MatchString(out) {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := os.Stat(code + "/.terraform"); err == nil {
		t.Error("the tests leave something beside the code")
	}
}

// A workspace is a copy of the configuration with a state of its own, run against the stand-ins.
type workspace struct {
	t   *testing.T
	dir string
	env []string
}

func newWorkspace(t *testing.T) *workspace {
	t.Helper()
	rc, err := run(t, ".", nil, "./setup.sh")
	if err != nil {
		t.Fatal(rc, err)
	}
	w := &workspace{t: t, dir: t.TempDir(), env: []string{"TF_CLI_CONFIG_FILE=" + strings.TrimSpace(rc), "TF_IN_AUTOMATION=1", "CHECKPOINT_DISABLE=1"}}
	if err := os.CopyFS(w.dir, os.DirFS(code)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(w.dir + "/tests"); err != nil {
		t.Fatal(err)
	}
	w.write("backend_override.tf", "terraform {\n  backend \"local\" {}\n}\n")
	w.write("rendered.tf", "output \"rendered\" {\n  value = { for tier, b in module.bucket : tier => b.rendered }\n}\n")
	example, err := os.ReadFile(code + "/terraform.tfvars.example")
	if err != nil {
		t.Fatal(err)
	}
	w.write("terraform.tfvars", string(example)+`
ci_secrets = {
  PLAN_AWS_SECRET_ACCESS_KEY  = "`+canary+`-plan"
  APPLY_AWS_SECRET_ACCESS_KEY = "`+canary+`-apply"
}
`)
	w.terraform("init", "-input=false", "-no-color")
	return w
}

func (w *workspace) write(name, text string) {
	w.t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *workspace) terraform(args ...string) string {
	w.t.Helper()
	out, err := run(w.t, w.dir, w.env, append([]string{tool(w.t)}, args...)...)
	if err != nil {
		w.t.Fatalf("terraform %q: %v\n%s", args, err, out)
	}
	return out
}

// plan makes a plan and reads it as plan-check does.
func (w *workspace) plan() (text string, p plan.Plan) {
	w.t.Helper()
	w.terraform("plan", "-input=false", "-no-color", "-out", "plan.bin")
	text = w.terraform("show", "-json", "plan.bin")
	p, err := plan.Read(strings.NewReader(text))
	if err != nil {
		w.t.Fatal(err)
	}
	return text, p
}

func (w *workspace) judge() []plan.Finding {
	w.t.Helper()
	_, p := w.plan()
	return plan.Judge(p, plan.Options{Expendable: []string{"module.dev_learning"}})
}

// edit changes a file of the configuration and puts it back when the test ends.
func (w *workspace) edit(t *testing.T, name, old, new string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), old) < 1 {
		t.Fatalf("%s has no %q", name, old)
	}
	w.write(name, strings.ReplaceAll(string(text), old, new))
	t.Cleanup(func() { w.write(name, string(text)) })
}

// What takes part here shows that Terraform's plans still look as those that were kept in internal/plan/testdata; there are more.
func TestPlansThatTerraformReallyMakesAreJudged(t *testing.T) {
	w := newWorkspace(t)
	if found := w.judge(); len(found) > 0 {
		t.Fatalf("the first plan is refused: %+v", found)
	}
	w.terraform("apply", "-input=false", "-no-color", "plan.bin")
	text, p := w.plan()
	counts := p.Counts()
	delete(counts, plan.Same)
	if len(counts) > 0 {
		t.Fatalf("a second plan is not empty: %v", counts)
	}
	if !strings.Contains(text, canary) {
		t.Error("the secrets are not in the plan, so nothing is proved about them")
	}
	const gitlab, tailnet, vps = "modules/gitlab_project/main.tf", "modules/tailnet/main.tf", "modules/vps/main.tf"
	for name, c := range map[string]struct {
		change func(t *testing.T)
		rule   plan.Rule // "": it passes
		kind   string    // what must be in the plan
	}{
		"what wipes a server is ignored": {func(t *testing.T) { w.edit(t, "terraform.tfvars", "d64d5c6c", "00000000") }, "", ""},
		"the server without its guard": {func(t *testing.T) {
			w.edit(t, vps, "ignore_changes  = [image_id, user_data, ssh_keys, root_password, default_user]", "")
			w.edit(t, "terraform.tfvars", "d64d5c6c", "00000000")
		}, plan.Reinstalls, plan.Update},
		"versions that go sooner": {func(t *testing.T) { w.edit(t, "main.tf", "old_versions_days = 60", "old_versions_days = 30") }, plan.Shrinks, plan.Update},
		"plain HTTP": {func(t *testing.T) {
			w.edit(t, "modules/backup_bucket/policies.tf", `"aws:SecureTransport" = "false"`, `"aws:SecureTransport" = "never"`)
		}, plan.Weakens, plan.Update},
		"secrets in logs": {func(t *testing.T) { w.edit(t, gitlab, "masked            = true", "masked = false") }, plan.Opens, plan.Update},
		"the tailnet for all": {func(t *testing.T) {
			w.edit(t, tailnet, `src = ["tag:control"], dst = ["tag:gpu:11434"]`, `src = ["*"], dst = ["*:*"]`)
		}, plan.Opens, plan.Update},
		"a machine joins": {func(t *testing.T) { w.edit(t, "terraform.tfvars", "prefix  ", "joining = [\"davas\"]\nprefix  ") }, "", plan.Create},
		"learning is made anew": {func(t *testing.T) {
			w.edit(t, "main.tf", "./modules/vm\"\n\n  name    = \"dev-learning\"", "./modules/vm\"\n\n  count   = 1\n  name    = \"dev-learning\"")
		}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c.change(t)
			text, p := w.plan()
			found := plan.Judge(p, plan.Options{Expendable: []string{"module.dev_learning"}})
			if c.kind != "" && p.Counts()[c.kind] == 0 {
				t.Errorf("the plan has no %s: %v", c.kind, p.Counts())
			}
			if c.rule == "" && len(found) > 0 || c.rule != "" && !slices.ContainsFunc(found, func(f plan.Finding) bool { return f.Rule == c.rule }) {
				t.Errorf("want %q: %+v", c.rule, found)
			}
			told, err := json.Marshal([]any{p, found})
			if err != nil || bytes.Contains(told, []byte(canary)) {
				t.Errorf("%v: a secret leaves the package", err)
			}
			if dir := os.Getenv("HOMELAB_KEEP_PLANS"); dir != "" { // where the whole plans of internal/plan/testdata come from
				if err := os.WriteFile(filepath.Join(dir, strings.ReplaceAll(name, " ", "-")+".json"), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
