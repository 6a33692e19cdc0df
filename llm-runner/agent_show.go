package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"text/tabwriter"

	"home.arpa/lab/llm-runner/internal/agent"
)

func nextWords(l agent.Listed) string {
	if l.Next.IsZero() {
		return ""
	}
	return ", next " + l.Next.Local().Format("Mon 2 Jan 15:04")
}

// agentsOf reads the agents where no server runs: how they stand is the server's to say.
func agentsOf(config *Config) shownAgents {
	all, faults := agent.Read(agent.Config{BuiltIn: builtIn(), On: config.Agents.On, Folders: config.agentFolders(), Zone: config.Agents.zone()})
	out := shownAgents{Faults: append([]agent.FileFault{}, faults...), Agents: []agent.Listed{}}
	for _, a := range all {
		out.Agents = append(out.Agents, agent.Listed{Agent: a, Cron: a.Schedule.String(), Says: a.Schedule.Says()})
	}
	return out
}

func (x *agentCall) list(ctx context.Context, config *Config, bell doorbell, served bool) error {
	all := agentsOf(config)
	if served {
		if err := bell.ask(ctx, "/api/agents", nil, &all); err != nil {
			return err
		}
	}
	if x.asJSON {
		return x.printJSON(all)
	}
	w := tabwriter.NewWriter(x.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSCHEDULE\tNEXT\tLAST RUN\tDELIVERS TO\tFROM")
	for _, l := range all.Agents {
		next, last := "-", "-"
		switch {
		case l.Paused:
			next = "rests"
		case !l.Next.IsZero():
			next = l.Next.Local().Format("Mon 2 Jan 15:04")
		}
		if l.Last != nil {
			last = fmt.Sprintf("%s, %s", l.Last.State, l.Last.Due.Local().Format("2006-01-02 15:04"))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", l.Name, l.Says, next, last, strings.Join(l.Deliver, ", "), l.Source)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, f := range all.Faults {
		for _, fault := range f.Says {
			fmt.Fprintf(x.stderr, "%s: %s\n", f.Path, fault)
		}
	}
	if !served {
		fmt.Fprintln(x.stderr, "No server runs: nothing happens by itself until llm-runner serve does.")
	}
	return nil
}

func (x *agentCall) show(ctx context.Context, config *Config, bell doorbell, served bool, name string) error {
	var l agent.Listed
	if served {
		if err := bell.ask(ctx, "/api/agents/"+url.PathEscape(name), nil, &l); err != nil {
			return err
		}
	} else {
		found := false
		all := agentsOf(config)
		for _, a := range all.Agents {
			if a.Name == name {
				l, found = a, true
			}
		}
		for _, f := range all.Faults {
			if strings.HasSuffix(f.Path, "/"+name+".md") {
				return &ConfigError{Path: f.Path, Faults: f.Faults}
			}
		}
		if !found {
			return fmt.Errorf("%q: %w", name, agent.ErrNotFound)
		}
	}
	if x.asJSON {
		return x.printJSON(l)
	}
	fmt.Fprint(x.stdout, l.Text)
	if !strings.HasSuffix(l.Text, "\n") {
		fmt.Fprintln(x.stdout)
	}
	return nil
}

func (x *agentCall) printRun(d agent.Detail) {
	switch d.State {
	case agent.Done, agent.Delivering:
		fmt.Fprintf(x.stdout, "# %s\n\n%s\n", d.Output.Title, d.Output.Text)
	case agent.Failed, agent.Cancelled:
		fmt.Fprintf(x.stderr, "run %d of %s is %s: %s\n", d.ID, d.Agent, d.State, d.Reason)
	default:
		says := string(d.State)
		if d.Reason != "" {
			says += ": " + d.Reason
		}
		fmt.Fprintf(x.stderr, "run %d of %s has not ended within %s (%s); it goes on: llm-runner agent history %s\n", d.ID, d.Agent, x.timeout, says, d.Agent)
	}
	for _, r := range d.Output.Remarks {
		fmt.Fprintf(x.stderr, "Remark: %s.\n", r)
	}
	for _, p := range d.Deliveries {
		says := p.State
		if p.Place != "" {
			says += ", " + p.Place
		}
		if p.Reason != "" {
			says += ": " + p.Reason
		}
		fmt.Fprintf(x.stderr, "%s: %s\n", p.Sink, says)
	}
}

func (x *agentCall) history(ctx context.Context, bell doorbell, name string) error {
	var raw json.RawMessage
	if err := bell.ask(ctx, "/api/agents/runs?"+url.Values{"agent": {name}, "limit": {fmt.Sprint(x.limit)}}.Encode(), nil, &raw); err != nil {
		return err
	}
	if x.asJSON {
		return x.printJSON(raw)
	}
	var all struct{ Runs []agent.Run }
	if err := decodeInto(raw, &all); err != nil {
		return err
	}
	w := tabwriter.NewWriter(x.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "RUN\tAGENT\tDUE\tBY\tSTATE\tTOKENS\tCOST\tREASON")
	for _, r := range all.Runs {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\t%d\t$%.4f\t%s\n", r.ID, r.Agent, r.Due.Local().Format("2006-01-02 15:04"), r.Cause, r.State, r.Tokens, float64(r.MicroUSD)/1e6, r.Reason)
	}
	return w.Flush()
}
