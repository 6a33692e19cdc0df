package pipelines

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// jobs reads the jobs of all three files.
func jobs(t *testing.T) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	for _, file := range []string{"../../../.gitlab-ci.yml", "../../.gitlab-ci.yml", "../../../llm-runner/.gitlab-ci.yml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var parsed map[string]any
		if err := yaml.Unmarshal(text, &parsed); err != nil {
			t.Fatal(file, err)
		}
		for name, body := range parsed {
			if job, ok := body.(map[string]any); ok && (job["script"] != nil || strings.HasPrefix(name, ".")) {
				all[name] = job
			}
		}
	}
	if len(all) < 15 {
		t.Fatalf("only %d jobs were found", len(all))
	}
	return all
}

var script = regexp.MustCompile(`^(\S+\.sh|bin/homelab)( |$)`)

func TestJobsAreScriptsThatAreThere(t *testing.T) {
	for name, job := range jobs(t) {
		if strings.HasPrefix(name, ".") {
			continue
		}
		line, ok := job["script"].(string)
		m := script.FindStringSubmatch(line)
		if !ok || m == nil || strings.ContainsAny(line, ";&|`\n") {
			t.Errorf("%s: %v: a job is one script or one command of homelab, so that it can be run by hand", name, job["script"])
			continue
		}
		if m[1] == "bin/homelab" {
			continue
		}
		if info, err := os.Stat(filepath.Join("../../..", m[1])); err != nil || info.Mode()&0o111 == 0 {
			t.Errorf("%s: %s cannot be run: %v", name, m[1], err)
		}
	}
}

func TestWhatChangesThingsIsDoneOneAtATimeAndNotBrokenOff(t *testing.T) {
	all := jobs(t)
	for _, name := range []string{"terraform:apply", "runner:deploy"} {
		job := all[name]
		if job["resource_group"] == nil || job["interruptible"] != false || job["retry"] != 0 {
			t.Errorf("%s: %v", name, job)
		}
	}
	artifacts, _ := all["terraform:plan"]["artifacts"].(map[string]any)
	if artifacts["access"] != "developer" || artifacts["expire_in"] != "3 days" || artifacts["reports"] == nil {
		t.Errorf("terraform:plan: %v", artifacts)
	}
	for name, job := range all {
		paths, _ := job["artifacts"].(map[string]any)
		for _, p := range list(paths["paths"]) {
			if strings.HasSuffix(p, ".json") || p == "plan" || strings.Contains(p, "*") || strings.HasPrefix(p, ".terraform") {
				t.Errorf("%s leaves %s, in which a plan's values could stand", name, p)
			}
		}
	}
}

func TestEveryLinterIsInEveryPipelineOfAChange(t *testing.T) {
	for name, job := range jobs(t) {
		if !strings.HasPrefix(name, "lint:") {
			continue
		}
		extends := append(list(job["extends"]), "")
		if s, ok := job["extends"].(string); ok {
			extends = append(extends, s)
		}
		if !strings.Contains(strings.Join(extends, " "), ".lint") || job["rules"] != nil {
			t.Errorf("%s is left out of some pipeline: %v", name, job)
		}
	}
}

func list(v any) (all []string) {
	items, _ := v.([]any)
	for _, i := range items {
		if s, ok := i.(string); ok {
			all = append(all, s)
		}
	}
	return all
}
