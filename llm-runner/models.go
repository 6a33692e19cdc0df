package main

import (
	"context"
	"flag"
	"fmt"
	"text/tabwriter"

	"home.arpa/lab/llm-runner/internal/route"
)

var modelsCommand = command{
	name: "models", args: "[flags]", summary: "list the models that can be asked for, and who has them",
	help: `Lists the rows of the route table (those configured, and those of providers that were found by themselves), then what each
provider has besides, which is asked for as PROVIDER/MODEL; with the target of each and whether it can answer now.

Examples:
  llm-runner models
  llm-runner models --json

Exit codes: 0 listed, also what cannot answer now; 1 failed, 2 wrong usage or configuration.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		asJSON := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context) error {
			var list route.Listing
			config, err := Load(c.Options)
			if err != nil {
				return err
			}
			if bell, ok := running(config.Data); ok {
				err = bell.get(ctx, "/api/models", &list)
			} else {
				list, err = c.survey(ctx, config)
			}
			if err != nil {
				return err
			}
			if *asJSON {
				return c.printJSON(list)
			}
			w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
			fmt.Fprintln(w, "NAME\tPROVIDER\tMODEL\tNOW")
			for _, m := range list.Models {
				now := "ready"
				if m.Hold != nil {
					now = m.Hold.Reason
				}
				if m.Embeds {
					now += ", makes embeddings"
				}
				if m.Default {
					now += ", the default"
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", m.Name, m.Provider, m.Model, now)
			}
			return w.Flush()
		}
	},
}

func (c *call) survey(ctx context.Context, config *Config) (route.Listing, error) {
	a, err := assemble(ctx, config, quiet(), nil)
	if err != nil {
		return route.Listing{}, err
	}
	defer a.close()
	a.survey(ctx)
	return a.router.Listing(), nil
}
