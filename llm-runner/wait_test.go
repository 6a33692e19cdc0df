package main

import (
	"strings"
	"testing"

	"home.arpa/lab/llm-runner/internal/jobs"
)

func TestProgressShowsTheAnswerWhileItArrives(t *testing.T) {
	running := func(done, steps int, text string) shownJob {
		return shownJob{Job: jobs.Job{State: jobs.Running, Steps: steps, StepsDone: done, Arrived: text}}
	}
	held := shownJob{Job: jobs.Job{State: jobs.Held, Steps: 1, Reason: "used up"}}
	for _, c := range []struct {
		name      string
		live      bool
		seen      []shownJob
		answer    string
		out, says string
	}{
		{"a pipe gets the answer only", false, []shownJob{running(0, 1, "on"), running(0, 1, "one")}, "one\n", "one\n", "(running)\n"},
		{"it grows", true, []shownJob{running(0, 1, ""), running(0, 1, "on\n"), running(0, 1, "on\ne"), running(0, 1, "")}, "on\ne\n", "on\ne\n", "(running)\n"},
		{"nothing was seen of it", true, nil, "one", "one\n", ""},
		{"it begins anew", true, []shownJob{running(0, 1, "fals"), held, running(0, 1, "o")}, "one", "fals\none\n", "(running)\n(held: used up)\n(running)\n"},
		{"it began anew unseen", true, []shownJob{running(0, 1, "fals"), running(0, 1, "o")}, "one", "fals\none\n", "(running)\n"},
		{"a chain's last step counts", true, []shownJob{running(0, 2, "first"), running(1, 2, "sec")}, "second", "second\n", "(running, step 1 of 2)\n(running, step 2 of 2)\n"},
	} {
		var out, says strings.Builder
		p := follower{out: &out, says: &says, live: c.live}
		for _, job := range c.seen {
			p.show(job)
		}
		p.finish(c.answer)
		if out.String() != c.out || says.String() != c.says {
			t.Errorf("%s: wrote %q and said %q, want %q and %q", c.name, out.String(), says.String(), c.out, c.says)
		}
	}
}
