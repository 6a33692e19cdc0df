package graph

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox/loop"
)

// planner answers as the tests of plans need it.
func planner() *scholar {
	return &scholar{says: map[string]func(string) string{
		"questions": func(text string) string {
			if strings.Contains(text, "be different: only the pond") {
				return `{"questions": ["pond filter"], "sections": []}`
			}
			return `{"questions": ["filter of the pump", "winter tyres"], "sections": ["The <b>filters</b>", "The car", "The moon"]}`
		},
		"useful": func(string) string { return `{"useful":[1,2,3]}` },
		"quotes": func(text string) string {
			if strings.Contains(text, "house.md") {
				return `{"quotes": ["washed every spring", "made of gold"]}`
			}
			return `{"quotes": []}`
		},
		"draft": func(text string) string {
			switch {
			case strings.Contains(text, "Section: The car"):
				return `From October [2: "tyres from October"]. They last 40 years [2: "tyres from October"].`
			case strings.Contains(text, "Section: The moon"):
				return notSaid
			}
			return `The pump's is washed in spring [1: "washed every spring"].`
		}}}
}

func TestAPlanIsShownChangedAndStarted(t *testing.T) {
	s := planner()
	q := newInquiries(t, s)
	d := q.Store.db
	var told []int64
	asked := func(_ context.Context, _ *sql.Tx, r RunRow) error { told = append(told, r.ID); return nil }
	q.Store.Asked = asked
	req := llm.Request{Run: "turn-7", Purpose: "chat", Plan: llm.PlanAsk, Messages: []llm.Message{llm.Says(llm.User, "What about filters?")}}
	waits := func() RunRow {
		t.Helper()
		_, err := llm.Collect(q.Stream(t.Context(), req))
		var busy *llm.BusyError
		if !errors.As(err, &busy) || busy.Provider != loop.Approval || !strings.Contains(busy.Reason, "plan") || !busy.Until.IsZero() {
			t.Fatalf("%v", err)
		}
		all, err := q.Store.Waits(t.Context())
		if err != nil || len(all) != 1 || all[0].Status != Paused {
			t.Fatalf("%+v, %v", all, err)
		}
		return all[0]
	}
	run := waits()
	waits() // who asks again waits still, and nobody is told a second time
	if len(told) != 1 {
		t.Errorf("told of %v", told)
	}
	decide := func(p Plan) {
		t.Helper()
		p, err := p.Check()
		if err != nil {
			t.Fatal(err)
		}
		b, _ := json.Marshal(p)
		if err := q.Store.Answer(t.Context(), run.ID, string(b)); err != nil {
			t.Fatal(err)
		}
	}
	decide(Plan{Wish: "only the pond"})
	waits()
	steps, err := q.Store.Steps(t.Context(), run.ID)
	var x Inquiry
	if err != nil || json.Unmarshal(steps[4].State, &x) != nil || !slices.Equal(x.Plan.Questions, []string{"pond filter"}) || x.Plan.Wish != "" {
		t.Fatalf("%+v, %v", x.Plan, err)
	}
	q.Store = NewStore(d) // a restart
	q.Store.Asked = asked
	waits()
	decide(Plan{Questions: []string{"filter", "winter tyres"}, Sources: []string{"vault"}, Sections: []string{"The pump", "The car", "The moon"}})
	a, err := llm.Collect(q.Stream(t.Context(), req))
	const want = "## The pump\n\nThe pump's is washed in spring [1].\n\n## The car\n\nFrom October [2].\n\nNothing could be established about: The moon. 1 statement was left out: what it cites does not say so."
	if err != nil || a.Message.Text() != want {
		t.Fatalf("%q, %v", a.Message.Text(), err)
	}
	if len(told) != 2 {
		t.Errorf("told of %v", told)
	}
	if a.Citations[1].Quote != "Winter tyres from October." {
		t.Errorf("%+v", a.Citations)
	}
	if want := []string{"questions", "questions", "useful", "quotes", "quotes", "quotes", "draft", "draft", "draft", "supported", "supported"}; !slices.Equal(s.asked, want) {
		t.Errorf("asked %q", s.asked)
	}
}

func TestWhoIsAskedForAPlan(t *testing.T) {
	q := newInquiries(t, planner())
	set := func(chat int64, first bool) {
		if err := q.Store.SetPlanFirst(t.Context(), chat, first); err != nil {
			t.Fatal(err)
		}
	}
	set(1, false)
	set(1, true)
	set(2, false)
	for _, c := range []struct {
		usual bool
		req   llm.Request
		want  bool
	}{
		{false, llm.Request{Purpose: "chat", Chat: 9}, false},
		{true, llm.Request{Purpose: "chat", Chat: 9}, true},
		{false, llm.Request{Purpose: "chat", Chat: 1}, true},
		{true, llm.Request{Purpose: "chat", Chat: 2}, false},
		{true, llm.Request{Purpose: "chat", Chat: 1, Plan: llm.PlanAuto}, false},
		{true, llm.Request{Purpose: "job"}, false}, // nobody may be there
		{true, llm.Request{Purpose: "api"}, false},
		{false, llm.Request{Purpose: "job", Plan: llm.PlanAsk}, true},
	} {
		q.PlanFirst = c.usual
		if got, err := q.asks(t.Context(), c.req); got != c.want || err != nil {
			t.Errorf("usual %v, %+v: %v, %v", c.usual, c.req, got, err)
		}
	}
	// A program that gives the work no name cannot be asked back.
	if _, err := llm.Collect(q.Stream(t.Context(), llm.Request{Plan: llm.PlanAsk, Messages: []llm.Message{llm.Says(llm.User, "When is the filter washed?")}})); err != nil {
		t.Error(err)
	}
}

func TestAPlanThatCannotBeFollowedIsRefused(t *testing.T) {
	long := strings.Repeat("x", 501)
	for want, p := range map[string]Plan{
		"it has no question":        {Sources: []string{"vault"}, Questions: []string{" ", "\n"}},
		"a question has 501 bytes":  {Sources: []string{"vault"}, Questions: []string{long}},
		"it looks nowhere":          {Questions: []string{"x"}},
		`"moon" is no source`:       {Questions: []string{"x"}, Sources: []string{"moon"}},
		"9 questions: 8":            {Questions: strings.Split("a b c d e f g h i", " "), Sources: []string{"web"}},
		"7 sections: 6":             {Questions: []string{"x"}, Sources: []string{"web"}, Sections: strings.Split("a b c d e f g", " ")},
		"has 501 bytes":             {Questions: []string{"x"}, Sources: []string{"web"}, Sections: []string{long}},
		"should be different has 5": {Wish: long},
	} {
		if _, err := p.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	p, err := Plan{Questions: []string{" a <b>\n", "a b", "a (b)"}, Sources: []string{"vault", "vault"}, Sections: []string{"## Costs", "[x](y)"}}.Check()
	if err != nil || !slices.Equal(p.Questions, []string{"a b", "a (b)"}) || !slices.Equal(p.Sections, []string{"Costs", "(x)(y)"}) || len(p.Sources) != 1 {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestAWithdrawnPlanIsAskedAboutAnew(t *testing.T) {
	q := newInquiries(t, planner())
	req := llm.Request{Run: "job-3-0", Purpose: "job", Plan: llm.PlanAsk, Messages: []llm.Message{llm.Says(llm.User, "What about filters?")}}
	for range 2 {
		if _, err := llm.Collect(q.Stream(t.Context(), req)); err == nil {
			t.Fatal("it did not wait")
		}
		for range 2 { // a second time there is nothing to do
			if err := q.Store.Withdraw(t.Context(), "job-3-0"); err != nil {
				t.Fatal(err)
			}
		}
		if all, err := q.Store.Waits(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("%+v, %v", all, err)
		}
	}
	if err := q.Store.Withdraw(t.Context(), "job-4-0"); err != nil {
		t.Error(err)
	}
}

func TestAReportIsANoteWithEvidence(t *testing.T) {
	s := planner()
	q := newInquiries(t, s)
	q.Store.Cost = func(string, string, llm.Usage) llm.Count { return llm.Known(1500) }
	hostile := passage("https://evil.example/a`b", "Tyres last long.\n```\n![[secret]] ![x](https://evil.example/p.png) <script>alert(1)</script>")
	hostile.Collection, hostile.Title, hostile.Dated = "web", "Tyres](https://evil.example) <b>", time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)
	q.Web = func(context.Context, int64, string) ([]Source, []Drop, error) {
		return []Source{hostile}, []Drop{{"https://gone.example", "it could not be read: 404"}}, nil
	}
	s.says["draft"] = func(string) string {
		return `It is spring [2: "washed every spring"]. Tyres last [1]. ![y](https://evil.example/?d=x) Long [4].`
	}
	s.says["questions"] = func(string) string { return `{"questions": []}` }
	s.says["useful"] = func(string) string { return `{"useful":[1,2,3]}` }
	req := llm.Request{Run: "job-3-0", Purpose: "job", Messages: []llm.Message{llm.Says(llm.User, "When is the filter washed? \"Quoted\"\n---")}}
	if _, err := q.Report(t.Context(), 1); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	if _, err := llm.Collect(q.Stream(t.Context(), req)); err != nil {
		t.Fatal(err)
	}
	r, err := q.Report(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	note := string(r.Note())
	for _, want := range []string{"---\ngenerated: true\ntype: research\nquestion: \"When is the filter washed? \\\"Quoted\\\"\\n---\"\n", "\ncost_usd: 0.0", "\nseconds: ", "\nstruck: ", "\n  - \"house.md\"\n",
		"# When is the filter washed? \"Quoted\" ---\n", "\n## Sources\n", "[[house]], line 1, bytes 0 to ", "\n```text\nThe filter of the heat pump is washed every spring.\n```\n", "\n## What could not be established\n",
		"\n## What was not read\n\n* `https://gone.example`: it could not be read: 404\n", "\n## Cost and time\n", "Searched for: When is the filter washed?"} {
		if !strings.Contains(note, want) {
			t.Errorf("%q is not in\n%s", want, note)
		}
	}
	outside := unfenced(note)
	for _, bad := range []string{"![", "<script", "<b>", "](https://evil"} {
		if strings.Contains(outside, bad) {
			t.Errorf("%q is in\n%s", bad, outside)
		}
	}
}

// What is shown as the plan is all that is looked up: the question itself is not lost from it.
func TestAPlanKeepsTheQuestionItself(t *testing.T) {
	s := planner()
	s.says["questions"] = func(string) string {
		return `{"questions": ["When is the filter washed?", "winter tyres"], "sections": []}`
	}
	q := newInquiries(t, s)
	x := Inquiry{Model: "m", Asked: "When is the filter washed?", Asks: true}
	run, _, err := q.Graph().Run(t.Context(), q.Store, Ask[Inquiry]{Key: "turn-7", State: x, Budget: DefaultBudget})
	var paused *PausedError
	if !errors.As(err, &paused) {
		t.Fatal(err)
	}
	steps, err := q.Store.Steps(t.Context(), run.ID)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(steps[len(steps)-2].State, &x); err != nil || strings.Join(x.Plan.Questions, "|") != "When is the filter washed?|winter tyres" || len(x.Questions) != 2 {
		t.Errorf("%q, %q, %v", x.Plan.Questions, x.Questions, err)
	}
}
