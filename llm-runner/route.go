package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/url"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/route"
)

var routeCommand = command{
	name: "route", args: "MODEL [flags]", summary: "print who would answer, and why; sends nothing to a model",
	help: `Prints the routing decision for a model name: the targets in the order in which they are tried, the rule that decided, the
reason, and the hold where nobody can answer now. "" stands for no model named.

Examples:
  llm-runner route gemma4
  llm-runner route qwen2.5:14b --project
  llm-runner route llama-70b --json

Exit codes: 0 also when the decision is to hold; 2 wrong usage or configuration.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		project := fs.Bool("project", false, "project mode: insist on routes.project")
		requires := fs.String("requires", "", "insist on `PROVIDER`")
		davas := fs.Bool("requires-davas", false, "the same as --requires davas")
		asJSON := fs.Bool("json", false, "print the decision as JSON")
		return func(ctx context.Context) error {
			if len(c.args) != 1 {
				return usageError{`name one model, or "" for none`}
			}
			if *davas && *requires == "" {
				*requires = "davas"
			}
			d, err := c.decide(ctx, route.Ask{Model: c.args[0], Project: *project, Requires: *requires})
			if err != nil {
				return err
			}
			if *asJSON {
				return c.printJSON(d)
			}
			c.printDecision(d)
			return nil
		}
	},
}

// decide asks the running server, which knows quotas and health; where none runs it looks for itself.
func (c *call) decide(ctx context.Context, ask route.Ask) (d route.Decision, err error) {
	config, err := Load(c.Options)
	if err != nil {
		return d, err
	}
	if bell, ok := running(config.Data); ok {
		return d, bell.get(ctx, "/api/route?"+routeQuery(ask), &d)
	}
	a, err := assemble(ctx, config, quiet(), nil)
	if err != nil {
		return d, err
	}
	defer a.close()
	a.survey(ctx)
	return a.router.Decide(ask), nil
}

func routeQuery(ask route.Ask) string {
	q := url.Values{"model": {ask.Model}, "requires": {ask.Requires}}
	if ask.Project {
		q.Set("project", "true")
	}
	return q.Encode()
}

func (c *call) printJSON(v any) error {
	enc := json.NewEncoder(c.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

func (c *call) printDecision(d route.Decision) {
	for i, t := range d.Targets {
		lead := "then"
		if i == 0 {
			lead = "asks"
		}
		fmt.Fprintf(c.stdout, "%-6s %s\n", lead, llm.On(t.Model, t.Provider))
	}
	fmt.Fprintf(c.stdout, "%-6s %s\n%-6s %s\n", "rule", d.Rule, "why", d.Why)
	if d.Hold != nil {
		until := "nobody knows; it goes on by itself when that ends"
		if d.Hold.Until != nil {
			until = d.Hold.Until.Local().Format("2006-01-02 15:04:05")
		}
		fmt.Fprintf(c.stdout, "%-6s %s\n%-6s %s\n", "hold", d.Hold.Reason, "until", until)
	}
}
