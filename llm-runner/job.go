package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/upstream"
)

var jobCommand = command{
	name: "job", args: "submit|list|show|wait|cancel|release|retry [ARGUMENT] [flags]", summary: "hand in work that may wait, and follow it",
	help: `A job is written down before it is acknowledged, and then it ends: it waits as long as limits and machines demand, survives
restarts, and keeps its answer. Jobs are the running server's; without one the command says how to start it.

  submit PROMPT   hand in a job and print its number; a prompt of - is read from standard input
  list            the newest jobs, or those of --state
  show ID         one job with its timeline and answer
  wait ID         wait until it has ended and print the answer
  cancel ID       do not do it after all
  release ID      have a held job go on now
  retry ID        begin a failed or cancelled job once more; finished steps of a chain are kept

Examples:
  llm-runner job submit "Summarise the minutes" < minutes.md
  llm-runner job submit - --type chain --priority 2 --deadline 12h < plan.md
  llm-runner job submit "What did we decide about the heating?" --type research --wait
  llm-runner job submit "Who has won the race today?" --tools web_search,fetch_url
  llm-runner job list --state held,queued
  llm-runner job wait 12 --timeout 10m

Exit codes: 0 done; for wait and submit --wait: 1 the job failed or was cancelled, 3 it has not ended within --timeout; else 1
failed (no server, no such job, or its state does not allow it), 2 wrong usage or a job that cannot be taken.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		var j jobCall
		fs.StringVar((*string)(&j.spec.Type), "type", "", "`KIND` of work: text, chain or research (default text)")
		fs.StringVar(&j.spec.Title, "title", "", "`NAME` in lists (default: the prompt's first words)")
		fs.StringVar(&j.spec.Model, "model", "", "`MODEL` to ask (default: the route table's)")
		fs.StringVar(&j.spec.Requires, "requires", "", "insist on `PROVIDER`")
		fs.BoolVar(&j.spec.Project, "project", false, "project mode: insist on routes.project")
		fs.IntVar(&j.spec.Priority, "priority", 0, "`N` from 1 (first) to 9 (last) (default 5)")
		fs.StringVar(&j.spec.Deadline, "deadline", "", "how `LONG` it may wait in all, such as 90m or 12h (default: as long as it takes)")
		fs.IntVar(&j.spec.MaxAttempts, "max-attempts", 0, "give up after `N` faults that might have passed (default 5)")
		fs.Func("tools", "what the model may use: `NAMES` separated by commas, such as web_search,fetch_url, or * for all (default: nothing)", func(s string) error {
			if j.spec.Tools = strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' }); len(j.spec.Tools) == 0 {
				return errors.New("no tool is named: write for example web_search,fetch_url, or * for all")
			}
			return nil
		})
		fs.StringVar(&j.spec.Plan, "plan", "", "of research: `HOW` it begins, ask (you see its plan first) or auto (default auto)")
		fs.StringVar((*string)(&j.spec.Notify), "notify", "", "tell the operator of `WHICH` end: always, success or failure (default: none)")
		fs.StringVar(&j.spec.Output, "output", "", "write the answer to `NOTE`, a path in the vault such as notes/answer.md")
		fs.StringVar(&j.key, "key", "", "idempotency `KEY`: sent twice it is one job")
		fs.StringVar(&j.state, "state", "", "list only jobs in these `STATES`, separated by commas")
		fs.BoolVar(&j.wait, "wait", false, "after submit, wait for the answer")
		fs.DurationVar(&j.timeout, "timeout", 0, "give up waiting after `LONG`; the job goes on (default: never)")
		fs.BoolVar(&j.asJSON, "json", false, "print JSON")
		return func(ctx context.Context) error {
			if len(c.args) == 0 {
				return usageError{"say what to do: submit, list, show, wait, cancel, release or retry"}
			}
			j.call = c
			verb := c.args[0]
			c.args = c.args[1:]
			return j.do(ctx, verb)
		}
	},
}

// A jobCall is one invocation of the command.
type jobCall struct {
	*call
	spec    jobs.Spec
	key     string
	state   string
	wait    bool
	timeout time.Duration
	asJSON  bool
	bell    doorbell
	data    string
}

// shownJob is what the server tells of a job.
type shownJob struct {
	jobs.Job
	Timeline []jobs.Event `json:"timeline"`
}

func (j *jobCall) do(ctx context.Context, verb string) error {
	var id int64
	switch verb {
	case "submit":
		prompt, err := j.question()
		if err != nil {
			return usageError{"what is to be done? Write it in quotes, or - to read it from standard input"}
		}
		j.spec.Prompt = prompt
	case "list":
		if len(j.args) > 0 {
			return usageError{"list takes no argument; --state picks jobs"}
		}
	case "show", "wait", "cancel", "release", "retry":
		if len(j.args) != 1 {
			return usageError{verb + " takes the number of one job"}
		}
		var err error
		if id, err = strconv.ParseInt(j.args[0], 10, 64); err != nil || id <= 0 {
			return usageError{fmt.Sprintf("%q is not the number of a job", j.args[0])}
		}
	default:
		return usageError{fmt.Sprintf("there is no job %s: submit, list, show, wait, cancel, release or retry", verb)}
	}
	config, err := Load(j.Options)
	if err != nil {
		return err
	}
	j.data = config.Data
	var ok bool
	if j.bell, ok = running(config.Data); !ok {
		return fmt.Errorf("no server works on %s, and jobs are its work: start one with llm-runner serve", config.Data)
	}
	switch verb {
	case "submit":
		return j.submit(ctx)
	case "list":
		return j.list(ctx)
	case "wait":
		return j.await(ctx, id)
	case "show":
		var raw json.RawMessage
		if err := j.ask(ctx, path(id, ""), nil, &raw); err != nil {
			return err
		}
		return j.show(raw)
	}
	var raw json.RawMessage
	if err := j.ask(ctx, path(id, "/"+verb), []byte("{}"), &raw); err != nil {
		return err
	}
	return j.line(raw)
}

func path(id int64, rest string) string { return "/api/jobs/" + strconv.FormatInt(id, 10) + rest }

func (j *jobCall) submit(ctx context.Context) error {
	body, err := json.Marshal(j.spec)
	if err != nil {
		return err
	}
	var raw json.RawMessage
	if err := j.ask(ctx, "/api/jobs", body, &raw); err != nil {
		return err
	}
	if !j.wait {
		return j.line(raw)
	}
	var job jobs.Job
	if err := json.Unmarshal(raw, &job); err != nil {
		return err
	}
	return j.await(ctx, job.ID)
}

// A serverError is the server's own word on what was asked of it.
type serverError struct {
	status int
	text   string
}

func (e *serverError) Error() string { return e.text }

// ask asks the server for JSON; with a body it is a POST.
func (j *jobCall) ask(ctx context.Context, path string, body []byte, into *json.RawMessage) error {
	client := upstream.New("llm-runner", j.bell.URL, http.Header{"Authorization": {"Bearer " + j.bell.Token}}, 30*time.Second)
	defer client.CloseIdle()
	header := http.Header{}
	if j.key != "" {
		header.Set("Idempotency-Key", j.key)
	}
	resp, err := client.Do(ctx, path, header, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return &llm.Error{Kind: llm.Unavailable, Provider: "llm-runner", Message: "the answer broke off", Err: err}
	}
	if resp.StatusCode >= 300 {
		var told struct{ Error struct{ Message string } }
		json.Unmarshal(text, &told) //nolint:errcheck // whatever it is, it is shown
		message := cmp.Or(told.Error.Message, strings.TrimSpace(string(text)))
		if resp.StatusCode == http.StatusUnprocessableEntity {
			return usageError{message}
		}
		return &serverError{resp.StatusCode, message}
	}
	*into = text
	return nil
}
