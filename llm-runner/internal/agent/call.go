package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

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
	chain := map[string]bool{}
	for r := above; ; {
		if chain[r.Agent] = true; r.Agent == name {
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
	if r, err = s.turn(ctx, r, chain, now); errors.Is(err, ErrEnded) {
		return r.said()
	} else if err != nil {
		return "", err
	}
	s.reached("called")
	working, rest := s.holding(ctx, r.ID)
	defer rest()
	out, err := s.work(working, &r)
	switch late := errors.Is(ctx.Err(), context.DeadlineExceeded); {
	case ctx.Err() != nil && !late:
		return "", context.Cause(ctx) // the program ends, or the run above: it is called again, or ended with that
	case late && err != nil:
		err = &llm.Error{Kind: llm.BadRequest, Message: fmt.Sprintf("the agent %s did not end in time", name)}
	case errors.Is(context.Cause(working), errCancelled):
		return "", errCancelled
	}
	var wait *waitError
	var busy *llm.BusyError
	if errors.As(err, &wait) || errors.As(err, &busy) {
		err = &llm.Error{Kind: llm.BadRequest, Message: fmt.Sprintf("the agent %s cannot go on now: %v", name, err)} // whoever called does not wait for it
	} else if err != nil && !llm.KindOf(err).Permanent() {
		err = &llm.Error{Kind: llm.BadRequest, Message: err.Error()}
	}
	lasting, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite) // one that is left as running keeps its agent from all else
	defer cancel()
	if werr := s.conclude(lasting, &r, out, err); werr != nil {
		return "", werr
	}
	return out.Text, err
}

// said is what a run that has ended told who called it.
func (r *Run) said() (string, error) {
	if r.State == Done {
		return r.Output.Text, nil
	}
	return "", errors.New(r.Reason)
}

// turn has a run that another agent has called begin, once its agent is not at work: runs of one agent never overlap. It is refused where that
// would be waited for in a circle, or where nobody knows for how long.
func (s *Service) turn(ctx context.Context, r Run, chain map[string]bool, now time.Time) (Run, error) {
	look := time.NewTicker(lookEvery) // for what another process did
	defer look.Stop()
	for {
		changed := s.Changed()
		begun, other, err := s.take(ctx, r.ID, chain, now)
		switch {
		case err == nil, errors.Is(err, ErrEnded):
			return begun, err
		case errors.Is(err, errCycle):
			err = errCycle
		case errors.Is(err, errAtWork) && other.State == Waiting:
			err = fmt.Errorf("the agent %s is in the midst of run %d, which waits (%s): do without it, or ask again later", r.Agent, other.ID, other.Reason)
		case errors.Is(err, errAtWork):
			select {
			case <-changed:
				continue
			case <-look.C:
				continue
			case <-ctx.Done():
				err = fmt.Errorf("the agent %s is at work in run %d, which did not end in time", r.Agent, other.ID)
			}
		}
		if context.Cause(ctx) != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return r, context.Cause(ctx) // the program ends, or the run above: it is called again, or ended with that
		}
		lasting, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWrite)
		defer cancel()
		_, werr := s.change(lasting, r.ID, func(_ *transaction, x *Run) error {
			x.State, x.Reason, x.Ended = Failed, err.Error(), s.config.Now()
			return nil
		})
		return r, errors.Join(err, werr)
	}
}

const lastWrite = 10 * time.Second
