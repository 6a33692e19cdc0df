package agent

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

func TestATaskIsDueOnTheDayThatSaysSo(t *testing.T) {
	for task, want := range map[string]string{
		"Call ➕ 2025-11-01 📅 2026-12-01":                          "2026-12-01 Call",
		"Call 🛫 2026-02-01 ⏳ 2026-03-01 ✅ 2026-01-01":             "2026-03-01 Call",
		"Call ⏳ 2026-03-01 📅\ufe0f 2026-03-09":                    "2026-03-09 Call",
		"Call ➕ 2025-11-01":                                       "",
		"Call [created:: 2025-11-01] [due:: 2026-12-01] by phone": "2026-12-01 Call by phone",
		"Send what was said on 2026-01-05 (due 2026-02-03)":       "2026-02-03 Send what was said on 2026-01-05",
		"Call 2026-02-03":                                         "2026-02-03 Call",
		"Call @2026-02-03":                                        "2026-02-03 Call",
		"Call due: 2026-02-03":                                    "2026-02-03 Call",
		"📅 2026-02-03":                                            "2026-02-03 📅 2026-02-03",
		"Call 2026-13-45":                                         "",
		"No day":                                                  "",
	} {
		day, text, ok := dayOf(task)
		got := ""
		if ok {
			got = day.Format(time.DateOnly) + " " + text
		}
		if got != want {
			t.Errorf("%q is due %q, not %q", task, got, want)
		}
	}
}

// What nobody wrote a day at is not forgotten: a briefing names the newest of it and says how much there is. Projects tell of theirs themselves.
func TestOpenTasksWithoutADayAreTold(t *testing.T) {
	changed := time.Date(2026, 2, 1, 12, 0, 0, 0, time.UTC)
	src := Sources{
		Tasks: func(context.Context) ([]Passage, error) {
			return []Passage{
				{Path: "old.md", Line: 1, Text: "- [ ] Old", At: changed.AddDate(0, -1, 0)},
				{Path: "new.md", Line: 1, Text: "- [ ] First\n- [ ] Later 2026-09-09", At: changed},
				{Path: "new.md", Line: 9, Text: "- [ ] Second\n- [ ] Third ➕ 2026-01-01", At: changed, Private: true},
				{Path: "new.md", Line: 10, Text: "- [ ] Third ➕ 2026-01-01", At: changed, Private: true}, // passages overlap
				{Path: "project.md", Line: 1, Text: "- [ ] Dig", At: changed},
			}, nil
		},
		Projects: func(context.Context) ([]Project, error) {
			return []Project{{Path: "project.md", Title: "P", Total: 1}}, nil
		},
	}
	all := gather(t.Context(), src, nil, nil, changed, changed)
	got := strings.ReplaceAll(fmt.Sprintf("%+v", all[len(all)-1]), "\n", " ")
	if want := "{Name:Open tasks without a day Facts:[{Text:Third ([[new]]) Private:true} {Text:Second ([[new]]) Private:true} {Text:First ([[new]]) Private:false}] More:1 Wrong:false}"; got != want {
		t.Errorf("%s, not\n%s", got, want)
	}
}

func TestABriefingsLeadKeepsToItsBudget(t *testing.T) {
	for budget, want := range map[string]string{"tokens: 700": "too long for a lead within 700 tokens", "time: 20ms": "had not written a lead within 20ms"} {
		b := newBench(t, map[string]string{"briefing": strings.Replace(briefingFile, "---\n", "---\nbudget: {"+budget+"}\n", 1)})
		b.config.Facts = eventful()
		b.config.Ask = slow{}
		x := b.start().ask("briefing", false)
		if x.State != Done || x.Over == "" || !strings.Contains(fmt.Sprint(x.Output.Remarks), want) || !strings.Contains(x.Output.Text, "Call the plumber") {
			t.Errorf("%s: %+v", budget, x.Run)
		}
	}
}

// slow answers nothing until it is not wanted any more.
type slow struct{}

func (slow) Stream(ctx context.Context, _ llm.Request) iter.Seq2[llm.Event, error] {
	return func(yield func(llm.Event, error) bool) {
		<-ctx.Done()
		yield(llm.Event{}, &llm.Error{Kind: llm.Cancelled, Message: "cancelled", Err: ctx.Err()})
	}
}

// What a file says and nothing heeds is a fault, so that nobody relies on it.
func TestWhatAKindDoesNotHeedIsAFault(t *testing.T) {
	for text, want := range map[string][]string{
		"kind: memory\nmodel: big\nbudget: {tokens: 5, time: 5m}":                                   {"model: is not what an agent of kind memory asks: leave it out, and set memory.model", "budget.tokens: bounds nothing of an agent of kind memory", "budget.time: bounds"},
		"kind: research\nmodel: big\nbudget: {tokens: 5}":                                           {"model: is not what answers the topics", "budget.tokens: bounds nothing of an agent of kind research: leave it out, and set the bounds of research"},
		"kind: briefing\nmodel: big\nbudget: {micro_usd: 5, tool_calls: 2, tokens: 9000, time: 5m}": {"budget.micro_usd: bounds nothing of an agent of kind briefing", "budget.tool_calls: bounds"},
		"budget: {micro_usd: 5, tool_calls: 2, tokens: 9000, time: 5m}":                             nil,
	} {
		_, faults := Parse("x", []byte("---\n"+text+"\n---\nSay it.\n"), time.UTC, nil)
		if len(faults) != len(want) {
			t.Errorf("%q: %v", text, faults)
		}
		for _, w := range want {
			contains(t, faults.Error(), w)
		}
	}
}
