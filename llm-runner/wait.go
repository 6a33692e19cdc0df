package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/jobs"
)

var errPatience = errors.New("waited long enough")

// await asks until the job has ended, also across a restart of the server.
func (j *jobCall) await(ctx context.Context, id int64) error {
	if j.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, j.timeout, errPatience)
		defer cancel()
	}
	p := follower{out: j.stdout, says: j.stderr, live: terminal(j.stdout) && !j.asJSON}
	pause, most := 50*time.Millisecond, time.Second
	if p.live {
		most = 250 * time.Millisecond
	}
	for {
		var raw json.RawMessage
		err := j.ask(ctx, path(id, ""), nil, &raw)
		var job shownJob
		if err == nil {
			err = json.Unmarshal(raw, &job)
		}
		var told *serverError
		switch {
		case errors.Is(context.Cause(ctx), errPatience):
			p.cut()
			fmt.Fprintf(j.stderr, "job %d has not ended within %s; it goes on: llm-runner job wait %d\n", id, j.timeout, id)
			return exitError(exitHeld)
		case ctx.Err() != nil:
			p.cut()
			return ctx.Err()
		case errors.As(err, &told) && told.status < 500:
			return err
		case err != nil: // the server may be restarting
			if bell, ok := running(j.data); ok {
				j.bell = bell
			}
		case job.State.Ended():
			return j.end(job, raw, &p)
		default:
			p.show(job)
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
		pause = min(pause*3/2, most)
	}
}

// end prints what became of a job that was waited for.
func (j *jobCall) end(job shownJob, raw json.RawMessage, p *follower) error {
	switch {
	case j.asJSON:
		if err := j.printJSON(raw); err != nil {
			return err
		}
	case job.State == jobs.Done:
		p.finish(job.Answer)
		j.credit(&job.Route)
	}
	if job.State != jobs.Done {
		p.cut()
		fmt.Fprintf(j.stderr, "job %d is %s%s\n", job.ID, job.State, because(job.Job))
		return exitError(exitFailed)
	}
	return nil
}

// A follower shows how a job goes: each new state on says, and on a terminal the answer on out while it arrives.
type follower struct {
	out, says io.Writer
	live      bool
	told      string // the last line on says
	shown     string // of the answer
}

func (p *follower) show(job shownJob) {
	line := string(job.State) + because(job.Job)
	if job.State == jobs.Running && job.Steps > 1 {
		line += fmt.Sprintf(", step %d of %d", job.StepsDone+1, job.Steps)
	}
	if line != p.told {
		p.cut()
		p.told = line
		fmt.Fprintf(p.says, "(%s)\n", line)
	}
	if !p.live || job.StepsDone+1 < job.Steps {
		return // what the other steps say is not the answer
	}
	if text := strings.TrimRight(job.Arrived, "\n"); text != "" {
		p.add(text)
	}
}

// add shows what is new of a text that grows. One that began anew is shown below.
func (p *follower) add(text string) {
	rest, grows := strings.CutPrefix(text, p.shown)
	if !grows {
		p.cut()
		rest = text
	}
	if rest != "" {
		fmt.Fprint(p.out, rest)
		p.shown = text
	}
}

// finish shows what is missing of the whole answer.
func (p *follower) finish(answer string) {
	p.add(strings.TrimRight(answer, "\n"))
	fmt.Fprintln(p.out)
}

// cut ends the line of what has come, which is not the answer.
func (p *follower) cut() {
	if p.shown != "" {
		fmt.Fprintln(p.out)
	}
	p.shown = ""
}
