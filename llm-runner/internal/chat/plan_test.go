package chat

import (
	"path/filepath"
	"testing"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// Research says what it does before it waits for a person: the answer is held, not broken, and begins anew in its place.
func TestAnAnswerWaitsThoughItsReasoningHasBegun(t *testing.T) {
	s, p, _, stop := durable(t, filepath.Join(t.TempDir(), db.Name))
	defer stop()
	turn, err := s.Send(t.Context(), 0, 0, "What about filters?", Options{Model: "research", Plan: llm.PlanAsk})
	if err != nil {
		t.Fatal(err)
	}
	w := watch(t, s, turn.ID)
	x := p.next(t)
	if x.req.Plan != llm.PlanAsk || x.req.Chat != turn.Chat || x.req.Run != turn.RunName() {
		t.Errorf("asked with %+v", x.req)
	}
	x.say <- llm.Event{Thinking: "Reads the question.\n"}
	x.say <- error(&llm.BusyError{Provider: "your approval", Kind: llm.Unavailable, Reason: "the plan of this research waits for your word"})
	w.until(t, Held)
	if err := s.Decided(t.Context(), turn.RunName()); err != nil {
		t.Fatal(err)
	}
	x = p.next(t)
	x.text("It is washed.")
	x.done()
	w.until(t, Finished)
	if m, err := s.Message(t.Context(), turn.ID); err != nil || m.Text != "It is washed." || m.Turn.Thinking != "" {
		t.Errorf("%+v, %v", m, err)
	}
}
