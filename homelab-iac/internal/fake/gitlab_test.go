package fake

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// begin is a project with merge request 7 and one token of each kind.
func begin(t *testing.T) (*GitLab, func(verb, path, token, body string) (int, string)) {
	t.Helper()
	g := NewGitLab(1, "example/homelab")
	g.OpenRequest(7)
	for _, x := range []Token{
		{Value: "reporter", User: "bot", Role: Reporter, Scopes: []string{"api"}},
		{Value: "reader", User: "reader", Role: Developer, Scopes: []string{"read_api"}},
		{Value: "maintainer", User: "op", Role: Maintainer, Scopes: []string{"api"}},
		{Value: "job-developer", User: "dev", Role: Developer, Job: true},
		{Value: "job-maintainer", User: "op", Role: Maintainer, Job: true},
	} {
		g.Add(x)
	}
	return g, func(verb, path, token, body string) (int, string) {
		t.Helper()
		r := httptest.NewRequest(verb, "/api/v4"+path, strings.NewReader(body))
		switch {
		case strings.Contains(path, "/terraform/state/"):
			r.SetBasicAuth("gitlab-ci-token", token)
		case strings.HasPrefix(token, "job-"):
			r.Header.Set("JOB-TOKEN", token)
		case token != "":
			r.Header.Set("PRIVATE-TOKEN", token)
		}
		w := httptest.NewRecorder()
		g.ServeHTTP(w, r)
		text, err := io.ReadAll(w.Result().Body)
		if err != nil {
			t.Fatal(err)
		}
		return w.Code, string(text)
	}
}

func TestTokensReachWhatTheyReachInGitLab(t *testing.T) {
	notes, state := "/projects/1/merge_requests/7/notes", "/projects/1/terraform/state/prod"
	lock := `{"ID":"l1","Operation":"OperationTypeApply","Info":"","Who":"me","Version":"1.11.4","Created":"2026","Path":""}`
	g, ask := begin(t)
	for _, c := range []struct { // the last ones go on from each other
		verb, path, token, body string
		want                    int
	}{
		{"GET", notes, "job-maintainer", "", 200}, // a job's token reads notes
		{"POST", notes, "job-maintainer", `{"body":"x"}`, 401},
		{"POST", notes, "reporter", `{"body":"x"}`, 201},
		{"POST", notes, "reader", `{"body":"x"}`, 403},
		{"POST", notes, "", `{"body":"x"}`, 401},
		{"GET", "/projects/example%2Fhomelab/merge_requests/7/notes", "reporter", "", 200},
		{"GET", "/projects/2/merge_requests/7/notes", "reporter", "", 404},
		{"GET", "/projects/1/merge_requests/8/notes", "reporter", "", 404},
		{"GET", "/user", "job-maintainer", "", 401},
		{"GET", "/job", "job-maintainer", "", 200},
		{"GET", "/projects/1/pipelines", "job-maintainer", "", 401},
		{"GET", "/projects/1/pipelines", "reader", "", 200},
		{"GET", "/projects/1/jobs/5/artifacts/x", "job-maintainer", "", 401}, // in paid tiers only
		{"GET", "/projects/1/jobs/5/artifacts/x", "reporter", "", 403},
		{"GET", "/projects/1/variables", "reader", "", 403},
		{"GET", state, "job-developer", "", 404}, // there is none yet
		{"POST", state + "/lock", "job-developer", lock, 403},
		{"POST", state, "job-developer", `{"serial":1,"lineage":"a"}`, 403},
		{"POST", state + "/lock", "job-maintainer", lock, 200},
		{"GET", state, "job-developer", "", 204}, // locked, and never written
		{"POST", state + "/lock", "job-maintainer", strings.Replace(lock, "l1", "l2", 1), 409},
		{"POST", state, "job-maintainer", `{"serial":1,"lineage":"a"}`, 409},
		{"POST", state + "?ID=l2", "job-maintainer", `{"serial":1,"lineage":"a"}`, 409},
		{"POST", state + "?ID=l1", "job-maintainer", `{"lineage":"a"}`, 400},
		{"POST", state + "?ID=l1", "job-maintainer", `{"serial":1,"lineage":"a"}`, 200},
		{"GET", state, "job-developer", "", 200},
		{"DELETE", state + "/lock", "job-developer", `{"ID":"l1"}`, 403},
		{"DELETE", state + "/lock", "job-maintainer", `{"ID":"l2"}`, 409},
		{"DELETE", state + "/lock", "job-maintainer", "", 200}, // terraform force-unlock names none
		{"POST", state, "job-maintainer", `{"serial":2,"lineage":"a"}`, 200},
		{"GET", state + "/versions/1", "job-developer", "", 200},
	} {
		if got, text := ask(c.verb, c.path, c.token, c.body); got != c.want {
			t.Errorf("%s %s as %q: %d %s, want %d", c.verb, c.path, c.token, got, text, c.want)
		}
		for _, s := range g.Requests() {
			if c.token != "" && strings.Contains(s.Path, c.token) {
				t.Errorf("the record holds a token: %v", s)
			}
		}
	}
}

func TestWhoIsToldOfALockIsToldWhoseItIs(t *testing.T) {
	_, ask := begin(t)
	ask("POST", "/projects/1/terraform/state/prod/lock", "job-maintainer", `{"ID":"mine","Operation":"apply"}`)
	status, text := ask("POST", "/projects/1/terraform/state/prod/lock", "job-maintainer", `{"ID":"yours","Operation":"plan"}`)
	var told struct{ ID, Who, Operation string }
	if err := json.Unmarshal([]byte(text), &told); err != nil || status != http.StatusConflict || told.ID != "mine" || told.Who != "op" || told.Operation != "apply" {
		t.Errorf("%d %s %v", status, text, err)
	}
}

func TestPipelinesAreGivenTheVariablesOfTheirKind(t *testing.T) {
	g, _ := begin(t)
	g.Set(Variable{Key: "PLAN", Value: "p"})
	g.Set(Variable{Key: "APPLY", Value: "a", Protected: true})
	for _, c := range []struct {
		source, branch string
		request        int
		protected      bool
		has, hasNot    string
	}{
		{"push", "main", 0, true, "CI_COMMIT_BRANCH", "CI_MERGE_REQUEST_IID"},
		{"schedule", "main", 0, true, "CI_COMMIT_BRANCH", "CI_OPEN_MERGE_REQUESTS"},
		{"push", "change", 0, false, "CI_COMMIT_BRANCH", "CI_OPEN_MERGE_REQUESTS"},
		{"push", "change", 7, false, "CI_OPEN_MERGE_REQUESTS", "CI_MERGE_REQUEST_IID"},
		{"merge_request_event", "change", 7, false, "CI_MERGE_REQUEST_IID", "CI_COMMIT_BRANCH"},
		{"merge_request_event", "main", 7, false, "CI_MERGE_REQUEST_IID", "CI_COMMIT_BRANCH"},
	} {
		p, predefined, project := g.Start(c.source, c.branch, "0123456789", c.request, Token{User: "dev", Role: Developer})
		protected := slices.ContainsFunc(project, func(v Variable) bool { return v.Key == "APPLY" })
		if _, ok := predefined[c.has]; !ok || protected != c.protected {
			t.Errorf("%+v: protected %v, %v", c, protected, predefined)
		}
		if _, ok := predefined[c.hasNot]; ok {
			t.Errorf("%+v: has %s", c, c.hasNot)
		}
		token := predefined["CI_JOB_TOKEN"]
		g.Finish(p, token, true)
		r := httptest.NewRequest("GET", "/api/v4/job", nil)
		r.Header.Set("JOB-TOKEN", token)
		w := httptest.NewRecorder()
		if g.ServeHTTP(w, r); w.Code != http.StatusUnauthorized {
			t.Errorf("a job's token outlives its job: %d", w.Code)
		}
	}
}

func TestVariablesAreKeptAsGitLabKeepsThem(t *testing.T) {
	_, ask := begin(t)
	if status, _ := ask("POST", "/projects/1/variables", "maintainer", `{"key":"A","value":"two words","masked":true}`); status != 400 {
		t.Error("a value that cannot be masked is taken:", status)
	}
	status, text := ask("POST", "/projects/1/variables", "maintainer", `{"key":"A","value":"longenough","masked":true,"hidden":true,"protected":true}`)
	if status != 201 || strings.Contains(text, "longenough") {
		t.Errorf("%d %s", status, text)
	}
	if status, text = ask("GET", "/projects/1/variables/A", "maintainer", ""); status != 200 || !strings.Contains(text, `"value":null`) {
		t.Errorf("%d %s", status, text)
	}
	if status, _ = ask("DELETE", "/projects/1/variables/A", "maintainer", ""); status != 204 {
		t.Error(status)
	}
	if status, _ = ask("GET", "/projects/1/variables/A", "maintainer", ""); status != 404 {
		t.Error(status)
	}
}
