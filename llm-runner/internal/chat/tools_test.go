package chat

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox"
	"home.arpa/lab/llm-runner/internal/toolbox/loop"
)

type noted struct {
	Text string `json:"text"`
}

// tooled opens a service whose answers may write notes, if a person says yes.
func tooled(t *testing.T, path string, notes *[]string) (*Service, *puppet, *toolbox.Box, func()) {
	t.Helper()
	var box *toolbox.Box
	wrap = func(d *db.DB, p llm.Provider) llm.Provider {
		var err error
		if box, err = toolbox.Open(t.Context(), d, toolbox.Config{Log: quiet()}); err != nil {
			t.Fatal(err)
		}
		err = box.Add(toolbox.Make(toolbox.Tool{Name: "note", Effects: true, Policy: toolbox.Ask}, func(_ context.Context, _ toolbox.Call, n noted) (toolbox.Result, error) {
			*notes = append(*notes, n.Text)
			return toolbox.Result{Text: "noted " + n.Text}, nil
		}))
		if err != nil {
			t.Fatal(err)
		}
		return loop.New(p, box, loop.Limits{})
	}
	defer func() { wrap = nil }()
	s, p, _, stop := durable(t, path)
	box.Tell(func(c toolbox.Call) {
		if err := s.Decided(context.Background(), c.Run); err != nil {
			t.Error(err)
		}
	}, nil)
	return s, p, box, stop
}

func TestAnAnswerWaitsForAPersonAndGoesOnInItsPlace(t *testing.T) {
	for name, restart := range map[string]bool{"in one process": false, "over a restart": true} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), db.Name)
			var notes []string
			s, p, box, stop := tooled(t, path, &notes)
			turn, err := s.Send(t.Context(), 0, 0, "note it", Options{Tools: true})
			if err != nil {
				t.Fatal(err)
			}
			w := watch(t, s, turn.ID)
			x := p.next(t)
			if len(x.req.Tools) != 1 || x.req.Run != "" {
				t.Fatalf("asked %+v", x.req)
			}
			x.say <- llm.Event{Route: &llm.Route{Provider: "p", Model: "m"}, Text: "I will."}
			x.say <- llm.Event{Call: &llm.CallDelta{ID: "c", Name: "note", Arguments: `{"text":"ferns"}`}}
			x.say <- llm.Event{Finish: llm.FinishTools, Usage: &llm.Usage{Output: llm.Known(3)}}
			w.until(t, Held)
			if restart {
				stop()
				s, p, box, _ = tooled(t, path, &notes)
				w = watch(t, s, turn.ID)
			}
			held, err := s.Turn(t.Context(), turn.ID)
			if err != nil || held.State != Held || !held.Due || !strings.Contains(held.Error, "your word on note") {
				t.Fatalf("%+v, %v", held, err)
			}
			waits, err := box.Waits(t.Context())
			if err != nil || len(waits) != 1 || waits[0].Run != held.RunName() || waits[0].Chat != turn.Chat {
				t.Fatalf("%+v, %v", waits, err)
			}
			if _, err := box.Decide(t.Context(), waits[0].ID, true); err != nil {
				t.Fatal(err)
			}
			x = p.next(t)
			last := x.req.Messages[len(x.req.Messages)-1]
			if last.Role != llm.Tool || last.Parts[0].Result.Text != "noted ferns" {
				t.Errorf("asked with %+v", last)
			}
			for _, m := range x.req.Messages {
				if m.Role == llm.Assistant && len(m.Parts) == 1 {
					t.Errorf("what the turn has said stands there twice: %+v", x.req.Messages)
				}
			}
			x.say <- llm.Event{Text: "Done."}
			x.say <- llm.Event{Finish: llm.FinishStop, Usage: &llm.Usage{Output: llm.Known(4)}}
			w.until(t, Finished)
			w.end(t, "I will.\n\nDone.")
			m, err := s.Message(t.Context(), turn.ID)
			if err != nil || m.Text != "I will.\n\nDone." || m.Turn.Usage.Output.Or(0) != 7 || m.Turn.Resumes != 0 || len(notes) != 1 {
				t.Errorf("%+v, %v, notes %v", m, err, notes)
			}
			c, err := s.Chat(t.Context(), turn.Chat)
			if err != nil || !c.Tools {
				t.Errorf("%+v, %v", c, err)
			}
		})
	}
}

func TestAnInterruptedAnswerRepeatsNoToolAndPaysNothingTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), db.Name)
	var notes []string
	s, p, box, stop := tooled(t, path, &notes)
	if err := box.SetPolicy(t.Context(), "note", 0, toolbox.Allow); err != nil {
		t.Fatal(err)
	}
	turn, err := s.Send(t.Context(), 0, 0, "note it", Options{Tools: true})
	if err != nil {
		t.Fatal(err)
	}
	x := p.next(t)
	x.say <- llm.Event{Call: &llm.CallDelta{ID: "c", Name: "note", Arguments: `{"text":"ferns"}`}}
	x.say <- llm.Event{Finish: llm.FinishTools}
	p.next(t).say <- llm.Event{Text: "It is no"}
	stop() // in the middle of the second answer

	s, p, _, _ = tooled(t, path, &notes)
	x = p.next(t)
	if last := x.req.Messages[len(x.req.Messages)-1]; last.Role != llm.Tool || len(notes) != 1 {
		t.Fatalf("notes %v, asked with %+v", notes, last)
	}
	x.say <- llm.Event{Text: "It is noted."}
	x.say <- llm.Event{Finish: llm.FinishStop}
	all, err := s.Branch(t.Context(), turn.Chat)
	if err != nil {
		t.Fatal(err)
	}
	newest := all[len(all)-1]
	text, last, _ := follow(t, s, newest.ID, 0)
	if text != "It is noted." || last.State != Finished || last.RunName() != turn.RunName() || len(notes) != 1 {
		t.Errorf("%q, %+v, notes %v", text, last, notes)
	}
}
