package jobs

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
)

// inALine stands in a line until let is closed, as the router has a request do, and then works until end is closed.
func inALine(let, end chan struct{}) func(ctx context.Context, req llm.Request, n int) (string, error) {
	return func(ctx context.Context, req llm.Request, n int) (string, error) {
		p := llm.PatienceOf(ctx)
		placed := p.Wait("davas")
		select {
		case <-let:
			placed()
		case <-ctx.Done():
			placed()
			return "", &llm.Error{Kind: llm.Cancelled, Provider: "davas", Message: "gave up waiting in line", Err: ctx.Err()}
		}
		defer p.Work()()
		select {
		case <-end:
			return echo(ctx, req, n)
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

func TestAJobThatStandsInAMachinesLineForTooLongFailsAndLeavesIt(t *testing.T) {
	s, p := newService(t, inALine(make(chan struct{}), nil))
	late := reach(t, s, submit(t, s, Spec{Prompt: "late", Deadline: "300ms"}).ID, Failed)
	if want := "longer than its deadline of 300ms: it stood in the line of davas"; !strings.Contains(late.Reason, want) || late.Waited < 300*time.Millisecond {
		t.Errorf("%s after %s", late.Reason, late.Waited)
	}
	if got := course(t, s, late.ID); got != "queued running failed" || len(p.prompts()) != 1 {
		t.Error(got)
	}
}

func TestWhatAJobStoodInLineIsKeptWhileItStands(t *testing.T) {
	let, end := make(chan struct{}), make(chan struct{})
	close(end)
	s, _ := newService(t, inALine(let, end))
	j := submit(t, s, Spec{Prompt: "x", Deadline: "1h"})
	limit := time.Now().Add(20 * time.Second)
	for {
		if err := s.keepStood(t.Context()); err != nil {
			t.Fatal(err)
		}
		now, err := s.Job(t.Context(), j.ID)
		if err != nil {
			t.Fatal(err)
		}
		if now.State == Running && now.Waited >= time.Second {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("%s, waited %s", now.State, now.Waited)
		}
		time.Sleep(50 * time.Millisecond)
	}
	close(let)
	reach(t, s, j.ID, Done)
}

// The next process has a job whose deadline passed while it stood in line of the one that died.
func TestTimeInLineCountsAcrossAStop(t *testing.T) {
	path := filepath.Join(t.TempDir(), db.Name)
	never := make(chan struct{})
	s := open(t, path, &answers{answer: inALine(never, nil)})
	j := submit(t, s, Spec{Prompt: "x", Deadline: "1h"})
	reach(t, s, j.ID, Running)
	limit := time.Now().Add(20 * time.Second)
	for { // until it stands
		s.mu.Lock()
		x := s.inLines[(&Job{ID: j.ID, Run: 1}).key()]
		s.mu.Unlock()
		if x != nil {
			if d, _ := x.patience.Waited(); d > 100*time.Millisecond {
				break
			}
		}
		if time.Now().After(limit) {
			t.Fatal("it does not stand in line")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := s.engine.Close(5 * time.Second); err != nil {
		t.Fatal(err)
	}
	now, err := s.Job(t.Context(), j.ID)
	if err != nil || now.Waited < 100*time.Millisecond {
		t.Errorf("%s, waited %s, %v", now.State, now.Waited, err)
	}
}
