package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/agent"
)

var agentCommand = command{
	name: "agent", args: "list|show|run|pause|resume|history|cancel [NAME] [flags]", summary: "work on schedules: a briefing, research, and what you write into a file",
	help: `An agent is a Markdown file: model, tools, schedule and places to deliver to on top, what it is to do below. Three are part of the program
(briefing, research, memory) and rest until they are switched on; yours are in the folder agents of the vault or of the data
directory. Agents are the running server's; without one, list and show read the files.

  list            all agents with their next time and last run, and what is wrong with files
  show NAME       one agent and its file's text; "show NAME > agents/NAME.md" is how a built-in one is copied and changed
  run NAME        have it run now and print what it says; --dry-run delivers nothing
  pause NAME      let it rest; what is due meanwhile is not made up for
  resume NAME     have it run by itself (again)
  history [NAME]  the newest runs
  cancel RUN      end a run, by its number; what is not delivered yet never is

Examples:
  llm-runner agent list
  llm-runner agent run briefing --dry-run
  llm-runner agent resume briefing
  llm-runner agent history briefing --limit 5 --json

Exit codes: 0 done; 1 failed (no server, no such agent, or the run failed); 2 wrong usage; 3 the run has not ended within
--timeout and goes on.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		x := agentCall{call: c}
		fs.BoolVar(&x.dry, "dry-run", false, "of run: say what it would, deliver nothing")
		fs.DurationVar(&x.timeout, "timeout", 10*time.Minute, "of run: wait so `LONG` for its end")
		fs.IntVar(&x.limit, "limit", 20, "of history: at most `N` runs")
		fs.BoolVar(&x.asJSON, "json", false, "print JSON")
		return func(ctx context.Context) error {
			if len(c.args) == 0 {
				return usageError{"say what to do: " + agentVerbs}
			}
			return x.do(ctx, c.args[0], c.args[1:])
		}
	},
}

const agentVerbs = "list, show, run, pause, resume, history or cancel"

// An agentCall is one invocation of the command.
type agentCall struct {
	*call
	dry     bool
	timeout time.Duration
	limit   int
	asJSON  bool
}

func (x *agentCall) do(ctx context.Context, verb string, args []string) error {
	switch verb {
	case "list":
		if len(args) > 0 {
			return usageError{"list takes no argument"}
		}
	case "history":
		if len(args) > 1 {
			return usageError{"history takes the name of one agent, or none"}
		}
		if x.limit < 1 || x.limit > 1000 {
			return usageError{"--limit must be from 1 to 1000"}
		}
	case "cancel":
		if len(args) != 1 {
			return usageError{"cancel takes the number of one run; history shows them"}
		}
		if n, err := strconv.ParseInt(args[0], 10, 64); err != nil || n < 1 {
			return usageError{fmt.Sprintf("%q is not the number of a run; history shows them", args[0])}
		}
	case "show", "run", "pause", "resume":
		if len(args) != 1 {
			return usageError{verb + " takes the name of one agent"}
		}
		if x.timeout <= 0 {
			return usageError{fmt.Sprintf("--timeout must be above zero, not %s: write for example 90s", x.timeout)}
		}
	default:
		return usageError{fmt.Sprintf("there is no agent %s: %s", verb, agentVerbs)}
	}
	config, err := Load(x.Options)
	if err != nil {
		return err
	}
	bell, ok := running(config.Data)
	if !ok && verb != "list" && verb != "show" {
		return fmt.Errorf("no server works on %s, and agents are its work: start one with llm-runner serve", config.Data)
	}
	name := strings.Join(args, "")
	switch verb {
	case "list":
		return x.list(ctx, config, bell, ok)
	case "show":
		return x.show(ctx, config, bell, ok, name)
	case "run":
		return x.run(ctx, bell, name)
	case "history":
		return x.history(ctx, bell, name)
	case "cancel":
		var r agent.Run
		if err := bell.ask(ctx, "/api/agents/runs/"+name+"/cancel", []byte("{}"), &r); err != nil {
			return err
		}
		if x.asJSON {
			return x.printJSON(r)
		}
		fmt.Fprintf(x.stdout, "run %d of %s is cancelled.\n", r.ID, r.Agent)
		return nil
	}
	var raw json.RawMessage
	if err := bell.ask(ctx, "/api/agents/"+url.PathEscape(name)+"/"+verb, []byte("{}"), &raw); err != nil {
		return err
	}
	if x.asJSON {
		return x.printJSON(raw)
	}
	var l agent.Listed
	if err := decodeInto(raw, &l); err != nil {
		return err
	}
	if l.Paused {
		fmt.Fprintf(x.stdout, "%s rests.\n", l.Name)
	} else {
		fmt.Fprintf(x.stdout, "%s runs %s%s.\n", l.Name, l.Says, nextWords(l))
	}
	return nil
}

func (x *agentCall) run(ctx context.Context, bell doorbell, name string) error {
	body, err := json.Marshal(map[string]bool{"dry_run": x.dry})
	if err != nil {
		return err
	}
	var r agent.Run
	if err := bell.ask(ctx, "/api/agents/"+url.PathEscape(name)+"/run", body, &r); err != nil {
		return err
	}
	var detail agent.Detail
	for deadline := time.Now().Add(x.timeout); ; {
		var raw json.RawMessage
		wait := min(20*time.Second, max(time.Until(deadline), 0))
		if err := bell.ask(ctx, fmt.Sprintf("/api/agents/runs/%d?wait=%s", r.ID, wait), nil, &raw); err != nil {
			return err
		}
		if err := decodeInto(raw, &detail); err != nil {
			return err
		}
		ended := detail.State.Ended() || detail.State == agent.Delivering
		if !ended && time.Now().Before(deadline) {
			continue
		}
		if x.asJSON {
			if err := x.printJSON(raw); err != nil {
				return err
			}
		}
		break
	}
	if !x.asJSON {
		x.printRun(detail)
	}
	switch detail.State {
	case agent.Done, agent.Delivering:
		return nil
	case agent.Failed:
		return exitError(exitFailed)
	}
	return exitError(exitHeld)
}
