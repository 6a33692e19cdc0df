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

// raised finds the kinds of incidents in the code that raises them.
var raised = regexp.MustCompile(`(?:key := |Key: )"(\w+)`)

func TestEveryKindOfIncidentHasAPageAndItsMessageLeadsThere(t *testing.T) {
	kinds := map[string]bool{string(llm.Quota): true, string(llm.Overload): true} // package jobs makes its keys of these
	text, err := os.ReadFile("../../tell.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range raised.FindAllStringSubmatch(string(text), -1) {
		kinds[m[1]] = true
	}
	if len(kinds) < 5 {
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
