package jobs

import (
	"context"
	"iter"
	"path/filepath"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// slowly is a provider that says what the test hands it, word by word, until that closes the channel; "!" breaks the answer.
type slowly chan string

func (p slowly) Stream(context.Context, llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		for word := range p {
			if word == "!" {
				yield(llm.Event{}, &llm.Error{Kind: llm.Unavailable, Message: "broke"})
				return
			}
			if !yield(llm.Event{Text: word}, nil) {
				return
			}
		}
		yield(llm.Event{Finish: llm.FinishStop}, nil)
	}
}

// reader collects what a reader of a job is told: states, and text as "+word" or "=all of it".
func reader(t *testing.T, s *Service, id int64) <-chan string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	told := make(chan string, 100)
	go func() {
		defer close(told)
		for news, err := range s.Events(ctx, id, 0) {
			if err != nil {
				told <- err.Error()
				return
			}
			for _, e := range news.Events {
				told <- string(e.To)
			}
			if p := news.Piece; p != nil {
				told <- map[bool]string{true: "=", false: "+"}[p.Whole] + p.Text
			}
		}
	}()
	return told
}

func expect(t *testing.T, told <-chan string, want ...string) {
	t.Helper()
	for _, w := range want {
		if got := <-told; got != w {
			t.Fatalf("told %q, not %q", got, w)
		}
	}
}

func TestAnAnswerIsReadWhileItArrives(t *testing.T) {
	words := make(slowly)
	s := open(t, filepath.Join(t.TempDir(), db.Name), words)
	j := submit(t, s, Spec{Prompt: "x", MaxAttempts: 3})
	first := reader(t, s, j.ID)
	words <- "one "
	expect(t, first, "queued", "running", "=one ")
	words <- "two"
	expect(t, first, "+two")
	late := reader(t, s, j.ID)
	expect(t, late, "queued", "running", "=one two")
	if now, err := s.Job(t.Context(), j.ID); err != nil || now.Arrived != "one two" {
		t.Errorf("%q, %v", now.Arrived, err)
	}

	words <- "!"
	expect(t, first, "held")
	words <- "again"
	expect(t, first, "running", "=again")
	close(words)
	expect(t, first, "done", "")
	if now := reach(t, s, j.ID, Done); now.Answer != "again" || now.Arrived != "" {
		t.Errorf("%q, and %q is left", now.Answer, now.Arrived)
	}
}
