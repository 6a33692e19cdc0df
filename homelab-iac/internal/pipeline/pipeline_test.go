package pipeline

import (
	"bytes"
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/homelab-iac/internal/fake"
	"home.arpa/lab/homelab-iac/internal/plan"
)

// A house is a root module whose state is in a fake GitLab.
type house struct {
	t      *testing.T
	gitlab *fake.GitLab
	url    string
	dir    string
	public string
	secret string // the private key
	log    bytes.Buffer
}

const (
	canary  = "canary-7f3a-in-the-state"
	canary2 = "canary-9c1e-credential"
)

const module = `
terraform {
  backend "http" {}
}
variable "token" {
  type      = string
  sensitive = true
}
resource "terraform_data" "server" {
  input = { size = 1, token = var.token, note = "plain-value-of-the-plan" }
}
module "inner" {
  source = "./inner"
}
`

func build(t *testing.T) *house {
	t.Helper()
	t.Parallel()
	program, err := exec.LookPath("terraform")
	if err != nil {
		if os.Getenv("HOMELAB_PROVE") != "" {
			t.Fatal("terraform is not there")
		}
		t.Skip("terraform is not there")
	}
	t.Log(program)
	h := &house{t: t, gitlab: fake.NewGitLab(1, "example/homelab"), dir: t.TempDir()}
	server := httptest.NewServer(h.gitlab)
	t.Cleanup(server.Close)
	h.url = server.URL + "/api/v4"
	h.gitlab.Add(fake.Token{Value: "job-developer", User: "dev", Role: fake.Developer, Job: true})
	h.gitlab.Add(fake.Token{Value: "job-maintainer", User: "op", Role: fake.Maintainer, Job: true})
	if h.public, h.secret, err = NewKey(); err != nil {
		t.Fatal(err)
	}
	h.write("main.tf", module)
	h.write("inner/main.tf", "resource \"terraform_data\" \"inner\" {\n  input = 1\n}\n")
	return h
}

func (h *house) write(name, text string) {
	h.t.Helper()
	file := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) tool(prefix, token string) *Tool {
	job := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.t.TempDir(), "TF_CLI_CONFIG_FILE=/dev/null", "CI_API_V4_URL=" + h.url, "CI_PROJECT_ID=1", "CI_JOB_TOKEN=" + token,
		"PLAN_TF_VAR_token=" + canary2, "APPLY_TF_VAR_token=" + canary2, "TF_LOG=trace"}
	env, secrets := Environment(job, prefix, "prod")
	return &Tool{Program: "terraform", Dir: h.dir, Env: env, Secrets: secrets, Log: &h.log, Wait: time.Second}
}

func (h *house) planning(commit string) Planning {
	return Planning{Public: h.public, Out: filepath.Join(h.t.TempDir(), "plan"), Commit: commit, State: "prod", Now: time.Now()}
}

// read plans as a merge request's pipeline does, and returns the sealed plan and all that was left.
func (h *house) read(commit string) (sealed []byte, s Summary, left map[string][]byte) {
	h.t.Helper()
	p := h.planning(commit)
	s, err := h.tool("PLAN_", "job-developer").Make(context.Background(), p)
	if err != nil {
		h.t.Fatal(err)
	}
	left = map[string][]byte{}
	files, err := os.ReadDir(p.Out)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, f := range files {
		if left[f.Name()], err = os.ReadFile(filepath.Join(p.Out, f.Name())); err != nil {
			h.t.Fatal(err)
		}
	}
	return left[SealedFile], s, left
}

func (h *house) apply(commit string, sealed []byte, change func(*Application)) (Summary, error) {
	a := Application{Planning: h.planning(commit), Sealed: sealed, Private: h.secret}
	if change != nil {
		change(&a)
	}
	return h.tool("APPLY_", "job-maintainer").Do(context.Background(), a)
}

func TestWhatWasReadIsApplied(t *testing.T) {
	h := build(t)
	sealed, s, left := h.read("c1")
	if s.Headline() != "Create 2." {
		t.Error(s.Headline())
	}
	for name, text := range left {
		for _, c := range []string{canary, canary2, "plain-value-of-the-plan"} {
			if bytes.Contains(text, []byte(c)) {
				t.Errorf("%s holds a value", name)
			}
		}
	}
	if !strings.Contains(string(left[NoteFile]), "`terraform_data.server`") || string(left[ReportFile]) != "{\"create\":2,\"delete\":0,\"update\":0}\n" {
		t.Errorf("%s\n%s", left[NoteFile], left[ReportFile])
	}
	if _, err := h.apply("c1", sealed, nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(h.gitlab.State("prod"), []byte("terraform_data")) || h.gitlab.Locked("prod") != "" {
		t.Error("the state was not written, or is still locked")
	}
	// The same plan again: the state has moved on, and nothing is to do.
	h.log.Reset()
	if _, err := h.apply("c1", sealed, nil); err != nil || !strings.Contains(h.log.String(), "Nothing changes") {
		t.Errorf("%v %s", err, h.log.String())
	}
	if strings.Contains(h.log.String(), canary2) {
		t.Error("the log holds a secret")
	}
}

func TestAfterAChangeByOthersTheSamePlanGoesOnAndAnotherStops(t *testing.T) {
	h := build(t)
	sealed, _, _ := h.read("c0")
	if _, err := h.apply("c0", sealed, nil); err != nil {
		t.Fatal(err)
	}
	h.write("main.tf", strings.Replace(module, "size = 1", "size = 2", 1))
	sealed, s, _ := h.read("c1")
	if s.Headline() != "Update 1." {
		t.Fatal(s.Headline())
	}
	// Somebody writes the state anew, and everything is as it was.
	state := h.gitlab.State("prod")
	next := bytes.Replace(state, []byte(`"serial": `), []byte(`"serial": 10`), 1)
	if bytes.Equal(next, state) {
		t.Fatalf("%.200s", state)
	}
	h.gitlab.Put("prod", next)
	if _, err := h.apply("c1", sealed, nil); err != nil || !strings.Contains(h.log.String(), "exactly what was read") {
		t.Fatalf("%v\n%s", err, h.log.String())
	}
	// Somebody changes the thing itself: the plan to get there would be another one.
	h.write("main.tf", strings.Replace(module, "size = 1", "size = 3", 1))
	sealed, _, _ = h.read("c2")
	state = h.gitlab.State("prod")
	h.gitlab.Put("prod", bytes.Replace(bytes.Replace(state, []byte(`"serial": `), []byte(`"serial": 2`), 1), []byte(`"size": 2`), []byte(`"size": 77`), 2))
	before := h.gitlab.State("prod")
	s, err := h.apply("c2", sealed, nil)
	var stop *Stop
	if !errors.As(err, &stop) || !strings.Contains(stop.Why, "PLAN_ACCEPT=") || !bytes.Equal(before, h.gitlab.State("prod")) || !strings.Contains(s.Text(), "terraform_data.server") {
		t.Fatalf("%v", err)
	}
	if h.gitlab.Locked("prod") != "" {
		t.Error("the lock was not given back")
	}
	// A person reads it and lets it pass; another fingerprint lets nothing pass.
	_, print, _ := strings.Cut(stop.Why, "PLAN_ACCEPT=")
	if _, err := h.apply("c2", sealed, func(a *Application) { a.Accept = "0" + print[1:] + "0" }); !errors.As(err, &stop) {
		t.Fatal(err)
	}
	if _, err := h.apply("c2", sealed, func(a *Application) { a.Accept = print }); err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsAppliedThatNobodyHasRead(t *testing.T) {
	h := build(t)
	var stop *Stop
	if _, err := h.apply("c1", nil, nil); !errors.As(err, &stop) || h.gitlab.State("prod") != nil {
		t.Error("without a plan:", err)
	}
	sealed, _, _ := h.read("c1")
	if _, err := h.apply("c2", sealed, nil); !errors.As(err, &stop) || !strings.Contains(stop.Why, "of commit c1") {
		t.Error("of another commit:", err)
	}
	_, other, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.apply("c1", sealed, func(a *Application) { a.Private = other }); err == nil || !strings.Contains(err.Error(), "one pair") || strings.Contains(err.Error(), other) {
		t.Error("another key:", err)
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := h.apply("c1", sealed, nil); err == nil {
		t.Error("a changed file passes")
	}
	sealed[len(sealed)-1] ^= 1
	if _, err := h.apply("c1", sealed, func(a *Application) {
		a.Check = func(context.Context, plan.Plan, []byte) error { return &Stop{"refused"} }
	}); !errors.As(err, &stop) || h.gitlab.State("prod") != nil {
		t.Error("the check was not heard:", err)
	}
	for name, text := range map[string]string{"main.tf": module + "\n# another\n", "inner/main.tf": "", "more.tf": "output \"x\" { value = 1 }\n"} {
		was, _ := os.ReadFile(filepath.Join(h.dir, name))
		h.write(name, text)
		if _, err := h.apply("c1", sealed, nil); !errors.As(err, &stop) || !strings.Contains(stop.Why, "this commit's files") || h.gitlab.State("prod") != nil {
			t.Errorf("%s is another one: %v", name, err)
		}
		if was == nil {
			os.Remove(filepath.Join(h.dir, name))
		} else {
			h.write(name, string(was))
		}
	}
}

func TestALockThatIsHeldIsWaitedForAndThenTold(t *testing.T) {
	h := build(t)
	sealed, _, _ := h.read("c1")
	lock := httptest.NewRequest("POST", h.url+"/projects/1/terraform/state/prod/lock", strings.NewReader(`{"ID":"x","Operation":"apply","Info":"","Who":"me","Version":"1","Created":"now","Path":""}`))
	lock.SetBasicAuth("gitlab-ci-token", "job-maintainer")
	h.gitlab.ServeHTTP(httptest.NewRecorder(), lock)
	if _, err := h.apply("c1", sealed, nil); err == nil || !strings.Contains(err.Error(), "lock") {
		t.Error(err)
	}
}

func TestErrorsQuoteNoValue(t *testing.T) {
	h := build(t)
	h.write("main.tf", module+"\nresource \"terraform_data\" \"bad\" {\n  input = 1\n  lifecycle {\n    precondition {\n      condition     = var.token == \"other\"\n      error_message = \"the token is "+canary2+" and not right\"\n    }\n  }\n}\n")
	_, err := h.tool("PLAN_", "job-developer").Make(context.Background(), h.planning("c1"))
	if err == nil || strings.Contains(err.Error(), canary2) || !strings.Contains(err.Error(), "precondition failed") && !strings.Contains(err.Error(), "main.tf:") {
		t.Errorf("%v", err)
	}
}

func TestTerraformSeesOnlyItsOwnCredentials(t *testing.T) {
	env, secrets := Environment([]string{"PATH=/bin", "PLAN_AWS_ACCESS_KEY_ID=plan-key", "APPLY_AWS_ACCESS_KEY_ID=apply-key", "PLAN_NOTE_TOKEN=note-token", "CI_JOB_TOKEN=job-token",
		"CI_API_V4_URL=https://gitlab.example/api/v4", "CI_PROJECT_ID=7", "TF_LOG=trace", "DISCORD_WEBHOOK=x", "RANDOM=1"}, "APPLY_", "prod")
	text := strings.Join(env, "\n")
	for _, want := range []string{"PATH=/bin", "AWS_ACCESS_KEY_ID=apply-key", "TF_HTTP_PASSWORD=job-token", "TF_HTTP_LOCK_ADDRESS=https://gitlab.example/api/v4/projects/7/terraform/state/prod/lock"} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing", want)
		}
	}
	for _, no := range []string{"plan-key", "TF_LOG", "DISCORD", "RANDOM", "note-token", "APPLY_"} {
		if strings.Contains(text, no) {
			t.Errorf("%s is there", no)
		}
	}
	if got := strings.Join(secrets, " "); !strings.Contains(got, "plan-key") || !strings.Contains(got, "job-token") || !strings.Contains(got, "note-token") {
		t.Error(got)
	}
}

func TestTheNoteIsReadableAndHarmless(t *testing.T) {
	s := Summary{State: "prod", Commit: "abc", Made: time.Unix(0, 0), Currency: "EUR", AsOf: "2026-11", Pipeline: "https://gitlab.example/p/1",
		Cost: plan.Cost{Monthly: 8, Unknown: []string{"x.y"}},
		Plan: plan.Plan{Resources: []plan.Resource{
			{Address: "a.created", Mode: "managed", Actions: []string{"create"}},
			{Address: "a.updated", Mode: "managed", Actions: []string{"update"}, Changed: []plan.Attribute{{Path: "tags.x"}, {Path: "size"}}},
			{Address: "a.evil[\"`@all\n/close <script>\"]", Mode: "managed", Actions: []string{"delete"}},
			{Address: "a.same", Mode: "managed", Actions: []string{"no-op"}},
			{Address: "data.a.read", Mode: "data", Actions: []string{"read"}},
		}},
		Findings: []plan.Finding{{Address: "a.evil", Rule: plan.Destroys, What: "an object goes <b>@all</b>", Cure: "sign"}}}
	note := s.Note()
	if strings.Index(note, "destroys") > strings.Index(note, "Destroy 1") || strings.Index(note, "evil") > strings.Index(note, "a.updated") || !strings.Contains(note, "`tags.x`, `size`") ||
		!strings.Contains(note, "+8.00 EUR a month") || strings.Contains(note, "a.same") || strings.Contains(note, "a.read") {
		t.Errorf("%s", note)
	}
	for line := range strings.Lines(note) {
		if strings.HasPrefix(line, "/") {
			t.Errorf("a quick action: %s", line)
		}
	}
	if strings.Contains(note, "<b>") || strings.Contains(note, "``") || strings.Contains(note, "goes @all") {
		t.Errorf("%s", note)
	}
	if got := (Summary{State: "prod"}).Headline(); got != "Nothing changes." {
		t.Error(got)
	}
}

func FuzzOpen(f *testing.F) {
	public, private, err := NewKey()
	if err != nil {
		f.Fatal(err)
	}
	sealed, err := Seal(Bundle{Commit: "c"}, public)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add([]byte(sealMagic))
	f.Fuzz(func(t *testing.T, text []byte) {
		if b, err := Open(text, private); err == nil && b.Commit != "c" {
			t.Error("something else was opened")
		}
	})
}

func FuzzSameConfiguration(f *testing.F) {
	f.Add([]byte("PK\x05\x06" + strings.Repeat("\x00", 18)))
	f.Fuzz(func(t *testing.T, text []byte) {
		if sameConfiguration(text, "/nowhere") == nil {
			t.Error("a folder that is not there is the same")
		}
	})
}
