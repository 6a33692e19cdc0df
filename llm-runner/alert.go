package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"strings"
	"time"

	"home.arpa/lab/llm-runner/internal/alert"
)

var alertCommand = command{
	name: "alert", args: "list|test [flags]", summary: "show what a person was told, or send a test message",
	help: `list shows the incidents that last and the newest of what was told, newest first. test sends one message through
each that is configured (discord.webhook, alerts.ntfy, alerts.webhook), at once, and says who has kept it.

Examples:
  llm-runner alert list
  llm-runner alert list --limit 100 --json
  llm-runner alert test

Exit codes: 0 done, 1 somebody did not take the message, 2 wrong usage or nobody passes alerts on.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		limit := fs.Int("limit", 20, "`N` alerts at most")
		asJSON := fs.Bool("json", false, "print JSON")
		return func(ctx context.Context) error {
			if len(c.args) != 1 {
				return usageError{"name one of list, test"}
			}
			config, err := Load(c.Options)
			if err != nil {
				return err
			}
			switch c.args[0] {
			case "list":
				return c.listAlerts(ctx, config, *limit, *asJSON)
			case "test":
				return c.testAlert(ctx, config)
			}
			return usageError{fmt.Sprintf("there is no alert %s: name one of list, test", c.args[0])}
		}
	},
}

// testAlert sends one message through each that is configured, whatever becomes of the others.
func (c *call) testAlert(ctx context.Context, config *Config) error {
	names, all := config.sinks()
	if len(names) == 0 {
		return usageError{"nobody passes alerts on: set discord.webhook, alerts.ntfy.topic or alerts.webhook.url to env:NAME or file:PATH"}
	}
	var failed error
	for _, name := range names {
		sink := all[name]
		_, err := alert.Pass(ctx, sink, rand.Text(), "This is a test of llm-runner's alerts, sent by hand. Nothing is wrong.")
		var gone interface{ Gone() bool }
		switch {
		case err == nil:
			fmt.Fprintf(c.stdout, "%s has kept the message.\n", sink.Name())
		case errors.As(err, &gone):
			failed = errors.Join(failed, err)
		default:
			failed = errors.Join(failed, fmt.Errorf("%w; alerts are kept until %s answers", err, sink.Name()))
		}
	}
	return failed
}

func (c *call) listAlerts(ctx context.Context, config *Config, limit int, asJSON bool) error {
	if limit < 1 {
		return usageError{"--limit must be at least 1"}
	}
	d, err := readDB(ctx, config)
	if err != nil {
		return err
	}
	all := []alert.Alert{}
	if d != nil {
		defer d.Close()
		found, err := alert.List(ctx, d, limit)
		if err != nil {
			return err
		}
		all = append(all, found...)
	}
	if asJSON {
		return c.printJSON(map[string]any{"alerts": all})
	}
	if len(all) == 0 {
		fmt.Fprintln(c.stdout, "Nothing has happened that anybody had to be told of.")
	}
	for _, a := range all {
		state := "news"
		switch {
		case a.Key != "" && a.Ended.IsZero():
			state = "lasts"
		case a.Key != "":
			state = "over"
		}
		fmt.Fprintf(c.stdout, "%s  %-5s  %s", a.Began.Local().Format(time.DateTime), state, a.Text)
		if state == "over" {
			fmt.Fprintf(c.stdout, " (%s at %s)", a.Over, a.Ended.Local().Format(time.DateTime))
		}
		if len(a.Missing) > 0 {
			fmt.Fprintf(c.stdout, " [not told yet by %s]", strings.Join(a.Missing, ", "))
		}
		fmt.Fprintln(c.stdout)
	}
	return nil
}
