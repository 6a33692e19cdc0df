package alert

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// raised finds the incidents in the code that raises them, each with its key: the beginning of a literal, or a name.
var raised = regexp.MustCompile(`alert\.Incident\{(?:Key: (?:"(\w+)|(\w+)))?`)

// raisedKinds are the kinds of incidents that package main raises.
func raisedKinds(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("../../*.go")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range raised.FindAllStringSubmatch(string(text), -1) {
			if m[1] != "" {
				kinds[m[1]] = true
				continue
			}
			values := regexp.MustCompile(`\b`+m[2]+` :?= "(\w+)`).FindAllStringSubmatch(string(text), -1)
			if m[2] == "" || len(values) == 0 {
				t.Errorf("%s: %s: its kind is not found: begin with Key, a literal or a name that the file gives one", file, m[0])
			}
			for _, v := range values {
				kinds[v[1]] = true
			}
		}
	}
	return kinds
}

func TestEveryKindOfIncidentHasAPageAndItsMessageLeadsThere(t *testing.T) {
	kinds := raisedKinds(t)
	kinds[string(llm.Quota)], kinds[string(llm.Overload)] = true, true // package jobs makes its keys of these
	if len(kinds) < 8 {
		t.Fatalf("only %v are raised", kinds)
	}
	for kind := range kinds {
		page, ok := Kinds()[kind]
		if !ok {
			t.Errorf("%s has no page: add it to runbooks, and the page to docs/runbooks", kind)
			continue
		}
		if _, err := os.Stat(filepath.Join("../../../docs/runbooks", page+".md")); err != nil {
			t.Error(err)
		}
		now := time.Now()
		a := Alert{Key: kind + "/davas", Text: strings.Repeat("davas is down. ", 60), Began: now, due: now}
		for base, want := range map[string]string{"": "Runbook: docs/runbooks/" + page + ".md", "https://gitlab.example/runbooks": "Runbook: https://gitlab.example/runbooks/" + page + ".md"} {
			if got, _ := compose(now, []Alert{a}, 2000, "Discord", base); !strings.HasSuffix(got, want) {
				t.Errorf("%s: the message ends ...%s", kind, got[max(0, len(got)-80):])
			}
		}
		a.Told, a.Ended, a.Over = Beginning, now, "davas is back"
		if got, _ := compose(now, []Alert{a}, 2000, "Discord", ""); strings.Contains(got, "Runbook") {
			t.Errorf("%s: the end needs no cure: %s", kind, got)
		}
	}
	for kind := range Kinds() {
		if !kinds[kind] {
			t.Errorf("nobody raises %s any more", kind)
		}
	}
}
