package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"sync"
	"time"
)

var doctorCommand = command{
	name: "doctor", args: "[flags]", summary: "check the configuration, every provider and the disk, and say the cure",
	help: `Checks, in this order: the configuration, the data directory and its disk, the database, the notes, every provider (it asks
for the list of models, which costs nothing), the Discord webhook, ntfy, the webhook of your own (whether one is named; nothing is posted),
the receiver of traces, SearXNG, the files of agents and the address to listen on. Each finding that is not well comes with its cure.
Nothing of yours is changed: a data directory that is missing is made, and an empty file is written there and removed again.

Examples:
  llm-runner doctor
  llm-runner doctor --config /etc/llm-runner/runner.yaml --json

Exit codes: 0 all is well, 1 something is wrong, 2 the configuration is wrong.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		asJSON := fs.Bool("json", false, "print JSON")
		fs.StringVar(&c.Listen, "listen", "", "`ADDR` that serve would listen on")
		return func(ctx context.Context) error {
			config, err := Load(c.Options)
			var faults *ConfigError
			if err != nil && !errors.As(err, &faults) {
				return err
			}
			findings := configFindings(config, faults)
			if config != nil {
				findings = append(findings, examine(ctx, config)...)
			}
			ok := true
			for _, f := range findings {
				ok = ok && f.Status != "wrong"
			}
			if *asJSON {
				if err := c.printJSON(map[string]any{"ok": ok, "findings": findings}); err != nil {
					return err
				}
			} else {
				c.printFindings(findings)
			}
			switch {
			case faults != nil:
				return exitError(exitUsage)
			case !ok:
				return exitError(exitFailed)
			}
			return nil
		}
	},
}

// A Finding is one thing that the doctor looked at. Status is "ok", "note" (works, but look) or "wrong".
type Finding struct {
	What   string `json:"what"`
	Status string `json:"status"`
	Text   string `json:"text"`
	Cure   string `json:"cure,omitempty"`
}

func configFindings(c *Config, faults *ConfigError) []Finding {
	var all []Finding
	if faults != nil {
		for _, f := range faults.Faults {
			all = append(all, Finding{What: "configuration", Status: "wrong", Text: f.String()})
		}
		return all
	}
	text := "no file; the defaults apply"
	if c.path != "" {
		text = c.path
	}
	all = append(all, Finding{What: "configuration", Status: "ok", Text: text})
	for _, w := range c.Warnings {
		all = append(all, Finding{What: "configuration", Status: "wrong", Text: w.String()})
	}
	return all
}

// examine looks at everything that a valid configuration names.
func examine(ctx context.Context, c *Config) []Finding {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	all := []Finding{examineData(c), examineDatabase(ctx, c), examineVault(c)}
	providers, err := members(c, nil)
	if err != nil {
		return append(all, Finding{What: "providers", Status: "wrong", Text: err.Error()})
	}
	found := make([]Finding, len(providers)-2) // the last two answer from the notes
	var wg sync.WaitGroup
	for i := range found {
		wg.Go(func() { found[i] = examineProvider(ctx, c, providers[i]) })
	}
	wg.Wait()
	all = append(all, found...)
	if c.Discord.Webhook != "" {
		all = append(all, examineWebhook(ctx, string(c.Discord.Webhook)))
	}
	if c.Alerts.Ntfy.Topic != "" {
		all = append(all, examineNtfy(ctx, c))
	}
	if c.Alerts.Webhook.URL != "" {
		all = append(all, Finding{What: "webhook", Status: "ok", Text: "alerts are posted to it; llm-runner alert test says whether it takes them"})
	}
	if c.Traces.Endpoint != "" {
		all = append(all, examineTraces(ctx, c))
	}
	if c.Tools.Search.SearXNG != "" {
		all = append(all, examineSearch(ctx, c))
	}
	if c.Tools.Search.SearXNG != "" {
		all = append(all, examineSearch(ctx, c))
	}
	return append(all, examineAgents(c), examineListen(c))
}

func (c *call) printFindings(all []Finding) {
	mark := map[string]string{"ok": "ok   ", "note": "note ", "wrong": "WRONG"}
	for _, f := range all {
		fmt.Fprintf(c.stdout, "%s  %-20s %s\n", mark[f.Status], f.What, f.Text)
		if f.Cure != "" {
			fmt.Fprintf(c.stdout, "%28s-> %s\n", "", f.Cure)
		}
	}
}
