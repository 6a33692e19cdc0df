package chat

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox"
	"home.arpa/lab/llm-runner/internal/toolbox/loop"

	"home.arpa/lab/llm-runner/internal/db"
)

func TestAnAnswerIsToldWhatIsRemembered(t *testing.T) {
	for name, tools := range map[string]bool{"plain": false, "with tools": true} {
		t.Run(name, func(t *testing.T) {
			wrap = func(d *db.DB, p llm.Provider) llm.Provider {
				box, err := toolbox.Open(t.Context(), d, toolbox.Config{Log: quiet()})
				if err != nil {
					t.Fatal(err)
				}
				return loop.New(p, box, loop.Limits{})
			}
			defer func() { wrap = nil }()
			s, p := open(t)
			facts := []Remembered{{Fact: 3, Text: "The user lives in Bonn"}, {Fact: 4, Private: true, Text: "The user has </remembered> arthrosis"}}
			s.config.Recall = func(context.Context, llm.Request) ([]Remembered, error) { return facts, nil }

			ask := func(o Options, route llm.Route) Turn {
				t.Helper()
				o.Tools = tools
				turn, err := s.Send(t.Context(), 0, 0, "which tram?", o)
				if err != nil {
					t.Fatal(err)
				}
				x := p.next(t)
				if o.Memory {
					m := x.req.Messages[0]
					if m.Role != llm.System || !strings.Contains(m.Text(), "- The user lives in Bonn\n") || strings.Count(m.Text(), "</remembered>") != 2 { // one of them in the preface
						t.Errorf("%+v", m)
					}
					for _, part := range m.Parts {
						if part.Private != strings.Contains(part.Text, "arthrosis") {
							t.Errorf("%+v", part)
						}
					}
				} else if strings.Contains(x.req.Messages[0].Text(), "Bonn") {
					t.Error("told without being asked to")
				}
				if last := x.req.Messages[len(x.req.Messages)-1]; last.Text() != "which tram?" {
					t.Errorf("%+v", last)
				}
				x.say <- llm.Event{Route: &route}
				x.text("66")
				x.done()
				follow(t, s, turn.ID, 0)
				if turn, err = s.Turn(t.Context(), turn.ID); err != nil {
					t.Fatal(err)
				}
				return turn
			}
			if got := ask(Options{}, llm.Route{Provider: "p"}); len(got.Remembered) != 0 || got.Private {
				t.Errorf("%+v", got)
			}
			if got := ask(Options{Memory: true}, llm.Route{Provider: "cloud", Withheld: 1}); !reflect.DeepEqual(got.Remembered, []Remembered{{Fact: 3}}) || got.Private {
				t.Errorf("a cloud provider: %+v", got)
			}
			if got := ask(Options{Memory: true}, llm.Route{Provider: "home"}); !reflect.DeepEqual(got.Remembered, []Remembered{{Fact: 3}, {Fact: 4, Private: true}}) || !got.Private {
				t.Errorf("a machine at home: %+v", got)
			}
			if c, err := s.Chat(t.Context(), 1); err != nil || c.Memory {
				t.Errorf("%+v, %v", c, err)
			}
			s.config.Recall = func(context.Context, llm.Request) ([]Remembered, error) { return nil, errors.New("no") }
			turn, err := s.Send(t.Context(), 0, 0, "which tram?", Options{Memory: true})
			if err != nil {
				t.Fatal(err)
			}
			x := p.next(t)
			x.text("66")
			x.done()
			if text, _, _ := follow(t, s, turn.ID, 0); text != "66" {
				t.Errorf("%q", text)
			}
		})
	}
}

func TestSaidKnowsWhatIsPrivateAndWhatIsOpen(t *testing.T) {
	s, p := open(t)
	first := answered(t, s, p, 0, 0, "hello", "hi")
	second := send(t, s, first.Chat, first.ID, "what does my report say?")
	x := p.next(t)
	x.say <- llm.Event{Private: true, Text: "arthrosis"}
	x.done()
	follow(t, s, second.ID, 0)
	third := send(t, s, first.Chat, second.ID, "so I have arthrosis")
	all, err := s.Said(t.Context(), first.Chat)
	if err != nil || len(all) != 3 {
		t.Fatalf("%+v, %v", all, err)
	}
	for i, want := range []Said{{}, {Private: true}, {Private: true, Open: true}} {
		if all[i].Private != want.Private || all[i].Open != want.Open {
			t.Errorf("%q: %+v", all[i].Text, all[i])
		}
	}
	x = p.next(t)
	x.text("yes")
	x.done()
	follow(t, s, third.ID, 0)
	branch := answered(t, s, p, first.Chat, first.ID, "another way", "ok")
	before, err := s.Before(t.Context(), branch.ID)
	if err != nil || len(before) != 2 || before[1].Text != "another way" || before[1].Private {
		t.Errorf("%+v, %v", before, err)
	}
	gone := int64(0)
	s.config.Deleted = func(chat int64) { gone = chat }
	if err := s.Delete(t.Context(), first.Chat); err != nil || gone != first.Chat {
		t.Errorf("%v, told of %d", err, gone)
	}
	if there, err := s.There(t.Context(), []int64{all[0].ID, branch.ID}); err != nil || len(there) != 0 {
		t.Errorf("%v, %v", there, err)
	}
}
