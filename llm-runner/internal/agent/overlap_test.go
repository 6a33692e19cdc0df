package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox"
)

// An office is two agents that may call each other, and whose models answer when the test lets them.
type office struct {
	*bench
	mu     sync.Mutex
	atWork map[string]int
	most   int                      // of one agent at once
	begun  chan string              // whose model was asked
	let    map[string]chan struct{} // one for each answer
	calls  map[string]string
}

func newOffice(t *testing.T) *office {
	o := &office{bench: newBench(t, map[string]string{"boss": "---\ntools: [agent_clerk]\n---\nBoss.\n", "clerk": "---\ntools: [agent_boss]\n---\nClerk.\n"}),
		atWork: map[string]int{}, begun: make(chan string, 100), let: map[string]chan struct{}{"Boss": make(chan struct{}, 100), "Clerk": make(chan struct{}, 100)}, calls: map[string]string{"Boss": `call agent_clerk {"task":"count"}`}}
	o.box = true
	o.model.answer = func(_ int, req llm.Request) (string, error) {
		who := strings.TrimSuffix(req.Messages[1].Text(), ".")
		if last := req.Messages[len(req.Messages)-1]; last.Role == llm.Tool {
			return who + " heard: " + last.Parts[0].Result.Text, nil
		}
		o.mu.Lock()
		o.atWork[who]++
		o.most = max(o.most, o.atWork[who])
		o.mu.Unlock()
		o.begun <- who
		<-o.let[who]
		o.mu.Lock()
		o.atWork[who]--
		o.mu.Unlock()
		if call := o.calls[who]; call != "" {
			return call, nil
		}
		return who + " is done.", nil
	}
	o.start()
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { o.Service.Run(ctx) }) //nolint:errcheck // it ends with its context
	t.Cleanup(func() {
		o.lets(50)
		stop()
		running.Wait()
	})
	return o
}

// lets everybody answer so often.
func (o *office) lets(n int) {
	for _, let := range o.let {
		for range n {
			let <- struct{}{}
		}
	}
}

// asks has an agent run, and returns its run.
func (o *office) asks(name string) Run {
	o.Helper()
	r, err := o.Start(o.Context(), name, false, "")
	if err != nil {
		o.Fatal(err)
	}
	return r
}

func (o *office) expect(want string) {
	o.Helper()
	select {
	case got := <-o.begun:
		if got != want {
			o.Fatalf("%s began, not %s", got, want)
		}
	case <-time.After(30 * time.Second):
		o.Fatalf("%s did not begin", want)
	}
}

func (o *office) ends(id int64) Detail {
	o.Helper()
	ctx, cancel := context.WithTimeout(o.Context(), 30*time.Second)
	defer cancel()
	if _, err := o.Await(ctx, id); err != nil {
		o.Fatalf("run %d: %+v, %v", id, o.detail(id).Run, err)
	}
	return o.detail(id)
}

// planned waits until a run of an agent stands there that has not begun.
func (o *office) planned(agent string) {
	o.Helper()
	for limit := time.After(30 * time.Second); ; {
		changed := o.Changed()
		all, err := runs(o.Context(), o.db, `WHERE agent = ? AND state = 'planned'`, agent)
		if err != nil {
			o.Fatal(err)
		}
		if len(all) > 0 {
			return
		}
		select {
		case <-changed:
		case who := <-o.begun:
			o.Fatalf("%s began beside it", who)
		case <-limit:
			o.Fatalf("no run of %s waits", agent)
		}
	}
}

// bothAsk has the clerk work for the boss, and a person ask for the clerk then.
func (o *office) bothAsk() (boss, clerk Run) {
	o.Helper()
	boss = o.asks("boss")
	o.expect("Boss")
	o.let["Boss"] <- struct{}{}
	o.expect("Clerk")
	return boss, o.asks("clerk")
}

// oneAfterTheOther has the clerk end what it does for the boss, and then what a person asked for.
func (o *office) oneAfterTheOther(boss, clerk Run) {
	o.Helper()
	o.let["Clerk"] <- struct{}{}
	o.ends(boss.ID)
	o.expect("Clerk")
	o.let["Clerk"] <- struct{}{}
	if r := o.ends(clerk.ID); r.State != Done || o.most != 1 {
		o.Errorf("%+v; %d at once", r.Run, o.most)
	}
}

func TestAnAgentThatIsCalledWaitsForItsOwnRun(t *testing.T) {
	o := newOffice(t)
	clerk := o.asks("clerk")
	o.expect("Clerk")
	boss := o.asks("boss")
	o.expect("Boss")
	o.let["Boss"] <- struct{}{}
	o.planned("clerk")
	o.let["Clerk"] <- struct{}{}
	o.ends(clerk.ID)
	o.expect("Clerk")
	o.let["Clerk"] <- struct{}{}
	contains(t, o.ends(boss.ID).Output.Text, "Boss heard: ", "Clerk is done.")
	if o.most != 1 {
		t.Errorf("%d runs of one agent at once", o.most)
	}
}

func TestAnAgentsOwnRunWaitsUntilItHasWorkedForAnother(t *testing.T) {
	o := newOffice(t)
	boss, clerk := o.bothAsk()
	o.planned("clerk")
	if _, err := o.pass(t.Context(), o.clock()); err != nil {
		t.Fatal(err)
	}
	if r := o.detail(clerk.ID); r.State != Planned {
		t.Errorf("it is %s beside the run that was called", r.State)
	}
	o.oneAfterTheOther(boss, clerk)
}

// Each of two runs calls the other's agent: one is refused, and both come to their ends.
func TestAgentsThatCallEachOtherAtOnceDoNotWaitForEver(t *testing.T) {
	o := newOffice(t)
	o.calls["Clerk"] = `call agent_boss {"task":"decide"}`
	clerk := o.asks("clerk")
	o.expect("Clerk")
	boss := o.asks("boss")
	o.expect("Boss")
	o.lets(20)
	a, b := o.ends(clerk.ID), o.ends(boss.ID)
	if a.State != Done || b.State != Done || !strings.Contains(a.Output.Text+b.Output.Text, "must not call each other in a circle") {
		t.Errorf("%s: %q\n%s: %q", a.State, a.Output.Text, b.State, b.Output.Text)
	}
	if o.most != 1 {
		t.Errorf("%d runs of one agent at once", o.most)
	}
}

// An expiring context has a deadline that comes when the test says.
type expiring struct {
	context.Context
	over chan struct{}
}

func (e *expiring) Done() <-chan struct{} { return e.over }

func (e *expiring) Err() error {
	select {
	case <-e.over:
		return context.DeadlineExceeded
	default:
		return nil
	}
}

// A call that took too long is over, and so is one that a person cancels: its run is not one that goes on, for which the agent's own runs and other
// calls would wait as long as the run above does.
func TestACallThatIsOverLeavesItsAgentFree(t *testing.T) {
	o := newOffice(t)
	boss := o.asks("boss")
	o.expect("Boss")
	answer := o.model.answer
	for i, c := range []struct {
		name  string
		fault error // of the model, after the deadline; nil: it answers all the same
		ends  func(*expiring, Run)
		want  State
		says  string
	}{
		{"in time for its last words", nil, func(ctx *expiring, _ Run) { close(ctx.over) }, Done, ""},
		{"too late", context.DeadlineExceeded, func(ctx *expiring, _ Run) { close(ctx.over) }, Failed, "the agent clerk did not end in time"},
		{"cancelled", context.Canceled, func(_ *expiring, r Run) {
			if _, err := o.Cancel(t.Context(), r.ID); err != nil {
				t.Error(err)
			}
		}, Cancelled, "cancelled by a person"},
	} {
		o.model.answer = func(n int, req llm.Request) (string, error) {
			text, err := answer(n, req)
			return text, errors.Join(err, c.fault)
		}
		ctx, told := &expiring{t.Context(), make(chan struct{})}, make(chan error, 1)
		call := toolbox.Call{Run: fmt.Sprint("agent-", boss.ID), Step: 10 + i}
		go func() {
			_, err := o.called(ctx, call, "clerk", "count")
			told <- err
		}()
		o.expect("Clerk")
		c.ends(ctx, o.detail(boss.ID).Children[i])
		o.let["Clerk"] <- struct{}{}
		err := <-told
		if (err == nil) != (c.says == "") || err != nil && err.Error() != c.says {
			t.Errorf("%s: %v", c.name, err)
		}
		if r := o.detail(boss.ID).Children[i]; r.State != c.want || r.Reason != c.says || r.Ended.IsZero() {
			t.Errorf("%s: %+v", c.name, r)
		}
		if _, err := o.called(t.Context(), call, "clerk", "count"); (err == nil) != (c.says == "") || err != nil && err.Error() != c.says {
			t.Errorf("%s: the same call says %v", c.name, err)
		}
	}
	o.model.answer = answer
	clerk := o.asks("clerk")
	o.expect("Clerk")
	o.let["Clerk"] <- struct{}{}
	if r := o.ends(clerk.ID); r.State != Done {
		t.Errorf("%+v", r.Run)
	}
	// A run that has ended calls nobody any more: nothing would end what it called.
	if _, err := o.Cancel(t.Context(), boss.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := o.called(t.Context(), toolbox.Call{Run: fmt.Sprint("agent-", boss.ID), Step: 20}, "clerk", "count"); !errors.Is(err, ErrEnded) {
		t.Errorf("%v", err)
	}
}

// A run that was queued while its agent rested comes to begin when that works for another: it waits for its turn again, and then has it.
func TestARunThatComesToBeginTooLateWaitsAgain(t *testing.T) {
	o := newOffice(t)
	boss, clerk := o.bothAsk()
	r, err := o.change(t.Context(), clerk.ID, func(_ *transaction, x *Run) error {
		x.State, x.call = Queued, x.call+1
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.begin(t.Context(), clerk.ID, r.call); !errors.Is(err, errStale) {
		t.Errorf("it begins beside the run that was called: %v", err)
	}
	if now := o.detail(clerk.ID); now.State != Planned || !now.Started.IsZero() {
		t.Errorf("%+v", now.Run)
	}
	o.oneAfterTheOther(boss, clerk)
}
