package pipelines

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"home.arpa/lab/homelab-iac/internal/fake"
)

// A condition is one of those that our rules are made of: $NAME, or $NAME == "value". Anything else fails the test: GitLab's language is larger.
var condition = regexp.MustCompile(`^\$([A-Z_]+)(?:\s*==\s*"([^"]*)")?$`)

// created says whether GitLab makes a pipeline at all: gitlab-ci-local leaves workflow:rules to GitLab, and runs whatever it is given.
func created(t *testing.T, file string, variables map[string]string) bool {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var parsed struct {
		Workflow struct {
			Rules []struct{ If, When string }
		}
	}
	if err := yaml.Unmarshal(text, &parsed); err != nil || len(parsed.Workflow.Rules) == 0 {
		t.Fatal("there are no workflow rules", err)
	}
	for _, rule := range parsed.Workflow.Rules {
		holds := true
		for part := range strings.SplitSeq(rule.If, "&&") {
			m := condition.FindStringSubmatch(strings.TrimSpace(part))
			if m == nil {
				t.Fatalf("the rule %q is not understood here", rule.If)
			}
			value := variables[m[1]]
			holds = holds && (strings.Contains(part, "==") && value == m[2] || !strings.Contains(part, "==") && value != "")
		}
		if holds {
			return rule.When != "never"
		}
	}
	return false // where no rule holds there is no pipeline
}

func TestThereIsOnePipelineForEachPush(t *testing.T) {
	g := fake.NewGitLab(1, "example/homelab")
	g.OpenRequest(7)
	for _, c := range []struct {
		source, branch string
		request        int
		want           bool
	}{
		{"push", "change", 0, true},
		{"push", "change", 7, false}, // the merge request has its own
		{"merge_request_event", "change", 7, true},
		{"push", "main", 0, true},
		{"schedule", "main", 0, true},
		{"web", "main", 0, true},
		{"web", "change", 7, true}, // a person asked for it
	} {
		_, predefined, _ := g.Start(c.source, c.branch, "0123456789", c.request, fake.Token{User: "dev", Role: fake.Developer})
		if got := created(t, "../../../.gitlab-ci.yml", predefined); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if created(t, "../../../.gitlab-ci.yml", map[string]string{"CI_PIPELINE_SOURCE": "push", "CI_COMMIT_TAG": "v1"}) {
		t.Error("a tag has a pipeline")
	}
}
