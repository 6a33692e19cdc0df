package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"home.arpa/lab/llm-runner/internal/fake/script"
)

// pictures is where the other room draws and watches our metrics; without that room there is nothing to compare.
const pictures = "../homelab-iac/services"

var metricName = regexp.MustCompile(`\b(?:llm_runner|go|process)_[a-z_]+`)

// watched are the metrics that the dashboard and the rules name.
func watched(t *testing.T) map[string]string {
	t.Helper()
	names := map[string]string{}
	add := func(where, expr string) {
		for _, name := range metricName.FindAllString(expr, -1) {
			names[name] = where
		}
	}
	raw, err := os.ReadFile(pictures + "/grafana/dashboards/llm-runner.json")
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(raw, &board); err != nil {
		t.Fatal(err)
	}
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			add("the panel "+p.Title, target.Expr)
		}
	}
	for _, r := range rules(t) {
		add("the rule "+r.Alert, r.Expr)
	}
	return names
}

type rule struct {
	Alert, Expr string
	Annotations map[string]string
}

func rules(t *testing.T) (all []rule) {
	t.Helper()
	files, err := filepath.Glob(pictures + "/prometheus/rules/*.rules.yml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var doc struct{ Groups []struct{ Rules []rule } }
		if err := yaml.Unmarshal(raw, &doc); err != nil {
			t.Fatal(err)
		}
		for _, g := range doc.Groups {
			all = append(all, g.Rules...)
		}
	}
	return all
}

func TestTheDashboardAndTheRulesNameMetricsThatThereAre(t *testing.T) {
	if _, err := os.Stat(pictures); err != nil {
		t.Skip("the homelab's room is not here")
	}
	h := newTraced(t, script.Script{Models: []string{"llama"}, Limits: []script.Limit{{Dimension: "requests/day", Max: 30}},
		Reply: []script.Rule{{Text: "Good."}}, Faults: []script.Fault{{Kind: "401", On: []int{2}}}}, "sample: 1\nalerts: {webhook: {url: env:ALERT_WEBHOOK}}")
	t.Setenv("ALERT_WEBHOOK", "http://127.0.0.1:1/") // nobody is there
	h.start()
	ask := func() (int, string) {
		return h.post("/v1/chat/completions", "application/json", `{"model":"llama","messages":[{"role":"user","content":"hello"}]}`)
	}
	ask()
	if status, answer := ask(); status < 400 {
		t.Fatal(status, answer)
	}
	page := h.await("/metrics", func(b []byte) bool {
		return strings.Contains(string(b), `llm_runner_alerts_undelivered{sink="webhook"} 1`) && strings.Contains(string(b), "llm_runner_library_synced_timestamp_seconds ")
	})
	var has []string
	for line := range strings.Lines(string(page)) {
		if name := metricName.FindString(line); name != "" && strings.HasPrefix(line, name) && !slices.Contains(has, name) {
			has = append(has, name)
		}
	}
	names := watched(t)
	if len(names) < 20 {
		t.Fatalf("only %v are named", names)
	}
	for name, where := range names {
		if !slices.Contains(has, name) {
			t.Errorf("%s names %s, which /metrics does not have", where, name)
		}
	}
	for _, want := range []string{`llm_runner_errors_total{kind="auth",model="llama",provider="groq"} 1`, `llm_runner_first_token_seconds_count{model="llama",provider="groq"} 1`,
		`llm_runner_jobs{state="held",waits_for=""} 0`, `llm_runner_library_notes 1`, `llm_runner_incidents_open{kind="refused"} 1`, `llm_runner_alerts_undelivered{sink="webhook"} 1`} {
		if !strings.Contains(string(page), want+"\n") {
			t.Errorf("there is no %s in\n%s", want, page)
		}
	}
}

func TestEveryRuleNamesAPageThatSaysWhatToDo(t *testing.T) {
	if _, err := os.Stat(pictures); err != nil {
		t.Skip("the homelab's room is not here")
	}
	list, err := os.ReadFile("../docs/runbooks/README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules(t) {
		if !strings.Contains(string(list), r.Alert) {
			t.Errorf("docs/runbooks/README.md does not list %s", r.Alert)
		}
		url := r.Annotations["runbook_url"]
		page, ok := strings.CutPrefix(url, "https://gitlab.com/example/homelab/-/blob/main/")
		if _, err := os.Stat(filepath.Join("..", page)); !ok || err != nil || r.Annotations["summary"] == "" {
			t.Errorf("%s: %q, %v", r.Alert, url, err)
		}
	}
}
