//go:build prove

package prove

import (
	"bufio"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/usage"
	"home.arpa/lab/llm-runner/test/ollama/tinymodel"
)

// After kill -9 in the midst of an answer to a program, the books say so; and the machine has stopped working for nobody.
func TestKilledWhileStreamingToAProgram(t *testing.T) {
	h := newHouse(t)
	resp, err := http.Post(h.url+"/v1/chat/completions", "application/json",
		strings.NewReader(`{"model":"tiny-slow","stream":true,"messages":[{"role":"user","content":"go"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() && !strings.Contains(lines.Text(), `"content":" 2"`) {
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	h.waitOutcome("tiny-slow", usage.Unfinished)
	h.kill()
	if _, err := h.ollama.WaitIdle(time.Second); err != nil {
		t.Error(err)
	}
	h.start()
	h.waitOutcome("tiny-slow", usage.Interrupted)
}

// After kill -9 in the midst of an answer to a person, the conversation is there, with what had come, marked as what it
// is; and it goes on.
func TestKilledWhileStreamingToAPerson(t *testing.T) {
	h := newHouse(t)
	conversation := h.post("/chats", url.Values{"text": {"go"}, "model": {"tiny-slow"}})
	err := poll(10*time.Second, 10*time.Millisecond, func() error {
		if a := h.answer(conversation); a.Turn.State != chat.Streaming {
			return fmt.Errorf("the turn is %s, not streaming", a.Turn.State)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	h.kill()
	h.start()
	a := h.answer(conversation)
	if a.Turn.State != chat.Interrupted || !strings.HasPrefix(tinymodel.Count(), a.Text) {
		t.Errorf("after the restart the turn is %s with the text %q", a.Turn.State, a.Text)
	}
	h.waitOutcome("tiny-slow", usage.Interrupted)

	h.post(fmt.Sprintf("/turns/%d/again", a.ID), url.Values{"model": {"tiny-chat"}})
	err = poll(10*time.Second, 20*time.Millisecond, func() error {
		if a = h.answer(conversation); a.Turn.State != chat.Finished {
			return fmt.Errorf("asked again, the turn is %s: %s", a.Turn.State, a.Turn.Error)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// post sends a form and returns the path that it leads to.
func (r *runner) post(path string, form url.Values) string {
	r.t.Helper()
	client := &http.Client{
		Timeout:       10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.PostForm(r.url+path, form)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSeeOther {
		r.t.Fatalf("POST %s: %s", path, resp.Status)
	}
	where, _, _ := strings.Cut(resp.Header.Get("Location"), "#")
	return where
}

// answer is the last answer of a conversation, from its export.
func (r *runner) answer(conversation string) (last chat.Message) {
	r.t.Helper()
	var export struct{ Messages []chat.Message }
	if err := r.get(conversation+"/export.json", &export); err != nil {
		r.t.Fatal(err)
	}
	for _, m := range export.Messages {
		if m.Turn != nil {
			last = m
		}
	}
	if last.Turn == nil {
		r.t.Fatalf("%s has no answer", conversation)
	}
	return last
}
