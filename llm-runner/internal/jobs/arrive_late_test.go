package jobs

import (
	"testing"

	"home.arpa/lab/llm-runner/internal/llm"
)

// A call that lost its job to a later one may still be answered: both drafts grow side by side.
func TestALateAnswerGrowsBesideItsSuccessors(t *testing.T) {
	s, _ := newService(t, echo)
	early, late := Job{ID: 1, Run: 1}, Job{ID: 1, Run: 2}
	answer := func(before func(), texts ...string) func(func(llm.Event, error) bool) {
		return func(yield func(llm.Event, error) bool) {
			before()
			for _, text := range texts {
				if !yield(llm.Event{Text: text}, nil) {
					return
				}
			}
		}
	}
	overtaken := func() {
		if a, err := s.collect(&late, answer(func() {}, "in ", "time")); err != nil || a.Message.Text() != "in time" {
			t.Errorf("%q, %v", a.Message.Text(), err)
		}
	}
	if a, err := s.collect(&early, answer(overtaken, "too ", "late")); err != nil || a.Message.Text() != "too late" {
		t.Errorf("%q, %v", a.Message.Text(), err)
	}
	if got := s.draftOf(1); got != "in time" {
		t.Errorf("readers see %q", got)
	}
}
