//go:build prove

package toolbox

import (
	"context"
	"testing"
	"time"

	"home.arpa/lab/llm-runner/internal/db"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/test/postgrestest"
)

// TestProcessesShareCallsAndDecisions has two processes on one PostgreSQL database: a person decides at one of them about a call
// that another one waits with, and what a dead one was running is told of as unverified.
func TestProcessesShareCallsAndDecisions(t *testing.T) {
	url := postgrestest.Start(t).New()
	ran := 0
	open := func() (*Box, *db.DB) {
		t.Helper()
		d, err := db.OpenPostgres(t.Context(), url)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		b, err := Open(t.Context(), d, Config{})
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Add(greeter(&ran, true, Ask)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		t.Cleanup(cancel)
		go d.Listen(ctx) //nolint:errcheck // it only waits
		return b, d
	}
	one, first := open()
	two, _ := open()
	asked := make(chan Call, 1)
	go func() {
		c, err := one.Call(t.Context(), Wish{Scope: Scope{Run: "turn-1"}, Tool: "greet", Arguments: `{"name":"Ada"}`})
		if err != nil {
			t.Error(err)
		}
		asked <- c
	}()
	deadline := time.Now().Add(20 * time.Second)
	for {
		waits, err := two.Waits(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(waits) == 1 {
			if _, err := two.Decide(t.Context(), waits[0].ID, true); err != nil {
				t.Fatal(err)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("nobody was asked")
		}
		time.Sleep(10 * time.Millisecond) // polling with a deadline: another process writes it
	}
	if c := <-asked; c.Result != "hello Ada" || ran != 1 {
		t.Errorf("%+v, ran %d", c, ran)
	}

	if err := one.SetPolicy(t.Context(), "greet", 0, Allow); err != nil {
		t.Fatal(err)
	}
	c, err := one.Submit(t.Context(), Wish{Scope: Scope{Run: "turn-2"}, Tool: "greet", Arguments: `{"name":"Bob"}`})
	if err != nil || c.State != Approved {
		t.Fatalf("%+v, %v", c, err)
	}
	c.State, c.Started = Running, time.Now()
	if err := first.Tx(t.Context(), func(tx *transaction) error { return claim(t.Context(), first, tx, c) }); err != nil { // and then it dies
		t.Fatal(err)
	}
	if err := two.Adopt(t.Context(), first.Worker()); err != nil {
		t.Fatal(err)
	}
	if c, err = two.One(t.Context(), c.ID); err != nil || c.State != Unverified || !c.IsError || ran != 1 {
		t.Errorf("%+v, %v", c, err)
	}
	if err := two.Keep(t.Context(), "turn-2", 0, Step{Message: llm.Says(llm.Assistant, "x")}); err != nil {
		t.Fatal(err)
	}
	if steps, err := one.Steps(t.Context(), "turn-2"); err != nil || len(steps) != 1 || steps[0].Message.Text() != "x" {
		t.Errorf("%+v, %v", steps, err)
	}
	if log, err := two.Log(t.Context(), "", 0, 10); err != nil || len(log) != 2 {
		t.Errorf("%+v, %v", log, err)
	}
	if err := one.Withdraw(t.Context(), "turn-2"); err != nil {
		t.Fatal(err)
	}
}
