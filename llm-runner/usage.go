package main

import (
	"context"
	"flag"
	"fmt"
	"text/tabwriter"
	"time"

	"home.arpa/lab/llm-runner/internal/llm"
	"home.arpa/lab/llm-runner/internal/usage"
)

var usageCommand = command{
	name: "usage", args: "[flags]", summary: "print what was used, by day and provider",
	help: `Reads the ledger: requests, errors, tokens, cost and latency by day and provider, also while a server is running. Tokens that
a provider did not tell are not counted; a cost is known only where the configuration has a price.

Examples:
  llm-runner usage
  llm-runner usage --days 30 --json
  llm-runner usage --recent 20

Exit codes: 0 printed, also when nothing was asked; 1 the ledger cannot be read, 2 wrong usage or configuration.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		days := fs.Int("days", 7, "how many `DAYS` back")
		recent := fs.Int("recent", 0, "list the newest `N` attempts instead")
		asJSON := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context) error {
			if *days < 1 || *recent < 0 {
				return usageError{"--days must be at least 1, and --recent not below 0"}
			}
			config, err := Load(c.Options)
			if err != nil {
				return err
			}
			d, err := readDB(ctx, config)
			if err != nil {
				return err
			}
			var rows []usage.Row
			var sums []usage.Day
			if d != nil {
				defer d.Close()
				if rows, err = usage.Recent(ctx, d, *recent); err != nil {
					return err
				}
				y, m, day := time.Now().Date()
				if sums, err = usage.Days(ctx, d, time.Date(y, m, day-*days+1, 0, 0, 0, 0, time.Local)); err != nil {
					return err
				}
			}
			switch {
			case *recent > 0 && *asJSON:
				return c.printJSON(map[string]any{"attempts": notNil(rows)})
			case *asJSON:
				return c.printJSON(map[string]any{"days": notNil(sums)})
			case *recent > 0:
				return c.printAttempts(rows)
			}
			return c.printDays(sums)
		}
	},
}

func notNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func (c *call) printDays(days []usage.Day) error {
	if len(days) == 0 {
		fmt.Fprintln(c.stdout, "Nothing was asked in this time.")
		return nil
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "day\tprovider\trequests\terrors\tbusy\ttokens in\tout\tUSD\tp50\tp95\t")
	for _, d := range days {
		t := d.Totals
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%.4f\t%s\t%s\t\n", d.Day, d.Provider, t.Requests, t.Errors, t.Busy,
			t.InputTokens, t.OutputTokens, float64(t.CostMicroUSD)/1e6, millis(d.P50), millis(d.P95))
	}
	return w.Flush()
}

func (c *call) printAttempts(rows []usage.Row) error {
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TIME\tPURPOSE\tASKED\tPROVIDER\tMODEL\tOUTCOME\tIN\tOUT\tTIME TAKEN\tERROR")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.At.Local().Format("01-02 15:04:05"), r.Purpose, r.Asked,
			r.Provider, r.Model, r.Outcome, number(r.Usage.Input), number(r.Usage.Output), r.Total.Round(time.Millisecond), r.Error)
	}
	return w.Flush()
}

func millis(c llm.Count) string {
	switch n, ok := c.Get(); {
	case ok && n == 0:
		return "<1ms"
	case ok:
		return (time.Duration(n) * time.Millisecond).String()
	}
	return "-"
}

func number(c llm.Count) string {
	if n, ok := c.Get(); ok {
		return fmt.Sprint(n)
	}
	return "?"
}
