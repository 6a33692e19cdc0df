//go:build prove

package prove

import (
	"bufio"
	"database/sql"
	"errors"
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
	whole, err := h.ollama.Whole()
	if err != nil {
		t.Fatal(err)
	}
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
	if used, err := h.ollama.WaitIdle(); err != nil || used > whole/2 {
		t.Errorf("a whole answer takes %v of a processor, %v were used for nobody: %v", whole, used, err)
	}
	h.start()
	h.waitOutcome("tiny-slow", usage.Interrupted)
}

// After kill -9 in the midst of an answer to a person, what had come is there, marked as what it is; and the question is
// asked again beside it without anybody's click.
func TestKilledWhileStreamingToAPerson(t *testing.T) {
	h := newHouse(t)
	conversation := h.post("/chats", url.Values{"text": {"go"}, "model": {"tiny-slow"}})
	h.streaming(conversation)
	h.kill()
	h.start()
	err := poll(60*time.Second, 20*time.Millisecond, func() error {
		if a := h.answer(conversation); a.Turn.State != chat.Finished || a.Text != tinymodel.Count() {
			return fmt.Errorf("after the restart the turn is %s: %s", a.Turn.State, a.Turn.Error)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	all := h.answers(conversation)
	if old := all[0]; len(all) != 2 || old.Turn.State != chat.Interrupted || old.Turn.Due || old.Text == "" || !strings.HasPrefix(tinymodel.Count(), old.Text) {
		t.Errorf("of %d answers the first is %s with the text %q", len(all), old.Turn.State, old.Text)
	}
	h.waitOutcome("tiny-slow", usage.OK)
	rows, err := h.ledger()
	if err != nil || len(rows) != 2 || rows[1].Outcome != usage.Interrupted {
		t.Errorf("the ledger: %+v, %v", rows, err)
	}
}

// A question in whose answers the program is killed again and again is asked again three times; then a person decides.
func TestKilledInEveryAnswerToAPerson(t *testing.T) {
	h := newHouse(t)
	conversation := h.post("/chats", url.Values{"text": {"go"}, "model": {"tiny-slow"}})
	for life := range 4 {
		h.streaming(conversation)
		if n := len(h.answers(conversation)); n != life+1 {
			t.Fatalf("in life %d there are %d answers", life, n)
		}
		h.kill()
		h.start()
	}
	h.waitOutcome("tiny-slow", usage.Interrupted)
	for _, a := range h.answers(conversation) {
		if a.Turn.State != chat.Interrupted || a.Turn.Due {
			t.Errorf("turn %d is %s, due %t", a.ID, a.Turn.State, a.Turn.Due)
		}
	}
	h.post(fmt.Sprintf("/turns/%d/again", h.answer(conversation).ID), nil)
	h.streaming(conversation)
	if n := len(h.answers(conversation)); n != 5 {
		t.Errorf("there are %d answers", n)
	}
}

// streaming waits until the last answer of a conversation arrives, and something of it is written down.
func (r *runner) streaming(conversation string) {
	r.t.Helper()
	err := poll(20*time.Second, 10*time.Millisecond, func() error {
		if a := r.answer(conversation); a.Turn.State != chat.Streaming || a.Text == "" {
			return fmt.Errorf("the turn is %s, not streaming", a.Turn.State)
		}
		pieces := 0
		err := r.query(`SELECT count(*) FROM turn_pieces WHERE turn = (SELECT max(id) FROM turns) AND text <> ''`, func(row *sql.Rows) error { return row.Scan(&pieces) })
		if err == nil && pieces == 0 {
			err = errors.New("nothing of the answer is written down")
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
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

// answer is the last answer of a conversation.
func (r *runner) answer(conversation string) chat.Message {
	r.t.Helper()
	all := r.answers(conversation)
	if len(all) == 0 {
		r.t.Fatalf("%s has no answer", conversation)
	}
	return all[len(all)-1]
}

// answers are all answers of a conversation, from its export.
func (r *runner) answers(conversation string) (all []chat.Message) {
	r.t.Helper()
	var export struct{ Messages []chat.Message }
	if err := r.get(conversation+"/export.json", &export); err != nil {
		r.t.Fatal(err)
	}
	for _, m := range export.Messages {
		if m.Turn != nil {
			all = append(all, m)
		}
	}
	return all
}
