package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/toolbox"
)

// toolPrefix begins the names of tools that are agents.
const toolPrefix = "agent_"

// mostDepth is how many agents may stand above each other.
const mostDepth = 3

// offer puts the agents into the box, as tools that only agents which name them can use.
func (s *Service) offer() {
	all, _ := s.Load()
	s.offerAll(all)
}

func (s *Service) offerAll(all []Agent) {
	if s.config.Box == nil {
		return
	}
	s.toolLock.Lock()
	defer s.toolLock.Unlock()
	var names []string
	for _, a := range all {
		if a.Kind != Memory {
			names = append(names, a.Name+"\x00"+a.Title)
		}
	}
	if slices.Equal(names, s.tools) {
		return
	}
	for _, old := range s.tools {
		if !slices.Contains(names, old) {
			name, _, _ := strings.Cut(old, "\x00")
			s.config.Box.Remove(toolPrefix + name)
		}
	}
	for _, a := range all {
		if a.Kind == Memory {
			continue
		}
		if err := s.config.Box.Add(s.tool(a)); err != nil {
			s.log.Warn("offer an agent as a tool", "agent", a.Name, "error", err)
		}
	}
	s.tools = names
}

func (s *Service) tool(a Agent) toolbox.Tool {
	type arguments struct {
		Task string `json:"task" jsonschema:"what is to be done, with all that must be known for it"`
	}
	t := toolbox.Tool{Name: toolPrefix + a.Name, Description: "Has the agent \"" + a.Title + "\" do a task and returns what it says.", Outside: true, Named: true,
		Policy: toolbox.Allow, Timeout: a.Budget.Time + 2*lastWords}
	return toolbox.Make(t, func(ctx context.Context, c toolbox.Call, in arguments) (toolbox.Result, error) {
		text, err := s.called(ctx, c, a.Name, in.Task)
		return toolbox.Result{Text: text}, err
	})
}

// called does an agent's work for another one. It has no effect of its own beyond what its tools have, and the same call is the same run: so it
// may be made again after a crash, and goes on where it was.
func (s *Service) called(ctx context.Context, c toolbox.Call, name, task string) (string, error) {
	id, ok := strings.CutPrefix(c.Run, "agent-")
	parent, err := strconv.ParseInt(id, 10, 64)
	if !ok || err != nil {
		return "", fmt.Errorf("only agents can call agents, where their file lists %s%s", toolPrefix, name)
	}
	above, err := s.Run1(ctx, parent)
	if err != nil {
		return "", err
	}
	caller, err := s.Find(above.Agent)
	if err != nil {
		return "", err
	}
	if !slices.Contains(caller.Tools, toolPrefix+name) {
		return "", fmt.Errorf("the agent %s may not call %s: its file does not list %s%s under tools", caller.Name, name, toolPrefix, name)
	}
	if above.Depth+1 >= mostDepth {
		return "", fmt.Errorf("%d agents stand above each other already: do it yourself", mostDepth)
	}
	for r := above; ; {
		if r.Agent == name {
			return "", errCycle
		}
		if r.Parent == 0 {
			break
		}
		if r, err = s.Run1(ctx, r.Parent); err != nil {
			return "", err
		}
	}
	now := s.config.Now()
	r, err := s.plan(ctx, Run{Agent: name, Cause: ByAgent, Due: now, Covers: 1, Parent: parent, Depth: above.Depth + 1, Task: task, State: Planned,
		key: fmt.Sprintf("called/%d/%d/%d", parent, c.Step, c.Place)})
	if err != nil {
		return "", err
	}
	if r.State == Done {
		return r.Output.Text, nil
	}
	r, err = s.change(ctx, r.ID, func(_ *transaction, x *Run) error {
		x.call++
		x.State, x.worker, x.NextAt = Running, s.db.Worker(), now
		if x.Started.IsZero() {
			x.Started = now
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	s.reached("called")
	out, err := s.work(ctx, &r)
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	var wait *waitError
	var busy *llm.BusyError
	if errors.As(err, &wait) || errors.As(err, &busy) {
		err = &llm.Error{Kind: llm.BadRequest, Message: fmt.Sprintf("the agent %s cannot go on now: %v", name, err)} // whoever called does not wait for it
	} else if err != nil && !llm.KindOf(err).Permanent() {
		err = &llm.Error{Kind: llm.BadRequest, Message: err.Error()}
	}
	if werr := s.conclude(ctx, &r, out, err); werr != nil {
		return "", werr
	}
	return out.Text, err
}
