package web

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/route"
)

func contains(t *testing.T, body string, all ...string) {
	t.Helper()
	for _, want := range all {
		if !strings.Contains(body, want) {
			t.Errorf("%q is not in\n%s", want, body)
		}
	}
}

func TestAFormWithoutScriptAsksAnswersAndBranches(t *testing.T) {
	r := newRig(t)
	_, body := r.get("/")
	contains(t, body, "Default: qwen2.5:14b on contabo", "Project mode", `<optgroup label="groq (cloud)">`)
	status, body := r.post("/chats", "text", "How do I <b>restore</b>?", "key", field(t, body, "key"), "parent", "0")
	if status != http.StatusOK {
		t.Fatal(status, body)
	}
	contains(t, body, "How do I &lt;b&gt;restore&lt;/b&gt;?", `data-state="waiting"`, "Waiting for qwen2.5:14b on contabo",
		`<noscript><meta http-equiv="refresh" content="3"></noscript>`, "/turns/2/stop")
	x := <-r.puppet.asked
	x.text("Use *restic* [1].")
	x.done(llm.Citation{Path: "handbook/restore it.md", Heading: []string{"Restore", "The vault"}, Start: 60, End: 90, Line: 7, EndLine: 8})
	r.end(2)
	_, body = r.get("/chats/1")
	contains(t, body, "Use <em>restic</em> <sup", "/notes/handbook/restore%20it.md?from=60&amp;to=90#L7", ", Restore › The vault, lines 7&#8211;8",
		"qwen2.5:14b on contabo", "387 tokens", "why this model", "no model named, so the default answers", "Regenerate")
	if strings.Contains(body, "http-equiv") {
		t.Error("a page at rest loads itself again")
	}
	_, body = r.post("/turns/2/regenerate")
	contains(t, body, "2/2", "/messages/2/select")
	(<-r.puppet.asked).done()
	_, body = r.post("/messages/2/select")
	contains(t, body, "1/2", "<em>restic</em>")
	_, body = r.post("/messages/1/edit", "text", "Other question")
	contains(t, body, "Other question", "2/2")
	(<-r.puppet.asked).text("half")
	_, body = r.post("/turns/5/stop")
	contains(t, body, "half", "Stopped by you.", "Ask again")
	_, body = r.post("/chats/1/title", "title", "Restores")
	contains(t, body, "<title>Restores</title>")
	_, body = r.get("/chats/1?q=other")
	contains(t, body, "<mark>Other</mark> question")
	_, body = r.get("/chats/1/export.md")
	contains(t, body, "# Restores", "half")
	_, body = r.post("/chats/1/delete")
	contains(t, body, "Your conversations will stand here.")
	if status, body := r.get("/chats/1"); status != http.StatusNotFound {
		t.Error(status, body)
	}
}

func TestWhatEachStateSays(t *testing.T) {
	r := newRig(t)
	until := time.Now().Add(time.Hour)
	for _, c := range []struct {
		err  error
		text string
		want []string
	}{
		{&llm.BusyError{Provider: "groq", Model: "m", Reason: "groq: all 30 requests/minute used up", Until: until}, "",
			[]string{"<b>Held.</b> groq: all 30 requests/minute used up.", "Room again at", `data-until="` + until.UTC().Format(time.RFC3339), "Your question is kept.", "Ask again"}},
		{&llm.BusyError{Reason: "davas is down"}, "", []string{"<b>Held.</b> davas is down. Nobody knows until when."}},
		{&llm.Error{Kind: llm.BadRequest, Message: "too <long>"}, "", []string{"<b>Refused.</b> too &lt;long&gt;.", "Ask again"}},
		{&llm.Error{Kind: llm.Unavailable, Message: "reset"}, "half", []string{"<b>Broke off.</b> reset. What had come is kept.", "half", "Ask again"}},
	} {
		turn, x := r.ask("q")
		if c.text != "" {
			x.text(c.text)
		}
		x.fail <- c.err
		r.end(turn.ID)
		_, body := r.get(chatPath(turn))
		contains(t, body, c.want...)
	}
	turn, x := r.ask("q")
	x.text("cut")
	x.say <- llm.Event{Finish: llm.FinishLength}
	r.end(turn.ID)
	_, body := r.get(chatPath(turn))
	contains(t, body, "Cut off at the model's length limit.")
}

func TestAskingAgainFromThePage(t *testing.T) {
	r := newRig(t)
	turn, x := r.ask("q")
	x.fail <- &llm.Error{Kind: llm.BadRequest, Message: "no"}
	r.end(turn.ID)
	_, body := r.post(fmt.Sprintf("/turns/%d/again", turn.ID))
	contains(t, body, `data-state="waiting"`)
	x = <-r.puppet.asked
	status, body := r.post(chatPath(turn)+"/messages", "text", "more", "parent", fmt.Sprint(turn.ID))
	if status != http.StatusConflict {
		t.Errorf("asked on while the answer before arrives: %d", status)
	}
	contains(t, body, "still arriving", "Nothing was sent.")
	x.done()
}

func TestFormsThatCannotBeTaken(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		path, text string
		want       int
	}{
		{"/chats", " ", http.StatusUnprocessableEntity},
		{"/chats/99/messages", "q", http.StatusNotFound},
		{"/chats/x/messages", "q", http.StatusNotFound},
		{"/chats", strings.Repeat("x", maxForm+1), http.StatusRequestEntityTooLarge},
		{"/messages/99/edit", "q", http.StatusNotFound},
		{"/messages/99/select", "", http.StatusNotFound},
		{"/turns/99/stop", "", http.StatusNotFound},
		{"/turns/99/again", "", http.StatusNotFound},
		{"/turns/99/regenerate", "", http.StatusNotFound},
		{"/chats/99/title", "q", http.StatusNotFound},
		{"/chats/99/delete", "", http.StatusNotFound},
		{"/no/such/page", "", http.StatusMethodNotAllowed},
	} {
		if status, _ := r.post(c.path, "text", c.text, "title", c.text); status != c.want {
			t.Errorf("%s: %d, want %d", c.path, status, c.want)
		}
	}
	if status, body := r.get("/nothing/here"); status != http.StatusNotFound || !strings.Contains(body, "There is no such page") {
		t.Error(status, body)
	}
}

func TestTheAPISaysInJSONWhatItDoesNotHave(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		method, path string
		want         int
		says, allow  string
	}{
		{"GET", "/api/nothing", http.StatusNotFound, "there is no GET /api/nothing", ""},
		{"POST", "/api/nothing", http.StatusNotFound, "there is no POST /api/nothing", ""},
		{"POST", "/api/chats", http.StatusMethodNotAllowed, "/api/chats takes GET, not POST", "GET"},
		{"DELETE", "/api/chats", http.StatusMethodNotAllowed, "/api/chats takes GET, not DELETE", "GET"},
	} {
		res, err := r.server.Client().Do(r.request(c.method, c.path, nil))
		if err != nil {
			t.Fatal(err)
		}
		var out struct{ Error struct{ Message string } }
		err = json.NewDecoder(res.Body).Decode(&out)
		res.Body.Close()
		if err != nil || res.StatusCode != c.want || !strings.Contains(out.Error.Message, c.says) || res.Header.Get("Allow") != c.allow {
			t.Errorf("%s %s: %d %q, Allow %q, %v", c.method, c.path, res.StatusCode, out.Error.Message, res.Header.Get("Allow"), err)
		}
	}
}

func TestNoModelSaysHowToConnectOne(t *testing.T) {
	r := newRig(t)
	r.NoModel = func() bool { return true }
	_, body := r.get("/")
	contains(t, body, "No model is connected yet", "127.0.0.1:11434", "GROQ_API_KEY", "runner.yaml", example)
	r.Example = ""
	if _, body = r.get("/"); strings.Contains(body, "handbook") || strings.Contains(body, "-example") {
		t.Error("a person's own notes are asked what the handbook knows")
	}
	contains(t, body, "Until then your notes answer")
	_, body = r.get("/health")
	contains(t, body, "no model is connected")
}

const example = "What happens when a machine is down?"

func TestTheThemeIsInTheFirstPaint(t *testing.T) {
	r := newRig(t)
	req := r.request("GET", "/", nil)
	req.AddCookie(&http.Cookie{Name: "theme", Value: "dark"})
	_, body := r.do(req)
	contains(t, body, `<html lang="en" data-theme="dark">`, `value="light"`)
	req = r.request("GET", "/", nil)
	req.Header.Set("Cookie", "theme=<script>")
	if _, body = r.do(req); strings.Contains(body, "data-theme") {
		t.Error("a strange theme was taken")
	}
	client := *r.server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for where, want := range map[string]string{"/usage": "/usage", "//evil.example": "/", "https://evil.example": "/", "": "/", `/\\evil.example`: "/"} {
		req := r.request("POST", "/theme", map[string][]string{"theme": {"dark"}, "back": {where}})
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := res.Header.Get("Location"); got != want || !strings.Contains(res.Header.Get("Set-Cookie"), "theme=dark") {
			t.Errorf("back to %q: %q, %q", where, got, res.Header.Get("Set-Cookie"))
		}
	}
}

func TestNotes(t *testing.T) {
	r := newRig(t)
	from := strings.Index(restoreNote, "Copy it")
	_, body := r.get(fmt.Sprintf("/notes/handbook/restore%%20it.md?from=%d&to=%d", from, from+54))
	contains(t, body, `<li id="L7" value="7" class="hit "><mark>Copy it from the fast bucket:</mark></li>`,
		"<mark>`restic restore latest`.</mark>", "lines 7 to 8", `class="h"># Restore</li>`)
	_, body = r.get("/notes/handbook/restore%20it.md?from=1&to=99999")
	contains(t, body, "no longer in this note")
	passage := restoreNote[from : from+54]
	_, body = r.get(strings.Split(notePath("handbook/restore it.md", from, from+54, 7, passage), "#")[0])
	contains(t, body, "<mark>Copy it from the fast bucket:</mark>")
	if strings.Contains(body, "has changed since") {
		t.Error("what stands where it stood is called moved")
	}
	_, body = r.get(strings.Split(notePath("handbook/restore it.md", from+9, from+63, 7, passage), "#")[0]) // as if nine bytes had gone
	contains(t, body, "<mark>Copy it from the fast bucket:</mark>", "The note has changed since it was cited.")
	_, body = r.get(strings.Split(notePath("handbook/restore it.md", from, from+54, 7, strings.ToUpper(passage)), "#")[0])
	contains(t, body, "no longer in this note")
	if strings.Contains(body, "<mark>") {
		t.Error("other words are marked for those that were cited")
	}
	for _, path := range []string{"/notes/other.md", "/notes/..%2f..%2fetc%2fpasswd", "/notes/"} {
		if status, _ := r.get(path); status != http.StatusNotFound {
			t.Errorf("%s: %d", path, status)
		}
	}
}

func TestHealth(t *testing.T) {
	r := newRig(t)
	r.answered("q", "a")
	r.book.Learn("groq", []llm.Limit{{Model: "m", Dimension: llm.RequestsPerDay, Max: llm.Known(1000), Remaining: llm.Known(12), Reset: time.Now().Add(time.Hour)}}, time.Now())
	get := func() map[string]any {
		t.Helper()
		req := r.request("GET", "/health", nil)
		req.Header.Set("Accept", "*/*")
		_, body := r.do(req)
		var h map[string]any
		if err := json.Unmarshal([]byte(body), &h); err != nil {
			t.Fatal(err, body)
		}
		return h
	}
	h := get()
	p := h["providers"].(map[string]any)
	contabo := p["contabo"].(map[string]any)
	today := contabo["usage"].(map[string]any)["today"].(map[string]any)
	if h["status"] != "ok" || h["version"] != "v1.2.3" || len(h) != 5 || len(p) != 3 || contabo["kind"] != "ollama" || contabo["status"] != "up" ||
		contabo["error"] != "" || len(contabo) != 6 || len(today) != 8 || today["requests"] != 1.0 || today["output_tokens"] != 387.0 || today["cost_usd"] != 0.0 {
		t.Errorf("%v", h)
	}
	if q := p["groq"].(map[string]any)["quota"].([]any); len(q) != 1 || q[0].(map[string]any)["remaining"] != 12.0 || q[0].(map[string]any)["used"] != q[0].(map[string]any)["limit"].(float64)-12 {
		t.Errorf("quota %v", q)
	} else if at, ok := q[0].(map[string]any)["exhausted_at"]; !ok || at != nil {
		t.Errorf("exhausted_at must be there, and null while nothing is used: %v", q)
	}
	if q, ok := contabo["quota"].([]any); !ok || len(q) != 0 {
		t.Errorf("no quota is an empty list: %v", contabo["quota"])
	}

	turn, x := r.ask("q")
	x.text("half")
	x.fail <- &llm.Error{Kind: llm.Unavailable, Message: "connection refused"}
	r.end(turn.ID)
	if h := get(); h["status"] != "degraded" {
		t.Errorf("a configured provider is down: %v", h["status"])
	}
	r.Config.Dependencies = func() []Dependency {
		return []Dependency{{Name: "the library", State: route.Down, Says: "12 of 20 notes.", Cure: "Mount the vault."}}
	}
	_, body := r.get("/health")
	contains(t, body, "2 things need you: contabo, the library.", "connection refused", "systemctl start ollama", "Mount the vault.", "Version v1.2.3")
}

func TestUsage(t *testing.T) {
	r := newRig(t)
	_, body := r.get("/usage")
	contains(t, body, "contabo", "0 requests in 14 days")
	r.answered("q", "a")
	r.book.Learn("groq", []llm.Limit{{Model: "m", Dimension: llm.RequestsPerDay, Max: llm.Known(1000), Remaining: llm.Known(12), Reset: time.Now().Add(time.Hour)}}, time.Now())
	for { // the end of an attempt reaches the disk a moment after the answer
		if _, body = r.get("/usage"); strings.Contains(body, "1,204 / 387") {
			break
		}
	}
	contains(t, body, "1 request in 14 days, at most 1 a day", "requests/day, m", "12 of 1,000 left", `class="bar low"`)
	_, body = r.get("/api/usage")
	contains(t, body, `"contabo"`, `"cost_usd"`, `"p95_ms"`)
}

func TestJSON(t *testing.T) {
	r := newRig(t)
	r.answered("Where are the photos?", "a")
	for path, want := range map[string][]string{
		"/api/route":                                       {`"rule": "default"`, `"provider": "contabo"`},
		"/api/route?model=gemma4:27b":                      {`"rule": "requires"`, `"provider": "davas"`},
		"/api/route?model=qwen2.5:14b&project=1":           {`"rule": "project"`, `"provider": "davas"`},
		"/api/route?model=qwen2.5:14b&requires=davas":      {`"rule": "requires"`},
		"/api/route?model=qwen2.5:14b&project=false":       {`"rule": "local"`},
		"/api/route?model=groq/llama-3.3&requires=&x=&y=1": {`"rule": "named"`},
		"/api/models":          {`"default": true`, `"name": "llama-3.3-70b-versatile"`, `"cloud": true`},
		"/api/chats?q=phot":    {`"title": "Where are the photos?"`},
		"/api/chats?q=nothing": {`[]`},
	} {
		_, body := r.get(path)
		contains(t, body, want...)
	}
}

func TestMetrics(t *testing.T) {
	r := newRig(t)
	r.answered("q", "a")
	_, body := r.get("/metrics")
	contains(t, body, `llm_runner_requests_total{model="qwen2.5:14b",outcome="ok",provider="contabo"} 1`,
		`llm_runner_tokens_total{direction="output",model="qwen2.5:14b",provider="contabo"} 387`, `llm_runner_provider_up{kind="ollama",provider="contabo"} 1`,
		`llm_runner_build_info{go="go`, "go_goroutines", "llm_runner_ledger_broken 0")
}

func TestEveryAnswerForbidsWhatItDoesNotServe(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"/", "/usage", "/health", "/nothing", "/static/app.js", "/metrics", "/api/models"} {
		res, err := r.server.Client().Get(r.server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		csp := res.Header.Get("Content-Security-Policy")
		if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") || res.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %q", path, csp)
		}
	}
}

func TestTheScriptAndTheSheetStaySmall(t *testing.T) {
	r := newRig(t)
	total := 0
	for name, a := range r.assets {
		total += len(a.body)
		res, err := r.server.Client().Get(r.server.URL + "/static/" + name + "?v=" + a.version)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := res.Header.Get("Cache-Control"); !strings.Contains(got, "immutable") || res.Header.Get("Content-Type") == "" {
			t.Errorf("%s: %q %q", name, got, res.Header.Get("Content-Type"))
		}
	}
	if total > 60<<10 {
		t.Errorf("%d bytes, at most 60 kB", total)
	}
}

// long fills one conversation with n messages.
func (r *rig) long(n int) chat.Turn {
	r.t.Helper()
	turn, x := r.ask("Question 1")
	for i := 2; ; i += 2 {
		x.text(answerOf2kB)
		x.done()
		r.end(turn.ID)
		if i >= n {
			return turn
		}
		next, err := r.Chats.Send(context.Background(), turn.Chat, turn.ID, fmt.Sprint("Question ", i/2+1), chat.Options{})
		if err != nil {
			r.t.Fatal(err)
		}
		turn, x = next, <-r.puppet.asked
	}
}

func TestALongConversationIsRenderedOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a database")
	}
	r := newRig(t)
	turn := r.long(500)
	for range 2 {
		_, body := r.get(chatPath(turn))
		if n := strings.Count(body, "<article"); n != 500 {
			t.Fatalf("%d messages", n)
		}
	}
	if r.rendered.made != 250 { // the benchmark has the time that this saves
		t.Errorf("250 answers were rendered %d times", r.rendered.made)
	}
}

func BenchmarkOpen500Messages(b *testing.B) {
	r := newRig(b)
	path := chatPath(r.long(500))
	for _, warm := range []bool{false, true} {
		b.Run(map[bool]string{false: "cold", true: "warm"}[warm], func(b *testing.B) {
			for b.Loop() {
				if !warm {
					r.rendered = newCache(8 << 20)
				}
				if status, _ := r.get(path); status != http.StatusOK {
					b.Fatal(status)
				}
			}
		})
	}
}

func TestTheCacheForgetsTheLeastRecentlyUsed(t *testing.T) {
	c := newCache(3000)
	made := 0
	get := func(id int64) {
		c.get(cacheKey{id, 1}, func() []block { made++; return []block{strings.Repeat("x", 700)} })
	}
	for _, id := range []int64{1, 2, 3, 1, 4, 1} {
		get(id)
	}
	if made != 4 {
		t.Errorf("rendered %d times", made)
	}
	get(2)
	if made != 5 {
		t.Errorf("the oldest was kept")
	}
}

func TestTimesAndNumbers(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.Local)
	for d, want := range map[time.Duration]string{0: "just now", 59 * time.Second: "just now", -41 * time.Second: "in 41 seconds", -90 * time.Minute: "in 1 h",
		3 * time.Minute: "3 min ago", 26 * time.Hour: "26 h ago", 72 * time.Hour: "3 days ago", 30 * 24 * time.Hour: "23 Oct", 400 * 24 * time.Hour: "18 Oct 2025"} {
		if got := ago(now.Add(-d), now); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234"} {
		if got := num(n); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
	for d, want := range map[time.Duration]string{0: "\u2013", 400 * time.Microsecond: "1 ms", 412 * time.Millisecond: "412 ms", 2340 * time.Millisecond: "2.3 s", 125 * time.Second: "2 min 5 s"} {
		if got := took(d); got != want {
			t.Errorf("%s: %q", d, got)
		}
	}
	for n, want := range map[int64]string{0: "$0", 1234: "$0.0012", 70_000: "$0.07"} {
		if got := usd(llm.Known(n)); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
	if got := snippet("<b>\x02hit\x03"); got != "&lt;b&gt;<mark>hit</mark>" {
		t.Error(got)
	}
}

func TestAFaultIsToldWithoutItsInside(t *testing.T) {
	r := newRig(t)
	r.Config.Note = func(context.Context, string) ([]byte, error) { return nil, errors.New("secret inside") }
	status, body := r.get("/notes/a.md")
	if status != http.StatusInternalServerError || strings.Contains(body, "secret") || !strings.Contains(body, "The log has the details.") {
		t.Error(status, body)
	}
}

// One slip, and no page has a script any more. Browsers are asked by `make prove` only; Node, where it is, is asked here.
func TestTheScriptCanBeRead(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("there is no Node on this machine to read the script")
	}
	if out, err := exec.Command(node, "--check", "static/app.js").CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestSpaceIsInStepsOfFour(t *testing.T) {
	r := newRig(t)
	space := regexp.MustCompile(`[{;\s](?:padding|margin|gap|row-gap|column-gap|(?:padding|margin)-\w+):\s*([^;}]+)`)
	for _, m := range space.FindAllStringSubmatch(string(r.assets["app.css"].body), -1) {
		for _, px := range regexp.MustCompile(`\b(\d+)px`).FindAllStringSubmatch(m[1], -1) {
			if n, err := strconv.Atoi(px[1]); err != nil || n > 2 && n%4 != 0 {
				t.Errorf("%s", strings.TrimSpace(m[0]))
			}
		}
	}
}
