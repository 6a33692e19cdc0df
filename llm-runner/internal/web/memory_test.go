package web

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/memory"
)

// factFinder answers every question about a message with what stands for its longest part.
type factFinder map[string]string

func (x factFinder) Stream(_ context.Context, req llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		text, longest := `{"facts":[]}`, 0
		last := req.Messages[len(req.Messages)-1].Text()
		for part, answer := range x {
			if strings.Contains(last, part) && len(part) > longest {
				text, longest = answer, len(part)
			}
		}
		yield(llm.Event{Text: text, Finish: llm.FinishStop}, nil)
	}
}

func proposes(fact, quote string, corrects bool) string {
	return fmt.Sprintf(`{"facts":[{"fact":%q,"quote":%q,"about":"user","lasting":true,"corrects":%v,"confidence":0.9}]}`, fact, quote, corrects)
}

func recalls(m *memory.Service) func(context.Context, llm.Request) ([]chat.Remembered, error) {
	return func(ctx context.Context, req llm.Request) ([]chat.Remembered, error) {
		facts, err := m.Recall(ctx, req.Messages[len(req.Messages)-1].Text(), false)
		var out []chat.Remembered
		for _, f := range facts {
			out = append(out, chat.Remembered{Fact: f.ID, Text: f.Text, Private: f.Private})
		}
		return out, err
	}
}

// memoryRig is a rig whose person said a few things about themselves.
func memoryRig(t testing.TB) *rig {
	t.Helper()
	withMemory()
	defer func() { rigMemory = nil }()
	r := newRig(t)
	r.said(t)
	return r
}

// withMemory gives the next rigs a memory, which understands what said says.
func withMemory() {
	answers := factFinder{
		"I live in Berlin":  proposes("The user lives in Berlin", "I live in Berlin", false),
		"I moved to Bonn":   proposes("The user lives in Bonn", "I moved to Bonn, no longer Berlin", true),
		"New: The user liv": `{"relation":"contradicts"}`,
		"without sugar":     proposes("The user takes coffee without sugar", "I take my coffee without sugar", false),
		"two spoons":        proposes("The user takes coffee with two spoons of sugar", "I take my coffee with two spoons of sugar", false),
		"New: The user tak": `{"relation":"contradicts"}`,
		"cello":             proposes("The user plays the cello <b>well</b>", "I play the cello <b>well</b>", false),
		"Muttersprache":     proposes("Die Muttersprache des Nutzers ist Ungarisch", "Meine Muttersprache ist Ungarisch", false),
	}
	rigMemory = func(d *db.DB) *memory.Service {
		said := chat.Reader(d)
		return memory.New(memory.Config{DB: d, Provider: answers, Model: func(bool) (string, error) { return "m", nil }, Log: slog.New(slog.DiscardHandler),
			Conversations: func(ctx context.Context) (out []memory.Conversation, err error) {
				all, err := said.Chats(ctx, "", 100)
				for _, c := range all {
					out = append(out, memory.Conversation{ID: c.ID, Changed: c.Updated})
				}
				return out, err
			},
			Said: func(ctx context.Context, id int64) (out []memory.Message, err error) {
				all, err := said.Said(ctx, id)
				for _, m := range all {
					out = append(out, memory.Message{ID: m.ID, Chat: id, Text: m.Text, At: m.Created, Private: m.Private, Open: m.Open})
				}
				return out, err
			}})
	}
}

// said has a person say a few things about themselves, and has them remembered.
func (r *rig) said(t testing.TB) {
	t.Helper()
	for _, q := range []string{"I live in Berlin, in a flat on the third floor. Which tram?", "I take my coffee without sugar. How much caffeine is in it?",
		"I play the cello <b>well</b>, what comes next?", "Meine Muttersprache ist Ungarisch. Bitte korrigiere mich.", "I moved to Bonn, no longer Berlin. Where do I register?",
		"I take my coffee with two spoons of sugar. Is that bad?"} {
		r.answered(q, "Certainly.")
	}
	if _, err := r.Memory.Learn(t.Context(), "test"); err != nil {
		t.Fatal(err)
	}
}

func TestMemoryPage(t *testing.T) {
	r := memoryRig(t)
	_, body := r.get("/memory")
	for _, want := range []string{"Which one holds?", "The user lives in Bonn", "I moved to Bonn, no longer Berlin", `href="/chats/5#m9"`, "The user plays the cello &lt;b&gt;well&lt;/b&gt;",
		"History: 1 replaced", "replaces <a href=\"#f1\">fact 1</a>", "This cannot be undone"} {
		if !strings.Contains(body, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if strings.Index(body, "Which one holds?") > strings.Index(body, "id=\"f4\"") {
		t.Error("contradictions are not on top")
	}
	if code, body := r.post("/memory/conflicts/1", "holds", "newer"); code != http.StatusOK || strings.Contains(body, "Which one holds?") || !strings.Contains(body, "History: 2 replaced") {
		t.Errorf("%d %s", code, body)
	}
	if code, body := r.post("/memory/conflicts/1", "holds", "newer"); code != http.StatusUnprocessableEntity || !strings.Contains(body, "decided before") {
		t.Errorf("%d %s", code, body)
	}
	if code, body := r.post("/memory/undo"); code != http.StatusOK || !strings.Contains(body, "Which one holds?") {
		t.Errorf("%d %s", code, body)
	}
	if code, body := r.post("/memory/facts/3/edit", "text", "The user plays the cello"); code != http.StatusOK || !strings.Contains(body, ">The user plays the cello\n") && !strings.Contains(body, ">The user plays the cello<") {
		t.Errorf("%d %s", code, body)
	}
	if code, body := r.post("/memory/add", "text", "My PIN is 4711"); code != http.StatusUnprocessableEntity || !strings.Contains(body, "looks like a secret") {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := r.post("/memory/add", "text", "The user prefers metric units"); code != http.StatusOK {
		t.Errorf("%d", code)
	}
	if code, body := r.get("/memory?q=METRIC"); code != http.StatusOK || !strings.Contains(body, "metric units") || strings.Contains(body, "cello") || !strings.Contains(body, "You added it yourself") {
		t.Errorf("%d %s", code, body)
	}
	if code, body := r.post("/memory/facts/3/forget"); code != http.StatusOK || strings.Contains(body, "cello") {
		t.Errorf("%d %s", code, body)
	}
	if code, _ := r.post("/memory/facts/3/forget"); code != http.StatusNotFound {
		t.Errorf("forgotten twice: %d", code)
	}
	r.answered("I live in Berlin again.", "Certainly.")
	if code, _ := r.post("/memory/learn"); code != http.StatusOK {
		t.Errorf("%d", code)
	}
}

func TestAChatSaysWhatWasRemembered(t *testing.T) {
	r := memoryRig(t)
	_, body := r.get("/")
	if !strings.Contains(body, `name="memory" value="1" checked`) {
		t.Error("memory is not switched on in a new chat")
	}
	done := make(chan string, 1)
	go func() {
		_, body := r.post("/chats", "text", "Which city hall do I go to, where I live?", "memory", "1", "key", "k")
		done <- body
	}()
	p := <-r.puppet.asked
	if first := p.req.Messages[0]; first.Role != llm.System || !strings.Contains(first.Text(), "- The user lives in Bonn\n") {
		t.Errorf("asked %+v", first)
	}
	p.text("The old one.")
	p.done()
	<-done
	r.end(14)
	_, body = r.get("/chats/7")
	if !strings.Contains(body, `Remembered: <a href="/memory#f5">The user lives in Bonn</a>`) || !strings.Contains(body, "with memory") {
		t.Errorf("%s", body)
	}
	if err := r.Memory.Forget(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	if _, body = r.get("/chats/7"); !strings.Contains(body, "a fact that was forgotten since") || strings.Contains(body, "lives in Bonn") {
		t.Errorf("%s", body)
	}
	c, err := r.Chats.Chat(t.Context(), 7)
	if err != nil || !c.Memory {
		t.Errorf("%+v, %v", c, err)
	}
	t2, err := r.Chats.Send(t.Context(), 7, 14, "And without?", chat.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p = <-r.puppet.asked
	if slices.ContainsFunc(p.req.Messages, func(m llm.Message) bool { return m.Role == llm.System }) {
		t.Errorf("told although it is switched off: %+v", p.req.Messages)
	}
	p.text("Yes.")
	p.done()
	r.end(t2.ID)
	if _, body = r.get("/chats/7"); strings.Contains(body, `name="memory" value="1" checked`) {
		t.Error("the switch does not stay off")
	}
}
