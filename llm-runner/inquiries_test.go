package main

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/graph"
	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/library"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox/browse"
)

// A run waits, for a person or a machine, as long as somebody wants what comes of it.
func TestARunWaitsNoLongerThanItsWork(t *testing.T) {
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
	agents, err := a.agents(t.Context(), work, queue)
	if err != nil {
		t.Fatal(err)
	}
	a.inquiries.Model = func(llm.Request) (string, bool) { return "m", true }
	a.inquiries.Reader = silent{}
	for range 3 { // the engine is not launched, so they stay queued
		if _, _, err := queue.Submit(t.Context(), jobs.Spec{Type: jobs.Research, Prompt: "x", Plan: llm.PlanAsk}, ""); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(key, plan string) {
		t.Helper()
		if _, err := llm.Collect(a.inquiries.Stream(t.Context(), llm.Request{Run: key, Purpose: "job", Plan: plan, Messages: []llm.Message{llm.Says(llm.User, "What is it?")}})); err == nil {
			t.Fatal("it did not wait")
		}
	}
	for _, key := range []string{"job-1-0", "job-2-0", "job-9-0", "turn-9"} {
		ask(key, llm.PlanAsk)
	}
	a.inquiries.Reader = busy{} // these began, and wait for a machine
	for _, key := range []string{"job-3-0", "job-8-0", "turn-8", "agent-9"} {
		ask(key, "")
	}
	if _, err := queue.Cancel(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	left, err := a.withdraw(t.Context(), callers(queue, chats, agents))
	if err != nil || len(left) != 0 {
		t.Fatal(left, err)
	}
	waits, err := a.inquiries.Store.Waits(t.Context())
	if err != nil || len(waits) != 1 || waits[0].Key != "job-1-0" {
		t.Errorf("%+v, %v", waits, err)
	}
	all, err := a.inquiries.Store.Runs(t.Context(), 100)
	for _, r := range all {
		if goes := r.Key == "job-1-0" || r.Key == "job-3-0"; err != nil || goes == (r.Status == graph.Failed) {
			t.Errorf("%+v, %v", r, err)
		}
	}

	// A fork that its process left goes on by itself, also after its machine was busy.
	fork, err := a.inquiries.Graph().Fork(t.Context(), a.inquiries.Store, all[0].ID, -1, nil)
	if err != nil {
		t.Fatal(err)
	}
	a.inquiries.Reader = silent{}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.goOn(ctx, callers(queue, chats, agents)) }()
	for deadline := time.After(30 * time.Second); ; {
		changed := a.inquiries.Store.Changed()
		r, err := a.inquiries.Store.Run(t.Context(), fork.ID)
		if err != nil {
			t.Fatal(err)
		}
		if r.Status == graph.Done {
			break
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%+v", r)
		}
	}
	stop()
	<-done
}

// busy has no room.
type busy struct{}

func (busy) Stream(context.Context, llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		yield(llm.Event{}, &llm.BusyError{Provider: "m", Kind: llm.Unavailable})
	}
}

// A page that cannot be kept is dropped with the reason, and the others are read.
func TestOnePageThatCannotBeKeptIsNoReasonToLoseTheOthers(t *testing.T) {
	var web *httptest.Server
	web = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/search":
			fmt.Fprintf(w, `{"results":[{"url":"%s/%s","title":"A"},{"url":"%s/good","title":"B"}]}`, web.URL, strings.Repeat("x", 1100), web.URL)
		case r.URL.Path == "/robots.txt":
			w.WriteHeader(http.StatusNotFound)
		default:
			w.Header().Set("Content-Type", "text/plain")
			fmt.Fprint(w, "The heron stands in the pond.") //nolint:errcheck // the test sees
		}
	}))
	defer web.Close()
	c, err := Load(Options{Data: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	c.Tools.Search.SearXNG, c.Tools.Fetch.Allow = web.URL, []string{"127.0.0.1"}
	a, err := assemble(t.Context(), c, quiet(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	look := a.outside(browse.NewSearcher(browse.SearchConfig{SearXNG: web.URL}), browse.NewFetcher(browse.FetchConfig{Allow: []string{"127.0.0.1"}, Keep: a.keepPage}))
	all, dropped, err := look(t.Context(), 0, "heron")
	if err != nil || len(all) != 1 || all[0].Path != web.URL+"/good" || len(dropped) != 1 || !strings.Contains(dropped[0].Why, "a name has 1 to 1000 bytes") {
		t.Errorf("%d found, %.200v dropped, %v", len(all), dropped, err)
	}
}

// silent answers no form.
type silent struct{}

func (silent) Stream(context.Context, llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		_ = yield(llm.Event{Text: "?"}, nil) && yield(llm.Event{Finish: llm.FinishStop}, nil)
	}
}

// Runs of the straight way are many, and kept apart from the others; what is kept for ever is.
func TestRunsAreKeptAsLongAsIsSaid(t *testing.T) {
	for _, tt := range []struct {
		config         string
		thorough, some int // of one each, ten days later
	}{
		{"", 1, 0},
		{"jobs: {keep: 24h}\nresearch: {keep: 0}\n", 0, 1},
		{"jobs: {keep: 0}\nresearch: {keep: 0}\n", 1, 1},
		{"jobs: {keep: 24h}\nresearch: {keep: 24h}\n", 0, 0},
	} {
		a := answered(t, tt.config)
		for _, model := range []string{library.Model, graph.Name} {
			// Who asks a model that says nothing gets nothing, but the run has ended.
			_, _ = llm.Collect(a.asker.Stream(t.Context(), llm.Request{Model: model, Requires: model, Purpose: "ask", Messages: []llm.Message{llm.Says(llm.User, "What is it?")}}))
		}
		if err := a.cleanRuns(t.Context(), time.Now().Add(10*24*time.Hour)); err != nil {
			t.Fatal(err)
		}
		thorough, err := a.inquiries.Store.Runs(t.Context(), 9)
		if err != nil {
			t.Fatal(err)
		}
		some, err := a.inquiries.Store.Straight(t.Context(), 9)
		if err != nil || len(thorough) != tt.thorough || len(some) != tt.some {
			t.Errorf("%q: %d thorough and %d straight are left, want %d and %d (%v)", tt.config, len(thorough), len(some), tt.thorough, tt.some, err)
		}
		a.close()
	}
}

// answered is a program with a configuration, whose model is there and says nothing.
func answered(t *testing.T, config string) *app {
	t.Helper()
	c, err := load(t, config)
	if err != nil {
		t.Fatal(err)
	}
	c.Data = t.TempDir()
	a, err := assemble(t.Context(), c, quiet(), nil)
	if err != nil {
		t.Fatal(err)
	}
	a.inquiries.Model = func(llm.Request) (string, bool) { return "m", true }
	a.inquiries.Reader = silent{}
	return a
}

// The model vault is one graph with research, and decides which way it goes.
func TestVaultDecidesItsWay(t *testing.T) {
	for config, want := range map[string]string{"": "straight thorough", "research: {way: straight}\n": "straight straight", "research: {way: thorough}\n": "thorough thorough"} {
		a := answered(t, config)
		var got []string
		for i, text := range []string{"What is it?", "What is the difference between a job and a hold?"} {
			_, _ = llm.Collect(a.asker.Stream(t.Context(), llm.Request{Model: library.Model, Run: fmt.Sprintf("turn-%d", i), Use: []string{"*"}, Purpose: "chat", Messages: []llm.Message{llm.Says(llm.User, text)}}))
			run, err := a.inquiries.Store.Keyed(t.Context(), fmt.Sprintf("turn-%d", i))
			if err != nil || run.Graph != library.Model {
				t.Fatalf("%+v, %v", run, err)
			}
			got = append(got, run.Way)
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%q: %s, want %s", config, s, want)
		}
		a.close()
	}
}
