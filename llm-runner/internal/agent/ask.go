package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox/loop"
)

// filled is the agent's prompt with what is filled in.
func (x *runner) filled() string {
	last := "never"
	if t, err := lastDone(x.ctx, x.s.db, x.run); err == nil && !t.IsZero() {
		last = t.In(x.agent.Schedule.zone).Format(time.DateOnly)
	}
	due := x.due()
	return fill(x.agent.Prompt, map[string]string{"date": due.Format(time.DateOnly), "time": due.Format("15:04"), "weekday": due.Weekday().String(),
		"last": last, "agent": x.agent.Name, "task": x.run.Task})
}

// agentSystem is what every agent is told beside its prompt.
const agentSystem = "You work on your own, on a schedule; nobody can answer questions. Do what is asked with what you have, say plainly what you could not find out, and answer in Markdown."

// Answered is what a model said.
type Answered struct {
	Text    string `json:"text"`
	Private bool   `json:"private,omitempty"`
	Over    string `json:"over,omitempty"`
}

// prompt has a model answer the agent's prompt, with its tools.
func (x *runner) prompt() (out Output, err error) {
	if x.s.config.Ask == nil {
		return out, &llm.Error{Kind: llm.BadRequest, Message: "no model is connected: see connect-a-model in the handbook"}
	}
	a, err := stepJSON(x, "answer", x.answer)
	if err != nil {
		return out, err
	}
	out.Title, out.Text = x.agent.Title+", "+x.day(), a.Text
	if a.Over != "" {
		out.Remarks = append(out.Remarks, "its budget ended it: "+a.Over)
		out.Text += "\n\n*Its budget ended it here: " + a.Over + ".*"
	}
	if a.Private {
		out.Outside = "It rests on private notes; the note in the vault and the run's page have it."
	}
	return out, nil
}

func (x *runner) answer() (got Answered, note string, err error) {
	c := x.s.config
	req := llm.Request{Model: x.agent.Model, Purpose: "agent", Run: fmt.Sprintf("agent-%d", x.run.ID), MaxTokens: int(min(x.agent.Budget.Tokens, mostAnswer)),
		Messages: []llm.Message{llm.Says(llm.System, agentSystem), llm.Says(llm.User, x.filled())}}
	if x.run.Task != "" {
		req.Messages = append(req.Messages, llm.Says(llm.User, "The task:\n"+x.run.Task))
		req.Own = []string{x.filled()} // the task is another model's words
	}
	ask := c.Ask
	var tools *loop.Provider
	if c.Box != nil && len(x.agent.Tools) > 0 {
		if req.Use, err = x.usable(); err != nil {
			return got, "", err
		}
		tools = loop.New(c.Ask, c.Box, loop.Limits{Steps: 2*x.agent.Budget.ToolCalls + 1, Tokens: x.agent.Budget.Tokens, Time: x.agent.Budget.Time, Total: x.agent.Budget.ToolCalls,
			MicroUSD: x.agent.Budget.MicroUSD, Cost: c.Cost})
		ask = tools
	} else if err := x.afford(&req); err != nil {
		return got, "", err
	}
	// What a budget of time ends is kept as far as it has come.
	left := x.agent.Budget.Time - time.Duration(x.run.Work)*time.Millisecond
	ctx, cancel := context.WithTimeout(x.ctx, max(left, time.Second)+lastWords)
	defer cancel()
	a, err := llm.Collect(ask.Stream(ctx, req))
	if err != nil && ctx.Err() != nil && x.ctx.Err() == nil {
		got.Over = x.agent.Budget.Time.String()
		if strings.TrimSpace(a.Message.Text()) == "" {
			x.run.Over = got.Over
			return got, "", &llm.Error{Kind: llm.BadRequest, Message: fmt.Sprintf("its time of %s was over before the model had said anything: raise budget.time, or ask for less", x.agent.Budget.Time)}
		}
		err = nil
	}
	if err != nil {
		return got, "", err
	}
	x.spend(a)
	if tools != nil && got.Over == "" {
		got.Over = tools.Ended(req.Run)
	}
	got.Text, got.Private = a.Message.Text(), a.Private
	if tools == nil && got.Over == "" {
		got.Over = x.overspent(a.Finish == llm.FinishLength && int64(req.MaxTokens) < min(x.agent.Budget.Tokens, mostAnswer))
	}
	if a.Finish == llm.FinishLength && got.Over == "" {
		got.Over = "the longest answer it may give"
	}
	x.run.Over = got.Over
	if strings.TrimSpace(got.Text) == "" {
		return got, "", &llm.Error{Kind: llm.Unavailable, Message: "the model said nothing"}
	}
	return got, fmt.Sprintf("%d tokens", x.run.Tokens), nil
}

// mostAnswer is how many tokens an answer may have.
const mostAnswer = 16_000

// lastWords is how long a model may take to answer with what it has, once its time is over.
const lastWords = time.Minute

// usable are the tools of the agent that it may use in this run: a dry one has no effects.
func (x *runner) usable() ([]string, error) {
	all, err := x.s.config.Box.Entries(x.ctx, 0)
	if err != nil {
		return nil, err
	}
	dry, err := x.dry()
	if err != nil {
		return nil, err
	}
	effects := map[string]bool{}
	for _, e := range all {
		effects[e.Name] = e.Effects
	}
	var use []string
	for _, name := range x.agent.Tools {
		has, known := effects[name]
		switch {
		case !known && name != "*":
			return nil, &llm.Error{Kind: llm.BadRequest, Message: fmt.Sprintf("there is no tool %q: the Tools page lists those that there are; change tools in %s", name, x.agent.Source)}
		case dry && name == "*":
			for _, e := range all {
				if !e.Effects && !e.Named {
					use = append(use, e.Name)
				}
			}
		case dry && has:
		default:
			use = append(use, name)
		}
	}
	return use, nil
}

// errCycle and its like are told to the model that called.
var errCycle = errors.New("that agent waits for this one already: agents must not call each other in a circle")
