package agent

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/alert"
	"home.arpa/lab/llm-runner/internal/llm"
)

// heldUntil has the model be busy up to a time.
func (b *bench) heldUntil(free time.Time) {
	b.model.answer = func(int, llm.Request) (string, error) {
		if b.clock().Before(free) {
			return "", &llm.BusyError{Provider: "davas", Reason: "davas is down", Until: free}
		}
		return "At last.", nil
	}
}

// done are the runs that came to their end, with the due times that each is for.
func (b *bench) done() (all []string) {
	b.Helper()
	list, err := runs(b.Context(), b.db, `WHERE state = 'done' ORDER BY id`)
	if err != nil {
		b.Fatal(err)
	}
	for _, r := range list {
		all = append(all, fmt.Sprintf("%s x%d", r.Due.UTC().Format("02"), r.Covers))
	}
	return all
}

// Four due times pass while a run is held. What becomes of them is what becomes of times at which the machine was off.
func TestDueTimesThatPassWhileARunIsHeldFollowTheirPolicy(t *testing.T) {
	for missed, want := range map[Missed]string{Once: "[02 x1 06 x4 07 x1]", Each: "[02 x1 03 x1 04 x1 05 x1 06 x1 07 x1]", Skip: "[02 x1 07 x1]"} {
		t.Run(string(missed), func(t *testing.T) {
			b := newBench(t, map[string]string{"hello": strings.Replace(daily, "---\n", "---\nmissed: "+string(missed)+"\n", 1)}).start()
			b.settle()
			b.heldUntil(at(t, "2026-02-06 12:00"))
			b.until(at(t, "2026-02-07 12:00"))
			if got := fmt.Sprint(b.done()); got != want {
				t.Errorf("%s, not %s", got, want)
			}
			if missed != Once {
				return
			}
			all, err := b.History(t.Context(), "hello", 10)
			if err != nil {
				t.Fatal(err)
			}
			contains(t, fmt.Sprint(b.detail(all[1].ID).Output.Remarks), "this run is for 4 due times")
			if all[2].State != Cancelled || all[2].Reason != fmt.Sprintf("it was missed while the run before it went on; run %d is for it as well", all[1].ID) {
				t.Errorf("%+v", all[2])
			}
		})
	}
}

func TestAPauseEndsWhatIsPlannedAndNotWhatHasBegun(t *testing.T) {
	b := newBench(t, map[string]string{"hello": strings.Replace(daily, "---\n", "---\nmissed: run\n", 1)}).start()
	b.settle()
	b.heldUntil(at(t, "2026-02-06 12:00"))
	b.until(at(t, "2026-02-04 12:00"))
	if _, err := b.Pause(t.Context(), "hello", true); err != nil {
		t.Fatal(err)
	}
	b.until(at(t, "2026-02-08 12:00"))
	if _, err := b.Pause(t.Context(), "hello", false); err != nil {
		t.Fatal(err)
	}
	b.until(at(t, "2026-02-09 12:00"))
	if got := fmt.Sprint(b.done()); got != "[02 x1 09 x1]" {
		t.Error(got)
	}
}

func TestWhatACancelledRunHasCalledEndsHoweverDeep(t *testing.T) {
	b := newBench(t, map[string]string{"hello": daily}).start()
	var all []int64
	for depth := range 3 {
		r := Run{Agent: "hello", Cause: ByAgent, Due: b.clock(), Covers: 1, Depth: depth, State: Running, key: fmt.Sprint(depth)}
		if depth > 0 {
			r.Parent = all[depth-1]
		}
		r, err := b.plan(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r.ID)
	}
	if _, err := b.Cancel(t.Context(), all[0]); err != nil {
		t.Fatal(err)
	}
	for _, id := range all[1:] {
		if r, err := b.Run1(t.Context(), id); err != nil || r.State != Failed || r.Ended.IsZero() {
			t.Errorf("%+v, %v", r, err)
		}
	}
}

func TestADeliveryThatIsGivenUpIsToldOnce(t *testing.T) {
	b := newBench(t, map[string]string{"hello": daily}).start()
	b.model.answer = func(int, llm.Request) (string, error) { return strings.Repeat("A long sentence. ", 300), nil }
	b.posts.fault = func() (time.Duration, error) { return 0, errors.New("Discord answered 400 Bad Request") }
	x := b.ask("hello", false)
	if x.State != Done || len(x.Deliveries) != 4 {
		t.Fatalf("%+v", x)
	}
	told, err := alert.List(t.Context(), b.db, 10)
	if want := fmt.Sprintf("What the agent hello says could not be delivered to discord: Discord answered 400 Bad Request. It is on the page of run %d.", x.ID); err != nil || len(told) != 1 || told[0].Text != want {
		t.Errorf("%+v, %v", told, err)
	}
}

// A folder that is synchronised, or an editor at work, takes a file away for moments.
func TestARunWhoseFileIsAwayForAWhileGoesOn(t *testing.T) {
	b := newBench(t, map[string]string{"hello": daily}).start()
	b.heldUntil(b.clock().Add(time.Hour))
	x := b.ask("hello", false)
	b.write("hello", "---\nhalf: of it\n---\n")
	b.until(b.clock().Add(time.Hour + time.Minute))
	if x = b.detail(x.ID); x.State != Waiting || !strings.Contains(x.Reason, "hello.md") {
		t.Fatalf("%+v", x.Run)
	}
	b.write("hello", daily)
	b.until(b.clock().Add(time.Hour))
	if x = b.detail(x.ID); x.State != Done || len(b.posts.posts()) != 1 {
		t.Errorf("%+v", x.Run)
	}
}

// What watches from outside sees an agent whose runs come to nothing, and one that nobody looks after.
func TestAnAgentThatDoesNotKeepUpIsSeen(t *testing.T) {
	b := newBench(t, map[string]string{"hello": daily, "asked": "Only when asked.\n"}).start()
	b.settle()
	standing := func() Standing {
		t.Helper()
		all, err := b.Standings(t.Context())
		if err != nil || len(all) != 1 || all[0].Agent != "hello" {
			t.Fatalf("%+v, %v", all, err)
		}
		return all[0]
	}
	b.until(at(t, "2026-02-02 12:00"))
	if x := standing(); x.Overdue != 0 || !x.Done.Equal(at(t, "2026-02-02 06:00")) {
		t.Errorf("%+v", x)
	}
	b.heldUntil(at(t, "2026-02-10 12:00"))
	b.until(at(t, "2026-02-05 06:00"))
	if x := standing(); x.Overdue != 48*time.Hour || !x.Done.Equal(at(t, "2026-02-02 06:00")) {
		t.Errorf("held: %+v", x)
	}
	b.until(at(t, "2026-02-10 12:00"))
	if x := standing(); x.Overdue != 0 {
		t.Errorf("it has caught up: %+v", x)
	}
	b.at(at(t, "2026-02-12 07:00")) // and nobody looks for what is due
	if x := standing(); x.Overdue != 25*time.Hour {
		t.Errorf("not looked after: %+v", x)
	}
}

// A run that waits for the limit of a fallback goes on when the machine that it was meant for is there again.
func TestARunHeldForAFallbackGoesOnWhenItsMachineIsBack(t *testing.T) {
	b := newBench(t, map[string]string{"hello": daily, "other": "---\nmodel: big\n---\nSay it.\n"})
	b.config.Lane = func(req llm.Request) string {
		if req.Model == "big" {
			return "elsewhere"
		}
		return "davas"
	}
	b.start()
	b.model.answer = func(n int, _ llm.Request) (string, error) {
		if n <= 2 {
			return "", &llm.BusyError{Provider: "groq", Reason: "groq: used up", Until: b.clock().Add(8 * time.Hour)}
		}
		return "Back.", nil
	}
	x, other := b.ask("hello", false), b.ask("other", false)
	if err := b.Back(t.Context(), "davas"); err != nil {
		t.Fatal(err)
	}
	b.settle()
	if x, other = b.detail(x.ID), b.detail(other.ID); x.State != Done || other.State != Waiting {
		t.Errorf("%s, %s", x.State, other.State)
	}
}
