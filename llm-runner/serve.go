package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"home.arpa/lab/internal/discord"
	"home.arpa/lab/llm-runner/internal/chat"
	"home.arpa/lab/llm-runner/internal/engine"
	"home.arpa/lab/llm-runner/internal/gateway"
	"home.arpa/lab/llm-runner/internal/guard"
	"home.arpa/lab/llm-runner/internal/jobs"
	"home.arpa/lab/llm-runner/internal/route"
	"home.arpa/lab/llm-runner/internal/web"
)

var serveCommand = command{
	name: "serve", args: "[flags]", summary: "serve the web page and the APIs",
	help: `Serves the chat page, the pages for usage and health, and the OpenAI-compatible API under /v1. Works without any
configuration: the notes (or the handbook) answer by themselves, Ollama on this machine and API keys in the environment are
found. It listens on this machine only, unless auth is configured.

Examples:
  llm-runner serve
  llm-runner serve --vault ~/notes --listen 127.0.0.1:9000
  llm-runner serve --config /etc/llm-runner/runner.yaml --data /var/lib/llm-runner

Exit codes: 0 after Ctrl-C or SIGTERM, 1 failed, 2 the configuration is wrong (every fault is listed).`,
	setup: func(fs *flag.FlagSet, c *call) func(context.Context) error {
		fs.StringVar(&c.Listen, "listen", "", "`ADDR` to listen on (default 127.0.0.1:8080)")
		verbose := fs.Bool("verbose", false, "log every request")
		return func(ctx context.Context) error {
			if len(c.args) > 0 {
				return usageError{fmt.Sprintf("serve takes no argument, but was given %q", c.args[0])}
			}
			config, err := Load(c.Options)
			if err != nil {
				return err
			}
			level := slog.LevelInfo
			if *verbose {
				level = slog.LevelDebug
			}
			return c.serve(ctx, config, slog.New(slog.NewTextHandler(c.stderr, &slog.HandlerOptions{Level: level})))
		}
	},
}

// patience is how long answers under way may go on after the signal to stop.
const patience = 10 * time.Second

// serve assembles, starts, waits, and stops in reverse. The page answers before any provider has been asked anything.
func (c *call) serve(ctx context.Context, config *Config, log *slog.Logger) error {
	l, err := net.Listen("tcp", config.Listen)
	if err != nil {
		return fmt.Errorf("%w: stop what listens there, or choose another address with --listen", err)
	}
	defer l.Close()

	hook := discord.New(string(config.Discord.Webhook))
	tell := func(route.Change) {}
	if config.Discord.Webhook != "" {
		tell = (&alerts{hook: hook}).changed
	}
	back := make(chan string, 64) // machines that have come back, for the jobs that are held for them
	a, err := assemble(ctx, config, log, func(c route.Change) {
		tell(c)
		if c.Up {
			select {
			case back <- c.Provider:
			default: // its jobs look for themselves before long
			}
		}
	})
	if err != nil {
		return err
	}
	defer a.close()

	chats, err := chat.New(ctx, a.db, a.router, chat.Config{Cost: config.Prices.Cost, Log: log})
	if err != nil {
		return err
	}
	work, queue, err := a.queue(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err := work.Close(patience); err != nil {
			log.Error("stop jobs", "error", err)
		}
	}()
	token := "" // for this user's own commands, where anybody else has to show one
	if config.authenticated() {
		token = rand.Text()
	}
	pages, err := a.pages(chats, queue)
	if err != nil {
		return err
	}
	gate, err := a.guard(token)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	gateway.New(gateway.Config{Router: a.router}).Register(mux)
	mux.Handle("/", pages)
	server := guard.Server(config.Listen, gate.Wrap(mux))
	server.RegisterOnShutdown(pages.Drain)
	bell := doorbell{URL: "http://" + reachable(l.Addr()), Token: token}
	if err := a.owner.announce(bell); err != nil {
		return err
	}

	parts := []func(context.Context) error{a.router.Run, a.library.Run, func(ctx context.Context) error { return wake(ctx, queue, back) }}
	if config.Discord.Webhook != "" {
		parts = append(parts, func(ctx context.Context) error {
			return hook.Run(ctx, func(err error) { log.Error("alert lost", "error", err) })
		})
	}
	a.start(parts...)
	if err := work.Launch(); err != nil {
		return err
	}

	// Chats stop together with the doors: their turns still need the router and the ledger, which stop after them.
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	chatsDone := make(chan error, 1)
	go func() { chatsDone <- chats.Run(ctx) }()
	log.Info("serving", "url", bell.URL, "data", config.Data, "version", version)
	err = serveUntil(ctx, l, server, patience)
	stop()
	return errors.Join(err, <-chatsDone)
}

// queue opens the durable engine and the jobs that it calls; nothing runs until it is launched.
func (a *app) queue(ctx context.Context) (*engine.Engine, *jobs.Service, error) {
	handle, err := a.db.NewWriter()
	if err != nil {
		return nil, nil, err
	}
	work, err := engine.Open(ctx, handle, engine.Config{Log: a.log})
	if err != nil {
		return nil, nil, err
	}
	queue, err := jobs.New(ctx, a.db, work, a.router, jobs.Config{Cost: a.config.Prices.Cost, Log: a.log})
	if err != nil {
		return nil, nil, errors.Join(err, work.Close(patience))
	}
	return work, queue, nil
}

// wake has the jobs go on that are held for a machine which has come back.
func wake(ctx context.Context, queue *jobs.Service, back <-chan string) error {
	for {
		select {
		case name := <-back:
			if err := queue.Back(ctx, name); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// guard makes what every request has to pass.
func (a *app) guard(token string) (*guard.Guard, error) {
	c := guard.Config{Listen: a.config.Listen, Hosts: a.config.Hosts, KeyFile: filepath.Join(a.config.Data, "cookie.key"),
		Password: string(a.config.Auth.Password), Tokens: map[string]string{}, Log: a.log}
	if token != "" {
		c.Tokens["local"] = token
	}
	for name, t := range a.config.Auth.Tokens {
		c.Tokens[name] = string(t)
	}
	return guard.New(c)
}

// pages makes the pages for people.
func (a *app) pages(chats *chat.Service, queue *jobs.Service) (*web.Site, error) {
	return web.New(web.Config{Chats: chats, Jobs: queue, Router: a.router, Ledger: a.ledger, DB: a.db, Version: version, Log: a.log,
		Note: func(ctx context.Context, path string) ([]byte, error) {
			note, err := a.library.Note(ctx, path)
			return note.Text, err
		},
		NoModel:      func() bool { return !a.connected() },
		Dependencies: func() []web.Dependency { return []web.Dependency{a.notes()} },
	})
}

// notes says how the library is.
func (a *app) notes() web.Dependency {
	s := a.library.Status()
	d := web.Dependency{Name: "notes", State: route.Up, Says: fmt.Sprintf("%d of %d notes of %s are indexed, %d skipped", s.Notes, s.Found, s.Source, len(s.Skipped))}
	if s.Error != "" {
		d.State, d.Says, d.Cure = route.Down, s.Error, "is the folder of vault.path there, and may this user read it?"
	}
	return d
}

// reachable is the address under which this machine reaches a listener.
func reachable(addr net.Addr) string {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return addr.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}
