package web

import (
	"context"
	"errors"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/graph"
	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/llm"
)

func TestAPlanIsDecidedOnAPageWithoutScript(t *testing.T) {
	r := withQueue(t)
	var told []int64
	c := r.Config
	c.Jobs = r.Jobs
	c.Planned = func(run graph.RunRow) { told = append(told, run.ID) }
	c.SaveReport = func(_ context.Context, run int64) (string, error) {
		if run == 1 {
			return "research/a & b.md", nil
		}
		return "", errors.New("there is no vault")
	}
	c.Inquiries = &graph.Inquiries{Store: graph.NewStore(r.db), Reader: wellRead{}, Model: func(llm.Request) (string, bool) { return "m", true },
		Search: func(_ context.Context, collection, _ string, _ int, _ bool) ([]graph.Source, error) {
			if collection == "vault" {
				return []graph.Source{{Citation: llm.Citation{Path: "house.md", Quote: "The filter is washed every spring.", End: 34}}}, nil
			}
			return nil, nil
		},
		Stands: func(_ context.Context, s graph.Source) (llm.Citation, bool) { return s.Citation, true }}
	site, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, path string, form url.Values) (int, string, string) {
		t.Helper()
		req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(form.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		site.ServeHTTP(w, req)
		return w.Code, w.Body.String(), w.Header().Get("Location")
	}
	research := func(run, plan string) error {
		_, err := llm.Collect(c.Inquiries.Stream(t.Context(), llm.Request{Run: run, Purpose: "chat", Plan: plan, Messages: []llm.Message{llm.Says(llm.User, "When is the <filter> washed?")}}))
		return err
	}
	if err := research("turn-7", llm.PlanAsk); err == nil {
		t.Fatal("it did not wait")
	}
	_, body, _ := ask("GET", "/runs/1", nil)
	contains(t, body, "The plan waits for your word", `action="/runs/1/plan"`, "When is the &lt;filter&gt; washed?</textarea>", `value="vault" checked`, `value="memory" checked`, "pages fetched before", "waits for you", ">Start<", ">Change<", ">Cancel<")
	good := url.Values{"do": {"start"}, "questions": {"the filter\r\n\r\nthe pump"}, "sections": {"One\nTwo"}, "source": {"vault"}}
	for want, change := range map[string]url.Values{
		"it has no question":          {"questions": {" \n"}},
		"it looks nowhere":            {"source": nil},
		"&#34;moon&#34; is no source": {"source": {"moon"}},
		"Say in a few words what":     {"do": {"change"}},
	} {
		form := url.Values{}
		for k, v := range good {
			form[k] = v
		}
		for k, v := range change {
			form[k] = v
		}
		code, body, _ := ask("POST", "/runs/1/plan", form)
		if code < 400 || !strings.Contains(body, want) {
			t.Errorf("%d: %q is not in the page", code, want)
		}
	}
	if len(told) > 0 {
		t.Errorf("told of %v", told)
	}
	good["back"] = []string{"//evil.example"}
	if code, _, to := ask("POST", "/runs/1/plan", good); code != 303 || to != "/" || !slices.Equal(told, []int64{1}) {
		t.Errorf("%d to %s, told of %v", code, to, told)
	}
	if code, _, _ := ask("POST", "/runs/1/plan", good); code != 409 {
		t.Errorf("a plan was taken twice: %d", code)
	}
	if err := research("turn-7", llm.PlanAsk); err != nil {
		t.Fatal(err)
	}
	run, err := c.Inquiries.Store.Run(t.Context(), 1)
	if err != nil || run.Status != graph.Done {
		t.Fatalf("%+v, %v", run, err)
	}
	_, body, _ = ask("GET", "/runs/1", nil)
	contains(t, body, "Save as note", `href="/runs/1/note.md"`)
	code, _, to := ask("POST", "/runs/of/note", url.Values{"work": {"turn-7"}})
	if code != 303 || to != "/runs/1?saved=research%2Fa+%26+b.md" {
		t.Errorf("%d to %s", code, to)
	}
	_, body, _ = ask("GET", to, nil)
	contains(t, body, "The report is a note now: <code>research/a &amp; b.md</code>")
	if code, body, _ := ask("GET", "/runs/1/note.md", nil); code != 200 || !strings.HasPrefix(body, "---\ngenerated: true\ntype: research\nquestion: ") {
		t.Errorf("%d %s", code, body)
	}

	// A job's, as JSON; and one that is cancelled, with its job.
	for n := range 2 {
		if _, _, err := r.Jobs.Submit(t.Context(), jobs.Spec{Type: jobs.Research, Prompt: "x", Plan: llm.PlanAsk}, ""); err != nil {
			t.Fatal(err)
		}
		if err := research(jobs.RunName(int64(n+1), 0), llm.PlanAsk); err == nil {
			t.Fatal("it did not wait")
		}
	}
	_, body, _ = ask("GET", "/jobs/1", nil)
	contains(t, body, "The plan waits for your word", `action="/runs/2/plan"`, `name="back" value="/jobs/1"`)
	api := func(body string) (int, string) {
		w := httptest.NewRecorder()
		site.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", "/api/runs/2/plan", strings.NewReader(body)))
		return w.Code, w.Body.String()
	}
	for _, bad := range []string{"", "{", `{"plan": 1}`, `{"questions": []}`} {
		if code, _ := api(bad); code < 400 {
			t.Errorf("%s: %d", bad, code)
		}
	}
	if code, says := api(`{"wish": "shorter"}`); code != 200 {
		t.Errorf("%d %s", code, says)
	}
	if code, _, to := ask("POST", "/runs/3/plan", url.Values{"do": {"cancel"}, "back": {"/jobs"}}); code != 303 || to != "/jobs" {
		t.Errorf("%d to %s", code, to)
	}
	j, err := r.Jobs.Job(t.Context(), 2)
	waits, werr := c.Inquiries.Store.Waits(t.Context())
	if err != nil || j.State != jobs.Cancelled || werr != nil || len(waits) > 0 {
		t.Errorf("%+v, %+v, %v, %v", j, waits, err, werr)
	}
}

func TestAConversationRemembersHowItWantsPlans(t *testing.T) {
	r := newRig(t)
	r.Inquiries = &graph.Inquiries{Store: graph.NewStore(r.db), PlanFirst: true}
	_, body := r.get("/")
	contains(t, body, `name="plan" value="ask" checked`)
	for plan, want := range map[string]string{"": llm.PlanAuto, "ask": llm.PlanAsk} {
		r.post("/chats", "text", "x", "model", graph.Name, "plans", "1", "plan", plan, "key", newKey())
		select {
		case x := <-r.puppet.asked:
			if x.req.Plan != want {
				t.Errorf("asked with %q, want %q", x.req.Plan, want)
			}
		case <-t.Context().Done():
		}
	}
}
