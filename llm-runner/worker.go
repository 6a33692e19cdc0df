package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"time"

	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/guard"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/web"
)

var workerCommand = command{
	name: "worker", args: "[flags]", summary: "run jobs for a server on another machine, from a shared PostgreSQL database",
	help: `Takes jobs from the PostgreSQL database that database: in the configuration names, as many workers as you like beside one or
several servers. They share jobs, quotas and books: no job is run by two of them at once, and together they keep every
provider's limits. What a worker leaves that dies is taken over by another one within 15 seconds. On SIGTERM it takes no new
job and gives running ones ten seconds; others take up what is left.

A worker needs a data directory of its own (--data), for the index of its copy of the notes.

Examples:
  llm-runner worker --config /etc/llm-runner/runner.yaml --data /var/lib/llm-runner/worker
  llm-runner worker --health 127.0.0.1:9090

Exit codes: 0 after Ctrl-C or SIGTERM, 1 failed, 2 the configuration is wrong.`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		fs.StringVar(&c.Listen, "health", "", "`ADDR` to serve /health and /metrics on (default: nowhere)")
		return func(ctx context.Context) error {
			config, err := Load(c.Options)
			if err != nil {
				return err
			}
			if config.Database == "" {
				return &ConfigError{Path: config.path, Faults: noDatabase(config)}
			}
			return c.work(ctx, config, slog.New(slog.NewTextHandler(c.stderr, nil)))
		}
	},
}

// work assembles, runs jobs until ctx ends, and stops in reverse.
func (c *call) work(ctx context.Context, config *Config, log *slog.Logger) error {
	back := make(chan string, 64)
	a, err := assemble(ctx, config, log, func(c route.Change) { came(back, c) })
	if err != nil {
		return err
	}
	defer a.close()
	jobs, queue, err := a.queue(ctx, engine.Config{Log: log, Grace: patience})
	if err != nil {
		return err
	}
	stopped := false
	stop := func() error {
		stopped = true
		return jobs.Close(patience + 2*time.Second)
	}
	defer func() {
		if !stopped {
			stop() //nolint:errcheck // the error before it counts
		}
	}()
	// The turns of servers that died, and those that were held. They end before the engine's calls that wait for them do.
	chats, err := chat.New(ctx, a.db, a.asker, chat.Config{Cost: config.Prices.Cost, Recall: a.recall, Lane: a.router.Lane, Busy: a.busy, Asks: a.asks, Engine: jobs, Grace: patience - time.Second, Traces: a.traces, Log: log})
	if err != nil {
		return err
	}
	agents, err := a.agents(ctx, jobs, queue)
	if err != nil {
		return err
	}
	a.box.Tell(a.decided(queue, chats, agents))
	health, err := c.health(a, chats)
	if err != nil {
		return err
	}
	a.alerts.SetHeld(heldFor(queue, chats))
	a.start(a.servers.Run, a.router.Run, a.library.Run, jobs.Run, queue.Run, agents.Run, a.alerts.Run,
		func(ctx context.Context) error { return a.watchDatabase(ctx, jobs) },
		func(ctx context.Context) error { return a.wake(ctx, queue, chats, agents, back) })
	if err := jobs.Launch(); err != nil {
		return err
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	chatsDone := make(chan error, 1)
	go func() { chatsDone <- chats.Run(ctx) }()
	log.Info("working", "worker", a.db.Worker(), "database", a.db.Path(), "data", config.Data, "version", version)
	err = health(ctx)
	log.Info("stopping: running jobs have ten seconds", "worker", a.db.Worker())
	end()
	err = errors.Join(err, stop())
	return errors.Join(err, <-chatsDone)
}

// health listens on the address of --health; what it returns serves until ctx ends.
func (c *call) health(a *app, chats *chat.Service) (func(ctx context.Context) error, error) {
	if c.Listen == "" {
		return func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		}, nil
	}
	gate, err := a.guard("")
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, fmt.Errorf("%w: stop what listens there, or choose another address with --health", err)
	}
	vitals := web.Vitals(web.Config{Chats: chats, Router: a.router, Ledger: a.ledger, DB: a.db, Traces: a.traces, Dependencies: a.dependencies, Incidents: a.alerts.Open, Undelivered: a.alerts.Undelivered, Version: version, Log: a.log})
	server := guard.Server(c.Listen, gate.Wrap(vitals))
	return func(ctx context.Context) error { return serveUntil(ctx, l, server, patience) }, nil
}
