package main

import (
	"context"
	"flag"

	"home.arpa/lab/homelab-iac/internal/restore"
)

var proveCommands = []command{
	{
		name: "restore prove", args: "--tags TAGS [flags]", summary: "check again what must hold of services that are there", json: true,
		help: `Runs the checks of the catalog: folders that are there, pages that answer, programs that find nothing wrong. With --drill also those that
change data, such as a push to a repository: for a machine on which a restore is proved, never for one that is in use.

Examples:
  homelab restore prove --tags gitea
  homelab restore prove --tags all --drill --json

Exit codes: 0 everything holds, 1 something does not, 2 wrong usage.`,
		setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
			var w wanted
			w.flags(fs)
			drill := fs.Bool("drill", false, "also run what changes data")
			return func(ctx context.Context) error { return c.restoreProve(ctx, w, *drill) }
		},
	},
}

func (c *call) restoreProve(ctx context.Context, w wanted, drill bool) error {
	m, err := c.machine()
	if err != nil {
		return err
	}
	chosen, _, err := w.services(m)
	if err != nil {
		return err
	}
	at, err := m.site()
	if err != nil {
		return err
	}
	var plans []restore.Plan
	for _, s := range chosen {
		plans = append(plans, restore.Proof(s, at, drill))
	}
	runner := restore.Runner{Host: m.Host, Say: c.say, Env: m.environ}
	report := runner.Run(ctx, plans)
	if c.json {
		if err := c.printJSON(report); err != nil {
			return err
		}
	} else {
		printProof(c, report)
	}
	if report.Verdict != "green" {
		return exitError(exitFailed)
	}
	return nil
}

func printProof(c *call, report restore.Report) {
	for _, s := range report.Services {
		for _, d := range s.Steps {
			mark := "holds "
			if d.Error != "" {
				mark = "FAILED"
			}
			c.print("%s  %s: %s %s\n", mark, s.Service, d.What, d.Error)
		}
	}
}
