package web

import (
	"context"
	"iter"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"testing/fstest"

	"home.arpa/lab/llm-runner/internal/graph"
	"home.arpa/lab/llm-runner/internal/guard"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/llm"
)

// wellRead answers every question of the graph well enough.
type wellRead struct{}

func (wellRead) Stream(_ context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		text := `{"useful":[1],"supported":true,"query":"x"}`
		if strings.HasPrefix(req.Messages[0].Text(), "Answer the question") {
			text = "It is washed in spring [1]."
		}
		_ = yield(llm.Event{Text: text}, nil) && yield(llm.Event{Finish: llm.FinishStop}, nil)
	}
}

func TestARunIsDrawnAndForked(t *testing.T) {
	r := newRig(t)
	hit := graph.Source{Citation: llm.Citation{Path: "house.md", Quote: "The <b>filter</b> is washed every spring.", End: 40}}
	var proceeded []int64
	c := r.Config
	c.Inquiries = &graph.Inquiries{Store: graph.NewStore(r.db), Reader: wellRead{}, Model: func(llm.Request) (string, bool) { return "m", true },
		Search: func(_ context.Context, collection, _ string, _ int, _ bool) ([]graph.Source, error) {
			if collection == "vault" {
				return []graph.Source{hit}, nil
			}
			return nil, nil
		},
		Stands: func(_ context.Context, s graph.Source) (llm.Citation, bool) { return s.Citation, true }}
	c.Proceed = func(id int64) {
		proceeded = append(proceeded, id)
		if err := c.Inquiries.Go(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
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
	_, body, _ := ask("GET", "/runs", nil)
	contains(t, body, "No question has been asked")
	if _, err := llm.Collect(c.Inquiries.Stream(t.Context(), llm.Request{Run: "turn-7", Messages: []llm.Message{llm.Says(llm.User, "When is the <filter> washed?")}})); err != nil {
		t.Fatal(err)
	}
	_, body, _ = ask("GET", "/runs", nil)
	contains(t, body, `<a href="/runs/1">When is the &lt;filter&gt; washed?</a>`, "done")
	if code, _, to := ask("GET", "/runs/of?work=turn-7", nil); code != 303 || to != "/runs/1" {
		t.Errorf("%d to %s", code, to)
	}
	if code, _, _ := ask("GET", "/runs/of?work=turn-8", nil); code != 404 {
		t.Errorf("no run: %d", code)
	}
	_, body, _ = ask("GET", "/runs/1", nil)
	contains(t, body, `<svg class="run"`, "route, understand, retrieve, sift, rerank, grade, synthesise, verify, answer", "1 of 1 statements stand", `class="way taken"`, "system: Answer the question", "It is washed in spring [1].")
	if strings.Contains(body, "<b>filter") || strings.Contains(body, "<filter>") {
		t.Error("a note's markup is in the page")
	}
	_, body, _ = ask("GET", "/api/runs/1", nil)
	contains(t, body, `"status": "done"`, `"node": "verify"`, `"name": "draft"`)
	_, body, _ = ask("GET", "/api/runs", nil)
	contains(t, body, `"name": "synthesise"`)
	code, _, to := ask("POST", "/runs/1/fork", url.Values{"step": {"6"}, "state": {`{"asked":"mine","model":"m","drafts":[{"text":"NOT IN THE SOURCES"}]}`}})
	if code != 303 || to != "/runs/2" || len(proceeded) != 1 || proceeded[0] != 2 {
		t.Errorf("%d to %s, %v", code, to, proceeded)
	}
	_, body, _ = ask("GET", "/runs/2", nil)
	contains(t, body, `Forked from <a href="/runs/1">run 1</a> after step 6`, "Your notes do not say.")
	_, body, _ = ask("GET", "/runs/1", nil)
	contains(t, body, `name="step" value="-1"`, "&#34;asked&#34;: &#34;When is the \\u003cfilter\\u003e washed?&#34;")
	code, _, to = ask("POST", "/runs/1/fork", url.Values{"step": {"-1"}, "state": {`{"asked":"Once more","model":"m"}`}})
	if code != 303 || to != "/runs/3" {
		t.Errorf("%d to %s", code, to)
	}
	_, body, _ = ask("GET", "/runs/3", nil)
	contains(t, body, `Forked from <a href="/runs/1">run 1</a>, from its beginning`, "It is washed in spring [1].")
	for path, want := range map[string]int{"/runs/1/cancel": 409, "/runs/1/decide": 409, "/runs/9/cancel": 404, "/runs/x/cancel": 404, "/runs/1/burn": 404} {
		if code, _, _ := ask("POST", path, nil); code != want {
			t.Errorf("%s: %d, want %d", path, code, want)
		}
	}
	if code, _, _ := ask("POST", "/runs/1/fork", url.Values{"step": {"3"}, "state": {"{"}}); code != 409 {
		t.Errorf("a state that is no JSON: %d", code)
	}
	if code, body, _ := ask("POST", "/runs/1/fork", url.Values{"step": {"3"}, "state": {`{"askd":"mine"}`}}); code != 409 || !strings.Contains(body, "askd") {
		t.Errorf("a state with a field that there is not: %d", code)
	}

	// A program whose token is not named decides nothing.
	g, err := guard.New(guard.Config{Listen: "127.0.0.1:8080", Password: "correct horse", Tokens: map[string]string{"editor": "editor-0123456789"}})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"/runs/1/plan": 403, "/api/runs/1/plan": 403, "/runs/1/decide": 403, "/runs/1/fork": 403, "/runs/1/note": 404} {
		req := httptest.NewRequestWithContext(t.Context(), "POST", "http://127.0.0.1:8080"+path, strings.NewReader("{}"))
		req.Header.Set("Authorization", "Bearer editor-0123456789")
		w := httptest.NewRecorder()
		g.Wrap(site).ServeHTTP(w, req)
		if w.Code != want {
			t.Errorf("%s by a program: %d, want %d", path, w.Code, want)
		}
	}
}

// What the model vault answered is listed apart from research: there is much of it.
func TestStraightAnswersAreListedApartAndDrawn(t *testing.T) {
	r := newRig(t)
	c := r.Config
	source := library.Embedded("handbook", fstest.MapFS{"house.md": {Data: []byte("# House\n\nThe <b>filter</b> is washed every spring.\n")}})
	l, err := library.New(t.Context(), library.Config{DB: r.db, Source: source})
	if err == nil {
		_, err = l.Sync(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	writes := "It is washed in spring [1: \"every spring\"]."
	c.Inquiries = &graph.Inquiries{Store: graph.NewStore(r.db), Reader: penman(writes), Notes: library.NewVault(l, nil), Model: func(llm.Request) (string, bool) { return "m", true }}
	c.SaveReport = func(context.Context, int64) (string, error) { return "", nil }
	site, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string) string {
		w := httptest.NewRecorder()
		site.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
		return w.Body.String()
	}
	contains(t, get("/runs?way=straight"), "No question has been answered straight yet")
	a, err := llm.Collect(c.Inquiries.Vault().Stream(t.Context(), llm.Request{Run: "turn-7", Messages: []llm.Message{llm.Says(llm.User, "When is the <filter> washed?")}}))
	if err != nil || !strings.HasPrefix(a.Message.Text(), "It is washed in spring [1].") {
		t.Fatalf("%+v, %v", a, err)
	}
	contains(t, get("/runs"), "No question has been asked", `href="/runs?way=straight"`)
	contains(t, get("/runs?way=straight"), `<a href="/runs/1">When is the &lt;filter&gt; washed?</a>`, "done")
	contains(t, get("/api/runs"), `"runs": []`)
	contains(t, get("/api/runs?way=straight"), `"way": "straight"`)
	contains(t, get("/api/runs?way=round"), `way: \"round\" is neither straight nor thorough`)
	body := get("/runs/1")
	contains(t, body, `aria-label="The way of this run: route, retrieve, rerank, write, answer"`, "straight: one question", "1 cited, 0 citations left out", "system: You answer questions", "[1: &#34;every spring&#34;]", "Go on from here")
	if strings.Contains(body, ">grade</text>") {
		t.Error("the other way is drawn")
	}
	for _, wrong := range []string{"Save as note", "Download the report", "<b>filter", "<filter>"} {
		if strings.Contains(body, wrong) {
			t.Errorf("%s is on the page", wrong)
		}
	}
}

// penman writes the same whatever it is asked.
type penman string

func (p penman) Stream(context.Context, llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		_ = yield(llm.Event{Text: string(p)}, nil) && yield(llm.Event{Finish: llm.FinishStop}, nil)
	}
}
