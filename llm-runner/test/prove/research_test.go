//go:build prove

package prove

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/graph"
	"home.arpa/lab/llm-runner/test/browsertest"
	"home.arpa/lab/llm-runner/test/ollama/ollamatest"
)

// A wordsmith answers chats as OpenAI's interface does, with recorded words: what a good model would say of the sources that it is shown. It finds
// their numbers in the request, and lies in one sentence.
type wordsmith struct {
	url   string
	asked atomic.Int64
	slow  time.Duration // how long it thinks
}

func newWordsmith(t testing.TB) *wordsmith {
	t.Helper()
	w := &wordsmith{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(rw, `{"object":"list","data":[{"id":"words","object":"model"}]}`)
	})
	mux.HandleFunc("POST /v1/chat/completions", func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var in struct {
			Messages []struct{ Role, Content string }
		}
		if err := json.Unmarshal(body, &in); err != nil || len(in.Messages) == 0 {
			http.Error(rw, "no request", http.StatusBadRequest)
			return
		}
		w.asked.Add(1)
		time.Sleep(w.slow)
		text, _ := json.Marshal(recorded(in.Messages[0].Content, in.Messages[len(in.Messages)-1].Content))
		rw.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprintf(rw, "data: {\"choices\":[{\"delta\":{\"content\":%s},\"finish_reason\":null}]}\n\ndata: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":90,\"completion_tokens\":30}}\n\ndata: [DONE]\n\n", text)
	})
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	w.url = s.URL + "/v1"
	return w
}

func recorded(system, user string) string {
	source := func(words string) int { // the number of the source in which words stand
		i := strings.Index(user, words)
		if i < 0 {
			return 0
		}
		return strings.Count(user[:i], "<source ")
	}
	switch {
	case strings.HasPrefix(system, "Take the question"):
		return `{"questions": ["How loud is the Kestrel heat pump?", "Which refrigerant has the Kestrel heat pump?"], "sections": ["Noise", "Refrigerant"]}`
	case strings.HasPrefix(system, "Which of"):
		var useful []string
		for _, words := range []string{"52 decibels", "runs on propane", "bedroom window"} {
			if n := source(words); n > 0 {
				useful = append(useful, fmt.Sprint(n))
			}
		}
		return `{"useful": [` + strings.Join(useful, ",") + `]}`
	case strings.HasPrefix(system, "Copy out"):
		return `{"quotes": ["52 decibels at a distance of one metre", "runs on propane", "under the bedroom window"]}`
	case strings.Contains(user, "Section: Refrigerant"):
		return fmt.Sprintf(`It runs on propane [%d: "runs on propane"]. It was sold 40,000 times [%[1]d: "runs on propane"].`, source("runs on propane"))
	case strings.Contains(user, "Section: Noise"), strings.HasPrefix(user, "Question: "):
		return fmt.Sprintf(`The outdoor unit reaches 52 decibels [%d: "52 decibels at a distance of one metre"]. It stands under the bedroom window [%d: "under the bedroom window"].`,
			source("52 decibels"), source("bedroom window"))
	case strings.HasPrefix(system, "Do the sources"):
		return `{"supported": true}`
	}
	return "{}"
}

// A smallWeb is a search engine and the pages that it finds, on this machine. more stands at the end of the pages that are of use.
func smallWeb(t testing.TB, more string) (searxng string, searched *sync.Map) {
	t.Helper()
	const article = "<p>The Kestrel heat pump was tested by the laboratory for a whole winter. The outdoor unit reaches 52 decibels at a distance of one metre. At night it is a little quieter than that.</p>" +
		"<p>The machine runs on propane, of which it holds less than a kilogram, so that no special room is needed for it in the house.</p>"
	page := func(title, body string) string {
		return "<!doctype html><html><head><title>" + title + `</title><meta property="article:published_time" content="2026-02-03T00:00:00Z"></head><body><article><h1>` + title + "</h1>" + body + "</article></body></html>"
	}
	pages := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		switch r.URL.Path {
		case "/test":
			fmt.Fprint(w, page("Kestrel heat pump tested", article+more))
		case "/copy":
			fmt.Fprint(w, page("Kestrel heat pump tested", article+"<p>Share this.</p>"+more))
		case "/wall":
			fmt.Fprint(w, page("Just a moment...", "<p>Verifying you are human. The Kestrel heat pump page follows.</p>"))
		case "/shop":
			fmt.Fprint(w, page("Kestrel heat pump offer", "<p>Buy now: the Kestrel heat pump at the lowest price! Limited offer with free shipping, click here and order now, your discount code for the Kestrel heat pump waits.</p>"))
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(pages.Close)
	searched = &sync.Map{}
	engine := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		searched.Store(r.FormValue("q"), true)
		type result struct {
			Title string `json:"title"`
			URL   string `json:"url"`
		}
		var all []result
		if r.FormValue("pageno") == "1" {
			for _, p := range []string{"gone", "wall", "test", "copy", "shop"} {
				all = append(all, result{"Kestrel " + p, pages.URL + "/" + p})
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"results": all})
	}))
	t.Cleanup(engine.Close)
	return engine.URL, searched
}

const researchConfig = `vault: {path: "%s", model: words}
library: {embed: contabo/tiny-embed}
research: {plan: ask}
tools:
  search: {searxng: "%s"}
  fetch: {allow: [127.0.0.1]}
providers:
  contabo: {kind: ollama, url: "%s"}
  words: {kind: openai, url: "%s"}
routes:
  default: {provider: words, model: words}
  models:
    words: {provider: words, model: words}
`

func researchVault(t testing.TB) string {
	t.Helper()
	vault := t.TempDir()
	for name, text := range map[string]string{"house.md": "# Kestrel heat pump\n\nThe outdoor unit of the Kestrel heat pump stands under the bedroom window since spring.\n", "bread.md": "# Bread\n\nBake it for an hour.\n"} {
		if err := os.WriteFile(filepath.Join(vault, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return vault
}

// A person asks in a browser, is shown the plan, changes it after the program was killed, and gets an answer of notes and pages whose citations stand byte for
// byte in what is stored; it becomes a note in the vault. The vectors are a real Ollama's (tiny-embed); the words, and the answers to yes and no, are recorded.
func TestResearchFromTheQuestionToTheNote(t *testing.T) {
	b := browsertest.Start(t)
	words := newWordsmith(t)
	searxng, searched := smallWeb(t, "")
	vault := researchVault(t)
	r := newRunner(t, fmt.Sprintf(researchConfig, vault, searxng, ollamatest.Start(t).URL, words.url))
	r.start()
	r.waitVectors(2)

	x := b.Tab(t)
	x.Run(chromedp.Navigate(r.url+"/"), chromedp.WaitReady(chromedp.CSS("html.scripted")), chromedp.SetValue(chromedp.CSS("select[name=model]"), "research"))
	x.Until(`getComputedStyle(document.querySelector('#composer .plans')).display !== 'none' && document.querySelector('#composer input[name=plan]').checked`)
	x.Run(chromedp.SendKeys(chromedp.CSS("#ask"), "How loud is the Kestrel heat pump, and which refrigerant does it have?\r"))
	x.State("held")
	x.Until(`document.querySelector('.plan textarea[name=questions]')?.value.includes('Which refrigerant')`)
	before := words.asked.Load()
	r.kill() // what waits for a person waits over a restart
	r.start()
	x = b.Tab(t) // the one before complains that the server went away
	x.Run(chromedp.Navigate(r.url+"/chats/1"), chromedp.WaitReady(chromedp.CSS("html.scripted")))
	x.Until(`document.querySelector('.plan textarea[name=sections]')?.value === 'Noise\nRefrigerant'`)
	x.Until(`document.querySelectorAll('.plan input[name=source]:checked').length === 3`)
	r.shoot(b, "plan", "/chats/1")
	r.shoot(b, "plan-run", "/runs/1")
	x.Run(browsertest.Script(`{const q = document.querySelector('.plan textarea[name=questions]'); q.value += '\nWhere does the outdoor unit stand?'; q.dispatchEvent(new Event('input', {bubbles: true}));
		document.querySelector('.plan').dataset.old = '1'}`), browsertest.Click("form[action$='/again'] button"))
	// It is asked again meanwhile, as happens by itself: what was changed in the form is still there.
	x.Until(`document.querySelector('.plan:not([data-old]) textarea[name=questions]')?.value.includes('outdoor unit')`)
	x.Run(browsertest.Click(".plan button[value=start]"))
	x.State("finished")
	x.Says("It runs on propane")
	x.Says("It stands under the bedroom window")
	x.Until(`!document.body.innerText.includes('40,000') && [...document.querySelectorAll('.prose h2')].map(h => h.innerText).join() === 'Noise,Refrigerant'`)
	if before == words.asked.Load() {
		t.Error("nothing was asked after the plan")
	}
	for _, query := range []string{"How loud is the Kestrel heat pump?", "Where does the outdoor unit stand?"} {
		if _, ok := searched.Load(query); !ok {
			t.Errorf("the web was not searched for %q", query)
		}
	}
	r.checkResearch(vault, 1, 3)
	r.shoot(b, "answer", "/chats/1")

	// The note.
	x.Run(browsertest.Click("form[action='/runs/of/note'] button"))
	x.Until(`location.pathname === '/runs/1' && document.body.innerText.includes('The report is a note now')`)
	r.shoot(b, "run", "/runs/1?saved=research/20260203-101500-How+loud+is+the+Kestrel+heat+pump.md")
	notes, err := filepath.Glob(filepath.Join(vault, "research", "*.md"))
	if err != nil || len(notes) != 1 {
		t.Fatalf("%q, %v", notes, err)
	}
	checkReport(t, notes[0], "words/words")

	// The same as a job that came as a file: nobody is asked, and the note is its answer.
	if err := os.WriteFile(filepath.Join(vault, "_queue", "kestrel.md"), []byte("---\ntype: research\n---\nHow loud is the Kestrel heat pump, and which refrigerant does it have?\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err = poll(30*time.Second, 50*time.Millisecond, func() error {
		if notes, err = filepath.Glob(filepath.Join(vault, "runner-outputs", "*kestrel.md")); err != nil || len(notes) != 1 {
			return fmt.Errorf("%q, %w", notes, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	checkReport(t, notes[0], "words/words")

	// And one whose file wants to see the plan: it is held until it is decided about, through the API.
	if err := os.WriteFile(filepath.Join(vault, "_queue", "asks.md"), []byte("---\ntype: research\nplan: ask\n---\nHow loud is the Kestrel heat pump?\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var job struct{ State, Reason string }
	r.until(func() error {
		if err := r.get("/api/jobs/2", &job); err != nil {
			return err
		}
		if job.State != "held" || !strings.Contains(job.Reason, "plan") {
			return fmt.Errorf("%+v", job)
		}
		return nil
	})
	resp, err := http.Post(r.url+"/api/runs/3/plan", "application/json", strings.NewReader(`{"questions": ["How loud is the Kestrel heat pump?"], "sources": ["vault", "web"]}`))
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", resp, err)
	}
	resp.Body.Close()
	r.until(func() error {
		if err := r.get("/api/jobs/2", &job); err != nil || job.State != "done" {
			return fmt.Errorf("%+v, %w", job, err)
		}
		return nil
	})
	for _, w := range x.Complaints() {
		t.Errorf("console: %s", w)
	}
}

// The whole path with one real Ollama: it makes the vectors (tiny-embed), and it plans, grades, takes notes, writes and judges (tiny-research). A person asks in
// a browser, sees the plan and starts it; the notes and the web are searched, pages fetched; what the model cites wrongly is struck, and the rest stands byte for byte
// in its source and becomes a note. The model's answers are fixed, and the same whatever the sources say: it cites each of four sources for everything.
func TestResearchFromTheQuestionToTheNoteByATinyModel(t *testing.T) {
	b := browsertest.Start(t)
	searxng, searched := smallWeb(t, "")
	vault := researchVault(t)
	config := strings.Replace(fmt.Sprintf(researchConfig, vault, searxng, ollamatest.Start(t).URL, nobody(t)), "model: words}", "model: tiny-research}", 1)
	r := newRunner(t, config+"    tiny-research: {provider: contabo, model: tiny-research}\n")
	r.start()
	r.waitVectors(2)

	x := b.Tab(t)
	x.Run(chromedp.Navigate(r.url+"/"), chromedp.WaitReady(chromedp.CSS("html.scripted")), chromedp.SetValue(chromedp.CSS("select[name=model]"), "research"))
	x.Until(`document.querySelector('#composer input[name=plan]').checked`)
	x.Run(chromedp.SendKeys(chromedp.CSS("#ask"), "How loud is the Kestrel heat pump?\r"))
	x.State("held")
	x.Until(`document.querySelector('.plan textarea[name=questions]')?.value.includes('Where does it stand?')`)
	x.Run(browsertest.Click(".plan button[value=start]"))
	x.State("finished")
	x.Says("52 decibels")
	x.Says("It stands under the bedroom window")
	if _, ok := searched.Load("How loud is the Kestrel heat pump?"); !ok {
		t.Error("the web was not searched")
	}
	r.checkResearch(vault, 1, 2)
	x.Run(browsertest.Click("form[action='/runs/of/note'] button"))
	x.Until(`location.pathname === '/runs/1' && document.body.innerText.includes('The report is a note now')`)
	notes, err := filepath.Glob(filepath.Join(vault, "research", "*.md"))
	if err != nil || len(notes) != 1 {
		t.Fatalf("%q, %v", notes, err)
	}
	text, err := os.ReadFile(notes[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"model: \"contabo/tiny-research\"", "house.md", "```text\nThe outdoor unit reaches 52 decibels at a distance of one metre.\n```", "[[house]]",
		"statements were left out: the words that"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is not in the note:\n%s", want, text)
		}
	}
	for _, w := range x.Complaints() {
		t.Errorf("console: %s", w)
	}
}

// A tiny model on a real Ollama reads and writes that was made for nothing of this (tiny-chat). It answers forms in the form, and its words are nonsense: so nothing can be said of the answer but that the run
// ends, and that no statement is shown which is not checked.
func TestResearchByATinyModel(t *testing.T) {
	searxng, _ := smallWeb(t, "")
	vault := researchVault(t)
	o := ollamatest.Start(t)
	r := newRunner(t, strings.Replace(fmt.Sprintf(researchConfig, vault, searxng, o.URL, nobody(t)), `model: words}`, `model: tiny-chat}`, 1)+"    tiny-chat: {provider: contabo, model: tiny-chat}\n")
	r.start()
	r.waitVectors(2)
	if err := os.WriteFile(filepath.Join(vault, "_queue", "kestrel.md"), []byte("---\ntype: research\n---\nHow loud is the Kestrel heat pump?\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var job struct{ State, Reason string }
	err := poll(90*time.Second, 100*time.Millisecond, func() error {
		if err := r.get("/api/jobs/1", &job); err != nil || job.State != "done" {
			return fmt.Errorf("%+v, %w", job, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r.checkResearch(vault, 1, 0)
}

// shoot writes pictures of a page into the folder named by SCREENSHOTS, for a person to look at.
func (r *runner) shoot(b *browsertest.Browser, name, path string) {
	r.t.Helper()
	dir := os.Getenv("SCREENSHOTS")
	if dir == "" {
		return
	}
	for _, width := range []int64{390, 1280} {
		for _, theme := range []string{"light", "dark"} {
			x := b.Tab(r.t)
			x.Run(browsertest.Set(emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 1400, DeviceScaleFactor: 1, Mobile: width < 800}),
				browsertest.Set(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}}}),
				chromedp.Navigate(r.url+path), chromedp.WaitReady(chromedp.CSS("html.scripted")))
			png, err := chromedp.Run(x.Context(), chromedp.CaptureScreenshot())
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s-%d-%s.png", name, width, theme)), png, 0o600)
			}
			if err != nil {
				r.t.Error(err)
			}
			x.Close()
		}
	}
}

func (r *runner) until(f func() error) {
	r.t.Helper()
	if err := poll(30*time.Second, 50*time.Millisecond, f); err != nil {
		r.t.Fatal(err)
	}
}

// waitVectors waits until so many notes have vectors, made by the real Ollama.
func (r *runner) waitVectors(notes int) {
	r.t.Helper()
	err := poll(60*time.Second, 100*time.Millisecond, func() error {
		var found struct {
			Lanes []struct {
				Name  string
				Found int
				Says  string
			}
		}
		if err := r.get("/api/library/search?q=kestrel+heat+pump", &found); err != nil {
			return err
		}
		for _, l := range found.Lanes {
			if l.Name == "vector" && l.Found >= notes {
				return nil
			}
		}
		return fmt.Errorf("%+v", found)
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

// checkResearch reads a run: each quote stands byte for byte in its stored source, and each statement that stands was checked.
func (r *runner) checkResearch(vault string, run, quotes int) {
	t := r.t
	t.Helper()
	var told struct {
		Run   graph.RunRow
		Steps []graph.StepRow
	}
	if err := r.get(fmt.Sprintf("/api/runs/%d", run), &told); err != nil {
		t.Fatal(err)
	}
	var x graph.Inquiry
	if err := json.Unmarshal(told.Steps[len(told.Steps)-1].State, &x); err != nil || told.Run.Status != graph.Done {
		t.Fatalf("%+v, %v", told.Run, err)
	}
	d, err := db.OpenRead(context.Background(), filepath.Join(r.dir, db.Name))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, c := range x.Cited {
		var text string
		if c.Collection == "" {
			b, err := os.ReadFile(filepath.Join(vault, c.Path))
			if err != nil {
				t.Fatal(err)
			}
			text = string(b)
		} else if err := d.Read().QueryRowContext(t.Context(), `SELECT text FROM library_documents WHERE collection = ? AND path = ?`, c.Collection, c.Path).Scan(&text); err != nil {
			t.Fatal(err)
		}
		if c.End > len(text) || text[c.Start:c.End] != c.Quote {
			t.Errorf("%s [%d, %d) is not %q", c.Path, c.Start, c.End, c.Quote)
		}
	}
	if len(x.Cited) < quotes {
		t.Errorf("%d quotes in %q", len(x.Cited), x.Answer)
	}
	var paths []string
	for _, dropped := range x.Dropped {
		paths = append(paths, dropped.Path[strings.LastIndex(dropped.Path, "/")+1:]+": "+dropped.Why)
	}
	if all := strings.Join(paths, "\n"); quotes > 0 {
		for _, want := range []string{"gone: it could not be read", "wall: it could not be read", "shop: it is written to sell", "copy: it says the same as"} {
			if !strings.Contains(all, want) && !(strings.HasPrefix(want, "copy") && strings.Contains(all, "test: it says the same as")) {
				t.Errorf("%q is not among what was left out:\n%s", want, all)
			}
		}
	}
}

// checkReport reads a report in the vault.
func checkReport(t *testing.T, path, model string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	note := string(text)
	for _, want := range []string{"---\ngenerated: true\n", "type: research\n", "question: \"How loud is", "date: 20", "model: \"" + model + "\"", "cost_usd: ", "seconds: ", "sources:\n  - \"", "house.md",
		"52 decibels [1]", "## Sources", "bytes ", ", published 2026-02-03, fetched 20", "```text\nThe outdoor unit reaches 52 decibels at a distance of one metre.\n```", "[[house]]",
		"## What could not be established", "1 statement was left out: it has a number that its source does not have", "## What was not read", "it is written to sell", "## Cost and time"} {
		if !strings.Contains(note, want) {
			t.Errorf("%q is not in %s:\n%s", want, filepath.Base(path), note)
			return
		}
	}
	if strings.Contains(note, "40,000") {
		t.Error("a made-up number is in the note")
	}
}
