package loop

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox"
)

// work runs the calls of one step and returns their results in the same order. Calls without effects run side by side, those with
// effects one after the other. Where a person has to be asked about some, the others run first.
func (r *run) work(calls []llm.ToolCall) ([]llm.Part, error) {
	all := make([]toolbox.Call, len(calls))
	for i, c := range calls {
		w := toolbox.Wish{Scope: r.scope, Step: r.steps, Place: i, Tool: c.Name, Arguments: c.Arguments}
		switch {
		case i >= r.p.limits.Calls:
			w.Refused = fmt.Sprintf("only %d tools can be called at once: call it again", r.p.limits.Calls)
		case !slices.Contains(r.req.Use, "*") && !slices.Contains(r.req.Use, c.Name): // it was not told of it: a page that it read may have been
			w.Refused = fmt.Sprintf("there is no tool %q here", c.Name)
		}
		var err error
		if all[i], err = r.p.box.Submit(r.ctx, w); err != nil {
			return nil, err
		}
		if err := r.news(all[i]); err != nil {
			return nil, err
		}
	}
	if err := r.execute(all); err != nil {
		return nil, err
	}
	parts := make([]llm.Part, len(all))
	var asked []string
	for i, c := range all {
		if c.State == toolbox.Waiting {
			asked = append(asked, c.Tool)
		}
		parts[i] = llm.Part{Result: &llm.ToolResult{ID: calls[i].ID, Name: calls[i].Name, Text: c.Result, IsError: c.IsError}}
		r.scope.Links = append(r.scope.Links, c.Links...)
		r.scope.Tainted = r.scope.Tainted || c.Marked() || !c.IsError && r.p.box.Outside(c.Tool)
	}
	if len(asked) > 0 {
		if r.req.Run == "" { // nobody comes back to it
			lasting, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), 10*time.Second)
			defer cancel()
			if err := r.p.box.Withdraw(lasting, r.name); err != nil {
				return nil, err
			}
		}
		return nil, &llm.BusyError{Provider: Approval, Kind: llm.Unavailable, Reason: "it waits for your word on " + strings.Join(asked, ", ")}
	}
	return parts, nil
}

func (r *run) news(c toolbox.Call) error {
	return r.tell(llm.Event{Tool: &llm.ToolNews{Name: c.Tool, State: string(c.State)}})
}

// atOnce is how many calls without effects run side by side.
const atOnce = 4

// execute runs the calls that are approved, in place, and tells of each one that begins or ends.
func (r *run) execute(all []toolbox.Call) error {
	ctx, cancel := context.WithCancel(r.ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	type done struct {
		at   int
		call toolbox.Call
		err  error
	}
	ended := make(chan done, len(all))
	places := make(chan struct{}, atOnce)
	start := func(i int) {
		c := all[i]
		wg.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			c, err := r.p.box.Execute(ctx, c)
			ended <- done{i, c, err}
		})
	}
	next := func() error {
		d := <-ended
		if all[d.at] = d.call; d.err != nil {
			return d.err
		}
		return r.news(d.call)
	}
	running := 0
	for i, c := range all {
		if c.State == toolbox.Approved && !c.Effects {
			running++
			start(i)
		}
	}
	if running > 0 {
		if err := r.tell(llm.Event{Tool: &llm.ToolNews{State: string(toolbox.Running)}}); err != nil {
			return err
		}
	}
	for ; running > 0; running-- {
		if err := next(); err != nil {
			return err
		}
	}
	for i, c := range all {
		if c.State == toolbox.Approved && c.Effects {
			start(i)
			if err := next(); err != nil {
				return err
			}
		}
	}
	return nil
}
