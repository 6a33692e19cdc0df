package main

import (
	"context"
	"iter"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/llm"
)

// A plan waits for a person as long as somebody wants what comes of it.
func TestAPlanWaitsNoLongerThanItsWork(t *testing.T) {
	c, err := Load(Options{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	a, err := assemble(t.Context(), c, quiet(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	work, queue, err := a.queue(t.Context(), engine.Config{Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	defer work.Close(time.Second) //nolint:errcheck // the test has ended
	chats, err := chat.New(t.Context(), a.db, a.asker, chat.Config{Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	a.inquiries.Model = func(llm.Request) (string, bool) { return "m", true }
	a.inquiries.Reader = silent{}
	for range 2 { // the engine is not launched, so they stay queued
		if _, _, err := queue.Submit(t.Context(), jobs.Spec{Type: jobs.Research, Prompt: "x", Plan: llm.PlanAsk}, ""); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"job-1-0", "job-2-0", "job-9-0", "turn-9"} {
		if _, err := llm.Collect(a.inquiries.Stream(t.Context(), llm.Request{Run: key, Purpose: "job", Plan: llm.PlanAsk, Messages: []llm.Message{llm.Says(llm.User, "What is it?")}})); err == nil {
			t.Fatal("it did not wait")
		}
	}
	if _, err := queue.Cancel(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	if err := a.withdraw(t.Context(), wanted(queue, chats)); err != nil {
		t.Fatal(err)
	}
	waits, err := a.inquiries.Store.Waits(t.Context())
	if err != nil || len(waits) != 1 || waits[0].Key != "job-1-0" {
		t.Errorf("%+v, %v", waits, err)
	}
}

// silent answers no form.
type silent struct{}

func (silent) Stream(context.Context, llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		_ = yield(llm.Event{Text: "?"}, nil) && yield(llm.Event{Finish: llm.FinishStop}, nil)
	}
}
