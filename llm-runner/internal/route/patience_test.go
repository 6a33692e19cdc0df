package route

import (
	"context"
	"errors"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
)

// One that stands in the line of a machine with one place for as long as it may leaves it; what the machine works for it is not counted.
func TestWorkLeavesTheLineWhenItHasWaitedForAsLongAsItMay(t *testing.T) {
	p := says("x")
	p.gate = make(chan struct{})
	h := newHouse(t, Table{Default: Target{Provider: "davas", Model: "m"}}, Member{Name: "davas", Provider: p, Concurrency: 1})
	ask := func(most time.Duration) (*llm.Patience, chan error) {
		ctx, patience, stop := llm.WithPatience(t.Context(), most)
		t.Cleanup(stop)
		ended := make(chan error, 1)
		go func() {
			for _, err := range h.Stream(ctx, llm.Request{Messages: []llm.Message{llm.Says(llm.User, "q")}, Purpose: "job"}) {
				if err != nil {
					if cause := context.Cause(ctx); cause != nil {
						err = cause
					}
					ended <- err
					return
				}
			}
			ended <- nil
		}()
		return patience, ended
	}
	first, answered := ask(time.Hour)
	limit := time.After(20 * time.Second)
	for p.calls.Load() == 0 {
		select {
		case err := <-answered:
			t.Fatal(err)
		case <-limit:
			t.Fatal("nobody was asked")
		case <-time.After(time.Millisecond):
		}
	}
	placed, _ := first.Waited()
	second, gaveUp := ask(300 * time.Millisecond)
	select {
	case err := <-gaveUp:
		if d, where := second.Waited(); !errors.Is(err, llm.ErrImpatient) || d < 300*time.Millisecond || where != "davas" {
			t.Errorf("%v after %s in the line of %q", err, d, where)
		}
	case <-limit:
		t.Fatal("it stands on")
	}
	if n := h.member["davas"].waiting(); n != 0 {
		t.Errorf("%d stand in line", n)
	}
	close(p.gate)
	select {
	case err := <-answered: // what was worked for it is not counted
		if d, _ := first.Waited(); err != nil || d != placed {
			t.Errorf("%v, waited %s", err, d)
		}
	case <-limit:
		t.Fatal("no answer")
	}
}
