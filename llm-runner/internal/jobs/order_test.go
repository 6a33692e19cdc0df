package jobs

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/quick"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

func TestNoJobIsOvertakenForLongerThanTheStepsBetweenPriorities(t *testing.T) {
	start := time.Date(2026, 3, 29, 0, 59, 0, 0, time.UTC)
	if err := quick.Check(func(p, q uint8, later uint32) bool {
		mine, other := int(p%9)+1, int(q%9)+1
		after := time.Duration(later%uint32(4*time.Hour/time.Millisecond)) * time.Millisecond
		overtakes := order(start.Add(after), other) < order(start, mine)
		return overtakes == (after < time.Duration(mine-other)*overtaking)
	}, nil); err != nil {
		t.Error(err)
	}
}

func TestALineGoesByPriorityAndLanesDoNotWaitForEachOther(t *testing.T) {
	const places = 8
	began, end := make(chan string, 100), make(chan struct{})
	p := &answers{answer: func(ctx context.Context, req llm.Request, n int) (string, error) {
		began <- req.Messages[0].Text()
		if req.Model == "gpu" {
			<-end
		}
		return echo(ctx, req, n)
	}}
	s := open(t, t.TempDir()+"/runner.db", p)
	s.config.Lane = func(req llm.Request) string { return req.Model }
	for range places {
		submit(t, s, Spec{Prompt: "block", Model: "gpu"})
	}
	for range places {
		<-began
	}
	var last Job
	for _, x := range []struct {
		prompt   string
		priority int
	}{{"third", 5}, {"fourth", 9}, {"second", 2}, {"first", 1}} {
		last = submit(t, s, Spec{Prompt: x.prompt, Model: "gpu", Priority: x.priority})
	}
	reach(t, s, submit(t, s, Spec{Prompt: "elsewhere", Model: "cloud"}).ID, Done)
	if got := <-began; got != "elsewhere" {
		t.Fatal(got)
	}
	if last, err := s.Job(t.Context(), last.ID); err != nil || last.Position != 1 {
		t.Errorf("the last one in is at place %d", last.Position)
	}
	var got []string
	for range 4 {
		end <- struct{}{}
		got = append(got, <-began)
	}
	if !slices.Equal(got, []string{"first", "second", "third", "fourth"}) {
		t.Error(got)
	}
	close(end)
	reach(t, s, last.ID, Done)
}

// limited is a provider with a limit that lets room requests through; the tests open it.
type limited struct {
	answers
	room int
}

func newLimited() *limited {
	p := &limited{}
	p.answer = func(ctx context.Context, req llm.Request, n int) (string, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.room == 0 {
			return "", &llm.BusyError{Provider: "p", Model: "m", Kind: llm.Quota, Reason: "used up", Dimension: "requests/minute", Until: time.Now().Add(time.Hour)}
		}
		p.room--
		return echo(ctx, req, n)
	}
	return p
}

func (p *limited) give(n int) {
	p.mu.Lock()
	p.room = n
	p.mu.Unlock()
}

func TestRoomThatComesBackIsForTheFirstInLineNotForWhoAsksFirst(t *testing.T) {
	p := newLimited()
	s := open(t, t.TempDir()+"/runner.db", p)
	s.config.Lane = func(llm.Request) string { return "p" }
	s.config.Turn = func(string, string, int, int) time.Time {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.room == 0 {
			return time.Now().Add(time.Hour)
		}
		return time.Now()
	}
	a, b := submit(t, s, Spec{Prompt: "a"}), submit(t, s, Spec{Prompt: "b", Priority: 1})
	other := submit(t, s, Spec{Prompt: "other", Model: "x"}) // asks for something else: another line
	for _, j := range []Job{a, b, other} {
		if j = reach(t, s, j.ID, Held); j.Dimension != "requests/minute" || j.WaitsModel != "m" {
			t.Errorf("%+v", j)
		}
	}
	p.give(1)
	late := submit(t, s, Spec{Prompt: "late"})
	reach(t, s, b.ID, Done)
	if j := reach(t, s, late.ID, Held); j.ResumeAt.Before(time.Now().Add(50*time.Minute)) || j.Reason != "used up" {
		t.Errorf("%+v", j)
	}
	p.give(2)
	later := submit(t, s, Spec{Prompt: "later"}) // lets a go, and is held in its place
	reach(t, s, a.ID, Done)
	if _, err := s.Release(t.Context(), later.ID); err != nil { // a person's word is above the line's
		t.Fatal(err)
	}
	reach(t, s, later.ID, Done)
	for id, want := range map[int64]string{b.ID: "queued running held queued running done", late.ID: "queued held",
		later.ID: "queued held queued running done", other.ID: "queued running held"} {
		if got := course(t, s, id); got != want {
			t.Errorf("job %d: %s", id, got)
		}
	}
}

func TestRoomThatIsThereEarlyIsUsedEarlyByTheFirstInLine(t *testing.T) {
	p := newLimited()
	s := open(t, t.TempDir()+"/runner.db", p)
	s.config.Lane = func(llm.Request) string { return "p" }
	s.config.Turn = func(_, _ string, _, ahead int) time.Time {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.room <= ahead {
			return time.Now().Add(time.Hour)
		}
		return time.Now()
	}
	var all []Job
	for _, prompt := range []string{"1", "2", "3"} {
		j := submit(t, s, Spec{Prompt: prompt})
		all = append(all, reach(t, s, j.ID, Held))
	}
	if err := s.Room(t.Context(), "p"); err != nil { // there is none yet
		t.Fatal(err)
	}
	p.give(2)
	if err := s.Room(t.Context(), "another"); err != nil {
		t.Fatal(err)
	}
	for _, j := range all {
		if got := reach(t, s, j.ID, Held); got.State != Held {
			t.Fatalf("%+v", got)
		}
	}
	if err := s.Room(t.Context(), "p"); err != nil {
		t.Fatal(err)
	}
	reach(t, s, all[0].ID, Done)
	reach(t, s, all[1].ID, Done)
	if got := course(t, s, all[2].ID); got != "queued running held" {
		t.Error(got)
	}
}

func TestALineComesBackAtItsTurnsInItsOrder(t *testing.T) {
	p := newLimited()
	s := open(t, t.TempDir()+"/runner.db", p)
	opens := time.Now().Add(8 * time.Second)
	const apart = 1100 * time.Millisecond // the engine looks for what is due once a second
	s.config.Lane = func(llm.Request) string { return "p" }
	s.config.Turn = func(_, _ string, _, ahead int) time.Time { return opens.Add(time.Duration(ahead) * apart) }
	refuse := p.answer
	p.answer = func(ctx context.Context, req llm.Request, n int) (string, error) {
		_, err := refuse(ctx, req, n)
		var busy *llm.BusyError
		if errors.As(err, &busy) {
			busy.Until = opens
		}
		return "ok", err
	}
	var all []Job
	for _, prompt := range []string{"1", "2", "3"} {
		j := submit(t, s, Spec{Prompt: prompt})
		all = append(all, reach(t, s, j.ID, Held))
	}
	for i, j := range all {
		if early := opens.Add(time.Duration(i) * apart).Sub(j.ResumeAt); early > time.Millisecond || early < -spread {
			t.Errorf("job %d goes on %s before its turn", j.ID, early)
		}
	}
	p.give(3)
	for _, j := range all {
		reach(t, s, j.ID, Done)
	}
	if got := p.prompts(); !slices.Equal(got, []string{"1", "2", "3", "1", "2", "3"}) {
		t.Errorf("asked for %v: each once in vain and once at its turn", got)
	}
}

// Who else could answer is broken, which passes long before the limit has room: the job looks sooner, and no attempt is counted.
func TestAJobLooksSoonerWhereAFallbackIsOnlyBroken(t *testing.T) {
	p := newLimited()
	s := open(t, t.TempDir()+"/runner.db", p)
	s.config.Turn = func(string, string, int, int) time.Time { return time.Now().Add(20 * time.Hour) }
	p.answer = func(context.Context, llm.Request, int) (string, error) {
		return "", &llm.BusyError{Provider: "p", Model: "m", Kind: llm.Quota, Reason: "used up", Dimension: "requests/day", Until: time.Now().Add(20 * time.Hour), Broken: true}
	}
	j := submit(t, s, Spec{Prompt: "a"})
	for n, want := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute} {
		j = reach(t, s, j.ID, Held)
		if wait := time.Until(j.ResumeAt); wait < want-10*time.Second || wait > want+2*spread || j.Attempts != 0 || j.Holds != n+1 {
			t.Errorf("hold %d: it looks again after %s: %+v", n+1, wait, j)
		}
		holds := j.Holds
		if _, err := s.Release(t.Context(), j.ID); err != nil {
			t.Fatal(err)
		}
		for j = reach(t, s, j.ID, Held); j.Holds == holds; j = reach(t, s, j.ID, Held) {
		}
	}
}

func TestATimeThatAFaultNamesIsWaitedFor(t *testing.T) {
	p := &answers{answer: func(context.Context, llm.Request, int) (string, error) {
		return "", &llm.BusyError{Provider: "p", Kind: llm.Unavailable, Reason: "502", Until: time.Now().Add(time.Hour), Err: &llm.Error{Kind: llm.Unavailable, Status: 502}}
	}}
	s := open(t, t.TempDir()+"/runner.db", p)
	j := submit(t, s, Spec{Prompt: "a"})
	if j = reach(t, s, j.ID, Held); time.Until(j.ResumeAt) < 55*time.Minute || j.Attempts != 1 {
		t.Errorf("%+v", j)
	}
}

// A job that is held for its fallback's limit, since its own machine was down, goes on when that is back.
func TestAMachineThatIsBackIsForThoseWhoWaitForItsFallbackToo(t *testing.T) {
	p := newLimited()
	s := open(t, t.TempDir()+"/runner.db", p)
	lane := "p"
	s.config.Lane = func(llm.Request) string { return lane }
	j := submit(t, s, Spec{Prompt: "a"})
	reach(t, s, j.ID, Held)
	p.give(1)
	if err := s.Back(t.Context(), "davas"); err != nil {
		t.Fatal(err)
	}
	if j = reach(t, s, j.ID, Held); j.WaitsFor != "p" {
		t.Errorf("%+v", j)
	}
	lane = "davas"
	if err := s.Back(t.Context(), "davas"); err != nil {
		t.Fatal(err)
	}
	reach(t, s, j.ID, Done)
}
