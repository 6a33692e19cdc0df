package web

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/llm"
)

func TestAHeldAnswerGoesOnInTheOpenPage(t *testing.T) {
	r := durableRig(t)
	turn, x := r.ask("q")
	l := r.listen(turn.ID, 0, nil)
	x.fail <- &llm.BusyError{Provider: "contabo", Kind: llm.Quota, Reason: "all 30 requests/minute used up", Until: time.Now().Add(5 * time.Second)}
	for l.state.State != chat.Held && l.next() {
	}
	if l.state.Over || !strings.Contains(l.state.Line, "It goes on by itself at <time") || !strings.Contains(l.state.Line, "Ask now") ||
		!strings.Contains(l.state.Line, "Stop waiting") || strings.Contains(l.state.Line, "Ask again") {
		t.Errorf("%+v", l.state)
	}
	x = <-r.puppet.asked
	x.text("Here it *is*")
	x.done()
	for l.next() {
	}
	if !l.state.Over || l.state.State != chat.Finished || fmt.Sprint(l.blocks) != "[<p>Here it <em>is</em></p>]" {
		t.Errorf("%+v, %v", l.state, l.blocks)
	}
}

func TestTheFormsOfAHeldAnswer(t *testing.T) {
	r := durableRig(t)
	turn, x := r.ask("q")
	x.fail <- &llm.BusyError{Provider: "davas", Reason: "davas is down"}
	page := ""
	for !strings.Contains(page, "<b>Held.</b>") {
		_, page = r.get(chatPath(turn))
	}
	for _, want := range []string{"as soon as somebody can answer", "data-follow", `content="15"`, fmt.Sprintf(`action="/turns/%d/stop"`, turn.ID)} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if strings.Contains(page, "data-running") {
		t.Error("it counts as running")
	}
	if _, page = r.post(fmt.Sprintf("/turns/%d/again", turn.ID)); !strings.Contains(page, "data-running") || !strings.Contains(page, `content="3"`) {
		t.Error("asked now, it does not run")
	}
	(<-r.puppet.asked).fail <- &llm.BusyError{Provider: "davas", Reason: "davas is down"}
	for page = ""; !strings.Contains(page, "<b>Held.</b>"); {
		_, page = r.get(chatPath(turn))
	}
	status, page := r.post(fmt.Sprintf("/turns/%d/stop", turn.ID))
	if status != http.StatusOK || !strings.Contains(page, "Stopped by you") || !strings.Contains(page, "Ask again") || strings.Contains(page, "data-follow") ||
		strings.Contains(page, "http-equiv") {
		t.Errorf("%d %s", status, page)
	}
}
