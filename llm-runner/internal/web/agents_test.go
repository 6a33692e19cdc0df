package web

import (
	"context"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"home.arpa/lab/llm-runner/internal/agent"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/llm"
)

var agentFiles = fstest.MapFS{
	"briefing.md": {Data: []byte("---\ntitle: Briefing\nkind: briefing\nmodel: none\nschedule: \"0 7 * * *\"\ntimezone: Europe/Berlin\ndeliver: [daily, discord]\n---\n")},
	"weekly.md":   {Data: []byte("---\ntitle: Weekly review\nschedule: \"0 18 * * 5\"\ntimezone: Europe/Berlin\ndeliver: [vault]\ntools: [web_search]\n---\nWhat is open after {{last}}?\n")},
	"asked.md":    {Data: []byte("---\ntitle: Only when asked\n---\nSay <b>hello</b>.\n")},
	"bad.md":      {Data: []byte("---\nschedul: x\n---\nSay it.\n")},
}

// withAgents is a rig that has agents, with a briefing's facts.
func withAgents(t testing.TB) *rig {
	t.Helper()
	r := newRig(t)
	r.work(t, r.employ)
	return r
}

// employ gives a rig agents, with a briefing's facts.
func (r *rig) employ(t testing.TB, work *engine.Engine) (start func()) {
	t.Helper()
	vault := t.TempDir()
	service, err := agent.New(context.Background(), r.db, work, agent.Config{BuiltIn: fstest.MapFS{"briefing.md": agentFiles["briefing.md"]},
		Folders: []agent.Folder{{Path: "agents", FS: fstest.MapFS{"weekly.md": agentFiles["weekly.md"], "asked.md": agentFiles["asked.md"], "bad.md": agentFiles["bad.md"]}}},
		Vault:   vault, Ask: r.puppet, Log: r.log, Facts: agent.Sources{
			Changed: func(context.Context, time.Time) ([]agent.Changed, error) {
				return []agent.Changed{{Path: "house/heating.md", Title: "Heating"}, {Path: "x.md", Title: "<script>alert(1)</script>"}}, nil
			},
			Tasks: func(context.Context) ([]agent.Passage, error) {
				return []agent.Passage{{Path: "house/heating.md", Line: 4, Text: "- [ ] Call the plumber 2026-01-05"}}, nil
			},
			Work: func(context.Context, time.Time) ([]agent.Work, error) {
				return []agent.Work{{ID: 7, Title: "Plan the week", State: "failed", Reason: "groq refuses its key"}, {ID: 8, Title: "Minutes", State: "done"}}, nil
			},
			Backups: func(context.Context, time.Time) ([]string, int, error) {
				return []string{"gitea (fast): the last run made no whole snapshot"}, 11, nil
			},
		}})
	if err != nil {
		t.Fatal(err)
	}
	c := r.Config
	c.Agents = service
	site, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	r.Site = site
	r.server.Config.Handler = site
	return func() {
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			service.Run(ctx) //nolint:errcheck // it ends with ctx
		}()
		t.Cleanup(func() {
			stop()
			<-done
		})
	}
}

func TestAgentsAreShownRunAndPaused(t *testing.T) {
	r := withAgents(t)
	ask := func(method, path string, form url.Values) (int, string, string) {
		t.Helper()
		req := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(form.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		r.ServeHTTP(w, req)
		return w.Code, w.Body.String(), w.Header().Get("Location")
	}
	_, body, _ := ask("GET", "/agents", nil)
	contains(t, body, `<a href="/agents" aria-current="page">`, "agents/bad.md is wrong", "line 2: schedul: unknown key", "Rests <small>would run every day at 07:00, Europe/Berlin", "every Friday at 18:00",
		"Only when asked", "Never yet", "Preview the briefing")
	if code, _, to := ask("POST", "/agents/briefing/resume", nil); code != 303 || to != "/agents" {
		t.Errorf("%d to %s", code, to)
	}
	_, body, _ = ask("GET", "/agents/briefing", nil)
	contains(t, body, "every day at 07:00, Europe/Berlin", "Pause", "kind: briefing", "llm-runner agent show briefing", "It has never run")
	code, _, to := ask("POST", "/agents/briefing/preview", nil)
	if code != 303 || to != "/agents/runs/1" {
		t.Fatalf("%d to %s", code, to)
	}
	if _, err := r.Agents.Await(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	_, body, _ = ask("GET", "/agents/runs/1", nil)
	contains(t, body, "dry run", "Backups and drills (!)", `<a href="/notes/house/heating.md"`, ">Heating</a>", "job 7 failed: Plan the week", "facts", "/api/agents/runs/1")
	if strings.Contains(body, "<script>alert") || strings.Contains(body, "Deliveries") {
		t.Error("a note's markup is in the page, or a dry run was delivered")
	}
	_, _, to = ask("POST", "/agents/asked/run", nil)
	x := <-r.puppet.asked
	if x.req.Purpose != "agent" {
		t.Errorf("%+v", x.req)
	}
	x.fail <- &llm.Error{Kind: llm.Auth, Provider: "groq", Message: "no <key>"}
	if _, err := r.Agents.Await(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	_, body, _ = ask("GET", to, nil)
	contains(t, body, "Failed: groq: no &lt;key&gt;", `dot down`)
	_, body, _ = ask("GET", "/agents", nil)
	contains(t, body, `<span class="dot down"></span><a href="/agents/runs/2">failed</a>`)

	third, err := r.Agents.Start(t.Context(), "asked", false, "")
	if err != nil {
		t.Fatal(err)
	}
	<-r.puppet.asked
	_, body, _ = ask("GET", "/agents/runs/3", nil)
	contains(t, body, `action="/agents/runs/3/cancel"`, "It runs")
	if code, _, to := ask("POST", "/agents/runs/3/cancel", nil); code != 303 || to != "/agents/runs/3" {
		t.Errorf("%d to %s", code, to)
	}
	if x, err := r.Agents.Await(t.Context(), third.ID); err != nil || x.State != agent.Cancelled {
		t.Errorf("%+v, %v", x, err)
	}
	if code, body, _ := ask("POST", "/api/agents/runs/3/cancel", nil); code != 409 {
		t.Errorf("%d %s", code, body)
	}

	_, body, _ = ask("GET", "/api/agents", nil)
	contains(t, body, `"name": "briefing"`, `"schedule": "0 7 * * *"`, `"next_due":`, `"line 2: schedul: unknown key`)
	_, body, _ = ask("GET", "/api/agents/runs?agent=asked", nil)
	contains(t, body, `"state": "failed"`)
	_, body, _ = ask("GET", "/api/agents/runs/1", nil)
	contains(t, body, `"cause": "dry"`, `"name": "facts"`)
	for path, want := range map[string]int{"/api/agents/nobody": 404, "/api/agents/bad": 422, "/api/agents/runs/99": 404, "/api/agents/runs/x": 404, "/agents/nobody": 404, "/agents/bad": 422,
		"/api/agents/runs?limit=0": 400, "/api/agents/runs/1?wait=1h": 400, "/api/agents/runs?agent=nobody": 404} {
		if code, body, _ := ask("GET", path, nil); code != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if code, _, _ := ask("POST", "/api/agents/briefing/dance", nil); code != 404 {
		t.Errorf("%d", code)
	}
	req := httptest.NewRequestWithContext(t.Context(), "POST", "/api/agents/briefing/run", strings.NewReader(`{"dry":true}`))
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	if w.Code != 400 || !strings.Contains(w.Body.String(), "unknown field") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
